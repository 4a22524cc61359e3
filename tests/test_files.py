"""Test that nothing is written through links, and that a folder is used by one run at a time."""

import ast
import errno
import gc
import os
import random
import re
import shutil
import signal
import socket
import stat
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import torch
from PIL import Image
from test_training import CONFIG, Hook, assert_same, data, make

import scoresde
from scoresde import checkpoint, plot
from scoresde.checkpoint import Lock, files
from scoresde.cli import main
from scoresde.cli.config import RunConfig as Run
from scoresde.cli.terminal import say, silence
from scoresde.data import load
from scoresde.errors import CheckpointError, DataError, InvalidValueError, TrainingError
from scoresde.sde import VESDE
from scoresde.training import Callback, TensorBoard, Trainer
from scoresde.training.log import JSONLines, rows

pytestmark = pytest.mark.skipif(os.name != "posix", reason="needs links, locks and fork")

ROOT = Path(scoresde.__file__).parent
LEFT = f".scoresde-{'0' * 32}.tmp"


def begin(folder, **change):
    return Trainer(make(), data(), CONFIG.changed(**change), folder=folder)


# Writing


def writes(tree):
    """Yield the lines that write or rename a file by other means than `checkpoint`."""
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        called = ast.unparse(node.func)
        name = called.rsplit(".", 1)[-1]
        mode = [n.value for n in (*node.args, *(k.value for k in node.keywords))
                if isinstance(n, ast.Constant) and isinstance(n.value, str)]  # fmt: skip
        if called in ("open", "os.open", "io.open") or name == "fdopen":
            risky = any(re.fullmatch("[rbt+]*[wax+][rbt+]*", text) for text in mode)
            risky |= "O_CREAT" in ast.unparse(node)
        elif name in ("write_text", "symlink_to", "copyfile", "copy2", "save_file", "tofile"):
            risky = True
        elif name == "write_bytes":
            risky = called != "checkpoint.write_bytes" and called != "write_bytes"
        elif called in ("np.save", "np.savez", "torch.save"):
            risky = ast.unparse(node.args[0]) != "buffer"
        else:
            risky = called in ("shutil.copy", "shutil.move", "os.replace", "os.rename")
        if risky:
            yield f"{node.lineno}: {ast.unparse(node)}"


@pytest.mark.slow
def test_one_module_writes_all_files():
    found = {}
    for path in ROOT.rglob("*.py"):
        name = path.relative_to(ROOT.parent).as_posix()
        found[name] = list(writes(ast.parse(path.read_text())))
    assert found["scoresde/checkpoint/files.py"]  # the file is searched where it is
    del found["scoresde/checkpoint/files.py"]
    # a file that is locked, and never written through
    assert len(found.pop("scoresde/checkpoint/lock.py")) <= 1
    assert {name: lines for name, lines in found.items() if lines} == {}


def victim(folder):
    """Return a file of the user that must not change."""
    path = folder / "victim"
    path.write_text("dear")
    path.chmod(0o640)
    return path


def plant(how, path, target):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    (os.symlink if how == "symbolic" else os.link)(target, path)


WRITERS = {
    "model.safetensors": lambda path: make().save_pretrained(path.parent),
    "config.json": lambda path: make().save_pretrained(path.parent),
    "a.json": lambda path: checkpoint.write_json(path, {"a": 1}),
    "a.png": lambda path: plot.save(plot.images(torch.zeros(1, 1, 4, 4)), path),
    "step-00000003.safetensors": lambda path: checkpoint.save_step(path.parent, 3, {}, {}, keep=1),
}


@pytest.mark.parametrize("how", ["symbolic", "hard", "dangling"])
@pytest.mark.parametrize("name", WRITERS)
def test_a_planted_link_is_replaced_and_its_target_is_unchanged(tmp_path, how, name):
    path, target = tmp_path / "run" / name, victim(tmp_path)
    if how == "dangling":
        plant("symbolic", path, tmp_path / "nowhere")
    else:
        plant(how, path, target)
    WRITERS[name](path)
    assert (target.read_text(), target.stat().st_nlink) == ("dear", 1)
    assert stat.S_ISREG(path.lstat().st_mode)
    assert not (tmp_path / "nowhere").exists()


