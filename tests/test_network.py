"""How a network is run while it trains: the same numbers, the same names, less memory or time."""

import functools
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from scoresde.data import Data
from scoresde.errors import InvalidValueError, ShapeError
from scoresde.nn import MLP, UNet
from scoresde.objectives import dsm_loss
from scoresde.score import ScoreModel
from scoresde.sde import VESDE, VPSDE, Moments
from scoresde.training import TrainConfig, Trainer
from scoresde.training.draws import Draws
from scoresde.training.network import training
from scoresde.training.state import pack

CONFIG = TrainConfig(steps=6, batch_size=8, warmup=2, save_every=3, log_every=2)


def data(dtype=torch.float32):
    g = torch.Generator().manual_seed(0)
    return Data(torch.randn(20, 2, 6, 6, generator=g, dtype=torch.float64).to(dtype))


def make(dtype=torch.float32, **options):
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        net = UNet(2, channels=(4, 6), features=8, **options)
    return ScoreModel(net, VESDE(), (2, 6, 6), moments=Moments(0.0, var=1.0)).to(dtype)


def state(trainer):
    return pack(trainer.model, trainer.ema, trainer.optimizer)


def trained(dtype=torch.float32, net=None, **options):
    trainer = Trainer(make(dtype, **(net or {})), data(dtype), replace(CONFIG, **options))
    trainer.train()
    return state(trainer)


def apart(a, b):
    assert a.keys() == b.keys()
    return max(float((a[k] - b[k]).abs().max()) for k in a)


def test_recomputed_activations_give_the_same_weights_bit_for_bit_with_dropout_too():
    options = dict(net=dict(dropout=0.3))
    assert apart(trained(recompute=True, **options), trained(**options)) == 0


def test_every_block_is_run_twice_where_it_is_recomputed_and_once_afterwards():
    model, seen = make(), []
    for block in (*model.net.body.down, *model.net.body.below.up):
        block.norm1.register_forward_hook(lambda *_: seen.append(0))
    x = torch.randn(3, 2, 6, 6, generator=torch.Generator().manual_seed(0))
    with training(model, replace(CONFIG, recompute=True)):
        model(x, 0.5).sum().backward()
    assert len(seen) == 4
    model(x, 0.5).sum().backward()
    assert len(seen) == 6


def test_a_network_without_blocks_is_recomputed_as_a_whole():
    class Scale(nn.Module):
        def __init__(self):
            super().__init__()
            self.scale, self.calls = nn.Parameter(torch.ones(())), 0

        def forward(self, x, c):
            self.calls += 1
            return self.scale * x

    model = ScoreModel(Scale(), VESDE(), (2,))
    with training(model, replace(CONFIG, recompute=True)):
        model(torch.ones(3, 2), 0.5).sum().backward()
    assert model.net.calls == 2


def test_adam_tensor_by_tensor_is_adam_in_one_pass_but_for_rounding():
    assert 0 < apart(trained(torch.float64, fused=False), trained(torch.float64)) < 1e-12


def test_channels_last_is_another_layout_of_the_same_weights():
    found, expected = (trained(torch.float64, channels_last=on) for on in (True, False))
    assert 0 < apart(found, expected) < 1e-12
    kernel = found["model.net.stem.weight"]
    assert kernel.is_contiguous(memory_format=torch.channels_last)
    assert found["ema.model.net.stem.weight"].stride() == kernel.stride()


def test_a_run_in_channels_last_is_taken_up_again_bit_for_bit(tmp_path):
    config = replace(CONFIG, channels_last=True)
    Trainer(make(), data(), config, folder=tmp_path).train(3)
    again = Trainer(make(), data(), config, folder=tmp_path)
    assert again.step == 3
    again.train()
    assert apart(state(again), trained(channels_last=True)) == 0


@pytest.fixture
def traced(monkeypatch):
    """torch.compile, but for the compiler: what it makes of a network is run as it is."""
    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend="aot_eager"))


