"""Test conditions of data: kinds, missing values, and that they stay with their samples."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from scoresde.data import Data, load, stores
from scoresde.data.classes import classes_of
from scoresde.data.stores import InMemory, Rows
from scoresde.errors import (
    DataError,
    InvalidTypeError,
    InvalidValueError,
    ShapeError,
    UnknownNameError,
)
from scoresde.sde import Classes, Field

SHAPES = st.sampled_from([(3,), (1,), (2, 4), (3, 2, 2)])


def normal(seed, *shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@st.composite
def samples(draw):
    """Samples, and a label, a vector and a field, of which some are missing."""
    n, seed = draw(st.integers(2, 12)), draw(st.integers(0, 2**31))
    y, forcing = normal(seed + 1, n, *draw(SHAPES)), normal(seed + 2, n, 2, 3, 3)
    generator = torch.Generator().manual_seed(seed)
    for rows in (y, forcing):
        rows[torch.rand(rows.shape, generator=generator) < 0.3] = torch.nan
    label = torch.randint(-1, 4, (n,), generator=generator)
    return normal(seed, n, 2), dict(label=label, y=y, forcing=forcing)


def same(one, two):
    return torch.equal(one.nan_to_num(7e7), two.nan_to_num(7e7))


@pytest.mark.parametrize("suffix", ["csv", "npy", "parquet"])
def test_a_missing_file_of_a_condition_is_named(tmp_path, suffix):
    with pytest.raises(DataError, match=rf"ages\.{suffix} does not exist"):
        load(normal(0, 4, 2), condition={"age": tmp_path / f"ages.{suffix}"})
    (tmp_path / f"ages.{suffix}").mkdir()
    with pytest.raises(DataError, match=rf"cannot read .*ages\.{suffix}"):
        load(normal(0, 4, 2), condition={"age": tmp_path / f"ages.{suffix}"})


@pytest.mark.parametrize("dtype", [np.uint8, np.float32, np.float64])
def test_no_rows_have_the_dtype_of_the_others(dtype):
    rows = Rows(3, lambda i: np.full(2, i, dtype), "rows")
    assert rows.read(slice(0, 0)).dtype == rows.read(slice(0, 1)).dtype
    assert rows.read(slice(0, 0)).shape == (0, 2)


@given(samples(), st.data())
def test_conditions_stay_with_their_samples(found, data):
    x, conditions = found
    n = len(x)
    held = Data(x, **conditions)
    index = torch.tensor(data.draw(st.lists(st.integers(0, n - 1), min_size=1, max_size=8)))
    whole, part = held.condition(index), held[index]
    assert list(whole) == sorted(conditions)
    assert part.kinds == held.kinds
    for name, rows in conditions.items():
        assert same(whole[name], rows[index])
        assert same(part.condition(slice(None))[name], whole[name])
        assert same(whole.rows(slice(1))[name], held.condition(index[:1])[name])
    fewer, apart = held.split(0.5, seed=3)
    for piece in (fewer, apart):
        for i in range(len(piece)):
            (k,) = (x == piece.batch(slice(i, i + 1))).all(1).nonzero()[0].tolist()
            assert same(piece.condition(slice(i, i + 1))["y"], conditions["y"][k : k + 1])


def test_what_a_condition_is_follows_from_its_numbers():
    x = torch.zeros(4, 2)
    found = Data(
        x,
        label=np.array([0, 2, -1, 1], np.int16),
        word=np.array([0, 2, 1, 1], np.uint16),
        number=[0.5, 1, 2, 3],
        wide=normal(0, 4, 3).double(),
        half=normal(0, 4, 3).half(),
        image=torch.full((4, 1, 2, 2), 200, dtype=torch.uint8),
        none=None,
    )
    assert found.kinds == {
        "half": Field((3,)), "image": Field((1, 2, 2)), "label": Classes(3), "number": Field((1,)),
        "wide": Field((3,)), "word": Classes(3),
    }  # fmt: skip
    rows = found.condition(torch.tensor([3, 1]))
    assert {name: row.dtype for name, row in rows.items()} == {
        name: torch.int64 if name in ("label", "word") else torch.float32 for name in found.kinds
    }
    assert rows["image"].unique().tolist() == [200]
    assert rows["number"].tolist() == [[3], [1]]
    assert (found.label.tolist(), found.classes) == ([0, 2, -1, 1], 3)
    assert Data(x).condition(slice(None)) is None


def test_kinds_that_are_given_are_kept():
    x, label = torch.zeros(3, 2), [1, 0, -1]
    found = Data(x, label=label, age=[30, 2, 7], kinds={"label": Classes(9), "age": Field((1,))})
    assert found.kinds == {"label": Classes(9), "age": Field((1,))}
    assert found.condition(slice(None))["age"].tolist() == [[30], [2], [7]]
    table = Data(x, label=np.array([1, 0, np.nan]), kinds={"label": Classes(2)})
    assert table.label.tolist() == label
    assert Data(x, y=[1.0, 2, 3], kinds={"y": Field(())}).condition(slice(2))["y"].shape == (2,)
    more = Data(found, y=torch.ones(3, 2), label=None)
    assert more.kinds == {"age": Field((1,)), "y": Field((2,))}


def test_classes_that_are_given_anew_have_no_longer_the_names_of_others():
    named = Data(X, label=classes_of("aba", "the names"), kind=classes_of("dcd", "the names"))
    assert named.names == {"label": ("a", "b"), "kind": ("c", "d")}
    assert Data(named, y=torch.zeros(3)).names == named.names
    for label in ([4, 0, 2], None):
        assert Data(named, label=label).names == {"kind": ("c", "d")}


def test_conditions_are_left_out_by_name():
    data = Data(torch.zeros(2, 1), label=[0, 1], y=torch.zeros(2, 3))
    assert list(data.only({"y", "other"}).conditions) == ["y"]
    assert data.only(()).condition(slice(None)) is None
    assert list(data.without("y").conditions) == ["label"]
    assert data.without().kinds == data.kinds
    assert data.without("label").classes is None
    with pytest.raises(UnknownNameError, match=r"unknown condition 'lable'; did you mean 'label'"):
        data.without("lable")
    with pytest.raises(
        UnknownNameError, match="no condition 'label': these data have no conditions"
    ):
        Data(torch.zeros(2, 1)).without("label")


X = torch.zeros(3, 2)


@pytest.mark.parametrize(
    ("conditions", "error", "message"),
    [
        (dict(y=torch.zeros(2, 1)), ShapeError, r"one row for each of 3 samples, got shape \(2, 1"),
        (dict(y=1.0), ShapeError, r"one row for each of 3 samples, got shape \(\)"),
        (dict(y=torch.zeros(3, 0)), ShapeError, "is empty"),
        (dict(y=[0, torch.inf, 1.0]), DataError, "'y' of sample 1 is infinite; write NaN"),
        (dict(y=[0.0, -1.0, 1e300]), DataError, "'y' of sample 2 overflows in float32"),
        (dict(y=torch.zeros(3) > 0), InvalidTypeError, r"pass y.long\(\), labels of 2 classes"),
        (dict(y=torch.zeros(3) * 1j), InvalidTypeError, "pass torch.view_as_real"),
        (
            dict(y=torch.zeros(3, 2).long()),
            InvalidTypeError,
            r"give labels with one axis.* y.float\(\)",
        ),
        (dict(y=["1", "10", "2"]), InvalidTypeError, "'y' holds numbers that are text; convert"),
        (dict(y=["1,234", "2,500", "7"]), InvalidTypeError, "without separators of thousands"),
        (dict(y=["1.5", "2.5", "low"]), InvalidTypeError, "'low'; leave cells .* empty$"),
        (dict(y="abc"), InvalidTypeError, "must be numbers in rows of the same shape, got 'abc'"),
        (dict(y=[[1.0], [1, 2], [3]]), InvalidTypeError, "in rows of the same shape"),
        (
            dict(label=[0, -2, 1]),
            DataError,
            r"lie in \[-2, 1\], .*sample 1 has the first wrong label",
        ),
        ({"self": torch.zeros(3)}, InvalidValueError, "cannot be called 'self', .* network; renam"),
        (dict(kinds={"y": Classes(2)}), UnknownNameError, "no condition 'y'"),
        (dict(y=[0, 1, 2], kinds={"y": 3}), InvalidTypeError, "Classes.n. or Field.shape., got 3"),
        (
            dict(y=[0, 1, 2], kinds={"y": Classes(2)}),
            DataError,
            r"lie in \[0, 2\], expected \[0, 1",
        ),
        (
            dict(y=X, kinds={"y": Field((3,))}),
            ShapeError,
            r"rows of shape \(2,\), but its kind has",
        ),
        (dict(y=[0.5, 1, 2], kinds={"y": Classes(3)}), InvalidTypeError, "must be integers"),
        (dict(y=[0, 1, torch.inf], kinds={"y": Classes(3)}), DataError, "sample 2 is infinite"),
    ],
)
def test_conditions_that_do_not_fit_are_refused(conditions, error, message):
    with pytest.raises(error, match=message):
        Data(X, **conditions)


@given(samples())
def test_the_moments_of_a_condition_are_those_of_what_is_known(found):
    x, conditions = found
    conditions["y"] = conditions["y"].flatten(1)
    moments = Data(x, **conditions).condition_moments()
    assert set(moments) == {"y", "forcing"}
    for name, axes in (("y", 0), ("forcing", (0, 2, 3))):
        rows = conditions[name].double()
        mean = rows.nanmean(axes)
        std = (rows - mean.reshape(-1, *[1] * (rows.ndim - 2))).square().nanmean(axes).sqrt()
        none = std.isnan() | (rows.isfinite().sum(axes) < 2)
        constant = (std < 1e-12) | none
        found, scale = (part.flatten() for part in moments[name])
        torch.testing.assert_close(found[~none], mean[~none], rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(scale[~constant], std[~constant], rtol=1e-9, atol=1e-12)
        assert (scale[constant] == 1).all()
        assert found.isfinite().all()


def test_constant_entries_are_not_scaled():
    y = torch.tensor([[0.1, torch.nan, 1], [0.1, torch.nan, 3], [torch.nan, torch.nan, 5]])
    mean, std = Data(X, y=y).condition_moments()["y"]
    torch.testing.assert_close(mean, torch.tensor([0.1, 0, 3]).double(), rtol=1e-7, atol=0)
    assert std[:2].tolist() == [1, 1]
    field = Data(X, y=torch.full((3, 2, 4, 4), 5.0)).condition_moments()["y"]
    assert (field.mean.shape, field.mean.unique().tolist()) == ((2, 1, 1), [5])
    assert field.std.unique().tolist() == [1]


def test_numbers_that_float32_cannot_resolve_are_refused():
    """Seconds since 1970, say, of which a model would see one or two."""
    y = 1.7e9 + 100 * normal(0, 50).double()
    data = Data(normal(1, 50, 2), time=y)
    with pytest.raises(DataError, match=r"'time' has a mean of 1.7e.09 .* subtract a constant"):
        data.condition_moments()
    mean, std = Data(normal(1, 50, 2), time=y - 1.7e9).condition_moments()["time"]
    assert std.item() == pytest.approx(float(y.std(unbiased=False)))
    assert mean.abs() < 100


@pytest.mark.slow
@given(samples(), st.integers(1, 4))
def test_surveys_do_not_depend_on_the_pieces(found, pieces):
    x, conditions = found
    whole = Data(x, y=conditions["y"])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stores, "PIECE", 4 * pieces * conditions["y"][0].numel())
        parts = Data(x, y=InMemory(conditions["y"]))
        for one, two in zip(
            whole.condition_moments()["y"], parts.condition_moments()["y"], strict=True
        ):
            torch.testing.assert_close(one, two, rtol=1e-12, atol=1e-12)
        assert parts.fingerprint() == whole.fingerprint()


def test_the_fingerprint_depends_on_every_condition_and_its_name():
    x, y = torch.zeros(2, 1), torch.tensor([[1.0, torch.nan], [2, 3]])
    prints = [Data(x), Data(x, y=y), Data(x, z=y), Data(x, y=y, z=y), Data(x, y=y.nan_to_num())]
    assert len({data.fingerprint() for data in prints}) == len(prints)
    assert Data(x, z=y, y=y).fingerprint() == Data(x, y=y, z=y).fingerprint()
    assert Data(x, y=y, z=y).without("z").fingerprint() == Data(x, y=y).fingerprint()


def test_a_large_file_of_conditions_is_read_by_rows_and_watched(tmp_path, monkeypatch):
    y = normal(0, 30, 4)
    y[7, 2] = torch.nan
    np.save(tmp_path / "y.npy", y.numpy())
    x = normal(1, 30, 2)
    small = load(x, condition={"y": tmp_path / "y.npy"})
    monkeypatch.setattr(stores, "IN_MEMORY", 100)
    large = load(x, condition={"y": str(tmp_path / "y.npy")})
    assert isinstance(small.conditions["y"], torch.Tensor)
    assert not isinstance(large.conditions["y"], torch.Tensor)
    assert large.fingerprint() == small.fingerprint() == Data(x, y=y).fingerprint()
    index = torch.tensor([7, 0])
    assert same(large.condition(index)["y"], y[index])
    assert same(large[index].condition(slice(None))["y"], y[index])
    with pytest.raises(InvalidValueError, match="samples are 0 to 29"):
        large.condition(torch.tensor([30]))
    assert large.changed(0) == ""
    large.surveys["y"] = small.without("y")[:3].survey  # of other numbers
    assert "some of the conditions 'y' of the samples 0 to" in large.changed(0)


@pytest.mark.parametrize("room", [100, 2**20])
def test_a_file_of_conditions_is_the_same_in_memory_and_by_rows(tmp_path, monkeypatch, room):
    monkeypatch.setattr(stores, "IN_MEMORY", room)
    x, path = normal(0, 60, 2), tmp_path / "y.npy"

    def of(rows, **options):
        np.save(path, rows)
        return load(x, condition={"y": path}, **options)

    label = np.arange(60, dtype=np.int64) % 5
    assert of(label).kinds == {"y": Classes(5)}
    assert of(label.astype(float)).kinds == {"y": Field((1,))}
    assert of(label.astype(float), kinds={"y": Classes(5)}).fingerprint() == of(label).fingerprint()
    image = np.zeros((60, 4, 5), np.uint8)
    assert of(image).kinds == {"y": Field((1, 4, 5))}
    for rows, message in (
        (label[:, None] + [[0, 1]], "give labels with one axis"),
        (image > 0, "takes integer labels or floats, got torch.bool"),
        (normal(0, 60, 2).numpy() * 1j, "got torch.complex"),
    ):
        with pytest.raises(InvalidTypeError, match=message):
            of(rows)


def test_an_infinity_in_a_file_of_conditions_is_found_when_it_is_loaded(tmp_path, monkeypatch):
    y = torch.zeros(30, 4)
    y[11, 1] = -torch.inf
    np.save(tmp_path / "y.npy", y.numpy())
    for room in (100, 2**20):
        monkeypatch.setattr(stores, "IN_MEMORY", room)
        with pytest.raises(DataError, match="condition 'y' of sample 11 is infinite; write NaN"):
            load(normal(1, 30, 2), condition={"y": tmp_path / "y.npy"})
