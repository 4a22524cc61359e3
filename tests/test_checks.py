"""Test arguments of a wrong type in every public function."""

import math
from dataclasses import dataclass, fields, replace

import numpy as np
import pytest
import torch
from methods import ALL
from strategies import SDES

from scoresde import (
    VESDE,
    VPSDE,
    EnergyScore,
    Moments,
    NCSNLadder,
    Pilot,
    ScoreModel,
    bits_per_dim,
    checkpoint,
    checks,
    dsm_loss,
    ism_loss,
    log_prob,
    pilot,
    sample,
)
from scoresde.checks import checksum
from scoresde.errors import CheckpointError, InvalidTypeError, InvalidValueError, ScoreSDEError
from scoresde.likelihood import LogProb, elbo, sample_with_log_prob
from scoresde.nn import MLP
from scoresde.noise import Noise
from scoresde.objectives import dsm_floor
from scoresde.samplers import DPMSolverPP, RestartInterval
from scoresde.sde import BetaLadder, LogNormal, Stratified
from scoresde.targets import Gaussian

X, NOISE = torch.zeros(3, 2), Noise.of(0, 3)
SDE = VESDE()
SCORE = Gaussian([0.0, 1.0], std=[1.0, 0.5]).at(SDE)
FOUND = LogProb(torch.zeros(3), {}, torch.zeros(3), 2)

# Arguments given in place of a number, a tensor or an object of this package.
WRONG_TYPES = {
    "times of a loss": lambda: dsm_loss(SCORE, SDE, X, t="a", noise=NOISE),
    "law of times": lambda: dsm_loss(SCORE, SDE, X, law=3, noise=NOISE),
    "law in a law": lambda: Stratified(3),
    "numbers of a law": lambda: LogNormal("a"),
    "weight's value": lambda: dsm_loss(SCORE, SDE, X, t=0.5, weight=lambda sde, t: 3, noise=NOISE),
    "generator of times": lambda: dsm_loss(SCORE, SDE, X, generator=3),
    "generator of noise": lambda: dsm_loss(SCORE, SDE, X, t=0.5, generator=3),
    "data of a floor": lambda: dsm_floor(SDE, torch.tensor(0.5), 3),
    "number of times": lambda: SDE.sample_times("a"),
    "time of a density": lambda: log_prob(SCORE, SDE, X, t="a"),
    "tolerance": lambda: log_prob(SCORE, SDE, X, rtol="a"),
    "data of a density": lambda: log_prob(SCORE, SDE, X, moments=3),
    "moments of a bound": lambda: elbo(SCORE, SDE, X, moments=3),
    "dtype": lambda: sample_with_log_prob(SCORE, SDE, shape=(2,), seed=0, dtype="f"),
    "whole dtype": lambda: sample_with_log_prob(SCORE, SDE, shape=(2,), seed=0, dtype=torch.int),
    "device": lambda: sample_with_log_prob(SCORE, SDE, shape=(2,), seed=0, device="x"),
    "dtype of samples": lambda: sample(SCORE, SDE, shape=(2,), seed=0, dtype="f"),
    "times of a grid": lambda: sample(SCORE, SDE, shape=(2,), seed=0, times="x"),
    "transform of bits": lambda: bits_per_dim(FOUND, X, data_transform=3),
    "time of a marginal": lambda: SDE.marginal(X, "a"),
    "levels": lambda: NCSNLadder("a"),
    "number for levels": lambda: NCSNLadder(3),
    "level": lambda: NCSNLadder((None, 1.0)),
    "end of a ladder": lambda: NCSNLadder.geometric("a", 1.0, 3),
    "betas": lambda: BetaLadder("ab"),
    "mean": lambda: Moments("a", var=1.0),
    "energy": lambda: EnergyScore(3),
}


@pytest.mark.parametrize("what", WRONG_TYPES)
def test_another_type_is_refused_in_a_sentence(what):
    with pytest.raises(ScoreSDEError, match=r"got |cannot be used here"):
        WRONG_TYPES[what]()


PROBLEMS = (dsm_loss, ism_loss, log_prob, lambda model, sde, x: sample(model, sde, x=x, steps=2))


def numbers(owner):
    return [field.name for field in fields(owner) if field.init and field.type in ("float", "int")]


@pytest.mark.parametrize("wrong", ["a", None, [1.0], (1, 2), 1j, torch.tensor(1.0)], ids=repr)
def test_no_field_that_is_a_number_takes_anything_else(wrong):
    for owner in (*ALL.values(), *SDES.values(), RestartInterval()):
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


def test_numbers_of_numpy_become_numbers_of_python():
    """Torch does not assign a numpy.float32, and files store others than they were."""
    sde = VPSDE(T=np.float32(1), eps=np.float32(0.5), beta_max=np.int64(20), levels=np.int8(5))
    kinds = [type(value) for value in (sde.T, sde.eps, sde.beta_max, sde.levels)]
    assert kinds == [float, float, int, int]
    assert sde.times()[-1] == 0.5


def test_a_window_is_made_of_numbers():
    with pytest.raises(InvalidTypeError, match=r"window .* a tuple of 2 numbers, got \('a', 'b'\)"):
        DPMSolverPP(window=("a", "b"))


@pytest.mark.parametrize("problem", PROBLEMS)
def test_a_problem_begins_with_a_score_and_an_sde(problem):
    x = torch.zeros(2, 3)
    with pytest.raises(InvalidValueError, match="has no SDE in its facts; give its SDE"):
        problem(lambda x, t: -x, None, x)
    for sde in ("vp", 3, VPSDE):
        with pytest.raises(InvalidTypeError, match="SDE"):
            problem(lambda x, t: -x, sde, x)
    for model in (None, 3, "mnist", ScoreModel):
        with pytest.raises(InvalidTypeError, match="callable"):
            problem(model, VPSDE(), x)
    for data in (None, [1.0], 3):
        with pytest.raises(ScoreSDEError):
            problem(lambda x, t: -x, VPSDE(), data)


@pytest.mark.global_rng
@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("factor", torch.full((8, 8), math.nan), "NaN"),
        ("factor", torch.zeros(8, 5), "must have the shape"),
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
    with pytest.raises(CheckpointError, match=rf"model\.safetensors: its pilot is .*{message}"):
        ScoreModel.from_pretrained(tmp_path)


@pytest.mark.global_rng  # a network draws its first weights
def test_a_pilot_is_measured_with_the_model_s_own_sde():
    model = ScoreModel(MLP(2, hidden=(4,)), VPSDE(), (2,))
    with pytest.raises(InvalidValueError, match="this score belongs to VPSDE"):
        pilot(model, VPSDE(beta_max=10.0), n=2, steps=5, progress=False)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_a_checksum_depends_on_each_number_and_on_their_order(dtype):
    x = torch.randn(7, 30, generator=torch.Generator().manual_seed(0)).to(dtype)
    first = int(checksum(x))
    assert first == int(checksum(x.clone()))
    for k in (0, 1, 100, -1):
        other = x.clone()
        other.view(-1)[k] = torch.nextafter(x.view(-1)[k].float(), torch.tensor(9.0)).to(dtype) + 1
        assert int(checksum(other)) != first
    assert int(checksum(x.flip(1))) != first
    assert int(checksum(x.mT)) != first
    assert int(checksum(x[:0])) == 0
