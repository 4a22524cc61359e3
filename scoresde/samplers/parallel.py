r"""Compute the evaluations of a run in parallel, by fixed-point iteration.

The N states at which a run evaluates the score solve a system of N equations. Each round of the
iteration approximates the score near the state $x_i$ of the last round by

$$ s(x, t_i) \approx s(x_i, t_i) + h_i (x - x_i), $$

runs the sampler with this model of the score, which costs no evaluation, and then evaluates the
score at all new states at once. This works for every sampler with a fixed number of evaluations,
including its noise and the earlier evaluations of a multistep method. In the first round the slope
$h_i$ is $-1 / (\alpha^2 v + \sigma^2)$, the slope for Gaussian data with the mean variance v. Later
it is the secant's slope along the last change of the state, limited to the interval from
$-1/\sigma^2$, the slope for a single data point, to 0. A slope of 0 in the coordinates of the
reverse SDE gives Picard iteration (Shih et al. 2023, arXiv:2305.16317). Tang et al. (2024,
arXiv:2402.09970) also use earlier rounds, by Anderson acceleration.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, NoReturn

import torch
from torch import Tensor

from scoresde.checks import check_integer, check_range, quoted
from scoresde.errors import InvalidTypeError
from scoresde.samplers.around import Around
from scoresde.samplers.sampler import NoiseLike, State
from scoresde.sde import Moments, ReverseSDE, Score, expand

__all__ = ["Parallel"]


@dataclass(frozen=True)
class Parallel(Around):
    r"""Run a sampler with many evaluations at once, for few samples on a device with idle cores.

    The samples equal the samples of the inner sampler up to the tolerance. There are more
    evaluations in total, but many are made at once. For example, 100 steps of DDIM on the packaged
    digits took 15 rounds of 20 evaluations for each sample at the tolerance .001, or 12 rounds of
    100 evaluations (see the page "Devices"). `Samples.info["sequential"]` is the number of rounds
    of each sample, and `Samples.nfe` the total number of evaluations of one sample.

    A state is accepted if it has moved by at most `tolerance` since its score was evaluated, and
    all earlier states are accepted. Each round accepts at least one state, so there are never more
    rounds than evaluations of the inner sampler. The error of an accepted state may grow later in
    the run. For the digits the median difference from the samples of the inner sampler was 1 to 4
    times the tolerance, and up to 150 times for samples near the boundary between two digits. Each
    sample is iterated separately, so it does not depend on the rest of its batch.

    Memory: about six states for every evaluation of every sample.

    Args:
        sampler: The sampler, which must not be adaptive or couple the samples of a batch.
        tolerance: The largest root mean square change of a state over its entries, in units of
            $\sqrt{\alpha^2 v + \sigma^2}$.
        width: The number of evaluations of one sample in a round, at least 1.

    Raises:
        InvalidTypeError: The sampler chooses its steps itself, couples samples, or uses more than
            the values of the score, such as `MALA`.
        InvalidValueError: The tolerance is not positive, or the width not at least 1.

    Examples:
        >>> import scoresde
        >>> from scoresde.samplers import DDIM, Parallel
        >>> model = scoresde.load("mnist")
        >>> run = scoresde.Run.of(model, sampler=Parallel(DDIM(), 1e-2), steps=40, n=1, seed=0)
        >>> samples = run.draw()
        >>> samples.x.shape, samples.info["sequential"] < 20
        (torch.Size([1, 1, 28, 28]), tensor([True]))
    """

    tolerance: float = 1e-3
    width: int = 32

    def __post_init__(self) -> None:
        super().__post_init__()
        check_range("tolerance", self.tolerance, "(0, inf)")
        check_integer("width", self.width, 1)
        if self.sampler.adaptive or self.sampler.coupled:
            adaptive = self.sampler.adaptive
            fault = "chooses its steps itself" if adaptive else "couples the samples of a batch"
            raise InvalidTypeError(
                f"{quoted(self.sampler)} {fault}, so its evaluations are not known in advance; "
                "take a sampler with a fixed number of steps, such as DDIM()"
            )

    @property
    def stepwise(self) -> bool:
        """Return False, since a single step has nothing to compute in parallel."""
        return False

    @property
    def differentiable(self) -> bool:
        """Return False, since the iteration has no autograd graph of the sampler's run."""
        return False

    def cost(self, steps: int) -> int:
        """Return an upper bound of the evaluations, with one round for each inner evaluation."""
        return self.width * self.sampler.cost(steps)

    def trajectory(
        self, rsde: ReverseSDE, x: Tensor, times: Tensor, noise: NoiseLike
    ) -> Iterator[State]:
        """Yield the states of the sampler, each as soon as it is accepted for all samples."""
        models, shown = _Models(rsde, x.shape), 0
        while True:
            run = _Modelled(rsde, models)
            # a copy, since a sampler may change its state in place
            for i, state in enumerate(self.sampler.trajectory(run, x.clone(), times, noise)):
                if i == shown and run.nfe <= models.final:
                    yield replace(state, nfe=rsde.nfe, passes=rsde.passes)
                    shown += 1
            if models.final == len(run.seen):
                break
            models.improve(run.seen, self.tolerance, self.width)
        for name, values in run.info.items():
            rsde.report(name, values)
        rsde.report("sequential", models.rounds.to(x))


