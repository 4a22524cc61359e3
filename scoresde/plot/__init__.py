"""Draw samples of any shape, scores, trajectories, noise levels, curves, bars and animations.

A function with an argument `ax` draws into these Axes, or into a new figure, and returns the
matplotlib figure. A notebook shows it, and `save` writes it to a file. `animate` writes a file
itself. A new figure is white with dark text in any style or theme. pyplot, with its global state
and windows, is not used.
"""

from scoresde.plot.animation import animate
from scoresde.plot.charts import bars, curve, pareto
from scoresde.plot.lines import signals
from scoresde.plot.mosaic import images, volumes
from scoresde.plot.paper import figure, save
from scoresde.plot.scatter import points
from scoresde.plot.schedules import Series, ladder, loss_by_noise
from scoresde.plot.shapes import kind, samples
from scoresde.plot.trajectories import field, strip, trajectory

__all__ = [
    "Series",
    "animate",
    "bars",
    "curve",
    "field",
    "figure",
    "images",
    "kind",
    "ladder",
    "loss_by_noise",
    "pareto",
    "points",
    "samples",
    "save",
    "signals",
    "strip",
    "trajectory",
    "volumes",
]
