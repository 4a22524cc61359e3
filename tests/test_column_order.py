"""Test that the order of named columns does not matter when data are used with a model."""

import numpy as np
import pytest
import torch

from scoresde import VESDE, ScoreModel, log_prob, nn
from scoresde.cli import main
from scoresde.data import Data, load
from scoresde.data.column_order import in_columns
from scoresde.data.read_for import read_for
from scoresde.errors import InvalidValueError
from scoresde.metrics import evaluate
from scoresde.plot.sets import given
from scoresde.sde import Field
from scoresde.training import TrainConfig, Trainer
from scoresde.units import Standardize

ROWS = torch.randn(40, 2, generator=torch.Generator().manual_seed(0)) * torch.tensor([1.0, 30.0])
NAMES, SWAPPED = ("age", "mass"), ("mass", "age")


@pytest.fixture
def tables(tmp_path):
    """Return the same table twice, with its columns in either order, and one with other names."""
    for file, names, rows in (
        ("own", NAMES, ROWS), ("swapped", SWAPPED, ROWS.flip(1)), ("other", ("age", "size"), ROWS),
    ):  # fmt: skip
        np.savetxt(
            tmp_path / f"{file}.csv", rows, delimiter=",", header=",".join(names), comments="",
            fmt="%.9g",
        )  # fmt: skip
    return tmp_path


@pytest.fixture(params=[True, False], ids=["standardised", "as given"])
def model(request):
    with torch.random.fork_rng(devices=[]):
        model = ScoreModel(nn.MLP(2, hidden=(4,)), VESDE(), (2,))
    model.columns = NAMES
    if request.param:
        model.transform = Standardize((0.0, 1.0), (1.0, 30.0))
    return model


def test_a_model_reads_the_columns_of_a_table_by_their_names(tables, model):
    own, swapped, other = (load(tables / f"{name}.csv") for name in ("own", "swapped", "other"))
    for data in (swapped, swapped.units_of(model.transform), swapped[torch.arange(40)]):
        assert torch.equal(read_for(model, data, None)[0], read_for(model, own, None)[0])
    values = [log_prob(model, None, data[:2], rtol=0.1, atol=0.1).value for data in (own, swapped)]
    assert torch.equal(*values)
    with pytest.raises(InvalidValueError, match=r"columns of the data are age, size.* age, mass"):
        read_for(model, other, None)
    bare = Data(own.raw)
    assert torch.equal(read_for(model, bare, None)[0], read_for(model, own, None)[0])


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:the data's:UserWarning", "ignore:the model has one:UserWarning")
def test_further_training_reads_the_columns_by_their_names(tables, model):
    for units in (lambda data: data.units_of(model.transform), Data.standardized):
        if units is Data.standardized:
            model.transform = units(load(tables / "own.csv")).transform
        own, swapped = (
            Trainer(model, units(load(tables / f"{name}.csv")), TrainConfig(steps=1)).data
            for name in ("own", "swapped")
        )
        assert swapped.columns == own.columns == NAMES
        torch.testing.assert_close(own.x, swapped.x)
        torch.testing.assert_close(own.survey.mean, swapped.survey.mean)


def test_vectors_of_conditions_are_read_by_their_names(tables):
    raw = torch.zeros(40, 1)
    own, swapped = (
        Data(raw, y=load(tables / f"{name}.csv").raw, kinds={"y": Field((2,), names)})
        for name, names in (("own", NAMES), ("swapped", SWAPPED))
    )
    found = swapped.as_kinds(own.kinds)
    assert torch.equal(found.conditions["y"], own.conditions["y"])
    assert found.kinds["y"].names == NAMES


def test_two_tables_are_compared_and_drawn_by_the_names_of_their_columns(tables):
    own, swapped = tables / "own.csv", tables / "swapped.csv"
    options = {"metrics": "frechet", "resamples": 0}
    found = [evaluate(table, own, **options)["frechet"] for table in (own, swapped, load(swapped))]
    assert found[0] == found[1] == found[2]
    first, second = given("x", {"a": load(own), "b": load(swapped)}).sets.values()
    assert torch.equal(first, second)


def test_commands_read_the_columns_of_a_table_by_their_names(tables, model, capsys):
    model.save_pretrained(tables / "model")
    said = []
    for name in ("own", "swapped"):
        words = ["--data", str(tables / f"{name}.csv"), "--n", "2", "--rtol", ".1"]
        assert main(["likelihood", str(tables / "model"), *words]) == 0
        said.append([x for x in capsys.readouterr().out.splitlines() if "nats" in x])
    assert said[0] == said[1]
    assert main(["likelihood", str(tables / "model"), "--data", str(tables / "other.csv")]) == 1
    assert "age, size" in capsys.readouterr().err


def test_three_columns_in_turn_come_back_in_the_order_of_the_names():
    """A swap of two is its own inverse, a turn of three is not."""
    names, turned = ("a", "b", "c"), ("c", "a", "b")
    x = torch.arange(6.0).reshape(2, 3)
    shift = Standardize((1.0, 2.0, 3.0), (4.0, 5.0, 6.0))
    own = Standardize((3.0, 1.0, 2.0), (6.0, 4.0, 5.0))
    data = in_columns(Data(x[:, [2, 0, 1]], columns=turned, transform=own), names)
    torch.testing.assert_close(data.x, (x - torch.tensor(shift.shift)) / torch.tensor(shift.scale))
    assert data.columns == names
    assert data.transform == shift
