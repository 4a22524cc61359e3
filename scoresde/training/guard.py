"""Detect steps that fail: a loss or gradient is not finite, or memory runs out.

Losses and gradient norms are read only every `log_every` steps and before every checkpoint, since
each reading waits for the device. If a gradient is not finite, the run ends with an error, or the
step is skipped. A skipped step changes neither the weights nor the optimiser, so the run remains a
function of its seed. Weights that are not finite are never saved.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor, nn

from scoresde import distributed
from scoresde.checks import in_memory, outside, version
from scoresde.data import Data
from scoresde.errors import TrainingError
from scoresde.training.config import TrainConfig

__all__ = ["Guard"]

_MOST = 10  # if more steps in a row are skipped, the weights are assumed to be useless
# the same number for float16, where each skipped step halves the scale of the loss, from 2^16
_HALVINGS = 39
# the number of steps that may change an unsaved buffer without a warning
_CACHED = 2


class _UnsavedBuffers:
    """Warn once, if three steps have changed buffers that are not saved.

    A buffer that is only a cache is made at the first step, and does not change later.
    """

    def __init__(self) -> None:
        self._names: frozenset[str] | None = None
        self._last: dict[str, tuple[int, int]] = {}
        self._changes = 0

    def check(self, score: nn.Module) -> None:
        if self._names is None:
            saved = score.state_dict().keys()
            self._names = frozenset(n for n, _ in score.named_buffers() if n not in saved)
        if not self._names or self._changes > _CACHED:
            return
        buffers = {n: x for n, x in score.named_buffers() if n in self._names}
        found = {n: (id(x), version(x)) for n, x in buffers.items()}
        changed = [n for n, last in self._last.items() if found.get(n, last) != last]
        self._last = found
        self._changes += bool(changed)
        if self._changes > _CACHED:
            warnings.warn(
                f"training changes the buffer {changed[0]!r}, which was registered with "
                "persistent=False and so is neither saved nor restored: its values are lost in a "
                "resumed run and in a stored model; leave persistent out",
                RuntimeWarning,
                stacklevel=outside(),
            )


class Guard:
    """Check the steps of a run, and its weights and data before each checkpoint.

    Args:
        config: The configuration of the run; steps are skipped only if `config.skips`.
        describe: A function that maps the number of an update to a text with its learning rate,
            times and noise scales, for messages.
        newest: A function that returns the last undamaged checkpoint, or None.

    Attributes:
        skipped: The number of steps skipped since the last row of the log.
    """

    def __init__(
        self,
        config: TrainConfig,
        describe: Callable[[int], str],
        newest: Callable[[], Path | None],
    ) -> None:
        self.config = config
        self.skipped = 0
        self._describe = describe
        self._newest = newest
        self._in_a_row = 0
        self._mode = True
        self._unsaved = _UnsavedBuffers()

    def check_mode(self, step: int, score: nn.Module) -> None:
        """Warn once if a score is in evaluation mode, or changes buffers that are not saved."""
        self._unsaved.check(score)
        if not score.training and self._mode:
            self._mode = False
            warnings.warn(
                f"the model is in evaluation mode at step {step:,}, so its dropout is off; "
                "something else, such as a callback, has called eval() on it; use trainer.model "
                "or a copy there",
                RuntimeWarning,
                stacklevel=outside(),
            )

    def finite_steps(self, first: int, rows: Tensor) -> Tensor:
        """Return the rows of steps with a finite loss and gradient.

        Args:
            first: The number of the first step.
            rows: The loss and the gradient's norm of each step, `(n, 2)`.

        Returns:
            `rows` without the rows of skipped steps.

        Raises:
            TrainingError: A loss or gradient is not finite, and the step may not be skipped.
        """
        finite = rows.isfinite()
        good = finite.all(1)
        for i, (loss, norm) in enumerate(rows.tolist()):
            if good[i]:
                self._in_a_row = 0
                continue
            self._in_a_row += 1
            # in float16 a finite loss may have a gradient that overflows
            overflow = self.config.compute.fp16 and finite[i, 0]
            may = overflow or self.config.keeping.on_nan == "skip"
            if finite[i, 1] or not may or self._in_a_row > (_HALVINGS if overflow else _MOST):
                raise TrainingError(self._report(first + i, loss, norm))
        bad = (~good).nonzero().flatten() + first
        if len(bad):
            self.skipped += len(bad)
            if not self.config.compute.fp16:  # in float16 skipped steps are normal
                warnings.warn(
                    f"{len(bad)} of the last {len(rows)} steps were skipped, since their "
                    f"gradients were not finite; the first is step {int(bad[0])}",
                    RuntimeWarning,
                    stacklevel=outside(),
                )
        return rows[good]

    def check_moved(self, first: int, step: int) -> None:
        """Warn if a run in float16 has skipped all its steps, from `first` to `step`."""
        if not self.config.compute.fp16:  # other runs have been warned of skipped steps
            return
        if first < step == self.config.steps and self._in_a_row >= max(step - first, min(2, step)):
            warnings.warn(
                f"the weights did not change: the gradients of the last {self._in_a_row} steps, "
                "all steps of this training, overflowed in float16; divide the loss by a large "
                "number, train for more steps, or take bf16=True or fp16=False",
                RuntimeWarning,
                stacklevel=outside(),
            )

    def check(
        self, step: int, state: Mapping[str, Tensor], optimizer: torch.optim.Optimizer
    ) -> None:
        """Raise an error if a weight or an average of the optimiser is not finite.

        Args:
            step: The number of steps so far.
            state: All tensors to be saved. None may be NaN; buffers, such as masks, may be
                infinite.
            optimizer: The optimiser, with the weights and the averages of their gradients.

        Raises:
            TrainingError: A tensor is not finite.
        """
        finite = [p.detach() for group in optimizer.param_groups for p in group["params"]]
        finite += [v for slot in optimizer.state.values() for v in slot.values()]
        bad = sum(not _sums(v) and not bool(v.isfinite().all()) for v in finite)
        bad = bad or sum(not _sums(v) and bool(v.isnan().any()) for v in state.values())
        if bad:
            raise TrainingError(
                f"training failed: after {step} steps {bad} tensors of weights or averages are not "
                f"finite, {self._describe(step - 1)}; {self._kept()}; try a lower lr or a longer "
                "warmup"
            )

    def check_data(self, step: int, data: Data) -> None:
        """Raise an error if the data have changed since the run began.

        Args:
            step: The number of steps so far.
            data: The data. At each checkpoint other samples are compared with their original
                values.

        Raises:
            DataError: The data can no longer be read.
            TrainingError: A sample has changed, in this or another process.
        """

        def compare() -> None:
            if changed := data.changed(step // self.config.keeping.period(self.config.steps)):
                raise TrainingError(
                    f"training ended after {step} steps: {changed}; {self._kept()}; restore the "
                    "old data to continue, or begin another run"
                )

        distributed.together(compare)

    @contextmanager
    def memory(self, step: int) -> Iterator[None]:
        """Raise MemoryLimitError if the block, which makes step `step`, runs out of memory.

        Raises:
            MemoryLimitError: The step does not fit into memory.
        """
        with in_memory(
            lambda: (
                f"step {step}, of {self.config.batch_size} samples, does not fit into memory; "
                f"{self._kept()}; continue with a larger accumulate or with recompute=True, or "
                "begin another run with a smaller batch_size"
            )
        ):
            yield

    def torn(self, step: int) -> TrainingError:
        """Return the error for a step that was interrupted while its weights were changing."""
        return TrainingError(
            f"training was interrupted in the middle of step {step}, so this trainer cannot "
            f"continue; {self._kept()}; "
            + (
                "a new trainer of the same folder continues from there"
                if self._newest()
                else "with folder= a new trainer could continue from the last checkpoint"
            )
        )

    def _report(self, step: int, loss: float, norm: float) -> str:
        row = f", the {self._in_a_row}th in a row" if self._in_a_row > _MOST else ""
        return (
            f"training failed at step {step}{row}: the loss is {loss:.6g} and its gradient's norm "
            f"{norm:.6g}, {self._describe(step)}; {self._kept()}; try a lower lr, a longer warmup "
            "or a smaller clip"
        )

    def _kept(self) -> str:
        newest = self._newest()
        return f"the last checkpoint is {newest}" if newest else "there is no checkpoint"


def _sums(value: Tensor) -> bool:
    """Return True if the sum of a tensor is finite; then all its elements are finite.

    A sum takes far less time than a check of every element. It may overflow, so an infinite sum
    shows nothing.
    """
    return math.isfinite(value.sum())
