r"""Measure a pilot, the covariance of a score's residual, in a small sampling run."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
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

__all__ = ["KEPT", "SAMPLES", "STEPS", "PilotRun", "pilot"]

# The largest number of entries of the states in one part of a run, which limits the memory.
_NUMBERS = 2**26
# The method of a pilot run. Several orders were tried on the tuning problems of `scoresde.arena`:
# order=5 and corrector=4 give the most accurate states; order=4 and corrector=5 give better
# residuals, and states that are nearly as accurate.
_METHOD = TauMultistep(order=4, corrector=5)
# The residual can be taken about a Gaussian with the data's full covariance, or with one variance.
# The full covariance is used only if the squared residuals with it are at most this fraction of the
# squared residuals with one variance, as for data that are nearly Gaussian. For other data the full
# covariance makes the residual smaller but less smooth. If the sampler's weights were fitted
# (`scoresde.sampling.fit`), the errors of the samples were then 1 to 6 times as large as with one
# variance.
_GAUSSIAN = 0.05

KEPT = 2**25
"""If the states of a pilot run have at most this many entries, all states are kept."""
# The largest numbers of samples and steps; more do not improve a pilot.
_MOST = {"n": 100_000, "steps": 10_000}

SAMPLES = 32
"""The number of samples of a pilot run."""
STEPS = 63
"""The number of steps of a pilot run; the run takes one more evaluation than steps."""


class _Recorder(Wrapped):
    """Record the states at which a score is evaluated, and the values of the score."""

    def __init__(self, score: Score) -> None:
        super().__init__(score)
        self.seen: list[tuple[Tensor, Tensor]] = []

    def __call__(self, x: Tensor, t: Tensor, condition: Condition | None = None) -> Tensor:
        value = self.ask(self.score, x, t, condition)
        self.seen.append((x.cpu(), check_output("score", value, x).cpu()))
        return value


class _Path:
    """Keep the state at each time of a run, after its correction by the corrector.

    `advance` is called once for each step. The score must not hold it, since a progress bar refers
    to objects in which the search for the networks of the score would find other networks.
    """

    def __init__(self, advance: Callable[[], object]) -> None:
        self.states: list[Tensor] = []
        self.advance = advance

    def __call__(self, step: Step, state: Tensor, *rest: Any) -> Tensor:
        *_, frame, i = rest
        new = weighted_sum(step, state, *rest)
        if i > len(self.states):
            self.advance()
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

    A run draws `n` samples, in steps of equal length in log-SNR. The residual is the score's
    denoiser minus the denoiser of the Gaussian with the data's moments. The pilot is the covariance
    of the residuals at all pairs of times of this run. `samplers.Fast(pilot=...)` uses it for any
    number of steps, and `model.pilot = pilot(model, sde)` stores it in a `ScoreModel` and in the
    model's file.

    Args:
        score: A score, as for `sample`.
        sde: The process; by default the process in the score's facts.
        shape: The shape of one event, if it is not in the score's facts.
        moments: The data's moments. `None` takes the moments in the score's facts, or else
            estimates them from the run: the mean from the first evaluations, at T, and one variance
            from the last evaluations, at eps. Unless the data are nearly Gaussian, a full
            covariance is replaced by its mean variance, which makes the residual smoother.
        n: The number of samples, at least 2.
        steps: The number of steps, at least 5; fewer are taken if the SDE has fewer levels.
        budgets: Numbers of steps for which "fast" is tuned by test runs; only numbers from 2 to 24
            have an effect. For each, samples are drawn with 8 settings of the orders and the grid.
            The setting whose samples are nearest to the final states of the pilot run replaces the
            usual setting if its error is more than 10 % smaller. For up to 21 steps and at least 16
            samples, the weights of up to four of the best settings are then fitted to the states of
            the pilot run, unless these have too many entries. The best fit is used if it makes the
            error more than 10 % smaller for samples to which it was not fitted.
        condition: The conditions of the score, with one row for each of the n samples.
        seed: The seed of the samples.
        progress: Show a bar; None shows a bar in a terminal or a notebook, and lines elsewhere.
        device: The device; by default the device of the score's networks.
        dtype: The dtype of the states; float32 by default.

    Returns:
        The pilot. Its `nfe` is its cost without `budgets`, `steps + 1` evaluations for each sample.

    Raises:
        InvalidValueError: There are fewer than 2 samples, 5 steps or 6 levels, or too many samples
            or steps.
        ScoreSDEError: The run fails, as in `sample`.

    Examples:
        >>> import scoresde
        >>> score = scoresde.targets.TwoMoons().at(scoresde.VPSDE())
        >>> pilot(score, n=8, steps=20).nfe
        21
    """
    check_integer("n", n, 2)
    check_integer("steps", steps, 5)
    for name, value in (("n", n), ("steps", steps)):
        if value > _MOST[name]:
            raise InvalidValueError(f"{name} of a pilot must be at most {_MOST[name]:,}")
    given = Condition.of(condition, n, facts(score).conditions, torch.device("cpu"))
    run = PilotRun(
        score, process_of(score, sde), shape, moments, n, steps, given, seed, progress, device,
        dtype,
    )  # fmt: skip
    found, states = run.measure()
    where = device_of(score) if device is None else device
    for budget in budgets:
        check_integer("a budget", budget, 1)
        found = audition(
            score, run.sde, found, states.to(where), budget, condition=given, progress=progress,
            device=device,
        )  # fmt: skip
    return found


