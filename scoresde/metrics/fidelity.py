"""Compute the Inception-v3 features of FID and KID, by torch-fidelity."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from scoresde.checks import check_fields, check_integer, door
from scoresde.data import to_uint8
from scoresde.errors import DataError, MissingExtraError, ShapeError

__all__ = ["Inception", "inception"]

Layer = Literal["64", "192", "768", "2048"]


@dataclass(frozen=True, eq=False)
class Inception:
    """Map images in [-1, 1] to features by a feature extractor of torch-fidelity.

    The extractor takes bytes `(B, 3, H, W)`, resizes them to 299x299, and returns a tuple of
    features. A grey image becomes three equal channels.

    Args:
        extractor: A `torch_fidelity.FeatureExtractorInceptionV3`, or a callable like it.
        batch_size: The number of images in one call of the extractor.

    Raises:
        InvalidValueError: `batch_size` is below 1.
    """

    extractor: Any
    batch_size: int = 64

    def __post_init__(self) -> None:
        check_fields(self)
        check_integer("batch_size", self.batch_size, 1)

    @torch.no_grad()
    def __call__(self, x: Tensor) -> Tensor:
        """Return the features `(B, F)` of images `(B, 1, H, W)` or `(B, 3, H, W)`.

        Raises:
            ShapeError: The batch is of another shape.
        """
        if x.ndim != 4 or x.shape[1] not in (1, 3):
            raise ShapeError(
                "Inception takes images (B, 1, H, W) or (B, 3, H, W) in [-1, 1], got shape "
                f"{tuple(x.shape)}; choose other features"
            )
        images = to_uint8(x).expand(-1, 3, -1, -1)
        return torch.cat([self.extractor(part)[0] for part in torch.split(images, self.batch_size)])


@door
def inception(layer: Layer = "2048", *, device: str | torch.device = "cpu") -> Inception:
    """Return the feature map of FID and KID; the first call downloads its weights, 91 MB.

    Args:
        layer: `"2048"`, the last pooling layer; or an earlier layer, `"64"`, `"192"` or `"768"`.
            An earlier layer has fewer features and needs fewer samples.
        device: The device of the network.

    Raises:
        UnknownNameError: There is no such layer.
        MissingExtraError: torch-fidelity is not installed.
        DataError: The weights cannot be downloaded.
    """
    try:
        from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3
    except ImportError as error:
        raise MissingExtraError.of("torch-fidelity", "fidelity", "Inception") from error
    try:
        extractor = FeatureExtractorInceptionV3("inception", [layer], verbose=False)
    except OSError as error:  # URLError is an OSError
        raise DataError(
            f"cannot download the weights of Inception ({error}); connect this machine to the "
            "network once, or choose other features"
        ) from error
    network = extractor.to(device)
    return Inception(lambda images: network(images.to(device)))
