"""Test the repr of objects: one line, without the numbers of tensors."""

from dataclasses import replace

import pytest
import torch

import scoresde
from scoresde.checks import brief

TARGET = scoresde.targets.Gaussian(torch.zeros(2, 3), std=1.0)
SCORE = TARGET.at(scoresde.VPSDE())


SETTING = scoresde.score.Setting()
PILOT = replace(
    scoresde.Pilot.prior(-4.0, 4.0, 1.0), choices=dict.fromkeys(range(2, 25), SETTING),
    fits={n: scoresde.score.Fit(SETTING, ((0.1,) * 5,) * (2 * n - 1)) for n in (8, 10)},
)  # fmt: skip


def model():
    with torch.random.fork_rng():
        net = scoresde.nn.MLP((2, 3), hidden=(8,))
    return scoresde.ScoreModel(net, scoresde.VESDE(), (2, 3))


@pytest.mark.parametrize(
    ("thing", "words"),
    [
        (model(), ["MLP of", "parameters", "VESDE(", "(2, 3)", "predicts='edm'"]),
        (scoresde.Moments(torch.zeros(2, 3), var=0.25), ["mean=tensor (2, 3)", "var=0.25"]),
        (next(iter(scoresde.trajectory(SCORE, seed=0))), ["State(t=1, x=tensor (1, 2, 3), nfe=0"]),
        (scoresde.Run.of(SCORE, n=3, seed=0), ["Run(", "PC(", "times=tensor (", "shape=(2, 3)"]),
        (scoresde.Run.of(SCORE, n=3, seed=0, steps=2).draw(), ["Samples(x=tensor (3, 2, 3), nfe"]),
        (scoresde.guidance.autoguidance(model(), model(), 2.0), ["MLP of", "(2, 3)"]),
        (PILOT, ["2: Setting(order=4", "..., 23 in all}", "19 rows)"]),
        (model().facts, ["VESDE(", "moments=Moments(mean=", "conditions={}"]),
    ],
    ids=lambda part: type(part).__name__,
)
def test_a_repr_is_one_line_that_describes_the_object(thing, words):
    text = repr(thing)
    assert "\n" not in text
    assert "tensor(" not in text  # torch's own repr; ours is "tensor (shape)"
    assert " at 0x" not in text
    assert all(word in text for word in words)
    assert len(text) < 700


def test_long_tuples_are_shortened_and_short_ones_are_not():
    assert brief((1.0, 2.0)) == "(1.0, 2.0)"
    assert brief({"a": 1, "b": (2,)}) == "{'a': 1, 'b': (2,)}"
    assert brief(dict.fromkeys(range(9), 0)) == "{0: 0, 1: 0, 2: 0, ..., 9 in all}"
    assert brief(tuple(range(100))) == "(0, 1, 2, ..., 100 in all)"
