"""Test conditions of models: declarations, standardisation, and files."""

import json
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import scoresde
from scoresde.errors import (
    InvalidTypeError,
    InvalidValueError,
    NonFiniteError,
    ShapeError,
    UnknownNameError,
)
from scoresde.nn import MLP, UNet
from scoresde.pretrained.store import packaged
from scoresde.score import ScoreModel
from scoresde.sde import VESDE, Classes, Field, facts

Y = (torch.tensor([1.0, -2.0, 30.0]), torch.tensor([0.5, 2.0, 10.0]))
FORCING = (torch.tensor([[[4.0]], [[-1.0]]]), torch.tensor([[[2.0]], [[0.1]]]))


def built(make, *args, **options):
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        net = make(*args, **options)
        for p in net.parameters():
            if not p.any():
                nn.init.normal_(p, std=0.1)
    return net


def unet(**units):
    net = built(UNet, 1, channels=(4,), features=8, num_classes=3,
                condition={"forcing": 2, "coarse": (1, 2, 2), "y": (3,)})  # fmt: skip
    return ScoreModel(net, VESDE(), (1, 4, 4), condition_moments=units).eval()


def normal(seed, *shape):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def some(n=5):
    return {
        "label": torch.arange(n) % 3,
        "forcing": 3 + normal(1, n, 2, 4, 4),
        "coarse": normal(2, n, 1, 2, 2),
        "y": 5 * normal(3, n, 3),
    }


def test_a_model_declares_classes_and_shapes_for_its_events():
    assert facts(unet()).conditions == {
        "label": Classes(3), "forcing": Field((2, 4, 4)), "coarse": Field((1, 2, 2)),
        "y": Field((3,)),
    }  # fmt: skip
    net = built(MLP, (2, 3), num_classes={"a": 2, "b": 4}, condition={"y": 8, "z": (2, 5)})
    known = facts(ScoreModel(net, VESDE(), (2, 3))).conditions
    assert known == {"a": Classes(2), "b": Classes(4), "y": Field((8,)), "z": Field((2, 5))}
    assert facts(scoresde.load("mnist")).conditions == {"label": Classes(10)}
    assert scoresde.load("mnist").classes == 10


def test_the_network_receives_standardised_vectors_and_fields():
    model, plain = unet(y=Y, forcing=FORCING), unet()
    x, condition = normal(0, 5, 1, 4, 4), some()
    standardised = dict(condition)
    for name, (mean, std) in {"y": Y, "forcing": FORCING}.items():
        standardised[name] = (condition[name] - mean) / std
    assert torch.equal(model(x, 0.5, condition), plain(x, 0.5, standardised))
    missing = condition | {"y": torch.full((5, 3), math.nan)}
    left_out = {name: value for name, value in condition.items() if name != "y"}
    assert torch.equal(model(x, 0.5, missing), model(x, 0.5, left_out))


@pytest.mark.slow
@given(
    shift=st.sampled_from([0.0, 5.0, -100.0]),
    scale=st.sampled_from([1e-6, 1.0, 1000.0]),
    dtype=st.sampled_from([torch.float32, torch.float64]),
)
@settings(max_examples=8)
def test_other_units_with_their_moments_give_the_same_score(shift, scale, dtype):
    x, condition = normal(0, 5, 1, 4, 4), some()
    mean, std = Y
    other = unet(y=(scale * mean + shift, scale * std), forcing=FORCING)
    turned = condition | {"y": (scale * condition["y"].double() + shift).to(dtype)}
    found = other(x, 0.5, turned)
    rounding = 1e-5 * max(1, abs(shift) / scale)
    if rounding < 0.1:
        expected = unet(y=Y, forcing=FORCING)(x, 0.5, condition)
        torch.testing.assert_close(found, expected, rtol=rounding, atol=rounding)


def test_a_half_network_keeps_the_units_of_its_conditions():
    model = unet(y=(torch.full((3,), 1000.3), torch.ones(3))).bfloat16()
    units = model.condition_units.moments()["y"]
    assert all(part.dtype == torch.float32 for part in units)
    assert float(units[0][0]) == pytest.approx(1000.3)
    out = model(normal(0, 5, 1, 4, 4), 0.5, some())
    assert out.dtype == torch.float32
    assert out.isfinite().all()
    assert model.double().condition_units.mean_y.dtype == torch.float64


def test_units_are_stored_with_the_model_and_old_files_have_none(tmp_path):
    model = unet(y=Y, forcing=FORCING)
    model.save_pretrained(tmp_path, dtype=torch.float16)
    found = ScoreModel.from_pretrained(tmp_path)
    for name, pair in {"y": Y, "forcing": FORCING}.items():
        for one, other in zip(pair, found.condition_units.moments()[name], strict=True):
            assert torch.equal(one, other)
    assert facts(found).conditions == facts(model).conditions
    card = (tmp_path / "README.md").read_text()
    assert "label of 3 classes, coarse of shape (1, 2, 2), forcing of shape (2, " in card


