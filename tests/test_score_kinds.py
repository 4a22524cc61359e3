"""Test scores of scalar energies."""

import collections
import unittest.mock

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from strategies import dtypes, exact_scores, generators, sdes, shapes, times_of
from torch import nn
from torch.testing import assert_close

from scoresde import sample
from scoresde.errors import (
    InvalidTypeError,
    InvalidValueError,
    ScoreSDEError,
    ShapeError,
    UnknownNameError,
)
from scoresde.nn import MLP
from scoresde.noise import Noise
from scoresde.objectives import dsm_loss, ism_loss
from scoresde.samplers import MALA, correct
from scoresde.score import EnergyScore, ScoreModel, Wrapped
from scoresde.sde import VESDE, VPSDE, Condition, Facts, expand, facts
from scoresde.targets import GaussianMixture

TARGET = GaussianMixture([0.8, 0.2], [[1.0, 1.0], [-1.0, -1.0]], stds=0.5)


def energy_of(target, sde):
    """-log p_t: an energy whose normaliser is one."""
    return lambda x, t: -target.log_prob(x, sde, t)


# Energies


@given(sde=sdes(), shape=shapes(1, 4), dtype=dtypes(), constant=st.floats(-9, 9), data=st.data())
def test_an_energy_has_the_score_of_its_density_for_any_constant(sde, shape, dtype, constant, data):
    exact = data.draw(exact_scores(sde))
    t = data.draw(times_of(sde))
    x = torch.randn(shape, generator=data.draw(generators()), dtype=dtype)

    def energy(x, t):
        mean, var = exact.law(t.double())
        gap = (x - expand(mean, x)) ** 2 / expand(2 * var, x)
        return gap.reshape(len(x), -1).sum(1) + constant * t.to(x)

    times = t.to(dtype).expand(shape[0])
    scores = []
    for recording in (True, False):
        with torch.set_grad_enabled(recording):
            scores.append(EnergyScore(energy)(x, times))
        assert scores[-1].requires_grad == recording
    assert scores[0].dtype == dtype
    expected = exact(x, times)
    assert_close(scores[0], expected, rtol=1e-5, atol=1e-5 * float(expected.abs().max() + 1e-6))
    assert torch.equal(*scores)
    assert not x.requires_grad


def test_an_energy_is_differentiated_again_in_x_and_in_its_weights():
    """E = a x^4 / 4: s = -a x^3, ds/dx = -3 a x^2, ds/da = -x^3."""
    a = nn.Parameter(torch.tensor(2.0, dtype=torch.float64))

    class Quartic(nn.Module):
        def __init__(self):
            super().__init__()
            self.a = a

        def forward(self, x, t):
            return self.a * (x**4).sum(1) / 4

    model = EnergyScore(Quartic())
    assert list(model.parameters()) == [a]
    x = torch.tensor([[0.5], [-1.5]], dtype=torch.float64, requires_grad=True)
    score = model(2 * x / 2, torch.zeros(2))  # no leaf
    assert_close(score, -2 * x**3)
    in_x, in_a = torch.autograd.grad(score.sum(), (x, a))
    assert_close(in_x, -6 * x**2)
    assert_close(in_a, -(x**3).sum())


