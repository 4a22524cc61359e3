"""Define `scoresde evaluate`: compare samples of a model with data it has not seen."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro
from torch import Tensor

from scoresde import checkpoint, distributed, plot
from scoresde.checks import check_integer, check_name
from scoresde.cli.csv_text import csv_columns
from scoresde.cli.drawing import fingerprint
from scoresde.cli.held_out import asked, conditions_of, folder_of, learnt, words_of
from scoresde.cli.options import (
    BatchSize,
    Checkpoint,
    HeldOutSplit,
    OwnColumns,
    OwnData,
    SamplerName,
    Seed,
    Size,
    Steps,
    TrainData,
)
from scoresde.cli.outputs import check_folder
from scoresde.cli.sample import Sample
from scoresde.cli.standing import model_of
from scoresde.cli.terminal import show, tell, then
from scoresde.data import Data, load
from scoresde.errors import DataError
from scoresde.metrics import METRICS, Classifier, Features, evaluate, inception
from scoresde.metrics.evaluating import floor_of, plan
from scoresde.metrics.evaluation import ENOUGH
from scoresde.sampling import Run, Shards
from scoresde.score import ScoreModel
from scoresde.sde import facts

__all__ = ["Evaluate"]

# KID of raw pixels depends on their units, so it is not computed by default.
_USUAL = tuple(name for name in METRICS if name != "kid")
_FEATURES = ("pixels", "classifier", "inception")


@dataclass(frozen=True)
class Evaluate:
    """Compare a model's samples with held-out data.

    Two parts of the held-out data are also compared with each other. This shows the values that
    samples of the exact distribution would reach. The samples are kept beside the report, and if
    the command is run again it reuses them. Under torchrun all processes draw samples.
    """

    checkpoint: Checkpoint
    data: OwnData = None
    split: HeldOutSplit = None
    condition: OwnColumns = ()
    size: Size = None
    train_data: TrainData = None
    n: int = 1000
    """The number of samples to compare, at most half the number of held-out data; a larger number
    is reduced. The metric neighbours needs at least 12 samples, every other metric at least 4. If
    --resamples is 0, neighbours needs 6 and every other metric 2."""
    samples: Annotated[Path | None, tyro.conf.arg(metavar="PATH")] = None
    """A file or a folder that `scoresde sample` wrote, instead of drawing samples."""
    features: Annotated[str, tyro.conf.arg(metavar="{pixels,classifier,inception}|FILE")] = "pixels"
    """The features that are compared. pixels: the numbers themselves. classifier: the features of a
    small classifier, which is trained on the data of --train-data, or else on a third of the
    held-out data (this third is then not compared). inception: the features of the Inception
    network. FILE: the features of a classifier that was saved in this file."""
    metrics: Annotated[
        tuple[str, ...],
        tyro.conf.arg(
            metavar="{" + ",".join(METRICS) + "}",
            help_behavior_hint="(default: all that the number of samples allows; kid only if the "
            "features are not pixels)",
        ),
    ] = _USUAL
    """The metrics to compute."""
    sampler: SamplerName = "fast"
    steps: Steps = None
    seed: Seed = 0
    resamples: int = 100
    """The number of times that the metrics are computed again for a random half of the samples and
    of the data, to find their intervals: at least 2, or 0 for no intervals."""
    batch_size: BatchSize = 64
    out: Annotated[
        Path | None,
        tyro.conf.arg(
            metavar="FOLDER", help_behavior_hint="(default: report in the folder of the run)"
        ),
    ] = None
    """The folder of the report: report.json, report.png and the samples."""

    def run(self) -> None:
        """Draw, compare, print a table, and write the report."""
        run = folder_of(self.checkpoint)
        out = self.out or (Path("report") if run is None else run / "report")
        check_folder(out)
        lock = checkpoint.Lock(out, "writes a report")
        least = self._least()
        model = model_of(self.checkpoint)
        about = asked(self, model)
        real = about.data
        known = None if self.train_data is None else learnt(self, self.train_data, model)
        lesson = known
        if self.features == "classifier" and known is None:
            # the classifier must be tested on other data than it was trained on
            real, lesson = real.split(1 / 3, seed=self.seed)
        if len(real) < 2 * least:
            raise DataError(
                f"these metrics need at least {2 * least} held-out samples, and {about.source} has "
                f"{len(real)}; give more by --data, or fewer --metrics"
            )
        checkpoint.make_folder(out)
        distributed.on_main(lock.take)  # kept until the report is written
        features = self._features(lesson, real) if distributed.is_main() else None
        where = self.samples or self._drawn(model, real, about.source, out / "samples")
        # a .csv that `sample` wrote may have a column of classes beside the vectors
        samples = load(where, sample=csv_columns(model)) if where.suffix == ".csv" else where
        if not distributed.is_main():
            return
        found = evaluate(
            samples,
            real,
            features=features,
            metrics=None if self.metrics == _USUAL else self.metrics,
            train=known,
            seed=self.seed,
            resamples=self.resamples,
        )
        show(f"\n{found}\n")
        if found.n < ENOUGH:
            tell(self._more(found.n, len(real)))
        figures = found.to_json(out / "report.json")
        picture = plot.save(found.plot(self.checkpoint), out / "report.png")
        tell(f"the report is in {figures.absolute()} and {picture.absolute()}")
        then("see at which noise scale the model is wrong", "audit", *words_of(self))

    def _more(self, n: int, held: int) -> str:
        """Return a sentence that names the options with which more than n samples are compared."""
        ways = []
        if n >= held // 2:
            ways.append(
                "give new data, which the model has not seen, by --data, or train with a larger "
                f"--held-out (half of the {held:,} given now is compared with the samples)"
            )
        if n >= self.n:
            ways.append(f"ask for more samples by --n {4 * self.n}")
        if self.samples is not None and n < held // 2:
            ways.append(f"give more samples than the {n:,} of {self.samples}")
        return f"to compare more than {n:,} samples, {'; and '.join(ways)}"

    def _least(self) -> int:
        """Check the options, and return the fewest samples that these metrics can compare."""
        memory = self.train_data is not None
        _, least = plan(self.metrics, self.resamples, memory)
        if self.metrics == _USUAL:  # by default, metrics that need more samples are left out
            least = min(plan(name, self.resamples, memory)[1] for name in _USUAL)
        check_integer("seed", self.seed, 0)
        if self.samples is None:
            check_integer("n", self.n, least)
        if Path(self.features).suffix != ".safetensors":
            check_name("feature map", self.features, _FEATURES)
        return least

    def _drawn(self, model: ScoreModel, real: Data, source: str, folder: Path) -> Path:
        """Return the folder of the samples, which are drawn if they are not there yet.

        A conditional model draws under the conditions of the held-out data, so that samples and
        data have the same conditions.
        """
        n = min(self.n, len(real) // 2)
        declared = facts(model).conditions or {}
        if not declared.keys() & real.conditions.keys():
            command = Sample(
                self.checkpoint,
                folder,
                n=n,
                sampler=self.sampler,
                steps=self.steps,
                seed=self.seed,
                batch_size=self.batch_size,
            )
            # replace samples of an earlier request; the old report is replaced as well
            command.fill(scratch=True)
            return folder
        floor = real[floor_of(len(real), n, seed=self.seed)]
        given = conditions_of(floor, source, model)
        assert given is not None
        model = model.to(distributed.device())

        def chunk(rows: range) -> dict[str, Tensor]:
            drawn = Run.of(
                model, sampler=self.sampler, n=len(rows), steps=self.steps, seed=self.seed,
                first=rows.start, condition=given.rows(slice(rows.start, rows.stop)),
            ).draw(self.batch_size)  # fmt: skip
            return {"x": model.transform.restore(drawn.x.cpu())}

        request = {
            "model": fingerprint(model),
            "sampler": self.sampler,
            "steps": self.steps,
            "seed": self.seed,
            "condition": checkpoint.digest(dict(given), "", 0)[:16],
            "batch_size": self.batch_size,
        }
        Shards(folder, n, self.batch_size).draw(chunk, request, scratch=True)
        return folder

    def _features(self, lesson: Data | None, real: Data) -> Features | None:
        """Return the feature map that the option `features` names, or None for pixels."""
        if self.features == "pixels":
            return None
        if self.features == "inception":
            return inception(device=distributed.device())
        if self.features != "classifier" or lesson is None:
            return Classifier.load(self.features)
        classifier = Classifier.fit(lesson, seed=self.seed)
        if real.label is not None:
            share = f"{classifier.accuracy(real):.1%} of {len(real)} held-out samples"
            tell(f"the classifier labels {share} correctly")
        return classifier
