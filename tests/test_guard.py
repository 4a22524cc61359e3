"""Test that training steps with NaN are skipped or reported, and never stored."""

import math
import warnings

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from test_training import CONFIG, assert_same, data, hooked, make, rows
from torch import nn

from scoresde import checkpoint
from scoresde.checks import in_memory
from scoresde.errors import MemoryLimitError, TrainingError
from scoresde.objectives import dsm_loss
from scoresde.score import ScoreModel
from scoresde.sde import VESDE
from scoresde.training import Trainer

SKIP = CONFIG.changed(on_nan="skip")


def trainer_of(bad, config=SKIP, folder=None):
    """Return a trainer whose batches of the steps `bad` are not numbers."""
    trainer = Trainer(make(), data(), config, folder=folder)
    at = trainer._batches.at

    def spoilt(step):
        x, label = at(step)
        return (x * math.nan if step in bad else x), label

    trainer._batches.at = spoilt
    return trainer


def quietly(trainer, steps=None):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        trainer.train(steps)
    return trainer


def weights(trainer):
    return [v.clone() for v in trainer.score.state_dict().values()]


def slots(trainer):
    return [v.clone() for slot in trainer.optimizer.state.values() for v in slot.values()]


def test_a_step_without_a_finite_gradient_leaves_weights_and_optimiser_as_they_were():
    trainer = trainer_of({4}, SKIP.changed(log_every=1))
    trainer.train(4)
    before = weights(trainer), slots(trainer)
    with pytest.warns(
        RuntimeWarning, match="1 of the last 1 steps were skipped.*; the first is st"
    ):
        trainer.train(1)
    assert trainer.step == 5
    for old, new in zip(before, (weights(trainer), slots(trainer)), strict=True):
        assert all(torch.equal(a, b) for a, b in zip(old, new, strict=True))
    trainer.train(1)
    assert not all(torch.equal(a, b) for a, b in zip(before[0], weights(trainer), strict=True))


@pytest.mark.slow
@given(bad=st.sets(st.integers(0, 12), max_size=5), stop=st.integers(1, 12))
@settings(max_examples=5)
def test_a_run_that_leaves_steps_out_is_the_same_in_parts(tmp_path_factory, bad, stop):
    folder = tmp_path_factory.mktemp("run")
    quietly(trainer_of(bad, folder=folder), stop)
    resumed = quietly(trainer_of(bad, folder=folder))
    assert_same(resumed, quietly(trainer_of(bad)))
    assert sum(row["skipped"] for row in rows(folder)) <= len(bad)


def test_a_run_that_broke_down_can_continue_by_skipping_the_step(tmp_path):
    config = CONFIG.changed(log_every=1)
    with pytest.raises(TrainingError, match="failed at step 7:"):
        trainer_of({7}, config, tmp_path).train()
    resumed = quietly(trainer_of({7}, config.changed(on_nan="skip"), tmp_path))
    assert_same(resumed, quietly(trainer_of({7})))


def test_steps_that_are_left_out_are_counted_and_their_losses_are_not(tmp_path):
    quietly(trainer_of({2, 4, 5}, folder=tmp_path))
    found = rows(tmp_path)
    # steps 4 and 5 were each the only step of a measurement, which then has no loss
    expected = [(2, 0), (4, 1), (8, 2), (10, 0), (12, 0), (13, 0)]
    assert [(row["step"], row["skipped"]) for row in found] == expected
    assert all(math.isfinite(row["loss"]) for row in found)


@pytest.mark.parametrize(("number", "ends"), [(10, False), (11, True)])
def test_ten_steps_in_a_row_may_be_left_out_and_no_more(tmp_path, number, ends):
    bad = set(range(1, 1 + number))
    if ends:
        with pytest.raises(TrainingError, match="at step 11, the 11th in a row: the loss is nan"):
            quietly(trainer_of(bad, folder=tmp_path))
    else:
        assert quietly(trainer_of(bad, folder=tmp_path)).finished


def test_an_infinite_loss_with_a_finite_gradient_is_never_skipped():
    calls = iter(range(99))

    def broken(score, sde, x, **options):
        return dsm_loss(score, sde, x, **options) + (math.nan if next(calls) == 3 else 0)

    trainer = Trainer(make(), data(), SKIP, loss=broken)
    with pytest.raises(TrainingError, match="failed at step 3: the loss is nan and its grad"):
        trainer.train()


@pytest.mark.slow
@pytest.mark.parametrize("value", [math.nan, math.inf])
@pytest.mark.parametrize("part", ["weight", "average of the optimiser"])
def test_a_state_that_is_not_finite_is_not_saved(tmp_path, part, value):
    trainer = Trainer(make(), data(), CONFIG, folder=tmp_path)
    trainer.train(5)
    step = trainer.optimizer.step

    def spoil():
        step()
        parameter = trainer.score.net.head.bias
        slot = trainer.optimizer.state[parameter]["exp_avg_sq"]
        (parameter if part == "weight" else slot).detach()[0] = value

    trainer.optimizer.step = spoil
    with pytest.raises(TrainingError, match=r"after 6 steps 1 tensors .*last checkpoint is .*-0+5"):
        trainer.train(1)
    assert checkpoint.latest(tmp_path)[2]["step"] == 5


def test_a_buffer_that_became_nan_is_not_saved(tmp_path):
    model = make()
    model.register_buffer("seen", torch.zeros(2))
    model.register_buffer("mask", torch.tensor([0.0, -math.inf]))  # as attention has them
    trainer = Trainer(model, data(), CONFIG, folder=tmp_path)
    trainer.train(5)
    model.seen[0] = math.nan
    with pytest.raises(TrainingError, match=r"after 6 steps [12] tensors"):
        trainer.train(1)
    assert checkpoint.latest(tmp_path)[2]["step"] == 5


