"""Count what sampling and training steps read, copy and compute on the device of `played`.

    python tests/played_law.py sampling
    python tests/played_law.py training

One JSON object is printed: by name what one more step costs, and the float64 kernels of a run. A
process of its own runs it, since a device cannot be taken away again.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import sys
import warnings
from collections.abc import Callable, Iterator

import played
import torch
from methods import coarse

import scoresde
from scoresde import VPSDE, Moments, Run, ScoreModel, nn, precision
from scoresde.data import Data
from scoresde.objectives import dsm_loss, fd_ssm_loss, ism_loss, ssm_loss
from scoresde.samplers.multistep.fast import usual_setting
from scoresde.training import TrainConfig, Trainer

# before the first backward pass, for which torch counts the devices
DEVICE = played.device()
STEPS = 4, 5
# scipy solves the batch on the CPU, and torchsde in its own code
EXEMPT = {"scipy", "torchsde"}
LABELS = torch.arange(16) % 3


def model(**conditions: object) -> ScoreModel:
    """Return a small network."""
    net = nn.MLP(2, hidden=(8,), **conditions)
    return ScoreModel(net, VPSDE(eps=0.1), (2,), moments=Moments(0.0, var=1.0))


def sampling() -> Iterator[tuple[str, Callable[[int], object]]]:
    """Runs of every sampler, by name, as functions of the number of steps."""
    score = model(num_classes=3).eval()
    known = None
    for steps in STEPS:  # on the CPU, where it is quick
        known = score.measured_pilot(progress=False, steps=steps)
    # runs of both lengths with one setting, whose tables have as many groups of steps
    setting = usual_setting(STEPS[0])
    known = dataclasses.replace(known, choices=dict.fromkeys(STEPS, setting), fits={})
    score = score.to(DEVICE)
    score.pilot = known
    label = {"label": LABELS[:2]}
    for name in scoresde.SAMPLERS.keys() - EXEMPT:
        method = coarse(name, 1.0)

        def draw(steps: int, method: scoresde.samplers.Sampler = method) -> object:
            # an adaptive method makes many attempts in one step between two times of the grid
            count = 1 if method.adaptive else steps
            return Run.of(score, sampler=method, steps=count, n=2, seed=0, condition=label).draw()

        yield name, draw


def training() -> Iterator[tuple[str, Callable[[int], object]]]:
    """Trainings by every loss, and with conditions, as functions of the number of steps."""
    generator = torch.Generator().manual_seed(0)
    x, y = (torch.randn(16, d, generator=generator) for d in (2, 4))
    config = TrainConfig(steps=100, batch_size=8)
    parts = dataclasses.replace(config.compute, accumulate=2)
    cases: dict[str, tuple[object, dict[str, torch.Tensor], TrainConfig]] = {
        "default": (None, {}, config),
        "dsm": (dsm_loss, {}, config),
        "dsm with a control": (functools.partial(dsm_loss, control_variate=True), {}, config),
        "ism": (ism_loss, {}, config),
        "ssm": (ssm_loss, {}, config),
        "fd_ssm": (fd_ssm_loss, {}, config),
        "labels": (None, {"label": LABELS}, config),
        "vectors": (None, {"label": LABELS, "y": y}, config),
        "parts": (None, {}, dataclasses.replace(config, compute=parts)),
    }
    for name, (loss, given, numbers) in cases.items():

        def run(
            steps: int,
            loss: object = loss,
            given: dict[str, torch.Tensor] = given,
            numbers: TrainConfig = numbers,
        ) -> object:
            takes = {"num_classes": 3} if "label" in given else {}
            score = model(**takes, condition={"y": 4} if "y" in given else None).to(DEVICE)
            return Trainer(score, Data(x, **given), numbers, loss=loss).train(steps, progress=False)

        yield name, run


def main(what: str) -> None:
    """Count and print."""
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    precision._SINGLE.add(played.NAME)
    found = {}
    for name, run in {"sampling": sampling, "training": training}[what]():
        counts = []
        # the attempts of an adaptive method are not counted by steps
        once = what == "sampling" and scoresde.SAMPLERS[name].adaptive
        for steps in STEPS[once:]:
            with played.counted() as count:
                run(steps)
            counts.append(count)
        few, many = counts[0], counts[-1]
        found[name] = {
            "reads": (len(many.reads) - len(few.reads)) / (STEPS[1] - STEPS[0]),
            "copies": (len(many.copies) - len(few.copies)) / (STEPS[1] - STEPS[0]),
            "doubles": sorted({*many.doubles})[:5],
            "run": sorted({*many.reads}),
            "copied": sorted({*many.copies}),
        }
    sys.stdout.write(json.dumps(found) + "\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
