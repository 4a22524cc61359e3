"""`scoresde sample`: draws of a trained model, into a picture or an array file."""

from __future__ import annotations

import io
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import numpy as np
import torch
import tyro
from torch import Tensor

from scoresde import checkpoint, distributed, plot
from scoresde.checks import check_integer
from scoresde.cli.options import Checkpoint, SamplerName, Steps
from scoresde.cli.terminal import show
from scoresde.errors import CheckpointError, InvalidValueError
from scoresde.pretrained.store import net_config
from scoresde.sampling import Run, Shards
from scoresde.score import ScoreModel

__all__ = ["Drawn", "Sample", "check_folder", "check_out", "draw"]

_SUFFIXES = (".png", ".npy", ".npz", ".safetensors")


@dataclass(frozen=True)
class Sample:
    """Draw samples from a trained model. Sample i of a seed is the same whatever --n is.

    The same command again goes on where one that was interrupted ended. Under torchrun the batches
    are divided among the processes, and their numbers stay the same.
    """

    checkpoint: Checkpoint
    out: Path
    """What to write: a .png grid of images, or samples as .npy, .npz or .safetensors, in the units
    of the data that the model learnt: bytes where those were bytes. A name without a suffix is a
    folder of .safetensors, one for each batch, for more samples than fit into memory."""
    n: int = 64
    """How many samples, at least 1."""
    sampler: SamplerName = "pc"
    """pc predicts and corrects; em, reverse_diffusion and ancestral predict; ald corrects."""
    steps: Steps = None
    """Steps from noise to data, at least 1; more are slower and better."""
    seed: int = 0
    """The randomness, an integer from 0 to 2**64 - 1."""
    class_: Annotated[
        int | None,
        tyro.conf.arg(name="class", metavar="INT", help_behavior_hint="(default: all in turn)"),
    ] = None
    """Draw this class only, counted from 0; for models that were trained with labels."""
    first: int = 0
    """The number of the first sample: --first 64 goes on where --n 64 ended."""
    batch_size: int = 64
    """Samples at once, at least 1: less needs less memory and changes the last digits."""

    def run(self) -> None:
        """Draw and write."""
        in_file = bool(self.out.suffix)
        if in_file:
            check_out(self.out)
            _check_replaced(self.out)
        else:
            check_folder(self.out)
        model = ScoreModel.from_pretrained(self.checkpoint).to(distributed.device())
        _check_picture(self.out, model.event_shape)
        folder = self.out.with_name(f"{self.out.name}.shards") if in_file else self.out
        shards = Shards(folder, self.n, self.batch_size)
        nfe = 0
        start = time.perf_counter()

        def chunk(rows: range) -> dict[str, Tensor]:
            nonlocal nfe
            drawn = draw(
                model,
                self.sampler,
                n=len(rows),
                steps=self.steps,
                seed=self.seed,
                label=self.class_,
                first=self.first + rows.start,
                batch_size=self.batch_size,
            )
            nfe = drawn.nfe
            x = _shown(self.out, drawn.x, model)
            return {"x": x} if drawn.label is None else {"x": x, "y": drawn.label}

        missing = shards.draw(chunk, self._request(model), scratch=in_file)
        if not distributed.is_main():
            return
        if in_file:
            _write(self.out, shards.joined())
            shards.remove()
        cost = f", {nfe} evaluations of the network each" if nfe else ""
        there = len(shards) - missing
        already = f", {there} of {len(shards)} batches were there" if there else ""
        show(
            f"{self.n} samples of shape {model.event_shape} in {time.perf_counter() - start:.1f} s"
            f"{cost}{already}: {self.out}"
        )

    def _request(self, model: ScoreModel) -> dict[str, Any]:
        """All that the samples depend on."""
        return {
            "model": _fingerprint(model),
            "sampler": self.sampler,
            "steps": self.steps,
            "seed": self.seed,
            "class": self.class_,
            "first": self.first,
            "batch_size": self.batch_size,
        }


class Drawn(NamedTuple):
    """Samples and what they cost."""

    x: Tensor
    label: Tensor | None
    nfe: int
    seconds: float


