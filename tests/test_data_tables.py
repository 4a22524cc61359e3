"""Test conditions from tables, archives and folders, by names of columns and files."""

import csv
import sys

import numpy as np
import pytest
import torch
from PIL import Image

from scoresde.data import Data, check, load
from scoresde.errors import (
    DataError,
    InvalidTypeError,
    InvalidValueError,
    MissingExtraError,
    ShapeError,
    UnknownNameError,
)
from scoresde.sde import Classes, Field


def written(path, text):
    path.write_text(text)
    return path


@pytest.fixture
def table(tmp_path):
    return written(
        tmp_path / "table.csv",
        "a,b,kind,age,mass\n1,2,dog,3,.5\n3,4,cat,,\n5,6.5,,9,1.5\n7,8,dog,0,-2\n",
    )


def test_named_columns_are_conditions_and_all_others_the_samples(table):
    data = load(table, condition={"label": "kind", "age": "age", "y": ["age", "mass"], "m": "mass"})
    assert data.x.tolist() == [[1, 2], [3, 4], [5, 6.5], [7, 8]]
    assert data.kinds == {
        "age": Classes(10), "label": Classes(2), "m": Field((1,)), "y": Field((2,)),
    }  # fmt: skip
    assert data.names == {"label": ("cat", "dog"), "y": ("age", "mass")}
    assert data.columns == ("a", "b")
    found = data.condition(slice(None))
    assert found["label"].tolist() == [1, 0, -1, 1]
    assert found["age"].tolist() == [3, -1, 9, 0]
    assert found["y"].nan_to_num(-5).tolist() == [[3, 0.5], [-5, -5], [9, 1.5], [0, -2]]
    number = load(table, condition={"age": "age", "rest": ["mass"], "label": "kind"},
                  kinds={"age": Field((1,))})  # fmt: skip
    assert number.condition(slice(2))["age"].nan_to_num(-5).tolist() == [[3], [-5]]
    assert data.only(()).names == {}


@pytest.mark.parametrize(
    ("condition", "error", "message"),
    [
        (
            None,
            DataError,
            "2 faults: .1. .*'kind' of .* holds text, such as 'dog'; make it a condition.*"
            r"; \(2\) 1 of 4 .* line 3",
        ),
        ({"label": "kind"}, DataError, "1 of 4 .* in line 3, columns 'age' .1., 'mass' .1.; leave"),
        (
            {"y": "massx", "z": "agex"},
            DataError,
            "2 faults: .1. unknown column 'massx'.*.2. unknown column 'agex'",
        ),
        (
            {"y": ["age", "mass", "kind"]},
            InvalidTypeError,
            "'kind' of .* holds text, such as 'dog'",
        ),
        ({"y": ["age", "massx"]}, UnknownNameError, "unknown column 'massx'; did you mean 'mass'"),
        ({"y": "massx"}, UnknownNameError, "unknown column 'massx'; did you mean 'mass'"),
        ({"y": ["a", "b", "kind", "age", "mass"]}, DataError, "no column of .* is left for the sa"),
        ({"self": ["age", "mass"], "label": "kind"}, InvalidValueError, "cannot be called 'self'"),
    ],
)
def test_columns_that_cannot_be_used_are_named(table, condition, error, message):
    with pytest.raises(error, match=message):
        load(table, condition=condition)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is empty"),
        ("a,b\n", "has no rows"),
        ("a,a\n1,2\n", "has several columns called a; rename"),
        (",a\n0,1\n", r"column 0 of .* has no name; .*index=False"),
        (
            "a,b\n1,2\n3\n",
            "x.csv has 2 columns, but some lines have another number of cells: 1 in line 3; "
            "correct",
        ),
        ("a,b\n\n1,inf\n", "has infinite numbers, in line 3, column 'b' .1.; correct"),
        ("a,a,\n1,2,3\n4\n", "3 faults: .1. column 2 .*no name.*several columns.*1 in line 3"),
        ('a,b\n1,"2\n', "cannot read .* as a table"),
    ],
)
def test_files_that_are_no_tables_are_refused(tmp_path, text, message):
    with pytest.raises(DataError, match=message):
        load(written(tmp_path / "x.csv", text))


def test_numbers_with_words_among_them_are_no_classes(tmp_path):
    path = written(tmp_path / "x.csv", "a,b\n1,2\n2,low\n3,4\n4,5\n")
    with pytest.raises(
        InvalidTypeError, match=r"'b' of .* holds numbers except for 'low' in line 3"
    ):
        load(path, condition={"label": "b"})