def test_the_name_of_a_file_that_is_written_cannot_be_guessed(tmp_path, monkeypatch):
    """A link of the guessed name is not followed either."""
    names, tokens = [], iter(["00", "11", "22"])
    monkeypatch.setattr(files.secrets, "token_hex", lambda n: 16 * next(tokens))
    replace = os.replace
    monkeypatch.setattr(os, "replace", lambda a, b: (names.append(Path(a).name), replace(a, b)))
    checkpoint.write_json(tmp_path / "a.json", {})
    assert names == [LEFT]
    target = victim(tmp_path)
    plant("symbolic", tmp_path / f".scoresde-{16 * '11'}.tmp", target)
    with pytest.raises(CheckpointError, match=r"cannot write .*a\.json: File exists"):
        checkpoint.write_json(tmp_path / "a.json", {"a": 1})
    assert target.read_text() == "dear"
    plant("hard", tmp_path / f".scoresde-{16 * '22'}.tmp", target)
    checkpoint.write_json(tmp_path / "a.json", {"a": 1})  # removes the link as if it were left
    assert (target.read_text(), target.stat().st_nlink) == ("dear", 1)
    monkeypatch.undo()
    seen = {files.secrets.token_hex(16) for _ in range(100)}
    assert len(seen) == 100


@pytest.mark.parametrize("make_it", [os.mkfifo, os.mkdir])
def test_a_pipe_or_a_folder_is_not_replaced_and_does_not_block(tmp_path, make_it):
    path = tmp_path / "a.json"
    make_it(path)
    with pytest.raises(CheckpointError, match=r"cannot write .* (it is a pipe|a directory)"):
        checkpoint.write_json(path, {})
    with pytest.raises(CheckpointError, match=r"cannot read .* (it is a pipe|a directory)"):
        checkpoint.read_json(path)
    assert [file.name for file in tmp_path.iterdir()] == ["a.json"]


def test_a_new_file_has_the_permissions_that_the_user_gives_to_new_files(tmp_path):
    before = os.umask(0o027)
    try:
        checkpoint.write_json(tmp_path / "a.json", {})
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "a.json").stat().st_mode) == 0o640
    (tmp_path / "a.json").chmod(0o4755)  # the setuid bit is not kept for new content
    checkpoint.write_json(tmp_path / "a.json", {"a": 1})
    assert stat.S_IMODE((tmp_path / "a.json").stat().st_mode) == 0o755


def test_only_the_remains_of_killed_writers_are_removed(tmp_path):
    mine = [".notes.tmp", ".model.safetensors.99.tmp", "a.tmp", f"{LEFT}.old", LEFT[1:]]
    for name in [LEFT, *mine]:
        (tmp_path / name).write_text("half")
    target = victim(tmp_path)
    plant("symbolic", tmp_path / LEFT.replace("0", "1"), target)
    os.mkfifo(tmp_path / LEFT.replace("0", "2"))
    (tmp_path / LEFT.replace("0", "3")).mkdir()
    with (tmp_path / LEFT.replace("0", "4")).open("wb") as written:
        files.locked(written.fileno())
        checkpoint.clean(tmp_path)
        left = {path.name for path in tmp_path.iterdir()}
    assert left == {*mine, "victim", *(LEFT.replace("0", k) for k in "1234")}
    checkpoint.clean(tmp_path)  # the writer is gone
    assert not (tmp_path / LEFT.replace("0", "4")).exists()
    assert target.read_text() == "dear"


def test_a_writer_succeeds_while_another_process_removes_temporary_files(tmp_path, monkeypatch):
    """Before it is locked, a file may be taken for one that was left: then it is written anew."""
    real, calls = files.locked, []

    def cleaned(file):
        calls.append(file)
        if len(calls) == 1:
            checkpoint.clean(tmp_path)
        return real(file)

    monkeypatch.setattr(files, "locked", cleaned)
    fsync = os.fsync
    monkeypatch.setattr(os, "fsync", lambda file: (checkpoint.clean(tmp_path), fsync(file)))
    checkpoint.write_json(tmp_path / "a.json", {"a": 1})
    assert checkpoint.read_json(tmp_path / "a.json") == {"a": 1}
    assert len(calls) > 2
    assert [path.name for path in tmp_path.iterdir()] == ["a.json"]


