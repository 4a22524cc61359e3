"""A run as one tree of frozen dataclasses, from which come the options and the file.

What is left open is chosen for the data when there are some (`RunConfig.begun`).

`scoresde train` has an option for every field, the run's folder holds them all as `config.toml`,
and `scoresde train --config run/config.toml --out other/` makes the same run again.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Self, TypeAlias

import tyro

from scoresde.checks import check_name
from scoresde.cli import toml
from scoresde.cli.begin import begin
from scoresde.cli.choices import LawChoice, LossChoice, WeightChoice, words
from scoresde.cli.open import PLAIN, opened
from scoresde.cli.sdes import SDE_WORDS, sde_words, words_of
from scoresde.cli.source import DataConfig
from scoresde.data import Data
from scoresde.errors import InvalidValueError
from scoresde.objectives import LearnedWeight
from scoresde.score import ScoreModel
from scoresde.sde import SDE, Stratified
from scoresde.suggestion import NetConfig, Suggestion, suggest
from scoresde.suggestion.suggesting import model_of
from scoresde.training import (
    Averages,
    Callback,
    Compute,
    Keeping,
    Optimiser,
    Pictures,
    TensorBoard,
    Trackio,
    TrainConfig,
    WandB,
)
from scoresde.training.update import Loss

__all__ = ["SDE_WORDS", "NetOptions", "ObjectiveConfig", "RunConfig", "TrainOptions"]


if TYPE_CHECKING:  # they are made below, of configurations
    NetOptions: TypeAlias = Any
    TrainOptions: TypeAlias = Any
else:
    _INTS = tuple[int, ...]
    NetOptions = opened(
        "NetOptions",
        NetConfig(type="unet", channels=(8,)),
        {
            "type": (str, "auto|{unet,mlp}", tyro.conf.arg(name="net")),
            "channels": (_INTS, "auto|INT [INT ...]"),
            "blocks": (int, "auto|INT"),
            "patch": (int, "auto|INT"),
            "attention": (_INTS, "auto|[INT ...]"),
        },
    )
    """The options of a network, of which those that are None suit the data."""
    TrainOptions = opened(
        "TrainOptions",
        TrainConfig(keeping=Keeping(held_out=0.1)),
        {"steps": (int, "auto|INT"), "batch_size": (int, "auto|INT")},
        optimiser=(
            opened(
                "OptimiserOptions",
                Optimiser(),
                {
                    "rule": (str, "auto|{adam,muon}", tyro.conf.arg(name="optimiser")),
                    "lr": (float, "auto|FLOAT"),
                },
            ),
            tyro.conf.arg(prefix_name=False),
        ),
        averages=(opened("AveragesOptions", Averages(), {}), tyro.conf.arg(prefix_name=False)),
        compute=(
            opened("ComputeOptions", Compute(), {"bf16": (bool, "auto|yes|no")}),
            tyro.conf.arg(name="speed", prefix_name=False),
        ),
        keeping=(
            opened("KeepingOptions", Keeping(held_out=0.1), {"held_out": (float, "auto|FLOAT")}),
            tyro.conf.arg(prefix_name=False),
        ),
    )
    """The numbers of a training, of which those that are None suit the data."""


@dataclass(frozen=True, kw_only=True)
class ObjectiveConfig:
    """Hold what is lowered: a loss, its weight, and the law of its times.

    Raises:
        InvalidValueError: A weight is to be learnt under a loss that may be negative.
    """

    loss: Annotated[LossChoice, words(LossChoice)] = field(default=LossChoice("dsm"))
    """The name, then what differs from its defaults, as in dsm control_variate=True."""
    weight: Annotated[WeightChoice, words(WeightChoice)] = field(default=WeightChoice("edm"))
    """The weight of the noise levels, as in min_snr gamma=3, or power p=1; edm and min_snr are for
    the variance of the data."""
    law: Annotated[
        LawChoice | None,
        words(LawChoice, optional=True),
    ] = None
    """The law of the training times, as in lognormal mean=0 std=1.2; auto is one around the
    data."""
    stratified: Annotated[bool, PLAIN] = False
    """Whether the times of a batch are spread evenly over their law."""
    learned_weight: Annotated[bool, PLAIN] = False
    """Whether the weight is also learnt, beside the score, by the uncertainty of each noise level;
    for the loss dsm."""

    def __post_init__(self) -> None:
        if self.learned_weight and self.loss.name != "dsm":
            raise InvalidValueError(
                f"a learned weight needs a loss that is positive, as dsm is, and {self.loss.name} "
                "is not; leave learned_weight out"
            )

    def build(self, sde: SDE, var: float) -> Loss:
        """Return the loss.

        Args:
            sde: The process.
            var: The variance of the data.
        """
        loss, weight = self.loss.make(), self.weight.make(var=var)
        law = None if self.law is None else self.law.make()
        if self.stratified:
            law = Stratified(law or sde.time_law)
        if self.learned_weight:
            return LearnedWeight(loss, weight, law=law)
        bound = {"weight": weight} if law is None else {"weight": weight, "law": law}
        return functools.partial(loss, **bound)


_LOGS: Mapping[str, Callable[[Path], Callback]] = {
    "tensorboard": TensorBoard,
    "wandb": WandB,
    "trackio": Trackio,
    "pictures": Pictures,
}


def _widths(net: Any) -> Sequence[int]:
    """Return the widths of the levels of a U-Net, or of the layers of an MLP."""
    known: Sequence[int] = net.config.get("channels") or net.config.get("hidden", ())
    return known


def reason(found: Suggestion, name: str) -> str:
    """Return why an option has the value that was suggested."""
    why = found.reasons
    if name == "sde":
        return f"from {why['sigma_min']}; to {why['sigma_max']}"
    return why["updates" if name == "steps" else name]


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    """All that a run is made of: with the same versions and threads, the same weights bit for bit.

    What is None, of the SDE, the law of times, the network and the training, is chosen when there
    are data (`begun`); nothing is then left open.

    Raises:
        InvalidValueError, UnknownNameError: A value is impossible, or a name unknown.
    """

    data: Annotated[DataConfig, tyro.conf.arg(name="data")]
    """Where the data come from."""
    sde: Annotated[SDE | None, sde_words(optional=True)] = None
    """The name, then what differs from its defaults, as in VPSDE beta_max=10, or in NCSNLadder
    sigmas=0.1,1,10; auto is a VESDE between noise that the data do not show and their size."""
    net: Annotated[NetOptions, tyro.conf.arg(name="network")] = field(default=NetOptions())
    """What the score is made of; auto is what suits the shape and the number of the samples."""
    objective: Annotated[ObjectiveConfig, tyro.conf.arg(name="objective")] = ObjectiveConfig()
    """What is lowered."""
    train: Annotated[TrainOptions, tyro.conf.arg(name="training")] = field(default=TrainOptions())
    """How long, on what, and by which random numbers."""
    init: Annotated[
        str | None, tyro.conf.arg(metavar="MODEL", help_behavior_hint="(default: none)")
    ] = None
    """A model to begin with, as a folder, a packaged name or one of the hub: its network, weights,
    units and SDE are kept, and classes that it does not know are added."""
    log_to: Annotated[
        tuple[str, ...],
        tyro.conf.arg(
            metavar="NAME [NAME ...]", help_behavior_hint="(default: none beside log.jsonl)"
        ),
    ] = ()
    """Where else to log: tensorboard, wandb, trackio; pictures of samples and of the loss."""

    def __post_init__(self) -> None:
        for name in self.log_to:
            check_name("log", name, _LOGS)
        for name, kind, options in (
            ("train", TrainConfig, TrainOptions), ("net", NetConfig, NetOptions),
        ):  # fmt: skip
            if isinstance(whole := getattr(self, name), kind):
                object.__setattr__(self, name, options.of(whole))

    @classmethod
    def read(cls, path: str | Path) -> Self:
        """Return the run of a file.

        Raises:
            InvalidValueError, InvalidTypeError, UnknownNameError: The file cannot be read or has a
                wrong line; names the key.
        """
        run: Self = toml.read(path, cls)
        return run

    def write(self, path: Path) -> None:
        """Write the file that `read` reads.

        Raises:
            CheckpointError: It cannot be written.
        """
        toml.write(path, self, f"again: scoresde train --config {path.name} --out FOLDER")

    def callbacks(self, folder: Path) -> list[Callback]:
        """Return what logs beside `log.jsonl`.

        Raises:
            MissingExtraError: A package is not installed.
        """
        return [_LOGS[name](folder) for name in dict.fromkeys(self.log_to)]

    @property
    def config(self) -> TrainConfig:
        """Return the numbers of the training; those that are open have their usual values."""
        whole: TrainConfig = self.train.over(TrainOptions.base)
        return whole

    def loss(self, model: ScoreModel) -> Loss:
        """Return what is lowered, for the variance that a model assumes of its data."""
        return self.objective.build(model.sde, model.moments.mean_variance())

    @classmethod
    def of(cls, found: Suggestion, data: DataConfig) -> Self:
        """Return a run of what was suggested."""
        law = LawChoice("lognormal", {"mean": found.law.mean, "std": found.law.std})
        objective = ObjectiveConfig(law=law)
        return cls(
            data=data, sde=found.sde(), net=found.net, objective=objective, train=found.config
        )

    def words(self) -> dict[str, str]:
        """Return the values of the options that are chosen for data, where none is open.

        Of a run that begins with a model there is no network.
        """
        law = self.objective.law
        assert self.sde is not None  # as nothing is open
        assert law is not None
        network = {}
        if self.init is None:
            network = {"net": self.net.type, "channels": " ".join(map(str, self.net.channels))}
            network |= {"patch": str(self.net.patch)} if self.net.type == "unet" else {}
        return {
            "sde": " ".join(words_of(self.sde)),
            **network,
            "law": " ".join(law.as_words()),
            "optimiser": self.train.optimiser.rule,
            "lr": f"{self.train.optimiser.lr:g}",
            "batch_size": str(self.train.batch_size),
            "steps": str(self.train.steps),
            "held_out": f"{self.train.keeping.held_out:g}",
            "bf16": "yes" if self.train.compute.bf16 else "no",
        }

    def open(self) -> set[str]:
        """Return the names of the options that are open."""
        names: set[str] = {"optimiser" if n == "rule" else n for n in self.train.open()}
        if self.init is None:
            names |= {"net" if name == "type" else name for name in self.net.open()}
        others = {"sde": self.sde, "law": self.objective.law}
        return names | {name for name, value in others.items() if value is None}

    def like(self, other: Self) -> Self:
        """Return the run with what is open as in another one, of which nothing is."""
        law = self.objective.law or other.objective.law
        return replace(
            self,
            sde=self.sde or other.sde,
            net=self.net.filled(other.net.over(NetOptions.base)) if self.init is None else self.net,
            objective=replace(self.objective, law=law),
            train=self.train.filled(other.config),
        )

    def begun(
        self, data: Data, tell: Callable[[str], None] = lambda line: None
    ) -> tuple[Self, ScoreModel, Data]:
        """Return the run with all that was left open, its model, and the data in its units.

        A new model is untrained, its weights a function of the seed.

        Args:
            data: What is to be learnt.
            tell: What is told each choice with its reason.

        Raises:
            InvalidValueError, ShapeError: The model to begin with does not suit the options or the
                data, or the network does not suit them.
            DataError: Something is open, and the data do not say it: they are all the same.
        """
        run, model = self, None
        if self.init is not None:
            model, data = begin(self.init, data)
            if self.net != NetOptions() or self.sde not in (None, model.sde):
                raise InvalidValueError(
                    f"{self.init} has its own network and SDE, {model.sde}; leave out the options "
                    "of others"
                )
            run = replace(self, sde=model.sde)
        if names := run.open():
            found = suggest(data, net=self.net.type)
            widths = self.net.channels if model is None else _widths(model.net)
            found = found.adapted(max(widths or (1,)), self.train.optimiser.rule)
            run = run.like(self.of(found, run.data))
            for name, words in run.words().items():
                if name in names:
                    tell(f"  --{name.replace('_', '-')} {words}  {reason(found, name)}")
        if model is None:
            assert run.sde is not None  # as nothing is open
            net = run.net.over(NetOptions.base)
            model = model_of(data, net, run.sde, run.config.seed)
        return run, model, data
