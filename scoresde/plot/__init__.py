"""Pictures: image grids, samples over their density, curves, bars. Each writes one PNG file.

A grid needs nothing but Pillow, which comes with torchvision; the others need matplotlib, the extra
`plot`. Nothing here touches matplotlib's global state or opens a window.
"""

from scoresde.plot.charts import Series, bars, curve, pareto, scatter
from scoresde.plot.images import grid, is_image
from scoresde.plot.paper import figure, save

__all__ = ["Series", "bars", "curve", "figure", "grid", "is_image", "pareto", "save", "scatter"]
