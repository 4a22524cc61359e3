"""Test config files of runs: they are complete, reproduce the weights, and errors are refused."""

import dataclasses
import re
import tomllib
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import UserSDE, log_floats, sdes
from test_cli import different, said, train
from torch.distributed.run import get_args_parser

from scoresde.cli import main, toml
from scoresde.cli.choices import LawChoice, LossChoice, WeightChoice
from scoresde.cli.config import (
    DataConfig,
    NetOptions,
    ObjectiveConfig,
    RunConfig,
)
from scoresde.cli.sdes import sde_of, words_of
from scoresde.cli.train import Train
from scoresde.data import Data
from scoresde.errors import CheckpointError, InvalidTypeError, InvalidValueError, UnknownNameError
from scoresde.objectives import LOSSES, WEIGHTS, LearnedWeight, described
from scoresde.sde import LAWS, SDE, VESDE, VPSDE, Classes, NCSNLadder
from scoresde.suggestion import NetConfig
from scoresde.training import Averages, Compute, TrainConfig

OURS = sdes().filter(lambda sde: not isinstance(sde, UserSDE))


OBJECTIVES = {
    "loss": [
        *map(LossChoice, LOSSES),
        LossChoice("dsm", {"control_variate": True}),
        LossChoice("ism", {"exact": 3}),
        LossChoice("ssm", {"projection": "sphere", "variance_reduced": False}),
        LossChoice("fd_ssm", {"step": 0.1, "projection": "gaussian"}),
    ],
    "weight": [
        *map(WeightChoice, WEIGHTS),
        WeightChoice("min_snr", {"gamma": 3.0, "var": 0.25}),
        WeightChoice("edm", {"var": 2}),
        WeightChoice("power", {"p": 1.5}),
    ],
    "law": [*map(LawChoice, LAWS), LawChoice("lognormal", {"mean": -1, "std": 0.5})],
}


@st.composite
def runs(draw) -> RunConfig:
    """Any configuration, with every kind of field away from its default."""
    return RunConfig(
        data=DataConfig(
            source=draw(st.text(max_size=20)),
            size=draw(st.none() | st.integers(1, 99)),
            on_bad_image=draw(st.sampled_from(["raise", "skip"])),
        ),
        sde=draw(st.none() | OURS),
        net=NetOptions(
            channels=draw(st.none() | st.lists(st.integers(1, 512), max_size=4).map(tuple)),
            blocks=draw(st.none() | st.integers(1, 4)),
            dropout=draw(st.floats(0, 0.99)),
        ),
        objective=ObjectiveConfig(
            loss=draw(st.sampled_from(OBJECTIVES["loss"])),
            weight=draw(st.sampled_from(OBJECTIVES["weight"])),
            law=draw(st.none() | st.sampled_from(OBJECTIVES["law"])),
            stratified=draw(st.booleans()),
        ),
        train=TrainConfig().changed(
            steps=draw(st.integers(1, 2**40)),
            lr=draw(log_floats(1e-12, 1e3)),
            betas=(draw(st.floats(0, 0.999)), 0.5),
            bf16=draw(st.booleans()),
            decay=draw(st.sampled_from(["cosine", "constant"])),
            held_out=draw(st.floats(0.01, 0.9)),
            patience=draw(st.none() | st.integers(1, 9)),
            condition_dropout=draw(
                st.floats(0, 1) | st.dictionaries(st.sampled_from("ab"), st.floats(0, 1))
            ),
        ),
        init=draw(st.none() | st.text(max_size=20)),
        log_to=tuple(draw(st.lists(st.sampled_from(["tensorboard", "pictures"]), max_size=2))),
    )


def text(path, *lines):
    """Return a file of a run on the digits, with further lines."""
    path.write_text("\n".join(["[data]", 'source = "digits"', *lines]))
    return path


# The file


@pytest.mark.slow
@settings(max_examples=10)
@given(run=runs())
def test_a_configuration_comes_back_from_its_file(tmp_path_factory, run):
    path = tmp_path_factory.mktemp("config") / "config.toml"
    run.write(path)
    assert RunConfig.read(path) == run


