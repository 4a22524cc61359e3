"""Test that data sets, streams and loaders of torch give the same data as arrays."""

import csv
import itertools
import tempfile
from collections import namedtuple
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from torch.utils.data import (
    BatchSampler,
    ConcatDataset,
    DataLoader,
    Dataset,
    IterableDataset,
    StackDataset,
    Subset,
    SubsetRandomSampler,
    TensorDataset,
)

from scoresde import VESDE, ScoreModel
from scoresde.data import BYTES, Data, batch_indices, load, stores, to_uint8, torch_sets
from scoresde.errors import DataError, InvalidTypeError, InvalidValueError, UnknownNameError
from scoresde.nn import MLP
from scoresde.sde import Classes, Field
from scoresde.training import TrainConfig, Trainer
from scoresde.training.config import Compute


class Items(Dataset):
    """What a function gives for each number."""

    def __init__(self, get, n=6):
        self.get, self.n = get, n

    def __len__(self):
        return self.n

    def __getitem__(self, i):
        return self.get(i)


class Stream(IterableDataset):
    def __init__(self, items):
        self.items = items

    def __iter__(self):
        return (item() if callable(item) else item for item in self.items)


def numbers(seed, *shape):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


X = numbers(0, 6, 3)


def items_of(x, y, label):
    """Dictionaries; what is missing is None, NaN or left out."""
    for i in range(len(x)):
        item = {"x": torch.from_numpy(x[i]), "y": y[i]}
        if label[i] >= 0:
            item["label"] = int(label[i])
        elif i % 2:
            item["label"] = None
        yield item


