"""`scoresde demo`: handwritten digits from the packaged model, in seconds."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import torch
import tyro

from scoresde import plot
from scoresde.cli.sample import draw
from scoresde.score import load

__all__ = ["Demo"]


@dataclass(frozen=True)
class Demo:
    """Draw handwritten digits with the model that comes with the package, as one picture."""

    class_: Annotated[
        int | None,
        tyro.conf.arg(name="class", metavar="INT", help_behavior_hint="(default: all in turn)"),
    ] = None
    """Draw this digit only, 0 to 9."""
    n: int = 64
    """How many digits, at least 1."""
    out: Path = Path("digits.png")
    """The picture to write, a .png file."""
    seed: int = 0
    """The randomness, an integer from 0 to 2**64 - 1: another number, other digits."""
    steps: Annotated[
        int | None, tyro.conf.arg(metavar="INT", help_behavior_hint="(default: the model's own)")
    ] = None
    """Steps from noise to digit, at least 1; more are slower and better."""

    def run(self) -> None:
        """Draw, say what it cost, and where the picture is."""
        model = load("mnist")
        threads = min(2, torch.get_num_threads())
        torch.set_num_threads(threads)
        # bfloat16 is fast only where the processor computes in it, and slow where it is emulated
        features: dict[str, object] = getattr(torch.cpu, "get_capabilities", dict)()
        if features.get("avx512_bf16") or features.get("amx_bf16"):
            model.autocast = torch.bfloat16
        drawn = draw(model, "pc", n=self.n, steps=self.steps, seed=self.seed, label=self.class_)
        path = plot.grid(drawn.x, self.out)
        precision = "float32" if model.autocast is None else "bfloat16"
        print(
            f"{self.n} digits in {drawn.seconds:.1f} s by predictor-corrector sampling: "
            f"{drawn.nfe} evaluations of the network each, in {precision}, threads: {threads}\n"
            f"the picture is {path.absolute()}"
        )
