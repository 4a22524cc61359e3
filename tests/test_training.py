"""Test training: runs resume bit for bit after any interruption, and NaN is reported."""

import argparse
import errno
import json
import math
import os
import signal
import subprocess
import sys
import threading
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from scoresde import checkpoint
from scoresde.data import Data
from scoresde.errors import (
    CheckpointError,
    InvalidTypeError,
    InvalidValueError,
    ShapeError,
    TrainingError,
    UnknownNameError,
)
from scoresde.nn import MLP
from scoresde.objectives import LOSSES, WEIGHTS, dsm_loss, g2
from scoresde.score import Pilot, ScoreModel, Wrapped
from scoresde.sde import EDMSDE, LAWS, VESDE, VPSDE, Importance, Moments, Stratified, Uniform
from scoresde.training import Callback, Optimiser, TrainConfig, Trainer
from scoresde.training.held_out import HeldOut
from scoresde.training.stop import Stop

# 37 samples in batches of 8: the epochs end within a batch, at steps 4, 9, 13 ...
CONFIG = TrainConfig().changed(steps=13, batch_size=8, warmup=3, save_every=5, log_every=2)


def data(labels=True):
    g = torch.Generator().manual_seed(0)
    x = torch.randn(37, 2, generator=g)
    return Data(x, label=(x[:, 0] > 0).long() if labels else None)


def make(sde=None, moments=None, **options):
    """Return a tiny conditional model with dropout, always of the same weights."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        net = MLP(2, **{"hidden": (8,), "num_classes": 2, "dropout": 0.2, **options})
    return ScoreModel(net, sde or VESDE(), (2,), moments=moments or Moments(0.0, var=1.0))


def loss(trainer, step):
    """Return the loss of a step, without its update."""
    return trainer._update.loss(step, trainer._batches.at(step))


class Hook(nn.Module):
    """Define a network that calls `act` at its n-th evaluation."""

    def __init__(self, n, act):
        super().__init__()
        self.net, self.n, self.act = make().net, n, act

    def __deepcopy__(self, memo):
        return Hook(0, None)

    def forward(self, x, c, **condition):
        self.n -= 1
        out = self.net(x, c, **condition)
        return self.act(out) if self.n == 0 else out


def hooked(n, act):
    return ScoreModel(Hook(n, act), VESDE(), (2,))


def assert_same(a, b):
    """The two runs have the same tensors: weights, averages and the optimiser's."""
    one, other = (trainer._packed() for trainer in (a, b))
    assert a.step == b.step
    assert one.keys() == other.keys()
    assert [k for k in one if not torch.equal(one[k], other[k])] == []