def test_a_compiled_network_trains_to_the_same_weights_under_the_same_names(traced, tmp_path):
    trainer = Trainer(
        make(torch.float64), data(torch.float64), replace(CONFIG, compile=True), folder=tmp_path
    )
    trainer.train()
    assert apart(state(trainer), trained(torch.float64)) < 1e-12
    assert trainer.model.net._compiled_call_impl is None
    assert ScoreModel.from_pretrained(tmp_path).net.config == make().net.config


def test_how_a_run_is_computed_may_change_within_it(tmp_path):
    Trainer(make(), data(), CONFIG, folder=tmp_path).train(3)
    config = replace(CONFIG, accumulate=2, recompute=True, channels_last=True, fused=False)
    trainer = Trainer(make(), data(), config, folder=tmp_path)
    trainer.train()
    assert apart(state(trainer), trained()) < 1e-5


@pytest.mark.parametrize("accumulate", [3, 16])
def test_parts_that_do_not_divide_the_batch_are_refused(accumulate):
    with pytest.raises(InvalidValueError, match=f"accumulate = {accumulate} does not divide the 8"):
        Trainer(make(), data(), replace(CONFIG, accumulate=accumulate))


# Chance


@given(
    n=st.integers(1, 150),
    cut=st.integers(0, 150),
    step=st.integers(0, 10**6),
    seed=st.integers(0, 2**64 - 1),
)
def test_a_process_draws_for_its_rows_what_one_draws_that_has_all(n, cut, step, seed):
    draws = Draws(replace(CONFIG, batch_size=n, seed=seed), VESDE(), None, step)
    like, cut = torch.empty(0, 3), min(cut, n - 1)
    whole = draws.noise(like, slice(0, n))
    assert whole.shape == (n, 3)
    assert torch.equal(draws.noise(like, slice(cut, n)), whole[cut:])
    assert cut == 0 or torch.equal(draws.noise(like, slice(0, cut)), whole[:cut])


def test_the_noise_of_rows_and_steps_is_standard_normal_and_independent():
    drawn = []
    for step in range(50):
        draws = Draws(replace(CONFIG, batch_size=200), VESDE(), None, step)
        drawn.append(draws.noise(torch.empty(0, 8, dtype=torch.float64), slice(0, 200)))
    z = torch.stack(drawn).flatten(1)
    assert z.unique().numel() == z.numel()
    assert abs(z.mean()) < 5 / z.numel() ** 0.5
    assert abs(z.var() - 1) < 5 * (2 / z.numel()) ** 0.5
    correlation = z @ z.T / z.shape[1] - torch.eye(50)
    assert correlation.fill_diagonal_(0).abs().max() < 6 / z.shape[1] ** 0.5


def test_every_part_of_every_step_has_dropout_of_its_own():
    seeds = {
        Draws(CONFIG, VESDE(), None, step).dropout_seed(part)
        for step in range(5)
        for part in range(4)
    }
    assert len(seeds) == 20


def test_the_parts_of_a_step_share_its_draws(monkeypatch):
    drawn = []

    def counted(*args):
        drawn.append(args[-1])
        return Draws(*args)

    monkeypatch.setattr("scoresde.training.update.Draws", counted)
    Trainer(make(), data(), replace(CONFIG, steps=3, accumulate=4)).train()
    assert drawn == [0, 1, 2]


def test_the_loss_of_a_given_noise_is_that_of_the_generator_that_draws_it():
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        model = ScoreModel(MLP(3, hidden=(4,)), VPSDE(), (3,))
    x = torch.ones(5, 3)
    z = torch.randn(5, 3, generator=torch.Generator().manual_seed(1))
    for control_variate in (False, True):
        found, expected = (
            dsm_loss(model, VPSDE(), x, t=0.5, control_variate=control_variate, **source)
            for source in (dict(noise=z), dict(generator=torch.Generator().manual_seed(1)))
        )
        assert torch.equal(found, expected)
    with pytest.raises(ShapeError, match=r"noise has the shape of the data, \(5, 3\), got \(3,\)"):
        dsm_loss(model, VPSDE(), x, t=0.5, noise=z[0])
