"""Test that `scoresde data check` names every fault of a data set."""

import re

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from scoresde import VESDE, VPSDE
from scoresde.cli import main
from scoresde.data import BYTES, Data, check, load
from scoresde.errors import DataError, InvalidValueError
from scoresde.nn import MLP
from scoresde.score import ScoreModel
from scoresde.training import Trainer


def picture(seed, size=(16, 16), mode="L"):
    shape = (*size, 3) if mode == "RGB" else size
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8))


@pytest.fixture
def folder(tmp_path):
    """Two classes of 15 sound images each."""
    for name in ("cat", "dog"):
        (tmp_path / "x" / name).mkdir(parents=True)
        for i in range(15):
            picture(i + 100 * (name == "dog")).save(tmp_path / "x" / name / f"{i:02}.png")
    return tmp_path / "x"


def only(texts, *parts):
    """Return the one text that has all these parts."""
    found = [text for text in texts if all(part in text for part in parts)]
    assert len(found) == 1, (parts, texts)
    return found[0]


def test_a_sound_folder_has_no_problems_and_no_remarks(folder):
    report = check(folder, sde=VESDE())
    assert (report.ok, report.problems, report.remarks) == (True, [], [])
    assert report.facts["samples"] == "30 of shape (1, 16, 16)"
    assert report.facts["classes"] == "2, with 15 samples each: cat (15), dog (15)"
    assert report.facts["sizes"] == "16 high x 16 wide (30)"
    assert torch.equal(report.samples, load(folder).x)


def test_all_broken_images_are_named_up_to_twenty(folder):
    files = sorted(folder.rglob("*.png"))
    whole = files[0].read_bytes()
    for i, file in enumerate(files[:23]):
        file.write_bytes([b"", b"text", whole[:-30]][i % 3])
    report = check(folder)
    assert not report.ok
    problem = only(report.problems, "23 of 30 images are damaged", ", and 3 more")
    assert all(str(file) in problem for file in files[:20])
    assert str(files[20]) not in problem
    assert report.facts["samples"].startswith("7 of shape")


def test_images_of_another_size_mode_or_depth_are_named(folder):
    picture(50, (8, 9)).save(folder / "cat" / "small.png")
    picture(51, mode="RGB").save(folder / "dog" / "colour.png")
    deep = np.random.default_rng(0).integers(0, 2**16, (16, 16), dtype=np.uint16)
    Image.fromarray(deep).save(folder / "dog" / "deep.png")
    report = check(folder)
    assert "small.png" in only(report.problems, "most images are 16 high and 16 wide")
    assert "deep.png" in only(report.problems, "most images have 8 bits per channel, but 1")
    only(report.remarks, "some images are grey")
    assert report.facts["sizes"] == "16 high x 16 wide (31), 8 high x 9 wide (1)"
    assert report.facts["modes"] == "L (31), I;16 (1), RGB (1)"
    assert report.facts["samples"] == "31 of shape (3, 16, 16)"
    resized = check(folder, size=8)
    assert len(resized.problems) == 1
    assert resized.facts["samples"] == "32 of shape (3, 8, 8)"


def test_copies_constant_images_and_other_files_are_remarked(folder):
    (folder / "dog" / "copy.png").write_bytes((folder / "cat" / "03.png").read_bytes())
    Image.new("L", (16, 16), 77).save(folder / "cat" / "zz.png")
    (folder / "cat" / "Thumbs.db").write_bytes(b"x")
    (folder / "empty").mkdir()
    report = check(folder)
    assert report.ok
    only(report.remarks, "1 sample is a copy of another: 31 (of 3)")
    only(report.remarks, "1 sample is constant: 15")
    assert "Thumbs.db" in only(report.remarks, "1 file is not an image")
    assert "empty" in only(report.remarks, "classes without an image")


def test_a_loose_image_that_takes_the_labels_away_is_named(folder):
    picture(77).save(folder / "loose.png")
    report = check(folder)
    assert "loose.png" in only(report.remarks, "1 images are not in a folder of a class")
    assert report.facts["classes"] == "none"


def test_a_class_whose_images_are_all_broken_is_a_gap(folder):
    for file in (folder / "cat").glob("*.png"):
        file.write_bytes(b"")
    only(check(folder).remarks, "labels that no sample has: 0")


