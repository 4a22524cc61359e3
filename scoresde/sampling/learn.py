r"""A pilot run: one small batch along the probability flow, from which the fast sampler learns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from scoresde.checks import check_integer
from scoresde.errors import InvalidValueError
from scoresde.samplers import UniPC
from scoresde.samplers.frame import frame_of
from scoresde.samplers.levels import ends_of, even_times
from scoresde.sampling.front import trajectory
from scoresde.sampling.run import Score
from scoresde.score import Conditional, Pilot, check_problem
from scoresde.sde import SDE, Moments, ReverseSDE

__all__ = ["pilot"]


class _Recorder:
    """A score that remembers where its denoiser was evaluated, and what it said."""

    def __init__(self, model: Score, sde: SDE) -> None:
        self.model, self.sde = model, sde
        self.event_shape = getattr(model, "event_shape", None)
        self.data = getattr(model, "data", None)
        self.seen: list[tuple[Tensor, Tensor]] = []

    def __call__(self, x: Tensor, t: Tensor) -> Tensor:
        return self.denoise(x, t)

    def denoise(
        self, x: Tensor, t: Tensor, condition: Mapping[str, Tensor] | None = None
    ) -> Tensor:
        score = Conditional(self.model, condition) if condition else self.model
        denoised = ReverseSDE(self.sde, score).denoise(x, t)
        self.seen.append((x.cpu(), denoised.cpu()))
        return denoised


def pilot(
    model: Score,
    sde: SDE,
    *,
    shape: Sequence[int] | None = None,
    data: Moments | None = None,
    n: int = 32,
    steps: int = 63,
    condition: Mapping[str, Tensor] | None = None,
    seed: int = 0,
    progress: bool | None = None,
    device: torch.device | str | None = None,
    dtype: torch.dtype | None = None,
) -> Pilot:
    r"""Measure how a score's residual varies along the probability flow.

    `n` samples are drawn on a grid that is uniform in the noise level. What the denoiser said
    there, less the Gaussian of the data's moments, has a covariance over the levels; that is all
    which is kept. `samplers.Fast(pilot=...)` uses it at every number of steps, and
    `model.pilot = pilot(model, sde)` keeps it with a `ScoreModel` and in its checkpoint.

    Args:
        model: A score, as `sample` takes it.
        sde: The process.
        shape: The shape of one event, where the score does not know it.
        data: The data's moments; `None` takes the model's own, or reads them from the run: the
            mean from its first evaluations, at T, and one variance from its last, at eps.
        n: Samples in the batch, at least 2.
        steps: Steps of the run; fewer where the SDE has fewer levels, at least 5.
        condition: Handed to the model, one row for each of the n samples.
        seed: The seed of the samples.
        progress: Whether a bar is shown; `None` shows it on a terminal.
        device: Where it runs; by default where the model is.
        dtype: Of the states; single precision by default.

    Returns:
        The pilot, which says what it cost in its `nfe`: `steps + 1` evaluations.

    Raises:
        InvalidValueError: Fewer than 2 samples, or fewer than 5 steps or 6 levels.
        ScoreSDEError: Whatever `sample` raises.
    """
    check_problem(model, sde)
    check_integer("n", n, 2)
    check_integer("steps", steps, 5)
    if sde.levels is not None:
        if sde.levels < 6:
            raise InvalidValueError(f"a pilot needs 6 levels, but this SDE has {sde.levels}")
        steps = min(steps, sde.levels - 1)
    recorder = _Recorder(model, sde)
    times = even_times(sde, steps)
    run = trajectory(
        recorder, sde, UniPC(), n=n, shape=shape, times=times, seed=seed, condition=condition,
        data=data, progress=progress, device=device, dtype=dtype,
    )  # fmt: skip
    for _ in run:
        pass
    x, denoised = (torch.stack(part).double() for part in zip(*recorder.seen, strict=True))
    data = data or recorder.data
    if data is None:
        mean = denoised[0].mean(0)
        data = Moments(mean, var=float((denoised[-1] - mean).square().mean()))
    levels = (sde.log_snr(times) / 2).clamp(max=ends_of(sde)[1])
    frame = frame_of(data, sde, times, torch.exp(-levels), x[0])
    residuals = [
        frame.residual(denoised[i], frame.enter(x[i], i), i).flatten() for i in range(len(levels))
    ]
    return Pilot.measure(levels, torch.stack(residuals, 1), data, len(levels))
