r"""Make a score from any network that predicts a known quantity and takes time in its own form.

The network receives the state as it is, neither centred nor scaled. The score is a linear function
of the state and the network's output, by the table `PREDICTIONS`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType

import torch
from torch import Tensor, nn

from scoresde.checks import (
    as_event,
    check_integer,
    check_name,
    check_noise,
    check_shape,
    door,
    named,
    quoted,
)
from scoresde.errors import InvalidTypeError, InvalidValueError, ShapeError
from scoresde.score.inside import dtype_of
from scoresde.score.predictions import PREDICTIONS
from scoresde.sde import SDE, Classes, Facts, Field, Moments, check_output, expand
from scoresde.sde.cpu_times import per_sample
from scoresde.units import Transform

__all__ = ["TIMES", "NetworkScore", "from_network"]

TIMES: Mapping[str, Callable[[SDE, Tensor], Tensor]] = MappingProxyType(
    {
        "t": lambda sde, t: t,
        "sigma": lambda sde, t: sde.sigma(t),
        "log_sigma": lambda sde, t: sde.sigma(t).log(),
        "index": lambda sde, t: sde.index(t),
        "999t": lambda sde, t: 999 * t,
        "1-t": lambda sde, t: 1 - t,
    }
)
r"""What a network may receive for time, by name, as functions of the SDE and the time.

- `t`: the time of the SDE.
- `sigma`, `log_sigma`: $\sigma_t$, as EDM and k-diffusion have it where $\alpha = 1$, and its
  logarithm.
