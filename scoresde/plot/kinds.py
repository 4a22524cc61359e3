"""What samples of a shape are drawn as."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

from scoresde.checks import door

__all__ = ["MOST", "USUAL", "Kind", "kind"]

# Dimensions of a corner, at most.
MOST = 6

Kind = Literal["points", "signals", "images", "volumes"]

USUAL: Mapping[Kind, int] = {"points": 1000, "signals": 12, "images": 16, "volumes": 4}
"""How many samples one picture shows well: points as many as show a law, signals one by one."""


@door
def kind(event_shape: Sequence[int]) -> Kind:
    """Return what samples of a shape are drawn as.

    Up to six numbers are points, more of them one signal. `(C, T)` is a signal of C channels where
    C is 1, or at most 8 and T twice as much or more; any other matrix is an image. `(C, H, W)` is
    an image, and what has more axes a volume.

    Args:
        event_shape: That of one sample.

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