def as_csv(path, x, y, label):
    with open(path, "w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow([*(f"x{k}" for k in range(x.shape[1])), "u", "v", "kind"])
        for a, b, k in zip(x, y, label, strict=True):
            cells = ["" if np.isnan(v) else str(v) for v in [*a, *b]]
            rows.writerow([*cells, "" if k < 0 else k])


@pytest.mark.slow
@given(n=st.integers(2, 9), seed=st.integers(0, 2**31), batch=st.integers(1, 12))
def test_every_source_of_the_same_numbers_is_the_same_data(n, seed, batch):
    x, y = numbers(seed, n, 3), numbers(seed + 1, n, 2)
    rng = np.random.default_rng(seed)
    y[rng.random((n, 2)) < 0.3] = np.nan
    label = rng.integers(-1, 4, n)
    label[rng.integers(n)] = 3
    items = list(items_of(x, y, label))
    mapped = Items(items.__getitem__, n)
    tensors = TensorDataset(torch.from_numpy(x), torch.from_numpy(label), torch.from_numpy(y))
    order = torch.from_numpy(rng.permutation(n))
    back = order.argsort()
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        np.savez(folder / "x.npz", x=x, y=y, labels=label)
        np.save(folder / "x.npy", x)
        np.save(folder / "y.npy", y)
        as_csv(folder / "x.csv", x, y, label)
        found = {
            "npz": load(folder / "x.npz"),
            "npy": load(folder / "x.npy", condition={"y": folder / "y.npy", "label": label}),
            "csv": load(folder / "x.csv", condition={"label": "kind", "y": ["u", "v"]}),
            "list": load(x.tolist(), condition={"label": label.tolist(), "y": y.tolist()}),
            "mapped": load(mapped),
            "lazy": load(mapped, lazy=True),
            "stream": load(Stream(items)),
            "loader": load(DataLoader(mapped, batch_size=batch, shuffle=True, drop_last=True)),
            "loader of a stream": load(DataLoader(Stream(items), batch_size=batch)),
            "tensors": load(tensors),
            "lazy tensors": load(tensors, lazy=True),
            "pairs": load(Items(lambda i: (x[i], y[i], label[i]), n)),
            "subset": load(Subset(Subset(tensors, order), back)),
            "parts": load(ConcatDataset([Subset(mapped, [0]), Subset(mapped, range(1, n))])),
            "stack": load(StackDataset(x=list(x), y=list(y), label=list(label))),
            "data": Data(mapped),
        }  # fmt: skip
        expected = Data(x, label=label, y=y)
        rows = batch_indices(n, batch, seed=seed, step=1)
        for name, data in found.items():
            assert data.kinds == expected.kinds, name
            assert data.fingerprint() == expected.fingerprint(), name
            assert torch.equal(data.batch(rows), expected.batch(rows)), name
            for key, value in expected.condition(rows).items():
                mine = data.condition(rows)[key]
                assert torch.equal(mine.nan_to_num(7e7), value.nan_to_num(7e7)), name
                assert mine.dtype == value.dtype, name


Pair = namedtuple("Pair", ["image", "theta"])


@pytest.mark.parametrize(
    ("get", "kinds"),
    [
        (lambda i: X[i], {}),
        (lambda i: [1.0, 2.0 * i], {}),
        (lambda i: (X[i],), {}),
        (lambda i: (X[i], i % 3), {"label": Classes(3)}),
        (lambda i: (X[i], torch.tensor(i % 3)), {"label": Classes(3)}),
        (lambda i: (X[i], float(i)), {"y": Field((1,))}),
        (lambda i: [X[i], X[:2, i % 3]], {"y": Field((2,))}),
        (lambda i: (X[i], None if i else X), {"y": Field((6, 3))}),
        (lambda i: (X[i], {"label": i, "mass": 0.5}), {"label": Classes(6), "mass": Field((1,))}),
        (lambda i: {"image": X[i], "labels": i, "none": None}, {"label": Classes(6)}),
        (lambda i: Pair(X[i], [0.5, i]), {"theta": Field((2,))}),
        (lambda i: torch.from_numpy(X[i]).bfloat16().requires_grad_(), {}),
    ],
)
@pytest.mark.parametrize("lazy", [None, True])
def test_the_parts_of_a_sample_are_identified_by_place_or_name(get, kinds, lazy):
    data = load(Items(get), lazy=lazy)
    assert (data.kinds, len(data), data.event_shape[0]) == (kinds, 6, data.x.shape[1])
    assert isinstance(data.raw, torch.Tensor) == (lazy is None)
    assert data.x.isfinite().all()


def fails(i):
    raise KeyError(f"no file\n {i}")


@pytest.mark.parametrize(
    ("source", "error", "message"),
    [
        (Items(lambda i: fails(i) if i == 4 else X[i]), DataError, "sample 4 of Items: 'no file"),
        (Items(lambda i: X[i], n=0), DataError, "Items has no samples"),
        (Items(lambda i: None), DataError, "sample 0 of Items is None; leave it out"),
        (Items(lambda i: (X[i] if i < 5 else None, 1)), DataError, "sample 5 of Items is None"),
        (Items(lambda i: {"x": X[i], "y": 1, "label": 2}), DataError, "'y' and 'label'; keep one"),
        (Items(lambda i: {"x": X[i], "y": 1, "labels": 2}), DataError, "'y' and 'labels'; keep"),
        (Items(lambda i: torch.zeros(2).to_sparse()), InvalidTypeError, "use .to_dense"),
        (Items(lambda i: {"x": X[i], "kinds": 1.0}), InvalidValueError, "cannot be called 'kinds'"),
        (Items(lambda i: X[i], n="a"), DataError, "Items has no length: .*; give it a method"),
        (Items(lambda i: X[i, : 1 + i // 3]), DataError, r"sample 3 .* shape \(2,\), .* sample 0"),
        (Items(lambda i: (X[i], X[i, : 1 + i])), DataError, r"'y' of sample 1 .* shape \(2,\)"),
        (Items(lambda i: (X[i], i, i)), DataError, "be called 'label'; return a dictionary"),
        (Items(lambda i: (1.0, 2.0)), DataError, "a tuple of numbers, which may be a vector or a"),
        (Items(lambda i: {"z": X[i]}), DataError, "is a dictionary of z; call the sample 'x'"),
        (Items(lambda i: {"x": X[i], "z": "a"}), InvalidTypeError, "'z' of sample 0 .* is"),
        (Items(lambda i: (X[i], 0 if i < 3 else 0.5)), DataError, "entry 1 of sample 0"),
        (Items(lambda i: (X[i], i > 2)), InvalidTypeError, "labels of 2 classes"),
        (Items(lambda i: "a"), InvalidTypeError, "'x' of sample 0 of Items is 'a', which"),
        (Items(lambda i: X[i] > 0), InvalidTypeError, "must be float32 or float64, got torch.bool"),
        (Items(lambda i: X[i] / (X[i] * 0)), DataError, "hold a NaN or an infinity"),
        (Stream([]), DataError, "Stream has no samples"),
        (Stream([X[0], lambda: fails(1)]), DataError, "cannot read sample 1 of Stream: 'no file"),
    ],
)  # fmt: skip
@pytest.mark.filterwarnings("ignore:(divide|invalid)")
def test_a_fault_of_a_data_set_is_an_error_that_names_the_sample(source, error, message):
    with np.errstate(all="ignore"), pytest.raises(error, match=message):
        load(source)


def test_an_error_in_the_middle_of_a_lazy_data_set_names_the_sample():
    broken = []
    data = load(Items(lambda i: fails(i) if i in broken else X[i]), lazy=True)
    broken.append(5)
    with pytest.raises(DataError, match=r"cannot read sample 5 of Items: 'no file"):
        data.batch(slice(None))


def test_a_stream_without_end_is_refused_in_time(monkeypatch):
    endless = Stream(X[0] for _ in itertools.count())
    for name, room, said in (("_ROOM", 2500, "more than 8 samples"), ("_MOST", 50, "than 50 samp")):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(torch_sets, name, room)
            with pytest.raises(DataError, match=f"{said}.*__getitem__"):
                load(endless)
    with pytest.raises(
        InvalidValueError, match="is an iterable data set, which is read once; leave out lazy"
    ):
        load(endless, lazy=True)


def test_keys_can_be_chosen_from_dictionaries():
    source = Items(lambda i: {"x": X[i], "caption": "a cat", "cls": i % 2, "theta": X[i, :2]})
    with pytest.raises(InvalidTypeError, match=r"'caption' of sample 0 .* 'a cat', which is not"):
        load(source)
    data = load(source, condition={"label": "cls", "z": ["theta", "cls"], "more": X})
    assert data.kinds == {"label": Classes(2), "more": Field((3,)), "z": Field((3,))}
    with pytest.raises(UnknownNameError, match="unknown column 'class'; did you mean 'cls'"):
        load(source, condition={"label": "class"})
    digits = load(TensorDataset(torch.from_numpy(X), torch.arange(6)), condition={"digit": "label"})
    assert digits.kinds == {"digit": Classes(6)}


class Draws(Items):
    """Define a sample that is another whenever it is read, and a label that may be."""

    def __init__(self, n=6, labels=False):
        self.rng = np.random.default_rng(0)
        super().__init__(self.draw, n)
        self.labels = labels

    def draw(self, i):
        x = self.rng.normal(size=3).astype(np.float32)
        return x, self.rng.integers(10**6) if self.labels else i


def test_random_samples_are_drawn_again_with_a_warning(tmp_path):
    with pytest.warns(
        UserWarning, match=r"another one .* drawn again at every reading, .* augment="
    ):
        data = load(Draws())
    assert not torch.equal(data.x, data.x)
    part = data[:4]
    assert (data.changed(0), part.changed(0)) == ("", "")
    with pytest.warns(UserWarning, match="another one"):
        assert load(Draws()).fingerprint() == data.fingerprint()
    with torch.random.fork_rng(devices=[]):
        model = ScoreModel(MLP(3, hidden=(4,), num_classes=6), VESDE(), (3,))
    config = TrainConfig().changed(steps=4, batch_size=4, save_every=2)
    Trainer(model, data, config, folder=tmp_path).train(2)
    Trainer(model, data, config, folder=tmp_path).train()  # continues
    with pytest.warns(UserWarning, match="the first value is kept"):
        held = load(Draws(), lazy=False)
    assert torch.equal(held.x, held.x)


def test_a_sample_and_its_random_condition_are_read_together():
    class Crops(Items):
        """A sample and its condition are cut from the same random place."""

    rng = np.random.default_rng(0)
    crops = Crops(lambda i: (x := rng.normal(size=3).astype(np.float32), 2 * x))
    with pytest.warns(UserWarning, match=r"another (one|'y') .* first value is kept"):
        data = load(crops)
    assert torch.equal(data.condition(slice(None))["y"], 2 * data.x)
    with pytest.raises(DataError, match="return the same conditions each time"):
        load(crops, lazy=True)


def test_large_data_sets_and_their_large_conditions_are_read_when_needed(monkeypatch):
    read = []

    def get(i):
        read.append(i)
        return {"x": X[i], "label": i % 2, "forcing": None if i == 4 else X * i}

    small = load(Items(get))
    monkeypatch.setattr(stores, "IN_MEMORY", 200)
    data = load(Items(get))
    assert not isinstance(data.raw, torch.Tensor)
    assert not isinstance(data.conditions["forcing"], torch.Tensor)
    assert isinstance(data.conditions["label"], torch.Tensor)
    assert data.fingerprint() == small.fingerprint()
    read.clear()
    rows = torch.tensor([5, 4])
    found = data.condition(rows)["forcing"]
    assert torch.equal(found[0], torch.from_numpy(X * 5))
    assert found[1].isnan().all()
    assert torch.equal(data.batch(rows), torch.from_numpy(X[[5, 4]]))
    assert set(read) == {4, 5}


def pictures(n=6, size=(5, 6)):
    return np.random.default_rng(0).integers(0, 256, (n, *size), dtype=np.uint8)


@pytest.mark.parametrize("lazy", [None, True, False])
@pytest.mark.parametrize("kind", ["image", "tensor", "array", "channels last"])
def test_images_follow_the_rules_of_bytes(kind, lazy, tmp_path):
    raw = pictures(size=(5, 6, 3) if kind == "channels last" else (5, 6))
    for i, pixels in enumerate(raw):
        Image.fromarray(pixels).save(tmp_path / f"{i}.png")
    make = {
        "image": lambda i: Image.open(tmp_path / f"{i}.png"),
        "tensor": lambda i: torch.from_numpy(raw[i])[None],
    }.get(kind, raw.__getitem__)
    data = load(Items(lambda i: (make(i), i)), lazy=lazy)
    assert data.transform == BYTES
    expected = raw.transpose(0, 3, 1, 2) if kind == "channels last" else raw[:, None]
    assert np.array_equal(to_uint8(data.x).numpy(), expected)
    assert data.label.tolist() == list(range(6))
    assert data.fingerprint() == Data(expected, transform=BYTES, label=range(6)).fingerprint()
    if kind == "image":
        assert load(Items(make), size=4, lazy=lazy).event_shape == (1, 4, 4)
    else:
        with pytest.raises(InvalidValueError, match="size=4 is for images"):
            load(Items(make), size=4, lazy=lazy)


def test_an_image_that_cannot_be_decoded_is_named(tmp_path):
    for i, pixels in enumerate(pictures(size=(40, 40))):
        Image.fromarray(pixels).save(tmp_path / f"{i}.png")
    broken = tmp_path / "3.png"
    broken.write_bytes(broken.read_bytes()[:500])
    for lazy in (None, True):
        with pytest.raises(DataError, match="sample 3 of Items"):
            load(Items(lambda i: Image.open(tmp_path / f"{i}.png")), lazy=lazy)


def test_a_loader_that_chooses_samples_is_refused():
    tensors = TensorDataset(torch.from_numpy(X), torch.arange(6))
    some = SubsetRandomSampler([1, 2])
    for loader in (
        DataLoader(tensors, sampler=some),
        DataLoader(tensors, batch_sampler=BatchSampler(some, 2, drop_last=False)),
        DataLoader(tensors, batch_sampler=[[0, 1]]),
    ):
        with pytest.raises(InvalidValueError, match="which may leave samples out; pass a data set"):
            load(loader)
    with pytest.warns(UserWarning, match="the collate_fn of the DataLoader is not used"):
        data = load(DataLoader(tensors, collate_fn=list))
    assert data.fingerprint() == load(DataLoader(tensors, batch_size=None)).fingerprint()


@pytest.mark.slow
def test_a_lazy_data_set_gives_the_same_training_with_and_without_workers():
    data = load(Items(lambda i: (X[i], i % 2)), lazy=True)
    results = []
    for workers in (0, 2):
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(0)
            model = ScoreModel(MLP(3, hidden=(4,), num_classes=2), VESDE(), (3,))
        config = TrainConfig(compute=Compute(workers=workers)).changed(steps=3, batch_size=4)
        source = data if workers else Items(lambda i: (X[i], i % 2))
        results.append(Trainer(model, source, config).train(progress=False).state_dict())
    for name, value in results[0].items():
        assert torch.equal(value, results[1][name])


def test_numbers_beside_missing_ones_are_unchanged():
    ages = [0, 1, 2.5, None, 1e-3, 7]
    found = load(Items(lambda i: {"x": np.float32([i, 0]), "age": ages[i]}))
    assert found.kinds == {"age": Field((1,))}
    expected = torch.tensor([[0, 1, 2.5, torch.nan, 1e-3, 7]]).T
    torch.testing.assert_close(found.conditions["age"], expected, equal_nan=True)
