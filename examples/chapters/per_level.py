"""One network for each level of a ladder, as one score."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from torch import nn

from scoresde.checks import check_has
from scoresde.errors import InvalidValueError
from scoresde.nn import PerLevel
from scoresde.score.model import ScoreModel
from scoresde.sde import SDE, Moments

__all__ = ["PerLevelScore"]


class PerLevelScore(ScoreModel):
    r"""L networks as one score model: network i answers at level i and learns from it alone.

    The alternative to one network that is told its level, with which it shares everything else:
    objectives, samplers, files.

    Args:
        nets: L modules `net(x, c, **condition)`, from the smallest noise up, as `sde.index` counts.
        sde: A process with L levels.
        event_shape: The shape of one sample, without the batch.
        parameterization: What the outputs mean, as of `ScoreModel`.
        data: Mean and variance of the data.

    Raises:
        InvalidValueError: The SDE has no levels, or another number of them.
    """

    def __init__(
        self,
        nets: Iterable[nn.Module],
        sde: SDE,
        event_shape: Sequence[int],
        parameterization: str = "edm",
        data: Moments | None = None,
    ) -> None:
        check_has("nets", nets, "__iter__", "a list of modules, one for each level")
        nets = list(nets)
        for net in nets:
            check_has("each of nets", net, "parameters", "a module net(x, c)")
        if sde.levels != len(nets):
            raise InvalidValueError(
                f"{len(nets)} networks need as many levels, but this {type(sde).__name__} has "
                f"levels={sde.levels}; give the SDE levels={len(nets)}"
            )
        levels = -sde.log_snr(sde.times().flip(0)) / 8
        super().__init__(PerLevel(nets, levels), sde, event_shape, parameterization, data)
