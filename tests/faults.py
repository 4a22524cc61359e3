"""Cause faults at random instants of a run: `python tests/faults.py --instants 200`.

A fault strikes a child process that trains a tiny model. Afterwards every checkpoint that was
written before it must be there and good, those apart that the fault itself has damaged, and the
run that is taken up again must end in the weights of one that nothing disturbed, bit for bit.
A fault that training cannot outlive must end in an error that names it.
"""

from __future__ import annotations

import argparse
import builtins
import errno
import fcntl
import gc
import math
import os
import random
import re
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import termios
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from unittest.mock import patch

import numpy as np
import torch
from PIL import Image
from test_training import data, rows
from torch import nn
from torch.utils.data.dataloader import _MultiProcessingDataLoaderIter

from scoresde import checkpoint, cli
from scoresde.data import load, stores
from scoresde.errors import CheckpointError
from scoresde.nn import MLP
from scoresde.score import ScoreModel, pilot_file
from scoresde.sde import VESDE
from scoresde.training import Callback, TrainConfig, Trainer

CONFIG = TrainConfig().changed(steps=18, batch_size=8, warmup=3, save_every=3, keep=3, log_every=2)
# flushing to a real disk would take most of the time
MEMORY = "/dev/shm" if os.path.isdir("/dev/shm") else None
LAST = f"step-{CONFIG.steps:08d}.safetensors"


class Net(nn.Module):
    """As few tensors as a network with dropout can have, since they make most of the cost."""

    def __init__(self, size: int):
        super().__init__()
        self.inner, self.outer = nn.Linear(size + 1, 8), nn.Linear(8, size)
        self.drop = nn.Dropout(0.2)

    def forward(self, x, c):
        state = torch.cat([x.flatten(1), c[:, None]], 1)
        return self.outer(self.drop(self.inner(state).tanh())).view_as(x)


class Started(Callback):
    """Says when training begins, and signals are waited for."""

    def __init__(self, say):
        self.say = say

    def on_start(self, step, config):
        self.say("started")


# A run in a separate process


@dataclass
class End:
    """Hold the end of a child: its exit code, or minus the number of a signal, and its output."""

    code: int
    said: list[str]

    def all(self, word: str) -> list[str]:
        """What it said of this kind."""
        return [line.split(" ", 1)[1] for line in self.said if line.startswith(word + " ")]


class Child:
    """Define a forked process that trains, and reports through a pipe."""

    def __init__(self, make, prepare, steps: int | None):
        source, target = os.pipe()
        self.pid = os.fork()
        if self.pid == 0:
            os.close(source)
            os._exit(_train(make, prepare, steps, partial(_say, target)))
        os.close(target)
        self.pipe = os.fdopen(source)
        self.said: list[str] = []

    def wait_until(self, word: str) -> None:
        """Read the child's messages until this one, or the last."""
        for line in self.pipe:
            self.said.append(line.rstrip("\n"))
            if self.said[-1] == word:
                return

    def send(self, number: int) -> None:
        """Send a signal if the child is still running; only `end` waits for it."""
        os.kill(self.pid, number)

    def end(self) -> End:
        """Wait for the end."""
        self.wait_until("nothing but the end")
        self.pipe.close()
        return End(os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1]), self.said)


def _say(pipe: int, line: str) -> None:
    os.write(pipe, (" ".join(line.split()) + "\n").encode())


def _train(make, prepare, steps, say) -> int:
    """Train in a child process, and return its exit code."""
    os.setsid()
    save = checkpoint.save_step

    def save_step(folder, step, *args, **options):
        path = save(folder, step, *args, **options)
        say(f"saved {step}")
        return path

    checkpoint.save_step = save_step
    warnings.simplefilter("always")
    warnings.showwarning = lambda message, *_: say(f"warning {message}")
    try:
        trainer = make([Started(say)])
        prepare(trainer, say)
        try:
            trainer.train(steps, progress=False)
        finally:
            say(f"step {trainer.step}")
        return 0
    except SystemExit as error:
        return error.code
    except KeyboardInterrupt:
        return 130
    except BaseException as error:
        say(f"error {type(error).__name__}: {error}")
        return 1


@dataclass
class Whole:
    """Hold the undisturbed run: its result, and its numbers of steps and calls."""

    result: dict[str, dict[str, torch.Tensor]]
    seconds: float
    events: int