@pytest.mark.parametrize("blank", ["", "\n", " \n", "\ufeff\r\n"])
@pytest.mark.parametrize("between", ["", "\n", "   \n"])
@pytest.mark.parametrize("sign", [",", ";", "\t", " "])
def test_blank_lines_change_nothing(tmp_path, blank, between, sign):
    """After a blank first line, columns of integers were read as one column of decimal commas."""
    lines = [sign.join(row) for row in ("ab", "12", "34")]
    text = blank + f"\n{between}".join(lines) + "\n" + between
    data = load(written(tmp_path / "data.csv", text))
    assert data.columns == ("a", "b")
    assert data.x.tolist() == [[1, 2], [3, 4]]


@pytest.mark.parametrize(
    "above",
    ["# made in May, by hand\n#\n", "# 9, 9\n", "\n# a\n\n", "# ", "#", "sep={}\n", '"sep={}"\n'],
)
@pytest.mark.parametrize("sign", [",", ";", "\t"])
def test_comments_and_named_separators_above_a_table_are_no_samples(tmp_path, above, sign):
    text = above.replace("{}", sign) + "\n".join(sign.join(row) for row in ("ab", "12", "34"))
    data = load(written(tmp_path / "data.csv", text))
    assert data.columns == ("a", "b")
    assert data.x.tolist() == [[1, 2], [3, 4]]


def test_lines_are_counted_from_the_first_of_the_file(tmp_path):
    with pytest.raises(DataError, match="in line 4"):
        load(written(tmp_path / "x.csv", "# a comment\na,b\n1,2\n3,inf\n"))


def test_a_header_of_numpy_is_read_with_any_separator(tmp_path):
    for sign in (" ", ",", ";"):
        path = tmp_path / "x.csv"
        np.savetxt(path, [[1, 2], [3, 4]], header=f"a{sign}b", delimiter=sign)
        assert load(path).columns == ("a", "b")


def test_decimal_commas_are_read_as_points(tmp_path):
    path = written(tmp_path / "x.csv", 'a;b;c\n1;1,5;"2,250"\n2;;,5\n3;-2;1,5e1\n')
    found = load(path, condition={"y": ["b"]})
    assert found.x.tolist() == [[1, 2.25], [2, 0.5], [3, 15]]
    want = torch.tensor([[1.5], [torch.nan], [-2]])
    torch.testing.assert_close(found.conditions["y"], want, equal_nan=True)
    path = written(tmp_path / "y.csv", 'a,b\n1,"1,5"\n2,"2,25"\n')
    assert load(path).x.tolist() == [[1, 1.5], [2, 2.25]]


@pytest.mark.parametrize(
    ("text", "numbers"),
    [
        ("a;b\n0,708;1,250\n5,251;3\n", [[0.708, 1.25], [5.251, 3]]),  # three decimals everywhere
        ("a;b\n1.234,5;2\n2.100;3,25\n", [[1234.5, 2], [2100, 3.25]]),
        ('a,b\n"0,708",1\n"5,251",2\n', [[0.708, 1], [5.251, 2]]),
        ('a,b\n"1,234.5",1\n"12,500",2\n', [[1234.5, 1], [12500, 2]]),
        ("1,5;2,5\n3,5;4,5\n", [[1.5, 2.5], [3.5, 4.5]]),  # without a header
        ("a;b\n0.234;2,5\n3.111;4,5\n", [[0.234, 2.5], [3.111, 4.5]]),  # no thousands
    ],
)
def test_commas_are_read_where_they_can_mean_one_thing_only(tmp_path, text, numbers):
    path = written(tmp_path / "x.csv", text)
    torch.testing.assert_close(
        load(path).x.double(), torch.tensor(numbers).double(), rtol=1e-6, atol=0
    )


def test_a_check_names_the_columns_with_decimal_commas(tmp_path):
    path = written(tmp_path / "x.csv", "a;b\n0,708;1\n5,251;3\n")
    assert check(path).facts["commas"] == "read as decimal commas: a"


@pytest.mark.parametrize("kind", [None, Field((1,))])
@pytest.mark.parametrize(
    "cells", ["1,500;12,500;3", "1,5;2.5;1,5", "1,5;1,2,3;2,5", "1.234,5;2.5;3"]
)
def test_commas_that_may_separate_thousands_are_neither_read_nor_classes(tmp_path, kind, cells):
    path = written(tmp_path / "x.csv", "a\tb\n" + "".join(f"1\t{c}\n" for c in cells.split(";")))
    message = "'b'( of .*)? (has numbers with commas, .*; write |holds numbers except)|text"
    with pytest.raises(InvalidTypeError, match=message):
        load(path, condition={"y": "b"}, kinds=kind and {"y": kind})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a;b\n1.234;2,5\n3.111;4,5\n", "'a' of .* with points, such as '1.234', .* 'b' has"),
        ("a\tb\n1.234.567\t2,5\n0\t4,5\n", "'a' of .* with points, such as '1.234.567'"),
        ("a;b\n1,234,567;2,512\n3,111;4,511\n", "'b' of .* commas, such as '2,512', which may"),
    ],
)
def test_columns_that_disagree_about_commas_are_refused(tmp_path, text, message):
    with pytest.raises((DataError, InvalidTypeError), match=message):
        load(written(tmp_path / "x.csv", text))


