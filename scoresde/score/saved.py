"""Write a model to a folder or to the hub, and read it back."""

from __future__ import annotations

import os
import tempfile
from abc import abstractmethod
from collections.abc import Callable, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple, Self

import torch
from torch import Tensor, nn

from scoresde import checkpoint
from scoresde.checks import door
from scoresde.errors import InvalidValueError
from scoresde.pretrained import card, hub, share
from scoresde.pretrained.rebuild import check_description
from scoresde.pretrained.store import PIPELINE, in_package, locate, net_config, read, sde_fields
from scoresde.score.kept import Piloted
from scoresde.score.pilot_file import PilotFile
from scoresde.score.stored import PILOT, check_weights, describing, restore, stored
from scoresde.sde import SDE, Facts
from scoresde.units import Transform, describe

__all__ = ["Given", "Saved"]

_OWN = "the {} of {} is defined by its files; leave sde= and time= out"


class Given(NamedTuple):
    """Hold the arguments of `from_pretrained` that replace parts of the description, or None."""

    net: Any
    sde: SDE | None
    time: Any


class Saved(Piloted):
    """Define the base class of models that can be saved to a file and read back."""

    net: nn.Module
    sde: SDE
    event_shape: tuple[int, ...]
    predicts: str
    steps: int | None
    transform: Transform
    names: Mapping[str, tuple[str, ...]]
    columns: tuple[str, ...]
    whole: tuple[str, ...]

    @property
    @abstractmethod
    def facts(self) -> Facts:
        """Return what is known about the model."""

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

        `config.json` and the model card `README.md` in the same folder are only for people to read.
        A card that you edited is not overwritten.

        Args:
            folder: The folder, created if it is missing.
            dtype: The floating-point dtype of the stored network; `None` keeps its own.
            meta: Further JSON values to store with the model, under names that its description
                does not use; the card shows `training` and takes its licence from `license`.

        Raises:
            InvalidValueError, InvalidTypeError: `meta` uses a name of the description, is not JSON,
                or has a `license` that is not a name; or `dtype` is not a floating-point dtype.
            NonFiniteError: A weight is NaN or infinite, or becomes so in `dtype`.
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
        """Upload the model and its card to the Hugging Face Hub.

        Args:
            repo_id: `"user/name"`; the repository is made if it is missing.
            private: True makes a new repository private; None takes the default of the account.
            token: An access token; None takes the token of the login on this machine.
            meta: As in `save_pretrained`.

        Returns:
            The URL of the repository.

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
        cls,
        folder: str | Path,
        *,
        net: Callable[..., Any] | None = None,
        sde: SDE | None = None,
        time: Callable[[SDE, Tensor], Tensor] | None = None,
    ) -> Self:
        """Read a model that `save_pretrained` wrote, or a diffusers pipeline.

        If the model is in a folder, and measuring its pilot takes more than two seconds, the pilot
        is written to a file beside the model's file, and read the next time.

        Args:
            folder: The folder, the name of a packaged model such as `"mnist"`, or the name
                `"user/name"` or `"user/name@revision"` of a model on the Hugging Face Hub. No code
                from the hub is run. If the current folder has a folder `user`, the hub is used only
                for a name with a revision.
            net: The network, if its class is your own or from another library. Its weights are
                replaced by the weights in the file.
            sde: The SDE, if its class is your own.
            time: The function that gives the network's time, if it is your own.

        Returns:
            The model, of the class that was saved, such as a score made by `from_network`.

        Raises:
            CheckpointError: There is no such model; its file is damaged or has another format; its
                weights do not fit the network that it describes; or a weight is NaN or infinite.
            InvalidValueError: `time` is given for a `ScoreModel`, or `sde` or `time` for a
                pipeline, whose files define these.
            MissingExtraError: The model is on the hub and huggingface_hub is not installed, or its
                network comes from diffusers and diffusers is not installed.
        """
        path = locate(folder)
        if path.name == PIPELINE:
            # imported here, since interop is a higher layer
            theirs: Any = import_module("scoresde.interop.pipelines")
            if sde is not None or time is not None:
                raise InvalidValueError(_OWN.format("SDE and time", "a pipeline of diffusers"))
            found: Self = theirs.load_network(path.parent, net)
            return found
        tensors, config = read(path)
        check_description(config, path)
        # imported here, since `NetworkScore` is derived from this class
        foreign: Any = import_module("scoresde.score.network").NetworkScore
        if time is not None and "time" not in config:
            raise InvalidValueError(_OWN.format("time", "a ScoreModel"))
        kind: type[Self] = foreign if "time" in config else cls
        with describing(path):
            model = kind.described(config, tensors, Given(net, sde, time))
            restore(model, config, tensors)
        checkpoint.load_state(model, tensors, source=str(path))
        check_weights(model, path)
        if model.pilot is not None:  # it belongs to these weights
            model.recall_pilot(model.pilot, given=True)
        PilotFile.beside(path).recall(model)
        if os.path.exists(folder) and not in_package(path):  # not a name on the hub either
            model.keeper = PilotFile.beside(path)
        return model.eval()

    @classmethod
    @abstractmethod
    def described(
        cls, config: Mapping[str, Any], tensors: Mapping[str, Tensor], given: Given
    ) -> Self:
        """Return the model that a description defines; its weights are read later.

        Args:
            config: The description.
            tensors: The tensors of the file.
            given: The arguments of `from_pretrained`.
        """