@given(sde=OURS)
def test_an_sde_comes_back_from_the_words_of_the_command_line(sde):
    assert sde_of(words_of(sde)) == sde


def test_the_words_of_an_sde_say_what_differs_from_its_defaults():
    assert words_of(VPSDE()) == ["VPSDE"]
    assert words_of(VESDE(sigma_max=10, levels=20)) == ["VESDE", "levels=20", "sigma_max=10"]
    assert words_of(NCSNLadder((0.1, 2.0))) == ["NCSNLadder", "sigmas=0.1,2.0"]


@pytest.mark.parametrize("choice", [choice for found in OBJECTIVES.values() for choice in found])
def test_a_loss_a_weight_and_a_law_come_back_from_the_words_of_the_command_line(choice):
    assert type(choice).of_words(choice.as_words()) == choice
    assert choice.make() is not None


@pytest.mark.slow
@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("", "dsm_loss(weight=edm(0.25))"),
        ("--loss ssm projection=sphere", "ssm_loss(projection='sphere', weight=edm(0.25))"),
        ("--weight min_snr gamma=3", "dsm_loss(weight=min_snr(3, 0.25))"),
        ("--weight edm var=2", "dsm_loss(weight=edm(2))"),
        ("--law lognormal mean=0", "law=LogNormal(mean=0.0, std=1.2))"),
        ("--stratified --law importance", "law=Stratified(law=Importance()))"),
        (
            "--weight g2 --loss dsm control_variate=True",
            "dsm_loss(control_variate=True, weight=g2)",
        ),
        ("--learned-weight", "LearnedWeight( loss=dsm_loss, base=edm(0.25), law=None"),
    ],
)
def test_the_objective_is_given_by_its_options(words, expected):
    command = Train.parse(["--out", "run", "--data", "x", *words.split()])
    loss = command.settings.objective.build(VESDE(), 0.25)
    assert expected in described(loss)
    assert isinstance(loss, LearnedWeight) == ("learned" in words)


def test_a_short_file_means_the_defaults(tmp_path):
    assert RunConfig.read(text(tmp_path / "a.toml")) == RunConfig(data=DataConfig(source="digits"))


def test_a_whole_number_is_accepted_for_a_real_one(tmp_path):
    path = text(
        tmp_path / "a.toml",
        *("[train.optimiser]", "lr = 1", "[sde]", 'type = "VESDE"', "sigma_max = 9"),
    )
    run = RunConfig.read(path)
    assert (repr(run.sde), repr(run.train.optimiser.lr)) == (repr(VESDE(sigma_max=9.0)), "1.0")


