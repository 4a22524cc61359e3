"""Test options of training that save memory or time: the numbers and names stay the same."""

import functools

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from scoresde.data import Data
from scoresde.errors import InvalidValueError
from scoresde.nn import MLP, UNet
from scoresde.objectives import dsm_loss
from scoresde.score import ScoreModel, from_network
from scoresde.sde import VESDE, VPSDE, Moments, NCSNLadder
from scoresde.training import TrainConfig, Trainer
from scoresde.training.network import training
from scoresde.training.update import Update, seeds_of_step

CONFIG = TrainConfig().changed(steps=6, batch_size=8, warmup=2, save_every=3, log_every=2)


def data(dtype=torch.float32):
    g = torch.Generator().manual_seed(0)
    return Data(torch.randn(20, 2, 6, 6, generator=g, dtype=torch.float64).to(dtype))


def make(dtype=torch.float32, **options):
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        net = UNet(2, channels=(4, 6), features=8, **options)
    return ScoreModel(net, VESDE(), (2, 6, 6), moments=Moments(0.0, var=1.0)).to(dtype)


def state(trainer):
    return trainer._packed()


def trained(dtype=torch.float32, net=None, **options):
    trainer = Trainer(make(dtype, **(net or {})), data(dtype), CONFIG.changed(**options))
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
    with training(model, CONFIG.changed(recompute=True)):
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
    with training(model, CONFIG.changed(recompute=True)):
        model(torch.ones(3, 2), 0.5).sum().backward()
    assert model.net.calls == 2


def test_adam_tensor_by_tensor_is_adam_in_one_pass_up_to_rounding():
    assert 0 < apart(trained(torch.float64, fused=False), trained(torch.float64)) < 1e-12


def test_channels_last_is_another_layout_of_the_same_weights():
    found, expected = (trained(torch.float64, channels_last=on) for on in (True, False))
    assert 0 < apart(found, expected) < 1e-12
    kernel = found["model.net.stem.weight"]
    assert kernel.is_contiguous(memory_format=torch.channels_last)
    assert found["ema.model.net.stem.weight"].stride() == kernel.stride()


def test_a_run_in_channels_last_is_resumed_bit_for_bit(tmp_path):
    config = CONFIG.changed(channels_last=True)
    Trainer(make(), data(), config, folder=tmp_path).train(3)
    again = Trainer(make(), data(), config, folder=tmp_path)
    assert again.step == 3
    again.train()
    assert apart(state(again), trained(channels_last=True)) == 0


@pytest.fixture
def traced(monkeypatch):
    """torch.compile, but for the compiler: what it makes of a network is run as it is."""
    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend="aot_eager"))


@pytest.mark.long
def test_a_compiled_network_trains_to_the_same_weights_under_the_same_names(traced, tmp_path):
    trainer = Trainer(
        make(torch.float64), data(torch.float64), CONFIG.changed(compile=True), folder=tmp_path
    )
    trainer.train()
    assert apart(state(trainer), trained(torch.float64)) < 1e-12
    assert trainer.score.net._compiled_call_impl is None
    assert ScoreModel.from_pretrained(tmp_path).net.config == make().net.config


GRAPHS = {
    "levels": (
        lambda: ScoreModel(UNet(2, channels=(4, 6)), NCSNLadder([0.1, 1.0, 3.0]), (2, 6, 6)),
        {},
    ),
    "conditions": (
        lambda: ScoreModel(MLP((2, 6, 6), num_classes=3, condition={"y": 4}), VPSDE(), (2, 6, 6)),
        {"label": torch.tensor([0, -1, 2]), "y": torch.tensor([[torch.nan, 1.0, 2.0, 3.0]] * 3)},
    ),
    "network": (
        lambda: from_network(MLP((2, 6, 6)), VPSDE(), "v", "log_sigma", event_shape=(2, 6, 6)),
        {},
    ),
}


def graphed(name):
    """Return a score, its condition, and states for it."""
    make_score, given = GRAPHS[name]
    with torch.random.fork_rng(devices=[]):
        return make_score().eval(), given, torch.randn(3, 2, 6, 6)


