"""Test that names of classes and columns are stored with data and models, and matched."""

import json

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from scoresde import VESDE, ScoreModel, facts, nn, sample
from scoresde.cli import main
from scoresde.cli.begin import begin
from scoresde.data import Data, load
from scoresde.data.read_for import read_for
from scoresde.errors import CheckpointError, InvalidValueError, ShapeError, UnknownNameError
from scoresde.sde import Classes, Condition, Field
from scoresde.training import TrainConfig, Trainer


def trained(data, folder=None):
    classes = {name: kind.n for name, kind in data.kinds.items() if isinstance(kind, Classes)}
    fields = {name: kind.shape for name, kind in data.kinds.items() if isinstance(kind, Field)}
    with torch.random.fork_rng():
        torch.default_generator.manual_seed(0)
        net = nn.MLP(data.event_shape, hidden=(8,), num_classes=classes, condition=fields)
    model = ScoreModel(net, VESDE(), data.event_shape)
    config = TrainConfig(steps=2, batch_size=8).changed(save_every=1)
    return Trainer(model, data, config, folder=folder).train(progress=False).requires_grad_()


def animals(words, n=40):
    x = torch.randn(n, 2, generator=torch.Generator().manual_seed(0))
    return Data(x, columns=("wing", "mass"), label=[words[i % len(words)] for i in range(n)])


def test_names_survive_training_saving_and_loading(tmp_path):
    data = Data(
        animals(("dog", "cat")),
        place=torch.zeros(40, 2),
        kinds={"place": Field((2,), ("lat", "lon"))},
    )
    model = trained(data, tmp_path)
    for known in (model, ScoreModel.from_pretrained(tmp_path)):
        assert facts(known).conditions["place"].names == ("lat", "lon")
        assert facts(known).conditions["label"].names == ("cat", "dog")
        assert facts(known).columns == known.columns == ("wing", "mass")


def test_a_class_is_given_by_its_name():
    model = trained(animals(("dog", "cat")))
    by_name = sample(model, n=3, steps=3, seed=0, condition={"label": "dog"})
    assert torch.equal(by_name, sample(model, n=3, steps=3, seed=0, condition={"label": 1}))
    each = sample(model, n=3, steps=3, seed=0, condition={"label": ["cat", "dog", None]})
    number = sample(model, n=3, steps=3, seed=0, condition={"label": [0, 1, -1]})
    assert torch.equal(each, number)
    with pytest.raises(UnknownNameError, match="did you mean 'dog'"):
        sample(model, n=3, steps=3, seed=0, condition={"label": "dgo"})


def test_a_class_without_a_name_is_given_by_its_number():
    with pytest.raises(InvalidValueError, match=r"have no names here, got 'dog'.* 0 to 1"):
        Condition.of({"label": "dog"}, 1, {"label": Classes(2)})


def test_names_do_not_change_whether_two_declarations_are_equal():
    assert Classes(2, ("a", "b")) == Classes(2) != Classes(3)
    assert Field((2,), ("a", "b")) == Field((2,)) != Field((3,))
    assert eval(repr(Classes(2, ("a", "b")))).names == ("a", "b")


@pytest.mark.parametrize("names", [("a",), ("a", "a"), ("a", "b", "c")])
def test_as_many_names_as_classes_each_another_one(names):
    with pytest.raises(InvalidValueError, match="2 classes need 2 different names"):
        Classes(2, names)


@given(st.permutations(["cat", "dog", "emu", "fox"]), st.integers(1, 4))
def test_labels_are_mapped_by_name_for_any_order_and_number(words, n):
    """A datum keeps the name of its class, with the number that the model has for it."""
    own, model = Classes(n, tuple(words[:n])), Classes(4, ("cat", "dog", "emu", "fox"))
    label = torch.arange(9) % (n + 1) - 1
    data = Data(torch.zeros(9, 2), label=label, kinds={"label": own})
    mapped = data.as_kinds({"label": model})
    before = [own.names[k] if k >= 0 else None for k in label.tolist()]
    after = [model.names[k] if k >= 0 else None for k in mapped.label.tolist()]
    assert before == after
    assert mapped.kinds["label"].names == model.names


def test_an_unknown_class_is_reported_with_the_most_similar_one():
    model = trained(animals(("dog", "cat")))
    with pytest.raises(InvalidValueError, match=r"has the classes 'dogs' \(did you mean 'dog'\?\)"):
        Trainer(model, animals(("dogs", "cat")))


def test_a_run_on_other_numbers_of_the_same_names_learns_the_same_classes():
    model = trained(animals(("dog", "cat")))
    kinds = {"label": Classes(2, ("dog", "cat"))}
    turned = Data(torch.zeros(4, 2), label=[0, 1, 0, -1], kinds=kinds)
    trainer = Trainer(model, turned)
    assert trainer.data.label.tolist() == [1, 0, 1, -1]
    assert model.names["label"] == ("cat", "dog")


