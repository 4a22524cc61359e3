"""Check the state and the noise scale that a network receives."""

import torch
from torch import Tensor

from scoresde.checks import check_floating
from scoresde.errors import InvalidTypeError, InvalidValueError


def check_dtype(x: Tensor, weights: torch.dtype) -> None:
    """Raise InvalidTypeError unless `x` has the dtype of the weights or is cast by autocast."""
    check_floating("x", x)
    casts = torch.is_autocast_enabled(x.device.type) and x.dtype != torch.float64
    if x.dtype != weights and not casts:
        raise InvalidTypeError(
            f"x is {x.dtype} but the weights are {weights}; "
            f"pass x.to({weights}) or convert the network with net.to({x.dtype})"
        )


def check_grid(x: Tensor, c: Tensor, channels: int, spatial: int, weights: torch.dtype) -> None:
    """Raise an error unless `x` is `(B, channels, *)` with `spatial` sides >= 1, and `c` `(B,)`."""
    if x.ndim != spatial + 2 or x.shape[1] != channels or 0 in x.shape[2:]:
        raise InvalidValueError(
            f"expected x of shape (B, {channels}{', L' * spatial}), L >= 1, got {tuple(x.shape)}; "
            "build the network with the in_channels= and spatial= of x"
        )
    check_dtype(x, weights)
    check_level(x, c)


def check_level(x: Tensor, c: Tensor) -> None:
    """Raise InvalidValueError unless `c` has one number per sample, `(B,)`."""
    if c.shape != x.shape[:1]:
        raise InvalidValueError(
            f"expected one number c per sample, shape ({x.shape[0]},), got {tuple(c.shape)}"
        )
