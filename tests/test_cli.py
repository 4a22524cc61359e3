"""Test the command line: the output and the exit code of every command."""

import functools
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
import safetensors.torch
import torch
from PIL import Image
from torch import nn

from scoresde import checkpoint, data
from scoresde.cli import COMMANDS, main
from scoresde.cli.config import RunConfig
from scoresde.cli.drawing import draw
from scoresde.cli.given import Given
from scoresde.cli.info import Info
from scoresde.cli.source import DataConfig
from scoresde.errors import DataError
from scoresde.nn import MLP, UNet
from scoresde.pretrained import store
from scoresde.score import ScoreModel
from scoresde.sde import VESDE
from scoresde.training.update import Update

SMALL = ["--channels", "4", "--batch-size", "8"]


def built(make, *args, **options):
    """Return a network whose weights are a function of nothing but its options."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        return make(*args, **options)


def train(folder, *options, source="digits", steps=4):
    """Return the exit code of a tiny run."""
    words = ["--data", str(source), "--out", str(folder), "--steps", str(steps)]
    return main(["train", *words, *SMALL, *options])


def said(capsys):
    """Return the one line on stderr."""
    err = capsys.readouterr().err
    assert err.count("\n") == 1, f"not one line: {err!r}"
    assert "Traceback" not in err
    return err.strip()


def edited(path, offset, value=b"\xff"):
    """Write into the middle of a file."""
    raw = bytearray(path.read_bytes())
    raw[offset : offset + len(value)] = value
    path.write_bytes(raw)


def without(path, prefix):
    """Drop some of a model's tensors."""
    tensors, meta = checkpoint.load_tensors(path)
    kept = {name: value for name, value in tensors.items() if not name.startswith(prefix)}
    checkpoint.save_tensors(path, kept, meta)