def rows(folder):
    return [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def whole():
    """Return the undisturbed run."""
    trainer = Trainer(make(), data(), CONFIG)
    trainer.train()
    return trainer


# Resuming


@pytest.mark.long
@pytest.mark.law(62)
@given(parts=st.lists(st.integers(1, 6), max_size=3))
@settings(max_examples=10)
def test_a_run_in_parts_is_the_run_in_one_piece_bit_for_bit(tmp_path_factory, whole, parts):
    folder = tmp_path_factory.mktemp("run")
    for steps in parts:
        Trainer(make(), data(), CONFIG, folder=folder).train(steps)
    last = Trainer(make(), data(), CONFIG, folder=folder)
    assert last.step == min(sum(parts), 13)
    last.train()
    assert_same(last, whole)


@pytest.mark.law(61)
def test_a_checkpoint_holds_the_whole_state_bit_for_bit(tmp_path):
    first = Trainer(make(), data(), CONFIG, folder=tmp_path)
    first.train(7)
    assert_same(Trainer(make(), data(), CONFIG, folder=tmp_path), first)


@pytest.mark.slow
def test_training_leaves_the_weights_where_they_are_saved_or_not(tmp_path, whole):
    often = Trainer(make(), data(), CONFIG.changed(save_every=1, log_every=1), folder=tmp_path)
    often.train()
    assert_same(often, whole)


KILLED = """
import os, random, signal, sys, time
from test_training import CONFIG, Trainer, checkpoint, data, make
import torch
torch.set_num_threads(1)
folder, moments = sys.argv[1], random.Random(0)
config = CONFIG.changed(steps=90, save_every=3)
ends = []
for _ in range(4):
    before = checkpoint.steps_in(folder)
    child = os.fork()
    if child == 0:
        Trainer(make(), data(), config, folder=folder).train()
        os._exit(0)
    # on a busy machine the child may take long to get anywhere
    while checkpoint.steps_in(folder) == before and os.waitpid(child, os.WNOHANG) == (0, 0):
        time.sleep(0.001)
    time.sleep(moments.uniform(0, 0.05))
    try:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    except (ProcessLookupError, ChildProcessError):
        pass  # it had come to its end
    trainer = Trainer(make(), data(), config, folder=folder)
    trainer.train(0)  # and so leaves the folder to the next child
    ends.append(trainer.step)
trainer = Trainer(make(), data(), config, folder=folder)
trainer.train()
print(*ends)
"""


@pytest.mark.long
@pytest.mark.law(62)
@pytest.mark.skipif(os.name != "posix", reason="needs fork and SIGKILL")
def test_a_run_that_is_killed_again_and_again_ends_in_the_same_weights(tmp_path):
    here = Path(__file__).parent
    (tmp_path / "killed").mkdir()
    run = subprocess.run(
        [sys.executable, "-c", KILLED, str(tmp_path / "killed")],
        cwd=here,
        env={**os.environ, "PYTHONPATH": f"{here}{os.pathsep}{here.parent}"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    ends = [int(word) for word in run.stdout.split()]
    assert any(0 < end < 90 for end in ends), ends
    undisturbed = Trainer(make(), data(), CONFIG.changed(steps=90), folder=tmp_path / "whole")
    undisturbed.train()
    for name in ("model.safetensors", "step-00000090.safetensors"):
        killed, good = (
            checkpoint.load_tensors(tmp_path / r / name)[0] for r in ("killed", "whole")
        )
        assert killed.keys() == good.keys()
        assert all(torch.equal(killed[k], good[k]) for k in good)


def test_a_damaged_newest_checkpoint_costs_only_its_own_steps(tmp_path, whole):
    Trainer(make(), data(), CONFIG, folder=tmp_path).train(12)
    newest = tmp_path / "step-00000012.safetensors"
    newest.write_bytes(newest.read_bytes()[:1000])
    with pytest.warns(RuntimeWarning, match=r"step-00000012\S* is truncated: it has 1,000 bytes"):
        trainer = Trainer(make(), data(), CONFIG, folder=tmp_path)
    assert trainer.step == 10
    trainer.train()
    assert_same(trainer, whole)


def test_the_remains_of_a_killed_writer_are_removed_at_the_start(tmp_path):
    (tmp_path / f".scoresde-{'0' * 32}.tmp").write_text("half")
    Trainer(make(), data(), CONFIG, folder=tmp_path)
    assert not list(tmp_path.glob("*.tmp"))


def test_another_number_of_threads_causes_a_warning(tmp_path):
    Trainer(make(), data(), CONFIG, folder=tmp_path).train(1)
    torch.set_num_threads(2)
    try:
        with pytest.warns(RuntimeWarning, match="written with 1 threads and continues with 2"):
            Trainer(make(), data(), CONFIG, folder=tmp_path)
    finally:
        torch.set_num_threads(1)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (dict(lr=0.5), "another configuration: lr was 0.001 and is 0.5"),
        (
            dict(seed=1, betas=(0.5, 0.5)),
            r"configuration: seed was 0 and is 1, betas was \[0.9, 0.99\] and is \[0.5, 0.5\]",
        ),
        (dict(steps=8), "from a run of 13 steps, .*steps=8 is smaller"),
    ],
)
def test_another_configuration_in_the_same_folder_is_refused_by_field(tmp_path, change, message):
    Trainer(make(), data(), CONFIG, folder=tmp_path).train(1)
    with pytest.raises(InvalidValueError, match=f"{message}.*another folder"):
        Trainer(make(), data(), CONFIG.changed(**change), folder=tmp_path)


def test_another_model_or_data_set_in_the_same_folder_is_refused(tmp_path):
    Trainer(make(), data(), CONFIG, folder=tmp_path).train(1)
    with pytest.raises(
        InvalidValueError, match=r"another sde: it was VESDE\(.* and is now EDMSDE\("
    ):
        Trainer(make(EDMSDE()), data(), CONFIG, folder=tmp_path)
    with pytest.raises(InvalidValueError, match="another network: it was MLP"):
        Trainer(make(hidden=(9,)), data(), CONFIG, folder=tmp_path)
    with pytest.raises(InvalidValueError, match=r"another data set: it was 37 x 2, SHA-256"):
        Trainer(make(), Data(data().x + 1, label=data().label), CONFIG, folder=tmp_path)


def test_the_number_of_steps_may_grow_and_the_checkpoints_kept_may_change(tmp_path):
    Trainer(make(), data(), CONFIG, folder=tmp_path).train()
    longer = CONFIG.changed(steps=20, save_every=4, keep=2, log_every=3)
    with pytest.warns(RuntimeWarning, match="its learning rate was chosen for 13 .* jumps"):
        trainer = Trainer(make(), data(), longer, folder=tmp_path)
    assert (trainer.step, trainer.finished) == (13, False)
    trainer.train()
    assert (trainer.step, trainer.finished) == (20, True)


def test_a_constant_rate_can_be_prolonged_into_the_longer_run(tmp_path):
    short, long = (CONFIG.changed(decay="constant", steps=steps) for steps in (6, 11))
    Trainer(make(), data(), short, folder=tmp_path).train()
    prolonged = Trainer(make(), data(), long, folder=tmp_path)
    prolonged.train()
    at_once = Trainer(make(), data(), long)
    at_once.train()
    assert_same(prolonged, at_once)


@pytest.mark.parametrize(("decay", "start"), [("inverse_sqrt", 3), ("inverse_sqrt", 8), ("wsd", 8)])
def test_a_run_stopped_while_its_rate_is_that_of_the_longer_run_continues_into_it(
    tmp_path, decay, start
):
    short, long = (CONFIG.changed(decay=decay, decay_from=start, steps=steps) for steps in (9, 14))
    Trainer(make(), data(), short, folder=tmp_path).train(7)
    prolonged = Trainer(make(), data(), long, folder=tmp_path)
    prolonged.train(2)
    Trainer(make(), data(), long, folder=tmp_path).train()
    at_once = Trainer(make(), data(), long)
    at_once.train()
    assert_same(Trainer(make(), data(), long, folder=tmp_path), at_once)


def test_a_finished_run_does_nothing_but_write_its_model(tmp_path, whole):
    Trainer(make(), data(), CONFIG, folder=tmp_path).train()
    (tmp_path / "model.safetensors").unlink()
    again = Trainer(make(), data(), CONFIG, folder=tmp_path)
    assert again.finished
    model = again.train()
    assert_same(again, whole)
    stored, _ = checkpoint.load_tensors(tmp_path / "model.safetensors")
    assert all(torch.equal(v, stored[k]) for k, v in model.state_dict().items())


def test_the_files_of_a_finished_run_are_not_written_again(tmp_path):
    """Only files that a kill or damage left behind are written again."""
    Trainer(make(), data(), CONFIG, folder=tmp_path).train()
    model = ScoreModel.from_pretrained(tmp_path)
    model.steps = 17
    model.save_pretrained(tmp_path)
    for after in (17, None):
        Trainer(make(), data(), CONFIG, folder=tmp_path).train()
        assert ScoreModel.from_pretrained(tmp_path).steps == after
        (tmp_path / "config.json").write_text("{}")


def test_further_training_drops_the_pilot_of_the_old_weights(tmp_path):
    model = make()
    model.pilot = Pilot.measure(torch.arange(6.0) - 3, torch.eye(6), Moments(0.0, var=1.0), 6)
    model = Trainer(model, data(), CONFIG, folder=tmp_path).train(1)
    assert model.pilot is None
    assert ScoreModel.from_pretrained(tmp_path).pilot is None


@pytest.mark.parametrize("name", ["model.safetensors", "config.json"])
def test_a_model_of_no_run_is_not_replaced(tmp_path, name):
    make().save_pretrained(tmp_path / "other")
    before = (tmp_path / "other" / name).read_bytes()
    (tmp_path / name).write_bytes(before)
    with pytest.raises(
        CheckpointError, match=rf"holds {name}, which a new run would overwrite, but"
    ):
        Trainer(make(), data(), CONFIG, folder=tmp_path)
    assert (tmp_path / name).read_bytes() == before


def test_a_file_that_is_no_checkpoint_of_a_run_is_refused(tmp_path):
    checkpoint.save_step(tmp_path, 1, {}, {}, keep=2)
    with pytest.raises(CheckpointError, match="is not a checkpoint of a run"):
        Trainer(make(), data(), CONFIG, folder=tmp_path)


# Callbacks and logs


class Seen(Callback):
    """Define a callback that records its calls."""

    def __init__(self):
        self.calls = []

    def on_start(self, step, config):
        self.calls.append(("start", step))

    def on_log(self, row):
        self.calls.append(("log", row["step"]))

    def on_checkpoint(self, step, model):
        self.calls.append(("checkpoint", step))

    def on_end(self, step):
        self.calls.append(("end", step))


def test_a_callback_is_called_at_every_log_and_every_checkpoint(tmp_path):
    seen = Seen()
    trainer = Trainer(make(), data(), CONFIG, folder=tmp_path, callbacks=[seen])
    trainer.train(6)
    looks = [("log", 2), ("log", 4), ("log", 5), ("checkpoint", 5), ("log", 6), ("checkpoint", 6)]
    assert seen.calls == [("start", 0), *looks, ("end", 6)]


def test_a_callback_is_called_at_the_end_of_a_run_that_broke_down():
    seen = Seen()
    trainer = Trainer(hooked(3, lambda out: out * math.nan), data(), CONFIG, callbacks=[seen])
    with pytest.raises(TrainingError):
        trainer.train()
    assert seen.calls[-1] == ("end", 4)


# The result


@pytest.mark.slow
def test_training_lowers_the_loss(tmp_path):
    config = TrainConfig().changed(steps=200, batch_size=64, warmup=20, log_every=10, lr=3e-3)
    # with the data's moments an untrained model would already be exact
    x = torch.randn(256, 2, generator=torch.Generator().manual_seed(0)) * 0.6 + 2
    Trainer(make(dropout=0.0, num_classes=None), x, config, folder=tmp_path).train()
    losses = [row["loss"] for row in rows(tmp_path)]
    assert len(losses) == 20
    assert sum(losses[-6:]) < 0.5 * sum(losses[:6])


@pytest.mark.parametrize(("steps", "period"), [(7, 50), (700, 70), (20_000, 1000)])
def test_short_runs_have_checkpoints_too(steps, period):
    assert TrainConfig(steps=steps).keeping.period(steps) == period
    assert TrainConfig().changed(save_every=3).keeping.period(steps) == 3


def test_the_result_is_the_averaged_model_in_eval_mode(whole):
    model = whole.train()
    assert model is whole.ema.model
    assert not model.training
    assert not torch.equal(model.net.head.weight, whole.score.net.head.weight)


def test_the_average_follows_the_weights_of_every_step():
    config = CONFIG.changed(ema=0.5, steps=6)
    trainer = Trainer(make(), data(), config)
    expected = trainer.score.net.stem.weight.detach().clone()
    for k in range(6):
        trainer.train(1)
        decay = min(0.5, (1 + k) / (10 + k))
        expected = decay * expected + (1 - decay) * trainer.score.net.stem.weight.detach()
    torch.testing.assert_close(trainer.ema.model.net.stem.weight.detach(), expected)


def test_training_uses_every_sample_once_an_epoch_with_its_label():
    x = torch.arange(37.0)[:, None].expand(37, 2) / 37
    seen = []

    def spy(model, sde, x, **options):
        seen.extend(
            zip((37 * x[:, 0]).round().tolist(), options["condition"]["label"], strict=True)
        )
        return dsm_loss(model, sde, x, **options)

    config = CONFIG.changed(steps=14, condition_dropout=0.0)
    model = make(num_classes=37, moments=Moments(0.5, var=0.1))
    Trainer(model, Data(x, label=torch.arange(37)), config, loss=spy).train()
    assert all(sample == label for sample, label in seen)
    for epoch in range(3):
        assert sorted(sample for sample, _ in seen[37 * epoch :][:37]) == list(range(37))


def test_the_folder_holds_the_averaged_model_and_the_run(tmp_path, whole):
    Trainer(make(), data(), CONFIG, folder=tmp_path).train()
    stored, _ = checkpoint.load_tensors(tmp_path / "model.safetensors")
    expected = whole.ema.model.state_dict()
    assert stored.keys() == expected.keys()
    assert all(torch.equal(v, expected[k]) for k, v in stored.items())
    config = checkpoint.read_json(tmp_path / "config.json")
    assert config["training"] == {**CONFIG.as_json(), "done": 13}


def test_a_run_continues_only_with_the_same_frozen_weights(tmp_path):
    """Adam's averages are stored in the order of the weights that are trained."""
    config = CONFIG.changed(steps=4, save_every=2)

    def run(*frozen):
        model = make()
        for name, p in model.named_parameters():
            p.requires_grad_(name not in frozen)
        return Trainer(model, data(), config, folder=tmp_path)

    first, second, *_ = (name for name, _ in make().named_parameters())
    run(first).train(2)
    for other in ((), (second,), (first, second)):
        with pytest.raises(InvalidValueError, match="belongs to another set of frozen weights"):
            run(*other)
    run(first).train()


def test_a_card_that_was_not_written_before_a_kill_is_written_on_resuming(tmp_path):
    config = CONFIG.changed(steps=4, save_every=2, held_out=0.2, warmup=0)
    run = Trainer(make(), data(), config, folder=tmp_path)
    run.train(2)
    cards = [tmp_path / "README.md", tmp_path / "best" / "README.md"]
    old = [card.read_bytes() for card in cards]
    run.train()
    new = [card.read_bytes() for card in cards]
    assert old[0] != new[0]
    for card, text in zip(cards, old, strict=True):
        card.write_bytes(text)
    del run
    Trainer(make(), data(), config, folder=tmp_path).train()
    assert [card.read_bytes() for card in cards] == new


@pytest.mark.long
def test_the_loss_is_that_of_dsm_at_the_times_of_the_law():
    sde = VPSDE()  # of the variance-exploding one the importance weights are all one
    trainer = Trainer(
        make(sde, dropout=0.0, num_classes=None),
        data(False),
        CONFIG,
        loss=partial(dsm_loss, weight=g2, law=Importance()),
    )
    found = [float(loss(trainer, k).detach()) for k in range(400)]
    x = trainer.data.x[torch.arange(20000) % 37]
    g = torch.Generator().manual_seed(1)
    with torch.no_grad():  # uniform times: the law changes the variance alone
        losses = dsm_loss(trainer.score, sde, x, weight=g2, law=Uniform(), generator=g) / 2
    found = torch.tensor(found, dtype=torch.float64)
    error = math.hypot(found.std() / 400**0.5, losses.std() / 20000**0.5)
    assert abs(found.mean() - losses.mean()) < 5 * error


@pytest.mark.slow
@pytest.mark.parametrize("loss", LOSSES.values())
@given(weight=st.sampled_from(list(WEIGHTS.values())), law=st.sampled_from(list(LAWS.values())))
@settings(max_examples=4)
def test_every_loss_weight_and_law_of_times_trains(loss, weight, law):
    loss = partial(loss, weight=weight, law=Stratified(law))
    trainer = Trainer(make(), data(), CONFIG.changed(steps=2), loss=loss)
    before = trainer.score.net.head.weight.detach().clone()
    trainer.train()
    assert not torch.equal(before, trainer.score.net.head.weight)


def test_the_global_random_state_has_no_effect(whole):
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(123)
        trainer = Trainer(make(), data(), CONFIG)
        trainer.train()
    assert_same(trainer, whole)


def test_another_seed_is_another_run(whole):
    trainer = Trainer(make(), data(), CONFIG.changed(seed=1))
    trainer.train()
    assert not torch.equal(trainer.score.net.head.weight, whole.score.net.head.weight)


def test_every_step_has_different_times_noise_and_dropout():
    trainer = Trainer(make(num_classes=None), Data(torch.zeros(8, 2)), CONFIG)
    torch.nn.init.ones_(trainer.score.net.head.weight)
    trainer.score.train()
    assert len({float(loss(trainer, k).detach()) for k in range(20)}) == 20
    dropped = []
    trainer.score.net.layers[0].register_forward_hook(lambda m, i, out: dropped.append(out))
    trainer.score.net.stem.register_forward_hook(lambda m, i, out: torch.ones_like(out))
    trainer.score.net.embedding.register_forward_hook(lambda m, i, out: torch.ones_like(out))
    for k in (0, 1):
        loss(trainer, k)
    assert not torch.equal(*dropped)


def test_a_long_gradient_is_scaled_down_to_the_clip():
    trainer = Trainer(make(), data(), CONFIG.changed(clip=1e-3))
    trainer.train(1)
    grads = [p.grad.flatten() for p in trainer.score.parameters() if p.grad is not None]
    assert float(torch.cat(grads).norm()) == pytest.approx(1e-3, rel=1e-3)


def test_frozen_parameters_do_not_change(tmp_path):
    def frozen():
        model = make()
        model.net.stem.requires_grad_(False)
        return model

    start = frozen().net.stem.weight
    Trainer(frozen(), data(), CONFIG, folder=tmp_path).train(7)
    last = Trainer(frozen(), data(), CONFIG, folder=tmp_path)
    last.train()
    assert torch.equal(last.score.net.stem.weight, start)
    assert torch.equal(last.ema.model.net.stem.weight, start)
    at_once = Trainer(frozen(), data(), CONFIG)
    at_once.train()
    assert_same(last, at_once)


@pytest.mark.slow
def test_labels_are_hidden_at_the_given_rate():
    seen = []

    class Eye(nn.Module):
        def __init__(self):
            super().__init__()
            self.scale = nn.Parameter(torch.zeros(()))

        def forward(self, x, c, label):
            seen.append(label)
            return self.scale * x

    model = ScoreModel(Eye(), VESDE(), (2,))
    Trainer(model, data(), CONFIG.changed(steps=200, condition_dropout=0.25)).train()
    hidden = (torch.cat(seen) == -1).double().mean()
    assert abs(hidden - 0.25) < 5 * (0.25 * 0.75 / 1600) ** 0.5
    assert set(torch.cat(seen).tolist()) == {-1, 0, 1}


def test_bfloat16_is_for_the_network_alone_and_for_training_alone():
    trainer = Trainer(make(), data(), CONFIG.changed(bf16=True, steps=3))
    seen = []
    trainer.score.net.head.register_forward_hook(lambda m, i, out: seen.append(out.dtype))
    trainer.train()
    assert set(seen) == {torch.bfloat16}
    assert trainer.score.autocast is None
    assert {v.dtype for v in trainer.score.parameters()} == {torch.float32}


def test_training_mode_is_on_within_and_restored_after():
    modes = []
    model = make().eval()
    model.net.register_forward_hook(lambda m, i, out: modes.append(m.training))
    Trainer(model, data(), CONFIG.changed(steps=2)).train()
    assert modes == [True, True]
    assert not model.training


def test_a_bar_with_the_loss_is_shown_on_request(capfd):
    Trainer(make(), data(), CONFIG.changed(steps=4)).train(progress=True)
    assert "4/4" in (shown := capfd.readouterr().err)
    assert "loss=" in shown
    trainer = Trainer(make(), data(), CONFIG.changed(steps=4))
    trainer.train(1, progress=False)
    trainer.train(progress=True)
    assert "training from step 1:" in capfd.readouterr().err
    Trainer(make(), data(), CONFIG.changed(steps=4)).train()  # this is no terminal
    assert capfd.readouterr().err == ""


def test_the_log_has_one_line_for_every_log_step(tmp_path):
    Trainer(make(), data(), CONFIG, folder=tmp_path).train(12)
    (tmp_path / "step-00000012.safetensors").unlink()
    with (tmp_path / "log.jsonl").open("a") as file:
        file.write('{"step": 12, "los')
    Trainer(make(), data(), CONFIG, folder=tmp_path).train()
    found = rows(tmp_path)
    assert [row["step"] for row in found] == [2, 4, 5, 6, 8, 10, 12, 13]
    assert found[0].keys() == {"step", "loss", "grad_norm", "lr", "seconds"}


def test_the_learning_rate_rises_and_falls_as_documented():
    config = TrainConfig().changed(steps=100, lr=0.1, warmup=10)
    assert config.lr_at(0) == pytest.approx(0.1 * 0.1 * 1)
    assert config.lr_at(50) == pytest.approx(0.1 * 0.5)
    assert config.lr_at(100) == pytest.approx(0)
    constant = config.changed(decay="constant")
    assert [constant.lr_at(k) for k in (4, 9, 99)] == pytest.approx([0.05, 0.1, 0.1])


@given(
    steps=st.integers(1, 10**6), warmup=st.integers(0, 50), share=st.floats(0, 1), data=st.data()
)
def test_the_rates_of_edm2_and_of_warmup_stable_decay_are_their_closed_forms(
    steps, warmup, share, data
):
    k = data.draw(st.integers(0, steps - 1))
    start = 1 + int(share * steps)
    rise = min(1.0, (k + 1) / max(1, warmup))
    rate = Optimiser(lr=0.5, warmup=warmup, decay="inverse_sqrt", decay_from=start)
    assert rate.lr_at(k, steps) == pytest.approx(0.5 * rise / max(1, k / start) ** 0.5, rel=1e-12)
    rate = Optimiser(lr=0.5, warmup=warmup, decay="wsd", decay_from=start)
    left = (steps - k) / (steps - start) if k > start else 1.0
    assert rate.lr_at(k, steps) == pytest.approx(0.5 * rise * left, rel=1e-12)


def test_without_a_step_of_its_own_a_rate_falls_after_a_share_of_the_run():
    for decay, start in (("wsd", 800), ("inverse_sqrt", 100)):
        rate = Optimiser(decay=decay)
        assert rate.lr_at(start, 1000) == rate.lr == rate.lr_at(150, 1500)
        assert rate.lr_at(start + 1, 1000) < rate.lr


def test_a_step_at_which_the_rate_falls_needs_a_decay_that_has_one():
    with pytest.raises(InvalidValueError, match="decay_from is for the decays wsd and inv"):
        Optimiser(decay_from=5)
    with pytest.raises(InvalidValueError, match="decay_from must be an integer >= 1"):
        Optimiser(decay="wsd", decay_from=0)


# What ends a run


def handlers():
    return [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("number", "error", "code"),
    [(signal.SIGINT, KeyboardInterrupt, None), (signal.SIGTERM, SystemExit, 143)],
)
def test_a_signal_ends_the_run_after_its_step_and_a_checkpoint(
    tmp_path, whole, number, error, code
):
    def send(out):
        signal.raise_signal(number)
        return out

    before = handlers()
    trainer = Trainer(hooked(4, send), data(), CONFIG, folder=tmp_path)
    with pytest.raises(error) as caught:
        trainer.train()
    assert trainer.step == 4
    assert checkpoint.latest(tmp_path)[2]["step"] == 4
    assert handlers() == before
    if code is None:
        assert str(caught.value) == (
            f"SIGINT at step 4; saved in {tmp_path}, from which a new run continues"
        )
    else:
        assert caught.value.code == code
    trainer.train()  # and the same trainer continues
    ends = [trainer.score.state_dict()[f"net.net.{k}"] for k in whole.score.net.state_dict()]
    assert all(
        torch.equal(a, b) for a, b in zip(ends, whole.score.net.state_dict().values(), strict=True)
    )


@pytest.mark.parametrize(
    ("number", "error"), [(signal.SIGINT, KeyboardInterrupt), (signal.SIGTERM, SystemExit)]
)
def test_a_second_signal_ends_the_run_at_once(tmp_path, number, error):
    def send(out):
        signal.raise_signal(number)
        signal.raise_signal(number)
        raise AssertionError("went on after the second signal")

    before = handlers()
    with pytest.raises(error):
        Trainer(hooked(4, send), data(), CONFIG, folder=tmp_path).train()
    assert list(tmp_path.glob("step-*")) == []
    assert handlers() == before


@pytest.mark.parametrize("here", [True, False])
def test_signals_to_several_processes_at_almost_the_same_time_are_one(monkeypatch, here):
    monkeypatch.setattr("scoresde.distributed.size", lambda: 2)
    monkeypatch.setattr("scoresde.distributed.largest", lambda number: signal.SIGINT)

    def run():
        with Stop() as stop:
            if here:
                signal.raise_signal(signal.SIGINT)
            else:
                stop.agreed()  # another process received a signal
            signal.raise_signal(signal.SIGTERM)

    with pytest.raises(KeyboardInterrupt, match="SIGINT after the last step"):
        run()


def test_a_run_in_another_thread_handles_no_signals(whole):
    trainer = Trainer(make(), data(), CONFIG)
    thread = threading.Thread(target=trainer.train)
    thread.start()
    thread.join()
    assert_same(trainer, whole)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_loss_that_is_not_finite_is_reported_and_never_saved(tmp_path, bad):
    trainer = Trainer(hooked(9, lambda out: out * bad), data(), CONFIG, folder=tmp_path)
    with pytest.raises(TrainingError) as caught:
        trainer.train()
    message = str(caught.value)
    assert message.startswith(f"training failed at step 8: the loss is {bad} and its grad")
    assert f"at learning rate {CONFIG.lr_at(8):.3g}, times in [0." in message
    assert "and sigma in [" in message
    assert f"the last checkpoint is {tmp_path / 'step-00000005.safetensors'}; try" in message
    assert checkpoint.latest(tmp_path)[2]["step"] == 5


def test_a_gradient_that_is_not_finite_is_reported_even_if_the_loss_is_finite(tmp_path):
    class Cliff(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return x.clone()

        @staticmethod
        def backward(ctx, grad):
            return grad * math.inf

    trainer = Trainer(hooked(13, Cliff.apply), data(), CONFIG, folder=tmp_path)
    with pytest.raises(TrainingError, match=r"step 12: the loss is [\d.]+ and its gradient's norm"):
        trainer.train()
    assert checkpoint.latest(tmp_path)[2]["step"] == 10


@pytest.mark.slow
def test_a_run_survives_a_full_disk_and_keeps_earlier_checkpoints(tmp_path, monkeypatch):
    config = CONFIG.changed(steps=30, save_every=5)
    trainer = Trainer(make(), data(), config, folder=tmp_path)
    trainer.train(5)

    def full(_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with (
        pytest.warns(RuntimeWarning, match="No space left on device.*training continues"),
        pytest.raises(CheckpointError, match="No space left on device"),
    ):
        trainer.train()
    assert 15 < trainer.step <= 20  # the error is reported at a step after it
    monkeypatch.undo()
    assert checkpoint.latest(tmp_path)[2]["step"] == 5
    resumed = Trainer(make(), data(), config, folder=tmp_path)
    resumed.train()
    undisturbed = Trainer(make(), data(), config)
    undisturbed.train()
    assert_same(resumed, undisturbed)


@given(
    steps=st.integers(1, 400), log=st.integers(1, 60), save=st.integers(1, 500),
    n=st.integers(1, 5000), batch=st.integers(1, 300),
)  # fmt: skip
def test_the_loss_of_held_out_data_is_measured_often_for_any_checkpoints(
    steps, log, save, n, batch
):
    config = TrainConfig(steps=steps, batch_size=batch).changed(log_every=log, save_every=save)
    held = HeldOut(Data(torch.zeros(n, 1)), VESDE(), dsm_loss, config)
    held.loss, cost = lambda model: 0.0, n / batch / 3
    averages = type("Averages", (), {"whole": lambda self: type("W", (), {"model": None})})()
    looks = [
        step
        for step in range(1, steps)
        if held.loss_if_due(step, averages, due=False, end=False) is not None
    ]
    assert all(step % log == 0 for step in looks)  # where a line is written
    assert len(looks) <= 20
    assert cost * len(looks) <= 0.05 * steps
    gaps = [b - a for a, b in zip([0, *looks], [*looks, steps], strict=True)]
    assert max(gaps) <= max(steps / 20, 20 * cost) + log
    assert held.loss_if_due(steps, averages, due=False, end=True) is not None
    assert held.at is None  # which only checkpoints determine
    held.loss_if_due(steps, averages, due=True, end=True)
    assert held.at == steps


def test_the_held_out_loss_is_split_into_quarters_by_the_noise_of_the_samples():
    def times(score, sde, x, *, noise, condition=None):
        t = torch.special.ndtr(noise.normal(x[:, :1].double(), 0.0)[:, 0]).to(x)
        return score(x, t, condition).sum(1) * 0 + t

    config = TrainConfig(steps=2, batch_size=8).changed(log_every=1, held_out=0.3)
    trainer = Trainer(make(), data(), config, loss=times)
    trainer.train(progress=False)
    row, held = trainer.history.rows[-1], trainer.held_out
    quarters = [row[f"held_out_{i}"] for i in (1, 2, 3, 4)]
    assert quarters == sorted(set(quarters)) == list(held.quarters.values())
    counts = [len(part) for part in torch.arange(len(held.data)).tensor_split(4)]
    total = sum(n * value for n, value in zip(counts, quarters, strict=True))
    assert total == pytest.approx(len(held.data) * row["held_out"], rel=1e-12)


def test_a_loss_without_one_time_per_sample_has_no_quarters():
    def one_time(score, sde, x, *, noise, condition=None):
        return score(x, torch.tensor(0.5), condition).square().sum(1)

    held = HeldOut(data(), VESDE(), one_time, CONFIG)
    assert held.loss(make()) > 0
    assert held.quarters == {}


def test_a_higher_held_out_loss_is_compared_with_its_standard_error():
    def loss(score, sde, x, *, noise, condition=None):
        return next(values) * math.prod(x.shape[1:])

    a, b = torch.rand(2, 37, generator=torch.Generator().manual_seed(0)) + torch.tensor(
        [[1.0], [1.2]]
    )
    values = iter([a, b, a / 2, a])
    held = HeldOut(data(), VESDE(), loss, CONFIG.changed(batch_size=64))
    held.loss_of_checkpoint(1, make())
    assert held.excess == {}
    held.loss_of_checkpoint(2, make())
    error = (b - a).double().var().div(37).sqrt()
    want = (b - a).double().mean() - 2 * error
    assert held.excess["held_out_excess"] == pytest.approx(float(want), rel=1e-5)
    held.loss_of_checkpoint(3, make())
    assert held.excess == {}
    held.loss(make())
    assert (held.excess, held.at) == ({}, 3)


def test_a_run_without_checkpoints_logs_the_loss_of_its_held_out_data():
    config = TrainConfig(steps=40, batch_size=8).changed(log_every=2, held_out=0.25)
    trainer = Trainer(make(), data(), config)
    trainer.train(5)
    assert trainer.history.rows[-1]["held_out"] == trainer.held_out.loss(trainer.model)
    trainer.train()
    assert [row["step"] for row in trainer.history.rows if "held_out" in row][-2:] == [32, 40]


# Bad input


def test_data_that_do_not_fit_the_model_are_refused():
    with pytest.raises(
        ShapeError, match=r"events of shape \(3,\), but the score has \(2,\); build"
    ):
        Trainer(make(), torch.zeros(4, 3))
    with pytest.raises(UnknownNameError, match=r"condition 'label', which .* num_classes={'label'"):
        Trainer(make(num_classes=None), data())
    with pytest.raises(InvalidValueError, match=r"'label' of the data is .*n=2\), .*n=1\)"):
        Trainer(make(num_classes=1), data())
    with pytest.raises(InvalidValueError, match=r"'label', .* which the data lack.* all -1"):
        Trainer(make(), data(labels=False))
    Trainer(make(num_classes=3), data(), CONFIG)  # a class of which there is no sample


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("steps", 0, "steps must be an integer >= 1, got 0"),
        ("batch_size", 2.5, "batch_size must be an integer >= 1, got 2.5"),
        ("seed", -1, "seed must be an integer >= 0, got -1"),
        ("keep", 1, "keep must be an integer >= 2, got 1"),
        ("lr", 0.0, "lr must be positive and finite, got 0.0"),
        ("seed", 2**64, r"seed must be below 2\*\*64, got 18446744073709551616"),
        ("lr", math.nan, "lr must be positive and finite, got nan"),
        ("lr", math.inf, "lr must be positive and finite, got inf"),
        ("clip", -1.0, "clip must be positive and finite, got -1.0"),
        ("clip", math.inf, "clip must be positive and finite, got inf; 1e30 scales nothing down"),
        ("ema", 1.0, r"ema must lie in \[0, 1\), got 1.0"),
        ("betas", (0.9, 1.0), r"betas must lie in \[0, 1\), got 1.0"),
        ("condition_dropout", 1.5, r"condition_dropout must lie in \[0, 1\], got 1.5"),
    ],
)
def test_impossible_numbers_are_refused_by_field(field, value, message):
    with pytest.raises(InvalidValueError, match=message):
        TrainConfig().changed(**{field: value})


def test_a_number_of_numpy_is_a_number(tmp_path):
    config = CONFIG.changed(steps=1, lr=np.float32(0.5), clip=np.float64(2))
    assert config == CONFIG.changed(steps=1, lr=0.5, clip=2)
    assert Trainer(make(), data(), config, folder=tmp_path).train() is not None


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("lr", "fast", "lr of Optimiser must be a number, got 'fast'"),
        ("condition_dropout", None, "condition_dropout .* must be a number or a dict .*, got None"),
        ("betas", 0.9, "betas of Optimiser must be a tuple of 2 numbers, got 0.9"),
        ("betas", (0.9,), r"betas of Optimiser must be a tuple of 2 numbers, got \(0.9,\)"),
        ("ema_sigma", (0.1, "wide"), r"ema_sigma must be a tuple of numbers, got \(0.1, 'wide'\)"),
        ("optimiser", {"lr": 0.1}, r"optimiser must be a Optimiser, got {'lr': 0.1}"),
    ],
)
def test_a_field_that_is_no_number_is_refused_by_name(field, value, message):
    with pytest.raises(InvalidTypeError, match=message):
        TrainConfig().changed(**{field: value})


