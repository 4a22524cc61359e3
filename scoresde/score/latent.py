r"""Make a model of samples from an autoencoder and a score of its codes.

An encoder turns samples into codes, and a decoder turns codes back (Vahdat et al. 2021,
arXiv:2106.05931; Rombach et al. 2022, arXiv:2112.10752). The score is a score of the standardised
codes. A variational encoder returns a mean and a standard deviation for each code, and its decoder
was trained on draws from this distribution. The draws have a larger variance than the means, so
codes must be standardised by the moments of draws. The function `codes` returns draws.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, NoReturn

import torch
from torch import Tensor

from scoresde.checks import check_batch, check_integer, check_shape, door, quoted
from scoresde.errors import InvalidTypeError, InvalidValueError, NonFiniteError, ShapeError
from scoresde.noise import Noise
from scoresde.score.inside import evaluating
from scoresde.score.wrapped import Wrapped
from scoresde.sde import Facts, Score, facts
from scoresde.units import Identity, Transform

__all__ = ["Latent", "codes", "draw", "posterior_of"]

_AT_ONCE = 64  # the number of samples that are encoded or decoded at once, which limits the memory


class Latent(Wrapped):
    """Return a score of codes; sampling it with `units=True` decodes the codes.

    The score, its event shape, its moments and its log-densities refer to the codes. The
    log-density of a decoded sample is not known, since different codes may decode to the same
    sample; `scoresde.likelihood.latent_elbo` bounds it.

    Args:
        score: A score of codes. If it has a transform, the transform maps the encoder's codes to
            the codes of the score.
        encoder: A module or function that maps samples `(B, *)` to codes, or to the mean and the
            standard deviation of codes.
        decoder: A module or function that maps codes to samples.

    Raises:
        InvalidTypeError: The score, the encoder or the decoder cannot be called.

    Examples:
        >>> from scoresde import VPSDE, sample, targets
        >>> score = targets.Gaussian(torch.zeros(1), std=1.0).at(VPSDE())
        >>> circle = lambda e: torch.cat([e.cos(), e.sin()], dim=1)
        >>> angle = lambda x: torch.atan2(x[:, 1:], x[:, :1])
        >>> x = sample(Latent(score, angle, circle), n=3, steps=5, seed=0, units=True)
        >>> bool(((x.square().sum(1) - 1).abs() < 1e-5).all())
        True
    """

    @door
    def __init__(
        self, score: Score, encoder: Callable[..., Any], decoder: Callable[..., Any]
    ) -> None:
        super().__init__(score)
        self.encoder = encoder
        self.decoder = decoder

    @property
    def facts(self) -> Facts:
        """Return the facts of the inner score, with the decoder as the transform."""
        return replace(
            super().facts, transform=Decoded(self.code_transform, self.decoder), columns=None
        )

    @property
    def code_transform(self) -> Transform:
        """Return the transform from the encoder's codes to the score's codes."""
        return facts(self.score).transform or Identity()

    def encode(self, x: Tensor, *, seed: int = 0, first: int = 0) -> Tensor:
        """Return a code for each sample, drawn as in `codes` and transformed as the score needs it.

        Raises:
            ScoreSDEError: As in `codes`.
            ShapeError: The codes do not have the event shape of the score.
        """
        z = self.code_transform.forward(codes(self.encoder, x, seed=seed, first=first))
        check_shape("the encoder's codes", z, facts(self.score).event_shape)
        return z


@dataclass(frozen=True)
class Decoded:
    """Map codes to samples by a decoder, as the one-way transform of a `Latent`.

    Args:
        code_transform: The transform from the decoder's codes to the score's codes.
        decoder: The decoder.
    """

    code_transform: Transform
    decoder: Callable[..., Any]

    @property
    def levels(self) -> None:
        """Return None, since samples are treated as continuous numbers."""
        return None

    def forward(self, raw: Tensor) -> NoReturn:
        """Raise InvalidValueError, since a sample has more than one code."""
        raise InvalidValueError(
            "this score takes codes, not samples: pass score.encode(x) for the log-densities of "
            "codes, or call scoresde.likelihood.latent_elbo for a bound on the log-densities of "
            "samples"
        )

    def inverse(self, x: Tensor) -> Tensor:
        """Decode the score's codes into samples."""
        return called("decoder", self.decoder, self.code_transform.inverse(x))

    def restore(self, x: Tensor) -> Tensor:
        """Decode codes into samples, in parts and without gradients."""
        with torch.no_grad():
            return torch.cat([self.inverse(part) for part in torch.split(x, _AT_ONCE)])

    def log_det(self, event_shape: Sequence[int]) -> NoReturn:
        """Raise InvalidValueError, since a decoder has no determinant."""
        self.forward(torch.empty(0, *event_shape))