@pytest.mark.parametrize("how", ["symbolic", "hard"])
def test_a_log_continues_in_a_regular_file(tmp_path, how):
    log, target = JSONLines(tmp_path / "run" / "log.jsonl"), victim(tmp_path)
    target.write_text('{"step": 1}\n')
    plant(how, log.path, target)
    log.on_log({"step": 2})  # before the run has begun, nothing is written there
    assert target.read_text() == '{"step": 1}\n'
    log.on_start(1, CONFIG)
    log.on_log({"step": 3})
    assert target.read_text() == '{"step": 1}\n'
    assert [row["step"] for row in rows(log.path)] == [1, 3]


@pytest.mark.parametrize("how", ["symbolic", "hard", "folder", "pipe"])
def test_a_lock_that_is_a_link_is_refused(tmp_path, how):
    target, path = victim(tmp_path), tmp_path / "run" / ".lock"
    if how in ("folder", "pipe"):
        path.parent.mkdir()
        (os.mkdir if how == "folder" else os.mkfifo)(path)
    else:
        plant(how, path, target)
    with pytest.raises(CheckpointError, match=r"\.lock must be a regular file"):
        begin(tmp_path / "run")
    assert target.read_text() == "dear"


# Locks


def child(act):
    """Return the exit code of a forked process: 1 where another process has the folder."""
    pid = os.fork()
    if pid == 0:
        try:
            act()
            os._exit(0)
        except CheckpointError as error:
            named = f": process {os.getppid()} on " in str(error)
            os._exit(1 if named and "another process trains in" in str(error) else 2)
        finally:
            os._exit(3)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


@pytest.mark.slow
def test_of_two_runs_that_begin_in_one_empty_folder_the_second_is_refused(tmp_path):
    trainer = begin(tmp_path)
    assert child(lambda: begin(tmp_path, seed=1)) == 1
    trainer.train(2)
    # the folder is free when no process trains in it, also after a kill
    assert child(lambda: begin(tmp_path).train(1)) == 0
    assert child(lambda: begin(tmp_path) and os.kill(os.getpid(), signal.SIGKILL)) == -9
    again = begin(tmp_path)
    assert again.step == 3
    again.train()
    assert child(lambda: begin(tmp_path).train()) == 0


@pytest.mark.slow
def test_other_descriptors_of_the_lock_do_not_end_it(tmp_path):
    """Unlike locks of POSIX."""
    one, other = Lock(tmp_path), Lock(tmp_path)
    assert one.take()
    assert not one.take()
    for folder in (tmp_path, tmp_path / ".." / tmp_path.name):
        with pytest.raises(
            CheckpointError, match=f"another Trainer of this process, {os.getpid()}"
        ):
            Lock(folder).take()
    other.release()
    (tmp_path / ".lock").read_bytes()
    assert child(Lock(tmp_path).take) == 1
    one.release()
    assert child(Lock(tmp_path).take) == 0
    assert other.take()


@pytest.mark.slow
def test_a_child_neither_has_the_lock_of_its_parent_nor_keeps_it(tmp_path):
    lock = Lock(tmp_path)
    lock.take()
    assert child(lock.take) == 1
    source, target = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(target)
        os.read(source, 1)  # lives until the pipe is closed
        os._exit(0)
    assert child(Lock(tmp_path).take) == 1
    lock.release()
    other = Lock(tmp_path)
    assert other.take()
    del lock
    os.close(target)
    os.waitpid(pid, 0)


def test_a_folder_is_free_when_its_holder_is_killed_even_if_its_children_live(tmp_path):
    """Workers check every few seconds whether their parent lives, and must not keep the lock."""
    source, target = os.pipe()
    held, release = os.pipe()
    pid = os.fork()
    if pid == 0:
        lock = Lock(tmp_path)
        lock.take()
        if os.fork() == 0:
            os.close(target)
            os.write(release, b"x")
            os.read(source, 1)  # lives until the pipe is closed
            os._exit(0)
        time.sleep(60)
    os.read(held, 1)
    assert child(Lock(tmp_path).take) == 2  # it belongs to another process
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    assert Lock(tmp_path).take()
    for end in (source, target, held, release):
        os.close(end)