def draw(
    model: ScoreModel,
    sampler: str,
    *,
    n: int,
    steps: int | None,
    seed: int,
    label: int | None,
    first: int = 0,
    batch_size: int = 64,
) -> Drawn:
    """Samples `first ... first + n - 1` of a seed.

    Args:
        model: A score model; where it knows classes, sample i is of class i modulo their number.
        sampler: A name of `SAMPLERS`.
        n: How many, at least 1.
        steps: Steps of the sampler; None for the default.
        seed: Their seed.
        label: The class of all of them; None for all classes in turn.
        first: The number of the first.
        batch_size: Samples per batch; the last batch is padded.

    Raises:
        InvalidValueError: `n` is below 1, or the model has no such class.
    """
    check_integer("n", n, 1)
    labels = _labels(model, label, first, n)
    start = time.perf_counter()
    drawn = Run.of(
        model, sampler=sampler, n=n, steps=steps, seed=seed, first=first,
        condition=None if labels is None else {"label": labels},
    ).draw(batch_size)  # fmt: skip
    return Drawn(drawn.x.cpu(), labels, drawn.nfe, time.perf_counter() - start)


def _labels(model: ScoreModel, label: int | None, first: int, n: int) -> Tensor | None:
    """The classes of samples `first ... first + n - 1`, where the model knows any."""
    classes = model.classes
    if classes is None:
        if label is None:
            return None
        raise InvalidValueError(f"this model was trained without classes; leave out class {label}")
    if label is None:
        return (torch.arange(n) + first % classes) % classes
    if not 0 <= label < classes:
        raise InvalidValueError(f"class must lie in [0, {classes - 1}], got {label}")
    return torch.full((n,), label)


def check_out(path: Path, suffixes: tuple[str, ...] = _SUFFIXES) -> None:
    """Refuse, before the work, a file of another kind than can be written after it."""
    if path.suffix not in suffixes:
        raise InvalidValueError(f"out must end in {', '.join(suffixes)}; got {str(path)!r}")
    if path.is_dir():
        raise InvalidValueError(f"{str(path)!r} is a folder; name a file")
    check_folder(path.parent)


def check_folder(path: Path) -> None:
    """Refuse, before the work, what cannot be the folder that is filled after it."""
    taken = next((p for p in (path, *path.parents) if p.exists() and not p.is_dir()), None)
    if taken is not None:
        raise InvalidValueError(f"{str(taken)!r} is a file; name a folder")


def _check_replaced(path: Path) -> None:
    """Refuse to replace a model or a checkpoint, whose files end as those of samples do."""
    if path.suffix != ".safetensors" or not path.is_file():
        return
    try:
        samples = checkpoint.load_tensors(path)[0].keys() <= {"x", "y"}
    except CheckpointError:
        samples = False  # of a newer scoresde, damaged or foreign: not ours to judge
    if not samples:
        raise InvalidValueError(f"{path} holds something else than samples; take another file")


def _check_picture(path: Path, event_shape: tuple[int, ...]) -> None:
    if path.suffix == ".png" and not plot.is_image(event_shape):
        raise InvalidValueError(
            "a .png shows images of shape (1, H, W) or (3, H, W), but this model's samples have "
            f"shape {event_shape}; write them to a .npy, .npz or .safetensors file"
        )


def _shown(path: Path, x: Tensor, model: ScoreModel) -> Tensor:
    """Samples as a picture takes them, or in the units of the data that the model learnt."""
    return x if path.suffix == ".png" else model.transform.restore(x)


def _fingerprint(model: ScoreModel) -> str:
    """Tells one trained model from another."""
    config = net_config(model.net)
    parts = (model.sde, model.predicts, model.steps, model.transform, config)
    pilot = {} if model.pilot is None else model.pilot.tensors()
    tensors = {name: value.cpu() for name, value in {**model.state_dict(), **pilot}.items()}
    return checkpoint.digest(tensors, repr(parts), checkpoint.SCHEMA)[:16]


def _write(path: Path, tensors: dict[str, Tensor]) -> None:
    if path.suffix == ".png":
        plot.grid(tensors["x"], path)
        return
    if path.suffix == ".safetensors":
        checkpoint.save_tensors(path, tensors)
        return
    arrays: dict[str, Any] = {name: value.numpy() for name, value in tensors.items()}
    buffer = io.BytesIO()
    if path.suffix == ".npy":
        np.save(buffer, arrays["x"])
    else:
        np.savez(buffer, **arrays)
    checkpoint.write_bytes(path, buffer.getvalue())
