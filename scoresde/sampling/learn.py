r"""Measure a pilot, the covariance of a score's residual, by one small sampling run."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from scoresde.checks import check_integer, door
from scoresde.errors import InvalidValueError
from scoresde.progress import showing
from scoresde.samplers import TauMultistep
from scoresde.samplers.multistep.frame import frame_of
from scoresde.samplers.multistep.integrator import Step, weighted_sum
from scoresde.sampling.audition import audition
from scoresde.sampling.fit import Updated
from scoresde.sampling.run import Run
from scoresde.score import Pilot, Wrapped, device_of
from scoresde.sde import SDE, Condition, Moments, Score, check_output, facts, process_of
from scoresde.sde.coordinates import half_log_snr, half_log_snr_range
from scoresde.sde.spacings import even_times

__all__ = ["KEPT", "SAMPLES", "STEPS", "pilot", "pilot_run"]

# The largest number of entries in the states of one part of a run, to bound memory.
_NUMBERS = 2**26
# Of several orders this one ended nearest to the flow on the arena's tuning problems.
_METHOD = TauMultistep(order=5, corrector=4)
# A full covariance is used if it leaves less than this share of the squared residual that one
# variance leaves, as for data that are nearly Gaussian. Otherwise the residual is smaller, but
# bends more, and with fits the errors were 1 to 6 times as large.
_GAUSSIAN = 0.05

KEPT = 2**25
"""The largest number of entries of the states of a pilot run that are all kept."""
# The most samples and steps, beyond which nothing is gained.
_MOST = {"n": 100_000, "steps": 10_000}

SAMPLES = 32
"""The number of samples of a pilot run."""
STEPS = 63
"""The number of steps of a pilot run; it takes one evaluation more."""


class _Recorder(Wrapped):
    """Record the states at which a score is evaluated, and its values."""

    def __init__(self, score: Score, update: Callable[[], object]) -> None:
        super().__init__(score)
        self.seen: list[tuple[Tensor, Tensor]] = []
        self.update = update

    def __call__(self, x: Tensor, t: Tensor, condition: Condition | None = None) -> Tensor:
        value = self.ask(self.score, x, t, condition)
        self.seen.append((x.cpu(), check_output("score", value, x).cpu()))
        self.update()
        return value


class _Path:
    """Keep the states of a run after the corrector."""

    def __init__(self) -> None:
        self.states: list[Tensor] = []

    def __call__(self, step: Step, state: Tensor, *rest: Any) -> Tensor:
        *_, frame, i = rest
        new = weighted_sum(step, state, *rest)
        # a correction replaces the prediction for the same time
        self.states[i - 1 :] = [frame.to_state(new, i).cpu()]
        return new


@door
def pilot(
    score: Score,
    sde: SDE | None = None,
    *,
    shape: Sequence[int] | None = None,
    moments: Moments | None = None,
    n: int = SAMPLES,
    steps: int = STEPS,
    budgets: Sequence[int] = (),
    condition: Mapping[str, Any] | None = None,
    seed: int = 0,
    progress: bool | None = None,
    device: torch.device | str | None = None,
    dtype: torch.dtype | None = None,
) -> Pilot:
    r"""Measure how a score's residual varies along the probability flow.

    `n` samples are drawn on a grid that is uniform in log-SNR. The residual is the denoiser minus
    the denoiser of the Gaussian with the data's moments. The pilot is the covariance of the
    residual over the grid. `samplers.Fast(pilot=...)` uses it for any number of steps, and
    `model.pilot = pilot(model, sde)` stores it in a `ScoreModel` and its file.

    Args:
        score: A score, as for `sample`.
        sde: The process; by default the one in the score's facts.
        shape: The shape of one event, if it is not in the score's facts.
        moments: The data's moments. `None` takes those in the score's facts, or else estimates them
            from the run: the mean from its first evaluations, at T, and one variance from its last,
            at eps. Of a full covariance only the mean variance is used, unless the data are nearly
            Gaussian, since the rest of the denoiser then bends more.
        n: Samples in the batch, at least 2.
        steps: Steps of the run, at least 5; fewer if the SDE has fewer levels.
        budgets: Numbers of steps, up to 24, for which the orders and the grid of "fast" are chosen
            too. For each number 8 settings are run, and that one is chosen whose samples end
            nearest to the last states of the pilot run; then the weights of the best ones are
            fitted to these states.
        condition: The conditions of the score, with one row for each of the n samples.
        seed: The seed of the samples.
        progress: Show a bar; None shows one in a terminal or a notebook, and lines elsewhere.
        device: The device; by default that of the score's networks.
        dtype: The dtype of the states; float32 by default.

    Returns:
        The pilot. Its `nfe` is its cost without `budgets`, `steps + 1` evaluations for each sample.

    Raises:
        InvalidValueError: There are fewer than 2 samples, 5 steps or 6 levels, or far too many.
        ScoreSDEError: The run fails, as in `sample`.

    Examples:
        >>> import scoresde
        >>> score = scoresde.targets.TwoMoons().at(scoresde.VPSDE())
        >>> pilot(score, n=8, steps=20).nfe
        21
    """
    found, states = pilot_run(
        score, sde, shape=shape, moments=moments, n=n, steps=steps, condition=condition, seed=seed,
        progress=progress, device=device, dtype=dtype,
    )  # fmt: skip
    where = device_of(score) if device is None else device
    given = Condition.of(condition, n, facts(score).conditions, torch.device("cpu"))
    for budget in budgets:
        check_integer("a budget", budget, 1)
        found = audition(
            score, process_of(score, sde), found, states.to(where), budget, condition=given,
            progress=progress, device=device,
        )  # fmt: skip
    return found


def pilot_run(
    score: Score,
    sde: SDE | None = None,
    *,
    shape: Sequence[int] | None = None,
    moments: Moments | None = None,
    n: int = SAMPLES,
    steps: int = STEPS,
    condition: Mapping[str, Any] | None = None,
    seed: int = 0,
    progress: bool | None = None,
    device: torch.device | str | None = None,
    dtype: torch.dtype | None = None,
) -> tuple[Pilot, Tensor]:
    """Return the result of `pilot`, and the states of the run, `(K, n, *)`.

    Of a run with too many numbers only the first and the last states are returned, `(2, n, *)`.
    """
    sde = process_of(score, sde)
    check_integer("n", n, 2)
    check_integer("steps", steps, 5)
    for name, value in (("n", n), ("steps", steps)):
        if value > _MOST[name]:
            raise InvalidValueError(f"{name} of a pilot must be at most {_MOST[name]:,}")
    if sde.levels is not None:
        if sde.levels < 6:
            raise InvalidValueError(f"a pilot needs 6 levels, but this SDE has {sde.levels}")
        steps = min(steps, sde.levels - 1)
    times = even_times(sde, steps)
    moments = facts(score).moments if moments is None else moments
    # large events are run in parts, unless the moments are estimated from all samples
    event = math.prod(shape or facts(score).event_shape or ())
    part = n if moments is None else min(n, max(1, _NUMBERS // (len(times) * max(event, 1))))
    condition = Condition.of(condition, n, facts(score).conditions, torch.device("cpu"))
    kept = slice(None) if n * len(times) * event <= KEPT else [0, -1]
    rows, states, found = list[list[Tensor]](), list[Tensor](), moments
    with showing(
        -(-n // part) * len(times), 'measuring the pilot of "fast"', show=progress, delay=1.0
    ) as bar:
        for first in range(0, n, part):
            here = range(first, min(first + part, n))
            recorder = _Recorder(score, bar.update)
            path = _Path()
            Run.of(
                recorder, sde, Updated(_METHOD, path), n=len(here), shape=shape, times=times,
                seed=seed, first=first, condition=condition and condition.rows([*here]),
                moments=moments, progress=False, device=device, dtype=dtype,
            ).draw()  # fmt: skip
            seen, values = (torch.stack(part) for part in zip(*recorder.seen, strict=True))
            x, values = seen.double(), values.double()
            found = found or _estimated(sde, times, x, values)
            rows.append([_residuals(one, sde, times, x, values) for one in _gaussians(found)])
            states.append(torch.stack([seen[0], *path.states])[kept])
    assert found is not None
    ell = half_log_snr(sde, times).clamp(max=half_log_snr_range(sde)[1])
    pilots = [
        Pilot.measure(ell, parts, one, len(ell))
        for one, *parts in zip(_gaussians(found), *rows, strict=True)
    ]
    whole, one = pilots[0], pilots[-1]
    nearly = whole.factor.square().sum() <= _GAUSSIAN * one.factor.square().sum()
    return whole if nearly else one, torch.cat(states, 1)


def _gaussians(moments: Moments) -> list[Moments]:
    """Return the moments, and of a full covariance those with one variance besides."""
    if moments.cov is None:
        return [moments]
    return [moments, Moments(moments.mean, var=moments.mean_variance())]


def _estimated(sde: SDE, times: Tensor, x: Tensor, values: Tensor) -> Moments:
    """Return moments from a run: the mean from its first states, one variance from its last."""
    alpha, sigma = sde.at(times, x)
    denoised = (x + sigma**2 * values) / alpha
    mean = denoised[0].mean(0)
    return Moments(mean, var=float((denoised[-1] - mean).square().mean()))


def _residuals(moments: Moments, sde: SDE, times: Tensor, x: Tensor, values: Tensor) -> Tensor:
    """Return the residuals `(M, K)` of the trajectories and dimensions of a run."""
    frame = frame_of(moments, sde, times, x[0])
    factors = frame.coefficients(frame.denoising)
    found = []
    for i, factor in enumerate(factors):
        found.append((factor * frame.excess(values[i], frame.from_state(x[i], i), i)).flatten())
    return torch.stack(found, 1)
