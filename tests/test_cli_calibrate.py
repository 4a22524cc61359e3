"""Test `scoresde calibrate`: its tests, its files and its errors."""

import json

import numpy as np
import pytest
import torch
from test_cli import built, said
from torch import nn

from scoresde import VPSDE, ScoreModel
from scoresde.cli import main
from scoresde.cli.calibrate import _joined, _split
from scoresde.metrics import calibrate_pairs
from scoresde.nn import MLP
from scoresde.sde import Classes, Field
from scoresde.units import Range, Standardize

UNITS = Standardize((10.0, -5.0), (2.0, 0.5))
LEVELS = Range(0, 4, levels=5)


class Posterior(nn.Module):
    """The denoiser of theta ~ N(4 label, I) given the label and y = theta - 4 label + N(0, I).

    Args:
        share: What of the standard deviation of the posterior is left.
    """

    def __init__(self, share: float = 1.0) -> None:
        super().__init__()
        self.var = share**2 / 2
        self.unused = nn.Parameter(torch.zeros(()))

    def declared(self, event_shape):
        return {"label": 2, "y": event_shape}

    def forward(self, x, c, label, y):
        ratio = (4 * c.double())[:, None].exp()
        alpha = (1 + ratio**2).rsqrt()
        mean = 4 * label[:, None] + y / 2
        gain = alpha * self.var / (alpha**2 * self.var + (ratio * alpha) ** 2)
        return (mean + gain * (x - alpha * mean)).to(x)


@pytest.fixture
def command(tmp_path, monkeypatch):
    """Run the command on an exact model, or on one with too narrow draws; return its exit code."""
    g = torch.Generator().manual_seed(0)
    label = torch.randint(2, (400,), generator=g)
    free, noise = torch.randn(2, 400, 2, generator=g)
    raw = UNITS.inverse(free + 4 * label[:, None])
    pairs = {"x": raw.numpy(), "labels": label.numpy(), "y": (free + noise).numpy()}
    np.savez(tmp_path / "held.npz", **pairs)
    np.savez(tmp_path / "few.npz", **{name: rows[:30] for name, rows in pairs.items()})
    np.savez(tmp_path / "bare.npz", x=pairs["x"], labels=pairs["labels"])
    pairs["y"] = np.where(np.arange(400)[:, None] == 7, np.nan, pairs["y"])
    np.savez(tmp_path / "gap.npz", **pairs)

    pairs["x"] = LEVELS.restore(UNITS.forward(raw)).float().numpy()
    np.savez(tmp_path / "levels.npz", **(pairs | {"y": (free + noise).numpy()}))
    monkeypatch.chdir(tmp_path)

    def call(*options, share=1.0, data="held.npz", units=UNITS):
        model = ScoreModel(Posterior(share), VPSDE(), (2,), "x0")
        model.transform = units
        monkeypatch.setattr("scoresde.cli.calibrate.model_of", lambda source: model)
        words = ["calibrate", "model", "--data", data, "--draws", "19", "--sampler", "heun"]
        return main([*words, "--steps", "8", *options])

    return call


@pytest.mark.slow
def test_draws_of_the_law_of_the_data_pass(command, tmp_path, capsys):
    assert command("--out", "deep/it") == 0
    out = capsys.readouterr().out
    assert "200 data sets, 19 draws each" in out
    assert "\nCalibrated: " in out
    stored = json.loads((tmp_path / "deep/it/calibration.json").read_text())
    assert stored["passed"]
    assert {q["name"] for q in stored["quantities"]} > {"entry 0", "entry 1", "distance"}
    assert 0.5 < stored["skill"][0] < 1  # the classes lie four spreads apart
    assert (tmp_path / "deep/it/calibration.png").stat().st_size > 5000


@pytest.mark.slow
def test_draws_are_rounded_to_the_levels_of_the_data(command, capsys):
    """Rounded and clipped to one of five levels, truth and draws are still of one law."""
    assert command(data="levels.npz", units=LEVELS) == 0
    assert "\nCalibrated: " in capsys.readouterr().out
    assert command(data="levels.npz", units=LEVELS, share=0.3) == 0
    assert "\nNot calibrated: " in capsys.readouterr().out