class _Modelled(ReverseSDE):
    """Reverse an SDE with models of the score, and record the states at which they are called."""

    def __init__(self, rsde: ReverseSDE, models: _Models) -> None:
        super().__init__(
            rsde.sde, rsde._score, moments=rsde.moments, condition=rsde.condition,
            withheld=rsde.withheld,
        )  # fmt: skip
        self.models = models
        self.seen: list[Tensor] = []

    def score(self, x: Tensor, t: Tensor | float) -> Tensor:
        """Return the value of the next model at `x`."""
        value = self.models.value_at(self.nfe, x, t)
        self.seen.append(x.clone())
        self.nfe += 1
        return value

    def attribute(self, name: str) -> NoReturn:
        """Raise InvalidTypeError, since only values of the score are modelled."""
        raise InvalidTypeError(
            f"the sampler uses {name} of the score, but Parallel models only its values; run the "
            "sampler without Parallel"
        )

    def _derived(self, score: Score, k: int, withheld: Sequence[str] = ()) -> NoReturn:
        """Raise InvalidTypeError, since only the score of the run itself is modelled."""
        raise InvalidTypeError(
            "the sampler evaluates copies of a state, or another score, which Parallel does not "
            "model; run the sampler without Parallel"
        )


class _Models:
    r"""Hold a linear model of the score for each of the N evaluations of a run.

    Attributes:
        rounds: The number of rounds of each sample until its last state was accepted, `(B,)`.
        final: The number of evaluations that are accepted for all samples.
    """

    def __init__(self, rsde: ReverseSDE, shape: torch.Size) -> None:
        self.rounds = torch.zeros(shape[0])
        self.final = 0
        self._rsde = rsde
        self._shape = shape
        self._round = 0
        # lists of N tensors `(B, ...)` in the first run, stacked after it
        self._t: Any = []
        self._x: Any = []  # the state at which the model has the value `_value`
        self._value: Any = []
        self._slope: Any = []
        self._steepest: Any = []  # -1 / sigma^2
        self._unit: Any = []  # the unit of changes, the standard deviation of the state
        self._fresh = torch.zeros(0)  # True if `_value` is the score at `_x`, not a model's guess

    def value_at(self, i: int, x: Tensor, t: Tensor | float) -> Tensor:
        """Return the model of the i-th evaluation at states `(B, *)`."""
        if x.shape != self._shape:
            raise InvalidTypeError(
                f"the sampler evaluates states of shape {tuple(x.shape)} instead of "
                f"{tuple(self._shape)}, so Parallel cannot model them; run it without Parallel"
            )
        time = self._rsde.sde.cpu_time(t).expand(len(x))
        begun = i < len(self._x)
        if not begun and not self._round:
            self._begin(x, time)
        elif not begun or not torch.equal(time, self._t[i]):
            raise _changing()
        value: Tensor = self._value[i] + expand(self._slope[i], x) * (x - self._x[i])
        return value

    def _begin(self, x: Tensor, time: Tensor) -> None:
        """Append the score of Gaussian data as the first model of the next evaluation."""
        sde, known = self._rsde.sde, self._rsde.moments or Moments(0.0, var=1.0)
        alpha, sigma = sde.alpha(time), sde.sigma(time)
        variance = alpha**2 * known.mean_variance() + sigma**2
        self._t.append(time)
        self._x.append(expand(alpha, x) * torch.as_tensor(known.mean).to(x).expand_as(x))
        self._value.append(torch.zeros_like(x))
        self._slope.append((-1 / variance).to(x))
        self._steepest.append((-1 / sigma**2).to(x))
        self._unit.append(variance.sqrt().to(x))

    def improve(self, seen: list[Tensor], tolerance: float, width: int) -> None:
        """Evaluate the score at the first states that are not accepted.

        Args:
            seen: The states `(B, *)` of each evaluation in the run with the models.
            tolerance: The largest change of an accepted state.
            width: The number of states of each sample that are evaluated.
        """
        n, batch = len(seen), len(seen[0])
        if n != len(self._x):
            raise _changing()
        if not self._round:
            for name in ("_t", "_x", "_value", "_slope", "_steepest", "_unit"):
                setattr(self, name, torch.stack(getattr(self, name)))
            self._fresh = torch.zeros(n, batch, dtype=torch.bool)
        new = torch.stack(seen)
        change = new - self._x
        moved = (_inner(change, change) / max(math.prod(new.shape[2:]), 1)).sqrt() / self._unit
        accepted = ((moved.cpu() <= tolerance) & self._fresh).long().cumprod(0).sum(0)
        # the first state after the accepted ones will not move again; a NaN is not accepted
        accepted = accepted.clamp(min=min(self._round, n))
        self.final = int(accepted.min()) if batch else n
        if self.final == n:
            return
        self._round += 1
        self.rounds += accepted < n
        # the batch has the same shape in each round, so that a network's rounding does not depend
        # on the other samples
        width = min(width, n)
        i = (accepted.clamp(max=n - width)[:, None] + torch.arange(width)).flatten()
        b = torch.arange(batch).repeat_interleave(width)
        value = self._rsde.repeat(width).score(new[i, b], self._t[i, b])
        use = i >= accepted[b]
        self._replace(i[use], b[use], new, value[use])

    def _replace(self, i: Tensor, b: Tensor, new: Tensor, value: Tensor) -> None:
        """Set new states and values for the models of evaluations i of samples b."""
        x = new[i, b]
        step, change = x - self._x[i, b], value - self._value[i, b]
        secant = _inner(step[None], change[None])[0] / _inner(step[None], step[None])[0]
        secant = torch.minimum(secant, secant.new_zeros(())).maximum(self._steepest[i, b])
        keep = ~self._fresh[i, b].to(x.device) | secant.isnan()
        self._slope[i, b] = torch.where(keep, self._slope[i, b], secant)
        self._x[i, b], self._value[i, b] = x, value
        self._fresh[i, b] = True


def _changing() -> InvalidTypeError:
    return InvalidTypeError(
        "the number or the times of the sampler's evaluations depend on the values of the score, "
        "so they cannot be made in parallel; run the sampler without Parallel"
    )


def _inner(a: Tensor, b: Tensor) -> Tensor:
    """Return the inner products of events, `(N, B)`, of tensors `(N, B, *)`."""
    return (a * b).reshape(*a.shape[:2], math.prod(a.shape[2:])).sum(-1)
