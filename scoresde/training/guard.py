"""What becomes of a run in which a step breaks down: numbers without end, memory without room.

The losses and the norms of the gradients are looked at every `log_every` steps and before every
checkpoint, since each look waits for the device. A step whose gradient is not finite either ends
the run with a report, or is left out: the weights and the optimiser then stay as they were, so
that the run remains a pure function of its seed. Neither reaches a checkpoint.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor

from scoresde import distributed
from scoresde.checks import is_out_of_memory, outside
from scoresde.data import Data
from scoresde.errors import MemoryLimitError, TrainingError
from scoresde.training.config import TrainConfig

__all__ = ["Guard"]

_MOST = 10  # steps in a row that may be left out: after more, the weights are to blame


class Guard:
    """Stands between the steps of a run and all that is kept of them.

    Args:
        config: The numbers of the run, of which `keeping.on_nan` decides.
        describe: What update number `step` was made of, for a report.
        newest: The last good checkpoint, or None.

    Attributes:
        skipped: Steps left out since the last row of the log.
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

    def look(self, first: int, rows: Tensor) -> Tensor:
        """Return the rows of the steps that count.

        Args:
            first: The number of the first step.
            rows: The loss and the gradient's norm of each step, `(n, 2)`.

        Returns:
            `rows` without those of the steps that were left out.

        Raises:
            TrainingError: A step broke down and may not be left out.
        """
        finite = rows.isfinite()
        good = finite.all(1)
        for i, (loss, norm) in enumerate(rows.tolist()):
            if good[i]:
                self._in_a_row = 0
                continue
            self._in_a_row += 1
            left_out = self.config.keeping.on_nan == "skip" and not finite[i, 1]
            if not left_out or self._in_a_row > _MOST:
                raise TrainingError(self._report(first + i, loss, norm))
        bad = (~good).nonzero().flatten() + first
        if len(bad):
            self.skipped += len(bad)
            warnings.warn(
                f"{len(bad)} of the last {len(rows)} steps had no finite gradient and were left "
                f"out, the first is step {int(bad[0])}",
                RuntimeWarning,
                stacklevel=outside(),
            )
        return rows[good]

    def check(
        self, step: int, state: Mapping[str, Tensor], optimizer: torch.optim.Optimizer
    ) -> None:
        """Refuse to keep weights or averages that are not finite, and NaN anywhere.

        Args:
            step: Updates so far.
            state: All that would be kept. A buffer may hold an infinity, as masks do.
            optimizer: What holds the weights and averages.

        Raises:
            TrainingError: Something is not finite.
        """
        finite = [p.detach() for group in optimizer.param_groups for p in group["params"]]
        finite += [v for slot in optimizer.state.values() for v in slot.values()]
        bad = sum(not bool(v.isfinite().all()) for v in finite)
        bad = bad or sum(bool(v.isnan().any()) for v in state.values())
        if bad:
            raise TrainingError(
                f"training broke down: after {step} steps {bad} tensors of weights or averages "
                f"are not finite, {self._describe(step - 1)}; {self._kept()}; try a lower lr or "
                "a longer warmup"
            )

    def check_data(self, step: int, data: Data) -> None:
        """Refuse to keep what was learnt from data that are no longer the same.

        Args:
            step: Updates so far.
            data: Some of them are compared with what they were, at every checkpoint others.

        Raises:
            DataError: They cannot be read any more.
            TrainingError: Something has changed, here or in another process.
        """

        def compare() -> None:
            if changed := data.changed(step // self.config.keeping.save_every):
                raise TrainingError(
                    f"training broke off after {step} steps: {changed}; {self._kept()}; bring the "
                    "old data back to go on, or begin another run"
                )

        distributed.together(compare)

    @contextmanager
    def memory(self, step: int) -> Iterator[None]:
        """Within the block, where step number `step` is made, a want of memory is named.

        Raises:
            MemoryLimitError: The step does not fit into memory.
        """
        try:
            yield
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
            raise MemoryLimitError(
                f"step {step}, of {self.config.batch_size} samples, does not fit into memory; "
                f"{self._kept()}; go on with a larger accumulate or with recompute=True, or begin "
                "another run with a smaller batch_size"
            ) from error

    def torn(self, step: int) -> TrainingError:
        """Return the error for weights that may have moved where their averages have not."""
        return TrainingError(
            f"training was ended at once in the middle of step {step}, so that this trainer cannot "
            f"go on; {self._kept()}; "
            + (
                "a new trainer of the same folder goes on from there"
                if self._newest()
                else "with a folder= a new trainer would go on from its last one"
            )
        )

    def _report(self, step: int, loss: float, norm: float) -> str:
        row = f", the {self._in_a_row}th in a row" if self._in_a_row > _MOST else ""
        return (
            f"training broke down at step {step}{row}: the loss is {loss:.6g} and its gradient's "
            f"norm {norm:.6g}, {self._describe(step)}; {self._kept()}; try a lower lr, a longer "
            "warmup or a smaller clip"
        )

    def _kept(self) -> str:
        newest = self._newest()
        return f"the last good checkpoint is {newest}" if newest else "there is no checkpoint"
