r"""Define a residual multilayer perceptron for vectors and other small events."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from scoresde.checks import typed
from scoresde.errors import InvalidValueError

from .checks import check_dtype, check_level
from .conditions import Network, classes_of, flagged
from .dropout import Dropout
from .embedding import Embedding


class MLP(Network):
    r"""Map `x` of shape `(B, *event)` to the same shape by a residual MLP `net(x, c, **condition)`.

    The number `c` of each sample is its noise level; a `ScoreModel` passes
    $\tfrac14\log(\sigma/\alpha)$.

    Each hidden layer maps $h$ to $S h + W_2\,\mathrm{silu}((1 + a)\,W_1\,\mathrm{norm}(h) + b)$.
    Here $a$ and $b$ are computed from the embedding of $c$ and the labels. $S$ is the identity if
    the layer before has the same width, else a linear map.

    Args:
        features: The number of entries of a vector, or the shape of one event.
        hidden: The width of each hidden layer.
        embedding: How `c` is embedded: `"fourier"`, `"sinusoidal"` or `"log_snr"`.
        seed: Seed of the random frequencies of `"fourier"`.
        num_classes: The number of classes, numbers of classes by name, or None, as in `UNet`.
        dropout: The dropout probability in the hidden layers.
        condition: A mapping from names to shapes of further conditions: the length of a vector, or
            the shape of a tensor, which is flattened. Conditions are concatenated to the state `x`.
            Missing entries are NaN, and missing conditions are left out of the call, as in `UNet`.

    Raises:
        InvalidValueError: An event has another shape, `c` or the labels are not `(B,)`, a label is
            out of range, or the network was built without conditions and receives one.
        UnknownNameError: The network was built with other conditions.
        ShapeError: A tensor of a condition has another shape.
        InvalidTypeError: `x` or a tensor of a condition is not floating point, labels are not
            integers, or, without autocast, `x` has another precision than the weights.

    Examples:
        >>> net = MLP(2, hidden=(8,), num_classes=3, condition={"y": 4})
        >>> x, c, y = torch.zeros(5, 2), torch.zeros(5), torch.zeros(5, 4)
        >>> net(x, c, y=y, label=torch.arange(5) % 3).shape
        torch.Size([5, 2])
    """

    @typed
    def __init__(
        self,
        features: int | Sequence[int],
        *,
        hidden: Sequence[int] = (128, 128, 128),
        embedding: str = "fourier",
        seed: int = 0,
        num_classes: int | Mapping[str, int] | None = None,
        dropout: float = 0.0,
        condition: Mapping[Any, Any] | None = None,
    ) -> None:
        super().__init__()
        self.event = tuple(features) if isinstance(features, Sequence) else (features,)
        hidden = tuple(hidden)
        if not hidden or min(*hidden, *self.event, 1) < 1:
            raise InvalidValueError(
                "features and hidden must be positive, with at least one hidden layer, "
                f"got {features} and {hidden}"
            )
        if isinstance(condition, Mapping):
            condition = {k: (n,) if isinstance(n, int) else n for k, n in condition.items()}
        self._declare(
            condition,
            features=list(self.event),
            hidden=list(hidden),
            embedding=embedding,
            seed=seed,
            num_classes=num_classes,
            dropout=dropout,
        )
        self.tensors = {k: n for k, n in self._shapes.items() if isinstance(n, tuple)}
        size = math.prod(self.event)
        width = max(hidden)
        self.embedding = Embedding(embedding, width, classes=classes_of(num_classes), seed=seed)
        self.stem = nn.Linear(size, hidden[0])
        self.layers = nn.ModuleList(
            ResidualLayer(i, o, width, dropout=dropout)
            for i, o in zip((hidden[0], *hidden), hidden, strict=False)
        )
        self.norm = nn.LayerNorm(hidden[-1])
        self.head = nn.Linear(hidden[-1], size)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)
        known = 2 * sum(math.prod(shape) for shape in self.tensors.values())
        # the sum of two linear maps equals one linear map of the concatenated vectors
        self.joined = nn.Linear(known, hidden[0]) if known else None

    def forward(self, x: Tensor, c: Tensor, /, **condition: Tensor | None) -> Tensor:
        """Map `x` `(B, *event)`, `c` `(B,)` and the conditions `(B, *)` to `(B, *event)`."""
        if x.shape[1:] != self.event or not x.ndim:
            raise InvalidValueError(
                f"expected x of shape (B, {', '.join(map(str, self.event))}), "
                f"got {tuple(x.shape)}; build the network with features={tuple(x.shape[1:])}"
            )
        check_dtype(x, self.head.weight.dtype)
        check_level(x, c)
        self._check_names(condition)
        e = self.embedding(c, condition)
        h = self.stem(x.reshape(x.shape[0], self.stem.in_features))
        if self.joined is not None:
            parts = [
                flagged(name, condition.get(name), x, n).expand(-1, -1, *n[1:]).flatten(1)
                for name, n in self.tensors.items()
            ]
            h = h + self.joined(torch.cat(parts, dim=1))
        for layer in self.layers:
            h = layer(h, e)
        y: Tensor = self.head(F.silu(self.norm(h)))
        return y.reshape(x.shape)


class ResidualLayer(nn.Module):
    """Apply one hidden layer of `MLP`, from width `inputs` to width `outputs`."""

    def __init__(self, inputs: int, outputs: int, features: int, *, dropout: float) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(inputs)
        self.linear1 = nn.Linear(inputs, outputs)
        self.film = nn.Linear(features, 2 * outputs)
        self.dropout = Dropout(dropout)
        self.linear2 = nn.Linear(outputs, outputs)
        self.skip = nn.Identity() if inputs == outputs else nn.Linear(inputs, outputs)

    def forward(self, h: Tensor, e: Tensor) -> Tensor:
        """Map `h` `(B, inputs)` and `e` `(B, features)` to `(B, outputs)`."""
        scale, shift = self.film(e).chunk(2, dim=1)
        y = torch.addcmul(shift, self.linear1(self.norm(h)), 1 + scale)
        out: Tensor = self.skip(h) + self.linear2(self.dropout(F.silu(y)))
        return out
