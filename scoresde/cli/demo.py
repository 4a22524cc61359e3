"""Define `scoresde demo`: draw handwritten digits with the packaged model, in seconds."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch

from scoresde import distributed, plot
from scoresde.cli.drawing import cost, draw
from scoresde.cli.given import ClassName, Given
from scoresde.cli.options import Seed, Steps
from scoresde.cli.outputs import check_out
from scoresde.cli.sample_picture import PICTURES
from scoresde.cli.terminal import tell, then
from scoresde.cli.threads import choose
from scoresde.precision import has_bfloat16
from scoresde.score import ScoreModel, load

__all__ = ["Demo"]

_TRAIN = ("train", "--data", "digits", "--steps", "2000", "--out", "run")


@dataclass(frozen=True)
class Demo:
    """Draw handwritten digits with the model that comes with the package, as one picture."""

    class_: ClassName = None
    """Draw this digit only, 0 to 9."""
    guidance: float = 2.0
    """The scale of classifier-free guidance. 0 ignores which digit is asked for, and 1 is the model
    without guidance. Above 1 the digits are clearer and less varied, and drawing them takes twice
    the passes of the network."""
    n: int = 64
    """The number of digits, at least 1."""
    out: Path = Path("digits.png")
    """The picture to write: .png, .jpg, .pdf or .svg."""
    seed: Seed = 0
    steps: Steps = None

    def run(self) -> None:
        """Draw, write the picture, and print what it cost."""
        check_out(self.out, PICTURES)
        device = distributed.device()
        model = load("mnist").to(device)
        given = Given.of(model, self.n, label=self.class_, guidance=self.guidance)
        where = f"on {device}" if device.type != "cpu" else _prepare(model)
        drawn = draw(model, "fast", n=self.n, steps=self.steps, seed=self.seed, given=given)
        path = plot.save(plot.images(drawn.x), self.out)
        tell(
            f"{self.n} digits in {drawn.seconds:.1f} s by the fast sampler, guidance "
            f"{self.guidance:g}: "
            f"{cost(drawn)}, {where}\n"
            f"the picture is {path.absolute()}"
        )
        then("train a model of your own", *_TRAIN)


def _prepare(model: ScoreModel) -> str:
    """Use bfloat16 if the CPU has it, choose the faster number of threads; return both as text."""
    if has_bfloat16(torch.device("cpu")):
        model.autocast = torch.bfloat16
    precision = "float32" if model.autocast is None else "bfloat16"
    return f"in {precision}, threads: {choose(model)}"