@pytest.mark.slow
@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory"),
        RuntimeError("DefaultCPUAllocator: can't allocate memory"),
        MemoryError(),
    ],
)
def test_an_out_of_memory_step_is_explained_and_the_run_can_continue(tmp_path, error):
    def refuse(out):
        raise error

    trainer = Trainer(hooked(8, refuse), data(), CONFIG, folder=tmp_path)
    with pytest.raises(
        MemoryLimitError,
        match=r"step 7, of 8 samples, .* last checkpoint is \S+-00000005\S+; continue with a ",
    ):
        trainer.train()
    resumed = Trainer(hooked(-1, None), data(), CONFIG, folder=tmp_path)
    assert resumed.step == 5
    resumed.train()
    undisturbed = Trainer(hooked(-1, None), data(), CONFIG)
    undisturbed.train()
    assert_same(resumed, undisturbed)


@pytest.mark.slow
@pytest.mark.parametrize("when", ["before", "after"])
def test_a_trainer_that_was_stopped_within_an_update_does_not_continue(tmp_path, when):
    trainer = Trainer(make(), data(), CONFIG, folder=tmp_path)
    trainer.train(7)
    step = trainer.optimizer.step

    def stopped():
        if when == "after":
            step()
        raise KeyboardInterrupt

    trainer.optimizer.step = stopped
    with pytest.raises(KeyboardInterrupt):
        trainer.train()
    trainer.optimizer.step = step
    with pytest.raises(
        TrainingError, match=r"in the middle of step 7, .* last checkpoint .*-0+7\.s"
    ):
        trainer.train()
    resumed = Trainer(make(), data(), CONFIG, folder=tmp_path)
    resumed.train()
    whole = Trainer(make(), data(), CONFIG)
    whole.train()
    assert_same(resumed, whole)


def test_a_trainer_whose_network_failed_continues_exactly():
    def fail(out):
        raise RuntimeError("for once")

    trainer = Trainer(hooked(5, fail), data(), CONFIG)
    with pytest.raises(RuntimeError, match="for once"):
        trainer.train()
    trainer.train()
    whole = Trainer(hooked(-1, None), data(), CONFIG)
    whole.train()
    assert_same(trainer, whole)


def test_the_remains_of_a_killed_writer_beside_other_averages_are_removed_too(tmp_path):
    config = CONFIG.changed(ema=(0.9, 0.99))
    Trainer(make(), data(), config, folder=tmp_path).train(2)
    left = tmp_path / "ema-0.99" / ".scoresde-00000000000000000000000000000000.tmp"
    left.write_text("half")
    Trainer(make(), data(), config, folder=tmp_path)
    assert not left.exists()


def test_out_of_memory_errors_are_distinguished_from_others():
    with pytest.raises(MemoryLimitError, match="too much"), in_memory("too much"):
        torch.empty(2**46, dtype=torch.uint8)
    for error in (RuntimeError("expected a matrix"), ValueError("can't allocate memory")):
        with pytest.raises(type(error), match=str(error)), in_memory("too much"):
            raise error

    def refuse(out):
        raise RuntimeError("expected a matrix")

    with pytest.raises(RuntimeError) as caught:
        Trainer(hooked(2, refuse), data(), CONFIG).train()
    assert str(caught.value) == "expected a matrix"  # and a note on the states


def test_the_last_good_checkpoint_of_a_report_is_a_good_one(tmp_path):
    Trainer(hooked(-1, None), data(), CONFIG, folder=tmp_path).train(7)
    newest = tmp_path / "step-00000007.safetensors"
    newest.write_bytes(newest.read_bytes()[:-1])
    with pytest.warns(RuntimeWarning, match=r"step-00000007.* is truncated"):
        trainer = Trainer(hooked(1, lambda out: out * math.nan), data(), CONFIG, folder=tmp_path)
    assert newest.with_suffix(".damaged").exists()
    with pytest.raises(TrainingError, match=r"the last checkpoint is \S+step-00000005.safe"):
        trainer.train()


def test_a_damaged_checkpoint_does_not_count_among_those_that_are_kept(tmp_path):
    config = CONFIG.changed(keep=2)
    Trainer(make(), data(), config, folder=tmp_path).train(7)
    newest = tmp_path / "step-00000007.safetensors"
    newest.write_bytes(newest.read_bytes()[:-1])
    with pytest.warns(RuntimeWarning, match=r"step-00000007.* is truncated"):
        Trainer(make(), data(), config, folder=tmp_path).train(3)
    assert [step for step, _ in checkpoint.steps_in(tmp_path)] == [5, 8]


class Counting(nn.Module):
    """Define a network with a cache, and a count of its calls, neither of which is saved."""

    def __init__(self, counts):
        super().__init__()
        self.inner, self.counts = nn.Linear(2, 2), counts
        for name in ("cache", "calls"):
            self.register_buffer(name, torch.zeros(()), persistent=False)

    def forward(self, x, c):
        if self.training:
            self.cache = self.cache if self.cache else torch.ones(())
            if self.counts:
                self.calls += 1
        return self.inner(x) * self.cache


@pytest.mark.global_rng
def test_a_buffer_that_training_changes_and_no_file_holds_is_named():
    config = CONFIG.changed(steps=6)
    Trainer(ScoreModel(Counting(False), VESDE(), (2,)), torch.randn(20, 2), config).train()
    with pytest.warns(RuntimeWarning, match="the buffer 'net.calls', which was registered") as seen:
        Trainer(ScoreModel(Counting(True), VESDE(), (2,)), torch.randn(20, 2), config).train()
    assert len(seen) == 1
