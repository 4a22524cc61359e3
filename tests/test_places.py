"""Test that warnings point to the user's line."""

import inspect
import warnings

import numpy as np
import pytest
import torch

from scoresde import VESDE, ScoreModel, nn, suggest
from scoresde.data import load
from scoresde.training import Trainer

G = torch.Generator().manual_seed(0)
CALLS = {
    "layout": lambda: load(np.zeros((5, 37, 53)) + np.arange(53)),
    "missing": lambda: load(np.array([[1.0, 2], [np.nan, 1], [3, 4]]), missing="drop"),
    "left out": lambda: load({"x": torch.zeros(5, 2), "y": torch.ones(5, 2).long()}),
    "far": lambda: suggest(1e7 + torch.randn(100, 2, generator=G)),
    "moments": lambda: Trainer(
        ScoreModel(nn.MLP(2, seed=0), VESDE(), (2,)), 9e3 + torch.randn(9, 2, generator=G)
    ),
}


@pytest.mark.parametrize("name", CALLS)
def test_a_warning_points_to_the_line_that_called_the_package(name):
    call = CALLS[name]
    lines, first = inspect.getsourcelines(call)
    with (
        torch.random.fork_rng(),
        warnings.catch_warnings(record=True) as caught,
    ):
        warnings.simplefilter("always")
        call()
    assert caught
    for warning in caught:
        assert warning.filename == __file__
        assert first <= warning.lineno < first + len(lines)
