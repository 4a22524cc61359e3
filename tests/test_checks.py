"""Arguments of another type than declared, at every door."""

import math
from dataclasses import dataclass, fields, replace

import pytest
import torch
from methods import ALL
from strategies import SDES

from scoresde import (
    VPSDE,
    Moments,
    Pilot,
    ScoreModel,
    checkpoint,
    checks,
    dsm_loss,
    ism_loss,
    log_prob,
    pilot,
    sample,
)
from scoresde.errors import CheckpointError, InvalidTypeError, InvalidValueError, ScoreSDEError
from scoresde.nn import MLP
from scoresde.samplers import DPMSolverPP, Stretch

PROBLEMS = (dsm_loss, ism_loss, log_prob, lambda model, sde, x: sample(model, sde, x=x, steps=2))


def numbers(owner):
    return [field.name for field in fields(owner) if field.init and field.type in ("float", "int")]


@pytest.mark.parametrize("wrong", ["a", None, [1.0], (1, 2), 1j, torch.tensor(1.0)], ids=repr)
@pytest.mark.parametrize("owner", [*ALL.values(), *SDES.values(), Stretch()], ids=repr)
def test_no_field_that_is_a_number_takes_anything_else(owner, wrong):
    for name in numbers(owner):
        with pytest.raises(ScoreSDEError, match=name):
            replace(owner, **{name: wrong})


def test_there_are_numbers_to_refuse():
    assert numbers(SDES["vp"]) == ["T", "eps", "beta_min", "beta_max"]
    assert sum(len(numbers(method)) for method in ALL.values()) > 30


def test_annotations_are_read_as_classes_too():
    @dataclass
    class Mine:
        kappa: float = 1.0
        k: int = 2
        free: object = None

    checks.check_fields(Mine(1, torch.tensor(3).item(), "anything"))
    with pytest.raises(InvalidTypeError, match=r"k of Mine must be an integer, got 2\.5"):
        checks.check_fields(Mine(k=2.5))
    checks.check_fields(Mine(float("inf")))
    with pytest.raises(InvalidValueError, match="kappa must be finite, got inf"):
        checks.check_fields(Mine(float("inf")), finite=True)


def test_a_window_is_made_of_numbers():
    with pytest.raises(InvalidValueError, match=r"window must be .* got \('a', 'b'\)"):
        DPMSolverPP(window=("a", "b"))


@pytest.mark.parametrize("problem", PROBLEMS)
def test_a_problem_begins_with_a_model_and_an_sde(problem):
    x = torch.zeros(2, 3)
    for sde in (None, "vp", 3, VPSDE):
        with pytest.raises(InvalidTypeError, match="second argument is an SDE"):
            problem(lambda x, t: -x, sde, x)
    for model in (None, 3, "mnist"):
        with pytest.raises(InvalidTypeError, match="model must be a callable"):
            problem(model, VPSDE(), x)
    for data in (None, [1.0], 3):
        with pytest.raises(ScoreSDEError):
            problem(lambda x, t: -x, VPSDE(), data)


@pytest.mark.global_rng
@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("factor", torch.full((8, 8), math.nan), "NaN"),
        ("factor", torch.zeros(8, 5), "has shape"),
        ("levels", torch.arange(8.0).flip(0), "must increase"),
        ("mean", torch.zeros(3), "mean in Moments has shape"),
        ("var", torch.tensor([-1.0, 1.0]), "negative"),
    ],
)
def test_a_file_with_a_foreign_pilot_is_named(tmp_path, name, value, message):
    model = ScoreModel(MLP(2, hidden=(4,)), VPSDE(), (2,))
    levels = torch.arange(8, dtype=torch.float64)
    model.pilot = Pilot(levels, torch.eye(8, dtype=torch.float64), Moments(0.0, var=1.0), 8)
    model.save_pretrained(tmp_path)
    tensors, config = checkpoint.load_tensors(tmp_path / "model.safetensors")
    checkpoint.save_tensors(
        tmp_path / "model.safetensors", tensors | {f"pilot.{name}": value}, config
    )
    with pytest.raises(CheckpointError, match=rf"model\.safetensors holds .* pilot: .*{message}"):
        ScoreModel.from_pretrained(tmp_path)


@pytest.mark.global_rng  # a network draws its first weights
def test_a_pilot_is_measured_with_the_model_s_own_sde():
    model = ScoreModel(MLP(2, hidden=(4,)), VPSDE(), (2,))
    with pytest.raises(InvalidValueError, match="this score belongs to VPSDE"):
        pilot(model, VPSDE(beta_max=10.0), n=2, steps=5, progress=False)
