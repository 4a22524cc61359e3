"""Test that batches are the same for any workers, and that failures of workers are reported."""

import contextlib
import multiprocessing
import os
import random
import signal
import warnings
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from torch.utils.data import DataLoader
from torch.utils.data._utils import signal_handling

from scoresde import VESDE, ScoreModel
from scoresde.data import BYTES, Data, load
from scoresde.data.augment import augmented, hflip, shift
from scoresde.errors import (
    DataError,
    InvalidTypeError,
    InvalidValueError,
    ShapeError,
    TrainingError,
    UnknownNameError,
)
from scoresde.nn import MLP
from scoresde.training import TrainConfig, Trainer
from scoresde.training.batches import Batches, _spawned

RAW = torch.randint(0, 256, (23, 1, 8, 8), generator=torch.Generator().manual_seed(0)).byte()
Y = torch.arange(23.0)[:, None].expand(23, 2).clone()
Y[::4, 1] = torch.nan
DATA = Data(RAW, transform=BYTES, label=torch.arange(23) % 3 - 1, y=Y)


def config(**options):
    return TrainConfig().changed(
        **{"steps": 12, "batch_size": 5, "augment": ("hflip", "shift"), **options}
    )


def noisy(x, generator):
    """Return an augmentation of the user's."""
    return x + 0.1 * torch.randn(x.shape, generator=generator)


def same(first, second):
    (x, own), (z, other) = first, second
    assert own.keys() == other.keys() == {"label", "y"}
    torch.testing.assert_close(x, z, rtol=0, atol=0)
    torch.testing.assert_close(dict(own), dict(other), rtol=0, atol=0, equal_nan=True)
    return True


def made(batches, step=0, n=None):
    with contextlib.closing(batches.since(step)) as found:
        return [batch for batch, _ in zip(found, range(n or 99), strict=False)]


def model():
    with torch.random.fork_rng(devices=[]):
        net = MLP((1, 8, 8), hidden=(8,), num_classes=2, condition={"y": 2})
    units = DATA.condition_moments()
    return ScoreModel(net, VESDE(), (1, 8, 8), condition_moments=units)


# The same batches


@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 2])
def test_batches_are_the_same_for_every_number_of_workers(workers):
    alone = made(Batches(DATA, config(), augment=noisy))
    helped = made(Batches(DATA, config(workers=workers), augment=noisy))
    assert len(alone) == len(helped) == 12
    assert all(map(same, alone, helped))


@given(step=st.integers(0, 11), start=st.integers(0, 8), length=st.integers(1, 5))
def test_rows_of_a_batch_are_those_of_the_whole(step, start, length):
    rows = slice(start % 5, start % 5 + length)
    whole = Batches(DATA, config(), augment=noisy).at(step)
    part = Batches(DATA, config(), augment=noisy, rows=rows).at(step)
    assert same(part, (whole[0][rows], whole[1].rows(rows)))


@given(step=st.integers(0, 11))
def test_batches_continue_from_any_step(step):
    batches = Batches(DATA, config())
    assert same(next(batches.since(step)), batches.at(step))


def test_images_are_not_moved_without_their_fields():
    data = Data(RAW, transform=BYTES, forcing=RAW.float())
    with pytest.raises(InvalidValueError, match=r"hflip.* not their conditions 'forcing'"):
        Batches(data, config())
    assert Batches(data, config(augment=())).at(0)[1]["forcing"].shape == (5, 1, 8, 8)


def test_steps_seeds_and_rows_are_augmented_differently():
    x = torch.zeros(4, 1, 8, 8)
    draws = [
        augmented(x, [noisy], seed=seed, step=step, rows=range(4))
        for seed, step in [(0, 0), (0, 1), (1, 0)]
    ]
    assert len({tuple(v.flatten().tolist()) for batch in draws for v in batch}) == 12


def test_augmentations_have_numbers_that_the_update_does_not_draw_from():
    """The times and the noise of a step are seeded by words of (seed, step)."""
    seeds = set()

    def spy(x, generator):
        seeds.add(generator.initial_seed())
        return x

    own = set()
    for step in range(5):
        augmented(torch.zeros(4, 1), [spy], seed=3, step=step, rows=range(4))
        words = np.random.SeedSequence([3, step]).generate_state(64, np.uint64)
        own |= {int(word) for word in words} | {int(word) >> 1 for word in words}
    assert len(seeds) == 20
    assert not seeds & own


@pytest.mark.slow
@pytest.mark.parametrize("options", [{}, {"workers": 2}])
def test_a_resumed_run_has_the_same_batches(tmp_path, options):
    whole = Trainer(model(), DATA, config(**options), augment=noisy).train(progress=False)
    run = {"folder": tmp_path, "augment": noisy}
    Trainer(model(), DATA, config(workers=1), **run).train(5, progress=False)
    again = Trainer(model(), DATA, config(), **run)
    assert again.step == 5
    found = again.train(progress=False)
    assert all(map(torch.equal, whole.state_dict().values(), found.state_dict().values()))


