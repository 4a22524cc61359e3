r"""Measure a pilot: the covariance of a score's residual, from one small sampling run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from scoresde.checks import check_integer, door
from scoresde.errors import InvalidValueError
from scoresde.samplers import UniPC
from scoresde.samplers.multistep.frame import frame_of
from scoresde.sampling.run import Run
from scoresde.score import Pilot, Wrapped
from scoresde.sde import SDE, Condition, Moments, Score, check_output, facts, process_of
from scoresde.sde.coordinates import half_log_snr, half_log_snr_range
from scoresde.sde.spacings import even_times

__all__ = ["pilot"]


class _Recorder(Wrapped):
    """Record the states at which a score is evaluated, and its values there."""

    def __init__(self, score: Score) -> None:
        super().__init__(score)
        self.seen: list[tuple[Tensor, Tensor]] = []

    def __call__(self, x: Tensor, t: Tensor, condition: Condition | None = None) -> Tensor:
        value = self.ask(self.score, x, t, condition)
        self.seen.append((x.cpu(), check_output("score", value, x).cpu()))
        return value


@door
def pilot(
    score: Score,
    sde: SDE | None = None,
    *,
    shape: Sequence[int] | None = None,
    moments: Moments | None = None,
    n: int = 32,
    steps: int = 63,
    condition: Mapping[str, Any] | None = None,
    seed: int = 0,
    progress: bool | None = None,
    device: torch.device | str | None = None,
    dtype: torch.dtype | None = None,
) -> Pilot:
    r"""Measure how a score's residual varies along the probability flow.

    `n` samples are drawn on a grid that is uniform in log-SNR. The denoiser there, minus that of
    the Gaussian with the data's moments, is the residual; its covariance over the grid is the
    pilot. `samplers.Fast(pilot=...)` uses it with every number of steps, and
    `model.pilot = pilot(model, sde)` keeps it with a `ScoreModel` and in its file.

    Args:
        score: A score, as for `sample`.
        sde: The process; by default the one that the score knows.
        shape: The shape of one event, if the score does not know it.
        moments: The data's moments; `None` takes those that the score knows, or estimates them from
            the run: the mean from its first evaluations, at T, and one variance from its last, at
            eps.
        n: Samples in the batch, at least 2.
        steps: Steps of the run, at least 5; fewer if the SDE has fewer levels.
        condition: The condition, passed to the score, one row for each of the n samples.
        seed: The seed of the samples.
        progress: Show a bar; None shows one in a terminal or a notebook, and lines elsewhere.
        device: The device; by default that of the score's networks.
        dtype: The dtype of the states; float32 by default.

    Returns:
        The pilot, whose `nfe` is its cost: `steps + 1` evaluations for each sample.

    Raises:
        InvalidValueError: Fewer than 2 samples, or fewer than 5 steps or 6 levels.
        ScoreSDEError: As `sample` does.

    Examples:
        >>> import scoresde
        >>> score = scoresde.targets.TwoMoons().at(scoresde.VPSDE())
        >>> pilot(score, n=8, steps=20).nfe
        21
    """
    sde = process_of(score, sde)
    check_integer("n", n, 2)
    check_integer("steps", steps, 5)
    if sde.levels is not None:
        if sde.levels < 6:
            raise InvalidValueError(f"a pilot needs 6 levels, but this SDE has {sde.levels}")
        steps = min(steps, sde.levels - 1)
    recorder = _Recorder(score)
    times = even_times(sde, steps)
    run = Run.of(
        recorder, sde, UniPC(), n=n, shape=shape, times=times, seed=seed, condition=condition,
        moments=moments, progress=progress, device=device, dtype=dtype,
    )  # fmt: skip
    run.draw()
    x, values = (torch.stack(part).double() for part in zip(*recorder.seen, strict=True))
    moments = facts(score).moments if moments is None else moments
    if moments is None:
        alpha, sigma = sde.at(times, x)
        denoised = (x + sigma**2 * values) / alpha
        mean = denoised[0].mean(0)
        moments = Moments(mean, var=float((denoised[-1] - mean).square().mean()))
    ell = half_log_snr(sde, times).clamp(max=half_log_snr_range(sde)[1])
    frame = frame_of(moments, sde, times, torch.exp(-ell), x[0])
    residuals = [
        frame.residual(values[i], frame.from_state(x[i], i), i).flatten() for i in range(len(ell))
    ]
    return Pilot.measure(ell, torch.stack(residuals, 1), moments, len(ell))
