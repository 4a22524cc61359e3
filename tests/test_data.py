"""Test data: their sources, errors, and the order of samples."""

import io
import itertools
import json
import os
import re
import sys
import types
import zipfile
from multiprocessing.reduction import ForkingPickler
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from PIL import Image
from torch.utils.data import TensorDataset

from scoresde.data import (
    BYTES,
    Data,
    Identity,
    Range,
    Standardize,
    batch_indices,
    check,
    images,
    load,
    order,
    stores,
    to_uint8,
)
from scoresde.data.array_file import ArrayFile
from scoresde.data.stores import InMemory
from scoresde.errors import (
    CheckpointError,
    DataError,
    InvalidTypeError,
    InvalidValueError,
    MemoryLimitError,
    MissingExtraError,
    ShapeError,
    UnknownNameError,
)
from scoresde.sde import Classes
from scoresde.units import describe, rebuild

SEEDS = st.integers(0, 2**64 - 1)


@pytest.fixture
def large(monkeypatch):
    """Every array file is too large for memory."""
    monkeypatch.setattr(stores, "IN_MEMORY", 0)


def pictures(n=4, size=(5, 6), seed=0):
    return np.random.default_rng(seed).integers(0, 256, (n, *size), dtype=np.uint8)


def store(folder, images, suffix="png"):
    folder.mkdir(parents=True, exist_ok=True)
    for i, pixels in enumerate(images):
        Image.fromarray(pixels).save(folder / f"{i}.{suffix}")
    return folder


def png(pixels):
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "png")
    return buffer.getvalue()


def sent_to_a_worker(thing):
    return ForkingPickler.loads(ForkingPickler.dumps(thing))


# The order


@given(n=st.integers(1, 200), seed=SEEDS, epoch=st.integers(0, 1000))
def test_the_order_of_an_epoch_is_a_permutation_and_a_pure_function(n, seed, epoch):
    found = order(n, seed=seed, epoch=epoch)
    assert sorted(found.tolist()) == list(range(n))
    assert torch.equal(found, order(n, seed=seed, epoch=epoch))


def test_the_order_is_the_same_on_every_machine():
    assert order(8, seed=1, epoch=2).tolist() == [4, 2, 0, 6, 1, 5, 7, 3]


@given(seed=st.integers(0, 2**63), epoch=st.integers(0, 1000))
@example(seed=2**63, epoch=0)  # float64 has no room for the seed next to it
def test_seeds_and_epochs_have_different_orders(seed, epoch):
    here = order(100, seed=seed, epoch=epoch)
    assert not torch.equal(here, order(100, seed=seed, epoch=epoch + 1))
    assert not torch.equal(here, order(100, seed=seed + 1, epoch=epoch))


@given(n=st.integers(1, 50), batch_size=st.integers(1, 70), seed=SEEDS)
def test_batches_use_every_sample_once_in_every_epoch(n, batch_size, seed):
    steps = range(2 * n)
    stream = [i for k in steps for i in batch_indices(n, batch_size, seed=seed, step=k).tolist()]
    assert len(stream) == 2 * n * batch_size
    for epoch in range(2 * batch_size):
        assert stream[epoch * n : (epoch + 1) * n] == order(n, seed=seed, epoch=epoch).tolist()


@given(step=st.integers(0, 500))
def test_a_batch_does_not_depend_on_earlier_batches(step):
    alone = batch_indices(37, 8, seed=3, step=step)
    for other in (0, step + 1, 499):
        batch_indices(37, 8, seed=3, step=other)
    assert torch.equal(alone, batch_indices(37, 8, seed=3, step=step))


@pytest.mark.parametrize("seed", [-1, 2**64])
def test_a_seed_that_is_no_64_bit_number_is_refused(seed):
    with pytest.raises(InvalidValueError, match=f"got seed = {seed}"):
        order(3, seed=seed, epoch=0)


# Samples


def test_bytes_become_the_declared_transform_exactly(tmp_path):
    raw = np.arange(256, dtype=np.uint8).reshape(1, 16, 16)
    np.save(tmp_path / "x.npy", raw)
    data = load(tmp_path / "x.npy")
    assert data.transform == BYTES
    assert data.event_shape == (1, 16, 16)
    assert torch.equal(data.x, torch.from_numpy(raw)[:, None].float() / 127.5 - 1)
    assert torch.equal(to_uint8(data.x), torch.from_numpy(raw)[:, None])


@given(low=st.floats(-100, 100), width=st.floats(0.1, 100), x=st.floats(-1, 1))
def test_a_transform_has_an_inverse(low, width, x):
    transform = Range(low, low + width)
    value = torch.tensor([x])
    there = transform.inverse(value)
    torch.testing.assert_close(
        transform.forward(there), value, rtol=0, atol=1e-6 * (1 + abs(low) / width)
    )


def test_pictures_outside_the_range_are_clipped_as_bytes():
    assert to_uint8(torch.tensor([-1.5, -1, 0, 1, 7])).tolist() == [0, 0, 128, 255, 255]
    for raw in (torch.tensor([0, 128]), torch.tensor([True]), torch.tensor([1j]), [0.5], None):
        with pytest.raises(InvalidTypeError):
            to_uint8(raw)


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: Range(1, 1), InvalidValueError, "need low < high"),
        (lambda: Range(0, float("inf")), InvalidValueError, "both finite"),
        (lambda: Range(float("nan"), 1), InvalidValueError, "need low < high"),
        (lambda: Range(0, 1, levels=1), InvalidValueError, "levels must be an integer >= 2, got 1"),
        (lambda: Range(0, 1, levels=2.5), InvalidTypeError, "must be an integer or None, got 2.5"),
        (lambda: Range("a", "b"), InvalidTypeError, "low of Range must be a number"),
        (lambda: Standardize(("a",), (1,)), InvalidTypeError, "shift must hold numbers"),
        (lambda: Standardize((0, 1), (1,)), ShapeError, "got 2 shifts and 1 scales"),
        (lambda: Standardize((), ()), ShapeError, "got 0 shifts"),
        (lambda: Standardize((0,), (0,)), InvalidValueError, "scales positive"),
        (lambda: Standardize((float("nan"),), (1,)), InvalidValueError, "shifts must be finite"),
        (
            lambda: Standardize((0, 1), (1, 1)).forward(torch.zeros(2, 3)),
            ShapeError,
            r"has 2 shifts, .* got shape \(2, 3\)",
        ),
    ],
)
def test_a_transform_that_has_no_inverse_is_refused(make, error, message):
    with pytest.raises(error, match=message):
        make()


