r"""Whether conditional samples are of the posterior, by simulated data whose truth is known.

Draw $\theta \sim p(\theta)$, $y \sim p(y | \theta)$ and $\theta_1, \dots, \theta_L$ for $y$. If the
draws are of $p(\theta | y)$, the truth is one more of them, so that its place among them in any
number $f(\theta, y)$ is uniform (Cook, Gelman & Rubin 2006, doi:10.1198/106186006X136976; Talts et
al. 2018, arXiv:1804.06788). Entries and projections of $\theta$ do not see draws of the prior,
which ignore y. So two numbers depend on y: the log-likelihood $\log p(y | \theta)$, where it is
given (Modrák et al. 2023, arXiv:2211.02383), and the distance to a point that y decides (TARP,
Lemos et al. 2023, arXiv:2302.03026), here the parameter of the simulation with the nearest data.
"""

from scoresde.metrics.calibration.calibrating import calibrate, calibrate_pairs
from scoresde.metrics.calibration.result import Calibration, Quantity

__all__ = ["Calibration", "Quantity", "calibrate", "calibrate_pairs"]
