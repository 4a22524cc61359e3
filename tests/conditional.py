"""Define exact conditional scores, for a linear observation of Gaussian data."""

import torch
from torch import Tensor

from scoresde import Facts, Field, Moments
from scoresde.sde import SDE
from scoresde.targets import Gaussian


class Linear:
    r"""The score of x ~ N(mean, prior), and under the condition y = A x + N(0, noise) of x | y.

    It counts its calls with and without a condition, and is exact in float64.
    """

    def __init__(self, sde: SDE, mean: Tensor, prior: Tensor, a: Tensor, noise: Tensor):
        self.sde, self.mean, self.prior, self.a, self.noise = sde, mean, prior, a, noise
        self.precision = prior.inverse() + a.T @ noise.inverse() @ a
        self.cov = self.precision.inverse()
        self.given, self.free = 0, 0

    @classmethod
    def drawn(cls, sde: SDE, generator: torch.Generator, d: int = 2, k: int = 1) -> "Linear":
        """One of d dimensions with k observed numbers, none of them too narrow."""
        normal = lambda *n: torch.randn(*n, generator=generator, dtype=torch.float64)  # noqa: E731
        root, other = normal(d, d), normal(k, k)
        prior = root @ root.T / d + 0.2 * torch.eye(d)
        noise = other @ other.T / k + 0.3 * torch.eye(k)
        return cls(sde, normal(d), prior.double(), normal(k, d), noise.double())

    @property
    def facts(self) -> Facts:
        return Facts(
            sde=self.sde,
            event_shape=tuple(self.mean.shape),
            moments=Moments(self.mean, cov=self.prior),
            steps=7,
            passes=1,
            conditions={"y": Field((len(self.a),))},
        )

    def posterior(self, *ys: Tensor) -> Gaussian:
        """Return the law of x under observations `(k,)` that are independent given x."""
        pull = self.a.T @ self.noise.inverse()
        precision = self.prior.inverse() + len(ys) * pull @ self.a
        mean = precision.inverse() @ (self.prior.inverse() @ self.mean + pull @ sum(ys))
        cov = precision.inverse()
        return Gaussian(mean, cov=(cov + cov.T) / 2)

    def moments(self, n: int) -> list[Moments]:
        """Those of the prior, and of n posteriors; compose takes no means."""
        return [Moments(self.mean, cov=cov) for cov in [self.prior, *[self.cov] * n]]

    def law(self, t: Tensor, y: Tensor | None) -> tuple[Tensor, Tensor]:
        """Means `(B, d)` and covariances `(B, d, d)` of x_t."""
        if y is None:
            mean, cov = self.mean, self.prior
        else:
            pull = self.a.T @ self.noise.inverse()
            plain = self.prior.inverse() @ self.mean
            mean, cov = (plain + y.double() @ pull.T) @ self.cov, self.cov
        alpha, sigma = self.sde.alpha(t.double())[:, None], self.sde.sigma(t.double())[:, None]
        spread = alpha[..., None] ** 2 * cov + sigma[..., None] ** 2 * torch.eye(len(cov))
        return alpha * mean, spread

    def __call__(self, x, t, condition=None):
        self.given, self.free = self.given + bool(condition), self.free + (not condition)
        mean, cov = self.law(t, condition["y"] if condition else None)
        gap = (x.double() - mean)[..., None]
        return -torch.linalg.solve(cov, gap)[..., 0].to(x.dtype)

    def log_likelihood(self, x, t, condition):
        """log p(y | x_t), up to a constant in x: y and x_t are jointly Gaussian."""
        alpha, sigma = self.sde.alpha(t.double())[:, None], self.sde.sigma(t.double())[:, None]
        _, spread = self.law(t, None)
        gain = alpha[..., None] * self.prior @ spread.inverse()  # Cov[x_0, x_t] Cov[x_t]^-1
        mean = self.mean + (gain @ (x.double() - alpha * self.mean)[..., None])[..., 0]
        left = self.prior - gain @ (alpha[..., None] * self.prior)
        cov = self.a @ left @ self.a.T + self.noise
        gap = (condition["y"].double() - mean @ self.a.T)[..., None]
        assert sigma.min() > 0
        return -0.5 * (gap.mT @ torch.linalg.solve(cov, gap))[:, 0, 0].to(x.dtype)
