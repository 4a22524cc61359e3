"""A run as one tree of frozen dataclasses, from which come the options and the file.

`scoresde train` has an option for every field, the run's folder holds them all as `config.toml`,
and `scoresde train --config run/config.toml --out other/` makes the same run again.
"""

from __future__ import annotations

import ast
import dataclasses
import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import torch
import tyro
from torch import nn

from scoresde.checks import check_name
from scoresde.cli import toml
from scoresde.cli.begin import begin
from scoresde.cli.choices import LawChoice, LossChoice, WeightChoice, words
from scoresde.cli.options import Columns, Layout, Missing, Sampled, Size, columns_of, sampled_of
from scoresde.data import Data, load
from scoresde.errors import InvalidValueError
from scoresde.nn import MLP, UNet
from scoresde.objectives import LearnedWeight
from scoresde.score import ScoreModel
from scoresde.sde import SDE, SDES, VESDE, Classes, Field, Moments, Stratified
from scoresde.training import Callback, Pictures, TensorBoard, Trackio, TrainConfig, WandB
from scoresde.training.update import Loss

__all__ = ["SDE_WORDS", "DataConfig", "NetConfig", "ObjectiveConfig", "RunConfig"]


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """Where the data come from; a relative path is one from where the command is run."""

    source: Annotated[str, tyro.conf.arg(name="data")]
    """digits, a name of torchvision's (mnist, cifar10 ...), a .npy, .npz, .pt, .csv or .parquet, a
    folder of images, or hf:NAME, a data set of Hugging Face's."""
    split: Annotated[
        str | None, tyro.conf.arg(metavar="NAME", help_behavior_hint="(default: train)")
    ] = None
    """The part of a data set of torchvision, train or test, or of one of Hugging Face's."""
    condition: Columns = ()
    sample: Sampled = None
    size: Size = None
    layout: Layout = None
    missing: Missing = "raise"
    standardize: bool = False
    """Shift and scale floats to mean 0 and variance 1; samples come in the data's own units."""
    lazy: Annotated[
        bool | None, tyro.conf.arg(help_behavior_hint="(default: where they need more than 1 GiB)")
    ] = None
    """Whether images stay where they are, and are decoded when they are needed."""
    on_bad_image: Literal["raise", "skip"] = "raise"
    """Whether to pass over images that cannot be read, up to a tenth of a folder."""

    def load(self, kinds: Mapping[str, Classes | Field] | None = None) -> Data:
        """Return the data; `kinds` says what conditions are whose numbers do not say it."""
        return load(
            self.source,
            condition=columns_of(self.condition),
            kinds=kinds,
            sample=sampled_of(self.sample),
            split=self.split,
            size=self.size,
            layout=self.layout,
            missing=self.missing,
            standardize=self.standardize,
            lazy=self.lazy,
            on_bad_image=self.on_bad_image,
        )


@dataclass(frozen=True, kw_only=True)
class NetConfig:
    """A network that suits the data: a U-Net for images, an MLP for anything else."""

    channels: Annotated[
        tuple[int, ...],
        tyro.conf.arg(
            metavar="INT [INT ...]", help_behavior_hint="(default: 32 64, or 128 128 128 in an MLP)"
        ),
    ] = ()
    """Widths of the levels of a U-Net (for images), or of the hidden layers of an MLP."""
    blocks: Annotated[
        int | None, tyro.conf.arg(metavar="INT", help_behavior_hint="(default: 1)")
    ] = None
    """Residual blocks of each level of a U-Net, on the way down and on the way up."""
    patch: Annotated[
        int | None,
        tyro.conf.arg(metavar="INT", help_behavior_hint="(default: 2 from 16 pixels a side on)"),
    ] = None
    """Side of the patches that a U-Net begins with, 1 for none; larger is cheaper and coarser."""
    attention: tuple[int, ...] = ()
    """Levels of a U-Net with self-attention, counted from 0, the finest."""
    dropout: float = 0.0
    """The share of features that is dropped in training, in [0, 1)."""

    def __post_init__(self) -> None:
        if not 0 <= self.dropout < 1:
            raise InvalidValueError(f"dropout must lie in [0, 1), got {self.dropout!r}")

    def fitted(self, event_shape: tuple[int, ...]) -> Self:
        """Return it with the values that are left open chosen for events of a shape.

        Raises:
            InvalidValueError: An option of a U-Net is given where an MLP is built.
        """
        if len(event_shape) == 3:
            patch = 2 if min(event_shape[1:]) >= 16 else 1
            return replace(
                self,
                channels=self.channels or (32, 64),
                blocks=1 if self.blocks is None else self.blocks,
                patch=patch if self.patch is None else self.patch,
            )
        for name in ("blocks", "patch", "attention"):
            if getattr(self, name) not in (None, ()):
                raise InvalidValueError(
                    f"{name} is an option of U-Nets, which are for images; these data have the "
                    f"shape {event_shape} and get an MLP: leave it out"
                )
        return replace(self, channels=self.channels or (128, 128, 128))

    def build(
        self, event_shape: tuple[int, ...], kinds: Mapping[str, Classes | Field]
    ) -> nn.Module:
        """Return the network, its weights drawn from torch's global generator.

        Args:
            event_shape: The shape of one sample.
            kinds: The conditions that it takes.
        """
        own = self.fitted(event_shape)
        known: dict[str, Any] = dict(
            num_classes={k: kind.n for k, kind in kinds.items() if isinstance(kind, Classes)},
            condition={k: kind.shape for k, kind in kinds.items() if isinstance(kind, Field)},
            dropout=own.dropout,
        )
        if own.blocks is None or own.patch is None:
            return MLP(event_shape, hidden=own.channels, **known)
        known |= dict(blocks=own.blocks, patch=own.patch, attention=own.attention)
        return UNet(event_shape[0], channels=own.channels, **known)


