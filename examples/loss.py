"""Compare the loss of a model with its smallest possible value, on data with a known score.

The exact score has the smallest expected loss. The picture shows the loss above that of the exact
score during the training, on training data and on new data, and at which noise levels it remains
after the training.

    python examples/loss.py --out figures
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
import tyro

import scoresde
from scoresde import Score, plot
from scoresde.audit import audit
from scoresde.targets import TwoMoons
from scoresde.training import Callback, Trainer


@dataclass(frozen=True)
class Options:
    """Choose what to run."""

    out: Path = Path("figures")
    """Where the picture goes."""
    short: bool = False
    """A run of seconds, too short to be good."""


class Judge(Callback):
    """Record at every checkpoint how far the loss is above that of the exact score."""

    def __init__(self, above: dict[str, Callable[[Score], float]]) -> None:
        self.above, self.seen = above, []

    @torch.no_grad()
    def on_checkpoint(self, step: int, model: Score) -> None:
        """Measure the averaged model."""
        self.seen.append((step, *(gap(model) for gap in self.above.values())))


def main(options: Options) -> None:
    target = TwoMoons()
    sets = {
        name: target.sample(2_000, generator=torch.Generator().manual_seed(i))
        for i, name in enumerate(("data that are learnt", "new data"))
    }
    learnt, new = sets.values()
    found = scoresde.suggest(learnt)
    sde, loss = found.sde(), partial(found.loss(), noise=scoresde.Noise.of(0, len(new)))
    floors = {name: loss(target.at(sde), sde, x).mean() / 2 for name, x in sets.items()}
    above = {
        name: lambda score, x=x, floor=floors[name]: float(loss(score, sde, x).mean() / 2 - floor)
        for name, x in sets.items()
    }
    steps, judge = 40 if options.short else 4_000, Judge(above)
    with tempfile.TemporaryDirectory() as folder:
        config = found.config.changed(steps=steps, save_every=steps // 20, held_out=0.0)
        trainer = Trainer(
            found.model(), found.data, config, loss=found.loss(), folder=folder, callbacks=[judge]
        )
        model = trainer.train(progress=False)
    print(f"loss of the exact score {floors['new data']:.3f}, of the model above it:")
    for name, gap in above.items():
        print(f"  {name:21s} {gap(model):+.4f}")

    sheet = plot.figure((11, 4))
    left, right = sheet.subplots(1, 2)
    step, *curves = zip(*judge.seen, strict=True)
    for name, curve in zip(sets, curves, strict=True):
        left.plot(step, curve, "o-", ms=3, label=name)
    left.axhline(0, color="grey", ls="--", lw=1)
    left.set(xlabel="step", title="loss above that of the exact score")
    left.legend()

    few = dict(samples=16, steps=8, levels=5) if options.short else dict(samples=64, steps=24)
    judged = audit(model, model.sde, new[:300] if options.short else new, target=target, **few)
    print(judged)
    ratio = [level.ratio for level in judged.levels]
    right.plot(ratio, [max(level.excess.value, 1e-6) for level in judged.levels], "o-")
    right.set(
        xscale="log", yscale="log", xlabel="σ / α", title="how far it is above its floor, by noise"
    )
    print(f"wrote {plot.save(sheet, options.out / 'loss.png')}")


if __name__ == "__main__":
    main(tyro.cli(Options))
