"""Test that the same numbers are the same data in every format."""

import sys
import zipfile
import zlib

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from torch.utils.data import ConcatDataset, DataLoader, Dataset, Subset, TensorDataset

from scoresde import VESDE, ScoreModel, nn
from scoresde.cli import main
from scoresde.cli.config import DataConfig
from scoresde.data import Data, check, load, stores
from scoresde.data.layout import laid_as
from scoresde.errors import (
    DataError,
    InvalidTypeError,
    InvalidValueError,
    ShapeError,
    UnknownNameError,
)
from scoresde.suggestion import suggest
from scoresde.training import TrainConfig, Trainer
from scoresde.units import BYTES, Identity, Range, Standardize

RNG = np.random.default_rng(0)
X = RNG.normal(size=(30, 2)).astype(np.float32)
LABEL = np.arange(30) % 3
WORDS = np.array(["cat", "dog", "emu"])[LABEL]
THETA = RNG.normal(size=(30, 4)).astype(np.float32)


class Pairs(Dataset):
    classes = ("cat", "dog", "emu")

    def __len__(self):
        return len(X)

    def __getitem__(self, i):
        return X[i], int(LABEL[i])


def saved(folder, value, name="x.pt"):
    torch.save(value, folder / name)  # noqa: TID251 (as users do)
    return folder / name


def test_the_same_samples_with_labels_are_the_same_data_from_any_source(tmp_path):
    x, label = torch.from_numpy(X), torch.from_numpy(LABEL)
    np.savez(tmp_path / "x.npz", x=X, y=LABEL)
    tensors = TensorDataset(x, label)
    found = {
        "pair": load((X, LABEL)),
        "pair of lists": load((X.tolist(), LABEL.tolist())),
        "pairs": load(list(zip(X, LABEL, strict=True))),
        "lists": load([[row, int(k)] for row, k in zip(X.tolist(), LABEL, strict=True)]),
        "dictionary": load({"x": X, "y": LABEL}),
        "dictionary of tensors": load({"x": x, "label": label}),
        "dictionary of lists": load({"x": X.tolist(), "labels": LABEL.tolist()}),
        "dictionaries": load([{"x": r, "label": k} for r, k in zip(X, LABEL, strict=True)]),
        "archive": load(tmp_path / "x.npz"),
        "tensors in a file": load(saved(tmp_path, {"x": x, "y": label})),
        "pair in a file": load(saved(tmp_path, (x, label), "pair.pt")),
        "set": load(tensors),
        "parts": load(ConcatDataset([Subset(tensors, range(9)), Subset(tensors, range(9, 30))])),
        "loader": load(DataLoader(tensors, batch_size=7)),
        "own set": load(Pairs()),
    }
    prints = {name: data.fingerprint() for name, data in found.items()}
    assert len(set(prints.values())) == 1, prints
    assert all(data.label.tolist() == LABEL.tolist() for data in found.values())


def test_samples_alone_are_the_same_data_from_any_source(tmp_path):
    x = torch.from_numpy(X)
    sources = [X, x, list(X), list(x), X.tolist(), saved(tmp_path, x), {"x": X}, {"images": x}]
    sources += [
        list(TensorDataset(x)),
        saved(tmp_path, list(x), "list.pt"),
        {"a": X[:, 0], "b": X[:, 1]},
    ]
    assert len({load(source).fingerprint() for source in sources}) == 1


def test_names_of_classes_come_with_text_and_with_data_sets():
    parts = (Pairs(), Subset(Pairs(), range(9)), ConcatDataset([Pairs(), Pairs()]))
    texts = (
        {"x": X, "label": WORDS},
        (X, WORDS.tolist()),
        [(row, str(word)) for row, word in zip(X, WORDS, strict=True)],
    )
    for source in (*parts, *texts):
        assert load(source).names == {"label": ("cat", "dog", "emu")}


@pytest.fixture(params=["pandas", "polars", "pyarrow", "dictionary", "csv"])
def table(request, tmp_path):
    """Return a table of a, b, kind and n, in which n is missing once."""
    columns = {
        "a": X[:, 0].tolist(),
        "b": X[:, 1].tolist(),
        "kind": WORDS.tolist(),
        "n": [None, *range(29)],
    }
    if request.param == "dictionary":
        return columns
    if request.param == "csv":
        path = tmp_path / "x.csv"
        rows = [",".join(columns)]
        rows += [
            ",".join("" if cell is None else str(cell) for cell in row)
            for row in zip(*columns.values(), strict=True)
        ]
        path.write_text("\n".join(rows))
        return path
    module = pytest.importorskip(request.param)
    return module.table(columns) if request.param == "pyarrow" else module.DataFrame(columns)


