r"""A sampling run whose arguments have been checked: start, steps, and Tweedie at the end.

The start is a draw of the law at the first time, the sampler walks down the grid, and Tweedie's
formula at its end, the one move without noise, removes the noise that is left there.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from scoresde.checks import is_out_of_memory
from scoresde.errors import MemoryLimitError, NonFiniteError
from scoresde.noise import Noise
from scoresde.samplers import Sampler, State
from scoresde.score import Conditional
from scoresde.sde import SDE, Moments

__all__ = ["Run", "Score"]

Score = Callable[..., Tensor]


@dataclass(frozen=True, eq=False)
class Run:
    """A checked sampling problem."""

    model: Score
    sde: SDE
    sampler: Sampler
    shape: tuple[int, ...]
    times: Tensor
    start: Tensor | None
    seeds: list[int]
    indices: list[int]
    denoise: bool
    condition: Mapping[str, Tensor] | None
    data: Moments | None
    device: torch.device
    dtype: torch.dtype

    @property
    def n(self) -> int:
        """The number of samples."""
        return len(self.seeds)

    @property
    def length(self) -> int:
        """The usual number of states, for the progress bar."""
        return len(self.times) + self.denoise

    def rows(self, i: int, size: int) -> Run:
        """Samples i ... i + size - 1, the last one repeated where there are fewer."""
        rows = [min(row, self.n - 1) for row in range(i, i + size)]
        condition = self.condition
        return replace(
            self,
            seeds=[self.seeds[row] for row in rows],
            indices=[self.indices[row] for row in rows],
            start=None if self.start is None else self.start[rows],
            condition=condition and {name: value[rows] for name, value in condition.items()},
        )

    def _prior(self) -> Moments:
        """The law at the first time, as far as it is known."""
        start = self.times[0]
        if self.data is None or math.isclose(start, self.sde.T, rel_tol=1e-6):
            return self.sde.prior(self.data)
        return self.data.at(self.sde.alpha(start), self.sde.sigma(start))

    def samples(self, end: State) -> Tensor:
        """The samples of the last state, in the dtype that was asked for."""
        x = end.x if end.denoised is None else end.denoised
        out = x.to(self.dtype)
        if not out.isfinite().all():
            raise NonFiniteError(
                f"samples of up to {float(x.abs().max()):.3g} are too large for {self.dtype}; "
                "give dtype=torch.float32"
            )
        return out

    def states(self) -> Iterator[State]:
        """The run itself; whoever walks it turns gradients off."""
        # states below single precision would lose the noise schedule
        work = torch.promote_types(self.dtype, torch.float32)
        noise = Noise(self.seeds, self.indices, horizon=self.sde.T)
        score: Score = self.model
        if self.condition:
            score = Conditional(score, self.condition)
        rsde = self.sde.reverse(score, data=self.data)
        try:
            if self.start is None:
                x = torch.empty(self.n, *self.shape, dtype=work, device=self.device)
                x = self._prior().sample(noise.normal(x, math.inf))
            else:
                x = self.start.to(self.device, work)
            state = State(self.times[0], x, None, 0)
            yield state
            for state in self.sampler.trajectory(rsde, x, self.times, noise):
                yield state
            # until here the score would have met what is not finite
            _check_end(state.x)
            if self.denoise:
                x0 = rsde.denoise(state.x, self.times[-1])
                _check_end(x0)
                yield State(self.times[-1], state.x, x0, rsde.nfe)
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
            raise MemoryLimitError(
                f"{self.n} samples of shape {self.shape} at once do not fit into memory; "
                f"give sample() a smaller batch_size, for example {max(self.n // 2, 1)}"
            ) from error


def _check_end(x: Tensor) -> None:
    if not x.isfinite().all():
        bad = (~x.isfinite()).reshape(len(x), -1).any(1).nonzero().flatten().tolist()
        raise NonFiniteError(
            f"the last step left NaN or infinity in samples {bad[:8]}; "
            "try more steps, or look at the size of the score"
        )
