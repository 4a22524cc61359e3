r"""Use an autoencoder of diffusers as the encoder and decoder of a `Latent`.

A latent network of diffusers was trained on $(e - \mathrm{shift})\,c$, where $e$ is a code of the
autoencoder and $c$ the autoencoder's `scaling_factor`. With this factor the draws of codes have a
standard deviation near 1.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from scoresde.checks import as_numbers, door, quoted
from scoresde.errors import InvalidTypeError, InvalidValueError, ShapeError
from scoresde.score import Latent
from scoresde.sde import Score, facts

__all__ = ["with_vae"]


@door
def with_vae(score: Score, vae: nn.Module) -> Latent:
    r"""Join a score of codes with the autoencoder of diffusers that decodes them to images.

    With `units=True`, samples are decoded to images in [-1, 1]. `encode` draws the codes of images
    from the encoder's posterior, if it has one, as in training. `likelihood.latent_elbo` bounds the
    density of images.

    Args:
        score: The score of the scaled codes, such as `from_diffusers(unet, scheduler)`.
        vae: An `AutoencoderKL`, or another autoencoder with `encode`, `decode` and a
            `scaling_factor` in its `config`. If it has a `shift_factor`, or `latents_mean` and
            `latents_std`, these are used too.

    Raises:
        InvalidTypeError: `vae` lacks `encode`, `decode` or a `scaling_factor`.
        InvalidValueError: The shift or scale of the codes is not finite, or has the wrong number of
            channels, or the scale is 0.
        ShapeError: The codes and the samples of the score have different numbers of channels.

    Examples:
        ```text
        score = with_vae(from_diffusers(pipeline.unet, pipeline.scheduler), pipeline.vae)
        images = scoresde.sample(score, sampler="ddim", n=4, units=True)
        ```
    """
    config = getattr(vae, "config", None)
    scaling = getattr(config, "scaling_factor", None)
    if scaling is None or not (hasattr(vae, "encode") and hasattr(vae, "decode")):
        raise InvalidTypeError(
            f"{quoted(type(vae).__name__)} is not an autoencoder of diffusers, since it lacks "
            "encode, decode or config.scaling_factor; for other autoencoders use scoresde.Latent"
        )
    moves: list[Any] = [getattr(config, "shift_factor", None) or 0.0, 1.0, scaling]
    mean, std = getattr(config, "latents_mean", None), getattr(config, "latents_std", None)
    if mean is not None and std is not None:
        moves[:2] = mean, std
    shift, scale, factor = (
        as_numbers(name, value, dtype=torch.float64).reshape(-1)
        for name, value in zip(
            ("shift_factor", "latents_std", "scaling_factor"), moves, strict=True
        )
    )
    scale = scale / factor
    channels = getattr(config, "latent_channels", None)
    event = facts(score).event_shape
    if channels is not None and event is not None and event[0] != channels:
        raise ShapeError(
            f"this autoencoder has codes of {channels} channels, but the score has samples of "
            f"shape {event}; take the autoencoder with which the score was trained"
        )
    usable = (scale.isfinite() & (scale != 0)).all() and shift.isfinite().all()
    if not usable or not {len(shift), len(scale)} <= {1, channels}:
        raise InvalidValueError(
            "the shift and scale of the codes must be finite, each one number or one for each of "
            f"{channels} channels, and the scale not 0; got scaling_factor = {quoted(scaling)}, "
            f"shift = {quoted(moves[0])}, latents_std = {quoted(std)}"
        )
    return Latent(score, _Encoder(vae, shift, scale), _Decoder(vae, shift, scale))


class _Scaled(nn.Module):
    """Hold an autoencoder and the shift and scale of its codes."""

    def __init__(self, vae: nn.Module, shift: Tensor, scale: Tensor) -> None:
        super().__init__()
        self.vae, self._shift, self._scale = vae, shift, scale

    def units(self, codes: Tensor) -> tuple[Tensor, Tensor]:
        """Return shift and scale with the axes of codes `(B, C, *)`."""
        shape = (-1, *(1 for _ in codes.shape[2:]))
        shift, scale = (part.reshape(shape).to(codes) for part in (self._shift, self._scale))
        return shift, scale

    def taken(self, x: Tensor) -> Tensor:
        """Return a state in the dtype of the autoencoder."""
        return x.to(next((p.dtype for p in self.vae.parameters()), x.dtype))


class _Encoder(_Scaled):
    """Return the mean and the standard deviation of scaled codes, or only scaled codes."""

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor] | Tensor:
        """Encode images `(B, C, *)`."""
        vae: Any = self.vae
        channels = getattr(vae.config, "in_channels", x.shape[1])
        if x.shape[1] != channels:
            raise ShapeError(f"images must have {channels} channels, got {tuple(x.shape)}")
        found = vae.encode(self.taken(x))
        posterior = getattr(found, "latent_dist", None)
        codes = (found.latents if posterior is None else posterior.mean).to(x)
        shift, scale = self.units(codes)
        mean = (codes - shift) / scale
        return mean if posterior is None else (mean, posterior.std.to(x) / scale.abs())


class _Decoder(_Scaled):
    """Decode scaled codes to images."""

    def forward(self, codes: Tensor) -> Tensor:
        """Decode codes `(B, C, *)`."""
        vae: Any = self.vae
        shift, scale = self.units(codes)
        image: Tensor = vae.decode(self.taken(codes * scale + shift)).sample
        return image.to(codes)