def test_a_table_is_the_same_in_any_container(table):
    data = load(table, condition={"label": "kind", "n": ["n"]})
    assert data.columns == ("a", "b")
    assert data.names == {"label": ("cat", "dog", "emu"), "n": ("n",)}
    assert np.array_equal(data.x.float().numpy(), X)
    n = data.condition(slice(None))["n"]
    assert n[0].isnan()
    assert n[1:, 0].tolist() == list(range(29))
    assert load(table, sample=["b"]).columns == ("b",)
    with pytest.raises(DataError, match=r"1 of 30 .* 'n' \(1\); leave .* missing='drop', make"):
        load(table, condition={"label": "kind"})
    both = r"2 faults: .1. .*'kind' of .* holds text, .* in sample=, out of a, b, n; .2. 1 of 30"
    with pytest.raises(DataError, match=both):
        load(table)


@given(st.lists(st.booleans(), min_size=2, max_size=20).filter(any), st.integers(0, 99))
def test_samples_with_missing_numbers_are_left_out_with_their_conditions(whole, seed):
    n = len(whole)
    x = np.random.default_rng(seed).normal(size=(n, 3)).astype(np.float32)
    x[~np.array(whole), seed % 3] = np.nan
    source = (x, np.arange(n))
    if all(whole):
        assert load(source, missing="drop").label.tolist() == list(range(n))
        return
    message = f"{n - sum(whole)} of {n} samples have missing numbers and are left out"
    with pytest.warns(UserWarning, match=message):
        data = load(source, missing="drop")
    assert data.label.tolist() == np.flatnonzero(whole).tolist()
    assert np.array_equal(data.x.numpy(), x[whole])
    with pytest.raises(DataError, match=f"{n - sum(whole)} of {n} samples hold a NaN"):
        load(source)


def test_no_sample_is_left_where_all_have_missing_numbers_and_infinities_are_never_missing():
    with pytest.raises(DataError, match="all 2 samples have missing numbers"):
        load(np.full((2, 3), np.nan), missing="drop")
    with (
        pytest.warns(UserWarning, match="1 of 3"),
        pytest.raises(DataError, match="1 of 2 samples hold a NaN or an infinity"),
    ):
        load(np.array([[np.nan], [np.inf], [0.0]]), missing="drop")


def test_a_file_too_large_for_memory_leaves_out_samples_too(tmp_path, monkeypatch):
    monkeypatch.setattr(stores, "IN_MEMORY", 100)
    x = X.copy()
    x[3, 1] = np.nan
    np.save(tmp_path / "x.npy", x)
    with pytest.warns(UserWarning, match="1 of 30 samples"):
        data = load(tmp_path / "x.npy", missing="drop", condition={"label": LABEL})
    assert np.array_equal(data.x.numpy(), np.delete(X, 3, 0))
    assert data.label.tolist() == np.delete(LABEL, 3).tolist()


# What is sampled


def test_either_of_two_arrays_may_be_sampled(tmp_path):
    np.savez(tmp_path / "x.npz", x=X, theta=THETA)
    tensors = {"x": torch.from_numpy(X), "theta": torch.from_numpy(THETA)}
    items = [{"x": x, "theta": t} for x, t in zip(X, THETA, strict=True)]
    for source in (tmp_path / "x.npz", saved(tmp_path, tensors), tensors, items):
        forward, inverse = load(source), load(source, sample="theta")
        assert np.array_equal(forward.x.numpy(), X)
        assert np.array_equal(inverse.x.numpy(), THETA)
        assert np.array_equal(inverse.conditions["x"].numpy(), X)
        assert forward.kinds.keys() == {"theta"}
    assert check(tensors).facts["learnt"] == "p(x | theta)"
    assert check(tensors, sample="theta").facts["learnt"] == "p(theta | x)"
    assert "30 samples of theta, each 4 numbers" in repr(load(tensors, sample="theta"))
    assert load(tensors, sample="theta", condition={"seen": "x"}).kinds.keys() == {"seen"}
    with pytest.raises(UnknownNameError, match="did you mean 'theta'"):
        load(tensors, sample="thet")
    assert load({**tensors, "y": THETA}, sample="theta").kinds.keys() == {"x", "y"}
    with pytest.raises(InvalidValueError, match="sample='theta' is the name of an array"):
        load(X, sample="theta")