@pytest.mark.parametrize("steps", [-1, 1.5, "3", True])
def test_an_invalid_number_of_updates_is_refused_before_the_first(steps):
    trainer = Trainer(make(), data(), CONFIG)
    with pytest.raises((InvalidValueError, InvalidTypeError), match="steps must be an integer"):
        trainer.train(steps)
    assert trainer.step == 0


@pytest.mark.parametrize("progress", ["yes", 1, 0.0])
def test_an_invalid_progress_is_refused_before_the_first_update(progress):
    trainer = Trainer(make(), data(), CONFIG)
    with pytest.raises(InvalidTypeError, match="progress must be True, False or None, got"):
        trainer.train(progress=progress)
    assert trainer.step == 0


def test_an_invalid_model_or_configuration_is_refused():
    with pytest.raises(InvalidValueError, match=r"has no SDE in its facts; .* `facts = Facts"):
        Trainer(make().net, data())
    with pytest.raises(InvalidTypeError, match=r"a score that is an nn.Module, got Wrapped"):
        Trainer(Wrapped(make()), data())
    with pytest.raises(InvalidTypeError, match="config must be a TrainConfig or None"):
        Trainer(make(), data(), {"steps": 2})


class Own(nn.Linear):
    """Define a user's network, that has its configuration as many do."""

    def __init__(self):
        super().__init__(2, 2)
        self.config = argparse.Namespace(width=2)

    def forward(self, x, c):
        return super().forward(x)


