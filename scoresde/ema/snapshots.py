"""The averages of a run at some of its steps: the files that a reconstruction is made of.

A run's folder holds `ema/sigma-<sigma>/step-<step>.safetensors` for every power-function average
and every snapshot. The name says which it is, and only what is needed is read.
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
    """An average that was stored.

    Attributes:
        profile: How it was made.
        step: After how many updates.
        path: Its file.
    """

    profile: Power
    step: int
    path: Path

    def read(self) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Return the averaged weights and what was copied, each by its name in the model.

        Raises:
            CheckpointError: The file is missing, damaged or something else.
        """
        return self.of_run()[:2]

    def of_run(self) -> tuple[dict[str, Tensor], dict[str, Tensor], str | None]:
        """Return what `read` returns, and which run it is of, where the file says."""
        tensors, meta = load_tensors(self.path)
        if (meta.get("sigma"), meta.get("step")) != (self.profile.sigma, self.step):
            raise CheckpointError(
                f"{self.path} is no snapshot of {self.profile} at step {self.step}"
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
    """Store an average, as it is after its updates so far, in the folder of a run.

    Args:
        folder: The run's.
        average: At least one update old.
        half: Whether the averaged weights are stored in float16, which rounds them to 3 digits; a
            tensor that float16 cannot hold stays as it is.
        run: What the run is known by: snapshots of two runs make no average.

    Returns:
        The file.

    Raises:
        InvalidValueError: The average has seen no update.
        NonFiniteError: A weight is NaN or infinite.
        CheckpointError: The file cannot be written; an older one is untouched.
    """
    sigma, step = average.profile.sigma, average.updates
    if step < 1:
        raise InvalidValueError("an average without an update has nothing to store")
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
    """Return the snapshots in the folder of a run, by spread and step; none where there is none."""
    found = []
    for path in Path(folder).glob("ema/sigma-*"):
        with contextlib.suppress(ValueError):  # a name that is no spread is not ours
            profile = Power(float(path.name.removeprefix("sigma-")))
            found += [Snapshot(profile, step, file) for step, file in steps_in(path)]
    return sorted(found, key=lambda s: (s.profile.sigma, s.step))
