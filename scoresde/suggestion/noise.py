r"""Choose noise scales and samplers from the data and from theory, each with its reason.

The largest noise must connect all the data, the smallest noise must not blur them, and neighbouring
levels of a ladder must overlap. The rules are numbered as in Song & Ermon (2020), *Improved
techniques for training score-based generative models*, arXiv:2006.09011 (rule 3 concerns the
network):

1. $\sigma_\max$ is the largest distance between two samples.
2. In D dimensions the norm of noise of std $\sigma$ is about $N(\sqrt D\sigma, \sigma^2/2)$. The
   range of the norms at a level is their mean plus or minus three of their standard deviations.
   The ratio $\gamma$ of neighbouring levels is such that half of the norms at one level lie in the
   range of the level above:
   $$ \Phi\big(\sqrt{2D}(\gamma - 1) + 3\gamma\big) - \Phi\big(\sqrt{2D}(\gamma - 1) - 3\gamma\big)
      = \tfrac12. $$
4. The samples of the level above have the variance $\gamma^2\sigma^2$. After $k$ Langevin steps of
   size $\kappa\sigma^2$ their variance is $\sigma^2$ times the following number, which should be 1:
   $$ (1 - \kappa)^{2k}\Big(\gamma^2 - \frac{2}{2 - \kappa}\Big) + \frac{2}{2 - \kappa}. $$

For predictor-corrector sampling, let $h$ be the step of $\log\sigma$ and $w = \sigma^2 / (v +
\sigma^2)$ for data of variance $v$. Relative to the right variance $v + \sigma^2$, Euler's step of
the flow in $\sigma$ makes the variance too small by $w(1 - w)h^2$, and a corrector step of size
$2 r^2\sigma^2$ makes it too large by $4 r^4 w^2$. (The corrector step also multiplies
an earlier error by about $1 - 4 r^2 w$.) The two errors cancel at $w = \tfrac12$, that is at
$\sigma^2 = v$, for $r = \sqrt{h / 2}$: the signal-to-noise ratio follows from the step alone.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Self

import torch
from torch import Tensor

from scoresde.checks import outside, seeded
from scoresde.data import Data
from scoresde.errors import DataError
from scoresde.samplers import PC, AnnealedLangevin, Langevin
from scoresde.sde import SDE, VESDE

__all__ = ["NoiseLevels", "significant", "steps_of"]

# At most this many samples are compared in pairs, with at most this many operations.
_SAMPLES, _BUDGET = 2000, 2e9
# Bounds of the distances of samples: beyond them, sums of squares over- or underflow in float64.
_SMALLEST, _LARGEST = 1e-140, 1e140
# The share of pairs that may be further apart than sigma_max. With one outlier in 400 samples, this
# share of the pairs contains an outlier.
_FAR = 0.005
# The largest ratio of neighbouring levels; rule 2 gives it for 64 dimensions. Below 5 dimensions
# norms overlap at any ratio, but mass must also move between modes. For two modes that are 24
# standard deviations apart, a mode of weight .15 gets the share .20 of the samples at a ratio of 2,
# .18 at 1.36 and .17 at 1.1.
_RATIO = 1.36
# The largest variance after the steps of a level, divided by the right variance (paper: 1.0555).
_VARIANCE = 1.056
# The step of log sigma with which the variance of any Gaussian is right to 1 %.
_STEP = 0.1
# If the values of the data are multiples of q, noise of std q / 2 leaves a ripple of
# 2 exp(-pi^2 / 2), about 1 %, in their density. If q / 2 is more than a tenth of the data's std,
# the model should learn the values themselves; then the smallest noise is a fiftieth of the std,
# which resolves the values.
_QUANTA, _COARSE, _FINE = 0.5, 0.1, 0.02
# The smallest noise is at most this share of the std of the data, and of their std in the narrowest
# direction.
_THIN = 0.1


@dataclass(frozen=True)
class NoiseLevels:
    r"""Hold noise scales and settings of samplers for some data.

    Attributes:
        sigma_min: The smallest noise.
        sigma_max: The largest noise.
        sigma_data: The standard deviation of the data about their mean, per dimension.
        ratio: $\gamma$, the ratio of neighbouring levels of a ladder.
        levels: The number of levels of a ladder.
        kappa: The step of annealed Langevin dynamics, in units of $\sigma^2$.
        k: The number of steps of annealed Langevin dynamics at each level.
        steps: The number of steps of predictor-corrector sampling.
        snr: The corrector's signal-to-noise ratio $r$.
        reasons: The reason for each of these values, by name.
    """

    sigma_min: float
    sigma_max: float
    sigma_data: float
    # the settings that only the papers' samplers use
    ratio: float = field(repr=False)
    levels: int = field(repr=False)
    kappa: float = field(repr=False)
    k: int = field(repr=False)
    steps: int = field(repr=False)
    snr: float = field(repr=False)
    reasons: Mapping[str, str] = field(repr=False)

    def sde(self) -> VESDE:
        """Return the VE SDE from `sigma_min` to `sigma_max`, both rounded to three digits."""
        return VESDE(significant(self.sigma_min), significant(self.sigma_max))

    def ladder(self) -> VESDE:
        """Return the VE SDE restricted to `levels` levels, for annealed Langevin dynamics."""
        return replace(self.sde(), levels=self.levels)

    def sampler(self) -> PC:
        """Return the predictor-corrector sampler for `sde()` in `steps` steps."""
        return PC(corrector=Langevin(self.snr))

    def annealed(self) -> AnnealedLangevin:
        """Return the annealed Langevin sampler for `ladder()`."""
        return AnnealedLangevin(self.kappa, self.k)

    @classmethod
    def of(cls, data: Data, seed: int) -> Self:
        """Return the noise scales for data, of which at most 2,000 samples are compared.

        Args:
            data: The data.
            seed: The seed of the choice of the samples.

        Raises:
            DataError: There are not two samples that differ, or the squares of their distances
                overflow or vanish.
        """
        x = _chosen(data, seed)
        if (spread := float((x - x[0]).abs().max())) == 0:
            raise DataError(
                f"the {len(x)} samples that were compared are all equal, so they have no scale; "
                "give at least two that differ"
            )
        if not _SMALLEST < spread < _LARGEST:
            raise DataError(
                f"the samples differ by up to {spread:.3g}, whose square float64 cannot hold; "
                "divide the data by their scale"
            )
        apart = torch.cdist(x, x, compute_mode="donot_use_mm_for_euclid_dist")
        sigma_max, far = _largest(apart)
        sigma_min, near = _smallest(x, data, apart, sigma_max)
        ratio, overlap = _ratio(x.shape[1])
        span = math.log(sigma_max / sigma_min)
        levels = math.ceil(1 + span / math.log(ratio))
        ratio = math.exp(span / (levels - 1))
        kappa, k, left = _annealing(ratio)
        steps = math.ceil(span / _STEP)
        snr = math.sqrt(span / steps / 2)
        sigma_data = float((x - x.mean(0)).square().mean().sqrt())
        if sigma_data > sigma_max:
            warnings.warn(
                f"a few outliers make sigma_data as large as {sigma_data:.3g}, although most of "
                f"the data are within {sigma_max:.3g} of each other; look at the outliers, or "
                "leave them out",
                UserWarning,
                stacklevel=outside(),
            )
        return cls(
            sigma_min, sigma_max, sigma_data, ratio, levels, kappa, k, steps, snr,
            {
                "sigma_min": near,
                "sigma_max": far,
                "sigma_data": "the root mean square of the data about their mean, per dimension",
                "ratio": overlap,
                "levels": "the number of levels of a ladder from sigma_max to sigma_min with the "
                "suggested ratio",
                "kappa": "the step of annealed Langevin dynamics in units of sigma^2: after the "
                f"{k} steps of a level the variance is {left:.3f} times the right variance",
                "k": "the fewest steps per level after which annealed Langevin dynamics has at "
                f"most {_VARIANCE} times the right variance",
                "steps": "the number of steps of predictor-corrector sampling: log sigma falls by "
                f"{span / steps:.3f} in each, so that the variance of any Gaussian is right to 1 %",
                "snr": "the corrector's signal-to-noise ratio sqrt(h / 2), with which the errors "
                f"of predictor and corrector cancel if log sigma falls by h = {span / steps:.3f} "
                "in each step",
            },
        )  # fmt: skip


def steps_of(sde: SDE) -> int | None:
    """Return the number of predictor-corrector steps that makes variances right to 1 %, or None.

    The result is None if the process is a ladder, or if its times are not equally spaced in
    log(sigma / alpha).
    """
    if sde.levels is not None:
        return None
    parts = sde.log_snr(sde.times(4)).diff() / 2
    span = float(parts.sum())
    if not math.isfinite(span) or (parts - span / 4).abs().max() > 1e-6 * span:
        return None
    return math.ceil(span / _STEP)


def significant(value: float, digits: int = 3) -> float:
    """Return a number rounded to this number of significant digits."""
    return float(f"{value:.{digits}g}")


def _chosen(data: Data, seed: int) -> Tensor:
    """Return randomly chosen samples, flat `(n, d)` and in float64."""
    size = math.prod(data.event_shape)
    count = min(len(data), _SAMPLES, max(64, math.isqrt(int(_BUDGET / size))))
    rows = torch.randperm(len(data), generator=seeded(seed))[:count].sort()[0]
    return data.batch(rows).double().reshape(count, size)


def _largest(apart: Tensor) -> tuple[float, str]:
    """Return the largest noise for samples with these distances `(n, n)`, and the reason."""
    n, most = len(apart), float(apart.max())
    pairs = apart[tuple(torch.triu_indices(n, n, 1))]
    chosen = float(pairs.quantile(1 - _FAR, interpolation="higher"))
    if chosen == 0:
        return most, f"the largest distance among {n} samples, nearly all of which are equal"
    if chosen == most:
        return most, f"the largest distance among {n} samples, so that such noise connects them all"
    return chosen, (
        f"the distance that {1 - _FAR:.1%} of the pairs of {n} samples do not exceed, so that such "
        f"noise connects all but outliers (the largest is {most:.3g})"
    )


def _smallest(x: Tensor, data: Data, apart: Tensor, sigma_max: float) -> tuple[float, str]:
    """Return the smallest noise, below which the data have no structure, and the reason."""
    n, size = x.shape
    nearest = apart.masked_fill(apart <= 1e-9 * sigma_max, math.inf).amin(1)
    middle = float(nearest[nearest.isfinite()].median())
    std = float((x - x.mean(0)).square().mean().sqrt())
    centred = (x - x.mean(0)) / math.sqrt(n)
    smaller = centred.T @ centred if size < n else centred @ centred.T
    stds = torch.linalg.eigvalsh(smaller).clamp(min=0).sqrt().flip(0)
    thin = float(stds[stds > 1e-3 * stds[0]].min())
    # in the narrowest direction the variance of n samples is about (1 - size / n) times the
    # variance of their distribution in its narrowest direction
    if size < n:
        thin /= math.sqrt(1 - size / n)
    few = (
        f"; {n} samples are too few for a reliable value in {size} dimensions"
        if n < 2 * size
        else ""
    )
    chosen, why = min(
        (
            middle / (2 * math.sqrt(size)),
            f"noise whose typical length is half the median distance {middle:.3g} between nearest "
            f"neighbours among {n} samples, which have no finer structure{few}",
        ),
        (_THIN * thin, f"a tenth of the std {thin:.3g} of the data's narrowest direction{few}"),
        (_THIN * std, f"a tenth of the data's std {std:.3g}, which adds 1 % to their variance"),
    )
    quantum, reach = _quantum(x, data, sigma_max), float(x.abs().amax(1).quantile(1 - _FAR))
    blurring = (
        _QUANTA * quantum,
        f"half the distance {quantum:.3g} between neighbouring values of the data, so that the "
        "density has no gaps between them",
    )
    if blurring[0] > _COARSE * std:
        blurring = (
            _FINE * std,
            f"a fiftieth of the data's std, so that the values of the data, {quantum:.3g} apart, "
            "are kept apart",
        )
    for least, reason in (
        (1e-5 * reach, "the smallest noise that float32 resolves when it is added to the data"),
        blurring,
    ):
        if chosen < least:
            chosen, why = least, reason
    if reach > 1e4 * sigma_max:
        warnings.warn(
            f"the samples are at most {sigma_max:.3g} apart and lie up to {reach:.3g} from 0, so "
            "that float32 loses their differences; standardize the data, as by "
            "data.load(..., standardize=True) or --standardize",
            UserWarning,
            stacklevel=outside(),
        )
        return sigma_max / 10, (
            f"a tenth of sigma_max: the data lie up to {reach:.3g} from 0, and there float32 does "
            "not resolve finer differences"
        )
    if chosen > sigma_max / 10:
        return sigma_max / 10, (
            f"a tenth of sigma_max, the largest value allowed: the rules for the data would give "
            f"{chosen:.3g}"
        )
    return chosen, why


def _quantum(x: Tensor, data: Data, sigma_max: float) -> float:
    """Return the smallest distance of two values of the data, 0 if the numbers are continuous."""
    # equal values that differ by rounding count as one
    unit = sigma_max * 2**-20
    values = torch.unique((x / unit).round())
    if 8 * len(values) > x.numel():
        return 0.0
    return float(values.diff().min()) * unit


def _ratio(size: int) -> tuple[float, str]:
    """Return the ratio of neighbouring levels in `size` dimensions, and the reason."""
    root = math.sqrt(2 * size)

    def overlap(gamma: float) -> float:
        middle = torch.tensor(root * (gamma - 1), dtype=torch.float64)
        low, high = torch.special.ndtr(torch.stack([middle - 3 * gamma, middle + 3 * gamma]))
        return float(high - low)

    if overlap(_RATIO) >= 0.5:
        return _RATIO, (
            f"the ratio of neighbouring levels, at most {_RATIO:g}: in {size} dimensions a larger "
            "ratio would suffice for the norms of noise to overlap, but samples must also move "
            "between modes"
        )
    low, high = 1.0, _RATIO
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if overlap(middle) > 0.5 else (low, middle)
    return low, (
        f"the ratio of neighbouring levels: in {size} dimensions half of the norms of noise at one "
        "level lie in the range of the norms at the level above"
    )


def _annealing(gamma: float) -> tuple[float, int, float]:
    """Return the step, the fewest steps per level, and the variance after them (rule 4)."""
    kappa = torch.logspace(-3, 0, 600, dtype=torch.float64)[:-1]
    settled = 2 / (2 - kappa)
    k = 0
    left = torch.tensor([math.inf])
    while float(left.min()) > _VARIANCE:
        k += 1
        left = (1 - kappa) ** (2 * k) * (gamma**2 - settled) + settled
    best = left.argmin()
    return float(kappa[best]), k, float(left[best])
