"""Test conditions, guidance and editing on the command line."""

import math
import os

import numpy as np
import pytest
import torch
from oracle import affine
from PIL import Image
from strategies import SDES, Exact
from torch import nn

import scoresde
from scoresde import Classes, Facts, Field, Noise, ScoreModel
from scoresde.cli import main
from scoresde.cli.edit import _from
from scoresde.cli.given import Given
from scoresde.errors import (
    DataError,
    InvalidTypeError,
    InvalidValueError,
    ShapeError,
    UnknownNameError,
)
from scoresde.guidance import classifier_free
from scoresde.nn import UNet
from scoresde.samplers import Ancestral, Heun


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """The folder of a small model of 8x8 images of three classes, whose output is not zero."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        net = UNet(1, channels=(4,), blocks=1, num_classes=3)
        made = ScoreModel(net, scoresde.VESDE(0.01, 10.0), (1, 8, 8))
        for p in made.parameters():
            nn.init.normal_(p, std=0.3)
    folder = tmp_path_factory.mktemp("model")
    made.save_pretrained(folder)
    return folder


class Takes:
    """Define a score that takes a label of three classes, a vector and a number."""

    facts = Facts(conditions={"label": Classes(3), "y": Field((2,)), "z": Field(())})


@pytest.fixture
def files(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    np.save("one.npy", np.array([1.0, 2.0]))
    np.save("four.npy", np.arange(8.0).reshape(4, 2))
    np.save("three.npy", np.zeros((3, 2)))
    np.save("labels.npy", np.array([0, 1, 2, 1], dtype=np.int32))
    np.save("floats.npy", np.array([0.0, 1.0, 2.0, 1.0]))
    np.save("swapped.npy", np.array([1.0, 2.0], dtype=">f4"))
    np.save("objects.npy", np.array([None]), allow_pickle=True)


def test_conditions_are_numbers_or_files_with_one_row_or_n(files):
    given = Given.of(Takes(), 4, ["y=0.5,-1e-3", "z=2"], label=1)
    assert {k: v.tolist() for k, v in given.rows(range(1, 3)).items()} == {
        "label": [1, 1],
        "y": [[0.5, pytest.approx(-1e-3)]] * 2,
        "z": [2.0, 2.0],
    }
    given = Given.of(Takes(), 4, ["y=four.npy", "label=labels.npy", "z=0,1,2,3"])
    rows = given.rows(range(1, 3))
    assert {k: v.tolist() for k, v in rows.items()} == {
        "label": [1, 2],
        "y": [[2.0, 3.0], [4.0, 5.0]],
        "z": [1.0, 2.0],
    }
    assert (rows["label"].dtype, rows["y"].dtype) == (torch.long, torch.float32)
    for name in ("one", "swapped"):  # of either order of bytes
        found = Given.of(Takes(), 4, [f"y={name}.npy"]).rows(range(2))
        assert found["y"].tolist() == [[1, 2], [1, 2]]
    assert Given.of(Takes(), 4, ["label=0,-1,2,1"]).values["label"].tolist() == [0, -1, 2, 1]


@pytest.mark.parametrize(
    ("words", "options", "error", "message"),
    [
        (["y"], {}, InvalidValueError, "NAME=VALUE"),
        (["yy=1"], {}, UnknownNameError, "unknown condition 'yy'; did you mean 'y'"),
        (
            ["y=a"],
            {},
            InvalidValueError,
            "takes numbers separated by commas, or a .npy file; got 'a'",
        ),
        (["label=1.5"], {}, InvalidValueError, "have no names here"),
        (["label=3"], {}, InvalidValueError, "labels from 0 to 2"),
        ([f"label={10**20}"], {}, InvalidValueError, "takes numbers separated by commas"),
        (["label=floats.npy"], {}, InvalidTypeError, "integer labels"),
        (["y=1,2,3"], {}, ShapeError, r"needs the shape \(2,\), or \(4, 2\)"),
        (["y=three.npy"], {}, ShapeError, r"got \(3, 2\)"),
        (["y=nowhere.npy"], {}, DataError, "does not exist"),
        (["y=objects.npy"], {}, DataError, "cannot read objects.npy"),
        (["y=1,2", "y=1,2"], {}, InvalidValueError, "given twice"),
        (["label=1"], {"label": 1}, InvalidValueError, "given twice"),
        ([], {"label": 3}, InvalidValueError, r"class must lie in \[0, 2\], got 3"),
        ([], {"interval": (0.1, 1.0)}, InvalidValueError, "give --guidance too"),
    ],
)
def test_conditions_that_do_not_fit_are_reported(words, options, error, message, files):
    with pytest.raises(error, match=message):
        Given.of(Takes(), 4, words, **options)


def test_a_model_without_conditions_takes_none():
    score = scoresde.targets.TwoMoons().at(scoresde.VPSDE())
    with pytest.raises(InvalidValueError, match="takes no condition; leave out 'y=1'"):
        Given.of(score, 1, ["y=1"])
    with pytest.raises(InvalidValueError, match="without classes; leave out class 1"):
        Given.of(score, 1, label=1)


def drawn(model, tmp_path, *options, name="x.npy", command="sample"):
    words = [command, str(model), "--n", "4", "--steps", "3", "--out", str(tmp_path / name)]
    assert main([*words, *options]) == 0
    return np.load(tmp_path / name)


def test_samples_of_the_command_are_those_of_python(model, tmp_path, capsys):
    np.save(tmp_path / "labels.npy", np.array([2, 0, 1, 1]))
    options = ["--sampler", "ddim", "--guidance", "2.5", "--interval", "0.1", "3"]
    named = ["--condition", f"label={tmp_path / 'labels.npy'}"]
    found = drawn(model, tmp_path, *options, *named, "--batch-size", "3")
    # of the levels 10, 1, .1 and .01 one is in (.1, 3]
    assert "4 evaluations of the score each, 5 passes of the network" in capsys.readouterr().out
    score = classifier_free(ScoreModel.from_pretrained(model), 2.5, interval=(0.1, 3.0))
    right = scoresde.sample(
        score, sampler="ddim", steps=3, n=4, seed=0, batch_size=3,
        condition={"label": torch.tensor([2, 0, 1, 1])},
    )  # fmt: skip
    np.testing.assert_allclose(found, right.numpy(), rtol=1e-5, atol=1e-5)
    one = drawn(model, tmp_path, *options, "--class", "1", "--batch-size", "4")
    same = drawn(model, tmp_path, *options, "--condition", "label=1", "--batch-size", "4")
    assert np.array_equal(one, same)
    plain = drawn(model, tmp_path, "--sampler", "ddim", "--class", "1", "--batch-size", "4")
    assert not np.allclose(one, plain, atol=1e-3)


def test_a_folder_of_samples_with_other_conditions_is_not_continued(model, tmp_path, capsys):
    words = ["sample", str(model), "--n", "2", "--steps", "2", "--sampler", "ddim"]
    words += ["--out", str(tmp_path / "many")]
    assert main([*words, "--condition", "label=1"]) == 0
    assert main([*words, "--condition", "label=1"]) == 0
    assert "1 of 1 batches were there" in capsys.readouterr().out
    assert main([*words, "--condition", "label=2"]) == 1
    assert main([*words, "--condition", "label=1", "--guidance", "2"]) == 1
    assert "guidance was None and is now 2.0" in capsys.readouterr().err


# Editing


@pytest.mark.parametrize("name", SDES)
def test_a_strength_is_the_same_noise_under_every_sde(name):
    sde = SDES[name]
    times = sde.times(None if sde.levels else 30)
    high, low = sde.log_snr(torch.tensor([sde.eps, sde.T], dtype=torch.float64)).tolist()
    before = None
    for strength in (0.05, 0.3, 0.6, 1.0):
        cut = _from(sde, times, strength)
        assert (cut.diff() < 0).all()
        assert float(cut[-1]) == pytest.approx(sde.eps)
        assert before is None or cut[0] >= before
        before = cut[0]
        if sde.levels is None:
            share = (high - float(sde.log_snr(cut[0]))) / (high - low)
            assert share == pytest.approx(strength, abs=1e-6)
        else:
            assert cut[0] in sde.times()
    assert torch.allclose(cut, times)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["ve", "vp", "edm"])
def test_an_edit_of_gaussian_data_has_the_law_of_the_page(name):
    """docs/editing.md: the flow keeps k alpha of a datum, the reverse SDE less."""
    sde, mean, var, x = SDES[name], -0.4, 0.5, 1.7
    score = Exact(sde, mean, var)
    t = sde.time(torch.tensor(0.5, dtype=torch.float64))
    s = sde.time(torch.tensor(6.0, dtype=torch.float64))
    levels = torch.linspace(0.5, 6.0, 201, dtype=torch.float64)
    times = torch.cat([t[None], sde.time(levels[1:-1]), s[None]])
    (a_t, a_s), (v_t, v_s) = ([float(f(u)) for u in (t, s)] for f in (sde.alpha, sde.sigma))
    whole_t, whole_s = a_t**2 * var + v_t**2, a_s**2 * var + v_s**2
    flow = math.sqrt(whole_s / whole_t)
    forgetful = a_t / a_s * whole_s / whole_t
    laws = {
        Heun(): (flow, flow**2 * v_t**2, 2e-4),
        Ancestral(): (forgetful, whole_s - forgetful**2 * a_t**2 * var, 0.04),
    }
    for sampler, (kept, spread, tolerance) in laws.items():
        rsde = sde.reverse(score)

        def end(y, noise, rsde=rsde, sampler=sampler):
            for state in sampler.trajectory(rsde, y, times, noise):
                y = state.x
            return y

        start = torch.tensor([a_t * x]).double(), torch.tensor([v_t**2]).double()
        found, noise = affine(end)(*start)
        assert float(found) == pytest.approx(
            a_s * mean + kept * a_t * (x - mean), rel=tolerance, abs=tolerance
        )
        assert float(noise) == pytest.approx(spread, rel=2 * tolerance)


def test_an_edit_is_a_run_from_perturbed_data(model, tmp_path, capsys):
    x = torch.randn(2, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    np.save(tmp_path / "data.npy", x.numpy())
    options = ["--data", str(tmp_path / "data.npy"), "--strength", "0.5", "--sampler", "ddim"]
    found = drawn(model, tmp_path, *options, "--class", "2", command="edit")
    assert "4 edits from the noise sigma / alpha = 0.316 in " in capsys.readouterr().out
    made = ScoreModel.from_pretrained(model)
    x = x[[0, 1, 0, 1]]
    t = made.sde.time(-2 * torch.tensor(0.1, dtype=torch.float64).sqrt().log())
    times = torch.cat([t[None], made.sde.times(3)[2:]])
    noisy = made.sde.perturb(x, t, Noise.of(0, 4).normal(x, math.inf))
    right = scoresde.sample(
        made, sampler="ddim", x=noisy, times=times, seed=0, condition={"label": 2}
    )
    np.testing.assert_allclose(found, right.numpy(), rtol=1e-4, atol=1e-4)
    assert not np.allclose(found[0], found[2], atol=1e-3)  # each sample has different noise
    near = drawn(model, tmp_path, *options[:2], "--strength", "1e-6", command="edit")
    assert np.abs(near - x.numpy()).max() < 0.2


@pytest.mark.long
@pytest.mark.filterwarnings("ignore:.*in.png has 30 x 20 pixels; it was cropped")
@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA"])
def test_an_image_of_any_size_and_mode_is_edited(mode, model, tmp_path):
    Image.new(mode, (30, 20)).save(tmp_path / "in.png")
    words = ["edit", str(model), "--data", str(tmp_path / "in.png"), "--steps", "2"]
    out = tmp_path / "out.png"
    assert main([*words, "--out", str(out), "--class", "1", "--guidance", "2"]) == 0
    with Image.open(out) as picture:
        assert min(picture.size) >= 8
    assert main([*words, "--out", str(tmp_path / "x.npy"), "--strength", "1e-6"]) == 0
    found = np.load(tmp_path / "x.npy")
    assert found.shape == (1, 1, 8, 8)
    assert found.max() < -0.7  # black is -1


def test_an_image_is_refused_by_a_model_of_standardised_numbers(model, tmp_path, capsys):
    made = ScoreModel.from_pretrained(model)
    made.transform = scoresde.units.Standardize((100.0,), (50.0,))
    made.save_pretrained(tmp_path / "model")
    Image.new("L", (8, 8)).save(tmp_path / "in.png")
    words = ["edit", str(tmp_path / "model"), "--data", str(tmp_path / "in.png")]
    assert main([*words, "--out", str(tmp_path / "x.npy")]) == 1
    assert "the training data of the model were not images" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("--data nowhere.png", "nowhere.png does not exist"),
        ("--data broken.png", "cannot read the image broken.png"),
        ("--data deep.png", "cannot read the image deep.png: its mode is 'I;16'"),
        ("--data nowhere.npy", "nowhere.npy does not exist"),
        ("--data small.npy", "the samples of small.npy have shape (1, 4, 4)"),
        ("--data data.npy --strength 0", "strength must lie in (0, 1], got 0"),
        ("--data data.npy --strength nan", "strength must lie in (0, 1], got nan"),
        ("--data data.npy --n 0", "n must be an integer >= 1, got 0"),
        ("--data data.npy --class 3", "class must lie in [0, 2], got 3"),
        ("--data data.npy --guidance 2", "classifier-free guidance needs a condition"),
        ("--data data.npy --sampler pcc", "unknown sampler 'pcc'"),
        ("--data data.npy --out x.gif", "out must end in .png, .jpg, .jpeg, .pdf, .svg, .npy"),
    ],
)
def test_wrong_options_of_edit_are_reported_in_one_line(
    options, message, model, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    np.save("data.npy", np.zeros((2, 1, 8, 8), dtype=np.float32))
    np.save("small.npy", np.zeros((2, 1, 4, 4), dtype=np.float32))
    (tmp_path / "broken.png").write_bytes(b"no image")
    Image.new("I;16", (8, 8)).save(tmp_path / "deep.png")
    words = ["edit", str(model), "--out", "x.npy", "--sampler", "ddim", *options.split()]
    assert main(words) == 1
    err = capsys.readouterr().err
    assert err.startswith("scoresde: error: ")
    assert err.count("\n") == 1
    assert message in err
    assert not (tmp_path / "x.npy").exists()


def test_a_pipe_is_refused_as_a_file_of_conditions(files):
    os.mkfifo("pipe.npy")
    with pytest.raises(DataError, match=r"cannot read pipe\.npy: .*it is a pipe"):
        Given.of(Takes(), 4, ["y=pipe.npy"])


def test_samples_of_guidance_without_an_upper_end_are_kept(model, tmp_path, capsys):
    options = ["--sampler", "ddim", "--class", "1", "--guidance", "2", "--interval", "0.1", "inf"]
    assert np.isfinite(drawn(model, tmp_path, *options)).all()


def test_an_edit_does_not_replace_its_data(model, tmp_path, capsys):
    path = tmp_path / "data.npy"
    np.save(path, np.zeros((2, 1, 8, 8), np.float32))
    before = path.read_bytes()
    assert main(["edit", str(model), "--data", str(path), "--out", str(path), "--steps", "2"]) == 1
    assert "is read by this command" in capsys.readouterr().err
    assert path.read_bytes() == before