def test_all_nans_are_counted(tmp_path):
    x = np.random.default_rng(0).normal(size=(40, 3)).astype(np.float32)
    x[[3, 39]] = np.nan
    x[7, 1] = np.inf
    np.save(tmp_path / "x.npy", x)
    report = check(tmp_path / "x.npy")
    assert report.problems == ["3 samples hold a NaN or an infinity: 3, 7, 39"]
    assert torch.equal(report.samples, torch.from_numpy(x[np.isfinite(x).all(1)]))
    with pytest.raises(DataError):
        load(tmp_path / "x.npy")


@pytest.mark.parametrize("name", ["x.npy", "x.csv", "folder/"])
def test_a_missing_source_is_a_problem_and_no_traceback(tmp_path, name):
    if name == "folder/":
        (tmp_path / "folder").mkdir()
    report = check(tmp_path / name)
    assert len(report.problems) == 1
    assert (report.ok, report.samples) == (False, None)


@pytest.mark.parametrize("raw", [torch.full((4, 2), 3.0), torch.zeros(1, 2)])
def test_samples_that_are_all_the_same_are_a_problem(raw):
    only(check(raw).problems, "all samples are equal")


@pytest.mark.parametrize(
    ("scale", "message", "standardized"),
    [
        (1e300, r"so far apart that their squares", False),
        (1e100, r"a variance of \S+e\+199 and means up to \S+, which float32 cannot", True),
        (1e-25, r"a variance of \S+e-51 and means up to \S+, which float32 cannot", True),
    ],
)
def test_numbers_that_overflow_are_distinguished_from_nans(tmp_path, scale, message, standardized):
    x = scale * np.random.default_rng(0).normal(size=(40, 3))
    np.save(tmp_path / "x.npy", x)
    np.savez(tmp_path / "x.npz", x=x)
    with torch.random.fork_rng(devices=[]):
        model = ScoreModel(MLP(3, hidden=(4,)), VESDE(), (3,))
    for source in (tmp_path / "x.npy", tmp_path / "x.npz", x):
        report = check(source)
        assert len(report.problems) == 1
        assert re.search(message, report.problems[0])
        with pytest.raises(DataError, match=message):
            Trainer(model, source)
        assert check(source, standardize=True).ok == standardized


@given(scale=st.sampled_from([1e-3, 0.02, 0.2, 1.0, 1e3]), offset=st.sampled_from([0.0, 1e4]))
def test_units_that_do_not_suit_the_noise_are_remarked(scale, offset):
    generator = torch.Generator().manual_seed(0)
    x = scale * torch.randn(100, 3, generator=generator, dtype=torch.float64) + offset
    remarks = check(x, sde=VESDE()).remarks
    unusual = scale not in (0.2, 1) or offset != 0
    assert any("have an RMS of" in text for text in check(x).remarks) == unusual
    assert not any("have an RMS of" in text for text in remarks)  # the noise is what matters
    assert any("is too large for data" in text for text in remarks) == (scale <= 0.02)
    assert any("smaller than" in text for text in remarks) == (scale == 1e3)
    for sde in (VESDE(), VPSDE()):
        assert check(x, sde=sde, standardize=True).remarks == []