def test_tuples_of_arrays_are_pairs_and_tuples_of_numbers_samples():
    pairs = load([(x, y) for x, y in zip(X, X + 1, strict=True)])
    assert np.array_equal(pairs.conditions["y"].numpy(), X + 1)
    other = load([(x, t) for x, t in zip(X, THETA, strict=True)])
    assert other.fingerprint() == load((X, THETA)).fingerprint()
    assert load([tuple(row) for row in X.tolist()]).fingerprint() == load(X).fingerprint()
    assert load([[[1, 2], [3, 4]], [[5, 6], [7, 8.5]]], layout="CT").event_shape == (2, 2)


def test_two_arrays_of_one_shape_are_refused_as_ambiguous():
    with pytest.raises(ShapeError, match=r"may be 2 samples, or 30 samples with conditions"):
        load((X, X))
    with pytest.raises(ShapeError, match=r"arrays with 30, 29 rows"):
        load((X, LABEL[1:]))


# Which axis


@pytest.mark.parametrize(
    ("layout", "axes"),
    [("HW", (None, 0, 1)), ("CT", (0, 1)), ("TC", (1, 0)), ("HWC", (2, 0, 1)), ("CHW", (0, 1, 2)),
     ("DHW", (None, 0, 1, 2)), ("DHWC", (3, 0, 1, 2)), ("HCW", (1, 0, 2)), ("T", (None, 0))],
)  # fmt: skip
def test_a_layout_moves_the_channels_to_the_front(layout, axes, tmp_path, monkeypatch):
    sides = range(3, 3 + len(layout))
    x = np.arange(2 * np.prod(sides), dtype=np.float32).reshape(2, *sides)
    kept = [1 + i for i in axes if i is not None]
    expected = x.transpose(0, *kept)
    expected = expected[:, None] if axes[0] is None else expected
    np.save(tmp_path / "x.npy", x)
    found = [load(x, layout=layout), load(list(x), layout=layout), load({"x": x}, layout=layout)]
    found += [load(TensorDataset(torch.from_numpy(x)), layout=layout)]
    found += [load(tmp_path / "x.npy", layout=layout)]
    monkeypatch.setattr(stores, "IN_MEMORY", 100)
    found += [load(tmp_path / "x.npy", layout=layout)]
    for data in found:
        assert np.array_equal(data.x.numpy(), expected)
        assert np.array_equal(data[[1]].x.numpy(), expected[1:])


@pytest.mark.parametrize(
    ("shape", "event", "layout"),
    [((5, 6), (1, 5, 6), "HW"), ((5, 6, 3), (3, 5, 6), "HWC"), ((9, 2), (2, 9), "TC"),
     ((7,), (1, 7), "T"), ((4, 5, 6), (1, 4, 5, 6), "DHW"), ((3, 5, 6), (3, 5, 6), None),
     ((5, 6), (7, 8), None), ((6,), (5,), None)],
)  # fmt: skip
def test_the_order_of_axes_follows_from_the_shape_of_a_model(shape, event, layout):
    x = torch.from_numpy(np.random.default_rng(0).normal(size=(3, *shape)))
    found = laid_as(Data(x), event)
    assert found.event_shape == (event if layout else shape)
    assert torch.equal(found.x, load(x, layout=layout).x if layout else x)


def test_bytes_of_any_layout_are_learnt_as_bytes():
    x = RNG.integers(0, 256, (4, 5, 6, 7), dtype=np.uint8)
    data = load(x, layout="DHW")
    assert data.event_shape == (1, 5, 6, 7)
    assert data.transform == BYTES


@pytest.mark.parametrize("shape", [(37, 53), (100, 3), (8, 8), (16, 16, 3), (32, 32, 32)])
def test_an_ambiguous_shape_is_reported(shape):
    x = np.random.default_rng(0).normal(size=(3, *shape))
    with pytest.warns(UserWarning, match="are read as .* channels of .* write layout="):
        load(x)
    assert any(remark.topic == "layout" for remark in check(x).remarks)
    load(x, layout="CT" if len(shape) == 2 else "CHW")


@pytest.mark.parametrize("shape", [(5,), (3, 50), (12, 1000), (1, 37, 53), (3, 8, 8)])
def test_an_unambiguous_shape_is_not_reported(shape):
    assert load(np.random.default_rng(0).normal(size=(3, *shape))).event_shape == shape