class Scene:
    """Hold the folder of one run, before, during and after a fault.

    Attributes:
        config, data, prepare: The configuration and data of the run, and a change of its trainer.
        chance: The source of the random choices of the fault.
        whole: The undisturbed run.
        saved: The steps whose checkpoints were written, as far as the children reported them.
        turn: The number of this instant of its kind, and the number of instants of each kind.
        spoilt: Files that the fault has damaged, whose loss is expected.
    """

    def __init__(self, folder: Path, chance: random.Random, whole: Whole | None = None):
        self.folder, self.chance, self.whole = folder, chance, whole
        self.saved: set[int] = set()
        self.spoilt: set[Path] = set()
        self.config = CONFIG
        self.data = partial(data, labels=False)
        self.prepare = lambda trainer, say: None
        self.turn = (0, 1)
        self.missing: list[int] = []
        self.exact: bool | None = None
        self.warned: list[str] = []

    def make(self, callbacks=()) -> Trainer:
        """Return the trainer of the run."""
        samples = self.data()
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(0)
            net = Net(math.prod(samples.event_shape))
        model = ScoreModel(net, VESDE(), samples.event_shape)
        return Trainer(model, samples, self.config, folder=self.folder, callbacks=callbacks)

    def start(self, prepare=None, steps: int | None = None) -> Child:
        """Begin or continue with the run."""

        def both(trainer, say):
            self.prepare(trainer, say)
            if prepare is not None:
                prepare(trainer, say)

        return Child(self.make, both, steps)

    def end(self, child: Child) -> End:
        """Wait for the end, and note what was saved until then."""
        end = child.end()
        self.saved |= {int(step) for step in end.all("saved")}
        return end

    def run(self, prepare=None, steps: int | None = None) -> End:
        """Begin or continue with the run, and wait for its end."""
        return self.end(self.start(prepare, steps))

    def result(self) -> dict[str, dict[str, torch.Tensor]]:
        """Return the tensors of the finished run."""
        last = f"step-{self.config.steps:08d}.safetensors"
        files = {self.folder / last, self.folder / "model.safetensors"}
        files |= set(self.folder.glob("ema*/**/*.safetensors"))
        return {
            str(path.relative_to(self.folder)): checkpoint.load_tensors(path)[0] for path in files
        }

    def compare_with_an_undisturbed_run(self) -> None:
        """Use a run of this configuration, instead of the usual one, as the undisturbed run."""
        whole = Scene(self.folder.with_suffix(".whole"), self.chance)
        whole.config, whole.data, whole.prepare = self.config, self.data, self.prepare
        end = whole.run()
        assert end.code == 0, end
        self.whole = replace(self.whole, result=whole.result())

    def part(self, calls: int) -> range:
        """Return about 12 moments of all, so that twenty instants strike up to 240 moments."""
        i, n = self.turn
        return range(i % calls, calls, max(n, math.ceil(calls / 12)))

    def lost(self) -> list[int]:
        """Return the steps whose checkpoints should exist and be intact, but are not."""
        good = {step for step, path in checkpoint.steps_in(self.folder) if self.is_good(path)}
        # a child may be killed after it saved and before it reported this
        expected = sorted(self.saved | good)[-self.config.keeping.keep :]
        return [step for step in expected if step not in good]

    def is_good(self, path: Path) -> bool:
        """Return True if a checkpoint can be read, or need not be."""
        try:
            return path in self.spoilt or checkpoint.schema(path) > 0
        except CheckpointError:
            return False

    def recover(self) -> None:
        """Resume the run to its end, and compare its result."""
        if self.exact is not None:
            return
        self.missing = self.lost()
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            trainer = self.make()
            self.prepare(trainer, lambda line: None)
            trainer.train(progress=False)
        self.warned = [str(warning.message) for warning in caught]
        steps = [row["step"] for row in rows(self.folder)]
        assert steps == sorted(set(steps)), f"the log has the steps {steps}"
        assert not list(self.folder.rglob(".scoresde-*")), "temporary files are left"
        self.exact = same(self.result(), self.whole.result)


def same(one, other) -> bool:
    """Whether two results have the same tensors, bit for bit."""
    return one.keys() == other.keys() and all(
        one[part].keys() == other[part].keys()
        and all(torch.equal(value, other[part][name]) for name, value in one[part].items())
        for part in other
    )


# The disk


class Disk:
    """Intercept the calls by which a process writes into its folder.

    Every call has a moment before and one after it, and a write of a file one in its middle;
    `strike(moment)` is called at each of them, and may end the process or raise.
    """

    CALLS = ("fsync", "replace", "rename", "chmod", "unlink", "mkdir")

    def __init__(self, folder: Path, strike: Callable[[str], None]):
        self.folder, self.strike = str(folder), strike
        self.open = builtins.open
        builtins.open = self._open
        for name in self.CALLS:
            setattr(os, name, partial(self._call, name, getattr(os, name)))

    def _call(self, name, call, *args, **options):
        self.strike("before")
        self.entered(name, args)
        result = call(*args, **options)
        self.strike("after")
        return result

    def _open(self, path, mode="r", *args, **options):
        if not str(path).startswith(self.folder) or not set(mode) & set("wax"):
            return self.open(path, mode, *args, **options)
        self.strike("before")
        return File(self, self.open(path, mode, *args, **options))

    def entered(self, name, args) -> None:
        """A call is about to be made."""


