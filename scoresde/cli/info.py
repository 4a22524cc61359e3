"""Define `scoresde info`: describe a model without running it."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from scoresde import checkpoint
from scoresde.cli.options import Checkpoint
from scoresde.cli.standing import Standing
from scoresde.cli.terminal import show, then
from scoresde.errors import CheckpointError
from scoresde.pretrained.rebuild import check_description, unknown
from scoresde.pretrained.store import PIPELINE, entry_of, locate, read
from scoresde.sampling import SAMPLERS
from scoresde.score import Pilot, ScoreModel
from scoresde.score.conditions import read_kind
from scoresde.sde import facts
from scoresde.sde.words import conditions_in_words, event_in_words, sde_in_words
from scoresde.training import log
from scoresde.units import in_words

__all__ = ["Info"]

_PREDICTED = {
    "edm": "the clean sample, under EDM's preconditioning",
    "eps": "the noise",
    "x0": "the clean sample",
    "v": "v = alpha z - sigma x_0",
    "flow": "the velocity of flow matching",
    "score": "the score",
    "sigma_score": "sigma times the score",
}


@dataclass(frozen=True)
class Info:
    """Describe a model or a run, and verify the checksums of its files."""

    checkpoint: Checkpoint

    def run(self) -> None:
        """Print a table."""
        path = locate(self.checkpoint)
        rows: list[tuple[str, str]] = []
        config: dict[str, Any] = {}
        unread: CheckpointError | None = None
        try:
            tensors, config = _read(path)
            rows += _model(path, tensors, config)
        except CheckpointError as error:
            unread = error
        rows += _files(path)
        rows += _texts(path.parent, config)
        for name, value in rows if unread is None or len(rows) > 1 else ():
            show(f"{name:18}{value}")
        damaged = [value for _, value in rows if value.endswith("DAMAGED")]
        if unread is not None:
            raise unread
        if damaged:
            raise CheckpointError(f"{len(damaged)} file(s) of {path.parent} are damaged")
        self._then(path, config)

    def _then(self, path: Path, config: dict[str, Any]) -> None:
        """Print the next commands: to continue the training if it has steps left, and to draw."""
        settings, standing = path.parent / "config.toml", Standing.of(path, config)
        if standing.unfinished and settings.exists() and not standing.who:
            then("train to the end", "train", "--config", settings)
        then("see samples", "sample", self.checkpoint, "--out", "samples.png")
        known = entry_of(config, "net", "config", "num_classes")
        if isinstance(known, dict) and len(known) == 1:
            ((name, known),) = known.items()
        else:
            name = "label"
        if known == 1 or not isinstance(known, int):
            return
        words = entry_of(config, "names", name)
        one = words[0] if isinstance(words, list) and words else "0"
        then("see one class alone", "sample", self.checkpoint, "--class", one, "--out", "one.png")


def _read(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Return the tensors and the description of a model, or of a pipeline of diffusers."""
    if path.name != PIPELINE:
        return read(path)
    model = ScoreModel.from_pretrained(path)
    return model.state_dict(), model.description()


