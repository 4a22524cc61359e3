"""Test training in float16: the scaled loss keeps small gradients, overflows are skipped."""

from functools import partial

import pytest
import torch

from scoresde.errors import InvalidValueError, TrainingError
from scoresde.nn import MLP
from scoresde.objectives import dsm_loss
from scoresde.score import ScoreModel
from scoresde.sde import VESDE
from scoresde.training import TrainConfig, Trainer
from scoresde.training.loss_scale import LossScale

CONFIG = TrainConfig().changed(steps=6, batch_size=8, save_every=2, log_every=1, fp16=True)


def trainer(folder=None, loss=dsm_loss, **options):
    """Return a run on 32 points, always of the same first weights."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        model = ScoreModel(MLP(2, hidden=(16,)), VESDE(), (2,))
    x = torch.randn(32, 2, generator=torch.Generator().manual_seed(0))
    return Trainer(model, x, CONFIG.changed(**options), loss=loss, folder=folder)


def times(score, sde, x, *, noise, condition=None, factor, loss=dsm_loss):
    """Return a loss, times a factor."""
    return factor * loss(score, sde, x, noise=noise, condition=condition)


def weights(run):
    return torch.cat([p.detach().flatten() for p in run.score.parameters()])


def scale(run):
    return float(run._update.beside[-1].scale)


def test_the_network_runs_in_float16_while_it_trains_and_its_weights_stay_in_float32():
    run, seen = trainer(), []
    run.score.net.head.register_forward_hook(lambda m, i, out: seen.append(out.dtype))
    run.train(2)
    assert set(seen) == {torch.float16}
    assert run.score.autocast is None
    assert {p.dtype for p in run.score.parameters()} == {torch.float32}


@pytest.mark.parametrize("power", [0, 9])
def test_weights_do_not_depend_on_the_scale_while_no_gradient_overflows_or_vanishes(power):
    run, other = trainer(steps=2), trainer(steps=2)
    other._update.beside[-1].scale.fill_(2.0**power)
    run.train(), other.train()
    # subnormal numbers of float16, below 6e-5, are rounded more coarsely
    torch.testing.assert_close(weights(run), weights(other), rtol=1e-3, atol=2e-5)


def test_gradients_too_small_for_float16_still_train_the_network():
    small = dict(loss=partial(times, factor=1e-7), steps=1)
    exact, run, lost = trainer(**small, fp16=False), trainer(**small), trainer(**small)
    lost._update.beside[-1].scale.fill_(1.0)
    norms = [(r.train(), r.history.rows[0]["grad_norm"])[1] for r in (exact, run, lost)]
    assert abs(norms[1] / norms[0] - 1) < 0.02
    assert abs(norms[2] / norms[0] - 1) > 0.2


def test_a_step_whose_gradient_overflows_is_left_out_and_halves_the_scale():
    run = trainer(loss=partial(times, factor=2.0**6))
    before = weights(run).clone()
    run.train(1)
    assert scale(run) == 2.0**15
    assert torch.equal(weights(run), before)
    run.train()
    assert scale(run) < 2.0**15
    assert not torch.equal(weights(run), before)
    assert sum(row["skipped"] for row in run.history.rows) == 16 - torch.tensor(scale(run)).log2()


def test_the_scale_falls_as_far_as_a_large_loss_needs():
    run = trainer(loss=partial(times, factor=1e7), steps=25, log_every=25)
    before = weights(run).clone()
    run.train()
    assert 0 < scale(run) < 2.0**5
    assert not torch.equal(weights(run), before)


def test_a_run_whose_every_step_overflows_ends():
    with pytest.raises(TrainingError, match="the 40th in a row"):
        trainer(loss=partial(times, factor=1e30), steps=50, log_every=50).train()


def test_a_short_run_whose_every_step_overflows_says_that_nothing_was_learnt():
    run = trainer(loss=partial(times, factor=1e30))
    before = weights(run).clone()
    run.train(5)
    with pytest.warns(RuntimeWarning, match="the weights did not change: .* the last 6 steps"):
        run.train(1)
    assert torch.equal(weights(run), before)


def test_the_scale_stays_finite_however_long_a_run_is():
    loss_scale = LossScale()
    for _ in range(200):
        loss_scale.finite.fill_(1999)
        loss_scale.update(True)
    assert loss_scale.scale.isfinite()


def test_the_scale_doubles_after_2000_finite_steps_in_a_row():
    loss_scale = LossScale()
    for _ in range(1999):
        loss_scale.update(True)
    assert loss_scale.scale == 2.0**16
    loss_scale.update(False)
    for _ in range(1999):
        loss_scale.update(True)
    assert loss_scale.scale == 2.0**15
    loss_scale.update(True)
    assert loss_scale.scale == 2.0**16


def test_a_run_in_pieces_ends_in_the_same_weights_and_scale_bit_for_bit(tmp_path):
    loss = partial(times, factor=2.0**6)
    whole = trainer(loss=loss)
    whole.train()
    trainer(tmp_path, loss=loss).train(3)
    rest = trainer(tmp_path, loss=loss)
    assert scale(rest) < 2.0**16
    rest.train()
    assert torch.equal(weights(rest), weights(whole))
    assert scale(rest) == scale(whole)


def test_a_loss_that_is_not_finite_ends_the_run_all_the_same():
    with pytest.raises(TrainingError, match="failed at step 0"):
        trainer(loss=partial(times, factor=float("nan"))).train()


def test_two_half_precisions_at_once_are_refused():
    with pytest.raises(InvalidValueError, match="bf16 and fp16 cannot be combined"):
        CONFIG.changed(bf16=True)
