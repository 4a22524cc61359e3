"""Data: where they come from, what is refused, and the order they are seen in."""

import builtins
import sys
import types
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from PIL import Image

from scoresde.data import Data, Range, batch_indices, load, order, to_uint8
from scoresde.errors import (
    DataError,
    InvalidTypeError,
    InvalidValueError,
    MissingExtraError,
    ShapeError,
    UnknownNameError,
)

SEEDS = st.integers(0, 2**64 - 1)


def pictures(n=4, size=(5, 6), seed=0):
    return np.random.default_rng(seed).integers(0, 256, (n, *size), dtype=np.uint8)


def store(folder, images, suffix="png"):
    folder.mkdir(parents=True, exist_ok=True)
    for i, pixels in enumerate(images):
        Image.fromarray(pixels).save(folder / f"{i}.{suffix}")
    return folder


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
def test_seeds_and_epochs_have_orders_of_their_own(seed, epoch):
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
def test_a_batch_does_not_depend_on_the_batches_asked_for_before(step):
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
    assert data.transform == Range(0, 255)
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


def test_a_transform_needs_a_range():
    with pytest.raises(InvalidValueError, match="need low < high"):
        Range(1, 1)


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
    kept, held = Data(x, torch.arange(n)).split(fraction, seed=seed)
    assert sorted(torch.cat([kept.x, held.x]).flatten().tolist()) == list(range(n))
    assert len(held) == round(n * fraction)
    assert kept.classes == held.classes == n
    assert torch.equal(kept.x.flatten().long(), kept.label)


@pytest.mark.parametrize("fraction", [0, 1, -1, 0.01])
def test_a_split_that_leaves_a_part_empty_is_refused(fraction):
    with pytest.raises(InvalidValueError, match="cannot hold out the fraction"):
        Data(torch.zeros(10, 1)).split(fraction)


def test_the_fingerprint_sees_samples_and_labels():
    x, label = torch.zeros(4, 2), torch.tensor([0, 1, 0, 1])
    other = x.clone()
    other[3, 1] = 1e-30
    prints = [Data(x), Data(other), Data(x.double()), Data(x[:, :1]), Data(x, label)]
    assert len({data.fingerprint() for data in [*prints, Data(x, label.flip(0))]}) == 6
    assert Data(x.clone()).fingerprint() == Data(x).fingerprint()


@pytest.mark.parametrize(
    ("x", "error", "message"),
    [
        (torch.zeros(2, 3, dtype=torch.uint8), InvalidTypeError, r"`x.float\(\) / 127.5 - 1`"),
        (torch.zeros(2, 3, dtype=torch.int64), InvalidTypeError, "got torch.int64; convert"),
        (torch.zeros(2, 3, dtype=torch.bool), InvalidTypeError, "got torch.bool; convert"),
        (torch.zeros(2, 3, dtype=torch.float16), InvalidTypeError, "got torch.float16; convert"),
        (torch.zeros(3), ShapeError, r"must have shape \(N, \*event\), got \(3,\)"),
        (torch.zeros(0, 3), DataError, r"there are no samples: shape \(0, 3\)"),
        (torch.tensor([[0.0], [torch.nan]]), DataError, "1 of 2 samples .* number 1; remove"),
        (torch.tensor([[0.0], [-torch.inf]]), DataError, "1 of 2 samples .* number 1; remove"),
        (np.zeros((2, 3), np.uint8), InvalidTypeError, "scale bytes with"),
        ([1.0], InvalidTypeError, "cannot load data from a list"),
    ],
)
def test_samples_that_cannot_be_trained_on_are_refused(x, error, message):
    with pytest.raises(error, match=message):
        load(x)


@pytest.mark.parametrize(
    ("label", "error", "message"),
    [
        (torch.zeros(3), InvalidTypeError, "labels must be integers, got torch.float32"),
        (torch.tensor([0, 1]), ShapeError, r"shape \(3,\), one a sample; got \(2,\)"),
        (torch.tensor([0, -1, 1]), DataError, r"labels lie in \[-1, 1\], expected \[0, 1\]"),
    ],
)
def test_labels_that_do_not_fit_are_refused(label, error, message):
    with pytest.raises(error, match=message):
        Data(torch.zeros(3, 1), label)


def test_labels_beyond_the_declared_classes_are_refused():
    with pytest.raises(DataError, match=r"labels lie in \[0, 5\], expected \[0, 4\]"):
        Data(torch.zeros(2, 1), torch.tensor([0, 5]), classes=5)


