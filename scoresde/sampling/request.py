"""Check the arguments of a sampling request."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from scoresde.checks import (
    as_event,
    check_batch,
    check_floating,
    check_integer,
    check_not_constant,
    named,
    outside,
    quoted,
)
from scoresde.errors import InvalidTypeError, InvalidValueError, NonFiniteError, ShapeError
from scoresde.precision import widest
from scoresde.samplers import Sampler
from scoresde.sampling.names import SAMPLERS
from scoresde.sampling.times import check_first, checked_times
from scoresde.score import Pilot, lost_facts
from scoresde.sde import SDE, Condition, Facts, Moments, facts
from scoresde.units import Transform

__all__ = [
    "Budget",
    "check_end",
    "check_prior",
    "check_start",
    "conditions_of",
    "count",
    "dtype_of",
    "event_shape",
    "facts_of",
    "sampler_of",
    "transform_of",
    "warn_of_growth",
    "warn_of_large_noise",
    "warn_of_last_noise",
    "with_pilot",
]

# A warning is given if one of these ratios is exceeded: the noise divided by the scale of the data,
# in float32; and the size of samples divided by the size of the data, for ordinary scores and for
# guided scores.
_LARGEST_NOISE, _LARGEST_GROWTH, _LARGEST_GUIDED = 1e9, 30, 5


@dataclass(frozen=True)
class Budget:
    """Hold the length of a run: a number of steps, a number of evaluations, or the times.

    Args:
        steps: The number of steps of the sampler.
        nfe: The number of evaluations of the score for each sample, including the final denoising.
        grid: The times of the grid.
        denoise: Reserve one evaluation for the denoising at the end.
    """

    steps: int | None
    nfe: int | None
    grid: Tensor | Sequence[float] | None
    denoise: bool

    def __post_init__(self) -> None:
        if sum(choice is not None for choice in (self.steps, self.nfe, self.grid)) > 1:
            raise InvalidValueError("give only one of steps=, nfe= and times=")

    def times(
        self, sde: SDE, sampler: Sampler, suits: int | None, moments: Moments | None
    ) -> Tensor:
        """Return the grid `(N + 1,)`, decreasing, float64.

        Args:
            sde: The process.
            sampler: The method.
            suits: The number of steps in the score's facts, if any.
            moments: The data's moments, if known.

        Raises:
            InvalidValueError: The SDE has no grid with this number of steps or evaluations, or does
                not allow these times.
            ShapeError: The given times are not one-dimensional.
        """
        grid = None if self.grid is None else checked_times(sde, self.grid, given=True)
        check_first(sde, sde.T if grid is None else float(grid[0]))
        if grid is not None:
            return grid
        steps = self.steps
        if self.nfe is not None:
            steps = self._affordable(self.nfe, sde, sampler)
        if steps is None and sampler.adaptive:
            steps = sampler.steps
        elif steps is None and sde.levels is None:
            # the score's number of steps, but not more than the method's default
            steps = min(suits or sampler.steps, sampler.steps)
        return checked_times(sde, sampler.times(sde, steps, moments))

    def _affordable(self, nfe: int, sde: SDE, sampler: Sampler) -> int:
        steps = sampler.steps_for(nfe - self.denoise)
        if steps < 1:
            raise InvalidValueError(
                f"nfe = {nfe} is too small for one step of {quoted(sampler)}; give a larger number"
            )
        if sde.levels is not None and steps >= sde.levels:
            most = sde.levels - 1
            raise InvalidValueError(
                f"nfe = {nfe} allows {steps} steps, but this SDE has levels={sde.levels}, so at "
                f"most {most} steps; give nfe={sampler.cost(most) + self.denoise}, or leave out "
                "nfe= and steps= to use every level"
            )
        return steps


def conditions_of(
    values: Mapping[str, Any] | None,
    n: int,
    known: Facts,
    sampler: Sampler,
    event: tuple[int, ...],
    device: torch.device,
) -> Condition | None:
    """Return the conditions of n samples, for the score and for the sampler.

    Raises:
        InvalidValueError: A condition of the sampler is missing.
        ScoreSDEError: A condition is wrong, as in `Condition.of`.
    """
    needed = sampler.declared(event)
    if not needed:
        return Condition.of(values, n, known.conditions, device)
    given = dict(values or {})
    missing = [name for name in needed if name not in given]
    if missing:
        raise InvalidValueError(
            f"{type(sampler).__name__} needs the conditions {' and '.join(needed)}, but "
            f"{' and '.join(missing)} is missing; give condition={{{missing[0]!r}: ...}}"
        )
    rest = {name: value for name, value in given.items() if name not in needed}
    taken = Condition.of({name: given[name] for name in needed}, n, needed, device)
    others = Condition.of(rest, n, known.conditions, device)
    return Condition({**(others or {}), **sampler.checked(Condition(taken or {}))})


def sampler_of(sampler: str | Sampler, sde: SDE, known: Facts) -> Sampler:
    """Return the sampler, given by name or as an object; raise if it does not fit the score."""
    found = named("sampler", sampler, SAMPLERS)
    if known.flow is False and not found.conditional:
        raise InvalidTypeError(
            f"{quoted(found)} does not use the noise of the reverse SDE, but this score is right "
            "only with that noise, since it does not receive y; take Ancestral() or "
            "EulerMaruyama(), or a network with y as a condition"
        )
    if found.between and sde.levels is not None:
        raise InvalidValueError(
            f"{quoted(found)} evaluates the score between the times of its grid, but this SDE is "
            f"defined only at its levels, levels={sde.levels}; take another sampler, such as 'pc', "
            "'ald' or 'dpmpp_2m', or a continuous SDE"
        )
    return found


def check_start(x: Tensor | None, method: Sampler) -> None:
    """Raise unless `x` is None, or finite and the method allows given initial states."""
    if x is None:
        return
    check_batch("x", x)
    check_not_constant("x", x)
    if not method.takes_start:
        raise InvalidValueError(
            f"{type(method).__name__} draws its initial states itself; leave x= out, or use "
            "another sampler to continue from x"
        )


def event_shape(
    of_score: tuple[int, ...] | None, shape: Sequence[int] | None, x: Tensor | None
) -> tuple[int, ...]:
    """Return the event shape; raise if `shape`, `x` and the score disagree."""
    given = {
        "the score": None if of_score is None else tuple(of_score),
        "shape=": None if shape is None else as_event("shape", shape),
        "x": None if x is None else tuple(x.shape[1:]),
    }
    known = {who: value for who, value in given.items() if value is not None}
    if not known:
        raise InvalidValueError(
            "the shape of a sample is unknown for this score; give shape=, the shape of one sample "
            "without the batch, for example shape=(2,)"
        )
    if len(set(known.values())) > 1:
        shapes = ", ".join(f"{who} has {value}" for who, value in known.items())
        raise ShapeError(f"the event shapes disagree: {shapes}; shape= is without the batch")
    return next(iter(known.values()))


def count(n: int | None, x: Tensor | None) -> int:
    """Return the number of samples: n, or the length of `x`, or 1."""
    if n is None:
        return 1 if x is None else len(x)
    n = check_integer("n", n, 0)
    if x is not None and len(x) != n:
        raise ShapeError(f"x holds {len(x)} samples, but n = {n}")
    return n


def dtype_of(dtype: torch.dtype | None, x: Tensor | None) -> torch.dtype:
    """Return the dtype of the samples: `dtype`, or else the dtype of `x`, or else float32."""
    dtype = dtype or (torch.float32 if x is None else x.dtype)
    check_floating("dtype", dtype)
    if dtype.itemsize < 2:
        raise InvalidTypeError(f"samples need at least half precision, got dtype={dtype}")
    return dtype


def check_prior(x: Tensor | None, moments: Moments | None, sde: SDE, times: Tensor) -> None:
    """Raise if a run starts below T, but the moments for its initial distribution are unknown."""
    if x is None and moments is None and not math.isclose(times[0], sde.T, rel_tol=1e-6):
        raise InvalidValueError(
            f"times starts at {float(times[0]):.6g}, below T = {sde.T}, where the distribution of "
            "the states is unknown; give initial states as x=, or the data's moments as moments="
        )


def warn_of_large_noise(sde: SDE, sampler: Sampler, moments: Moments | None, start: float) -> None:
    """Warn if a fixed grid starts with noise so large that float32 rounds the data away.

    Most steps then only reduce noise, and the remaining steps are too long, so methods lose
    precision or diverge. `Adaptive` methods choose their steps themselves and do not need this
    warning.
    """
    ends = torch.tensor([start, sde.eps], dtype=torch.float64)
    noise, least = (-0.5 * sde.log_snr(ends)).exp().tolist()
    scale = max(1.0, least) if moments is None else moments.root_mean_square()
    scale = max(scale, 1e-300)  # the scale is 0 for constant data
    if noise > _LARGEST_NOISE * scale and not sampler.adaptive:
        warnings.warn(
            f"at t = {start:.6g} the noise is {noise / scale:.3g} times the data, so most steps "
            "only reduce noise, and the samples may be wrong; choose a smaller T or less noise, "
            "or an adaptive method such as 'dopri5'",
            UserWarning,
            stacklevel=outside(),
        )


def warn_of_last_noise(sde: SDE, moments: Moments | None, end: float) -> None:
    """Warn if data vary less than the noise at eps, so that no sample has their spread."""
    if moments is None or end > sde.eps:
        return
    least = float((-0.5 * sde.log_snr(torch.tensor(end, dtype=torch.float64))).exp())
    std = moments.mean_variance() ** 0.5
    if 0 < std < least:
        warnings.warn(
            f"the data have a standard deviation of {std:.3g} by their moments, below the smallest "
            f"noise, {least:.3g}, so the samples will not have their distribution; standardise the "
            "data, or take an SDE with less noise at eps",
            UserWarning,
            stacklevel=outside(),
        )


def warn_of_growth(x: Tensor, moments: Moments | None, known: Facts) -> None:
    """Warn if samples are implausibly large for a distribution with these moments.

    By Markov's inequality this happens by chance in less than one of 900 runs, for any
    distribution. For guided scores, which are often stiff, the limit is lower, since their samples
    should lie in the range of the data; it is exceeded by chance in less than one of 25 runs.
    """
    if moments is None or x.numel() == 0:
        return
    size = float(torch.linalg.vector_norm(x.detach(), dtype=widest(x.device))) / x.numel() ** 0.5
    data = moments.root_mean_square()
    if size > (_LARGEST_GUIDED if known.density is False else _LARGEST_GROWTH) * data > 0:
        warnings.warn(
            f"the samples are {size / data:.3g} times as large as the data by their moments "
            f"({size:.3g} instead of {data:.3g} in the root mean square); take more steps or less "
            "guidance, a method that adapts its steps such as 'dopri5', or give the moments of the "
            "data as moments=",
            UserWarning,
            stacklevel=outside(),
        )


def transform_of(known: Facts) -> Transform:
    """Return the transform of the data that a score was trained on.

    Raises:
        InvalidValueError: The transform is unknown.
    """
    if known.transform is None:
        raise InvalidValueError(
            "units=True needs the transform of the data, but this score's facts have none; leave "
            "units out, and convert the samples yourself"
        )
    return known.transform


def facts_of(score: object) -> Facts:
    """Return the facts of a score; warn if only a score hidden inside it has facts."""
    hidden = lost_facts(score)
    if hidden is not None:
        warnings.warn(
            f"the score uses a {type(hidden).__name__} but hides its facts (SDE, event shape, "
            "moments, steps and pilot); make the score a subclass of scoresde.Wrapped, or store "
            "the model as its attribute `score`",
            UserWarning,
            stacklevel=outside(),
        )
    return facts(score)


def with_pilot(
    known: Facts, method: Sampler, pilot: Pilot | bool | None, steps: int, progress: bool | None
) -> Facts:
    """Return the facts of a score with its pilot, after measuring the pilot if necessary.

    Args:
        known: The facts of the score.
        method: A method that uses a pilot.
        pilot: A pilot; None takes the pilot in the facts.
        steps: The number of steps. If the method has settings, the setting for this number of steps
            is chosen too.
        progress: Show a bar, as for `sample`.
    """
    if isinstance(pilot, Pilot):
        return replace(known, pilot=pilot)
    if callable(known.pilot):
        return replace(known, pilot=known.pilot(progress, steps if method.auditioned else None))
    return known


def check_end(x: Tensor) -> None:
    """Raise an error if the last step gave a NaN or an infinity."""
    if not x.isfinite().all():
        bad = (~x.isfinite()).reshape(len(x), -1).any(1).nonzero().flatten().tolist()
        raise NonFiniteError(
            f"the last step gave NaN or infinity in samples {bad[:8]}; "
            "try more steps, or check the size of the score"
        )
