"""Test that two processes give the same weights and samples as one, and end together."""

import itertools
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import several
import torch

from scoresde import checkpoint, distributed
from scoresde.errors import InvalidValueError, PeerError

HERE = Path(__file__).parent
LAUNCH = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
pytestmark = [
    pytest.mark.long,  # the processes of one fixture serve all of it
    pytest.mark.skipif(
        os.name != "posix" or not torch.distributed.is_gloo_available(),
        reason="needs torchrun's gloo",
    ),
]


def start(*words):
    """Two processes, in a separate session, so that none can outlive its test."""
    return subprocess.Popen(
        [*LAUNCH, *map(str, words)],
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(HERE.parent)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def ended(process, seconds=300):
    """Exit code, stdout and stderr, in time or not at all."""
    try:
        out, err = process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        pytest.fail(f"hung: {process.communicate()}")
    return process.returncode, out, err


def tensors(folder, name):
    return checkpoint.load_tensors(folder / name)[0]


def apart(a, b):
    """Return the largest relative difference of two sets of tensors."""
    assert a.keys() == b.keys()
    return max(
        float((a[k] - b[k]).double().norm() / b[k].double().norm().clamp(min=1e-30)) for k in a
    )


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    """The folder in which two processes went through all cases, and how each of them ended."""
    folder = tmp_path_factory.mktemp("two")
    code, _, err = ended(start(HERE / "several.py", "main", folder))
    assert code == 0, err
    ends = [checkpoint.read_json(folder / f"process-{rank}.json") for rank in (0, 1)]
    return folder, ends


@pytest.fixture(scope="module")
def one(tmp_path_factory):
    """Return the same runs in one process."""
    folder = tmp_path_factory.mktemp("one")
    several.train(folder)
    return folder


# Training


@pytest.mark.parametrize(
    ("name", "tolerance"),
    [(name, 1e-5 if name == "float32" else 1e-9) for name in several.RUNS],
)
def test_two_processes_end_in_the_weights_of_one(two, one, name, tolerance):
    for file in ("step-00000020.safetensors", "model.safetensors"):
        found, expected = (tensors(folder / name, file) for folder in (two[0], one))
        assert apart(found, expected) < tolerance


@pytest.mark.parametrize("name", several.RUNS)
def test_two_processes_log_the_losses_of_one(two, one, name):
    found, expected = (
        [json.loads(line) for line in (f / name / "log.jsonl").read_text().splitlines()]
        for f in (two[0], one)
    )
    assert len(expected) == 11
    for key in ("step", "loss", "grad_norm", "lr"):
        assert [row[key] for row in found] == pytest.approx([row[key] for row in expected], 1e-4)
    held = [[row["held_out"] for row in log if "held_out" in row] for log in (found, expected)]
    assert held[0] == pytest.approx(held[1], 1e-4)
    assert (len(held[0]) >= 3) == ("learned" in name)


def test_a_batch_in_parts_is_the_batch(one):
    a, b = (tensors(one / name, "model.safetensors") for name in ("float64", "in parts"))
    assert 0 < apart(a, b) < 1e-9


def test_averages_in_shares_are_written_whole(two, one):
    for name in ("ema-0.9/model.safetensors", "ema/sigma-0.1/step-00000010.safetensors"):
        found, expected = (tensors(folder / "in shares", name) for folder in (two[0], one))
        assert apart(found, expected) < 1e-9


def test_a_process_holds_its_share_of_the_weights_the_averages_and_the_optimiser(two):
    for end in two[1]:
        held, result, all_, expected = end["shares"]
        assert held < 0.6 * all_
        assert result == pytest.approx(expected, 1e-4)


def test_process_0_alone_writes(two):
    written = {path.name for path in (two[0] / "float32").iterdir()}
    steps = {f"step-{k:08}.safetensors" for k in (9, 16, 20)}
    others = {"model.safetensors", "config.json", "log.jsonl", "README.md", ".lock"}
    written.discard("model.pilot.safetensors")  # on a busy machine the pilot counts as slow
    assert written == steps | others


def test_a_signal_to_one_process_ends_both_after_the_same_step(two):
    folder, ends = two
    assert [end["signalled"] for end in ends] == 2 * ["SystemExit: 143"]
    assert [step for step, _ in checkpoint.steps_in(folder / "signal")] == [3, 4]


def test_what_is_not_finite_in_one_process_is_reported_by_both_and_never_saved(two):
    folder, ends = two
    for end in ends:
        assert end["not_a_number"].startswith("TrainingError: training failed at step 4: the l")
    assert [step for step, _ in checkpoint.steps_in(folder / "nan")] == [3]


def test_a_step_that_is_not_finite_in_one_process_is_left_out_by_both(two):
    one, other = (end["left_out"] for end in two[1])
    assert one == other
    assert [line.endswith("the first is step 4") for line in one[0]] == [True]


def test_a_sample_that_one_process_cannot_read_ends_both_with_a_checkpoint(two):
    ends, folder = two[1], two[0]
    for process, end in enumerate(ends):
        cases = zip(end["unreadable"], (5, 3), (7, 9), (1, 0), strict=True)
        for (step, text), at, number, by in cases:
            said = f"sample {number} is gone" if process == by else "another process cannot read"
            assert said in text
            assert step == at
            assert f"step {at} is saved in" in text
    assert (folder / "lost-batch/step-00000005.safetensors").exists()
    assert (folder / "lost-aside/step-00000003.safetensors").exists()


def test_a_checkpoint_that_cannot_be_written_ends_both(two):
    for end in two[1]:
        assert end["full_disk"].startswith("CheckpointError: cannot write ")
        assert "No space left on device" in end["full_disk"]


def test_both_continue_from_the_checkpoint_that_process_0_finds_intact(two):
    folder, ends = two
    assert [end["damaged"] for end in ends] == [6, 6]
    again, undisturbed = (
        tensors(folder / name, "step-00000008.safetensors") for name in ("damaged", "undisturbed")
    )
    assert apart(again, undisturbed) == 0


def test_a_batch_that_cannot_be_divided_is_refused(two):
    for end in two[1]:
        assert "a batch of 9 cannot be divided evenly among 2 processes; cho" in end["uneven"]
        assert "accumulate = 4 does not divide the 6 samples of a batch th" in end["indivisible"]


@pytest.mark.parametrize(
    ("case", "difference"),
    [
        ("other_arguments", "lr is 0.002 here and 0.001 in process 0"),
        ("other_folder", "folder is False here and True in process 0"),
        ("other_weights", "'torch.float64 [8, 64]' here and 'torch.float32 [8, 64]' in process 0"),
        ("other_steps", "steps is 2 here and 1 in process 0"),
    ],
)
def test_processes_with_other_arguments_are_refused_by_name(two, case, difference):
    ends = [end[case] for end in two[1]]
    for end in ends:
        assert end.startswith("InvalidValueError: process 1 has other arguments than process 0")
    assert difference in ends[1]
    assert len(ends[1]) < 1000


def test_parameters_without_a_gradient_are_named_and_do_not_block(two):
    for end in two[1]:
        assert end["unreached"].startswith("TrainingError: no gradient reaches 1 parameters (net.i")


def test_a_run_continues_in_another_number_of_processes_with_a_warning(two):
    with pytest.warns(RuntimeWarning, match="written with 2 processes and continues with 1"):
        trainer = several.resumed(two[0] / "undisturbed")
    assert trainer.step == 8


# Sampling


def test_two_processes_write_the_samples_of_one_bit_for_bit(two, tmp_path):
    (tmp_path / "float32").symlink_to(two[0] / "float32")
    several.sampled(tmp_path)
    files = ["drawn.npy", "drawn.safetensors", "drawn.png"]
    files += [f"drawn/shard-0000{k}.safetensors" for k in range(3)]
    for name in files:
        assert (two[0] / name).read_bytes() == (tmp_path / name).read_bytes()
    assert not list(two[0].glob("*.shards"))


# What the processes send to one another


def test_an_error_of_process_0_is_raised_in_all_processes(two):
    ends = [end["failing_main"] for end in two[1]]
    assert ends == ["KeyError: 'only here'", "PeerError: KeyError: 'only here' (in process 0)"]


def test_numbers_and_tensors_arrive_as_they_were_sent(two):
    ends = [end["spoken"] for end in two[1]]
    assert [end.pop("rows") for end in ends] == [[0, 6], [6, 12]]
    assert ends[0] == ends[1]
    assert ends[0]["largest"] == 10
    assert ends[0]["mean"] == [1.0, 1.0]
    assert ends[0]["on_main"] == ["Grüße", 0]
    assert ends[0]["shared"] == {"a": [1.5, -0.0], "b": 7, "c": []}


def test_an_environment_without_the_address_of_the_others_is_refused(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    for name in ("RANK", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.delenv(name, raising=False)
    with (
        pytest.raises(InvalidValueError, match="WORLD_SIZE=2, but no MASTER_ADDR, MASTER_PORT, RA"),
        distributed.group(),
    ):
        pass


def test_a_process_alone_is_process_0_of_1():
    assert (distributed.rank(), distributed.size(), distributed.is_main()) == (0, 1, True)
    assert distributed.rows(5) == slice(0, 5)
    with distributed.group():
        assert distributed.size() == 1
    tensor = torch.ones(2)
    assert distributed.mean(tensor) is tensor
    assert distributed.on_main(lambda: tensor) is tensor


# Faults


def children(process):
    """Return the processes that torchrun started, by rank."""
    found = {}
    for pid in (int(p.name) for p in Path("/proc").iterdir() if p.name.isdecimal()):
        try:
            parent = int(Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[1])
            env = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
        except (OSError, IndexError):
            continue
        rank = [int(word[5:]) for word in env if word.startswith(b"RANK=")]
        if parent == process.pid and rank:
            found[rank[0]] = pid
    return found


def test_the_message_that_another_process_died_is_printed_completely(monkeypatch):
    """As it was when torchrun's SIGTERM to those that are left came before it was printed."""
    before = signal.getsignal(signal.SIGTERM)
    for name in ("WORLD_SIZE", "RANK", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.setenv(name, "2")

    def gone(*_, **__):
        raise RuntimeError("[/pytorch/third_party/gloo/gloo/transport/tcp/pair.cc:561] closed")

    monkeypatch.setattr(torch.distributed, "rendezvous", gone)
    try:
        with (
            pytest.raises(PeerError, match="another process of this job died"),
            distributed.group(),
        ):
            pass
        signal.raise_signal(signal.SIGTERM)
    finally:
        signal.signal(signal.SIGTERM, before)


def steps(folder):
    return [step for step, _ in checkpoint.steps_in(folder)]


@pytest.mark.long
@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs /proc")
def test_a_run_whose_processes_are_killed_ends_in_the_same_weights(tmp_path, two):
    folder, moments, ends = tmp_path / "killed", random.Random(0), []
    for rank in itertools.cycle((1, 0)):
        before = steps(folder)
        process = start(HERE / "several.py", "ever", folder)
        while steps(folder) == before and process.poll() is None:
            time.sleep(0.01)
        time.sleep(moments.uniform(0, 0.1))
        if process.poll() is None:
            os.kill(children(process)[rank], signal.SIGKILL)
        code, _, err = ended(process)
        ends.append(steps(folder)[-1])
        if ends[-1] == several.EVER.steps:  # on its way out
            break
        assert "another process of this job died" in err
        if len(ends) == int(os.environ.get("SCORESDE_KILLS", "1")):
            break
    code, _, err = ended(start(HERE / "several.py", "ever", folder))
    assert code == 0, err
    assert 0 < ends[0] < several.EVER.steps
    for name in ("step-00000040.safetensors", "model.safetensors"):
        assert apart(tensors(folder, name), tensors(two[0] / "ever", name)) == 0
    # a thread that may want Python after its end now and then aborts a run that was done: the
    # group's own end with it, and those of the engine stay for as long as the trainer does
    for rank in (0, 1):
        count = checkpoint.read_json(folder / f"threads-{rank}.json")
        # before 2.9 PyTorch gave its threads no names, by which they are counted
        assert count == {"within": 4, "after": 2, "again": 1} or torch.__version__ < "2.9"
