"""Test first steps of users: samples without a class, tables, names from other libraries."""

import csv
import io
import warnings
from collections import Counter

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import scoresde
from scoresde import VESDE, ScoreModel, nn
from scoresde.cli import main
from scoresde.cli.csv_text import as_csv
from scoresde.cli.helptext import docstrings
from scoresde.cli.sample import Sample
from scoresde.cli.train import Train
from scoresde.data import Data
from scoresde.errors import InvalidTypeError, InvalidValueError, UnknownNameError
from scoresde.noise.global_rng import forked_rng
from scoresde.training import TrainConfig, Trainer

TREES = ("ash", "elm", "oak")


def model_of(classes=True, sizes=True):
    """Return an untrained model of trees by species and age, whose columns have names."""
    with forked_rng(0):
        net = nn.MLP(
            2,
            hidden=(8,),
            num_classes={"species": 3} if classes else {},
            condition={"age": 1} if sizes else {},
        )
        for weight in net.parameters():  # the last layer of a new network is zero
            torch.nn.init.normal_(weight, std=0.3)
    model = ScoreModel(net, VESDE(), (2,))
    model.columns, model.whole = ("height", "leaves"), ("leaves",)
    model.names = {"species": TREES} if classes else {}
    return model.eval()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Return a folder with the model, and a table of 12 trees: 8 oaks, 3 elms and an ash."""
    folder = tmp_path_factory.mktemp("trees")
    model_of().save_pretrained(folder / "model")
    species = ["oak"] * 8 + ["elm"] * 3 + ["ash"]
    rows = [f"{i + 0.5},{i},{name},{10 * i}" for i, name in enumerate(species)]
    (folder / "trees.csv").write_text("\n".join(["height,leaves,species,age", *rows]) + "\n")
    return folder


def drawn(folder, *options):
    """Return the rows of a table that `scoresde sample` wrote."""
    words = ["--sampler", "ddim", "--steps", "2", "--n", "24", *options]
    out = folder / "x.csv"
    assert main(["sample", str(folder / "model"), "--out", str(out), *words]) == 0
    return list(csv.DictReader(io.StringIO(out.read_text())))


# Classes that are left open


def draw(model, **options):
    return scoresde.sample(model, sampler="ddim", steps=1, n=3, seed=0, **options)


@pytest.mark.parametrize("function", [scoresde.sample, scoresde.trajectory])
def test_a_class_that_is_left_open_is_said_in_python(function):
    message = r"no 'species' is given.*condition=\{'species': 'ash'\} draws one class"
    with pytest.warns(UserWarning, match=message):
        function(model_of(sizes=False), sampler="ddim", steps=1, seed=0)


@pytest.mark.slow
def test_who_means_a_model_without_its_class_says_so_and_gets_it():
    model = model_of(sizes=False)
    with pytest.warns(UserWarning, match="is given"):
        left_open = draw(model)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert torch.equal(draw(model, condition={"species": -1}), left_open)
        assert not torch.equal(draw(model, condition={"species": "oak"}), left_open)
        draw(model_of(classes=False, sizes=False))


def test_labels_that_begin_at_1_are_said_to_leave_class_0_empty():
    labels = torch.arange(60) % 3
    with pytest.warns(UserWarning, match="'label' are 1 to 3, so a model will have 4 classes"):
        Data(torch.zeros(60, 2), label=labels + 1)
    Data(torch.zeros(60, 2), label=labels)


# Tables of samples


@pytest.mark.slow
def test_a_table_of_samples_has_a_column_for_every_condition(folder):
    rows = drawn(folder, "--condition", "age=12.5")
    assert [*rows[0]] == ["height", "leaves", "age", "species"]
    assert [row["species"] for row in rows] == [*TREES] * 8
    assert {row["age"] for row in rows} == {"12.5"}
    assert all(row["leaves"] == str(int(row["leaves"])) for row in rows)


@pytest.mark.slow
def test_samples_like_data_have_their_classes_in_their_shares_and_their_rows_together(folder):
    options = ["--like", str(folder / "trees.csv")]
    rows = drawn(folder, *options)
    assert Counter(row["species"] for row in rows) == {"oak": 16, "elm": 6, "ash": 2}
    of_data = csv.DictReader(io.StringIO((folder / "trees.csv").read_text()))
    pairs = {(row["species"], row["age"]) for row in of_data}
    assert {(row["species"], row["age"]) for row in rows} == pairs
    later = drawn(folder, *options, "--first", "5")
    key = [(row["species"], row["age"]) for row in rows]
    assert [(row["species"], row["age"]) for row in later][:19] == key[5:]
    assert {row["species"] for row in drawn(folder, *options, "--class", "elm")} == {"elm"}


@pytest.mark.slow
@given(x=st.lists(st.floats(-(2.0**99), 2.0**99, width=32), min_size=2, max_size=2))
def test_numbers_of_a_table_are_read_again_as_they_were(x):
    text = as_csv({"x": np.array([x], np.float32)}, model_of(classes=False, sizes=False))
    read = np.array(text.splitlines()[1].split(","), np.float32)
    np.testing.assert_array_equal(read, np.array(x, np.float32))


def test_a_number_of_a_table_has_no_more_digits_than_it_needs():
    x = np.array([[5.1, 7.0]], np.float32)
    text = as_csv({"x": x}, model_of(classes=False, sizes=False))
    assert text == "height,leaves\n5.1,7\n"


# Text in a table


def test_a_column_of_dates_is_left_out_and_one_of_few_words_may_be_a_condition(tmp_path, capsys):
    rows = [f"2024-01-{i + 1:02},{'AB'[i % 2]},{i}.5,{i * i}.5" for i in range(24)]
    table = tmp_path / "shop.csv"
    table.write_text("\n".join(["day,city,temp,sales", *rows]) + "\n")
    message = "leave out 'day', .* by sample=.'temp', 'sales'.; 'city', of 2 words, may be a condit"
    with pytest.raises(InvalidTypeError, match=message):
        scoresde.data.load(table)
    assert main(["data", "check", str(table)]) == 1
    next_ = capsys.readouterr().out.splitlines()[-1].split()
    assert next_[-2:] == ["--sample", "temp,sales"]
    assert main(next_[1:]) == 0


# Words that people try


@pytest.mark.parametrize(
    ("words", "hint"),
    [
        (["train", "--data", "digits", "--out", "r", "--epochs", "3"], "as --steps, not in epochs"),
        (
            ["train", "--data", "digits", "--out", "r", "--lr", "fast"],
            "--lr takes a number or auto",
        ),
        (["sample", "mnist", "--output", "x.png"], "did you mean --out?"),
        (["sample", "mnist", "--out", "x.png", "--num-samples", "3"], "did you mean --n?"),
    ],
)
def test_other_words_for_an_option_lead_to_it(words, hint, capsys):
    with pytest.raises(SystemExit):
        main(words)
    assert hint in capsys.readouterr().err


def test_a_suffix_in_capitals_is_named_in_small_letters(tmp_path, capsys):
    assert main(["sample", "mnist", "--out", str(tmp_path / "x.PNG")]) == 1
    assert f"so write {tmp_path / 'x.png'}" in capsys.readouterr().err


def test_epochs_are_said_to_be_steps():
    for make in (TrainConfig, TrainConfig().changed):
        with pytest.raises(UnknownNameError, match="N / batch_size steps are one pass"):
            make(epochs=3)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["metrics.evaluate", "nn.UNet", "training.Trainer"])
def test_a_public_name_that_stands_in_a_module_is_found(name):
    with pytest.raises(AttributeError, match=f"; it is scoresde.{name}$"):
        getattr(scoresde, name.split(".")[1])


def test_a_notebook_shows_the_own_calls_of_the_user_and_the_message(monkeypatch):
    with pytest.raises(InvalidValueError) as caught:
        scoresde.sample(model_of(False, False), n=-1)
    shown = caught.value._render_traceback_()
    assert shown[-1] == f"InvalidValueError: {caught.value}"
    assert [line for line in shown if "File" in line] == [shown[0]]
    assert __file__ in shown[0]
    monkeypatch.setenv("SCORESDE_DEBUG", "1")
    assert any("run.py" in line for line in caught.value._render_traceback_())


# Other data in the folder of a run


@pytest.mark.slow
def test_the_other_data_of_a_trainer_are_named_before_its_other_numbers(tmp_path):
    x = torch.randn(40, 2, generator=torch.Generator().manual_seed(0))
    config = TrainConfig(steps=2, batch_size=8)
    with torch.random.fork_rng():
        net = nn.MLP(2, hidden=(8,))
    Trainer(ScoreModel(net, VESDE(), (2,)), x, config, folder=tmp_path).train(progress=False)
    with pytest.raises(InvalidValueError, match="belongs to another data set"):
        Trainer(ScoreModel(net, VESDE(), (2,)), x[:20], config.changed(lr=0.5), folder=tmp_path)


def test_a_score_given_in_place_of_samples_is_told_how_to_be_drawn():
    with pytest.raises(
        InvalidTypeError, match=r"draw them first, for example by x = scoresde\.sample"
    ):
        scoresde.metrics.evaluate(model_of(), torch.zeros(40, 2))


# Help


@pytest.mark.slow
@pytest.mark.parametrize("command", ["sample", "train"])
def test_help_is_not_broken_where_the_source_is(command, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "1000")
    with pytest.raises(SystemExit):
        main([command, "--help"])
    printed = " ".join(capsys.readouterr().out.split())
    kind = {"sample": Sample, "train": Train}[command]
    for text in docstrings(kind).values():
        assert text in printed
