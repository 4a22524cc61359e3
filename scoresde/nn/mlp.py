r"""A residual multilayer perceptron for vectors and other small events."""

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from scoresde.errors import InvalidValueError

from .checks import check_dtype, check_level
from .embedding import Embedding


class MLP(nn.Module):
    r"""A residual MLP `net(x, c, label=None)` for `x` of shape `(B, *event)`, flattened inside.

    Each hidden layer is $h \leftarrow S h + W_2\,\mathrm{silu}((1 + a)\,W_1\,\mathrm{norm}(h) + b)$
    with $a, b$ from the embedding of $c$ and the label, and $S$ the identity where widths agree.

    Args:
        features: Number of entries of a vector, or the shape of one event.
        hidden: Width of each hidden layer.
        embedding: How `c` is embedded: `"fourier"`, `"sinusoidal"` or `"log_snr"`.
        seed: Seed of the random frequencies of `"fourier"`.
        num_classes: Number of classes, or None; as in `UNet`.
        dropout: Dropout probability inside the hidden layers.

    Raises:
        InvalidValueError: On an event of another shape, a `c` that is not `(B,)`, or a label out
            of range.
        InvalidTypeError: On integer inputs, or inputs of another precision than the weights.
    """

    def __init__(
        self,
        features: int | tuple[int, ...],
        *,
        hidden: tuple[int, ...] = (128, 128, 128),
        embedding: str = "fourier",
        seed: int = 0,
        num_classes: int | None = None,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.event = (features,) if isinstance(features, int) else tuple(features)
        hidden = tuple(hidden)
        if not hidden or min(*hidden, *self.event, 1) < 1:
            raise InvalidValueError(
                "features and hidden must be positive, with at least one hidden layer, "
                f"got {features} and {hidden}"
            )
        self._config: dict[str, Any] = dict(
            features=list(self.event),
            hidden=list(hidden),
            embedding=embedding,
            seed=seed,
            num_classes=num_classes,
            dropout=dropout,
        )
        size = math.prod(self.event)
        width = max(hidden)
        self.embedding = Embedding(embedding, width, num_classes=num_classes, seed=seed)
        self.stem = nn.Linear(size, hidden[0])
        self.layers = nn.ModuleList(
            ResidualLayer(i, o, width, dropout=dropout)
            for i, o in zip((hidden[0], *hidden), hidden, strict=False)
        )
        self.norm = nn.LayerNorm(hidden[-1])
        self.head = nn.Linear(hidden[-1], size)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    @property
    def config(self) -> dict[str, Any]:
        """The constructor's arguments as JSON values: `MLP(**net.config)` rebuilds the network."""
        return dict(self._config)

    def forward(self, x: Tensor, c: Tensor, label: Tensor | None = None) -> Tensor:
        """Map `x` `(B, *event)`, `c` `(B,)` and `label` `(B,)` to `(B, *event)`."""
        if x.shape[1:] != self.event or not x.ndim:
            raise InvalidValueError(
                f"expected x of shape (B, {', '.join(map(str, self.event))}), "
                f"got {tuple(x.shape)}; build the network with features={tuple(x.shape[1:])}"
            )
        check_dtype(x, self.head.weight.dtype)
        check_level(x, c)
        e = self.embedding(c, label)
        h = self.stem(x.reshape(len(x), self.stem.in_features))
        for layer in self.layers:
            h = layer(h, e)
        y: Tensor = self.head(F.silu(self.norm(h)))
        return y.reshape(x.shape)


class ResidualLayer(nn.Module):
    """One hidden layer of `MLP`, from width `inputs` to width `outputs`."""

    def __init__(self, inputs: int, outputs: int, features: int, *, dropout: float) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(inputs)
        self.linear1 = nn.Linear(inputs, outputs)
        self.film = nn.Linear(features, 2 * outputs)
        self.dropout = nn.Dropout(dropout)
        self.linear2 = nn.Linear(outputs, outputs)
        self.skip = nn.Identity() if inputs == outputs else nn.Linear(inputs, outputs)

    def forward(self, h: Tensor, e: Tensor) -> Tensor:
        """Map `h` `(B, inputs)` and `e` `(B, features)` to `(B, outputs)`."""
        scale, shift = self.film(e).chunk(2, dim=1)
        y = torch.addcmul(shift, self.linear1(self.norm(h)), 1 + scale)
        out: Tensor = self.skip(h) + self.linear2(self.dropout(F.silu(y)))
        return out
