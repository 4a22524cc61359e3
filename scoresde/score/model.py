r"""A network with its preconditioning: a score."""

from __future__ import annotations

import copy
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from importlib import import_module
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor, nn

from scoresde import checkpoint
from scoresde.checks import check_name, check_noise, check_shape, door
from scoresde.errors import InvalidTypeError, InvalidValueError
from scoresde.pretrained import card, hub, share
from scoresde.pretrained.rebuild import check_description, rebuild_net, rebuild_sde
from scoresde.pretrained.store import locate, net_config, read, sde_fields
from scoresde.score.conditions import ConditionUnits, kinds_of, units_of
from scoresde.score.names import grown_names
from scoresde.score.pilot import Pilot
from scoresde.score.precise import Precise
from scoresde.score.predictions import PREDICTIONS
from scoresde.score.stored import (
    PILOT,
    as_moment,
    check_weights,
    describing,
    restore,
    stored,
)
from scoresde.sde import SDE, Classes, Facts, Moments, check_output, expand
from scoresde.sde.coordinates import network_level
from scoresde.units import Identity, Transform, describe

__all__ = ["ScoreModel"]


class ScoreModel(Precise):
    r"""A network with its preconditioning: a score that knows its SDE and its data.

    The network sees the centred state scaled to unit variance,
    $(x - \alpha\mu) / \sqrt{\alpha^2 v + \sigma^2}$, and the number
    $c = \tfrac14 \log(\sigma / \alpha)$ of shape `(B,)`.

    Args:
        net: A module `net(x, c, **condition)` with output of the shape of `x`.
        sde: The process it is a score of.
        event_shape: The shape of one sample, without the batch.
        predicts: What the network's output predicts, a key of `PREDICTIONS`.
        moments: Mean and variance of the data; standardised data is assumed by default.
        condition_moments: By name the mean and the standard deviation of a vector or a field, as
            `data.condition_moments()` gives them: the network sees these conditions standardised.
            Those of other names are handed on as they are.

    Attributes:
        autocast: A dtype under which the network alone runs in autocast; `None` is the user's own.
        steps: The number of sampling steps that suits this model, or `None`; saved with it. Methods
            that want fewer take fewer.
        transform: How the data were made of the user's numbers; saved with the model, and the
            identity where nobody declared any. Everything but `to_units` is in the numbers that
            the model learnt, samples, scores and likelihoods too.
        names: By condition the names of its classes, or of the entries of a vector, where the data
            had some; saved with the model.
        columns: Likewise the names of the entries of a sample that is a row of a table.
        pilot: What `scoresde.pilot` measured of this model, for the sampler "fast", or `None`;
            saved with it. Measure it again when the weights have changed.

    Raises:
        UnknownNameError: `predicts` is no such key, or the network takes no such condition.

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
        self.steps: int | None = None
        self.transform: Transform = Identity()
        self.names: Mapping[str, tuple[str, ...]] = {}
        self.columns: tuple[str, ...] = ()
        self.pilot: Pilot | None = None
        self._moments: Moments | None = None
        var = moments.var
        if moments.cov is not None:
            var = moments.cov.diagonal().reshape(self.event_shape)
        for name, value in (("mean", moments.mean), ("var", var)):
            self.register_buffer(name, as_moment(name, value, self.event_shape))
        if not self._var > 0:
            raise InvalidValueError(
                "the data's variance must be positive; a model is learnt from samples that differ"
            )
        self.condition_units = ConditionUnits(condition_moments or {}, self.facts.conditions)

    @property
    def _var(self) -> float:
        """Return the data's mean variance, with which the network is preconditioned."""
        return float(self.var.double().mean())

    @property
    def moments(self) -> Moments:
        """Return the data's moments: mean, and variance per dimension."""
        known = self._moments
        if known is None or known.mean is not self.mean or known.var is not self.var:
            # checked when the model is made or moved, and not at every evaluation
            self._moments = known = Moments(self.mean, var=self.var)
        return known

    @property
    def facts(self) -> Facts:
        """Return what is known of the model."""
        return Facts(
            sde=self.sde,
            event_shape=self.event_shape,
            moments=self.moments,
            steps=self.steps,
            pilot=self.pilot,
            transform=self.transform,
            passes=1,
            conditions=kinds_of(self.net, self.event_shape, self.names),
            columns=self.columns or None,
        )

    @property
    def classes(self) -> int | None:
        """Return how many classes the network tells apart by `label`, or None."""
        kind = (self.facts.conditions or {}).get("label")
        return kind.n if isinstance(kind, Classes) else None

    def grown(self, num_classes: int | Mapping[str, int]) -> Self:
        """Return a copy that knows more classes, for fine-tuning; of all others it gives the same.

        A new class begins as the score without a label, and is called by its number.

        Args:
            num_classes: The number of classes of `label`, or numbers of classes by name.

        Raises:
            InvalidTypeError: The network is none of `scoresde.nn`.
            InvalidValueError: It knows more classes already.
        """
        grow: Any = getattr(self.net, "grown", None)
        if not callable(grow):
            raise InvalidTypeError(
                f"a {type(self.net).__name__} does not say how it grows; make a network with more "
                "classes, and copy its weights"
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
            condition: What the network takes beside them, such as `{"label": labels}`.

        Raises:
            ShapeError: `x` has another event shape, or the network's output has.
            InvalidTypeError: `x` is not of floating point.
            InvalidValueError: There is no noise at `t`, or it lies outside of the SDE.
        """
        check_shape("x", x, self.event_shape)
        time = self.sde.as_time(t)
        expand(time, x)  # refuses what is no state, or no time of it
        sigma, alpha, var = self.sde.sigma(time), self.sde.alpha(time), self._var
        check_noise(
            sigma, time, f"a score is singular there; stay at or above eps = {self.sde.eps}"
        )
        wide = x.to(torch.promote_types(x.dtype, torch.float32))
        unit = expand((alpha**2 * var + sigma**2).rsqrt(), wide)
        centred = wide - expand(alpha, wide) * self.mean
        c = expand(network_level(self.sde, time), wide).flatten().expand(len(x))
        dtype = next((p.dtype for p in self.net.parameters()), wide.dtype)
        with torch.autocast(x.device.type, self.autocast) if self.autocast else nullcontext():
            known = self.condition_units(condition, dtype) if condition else {}
            out = self.net((unit * centred).to(dtype), c.to(dtype), **known)
        out = check_output("network", out, x).to(wide)
        weights = PREDICTIONS[self.predicts](self.sde, time, var)
        score = expand(weights.x, out) * centred + expand(weights.f, out) * out
        return score.to(x.dtype)

    def __repr__(self) -> str:
        count = sum(p.numel() for p in self.net.parameters())
        net = f"{type(self.net).__name__} of {count:,} parameters"
        return f"ScoreModel({net}, {self.sde!r}, {self.event_shape}, predicts={self.predicts!r})"

    def _repr_html_(self) -> str:
        # what draws stands above what is drawn, and is looked up when a notebook asks
        page: str = import_module("scoresde.sampling.notebook").model_page(self)
        return page

    def to_units(self, x: Tensor) -> Tensor:
        """Samples `(B, *event_shape)` in the units of the data that the model was trained on.

        They are floats; `transform.restore` also rounds to levels, so that bytes are bytes.
        """
        return self.transform.inverse(x)

    def description(self) -> dict[str, Any]:
        """Return what `save_pretrained` says of the model in JSON."""
        return {
            "sde": {"type": type(self.sde).__name__, **sde_fields(self.sde)},
            "net": {"type": type(self.net).__name__, "config": net_config(self.net)},
            "event_shape": list(self.event_shape),
            "predicts": self.predicts,
            "steps": self.steps,
            "parameters": sum(p.numel() for p in self.net.parameters()),
            "transform": describe(self.transform),
            "names": {name: list(words) for name, words in self.names.items()},
            "columns": list(self.columns),
        }

    @door
    def save_pretrained(
        self, folder: str | Path, *, dtype: torch.dtype | None = None, **meta: Any
    ) -> None:
        """Write `model.safetensors`, which holds the whole model.

        Beside it `config.json` and the model card `README.md` say to people what it is. A card that
        was edited stays as it is.

        Args:
            folder: Made if it is missing.
            dtype: The floating point dtype of the stored network; `None` keeps its own.
            meta: Anything JSON can hold that should travel with the model, under names that its
                own description does not have; the card shows `training` and takes its licence
                from `license`.

        Raises:
            InvalidValueError, InvalidTypeError: `meta` has such a name, or is no JSON, or its
                `license` is none.
            NonFiniteError: A weight is NaN or infinite, maybe in `dtype` only.
            CheckpointError: The folder cannot be written.
        """
        config = self.description()
        if taken := {"pilot", *config} & meta.keys():
            raise InvalidValueError(
                f"the model has a {', '.join(sorted(taken))} of its own in its file; store what is "
                "yours under another name"
            )
        if "license" in meta:
            card.check_licence(meta["license"])
        config |= meta
        tensors = stored(self, dtype)
        if self.pilot is not None:
            config["pilot"] = self.pilot.numbers()
            tensors |= {PILOT + name: value for name, value in self.pilot.tensors().items()}
        folder = Path(folder)
        checkpoint.save_tensors(folder / "model.safetensors", tensors, config)
        checkpoint.write_json(folder / "config.json", config)
        card.write(folder, config)

    def push_to_hub(
        self,
        repo_id: str,
        *,
        private: bool | None = None,
        token: str | None = None,
        **meta: Any,
    ) -> str:
        """Share the model on the Hugging Face Hub, with its card.

        Args:
            repo_id: `"user/name"`; the repository is made if it is missing.
            private: Whether a new repository is private; None is the user's own default.
            token: Who asks; None is whoever is logged in.
            meta: As in `save_pretrained`.

        Returns:
            The address.

        Raises:
            MissingExtraError: huggingface_hub is not installed.
            CheckpointError: The hub refuses, or cannot be reached.
        """
        hub.check(repo_id)
        with tempfile.TemporaryDirectory() as folder:
            self.save_pretrained(folder, **meta)
            files = share.contents(Path(folder), name=repo_id)
            return hub.push(files, repo_id, private=private, token=token)

    @classmethod
    @door
    def from_pretrained(
        cls, folder: str | Path, *, net: nn.Module | None = None, sde: SDE | None = None
    ) -> Self:
        """Read a model that `save_pretrained` wrote.

        Args:
            folder: The folder, the name of one of the package's own such as `"mnist"`, or a
                `"user/name"` or `"user/name@revision"` of the Hugging Face Hub, from which no code
                is run. Where there is a folder `user`, the hub is asked with a revision only.
            net: The network, where it is of a class of your own; its weights are overwritten.
            sde: The SDE, where it is of a class of your own.

        Raises:
            CheckpointError: There is no such model, or it is damaged or foreign, or describes
                another network than it holds; or a weight in it is NaN or infinite.
            MissingExtraError: The hub is asked, and huggingface_hub is not installed.
        """
        path = locate(folder)
        tensors, config = read(path)
        check_description(config, path)
        with describing(path):
            net = rebuild_net(config, tensors) if net is None else net
            sde = rebuild_sde(config) if sde is None else sde
            moments = Moments(tensors["mean"], var=tensors["var"])
            model = cls(
                net, sde, config["event_shape"], config["predicts"], moments, units_of(tensors)
            )
            restore(model, config, tensors)
        checkpoint.load_state(model, tensors, source=str(path))
        check_weights(model, path)
        return model.eval()
