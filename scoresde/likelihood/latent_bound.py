r"""Bound the log-density of decoded samples by the log-density of their codes.

With the encoder's posterior $q(e | x)$ and $p(x | e) = \mathcal N(D(e), s^2 I)$ for the decoder
$D$,

$$ \log p(x) \ge E_{q(e | x)} \big[ \log p(x | e) + \log p(e) - \log q(e | x) \big], $$

with equality if $q(e | x)$ is the exact posterior $p(e | x)$ (Kingma & Welling 2014,
arXiv:1312.6114; Vahdat et al. 2021, arXiv:2106.05931, with a score for $p(e)$). The density $p(e)$
is the `log_prob` of the standardised code z, plus the log-determinant of the map from e to z.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from scoresde.checks import check_batch, check_integer, check_range, door
from scoresde.errors import InvalidValueError, ShapeError
from scoresde.likelihood.densities import log_prob
from scoresde.likelihood.result import LogProb, quantile
from scoresde.noise import Noise
from scoresde.score.latent import Latent, called, draw, posterior_of

__all__ = ["latent_elbo"]


@door
def latent_elbo(
    score: Latent, x: Tensor, *, std: float, draws: int = 4, seed: int = 0, **known: Any
) -> LogProb:
    r"""Return an estimate, with an error bar, of a lower bound of the log-density of samples.

    The gap between the bound and the log-density depends on the encoder.

    Args:
        score: A `Latent` whose encoder returns a mean and a standard deviation.
        x: The samples, `(B, *)`, as the encoder takes them.
        std: The standard deviation $s$ of the decoder, in the units of `x`; usually the root mean
            square error of decoded codes.
        draws: The number of codes of each sample, at least 1.
        seed: The seed of the codes.
        known: Further arguments of `log_prob`, for the density of the codes.

    Returns:
        The bound as `value`. The part `"draws"` of its error is the 95 % half-width for the random
        codes, infinite for one draw. The other parts are the parts of the errors of `log_prob`,
        averaged over the draws.

    Raises:
        InvalidValueError: The encoder returns codes without a standard deviation, a standard
            deviation is below eight times the rounding of its mean, or an argument is out of range.
        InvalidTypeError, ShapeError, NonFiniteError: As for `log_prob`.

    Examples:
        >>> import scoresde
        >>> prior = scoresde.targets.Gaussian(torch.zeros(1), std=1.0).at(scoresde.VPSDE())
        >>> encoder = lambda x: (x / 2, torch.full_like(x, 0.5**0.5))  # of x = e + noise, exact
        >>> score = scoresde.score.Latent(prior, encoder, lambda e: e)
        >>> found = latent_elbo(score, torch.ones(1, 1), std=1.0)  # x is N(0, 2)
        >>> exact = scoresde.targets.Gaussian(torch.zeros(1), var=2.0).log_prob(torch.ones(1, 1))
        >>> bool((found.value - exact).abs() < found.error)
        True
    """
    check_batch("x", x)
    check_range("std", std, "(0, inf)")
    check_integer("draws", draws, 1)
    with torch.no_grad():
        mean, spread = posterior_of(score.encoder, x)
    if spread is None:
        raise InvalidValueError(
            "the bound needs the posterior of the codes, but this encoder returns only codes; let "
            "it return their mean and standard deviation"
        )
    _check_resolved("codes", mean, spread)
    noise, found, values = Noise.of(seed, len(x)), list[LogProb](), list[Tensor]()
    for k in range(draws):
        with torch.no_grad():
            e = draw(mean, spread, noise, k)
            z, back = score.code_transform.forward(e), called("decoder", score.decoder, e)
        if back.shape != x.shape:
            raise ShapeError(
                f"the decoder returns {tuple(back.shape)} for samples of shape {tuple(x.shape)}"
            )
        _check_resolved("decoded samples", back, std)
        found.append(log_prob(score.score, None, z, seed=seed, **known))
        density = found[-1].value + score.code_transform.log_det(z.shape[1:])
        values.append(density + _gaussian(x, back, std) - _gaussian(e, mean, spread))
    terms = torch.stack(values)
    error = torch.full_like(terms[0], math.inf)
    if draws > 1 and len(x):
        error = quantile(torch.tensor(draws - 1.0)) * terms.std(0) / draws**0.5
    parts = {k: torch.stack([one.parts[k] for one in found]).mean(0) for k in found[0].parts}
    return LogProb(
        value=terms.mean(0),
        parts={"draws": error, **parts},
        nfe=torch.stack([one.nfe for one in found]).sum(0),
        dimensions=math.prod(x.shape[1:]),
    ).checked()


def _check_resolved(what: str, mean: Tensor, std: Tensor | float) -> None:
    """Raise unless the rounding of a Gaussian's mean is small beside its standard deviation."""
    if (std < 8 * torch.finfo(mean.dtype).eps * mean.abs()).any():
        raise InvalidValueError(
            f"the standard deviation of the {what} is so small that {mean.dtype} rounds a draw to "
            "a few numbers, and the bound would be wrong; use an encoder, a decoder and samples "
            f"of {torch.float64 if mean.dtype == torch.float32 else torch.float32}"
        )


def _gaussian(x: Tensor, mean: Tensor, std: Tensor | float) -> Tensor:
    """Return the log-density of a Gaussian with independent entries, `(B,)` in float64."""
    spread = torch.as_tensor(std, dtype=torch.float64, device=x.device)
    z = (x.double() - mean.double()) / spread
    terms = -(z**2) / 2 - spread.log() - math.log(2 * math.pi) / 2
    return terms.flatten(1).sum(1)
