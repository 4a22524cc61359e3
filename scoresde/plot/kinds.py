"""Choose the kind of picture for samples of a shape."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

from scoresde.checks import door

__all__ = ["MOST", "USUAL", "Kind", "kind"]

# The largest number of dimensions of points.
MOST = 6

Kind = Literal["points", "signals", "images", "volumes"]

USUAL: Mapping[Kind, int] = {"points": 1000, "signals": 12, "images": 16, "volumes": 4}
"""The default number of samples in an animation, and in a picture of a training or a notebook."""


@door
def kind(event_shape: Sequence[int]) -> Kind:
    """Return the kind of picture for samples of a shape.

    A vector of up to six numbers is a point, a longer one a signal. A matrix `(C, T)` is a signal
    of C channels if C is 1, or if C is at most 8 and T at least 2 C; any other matrix is an image.
    `(C, H, W)` is an image. A shape with more axes is a volume.

    Args:
        event_shape: The shape of one sample.

    Examples:
        >>> from scoresde import plot
        >>> [plot.kind(shape) for shape in [(2,), (2, 100), (28, 28), (3, 8, 8), (1, 4, 4, 4)]]
        ['points', 'signals', 'images', 'images', 'volumes']
    """
    shape = tuple(event_shape)
    if len(shape) == 2:
        c, t = shape
        return "signals" if c == 1 or (c <= 8 and t >= 2 * c) else "images"
    if len(shape) <= 1:
        return "points" if sum(shape) <= MOST else "signals"
    return "images" if len(shape) == 3 else "volumes"