class File:
    """Define an open file whose writes can be interrupted in their middle."""

    def __init__(self, disk: Disk, file):
        self.disk, self.file = disk, file

    def write(self, text) -> None:
        half = len(text) // 2
        self.file.write(text[:half])
        self.file.flush()
        self.disk.strike("amid")
        self.file.write(text[half:])

    def __getattr__(self, name):
        return getattr(self.file, name)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.file.close()


class Volatile(Disk):
    """Define a disk that loses unflushed data at a power cut.

    Bytes of a file that was never flushed are cut off anywhere, and renames since the last flush
    of the folder are undone, from some one of them on. What is removed is gone at once.
    """

    def __init__(self, folder: Path, strike: Callable[[str], None], chance: random.Random):
        super().__init__(folder, strike)
        self.chance, self.shadow = chance, Path(tempfile.mkdtemp(dir=folder.parent))
        self.flushed: set[int] = {os.stat(path).st_ino for path in folder.iterdir()}
        self.renamed: list[tuple[Path, Path | None]] = []

    def entered(self, name, args) -> None:
        if name == "fsync":
            if os.path.isdir(f"/proc/self/fd/{args[0]}"):
                self.renamed.clear()
            else:
                self.flushed.add(os.fstat(args[0]).st_ino)
        elif name == "replace":
            target, before = Path(args[1]), None
            if target.exists():
                before = self.shadow / str(len(list(self.shadow.iterdir())))
                os.link(target, before)
            self.renamed.append((target, before))

    def cut(self) -> None:
        """Simulate a power cut."""
        undone = self.chance.randint(0, len(self.renamed))
        for target, before in reversed(self.renamed[len(self.renamed) - undone :]):
            target.unlink(missing_ok=True)
            if before is not None:
                os.link(before, target)
        for path in Path(self.folder).iterdir():
            if path.stat().st_ino not in self.flushed and path.name != "log.jsonl":
                os.truncate(path, self.chance.randint(0, path.stat().st_size))
        os.kill(os.getpid(), signal.SIGKILL)


class Count:
    """Calls `act(moment)` at moment number `at`, or, if `on` says so, from then on."""

    def __init__(self, at: float, act: Callable[[str], None], on: bool = False):
        self.at, self.act, self.on, self.seen = at, act, on, 0

    def __call__(self, moment: str) -> None:
        seen, self.seen = self.seen, self.seen + 1
        if seen == self.at or (self.on and seen > self.at):
            self.act(moment)


def die(*_) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def refuse(number: int, moment: str) -> None:
    if moment != "after":
        raise OSError(number, os.strerror(number))


# The kinds of faults: each disturbs a scene and returns in one word how the child ended


def kill(scene: Scene) -> str:
    child = scene.start()
    child.wait_until("started")
    time.sleep(scene.chance.uniform(0, scene.whole.seconds))
    child.send(signal.SIGKILL)
    return "killed" if scene.end(child).code < 0 else "done before"


def kill_in_a_write(scene: Scene) -> str:
    at = scene.chance.randrange(scene.whole.events)
    end = scene.run(lambda trainer, say: Disk(scene.folder, Count(at, die)))
    assert end.code in (-signal.SIGKILL, 0), end
    return "killed" if end.code else "done before"


