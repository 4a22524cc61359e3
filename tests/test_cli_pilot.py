"""Test that a pilot measured by one command is used by the next."""

import numpy as np
import pytest
import torch

from scoresde import VESDE, ScoreModel, checkpoint, nn
from scoresde.cli import main
from scoresde.cli.drawing import fingerprint
from scoresde.cli.standing import model_of
from scoresde.pretrained import store
from scoresde.score import pilot_file
from scoresde.score.pilot_file import PilotFile


@pytest.fixture
def saved(tmp_path, monkeypatch):
    """Return the folder of a model whose pilot counts as slow."""
    monkeypatch.setattr(pilot_file, "SLOW_PILOT", 0.0)
    monkeypatch.setattr("scoresde.cli.sample.SLOW_PILOT", 0.0)
    monkeypatch.setattr("scoresde.cli.pilots.SLOW_PILOT", 0.0)
    monkeypatch.chdir(tmp_path)
    with torch.random.fork_rng(devices=[]):
        ScoreModel(nn.MLP(2, hidden=(4,)), VESDE(), (2,)).save_pretrained("model")
    return tmp_path / "model"


def test_a_pilot_is_measured_once_and_the_samples_stay_the_same(saved, capsys, monkeypatch):
    words = ["sample", "model", "--n", "4", "--steps", "6", "--out"]
    before = fingerprint(model_of("model"))
    assert main([*words, "a.npy"]) == 0
    first = capsys.readouterr().out
    assert first.count("measuring how the score varies with noise") == 1
    assert "s, once; --sampler dpmpp_2m draws without" in first
    assert PilotFile.beside(saved / "model.safetensors").path.is_file()
    measured = ScoreModel.from_pretrained("model")
    assert measured.pilot is not None
    assert measured.given_pilot is None
    assert fingerprint(measured) == before
    monkeypatch.setattr("scoresde.sampling.model_pilot.PilotRun", None)  # calling it now fails
    assert main([*words, "b.npy"]) == 0
    assert "--sampler dpmpp_2m" not in capsys.readouterr().out
    assert np.array_equal(np.load("a.npy"), np.load("b.npy"))


def test_the_pilot_of_other_weights_and_a_damaged_one_are_not_taken(saved):
    model_of("model").measured_pilot()
    model = model_of("model")
    assert model.pilot is not None
    with torch.no_grad():
        next(model.parameters()).add_(0.1)
    model.save_pretrained("model")
    assert model_of("model").pilot is None
    kept = PilotFile.beside(saved / "model.safetensors")
    for wrong in ({}, {"weights": pilot_file.weights_of(model)}):
        checkpoint.save_tensors(kept.path, {}, wrong)
        assert model_of("model").pilot is None
    for numbers in ([], {"choices": []}, {"nfe": "x"}):
        known = {"weights": pilot_file.weights_of(model), "pilot": numbers}
        checkpoint.save_tensors(kept.path, {}, known)
        assert model_of("model").pilot is None
    kept.path.write_bytes(b"")
    assert model_of("model").pilot is None


def test_a_pilot_measured_in_python_is_kept_beside_the_model_but_not_that_of_other_weights(saved):
    path = PilotFile.beside(saved / "model.safetensors").path
    trained = ScoreModel.from_pretrained(saved)
    with torch.no_grad():
        next(trained.parameters()).add_(0.1)
    assert trained.measured_pilot() is not None
    assert not path.exists()
    assert ScoreModel.from_pretrained(saved).measured_pilot() is not None
    assert path.is_file()
    assert ScoreModel.from_pretrained(saved).pilot is not None


def test_the_pilot_of_a_model_in_another_precision_does_not_replace_that_of_its_file(saved):
    assert ScoreModel.from_pretrained(saved).double().measured_pilot() is not None
    assert not PilotFile.beside(saved / "model.safetensors").path.exists()


def test_nothing_is_written_beside_a_packaged_model_that_is_opened_by_its_path():
    assert ScoreModel.from_pretrained(store.packaged("mnist")).keeper is None


def test_another_file_of_that_name_is_not_replaced(saved):
    path = PilotFile.beside(saved / "model.safetensors").path
    for text in ((saved / "model.safetensors").read_bytes(), b"mine"):
        path.write_bytes(text)
        assert model_of("model").measured_pilot() is not None
        assert path.read_bytes() == text


def test_a_folder_that_cannot_be_written_causes_no_error(saved, monkeypatch):
    def fail(*args):
        raise checkpoint.NewerError("read only")

    monkeypatch.setattr(pilot_file.checkpoint, "save_tensors", fail)
    model = model_of("model")
    assert model.measured_pilot() is not None
    assert not PilotFile.beside(saved / "model.safetensors").path.exists()


def test_a_quick_pilot_leaves_no_file(saved, monkeypatch):
    monkeypatch.setattr(pilot_file, "SLOW_PILOT", 1e9)
    model_of("model").measured_pilot()
    assert [path.name for path in saved.iterdir() if "pilot" in path.name] == []
