r"""Draw the unknown entries of events with the known entries fixed (imputation).

At every time the known entries are replaced by a draw of their noisy state,
$\alpha_s x_0 + \sigma_s z$, independently of the unknown entries. This biases the distribution of
the unknown entries. RePaint reduces the bias by repeating each step, with noise added before each
repetition to return to t (Lugmayr et al. 2022, algorithm 1, arXiv:2201.09865).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar, Self

import torch
from torch import Tensor

from scoresde.checks import as_numbers, check_integer, quoted
from scoresde.errors import InvalidTypeError, InvalidValueError, NonFiniteError, ShapeError
from scoresde.samplers.around import Around
from scoresde.samplers.flow.predictors import Ancestral
from scoresde.samplers.sampler import NoiseLike, Sampler, State
from scoresde.sde import SDE, Condition, Facts, Field, ReverseSDE, expand

__all__ = ["Impute"]

_NOISY = (
    "for entries that are known only up to noise, use a measurement: guidance.posterior(score, "
    "Linear(Mask(mask), std))"
)


@dataclass(frozen=True)
class Impute(Around):
    r"""Draw the unknown entries of an event, given its known entries.

    The sampler takes two conditions, `{"known": x, "mask": m}`, in model units, with one event for
    each sample or one for all. The mask is 1 for known entries; the other entries of `known` are
    ignored. Known entries have the right noise at every time, and are exact at the end unless
    `denoise=False`. The distribution of the unknown entries is biased, but less with a larger
    `resample`. If the bias matters, use `scoresde.guidance.posterior` with a `Mask`.

    Only the sampler's `step` is called, so a multistep method has order 1 here.

    Args:
        sampler: The inner sampler, which must take steps along the grid.
        resample: How many times each step is taken, at least 1. Before each repetition, fresh noise
            is added to return to the start of the step.
        basis: An orthonormal matrix `(k, k)` for the first axis of an event. `known` and `mask` are
            then coordinates in this basis, for example to colour a grey image.

    Raises:
        InvalidTypeError: The sampler chooses its own steps, or does more than take steps along the
            grid.
        InvalidValueError: `resample` is below 1, or the basis is not orthonormal.
        ShapeError: The basis is not a square matrix.

    Examples:
        >>> import scoresde, torch
        >>> from scoresde.samplers import DDIM, Impute
        >>> pair = scoresde.targets.Gaussian([0.0, 0.0], cov=[[1.0, 0.9], [0.9, 1.0]])
        >>> given = {"known": torch.tensor([1.5, 0.0]), "mask": torch.tensor([1, 0])}
        >>> method = Impute(DDIM(1.0), resample=5)
        >>> score = pair.at(scoresde.VPSDE())
        >>> x = scoresde.sample(score, None, method, n=9, steps=50, seed=0, condition=given)
        >>> x[:, 0].unique()
        tensor([1.5000])
    """

    steps: ClassVar[int] = 200
    sampler: Sampler = field(default_factory=Ancestral)
    resample: int = 1
    basis: tuple[tuple[float, ...], ...] | None = None

    conditions = ("known", "mask")
    conditional = False  # known entries of x_s do not depend on x_t

    def __post_init__(self) -> None:
        if self.basis is not None:
            object.__setattr__(self, "basis", _orthonormal(self.basis))
        super().__post_init__()
        check_integer("resample", self.resample, 1)
        if not self.sampler.stepwise:
            raise InvalidTypeError(
                f"{quoted(self.sampler)} does more than take steps along a grid, but Impute would "
                "use only the steps; take its inner sampler, such as Ancestral() or Heun()"
            )
        if self.sampler.adaptive:
            raise InvalidTypeError(
                f"{quoted(self.sampler)} chooses its steps itself, so Impute cannot set the known "
                "entries between them; take a method that takes steps along the grid, such as "
                "Ancestral() or Heun()"
            )

    @property
    def nfe_per_step(self) -> int:
        """Return the evaluations of a step of the inner sampler, multiplied by `resample`."""
        return self.resample * self.sampler.nfe_per_step

    @property
    def order(self) -> None:
        """Return None, since the bias does not vanish for small steps."""
        return None

    def prepared(self, facts: Facts, sde: SDE, *, nfe: int | None = None) -> Self:
        """Return this sampler with the inner one prepared for a score.

        Raises:
            InvalidValueError: The score takes a condition called known or mask.
        """
        if taken := {"known", "mask"} & (facts.conditions or {}).keys():
            raise InvalidValueError(
                "Impute uses the conditions known and mask, but the score also has "
                f"{', '.join(sorted(taken))}; give the score's condition another name"
            )
        return super().prepared(facts, sde)

    def declared(self, event: tuple[int, ...]) -> Mapping[str, Field]:
        """Return the kinds of the conditions known and mask.

        Raises:
            ShapeError: The basis has another length than the first axis of an event.
        """
        if self.basis is not None and event[:1] != (len(self.basis),):
            raise ShapeError(
                f"the basis has {len(self.basis)} rows, but the first axis of an event of shape "
                f"{event} has another length"
            )
        return {"known": Field(event), "mask": _Mask(event)}

    def checked(self, condition: Condition) -> Condition:
        """Check the conditions `known` and `mask` together, and return them.

        Raises:
            NonFiniteError: `known` is NaN where the mask is 1.
        """
        if (condition["known"].isnan() & (condition["mask"] != 0)).any():
            raise NonFiniteError(
                "known holds NaN where the mask is 1; set the mask to 0 for unknown entries"
            )
        return condition

    def step(self, rsde: ReverseSDE, x: Tensor, t: Tensor, s: Tensor, noise: NoiseLike) -> Tensor:
        """Take a step `resample` times, with noise added in between; set the known entries."""
        a, v = rsde.sde.transition(s, t)
        for j in range(self.resample):
            independent = noise.fork(j)
            if j:
                up = expand(v.sqrt(), x) * independent.fork(2).normal(x, t)
                x = self._imposed(rsde, expand(a, x) * x + up, t, independent.fork(3))
            x = self.sampler.step(rsde, x, t, s, independent.fork(0))
            x = self._imposed(rsde, x, s, independent.fork(1))
        return x

    def trajectory(
        self, rsde: ReverseSDE, x: Tensor, times: Tensor, noise: NoiseLike
    ) -> Iterator[State]:
        """Yield the states at `times[1:]`, with the known entries set at all times."""
        start = self._imposed(rsde, x, times[0], noise.fork(0).fork(1))
        yield from super().trajectory(rsde, start, times, noise)

    def finish(self, rsde: ReverseSDE, x: Tensor, t: Tensor, noise: NoiseLike) -> Tensor:
        """Return the sampler's final states, with the known entries set exactly."""
        return self._set(rsde, self.sampler.finish(rsde, x, t, noise), None)

    def _imposed(self, rsde: ReverseSDE, x: Tensor, t: Tensor, noise: NoiseLike) -> Tensor:
        """Return states at t with the known entries replaced by a draw of their noisy state."""
        alpha, sigma = rsde.sde.at(t, x)
        return self._set(rsde, x, (alpha, sigma * noise.normal(x, t)))

    def _set(self, rsde: ReverseSDE, x: Tensor, noisy: tuple[Tensor, Tensor] | None) -> Tensor:
        given: Mapping[str, Tensor] = rsde.condition or {}
        if "known" not in given or "mask" not in given:
            raise InvalidValueError(
                "Impute needs the conditions known and mask; give them, and do not put Impute "
                "inside another sampler"
            )
        known = given["known"].to(x)
        if noisy is not None:
            known = noisy[0] * known + noisy[1]
        mask = given["mask"].to(x.device) != 0
        if self.basis is None:
            return torch.where(mask, known, x)
        basis = torch.tensor(self.basis, dtype=torch.float64).to(x)
        inside = torch.where(mask, known, _turned(basis, x))
        return _turned(basis.T, inside)


