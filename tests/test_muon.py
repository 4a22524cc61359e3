"""Test Muon: orthogonal steps for inner matrices, and steps of Adam for other weights."""

import functools
import tomllib
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from scoresde import checkpoint
from scoresde.cli import main
from scoresde.data import Data
from scoresde.errors import InvalidTypeError, InvalidValueError, UnknownNameError
from scoresde.nn import MLP, UNet
from scoresde.score import ScoreModel
from scoresde.sde import VESDE, Moments
from scoresde.training import Optimiser, TrainConfig, Trainer
from scoresde.training.muon import Muon, orthogonal
from scoresde.training.optimisers import matrices, optimizer_of

CONFIG = TrainConfig().changed(
    rule="muon", weight_decay=0.1, steps=9, batch_size=8, warmup=2, save_every=4
)
sizes = st.integers(1, 9)
seeds = st.integers(0, 2**32 - 1)


def drawn(seed, *shape):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float64)


def make(dtype=torch.float32):
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        net = UNet(2, channels=(4, 6), features=8, condition={"forcing": 1})
    return ScoreModel(net, VESDE(), (2, 6, 6), moments=Moments(0.0, var=1.0)).to(dtype)


def trained(dtype=torch.float32, folder=None, stops=(), **options):
    x = drawn(0, 20, 2, 6, 6).to(dtype)
    data = Data(x, forcing=x[:, :1])
    for steps in (*stops, None):
        trainer = Trainer(make(dtype), data, CONFIG.changed(**options), folder=folder)
        trainer.train(steps)
    return trainer._packed()


def quintic(s):
    """What five rounds make of a singular value, for hands."""
    for _ in range(5):
        s = 3.4445 * s - 4.7750 * s**3 + 2.0315 * s**5
    return s


def by_svd(matrix):
    """Return the orthogonal step, by singular values."""
    u, s, v = np.linalg.svd(matrix, full_matrices=False)
    return (u * quintic(s / np.sqrt((s**2).sum()))) @ v


# The step


@given(rows=sizes, columns=sizes, n=st.integers(1, 3), seed=seeds)
def test_an_orthogonal_step_keeps_singular_vectors_and_moves_singular_values(
    rows, columns, n, seed
):
    x = drawn(seed, n, rows, columns)
    expected = torch.stack([torch.from_numpy(by_svd(one.numpy())) for one in x])
    torch.testing.assert_close(orthogonal(x), expected, rtol=1e-9, atol=1e-9)


@given(low=st.floats(0.01, 1))
def test_all_singular_values_from_a_hundredth_on_become_about_one(low):
    assert 0.6 < quintic(low) < 1.25


def test_no_gradient_is_no_step():
    assert not orthogonal(torch.zeros(2, 3, 4)).any()


@pytest.mark.slow
@given(shape=st.tuples(sizes, sizes) | st.tuples(sizes, sizes, sizes, sizes), seed=seeds)
def test_two_steps_are_those_of_the_formula(shape, seed):
    start, first, second = drawn(seed, 3, *shape)
    p = nn.Parameter(start.clone())
    muon = Muon([{"params": [p], "matrices": True, "weight_decay": 0.5}], momentum=0.9, lr=0.1)
    for gradient in (first, second):
        p.grad = gradient
        muon.step()
    w, rows = start.numpy().reshape(shape[0], -1), shape[0]
    g1, g2 = (g.numpy().reshape(rows, -1) for g in (first, second))
    m1 = 0.1 * g1
    m2 = 0.9 * m1 + 0.1 * g2
    length = 0.1 * 0.2 * np.sqrt(max(w.shape))
    w = 0.95 * w - length * by_svd(0.9 * m1 + 0.1 * g1)
    w = 0.95 * w - length * by_svd(0.9 * m2 + 0.1 * g2)
    np.testing.assert_allclose(p.detach().numpy().reshape(rows, -1), w, rtol=1e-9, atol=1e-9)


@pytest.mark.skipif(not hasattr(torch.optim, "Muon"), reason="torch has Muon from 2.9 on")
@pytest.mark.parametrize("shape", [(6, 4), (4, 6), (5, 5)])
def test_matrices_move_as_by_torchs_own_muon(shape):
    ours, theirs = (nn.Parameter(drawn(1, *shape).float()) for _ in range(2))
    muon = Muon([{"params": [ours], "matrices": True}], lr=0.1, half=True, weight_decay=0.2)
    torchs = torch.optim.Muon([theirs], lr=0.1, weight_decay=0.2, adjust_lr_fn="match_rms_adamw")
    for step in range(5):
        ours.grad = theirs.grad = drawn(2 + step, *shape).float()
        muon.step()
        torchs.step()
    # both are in bfloat16, whose sums need not be in the same order
    torch.testing.assert_close(ours, theirs, rtol=0.02, atol=0.02)


def test_all_other_weights_move_as_by_adam():
    # the head begins at zero, so that at the first step no gradient reaches other layers
    muon, adam = (trained(rule=rule, weight_decay=0.0, steps=2) for rule in ("muon", "adam"))
    differ = {k for k in adam if k.startswith("model.") and not torch.equal(muon[k], adam[k])}
    inside = {f"model.net.{n}" for n, p in make().net.named_parameters() if _inside(n, p)}
    assert {name for name in inside if "conv2" in name} <= differ <= inside


