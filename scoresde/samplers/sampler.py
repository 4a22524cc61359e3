r"""Define the base class of samplers, with hyperparameters as fields and a method `step`.

`step(rsde, x, t, s, noise)` turns a draw from $p_t$ into a draw from $p_s$, $s \le t$. The loop
over a time grid is `trajectory`; multistep and adaptive methods override it.
"""

from __future__ import annotations

import abc
import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import ClassVar, Protocol, Self

from torch import Tensor

from scoresde.checks import check_fields, check_integer, check_range, summary
from scoresde.sde import SDE, Condition, Facts, Field, Moments, ReverseSDE

__all__ = ["Adaptive", "NoiseLike", "Sampler", "State"]


class NoiseLike(Protocol):
    """Declare the methods of a sampler's source of randomness, such as `scoresde.Noise`."""

    def normal(self, like: Tensor, t: Tensor | float, k: int = 0) -> Tensor:
        """Return the k-th standard normal draw at time t, of the shape of `like`."""
        ...

    def increment(self, like: Tensor, s: Tensor | float, t: Tensor | float) -> Tensor:
        """Return the standardised increment of one Brownian path over [s, t]."""
        ...

    def increments(self, like: Tensor, s: Tensor, t: Tensor) -> Tensor:
        """Return the increments of each sample over its own interval, 0 if it is empty."""
        ...

    def area(self, like: Tensor, s: Tensor | float, t: Tensor | float) -> Tensor:
        """Return the standardised space-time Lévy area of the same path over [s, t]."""
        ...

    def fork(self, k: int) -> NoiseLike:
        """Return an independent source of noise for the same samples."""
        ...


@dataclass(frozen=True, eq=False, repr=False)
class State:
    """Hold the samples at one time of a run.

    Attributes:
        t: The time, a float64 scalar tensor.
        x: The samples `(B, *)` at that time.
        denoised: $E[x_0 | x_t]$ if it was computed, else `None`.
        nfe: The evaluations of the score for each sample so far.
        passes: The network passes in these evaluations.
        columns: The names of the entries of a sample, if the score knows them.

    Examples:
        >>> import scoresde
        >>> score = scoresde.targets.Gaussian([0.0], std=1.0).at(scoresde.VPSDE())
        >>> for state in scoresde.trajectory(score, sampler="ddim", steps=1, seed=0):
        ...     print(f"{state.t:.3f} {state.nfe}")
        1.000 0
        0.001 1
        0.001 2
    """

    t: Tensor
    x: Tensor
    denoised: Tensor | None = None
    nfe: int = 0
    passes: int = 0
    columns: tuple[str, ...] = ()

    __repr__ = summary

    @classmethod
    def of(cls, rsde: ReverseSDE, t: Tensor, x: Tensor, denoised: Tensor | None = None) -> State:
        """Return the state of a run at time `t`, with the evaluations and passes so far."""
        return cls(t, x, denoised, rsde.nfe, rsde.passes)


