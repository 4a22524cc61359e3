r"""Learn the weight of a loss together with the score."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from scoresde.checks import door
from scoresde.errors import InvalidValueError
from scoresde.nn import Fourier
from scoresde.noise import Noise
from scoresde.objectives.description import described
from scoresde.objectives.implicit import fd_ssm_loss, ism_loss, ssm_loss
from scoresde.objectives.perturbed import checked_loss, noise_of, times_of
from scoresde.objectives.weights import Weight, sigma2
from scoresde.precision import full_precision
from scoresde.sde import SDE, Score, TimeLaw, process_of
from scoresde.sde.coordinates import c_noise

__all__ = ["LearnedWeight"]


class LearnedWeight(nn.Module):
    r"""Learn the weight $\lambda(t)\,e^{-u(t)}$ of a loss together with the score.

    Let $\ell(t)$ be the loss with the weight $\lambda$, for events of D dimensions. If the weighted
    residual, whose square is $\ell$, is modelled as $N(0, e^{u(t)} I)$, the negative log-likelihood
    is, up to factors and constants,

    $$ e^{-u(t)}\,\ell(t) + D\,u(t), \quad\text{smallest at}\quad
       e^{u(t)} = \mathbb E\,\ell(t) / D. $$

    With the learned weight all times contribute gradients of the same size (Kendall et al. 2018,
    arXiv:1705.07115; as a function of the noise level Karras et al. 2023, eq. 14,
    arXiv:2312.02696). The loss must be positive on average, as `dsm_loss` is; the implicit losses
    are not.

    The object is called like any loss. `Trainer(..., loss=LearnedWeight(dsm_loss))` optimises and
    saves its parameters, which are needed only for training.

    Args:
        loss: A loss `(score, sde, x, *, t, noise, condition, weight) -> (B,)`.
        base: $\lambda$.
        law: The distribution of the times; `None` takes the SDE's default.
        features: The number of Fourier features of $\tfrac14 \log(\sigma/\alpha)$, even; u is
            linear in them.

    Raises:
        InvalidTypeError: An argument has another type.
        InvalidValueError: `loss` is a partial that binds a weight or a law; or it is an implicit
            loss, which is negative on average, so that u would go to minus infinity; or `features`
            is odd.

    Examples:
        >>> from scoresde import Noise, VESDE
        >>> from scoresde.objectives import dsm_loss
        >>> loss, sde = LearnedWeight(dsm_loss), VESDE()
        >>> x = torch.zeros(4, 2)
        >>> loss(lambda x, t: -x, sde, x, noise=Noise.of(0, 4)).shape
        torch.Size([4])
    """

    @door
    def __init__(
        self,
        loss: Callable[..., Tensor],
        base: Weight = sigma2,
        *,
        law: TimeLaw | None = None,
        features: int = 64,
    ) -> None:
        super().__init__()
        inside = loss.func if isinstance(loss, functools.partial) else loss
        if inside in (ism_loss, ssm_loss, fd_ssm_loss):
            raise InvalidValueError(
                f"{described(loss)} is negative near its minimum, and a learned weight needs a "
                "positive loss; take dsm_loss"
            )
        for name, instead in (("weight", "base"), ("law", "law")):
            if name in _bound(loss):
                raise InvalidValueError(
                    f"LearnedWeight sets the {name} of the loss, so the one bound in "
                    f"{described(loss)} would be ignored; pass {instead}= to LearnedWeight"
                )
        self.loss, self.base, self.law = loss, base, law
        self.waves = Fourier(features)
        self.slopes = nn.Parameter(torch.zeros(features))
        self.bias = nn.Parameter(torch.zeros(()))

    def extra_repr(self) -> str:
        """Return the loss, base weight and law as a string, for the repr."""
        parts = {"loss": self.loss, "base": self.base, "law": self.law}
        return ", ".join(f"{name}={described(part)}" for name, part in parts.items())

    @full_precision()
    def log_variance(self, sde: SDE, t: Tensor) -> Tensor:
        r"""Return $u(t)$, of the shape and on the device of `t`, in float64; 0 before training."""
        c = c_noise(sde, t).to(self.bias).reshape(-1)
        u: Tensor = self.waves(c).to(c.dtype) @ self.slopes + self.bias
        return u.reshape(t.shape).to(t.device, torch.float64)

    def weight(self, sde: SDE, t: Tensor) -> Tensor:
        r"""Return $\lambda(t)\,e^{-u(t)}$."""
        return self.base(sde, t) * (-self.log_variance(sde, t)).exp()

    @door
    def forward(
        self,
        score: Score,
        sde: SDE | None,
        x: Tensor,
        *,
        t: Tensor | float | None = None,
        noise: Noise | None = None,
        condition: Mapping[str, Any] | None = None,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        r"""Return $e^{-u}\,\ell + D\,u$ times the importance weight of the time, `(B,)`.

        The arguments and errors are those of the loss.
        """
        sde = process_of(score, sde)
        noise = noise_of(noise, generator, x)
        time, importance = times_of(sde, t, self.law, noise)
        losses = self.loss(
            score, sde, x, t=time, noise=noise, condition=condition, weight=self.weight
        )
        penalty = x.shape[1:].numel() * self.log_variance(sde, time)
        return checked_loss(importance.to(losses) * (losses + penalty.to(losses)))


def _bound(loss: object) -> Mapping[str, Any]:
    """Return the keyword arguments that a partial binds; empty for any other loss."""
    return loss.keywords if isinstance(loss, functools.partial) else {}