# Augmentations


def test_half_of_the_images_are_mirrored():
    generator = torch.Generator().manual_seed(0)
    x = RAW[0].float()
    found = [hflip(x, generator) for _ in range(1000)]
    mirrored = sum(torch.equal(y, x.flip(-1)) for y in found)
    assert all(torch.equal(y, x) or torch.equal(y, x.flip(-1)) for y in found)
    assert abs(mirrored - 500) < 80  # five standard deviations


def test_images_are_shifted_by_up_to_an_eighth_and_all_shifts_are_as_likely():
    generator = torch.Generator().manual_seed(0)
    x = torch.arange(64.0).reshape(1, 8, 8)
    padded = torch.nn.functional.pad(x, (1, 1, 1, 1), mode="reflect")
    crops = {
        tuple(padded[:, i : i + 8, j : j + 8].flatten().tolist()): 0
        for i in range(3)
        for j in range(3)
    }
    for _ in range(1800):
        crops[tuple(shift(x, generator).flatten().tolist())] += 1
    assert len(crops) == 9
    assert all(abs(count - 200) < 70 for count in crops.values())  # five standard deviations


@pytest.mark.slow
def test_a_model_receives_the_units_of_its_data(tmp_path):
    trained = Trainer(model(), DATA, config(steps=1), folder=tmp_path).train(progress=False)
    assert trained.transform == ScoreModel.from_pretrained(tmp_path).transform == BYTES
    raw = torch.tensor([0.0, 255.0, 51.0]).reshape(3, 1, 1, 1).expand(3, 1, 8, 8)
    torch.testing.assert_close(trained.to_units(BYTES.forward(raw)), raw)


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: config(augment=("flip",)), UnknownNameError, "augmentation 'flip'; did you mean"),
        (lambda: config(workers=-1), InvalidValueError, "workers must be an integer >= 0"),
        (
            lambda: Batches(Data(torch.zeros(5, 2)), config()),
            InvalidValueError,
            r"'hflip' is for images \(C, H, W\), not for events of shape \(2,\)",
        ),
        (
            lambda: Batches(DATA, config(), augment=lambda x, _: x[0]).at(0),
            ShapeError,
            r"<lambda> returned \(8, 8\) for a sample of shape \(1, 8, 8\)",
        ),
        (
            lambda: Batches(DATA, config(), augment=lambda x, _: None).at(0),
            ShapeError,
            "<lambda> returned NoneType for a sample",
        ),
    ],
)
def test_impossible_augmentations_are_refused(make, error, message):
    with pytest.raises(error, match=message):
        make()


# Failures


class Store:
    """Samples whose reader dies at some of them, as long as a file exists."""

    shape = (23, 1, 8, 8)

    def __init__(self, file=None):
        self.file, self.parent = file, os.getpid()

    def read(self, index):
        if self.file is not None and os.getpid() != self.parent:
            with contextlib.suppress(FileNotFoundError):
                self.file.unlink()
                os.kill(os.getpid(), signal.SIGKILL)
        return RAW[index]


@pytest.fixture
def torch_has_seen_no_loader(monkeypatch):
    """It answers SIGCHLD from the first loader of a process on."""
    before = signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    monkeypatch.setattr(signal_handling, "_SIGCHLD_handler_set", False)
    yield
    signal.signal(signal.SIGCHLD, before)


@pytest.mark.slow
@pytest.mark.usefixtures("torch_has_seen_no_loader")
@pytest.mark.parametrize("another", [False, True])
def test_a_death_of_a_worker_is_reported_between_updates_and_not_within_one(another):
    if another:
        list(DataLoader(range(3), num_workers=1, generator=torch.Generator()))
        assert signal.getsignal(signal.SIGCHLD) is not signal.SIG_DFL
    with contextlib.closing(Batches(DATA, config(workers=1)).since(0)) as batches:
        next(batches)
        assert signal.getsignal(signal.SIGCHLD) is signal.SIG_DFL


@pytest.mark.long
def test_a_worker_that_is_killed_is_replaced_and_no_batch_is_lost(tmp_path):
    file = tmp_path / "die"
    data = Data(Store(file), transform=BYTES, **DATA.conditions)
    file.touch()
    with pytest.warns(RuntimeWarning, match=r"died before step \d+ .*; it is replaced"):
        found = made(Batches(data, config(workers=2)))
    assert all(map(same, found, made(Batches(DATA, config()))))
    assert len(found) == 12
    assert not file.exists()


def test_workers_that_die_again_and_again_end_the_run(monkeypatch):
    batches = Batches(DATA, config(workers=1))

    def dies(step):
        raise RuntimeError("DataLoader worker (pid(s) 1) exited unexpectedly")
        yield

    monkeypatch.setattr(batches, "_by_workers", dies)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with pytest.raises(TrainingError, match=r"the 4th within .*/dev/shm"):
            next(batches.since(0))


