r"""Test whether conditional samples are from the posterior, with simulated data and parameters.

Draw $\theta \sim p(\theta)$, $y \sim p(y | \theta)$ and $\theta_1, \dots, \theta_L$ for $y$. If the
draws are from $p(\theta | y)$, the true $\theta$ is exchangeable with them, so that the rank of
$f(\theta, y)$ among the $f(\theta_i, y)$ is uniform for any $f$ (Cook, Gelman & Rubin 2006,
doi:10.1198/106186006X136976; Talts et al. 2018, arXiv:1804.06788). If $f$ is an entry or a
projection of $\theta$, draws from the prior, which ignore y, would pass too. So two further $f$
depend on y. One is the log-likelihood $\log p(y | \theta)$, if it is given (Modrák et al. 2023,
arXiv:2211.02383). The other is the distance of $\theta$ to a reference point that is a function of
y (TARP, Lemos et al. 2023, arXiv:2302.03026). Here the reference point is the parameter of that
other simulation whose data are nearest to y.
"""

from scoresde.metrics.calibration.calibrating import calibrate, calibrate_pairs
from scoresde.metrics.calibration.result import Calibration, Quantity

__all__ = ["Calibration", "Quantity", "calibrate", "calibrate_pairs"]
