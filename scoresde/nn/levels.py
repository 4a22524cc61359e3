r"""One network for each noise level, behind the interface of one network."""

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn


class PerLevel(nn.ModuleList):
    r"""`net(x, c, **condition)` that is answered by the network of the level nearest in `c`.

    Args:
        nets: L networks.
        levels: $c = \tfrac14 \log(\sigma/\alpha)$ of the L levels.

    Raises:
        ValueError: There are not as many networks as levels, or none.
    """

    levels: Tensor

    def __init__(self, nets: Iterable[nn.Module], levels: Tensor | Sequence[float]) -> None:
        super().__init__(nets)
        levels = torch.as_tensor(levels, dtype=torch.float32)
        if len(self) == 0 or levels.shape != (len(self),):
            raise ValueError(
                f"expected one network for each level, got {len(self)} networks and levels of "
                f"shape {tuple(levels.shape)}"
            )
        self.register_buffer("levels", levels)

    @property
    def config(self) -> dict[str, Any]:
        """The levels, and what each network says of itself, as JSON values."""
        nets = [
            {"type": type(net).__name__, "config": getattr(net, "config", None)} for net in self
        ]
        return {"nets": nets, "levels": self.levels.tolist()}

    def forward(self, x: Tensor, c: Tensor, **condition: Tensor) -> Tensor:
        """Map `x` `(B, *)` and `c` `(B,)` to `(B, *)`; rows of one level go together."""
        level = (c[:, None] - self.levels.to(c)).abs().argmin(1)
        order, out = [], []
        for i in sorted(set(level.tolist())):
            rows = (level == i).nonzero().flatten()
            given = {name: value[rows] for name, value in condition.items()}
            order.append(rows)
            out.append(self[i](x[rows], c[rows], **given))
        return torch.cat(out)[torch.cat(order).argsort()] if out else torch.zeros_like(x)
