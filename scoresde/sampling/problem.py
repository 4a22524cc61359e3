"""The arguments of `sample`, checked before the first evaluation."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from scoresde.checks import check_floating, check_has, check_integer, named, named_device
from scoresde.errors import InvalidTypeError, InvalidValueError, NonFiniteError, ShapeError
from scoresde.noise import seeds_of
from scoresde.samplers import Sampler
from scoresde.sampling.names import SAMPLERS
from scoresde.sampling.run import Run, Score
from scoresde.score import check_problem, layers
from scoresde.sde import SDE, Moments

__all__ = ["Generators", "prepare"]

Generators = torch.Generator | Sequence[torch.Generator]


def prepare(
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
) -> Run:
    """Check everything before the first evaluation."""
    check_problem(model, sde)
    method = _sampler(sampler).suited(model)
    if x is not None:
        if not isinstance(x, Tensor):
            raise InvalidTypeError(f"x must be a tensor (n, *shape), got {type(x).__name__}")
        check_floating("x", x.dtype)
        if not x.isfinite().all():
            raise NonFiniteError("the start x holds NaN or infinity")
    event = _event_shape(model, shape, x)
    n = _count(n, x)
    first = check_integer("first", first, 0)
    nfe = None if nfe is None else check_integer("nfe", nfe, 0)
    data = getattr(model, "data", None) if data is None else data
    if data is not None:
        check_has("data", data, "at", "Moments(mean, var=...)")
    if condition is not None and not isinstance(condition, Mapping):
        raise InvalidTypeError(
            f"condition= maps names to tensors, such as {{'label': labels}}, got {condition!r}"
        )
    grid = _times(model, sde, method, steps, nfe, times, denoise, data)
    if nfe is not None:
        method = method.within(nfe - denoise)
    if x is None and data is None and not math.isclose(grid[0], sde.T, rel_tol=1e-6):
        raise InvalidValueError(
            f"times starts at {float(grid[0]):.6g}, below T = {sde.T}, where the prior is no draw; "
            "give the start as x=, or the data's moments as data="
        )
    dtype = dtype or (torch.float32 if x is None else x.dtype)
    check_floating("dtype", dtype)
    where = _device(model, x) if device is None else named_device(device)
    for name, value in (condition or {}).items():
        if not isinstance(value, Tensor):
            raise InvalidTypeError(f"condition {name!r} must be a tensor, got {value!r}")
        if value.shape[:1] != (n,):
            raise ShapeError(
                f"condition {name!r} of shape {tuple(value.shape)} needs one row for each of the "
                f"n = {n} samples; repeat its rows, or change n"
            )
    seeds, indices = seeds_of(n, seed, generator, first)
    return Run(
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
        data=data,
        device=where,
        dtype=dtype,
    )


def _sampler(sampler: str | Sampler) -> Sampler:
    other = "a sampler object such as `PC(k=2)`"
    return named("sampler", sampler, SAMPLERS, "trajectory", other)


def _event_shape(model: Score, shape: Sequence[int] | None, x: Tensor | None) -> tuple[int, ...]:
    """The one event shape on which the model, `shape` and `x` agree."""
    if x is not None and x.ndim == 0:
        raise ShapeError("the start x needs a batch dimension: (n, *shape)")
    if shape is not None and not (
        isinstance(shape, Sequence) and all(isinstance(d, int) and d >= 0 for d in shape)
    ):
        raise InvalidValueError(
            f"shape= is the shape of one sample, such as (2,) or (1, 28, 28), got {shape!r}"
        )
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
    n = check_integer("n", n, 0)
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
    data: Moments | None,
) -> Tensor:
    """The grid that `steps`, `nfe` or `times` asks for."""
    if sum(choice is not None for choice in (steps, nfe, times)) > 1:
        raise InvalidValueError("steps=, nfe= and times= exclude each other; give one")
    grid = None if times is None else _check_times(sde, times)
    _check_start(sde, sde.T if grid is None else float(grid[0]))
    if grid is not None:
        return grid
    if nfe is not None:
        steps = sampler.steps_for(nfe - denoise)
        if steps < 1:
            raise InvalidValueError(f"nfe = {nfe} does not pay for one step of {sampler}")
        if sde.levels is not None and steps >= sde.levels:
            most = sde.levels - 1
            raise InvalidValueError(
                f"nfe = {nfe} pays for {steps} steps, but this SDE has levels={sde.levels}, which "
                f"are at most {most} steps; give nfe={sampler.cost(most) + denoise}, or neither "
                "nfe= nor steps= for every level"
            )
    if steps is None and sampler.adaptive:
        steps = sampler.steps
    elif steps is None and sde.levels is None:
        # what suits the model's score, but no more than the method wants
        steps = min(getattr(model, "steps", None) or sampler.steps, sampler.steps)
    return sampler.times(sde, steps, data)


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


def _check_start(sde: SDE, start: float) -> None:
    """Refuse functions of time that are no tensors, and a start that knows nothing of the data."""
    t = torch.tensor([start, start], dtype=torch.float64)
    for name in ("alpha", "sigma"):
        value = getattr(sde, name)(t)
        if getattr(value, "shape", None) != t.shape:
            raise ShapeError(
                f"{name} of {type(sde).__name__} must return a tensor of the shape of its "
                f"argument, {tuple(t.shape)}, got {value!r}"
            )
    if not (sde.log_snr(t) > -math.inf).all():
        raise InvalidValueError(
            f"nothing is left of the data at t = {start:.6g} under {type(sde).__name__}: "
            "alpha / sigma is 0, and samplers divide by it; let the SDE end a little earlier, "
            f"for example at T = {0.999 * start:.6g}"
        )


def _device(model: Score, x: Tensor | None) -> torch.device:
    if x is not None:
        return x.device
    parameters = (p for layer in layers(model) for p in getattr(layer, "parameters", tuple)())
    found = next(parameters, None)
    return torch.device("cpu") if found is None else found.device