def _model(
    path: Path, tensors: dict[str, Tensor], config: dict[str, Any]
) -> Iterator[tuple[str, str]]:
    check_description(config, path)
    shape = tuple(config["event_shape"])
    kind, options = config["net"]["type"], config["net"].get("config") or {}
    stored = [v for k, v in tensors.items() if k.startswith("net.")]
    dtypes = ", ".join(sorted({str(v.dtype).removeprefix("torch.") for v in stored}))
    numbers = sum(v.numel() for v in stored)
    conditions, process = "unknown", config["sde"]["type"]
    pilot, columns = None, tuple[str, ...]()
    if not unknown(config):
        model = ScoreModel.from_pretrained(path)
        numbers = sum(p.numel() for p in model.net.parameters())
        known = facts(model)
        if known.conditions is not None:
            conditions = conditions_in_words(known.conditions)
        process, pilot = sde_in_words(model.sde), model.pilot or known.pilot
        columns = model.columns
    elif isinstance(config.get("conditions"), dict):
        conditions = conditions_in_words({k: read_kind(v) for k, v in config["conditions"].items()})
    mean, var = (tensors[name].double() for name in ("mean", "var"))
    size = f": {math.prod(shape):,} dimensions" if len(shape) > 1 else ""
    yield "samples", f"{event_in_words(shape, columns)}{size}"
    std = math.sqrt(max(float(var.mean()), 0))
    yield "units", in_words(config.get("transform"))
    if config.get("moments") is False:
        yield "data", "mean and std are not known"
    else:
        yield "data", f"mean {float(mean.mean()):.4g}, std {std:.4g} in model units"
    yield "conditions", conditions
    yield "noise", process
    widths = options.get("channels") or options.get("hidden") or ()
    wide = f", {' '.join(map(str, widths))} wide" if isinstance(widths, list | tuple) else ""
    yield "network", f"{kind}, {numbers:,} parameters in {dtypes}{wide if widths else ''}"
    yield "predicts", _PREDICTED.get(config["predicts"], config["predicts"])
    standing = Standing.of(path, config)
    if standing.steps is not None:
        yield "trained", str(standing)
    if standing.who:
        at = "" if standing.at is None else f", at step {standing.at:,} or beyond"
        yield "running", f"{standing.who}{at}"
    if (profile := entry_of(config, "average", "profile")) is not None:
        yield "average", f"of the weights, {profile}"
    if (path.parent / "best" / "model.safetensors").exists():
        yield "best", f"{path.parent / 'best'} has the weights of the lowest held-out loss"
    taken = {name: _taken(name, config.get("steps")) for name in ("fast", "pc")}
    has = "has a measured schedule"
    if not isinstance(pilot, Pilot):
        has = "has no measured schedule" if pilot is None else "measures its schedule first"
    yield (
        "sampling",
        f"{taken['fast']} steps by --sampler fast, which {has}; {taken['pc']} by pc",
    )
    yield "licence", str(config.get("license") or "not stated")


def _taken(sampler: str, suits: Any) -> int:
    """Return the default number of steps of a sampler for a model."""
    usual: int = SAMPLERS[sampler].steps
    return min(suits, usual) if isinstance(suits, int) and suits else usual


def _files(path: Path) -> Iterator[tuple[str, str]]:
    """Yield the model's file, the checkpoints and the snapshots, and whether each is damaged."""
    folder = path.parent
    if path.name == PIPELINE:
        yield "model", f"{folder}, a pipeline of diffusers"
        return
    files = [("model", path)]
    files += [(f"step {step:,}", file) for step, file in checkpoint.steps_in(folder)]
    files += [
        (str(file.relative_to(folder).parent), file)
        for file in sorted(folder.glob("ema*/**/*.safetensors"))
    ]
    for name, file in files:
        try:
            state = f"schema {checkpoint.schema(file)}, checksum verified"
        except checkpoint.NewerError:
            state = "of a newer scoresde"
        except CheckpointError:
            state = "DAMAGED"
        if file.exists():
            yield name, f"{file}, {_size(file)}, {state}"
    for file in sorted(folder.glob("step-*.damaged")):
        yield "set aside", f"{file}, {_size(file)}, damaged when the run was resumed"


def _texts(folder: Path, config: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield the text files of a run, and whether each can be read; they have no checksum."""
    path = folder / "config.json"
    if path.exists() and config:
        try:
            same = checkpoint.read_json(path) == config
            state = "agrees with the model" if same else "differs from the model, which is used"
        except CheckpointError:
            state = "DAMAGED"
        yield "config", f"{path}, {state}"
    path = folder / "log.jsonl"
    if path.exists():
        try:
            lines = len(checkpoint.read_bytes(path).splitlines())
            whole = sum(1 for _ in log.rows(path))
            state = f"{whole:,} {'row' if whole == 1 else 'rows'}" + (
                ", DAMAGED" if whole < lines else ""
            )
        except CheckpointError:
            state = "DAMAGED"
        yield "log", f"{path}, {state}"


def _size(path: Path) -> str:
    return f"{path.stat().st_size / 1e6:.2f} MB"