@pytest.mark.slow
def test_draws_that_are_too_narrow_are_detected(command, capsys):
    assert command(share=0.5) == 0
    out = capsys.readouterr().out
    assert "\nNot calibrated: " in out
    assert "spread" in out


@pytest.mark.slow
def test_it_is_calibrate_pairs_in_the_units_of_the_data(command, tmp_path, monkeypatch):
    seen = {}

    def spied(draw, theta, y, **options):
        seen.update(theta=theta, y=y, options=options)
        seen["draws"] = draw(y[:50], 19, 3)
        return calibrate_pairs(draw, theta, y, **options)

    monkeypatch.setattr("scoresde.cli.calibrate.calibrate_pairs", spied)
    assert command("--n", "40", "--seed", "5", "--batch-size", "100") == 0
    held = np.load("held.npz")
    torch.testing.assert_close(seen["theta"], torch.from_numpy(held["x"]))
    assert torch.equal(seen["y"][:, 0], torch.from_numpy(held["labels"]).double())
    assert torch.equal(seen["y"][:, 1:], torch.from_numpy(held["y"]).double())
    assert seen["options"] == {"n": 40, "draws": 19, "seed": 5, "batch_size": 5, "names": ()}
    # the mean of the posterior, in units of the data; its variance is 1/2, and 19 draws are few
    mean = UNITS.inverse(torch.from_numpy(held["y"] / 2 + 4 * held["labels"][:, None]))[:50]
    gap = (seen["draws"].mean(1) - mean) / torch.tensor(UNITS.scale)
    assert gap.abs().max() < 5 * (0.5 / 19) ** 0.5
    before = (tmp_path / "calibration/calibration.json").read_bytes()
    assert command("--n", "40", "--seed", "5", "--batch-size", "100") == 0
    assert (tmp_path / "calibration/calibration.json").read_bytes() == before


def test_conditions_of_every_kind_are_one_vector_and_back():
    kinds = {"field": Field((2, 3, 3)), "label": Classes(7), "y": Field((4,)), "z": Field(())}
    g = torch.Generator().manual_seed(0)
    given = {
        name: torch.randint(7, (5,), generator=g)
        if isinstance(kind, Classes)
        else torch.randn(5, *kind.shape, generator=g)
        for name, kind in kinds.items()
    }
    found = _split(_joined(given, kinds), kinds)
    assert found.keys() == given.keys()
    assert all(torch.equal(found[name], given[name]) for name in kinds)
    given["label"][3] = -1
    given["y"][1, 2] = torch.nan
    assert _joined(given, kinds).isnan().any(1).tolist() == [False, True, False, True, False]


@pytest.mark.slow
def test_samples_that_lack_a_condition_are_left_out_and_counted(command, capsys):
    assert command(data="gap.npz") == 0
    assert "1 of 400 samples lack a condition and are left out" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (dict(data="bare.npz"), "the model takes the condition 'y', but bare.npz has no such"),
        (
            dict(data="few.npz"),
            "at least 20 pairs must be tested and at least 20 others must remain",
        ),
        (dict(data="nowhere.npz"), "nowhere.npz"),
    ],
)
def test_data_that_do_not_fit_are_refused(command, capsys, options, message):
    assert command(**options) == 1
    assert message in said(capsys)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--n", "3"], "n must be an integer >= 20"),
        (["--n", "390"], "got 390 of 400"),
        (["--draws", "1"], "draws must be an integer >= 2"),
        (["--batch-size", "0"], "--batch-size must be an integer >= 1"),
        (["--out", "held.npz"], "is a file; name a folder"),
    ],
)
def test_impossible_options_are_refused(command, capsys, words, message):
    assert command(*words) == 1
    assert message in said(capsys)


def test_for_a_model_without_conditions_the_error_names_evaluate(tmp_path, capsys):
    ScoreModel(built(MLP, 2, hidden=(4,)), VPSDE(), (2,)).save_pretrained(tmp_path)
    assert main(["calibrate", str(tmp_path), "--data", "held.npz"]) == 1
    line = said(capsys)
    assert "takes no condition" in line
    assert "scoresde evaluate" in line
