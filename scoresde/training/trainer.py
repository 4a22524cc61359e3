r"""The training loop: everything around the loss, and none of its mathematics.

Step k draws its samples, times, noise, hidden labels and dropout from (seed, k) alone, so that a
run needs to store no random state, and one that was killed and taken up again ends in the same
weights, bit for bit, as one that never was (on the CPU, at one number of threads).
"""

from __future__ import annotations

import contextlib
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from scoresde import checkpoint, objectives
from scoresde.data import Data, batch_indices, load
from scoresde.ema import EMA
from scoresde.errors import CheckpointError, InvalidValueError, ShapeError, TrainingError
from scoresde.score import ScoreModel
from scoresde.sde import Importance, LogNormal, TimeLaw, Uniform
from scoresde.training import log
from scoresde.training.config import TrainConfig
from scoresde.training.state import identity, pack, unpack
from scoresde.training.stop import Stop

__all__ = ["Trainer"]


class Trainer:
    """Trains a score model by denoising score matching, with Adam and an average of the weights.

    With a `folder`, the run can be ended at any moment: a trainer made with the same arguments
    goes on from the last checkpoint. The folder holds

    - `step-*.safetensors`: the last checkpoints, with all that is needed to go on;
    - `model.safetensors` and `config.json`: the averaged model, as `ScoreModel.save_pretrained`
      writes it;
    - `log.jsonl`: one line every `log_every` steps, with the mean loss since the line before.

    Args:
        model: Trained in place.
        data: What to learn, or what `scoresde.data.load` makes it of. Labels, where there are
            any, are given to the network as `label`; a hidden one is `data.classes`.
        config: The numbers of the run.
        folder: Where the run is kept; nothing is kept without it.

    Attributes:
        step: Updates so far.
        ema: The averaged weights.

    Raises:
        ShapeError: The data's events have another shape than the model's.
        InvalidValueError: The folder holds a run of another configuration, model or data set.
        CheckpointError: The folder holds checkpoints, and all are damaged.
    """

    def __init__(
        self,
        model: ScoreModel,
        data: Data | Tensor | str | Path,
        config: TrainConfig | None = None,
        *,
        folder: str | Path | None = None,
    ) -> None:
        self.model = model
        self.data = data if isinstance(data, Data) else load(data)
        self.config = TrainConfig() if config is None else config
        self.folder = None if folder is None else Path(folder)
        _check_fit(model, self.data)
        self.step = 0
        self.ema = EMA(model, self.config.ema)
        self.optimizer = torch.optim.Adam(
            [p for p in model.parameters() if p.requires_grad],
            lr=self.config.lr,
            betas=self.config.betas,
            fused=True,
        )
        self._weight = _weight(self.config, model)
        self._law = _law(self.config)
        self._unsaved = False
        self._identity = identity(model, self.data)
        if self.folder is not None:
            self._resume(self.folder)

    @property
    def finished(self) -> bool:
        """Whether all steps are done."""
        return self.step >= self.config.steps

    def train(self, steps: int | None = None, *, progress: bool | None = None) -> ScoreModel:
        """Train to the end, or for `steps` updates, and return the averaged model.

        The first SIGINT or SIGTERM ends the run after its step and a checkpoint, with a
        KeyboardInterrupt or a SystemExit(143); a second one ends it at once.

        Args:
            steps: How many updates at most; None is all that are left.
            progress: Whether to show a bar; None shows it on a terminal.

        Returns:
            The model with the averaged weights, in eval mode.

        Raises:
            TrainingError: The loss or its gradient is no longer finite; says where.
            CheckpointError: Two checkpoints in a row could not be written, or the last one.
        """
        if self.folder is not None and self.finished:
            self._export(self.folder)  # the run may have been killed between the two files
        end = self.config.steps if steps is None else min(self.step + steps, self.config.steps)
        recent: list[Tensor] = []
        bar = tqdm(
            total=self.config.steps,
            initial=self.step,
            desc="training",
            unit="step",
            disable=None if progress is None else not progress,
        )
        with bar, Stop() as stop, _training(self.model, self.config.bf16):
            start = time.perf_counter()
            while self.step < end:
                recent.append(self._update())
                self.step += 1
                bar.update()
                told = stop.received  # read once: a signal may come while this step is saved
                last = self.step == end or told is not None
                save = last or self.step % self.config.save_every == 0
                if save or self.step % self.config.log_every == 0:
                    loss = self._log(recent, time.perf_counter() - start)
                    bar.set_postfix(loss=f"{loss:.4f}", refresh=False)
                    recent.clear()
                if save:
                    self._save(last=last)
                if told is not None:
                    kept = f"saved in {self.folder}" if self.folder else "not saved"
                    stop.end(f"{told.name} at step {self.step}, {kept}")
        return self.ema.model

    def _update(self) -> Tensor:
        """One step of the optimiser; the loss and the norm of its gradient, `(2,)`."""
        lr = self.config.lr_at(self.step)
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        self.optimizer.zero_grad()
        loss = self._loss(self.step)
        loss.backward()  # type: ignore[no-untyped-call]
        weights = self.optimizer.param_groups[0]["params"]
        norm = torch.nn.utils.clip_grad_norm_(weights, self.config.clip)
        self.optimizer.step()
        self.ema.update(self.model)
        return torch.stack([loss.detach(), norm])

    def _loss(self, step: int) -> Tensor:
        """The loss of batch number `step`: the mean over samples and event dimensions."""
        generator, dropout_seed = _randomness(self.config.seed, step)
        t, importance = self._times(generator)
        index = batch_indices(
            len(self.data), self.config.batch_size, seed=self.config.seed, step=step
        )
        device = self.model.data_mean.device
        x = self.data.x[index].to(device)
        condition = None
        if self.data.label is not None:
            hidden = torch.rand(len(index), generator=generator) < self.config.label_dropout
            label = self.data.label[index].masked_fill(hidden, self.data.classes or 0)
            condition = {"label": label.to(device)}
        with torch.random.fork_rng([device] if device.type == "cuda" else []):
            # layers such as dropout know no generator but the global one
            torch.default_generator.manual_seed(dropout_seed)
            if device.type == "cuda":
                torch.cuda.manual_seed(dropout_seed)
            losses = objectives.dsm_loss(
                self.model,
                self.model.sde,
                x,
                t=t,
                condition=condition,
                weight=self._weight,
                generator=generator,
            )
        return (importance.to(losses) * losses).mean() / x[0].numel()

    def _times(self, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        n = self.config.batch_size
        return self.model.sde.sample_times(n, law=self._law, generator=generator)

    def _log(self, recent: list[Tensor], seconds: float) -> float:
        """Look at the steps since the last look; the mean loss."""
        found = torch.stack(recent).double().cpu()
        finite = found.isfinite().all(1)
        if not finite.all():
            row = int((~finite).nonzero()[0])
            raise TrainingError(self._report(self.step - len(recent) + row, *found[row].tolist()))
        loss, norm = found.mean(0).tolist()
        if self.folder is not None:
            line = {
                "step": self.step,
                "loss": loss,
                "grad_norm": norm,
                "lr": self.config.lr_at(self.step - 1),
                "seconds": round(seconds, 3),
            }
            log.append(self.folder / "log.jsonl", line)
        return float(loss)

    def _report(self, step: int, loss: float, norm: float) -> str:
        t, _ = self._times(_randomness(self.config.seed, step)[0])
        sigma = self.model.sde.sigma(t)
        found = checkpoint.steps_in(self.folder) if self.folder is not None else []
        kept = f"the last good checkpoint is {found[-1][1]}" if found else "there is no checkpoint"
        return (
            f"training broke down at step {step}: the loss is {loss:.6g} and its gradient's norm "
            f"{norm:.6g}, at learning rate {self.config.lr_at(step):.3g}, times in "
            f"[{float(t.min()):.4g}, {float(t.max()):.4g}] and sigma in "
            f"[{float(sigma.min()):.4g}, {float(sigma.max()):.4g}]; {kept}; try a lower lr, "
            "a longer warmup or a smaller clip"
        )

    # Checkpoints

    def _save(self, *, last: bool) -> None:
        if self.folder is None:
            return
        state = pack(self.model, self.ema, self.optimizer)
        meta = {
            "step": self.step,
            "config": self.config.as_json(),
            "threads": torch.get_num_threads(),
            "torch": torch.__version__,
            **self._identity,
        }
        try:
            checkpoint.save_step(self.folder, self.step, state, meta, keep=self.config.keep)
            self._export(self.folder)
        except CheckpointError as error:
            if last or self._unsaved:
                raise
            self._unsaved = True
            warnings.warn(
                f"{error}; training goes on to the next checkpoint", RuntimeWarning, stacklevel=3
            )
        else:
            self._unsaved = False

    def _export(self, folder: Path) -> None:
        self.ema.model.save_pretrained(
            folder, training={**self.config.as_json(), "done": self.step}
        )

    def _resume(self, folder: Path) -> None:
        checkpoint.clean(folder)
        found = checkpoint.latest(folder)
        if found is not None:
            path, tensors, meta = found
            if not {"step", "config"} <= meta.keys():
                raise CheckpointError(f"{path} is no checkpoint of a run; take another folder")
            self._check_same(meta, str(path))
            unpack(tensors, self.model, self.ema, self.optimizer, source=str(path))
            self.step = meta["step"]
        log.trim(folder / "log.jsonl", self.step)

    def _check_same(self, meta: dict[str, Any], source: str) -> None:
        self.config.check_continues(meta["config"], source)
        for name, value in self._identity.items():
            if meta.get(name) != value:
                raise InvalidValueError(
                    f"{source} belongs to another {name}: it was {meta.get(name)} and is {value}; "
                    "take the old one, or another folder"
                )
        if meta.get("threads") != torch.get_num_threads():
            warnings.warn(
                f"{source} was written with {meta.get('threads')} threads and goes on with "
                f"{torch.get_num_threads()}: the weights will differ in the last bits from those "
                "of an uninterrupted run",
                RuntimeWarning,
                stacklevel=4,
            )


def _randomness(seed: int, step: int) -> tuple[torch.Generator, int]:
    """The generator of a step, and the seed of its dropout.

    torch uses 32 bits of a seed on the CPU, so two steps of a very long run may share their noise
    (with other samples), which does no harm in training.
    """
    words = np.random.SeedSequence([seed, step]).generate_state(2, np.uint64)
    own, dropout = (int(word >> np.uint64(1)) for word in words)
    return torch.Generator().manual_seed(own), dropout


@contextlib.contextmanager
def _training(model: ScoreModel, bf16: bool) -> Iterator[None]:
    """Training mode and precision within the block; afterwards those of before."""
    before = model.training, model.autocast
    model.train()
    model.autocast = torch.bfloat16 if bf16 else None
    try:
        yield
    finally:
        model.train(before[0])
        model.autocast = before[1]


def _check_fit(model: ScoreModel, data: Data) -> None:
    if data.event_shape != model.event_shape:
        raise ShapeError(
            f"the data's events have shape {data.event_shape}, the model's {model.event_shape}; "
            "build the model with event_shape=data.event_shape"
        )
    config = getattr(model.net, "config", None)
    known = config if isinstance(config, dict) else {}
    if data.label is not None and known.get("num_classes", data.classes) != data.classes:
        raise InvalidValueError(
            f"the data have {data.classes} classes and the network num_classes="
            f"{known['num_classes']}; build it with num_classes={data.classes}, or train on "
            "`data.unlabelled()`"
        )


def _weight(config: TrainConfig, model: ScoreModel) -> objectives.Weight:
    if config.weight == "edm":
        return objectives.edm(float(model.data_var.double().mean()))
    return objectives.WEIGHTS[config.weight]


def _law(config: TrainConfig) -> TimeLaw | None:
    mean, std = config.log_sigma
    laws: dict[str, TimeLaw] = {
        "uniform": Uniform(),
        "lognormal": LogNormal(mean, std),
        "importance": Importance(),
    }
    return laws.get(config.times)