def test_data_without_names_leave_those_of_a_model():
    model = trained(animals(("dog", "cat")))
    Trainer(model, Data(animals(("x",), n=8).x, label=torch.arange(8) % 2))
    assert model.names["label"] == ("cat", "dog")


def test_new_classes_come_after_those_of_the_model(tmp_path):
    trained(animals(("dog", "cat")), tmp_path)
    model, data = begin(str(tmp_path), animals(("ant", "dog")))
    assert facts(model).conditions["label"].names == ("cat", "dog", "ant")
    assert set(data.label.tolist()) == {1, 2}
    Trainer(model, data)
    again, same = begin(str(tmp_path), animals(("dog",)))
    assert again.classes == 2
    assert set(same.label.tolist()) == {1}


def test_names_of_data_and_numbers_of_a_model_are_matched_with_a_warning(tmp_path):
    """Names are numbered in sorted order, "eight" first; the model may have another order."""
    trained(Data(animals(("x",)).x, label=torch.arange(40) % 2), tmp_path)
    with pytest.warns(UserWarning, match="2 classes of 'label' without names.*: 'one' is 0"):
        begin(str(tmp_path), animals(("zero", "one")))
    begin(str(tmp_path), animals(("digit",)).only([]))
    for names in (("0", "1"), ("0",)):
        kinds = {"label": Classes(len(names), names)}
        begin(str(tmp_path), Data(torch.zeros(4, 2), label=[0, len(names) - 1, 0, -1], kinds=kinds))
    score = trained(Data(animals(("x",)).x, label=torch.arange(40) % 2))
    with pytest.warns(UserWarning, match="the score has 2 classes of 'label' without names"):
        read_for(score, animals(("zero", "one")), None)


@pytest.mark.long
def test_the_command_line_takes_a_class_by_its_name(tmp_path, capsys):
    run = tmp_path / "run"
    trained(animals(("dog", "cat")), run)
    for k, words in enumerate(("--class dog", "--condition label=dog", "--class 1")):
        out = tmp_path / f"{k}.npy"
        assert main(f"sample {run} --out {out} --n 2 --steps 2 {words}".split()) == 0
    rows = [np.load(tmp_path / f"{k}.npy") for k in range(3)]
    assert np.array_equal(rows[0], rows[1])
    assert np.array_equal(rows[0], rows[2])
    capsys.readouterr()
    assert main(f"sample {run} --out {out} --class dgo".split()) == 1
    assert "unknown class 'dgo'; did you mean 'dog'?" in capsys.readouterr().err


def test_the_name_of_a_class_takes_precedence_over_its_number(tmp_path):
    """Folders called 1, 2 and 10 are numbered 0, 2 and 1."""
    trained(animals(("1", "2", "10", "x", "y", "z")), tmp_path)
    known = facts(ScoreModel.from_pretrained(tmp_path)).conditions
    assert Condition.of({"label": "10"}, 1, known)["label"].tolist() == [1]


def test_names_of_folders_and_of_columns_reach_the_data(tmp_path):
    for name in ("owl", "bat"):
        (tmp_path / name).mkdir()
        Image.new("L", (8, 8)).save(tmp_path / name / "1.png")
    assert load(tmp_path).names == {"label": ("bat", "owl")}
    (tmp_path / "x.csv").write_text("wing,mass,lat,lon\n1.5,2,3,4\n2,3,4,5\n")
    data = load(tmp_path / "x.csv", condition={"place": ["lat", "lon"]})
    assert data.columns == ("wing", "mass")
    assert data.names == {"place": ("lat", "lon")}
    assert data[:1].columns == data.standardized().columns == data.split(0.5)[0].columns


def test_columns_are_of_vectors_and_as_many():
    with pytest.raises(ShapeError, match="1 columns are named"):
        Data(torch.zeros(3, 2), columns=["a"])
    with pytest.raises(ShapeError, match="2 columns are named"):
        Data(torch.zeros(3, 2, 5), columns=["a", "b"])


@pytest.mark.parametrize(
    "changed", [{"names": {"label": ["a"]}}, {"names": 3}, {"columns": ["a"]}, {"columns": [1, 2]}]
)
def test_names_that_are_not_those_of_the_model_are_refused_in_a_file(changed, tmp_path):
    model = trained(animals(("dog", "cat")))
    real = model.description
    model.description = lambda: real() | changed
    model.save_pretrained(tmp_path)
    assert json.loads((tmp_path / "config.json").read_text()).items() >= changed.items()
    with pytest.raises(CheckpointError, match=r"named|names"):
        ScoreModel.from_pretrained(tmp_path)


def test_names_that_no_sample_has_need_not_be_classes_of_the_model():
    own = Classes(4, ("ant", "bee", "cat", "dog"))
    data = Data(torch.zeros(3, 2), label=[2, 3, -1], kinds={"label": own})
    assert data.as_kinds({"label": Classes(2, ("cat", "dog"))}).label.tolist() == [0, 1, -1]
