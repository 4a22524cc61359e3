r"""Make a score from any network that predicts a known quantity, with its own time input.

The network receives the state unchanged. The table `PREDICTIONS` gives the score as a linear
function of the state and the output.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import replace
from typing import Any, Self

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
from scoresde.errors import CheckpointError, InvalidTypeError, InvalidValueError, ShapeError
from scoresde.pretrained.rebuild import rebuild_net, rebuild_sde
from scoresde.pretrained.store import net_config
from scoresde.score.conditions import read_kind, written
from scoresde.score.conventions import CONVENTIONS, Called, convention_of, inside, wrapped
from scoresde.score.inside import dtype_of, modules
from scoresde.score.model import ScoreModel
from scoresde.score.predictions import PREDICTIONS
from scoresde.score.saved import Given
from scoresde.score.times import TIMES, check_time
from scoresde.sde import SDE, Classes, Facts, Field, Moments, check_output
from scoresde.sde.cpu_times import kept_coefficients, on_device, per_sample
from scoresde.sde.shapes import check_times
from scoresde.units import Identity, Transform, describe

__all__ = ["TIMES", "NetworkScore", "from_network"]

Time = str | Callable[[SDE, Tensor], Tensor]
_PREDICTIONS = [name for name in PREDICTIONS if name != "edm"]  # "edm" needs a scaled input


class NetworkScore(ScoreModel):
    """Turn the output of a network into a score; `from_network` makes it.

    It differs from a `ScoreModel` in the network's inputs: the state is not scaled, and the time
    has the form that the network expects. It can be trained and saved like a `ScoreModel`. If the
    network is a module and the shape of a sample is known, a pilot is measured when "fast" is first
    used. Otherwise set a pilot by `score.pilot = scoresde.pilot(score, shape=...)`.
    """

    cov: Tensor | None

    def __init__(self, net: nn.Module, known: Facts, predicts: str, time: Time) -> None:
        if known.sde is None:
            raise InvalidValueError(
                "the score of a network needs an SDE; give the SDE for which it was trained"
            )
        shape = known.event_shape
        if shape is None and known.moments is not None:
            shape = known.moments.shape
        super().__init__(net, known.sde, shape or (), predicts, known.moments)
        self.time = time
        self.steps = known.steps
        self.transform = known.transform or self.transform
        kinds = known.conditions or {}
        self.names = {name: kind.names for name, kind in kinds.items() if kind.names}
        self._known = known
        self.register_buffer("cov", None if known.moments is None else known.moments.cov)

    @property
    def facts(self) -> Facts:
        """Return the facts that were given to `from_network`, and the pilot and the columns.

        Steps, transform, moments and names that were changed later replace the given ones.
        """
        known, kinds = self._known, self._known.conditions
        if kinds is not None:
            kinds = {k: replace(kind, names=self.names.get(k, ())) for k, kind in kinds.items()}
        return replace(
            known,
            steps=self.steps,
            moments=None if known.moments is None else self.moments,
            pilot=self.measured_pilot if self._measures else self.pilot,
            transform=known.transform if self.transform == Identity() else self.transform,
            conditions=kinds,
            columns=self.columns or None,
        )

    @property
    def _measures(self) -> bool:
        """Return True if a pilot can be measured: the event shape and the weights are known."""
        return self._known.event_shape is not None and isinstance(inside(self.net), nn.Module)

    @property
    def moments(self) -> Moments:
        """Return the moments of the data; mean 0 and variance 1 if they are unknown."""
        return super().moments if self.cov is None else Moments(self.mean, cov=self.cov)

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
            InvalidTypeError: `x` is not floating-point, or the output is not a tensor.
            InvalidValueError: $\sigma_t = 0$, or `t` lies outside [0, T].
        """
        check_shape("x", x, self._known.event_shape)
        check_times(time := self.sde.cpu_time(t), x)
        wide = x.to(torch.promote_types(x.dtype, torch.float32))
        of_x, of_f = kept_coefficients(t, self) or on_device(wide, *self.coefficients(time))
        dtype = dtype_of(self.net, wide.dtype)
        c = self._input(time, wide)
        if c.is_floating_point():  # half precision cannot distinguish neighbouring levels
            c = c.to(torch.promote_types(dtype, torch.float32))
        with torch.autocast(x.device.type, self.autocast) if self.autocast else nullcontext():
            out = self.net(wide.to(dtype), c, **self.condition_units(condition, dtype))
        out = check_output("network", out, x).to(wide)
        return (of_x * wide + of_f * out).to(x.dtype)

    def coefficients(self, time: Tensor) -> tuple[Tensor, ...]:
        """Return the coefficients of the state and of the output at times on the CPU."""
        remedy = f"a score is singular there; stay at or above eps = {self.sde.eps}"
        check_noise(self.sde.sigma(time), time, remedy)
        return PREDICTIONS[self.predicts](self.sde, time, 1.0)

    def _input(self, time: Tensor, x: Tensor) -> Tensor:
        """Return the network's time, `(B,)`, on the device of `x`."""
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
        name = type(inside(self.net)).__name__
        return f"NetworkScore({name}, {self.sde!r}, predicts={self.predicts!r})"

    def description(self) -> dict[str, Any]:
        """Return the description of the score that `save_pretrained` writes as JSON.

        A network or a time that is a function cannot be described, and must be given to
        `from_pretrained` again.

        Raises:
            InvalidValueError: The shape of a sample is not known, or the network is a function
                around a module, whose weights would not be in the file.
        """
        net, kinds = inside(self.net), self._known.conditions
        if not self.event_shape:
            raise InvalidValueError(
                "the file of a model stores the shape of one sample, which is unknown here; give "
                "event_shape= when you make the score"
            )
        if not isinstance(net, nn.Module) and (held := modules(net)):
            raise InvalidValueError(
                f"the network is a function that calls a {type(held[0]).__name__}, whose weights "
                "would not be in the file; write the function as the forward method of a module"
            )
        return super().description() | {
            "net": {
                "type": type(net).__name__,
                "config": net_config(net),
                "called": convention_of(self.net),
            },
            "time": self.time if isinstance(self.time, str) else None,
            "conditions": None if kinds is None else {k: written(v) for k, v in kinds.items()},
            "moments": self._known.moments is not None,
            "transform": None if (units := self.facts.transform) is None else describe(units),
        }

    @classmethod
    def described(
        cls, config: Mapping[str, Any], tensors: Mapping[str, Tensor], given: Given
    ) -> Self:
        """Return the score that a description defines; its weights are read later."""
        if "time" not in config:
            raise CheckpointError("it is a ScoreModel; read it by ScoreModel.from_pretrained")
        called = config["net"].get("called", "plain")
        check_name("convention", called, CONVENTIONS)
        module = wrapped(rebuild_net(config, tensors) if given.net is None else given.net, called)
        sde, time = given.sde, given.time
        if sde is None:
            sde = (module.process() if isinstance(module, Called) else None) or rebuild_sde(config)
        if time is None and (time := config["time"]) is None:
            raise CheckpointError(
                "the time of its network is a function, which a file cannot hold; pass it: "
                "from_pretrained(folder, time=...)"
            )
        kinds, moments = config["conditions"], None
        if config["moments"]:
            known = {"cov": tensors["cov"]} if "cov" in tensors else {"var": tensors["var"]}
            moments = Moments(tensors["mean"], **known)
        score: Any = from_network(
            module, sde, config["predicts"], time,
            event_shape=config["event_shape"], moments=moments,
            conditions=None if kinds is None else {k: read_kind(v) for k, v in kinds.items()},
        )  # fmt: skip
        made: Self = score
        return made


