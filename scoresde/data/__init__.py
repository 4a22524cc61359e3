"""Load training data from memory, files, folders of images, or by the name of a data set."""

from scoresde.data.augment import AUGMENTATIONS
from scoresde.data.batches import batch_indices, order
from scoresde.data.data_check import check
from scoresde.data.report import Finding, Report
from scoresde.data.samples import Data
from scoresde.data.sources import load
from scoresde.units import BYTES, Identity, Range, Standardize, Transform, to_uint8

__all__ = [
    "AUGMENTATIONS",
    "BYTES",
    "Data",
    "Finding",
    "Identity",
    "Range",
    "Report",
    "Standardize",
    "Transform",
    "batch_indices",
    "check",
    "load",
    "order",
    "to_uint8",
]