def test_a_network_with_another_kind_of_configuration_is_trained_and_resumed(tmp_path):
    """It was refused at the first checkpoint, or mistaken for another one."""
    for step in (1, 2):
        with torch.random.fork_rng(devices=[]):
            model = ScoreModel(Own(), VESDE(), (2,))
        trainer = Trainer(model, data(labels=False), CONFIG, folder=tmp_path)
        assert trainer.step == step - 1
        assert trainer.train(1).classes is None
    with torch.random.fork_rng(devices=[]):
        again = ScoreModel.from_pretrained(tmp_path, net=Own())
    assert torch.equal(again.net.weight, trainer.ema.model.net.weight)


def test_a_folder_that_cannot_be_made_is_reported_before_the_first_update(tmp_path):
    (tmp_path / "file").write_text("mine")
    for folder in (tmp_path / "file", tmp_path / "file" / "run", tmp_path / "a\0b"):
        with pytest.raises(CheckpointError, match="cannot make the folder"):
            Trainer(make(), data(), CONFIG, folder=folder)
    assert (tmp_path / "file").read_text() == "mine"


@dataclass(frozen=True, kw_only=True)
class Tabled(VESDE):
    """Define a user's process, with a field that is no JSON."""

    table: torch.Tensor


def test_a_model_that_no_file_can_hold_is_refused_before_the_first_update(tmp_path):
    with pytest.raises(InvalidTypeError, match=r"cannot store tensor\(\[1.\]\) .* as JSON"):
        Trainer(make(Tabled(table=torch.ones(1))), data(), CONFIG, folder=tmp_path)