@door
def from_network(
    net: Callable[..., Tensor],
    sde: SDE,
    predicts: str,
    time: Time = "t",
    *,
    event_shape: Sequence[int] | None = None,
    moments: Moments | None = None,
    steps: int | None = None,
    transform: Transform | None = None,
    conditions: Mapping[str, Classes | Field] | None = None,
) -> NetworkScore:
    r"""Return the score of a network that predicts a known quantity under `sde`.

    The result is a module that contains the network itself. So training it, moving it to a device
    or changing its mode changes the network.

    Args:
        net: A module or function `net(x, time, **condition)` that returns `(B, *)`. It receives the
            state `(B, *)`, not scaled, and a time `(B,)`.
        sde: The process for which it was trained.
        predicts: `"eps"`, `"x0"`, `"v"`, `"flow"`, `"score"` or `"sigma_score"`, as defined in
            `PREDICTIONS`. The data are not centred. The velocity of `"flow"` is the derivative in
            the time of `sde`.
        time: The time input of the network: a name in `TIMES`, or a function `(sde, t)` that maps
            times `(B,)`, float64 on the CPU, to inputs `(B,)`.
        event_shape: The shape of one sample, if known.
        moments: Mean and variance of the data, if known.
        steps: The number of sampling steps that suits the network, if known.
        transform: The map from the user's units to the units of the network, if known.
        conditions: The conditions that the network takes, by name; None passes all conditions on.

    Raises:
        UnknownNameError: `predicts` or `time` is an unknown name.
        InvalidValueError: `time` does not fit `sde`: `"index"`, `"descending"` and `"place"` need
            levels, and `"999t"` and `"1-t"` need times in [0, 1].
        InvalidTypeError: `transform` is not a transform.

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
        check_time(time, sde)
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
    return NetworkScore(wrapped(net), known, predicts, time)
