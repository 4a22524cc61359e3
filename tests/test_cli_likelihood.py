"""Test `scoresde likelihood`."""

import re

import numpy as np
import pytest
import torch
from PIL import Image

from scoresde import VPSDE, Moments, ScoreModel
from scoresde.cli import main
from scoresde.data import Range, Standardize
from scoresde.nn import MLP


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Untrained models of digits, without and with classes, and a model of the plane."""
    root = tmp_path_factory.mktemp("models")
    with torch.random.fork_rng(devices=[]):
        for name, shape, classes in (("digits", (1, 8, 8), None), ("classes", (1, 8, 8), 10)):
            net = MLP(shape, hidden=(8,), num_classes=classes)
            model = ScoreModel(net, VPSDE(), shape, moments=Moments(-0.4, var=0.5))
            model.save_pretrained(root / name)
        plane = ScoreModel(MLP(2, hidden=(8,)), VPSDE(), (2,), moments=Moments(0.0, var=1.0))
        plane.save_pretrained(root / "plane")
    np.savez(root / "plane.npz", x=np.zeros((5, 2), dtype=np.float32))
    return root


def numbers(line):
    return [float(word) for word in re.findall(r"-?\d+\.?\d*(?:e-?\d+)?", line)]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["digits", "classes"])
def test_it_prints_nats_and_bits_with_their_errors(folders, name, capsys):
    words = ["likelihood", str(folders / name), "--data", "digits", "--n", "3", "--rtol", "0.01"]
    words.append("--quiet")
    assert main([*words, "--batch-size", "2"]) == 0
    out = capsys.readouterr().out.splitlines()
    assert out[0].startswith("3 samples of 64 dimensions")
    (nats, error, _), (bits, bit_error, _) = (numbers(line) for line in out[1:3])
    choice, computed, *_ = numbers(out[3])
    assert error == pytest.approx(choice + computed, rel=0.1)
    # 17 levels on [-1, 1]: a cell of 1 / 8 is worth 3 bits
    assert bits == pytest.approx(3 - nats / (64 * np.log(2)), abs=1e-3)
    assert bit_error == pytest.approx(error / (64 * np.log(2)), rel=0.1)
    # the bar of one sample is the sum of its parts
    at = next(i for i, line in enumerate(out) if line.startswith("computed to"))
    bar, _ = numbers(out[at])
    parts = [numbers(line)[0] for line in out[at + 1 : at + 5]]
    assert "heat: the correction from eps to the data" in "".join(out)
    assert bar == pytest.approx(sum(parts), rel=0.05)
    # the same again in one batch
    assert main(words) == 0
    again = capsys.readouterr().out.splitlines()
    assert numbers(again[1])[0] == pytest.approx(nats, abs=0.02)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:the model has 10 classes")
def test_a_folder_without_a_class_is_refused_since_others_would_have_its_number(
    folders, tmp_path, capsys
):
    for name in ("a", "b", "d"):
        (tmp_path / name).mkdir()
        Image.new("L", (8, 8), ord(name)).save(tmp_path / name / "0.png")
    words = ["likelihood", str(folders / "classes"), "--data", str(tmp_path), "--n", "2"]
    assert main(words) == 1
    assert f"has 10 classes of 'label', but {tmp_path} has 3, so" in capsys.readouterr().err
    for k in range(7):
        (tmp_path / f"e{k}").mkdir()
        Image.new("L", (8, 8), k).save(tmp_path / f"e{k}" / "0.png")
    assert main([*words, "--rtol", "0.1"]) == 0


def test_data_without_levels_have_nats_only(folders, capsys):
    words = ["likelihood", str(folders / "plane"), "--data", str(folders / "plane.npz")]
    assert main(words) == 0
    out = capsys.readouterr().out
    assert "bits per dim  none" in out
    assert "units         of the model: the numbers as they are" in out
    # at 0 the standard normal law has -log 2 pi, which this model's moments make of any point
    assert "5 samples of 2 dimensions" in out


@pytest.mark.slow
def test_data_are_taken_in_the_units_of_the_model(folders, tmp_path, capsys):
    model = ScoreModel.from_pretrained(folders / "plane")
    model.transform = Standardize((8000, -3), (120, 0.5))
    model.save_pretrained(tmp_path / "model")
    raw = np.array([[8000, -3]] * 5, dtype=np.float32)
    np.savez(tmp_path / "raw.npz", x=raw)
    words = ["--n", "5", "--seed", "1", "--quiet"]
    said = []
    for name, data in ((folders / "plane", folders / "plane.npz"), (tmp_path / "model", "raw.npz")):
        assert main(["likelihood", str(name), "--data", str(tmp_path / data), *words]) == 0
        said.append(capsys.readouterr().out.splitlines()[1])
    assert said[0] == said[1]


def test_levels_beyond_those_of_the_model_are_refused(folders, tmp_path, capsys):
    model = ScoreModel.from_pretrained(folders / "digits")
    model.transform = Range(0, 16, levels=17)
    model.save_pretrained(tmp_path / "model")
    for high, message in ((17, "these numbers lie in [0, 17]"), (3.5, "lie between levels")):
        raw = np.zeros((3, 1, 8, 8), dtype=np.float32)
        raw[0, 0, 0, 0] = high
        np.savez(tmp_path / "raw.npz", x=raw)
        words = ["likelihood", str(tmp_path / "model"), "--data", str(tmp_path / "raw.npz")]
        assert main(words) == 1
        assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("digits", ["--n", "0"], "--n must be an integer >= 1, got 0"),
        ("digits", ["--out", "x.txt"], "out must end in .csv; got 'x.txt'"),
        ("digits", ["--first", "1797"], "digits has 1797 samples; --first 1797 leaves 0"),
        ("plane", [], r"samples of digits have shape (1, 8, 8), but the model's have (2,)"),
        ("digits", ["--rtol", "0"], "--rtol must be positive and finite, got 0.0\n"),
        ("digits", ["--rtol", "nan"], "--rtol must be positive and finite, got nan\n"),
    ],
)
def test_wrong_options_are_one_line_on_stderr(folders, name, options, message, capsys):
    words = ["likelihood", str(folders / name), "--data", "digits", "--n", "2", *options]
    assert main(words) == 1
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    assert message in err


@pytest.mark.slow
def test_the_estimate_of_the_solvers_error_saves_the_second_solution(folders, capsys):
    words = ["likelihood", str(folders / "plane"), "--data", str(folders / "plane.npz"), "--quiet"]
    found = {}
    for error in ("full", "estimate"):
        assert main([*words, "--error", error]) == 0
        out = capsys.readouterr().out.splitlines()
        found[error] = numbers(next(line for line in out if line.startswith("evaluations")))[0]
        assert out[1].startswith(f"log-density   {-np.log(2 * np.pi):.2f} ± ")
    assert found["estimate"] < found["full"]


def test_each_sample_has_a_line_in_a_table_and_one_is_enough(folders, tmp_path, capsys):
    words = ["likelihood", str(folders / "plane"), "--data", str(folders / "plane.npz")]
    out = tmp_path / "x.csv"
    assert main([*words, "--n", "3", "--first", "1", "--out", str(out)]) == 0
    head, *rows = out.read_text().splitlines()
    assert head == "row,nats,error"
    assert [int(row.partition(",")[0]) for row in rows] == [1, 2, 3]
    nats, error = (float(word) for word in rows[0].split(",")[1:])
    assert abs(nats + np.log(2 * np.pi)) <= error + 1e-6
    capsys.readouterr()
    assert main([*words, "--n", "1"]) == 0
    said = capsys.readouterr().out
    assert "1 sample of 2 dimensions" in said
    assert "inf" not in said
    assert "nan" not in said


def test_a_density_whose_error_leaves_a_bit_open_is_not_known(folders, capsys):
    words = ["likelihood", str(folders / "digits"), "--data", "digits", "--n", "1", "--rtol", ".5"]
    assert main([*words, "--method", "hutchinson", "--probes", "2", "--error", "estimate"]) == 0
    said = capsys.readouterr().out
    assert "log-density   not known: " in said
    assert "8 at least" in said


def test_a_long_computation_names_options_that_shorten_it(folders, capsys, monkeypatch):
    monkeypatch.setattr("scoresde.cli.likelihood._LONG", 0.0)
    words = ["likelihood", str(folders / "plane"), "--data", str(folders / "plane.npz")]
    assert main([*words, "--n", "1", "--rtol", ".1"]) == 0
    assert "less with --error estimate, a smaller --n" in capsys.readouterr().out