def different(path, other):
    """Return the names of the tensors in which two files differ."""
    one, two = checkpoint.load_tensors(path)[0], checkpoint.load_tensors(other)[0]
    assert one.keys() == two.keys()
    return [name for name in one if not torch.equal(one[name], two[name])]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Return a run of four steps on the 8x8 digits."""
    folder = tmp_path_factory.mktemp("cli") / "run"
    assert train(folder, "--save-every", "2") == 0
    return folder


@pytest.fixture(scope="module")
def vectors(tmp_path_factory):
    """Return a run of two steps on points of the plane, and its data."""
    folder = tmp_path_factory.mktemp("cli")
    x = torch.randn(50, 2, generator=torch.Generator().manual_seed(0))
    np.save(folder / "points.npy", x.numpy())
    assert train(folder / "run", source=folder / "points.npy", steps=2) == 0
    return folder / "run"


@pytest.fixture
def packaged(tmp_path, monkeypatch):
    """A stand-in for the packaged model: random, and quick."""
    net = built(UNet, 1, channels=(4,), blocks=1, patch=2, num_classes=10)
    model = ScoreModel(net, VESDE(), (1, 28, 28))
    generator = torch.Generator().manual_seed(1)
    for p in model.parameters():  # the last layer begins at zero, and would hide the label
        nn.init.normal_(p, std=0.3, generator=generator)
    model.steps = 3
    model.save_pretrained(tmp_path / "models" / "mnist")
    monkeypatch.setattr(store, "_MODELS", tmp_path / "models")
    monkeypatch.chdir(tmp_path)


# The first output of the commands


@pytest.mark.slow
@pytest.mark.parametrize(
    ("command", "options"),
    [
        ("demo", "class n out seed steps guidance"),
        ("train", "data out config sde channels blocks patch attention dropout log-to split size"),
        ("train", "on-bad-image steps batch-size lr betas warmup"),
        ("train", "decay clip ema seed condition-dropout init bf16 save-every keep held-out"),
        ("train", "patience"),
        ("train", "loss weight law stratified learned-weight"),
        ("sample", "out n sampler steps seed class condition guidance interval first batch-size"),
        ("edit", "data strength out n sampler steps seed class condition guidance interval"),
        ("evaluate", "data split train-data n samples features metrics sampler steps seed out"),
        ("calibrate", "data split condition size n draws sampler steps seed batch-size out"),
        ("info", "help"),
        ("push", "private license"),
    ],
)
def test_help_explains_every_option(command, options, capsys):
    with pytest.raises(SystemExit, match="0"):
        main([command, "--help"])
    text = re.sub(r"[│\s]+", " ", capsys.readouterr().out)
    parts = [part.split() for part in re.split(r" (?=--(?!no-))", text)]
    for name in options.split():
        # the sentences about other options name it too
        found = [part for part in parts if part[0].rstrip(",.") == f"--{name}"]
        words = max(found, key=len)
        explained = [word for word in words if re.fullmatch(r"[a-z]{2,}[.,:;]?", word)]
        assert len(explained) >= 3, f"--{name} is not explained: {words}"


def test_help_names_the_commands(capsys):
    assert main(["--help"]) == 0
    text = capsys.readouterr().out
    assert all(f"\n  {name} " in text for name in COMMANDS)


@pytest.mark.parametrize(
    "words",
    [[], ["paint"], ["demo", "--clas", "7"], ["demo", "--n", "many"], ["train"], ["info"]],
)
def test_options_that_cannot_be_read_end_with_exit_code_2(words, capsys):
    with pytest.raises(SystemExit) as ended:
        main(words)
    assert ended.value.code == 2
    assert capsys.readouterr().err


@pytest.mark.long
def test_python_m_scoresde_is_the_command():
    words = [sys.executable, "-m", "scoresde", "info", "nowhere/at/all"]
    ended = subprocess.run(words, capture_output=True, text=True, check=False)
    assert ended.returncode == 1
    assert ended.stdout == ""
    assert ended.stderr.startswith("scoresde: error: there is no folder 'nowhere/at/all' and no ")
    assert ended.stderr.count("\n") == 1


# demo


@pytest.mark.long
def test_demo_draws_digits_into_an_enlarged_picture(packaged, capsys):
    assert main(["demo", "--n", "4"]) == 0
    out = capsys.readouterr().out
    assert out.startswith("4 digits in ")
    assert " 4 evaluations " in out  # 3 steps, and the last denoising
    assert f"the picture is {Path('digits.png').absolute()}" in out
    with Image.open("digits.png") as picture:
        assert min(picture.size) > 4 * 28


@pytest.mark.long
def test_demo_draws_one_class_in_the_given_number_of_steps(packaged, capsys):
    assert main(["demo", "--class", "7", "--n", "1", "--steps", "2", "--out", "seven.png"]) == 0
    assert " 3 evaluations " in capsys.readouterr().out
    assert main(["demo", "--n", "1", "--steps", "2", "--out", "zero.png"]) == 0
    assert Path("seven.png").read_bytes() != Path("zero.png").read_bytes()


def test_demo_refuses_other_classes_than_digits_before_it_draws(packaged, capsys):
    assert main(["demo", "--class", "10"]) == 1
    assert said(capsys) == "scoresde: error: --class must lie in [0, 9], got 10"
    assert main(["demo", "--out", "digits.bmp"]) == 1
    assert "--out must end in .png, .jpg, .jpeg, .pdf, .svg; got 'digits.bmp'" in said(capsys)


def test_demo_finds_its_model_beside_a_folder_of_the_same_name(packaged):
    Path("mnist").mkdir()
    assert main(["demo", "--n", "1", "--steps", "1"]) == 0


# sample


class Recorder(nn.Module):
    """Define a network that records its labels."""

    config = {"num_classes": 3}  # noqa: RUF012

    def __init__(self):
        super().__init__()
        self.seen = []

    def forward(self, x, c, label):
        self.seen.append(label)
        return 0 * x


def test_sample_i_is_of_class_i_modulo_their_number():
    model = ScoreModel(Recorder(), VESDE(), (2,))
    options = dict(n=4, steps=1, seed=0, batch_size=4)
    drawn = draw(model, "pc", first=2, **options)
    assert drawn.label.tolist() == [2, 0, 1, 2]
    assert [label.tolist() for label in model.net.seen] == 3 * [[2, 0, 1, 2]]
    ones = Given.of(model, 4, label=1)
    assert draw(model, "pc", given=ones, first=2, **options).label.tolist() == [1, 1, 1, 1]
    assert drawn.nfe == 3


@pytest.mark.filterwarnings("ignore:the samples are .* times as large")
def test_evaluations_are_counted_for_one_sample_and_not_for_the_chunks():
    model = ScoreModel(Recorder(), VESDE(), (2,))
    drawn = draw(model, "em", n=5, steps=4, seed=0, batch_size=2)
    assert drawn.nfe == 5
    assert len(model.net.seen) == 15


@pytest.mark.long
@pytest.mark.filterwarnings("ignore:the samples are .* times as large")
def test_a_sample_is_the_same_in_every_file(run, tmp_path):
    def drawn(name, *options):
        words = ["sample", str(run), "--steps", "3", "--batch-size", "4", "--out"]
        assert main([*words, str(tmp_path / name), *options]) == 0
        return np.load(tmp_path / name)

    six = drawn("six.npy", "--n", "6")
    assert six.shape == (6, 1, 8, 8)
    assert np.isfinite(six).all()
    assert np.array_equal(drawn("two.npy", "--n", "2"), six[:2])
    assert np.array_equal(drawn("later.npy", "--n", "2", "--first", "4"), six[4:])
    assert not np.array_equal(drawn("other.npy", "--n", "6", "--seed", "1"), six)
    assert not np.array_equal(drawn("em.npy", "--n", "6", "--sampler", "em"), six)


@pytest.mark.long
def test_samples_can_be_read_back_with_their_classes(run, tmp_path, capsys):
    words = ["sample", str(run), "--n", "12", "--steps", "2", "--batch-size", "12", "--out"]
    for suffix in ("npz", "safetensors", "png"):
        assert main([*words, str(tmp_path / f"x.{suffix}")]) == 0
    assert "12 samples of shape (1, 8, 8) in " in capsys.readouterr().out
    found = data.load(tmp_path / "x.npz")
    assert found.label.tolist() == [*range(10), 0, 1]
    tensors, _ = checkpoint.load_tensors(tmp_path / "x.safetensors")
    assert torch.equal(tensors["x"], found.raw)
    assert tensors["x"].dtype == torch.uint8
    assert tensors["x"].max() <= 16  # the digits have 17 levels
    assert torch.equal(tensors["y"], found.label)
    with Image.open(tmp_path / "x.png") as picture:
        assert picture.size[0] > 4 * 8


def test_an_unconditional_model_of_vectors_is_sampled_into_an_array(vectors, tmp_path):
    out = tmp_path / "points.npz"
    assert main(["sample", str(vectors), "--n", "3", "--steps", "2", "--out", str(out)]) == 0
    assert np.load(out)["x"].shape == (3, 2)
    assert "y" not in np.load(out)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            "--sampler pcc",
            "unknown sampler 'pcc'; did you mean 'pc'? choose from adaptive, ald, ancestral, ",
        ),
        ("--n 0", "--n must be an integer >= 1, got 0"),
        ("--steps 0", "--steps must lie in [1, 10,000,000], got 0"),
        ("--seed -1", "a seed must lie in [0, 2**64), got -1"),
        ("--first -1", "--first must be an integer >= 0, got -1"),
        (
            f"--first {10**23}",
            "the sample indices of a seed lie in [0, 2**40), got first = 1000000",
        ),
        ("--batch-size 0", "--batch-size must be an integer >= 1, got 0"),
        ("--class -1", "--class must lie in [0, 9], got -1"),
        (f"--out {'x' * 300}.npy", "cannot make the folder xxxxxx"),
        ("--out x.tif", "--out must end in .png, .jpg, .jpeg, .pdf, .svg, .gif, .html, .npy, "),
        ("--scale 0 --out x.png", "--scale must be an integer >= 1, got 0"),
        ("--columns 0 --out x.png", "--columns must be an integer >= 1, got 0"),
    ],
)
def test_wrong_options_of_sample_are_reported_in_one_line(
    options, message, run, capsys, monkeypatch
):
    monkeypatch.chdir(run.parent)
    before = sorted(run.parent.iterdir())
    assert main(["sample", "run", "--out", "x.npy", "--sampler", "ddim", *options.split()]) == 1
    assert said(capsys).startswith(f"scoresde: error: {message}")
    assert sorted(run.parent.iterdir()) == before


def test_a_class_of_a_model_without_any_is_refused(vectors, tmp_path, capsys):
    assert main(["sample", str(vectors), "--out", str(tmp_path / "x.npy"), "--class", "0"]) == 1
    assert "this model was trained without classes; leave out class 0" in said(capsys)


# info


def test_info_describes_a_run(run, capsys):
    assert main(["info", "--quiet", str(run)]) == 0
    rows = dict(
        re.split(r"\s{2,}", line, maxsplit=1) for line in capsys.readouterr().out.splitlines()
    )
    parameters = sum(p.numel() for p in ScoreModel.from_pretrained(run).net.parameters())
    assert rows["samples"] == "a grey image of 8x8 pixels: 64 dimensions"
    assert rows["units"] == "whole numbers from 0 to 16, learnt as numbers from -1 to 1"
    assert rows["conditions"] == "label: 10 classes, 0 to 9"
    assert "x_t = x_0 + sigma_t z, sigma_t from 0.0108 to " in rows["noise"]
    assert rows["predicts"] == "the clean sample, under EDM's preconditioning"
    assert rows["network"] == f"UNet, {parameters:,} parameters in float32, 4 wide"
    assert rows["data"] == "mean -0.3895, std 0.5416 in model units"
    assert rows["licence"] == "not stated"
    assert rows["trained"] == "4 of 4 steps"
    assert rows["model"].endswith("schema 2, checksum verified")
    assert rows["config"].endswith("config.json, agrees with the model")
    assert rows["log"].endswith("log.jsonl, 2 rows")
    assert [name for name in rows if name.startswith("step ")] == ["step 2", "step 4"]


@pytest.mark.slow
def test_info_shows_the_command_that_continues_a_run_and_it_works(tmp_path, capsys, monkeypatch):
    signal_at_a_step(monkeypatch, signal.SIGINT)
    assert train(tmp_path / "my run") == 130
    monkeypatch.undo()
    capsys.readouterr()
    assert main(["info", str(tmp_path / "my run")]) == 0
    out = capsys.readouterr().out
    assert "trained           2 of 4 steps\n" in out
    words = shlex.split(re.search("to the end:\n  scoresde (.+)\n", out)[1])
    assert main(words) == 0
    assert "resuming at step 2 of 4" in capsys.readouterr().out
    assert main(["info", str(tmp_path / "my run")]) == 0
    assert "to the end" not in capsys.readouterr().out


def test_a_run_without_a_checkpoint_names_the_command_that_continues_it(tmp_path, capsys):
    RunConfig(data=DataConfig(source="digits")).write(tmp_path / "config.toml")
    for words in (["info"], ["sample", "--out", "x.npy"]):
        assert main([words[0], str(tmp_path), *words[1:]]) == 1
        assert f"`scoresde train --config {tmp_path}/config.toml` continues it" in said(capsys)


def test_info_describes_packaged_models_by_name(packaged, capsys):
    assert main(["info", "mnist"]) == 0
    assert "sampling          3 steps by --sampler fast, " in capsys.readouterr().out


def test_info_describes_the_packaged_model(capsys):
    """It was saved at the end of its training, without a count of the steps that were done."""
    assert main(["info", "mnist"]) == 0
    assert "trained           18,000 of 18,000 steps\n" in capsys.readouterr().out


def test_info_describes_a_network_of_a_foreign_class(tmp_path, capsys):
    ScoreModel(built(nn.Linear, 2, 2), VESDE(), (2,)).save_pretrained(tmp_path)
    assert main(["info", str(tmp_path)]) == 0
    out = capsys.readouterr().out
    assert "network           Linear, 6 parameters in float32\n" in out


@pytest.mark.parametrize(
    ("meta", "shown"),
    [
        ({"training": {"lr": 0.5}}, "units "),
        ({"training": "long ago", "average": "mean"}, "units "),
        ({"training": {"steps": "many"}}, "trained           many of many steps\n"),
    ],
)  # fmt: skip
def test_info_and_the_card_accept_any_stored_description_of_the_training(
    meta, shown, tmp_path, capsys
):
    ScoreModel(built(nn.Linear, 2, 2), VESDE(), (2,)).save_pretrained(tmp_path, **meta)
    assert (tmp_path / "README.md").exists()
    assert main(["info", str(tmp_path)]) == 0
    assert shown in capsys.readouterr().out


@pytest.mark.slow
def test_info_names_a_damaged_checkpoint_of_a_run(tmp_path, capsys):
    assert train(tmp_path, "--save-every", "1", steps=2) == 0
    edited(tmp_path / "step-00000001.safetensors", -9)
    assert main(["info", str(tmp_path)]) == 1
    found = capsys.readouterr()
    assert re.search(r"step 1 .*step-00000001.safetensors, 0.\d\d MB, DAMAGED\n", found.out)
    assert found.err == f"scoresde: error: 1 file(s) of {tmp_path} are damaged\n"


@pytest.mark.slow
def test_info_verifies_every_file_even_if_the_model_is_damaged(tmp_path, capsys):
    assert train(tmp_path, "--save-every", "1", steps=2) == 0
    edited(tmp_path / "model.safetensors", -9)
    edited(tmp_path / "log.jsonl", 2)
    (tmp_path / "step-00000001.safetensors").rename(tmp_path / "step-00000001.damaged")
    (tmp_path / "ema" / "sigma-0.1").mkdir(parents=True)
    newer = tmp_path / "ema" / "sigma-0.1" / "step-00000002.safetensors"
    with mock.patch("scoresde.checkpoint.tensors.SCHEMA", 3):
        checkpoint.save_tensors(newer, {})
    capsys.readouterr()
    assert main(["info", str(tmp_path)]) == 1
    found = capsys.readouterr()
    rows = dict(re.split(r"\s{2,}", line, maxsplit=1) for line in found.out.splitlines())
    assert rows["model"].endswith(", DAMAGED")
    assert rows["step 2"].endswith("checksum verified")
    assert rows["set aside"].endswith("damaged when the run was resumed")
    assert rows["ema/sigma-0.1"].endswith(", of a newer scoresde")
    assert rows["log"].endswith("1 row, DAMAGED")
    assert "to write it again from the checkpoints beside it" in found.err
    assert train(tmp_path, "--save-every", "1", steps=2) == 0  # as the message recommends
    assert different(tmp_path / "model.safetensors", tmp_path / "model.safetensors") == []


@pytest.mark.slow
def test_info_reports_a_description_of_another_model(tmp_path, capsys):
    assert train(tmp_path, steps=1) == 0
    checkpoint.write_json(tmp_path / "config.json", {"a": 1})
    assert main(["info", str(tmp_path)]) == 0
    assert "config.json, differs from the model, which is used\n" in capsys.readouterr().out
    (tmp_path / "config.json").write_text("{")
    assert main(["info", str(tmp_path)]) == 1
    assert "config.json, DAMAGED\n" in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.parametrize("command", [["info"], ["sample", "--out", "x.npy"]])
@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda path: path.unlink(), "holds no model, since there is no file "),
        (lambda path: path.write_bytes(path.read_bytes()[:-100]), " is truncated: it has "),
        (lambda path: edited(path, -9), " is damaged: its SHA-256 is "),
        (lambda path: path.write_bytes(b"\x80\x04K\x01."), " is a pickle, which can run any code"),
        (lambda path: path.write_text("hello, world"), " is not a safetensors file, or its header"),
        (
            lambda path: safetensors.torch.save_file({"module.a": torch.zeros(2)}, path),
            "that scoresde did not write (format None, expected 'scoresde'); its names are those "
            "of a network saved under DataParallel",
        ),
        (
            lambda path: checkpoint.save_tensors(path, {"a": torch.zeros(2)}, {"b": 1}),
            " is not a model of scoresde",
        ),
        (
            lambda path: without(path, "net.stem."),
            "does not fit MLP; 2 missing: net.stem.weight, net.stem.bias",
        ),
    ],
    ids=["gone", "truncated", "flipped", "pickle", "text", "foreign", "stranger", "partial"],
)
def test_a_bad_checkpoint_is_reported_in_one_line(
    command, spoil, message, tmp_path, capsys, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    ScoreModel(built(MLP, 2, hidden=(4,)), VESDE(), (2,)).save_pretrained("model")
    spoil(Path("model/model.safetensors"))
    assert main([command[0], "model", *command[1:]]) == 1
    line = said(capsys)
    assert line.startswith("scoresde: error: ")
    assert message in line
    assert not Path("x.npy").exists()


@pytest.mark.parametrize("command", ["audit", "evaluate", "likelihood"])
def test_a_model_is_tested_with_data_that_it_was_not_trained_on(
    command, tmp_path, monkeypatch, capsys
):
    def load(source, *, split, **options):
        raise DataError(f"the part {split} of {source}")

    ScoreModel(built(MLP, 2, hidden=(4,)), VESDE(), (2,)).save_pretrained(tmp_path)
    monkeypatch.setattr("scoresde.cli.source.load", load)
    assert main([command, str(tmp_path), "--data", "cifar10"]) == 1
    assert "the part test of cifar10" in capsys.readouterr().err
    assert main([command, str(tmp_path), "--data", "cifar10", "--split", "train"]) == 1
    assert "the part train of cifar10" in capsys.readouterr().err


@pytest.fixture
def photos(tmp_path):
    """Images of three sizes, which are data once they are resized."""
    folder = tmp_path / "photos"
    folder.mkdir()
    for i in range(48):
        Image.new("RGB", (8 + i % 3, 9), (5 * i, 0, 255 - i)).save(folder / f"{i}.png")
    return str(folder)


@pytest.mark.slow
@pytest.mark.parametrize(
    "command",
    [
        ("suggest",),
        ("likelihood", "model", "--n", "2", "--rtol", "1", "--data"),
        ("audit", "model", "--levels=2", "--draws=2", "--steps=1", "--n=16", "--data"),
        (
            "evaluate",
            "model",
            "--sampler",
            "ddim",
            "--steps",
            "2",
            "--resamples",
            "0",
            "--metrics",
            "mmd",
            "--data",
        ),
    ],
)
def test_images_of_odd_sizes_are_resized_for_a_model_as_they_were_for_its_training(
    command, photos, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    net = built(UNet, 3, channels=(2,))
    model = ScoreModel(net, VESDE(), (3, 4, 4))
    model.transform = data.BYTES
    model.save_pretrained("model")
    assert main([*command, photos]) == 1
    assert "the images have different sizes" in said(capsys)
    assert main([*command, photos, "--size", "4"]) == 0
    if command[0] != "suggest":
        capsys.readouterr()
        assert main([*command, photos, "--size", "5"]) == 1
        assert "but the model's have (3, 4, 4); resize them" in said(capsys)


def test_noise_levels_are_suggested_in_the_units_that_would_be_learnt(tmp_path, capsys):
    path = tmp_path / "far.npy"
    np.save(path, 1000 + 50 * np.random.default_rng(0).standard_normal((200, 2)))
    for options, std in ((["--standardize"], 1), ([], 50)):
        assert main(["suggest", str(path), *options]) == 0
        found = re.search(r"sigma_data +([\d.]+)", capsys.readouterr().out)
        assert float(found[1]) == pytest.approx(std, rel=0.2)


# train


@pytest.mark.slow
@pytest.mark.filterwarnings("default:.*learning rate was chosen for 2:RuntimeWarning")
def test_train_starts_then_reports_that_it_is_finished_then_continues(tmp_path, capsys):
    assert train(tmp_path, steps=2) == 0
    out = capsys.readouterr().out
    assert out.startswith(
        "data: digits, 1,797 samples, each a grey image of 8x8 pixels; given label: 10 "
    )
    assert re.search(r"\nmodel: UNet, [\d,]+ parameters\nnoise: variance exploding, ", out)
    assert "\nstarting at step 0 of 2\n" in out
    # on a busy machine a sampler that measures nothing is proposed
    assert re.search(
        rf"next, to see samples( at once .*)?:\n  scoresde sample {tmp_path} .*png", out
    )
    assert train(tmp_path, steps=2) == 0
    assert capsys.readouterr().out.endswith(
        "\nfinished: all 2 steps are done; a larger --steps continues\n"
        f"next, to see samples:\n  scoresde sample {tmp_path} --out samples.png\n"
    )
    assert train(tmp_path, steps=3) == 0
    out, err = capsys.readouterr()
    assert "its learning rate was chosen for 2" in err
    assert "\nresuming at step 2 of 3\n" in out
    assert "\ndone: 3 steps, the last 1 in " in out


@pytest.mark.slow
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("--lr 0.5", "belongs to another configuration: lr was 0.01 and is 0.5; take the old "),
        ("--seed 1", "belongs to another configuration: seed was 0 and is 1; "),
        ("--batch-size 9", "belongs to another configuration: --batch-size was 8 and is 9; "),
        (
            "--steps 3",
            "3 is smaller, but steps may only be increased; take --steps 4, or another folder",
        ),
        ("--sde VPSDE", "belongs to another sde: it was VESDE("),
        ("--channels 6", "belongs to another network: it was UNet("),
    ],
)
def test_another_configuration_in_the_folder_is_an_error_that_names_it(
    options, message, run, capsys
):
    before = {p: p.read_bytes() for p in run.rglob("*") if p.is_file()}
    assert train(run, "--save-every", "2", *options.split()) == 1
    assert message in said(capsys)
    assert {p: p.read_bytes() for p in run.rglob("*") if p.is_file()} == before


def test_other_data_in_the_folder_are_an_error_that_names_them(run, tmp_path, capsys):
    x = data.load("digits")
    np.savez(tmp_path / "x.npz", x=x.x[:100].numpy(), y=x.label[:100].numpy())
    assert train(run, "--save-every", "2", source=tmp_path / "x.npz") == 1
    assert "a run of other data, or" in (text := said(capsys))
    assert f"--data was digits and is {tmp_path / 'x.npz'}" in text


@pytest.mark.slow
@pytest.mark.parametrize(
    ("source", "options", "message"),
    [
        ("digits", "--channels 1", "--channels must be one width, 2 or more, per resolution"),
        ("digits", "--split test", "'digits' has no splits such as 'test'"),
        ("./nothing.npy", "", "nothing.npy does not exist"),
        (
            "./nothing.xyz",
            "",
            "nothing.xyz does not exist; pass a .npy, .npz, .pt",
        ),
    ],
)
def test_wrong_options_of_train_are_reported_in_one_line(
    source, options, message, tmp_path, capsys, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    assert train("run", *options.split(), source=source) == 1
    assert said(capsys).startswith(f"scoresde: error: {message}")
    assert not Path("run").exists()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("--lr 0", "lr must be positive and finite, got 0.0"),
        ("--steps -1", "steps must be an integer >= 1, got -1"),
        ("--learned-weight --loss ism", "a learned weight needs a positive loss"),
        ("--held-out 0 --patience 3", "patience needs held-out data"),
        ("--weight emd", "unknown weight 'emd'; did you mean 'edm'? choose from edm, "),
        ("--weight edm gamma=2", "unknown parameter 'gamma'; choose from var"),
        ("--weight edm var=x", "edm.var must be float, got 'x'"),
        ("--weight min_snr gamma=-1", "gamma must be positive, got -1.0"),
        ("--loss dsm control_variate=1", "dsm.control_variate must be bool, got 1"),
        ("--loss ssm control_variate=1", "unknown parameter 'control_variate'; choose from proj"),
        ("--loss fd_ssm step", "cannot read 'step'; write parameters as NAME=VALUE"),
        ("--law uniform mean=2", "uniform has no parameters, got mean=2"),
    ],
)
def test_a_wrong_value_is_reported_before_anything_is_made(options, message, tmp_path, capsys):
    with pytest.raises(SystemExit) as ended:
        train(tmp_path / "run", *options.split())
    assert ended.value.code == 2
    assert message in " ".join(capsys.readouterr().err.replace("│", " ").split())
    assert not (tmp_path / "run").exists()


@pytest.mark.long
def test_every_loss_can_be_trained_by_its_name_and_is_rebuilt_from_the_file(tmp_path, capsys):
    np.save(tmp_path / "x.npy", np.random.default_rng(0).normal(size=(40, 2)).astype("f4"))
    for i, words in enumerate(
        (
            "--loss ism --weight power p=1 --law uniform",
            "--loss ssm projection=gaussian --weight g2 --law importance --stratified",
            "--loss fd_ssm step=0.1 --weight flow",
            "--loss dsm control_variate=True --weight min_snr gamma=3",
            "--learned-weight --weight sigma2",
            "--held-out 0.2 --patience 3",
        )
    ):
        out, again = tmp_path / f"{i}", tmp_path / f"again-{i}"
        assert train(out, *words.split(), source=tmp_path / "x.npy", steps=2) == 0, said(capsys)
        assert main(["train", "--config", str(out / "config.toml"), "--out", str(again)]) == 0
        assert (
            different(out / "step-00000002.safetensors", again / "step-00000002.safetensors") == []
        )
        assert (out / "config.toml").read_bytes() == (again / "config.toml").read_bytes()
    assert (out / "best/model.safetensors").exists()


@pytest.mark.slow
def test_train_refuses_a_folder_that_it_cannot_use_before_the_work(tmp_path, capsys):
    (tmp_path / "file").write_text("")
    assert train(tmp_path / "file") == 1
    assert f"'{tmp_path / 'file'}' is a file; name a folder" in said(capsys)
    ScoreModel(built(MLP, 2, hidden=(4,)), VESDE(), (2,)).save_pretrained(tmp_path / "model")
    assert train(tmp_path / "model") == 1
    assert "holds model.safetensors, which a new run would overwrite, but no checkpoint" in said(
        capsys
    )


@pytest.mark.long
@pytest.mark.parametrize("name", ["model", "step-00000004"])
def test_samples_do_not_replace_a_model_or_a_checkpoint(name, run, tmp_path, capsys):
    path = run / f"{name}.safetensors"
    before = path.read_bytes()
    words = ["sample", str(run), "--n", "2", "--steps", "2", "--out"]
    assert main([*words, str(path)]) == 1
    assert f"{path} does not hold samples" in said(capsys)
    assert path.read_bytes() == before
    samples = tmp_path / "samples.safetensors"
    assert [main([*words, str(samples)]) for _ in range(2)] == [0, 0]
    samples.write_bytes(b"of some other program")
    assert main([*words, str(samples)]) == 1
    assert samples.read_bytes() == b"of some other program"


def test_images_get_a_u_net_and_anything_else_an_mlp(vectors, tmp_path, capsys):
    folder = tmp_path / "images"
    folder.mkdir()
    for i in range(3):
        Image.new("RGB", (21, 18), (80 * i, 0, 255)).save(folder / f"{i}.png")
    assert train(tmp_path / "a", "--size", "17", source=folder, steps=1) == 0
    assert "3 samples, each a colour image of 17x17 pixels\n" in capsys.readouterr().out
    assert ScoreModel.from_pretrained(tmp_path / "a").net.config["patch"] == 1
    assert ScoreModel.from_pretrained(vectors).net.config["hidden"] == [4]


@pytest.mark.slow
@pytest.mark.parametrize("shape", [(1, 4, 4), (2, 4, 4), (2,)])
def test_the_command_that_is_printed_after_a_training_works(shape, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    np.save("x.npy", np.random.default_rng(0).standard_normal((20, *shape), dtype="f"))
    assert train(Path("my run"), source="x.npy", steps=1) == 0
    next_line = re.search(r"next, to see samples.*:\n  scoresde (.+)", capsys.readouterr().out)
    words = shlex.split(next_line[1])
    assert main([*words, "--n", "2", "--steps", "2"]) == 0


@pytest.mark.long
@pytest.mark.global_rng
def test_the_first_weights_depend_on_the_seed_and_on_no_global_state(tmp_path):
    for name, seed in (("a", "3"), ("b", "3"), ("c", "4")):
        torch.rand(1)
        assert train(tmp_path / name, "--seed", seed, steps=1) == 0
    a, b, c = (tmp_path / name / "model.safetensors" for name in "abc")
    assert different(a, b) == []
    assert different(a, c) != []


# Signals and faults


class SignalAtStep:
    """Define an update that sends its own process a signal in the second step."""

    def __init__(self, number):
        self.number, self.update = number, Update.__call__

    def __call__(self, update, step, batch):
        if step == 1:
            signal.raise_signal(self.number)
        return self.update(update, step, batch)


def signal_at_a_step(monkeypatch, number):
    act = SignalAtStep(number)
    monkeypatch.setattr(Update, "__call__", lambda update, step, batch: act(update, step, batch))


@pytest.mark.slow
def test_ctrl_c_saves_and_ends_in_130(tmp_path, capsys, monkeypatch):
    signal_at_a_step(monkeypatch, signal.SIGINT)
    assert train(tmp_path) == 130
    words = f"SIGINT at step 2; saved in {tmp_path}, from which a new run continues"
    assert said(capsys) == f"scoresde: {words}"
    monkeypatch.undo()
    assert train(tmp_path) == 0
    assert "resuming at step 2 of 4" in capsys.readouterr().out


@pytest.mark.slow
def test_sigterm_saves_and_ends_in_143(tmp_path, capsys, monkeypatch):
    signal_at_a_step(monkeypatch, signal.SIGTERM)
    with pytest.raises(SystemExit) as ended:
        train(tmp_path)
    assert ended.value.code == 143
    assert "stopped by SIGTERM at step 2; the same command resumes" in capsys.readouterr().out
    assert [step for step, _ in checkpoint.steps_in(tmp_path)] == [2]


def test_ctrl_c_while_drawing_ends_in_130(run, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(UNet, "forward", mock.Mock(side_effect=KeyboardInterrupt))
    assert main(["sample", str(run), "--out", str(tmp_path / "x.npy")]) == 130
    assert said(capsys) == "scoresde: interrupted"


def test_a_traceback_is_shown_on_request(monkeypatch, tmp_path):
    monkeypatch.setenv("SCORESDE_DEBUG", "1")
    with pytest.raises(DataError, match="does not exist"):
        train(tmp_path, source="./nothing.npy")


@pytest.mark.slow
@pytest.mark.filterwarnings("default")
def test_a_warning_is_one_line_too(tmp_path, capsys):
    assert train(tmp_path, "--save-every", "1", steps=2) == 0
    capsys.readouterr()
    edited(tmp_path / "step-00000002.safetensors", -9)
    assert train(tmp_path, "--save-every", "1", steps=2) == 0
    line = said(capsys)
    assert line.startswith("scoresde: warning: ")
    assert line.endswith("continuing from step-00000001.safetensors")


def test_a_closed_pipe_of_the_output_is_no_error(monkeypatch, capfd):
    """As in `scoresde info mnist | head -1`: no message, and nothing left to flush at the end."""
    turned = []
    monkeypatch.setattr(Info, "run", mock.Mock(side_effect=BrokenPipeError))
    monkeypatch.setattr(os, "dup2", lambda source, target: turned.append(target))
    assert main(["info", "mnist"]) == 1
    assert turned == [sys.stdout.fileno()]
    assert capfd.readouterr().err == ""


@pytest.mark.long
def test_a_run_killed_by_kill_9_ends_in_the_weights_of_one_that_never_was(tmp_path, capsys):
    options = ["--save-every", "5"]
    assert train(tmp_path / "whole", *options, steps=40) == 0
    folder = tmp_path / "killed"
    words = ["train", "--data", "digits", "--out", str(folder), "--steps", "40", *SMALL, *options]
    process = subprocess.Popen(
        [sys.executable, "-m", "scoresde", *words], stdout=subprocess.DEVNULL
    )
    try:
        while len(checkpoint.steps_in(folder)) < 2:
            assert process.poll() is None, "the run ended before it could be killed"
            time.sleep(0.002)
    finally:
        process.kill()
        process.wait()
    assert process.returncode == -signal.SIGKILL
    step = checkpoint.steps_in(folder)[-1][0]
    assert step < 40
    capsys.readouterr()
    assert main(words) == 0
    assert f"\nresuming at step {step} of 40\n" in capsys.readouterr().out
    for name in ("step-00000040.safetensors", "model.safetensors"):
        assert different(folder / name, tmp_path / "whole" / name) == []


@pytest.mark.slow
def test_a_pipe_in_place_of_a_log_does_not_block(tmp_path, capsys):
    assert train(tmp_path, steps=1) == 0
    (tmp_path / "log.jsonl").unlink()
    os.mkfifo(tmp_path / "log.jsonl")
    assert main(["info", str(tmp_path)]) == 1
    assert "log.jsonl, DAMAGED" in capsys.readouterr().out


@pytest.mark.parametrize(
    "words",
    [
        ["train", "--data", "digits", "--out", ""],
        ["train", "--data", "digits", "--out="],
        ["sample", "mnist", "--out", ""],
        ["info", ""],
        [""],
    ],
)
def test_an_empty_word_does_not_mean_the_current_folder(tmp_path, monkeypatch, capsys, words):
    """As of a variable of the shell that is not set."""
    monkeypatch.chdir(tmp_path)
    assert main(words) == 1
    assert "is empty" in said(capsys)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(sys.platform != "linux", reason="needs names that are not in UTF-8")
def test_data_whose_name_is_not_in_utf_8_are_refused_in_a_sentence(tmp_path, capsys):
    source = os.fsdecode(os.fsencode(tmp_path) + b"/x\xff.npy")
    np.save(source, np.eye(8, 2, dtype=np.float32))
    words = ["train", "--data", source, "--out", str(tmp_path / "run"), "--steps", "1"]
    assert main(words) == 1
    assert "is not valid UTF-8" in capsys.readouterr().err
    assert checkpoint.steps_in(tmp_path / "run") == []


@pytest.mark.long
def test_a_trained_model_has_its_pilot_unless_it_is_left_out(tmp_path, capsys, monkeypatch):
    np.save(tmp_path / "x.npy", np.random.default_rng(0).normal(size=(40, 2)).astype("f4"))
    run = functools.partial(train, source=tmp_path / "x.npy", steps=2)
    assert run(tmp_path / "short") == 0
    assert "measuring" not in capsys.readouterr().out
    assert ScoreModel.from_pretrained(tmp_path / "short").pilot is None
    monkeypatch.setattr("scoresde.cli.train._MANY", 0)
    assert run(tmp_path / "with") == 0
    assert capsys.readouterr().out.count("measuring how the score varies with noise") == 1
    known = ScoreModel.from_pretrained(tmp_path / "with").pilot
    assert known.nfe == 64
    assert [*known.choices] == [20]
    assert run(tmp_path / "without", "--no-pilot") == 0
    assert ScoreModel.from_pretrained(tmp_path / "without").pilot is None
    one, other = (
        store.read(tmp_path / name / "model.safetensors")[1] for name in ("with", "without")
    )
    one.pop("pilot")
    assert {**one, "training": 0} == {**other, "training": 0}
    assert main(["info", str(tmp_path / "with")]) == 0
    assert "which has a measured schedule" in capsys.readouterr().out
