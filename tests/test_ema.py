"""Test averages of the weights against the closed form, and that the weights are restored."""

import copy

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from scoresde.ema import EMA, Exponential, Power, PowerEMA, gamma_of, sigma_of
from scoresde.errors import CheckpointError, InvalidTypeError, InvalidValueError, ShapeError


class Point(nn.Module):
    """Two trainable numbers, two frozen ones, two in a float buffer and a counter."""

    def __init__(self, generator):
        super().__init__()
        self.free = nn.Parameter(torch.zeros(2, dtype=torch.float64))
        self.frozen = nn.Parameter(torch.zeros(2, dtype=torch.float64), requires_grad=False)
        self.register_buffer("running", torch.zeros(2, dtype=torch.float64))
        self.register_buffer("count", torch.tensor(0))
        self.generator = generator
        self.move()

    @torch.no_grad()
    def move(self):
        for value in (self.free, self.frozen, self.running):
            value.copy_(torch.randn(2, generator=self.generator, dtype=torch.float64))
        self.count += 1

    def __deepcopy__(self, memo):
        new = Point(torch.Generator().manual_seed(0))
        new.load_state_dict(self.state_dict())
        return new


def point(seed=0):
    return Point(torch.Generator().manual_seed(seed))


def same(a, b):
    return all(torch.equal(x, y) for x, y in zip(a.values(), b.values(), strict=True))


@pytest.mark.law(63)
@given(seed=st.integers(0, 2**31), decay=st.floats(0, 0.9999), updates=st.integers(1, 30))
def test_without_warmup_the_average_is_the_geometric_sum(seed, decay, updates):
    model = point(seed)
    start = model.free.detach().clone()
    ema = EMA(model, decay, warmup=False)
    path = []
    for _ in range(updates):
        model.move()
        path.append(model.free.detach().clone())
        ema.update(model)
    expected = decay**updates * start + sum(
        (1 - decay) * decay**j * value for j, value in enumerate(reversed(path))
    )
    torch.testing.assert_close(ema.model.free.detach(), expected, rtol=1e-12, atol=1e-12)


# The update computes 1 - d, which rounds to 1 for a decay below 1e-16.
@pytest.mark.law(63)
@given(decay=st.just(0.0) | st.floats(1e-3, 0.9999), updates=st.integers(1, 200))
def test_the_warmup_weighs_update_k_by_the_documented_rule(decay, updates):
    model = point()
    with torch.no_grad():
        model.free.fill_(1)
    ema = EMA(model, decay)
    left = 1.0  # how much of the start is left when all later weights are zero
    with torch.no_grad():
        model.free.zero_()
    for k in range(updates):
        ema.update(model)
        left *= min(decay, (1 + k) / (10 + k))
    torch.testing.assert_close(ema.model.free[0].item(), left, rtol=1e-10, atol=1e-300)


def test_constant_weights_equal_their_average():
    model = point()
    ema = EMA(model, 0.999)
    for _ in range(50):
        ema.update(model)
    assert torch.equal(ema.model.free, model.free)


def test_frozen_parameters_and_buffers_are_copied():
    model = point()
    ema = EMA(model, 0.9, warmup=False)
    model.move()
    ema.update(model)
    assert torch.equal(ema.model.frozen, model.frozen)
    assert torch.equal(ema.model.running, model.running)
    assert torch.equal(ema.model.count, model.count)
    assert not torch.equal(ema.model.free, model.free)


def test_a_model_without_trainable_parameters_has_an_average():
    model = nn.LayerNorm(2).requires_grad_(False)
    ema = EMA(model)
    ema.update(model)
    assert same(ema.model.state_dict(), model.state_dict())


def test_the_average_is_a_frozen_model_in_eval_mode():
    ema = EMA(point())
    assert not ema.model.training
    assert not any(p.requires_grad for p in ema.model.parameters())


def test_the_model_has_the_average_within_the_block_only():
    model = point()
    ema = EMA(model, 0.9)
    model.move()
    ema.update(model)
    own = copy.deepcopy(model.state_dict())
    with ema.applied(model):
        assert same(model.state_dict(), ema.model.state_dict())
        assert not same(model.state_dict(), own)
    assert same(model.state_dict(), own)
    assert model.free.requires_grad


@pytest.mark.law(63)
def test_the_model_gets_its_weights_back_when_the_block_fails():
    model = point()
    ema = EMA(model)
    model.move()
    own = copy.deepcopy(model.state_dict())
    with pytest.raises(ZeroDivisionError), ema.applied(model):
        raise ZeroDivisionError
    assert same(model.state_dict(), own)


def test_an_average_continues_from_its_state_bit_for_bit():
    model = point(1)
    whole, first = EMA(model, 0.99), EMA(model, 0.99)
    for _ in range(5):
        model.move()
        whole.update(model)
        first.update(model)
    second = EMA(model, 0.99)
    second.load_state_dict(first.state_dict())
    for _ in range(5):
        model.move()
        whole.update(model)
        second.update(model)
    assert same(whole.state_dict(), second.state_dict())


def test_the_state_of_another_average_is_refused():
    state = EMA(point()).state_dict()
    del state["model.free"]
    with pytest.raises(CheckpointError, match="1 missing: free"):
        EMA(point()).load_state_dict(state)


@pytest.mark.parametrize("decay", [1.0, -0.1, float("nan")])
def test_a_decay_outside_the_unit_interval_is_refused(decay):
    with pytest.raises(InvalidValueError, match=r"decay must lie in \[0, 1\)"):
        EMA(point(), decay)