@dataclass(frozen=True, kw_only=True)
class ObjectiveConfig:
    """What is lowered: a loss, its weight, and the law of its times.

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
        tyro.conf.arg(help_behavior_hint="(default: the SDE's own)"),
    ] = None
    """The law of the training times, as in lognormal mean=0 std=1.2."""
    stratified: bool = False
    """Whether the times of a batch are spread evenly over their law."""
    learned_weight: bool = False
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


def _sde_of(words: list[str]) -> SDE:
    """Return the SDE that `VESDE sigma_max=10` spells."""
    if not words:
        raise InvalidValueError("give the name of an SDE, as in `VESDE sigma_max=10`")
    name, *parameters = words
    table: dict[str, Any] = {"type": name}
    for word in parameters:
        key, sign, text = word.partition("=")
        try:
            table[key] = ast.literal_eval(text)
        except (ValueError, SyntaxError, RecursionError, MemoryError) as error:
            what = f"{key}={text}" if sign else word
            raise InvalidValueError(
                f"cannot read {what!r}; write the parameters of an SDE as in `VESDE sigma_max=10`"
            ) from error
    sde: SDE = toml.build(SDE, table, f"{name}.")
    return sde


def _words_of(sde: SDE) -> list[str]:
    """Return the inverse, without what is the class's default."""
    usual = {f.name: f.default for f in dataclasses.fields(sde)}
    table = toml.tables(sde)
    changed = [k for k in table if k != "type" and getattr(sde, k) != usual[k]]
    values = {k: repr(getattr(sde, k)).strip("()").replace(" ", "") for k in changed}
    return [table["type"], *(f"{k}={v}" for k, v in values.items())]


SDE_WORDS = tyro.constructors.PrimitiveConstructorSpec(
    nargs="*",
    metavar="{" + ",".join(SDES) + "} [PARAMETER=VALUE ...]",
    instance_from_str=_sde_of,
    is_instance=lambda value: isinstance(value, SDE),
    str_from_instance=_words_of,
)
_LOGS: Mapping[str, Callable[[Path], Callback]] = {
    "tensorboard": TensorBoard,
    "wandb": WandB,
    "trackio": Trackio,
    "pictures": Pictures,
}


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    """All that a run is made of: with the same versions and threads, the same weights bit for bit.

    Raises:
        InvalidValueError, UnknownNameError: A value is impossible, or a name unknown.
    """

    data: Annotated[DataConfig, tyro.conf.arg(name="")]
    """Where the data come from."""
    sde: Annotated[SDE, SDE_WORDS] = field(default=VESDE())
    """The name, then what differs from its defaults, as in VPSDE beta_max=10, or in NCSNLadder
    sigmas=0.1,1,10."""
    net: Annotated[NetConfig, tyro.conf.arg(name="")] = NetConfig()
    """The network."""
    objective: Annotated[ObjectiveConfig, tyro.conf.arg(name="")] = ObjectiveConfig()
    """What is lowered."""
    train: Annotated[TrainConfig, tyro.conf.arg(name=""), tyro.conf.OmitArgPrefixes] = field(
        default=TrainConfig()
    )
    """The numbers of the training."""
    init: Annotated[str | None, tyro.conf.arg(metavar="MODEL")] = None
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

    def loss(self, model: ScoreModel) -> Loss:
        """Return what is lowered, for the variance that a model assumes of its data."""
        return self.objective.build(self.sde, model.moments.mean_variance())

    def begun(self, data: Data) -> tuple[Self, ScoreModel, Data]:
        """Return the run with all that was left open, its model, and the data in its units.

        A new model is untrained, its weights a function of the seed.

        Raises:
            InvalidValueError, ShapeError: The model to begin with does not suit the options or the
                data.
        """
        if self.init is not None:
            model, data = begin(self.init, data)
            if self.net != NetConfig() or self.sde not in (VESDE(), model.sde):
                raise InvalidValueError(
                    f"{self.init} has its own network and SDE, {model.sde}; leave out the options "
                    "of others"
                )
            return replace(self, sde=model.sde), model, data
        run = replace(self, net=self.net.fitted(data.event_shape))
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(self.train.seed)
            net = run.net.build(data.event_shape, data.kinds)
        model = ScoreModel(
            net,
            self.sde,
            data.event_shape,
            moments=Moments(*data.moments()),
            condition_moments=data.condition_moments(),
        )
        return run, model, data