def test_random_locks_of_many_objects_exclude_each_other(tmp_path, monkeypatch):
    """A model of what they do: at most one has the folder, and the holder always does."""
    monkeypatch.setattr(gc, "collect", lambda: 0)  # which takes its time
    chance, locks, holder = random.Random(0), [Lock(tmp_path) for _ in range(4)], None
    for _ in range(300):
        lock = chance.choice(locks)
        if chance.random() < 0.5:
            if holder in (None, lock):
                assert lock.take() is (holder is None)
                holder = lock
            else:
                with pytest.raises(CheckpointError, match="another Trainer of this process"):
                    lock.take()
        else:
            lock.release()
            holder = None if holder is lock else holder


@pytest.mark.slow
def test_of_two_trainers_of_a_folder_the_one_that_trains_has_the_lock(tmp_path):
    errors = []

    def elsewhere(out):
        thread = threading.Thread(target=attempt)
        thread.start()
        thread.join()
        return out

    def attempt():
        try:
            begin(tmp_path)
        except CheckpointError as error:
            errors.append(str(error))

    first = Trainer(hooked(1, elsewhere), data(), CONFIG, folder=tmp_path)
    idle = begin(tmp_path)  # it waits, as the first does
    first.train(2)
    assert len(errors) == 1
    assert "another Trainer of this process" in errors[0]
    with pytest.raises(CheckpointError, match=r"continued the run .* to step-00000002"):
        idle.train()
    shutil.rmtree(tmp_path)
    first = begin(tmp_path)
    first.train(2)
    second = begin(tmp_path)
    second.train(3)
    with pytest.raises(CheckpointError, match=r"continued the run .* to step-00000005"):
        first.train()
    third = begin(tmp_path)  # the refused trainer does not keep the folder locked
    third.train()
    assert third.finished


@pytest.mark.slow
def test_a_notebook_cell_that_is_run_again_continues(tmp_path):
    """Its trainer may have finished, been interrupted, failed, or be garbage already."""
    shown = begin(tmp_path)  # a notebook keeps what a cell showed
    trainer = begin(tmp_path)
    assert shown.step == trainer.step == 0
    trainer.itself = trainer  # garbage that only the collector finds
    gc.collect()
    gc.disable()
    try:
        del trainer
        trainer = begin(tmp_path)
    finally:
        gc.enable()
    trainer.train(1)
    trainer = begin(tmp_path)
    trainer.score.net.register_forward_hook(interrupt)
    with pytest.raises(KeyboardInterrupt):
        trainer.train()
    trainer = begin(tmp_path)
    del trainer
    with pytest.raises(ValueError, match="another configuration") as kept:
        begin(tmp_path, lr=0.5)
    assert begin(tmp_path).step == 1
    assert kept.traceback  # an error kept by a notebook does not keep the folder locked


def interrupt(*_):
    raise KeyboardInterrupt


def refusal(folder):
    """Return the message with which another trainer is refused."""
    with pytest.raises(CheckpointError) as caught:
        begin(folder)
    return str(caught.value)


@pytest.mark.slow
def test_a_disk_without_locks_causes_a_warning_and_still_excludes_this_process(
    tmp_path, monkeypatch
):
    def refuse(*_):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr("fcntl.flock", refuse)
    with pytest.warns(RuntimeWarning, match="has no locks; make sure that no other process"):
        trainer = begin(tmp_path)
    trainer.score.net.register_forward_hook(lambda *_: refused.append(refusal(tmp_path)))
    refused: list[str] = []
    assert trainer.train(1) is not None
    assert all("another Trainer of this process" in error for error in refused)
    assert refused
    (tmp_path / LEFT).write_text("half")
    checkpoint.clean(tmp_path)
    assert (tmp_path / LEFT).exists()  # another process may be writing it
    os.utime(tmp_path / LEFT, (0, time.time() - 2 * 86_400))
    checkpoint.clean(tmp_path)
    assert not (tmp_path / LEFT).exists()


