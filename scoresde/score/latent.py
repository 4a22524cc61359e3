r"""Make a score of an autoencoder's codes a model of what its decoder returns.

An encoder turns samples into codes, and a decoder turns codes back (Vahdat et al. 2021,
arXiv:2106.05931; Rombach et al. 2022, arXiv:2112.10752). The score is that of the codes, in its own
units, shifted and scaled. A variational encoder returns a mean and a standard deviation for each
code, and its decoder was trained on draws. These spread further than the means: the units are to be
those of draws, which `codes` returns.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, NoReturn

import torch
from torch import Tensor

from scoresde.checks import check_batch, check_integer, check_shape, door, quoted
from scoresde.errors import InvalidTypeError, InvalidValueError, ShapeError
from scoresde.noise import Noise
from scoresde.score.inside import evaluating
from scoresde.score.wrapped import Wrapped
from scoresde.sde import Facts, Score, facts
from scoresde.units import Identity, Transform

__all__ = ["Latent", "codes", "draw", "posterior_of"]

_AT_ONCE = 64  # samples that are encoded or decoded at once, to limit memory


class Latent(Wrapped):
    """Return a score of codes whose units are those of what the decoder makes of them.

    The score itself, its shape, its moments and its log-densities are those of the codes; with
    `units=True` samples are decoded. The log-density of a decoded sample is not known, since many
    codes may have the same one: `scoresde.likelihood.latent_elbo` bounds it.

    Args:
        score: A score of codes; its transform, if it has one, is that of the codes.
        encoder: A module or function of samples `(B, *)` that returns their codes, or mean and
            standard deviation of their codes.
        decoder: A module or function of codes that returns samples.

    Raises:
        InvalidTypeError: A part cannot be called.

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
        """Return the facts of the score inside, with the decoder as the way to the user's units."""
        return replace(
            super().facts, transform=Decoded(self.code_transform, self.decoder), columns=None
        )

    @property
    def code_transform(self) -> Transform:
        """Return the map from the encoder's codes to those of the score."""
        return facts(self.score).transform or Identity()

    def encode(self, x: Tensor, *, seed: int = 0, first: int = 0) -> Tensor:
        """Return a code of each sample in the numbers of the score, as `codes` draws it.

        Raises:
            InvalidTypeError, ShapeError, NonFiniteError: As for `codes`, or the codes have another
                shape than those of the score.
        """
        z = self.code_transform.forward(codes(self.encoder, x, seed=seed, first=first))
        check_shape("the encoder's codes", z, facts(self.score).event_shape)
        return z


@dataclass(frozen=True)
class Decoded:
    """Map codes to samples by a decoder: the transform of a `Latent`, in one direction only.

    Args:
        code_transform: The map from the decoder's codes to those of the score.
        decoder: The decoder.
    """

    code_transform: Transform
    decoder: Callable[..., Any]

    @property
    def levels(self) -> None:
        """Return None: the numbers are taken as continuous."""
        return None

    def forward(self, raw: Tensor) -> NoReturn:
        """Raise InvalidValueError: a sample has many codes."""
        raise InvalidValueError(
            "a score of codes takes no samples: encode them, score.encode(x), for log-densities of "
            "their codes; scoresde.likelihood.latent_elbo bounds those of the samples"
        )

    def inverse(self, x: Tensor) -> Tensor:
        """Return the samples of codes of the score."""
        return called("decoder", self.decoder, self.code_transform.inverse(x))

    def restore(self, x: Tensor) -> Tensor:
        """Return the samples of codes, decoded in parts and without gradients."""
        with torch.no_grad():
            return torch.cat([self.inverse(part) for part in torch.split(x, _AT_ONCE)])

    def log_det(self, event_shape: Sequence[int]) -> NoReturn:
        """Raise InvalidValueError: a decoder has no inverse, and so no determinant."""
        self.forward(torch.empty(0, *event_shape))


@door
def codes(encoder: Callable[..., Any], x: Tensor, *, seed: int = 0, first: int = 0) -> Tensor:
    """Return a code of each sample, drawn from the encoder's posterior where it has one.

    Learn a score of these, as of any data; `Data(codes(...)).standardized()` gives them, and with
    them the score, the units of draws.

    Args:
        encoder: A module or function of samples that returns codes, or their mean and standard
            deviation.
        x: Samples `(N, *)`.
        seed: The seed of the draws; row i has the noise of sample `first + i`.
        first: The sample number of the first row.

    Raises:
        InvalidTypeError, ShapeError: The encoder returns something else.
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
    """Return the k-th draw of codes with a mean and a standard deviation, or the mean itself."""
    return mean if std is None else mean + std * noise.normal(mean, 0.0, k)


def posterior_of(encoder: Callable[..., Any], x: Tensor) -> tuple[Tensor, Tensor | None]:
    """Return mean and standard deviation of the codes of samples; None for codes alone.

    Raises:
        InvalidTypeError, ShapeError: The encoder returns something else.
        NonFiniteError: A number that it returns is NaN or infinite.
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
            f"the encoder returns a mean of shape {tuple(mean.shape)}, and a standard deviation of "
            f"shape {tuple(std.shape)}; they must agree"
        )
    if not (std > 0).all():
        raise InvalidValueError(
            "the encoder returns a standard deviation that is not positive; if it is a variance's "
            "logarithm v, return (v / 2).exp()"
        )
    return mean, std


def called(what: str, function: Callable[..., Any], x: Tensor) -> Tensor:
    """Return what an encoder or a decoder, in evaluation mode, makes of a batch; check its rows."""
    with evaluating(function):
        found = function(x.clone())  # it may change its input in place
    return _check_rows(what, found, len(x))


def _check_rows(what: str, value: Any, n: int) -> Tensor:
    """Return a value; raise unless it is a batch of n finite rows."""
    check_batch(f"what the {what} returns", value)
    if len(value) != n:
        raise ShapeError(f"the {what} returns {len(value)} rows for {n} samples")
    found: Tensor = value
    return found
