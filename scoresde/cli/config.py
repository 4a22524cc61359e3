"""Configure a run by a tree of frozen dataclasses, from which the options and the file are made.

An option that is None is "open": it is chosen for the data when the data have been loaded
(`RunConfig.begun`).

`scoresde train` has an option for every field. The file `config.toml` in the folder of the run
holds the values of all of them, and `scoresde train --config run/config.toml --out other/` makes
the same run again.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Self

import tyro
from torch import nn

from scoresde.checks import check_name
from scoresde.cli import toml
from scoresde.cli.begin import begin
from scoresde.cli.choices import LawChoice, LossChoice, WeightChoice, words
from scoresde.cli.open import PLAIN
from scoresde.cli.sdes import sde_words, words_of
from scoresde.cli.source import DataConfig
from scoresde.cli.train_options import NetOptions, TrainOptions
from scoresde.data import Data
from scoresde.errors import InvalidValueError
from scoresde.objectives import LearnedWeight
from scoresde.pretrained.store import net_config
from scoresde.score import ScoreModel
from scoresde.score.conventions import inside
from scoresde.sde import SDE, Stratified
from scoresde.suggestion import NetConfig, Suggestion, suggest
from scoresde.suggestion.suggesting import model_of
from scoresde.training import (
    Callback,
    Pictures,
    TensorBoard,
    Trackio,
    TrainConfig,
    WandB,
)
from scoresde.training.update import Loss

__all__ = ["NetOptions", "ObjectiveConfig", "RunConfig", "TrainOptions"]


@dataclass(frozen=True, kw_only=True)
class ObjectiveConfig:
    """Hold the objective: a loss, its weight, and the distribution of its times.

    Raises:
        InvalidValueError: `learned_weight` is given for a loss that may be negative.
    """

    loss: Annotated[LossChoice, words(LossChoice)] = field(default=LossChoice("dsm"))
    """The loss, with parameters if they differ from their defaults: dsm control_variate=True."""
    weight: Annotated[WeightChoice, words(WeightChoice)] = field(default=WeightChoice("edm"))
    """The weight of each noise scale in the loss, such as min_snr gamma=3, or power p=1. The
    weights edm and min_snr depend on the variance of the data."""
    law: Annotated[
        LawChoice | None,
        words(LawChoice, optional=True),
    ] = None
    """The distribution (law) of the training times, such as lognormal mean=0 std=1.2; auto centres
    it at the noise scale that equals the std of the data.
    """
    stratified: Annotated[bool, PLAIN] = False
    """Spread the times of a batch evenly over their distribution."""
    learned_weight: Annotated[bool, PLAIN] = False
    """Also learn a weight for each noise scale; only for the loss dsm."""

    def __post_init__(self) -> None:
        if self.learned_weight and self.loss.name != "dsm":
            raise InvalidValueError(
                f"a learned weight needs a positive loss such as dsm, and {self.loss.name} may be "
                "negative; leave learned_weight out"
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


def _widths(net: nn.Module) -> list[int]:
    """Return the widths of the resolutions of a U-Net, or of the layers or blocks of a network."""
    config = net_config(inside(net)) or {}
    known = [config.get(name) for name in ("channels", "hidden", "block_out_channels")]
    lists = [widths for widths in known if isinstance(widths, list | tuple)]
    return [*(width for widths in lists for width in widths), config.get("width", 1)]


def reason(found: Suggestion, name: str) -> str:
    """Return the reason for the suggested value of an option."""
    why = found.reasons
    if name == "sde":
        return f"from {why['sigma_min']}; to {why['sigma_max']}"
    return why["updates" if name == "steps" else name]


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    """Hold all options of a run; with the same versions and threads they give the same weights.

    Options of the SDE, the law of times, the network and the training that are None are chosen for
    the data by `begun`.

    Raises:
        InvalidValueError, UnknownNameError: A value is not allowed, or a name unknown.
    """

    data: Annotated[DataConfig, tyro.conf.arg(name="data")]
    """The source of the data."""
    sde: Annotated[SDE | None, sde_words(optional=True)] = None
    """The SDE, with parameters if they differ from their defaults: VPSDE beta_max=10, or
    NCSNLadder sigmas=0.1,1,10. auto is a VESDE with noise from a level that is invisible in the
    data up to the largest distance between two data."""
    net: Annotated[NetOptions, tyro.conf.arg(name="network")] = field(default=NetOptions())
    """The network; auto chooses it for the shape of the samples and for their number."""
    objective: Annotated[ObjectiveConfig, tyro.conf.arg(name="objective")] = ObjectiveConfig()
    """The loss, its weight and its times."""
    train: Annotated[TrainOptions, tyro.conf.arg(name="training")] = field(default=TrainOptions())
    """The settings of the training."""
    init: Annotated[
        str | None, tyro.conf.arg(metavar="MODEL", help_behavior_hint="(default: none)")
    ] = None
    """A model to continue from: a folder, the name of a packaged model, or a repository of the
    Hugging Face Hub. The network, the weights, the units and the SDE of the model are kept, and new
    classes are added."""
    log_to: Annotated[
        tuple[str, ...],
        tyro.conf.arg(
            metavar="NAME [NAME ...]", help_behavior_hint="(default: none beside log.jsonl)"
        ),
    ] = ()
    """What to write besides log.jsonl: further logs (tensorboard, wandb, trackio), or pictures of
    samples and of the loss (pictures)."""

    def __post_init__(self) -> None:
        for name in self.log_to:
            check_name("log", name, _LOGS)
        for name, kind, options in (
            ("train", TrainConfig, TrainOptions), ("net", NetConfig, NetOptions),
        ):  # fmt: skip
            if isinstance(whole := getattr(self, name), kind):
                object.__setattr__(self, name, options.of(whole))
        compute = self.train.compute
        if compute.fp16 and compute.bf16 is None:  # the two exclude each other
            chosen = replace(self.train, compute=replace(compute, bf16=False))
            object.__setattr__(self, "train", chosen)

    @classmethod
    def read(cls, path: str | Path) -> Self:
        """Return the configuration in a file.

        Raises:
            InvalidValueError, InvalidTypeError, UnknownNameError: The file cannot be read, or a
                key is wrong; the message names it.
        """
        run: Self = toml.read(path, cls)
        return run

    def write(self, path: Path) -> None:
        """Write the file that `read` reads.

        Raises:
            CheckpointError: The file cannot be written.
        """
        toml.write(path, self, f"again: scoresde train --config {path.name} --out FOLDER")

    def callbacks(self, folder: Path) -> list[Callback]:
        """Return the callbacks for the logs in `log_to`.

        Raises:
            MissingExtraError: A package is not installed.
        """
        return [_LOGS[name](folder) for name in dict.fromkeys(self.log_to)]

    @property
    def config(self) -> TrainConfig:
        """Return the settings of the training, with defaults for open options."""
        whole: TrainConfig = self.train.over(TrainOptions.base)
        return whole

    def loss(self, model: ScoreModel) -> Loss:
        """Return the loss for the variance of the data that a model assumes."""
        return self.objective.build(model.sde, model.moments.mean_variance())

    @classmethod
    def of(cls, found: Suggestion, data: DataConfig) -> Self:
        """Return the configuration of a suggestion."""
        law = LawChoice("lognormal", {"mean": found.law.mean, "std": found.law.std})
        objective = ObjectiveConfig(law=law)
        return cls(
            data=data, sde=found.sde(), net=found.net, objective=objective, train=found.config
        )

    def words(self) -> dict[str, str]:
        """Return the options that were chosen for the data, by name, as words of a command.

        No option may be open. With `init` the options of the network are left out.
        """
        law = self.objective.law
        assert self.sde is not None  # no option is open
        assert law is not None
        hidden, usual = self.train.condition_dropout, TrainOptions.base.condition_dropout
        network = {}
        if self.init is None:
            network = {"net": self.net.type, "channels": " ".join(map(str, self.net.channels))}
            network |= {"patch": str(self.net.patch)} if self.net.type != "mlp" else {}
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
            **({"condition_dropout": str(hidden)} if hidden != usual else {}),
        }

    def open(self) -> set[str]:
        """Return the names of the open options, which depend on the data."""
        names: set[str] = {
            "optimiser" if n == "rule" else n for n in self.train.open() - {"save_every"}
        }
        if self.init is None:
            names |= {"net" if name == "type" else name for name in self.net.open()}
        others = {"sde": self.sde, "law": self.objective.law}
        return names | {name for name, value in others.items() if value is None}

    def like(self, other: Self) -> Self:
        """Return this configuration, with open options filled from one that has no open options."""
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
        """Return the run with all open options chosen, its model, and the data in model units.

        A new model is untrained, and its weights depend only on the seed.

        Args:
            data: The data to be learnt.
            tell: A function that receives a line for each choice, with its reason, and a line if
                the given number of steps is far below the suggested one.

        Raises:
            InvalidValueError, ShapeError: The model `init` does not fit the options or the data, or
                the network does not fit the data.
            DataError: An option is open, and all samples are equal.
        """
        run, model = self, None
        if self.init is not None:
            model, data = begin(self.init, data)
            if self.net != NetOptions() or self.sde not in (None, model.sde):
                raise InvalidValueError(
                    f"--init keeps the network and the SDE of {self.init}, {model.sde}; leave out "
                    "the options of the network and the SDE"
                )
            run = replace(self, sde=model.sde)
        if names := run.open() - (set() if data.kinds else {"condition_dropout"}):
            found = suggest(data, net=self.net.type)
            widths = (self.net.channels or (1,)) if model is None else _widths(model.net)
            found = found.adapted(max(widths), self.train.optimiser.rule)
            usual = self.of(found, run.data)
            run = run.like(usual)
            if run.config.steps < usual.config.steps / 2:
                tell(
                    f"  --steps {run.config.steps}  as given; without this option it would be "
                    f"{usual.config.steps}, and samples after far fewer steps may look wrong"
                )
            for name, words in run.words().items():
                if name in names:
                    tell(f"  --{name.replace('_', '-')} {words}  {reason(found, name)}")
        if model is None:
            assert run.sde is not None  # no option is open
            net = run.net.over(NetOptions.base)
            model = model_of(data, net, run.sde, run.config.seed)
        return run, model, data