@pytest.mark.parametrize(
    ("layout", "error"), [("XY", InvalidValueError), ("CC", InvalidValueError), ("C", ShapeError)]
)
def test_an_invalid_layout_is_refused(layout, error):
    with pytest.raises(error, match="layout="):
        load(np.zeros((2, 3, 4)), layout=layout)


# Images


@pytest.mark.parametrize(("bits", "top"), [(8, 200), (10, 1000), (12, 4000), (16, 60000)])
def test_images_of_16_bits_have_as_many_levels_as_they_use(tmp_path, bits, top):
    images = RNG.integers(0, top, (4, 6, 5), dtype=np.uint16)
    images[0, 0, 0] = top
    for i, image in enumerate(images):
        Image.fromarray(image).save(tmp_path / f"{i}.png")
    np.save(tmp_path / "x.npy", images)
    for source in (tmp_path, tmp_path / "x.npy", images):
        data = load(source)
        assert data.transform == Range(0, 2**bits - 1, levels=2**bits)
        assert data.event_shape == (1, 6, 5)
        assert data.x.abs().max() <= 1
        back = data.transform.restore(data.x)
        assert np.array_equal(back.numpy()[:, 0].astype(np.uint16), images)


def test_images_of_floats_are_read_unchanged(tmp_path):
    images = RNG.normal(size=(3, 6, 5)).astype(np.float32)
    for i, image in enumerate(images):
        Image.fromarray(image).save(tmp_path / f"{i}.tif")
    data = load(tmp_path)
    assert data.transform == Identity()
    assert np.array_equal(data.x.numpy()[:, 0], images)
    assert load(tmp_path, size=4).event_shape == (1, 4, 4)


def test_a_palette_of_greys_is_grey_and_colours_of_16_bits_are_reported(tmp_path):
    (tmp_path / "grey").mkdir()
    Image.fromarray(RNG.integers(0, 255, (6, 5), dtype=np.uint8)).convert("P").save(
        tmp_path / "grey" / "0.png"
    )
    assert load(tmp_path / "grey").event_shape == (1, 6, 5)

    def chunk(kind, content):
        size, sum_ = len(content).to_bytes(4), zlib.crc32(kind + content).to_bytes(4)
        return size + kind + content + sum_

    rows = b"".join(b"\0" + bytes(range(30)) for _ in range(6))
    header = (5).to_bytes(4) + (6).to_bytes(4) + bytes([16, 2, 0, 0, 0])
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "0.png").write_bytes(
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(rows))
        + chunk(b"IEND", b"")
    )
    with pytest.warns(
        UserWarning, match="1 of 1 images have 16 bits per colour, of which only 8 are"
    ):
        load(tmp_path / "deep")


# Files that are not data


def test_no_code_of_a_file_of_tensors_is_run(tmp_path):
    class Evil:
        def __reduce__(self):
            return sys.exit, ("run",)

    for k, value in enumerate((Evil(), TensorDataset(torch.zeros(2, 2)), {"x": Evil()})):
        with pytest.raises(DataError, match="objects other than tensors, which could run any code"):
            load(saved(tmp_path, value, f"{k}.pt"))


def test_files_of_tensors_that_cannot_be_used_are_reported(tmp_path, monkeypatch):
    whole = saved(tmp_path, torch.zeros(30, 2)).read_bytes()
    (tmp_path / "cut.pt").write_bytes(whole[:200])
    with pytest.raises(DataError, match=r"cut\.pt: it is damaged"):
        load(tmp_path / "cut.pt")
    with pytest.raises(DataError, match=r"none\.pt does not exist"):
        load(tmp_path / "none.pt")
    with pytest.raises(DataError, match=r"'w', or call them 'x'"):
        load(saved(tmp_path, {"w": torch.zeros(2, 2)}, "w.pt"))
    with pytest.raises(DataError, match="has 4 bytes in the file, which are repeated"):
        load(saved(tmp_path, torch.zeros(1, 1).expand(2**27, 8), "large.pt"))
    monkeypatch.setattr(stores, "IN_MEMORY", 2**12)
    with (
        zipfile.ZipFile(saved(tmp_path, torch.zeros(2**16), "0.pt")) as whole_file,
        zipfile.ZipFile(tmp_path / "packed.pt", "w", zipfile.ZIP_DEFLATED) as packed,
    ):
        for name in whole_file.namelist():
            packed.writestr(name, whole_file.read(name))
    with pytest.raises(DataError, match=r"packed\.pt would unpack from [\d,]+ to 262,144 bytes"):
        load(tmp_path / "packed.pt")
    with pytest.raises(DataError, match="holds a int; save a tensor"):
        load(saved(tmp_path, 3, "3.pt"))