def test_an_old_model_is_described_word_by_word_as_in_its_file():
    """A run continues only if its description is the same."""
    digits = scoresde.load("mnist")
    stored = json.loads((packaged("mnist") / "config.json").read_text())
    assert json.dumps(digits.net.config) == json.dumps(stored["net"]["config"])
    assert not any("condition" in name for name in digits.state_dict())


def test_a_model_with_more_classes_has_the_same_outputs(tmp_path):
    model = unet(y=Y, forcing=FORCING)
    grown = model.grown(7)
    x, condition = normal(0, 5, 1, 4, 4), some()
    assert torch.equal(grown(x, 0.5, condition), model(x, 0.5, condition))
    assert (grown.classes, model.classes) == (7, 3)
    new = condition | {"label": torch.full((5,), 6)}
    grown.save_pretrained(tmp_path)
    assert torch.equal(ScoreModel.from_pretrained(tmp_path)(x, 0.5, new), grown(x, 0.5, new))
    assert scoresde.load("mnist").grown(12).classes == 12
    with pytest.raises(InvalidValueError, match="has 3 classes of label, more than 2"):
        model.grown(2)
    with pytest.raises(InvalidTypeError, match="a Linear has no method grown"):
        ScoreModel(built(nn.Linear, 2, 2), VESDE(), (2,)).grown(3)


def test_a_foreign_network_declares_its_conditions_by_declared_or_not_at_all():
    class Theirs(nn.Module):
        def forward(self, x, c, **condition):
            return x + condition["y"].sum(1)[:, None]

    class Declaring(Theirs):
        def declared(self, event_shape):
            return {"y": (3,), "label": 4}

    assert facts(ScoreModel(Theirs(), VESDE(), (2,))).conditions is None
    units = {"y": Y}
    declaring = ScoreModel(Declaring(), VESDE(), (2,), condition_moments=units)
    assert facts(declaring).conditions == {"y": Field((3,)), "label": Classes(4)}
    x, y = normal(0, 4, 2), normal(1, 4, 3)
    undeclared = ScoreModel(Theirs(), VESDE(), (2,), condition_moments=units)
    assert torch.equal(declaring(x, 0.5, {"y": y}), undeclared(x, 0.5, {"y": y}))


@pytest.mark.parametrize("value", [math.inf, -1e39])
def test_a_condition_that_float32_cannot_hold_is_refused_at_the_door(value):
    y = torch.full((3,), value, dtype=torch.float64)
    with pytest.raises(NonFiniteError, match="'y' holds an infinity, or a number above"):
        scoresde.sample(unet(), n=1, steps=2, seed=0, condition={"y": y})


@pytest.mark.parametrize(
    ("units", "error", "message"),
    [
        ({"z": Y}, UnknownNameError, "unknown condition 'z'"),
        ({"label": (0.0, 1.0)}, InvalidValueError, "'label' is a label, which has no mean"),
        ({"y": (0.0, 0.0)}, InvalidValueError, "'y' must have a finite mean and a standard dev"),
        ({"y": (math.inf, 1.0)}, InvalidValueError, "'y' must have a finite mean"),
        ({"y": (torch.zeros(4), 1.0)}, ShapeError, r"'y' must .* shape \(3,\), got \(4,\)"),
        ({"forcing": (torch.zeros(2), 1.0)}, ShapeError, r"'forcing' .* \(2, 4, 4\), got \(2,\)"),
        ({"y": 3.0}, InvalidTypeError, "'y' must be a mean and a standard deviation, got 3.0"),
        ({"y": ("a", "b")}, InvalidTypeError, "'y' must be a mean and a standard deviation"),
    ],
)
def test_impossible_units_are_refused_by_name(units, error, message):
    with pytest.raises(error, match=message):
        unet(**units)


def test_a_kind_without_values_is_refused_when_it_is_made():
    for n in (0, -1):
        with pytest.raises(InvalidValueError, match="the number of classes must be"):
            Classes(n)
        with pytest.raises(InvalidValueError, match="the sides of a field are at least 1"):
            Field((2, n))
    Field(()).check("z", torch.zeros(3))


def test_labels_are_of_any_integer_type():
    for dtype in (torch.uint8, torch.int16, torch.int64, torch.uint64):
        Classes(3).check("label", torch.tensor([0, 2], dtype=dtype))
        with pytest.raises(InvalidValueError, match="got labels from 0 to 3"):
            Classes(3).check("label", torch.tensor([0, 3], dtype=dtype))
