r"""Define `ScoreModel`, the score of a network with preconditioning."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from importlib import import_module
from operator import is_not
from typing import Any, Self

import torch
from torch import Tensor, nn

from scoresde.checks import check_name, check_shape, door, mark
from scoresde.errors import InvalidTypeError, InvalidValueError
from scoresde.pretrained.rebuild import rebuild_net, rebuild_sde
from scoresde.score.conditions import ConditionUnits, kinds_of, units_of
from scoresde.score.inside import dtype_of
from scoresde.score.names import grown_names
from scoresde.score.predictions import PREDICTIONS, affine
from scoresde.score.saved import Given, Saved
from scoresde.score.stored import as_moment
from scoresde.sde import SDE, Classes, Facts, Moments, check_output, class_name
from scoresde.sde.cpu_times import kept_coefficients, on_device, per_sample
from scoresde.sde.shapes import check_times
from scoresde.units import Identity

__all__ = ["ScoreModel"]


class ScoreModel(Saved):
    r"""Return the score of a preconditioned network, with its SDE and the moments of its data.

    The input of the network is the centred state scaled to unit variance,
    $(x - \alpha\mu) / \sqrt{\alpha^2 v + \sigma^2}$, and the number
    $c = \tfrac14 \log(\sigma / \alpha)$ of shape `(B,)`.

    Args:
        net: A module `net(x, c, **condition)` with output of the shape of `x`.
        sde: The process whose score it is.
        event_shape: The shape of one sample, without the batch.
        predicts: The quantity that the network's output predicts, a key of `PREDICTIONS`.
        moments: Mean and variance of the data; by default mean 0 and variance 1. Of a covariance
            only the variances are used.
        condition_moments: The mean and the standard deviation of vector and field conditions by
            name, as `data.condition_moments()` returns them. The network receives these conditions
            standardised, and all other conditions unchanged.

    Attributes:
        autocast: A dtype for autocast around the call of the network; `None` keeps the caller's
            autocast.
        steps: The recommended number of sampling steps, or `None`; saved with the model. If the
            default number of a sampler is smaller, it is used instead.
        transform: The map from the user's units to model units, saved with the model; by default
            the identity. Samples, scores and likelihoods are in model units; `to_units` converts
            samples.
        names: For each condition the names of its classes, or of its entries if it is a vector, if
            known; saved with the model.
        columns: The names of the entries of a sample, if samples are rows of a table; saved too.
        whole: The names of the columns that held only integers; saved too.
        pilot: The result of `scoresde.pilot` for this model, used by the sampler "fast" and saved
            with the model. It is None until the sampler measures it. A pilot that you set is not
            replaced.

    Raises:
        UnknownNameError: `predicts` is not a key of `PREDICTIONS`, or `condition_moments` has a
            name that is not a condition of the network.
        InvalidValueError: The mean of the variances is not positive.
        ShapeError: The moments do not have the event shape.

    Examples:
        >>> from scoresde import VESDE, nn
        >>> model = ScoreModel(nn.MLP(2), VESDE(), (2,), moments=Moments(0.0, var=1.0))
        >>> model(torch.zeros(4, 2), 0.5).shape
        torch.Size([4, 2])
    """

    mean: Tensor
    var: Tensor

    @door
    def __init__(
        self,
        net: nn.Module,
        sde: SDE,
        event_shape: Sequence[int],
        predicts: str = "edm",
        moments: Moments | None = None,
        condition_moments: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        check_name("predicts", predicts, PREDICTIONS)
        moments = Moments(0.0, var=1.0) if moments is None else moments
        self.net = net
        self.sde = sde
        self.event_shape = tuple(event_shape)
        self.predicts = predicts
        self.autocast: torch.dtype | None = None
        self.steps = None
        self.transform = Identity()
        self.names = {}
        self.columns = ()
        self.whole = ()
        # the buffers from which `moments` was computed, their version counters, and the moments
        self._moments: tuple[list[Tensor], list[object], Moments] | None = None
        var = moments.var
        if moments.cov is not None:
            moments.check_event(torch.empty(0, *self.event_shape))
            var = moments.cov.diagonal().reshape(self.event_shape)
        for name, value in (("mean", moments.mean), ("var", var)):
            self.register_buffer(name, as_moment(name, value, self.event_shape))
        if not self._var > 0:
            raise InvalidValueError(
                "the data's variance must be positive; train on samples that are not all equal"
            )
        kinds = kinds_of(net, self.event_shape, {})
        self.condition_units = ConditionUnits(condition_moments or {}, kinds)

    @property
    def _var(self) -> float:
        var: float = self._mean_of("var")
        return var

    @property
    def moments(self) -> Moments:
        """Return the data's moments: mean, and variance per dimension."""
        known, tensors = self._moments, [self.mean, self.var]
        marks: list[object] = list(map(mark, tensors))
        if known is None or known[1] != marks or any(map(is_not, known[0], tensors)):
            # the moments are checked when the model is made or moved, not at every evaluation
            self._moments = known = tensors, marks, Moments(self.mean, var=self.var)
        return known[2]

    @property
    def facts(self) -> Facts:
        """Return the facts of the model: its SDE, event shape, moments, conditions and more."""
        return Facts(
            sde=self.sde,
            event_shape=self.event_shape,
            moments=self.moments,
            steps=self.steps,
            pilot=self.measured_pilot,
            transform=self.transform,
            passes=1,
            conditions=kinds_of(self.net, self.event_shape, self.names),
            columns=self.columns or None,
        )

    @property
    def classes(self) -> int | None:
        """Return the number of classes of `label`, or of the only class condition, or None."""
        kinds = self.facts.conditions or {}
        kind = kinds.get(class_name(kinds) or "")
        return kind.n if isinstance(kind, Classes) else None

    def grown(self, num_classes: int | Mapping[str, int]) -> Self:
        """Return a copy with more classes, for fine-tuning; scores of old classes do not change.

        The score of a new class starts as the score with a missing label. The name of a new class
        is its number.

        Args:
            num_classes: The new number of classes of `label`, or a mapping from names of conditions
                to new numbers. A name that the network does not have becomes a further condition.

        Raises:
            InvalidTypeError: The network has no method `grown`; networks of `scoresde.nn` have it.
            InvalidValueError: The network already has more classes.
        """
        grow: Any = getattr(self.net, "grown", None)
        if not callable(grow):
            raise InvalidTypeError(
                f"a {type(self.net).__name__} has no method grown to add classes; make a network "
                "with more classes, and copy its weights"
            )
        model = copy.deepcopy(self)
        model.net = grow(num_classes)
        model.names = grown_names(model.names, num_classes)
        return model

    def forward(
        self, x: Tensor, t: Tensor | float, condition: Mapping[str, Tensor] | None = None
    ) -> Tensor:
        r"""Return the score $\nabla\log p_t(x)$ of shape `(B, *)`.

        Args:
            x: States `(B, *event_shape)`.
            t: Time `()` or `(B,)`, with $\sigma_t > 0$.
            condition: The conditions that the network takes, such as `{"label": labels}`.

        Raises:
            ShapeError: `x` or the network's output has another event shape.
            InvalidTypeError: `x` is not floating-point.
            InvalidValueError: $\sigma_t = 0$, or `t` lies outside [0, T].
        """
        check_shape("x", x, self.event_shape)
        check_times(time := self.sde.cpu_time(t), x)
        wide = x.to(torch.promote_types(x.dtype, torch.float32))
        kept = kept_coefficients(t, self)
        alpha, unit, noise, of_x, of_f = kept or on_device(wide, *self.coefficients(time))
        dtype = dtype_of(self.net, wide.dtype)
        centred = wide - alpha * self.mean
        with torch.autocast(x.device.type, self.autocast) if self.autocast else nullcontext():
            known = self.condition_units(condition, dtype) if condition else {}
            c = per_sample(noise.flatten(), x, dtype)
            out = self.net((unit * centred).to(dtype), c, **known)
        out = check_output("network", out, x).to(wide)
        return (of_x * centred + of_f * out).to(x.dtype)

    def coefficients(self, time: Tensor) -> tuple[Tensor, ...]:
        """Return the coefficients of the score at times on the CPU, as `affine` does."""
        return affine(self.predicts, self.sde, time, self._var)

    def __repr__(self) -> str:
        count = sum(p.numel() for p in self.net.parameters())
        net = f"{type(self.net).__name__} of {count:,} parameters"
        return f"ScoreModel({net}, {self.sde!r}, {self.event_shape}, predicts={self.predicts!r})"

    def _repr_html_(self) -> str:
        # imported here, since sampling is a higher layer
        page: str = import_module("scoresde.sampling.notebook").model_page(self)
        return page

    def to_units(self, x: Tensor) -> Tensor:
        """Return samples `(B, *event_shape)` in the units of the user's data, as floats.

        `transform.restore` rounds too, so that bytes come back as bytes.
        """
        return self.transform.inverse(x)

    @classmethod
    def described(
        cls, config: Mapping[str, Any], tensors: Mapping[str, Tensor], given: Given
    ) -> Self:
        """Return the model that a description defines; its weights are read later."""
        net = rebuild_net(config, tensors) if given.net is None else given.net
        sde = rebuild_sde(config) if given.sde is None else given.sde
        moments = Moments(tensors["mean"], var=tensors["var"])
        units = units_of(tensors)
        return cls(net, sde, config["event_shape"], config["predicts"], moments, units)
