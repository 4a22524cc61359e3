r"""Sampling: every method behind `sample` and `trajectory`.

The start is a draw of the prior at `times[0]`, the sampler walks down the grid, and Tweedie's
formula at its end, the one move without noise, removes the noise that is left there.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from scoresde.errors import (
    InvalidTypeError,
    InvalidValueError,
    MemoryLimitError,
    NonFiniteError,
    ShapeError,
    UnknownNameError,
)
from scoresde.noise import Noise, seeds_of
from scoresde.samplers import (
    PC,
    Ancestral,
    AnnealedLangevin,
    EulerMaruyama,
    ReverseDiffusion,
    Sampler,
    State,
)
from scoresde.score import Conditional, check_sde
from scoresde.sde import SDE, Moments

__all__ = ["SAMPLERS", "sample", "trajectory"]

SAMPLERS: Mapping[str, Sampler] = MappingProxyType(
    {
        "pc": PC(),
        "em": EulerMaruyama(),
        "reverse_diffusion": ReverseDiffusion(),
        "ancestral": Ancestral(),
        "ald": AnnealedLangevin(),
    }
)
"""The names that `sampler=` accepts."""

Score = Callable[..., Tensor]
Generators = torch.Generator | Sequence[torch.Generator]


def sample(
    model: Score,
    sde: SDE,
    sampler: str | Sampler = "pc",
    *,
    n: int | None = None,
    shape: Sequence[int] | None = None,
    steps: int | None = None,
    nfe: int | None = None,
    times: Tensor | None = None,
    x: Tensor | None = None,
    seed: int | None = None,
    generator: Generators | None = None,
    first: int = 0,
    batch_size: int | None = None,
    denoise: bool = True,
    condition: Mapping[str, Tensor] | None = None,
    data: Moments | None = None,
    progress: bool | None = None,
    device: torch.device | str | None = None,
    dtype: torch.dtype | None = None,
) -> Tensor:
    r"""Draw samples from a score by running the SDE backwards.

    Args:
        model: A `ScoreModel`, or any callable `(x, t) -> score` with `x` `(B, *)` and `t` `(B,)`.
        sde: The process whose score it is.
        sampler: A name of `SAMPLERS`, or a sampler object.
        n: How many samples; by default 1, or the length of `x`.
        shape: The shape of one sample, without the batch; a `ScoreModel` knows its own.
        steps: Steps of the sampler; by default the model's own number, all levels of an SDE with
            levels, or the sampler's default.
        nfe: In place of `steps`: a budget of network evaluations per sample, `denoise` included.
        times: In place of `steps`: the decreasing times themselves, within `[0, T]`.
        x: Where to start, a draw `(n, *shape)` of the law at `times[0]`; by default the prior.
        seed: Sample `first + i` of a seed depends on the seed and on that number alone.
        generator: In place of `seed`: a generator draws n seeds, a list of n draws one from each.
            With neither, torch's global generator is asked for one seed.
        first: The number of the first sample of the seed.
        batch_size: Samples per chunk, to bound memory. Every chunk has exactly this size (the last
            one is padded), so that a network's results do not depend on `n`.
        denoise: Whether to end with $E[x_0 | x_\epsilon]$, one more evaluation, in place of a draw
            of $p_\epsilon$.
        condition: What the model takes beside `(x, t)`: tensors with one row for each sample.
        data: The data's moments, for the prior; a `ScoreModel` knows its own.
        progress: Whether to show a bar; `None` shows it on a terminal.
        device: Where to sample; by default where `x` or the model is.
        dtype: Of the samples, floating point; by default that of `x`, or float32.

    Returns:
        Samples `(n, *shape)`, finite.

    Raises:
        UnknownNameError: The sampler's name is unknown.
        InvalidValueError, InvalidTypeError, ShapeError: An argument does not fit.
        NonFiniteError: `x` or the score has a NaN or an infinity.
        DeviceError: The model and the state are on different devices.
        MemoryLimitError: A chunk does not fit into memory.
    """
    if batch_size is not None and batch_size < 1:
        raise InvalidValueError(f"batch_size must be at least 1, got {batch_size}")
    run = _prepare(
        model, sde, sampler, n, shape, steps, nfe, times, x, seed, generator, first, denoise,
        condition, data, device, dtype,
    )  # fmt: skip
    size = max(run.n, 1) if batch_size is None else batch_size
    chunks = [run.rows(i, size) for i in range(0, run.n, size)] or [run]
    out = []
    bar = None if progress is None else not progress
    with (
        _evaluating(model),
        tqdm(
            total=len(chunks) * run.length, disable=bar, desc="sampling", unit="step", leave=False
        ) as shown,
    ):
        for chunk in chunks:
            for state in chunk.states():
                shown.update()
            last = state.x if state.denoised is None else state.denoised
            out.append(last.to(run.dtype))
    return torch.cat(out)[: run.n]


def trajectory(
    model: Score,
    sde: SDE,
    sampler: str | Sampler = "pc",
    *,
    n: int | None = None,
    shape: Sequence[int] | None = None,
    steps: int | None = None,
    nfe: int | None = None,
    times: Tensor | None = None,
    x: Tensor | None = None,
    seed: int | None = None,
    generator: Generators | None = None,
    first: int = 0,
    denoise: bool = True,
    condition: Mapping[str, Tensor] | None = None,
    data: Moments | None = None,
    progress: bool | None = None,
    device: torch.device | str | None = None,
    dtype: torch.dtype | None = None,
) -> Iterator[State]:
    """The states of a sampling run, one at a time; stop early by `break`.

    The arguments are those of `sample`. The first state is the start; with `denoise`, the last one
    repeats the time and the samples of the state before it and adds `denoised`.

    Returns:
        An iterator of `State(t, x, denoised, nfe)`; wrong arguments raise before the first.
    """
    run = _prepare(
        model, sde, sampler, n, shape, steps, nfe, times, x, seed, generator, first, denoise,
        condition, data, device, dtype,
    )  # fmt: skip

    def states() -> Iterator[State]:
        bar = None if progress is None else not progress
        with _evaluating(model):
            yield from tqdm(
                run.states(), total=run.length, disable=bar, desc="sampling", leave=False
            )

    return states()


@dataclass(frozen=True, eq=False)
class _Run:
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

    def rows(self, i: int, size: int) -> _Run:
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

    @torch.no_grad()
    def states(self) -> Iterator[State]:
        """The run itself."""
        # states below single precision would lose the noise schedule
        work = torch.promote_types(self.dtype, torch.float32)
        noise = Noise(self.seeds, self.indices, horizon=self.sde.T)
        score = self.model
        if self.condition is not None:
            score = Conditional(self.model, self.condition)
        rsde = self.sde.reverse(score, data=self.data)
        try:
            if self.start is None:
                x = torch.empty(self.n, *self.shape, dtype=work, device=self.device)
                x = self.sde.prior(self.data).sample(noise.normal(x, math.inf))
            else:
                x = self.start.to(self.device, work)
            state = State(self.times[0], x, None, 0)
            yield state
            for state in self.sampler.trajectory(rsde, x, self.times, noise):
                yield state
            if self.denoise:
                x0 = rsde.denoise(state.x, self.times[-1])
                yield State(self.times[-1], state.x, x0, rsde.nfe)
        except (torch.OutOfMemoryError, RuntimeError) as error:
            if isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error):
                raise MemoryLimitError(
                    f"{self.n} samples of shape {self.shape} at once do not fit into memory; "
                    f"give sample() a smaller batch_size, for example {max(self.n // 2, 1)}"
                ) from error
            raise


def _prepare(
    model: Score,
    sde: SDE,
    sampler: str | Sampler,
    n: int | None,
    shape: Sequence[int] | None,
    steps: int | None,
    nfe: int | None,
    times: Tensor | None,
    x: Tensor | None,
    seed: int | None,
    generator: Generators | None,
    first: int,
    denoise: bool,
    condition: Mapping[str, Tensor] | None,
    data: Moments | None,
    device: torch.device | str | None,
    dtype: torch.dtype | None,
) -> _Run:
    """Check everything before the first evaluation."""
    if not callable(model):
        raise InvalidTypeError(f"the model must be a callable (x, t) -> score, got {model!r}")
    if not hasattr(sde, "transition"):
        raise InvalidTypeError(f"the second argument is the SDE, got {sde!r}")
    method = _sampler(sampler)
    check_sde(model, sde)
    if x is not None:
        _check_floating("x", x.dtype)
        if not x.isfinite().all():
            raise NonFiniteError("the start x holds NaN or infinity")
    event = _event_shape(model, shape, x)
    n = _count(n, x)
    grid = _times(model, sde, method, steps, nfe, times, denoise)
    dtype = dtype or (torch.float32 if x is None else x.dtype)
    _check_floating("dtype", dtype)
    where = torch.device(device) if device is not None else _device(model, x)
    for name, value in (condition or {}).items():
        if len(value) != n:
            raise ShapeError(
                f"condition {name!r} has {len(value)} rows for n = {n} samples; give n={len(value)}"
            )
    seeds, indices = seeds_of(n, seed, generator, first)
    return _Run(
        model=model,
        sde=sde,
        sampler=method,
        shape=event,
        times=grid,
        start=x,
        seeds=seeds,
        indices=indices,
        denoise=denoise,
        condition=condition and {name: value.to(where) for name, value in condition.items()},
        data=getattr(model, "data", None) if data is None else data,
        device=where,
        dtype=dtype,
    )


def _sampler(sampler: str | Sampler) -> Sampler:
    if isinstance(sampler, str):
        if sampler not in SAMPLERS:
            raise UnknownNameError.of("sampler", sampler, SAMPLERS)
        return SAMPLERS[sampler]
    if isinstance(sampler, type) or not hasattr(sampler, "trajectory"):
        raise InvalidTypeError(
            f"sampler must be a name ({', '.join(SAMPLERS)}) or a sampler object such as "
            f"`PC(k=2)`, got {sampler!r}"
        )
    return sampler


def _check_floating(what: str, dtype: torch.dtype) -> None:
    if not dtype.is_floating_point:
        raise InvalidTypeError(
            f"{what} must be floating point, got {dtype}; for 8-bit images: x.float() / 127.5 - 1"
        )


def _event_shape(model: Score, shape: Sequence[int] | None, x: Tensor | None) -> tuple[int, ...]:
    """The one event shape on which the model, `shape` and `x` agree."""
    if x is not None and x.ndim == 0:
        raise ShapeError("the start x needs a batch dimension: (n, *shape)")
    own = getattr(model, "event_shape", None)
    given = {
        "the model": None if own is None else tuple(own),
        "shape=": None if shape is None else tuple(shape),
        "x": None if x is None else tuple(x.shape[1:]),
    }
    known = {who: value for who, value in given.items() if value is not None}
    if not known:
        raise InvalidValueError(
            "a bare score does not know its event shape; give shape=, the shape of one sample "
            "without the batch, for example shape=(2,)"
        )
    if len(set(known.values())) > 1:
        said = ", ".join(f"{who} says {value}" for who, value in known.items())
        raise ShapeError(f"the event shapes disagree: {said}; shape= is without the batch")
    return next(iter(known.values()))


def _count(n: int | None, x: Tensor | None) -> int:
    if n is None:
        return 1 if x is None else len(x)
    if isinstance(n, bool) or not isinstance(n, int) or n < 0:
        raise InvalidValueError(f"n must be an integer >= 0, got {n!r}")
    if x is not None and len(x) != n:
        raise ShapeError(f"x holds {len(x)} samples, but n = {n}")
    return n


def _times(
    model: Score,
    sde: SDE,
    sampler: Sampler,
    steps: int | None,
    nfe: int | None,
    times: Tensor | None,
    denoise: bool,
) -> Tensor:
    """The grid that `steps`, `nfe` or `times` asks for."""
    if sum(choice is not None for choice in (steps, nfe, times)) > 1:
        raise InvalidValueError("steps=, nfe= and times= exclude each other; give one")
    if times is not None:
        return _check_times(sde, times)
    if nfe is not None:
        steps = sampler.steps_for(nfe - denoise)
        if steps < 1:
            raise InvalidValueError(f"nfe = {nfe} does not pay for one step of {sampler}")
    if steps is None and sde.levels is None:
        steps = getattr(model, "steps", None) or sampler.steps
    return sde.times(steps)


def _check_times(sde: SDE, times: Tensor) -> Tensor:
    grid = sde._times(times)
    if grid.ndim != 1 or len(grid) == 0:
        raise ShapeError(f"times must be one-dimensional and not empty, got {tuple(grid.shape)}")
    if not (grid.diff() < 0).all():
        raise InvalidValueError(f"times must decrease strictly, from noise to data; got {times}")
    if sde.levels is not None:
        nearest = sde.times().flip(0)[sde.index(grid)]
        if not torch.allclose(nearest, grid, rtol=1e-6, atol=1e-6 * sde.T):
            raise InvalidValueError(
                f"this SDE has levels={sde.levels} and exists only there; take times from "
                "sde.times()"
            )
        return nearest
    return grid


def _device(model: Score, x: Tensor | None) -> torch.device:
    if x is not None:
        return x.device
    parameters: Callable[[], Iterator[Tensor]] | None = getattr(model, "parameters", None)
    found = None if parameters is None else next(parameters(), None)
    return torch.device("cpu") if found is None else found.device


@contextmanager
def _evaluating(model: Any) -> Iterator[None]:
    """The modules inside a score in evaluation mode, each restored to its own at the end."""
    while hasattr(model, "model"):
        model = model.model
    modes = {module: module.training for module in getattr(model, "modules", tuple)()}
    for module in modes:
        module.training = False
    try:
        yield
    finally:
        for module, training in modes.items():
            module.training = training