@door
def codes(encoder: Callable[..., Any], x: Tensor, *, seed: int = 0, first: int = 0) -> Tensor:
    """Return a code for each sample, drawn from the encoder's posterior if it has one.

    Train a score on these codes as on any data. `Data(codes(...)).standardized()` standardises them
    by the moments of draws.

    Args:
        encoder: A module or function that maps samples to codes, or to the mean and the standard
            deviation of codes.
        x: Samples `(N, *)`.
        seed: The seed of the draws; row i takes the noise of sample `first + i`.
        first: The sample index of the first row.

    Raises:
        InvalidTypeError, ShapeError: The encoder returns something else.
        InvalidValueError: A standard deviation is not positive, or `first` is negative.
        NonFiniteError: `x` or a code has a NaN or an infinity.

    Examples:
        >>> e = codes(lambda x: (x, torch.full_like(x, 0.5)), torch.zeros(4000, 1))
        >>> abs(float(e.std()) - 0.5) < 0.05
        True
    """
    check_batch("x", x)
    noise = Noise.of(seed, len(x), first=check_integer("first", first, 0))
    found = []
    for i in range(0, max(len(x), 1), _AT_ONCE):
        rows = slice(i, i + _AT_ONCE)
        with torch.no_grad():
            found.append(draw(*posterior_of(encoder, x[rows]), noise[rows]))
    return torch.cat(found)


def draw(mean: Tensor, std: Tensor | None, noise: Noise, k: int = 0) -> Tensor:
    """Return the k-th draw of codes with a mean and a standard deviation, or the mean itself.

    Raises:
        NonFiniteError: A draw overflows the dtype of the mean.
    """
    if std is None:
        return mean
    drawn = mean + std * noise.normal(mean, 0.0, k)
    if not drawn.isfinite().all():
        raise NonFiniteError(
            f"draws of codes overflow {drawn.dtype}: the encoder returns standard deviations of up "
            f"to {float(std.max()):.3g}; divide the codes by their scale"
        )
    return drawn


def posterior_of(encoder: Callable[..., Any], x: Tensor) -> tuple[Tensor, Tensor | None]:
    """Return the mean and standard deviation of the codes; None if the encoder returns codes.

    Raises:
        InvalidTypeError, ShapeError: The encoder returns something else.
        NonFiniteError: The encoder returns NaN or infinity.
        InvalidValueError: A standard deviation is not positive.
    """
    with evaluating(encoder):
        found = encoder(x.clone())  # it may change its input in place
    parts = list(found) if isinstance(found, tuple | list) else [found]
    if not 1 <= len(parts) <= 2:
        raise InvalidTypeError(
            f"an encoder returns codes, or their mean and standard deviation, got {quoted(found)}"
        )
    for part in parts:
        _check_rows("encoder", part, len(x))
    mean, std = (*parts, None)[:2]
    if std is None:
        return mean, None
    if std.shape != mean.shape:
        raise ShapeError(
            f"the encoder returns a mean of shape {tuple(mean.shape)} and a standard deviation of "
            f"shape {tuple(std.shape)}; the shapes must be equal"
        )
    if not (std > 0).all():
        raise InvalidValueError(
            "the encoder returns a standard deviation that is not positive; if it returns the "
            "logarithm v of a variance, return (v / 2).exp() instead"
        )
    return mean, std


def called(what: str, function: Callable[..., Any], x: Tensor) -> Tensor:
    """Apply an encoder or decoder in evaluation mode to a batch, and check the result."""
    with evaluating(function):
        found = function(x.clone())  # it may change its input in place
    return _check_rows(what, found, len(x))


def _check_rows(what: str, value: Any, n: int) -> Tensor:
    """Return the value; raise unless it is a batch of n finite rows."""
    check_batch(f"what the {what} returns", value)
    if len(value) != n:
        raise ShapeError(f"the {what} returns {len(value)} rows for {n} samples")
    found: Tensor = value
    return found