@pytest.mark.parametrize(("gap", "last"), [(4, None), (3, 9)])
def test_only_deaths_that_follow_each_other_closely_end_the_run(monkeypatch, gap, last):
    """Up to three dead workers in ten steps are allowed: one in four steps, not one in three."""
    monkeypatch.setattr("scoresde.training.batches._WITHIN", 10)
    batches, died = Batches(DATA, config(workers=1, steps=40)), []

    def dies(step):
        for at in range(step, 40):
            if at % gap == 0 and at not in died:
                died.append(at)
                raise ConnectionResetError("of the connection")
            yield at

    monkeypatch.setattr(batches, "_by_workers", dies)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if last is None:
            assert list(batches.since(0)) == list(range(40))
        else:
            with pytest.raises(TrainingError, match="the 4th within 10 steps"):
                list(batches.since(0))
            assert died[-1] == last


@pytest.mark.parametrize("workers", [0, 1])
def test_a_broken_image_ends_the_run_and_is_named(tmp_path, workers):
    for i, pixels in enumerate(RAW[:6, 0].numpy()):
        Image.fromarray(np.ascontiguousarray(pixels)).save(tmp_path / f"{i}.png")
    data = load(tmp_path, lazy=True)
    (tmp_path / "3.png").write_bytes(b"no longer an image")
    with pytest.raises(DataError) as caught:
        made(Batches(data, config(workers=workers)))
    assert str(caught.value).startswith(f"cannot read the image {tmp_path / '3.png'}: ")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("error", [ConnectionResetError, EOFError, FileNotFoundError])
def test_a_batch_that_can_no_longer_be_fetched_from_a_dead_worker_is_made_again(monkeypatch, error):
    """It waits in the queue, while its numbers are with the worker."""
    batches, deaths = Batches(DATA, config(workers=1)), []

    def dies_once(step):
        if not deaths:
            deaths.append(step)
            yield batches.at(step)
            raise error("of the connection")
        yield from map(batches.at, range(step, batches.config.steps))

    monkeypatch.setattr(batches, "_by_workers", dies_once)
    with pytest.warns(RuntimeWarning, match=r"died before step 1 .*; it is replaced"):
        found = made(batches)
    assert all(map(same, found, made(Batches(DATA, config()))))
    assert len(found) == 12


@pytest.mark.slow
@pytest.mark.parametrize("error", [RuntimeError, ConnectionError])
def test_an_error_of_a_users_function_does_not_count_as_a_death_of_a_worker(error):
    def fails(x, generator):
        raise error("of the user's own")

    with pytest.raises(error, match="of the user's own"):
        made(Batches(DATA, config(workers=1), augment=fails))


@pytest.mark.filterwarnings("ignore:Got pickle error")  # of torch
def test_a_function_that_no_spawned_worker_can_be_sent_is_named():
    before = multiprocessing.get_start_method()
    multiprocessing.set_start_method("spawn", force=True)
    try:
        with pytest.raises(InvalidTypeError, match=r"cannot be sent to a worker \(.*lambda"):
            made(Batches(DATA, config(workers=1), augment=lambda x, generator: x))
        assert '__name__ == "__main__"' in _spawned()
    finally:
        multiprocessing.set_start_method(before, force=True)


@pytest.mark.global_rng
@pytest.mark.parametrize(
    "draw",
    [lambda: float(torch.rand(())), lambda: np.random.rand(), random.random],  # noqa: NPY002
    ids=["torch", "numpy", "python"],
)
def test_an_augmentation_that_draws_from_a_global_generator_is_named(draw):
    with pytest.warns(UserWarning, match="the augmentation draws from a global") as caught:
        made(Batches(DATA, config(), augment=partial(loose, draw=draw)))
    assert len(caught) == 1


def test_an_augmentation_with_a_generator_of_its_own_is_named():
    own, calls = np.random.default_rng(0), []
    with pytest.warns(UserWarning, match="returns other samples when it is called again") as caught:
        made(Batches(DATA, config(), augment=partial(loose, draw=own.normal)))
    assert len(caught) == 1

    def numpy(x, generator):
        calls.append(1)
        return x + np.random.default_rng(generator.initial_seed()).normal()

    made(Batches(DATA, config(steps=100), augment=numpy))  # warns of nothing
    assert 256 <= len(calls) - 500 < 261  # only the first samples are made twice


def loose(x, generator, draw):
    return x + draw()


def test_ctrl_c_is_handled_by_the_trainer_and_not_by_the_workers():
    with contextlib.closing(Batches(DATA, config(workers=1)).since(0)) as batches:
        first = next(batches)
        children = [int(pid) for pid in _children()]
        for pid in children:
            os.kill(pid, signal.SIGINT)
        rest = list(batches)
    assert children
    assert all(map(same, [first, *rest], made(Batches(DATA, config()))))


def _children():
    tasks = Path(f"/proc/{os.getpid()}/task")
    if not tasks.is_dir():
        pytest.skip("needs /proc")
    return [pid for task in tasks.iterdir() for pid in (task / "children").read_text().split()]