def _inside(name, p):
    return name.startswith("body") and p.ndim > 1


def test_a_step_in_bfloat16_is_the_same_up_to_rounding():
    x = drawn(3, 4, 8, 24).float()
    torch.testing.assert_close(
        orthogonal(x.bfloat16()).float(), orthogonal(x), rtol=0.05, atol=0.03
    )


# Which weights


def test_the_matrices_of_our_networks_are_those_between_the_first_and_the_last_layer():
    net = make().net
    own = {id(p) for p in matrices(net)}
    names = {name for name, p in net.named_parameters() if id(p) in own}
    assert names == {n for n, p in net.named_parameters() if _inside(n, p)}
    with torch.random.fork_rng(devices=[]):
        mlp = MLP(3, hidden=(4, 5))
    assert all("layers" in n for n, p in mlp.named_parameters() if p in set(matrices(mlp)))
    assert matrices(ScoreModel(mlp, VESDE(), (3,))) == matrices(mlp)


def test_of_another_network_they_are_all_but_its_first_and_last():
    with torch.random.fork_rng(devices=[]):
        net = nn.Sequential(*(nn.Linear(3, 3) for _ in range(4)))
    net[2].weight.requires_grad_(False)
    assert matrices(net) == [net[1].weight]


@pytest.mark.parametrize("outer", [5, "ab", ["nothing"], [0], ["weight"]])
def test_a_network_with_wrong_outer_parts_is_reported(outer):
    with torch.random.fork_rng(devices=[]):
        net = nn.Sequential(*(nn.Linear(2, 2) for _ in range(3)))
    net.outer = outer
    with pytest.raises(
        InvalidTypeError, match="the attribute outer of a Sequential must list names"
    ):
        matrices(net)


def test_a_function_inside_a_score_has_no_matrices():
    with torch.random.fork_rng(devices=[]):
        score = nn.Sequential(*(nn.Linear(2, 2) for _ in range(3)))
    score.net = nn.functional.relu
    assert [w is score[1].weight for w in matrices(score)] == [True]


def test_only_matrices_decay_under_either_optimiser():
    model = make(torch.float64)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    inside = set(matrices(model))
    for rule in ("adam", "muon"):
        config = TrainConfig().changed(rule=rule, weight_decay=0.5, lr=0.1)
        optimizer = optimizer_of(model, [list(model.parameters())], config)
        for p in model.parameters():
            p.grad = torch.zeros_like(p)
        optimizer.step()
    for name, p in model.named_parameters():
        share = 0.95**2 if p in inside else 1
        torch.testing.assert_close(p.detach(), share * before[name])


# In a run


@functools.cache
def whole():
    return trained()


@pytest.mark.slow
def test_a_run_in_pieces_ends_in_the_same_weights_bit_for_bit(tmp_path):
    pieces = trained(folder=tmp_path, stops=(3, 2))
    assert pieces.keys() == whole().keys()
    assert [k for k in pieces if not torch.equal(pieces[k], whole()[k])] == []
    assert any(k.endswith(".momentum") for k in pieces)


@pytest.mark.slow
@pytest.mark.parametrize("options", [dict(accumulate=4), dict(channels_last=True)])
def test_how_a_step_is_computed_changes_rounding_alone(options):
    one, other = (trained(torch.float64, **own) for own in ({}, options))
    for name, value in one.items():
        torch.testing.assert_close(other[name], value, rtol=1e-6, atol=1e-8)


def test_a_run_in_bfloat16_is_another_run_near_by():
    half = trained(bf16=True)
    weights = [k for k in half if k.startswith("model.net.body")]
    assert any(not torch.equal(half[k], whole()[k]) for k in weights)
    assert all((half[k] - whole()[k]).abs().max() < 0.1 for k in weights)


def test_an_optimiser_of_another_rule_does_not_continue_a_run(tmp_path):
    trained(folder=tmp_path, steps=1)
    with pytest.raises(InvalidValueError, match="rule was 'muon' and is 'adam'"):
        trained(folder=tmp_path, rule="adam", steps=2)


@pytest.mark.parametrize("rule", ["adam", "muon"])
def test_the_command_line_chooses_the_optimiser(tmp_path, monkeypatch, rule):
    monkeypatch.chdir(tmp_path)
    np.save("x.npy", drawn(0, 30, 3).numpy())
    options = ["--optimiser", rule, "--weight-decay", "0.5", "--channels", "8", "--steps", "2"]
    assert main(["train", "--data", "x.npy", "--out", "run", *options]) == 0
    found = tomllib.loads(Path("run/config.toml").read_text())["train"]["optimiser"]
    assert (found["rule"], found["weight_decay"]) == (rule, 0.5)
    tensors, _ = checkpoint.load_tensors(next(Path("run").glob("step-*.safetensors")))
    assert any(k.endswith(".momentum") for k in tensors) == (rule == "muon")


def test_an_unknown_rule_is_refused():
    with pytest.raises(UnknownNameError, match="muon"):
        Optimiser(rule="mouon")
    for decay in (-0.1, float("nan"), float("inf")):
        with pytest.raises(InvalidValueError, match="weight_decay"):
            Optimiser(weight_decay=decay)