def test_text_is_no_vector(table):
    with pytest.raises(
        InvalidTypeError, match=r"column 'kind' holds text, .* takes numbers .*\(Field"
    ):
        load(table, condition={"y": "kind", "z": ["age", "mass"]}, kinds={"y": Field((1,))})


def test_a_table_without_a_header_numbers_its_columns(tmp_path):
    path = written(tmp_path / "x.csv", "1;2;0\n3;4;1\n")
    assert load(path).x.tolist() == [[1, 2, 0], [3, 4, 1]]
    assert load(path, condition={"label": "2"}).label.tolist() == [0, 1]


def test_text_is_as_wide_as_its_numbers_need(tmp_path):
    x = np.random.default_rng(0).normal(size=(9, 2))
    for scale, shift, dtype in ((1, 0, torch.float32), (100, 1.7e9, torch.float64)):
        np.savetxt(tmp_path / "x.csv", scale * x + shift, delimiter=",")
        data = load(tmp_path / "x.csv", standardize=True)
        assert data.raw.dtype == dtype
        torch.testing.assert_close(
            data.transform.inverse(data.x.double()).numpy(), scale * x + shift, rtol=1e-6, atol=0
        )


def test_labels_that_are_large_numbers_are_unchanged(tmp_path):
    path = written(tmp_path / "x.csv", "a,id\n1,123456789\n2,123456790\n3,\n")
    data = load(path, condition={"label": "id"})
    assert data.label.tolist() == [123456789, 123456790, -1]
    pandas = pytest.importorskip("pandas")
    assert load(
        pandas.read_csv(path, dtype={"id": "Int64"}), condition={"label": "id"}
    ).label.equal(data.label)


@pytest.fixture
def frame():
    pandas = pytest.importorskip("pandas")
    return pandas.DataFrame(
        {
            "a": np.array([1, 2, 3], np.float32),
            "whole": pandas.array([4, None, 0], dtype="Int64"),
            "kind": ["dog", None, "cat"],
            "shelf": pandas.Categorical(["low", "high", None], ["low", "high"]),
            "mass": [0.5, np.nan, 2.0],
        }
    )


def test_a_frame_is_the_table_that_it_writes(frame, tmp_path):
    condition = {"label": "kind", "n": "whole", "shelf": "shelf", "y": ["mass", "whole"]}
    data = load(frame, condition=condition)
    frame.to_csv(tmp_path / "x.csv", index=False)
    again = load(tmp_path / "x.csv", condition=condition)
    assert data.fingerprint() == again.fingerprint()
    assert data.kinds == again.kinds
    assert data.names == again.names == {
        "label": ("cat", "dog"), "shelf": ("high", "low"), "y": ("mass", "whole"),
    }  # fmt: skip
    found = data.condition(slice(None))
    assert found["n"].tolist() == [4, -1, 0]
    assert found["shelf"].tolist() == [1, 0, -1]
    assert Data(frame[["a", "mass"]].dropna()).raw.dtype == torch.float64


def test_a_parquet_file_is_read_by_pandas(frame, tmp_path, monkeypatch):
    import pandas

    path = written(tmp_path / "x.parquet", "")
    condition = {"label": "kind", "shelf": "shelf", "y": ["mass", "whole"]}

    def missing(path):
        raise ImportError("no engine")

    monkeypatch.setattr(pandas, "read_parquet", missing)
    with pytest.raises(MissingExtraError, match=r"'pyarrow', .*pip install 'scoresde\[tables\]'"):
        load(path, condition=condition)
    monkeypatch.setattr(pandas, "read_parquet", lambda path: frame)
    expected = load(frame, condition=condition).fingerprint()
    assert load(path, condition=condition).fingerprint() == expected
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(MissingExtraError, match="'pandas', which is not installed"):
        load(path, condition=condition)