def test_advice_to_load_pickled_objects_is_never_given(tmp_path):
    for k, write in enumerate(
        (
            lambda file: np.save(file, np.array([{}], dtype=object), allow_pickle=True),
            lambda file: np.savez(file, x=np.array([{}], dtype=object)),
            lambda file: file.write(X.dumps()),
            lambda file: file.write(b"text"),
        )
    ):
        for suffix in (".npy", ".npz", ".pt", ".csv"):
            path = tmp_path / f"{k}{suffix}"
            with open(path, "wb") as file:
                write(file)
            with pytest.raises((DataError, InvalidTypeError)) as caught:
                load(path)
            assert "allow_pickle" not in str(caught.value)
            assert "weights_only" not in str(caught.value)


# Descriptions in words


def test_data_are_described_in_one_line_and_as_a_table():
    data = Data(X, columns=("wing", "<b>"), label=WORDS.tolist(), y=THETA)
    assert repr(data) == (
        "Data(30 samples, each 2 numbers (wing, <b>); float32 in memory; the numbers as they are; "
        "given label: 3 classes (cat, dog, emu); given y: 4 numbers)"
    )
    html = data._repr_html_()
    assert "&lt;b&gt;" in html
    assert "<b>" not in html
    assert repr(load("digits")).endswith("given label: 10 classes, 0 to 9; from digits)")


def test_all_faults_of_columns_are_reported_together():
    one = LABEL
    x = np.column_stack([X[:, 0], np.ones(30), one, one == 0, one == 1, one == 2, X[:, 0],
                         1000 * X[:, 1]])  # fmt: skip
    names = ["a", "k", "n", "o1", "o2", "o3", "a2", "big"]
    found = {remark.topic: remark for remark in check(Data(x, columns=names)).remarks}
    assert found["constant"].where == ("'k'",)
    assert found["whole numbers"].where == ("'n'",)
    assert found["one-hot"].where == ("'o1'", "'o2'", "'o3'")
    assert found["equal"].where == ("'a'", "'a2'")
    assert "'big'" in found["scales"].where
    assert not {"constant", "one-hot", "equal", "scales"} & {
        remark.topic for remark in check(X, standardize=True).remarks
    }


@given(st.integers(2, 5), st.integers(1, 4), st.integers(0, 99))
def test_one_hot_columns_are_found_at_any_position(k, before, seed):
    rng = np.random.default_rng(seed)
    label = np.concatenate([np.arange(k), rng.integers(0, k, 30)])
    hot = np.eye(k)[label]
    x = np.column_stack([rng.normal(size=(len(label), before)), hot, rng.normal(size=len(label))])
    found = [remark for remark in check(x).remarks if remark.topic == "one-hot"]
    assert [len(remark.where) for remark in found] == [k]
    assert found[0].where[0] == f"number {before}"


def test_channels_of_very_different_scales_are_reported_and_can_be_standardized():
    x = np.random.default_rng(0).normal(size=(50, 2, 40)) * np.array([[1.0], [500.0]])
    remark = next(remark for remark in check(x).remarks if remark.topic == "scales")
    assert remark.where == ("channel 0", "channel 1")
    assert "standardize=True" in remark
    assert not any(remark.topic == "scales" for remark in check(x, standardize=True).remarks)


@pytest.mark.parametrize("shape", [(3,), (3, 40), (3, 6, 5), (3, 4, 3, 2)])
def test_standardized_channels_have_mean_0_and_variance_1_and_come_back(shape):
    rng = np.random.default_rng(0)
    scale = np.array([0.01, 1.0, 3000.0]).reshape(3, *(1 for _ in shape[1:]))
    raw = 5000 * scale + scale * rng.normal(size=(200, *shape))
    data = load(raw, standardize=True, layout="CTHW"[: len(shape)] if len(shape) > 1 else None)
    flat = data.x.transpose(0, 1).flatten(1)
    torch.testing.assert_close(flat.mean(1), torch.zeros(3).double(), atol=1e-9, rtol=0)
    torch.testing.assert_close(flat.var(1, correction=0), torch.ones(3).double(), atol=1e-9, rtol=0)
    torch.testing.assert_close(data.transform.inverse(data.x), torch.from_numpy(raw))


