r"""What a sampler is: hyperparameters with one verb, `step`.

`step(rsde, x, t, s, noise)` turns a draw of $p_t$ into a draw of $p_s$, $s \le t$. The loop over a
time grid is `trajectory`, shared by all but the methods with memory or steps of their own.
"""

from __future__ import annotations

import abc
import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar, Protocol

from torch import Tensor

from scoresde.errors import InvalidTypeError
from scoresde.sde import ReverseSDE

__all__ = ["NoiseLike", "Sampler", "State", "check_part"]


class NoiseLike(Protocol):
    """The source of randomness that a sampler is given; `scoresde.noise.Noise` is the real one."""

    def normal(self, like: Tensor, t: Tensor | float, k: int = 0) -> Tensor:
        """The k-th standard normal draw at time t, like `like`."""
        ...

    def increment(self, like: Tensor, s: Tensor | float, t: Tensor | float) -> Tensor:
        """The standardised increment of one Brownian path over [s, t]."""
        ...

    def area(self, like: Tensor, s: Tensor | float, t: Tensor | float) -> Tensor:
        """The standardised space-time Lévy area of the same path over [s, t]."""
        ...

    def fork(self, k: int) -> NoiseLike:
        """An independent stream for the same samples."""
        ...


@dataclass(frozen=True, eq=False)
class State:
    """One moment of a sampling run.

    Attributes:
        t: The time, a float64 scalar tensor.
        x: The samples `(B, *)` at that time.
        denoised: $E[x_0 | x_t]$ where the method or the last step computed it, else `None`.
        nfe: Network evaluations that each sample received so far.
    """

    t: Tensor
    x: Tensor
    denoised: Tensor | None
    nfe: int


class Sampler(abc.ABC):
    """A sampling method: a frozen dataclass of its hyperparameters.

    Attributes:
        steps: The number of steps taken when the user names none.
        nfe_per_step: Evaluations of one step.
    """

    steps: ClassVar[int] = 100
    nfe_per_step: ClassVar[int] = 1

    def steps_for(self, nfe: int) -> int:
        """How many steps a budget of `nfe` evaluations buys; 0 if not even one."""
        return nfe // self.nfe_per_step

    @abc.abstractmethod
    def step(self, rsde: ReverseSDE, x: Tensor, t: Tensor, s: Tensor, noise: NoiseLike) -> Tensor:
        """A draw `x` of p_t becomes a draw of p_s.

        Args:
            rsde: The reverse SDE.
            x: States `(B, *)`.
            t: The time of `x`, a float64 scalar tensor.
            s: The time to go to, `s <= t`.
            noise: Where randomness comes from.
        """

    def trajectory(
        self, rsde: ReverseSDE, x: Tensor, times: Tensor, noise: NoiseLike
    ) -> Iterator[State]:
        """The states at `times[1:]`, from `x` at `times[0]`."""
        for t, s in itertools.pairwise(times):
            x = self.step(rsde, x, t, s, noise)
            yield State(s, x, None, rsde.nfe)


def check_part(owner: str, part: object) -> None:
    """Raise InvalidTypeError unless the sampler `owner` can be made of `part`."""
    if isinstance(part, type) or not hasattr(part, "step"):
        raise InvalidTypeError(
            f"{owner} takes sampler objects such as `Ancestral()` and `Langevin()`, got {part!r}"
        )