@pytest.mark.slow
@pytest.mark.parametrize("name", GRAPHS)
def test_a_score_is_one_graph_in_which_a_time_outside_becomes_nan(name):
    score, given, x = graphed(name)
    condition = {"condition": given} if given else {}
    compiled = torch.compile(score, fullgraph=True, backend="eager")
    with torch.no_grad():
        t = torch.tensor([0.01, 0.5, 1.0]) * score.facts.sde.T
        assert torch.equal(compiled(x, t, **condition), score(x, t, **condition))
        outside = compiled(x, t * torch.tensor([1.0, 1.0, 1.1]), **condition)
    assert outside.isfinite().flatten(1).all(1).tolist() == [True, True, False]
    if "label" in given:
        with pytest.raises(IndexError):
            compiled(x, t, {**given, "label": torch.tensor([0, 3, 2])})


@pytest.mark.long
@pytest.mark.parametrize("name", GRAPHS)
def test_a_score_is_exported_for_batches_of_any_size(name):
    (score, given, x), t = graphed(name), torch.full((3,), 0.5)
    batch = {0: torch.export.Dim("batch")}
    condition = {"condition": given} if given else {}
    sizes = {name: dict.fromkeys(given, batch) for name in condition} | {"x": batch, "t": batch}
    program = torch.export.export(score, (x, t), condition, dynamic_shapes=sizes).module()
    two = {name: {k: v[:2] for k, v in value.items()} for name, value in condition.items()}
    torch.testing.assert_close(program(x[:2], t[:2], **two), score(x[:2], t[:2], **two))


@pytest.mark.slow
def test_how_a_run_is_computed_may_change_within_it(tmp_path):
    Trainer(make(), data(), CONFIG, folder=tmp_path).train(3)
    config = CONFIG.changed(accumulate=2, recompute=True, channels_last=True, fused=False)
    trainer = Trainer(make(), data(), config, folder=tmp_path)
    trainer.train()
    assert apart(state(trainer), trained()) < 1e-5


@pytest.mark.parametrize("accumulate", [3, 16])
def test_parts_that_do_not_divide_the_batch_are_refused(accumulate):
    with pytest.raises(InvalidValueError, match=f"accumulate = {accumulate} does not divide the 8"):
        Trainer(make(), data(), CONFIG.changed(accumulate=accumulate))


# Chance


def updates(**options):
    model = make()
    return Update(model, model.sde, dsm_loss, CONFIG.changed(**options))


@given(
    n=st.integers(2, 40),
    cut=st.integers(0, 40),
    step=st.integers(0, 10**6),
    seed=st.integers(0, 2**64 - 1),
)
def test_a_process_draws_the_same_numbers_for_its_rows_as_a_single_process(n, cut, step, seed):
    update = updates(batch_size=n, seed=seed)
    like, cut = torch.empty(n, 3), 1 + cut % (n - 1)
    whole = update.noise(step, slice(0, n)).normal(like, 0.0)
    parts = [slice(0, cut), slice(cut, n)]
    found = [update.noise(step, part).normal(like[part], 0.0) for part in parts]
    assert torch.equal(torch.cat(found), whole)


def test_the_noise_of_rows_and_steps_is_standard_normal_and_independent():
    update, like = updates(batch_size=200), torch.empty(200, 8, dtype=torch.float64)
    z = torch.stack([update.noise(step, slice(0, 200)).normal(like, 0.0) for step in range(50)])
    z = z.flatten(1)
    assert z.unique().numel() == z.numel()
    assert abs(z.mean()) < 5 / z.numel() ** 0.5
    assert abs(z.var() - 1) < 5 * (2 / z.numel()) ** 0.5
    correlation = z @ z.T / z.shape[1] - torch.eye(50)
    assert correlation.fill_diagonal_(0).abs().max() < 6 / z.shape[1] ** 0.5


def test_every_part_of_every_step_has_different_dropout():
    seeds = [seed for step in range(5) for seed in seeds_of_step(0, step, 5)]
    assert len(set(seeds)) == 25


@pytest.mark.parametrize("accumulate", [2, 4])
def test_the_loss_of_a_batch_is_the_mean_of_the_losses_of_its_parts(accumulate):
    batch = data().x[:8], None
    whole = updates().loss(3, batch)
    update = updates(accumulate=accumulate)
    parts = torch.stack([update.loss(3, batch, part) for part in range(accumulate)])
    torch.testing.assert_close(parts.mean(), whole)