@pytest.mark.parametrize(
    ("column", "message"),
    [
        ([[1], [2], [3]], "'b' of the table has dtype object"),
        ([1j, 2, 3], "'b' .* has dtype complex"),
    ],
)
def test_columns_of_other_kinds_are_refused(frame, column, message):
    frame["b"] = column
    with pytest.raises(InvalidTypeError, match=message):
        load(frame, condition={"label": "b"})


def test_an_archive_has_its_conditions_beside_the_samples(tmp_path):
    x, y = np.ones((3, 2)), np.arange(6.0).reshape(3, 2)
    np.savez(
        tmp_path / "x.npz", x=x, labels=[0, -1, 2], y=y, kind=np.array(["b", "a", ""]),
        low=np.zeros((3, 4, 5), np.uint8), shape=np.zeros(7), pairs=np.zeros((3, 2), int),
        mask=np.ones(3, bool), object=np.array([{}, None, "a"], dtype=object),
    )  # fmt: skip
    data = load(tmp_path / "x.npz")
    assert data.kinds == {
        "kind": Classes(2), "label": Classes(3), "low": Field((1, 4, 5)), "y": Field((2,)),
    }  # fmt: skip
    assert data.names == {"kind": ("a", "b")}
    assert data.condition(slice(None))["kind"].tolist() == [1, 0, -1]
    chosen = load(tmp_path / "x.npz", condition={"theta": "y", "z": np.zeros((3, 1))})
    assert chosen.kinds == {"theta": Field((2,)), "z": Field((1,))}
    stacked = load(tmp_path / "x.npz", condition={"theta": ["y", "pairs"]})
    assert stacked.kinds == {"theta": Field((4,))}
    for wanted, error, message in (
        ({"label": "mask"}, InvalidTypeError, "pass y.long"),
        ({"label": "pairs"}, InvalidTypeError, "give labels with one axis"),
        ({"theta": "yy"}, UnknownNameError, "unknown column 'yy'"),
    ):
        with pytest.raises(error, match=message):
            load(tmp_path / "x.npz", condition=wanted)
    np.savez(tmp_path / "x.npz", x=x, label=[0, 1, 2], y=[0, 1, 2])
    with pytest.raises(DataError, match="labels called 'y' and 'label'; keep one"):
        load(tmp_path / "x.npz")
    np.savez(tmp_path / "x.npz", x=x, labels=[0, 1, 2], y=[0, 1, 2])
    with pytest.raises(DataError, match="labels called 'labels' and 'y'; keep one"):
        load(tmp_path / "x.npz")
    for name in ("kinds", "transform", "self"):
        np.savez(tmp_path / "x.npz", x=x, **{name: y})
        with pytest.raises(InvalidValueError, match=f"cannot be called '{name}'"):
            load(tmp_path / "x.npz")