def kill_again_and_again(scene: Scene) -> str:
    for _ in range(4):
        at = scene.chance.randrange(scene.whole.events // 3)
        scene.run(lambda trainer, say, at=at: Disk(scene.folder, Count(at, die)))
        assert not scene.lost(), scene.lost()
    return "killed four times"


def kill_among_averages(scene: Scene) -> str:
    """As above, with averages that have separate folders and snapshots."""
    scene.config = CONFIG.changed(ema=(0.9, 0.99), ema_sigma=(0.1,), snapshot_every=4)
    scene.compare_with_an_undisturbed_run()
    return kill_again_and_again(scene)


def counting(kind: type[Disk], folder: Path):
    """Return a change of a trainer that says after `train` how many moments there were."""

    def prepare(trainer, say):
        count, train = Count(math.inf, die), trainer.train
        kind(folder, count)

        def counted(*args, **options):
            train(*args, **options)
            say(f"events {count.seen}")

        trainer.train = counted

    return prepare


class EveryCall(Disk):
    """Intercept also the calls of locks and of removals."""

    CALLS = (*Disk.CALLS, "open", "write", "ftruncate", "rmdir", "link", "symlink")


def kill_at_every_call(scene: Scene) -> str:
    """Kill the process before, after or within each of the calls of a save."""
    scene.config = CONFIG.changed(ema=(0.9, 0.99), ema_sigma=(0.1,), snapshot_every=3, held_out=0.2)
    scene.compare_with_an_undisturbed_run()
    before = scene.folder.with_suffix(".before")
    scene.run(steps=CONFIG.steps - 3)
    shutil.copytree(scene.folder, before)

    calls = int(scene.run(counting(EveryCall, scene.folder)).all("events")[0])
    scene.exact = True
    chosen = scene.part(calls)
    for at in chosen:
        one = Scene(scene.folder, scene.chance, scene.whole)
        one.config, one.saved = scene.config, set(scene.saved) - {CONFIG.steps}
        shutil.rmtree(scene.folder)
        shutil.copytree(before, scene.folder)
        end = one.run(lambda trainer, say, at=at: EveryCall(scene.folder, Count(at, die)))
        assert end.code in (-signal.SIGKILL, 0), (at, end)
        one.recover()
        scene.missing += one.missing
        scene.exact = scene.exact and one.exact
    return f"killed at {len(chosen)} of {calls} moments"


def kill_a_command(words: str, scene: Scene) -> str:
    """Kill a command that writes over earlier files at each of its calls.

    Every file must then be that from before or the new one, and the command can be given again.
    """
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        model = ScoreModel(MLP(2, hidden=(4,)), VESDE(), (2,))
    model.save_pretrained(scene.folder / "model")
    np.save(scene.folder / "held.npy", np.random.default_rng(0).normal(size=(24, 2)))
    np.save(scene.folder / "y.npy", np.ones(1))
    before = scene.folder.with_suffix(".before")
    words = words.format(scene.folder).split()
    if "--seed" in words:
        assert command([*words[:-1], "1"], scene.folder) > 0
    shutil.copytree(scene.folder, before)
    old = files(scene.folder)
    calls = command(words, scene.folder)
    new = files(scene.folder)
    assert old != new, new.keys()
    chosen = scene.part(calls)
    for at in chosen:
        shutil.rmtree(scene.folder)
        shutil.copytree(before, scene.folder)
        command(words, scene.folder, at)
        # a shard of samples that are joined at the end may be there too
        for name, content in files(scene.folder).items():
            whole = name not in old | new or content in (old.get(name), new.get(name))
            assert whole, f"{name} at {at}"
        command(words, scene.folder)
        found = files(scene.folder)
        differ = [name for name in found | new if found.get(name) != new.get(name)]
        assert not differ, f"{differ} after {at}"
        assert not list(scene.folder.rglob(".scoresde-*")), f"temporary files at {at}"
    scene.exact = True
    return f"killed at {len(chosen)} of {calls} moments"


def command(words: Sequence[str], folder: Path, at: float = math.inf) -> int:
    """Give a command in a child, killed at a moment, and return the number of moments."""
    source, target = os.pipe()
    pid = os.fork()
    if pid == 0:
        log = os.open(folder.with_suffix(".log"), os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(log, 1), os.dup2(log, 2)
        count = Count(at, die)
        EveryCall(folder, count)
        pilot_file.SLOW_PILOT = 0.0  # write every pilot
        code = cli.main(words)
        count.at = math.inf
        _say(target, str(count.seen))
        os._exit(code)
    os.close(target)
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    with os.fdopen(source) as pipe:
        said = pipe.read()
    log = folder.with_suffix(".log").read_text()
    assert code == (0 if said else -signal.SIGKILL), f"exit code {code}: {log}"
    return int(said or 0)


def files(folder: Path) -> dict[str, bytes]:
    """Return the content of all files, except of locks, by path."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and path.name != ".lock" and not path.name.startswith(".scoresde-")
    }


def power_cut(scene: Scene) -> str:
    def prepare(trainer, say):
        scene.folder.mkdir(exist_ok=True)
        disk = Volatile(scene.folder, lambda moment: None, scene.chance)
        disk.strike = Count(at, lambda moment: disk.cut())

    at = scene.chance.randrange(scene.whole.events)
    end = scene.run(prepare)
    assert end.code == -signal.SIGKILL, end
    return "cut"


def signalled(number: int, code: int, scene: Scene) -> str:
    child = scene.start()
    child.wait_until("started")
    time.sleep(scene.chance.uniform(0, scene.whole.seconds))
    child.send(number)
    end = scene.end(child)
    assert end.code in (code, 0), end
    # a first signal loses no step
    assert max(scene.saved) == int(end.all("step")[0]), end
    return f"exit code {end.code}"


def signalled_with_workers(number: int, code: int, scene: Scene) -> str:
    """Send a signal to all processes of the run at once, as a cluster does."""
    scene.config = CONFIG.changed(workers=2)
    child = scene.start()
    child.wait_until("started")
    time.sleep(scene.chance.uniform(0, 3 * scene.whole.seconds))
    os.killpg(child.pid, number)
    end = scene.end(child)
    assert end.code in (code, 0), end
    assert max(scene.saved) == int(end.all("step")[0]), end
    return f"exit code {end.code}"


def signalled_twice(second: int, scene: Scene) -> str:
    child = scene.start()
    child.wait_until("started")
    time.sleep(scene.chance.uniform(0, scene.whole.seconds))
    child.send(signal.SIGTERM)
    time.sleep(scene.chance.uniform(0, 0.01))
    child.send(second)
    code = scene.end(child).code
    assert code in (143, 0, -second), code
    return f"exit code {code}"


def full_once(scene: Scene) -> str:
    at = scene.chance.randrange(scene.whole.events)
    full = Count(at, partial(refuse, errno.ENOSPC))
    end = scene.run(lambda trainer, say: Disk(scene.folder, full))
    return ended_by_the_disk(end, errno.ENOSPC)


def refused_for_good(number: int, scene: Scene) -> str:
    at = scene.chance.randrange(scene.whole.events)
    denied = Count(at, partial(refuse, number), on=True)
    end = scene.run(lambda trainer, say: Disk(scene.folder, denied))
    return ended_by_the_disk(end, number)


def away_for_a_moment(scene: Scene) -> str:
    at = scene.chance.randrange(scene.whole.events)
    away = Count(at, partial(refuse, scene.chance.choice([errno.EIO, errno.ESTALE])))
    end = scene.run(lambda trainer, say: Disk(scene.folder, away))
    assert (end.code, end.all("warning")) == (0, []), end
    return "went on"


def ended_by_the_disk(end: End, number: int) -> str:
    """The run continued with a warning, or ended in an error; both name the reason."""
    reason = os.strerror(number)
    assert all(reason in line for line in end.all("warning")), end
    if end.code == 0:
        return "went on"
    assert end.code == 1, end
    assert end.all("error")[0].startswith("CheckpointError: cannot write"), end
    assert reason in end.all("error")[0], end
    return "CheckpointError"


def full_tmpfs(scene: Scene) -> str:
    """Write to a disk that is full, if a small file system can be mounted."""
    scene.folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(scene.folder)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        return "not allowed here"
    try:
        ballast = scene.folder / "ballast"
        ballast.write_bytes(bytes(scene.chance.randrange(12, 60) * 1024))
        outcome = ended_by_the_disk(scene.run(), errno.ENOSPC)
        ballast.unlink()
        scene.recover()
    finally:
        subprocess.run(["umount", str(scene.folder)], check=True)
    return outcome


def no_large_files(scene: Scene) -> str:
    limit = scene.chance.randrange(6_000)

    def prepare(trainer, say):
        shrink = partial(resource.setrlimit, resource.RLIMIT_FSIZE, (limit, limit))
        at_step(trainer, scene.chance.randrange(CONFIG.steps), shrink)

    return ended_by_the_disk(scene.run(prepare), errno.EFBIG)


def no_open_files(scene: Scene) -> str:
    """No further file can be opened from some step on."""

    def prepare(trainer, say):
        hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        few = partial(resource.setrlimit, resource.RLIMIT_NOFILE, (3, hard))
        at_step(trainer, scene.chance.randrange(CONFIG.steps), few)

    end = scene.run(prepare)
    if end.code == 0:
        return "went on"
    assert end.code == 1, end
    assert end.all("error")[0].startswith("CheckpointError: cannot"), end
    assert os.strerror(errno.EMFILE) in end.all("error")[0], end
    return "CheckpointError"


def folder_renamed(scene: Scene) -> str:
    """The run goes on in a new folder of its name, with a warning; the old one is whole."""
    step, moved = scene.chance.randrange(CONFIG.steps), scene.folder.with_suffix(".moved")

    def prepare(trainer, say):
        def move():
            assert trainer._keeper.newest or step <= CONFIG.keeping.save_every  # waits for a write
            scene.folder.rename(moved)

        at_step(trainer, step, move)

    end = scene.run(prepare)
    assert end.code == 0, end
    before = {number for number, path in checkpoint.steps_in(moved) if scene.is_good(path)}
    assert before or step <= CONFIG.keeping.save_every, end
    told = [line for line in end.all("warning") if "was removed or renamed" in line]
    assert len(told) == bool(before), end
    scene.saved = {number for number in scene.saved if number > max(before, default=0)}
    return "went on, told" if told else "went on"


def damage(spoil: Callable[[bytes, random.Random], bytes], scene: Scene, number: int = 1) -> str:
    steps = scene.chance.randrange(CONFIG.keeping.save_every * number + 1, CONFIG.steps)
    assert scene.run(steps=steps).code == 0
    found = [path for _, path in checkpoint.steps_in(scene.folder)]
    for path in found[-number:]:
        path.write_bytes(spoil(path.read_bytes(), scene.chance))
    scene.spoilt |= set(found[-number:])
    scene.recover()
    said = [line for line in scene.warned if f"continuing from {found[-number - 1].name}" in line]
    assert len(said) == 1, scene.warned
    assert found[-1].name in said[0], said
    return "fell back"


def cut_off(raw: bytes, chance: random.Random) -> bytes:
    return raw[: chance.randrange(len(raw))]


def flip(raw: bytes, chance: random.Random) -> bytes:
    place = chance.randrange(len(raw))
    flipped = raw[place] ^ 1 << chance.randrange(8)
    return raw[:place] + bytes([flipped]) + raw[place + 1 :]


def blank(raw: bytes, chance: random.Random) -> bytes:
    return bytes(len(raw))


def leftovers(scene: Scene) -> str:
    scene.run(steps=scene.chance.randrange(CONFIG.steps))
    scene.folder.mkdir(exist_ok=True)
    for i in range(scene.chance.randrange(1, 5)):
        name = f".scoresde-{scene.chance.randbytes(16).hex()}.tmp"
        (scene.folder / name).write_bytes(scene.chance.randbytes(500))
        (scene.folder / f".notes.{i}.tmp").write_bytes(b"mine")
    scene.recover()
    mine = list(scene.folder.glob(".notes.*.tmp"))
    assert len(mine) == i + 1, "files of the user's are gone"
    return "cleaned"


def links(scene: Scene) -> str:
    """Links are planted where the run is about to write."""
    victim = scene.folder.with_suffix(".victim")
    victim.write_text("dear")
    names = [LAST, "model.safetensors", "config.json", "README.md", "log.jsonl"]
    names = scene.chance.sample(names, scene.chance.randrange(1, len(names)))
    link = scene.chance.choice([os.symlink, os.link])

    def plant():
        for name in (*names, *(f".{name}.{os.getpid()}.tmp" for name in names)):
            (scene.folder / name).unlink(missing_ok=True)
            link(victim, scene.folder / name)

    step = scene.chance.randrange(CONFIG.steps)
    end = scene.run(lambda trainer, say: at_step(trainer, step, plant))
    assert end.code == 0, end
    assert victim.read_text() == "dear", "a link was followed"
    return "links replaced"


def second_run(scene: Scene) -> str:
    """Another process, or another trainer of this one, tries to use the folder at any moment."""
    step, here = scene.chance.randrange(CONFIG.steps), scene.chance.random() < 0.5
    refusals: list[End] = []

    def begin():
        other = scene.start()
        refusals.append(other.end())

    def prepare(trainer, say):
        def intrude():
            if here:
                try:
                    scene.make()
                except CheckpointError as error:
                    say(f"refused {error}")
            else:
                begin()
                say(f"refused {refusals[-1].all('error')}")

        at_step(trainer, step, intrude)

    end = scene.run(prepare)
    assert end.code == 0, end
    who = "another Trainer of this process" if here else "another process trains in"
    assert who in end.all("refused")[0], end
    return "refused"


def terminal_closed(scene: Scene) -> str:
    """Close the terminal in which the run shows its bar."""
    master, slave = os.openpty()

    def prepare(trainer, say):
        os.close(master)
        fcntl.ioctl(slave, termios.TIOCSCTTY, 0)
        os.dup2(slave, 2)
        sys.stderr = os.fdopen(2, "w", closefd=False)
        train = trainer.train
        trainer.train = lambda steps, progress: train(steps, progress=True)

    child = scene.start(prepare)
    os.close(slave)
    child.wait_until("started")
    time.sleep(scene.chance.uniform(0, scene.whole.seconds))
    os.close(master)
    end = scene.end(child)
    assert end.code in (129, 0), end
    assert max(scene.saved) == int(end.all("step")[0]), end
    return f"exit code {end.code}"


def changed_data(spoil: Callable[[Path, random.Random], None], error: str, scene: Scene) -> str:
    """Change the file of the data while the run continues."""
    path = scene.folder.with_suffix(".npy")
    np.save(path, np.random.default_rng(0).normal(size=(40, 2)).astype(np.float32))
    good, times = path.read_bytes(), path.stat()

    def found():
        with patch.object(stores, "IN_MEMORY", 0):
            return load(path)

    scene.data = found
    scene.config = CONFIG.changed(workers=scene.chance.randrange(2))
    scene.compare_with_an_undisturbed_run()
    step = scene.chance.randrange(CONFIG.steps - 5)
    act = partial(spoil, path, scene.chance)
    end = scene.run(lambda trainer, say: at_step(trainer, step, act))
    assert end.code == 1, end
    assert end.all("error")[0].startswith(error), end
    if error == "DataError":  # the fault is found before any training
        assert max(scene.saved, default=0) == int(end.all("step")[0]), end
        assert f"step {max(scene.saved)} is saved in" in end.all("error")[0] or step == 0
    path.write_bytes(good)
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    return error


def written_over(path: Path, chance: random.Random) -> None:
    np.save(path, np.random.default_rng(1).normal(size=(40, 2)).astype(np.float32))


def cut_short(path: Path, chance: random.Random) -> None:
    os.truncate(path, chance.randrange(path.stat().st_size))


def written_over_unseen(path: Path, chance: random.Random) -> None:
    times = path.stat()
    written_over(path, chance)
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))


def spoilt_result(scene: Scene) -> str:
    """Damage the model or the log of a finished run."""
    scene.run()
    for name in ("model.safetensors", "config.json", "log.jsonl"):
        path = scene.folder / name
        spoil = scene.chance.choice([cut_off, flip, blank])
        path.write_bytes(spoil(path.read_bytes(), scene.chance))
    return "to write it again"


def at_step(trainer, step: int, act: Callable[[], None]) -> None:
    """Let something happen before update number `step`."""
    at = trainer._batches.at
    trainer._batches.at = lambda k: (act() if k == step else None, at(k))[1]


def spoilt_batch(bad: set[int], trainer, say) -> None:
    """The batches of these steps are not numbers."""
    at = trainer._batches.at

    def spoilt(step):
        x, label = at(step)
        return (x * math.nan if step in bad else x), label

    trainer._batches.at = spoilt


def nan_batch(scene: Scene) -> str:
    step = scene.chance.randrange(CONFIG.steps)
    end = scene.run(partial(spoilt_batch, {step}))
    assert end.code == 1, end
    assert end.all("error")[0].startswith(f"TrainingError: training failed at step {step}:")
    assert max(scene.saved, default=0) <= step, scene.saved
    return "TrainingError"


def nan_batch_left_out(scene: Scene) -> str:
    bad = set(scene.chance.sample(range(CONFIG.steps), 3))
    scene.config = CONFIG.changed(on_nan="skip")
    scene.prepare = partial(spoilt_batch, bad)
    scene.compare_with_an_undisturbed_run()
    return kill_in_a_write(scene)


def no_memory(scene: Scene) -> str:
    step = scene.chance.randrange(CONFIG.steps)
    where = scene.chance.choice(["network", "backward", "optimiser"])

    def fail(*_, **__):
        if scene.chance.random() < 0.5:
            raise torch.OutOfMemoryError("CUDA out of memory")
        torch.empty(2**46)  # a real refusal

    def prepare(trainer, say):
        def short():
            if where == "optimiser":
                trainer.optimizer.step = fail
            elif where == "network":
                trainer.score.net.outer.register_forward_hook(fail)
            else:
                trainer.score.net.outer.register_full_backward_hook(fail)

        at_step(trainer, step, short)

    end = scene.run(prepare)
    assert end.code == 1, end
    assert end.all("error")[0].startswith(f"MemoryLimitError: step {step}, of 8 samples,"), end
    return "MemoryLimitError"


def dead_worker(scene: Scene) -> str:
    step, mark = scene.chance.randrange(CONFIG.steps), scene.folder.with_suffix(".died")

    def die_once():
        if not mark.exists():
            mark.touch()
            die()

    scene.config = CONFIG.changed(workers=2)
    end = scene.run(lambda trainer, say: at_step(trainer, step, die_once))
    assert end.code == 0, end
    # it makes batches ahead of their time, so that its death may show before that of its batch
    known = re.match(r"a worker that makes batches died before step (\d+) ", end.all("warning")[0])
    assert int(known[1]) <= step, end
    return "replaced"


def dead_workers(scene: Scene) -> str:
    step = scene.chance.randrange(CONFIG.steps)
    scene.config = CONFIG.changed(workers=2)
    end = scene.run(lambda trainer, say: at_step(trainer, step, die))
    assert end.code == 1, end
    assert end.all("error")[0].startswith("TrainingError: a worker that makes batches died"), end
    return "TrainingError"


def broken_image(scene: Scene) -> str:
    """Damage a file of images that are read when needed, while the run continues."""
    images = scene.folder.with_suffix(".images")
    images.mkdir()
    for i in range(8):
        pixels = scene.chance.randbytes(4 * 4)
        Image.frombytes("L", (4, 4), pixels).save(images / f"{i}.png")
    scene.data = partial(load, images, lazy=True)
    scene.config = CONFIG.changed(batch_size=4, workers=scene.chance.randrange(2))
    scene.compare_with_an_undisturbed_run()
    broken = images / f"{scene.chance.randrange(8)}.png"
    good = broken.read_bytes()
    step = scene.chance.randrange(CONFIG.steps - 2)  # within two more batches every image is used
    cut = partial(broken.write_bytes, good[: scene.chance.randrange(40)])  # before the pixels
    end = scene.run(lambda trainer, say: at_step(trainer, step, cut))
    assert end.code == 1, end
    assert end.all("error")[0].startswith(f"DataError: cannot read the image {broken}"), end
    broken.write_bytes(good)
    return "DataError"


KINDS: dict[str, Callable[[Scene], str]] = {
    "kill -9 at any moment": kill,
    "kill -9 in a write": kill_in_a_write,
    "kill -9 four times": kill_again_and_again,
    "kill -9, several averages": kill_among_averages,
    "kill -9 at every call": kill_at_every_call,
    **{
        f"kill -9 in {name}": partial(kill_a_command, words)
        for name, words in {
            "sample": "sample {0}/model --n 3 --sampler euler --steps 2 --out {0}/x.npz --seed 0",
            "shards": "sample {0}/model --n 3 --sampler euler --batch-size 2 --out {0}/x",
            "a pilot": "sample {0}/model --n 3 --steps 5 --out {0}/x.npy",
            "evaluate": "evaluate {0}/model --data {0}/held.npy --sampler euler --steps 2 "
            "--out {0}/x --seed 0",
            "solve": "solve {0}/model --y {0}/y.npy --operator projection=1 --std 0.5 --steps 6 "
            "--out {0}/x.npy --seed 0",
        }.items()
    },
    "power cut": power_cut,
    "SIGTERM": partial(signalled, signal.SIGTERM, 143),
    "SIGINT": partial(signalled, signal.SIGINT, 130),
    "SIGHUP": partial(signalled, signal.SIGHUP, 129),
    "terminal closed": terminal_closed,
    "SIGTERM to all processes": partial(signalled_with_workers, signal.SIGTERM, 143),
    "SIGHUP to all processes": partial(signalled_with_workers, signal.SIGHUP, 129),
    "SIGTERM twice": partial(signalled_twice, signal.SIGTERM),
    "SIGTERM, then kill -9": partial(signalled_twice, signal.SIGKILL),
    "disk full for a moment": full_once,
    "disk full for good": partial(refused_for_good, errno.ENOSPC),
    "a full disk, mounted": full_tmpfs,
    "no more large files": no_large_files,
    "no more open files": no_open_files,
    "disk with errors for good": partial(refused_for_good, errno.EIO),
    "folder renamed": folder_renamed,
    "folder made read-only": partial(refused_for_good, errno.EROFS),
    "disk away for a moment": away_for_a_moment,
    "newest truncated": partial(damage, cut_off),
    "newest with a flipped bit": partial(damage, flip),
    "newest all zeros": partial(damage, blank),
    "two newest truncated": partial(damage, cut_off, number=2),
    "temporary files left": leftovers,
    "links planted": links,
    "a second run": second_run,
    "data written over": partial(changed_data, written_over, "DataError"),
    "data cut short": partial(changed_data, cut_short, "DataError"),
    "data written over, unseen": partial(changed_data, written_over_unseen, "TrainingError"),
    "model and log damaged": spoilt_result,
    "NaN batch": nan_batch,
    "NaN batches left out": nan_batch_left_out,
    "out of memory": no_memory,
    "a worker dies": dead_worker,
    "workers die for good": dead_workers,
    "broken image": broken_image,
}


# The table


def undisturbed(folder: Path) -> Whole:
    scene = Scene(folder, random.Random(0))
    scene.make().train(progress=False)  # modules imported here are imported in every child
    shutil.rmtree(folder)
    gc.freeze()
    child = scene.start()
    child.wait_until("started")
    start = time.perf_counter()
    end = scene.end(child)
    seconds = time.perf_counter() - start
    assert end.code == 0, end
    result = scene.result()
    shutil.rmtree(folder)
    end = scene.run(counting(Disk, folder))
    return Whole(result, seconds, int(end.all("events")[0]))


def main(words: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--instants", type=int, default=20, help="instants of each kind")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", default="", help="kinds whose name holds this")
    parser.add_argument("--folder", default=MEMORY, help="where runs are kept for the while")
    options = parser.parse_args(words)
    torch.set_num_threads(1)
    # how long a loader waits before it looks whether its workers live, 5 s
    _MultiProcessingDataLoaderIter._try_get_data.__defaults__ = (0.2,)
    failures, strikes = [], 0
    print(f"{'':26}{'instants':>8}{'lost':>6}{'differ':>8}  how the run ended")
    with tempfile.TemporaryDirectory(dir=options.folder) as work:
        whole = undisturbed(Path(work) / "whole")
        for name, strike in KINDS.items():
            if options.only not in name:
                continue
            lost, differ, ends = 0, 0, Counter()
            for i in range(options.instants):
                chance = random.Random(f"{options.seed} {name} {i}")
                scene = Scene(Path(work) / f"{name} {i}".replace(" ", "-"), chance, whole)
                scene.turn = i, options.instants
                try:
                    ends[strike(scene)] += 1
                    scene.recover()
                    why = ""
                except Exception:
                    ends["FAILED"] += 1
                    why = traceback.format_exc()
                lost += len(scene.missing)
                differ += scene.exact is False
                if why or scene.missing or not scene.exact:
                    failures.append(f"{name}, instant {i}: lost {scene.missing}, {why}")
                for path in Path(work).iterdir():
                    shutil.rmtree(path) if path.is_dir() else path.unlink()
            strikes += options.instants
            counts = ", ".join(f"{count} {end}" for end, count in sorted(ends.items()))
            print(f"{name:26}{options.instants:>8}{lost:>6}{differ:>8}  {counts}", flush=True)
    own, children = (
        resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    )
    seconds = sum(usage.ru_utime + usage.ru_stime for usage in (own, children))
    print(f"\n{strikes} faults, {len(failures)} failures, {seconds:.0f} s of CPU")
    for failure in failures[:20]:
        print(f"\n{failure}", file=sys.stderr)
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
