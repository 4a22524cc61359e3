r"""Call networks of other libraries as `net(x, time, **condition)`.

Each library calls its networks in its own way. Each class here wraps a network of one library;
`CONVENTIONS` has these classes by the names that files use.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

from torch import Tensor, nn
from torch.nn.functional import one_hot

from scoresde.score.scheduled import Scheduled
from scoresde.sde import SDE, FlowSDE

__all__ = ["CONVENTIONS", "Called", "convention_of", "inside", "wrapped"]


class Called(nn.Module):
    """Call a network, a module or a function, as `net(x, time, **condition)`."""

    def __init__(self, net: Callable[..., Any]) -> None:
        super().__init__()
        self.net = net

    def process(self) -> SDE | None:
        """Return the SDE that the network itself defines, or None."""
        return None

    def forward(self, x: Tensor, t: Tensor, /, **condition: Tensor) -> Tensor:
        """Return the output of the network, `(B, *)`."""
        out: Tensor = self.net(x, t, **condition)
        return out


class AzulaMean(Called):
    """Return the mean of azula's posterior."""

    def process(self) -> SDE | None:
        """Return the process of the denoiser's schedule, on [0, 1]."""
        schedule = getattr(self.net, "schedule", None)
        return Scheduled(schedule, eps=0.0) if callable(schedule) else None

    def forward(self, x: Tensor, t: Tensor, /, **condition: Tensor) -> Tensor:
        """Return the denoised state, `(B, *)`."""
        mean: Tensor = self.net(x, t, **condition).mean
        return mean


_LABEL = {"label": "class_labels"}


class DiffusersNetwork(Called):
    """Return the output of a network of diffusers, without a learned variance."""

    def forward(self, x: Tensor, t: Tensor, /, **condition: Tensor) -> Tensor:
        """Return the output, `(B, *)`; the condition `label` is called class_labels there."""
        named = {_LABEL.get(name, name): value for name, value in condition.items()}
        out: Tensor = self.net(x, t, **named, return_dict=False)[0]
        return out.chunk(2, dim=1)[0] if out.shape[1] == 2 * x.shape[1] else out


class EDMNetwork(Called):
    """Call an EDM network with one-hot labels; a missing label is a row of zeros."""

    def forward(self, x: Tensor, t: Tensor, /, **condition: Tensor) -> Tensor:
        """Return the denoised state, `(B, *)`; `t` is sigma."""
        label = condition.pop("label", None)
        if label is not None:
            net: Any = self.net
            rows = one_hot(label.clamp(min=0), int(net.label_dim)) * (label >= 0)[:, None]
            condition["class_labels"] = rows.to(x)
        return super().forward(x, t, **condition)


class ReversedVelocity(Called):
    """Return the velocity in the opposite direction of time."""

    def forward(self, x: Tensor, t: Tensor, /, **condition: Tensor) -> Tensor:
        """Return minus the velocity, `(B, *)`."""
        return -super().forward(x, t, **condition)


class SbiEstimator(Called):
    """Call an estimator of sbi with the condition `x` as the observation.

    Attributes:
        predicts: What it returns: `"flow"`, the velocity theta_1 - theta_0, or `"score"`.
    """

    def __init__(self, net: Callable[..., Any]) -> None:
        super().__init__(net)
        self.predicts = "flow" if hasattr(net, "noise_scale") else "score"

    def process(self) -> SDE:
        """Return the process of the estimator's kernel, or `FlowSDE()` for flow matching."""
        if self.predicts == "flow":
            return FlowSDE()
        net: Any = self.net
        return Scheduled(self._schedule, eps=float(net.t_min), T=float(net.t_max))

    def _schedule(self, t: Tensor) -> tuple[Tensor, Tensor]:
        net: Any = self.net
        return net.mean_t_fn(t).reshape(t.shape), net.std_fn(t).reshape(t.shape)

    def forward(self, x: Tensor, t: Tensor, /, **condition: Tensor) -> Tensor:
        """Return the output for parameters `x`; the observation is the condition `x`."""
        found: Tensor = self.net(input=x, condition=condition["x"], time=t)
        return found


CONVENTIONS: Mapping[str, type[Called]] = MappingProxyType(
    {
        "plain": Called,
        "azula": AzulaMean,
        "diffusers": DiffusersNetwork,
        "edm": EDMNetwork,
        "velocity": ReversedVelocity,
        "sbi": SbiEstimator,
    }
)


def wrapped(net: Callable[..., Any], convention: str = "plain") -> nn.Module:
    """Wrap a network for a convention; a module of the plain convention is returned unchanged."""
    if convention == "plain" and isinstance(net, nn.Module):
        return net
    return CONVENTIONS[convention](net)


def inside(net: nn.Module) -> Callable[..., Any]:
    """Return the network inside a wrapper, or the module itself if it has no wrapper."""
    return net.net if isinstance(net, Called) else net


def convention_of(net: nn.Module) -> str:
    """Return the name of the convention of a network that `wrapped` returned."""
    return next((name for name, kind in CONVENTIONS.items() if type(net) is kind), "plain")