@pytest.mark.parametrize(
    ("lines", "kind", "message"),
    [
        ("[train]\nstep = 4", UnknownNameError, "unknown key 'train.step'; did you mean 'train.st"),
        ("[trian]", UnknownNameError, "unknown key 'trian'; did you mean 'train'?"),
        ("[train]\nsteps = 'many'", InvalidTypeError, "train.steps must be int, got 'many'"),
        ("[train]\nsteps = 4.0", InvalidTypeError, "train.steps must be int, got 4.0"),
        ("[train]\nseed = true", InvalidTypeError, "train.seed must be int, got True"),
        ("[train.compute]\nbf16 = 1", InvalidTypeError, "train.compute.bf16 must be bool, got 1"),
        (
            "[train.optimiser]\nbetas = [0.9]",
            InvalidTypeError,
            r"train.optimiser.betas must be tuple\[float, float\]",
        ),
        ("[train]\nlr = 1", UnknownNameError, "unknown key 'train.lr'; it is 'train.optimiser.lr'"),
        (
            "[train.keeping]\nheld_out = 0.0\npatience = 2",
            InvalidValueError,
            "patience needs .* held_out=0.1",
        ),
        ("[objective]\nloss = 3", InvalidTypeError, "objective.loss must be a table, got 3"),
        (
            "[objective.loss]\ntype = 'ds'",
            UnknownNameError,
            "unknown loss 'ds'; did you mean 'dsm'",
        ),
        ("[objective.law]\nmean = 1", InvalidValueError, "the key objective.law.type is missing"),
        (
            "[objective.weight]\ntype = 'min_snr'\ngama = 3",
            UnknownNameError,
            "unknown parameter 'gama'; did you mean 'gamma'",
        ),
        (
            "[objective.weight]\ntype = 'min_snr'\ngamma = -3",
            InvalidValueError,
            "gamma must be positive, got -3.0",
        ),
        (
            "[objective]\nlearned_weight = true\nloss = {type = 'ism'}",
            InvalidValueError,
            "positive",
        ),
        ("[train.optimiser]\nlr = 0", InvalidValueError, "lr must be positive and finite, got 0.0"),
        ("[net]\nchannels = ['x']", InvalidTypeError, r"net.channels must be tuple\[int, \.\.\.\]"),
        ("[net]\nblocks = 'x'", InvalidTypeError, "net.blocks must be int, got 'x'"),
        ("[net]\ndropout = 1.0", InvalidValueError, r"dropout must lie in \[0, 1\), got 1.0"),
        ("on_bad_image = 'no'", InvalidTypeError, r"must be Literal\['raise', 'skip'\], got 'no'"),
        ("[sde]\ntype = 'VESD'", UnknownNameError, "unknown SDE 'VESD'; did you mean 'VESDE'?"),
        ("[sde]\nsigma_max = 9.0", InvalidValueError, "the key sde.type is missing"),
        ("[sde]\ntype = []", UnknownNameError, r"unknown SDE \[\]; choose from"),
        ("[sde]\ntype = 'VPSDE'\nsigma_max = 9.0", UnknownNameError, "unknown key 'sde.sigma_max'"),
        ("[sde]\ntype = 'VPSDE'\nT = 'x'", InvalidTypeError, "sde.T must be float, got 'x'"),
        (
            "[sde]\ntype = 'VPSDE'\nbeta_min = -1",
            InvalidValueError,
            "need 0 < beta_min <= beta_max",
        ),
        ("[sde]\ntype = 'NCSNLadder'", InvalidValueError, "the key sde.sigmas is missing"),
        ("x = = 1", InvalidValueError, "is not TOML: "),
    ],
)
def test_a_wrong_line_is_named_with_its_key(tmp_path, lines, kind, message):
    path = text(tmp_path / "a.toml", lines)
    with pytest.raises(kind, match=message) as caught:
        RunConfig.read(path)
    assert str(path) in str(caught.value)