@given(side=st.integers(1, 40), stride=st.sampled_from([1, 2, 4, 8]))
def test_sides_that_a_unet_pads_are_remarked(side, stride):
    x = torch.randn(2, 1, side, 8, generator=torch.Generator().manual_seed(0))
    remarked = any("the U-Net pads" in text for text in check(x, stride=stride).remarks)
    assert remarked == (-(-side // stride) * stride > 1.25 * side)


@given(st.integers(16, 40), st.booleans(), st.integers(0, 99))
def test_vectors_that_look_like_signals_are_remarked(size, smooth, seed):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(60, size, generator=generator)
    remarks = check(x.cumsum(1) if smooth else x).remarks
    assert any(text.topic == "layout" for text in remarks) == smooth
    assert check(x[:, :8].cumsum(1)).remarks == []


def test_gaps_in_labels_and_data_that_were_loaded_are_understood():
    raw = torch.randint(0, 256, (5, 1, 4, 4), generator=torch.Generator().manual_seed(0)).byte()
    report = check(Data(raw, label=torch.tensor([0, 3, 3, 0, 5]), transform=BYTES))
    only(report.remarks, "labels that no sample has: 1, 2, 4")
    assert report.facts["memory"] == "80 B as they are, 320 B as floats"


def test_labels_that_are_large_numbers_from_elsewhere_are_not_counted_through():
    x = torch.randn(3, 2, generator=torch.Generator().manual_seed(0))
    report = check(load(x, condition={"label": [2 * 10**9, 1, 0]}))
    assert report.facts["classes"] == "2,000,000,001, with 0 to 1 samples each"
    only(report.remarks, "labels that no sample has: 2, 3,", ", 21, and 1999999978 more")


def test_wrong_arguments_are_errors_and_not_faults_of_the_data(folder):
    with pytest.raises(InvalidValueError, match="each side in size must be an integer >= 1, got 0"):
        check(load(folder).x, size=0)
    with pytest.raises(InvalidValueError, match="each side in size must be an integer >= 1, got 0"):
        check(folder, size=0)


# The command


def test_the_command_prints_a_report_and_draws_the_images(folder, tmp_path, capsys):
    out = tmp_path / "grid.png"
    assert main(["data", "check", str(folder), "--out", str(out)]) == 0
    said = capsys.readouterr().out
    assert "samples       30 of shape (1, 16, 16)\n" in said
    assert f"picture       {out}" in said
    with Image.open(out) as grid:
        assert min(grid.size) > 5 * 16


def test_the_command_fails_where_the_training_would(folder, tmp_path, capsys):
    (folder / "cat" / "00.png").write_bytes(b"")
    assert main(["data", "check", str(folder)]) == 1
    said = capsys.readouterr()
    assert "problem       1 of 30 images is damaged; " in said.out
    assert said.err == f"scoresde: error: training on {folder} would fail because of 1 problem\n"
    run = ["train", "--data", str(folder), "--out", str(tmp_path / "run"), "--steps", "1"]
    assert main(run) == 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("--out grid.gif", "out must end in .png, .jpg, .jpeg, .pdf, .svg; got 'grid.gif'"),
        ("--patch 0", "patch must be at least 1"),
        ("--size 0", "each side in size must be an integer >= 1, got 0"),
    ],
)
def test_wrong_options_are_one_line_on_stderr(folder, options, message, capsys):
    assert main(["data", "check", str(folder), *options.split()]) == 1
    assert message in capsys.readouterr().err


def test_samples_in_any_order_of_memory_are_read_and_vectors_have_a_picture_too(tmp_path, capsys):
    x = torch.randn(2, 30, generator=torch.Generator().manual_seed(0)).T
    assert check(x).ok
    np.save(tmp_path / "x.npy", x.numpy())
    out = tmp_path / "grid.png"
    assert main(["data", "check", str(tmp_path / "x.npy"), "--out", str(out)]) == 0
    assert str(out) in capsys.readouterr().out
    with Image.open(out) as drawn:
        assert min(drawn.size) > 400


def test_a_constant_entry_is_only_shifted_in_float64_too():
    x = torch.full((1000, 2), 0.1, dtype=torch.float64)
    x[:, 1] = torch.randn(1000, generator=torch.Generator().manual_seed(0))
    assert load(x, standardize=True).transform.scale[0] == 1


def test_conditions_are_reported_with_missing_and_constant_entries():
    x = torch.randn(8, 2, generator=torch.Generator().manual_seed(0))
    nan = torch.nan
    report = check(
        Data(
            x,
            label=[0, 1, 1, 3, -1, -1, 0, 0],
            one=[0, 0, -1, 0, 0, 0, 0, 0],
            y=torch.tensor([[0.0, 7, nan], [1, 7, nan]] * 4),
            field=torch.full((8, 2, 3), 5.0).masked_fill(x[:, :, None] > 9, nan),
            digit=[0.0, 1, 2, 0, 1, 2, nan, 2],
            age=torch.arange(8.0),
        )
    )
    assert report.ok
    found = {k: v for k, v in report.facts.items() if k not in ("memory", "moments", "units")}
    assert found.pop("classes") == "4, with 0 to 3 samples each; 25.0% missing"
    assert found.pop("one") == "1 class, with 7 samples; 12.5% missing"
    assert found.pop("y") == "a vector of 3, from 0 to 7; 33.3% missing"
    assert found.pop("field") == "a field of shape (2, 3), from 5 to 5"
    assert found.pop("digit") == "a number, from 0 to 2; 12.5% missing"
    assert found.pop("age") == "a number, from 0 to 7"
    assert found.pop("each") == "2 numbers"
    assert found.pop("learnt") == "p(x | age, digit, field, label, one, y)"
    assert set(found) == {"samples", "numbers"}
    assert report.remarks == [
        "the condition 'digit' holds only integers from 0 to 2; if they are classes, give them as "
        "integers",
        "the condition 'field' is constant",
        "labels that no sample has: 2",
        "the condition 'one' is the same for all samples; leave it out",
        "the condition 'y' is never known in its entries 2",
        "the condition 'y' is constant in its entries 1",
    ]


