"""Test `scoresde train` with conditions, and from a trained model."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from test_cli import different, said, train

from scoresde.cli import main
from scoresde.cli.begin import begin
from scoresde.cli.config import DataConfig, RunConfig
from scoresde.cli.csv_text import as_csv
from scoresde.data import Data, load
from scoresde.data.classes import classes_of
from scoresde.errors import InvalidValueError, ShapeError
from scoresde.nn import MLP, UNet
from scoresde.score import ScoreModel
from scoresde.sde import VESDE, VPSDE, Classes, Facts, Field, facts
from scoresde.training import Pictures, TrainConfig, Trainer
from scoresde.units import BYTES, Identity, Standardize

QUICK = ["--sampler", "ddim", "--steps", "2"]


def normal(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(("shape", "kind"), [((1, 8, 8), UNet), ((5,), MLP)])
def test_the_network_of_a_command_takes_all_conditions_of_the_data(shape, kind):
    own = {"forcing": normal(20, 2, 4, 4)} if kind is UNet else {"forcing": normal(20, 2, 3)}
    data = Data(normal(20, *shape), label=torch.arange(20) % 3, y=5 + 2 * normal(20, 4), **own)
    run, model, same = RunConfig(data=DataConfig(source="")).begun(data)
    assert isinstance(model.net, kind)
    assert same is data
    assert run.net.channels
    assert facts(model).conditions == data.kinds
    for name, (mean, std) in data.condition_moments().items():
        found = model.condition_units.moments()[name]
        torch.testing.assert_close(found, (mean.float(), std.float()))


@pytest.mark.slow
def test_shares_by_name_are_options_and_reach_the_file(tmp_path):
    assert train(tmp_path / "run", "--condition-dropout", "label", "0.5") == 0
    found = RunConfig.read(tmp_path / "run" / "config.toml")
    assert found.train.condition_dropout == {"label": 0.5}


@pytest.mark.slow
def test_pictures_have_the_conditions_of_the_data(tmp_path, monkeypatch):
    data = Data(normal(40, 2), y=normal(40, 3, seed=1))
    _, model, _ = RunConfig(data=DataConfig(source="")).begun(data)
    asked = []
    real = Pictures._condition

    def watched(self, kinds, n):
        asked.append(real(self, kinds, n))
        return asked[-1]

    monkeypatch.setattr(Pictures, "_condition", watched)
    pictures = Pictures(tmp_path, n=45)
    config = TrainConfig().changed(steps=2, batch_size=8, save_every=1, held_out=0.25)
    trainer = Trainer(model, data, config, folder=tmp_path, callbacks=[pictures])
    trainer.train()
    held = trainer.held_out.data.condition(slice(None))["y"]
    assert torch.equal(asked[0]["y"], torch.cat([held] * 5)[:45])
    assert (tmp_path / "samples.png").exists()


# From a model


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("init") / "run"
    assert train(folder, "--sde", "VPSDE") == 0
    return folder


def again(folder, source, *options, steps=2):
    words = ["--data", str(source), "--out", str(folder), "--steps", str(steps), "--warmup", "0"]
    return main(["train", *words, "--batch-size", "8", *options])


@pytest.fixture
def images(tmp_path):
    """Bytes of 8 x 8, from 0 to 16 as the digits are, with the labels 0 to 11."""
    x = (8 + 3 * normal(48, 1, 8, 8)).clamp(0, 16).byte()
    np.savez(tmp_path / "images.npz", x=x.numpy(), y=np.arange(48) % 12)
    return tmp_path / "images.npz"


@pytest.mark.slow
def test_a_run_can_begin_with_a_model_and_new_classes(trained, images, tmp_path, capsys):
    folder = tmp_path / "new"
    assert again(folder, images, "--init", str(trained)) == 0
    old, new = (ScoreModel.from_pretrained(path) for path in (trained, folder))
    assert (old.classes, new.classes) == (10, 12)
    assert (new.transform, new.sde) == (old.transform, VPSDE())
    assert torch.equal(new.mean, old.mean)
    assert torch.equal(new.var, old.var)
    run = RunConfig.read(folder / "config.toml")
    assert (run.init, run.sde) == (str(trained), VPSDE())
    assert again(folder, images, "--init", str(trained)) == 0  # it is finished
    # the same run without the option; another model would change nothing
    assert again(folder, images) == 0
    assert RunConfig.read(folder / "config.toml") == run
    capsys.readouterr()
    assert again(folder, images, "--init", str(folder)) == 1
    assert f"began with the model {trained}" in capsys.readouterr().err
    assert again(trained, images, "--init", str(folder)) == 1
    assert "began with a new model, so --init" in capsys.readouterr().err
    copy = tmp_path / "copy"
    assert main(["train", "--config", str(folder / "config.toml"), "--out", str(copy)]) == 0
    assert different(folder / "model.safetensors", copy / "model.safetensors") == []


@pytest.mark.slow
def test_a_run_that_begins_with_a_model_has_its_output_at_first(trained, images):
    old, data = ScoreModel.from_pretrained(trained), load(str(images))
    model, own = begin(str(trained), data)
    x, label = own.batch(slice(5)), {"label": torch.tensor([0, 4, 9, -1, 3])}
    assert torch.equal(model(x, 0.5, label), old(x, 0.5, label))
    new = {"label": torch.full((5,), 11)}
    assert torch.equal(model(x, 0.5, new), old(x, 0.5))
    assert own.transform == old.transform


def test_data_are_converted_to_the_units_of_the_model_and_absent_labels_are_missing(trained):
    raw = load("digits").raw[:20]
    assert load("digits").transform != BYTES
    model, own = begin(str(trained), Data(raw.float().contiguous()))
    assert own.transform == model.transform != Identity()
    assert own.kinds == {"label": Classes(10)}
    assert set(own.conditions["label"].tolist()) == {-1}


@pytest.mark.parametrize("n", [9, 11])
def test_names_of_other_classes_than_the_models_are_reported(trained, n):
    names = [chr(97 + i % n) for i in range(33)]
    data = load("digits")[:33]
    data = Data(data, label=classes_of(names, "the names"))
    with pytest.warns(UserWarning, match=f"has 10 classes of 'label' .* {n} named .*: 'a' is 0"):
        begin(str(trained), data)


@pytest.mark.global_rng
def test_a_model_of_vectors_learns_classes_beside_them():
    net = MLP(2, hidden=(4,), condition={"y": 3})
    grown = ScoreModel(net, VESDE(), (2,)).grown(3)
    assert facts(grown).conditions == {"label": Classes(3), "y": Field((3,))}
    with pytest.raises(InvalidValueError, match="y is in num_classes= and in condition="):
        grown.grown({"y": 2})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--channels", "8"], "--init keeps the network and the SDE of"),
        (["--sde", "EDMSDE"], "--init keeps the network and the SDE of"),
        (["--init", "nowhere"], "there is no folder 'nowhere'"),
    ],
)
def test_options_of_another_model_are_refused(trained, images, tmp_path, capsys, options, message):
    assert again(tmp_path / "new", images, "--init", str(trained), *options) == 1
    assert message in said(capsys)
    assert not (tmp_path / "new").exists()


def test_data_with_other_classes_than_the_models_are_refused(trained, tmp_path, monkeypatch):
    with pytest.raises(ShapeError, match=r"shape \(1, 4, 4\), but the samples of .* \(1, 8, 8\)"):
        begin(str(trained), Data(normal(5, 1, 4, 4)))
    plain = ScoreModel.from_pretrained(trained)
    plain.transform = Identity()
    plain.save_pretrained(tmp_path)
    scaled = Data(normal(5, 1, 8, 8), transform=Standardize((0.0,), (2.0,)))
    with pytest.raises(InvalidValueError, match="was trained on data without a transform"):
        begin(str(tmp_path), scaled)


@pytest.mark.slow
def test_a_column_that_is_named_alone_keeps_its_name_up_to_the_samples(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    rows = [f"{i},{i % 3}.5,{'oak' if i % 2 else 'fir'}" for i in range(24)]
    (tmp_path / "x.csv").write_text("\n".join(["a,b,species", *rows]))
    words = ["train", "--data", "x.csv", "--condition", "species", "--out", "run", "--steps", "2"]
    assert main([*words, "--channels", "8", "--batch-size", "4", "--quiet"]) == 0
    draw = ["sample", "run", "--steps", "2", "--sampler", "ddim", "--quiet", "--out"]
    assert main([*draw, "all.csv", "--n", "4"]) == 0
    lines = (tmp_path / "all.csv").read_text().splitlines()
    assert lines[0] == "a,b,species"
    assert [line.split(",")[2] for line in lines[1:]] == ["fir", "oak", "fir", "oak"]
    assert main([*draw, "oak.csv", "--n", "2", "--class", "oak"]) == 0
    model = ScoreModel.from_pretrained(tmp_path / "run")
    assert model.classes == 2
    assert load(tmp_path / "x.csv", condition="species").label is not None


def test_columns_of_whole_numbers_come_back_as_whole_numbers(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    rows = [f"{i % 7},{i / 3:.3f},{i % 5 + 20},{'ab'[i % 2] if i % 9 else ''}" for i in range(60)]
    (tmp_path / "t.csv").write_text("\n".join(["rings,mass,age,kind", *rows]))
    words = ["--condition", "kind", "--condition", "number:age", "--steps", "2"]
    assert main(["train", "--data", "t.csv", "--out", "run", *words]) == 0
    out = capsys.readouterr().out
    assert "(a, b), missing in 7, which are kept to learn the distribution" in out
    assert "held out: 6 samples, " in out
    assert out.index("evaluate with new data, by --data") < out.index("starting at step")
    model = ScoreModel.from_pretrained("run")
    assert main(["sample", "run", "--like", "t.csv", "--n", "60", *QUICK, "--out", "l.png"]) == 0
    assert "7 of 60 samples are drawn without kind" in capsys.readouterr().out
    beside = ["sample", "run", "--n", "60", *QUICK, "--out", "b.png", "--beside"]
    assert main([*beside, "t.csv"]) == 0  # these data have the conditions of the samples too
    assert "7 of 60 samples are drawn without kind" in capsys.readouterr().out
    assert main([*beside, "t.csv", "--class", "a"]) == 0
    assert "7 of 60" not in capsys.readouterr().out
    assert model.whole == ("rings",)
    assert facts(model).conditions["age"] == Field((1,))
    words = ["sample", "run", "--n", "6", "--sampler", "ddim", "--steps", "3", "--class", "a"]
    words += ["--condition", "age=21", "--out"]
    assert main([*words, "x.npy"]) == 0
    assert "rounded, since the data have only integers: rings" in capsys.readouterr().out
    assert main([*words, "own.npy", "--no-round"]) == 0
    rounded, own = np.load("x.npy"), np.load("own.npy")
    assert np.array_equal(rounded[:, 0], own[:, 0].round())
    assert np.array_equal(rounded[:, 1], own[:, 1])
    assert not np.array_equal(rounded, own)


def test_a_condition_with_the_name_of_a_column_has_a_column_of_its_own():
    known = Facts(conditions={"x0": Field((1,))})
    model = SimpleNamespace(columns=(), event_shape=(1,), facts=known)
    text = as_csv({"x": np.zeros((1, 1))}, model, {"x0": torch.ones(1, 1)})
    assert text == "x0,x0 x0\n0,1\n"