TRANSFORMS = st.one_of(
    st.just(Identity()),
    st.tuples(st.floats(-100, 100), st.floats(0.1, 100)).map(lambda t: Range(t[0], sum(t))),
    st.integers(2, 300).map(lambda n: Range(0, n - 1, levels=n)),
    st.lists(st.tuples(st.floats(-1e3, 1e3), st.floats(1e-3, 1e3)), min_size=3, max_size=3).map(
        lambda rows: Standardize(*zip(*rows, strict=True))
    ),
)


@given(transform=TRANSFORMS, seed=st.integers(0, 2**31))
def test_every_transform_has_an_inverse_and_survives_json(transform, seed):
    x = torch.randn(4, 3, 2, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    raw = transform.inverse(x)
    torch.testing.assert_close(transform.forward(raw), x, rtol=1e-9, atol=1e-9)
    assert rebuild(json.loads(json.dumps(describe(transform)))) == transform


@given(levels=st.integers(2, 400), low=st.integers(-5, 5))
def test_levels_come_back_exactly_and_nothing_else_does(levels, low):
    transform = Range(low, low + levels - 1, levels=levels)
    raw = torch.arange(low, low + levels)
    back = transform.restore(
        transform.forward(raw)
        + 0.9
        * (torch.rand(levels, generator=torch.Generator().manual_seed(levels)) - 0.5)
        * 2
        / (levels - 1)
    )
    assert torch.equal(back.long(), raw)
    assert back.dtype == (torch.uint8 if low == 0 and levels <= 256 else torch.float32)
    assert transform.restore(torch.tensor([-9.0, 9.0])).tolist() == [low, low + levels - 1]


def test_a_transform_that_cannot_be_rebuilt_is_refused():
    class Mine:
        levels = None

        def forward(self, raw):
            return raw

        inverse = restore = forward

    with pytest.raises(InvalidTypeError, match="Identity, Range, Standardize, which a file can"):
        Data(torch.zeros(2, 2), transform=Mine())
    with pytest.raises(CheckpointError, match="is not the description of a transform"):
        rebuild({"type": "Mine"})


@given(seed=st.integers(0, 2**31), offset=st.sampled_from([0.0, 1e6]))
def test_standardised_data_have_mean_0_and_variance_1(seed, offset):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(50, 3, generator=generator) * torch.tensor([0.3, 1.0, 30.0])
    x = (x.double() + offset).float()
    data = Data(x).standardized()
    mean, var = data.moments()
    torch.testing.assert_close(mean, torch.zeros(3).double(), rtol=0, atol=1e-6)
    assert var == pytest.approx(1, abs=1e-6)
    torch.testing.assert_close(
        data.transform.inverse(data.x.double()), x.double(), rtol=1e-6, atol=1e-5
    )


def test_images_are_standardised_by_channel():
    x = torch.randn(9, 2, 4, 5, generator=torch.Generator().manual_seed(0)) + 3
    found = Data(x).standardized().x
    torch.testing.assert_close(found.mean((0, 2, 3)), torch.zeros(2), rtol=0, atol=1e-5)
    torch.testing.assert_close(found.pow(2).mean((0, 2, 3)), torch.ones(2), rtol=0, atol=1e-5)
    constant = Data(torch.full((4, 2), 7.0)).standardized()
    assert constant.transform == Standardize((7, 7), (1, 1))


def test_bytes_are_not_standardised(tmp_path):
    np.save(tmp_path / "x.npy", pictures())
    with pytest.raises(InvalidValueError, match="holds bytes, which are scaled"):
        load(tmp_path / "x.npy", standardize=True)
    with pytest.raises(InvalidValueError, match="holds bytes, which are scaled"):
        check(tmp_path / "x.npy", standardize=True)


def test_data_are_taken_in_the_units_of_a_model():
    raw = torch.tensor([[0.0], [16.0], [3.0]])
    digits = Range(0, 16, levels=17)
    assert torch.equal(Data(raw).units_of(digits).x, raw / 8 - 1)
    own = Data(raw.to(torch.uint8), transform=BYTES)
    assert torch.equal(own.units_of(digits).x, raw / 8 - 1)
    assert own.units_of(Identity()) is own
    with pytest.raises(InvalidValueError, match=r"levels=17\), but these numbers lie in \[0, 17\]"):
        Data(torch.tensor([[0.0], [17.0]])).units_of(digits)


@given(seed=st.integers(0, 2**31), n=st.integers(2, 20))
def test_moments_are_those_of_the_centred_samples(seed, n):
    x = torch.randn(n, 2, 3, generator=torch.Generator().manual_seed(seed)) + 3
    mean, var = Data(x).moments()
    torch.testing.assert_close(mean, x.double().mean(0), rtol=1e-12, atol=1e-12)
    expected = (x.double() - x.double().mean(0)).pow(2).mean()
    assert var == pytest.approx(float(expected), rel=1e-5)


@given(n=st.integers(10, 60), fraction=st.floats(0.1, 0.9), seed=st.integers(0, 100))
def test_a_split_is_a_partition(n, fraction, seed):
    x = torch.arange(n, dtype=torch.float32)[:, None]
    kept, held = Data(x, label=torch.arange(n)).split(fraction, seed=seed)
    assert sorted(torch.cat([kept.x, held.x]).flatten().tolist()) == list(range(n))
    assert len(held) == round(n * fraction)
    assert kept.classes == held.classes == n
    assert torch.equal(kept.x.flatten().long(), kept.label)


@pytest.mark.parametrize("fraction", [0, 1, -1, 0.01])
def test_a_split_that_leaves_a_part_empty_is_refused(fraction):
    with pytest.raises(InvalidValueError, match="cannot hold out the fraction"):
        Data(torch.zeros(10, 1)).split(fraction)


def test_the_fingerprint_depends_on_samples_and_labels():
    x, label = torch.zeros(4, 2), torch.tensor([0, 1, 0, 1])
    other = x.clone()
    other[3, 1] = 1e-30
    prints = [Data(x), Data(other), Data(x.double()), Data(x[:, :1])]
    prints += [Data(x, label=label), Data(x, label=label.flip(0)), Data(x, transform=Range(0, 1))]
    prints += [Data(x, y=label), Data(x, y=label.double()), Data(x, label=label, y=label)]
    assert len({data.fingerprint() for data in prints}) == len(prints)
    assert Data(x.clone()).fingerprint() == Data(x).fingerprint()


@pytest.mark.parametrize(
    ("x", "error", "message"),
    [
        (torch.zeros(2, 3, dtype=torch.uint8), DataError, r"convert other data by x.float\(\), or"),
        (torch.zeros(2, 3, dtype=torch.int64), InvalidTypeError, "got torch.int64; convert"),
        (torch.zeros(2, 3, dtype=torch.bool), InvalidTypeError, "got torch.bool; convert"),
        (torch.zeros(3), ShapeError, r"must have shape \(N, \*event\), got \(3,\)"),
        (torch.zeros(0, 3), DataError, r"there are no samples: shape \(0, 3\)"),
        (torch.tensor([[0.0], [torch.nan]]), DataError, "1 of 2 .* number 1; leave them out"),
        (torch.tensor([[0.0], [-torch.inf]]), DataError, "1 of 2 samples .* number 1; remove"),
        ([1.0], ShapeError, r"must have shape \(N, \*event\), got \(1,\)"),
        (object(), InvalidTypeError, "cannot load data from a object"),
    ],
)
def test_samples_that_cannot_be_trained_on_are_refused(x, error, message):
    with pytest.raises(error, match=message):
        load(x)


@pytest.mark.parametrize(
    ("label", "error", "message"),
    [
        (torch.tensor([0, 1]), ShapeError, r"one row for each of 3 samples, got shape \(2,\)"),
        (
            torch.tensor([0, -2, 1]),
            DataError,
            r"lie in \[-2, 1\], .*sample 1 has the first wrong label",
        ),
        (torch.tensor([True, False, True]), InvalidTypeError, r"pass y.long\(\), labels of 2"),
        (torch.zeros(3, 2).long(), InvalidTypeError, r"give labels with one axis, y\[:, 0\]"),
    ],
)
def test_labels_that_do_not_fit_are_refused(label, error, message):
    with pytest.raises(error, match=message):
        Data(torch.zeros(3, 1), label=label)


def test_labels_beyond_the_declared_classes_or_beyond_all_networks_are_refused():
    with pytest.raises(DataError, match="a model would have as many classes"):
        Data(torch.zeros(2, 1), label=[0, 2**62])
    with pytest.raises(DataError, match=r"labels of 'label' lie in \[0, 5\], expected \[0, 4\]"):
        Data(torch.zeros(2, 1), label=[0, 5], kinds={"label": Classes(5)})


@pytest.mark.parametrize(
    ("index", "message"),
    [(torch.tensor([5]), "are 0 to 4"), (torch.tensor([0.5]), "used as indices must be")],
)
def test_missing_samples_are_refused_by_number(tmp_path, index, message):
    x = torch.randn(5, 2, generator=torch.Generator().manual_seed(0))
    np.save(tmp_path / "x.npy", x.numpy())
    for data in (Data(x), load(tmp_path / "x.npy")):
        for ask in (data.batch, data.__getitem__):
            with pytest.raises(InvalidValueError, match=message):
                ask(index)


def test_the_graph_of_a_tensor_is_dropped():
    assert not Data(torch.ones(3, 2, requires_grad=True)).x.requires_grad


def test_an_array_of_a_dtype_that_torch_does_not_have_is_refused():
    with pytest.raises(InvalidTypeError, match=r"the samples must be numbers .*, got an array of"):
        load(np.zeros((3, 2), np.longdouble))


def test_options_of_images_are_refused_for_arrays(tmp_path):
    np.save(tmp_path / "x.npy", np.zeros((3, 2), np.float32))
    for source in (tmp_path / "x.npy", torch.zeros(3, 2), "digits"):
        for options in (dict(size=8), dict(lazy=True)):
            with pytest.raises(InvalidValueError, match="is for images; leave it out"):
                load(source, **options)


def test_folders_that_are_links_are_classes_as_others_are(tmp_path):
    """A class that is a link was ignored without a warning."""
    store(tmp_path / "elsewhere", pictures(3, (5, 6)))
    store(tmp_path / "x" / "dog", pictures(2, (5, 6)))
    (tmp_path / "x" / "cat").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "x" / "dog" / "back").symlink_to(tmp_path / "x")
    (tmp_path / "x" / "dog" / "itself").symlink_to(tmp_path / "x" / "dog" / "itself")
    data = load(tmp_path / "x")
    assert (data.label.tolist(), data.classes) == ([0, 0, 0, 1, 1], 2)
    report = check(tmp_path / "x")
    assert report.facts["samples"].startswith("5 of shape")
    assert any("itself" in remark for remark in report.remarks)


