"""Training data in memory: tensors, array files, folders of images, data sets by name."""

from scoresde.data.batches import batch_indices, order
from scoresde.data.samples import Data, Range, to_uint8
from scoresde.data.sources import load

__all__ = ["Data", "Range", "batch_indices", "load", "order", "to_uint8"]