@pytest.fixture
def photos(tmp_path):
    """Six images of two classes, of which the third is broken."""
    pixels = np.random.default_rng(0).integers(0, 256, (30, 4, 5), dtype=np.uint8)
    for name in "dog", "cat":
        (tmp_path / "photos" / name).mkdir(parents=True)
    for i, image in enumerate(pixels):
        Image.fromarray(image).save(tmp_path / "photos" / ("cat", "dog")[i // 15] / f"{i:02}.png")
    (tmp_path / "photos" / "cat" / "02.png").write_bytes(b"")
    return tmp_path / "photos"


@pytest.mark.parametrize("lazy", [True, False])
def test_conditions_of_a_folder_follow_its_order_or_its_names(photos, tmp_path, lazy):
    y = np.arange(30.0, dtype=np.float32)[:, None] * [[1, -1]]
    names = [f"{('cat', 'dog')[i // 15]}/{i:02}.png" for i in range(30)]
    np.save(tmp_path / "y.npy", y)
    np.savetxt(tmp_path / "y.csv", y, delimiter=",")
    shuffled = np.random.default_rng(1).permutation(30)
    with open(tmp_path / "named.csv", "w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["u", "file", "v"])
        rows.writerows([y[i, 0], names[i], y[i, 1]] for i in shuffled)
        rows.writerow([0, "other.png", 0])
    kept = [i for i in range(30) if i != 2]
    for given in (y, tmp_path / "y.npy", tmp_path / "y.csv", str(tmp_path / "named.csv")):
        with pytest.warns(RuntimeWarning, match="left out 1 of 30 images"):
            data = load(photos, condition={"y": given}, on_bad_image="skip", lazy=lazy)
        assert data.condition(slice(None))["y"].tolist() == y[kept].tolist()
        assert data.label.tolist() == [int(i >= 15) for i in kept]
        assert data.names["label"] == ("cat", "dog")


def test_conditions_that_do_not_belong_to_a_folder_are_refused(photos, tmp_path):
    Image.new("L", (5, 4)).save(photos / "cat" / "02.png")
    (tmp_path / "few.csv").write_text("file,y\ncat/00.png,1\n")
    (tmp_path / "twice.csv").write_text("file,y\ncat/00.png,1\ncat/00.png,2\n")
    for given, error, message in (
        (tmp_path / "few.csv", DataError, "has no row for cat/01.png, .*, and 9 more; add a row"),
        (tmp_path / "twice.csv", DataError, "several rows for the file 'cat/00.png'; keep one"),
        (np.zeros((29, 2)), ShapeError, "one row for each of 30 samples"),
        (tmp_path / "none.npy", DataError, r"none\.npy does not exist"),
        ("y", UnknownNameError, "unknown column 'y'; .* from label"),
        (
            tmp_path / "y.doc",
            DataError,
            r"y\.doc', which is not a file of conditions; ",
        ),
    ):
        with pytest.raises(error, match=message):
            load(photos, condition={"y": given})
    with pytest.raises(DataError, match=r"condition 'y' is 'y\.doc', which is not a file"):
        load(torch.zeros(2, 2), condition={"y": "y.doc"})


@pytest.mark.parametrize("text", ["0,1\n.5,2\n", "0, 1\n2, 3\n", "0\n.5\n"])
def test_numbered_columns_are_taken_neither_for_names_nor_for_a_sample(tmp_path, text):
    with pytest.raises(DataError, match="may be a sample, or the default names that pandas wrote"):
        load(written(tmp_path / "x.csv", text))


def test_labels_of_one_column_may_begin_with_0(tmp_path):
    labels = written(tmp_path / "labels.csv", "0\n2\n1\n")
    assert load(torch.zeros(3, 2), condition={"label": str(labels)}).label.tolist() == [0, 2, 1]


@pytest.mark.parametrize("y", [[[0], [1]], [False, True], [0, 1, 0]])
def test_invalid_labels_of_an_archive_are_reported(tmp_path, y):
    np.savez(tmp_path / "x.npz", x=np.zeros((2, 2), np.float32), y=np.array(y))
    with pytest.warns(UserWarning, match=r"has 'y', which is not used as a condition; labels must"):
        assert load(tmp_path / "x.npz").kinds == {}


def test_columns_of_pandas_of_any_kind_are_read_or_named():
    pandas = pytest.importorskip("pandas")
    sparse = pandas.DataFrame({"a": pandas.arrays.SparseArray([0.0, 1.0]), "b": [2.0, 3.0]})
    torch.testing.assert_close(load(sparse).x.float(), torch.tensor([[0.0, 2.0], [1.0, 3.0]]))
    for huge in (10**400, -(10**400)):
        with pytest.raises(InvalidTypeError, match="the column 'a' of the table has dtype object"):
            load(pandas.DataFrame({"a": [1, huge], "b": [2.0, 3.0]}, dtype=object)[["a"]])
    for labels in (pandas.array([1, None, 0], dtype="Int64"), pandas.Series([1, -1, 0])):
        data = Data(torch.zeros(3, 1), y=labels)
        assert data.kinds == {"y": Classes(2)}
        assert data.conditions["y"].tolist() == [1, -1, 0]
    words = Data(torch.zeros(3, 1), y=pandas.Series(["b", None, "a"], dtype="category"))
    assert words.names == {"y": ("a", "b")}
    assert words.conditions["y"].tolist() == [1, -1, 0]


def test_tables_of_one_index_in_two_orders_are_refused():
    pandas = pytest.importorskip("pandas")
    x = pandas.DataFrame({"a": [0.0, 1.0, 2.0]})
    y = pandas.Series([0, 1, 2], index=[2, 1, 0])
    for make in (
        lambda y: Data(x, y=y),
        lambda y: load({"x": x, "y": y}),
        lambda y: load(x, condition={"y": y}),
    ):
        with pytest.raises(InvalidValueError, match=r"y has the index of .* in another order"):
            make(y)
        for right in (y.sort_index(), y.set_axis([7, 8, 9])):
            found = make(right)
            assert next(iter(found.conditions.values())).tolist() == right.tolist()


def test_cells_with_underscores_are_text(tmp_path):
    """Python reads 1_2 as 12."""
    path = tmp_path / "table.csv"
    path.write_text("1_2,b\n1_3,2\n12_0,3\n")
    with pytest.raises(InvalidTypeError, match=r"the column '1_2' of .* holds text, such as '1_3'"):
        load(path)
    assert load(path, condition="1_2").names == {"1_2": ("12_0", "1_3")}