def test_a_file_without_data_or_without_anything_is_refused(tmp_path):
    (tmp_path / "a.toml").write_text("sde = 3")
    with pytest.raises(InvalidTypeError, match="sde must be a table, got 3"):
        RunConfig.read(tmp_path / "a.toml")
    (tmp_path / "a.toml").write_text("[data]")
    with pytest.raises(InvalidValueError, match=r"the key data.source is missing"):
        RunConfig.read(tmp_path / "a.toml")
    (tmp_path / "a.toml").write_text("")
    with pytest.raises(InvalidValueError, match="the key data is missing"):
        RunConfig.read(tmp_path / "a.toml")
    (tmp_path / "a.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(InvalidValueError, match="is not TOML"):
        RunConfig.read(tmp_path / "a.toml")
    with pytest.raises(InvalidValueError, match=r"cannot read .*: Is a directory"):
        RunConfig.read(tmp_path)


def test_a_file_that_cannot_be_written_is_an_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(CheckpointError, match="cannot write"):
        RunConfig(data=DataConfig(source="digits")).write(tmp_path / "file" / "config.toml")


# The network


@pytest.mark.global_rng
def test_the_options_reach_the_network():
    own = NetConfig(type="unet", channels=(8, 8), blocks=2, patch=4, attention=(1,), dropout=0.25)
    expected = dict(channels=[8, 8], blocks=[2, 2], patch=4, attention=[1], dropout=0.25)
    assert (expected | {"num_classes": 3}).items() <= own.build(
        (1, 8, 8), {"label": Classes(3)}
    ).config.items()
    mlp = NetConfig(type="mlp", channels=(4,), dropout=0.5)
    assert mlp.build((2,), {}).config["dropout"] == 0.5


@pytest.mark.parametrize("option", [dict(blocks=2), dict(patch=2), dict(attention=(0,))])
def test_an_mlp_refuses_the_options_of_a_u_net(option):
    with pytest.raises(InvalidValueError, match=f"{next(iter(option))} is an option of U-Nets"):
        NetConfig(type="mlp", channels=(4,), **option)
    with pytest.raises(InvalidValueError, match=f"{next(iter(option))} is an option of U-Nets"):
        RunConfig(data=DataConfig(source=""), net=NetOptions(**option)).begun(
            Data(torch.arange(8.0).reshape(4, 2))
        )


# The command


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Return a run of four steps with options of every kind."""
    folder = tmp_path_factory.mktemp("config") / "run"
    options = "--sde VPSDE beta_max=10 --dropout 0.1 --betas 0.8 0.9 --seed 3 --decay constant"
    assert train(folder, *options.split()) == 0
    return folder


@pytest.fixture
def points(tmp_path, monkeypatch):
    """Data at a relative path."""
    monkeypatch.chdir(tmp_path)
    x = torch.randn(50, 2, generator=torch.Generator().manual_seed(0))
    np.save("points.npy", x.numpy())
    return "./points.npy"


@pytest.mark.slow
def test_the_file_of_a_run_repeats_it_bit_for_bit(run, tmp_path):
    assert main(["train", "--config", str(run / "config.toml"), "--out", str(tmp_path)]) == 0
    for name in ("model.safetensors", "step-00000004.safetensors"):
        assert different(run / name, tmp_path / name) == []
    assert (run / "config.toml").read_bytes() == (tmp_path / "config.toml").read_bytes()


@pytest.mark.slow
def test_the_file_holds_the_whole_run_and_nothing_is_left_open(run):
    own = RunConfig.read(run / "config.toml")
    assert (own.sde, own.train.optimiser.betas) == (VPSDE(beta_max=10.0), (0.8, 0.9))
    assert own.net == NetOptions(
        type="unet", channels=(4,), blocks=1, patch=1, attention=(), dropout=0.1
    )
    assert own.open() == set()
    found = tomllib.loads((run / "config.toml").read_text())
    assert found["train"].keys() == {field.name for field in dataclasses.fields(TrainConfig)}
    assert found["sde"].keys() == {"type", *toml.fields_of(VPSDE)} - {"levels"}


def test_options_override_the_file(run, tmp_path):
    file, out = str(run / "config.toml"), str(tmp_path)
    words = ["--config", file, "--out", out, "--steps", "2", "--sde", "VESDE", "sigma_max=7"]
    assert main(["train", *words]) == 0
    before, after = RunConfig.read(run / "config.toml"), RunConfig.read(tmp_path / "config.toml")
    changed = dataclasses.replace(before.train, steps=2)
    assert after == dataclasses.replace(before, sde=VESDE(sigma_max=7.0), train=changed)


def test_the_file_of_a_run_resumes_the_run(run, capsys, tmp_path):
    assert main(["train", f"--config={run / 'config.toml'}"]) == 0
    assert "finished: all 4 steps are done" in capsys.readouterr().out
    copy = tmp_path / "mine.toml"
    copy.write_bytes((run / "config.toml").read_bytes())
    with pytest.raises(SystemExit) as ended:  # only config.toml implies the folder
        main(["train", "--config", str(copy)])
    assert ended.value.code == 2
    assert "--out" in capsys.readouterr().err


@pytest.mark.global_rng
def test_the_first_weights_are_those_of_the_seed():
    def weights(seed):
        torch.rand(1)
        run = RunConfig(data=DataConfig(source=""), train=TrainConfig(seed=seed))
        return run.begun(Data(torch.arange(8.0).reshape(4, 2)))[1].net.stem.weight

    assert torch.equal(weights(1), weights(1))
    assert not torch.equal(weights(1), weights(2))


def test_another_run_leaves_the_file_as_it_was(run, capsys):
    before = (run / "config.toml").read_bytes()
    assert train(run, "--lr", "0.5") == 1
    lr = RunConfig.read(run / "config.toml").train.optimiser.lr
    words = f"another configuration: seed was 3 and is 0, lr was {lr} and is 0.5"
    assert words in said(capsys)
    assert (run / "config.toml").read_bytes() == before


@pytest.mark.slow
def test_a_relative_path_is_stored_as_it_was_given(points, tmp_path, monkeypatch, capsys):
    assert train("run", source=points, steps=1) == 0
    assert RunConfig.read(Path("run/config.toml")).data.source == points
    monkeypatch.chdir("run")
    assert main(["train", "--config", "config.toml"]) == 1
    assert "points.npy does not exist" in said(capsys)


def test_help_shows_the_values_of_the_file(run, capsys):
    with pytest.raises(SystemExit, match="0"):
        main(["train", "--config", str(run / "config.toml"), "--help"])
    shown = " ".join(capsys.readouterr().out.replace("│", " ").split())
    assert "(default: VPSDE beta_max=10.0)" in shown
    assert "(default: 0.8 0.9)" in shown


@pytest.mark.slow
@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("VESD", "unknown SDE 'VESD'; did you mean 'VESDE'?"),
        ("VPSDE sigma_max=2", "unknown key 'VPSDE.sigma_max'"),
        ("VESDE sigma_max", "cannot read 'sigma_max'; write the parameters"),
        ("VESDE sigma_max=ten", "cannot read 'sigma_max=ten'; write the parameters"),
        ("VESDE sigma_max=-2", "need 0 < sigma_min < sigma_max"),
        ("VESDE __class__=2", "unknown key 'VESDE.__class__'"),
        ("", "give the name of an SDE"),
    ],
)
def test_a_wrong_sde_is_reported_before_anything_is_made(words, message, tmp_path, capsys):
    with pytest.raises(SystemExit) as ended:
        train(tmp_path / "run", "--sde", *words.split())
    assert ended.value.code == 2
    assert message in " ".join(capsys.readouterr().err.replace("│", " ").split())
    assert not (tmp_path / "run").exists()


def test_a_missing_file_or_name_is_reported_in_one_line(tmp_path, capsys):
    assert main(["train", "--config", str(tmp_path / "no.toml")]) == 1
    assert f"there is no file {tmp_path / 'no.toml'}" in said(capsys)
    with pytest.raises(SystemExit) as ended:
        main(["train", "--config"])
    assert ended.value.code == 2


def test_the_tables_of_an_sde_name_its_class():
    assert toml.build(SDE, toml.tables(VESDE(levels=3)), "") == VESDE(levels=3)


def test_torchrun_leaves_every_option_to_the_command(capsys):
    """torchrun reads the beginning of one of its options as an abbreviation, at any position."""
    with pytest.raises(SystemExit, match="0"):
        main(["train", "--help"])
    options = sorted(set(re.findall(r"--[a-z][a-z0-9-]*", capsys.readouterr().out)))
    assert {"--log-to", "--log-every", "--config", "--sde", "--steps"} <= set(options)
    words = ["train", *(word for option in options for word in (option, "x"))]
    found = get_args_parser().parse_args(["--nproc-per-node", "2", "-m", "scoresde", *words])
    assert (found.training_script, found.training_script_args) == ("scoresde", words)


def test_words_are_not_booleans_and_integers_of_numpy_are_integers():
    for make in (
        lambda: Compute(bf16="false"),
        lambda: Averages(snapshot_half="no"),
        lambda: TrainConfig().changed(optimiser=None, lr=0.1),
    ):
        with pytest.raises(InvalidTypeError):
            make()
    steps = TrainConfig(steps=np.int64(5)).steps
    assert (type(steps), steps) == (int, 5)
