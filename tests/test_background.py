"""Test checkpoints written during training: one at a time, complete, with errors reported."""

import os
import threading

import pytest
from test_training import CONFIG, assert_same, data, make

from scoresde import checkpoint
from scoresde.errors import CheckpointError
from scoresde.training import Callback, Trainer
from scoresde.training.background import Background


class Steps(Callback):
    """Define a callback that sets an event once the log has a row of a step."""

    def __init__(self, step):
        self.step, self.reached = step, threading.Event()

    def on_log(self, row):
        if row["step"] >= self.step:
            self.reached.set()


def test_training_goes_on_while_a_checkpoint_is_written(tmp_path, monkeypatch):
    config = CONFIG.changed(save_every=4, keep=9, log_every=1)
    seen, save, running, saved = Steps(6), checkpoint.save_step, threading.Lock(), []

    def slow(folder, step, *args, **options):
        assert running.acquire(blocking=False), "two checkpoints are written at once"
        if step == 4:
            assert seen.reached.wait(60), "training waits for the checkpoint"
        path = save(folder, step, *args, **options)
        saved.append(step)
        running.release()
        return path

    monkeypatch.setattr(checkpoint, "save_step", slow)
    trainer = Trainer(make(), data(), config, folder=tmp_path, callbacks=[seen])
    trainer.train()
    assert saved == sorted(saved)
    assert checkpoint.latest(tmp_path)[2]["step"] == config.steps
    # the checkpoint of step 4 holds the weights of step 4, though two later steps came before it
    whole = Trainer(make(), data(), config)
    whole.train(4)
    tensors, _ = checkpoint.load_tensors(tmp_path / "step-00000004.safetensors")
    assert all((tensors[name] == value).all() for name, value in whole._packed().items())
    assert_same(trainer, Trainer(make(), data(), config, folder=tmp_path))


def test_a_background_raises_the_error_of_a_job_once_and_works_again():
    background, seen = Background(), []

    def fail():
        raise CheckpointError("full")

    background.begin(fail)
    with pytest.raises(CheckpointError, match="full"):
        background.begin(lambda: seen.append(1))
    background.begin(lambda: seen.append(2))
    background.finish()
    assert seen == [2]
    assert background.done


def test_a_job_runs_at_once_if_no_thread_can_be_started(monkeypatch):
    def refuse(thread):
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    background, seen = Background(), []
    background.begin(lambda: seen.append(1))
    assert seen == [1]
    background.finish()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="Windows has no forks")
def test_a_fork_waits_for_the_file_that_is_written():
    background, go, seen = Background(), threading.Event(), []
    background.begin(lambda: seen.append(go.wait(60)))
    threading.Timer(0.05, go.set).start()
    pid = os.fork()
    if pid == 0:
        os._exit(0 if seen == [True] and background.done else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