def test_an_energy_has_its_log_density_up_to_a_constant():
    sde, t = VPSDE(), torch.full((4,), 0.3, dtype=torch.float64)
    model = EnergyScore(energy_of(TARGET, sde), sde, (2,), moments=TARGET.moments())
    x = torch.randn(4, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    assert_close(model.log_prob(x, t), TARGET.log_prob(x, sde, t))
    assert (model.sde, model.event_shape, model.moments.mean.shape) == (sde, (2,), (2,))


@pytest.mark.parametrize("sampler", ["pc", "em", "ald"])
def test_an_energy_is_sampled_like_the_score_that_it_has(sampler):
    sde = VESDE(0.05, 5.0)
    model = EnergyScore(energy_of(TARGET, sde), sde, (2,), moments=TARGET.moments())
    arguments = dict(n=8, steps=10, seed=0, dtype=torch.float64)
    found = sample(model, sde, sampler, **arguments)
    assert not found.requires_grad
    assert_close(found, sample(TARGET.at(sde), sde, sampler, **arguments), rtol=1e-9, atol=1e-9)
    with pytest.raises(InvalidValueError, match=r"this score belongs to VESDE"):
        sample(model, VPSDE(), sampler)


def test_an_energy_is_corrected_by_the_rule_of_metropolis():
    """Moves of any size leave its density alone: mean and covariance stay."""
    sde, t = VESDE(0.5, 5.0), torch.zeros((), dtype=torch.float64)
    model = EnergyScore(energy_of(TARGET, sde), sde, (2,))
    n = 4_000
    x = TARGET.sample(n, sde, 0.0, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    with torch.no_grad():
        y = correct(MALA(1.5), 3, sde.reverse(model), x, t, Noise.of(1, n))
    assert (x != y).any()
    assert (x == y).all(1).any()
    mean, cov = TARGET.moments().mean, TARGET.moments().cov + 0.25 * torch.eye(2)
    assert ((y.mean(0) - mean).abs() <= 5 * (cov.diagonal() / n).sqrt()).all()
    assert_close(y.T.cov(), cov, rtol=0.12, atol=0)


def test_a_condition_reaches_the_energy():
    model = EnergyScore(lambda x, t, c: c["scale"] * (x**2).sum(1) / 2)
    x, scale = torch.ones(3, 2), torch.tensor([0.0, 1.0, 2.0])
    score = model(x, torch.zeros(3), {"scale": scale})
    assert_close(score, -x * scale[:, None])
    assert_close(model.log_prob(x, torch.zeros(3), {"scale": scale}), -scale)


@pytest.mark.global_rng  # the first weights
def test_the_weights_of_an_energy_learn_from_every_objective():
    net = MLP(2, hidden=(8,))
    model = EnergyScore(lambda x, t: ((x - net(x, t)) ** 2).sum(1))
    nn.init.normal_(net.head.weight)
    for loss in (dsm_loss, ism_loss):
        net.zero_grad()
        x, generator = torch.ones(5, 2), torch.Generator().manual_seed(0)
        loss(model, VPSDE(), x, generator=generator).mean().backward()
        assert (net.stem.weight.grad != 0).any()


@pytest.mark.parametrize(
    ("energy", "error", "message"),
    [
        (lambda x, t: x, ShapeError, r"one number per sample, of the shape \(3,\), got \(3, 2\)"),
        (lambda x, t: x.sum(), ShapeError, r"shape \(3,\), got \(\)"),
        (lambda x, t: 1.0, InvalidTypeError, "an energy must be a tensor"),
        (lambda x, t: t, InvalidValueError, "does not depend on x"),
        (lambda x, t: t.requires_grad_().exp(), InvalidValueError, "does not depend on x"),
        (lambda x, t: x.detach().sum(1), InvalidValueError, "remove no_grad and detach inside it"),
    ],
)
def test_an_invalid_energy_is_refused(energy, error, message):
    with pytest.raises(error, match=message):
        EnergyScore(energy)(torch.ones(3, 2), torch.zeros(3))


class _Watched(nn.Module):
    """Define a score that records the mode in which it is evaluated."""

    def __init__(self):
        super().__init__()
        self.modes = set()

    def forward(self, x, t):
        self.modes.add(self.training)
        return -x


_watched = _Watched()


class _Slots:
    __slots__ = ("net",)

    def __init__(self, net):
        self.net = net

    def __call__(self, x, t):
        return self.net(x, t)


class _ByGlobalName:
    def __call__(self, x, t):
        return _watched(x, t)


class _OfTheClass:
    net = _watched

    def __call__(self, x, t):
        return self.net(x, t)


def _in_a_deque(net):
    waiting = collections.deque([net])
    return lambda x, t: waiting[0](x, t)


@pytest.mark.parametrize(
    "score", [_Slots(_watched), _ByGlobalName(), _OfTheClass(), _in_a_deque(_watched)]
)
def test_a_network_in_a_slot_a_class_a_global_or_a_deque_runs_in_evaluation_mode(score):
    _watched.train()
    _watched.modes.clear()
    sample(score, VPSDE(), "ddim", shape=(2,), steps=2, seed=0)
    assert _watched.modes == {False}
    assert _watched.training


@pytest.mark.slow
def test_a_mock_is_a_score_without_facts():
    mock = unittest.mock.MagicMock(side_effect=lambda x, t: -x)
    assert facts(mock) == Facts()
    assert sample(mock, VPSDE(), "ddim", shape=(2,), steps=2, seed=0).shape == (1, 2)


def test_facts_that_fail_are_not_replaced_by_those_of_the_score_inside():
    class Wrong(Wrapped):
        @property
        def facts(self):
            return self.missing

    with pytest.raises(InvalidValueError, match=r"facts of Wrong fails.*missing"):
        facts(Wrong(lambda x, t: -x))


def test_a_score_that_cannot_be_called_as_scores_are_is_refused():
    def of_a_keyword(x, t, *, condition=None):
        return -x

    for score, condition in ((of_a_keyword, {"y": 1.0}), (lambda x: -x, None)):
        with pytest.raises(InvalidTypeError, match="a score is called as"):
            sample(score, VPSDE(), "ddim", shape=(2,), steps=2, seed=0, condition=condition)


def test_an_error_within_a_score_is_not_changed():
    def score(x, t):
        return len(x, t)

    with pytest.raises(TypeError, match="exactly one argument") as caught:
        sample(score, VPSDE(), "ddim", shape=(2,), steps=2, seed=0)
    assert not isinstance(caught.value, ScoreSDEError)


@pytest.mark.parametrize(
    ("values", "error"),
    [
        ({"lable": torch.tensor([1, 1])}, UnknownNameError),
        ({"label": torch.tensor([1, 9])}, InvalidValueError),
        ({"label": torch.tensor([1, 1, 1])}, ShapeError),
    ],
)
def test_a_condition_object_is_checked_like_a_mapping(values, error):
    with torch.random.fork_rng():
        model = ScoreModel(MLP(2, num_classes=3, hidden=(4,)), VESDE(), (2,))
    with pytest.raises(error):
        sample(model, sampler="ddim", steps=2, n=2, seed=0, condition=Condition(values))
    with pytest.raises(error):
        dsm_loss(model, None, torch.zeros(2, 2), noise=Noise.of(0, 2), condition=Condition(values))
