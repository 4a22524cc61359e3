"""Store the averages of a run at some of its steps, and read them for reconstruction.

A run's folder has a file `ema/sigma-<sigma>/step-<step>.safetensors` for each snapshot of each
power-function average. Snapshots are found by these names.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from scoresde.checkpoint import clean, load_tensors, save_tensors, steps_in
from scoresde.checks import door
from scoresde.ema.average import PowerEMA
from scoresde.ema.profile import Power
from scoresde.errors import CheckpointError, InvalidValueError, NonFiniteError

__all__ = ["Snapshot", "save_snapshot", "snapshots_in"]

_AVERAGED, _COPIED = "averaged.", "copied."


@dataclass(frozen=True)
class Snapshot:
    """Describe a stored average.

    Attributes:
        profile: The profile of the average.
        step: The number of updates.
        path: The file.
    """

    profile: Power
    step: int
    path: Path

    def read(self) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Return the averaged and the copied tensors, each by its name in the model.

        Raises:
            CheckpointError: The file is missing or damaged, or is not a snapshot of this step.
        """
        return self.read_with_run()[:2]

    def read_with_run(self) -> tuple[dict[str, Tensor], dict[str, Tensor], str | None]:
        """Return the results of `read`, and the identifier of the run if the file has one."""
        tensors, meta = load_tensors(self.path)
        if (meta.get("sigma"), meta.get("step")) != (self.profile.sigma, self.step):
            raise CheckpointError(
                f"{self.path} is not a snapshot of {self.profile} at step {self.step}"
            )
        parts: tuple[dict[str, Tensor], dict[str, Tensor]] = ({}, {})
        for name, value in tensors.items():
            if name.startswith(_AVERAGED):
                parts[0][name.removeprefix(_AVERAGED)] = value
            else:
                parts[1][name.removeprefix(_COPIED)] = value
        return *parts, meta.get("run")


@door
def save_snapshot(
    folder: str | Path, average: PowerEMA[Any], *, half: bool = False, run: str | None = None
) -> Path:
    """Write the current state of an average to the folder of a run.

    Args:
        folder: The folder of the run.
        average: An average with at least one update.
        half: Store the averaged weights in float16, which has 3 digits; a tensor with a number too
            large for float16 keeps its dtype.
        run: An identifier of the run, so that snapshots of two runs are not combined.

    Returns:
        The file.

    Raises:
        InvalidValueError: The average has no update yet.
        NonFiniteError: A weight is NaN or infinite.
        CheckpointError: The file cannot be written; an older file is unchanged.
    """
    sigma, step = average.profile.sigma, average.updates
    if step < 1:
        raise InvalidValueError("this average has no updates yet; store it after the first update")
    if not all(p.isfinite().all() for p in average.model.parameters()):
        raise NonFiniteError(
            f"the average with {average.profile} is not finite after {step} updates and is not "
            "stored; try a lower lr or a longer warmup"
        )
    averaged = average.averaged
    tensors = {
        _AVERAGED + name if name in averaged else _COPIED + name: value
        for name, value in average.model.state_dict().items()
    }
    if half:
        tensors = {k: _half(v) if k.startswith(_AVERAGED) else v for k, v in tensors.items()}
    path = Path(folder) / "ema" / f"sigma-{sigma}" / f"step-{step:08d}.safetensors"
    clean(path.parent)
    known = {} if run is None else {"run": run}
    save_tensors(path, tensors, {"sigma": sigma, "step": step, **known})
    return path


def _half(value: Tensor) -> Tensor:
    rounded = value.half()
    return rounded if rounded.isfinite().all() else value


@door
def snapshots_in(folder: str | Path) -> list[Snapshot]:
    """Return the snapshots in the folder of a run, sorted by width and step."""
    found = []
    for path in Path(folder).glob("ema/sigma-*"):
        with contextlib.suppress(ValueError):  # the name of the folder has no width
            profile = Power(float(path.name.removeprefix("sigma-")))
            found += [Snapshot(profile, step, file) for step, file in steps_in(path)]
    return sorted(found, key=lambda s: (s.profile.sigma, s.step))