- `index`: the number of the nearest level, an integer, 0 at `eps` (DDPM).
- `999t`: $999\,t$ (the continuous models of Song et al. 2021).
- `1-t`: time that runs from noise at 0 to data at 1 (flow matching).
"""

_PREDICTIONS = [name for name in PREDICTIONS if name != "edm"]  # "edm" needs a scaled input


class NetworkScore(nn.Module):
    """Turn a network into a score by the formula of what it predicts; made by `from_network`."""

    def __init__(
        self,
        net: Callable[..., Tensor],
        known: Facts,
        predicts: str,
        time: str | Callable[[SDE, Tensor], Tensor],
    ) -> None:
        super().__init__()
        if known.sde is None:
            raise InvalidValueError("a network is the score of a process; give its SDE")
        self.net = net
        self.sde = known.sde
        self.facts = known
        self.predicts = predicts
        self.time = time

    def forward(
        self, x: Tensor, t: Tensor | float, condition: Mapping[str, Tensor] | None = None
    ) -> Tensor:
        r"""Return the score $\nabla\log p_t(x)$ of shape `(B, *)`.

        Args:
            x: States `(B, *)`.
            t: Time `()` or `(B,)`, with $\sigma_t > 0$.
            condition: The conditions, which the network receives by name.

        Raises:
            ShapeError: `x`, the network's output or its time has another shape.
            InvalidTypeError: `x` is not floating-point, or the output is no tensor.
            InvalidValueError: $\sigma_t = 0$, or `t` lies outside [0, T].
        """
        check_shape("x", x, self.facts.event_shape)
        time = self.sde.cpu_time(t)
        remedy = f"a score is singular there; stay at or above eps = {self.sde.eps}"
        check_noise(self.sde.sigma(time), time, remedy)
        wide = x.to(torch.promote_types(x.dtype, torch.float32))
        expand(time, wide)  # checks x and the shape of t
        dtype = dtype_of(self, wide.dtype)
        c = self._input(time, wide)
        if c.is_floating_point():  # half precision cannot tell neighbouring levels apart
            c = c.to(torch.promote_types(dtype, torch.float32))
        given = {
            name: value.to(dtype) if value.is_floating_point() else value
            for name, value in (condition or {}).items()
        }
        out = self.net(wide.to(dtype), c, **given)
        out = check_output("network", out, x).to(wide)
        weights = PREDICTIONS[self.predicts](self.sde, time, 1.0)
        score = expand(weights.x, out) * wide + expand(weights.f, out) * out
        return score.to(x.dtype)

    def _input(self, time: Tensor, x: Tensor) -> Tensor:
        """Return what the network receives for time, `(B,)`, on the device of `x`."""
        c = named("time", self.time, TIMES)(self.sde, time)
        if not isinstance(c, Tensor):
            raise InvalidTypeError(
                f"time= must return a tensor of the shape of t, got {type(c).__name__}"
            )
        if c.shape not in ((), (1,), x.shape[:1]):
            raise ShapeError(
                f"time= must return () or (B,) = ({x.shape[0]},), got {tuple(c.shape)}; return a "
                "number for each time"
            )
        return per_sample(c, x, c.dtype)

    def __repr__(self) -> str:
        return f"NetworkScore({type(self.net).__name__}, {self.sde!r}, predicts={self.predicts!r})"


@door
def from_network(
    net: Callable[..., Tensor],
    sde: SDE,
    predicts: str,
    time: str | Callable[[SDE, Tensor], Tensor] = "t",
    *,
    event_shape: Sequence[int] | None = None,
    moments: Moments | None = None,
    steps: int | None = None,
    transform: Transform | None = None,
    conditions: Mapping[str, Classes | Field] | None = None,
) -> NetworkScore:
    r"""Return the score of a network that predicts a known quantity under `sde`.

    The result is a module that contains the network: if you train it, move it to a device or change
    its mode, you do this to the network.

    Args:
        net: A module or function `net(x, time, **condition)` of the state `(B, *)`, not scaled, and
            of a time `(B,)`; it returns `(B, *)`.
        sde: The process for which it was trained.
        predicts: `"eps"`, `"x0"`, `"v"`, `"flow"`, `"score"` or `"sigma_score"`, as defined in
            `PREDICTIONS`, with the mean of the data taken as 0. The velocity of `"flow"` is the
            derivative in the time of `sde`.
        time: What the network receives for time: a name of `TIMES`, or a function `(sde, t)` of the
            times, float64 on the CPU, that returns as many numbers.
        event_shape: The shape of one sample, if known.
        moments: Mean and variance of the data, if known.
        steps: The number of sampling steps that suits it, if known.
        transform: The map from the user's numbers to those of the network, if known.
        conditions: The conditions that it takes, by name; None passes all conditions on.

    Raises:
        UnknownNameError: `predicts` or `time` is no such name.
        InvalidValueError: `sde` has no levels to count (`"index"`), or is not on [0, 1].

    Examples:
        >>> import torch
        >>> from scoresde import VPSDE, sample
        >>> net = torch.nn.Bilinear(2, 1, 2)
        >>> eps = lambda x, t: net(x, t[:, None])
        >>> score = from_network(eps, VPSDE(), "eps", "999t", event_shape=(2,))
        >>> sample(score, sampler="ddim", n=4, steps=5, seed=0).shape
        torch.Size([4, 2])
    """
    check_name("predicts", predicts, _PREDICTIONS)
    if isinstance(time, str):
        check_name("time", time, TIMES)
        if time == "index" and sde.levels is None:
            raise InvalidValueError(
                f"time='index' counts levels, and {type(sde).__name__} has none; give levels=L, "
                "a BetaLadder, or a function of the time"
            )
        if time in {"999t", "1-t"} and sde.T > 1:
            raise InvalidValueError(
                f"time={time!r} is for processes on [0, 1], and this one goes to T = {sde.T}; "
                "give a function of the time"
            )
    if transform is not None and not isinstance(transform, Transform):
        raise InvalidTypeError(f"transform must be a Transform or None, got {quoted(transform)}")
    known = Facts(
        sde=sde,
        event_shape=None if event_shape is None else as_event("event_shape", event_shape),
        moments=moments,
        steps=None if steps is None else check_integer("steps", steps, 1),
        transform=transform,
        passes=1,
        conditions=conditions,
    )
    return NetworkScore(net, known, predicts, time)
