r"""Check and run a sampling request.

A run draws the initial states, takes the sampler's steps down the grid, and removes the remaining
noise by the sampler's `finish`, by default Tweedie's formula.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, TypedDict

import torch
from torch import Tensor

from scoresde.checks import check_integer, door, in_memory, named_device, narrowed, summary
from scoresde.errors import MemoryLimitError
from scoresde.noise import Noise, seeds_of
from scoresde.precision import full_precision, in_user_settings
from scoresde.progress import showing
from scoresde.samplers import Sampler, State
from scoresde.sampling import request
from scoresde.sampling.gradients import check_differentiable, checkpointed
from scoresde.sampling.samples import Samples, page_of
from scoresde.score import Pilot, device_of, evaluating
from scoresde.score.inside import in_evaluation, layers_of
from scoresde.sde import SDE, Condition, Facts, Moments, ReverseSDE, Score, facts, process_of
from scoresde.sde.watch import Watch
from scoresde.units import Transform

__all__ = ["Options", "Run", "Samples"]

# The largest number of entries in a chunk; a larger chunk does not fit into any memory.
_LARGEST = 2**36

Generators = torch.Generator | Sequence[torch.Generator]


class Options(TypedDict, total=False):
    """Declare the keyword arguments of `Run.of` for `sample` and `trajectory`."""

    n: int | None
    shape: Sequence[int] | None
    steps: int | None
    nfe: int | None
    times: Tensor | Sequence[float] | None
    x: Tensor | None
    seed: int | None
    generator: Generators | None
    first: int
    denoise: bool
    condition: Mapping[str, Any] | None
    moments: Moments | None
    pilot: Pilot | bool | None
    grad: bool
    units: bool
    progress: bool | None
    device: torch.device | str | None
    dtype: torch.dtype | None


@dataclass(frozen=True, eq=False, repr=False)
class Run:
    """Hold a sampling request, which `Run.of` makes after checking all arguments.

    Attributes:
        score: The score.
        sde: The process.
        sampler: The method, set up for the score.
        shape: The shape of one sample.
        times: The grid, `(N + 1,)`, decreasing, float64.
        noise: The noise of each sample.
        start: The states at `times[0]`, or None for draws from the prior.
        denoise: True if the run ends with the sampler's `finish`.
        condition: The conditions of the score and of the sampler.
        moments: The data's moments, if known.
        transform: The transform of the data, if samples are returned in the user's units, else
            None.
        grad: True if samples can be differentiated.
        progress: Show a bar; None shows a bar in a terminal or a notebook.
        device: The device of the states.
        dtype: The dtype of the samples.

    Examples:
        >>> import scoresde
        >>> run = Run.of(scoresde.load("mnist"), sampler="ddim", steps=3, n=2, seed=0)
        >>> samples = run.draw(batch_size=1)
        >>> samples.x.shape, samples.nfe
        (torch.Size([2, 1, 28, 28]), 4)
    """

    score: Score
    sde: SDE
    sampler: Sampler
    shape: tuple[int, ...]
    times: Tensor
    noise: Noise
    start: Tensor | None
    denoise: bool
    condition: Condition | None
    moments: Moments | None
    transform: Transform | None
    grad: bool
    progress: bool | None
    device: torch.device
    dtype: torch.dtype

    @classmethod
    @door
    def of(
        cls,
        score: Score,
        sde: SDE | None = None,
        sampler: str | Sampler = "pc",
        *,
        n: int | None = None,
        shape: Sequence[int] | None = None,
        steps: int | None = None,
        nfe: int | None = None,
        times: Tensor | Sequence[float] | None = None,
        x: Tensor | None = None,
        seed: int | None = None,
        generator: Generators | None = None,
        first: int = 0,
        denoise: bool = True,
        condition: Mapping[str, Any] | None = None,
        moments: Moments | None = None,
        pilot: Pilot | bool | None = None,
        grad: bool = False,
        units: bool = False,
        progress: bool | None = None,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> Run:
        """Return the checked request; arguments and errors are those of `sample`."""
        known = request.facts_of(score)
        sde = process_of(score, sde)
        asked = request.sampler_of(sampler, sde, known)
        request.check_start(x, asked)
        if grad:
            check_differentiable(asked)
        moments = known.moments if moments is None else moments
        event = request.event_shape(known.event_shape, shape, x)
        n = request.count(n, x)
        first = check_integer("first", first, 0)
        nfe = None if nfe is None else check_integer("nfe", nfe, 0)
        most = None if nfe is None else nfe - denoise
        budget = request.Budget(steps, nfe, times, denoise)

        def planned(known: Facts) -> tuple[Sampler, Tensor]:
            method = asked.prepared(known, sde, nfe=most)
            return method, budget.times(sde, method, known.steps, moments)

        method, grid = planned(replace(known, pilot=None))
        if device is not None:
            where = named_device(device)
        else:
            where = device_of(score) if x is None else x.device
        with in_memory(f"a run of {n} samples does not fit into memory; draw fewer at a time"):
            seeds, indices = seeds_of(n, seed, generator, first)
            noise = Noise(seeds, indices, horizon=sde.T)
        condition = request.conditions_of(condition, n, known, method, event, where)
        dtype = request.dtype_of(dtype, x)
        if asked.uses_pilot and pilot is not False:
            # measuring a pilot takes long, so all that a user can get wrong is checked before
            known = request.with_pilot(known, asked, pilot, len(grid) - 1, progress)
            method, grid = planned(known)
        request.check_prior(x, moments, sde, grid)
        request.warn_of_large_noise(sde, method, moments, float(grid[0]))
        request.warn_of_last_noise(sde, moments, float(grid[-1]))
        return cls(
            score=score,
            sde=sde,
            sampler=method,
            shape=event,
            times=grid,
            noise=noise,
            start=None if x is None else (x if grad else x.detach()).clone(),
            denoise=denoise,
            condition=condition,
            moments=moments,
            transform=request.transform_of(known) if units else None,
            grad=grad,
            progress=progress,
            device=where,
            dtype=dtype,
        )

    __repr__ = summary

    def _repr_html_(self) -> str:
        return page_of("run_page", self)

    @property
    def n(self) -> int:
        """Return the number of samples."""
        return len(self.noise)

    def rows(self, rows: Sequence[int]) -> Run:
        """Return the run of some of the samples, each with its own noise and condition.

        Args:
            rows: The positions of the samples in this run, from 0 to n - 1.
        """
        return replace(
            self,
            noise=Noise(
                [self.noise.seeds[row] for row in rows],
                [self.noise.indices[row] for row in rows],
                horizon=self.sde.T,
            ),
            start=None if self.start is None else self.start[rows],
            condition=None if self.condition is None else self.condition.rows(rows),
        )

    def draw(self, batch_size: int | None = None) -> Samples:
        """Draw the samples.

        Args:
            batch_size: The number of samples to draw at once, which limits the memory. Every chunk
                has exactly this size (the last chunk is padded), so that a network's rounding does
                not depend on n.

        Raises:
            NonFiniteError: The score has a NaN or an infinity, or samples overflow the dtype.
            ConvergenceError: An adaptive sampler needs more evaluations than it may take.
            DeviceError: The score and the states are on different devices.
            MemoryLimitError: A chunk does not fit into memory.
        """
        size = max(self.n, 1) if batch_size is None else check_integer("batch_size", batch_size, 1)
        if size * max(math.prod(self.shape), 1) > _LARGEST:
            raise MemoryLimitError(
                f"{size} samples of shape {self.shape} at once are more than 2**36 numbers; give a "
                "smaller batch_size"
            )
        chunks = [
            # the last sample is repeated to pad the chunk
            self.rows([min(row, self.n - 1) for row in range(i, i + size)])
            for i in range(0, self.n, size)
        ] or [self]
        parts, reports, nfe, passes = [], [], 0, 0
        with self._in_full_precision(), evaluating(self.score), self._bar(len(chunks)) as bar:
            for chunk in chunks:
                rsde = chunk._reversed()
                for state in chunk._states(rsde):  # noqa: B007
                    bar.update()
                parts.append(chunk._samples(state))
                reports.append(rsde.info)
                nfe, passes = max(nfe, state.nfe), max(passes, state.passes)
        x = torch.cat(parts)[: self.n]
        request.warn_of_growth(x, self.moments, facts(self.score))
        if self.transform is not None:
            x = self.transform.inverse(x) if self.grad else self.transform.restore(x)
            x = narrowed("samples", x, self.dtype) if x.is_floating_point() else x
        info = {k: torch.cat([part[k] for part in reports])[: self.n] for k in reports[0]}
        return Samples(x, nfe, passes, info)

    def states(self) -> Iterator[State]:
        """Yield the states of the run one by one; `break` stops it early.

        The first state that is yielded is the initial state. With `denoise` the last state repeats
        the time and the samples of the state before it, and also has `denoised`. States may be
        changed in place.
        """
        layers = layers_of(self.score)
        with self._bar(1) as bar, contextlib.closing(self._copies()) as steps:
            while True:
                # code of the user runs between two states, and may train the score
                with self._in_full_precision(), in_evaluation(layers):
                    state = next(steps, None)
                if state is None:
                    return
                bar.update()
                yield state

    def _copies(self) -> Generator[State, None, None]:
        columns = facts(self.score).columns or ()
        for state in self._states(self._reversed()):
            x, denoised = state.x.clone(), state.denoised
            if self.transform is not None:
                x = self.transform.inverse(x)
                denoised = None if denoised is None else self.transform.inverse(denoised)
            yield replace(state, x=x, denoised=denoised, columns=columns)

    @contextmanager
    def _in_full_precision(self) -> Iterator[None]:
        """Run the block in full precision, except the score, with gradients only if `grad`."""
        with torch.set_grad_enabled(self.grad), full_precision():
            yield

    @contextmanager
    def _bar(self, chunks: int) -> Iterator[Any]:
        total = chunks * (1 + self.sampler.states(len(self.times) - 1) + self.denoise)
        with showing(total, "sampling", show=self.progress) as bar:
            yield bar

    def _reversed(self) -> ReverseSDE:
        """Return the reverse SDE for the sampler."""
        return ReverseSDE(
            self.sde, self.score, moments=self.moments, condition=self.condition,
            withheld=self.sampler.conditions, watch=Watch(),
            evaluate=checkpointed(self.score) if self.grad else in_user_settings,
        )  # fmt: skip

    def _states(self, rsde: ReverseSDE) -> Iterator[State]:
        """Yield the states without copying them; the caller turns gradients off."""
        # half precision cannot represent the noise schedule
        work = torch.promote_types(self.dtype, torch.float32)
        with in_memory(
            f"{self.n} samples of shape {self.shape} at once do not fit into memory; "
            f"give sample() a smaller batch_size, for example {max(self.n // 2, 1)}"
        ):
            if self.start is None:
                z = torch.empty(self.n, *self.shape, dtype=work, device=self.device)
                z = self.noise.normal(z, math.inf)
                x = self._prior().sample(z)
                del z  # do not keep it in memory
            else:
                x = self.start.to(self.device, work)
            yield State.of(rsde, self.times[0], x)
            for state in self.sampler.trajectory(rsde, x, self.times, self.noise):
                x = state.x
                yield state
            # the score has already been checked, so an earlier state that is not finite raises
            # there
            rsde.settle()
            request.check_end(x)
            if self.denoise:
                x0 = self.sampler.finish(rsde, x, self.times[-1], self.noise)
                rsde.settle()
                request.check_end(x0)
                yield State.of(rsde, self.times[-1], x, x0)

    def _prior(self) -> Moments:
        """Return the Gaussian distribution at the first time."""
        start = self.times[0]
        if self.moments is None or math.isclose(start, self.sde.T, rel_tol=1e-6):
            return self.sde.prior(self.moments)
        return self.moments.at(self.sde.alpha(start), self.sde.sigma(start))

    def _samples(self, end: State) -> Tensor:
        """Return the samples of the last state, cast to the dtype if they have no transform."""
        x = end.x if end.denoised is None else end.denoised
        return x if self.transform is not None else narrowed("samples", x, self.dtype)