def test_tensors_are_taken_as_they_are():
    x = torch.randn(5, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    data = load(x, label=[0, 2, 1, 0, 0])
    assert torch.equal(data.x, x)
    assert (data.transform, data.classes, data.label.dtype) == (None, 3, torch.int64)
    assert data.unlabelled().label is None


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


def test_floats_in_a_file_are_taken_as_they_are(tmp_path):
    x = np.random.default_rng(0).normal(size=(4, 2)).astype(">f8")
    np.savez(tmp_path / "a.npz", x=x, y=np.array([0, 1, 1, 0]))
    data = load(tmp_path / "a.npz")
    assert data.x.dtype == torch.float32
    assert np.array_equal(data.x.numpy(), x.astype(np.float32))
    assert data.transform is None


def test_a_file_without_samples_lists_its_keys(tmp_path):
    np.savez(tmp_path / "a.npz", train=np.zeros((2, 2)), targets=np.zeros(2))
    with pytest.raises(DataError, match="has the keys train, targets; name the samples 'x'"):
        load(tmp_path / "a.npz")


def test_a_file_of_pickled_objects_is_never_loaded(tmp_path):
    np.save(tmp_path / "a.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)
    with pytest.raises(DataError, match=r"cannot read .*a\.npy: Object arrays cannot be loaded"):
        load(tmp_path / "a.npy")


def test_files_that_cannot_be_used_are_named(tmp_path):
    np.save(tmp_path / "int.npy", np.zeros((2, 3), np.int32))
    np.save(tmp_path / "text.npy", np.array(["a", "b"]))
    np.save(tmp_path / "row.npy", np.zeros((2, 3), np.uint8))
    np.savez(tmp_path / "label.npz", x=np.zeros((2, 3)), y=np.zeros(2))
    whole = (tmp_path / "label.npz").read_bytes()
    (tmp_path / "cut.npz").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "a.csv").write_text("1,2")
    for name, error, message in [
        ("int.npy", InvalidTypeError, r"got torch\.int32; convert them with `x\.float\(\)`"),
        ("text.npy", InvalidTypeError, r"text\.npy are <U1; they must be numbers"),
        ("row.npy", DataError, r"row\.npy have shape \(2, 3\); images are"),
        ("label.npz", InvalidTypeError, r"labels in .*label\.npz are float64; they must be int"),
        ("cut.npz", DataError, r"cannot read .*cut\.npz"),
        ("a.csv", DataError, r"a\.csv has a suffix that is not read; pass a \.npy"),
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


def test_broken_images_are_passed_over_when_they_are_few(tmp_path):
    folder = store(tmp_path / "images", pictures(20))
    (folder / "3.png").write_bytes(b"")
    with pytest.warns(RuntimeWarning, match=r"passed over 1 of 20 images .* the first is .*3\.png"):
        data = load(folder, on_bad_image="skip")
    assert len(data) == 19
    for name in ("4.png", "5.png"):
        (folder / name).write_bytes(b"")
    with pytest.raises(DataError, match=r"and 2 before it.*more than 10% are broken"):
        load(folder, on_bad_image="skip")


def test_an_image_of_more_than_8_bits_is_refused_by_name(tmp_path):
    store(tmp_path / "images", [pictures(1)[0].astype(np.uint16) * 200])
    with pytest.raises(DataError, match=r"0\.png: its mode is 'I;16', more than 8 bits"):
        load(tmp_path / "images")


def test_a_folder_without_images_is_refused(tmp_path):
    with pytest.raises(DataError, match=r"there are no images in .*; looked for \.bmp"):
        load(tmp_path)


# Names


def test_digits_are_the_real_ones_of_scikit_learn():
    data = load("Digits")
    assert (len(data), data.event_shape, data.classes) == (1797, (1, 8, 8), 10)
    assert data.transform == Range(0, 16)
    assert (data.x.min(), data.x.max()) == (-1, 1)
    assert torch.equal(data.transform.inverse(data.x) % 1, torch.zeros_like(data.x))


def test_digits_without_scikit_learn_name_the_extra(monkeypatch):
    real = builtins.__import__

    def without(name, *args, **kwargs):
        if name.startswith("sklearn"):
            raise ImportError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(MissingExtraError, match=r"pip install 'scoresde\[digits\]'"):
        load("digits")


class Squares:
    """A data set as torchvision has them: downloaded, with a flag for its part."""

    def __init__(self, root, train=True, transform=None, download=False):
        assert download
        self.root, self.n = root, 3 if train else 2

    def __iter__(self):
        return ((Image.fromarray(pixels), i) for i, pixels in enumerate(pictures(self.n)))


class Coloured:
    """One that takes the name of its part, and knows no numbered classes."""

    def __init__(self, root, split="train", download=False):
        if split not in ("train", "test", "extra"):
            raise ValueError(f"unknown split {split}")

    def __iter__(self):
        return ((Image.fromarray(p), {"boxes": []}) for p in pictures(2, (4, 4, 3)))


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
def test_names_and_parts_that_do_not_exist_are_refused():
    with pytest.raises(UnknownNameError) as caught:
        load("square")
    assert str(caught.value) == (
        "unknown data set 'square'; did you mean 'squares'? "
        "choose from coloured, digits, squares, unreachable"
    )
    with pytest.raises(InvalidValueError, match="split is 'extra'; 'squares' has 'train' and"):
        load("squares", split="extra")
    with pytest.raises(InvalidValueError, match="cannot load 'coloured': unknown split nope"):
        load("coloured", split="nope")


@pytest.mark.usefixtures("torchvision")
def test_a_failed_download_says_so_in_one_sentence(tmp_path):
    with pytest.raises(DataError) as caught:
        load("unreachable", root=tmp_path)
    assert str(caught.value) == (
        "cannot download 'unreachable' (<urlopen error Name or service not known>); connect this "
        f"machine to the network once, or copy torchvision's files into {tmp_path}"
    )


def test_arguments_that_mean_nothing_for_a_source_are_refused(tmp_path):
    with pytest.raises(InvalidValueError, match="'digits' comes whole, it has no split 'test'"):
        load("digits", split="test")
    with pytest.raises(InvalidValueError, match="label= goes with a tensor"):
        load("digits", label=[1])
    with pytest.raises(InvalidValueError, match="on_bad_image is 'ignore'"):
        load(tmp_path, on_bad_image="ignore")


def test_a_string_with_a_dot_or_a_separator_is_a_path(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    store(Path("digits"), pictures())
    assert len(load("digits")) == 1797
    assert len(load("./digits")) == 4
    assert len(load(Path("digits"))) == 4
