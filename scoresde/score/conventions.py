r"""Call networks of other libraries as `net(x, time, **condition)`.

Each library calls its networks in its own way. Each class here wraps a network of one library;
`CONVENTIONS` maps the names in files to these classes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, nn
from torch.compiler import is_compiling
from torch.nn.functional import one_hot

from scoresde.errors import InvalidValueError
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
    """Return the mean of the posterior that a denoiser of azula predicts."""

    def process(self) -> SDE | None:
        """Return the process of the denoiser's schedule, on [0, 1]."""
        schedule = getattr(self.net, "schedule", None)
        return Scheduled(schedule, eps=0.0) if callable(schedule) else None

    def forward(self, x: Tensor, t: Tensor, /, **condition: Tensor) -> Tensor:
        """Return the denoised state, `(B, *)`."""
        mean: Tensor = self.net(x, t, **condition).mean
        return mean


class DiffusersNetwork(Called):
    """Return the output of a network of diffusers, without a learned variance.

    Attributes:
        missing: The number of the class for a missing label, or None if there is no such class.
    """

    def __init__(self, net: Callable[..., Any]) -> None:
        super().__init__(net)
        config = getattr(net, "config", None)
        # a DiT has one more class than its configuration says
        self.missing: int | None = getattr(config, "num_embeds_ada_norm", None)
        self.classes: int | None = getattr(config, "num_class_embeds", None) or self.missing

    def forward(self, x: Tensor, t: Tensor, /, **condition: Tensor) -> Tensor:
        """Return the output, `(B, *)`; the condition `label` is passed as `class_labels`.

        Raises:
            InvalidValueError: A label is missing, and the network has no class for missing labels.
        """
        label = condition.pop("label", None)
        if self.classes is not None:
            condition["class_labels"] = self._labels(label, x)
        elif label is not None:
            condition["class_labels"] = label
        out: Tensor = self.net(x, t, **condition, return_dict=False)[0]
        return out.chunk(2, dim=1)[0] if out.shape[1] == 2 * x.shape[1] else out

    def _labels(self, label: Tensor | None, x: Tensor) -> Tensor:
        """Return the class that the network receives for each sample, also for a missing label."""
        if self.missing is not None:
            given = x.new_full((len(x),), -1, dtype=torch.int64) if label is None else label
            return torch.where(given < 0, self.missing, given)
        # labels are checked on the CPU only, since reading them from a GPU would wait for it
        seen = label is not None and label.device.type == "cpu" and not is_compiling()
        if label is None or (seen and bool((label < 0).any())):
            raise InvalidValueError(
                f"this network of diffusers has {self.classes} classes, but no class for a missing "
                'label; give a label for each sample, condition={"label": ...}'
            )
        return label


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
    """Return minus the velocity of a network whose time runs from noise to data."""

    def forward(self, x: Tensor, t: Tensor, /, **condition: Tensor) -> Tensor:
        """Return minus the velocity, `(B, *)`."""
        return -super().forward(x, t, **condition)


class SbiEstimator(Called):
    """Call an estimator of sbi with the condition `x` as the observation.

    Attributes:
        predicts: What the estimator returns: `"flow"`, the velocity from parameters to noise, or
            `"score"`.
    """

    def __init__(self, net: Callable[..., Any]) -> None:
        super().__init__(net)
        self.predicts = "flow" if hasattr(net, "noise_scale") else "score"

    def process(self) -> SDE:
        """Return the process that the estimator was trained for, `FlowSDE()` for flow matching."""
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
    """Wrap a network for a convention; return a module of the plain convention unchanged."""
    if convention == "plain" and isinstance(net, nn.Module):
        return net
    return CONVENTIONS[convention](net)


def inside(net: nn.Module) -> Callable[..., Any]:
    """Return the network inside a wrapper, or the module itself if it has no wrapper."""
    return net.net if isinstance(net, Called) else net


def convention_of(net: nn.Module) -> str:
    """Return the name of the convention of a network that `wrapped` returned."""
    return next((name for name, kind in CONVENTIONS.items() if type(net) is kind), "plain")