def test_numbers_of_samples_are_no_classes():
    x = torch.randn(120, 2, generator=torch.Generator().manual_seed(0))
    only(
        check(Data(x, id=range(120))).remarks,
        "'id' has 120 classes for 120 samples, like identifiers",
    )
    assert check(Data(x, id=torch.arange(120) % 60)).remarks == []


def test_conditions_that_no_model_could_learn_from_are_problems(tmp_path, monkeypatch):
    x = torch.randn(50, 2, generator=torch.Generator().manual_seed(0))
    report = check(Data(x, time=1.7e9 + x[:, :1].double()))
    only(report.problems, "condition 'time' has a mean of 1.7e+09")
    assert not report.ok
    np.savez(tmp_path / "x.npz", x=x, y=x * np.inf)
    only(check(tmp_path / "x.npz").problems, "condition 'y' of sample 0 is infinite")


def test_classes_and_columns_are_reported_by_their_names(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "x.csv").write_text("a,b,kind,u,v\n1,2,cat,3,4\n2,3,dog,,5\n4,2,cat,5,6\n")
    words = ["data", "check", "x.csv", "--condition", "label=kind", "--condition"]
    assert main([*words, "y=u,v"]) == 0
    out = capsys.readouterr().out
    assert "classes       2, with 1 to 2 samples each: cat (2), dog (1)" in out
    assert "y             a vector of 2, from 3 to 6; 16.7% missing" in out
    for wrong, message in (
        ("u,v", "cannot read 'u,v'; write a condition as COLUMN, NAME=COLUMN or NAME=FILE"),
        ("w", "unknown column 'w'"),
        ("y=w", "unknown column 'w'"),
        ("label=u", "the condition label is given twice"),
    ):
        assert main([*words, wrong]) == 1
        said = capsys.readouterr()
        assert message in said.out + said.err


def test_all_faults_are_found_though_the_first_would_end_a_training(tmp_path):
    x = np.random.default_rng(0).normal(size=(20, 2))
    x[3] = np.nan
    np.save(tmp_path / "x.npy", x)
    (tmp_path / "cut.npy").write_bytes((tmp_path / "x.npy").read_bytes()[:-9])
    conditions = {"a": str(tmp_path / "cut.npy"), "b": str(tmp_path / "none.npy")}
    report = check(tmp_path / "x.npy", condition=conditions)
    only(report.problems, "cut.npy", "it was truncated or damaged")
    only(report.problems, "none.npy does not exist")
    only(report.problems, "1 sample holds a NaN")
    assert len(report.problems) == 3


def test_the_start_of_a_training_repeats_the_remarks(tmp_path, capsys):
    x = np.repeat(np.random.default_rng(0).normal(size=(40, 1, 4, 4)), 2, 0).astype("f4")
    np.save(tmp_path / "x.npy", 300 * x)
    words = ["train", "--data", str(tmp_path / "x.npy"), "--out", str(tmp_path / "run")]
    assert main([*words, "--steps", "1", "--sde", "VESDE"]) == 0
    remarks = check(tmp_path / "x.npy", sde=VESDE()).remarks
    problems = [
        line.removeprefix("remark: ")
        for line in capsys.readouterr().out.splitlines()
        if line.startswith("remark: ")
    ]
    assert problems == remarks
    assert len(remarks) > 1


def test_the_next_command_standardises_where_that_is_recommended(tmp_path, capsys):
    from scoresde.cli import main

    rows = np.random.default_rng(0).standard_normal((40, 2))
    np.savez(tmp_path / "alike.npz", x=rows.astype(np.float32))
    np.savez(tmp_path / "apart.npz", x=(rows * [1, 1000]).astype(np.float32))
    for name, options, count in (
        ("alike", [], 0),
        ("apart", [], 1),
        ("apart", ["--standardize"], 1),
    ):
        assert main(["data", "check", str(tmp_path / f"{name}.npz"), *options]) == 0
        line = capsys.readouterr().out.splitlines()[-1]
        assert line.count("--standardize") == count
    assert repr(check(rows)).endswith("0 problems, 0 remarks)")
    assert repr(check(rows * 0)).startswith("Report(1 problem, ")