@given(st.sampled_from([(3,), (3, 4), (1, 2, 2)]), st.integers(0, 99))
def test_a_density_of_the_data_is_that_of_the_model_with_the_determinant(shape, seed):
    """Of normal numbers, whose log-density is known on both sides of an affine map."""
    rng = np.random.default_rng(seed)
    shift, scale = rng.normal(size=shape[0]), rng.uniform(0.1, 9, shape[0])
    rows = (shape[0], *(1 for _ in shape[1:]))
    low, wide = float(rng.normal()), float(rng.uniform(0.1, 9))
    raw = torch.from_numpy(rng.normal(size=(2, *shape)))
    transforms = {
        Standardize(tuple(shift), tuple(scale)): (shift.reshape(rows), scale.reshape(rows)),
        Range(low, low + 2 * wide): (low + wide, wide),
        Identity(): (0.0, 1.0),
    }
    for transform, (mean, std) in transforms.items():
        normal = torch.distributions.Normal(torch.as_tensor(mean), torch.as_tensor(std))
        exact = normal.log_prob(raw).flatten(1).sum(1)
        model = torch.distributions.Normal(0.0, 1.0).log_prob(transform.forward(raw))
        found = model.flatten(1).sum(1) + transform.log_det(shape)
        torch.testing.assert_close(found, exact)


@pytest.mark.filterwarnings("always:1 of 30")
def test_options_choose_the_samples_the_axes_and_the_samples_left_out(tmp_path, capsys):
    theta = RNG.normal(size=(30, 6, 5)).astype(np.float32)
    theta[4] = np.nan
    np.savez(tmp_path / "x.npz", x=X, theta=theta)
    words = ["--sample", "theta", "--layout", "HW", "--missing", "drop"]
    assert main(["data", "check", str(tmp_path / "x.npz"), *words]) == 0
    said = capsys.readouterr()
    assert "29 of shape (1, 6, 5)" in said.out
    assert "p(theta | x)" in said.out
    assert "1 of 30 samples have missing numbers" in said.err
    run = DataConfig(source=str(tmp_path / "x.npz"), sample="theta", layout="HW", missing="drop")
    with pytest.warns(UserWarning, match="1 of 30"):
        data = run.load()
    assert (len(data), data.event_shape, data.kinds.keys()) == (29, (1, 6, 5), {"x"})


@pytest.mark.parametrize("source", [[], (), np.zeros((0, 2)), np.zeros(3), np.array(3.0)])
def test_invalid_samples_are_reported_whether_or_not_any_may_be_missing(source):
    for missing in ("raise", "drop"):
        with pytest.raises((ShapeError, DataError), match=r"samples"):
            load(source, missing=missing)


def test_a_run_on_such_data_continues_bit_for_bit(tmp_path):
    x = np.random.default_rng(0).normal(size=(30, 6, 2)).astype(np.float32)
    x[3] = np.nan
    source = {"x": x, "label": WORDS}

    def trained(steps, folder):
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(0)
            net = nn.MLP((2, 6), hidden=(8,), num_classes=3)
        with pytest.warns(UserWarning, match="1 of 30 samples"):
            data = load(source, layout="TC", missing="drop")
        config = TrainConfig(steps=4, batch_size=8).changed(save_every=2)
        trainer = Trainer(ScoreModel(net, VESDE(), (2, 6)), data, config, folder=folder)
        return trainer.train(steps, progress=False)

    trained(2, tmp_path)
    resumed, whole = trained(None, tmp_path), trained(None, None)
    pairs = zip(resumed.state_dict().values(), whole.state_dict().values(), strict=True)
    assert all(torch.equal(one, other) for one, other in pairs)
    assert resumed.names == {"label": ("cat", "dog", "emu")}


def test_vectors_that_look_like_signals_are_read_with_one_warning():
    start = torch.linspace(0, 6, 40)[:, None]
    waves = [*torch.sin(start + torch.linspace(0, 12, 120))]  # 40 items of shape (120,)
    with pytest.warns(UserWarning, match=r"\(120,\) .*without an order.*layout='T'") as found:
        suggest(waves)
    assert len(found) == 1
    assert load(waves, layout="T").event_shape == (1, 120)
    mixed = torch.stack(waves)[:, torch.randperm(120, generator=torch.Generator().manual_seed(0))]
    assert load(mixed).event_shape == (120,)  # no warning, which would be an error