@given(sigma=st.floats(0.01, 0.288), updates=st.integers(1, 40), seed=st.integers(0, 2**31))
def test_the_power_average_weighs_step_t_by_the_integral_of_its_density(sigma, updates, seed):
    model = point(seed)
    ema = PowerEMA(model, sigma)
    expected, g = torch.zeros(2, dtype=torch.float64), gamma_of(sigma) + 1
    for t in range(1, updates + 1):
        model.move()
        ema.update(model)
        expected += (t**g - (t - 1) ** g) * model.free.detach()
    expected /= updates**g
    torch.testing.assert_close(ema.model.free.detach(), expected, rtol=1e-11, atol=1e-11)


PROFILES = st.one_of(
    st.builds(Power, st.floats(1e-3, 0.288)),
    st.builds(Exponential, st.floats(0, 0.9999), st.booleans()),
)


@given(profile=PROFILES, n=st.integers(1, 300))
def test_the_share_of_a_profile_is_the_product_of_its_decays(profile, n):
    k = torch.arange(n + 3)
    expected, left = [], 1.0
    for j in reversed(range(n)):
        left *= profile.decay_at(j)
        expected.insert(0, left)
    expected = torch.tensor([*expected, 1, 1, 1], dtype=torch.float64)
    torch.testing.assert_close(profile.share(k, n), expected, rtol=1e-10, atol=1e-300)


@given(sigma=st.floats(1e-4, 0.2886))
def test_spread_and_exponent_are_each_others_inverse(sigma):
    assert sigma_of(gamma_of(sigma)) == pytest.approx(sigma, rel=1e-9)


def test_the_exponents_of_the_usual_spreads_are_those_of_the_paper():
    assert gamma_of(0.05) == pytest.approx(16.97, abs=5e-3)
    assert gamma_of(0.1) == pytest.approx(6.94, abs=5e-3)
    assert Power(1 / 12**0.5).gamma == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize("sigma", [0.03, 0.1, 0.25])
def test_the_spread_of_the_discrete_weights_tends_to_sigma_as_one_over_n_squared(sigma):
    misses = []
    for n in (200, 400):
        tau = torch.arange(n + 1, dtype=torch.float64)
        w = torch.diff(Power(sigma).share(tau, n), prepend=torch.zeros(1))
        assert float(w.sum()) == pytest.approx(1, abs=1e-14)
        std = ((w * tau**2).sum() - (w * tau).sum() ** 2).sqrt() / n
        misses.append(float(std) - sigma)
    assert abs(misses[1]) < 0.02 * sigma
    assert misses[0] / misses[1] == pytest.approx(4, rel=0.02)


def test_a_parameter_that_is_freed_or_frozen_later_is_treated_so_from_then_on():
    model = point()
    ema = EMA(model, 0.9, warmup=False)
    for free in (False, True, False):
        model.frozen.requires_grad_(free)
        before = ema.model.frozen.clone()
        model.move()
        ema.update(model)
        assert ema.averaged == ({"free", "frozen"} if free else {"free"})
        expected = 0.9 * before + 0.1 * model.frozen if free else model.frozen
        torch.testing.assert_close(ema.model.frozen, expected.detach(), rtol=1e-12, atol=1e-12)


def test_an_average_can_continue_with_another_model():
    one, other = point(1), point(2)
    ema = EMA(one, 0.5, warmup=False)
    ema.update(one)
    ema.update(other)
    expected = 0.5 * one.free.detach() + 0.5 * other.free.detach()
    torch.testing.assert_close(ema.model.free.detach(), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("sigma", [0.0, 0.3, -0.1, float("nan"), float("inf")])
def test_a_spread_that_no_power_has_is_refused(sigma):
    for make in (Power, gamma_of, lambda value: PowerEMA(point(), value)):
        with pytest.raises(InvalidValueError, match=r"sigma must lie in \[0.0001, 0.2887\], got"):
            make(sigma)


@pytest.mark.parametrize("gamma", [-0.1, float("nan"), float("inf")])
def test_an_exponent_that_no_spread_has_is_refused(gamma):
    with pytest.raises(InvalidValueError, match="gamma must be finite and >= 0"):
        sigma_of(gamma)


@pytest.mark.parametrize("value", ["0.1", None, (0.1,)])
def test_a_parameter_that_is_no_number_is_reported_by_name(value):
    for make, name in ((Power, "sigma"), (Exponential, "decay"), (sigma_of, "gamma")):
        with pytest.raises(InvalidTypeError, match=f"{name}( of .*)? must be a number, got "):
            make(value)


@pytest.mark.parametrize("sizes", [(3,), (2, 2)])
def test_the_weights_of_another_model_are_refused_and_change_nothing(sizes):
    ema = EMA(nn.LayerNorm(2))
    before = copy.deepcopy(ema.state_dict())
    with pytest.raises(ShapeError, match="cannot be averaged with a LayerNorm with 2"):
        ema.update(nn.Sequential(*map(nn.LayerNorm, sizes)))
    assert same(before, ema.state_dict())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("make", [EMA, PowerEMA])
def test_an_average_that_would_not_change_causes_a_warning(make, dtype):
    with pytest.warns(RuntimeWarning, match=f"an average of {dtype} weights"):
        make(nn.LayerNorm(2).to(dtype))
    make(nn.LayerNorm(2).to(dtype).requires_grad_(False))  # which is copied
