r"""Define `ScoreModel`, a network with its preconditioning."""

from __future__ import annotations

import copy
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from importlib import import_module
from operator import is_not
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor, nn

from scoresde import checkpoint
from scoresde.checks import check_name, check_shape, door, mark
from scoresde.errors import InvalidTypeError, InvalidValueError
from scoresde.pretrained import card, hub, share
from scoresde.pretrained.rebuild import check_description, rebuild_net, rebuild_sde
from scoresde.pretrained.store import locate, net_config, read, sde_fields
from scoresde.score.conditions import ConditionUnits, kinds_of, units_of
from scoresde.score.inside import dtype_of
from scoresde.score.kept import Piloted
from scoresde.score.names import grown_names
from scoresde.score.pilot_file import PilotFile
from scoresde.score.predictions import PREDICTIONS, affine
from scoresde.score.stored import PILOT, as_moment, check_weights, describing, restore, stored
from scoresde.sde import SDE, Classes, Facts, Moments, check_output, class_name
from scoresde.sde.shapes import check_times
from scoresde.sde.told import moved, per_sample, rows_of
from scoresde.units import Identity, Transform, describe

__all__ = ["ScoreModel"]


class ScoreModel(Piloted):
    r"""Return the score of a preconditioned network, with its SDE and the moments of its data.

    The input of the network is the centred state scaled to unit variance,
    $(x - \alpha\mu) / \sqrt{\alpha^2 v + \sigma^2}$, and the number
    $c = \tfrac14 \log(\sigma / \alpha)$ of shape `(B,)`.

    Args:
        net: A module `net(x, c, **condition)` with output of the shape of `x`.
        sde: The process whose score it is.
        event_shape: The shape of one sample, without the batch.
        predicts: What the network's output predicts, a key of `PREDICTIONS`.
        moments: Mean and variance of the data; standardised data are assumed by default.
        condition_moments: By name the mean and the standard deviation of a vector or a field, as
            `data.condition_moments()` returns them: the network receives these conditions
            standardised, and all others unchanged.

    Attributes:
        autocast: A dtype for autocast around the network alone; `None` leaves the user's autocast.
        steps: The number of sampling steps that suits this model, or `None`; saved with it. A
            sampler that needs fewer takes fewer.
        transform: The map from the user's numbers to the model's; saved with the model, and the
            identity by default. Samples, scores and likelihoods are in the model's numbers; only
            `to_units` converts them.
        names: For each condition the names of its classes, or of the entries of a vector, if the
            data had some; saved with the model.
        columns: The names of the entries of a sample that is a row of a table; saved too.
        whole: The names of those columns that held whole numbers only; saved too.
        pilot: The result of `scoresde.pilot` for this model, used by the sampler "fast" and saved
            with the model. It is None until the sampler measures it; a pilot that you set is kept.

    Raises:
        UnknownNameError: `predicts` is no key of `PREDICTIONS`, or the network takes no condition
            of a name in `condition_moments`.

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
        self.whole: tuple[str, ...] = ()
        # the buffers of which they were made, their marks, and the moments
        self._moments: tuple[list[Tensor], list[object], Moments] | None = None
        var = moments.var
        if moments.cov is not None:
            var = moments.cov.diagonal().reshape(self.event_shape)
        for name, value in (("mean", moments.mean), ("var", var)):
            self.register_buffer(name, as_moment(name, value, self.event_shape))
        if not self._var > 0:
            raise InvalidValueError(
                "the data's variance must be positive; train on samples that are not all equal"
            )
        self.condition_units = ConditionUnits(condition_moments or {}, self.facts.conditions)

    @property
    def _var(self) -> float:
        var: float = self._mean_of("var")
        return var

    @property
    def moments(self) -> Moments:
        """Return the data's moments: mean, and variance per dimension."""
        known, own = self._moments, [self.mean, self.var]
        marks: list[object] = list(map(mark, own))
        if known is None or known[1] != marks or any(map(is_not, known[0], own)):
            # checked when the model is made or moved, and not at every evaluation
            self._moments = known = own, marks, Moments(self.mean, var=self.var)
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
        """Return the number of classes of `label`, or of the only condition of classes, or None."""
        kinds = self.facts.conditions or {}
        kind = kinds.get(class_name(kinds) or "")
        return kind.n if isinstance(kind, Classes) else None

    def grown(self, num_classes: int | Mapping[str, int]) -> Self:
        """Return a copy with more classes, for fine-tuning; the old ones keep their scores.

        The score of a new class starts as that of samples without a label; its name is its number.

        Args:
            num_classes: The new number of classes of `label`, or such numbers by name.

        Raises:
            InvalidTypeError: The network has no method `grown`, as those of `scoresde.nn` have.
            InvalidValueError: The network has more classes already.
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
        check_times(time := self.sde.told(t), x)
        wide = x.to(torch.promote_types(x.dtype, torch.float32))
        alpha, unit, noise, of_x, of_f = rows_of(t, self) or moved(wide, *self.coefficients(time))
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

    def description(self) -> dict[str, Any]:
        """Return the description of the model that `save_pretrained` writes as JSON."""
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
            "whole": list(self.whole),
        }

    @door
    def save_pretrained(
        self, folder: str | Path, *, dtype: torch.dtype | None = None, **meta: Any
    ) -> None:
        """Write `model.safetensors`, which holds the whole model.

        The files beside it, `config.json` and the model card `README.md`, are for people to read. A
        card that was edited is not overwritten.

        Args:
            folder: The folder, created if it is missing.
            dtype: The floating-point dtype of the stored network; `None` keeps its own.
            meta: Further JSON values to store with the model, under names that its description
                does not use; the card shows `training` and takes its licence from `license`.

        Raises:
            InvalidValueError, InvalidTypeError: `meta` uses a name of the description, is not
                JSON, or its `license` is no licence.
            NonFiniteError: A weight is NaN or infinite, perhaps in `dtype` only.
            CheckpointError: The folder cannot be written.
        """
        config = self.description()
        if taken := {"pilot", *config} & meta.keys():
            raise InvalidValueError(
                f"the model's file already has {', '.join(sorted(taken))}; store your value under "
                "another name"
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
            private: Make a new repository private; None takes the default of the account.
            token: An access token; None takes that of the login on this machine.
            meta: As in `save_pretrained`.

        Returns:
            The address of the repository.

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
            folder: The folder, the name of a packaged model such as `"mnist"`, or a `"user/name"`
                or `"user/name@revision"` of the Hugging Face Hub, from which no code is run. If a
                folder `user` exists here, the hub is used only for a name with a revision.
            net: The network, if its class is your own; its weights are overwritten.
            sde: The SDE, if its class is your own.

        Raises:
            CheckpointError: There is no such model, or it is damaged or foreign, or describes
                another network than it holds; or a weight in it is NaN or infinite.
            MissingExtraError: The model is on the hub, and huggingface_hub is not installed.
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
        PilotFile.beside(path).recall(model)
        return model.eval()