def test_a_result_can_be_trained_again_after_its_weights_require_gradients():
    result = Trainer(make(), data(), CONFIG).train()
    with pytest.raises(InvalidValueError, match=r"nothing to train; .* `score.requires_grad_\(\)`"):
        Trainer(result, data(), CONFIG)
    before = result.net.stem.weight.clone()
    Trainer(result.requires_grad_(), data(), CONFIG).train()
    assert not torch.equal(result.net.stem.weight, before)


def test_a_network_whose_weights_cannot_be_found_is_reported():
    trainer = Trainer(hooked(1, torch.Tensor.detach), data(), CONFIG)
    with pytest.raises(TrainingError, match="no gradient reaches any parameter"):
        trainer.train()


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("on_nan", "rais", "unknown on_nan 'rais'; did you mean 'raise'"),
        ("warm_up", 3, "unknown field 'warm_up'; did you mean 'warmup'"),
        ("decay", "cosin", "unknown decay 'cosin'; did you mean 'cosine'"),
    ],
)
def test_unknown_names_are_refused_with_the_nearest(field, value, message):
    with pytest.raises(UnknownNameError, match=message):
        TrainConfig().changed(**{field: value})


@pytest.mark.parametrize(
    "wrong", [{"folder": 3}, {"callbacks": 3}, {"augment": 3}, {"callback": ()}, {"callbacks": [3]}]
)
def test_a_trainer_refuses_wrong_arguments_before_it_trains(wrong):
    with torch.random.fork_rng():
        model = ScoreModel(MLP(2, hidden=(4,)), VESDE(), (2,))
    with pytest.raises(InvalidTypeError):
        Trainer(model, torch.randn(8, 2, generator=torch.Generator().manual_seed(0)), **wrong)


def test_a_resumed_trainer_has_its_step_before_it_trains(tmp_path):
    Trainer(make(), data(), CONFIG, folder=tmp_path).train(4)
    again = Trainer(make(), data(), CONFIG, folder=tmp_path)
    assert f"step 4 of {CONFIG.steps}, loss " in repr(again)
    assert again.history.rows[-1]["step"] == 4
    assert not again.model.training
    one, other = (m.state_dict() for m in (again.model, again.train(0)))
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_callbacks_are_called_at_checkpoints_even_if_nothing_is_kept():
    heard = []

    class Listener(Callback):
        def on_checkpoint(self, step, model):
            heard.append(step)

    config = CONFIG.changed(steps=5, save_every=2)
    Trainer(make(), data(), config, callbacks=[Listener()]).train()
    assert heard == [2, 4, 5]