class _Mask(Field):
    """Declare the condition `mask`, booleans or 0 and 1."""

    def check(self, name: str, value: Tensor) -> None:
        """Raise InvalidValueError unless all entries are 0 or 1."""
        if not ((value == 0) | (value == 1)).all():
            raise InvalidValueError(
                f"the {name} must be 1 for known entries and 0 for the others; {_NOISY}"
            )


def _turned(basis: Tensor, x: Tensor) -> Tensor:
    """Return the coordinates of events in a basis, along the first event axis."""
    return (x.movedim(1, -1) @ basis.T).movedim(-1, 1)


def _orthonormal(basis: Tensor | Sequence[Sequence[float]]) -> tuple[tuple[float, ...], ...]:
    """Return an orthonormal matrix as tuples.

    Raises:
        ShapeError, InvalidValueError: The matrix is not square or not orthonormal.
    """
    matrix = as_numbers("basis", basis, dtype=torch.float64)
    if matrix.ndim != 2 or len(matrix) != len(matrix.T):
        raise ShapeError(f"basis must be a square matrix, got shape {tuple(matrix.shape)}")
    gap = matrix @ matrix.T - torch.eye(len(matrix), dtype=torch.float64)
    if not float(gap.abs().max()) < 1e-5:
        raise InvalidValueError(
            "basis must be orthonormal, with rows of length 1 at right angles; torch.linalg.qr "
            "makes a matrix orthonormal"
        )
    return tuple(map(tuple, matrix.tolist()))
