"""The average of the weights: its closed form, and that it gives the weights back."""

import copy

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from scoresde.ema import EMA
from scoresde.errors import CheckpointError, InvalidValueError


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


@given(decay=st.floats(0, 0.9999), updates=st.integers(1, 200))
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


def test_weights_that_stand_still_are_their_own_average():
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


def test_the_average_is_lent_to_the_model_within_the_block_only():
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


def test_the_model_gets_its_weights_back_when_the_block_fails():
    model = point()
    ema = EMA(model)
    model.move()
    own = copy.deepcopy(model.state_dict())
    with pytest.raises(ZeroDivisionError), ema.applied(model):
        raise ZeroDivisionError
    assert same(model.state_dict(), own)


def test_an_average_goes_on_from_its_state_bit_for_bit():
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
    with pytest.raises(InvalidValueError, match=r"it must lie in \[0, 1\)"):
        EMA(point(), decay)