def test_a_process_that_may_not_write_the_lock_is_excluded_too(tmp_path, monkeypatch):
    """In a folder of several users, `.lock` is of the one who came first."""
    real = os.open

    def only_read(path, flags, *args, **options):
        if str(path).endswith(".lock") and flags & os.O_RDWR:
            raise PermissionError(errno.EACCES, "Permission denied")
        return real(path, flags, *args, **options)

    lock = Lock(tmp_path)
    lock.take()
    monkeypatch.setattr(os, "open", only_read)
    assert child(Lock(tmp_path).take) == 1
    lock.release()
    assert Lock(tmp_path).take()


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENOSPC, errno.EACCES])
def test_a_lock_that_cannot_be_opened_is_ignored_only_in_a_read_only_folder(
    tmp_path, monkeypatch, number
):
    real = os.open

    def refused(path, *args, **options):
        if str(path).endswith(".lock"):
            raise OSError(number, os.strerror(number))
        return real(path, *args, **options)

    monkeypatch.setattr(os, "open", refused)
    with pytest.raises(CheckpointError, match=os.strerror(number)):
        Lock(tmp_path).take()
    monkeypatch.setattr(os, "access", lambda *_: False)
    assert Lock(tmp_path).take()


def test_a_socket_in_the_place_of_the_lock_is_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # the name of a socket is short
    with socket.socket(socket.AF_UNIX) as planted:
        planted.bind(".lock")
        with pytest.raises(CheckpointError, match="must be a regular file"):
            Lock(tmp_path).take()


@pytest.mark.slow
def test_a_lock_that_was_removed_is_taken_again(tmp_path):
    one = Lock(tmp_path / "run")
    one.folder.mkdir()
    one.take()
    assert not one.keep()
    shutil.rmtree(one.folder)
    assert one.keep()
    assert child(Lock(one.folder).take) == 1
    (one.folder / ".lock").unlink()
    other = Lock(one.folder)
    assert other.take()
    with pytest.raises(CheckpointError, match="another Trainer"):
        one.keep()


@pytest.mark.slow
def test_a_run_whose_folder_was_given_to_another_ends(tmp_path):
    """As by `rm -r` and a new start, while the old one still trains."""
    others = []

    def lose(out):
        shutil.rmtree(tmp_path)
        others.append(begin(tmp_path))
        return out

    trainer = Trainer(hooked(4, lose), data(), CONFIG, folder=tmp_path)
    with pytest.raises(CheckpointError, match="another Trainer"):
        trainer.train()
    assert not list(tmp_path.glob("step-*"))
    others[0].train()
    whole = begin(None)
    whole.train()
    assert_same(others[0], whole)


@pytest.mark.slow
@pytest.mark.parametrize("when", ["between two calls", "in a call"])
@pytest.mark.parametrize("other", [False, True])
def test_a_folder_that_was_renamed_under_a_run_is_told_and_no_other_run_replaced(
    tmp_path, when, other
):
    folder = tmp_path / "run"

    def rename(out=None):
        for thread in threading.enumerate():
            if thread.name == "scoresde-checkpoint":
                thread.join()
        folder.rename(tmp_path / "moved")
        if other:
            begin(folder, lr=0.5).train(1)
        return out

    late = when == "in a call"
    trainer = Trainer(hooked(6, rename) if late else make(), data(), CONFIG, folder=folder)
    trainer.train(4)
    if not late:
        rename()
    if other:
        with pytest.raises(CheckpointError, match="now holds another run"):
            trainer.train()
        assert begin(folder, lr=0.5).step == 1
    else:
        with pytest.warns(RuntimeWarning, match="was removed or renamed"):
            trainer.train()
        assert checkpoint.steps_in(folder)[-1][0] == CONFIG.steps


def test_an_empty_text_is_no_folder():
    with pytest.raises(InvalidValueError, match="an empty text"):
        begin("")


def test_a_change_of_the_working_directory_does_not_split_a_run(tmp_path, monkeypatch):
    for name in ("here", "there"):
        (tmp_path / name).mkdir()
    monkeypatch.chdir(tmp_path / "here")
    trainer = begin("run")
    trainer.train(2)
    monkeypatch.chdir(tmp_path / "there")
    trainer.train(2)
    assert not list(Path().iterdir())
    assert [step for step, _ in checkpoint.steps_in(tmp_path / "here" / "run")] == [2, 4]
    (tmp_path / "there").rmdir()
    with pytest.raises(CheckpointError, match="'run' is relative, but the working directory was r"):
        begin("run")