@dataclass(frozen=True)
class PilotRun:
    """Hold the request for a pilot run; see `pilot` for the fields."""

    score: Score
    sde: SDE
    shape: Sequence[int] | None = None
    moments: Moments | None = None
    n: int = SAMPLES
    steps: int = STEPS
    condition: Condition | None = None
    seed: int = 0
    progress: bool | None = None
    device: torch.device | str | None = None
    dtype: torch.dtype | None = None

    def measure(self) -> tuple[Pilot, Tensor]:
        """Return the pilot, and the states of the run, `(K, n, *)`.

        If the states have too many entries, only the initial and the final states are returned,
        `(2, n, *)`.

        Raises:
            InvalidValueError: The SDE has fewer than 6 levels.
        """
        sde, n, times = self.sde, self.n, self._times()
        known = facts(self.score)
        found = known.moments if self.moments is None else self.moments
        # large events are run in parts, unless moments must be estimated from all samples
        event = math.prod(self.shape or known.event_shape or ())
        part = n if found is None else min(n, max(1, _NUMBERS // (len(times) * max(event, 1))))
        kept = slice(None) if n * len(times) * event <= KEPT else [0, -1]
        rows, states, parts = list[list[Tensor]](), list[Tensor](), range(0, n, part)
        doing = 'measuring the pilot of "fast"'
        with showing(len(parts) * (len(times) - 1), doing, show=self.progress, delay=1.0) as bar:
            for first in parts:
                recorder, path = _Recorder(self.score), _Path(bar.update)
                self._draw(recorder, path, range(first, min(first + part, n)), times, found)
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

    def _times(self) -> Tensor:
        levels = self.sde.levels
        if levels is not None and levels < 6:
            raise InvalidValueError(f"a pilot needs 6 levels, but this SDE has {levels}")
        return even_times(self.sde, self.steps if levels is None else min(self.steps, levels - 1))

    def _draw(
        self, recorder: _Recorder, path: _Path, rows: range, times: Tensor, moments: Moments | None
    ) -> None:
        condition = self.condition and self.condition.rows([*rows])
        Run.of(
            recorder, self.sde, Updated(_METHOD, path), n=len(rows), shape=self.shape, times=times,
            seed=self.seed, first=rows.start, condition=condition, moments=moments, progress=False,
            device=self.device, dtype=self.dtype,
        ).draw()  # fmt: skip


def _gaussians(moments: Moments) -> list[Moments]:
    """Return the moments; if they have a full covariance, add moments with a single variance."""
    if moments.cov is None:
        return [moments]
    return [moments, Moments(moments.mean, var=moments.mean_variance())]


def _estimated(sde: SDE, times: Tensor, x: Tensor, values: Tensor) -> Moments:
    """Estimate moments from a run: the mean from its first values, the variance from its last."""
    alpha, sigma = sde.at(times, x)
    denoised = (x + sigma**2 * values) / alpha
    mean = denoised[0].mean(0)
    return Moments(mean, var=float((denoised[-1] - mean).square().mean()))


def _residuals(moments: Moments, sde: SDE, times: Tensor, x: Tensor, values: Tensor) -> Tensor:
    """Return the residuals `(M, K)` of a run, with a row for each dimension of each trajectory."""
    frame = frame_of(moments, sde, times, x[0])
    factors = frame.coefficients(frame.denoising)
    found = []
    for i, factor in enumerate(factors):
        found.append((factor * frame.excess(values[i], frame.from_state(x[i], i), i)).flatten())
    return torch.stack(found, 1)