def test_a_read_only_array_is_accepted_without_a_warning(tmp_path):
    np.save(tmp_path / "x.npy", np.ones((3, 2)))
    mapped = np.load(tmp_path / "x.npy", mmap_mode="r")
    assert torch.equal(load(mapped).x, torch.ones(3, 2, dtype=torch.float64))


def test_a_folder_with_the_name_of_an_image_is_no_image(tmp_path):
    store(tmp_path / "x", pictures(2))
    (tmp_path / "x" / "photos.png").mkdir()
    assert len(load(tmp_path / "x")) == 2


def test_a_link_to_nowhere_is_a_broken_image(tmp_path):
    store(tmp_path / "x", pictures(2))
    (tmp_path / "x" / "dead.png").symlink_to(tmp_path / "nowhere")
    with pytest.raises(DataError, match=r"cannot read the image .*dead\.png: "):
        load(tmp_path / "x")


def test_tensors_are_not_changed():
    x = torch.randn(5, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    data = load(x, condition={"label": [0, 2, 1, 0, 0]})
    assert torch.equal(data.x, x)
    assert (data.transform, data.classes, data.label.dtype) == (Identity(), 3, torch.int64)
    assert data.without("label").label is None


# Where samples lie


@given(seed=st.integers(0, 1000), n=st.integers(1, 40))
def test_bytes_in_memory_are_the_same_data_as_their_floats(seed, n):
    raw = torch.from_numpy(pictures(n, (1, 3, 2), seed))
    small, large = Data(raw, transform=BYTES), Data(BYTES.forward(raw))
    index = torch.from_numpy(np.random.default_rng(seed).integers(0, n, 7))
    assert torch.equal(small.batch(index), large.batch(index))
    assert torch.equal(small.x, large.x)
    for mine, theirs in zip(small.moments(), large.moments(), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-6, atol=1e-6)
    assert small.batch(index).dtype == torch.float32
    assert small.raw.dtype == torch.uint8


@given(n=st.integers(2, 30), seed=st.integers(0, 100))
def test_a_part_of_a_part_is_a_part(n, seed):
    data = Data(torch.arange(float(n))[:, None], label=torch.arange(n))
    first = order(n, seed=seed, epoch=0)[: n // 2 + 1]
    second = order(len(first), seed=seed, epoch=1)
    part = data[first][second][: len(first)]
    assert torch.equal(part.label, first[second])
    assert torch.equal(part.x[:, 0].long(), part.label)
    assert part.classes == data.classes
    assert part.fingerprint() == Data(data.x[part.label], label=part.label).fingerprint()


@pytest.mark.parametrize("index", [3, torch.tensor(3)])
def test_one_number_is_no_index(index):
    with pytest.raises(InvalidTypeError, match="indexed by a slice or a list of numbers"):
        Data(torch.zeros(5, 2))[index]


@given(parts=st.integers(1, 7), offset=st.sampled_from([0.0, 1e8]))
def test_the_moments_of_many_pieces_are_those_of_the_whole(parts, offset):
    class Slow(InMemory):
        """Too large for few pieces."""

    x = torch.randn(41, 3, generator=torch.Generator().manual_seed(parts), dtype=torch.float64)
    x += offset
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stores, "PIECE", 12 * parts)
        found = Data(Slow(x)).survey
    torch.testing.assert_close(found.mean, x.mean(0), rtol=1e-14, atol=1e-14)
    # the numbers themselves have a spacing of 1.5e-8 about 1e8
    torch.testing.assert_close(found.var, x.var(0, correction=0), rtol=1e-7, atol=0)
    assert (found.low, found.high) == (x.min(), x.max())
    assert found.sha256 == Data(x).survey.sha256


def header_of(path, shape, dtype="<f4"):
    """A `.npy` file that is a header only."""
    with path.open("wb") as file:
        what = {"descr": dtype, "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(file, what)
    return path


@pytest.mark.parametrize("shape", [(2**40, 2**10), (2**62, 4), (-1, -(2**30)), (3, 2)])
@pytest.mark.parametrize("room", [0, 10_000])
def test_a_header_that_declares_more_than_the_file_has_is_refused(
    tmp_path, monkeypatch, shape, room
):
    monkeypatch.setattr(stores, "IN_MEMORY", room)
    path = header_of(tmp_path / "x.npy", shape)
    with pytest.raises(DataError, match=r"x\.npy (has 128 bytes, but its header|is not an array)"):
        load(path)
    with zipfile.ZipFile(tmp_path / "x.npz", "w") as archive:
        archive.write(path, "x.npy")
    with pytest.raises(DataError, match=r"x\.npz (has 128 bytes, but its header|is not an array)"):
        load(tmp_path / "x.npz")


def test_samples_in_columns_are_read_or_refused(tmp_path, monkeypatch):
    x = np.arange(12.0, dtype=np.float32).reshape(4, 3)
    np.save(tmp_path / "x.npy", np.asfortranarray(x))
    assert torch.equal(load(tmp_path / "x.npy").x, torch.from_numpy(x))
    monkeypatch.setattr(stores, "IN_MEMORY", 0)
    with pytest.raises(DataError, match=r"Fortran order.*ascontiguousarray"):
        load(tmp_path / "x.npy")


@pytest.mark.skipif(os.name != "posix", reason="needs named pipes")
@pytest.mark.parametrize("name", ["x.npy", "x.npz"])
def test_a_pipe_is_refused_as_data_and_does_not_block(tmp_path, name):
    os.mkfifo(tmp_path / name)
    with pytest.raises(DataError, match="it is a pipe or a device"):
        load(tmp_path / name)


def written_over(path, x):
    np.save(path, x + 1)


def cut_off(path, x):
    os.truncate(path, path.stat().st_size // 2)


def written_over_within_one_tick(path, x):
    before = path.stat()
    np.save(path, x + 1)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


CHANGES = [written_over, cut_off, written_over_within_one_tick]


@pytest.mark.parametrize("change", CHANGES)
def test_a_change_of_a_large_file_is_detected(tmp_path, large, change):
    x = np.random.default_rng(0).normal(size=(40, 3)).astype(np.float32)
    np.save(tmp_path / "x.npy", x)
    data = load(tmp_path / "x.npy")
    sent = ForkingPickler.dumps(data.store)
    assert {data.changed(turn) for turn in range(9)} == {""}
    change(tmp_path / "x.npy", x)
    if change is written_over_within_one_tick:
        assert "have changed since the data were loaded" in data.changed(3)
    else:
        with pytest.raises(DataError, match="has changed since it was loaded"):
            data.changed(3)
        with pytest.raises(DataError, match="has changed since it was loaded"):
            data.batch(torch.tensor([39]))
        with pytest.raises(DataError, match="has changed since it was loaded"):
            ForkingPickler.loads(sent)


def test_data_of_a_small_or_a_replaced_file_do_not_change(tmp_path, monkeypatch):
    """What is in memory, or in a file that has lost its name only, cannot be changed."""
    x = np.random.default_rng(0).normal(size=(40, 3)).astype(np.float32)
    for room in (0, 10_000):
        monkeypatch.setattr(stores, "IN_MEMORY", room)
        np.save(tmp_path / "x.npy", x)
        data = load(tmp_path / "x.npy")
        np.save(tmp_path / "y.npy", x + 1)
        os.replace(tmp_path / "y.npy", tmp_path / "x.npy")
        if room:
            cut_off(tmp_path / "x.npy", x)
        assert data.changed(0) == ""
        assert torch.equal(data.x, torch.from_numpy(x))


def test_all_samples_are_compared_in_turn(monkeypatch):
    """One part after another is looked at, whichever it is that changes."""
    monkeypatch.setattr(stores, "PIECE", 48)
    monkeypatch.setattr("scoresde.data.survey.PIECE", 48)
    for row in range(0, 40, 3):
        x = torch.randn(40, 3, generator=torch.Generator().manual_seed(0))
        data = Data(x)
        _ = data.survey
        x[row, 1] += 1
        assert 0 < sum(data.changed(turn) != "" for turn in range(20)) < 20


def test_an_array_that_is_mapped_is_copied_or_refused(tmp_path, monkeypatch):
    np.save(tmp_path / "x.npy", np.ones((30, 2), np.float32))
    data = load(np.load(tmp_path / "x.npy", mmap_mode="r"))
    os.truncate(tmp_path / "x.npy", 0)  # a page that is missing would kill this process
    assert data.x.sum() == 60
    np.save(tmp_path / "x.npy", np.ones((30, 2), np.float32))
    monkeypatch.setattr("scoresde.data.stores.IN_MEMORY", 100)
    with pytest.raises(DataError, match=r"is mapped from .*x\.npy, and too large to be copied"):
        load(np.load(tmp_path / "x.npy", mmap_mode="r"))


@pytest.mark.parametrize("dtype", ["<f4", ">f4", "<f8", "<f2", "u1"])
def test_a_large_npy_file_is_read_by_rows_and_never_held(tmp_path, dtype, large):
    raw = np.random.default_rng(0).integers(0, 256, (6, 3, 4, 4)).astype(dtype)
    np.save(tmp_path / "x.npy", raw)
    data = load(tmp_path / "x.npy")
    assert isinstance(data.store, ArrayFile)
    index = torch.tensor([5, 0, 0])
    assert torch.equal(data[1:3].x, data.x[1:3])
    with pytest.raises(InvalidValueError, match="the indices of the 6 samples are 0 to 5"):
        data.batch(torch.tensor([6]))
    wide = np.float64 if dtype == "<f8" else np.float32
    expected = torch.from_numpy(raw[index.numpy()].astype(wide))
    expected = BYTES.forward(expected) if dtype == "u1" else expected
    assert torch.equal(data.batch(index), expected)
    sent = sent_to_a_worker(data)
    assert len(ForkingPickler.dumps(data.store)) < 400  # its path, and none of its samples
    assert torch.equal(sent.batch(index), expected)


def test_a_sample_that_is_larger_than_the_memory_is_refused(tmp_path):
    path = tmp_path / "x.npy"
    with path.open("wb") as file:
        header = {"descr": "<f4", "fortran_order": False, "shape": (2, 2**38)}
        np.lib.format.write_array_header_1_0(file, header)
        file.truncate(file.tell() + 2**41)  # a sparse file: nothing is written to the disk
    with pytest.raises(MemoryLimitError, match=r"has the shape \(274877906944,\), which does not"):
        load(path)


@pytest.mark.parametrize("room", [0, 10_000])
def test_a_file_is_the_same_data_set_as_its_array_in_any_folder(tmp_path, monkeypatch, room):
    monkeypatch.setattr(stores, "IN_MEMORY", room)
    x = torch.randn(9, 4, generator=torch.Generator().manual_seed(0))
    np.save(tmp_path / "x.npy", x.numpy())
    data = load(tmp_path / "x.npy")
    assert isinstance(data.store, InMemory if room else ArrayFile)
    assert data.fingerprint() == Data(x).fingerprint()


@pytest.mark.parametrize("wrong", [np.nan, np.inf, -np.inf])
def test_a_large_file_with_a_nan_is_refused(tmp_path, wrong, large):
    x = np.zeros((9, 4), np.float32)
    x[7, 1] = wrong
    np.save(tmp_path / "x.npy", x)
    with pytest.raises(DataError, match="sample 7 holds a NaN or an infinity"):
        load(tmp_path / "x.npy")


def test_images_read_from_their_folder_equal_those_in_memory(tmp_path):
    for name, n in (("a", 3), ("b", 4)):
        store(tmp_path / "x" / name, pictures(n, (5, 6, 3), seed=n))
    here, there = load(tmp_path / "x"), load(tmp_path / "x", lazy=True)
    index = torch.tensor([6, 0, 3, 3])
    assert isinstance(here.store, InMemory)
    assert not isinstance(there.store, InMemory)
    assert torch.equal(here.batch(index), there.batch(index))
    assert torch.equal(here.label, there.label)
    assert here.fingerprint() == there.fingerprint()
    assert torch.equal(here[2:5].x, there[2:5].x)
    sent = sent_to_a_worker(there)
    assert torch.equal(sent.batch(index), here.batch(index))


def test_a_copied_folder_in_another_format_is_the_same_data_set(tmp_path):
    raw = pictures(4)
    first = load(store(tmp_path / "a", raw), lazy=True)
    assert load(store(tmp_path / "b", raw, "bmp")).fingerprint() == first.fingerprint()
    assert load(store(tmp_path / "c", raw[::-1])).fingerprint() != first.fingerprint()


def test_images_of_large_folders_are_not_kept_in_memory(tmp_path, monkeypatch):
    folder = store(tmp_path / "x", pictures(4))
    monkeypatch.setattr(images, "_ROOM", 4 * 30 - 1)
    assert not isinstance(load(folder).store, InMemory)
    assert isinstance(load(folder, lazy=False).store, InMemory)


def test_a_lazy_image_that_breaks_or_changes_later_is_named(tmp_path):
    data = load(store(tmp_path / "x", pictures(4, (40, 40))), lazy=True)
    index = torch.tensor([2, 1])
    Image.fromarray(pictures(1, (8, 8))[0]).save(tmp_path / "x" / "1.png")
    with pytest.raises(DataError, match=r"1\.png is \(8, 8\) .*not \(40, 40\) as it was"):
        data.batch(index)
    (tmp_path / "x" / "1.png").unlink()
    with pytest.raises(DataError, match=r"cannot read the image .*1\.png: "):
        data.batch(index)


def test_lazy_images_that_are_broken_are_found_when_they_are_loaded(tmp_path):
    folder = store(tmp_path / "x", pictures(20, (40, 40)))
    whole = (folder / "7.png").read_bytes()
    (folder / "7.png").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match=r"cannot read the image .*7\.png: .*pass on_bad_image"):
        load(folder, lazy=True)
    with pytest.warns(RuntimeWarning, match=r"left out 1 of 20 .* is .*7\.png"):
        data = load(folder, lazy=True, on_bad_image="skip")
    assert len(data) == 19
    assert data.x.shape == (19, 1, 40, 40)


def test_a_rotated_photo_has_the_size_in_which_it_is_shown(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    tmp_path.joinpath("x").mkdir()
    Image.fromarray(pictures(1, (6, 8, 3))[0]).save(tmp_path / "x" / "0.jpg", exif=exif)
    Image.fromarray(pictures(1, (8, 6, 3))[0]).save(tmp_path / "x" / "1.jpg")
    assert load(tmp_path / "x", lazy=True).batch(torch.tensor([0, 1])).shape == (2, 3, 8, 6)


@pytest.mark.parametrize("size", [0, -1, (4, 0), (1, 2, 3)])
def test_a_size_without_pixels_is_refused(tmp_path, size):
    with pytest.raises((InvalidValueError, InvalidTypeError), match="must be an integer"):
        load(store(tmp_path / "x", pictures(1)), size=size)


# Hugging Face's data sets


class Table:
    """As little as a data set of theirs has to be."""

    def __init__(self, **columns):
        self.columns, self.column_names = columns, list(columns)

    def __len__(self):
        return len(self.columns[self.column_names[0]])

    def __getitem__(self, key):
        if isinstance(key, str):
            return self.columns[key]
        return {name: column[key] for name, column in self.columns.items()}


def test_a_table_of_images_has_its_labels_beside_it():
    raw = pictures(4)
    table = Table(id=list("abcd"), image=[Image.fromarray(p) for p in raw], label=[1, 0, 2, 1])
    for lazy in (None, True):
        data = load(table, lazy=lazy)
        assert np.array_equal(to_uint8(data.x)[:, 0].numpy(), raw)
        assert (data.label.tolist(), data.classes) == ([1, 0, 2, 1], 3)


@pytest.mark.parametrize(
    "labels",
    [[None, 1, 0], [-1, np.int64(1), np.int64(0)], list(torch.tensor([-1, 1, 0])), [-1, 1, None]],
)
def test_the_labels_of_a_table_may_be_missing_and_of_any_library(labels):
    data = load(Table(x=[[0.0, 1.0]] * 3, label=labels))
    assert data.classes == 2
    assert data.label.tolist() == [-1, 1, 0 if labels[2] is not None else -1]


def test_text_in_the_label_of_a_table_is_one_of_classes():
    data = load(Table(x=[[0.0, 1.0]] * 3, label=["dog", None, "cat"]))
    assert data.label.tolist() == [1, -1, 0]
    assert data.names == {"label": ("cat", "dog")}


def test_a_data_set_of_numbers_and_text_alone_is_a_table():
    table = Table(a=[1.0, 2.0, 3.5], b=[0, 1, 2], kind=["u", "v", "u"])
    data = load(table, condition={"label": "kind"})
    assert data.columns == ("a", "b")
    assert data.x.tolist() == [[1, 0], [2, 1], [3.5, 2]]
    assert load(table, sample=["a"]).columns == ("a",)


def test_a_table_of_arrays_is_read_unchanged():
    x = np.random.default_rng(0).normal(size=(5, 2, 3))
    data = load(Table(x=x.tolist()))
    assert torch.equal(data.x, torch.from_numpy(x))
    assert (data.label, data.transform) == (None, Identity())
    ragged = [[1.0], [1.0, 2.0]]
    for bad, message in (
        (Table(x=ragged), r"sample 1 of the column 'x' has shape \(2,\), but sample 0 has \(1,\)"),
        (Table(x=[[1.0], [np.nan]]), "sample 1 holds a NaN"),
        (Table(text=["a", "b"]), "no column of text holds images"),
        (Table(text=[]), "has no rows"),
        (Table(x=[["a"], ["b"]]), "the column 'x' holds <U1, but samples must be floats or bytes"),
    ):
        with pytest.raises(DataError, match=message):
            load(bad)


@pytest.mark.filterwarnings("ignore:Cannot (locate|pickle)")
def test_the_real_datasets_package_is_read_by_name_and_as_an_object(tmp_path):
    datasets = pytest.importorskip("datasets")
    arrow = pytest.importorskip("pyarrow")
    raw = pictures(4)
    features = datasets.Features(
        image=datasets.Image(), label=datasets.ClassLabel(names=["a", "b", "c"])
    )

    def made(index):
        cells = [{"bytes": png(raw[i]), "path": None} for i in index]
        columns = dict(image=cells, label=[(1, 0, 1, 1)[i] for i in index])
        rows = arrow.Table.from_pydict(columns, schema=features.arrow_schema)
        return datasets.Dataset(rows, fingerprint=str(index))

    table = made([0, 1, 2, 3])
    data = load(table)
    assert np.array_equal(to_uint8(data.x)[:, 0].numpy(), raw)
    assert (data.label.tolist(), data.classes) == ([1, 0, 1, 1], 3)
    datasets.DatasetDict(train=table, test=made([2])).save_to_disk(tmp_path / "d")
    assert load(f"hf:{tmp_path}/d").fingerprint() == data.fingerprint()
    assert len(load(f"hf:{tmp_path}/d:test:image")) == 1
    assert len(load(f"hf:{tmp_path}/d", split="test", lazy=True)) == 1
    for source, error, message in (
        (f"hf:{tmp_path}/d:test:picture", UnknownNameError, "unknown column 'picture'"),
        (f"hf:{tmp_path}/d:nope", DataError, "cannot load 'hf:"),
        ("hf:", InvalidValueError, "is not the name of a data set; write hf:name"),
    ):
        with pytest.raises(error, match=message):
            load(source)


def test_a_hub_without_its_package_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'scoresde\[datasets\]'"):
        load("hf:ylecun/mnist")


# Files


@pytest.mark.parametrize(
    ("shape", "event"),
    [((3, 5, 6), (1, 5, 6)), ((3, 5, 6, 3), (3, 5, 6)), ((2, 3, 5, 6), (3, 5, 6))],
)
def test_bytes_in_a_file_are_images_with_the_channel_first(tmp_path, shape, event):
    raw = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    np.savez(tmp_path / "a.npz", images=raw, labels=np.arange(len(raw), dtype=np.uint16))
    data = load(str(tmp_path / "a.npz"))
    assert data.event_shape == event
    assert data.label.tolist() == list(range(len(raw)))
    again = to_uint8(data.x).numpy()
    assert np.array_equal(again, raw.transpose(0, 3, 1, 2) if shape[-1] == 3 else again)
    assert np.array_equal(np.sort(again, axis=None), np.sort(raw, axis=None))


def test_floats_in_a_file_are_read_unchanged(tmp_path):
    x = np.random.default_rng(0).normal(size=(4, 2)).astype(">f8")
    np.savez(tmp_path / "a.npz", x=x, y=np.array([0, 1, 1, 0]))
    data = load(tmp_path / "a.npz")
    assert data.x.dtype == torch.float64
    assert np.array_equal(data.x.numpy(), x)
    assert data.transform == Identity()


@pytest.mark.parametrize("source", ["x.npy", "x.npz", "tensor", "table"])
def test_small_differences_of_large_numbers_survive_transform_and_inverse(tmp_path, source):
    """For example seconds since 1970: float32 resolves 128 of them."""
    x = 1.7e9 + 100 * np.random.default_rng(0).normal(size=(50, 2))
    np.save(tmp_path / "x.npy", x)
    np.savez(tmp_path / "x.npz", x=x)
    found = {"tensor": torch.from_numpy(x), "table": Table(x=x.tolist())}
    data = load(found.get(source, tmp_path / source), standardize=True)
    torch.testing.assert_close(
        data.transform.inverse(data.x), torch.from_numpy(x), rtol=1e-15, atol=0
    )
    back = data.transform.restore(data.x.float())  # as samples of a model are
    torch.testing.assert_close(back, torch.from_numpy(x), rtol=0, atol=1e-4)


def test_a_list_of_numbers_is_as_wide_as_they_are():
    x = np.random.default_rng(0).normal(size=(3, 2))
    for dtype, expected in ((np.float32, torch.float32), (np.float64, torch.float64)):
        assert load(Table(x=x.astype(dtype).tolist())).x.dtype == expected


def test_a_file_without_samples_lists_its_keys(tmp_path):
    np.savez(tmp_path / "a.npz", train=np.zeros((2, 2)), targets=np.zeros(2))
    with pytest.raises(
        DataError, match="keys train, targets; say which are the samples, sample='train'"
    ):
        load(tmp_path / "a.npz")


def test_a_file_of_pickled_objects_is_never_loaded(tmp_path):
    np.save(tmp_path / "a.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)
    np.savez(tmp_path / "a.npz", x=np.array([{"a": 1}], dtype=object), allow_pickle=True)
    (tmp_path / "b.npy").write_bytes(b"\x80\x04]\x94(K\x01K\x02e.")
    for name, message in (
        ("a.npy", r"a\.npy holds Python objects, which can run any code"),
        ("a.npz", r"'x' in .*a\.npz holds Python objects, which can run any code"),
        ("b.npy", r"b\.npy is not an array that numpy wrote"),
    ):
        with pytest.raises(DataError, match=message) as caught:
            load(tmp_path / name)
        assert not re.search("unsafely|allow_pickle|trust", str(caught.value))


def test_files_that_cannot_be_used_are_named(tmp_path):
    np.save(tmp_path / "int.npy", np.zeros((2, 3), np.int32))
    np.save(tmp_path / "text.npy", np.array(["a", "b"]))
    np.save(tmp_path / "row.npy", np.zeros((2, 3), np.uint8))
    np.savez(tmp_path / "label.npz", x=np.zeros((2, 3), np.int64), y=np.zeros(2))
    whole = (tmp_path / "label.npz").read_bytes()
    (tmp_path / "cut.npz").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "a.xyz").write_text("1,2")
    for name, error, message in [
        (
            "int.npy",
            InvalidTypeError,
            r"int\.npy are int32, whose range is unknown; .* floats, .* to bytes",
        ),
        ("text.npy", InvalidTypeError, r"text\.npy are <U1; they must be numbers"),
        ("row.npy", DataError, r"row\.npy have shape \(2, 3\); images are"),
        (
            "label.npz",
            InvalidTypeError,
            r"samples in .*label\.npz are int64, whose range is unknown",
        ),
        ("cut.npz", DataError, r"cut\.npz is not a \.npz archive, or it is truncated"),
        ("a.xyz", DataError, r"a\.xyz has a suffix that cannot be read; pass a \.npy"),
        ("none.npy", DataError, r"none\.npy does not exist"),
        ("nowhere", DataError, "nowhere does not exist; pass"),
    ]:
        with pytest.raises(error, match=message):
            load(tmp_path / name)


# Folders of images


def test_a_folder_of_images_is_read_in_order(tmp_path):
    raw = pictures()
    data = load(store(tmp_path / "images", raw))
    assert data.event_shape == (1, 5, 6)
    assert np.array_equal(to_uint8(data.x)[:, 0].numpy(), raw)
    assert data.label is None


def test_folders_within_a_folder_are_classes(tmp_path):
    for name, n in [("dog", 3), ("cat", 2)]:
        store(tmp_path / "images" / name, pictures(n))
    data = load(tmp_path / "images")
    assert (data.label.tolist(), data.classes) == ([0, 0, 1, 1, 1], 2)


def test_grey_images_among_coloured_ones_become_coloured(tmp_path):
    store(tmp_path / "images", [*pictures(1), pictures(1, (5, 6, 3))[0]])
    data = load(tmp_path / "images")
    assert data.event_shape == (3, 5, 6)
    assert torch.equal(data.x[0, 0], data.x[0, 2])


def test_images_of_different_sizes_are_named_or_resized(tmp_path):
    store(tmp_path / "images", [*pictures(1, (5, 6)), *pictures(1, (7, 8))])
    with pytest.raises(DataError, match=r"0\.png is \(5, 6\) and .*1\.png is \(7, 8\) .* size="):
        load(tmp_path / "images")
    assert load(tmp_path / "images", size=4).event_shape == (1, 4, 4)
    assert load(tmp_path / "images", size=(3, 4)).event_shape == (1, 3, 4)


@pytest.mark.parametrize("damage", [lambda b: b[: len(b) // 2], lambda b: b"", lambda b: b"text"])
def test_a_broken_image_is_named(tmp_path, damage):
    folder = store(tmp_path / "images", pictures(3, (40, 40)))
    broken = folder / "1.png"
    broken.write_bytes(damage(broken.read_bytes()))
    with pytest.raises(DataError, match=r"cannot read the image .*1\.png: .*on_bad_image='skip'"):
        load(folder)


def test_a_few_broken_images_are_skipped_on_request(tmp_path):
    folder = store(tmp_path / "images", pictures(20))
    (folder / "3.png").write_bytes(b"")
    with pytest.warns(RuntimeWarning, match=r"left out 1 of 20 images .* the first is .*3\.png"):
        data = load(folder, on_bad_image="skip")
    assert len(data) == 19
    for name in ("4.png", "5.png"):
        (folder / name).write_bytes(b"")
    with pytest.raises(DataError, match=r"\(and 2 more\): .*more than 10% of 20 are"):
        load(folder, on_bad_image="skip")


def test_images_of_8_and_of_16_bits_are_not_mixed(tmp_path):
    one = pictures(1)[0]
    store(tmp_path / "images", [one.astype(np.uint16) * 200, one])
    with pytest.raises(DataError, match=r"0\.png has the mode 'I;16', .*1\.png has the mode 'L'"):
        load(tmp_path / "images")


def test_a_folder_without_images_is_refused(tmp_path):
    with pytest.raises(DataError, match=r"there are no images in .* with a suffix \.bmp"):
        load(tmp_path)


# Names


@pytest.mark.slow
def test_digits_are_the_real_ones_of_scikit_learn():
    known = pytest.importorskip("sklearn.datasets").load_digits()
    data = load("Digits")
    pixels = data.transform.restore(data.x)
    assert torch.equal(pixels[:, 0].double(), torch.from_numpy(known.images))
    assert torch.equal(data.label, torch.from_numpy(known.target))
    assert (len(data), data.event_shape, data.classes) == (1797, (1, 8, 8), 10)
    assert data.transform == Range(0, 16, levels=17)
    assert (data.x.min(), data.x.max()) == (-1, 1)
    assert torch.equal(data.transform.inverse(data.x) % 1, torch.zeros_like(data.x))


class Squares:
    """A data set as torchvision has them: downloaded, with a flag for its part."""

    def __init__(self, root, train=True, transform=None, download=False):
        assert download
        self.root, self.n = root, 3 if train else 2

    def __len__(self):
        return self.n

    def __getitem__(self, i):
        return Image.fromarray(pictures(self.n)[i]), i


class Coloured:
    """Define a data set with a named split and without numbered classes."""

    def __init__(self, root, split="train", download=False):
        if split not in ("train", "test", "extra"):
            raise ValueError(f"unknown split {split}")

    def __len__(self):
        return 2

    def __getitem__(self, i):
        return Image.fromarray(pictures(2, (4, 4, 3))[i]), {"boxes": []}


class Unreachable:
    def __init__(self, root, download=False):
        raise OSError("<urlopen error\n Name or service not known>")


class Manual:
    """One that torchvision cannot download is no choice."""

    def __init__(self, root, annotations, download=False):
        raise AssertionError


@pytest.fixture
def torchvision(monkeypatch):
    classes = [Squares, Coloured, Unreachable, Manual]
    datasets = types.ModuleType("torchvision.datasets")
    vars(datasets).update({c.__name__: c for c in classes})
    datasets.__all__ = [c.__name__ for c in classes]
    package = types.ModuleType("torchvision")
    package.datasets = datasets
    monkeypatch.setitem(sys.modules, "torchvision", package)
    monkeypatch.setitem(sys.modules, "torchvision.datasets", datasets)


@pytest.mark.usefixtures("torchvision")
def test_torchvision_data_sets_are_known_by_name():
    data = load("squares")
    assert (len(data), data.event_shape, data.label.tolist()) == (3, (1, 5, 6), [0, 1, 2])
    assert np.array_equal(to_uint8(data.x)[:, 0].numpy(), pictures(3))
    assert len(load("SQUARES", split="test")) == 2
    coloured = load("coloured", split="extra")
    assert (coloured.event_shape, coloured.label) == ((3, 4, 4), None)


@pytest.mark.usefixtures("torchvision")
def test_a_word_is_a_data_set_of_that_name_or_else_a_path(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    x = store(Path("photos"), pictures(2)) and load("./photos")
    assert torch.equal(load("photos").x, x.x)
    assert check("photos").facts["samples"] == "2 of shape (1, 5, 6)"
    store(Path("squares"), pictures(7))
    with pytest.warns(UserWarning, match="the data set with this name; .* write './squares'"):
        assert len(load("squares")) == 3
    assert len(load("./squares")) == 7


@pytest.mark.usefixtures("torchvision")
def test_names_and_parts_that_do_not_exist_are_refused():
    with pytest.raises(UnknownNameError) as caught:
        load("square")
    assert str(caught.value) == (
        "unknown data set 'square'; did you mean 'squares'? "
        "choose from coloured, digits, squares, unreachable"
    )
    with pytest.raises(InvalidValueError, match="'squares' has the splits 'train' and"):
        load("squares", split="extra")
    with pytest.raises(InvalidValueError, match="cannot load 'coloured': unknown split nope"):
        load("coloured", split="nope")


@pytest.mark.usefixtures("torchvision")
def test_a_failed_download_is_reported_in_one_sentence(tmp_path):
    with pytest.raises(DataError) as caught:
        load("unreachable", root=tmp_path)
    assert str(caught.value) == (
        "cannot download 'unreachable' (<urlopen error Name or service not known>); connect this "
        f"machine to the network once, or copy torchvision's files into {tmp_path}"
    )


def test_arguments_without_effect_on_a_source_are_refused(tmp_path):
    with pytest.raises(InvalidValueError, match="'digits' has no splits such as 'test'"):
        load("digits", split="test")
    with pytest.raises(InvalidValueError, match="a TensorDataset has no splits"):
        load(TensorDataset(torch.zeros(2, 3)), split="test")
    with pytest.raises(UnknownNameError, match="unknown on_bad_image 'ignore'"):
        load(tmp_path, on_bad_image="ignore")


def test_a_string_with_a_dot_or_a_separator_is_a_path(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    store(Path("digits"), pictures())
    with pytest.warns(UserWarning, match="'digits' is read as the data set with this name"):
        assert len(load("digits")) == 1797
    assert len(load("./digits")) == 4
    assert len(load(Path("digits"))) == 4


def test_the_order_of_bytes_in_an_array_does_not_matter():
    x = np.arange(6.0).reshape(3, 2)
    assert torch.equal(load(x.astype(">f4")).x, load(x.astype("<f4")).x)


def test_labels_that_are_words_become_classes_in_sorted_order():
    data = load(torch.zeros(3, 3), condition={"label": ["b", "a", None]})
    assert data.label.tolist() == [1, 0, -1]
    assert data.names == {"label": ("a", "b")}


def test_bytes_with_four_channels_last_are_images_of_four_channels(tmp_path):
    np.save(tmp_path / "rgba.npy", np.zeros((2, 6, 5, 4), np.uint8))
    assert load(tmp_path / "rgba.npy").event_shape == (4, 6, 5)


@pytest.mark.skipif(os.name != "posix", reason="needs pipes")
def test_a_pipe_among_images_is_named_and_does_not_block(tmp_path):
    for name in ("a.png", "b.png"):
        Image.new("L", (8, 8)).save(tmp_path / name)
    data = load(tmp_path, lazy=True)
    (tmp_path / "b.png").unlink()
    os.mkfifo(tmp_path / "b.png")
    with pytest.raises(DataError, match=r"b\.png: .*it is a pipe"):
        data.batch(slice(None))
    with pytest.raises(DataError, match=r"b\.png: .*it is a pipe"):
        load(tmp_path)


def test_a_folder_with_many_paths_to_it_is_an_error(tmp_path):
    """Twenty folders of two links each to the next have a million files of one."""
    folders = [tmp_path / str(k) for k in range(21)]
    for folder in folders:
        folder.mkdir()
    for one, two in itertools.pairwise(folders):
        for name in "ab":
            (one / name).symlink_to(two)
    Image.new("L", (8, 8)).save(folders[-1] / "x.png")
    with pytest.raises(DataError, match="paths lead to the folder"):
        load(folders[0])
    assert len(load(folders[-5])) == 16


def test_a_small_file_that_would_fill_the_memory_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(stores, "IN_MEMORY", 2**16)
    path = tmp_path / "x.npz"
    np.savez_compressed(path, x=np.zeros((2**13, 4), np.float32))
    with pytest.raises(DataError, match=r"'x' in .* would unpack from [\d,]+ to 131,200 bytes"):
        load(path)
    np.savez(path, x=np.zeros((2**13, 4), np.float32))
    assert len(load(path)) == 2**13
    noise = np.random.default_rng(0).integers(0, 9, (2**13, 4)).astype(np.float32)
    np.savez_compressed(path, x=noise)
    assert len(load(path)) == 2**13