def test_a_change_of_the_working_directory_leads_to_no_other_images(tmp_path, monkeypatch):
    for name, grey in (("here", 10), ("there", 200)):
        (tmp_path / name / "images").mkdir(parents=True)
        for i in range(3):
            Image.new("L", (4, 4), grey).save(tmp_path / name / "images" / f"{i}.png")
    monkeypatch.chdir(tmp_path / "here")
    images = load("images", lazy=True)
    monkeypatch.chdir(tmp_path / "there")
    eager = load("../here/images", lazy=False)
    assert str(images.batch(torch.arange(3))) == str(eager.batch(torch.arange(3)))


# Signals


@pytest.mark.parametrize("pieces", [1, 3])
def test_a_signal_during_the_last_save_ends_the_run(tmp_path, pieces):
    class Ended(Callback):
        def on_checkpoint(self, step, model):
            signal.raise_signal(signal.SIGTERM)

    trainer = Trainer(make(), data(), CONFIG, folder=tmp_path, callbacks=[Ended()])
    with pytest.raises(SystemExit) as caught:
        trainer.train(CONFIG.steps // pieces)
    assert caught.value.code == 143
    assert checkpoint.latest(tmp_path)[2]["step"] == trainer.step


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_after_the_last_save_ends_the_program(tmp_path, number):
    """For example while workers end; the run is complete, and the program ends."""

    class Ended(Callback):
        def on_end(self, step):
            signal.raise_signal(number)

    trainer = Trainer(make(), data(), CONFIG, folder=tmp_path, callbacks=[Ended()])
    with pytest.raises((SystemExit, KeyboardInterrupt)) as caught:
        trainer.train()
    assert caught.type is (KeyboardInterrupt if number == signal.SIGINT else SystemExit)
    assert checkpoint.latest(tmp_path)[2]["step"] == CONFIG.steps


def hooked(n, act):
    return scoresde.ScoreModel(Hook(n, act), VESDE(), (2,))


def send(*numbers):
    def act(out):
        for number in numbers:
            signal.raise_signal(number)
        return out

    return act


HUP, TERM = signal.SIGHUP, signal.SIGTERM


@pytest.mark.parametrize(
    ("numbers", "code"),
    [((HUP,), 129), ((HUP, HUP), 129), ((HUP, HUP, HUP), 129), ((TERM, HUP), 143)],
)
def test_a_terminal_that_is_closed_costs_no_step(tmp_path, numbers, code):
    """A shell that ends sends one SIGHUP, the terminal another."""
    trainer = Trainer(hooked(4, send(*numbers)), data(), CONFIG, folder=tmp_path)
    before = signal.getsignal(HUP)
    with pytest.raises(SystemExit) as caught:
        trainer.train()
    assert (caught.value.code, trainer.step) == (code, 4)
    assert checkpoint.latest(tmp_path)[2]["step"] == 4
    assert signal.getsignal(HUP) == before


def test_a_second_signal_ends_the_run_at_once(tmp_path):
    with pytest.raises(SystemExit):
        Trainer(hooked(4, send(HUP, TERM)), data(), CONFIG, folder=tmp_path).train()
    assert list(tmp_path.glob("step-*")) == []


def test_a_signal_that_is_ignored_stays_ignored(tmp_path):
    """As SIGHUP is under nohup."""
    before = signal.signal(HUP, signal.SIG_IGN)
    try:
        trainer = begin(tmp_path)
        trainer.score.net.register_forward_hook(lambda *_: signal.raise_signal(HUP))
        trainer.train()
    finally:
        signal.signal(HUP, before)
    whole = begin(None)
    whole.train()
    assert_same(trainer, whole)


def test_a_line_to_a_terminal_that_is_closed_is_no_error():
    master, slave = os.openpty()
    with os.fdopen(slave, "w") as file:
        say("one", file)
        os.close(master)
        with pytest.raises(OSError, match="Input/output error"):
            print("two", file=file, flush=True)
        say("three", file)
        say("four", file)


@pytest.mark.slow
@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize("lost", ["a full disk", "a reader that has gone"])
def test_a_line_that_cannot_be_printed_costs_no_step(tmp_path, monkeypatch, lost):
    """The log of a run under `nohup` is on the full disk, which causes a warning."""
    if lost == "a full disk":
        stream = open("/dev/full", "w")  # noqa: SIM115
    else:
        source, target = os.pipe()
        os.close(source)
        stream = os.fdopen(target, "w")
    monkeypatch.setattr(sys, "stderr", stream)
    monkeypatch.setattr(sys, "stdout", stream)
    monkeypatch.setattr(Run, "callbacks", lambda *_: [Failing()])
    words = ["train", "--data", "digits", "--steps", "4", "--save-every", "2", "--channels", "4"]
    assert main([*words, "--out", str(tmp_path / "run")]) == 0
    assert checkpoint.latest(tmp_path / "run")[2]["step"] == 4
    stream.close()


class Failing(Callback):
    def on_checkpoint(self, step, model):
        raise ValueError("and so there is a warning")


def test_a_result_that_cannot_be_printed_is_an_error(monkeypatch):
    with open("/dev/full", "w") as full:
        monkeypatch.setattr(sys, "stdout", full)
        assert main(["info", "mnist"]) == 1
        silence(full)


@pytest.mark.slow
def test_no_file_of_a_run_gets_the_number_of_a_closed_stream():
    child = (
        "import os, sys; from scoresde.cli.terminal import open_closed; open_closed(); "
        "os._exit(sum(map(os.path.samestat, map(os.fstat, range(3)), [os.stat(os.devnull)] * 3)))"
    )
    command = [shutil.which("sh"), "-c", f'exec "$0" -c "{child}" <&- >&- 2>&-', sys.executable]
    assert subprocess.run(command, check=False, timeout=60).returncode == 3


# Data


def test_changed_samples_end_the_run_before_a_checkpoint(tmp_path):
    """Here those in memory, which a notebook may write to."""
    x = data(labels=False).raw.clone()
    trainer = Trainer(make(num_classes=None), x, CONFIG, folder=tmp_path)
    trainer.train(6)
    kept = x.clone()
    x[5, 0] += 1
    with pytest.raises(TrainingError) as caught:
        trainer.train()
    message = str(caught.value)
    assert message.startswith("training ended after 10 steps: some of the samples 0 to ")
    assert f"the last checkpoint is {tmp_path}/step-00000006.safetensors" in message
    x.copy_(kept)
    again = Trainer(make(num_classes=None), x, CONFIG, folder=tmp_path)
    assert again.step == 6
    again.train()
    whole = Trainer(make(num_classes=None), x, CONFIG)
    whole.train()
    assert_same(again, whole)


@pytest.mark.slow
@pytest.mark.parametrize("step", [0, 4, 12])
def test_data_that_cannot_be_read_any_more_cost_no_step(tmp_path, step):
    trainer = begin(tmp_path)
    at = trainer._batches.at

    def broken(k):
        if k == step:
            raise DataError("the disk is gone")
        return at(k)

    trainer._batches.at = broken
    with pytest.raises(DataError, match="the disk is gone") as caught:
        trainer.train()
    assert trainer.step == step
    if step:
        assert str(caught.value).endswith(f"; step {step} is saved in {tmp_path}")
        assert checkpoint.latest(tmp_path)[2]["step"] == step
    trainer = begin(tmp_path)
    assert trainer.step == step
    trainer.train()
    whole = begin(None)
    whole.train()
    assert_same(trainer, whole)


# TensorBoard, which writes its own files


def test_event_files_have_random_names_and_no_link_for_a_folder(tmp_path):
    pytest.importorskip("tensorboard")
    board = TensorBoard(tmp_path)
    for _ in range(2):
        board.on_start(0, CONFIG)
        board.on_end(0)
    tokens = {path.suffix for path in (tmp_path / "tensorboard").iterdir()}
    assert len(tokens) == 2
    assert all(re.fullmatch(r"\.[0-9a-f]{32}", token) for token in tokens)
    other = TensorBoard(tmp_path / "run")
    plant("symbolic", tmp_path / "run" / "tensorboard", tmp_path)
    with pytest.raises(CheckpointError, match="tensorboard is a link that scoresde did not make"):
        other.on_start(0, CONFIG)