class Sampler(abc.ABC):
    """Define a sampling method as a frozen dataclass of its hyperparameters.

    Facts about a method that a run needs, such as its order, are attributes of the class, or
    properties if they depend on the hyperparameters.

    Attributes:
        steps: The default number of steps.
    """

    steps: ClassVar[int] = 100

    def __post_init__(self) -> None:
        check_fields(self)

    # Facts

    @property
    def nfe_per_step(self) -> int:
        """Return the number of evaluations of one `step`."""
        return 1

    @property
    def order(self) -> int | None:
        """Return the order of convergence of the method without noise, as the steps get shorter.

        The order is None if shorter steps do not make the method converge, as for Langevin dynamics
        with a fixed step size, or if the method chooses its steps itself. For a multistep method it
        is the number of evaluations that a step uses when there are enough earlier steps.
        """
        return 1

    @property
    def stochastic(self) -> bool:
        """Return True if the method adds noise."""
        return True

    @property
    def conditional(self) -> bool:
        r"""Return True if a step draws from $p(x_s | x_t)$, with the noise of the reverse SDE.

        With another amount of noise, as with `eta` or `tau` other than 1, only the marginals are
        right.
        """
        shares = (getattr(self, name, 1.0) for name in ("eta", "tau"))
        return self.stochastic and not self.invariant and all(share == 1.0 for share in shares)

    @property
    def adaptive(self) -> bool:
        """Return True if the method chooses further steps between two times of the grid."""
        return False

    @property
    def coupled(self) -> bool:
        """Return True if a sample depends on other samples of its batch."""
        return False

    @property
    def between(self) -> bool:
        """Return True if the score is evaluated between times of the grid (not for ladders)."""
        return False

    @property
    def invariant(self) -> bool:
        r"""Return True for a corrector: its `step` at s = t moves samples and keeps $p_t$."""
        return False

    @property
    def stepwise(self) -> bool:
        """Return True if an outer sampler may take the steps of a run by calling `step`."""
        return True

    @property
    def takes_start(self) -> bool:
        """Return True if a run can start at given states, as in `sample(x=...)`."""
        return True

    @property
    def uses_pilot(self) -> bool:
        """Return True if the method uses the result of `scoresde.pilot`."""
        return False

    @property
    def auditioned(self) -> bool:
        """Return True if the method has settings that are chosen for a model by trying them."""
        return False

    @property
    def differentiable(self) -> bool:
        """Return True if samples can be differentiated in the initial states and the score."""
        return all(v.differentiable for v in vars(self).values() if isinstance(v, Sampler))

    @property
    def conditions(self) -> tuple[str, ...]:
        """Return the names of the conditions that the sampler itself uses."""
        return ()

    def declared(self, event: tuple[int, ...]) -> Mapping[str, Field]:
        """Return the kinds of the sampler's `conditions`, for events of this shape."""
        return {}

    def checked(self, condition: Condition) -> Condition:
        """Check that the sampler's `conditions` fit together, and return them."""
        return condition

    # Budgets and grids

    def cost(self, steps: int) -> int:
        """Return an upper bound of the evaluations in a run; `steps_for` needs it to be linear."""
        return steps * self.nfe_per_step

    def states(self, steps: int) -> int:
        """Return the number of states that `trajectory` yields in a run of `steps` steps."""
        return steps

    def steps_for(self, nfe: int) -> int:
        """Return the largest number of steps with at most `nfe` evaluations, or 0."""
        start = self.cost(0)
        return max(nfe - start, 0) // (self.cost(1) - start)

    def prepared(self, facts: Facts, sde: SDE, *, nfe: int | None = None) -> Sampler:
        """Return the sampler set up for a score; by default unchanged.

        Args:
            facts: The facts of the score.
            sde: The process.
            nfe: The largest number of evaluations of a run, or None.
        """
        return self

    def times(self, sde: SDE, steps: int | None, moments: Moments | None = None) -> Tensor:
        """Return the default grid of the sampler, `(steps + 1,)`; here the default grid of the SDE.

        Args:
            sde: The process.
            steps: The number of steps; `None` takes every level of an SDE with levels.
            moments: The data's moments, if known.
        """
        return sde.times(steps)

    @abc.abstractmethod
    def step(self, rsde: ReverseSDE, x: Tensor, t: Tensor, s: Tensor, noise: NoiseLike) -> Tensor:
        """Turn a draw `x` from p_t into a draw from p_s.

        Args:
            rsde: The reverse SDE.
            x: States `(B, *)`.
            t: The time of `x`, a float64 scalar tensor.
            s: The time of the result, `s <= t`.
            noise: The source of randomness.
        """

    def trajectory(
        self, rsde: ReverseSDE, x: Tensor, times: Tensor, noise: NoiseLike
    ) -> Iterator[State]:
        """Yield the states at `times[1:]`, from `x` at `times[0]`."""
        for t, s in itertools.pairwise(times):
            x = self.step(rsde, x, t, s, noise)
            yield State.of(rsde, s, x)

    def finish(self, rsde: ReverseSDE, x: Tensor, t: Tensor, noise: NoiseLike) -> Tensor:
        r"""Return $E[x_0 | x_t]$ at the end of a run, by one evaluation without noise."""
        return rsde.denoise(x, t)


class Adaptive(Sampler):
    """Define a method that chooses its own steps between two times of the grid.

    Its default grid is T and eps. A limit on the evaluations does not set the number of steps;
    instead, the method raises an error when it reaches the limit.

    Rounding can decide whether a step is accepted, and the rounding of a float32 network depends on
    the size of the batch. So a sample may differ, within the tolerance, if the batch has another
    size. With the same `batch_size` a sample is the same bit for bit, whatever the number of
    samples, unless the method has one step size for the whole batch, as `Scipy` has.

    Attributes:
        rtol: The tolerance relative to the state, in units in which noise and data are of order 1.
        atol: The absolute tolerance, in the same units.
        max_nfe: The largest number of evaluations between two times of the grid.
        least: The number of evaluations of the shortest possible run.
    """

    steps: ClassVar[int] = 1
    order = None
    adaptive = True
    between = True
    least: ClassVar[int] = 2
    rtol: float
    atol: float
    max_nfe: int

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("rtol", "atol"):
            check_range(name, getattr(self, name), "(0, inf)")
        check_integer("max_nfe", self.max_nfe, self.least)

    @property
    def nfe_per_step(self) -> int:
        """Return the largest number of evaluations of one step."""
        return self.max_nfe

    def steps_for(self, nfe: int) -> int:
        """Return 1, for one step from T to eps, if `nfe` allows the shortest run, else 0."""
        return int(nfe >= self.least)

    def prepared(self, facts: Facts, sde: SDE, *, nfe: int | None = None) -> Self:
        """Return this method with `max_nfe` limited to `nfe`, but enough for the shortest run."""
        if nfe is None:
            return self
        most = max(min(self.max_nfe, nfe), self.least)
        return replace(self, max_nfe=most)  # type: ignore[type-var]
