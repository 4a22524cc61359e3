"""Test suggested networks and trainings: they fit any data, and the command uses them."""

import math
import re
import shlex
import tomllib
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from test_cli import different, said

from scoresde import cli
from scoresde.cli import main
from scoresde.cli.config import NetOptions, RunConfig, TrainOptions
from scoresde.cli.source import DataConfig
from scoresde.cli.train import Train
from scoresde.data import Data
from scoresde.data.data_check import remarks
from scoresde.errors import InvalidValueError, UnknownNameError
from scoresde.nn import MLP, UNet
from scoresde.objectives import described
from scoresde.precision import has_bfloat16
from scoresde.sde import EDMSDE, VESDE, VPSDE, Classes, Field, FlowSDE
from scoresde.suggestion import NetConfig, noise, suggest
from scoresde.suggestion.network import network
from scoresde.suggestion.recipe import held_out_of, rate_of, recipe
from scoresde.suggestion.suggesting import model_of
from scoresde.training import Trainer

SHAPES = st.lists(st.integers(1, 9), min_size=1, max_size=5).map(tuple)


def normal(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@st.composite
def data(draw) -> Data:
    """Samples of any shape, with conditions of any kinds."""
    n, shape = draw(st.integers(2, 30)), draw(SHAPES)
    own = {
        "label": torch.arange(n) % 3,
        "y": normal(n, 4, seed=1),
        "field": normal(n, 2, *shape[1:], seed=2),
        "odd": normal(n, 3, 2, seed=3),
    }
    names = draw(st.sets(st.sampled_from(sorted(own))))
    return Data(normal(n, *shape), **{name: own[name] for name in names})


@pytest.fixture
def points(tmp_path, monkeypatch):
    """Return a file of data at a relative path."""
    monkeypatch.chdir(tmp_path)
    np.savez("points.npz", x=normal(60, 2).numpy(), y=np.arange(60) % 3)
    return "points.npz"


# What is suggested


@pytest.mark.slow
@settings(max_examples=30)
@given(data=data())
def test_a_suggested_model_takes_any_event_with_any_conditions(data):
    found = suggest(data)
    model = found.model()
    x, condition = data.batch(slice(3)).float(), data.condition(slice(3))
    assert model(x, 0.5, condition).shape == x.shape
    assert model(x, 0.5).shape == x.shape
    assert found.config.batch_size <= len(data)
    assert model.sde == found.sde()
    assert abs(model.steps - found.steps) <= 1  # of noise to three digits


@pytest.mark.parametrize(
    ("sde", "expected"),
    [
        (VESDE(0.1, 10.0), math.ceil(math.log(100) / 0.1)),
        (VESDE(0.1, 10.0, levels=5), None),
        (VPSDE(), None),
        (EDMSDE(), None),
        (FlowSDE(), math.ceil(math.log(999 / (1 / 99)) / 0.1)),  # even in the ratio, too
    ],
)
def test_steps_are_known_where_levels_are_even(sde, expected):
    assert noise.steps_of(sde) == expected


@pytest.mark.slow
@pytest.mark.parametrize("shape", [(2,), (1, 9, 9), (2, 20), (1, 5, 5, 5)])
@pytest.mark.parametrize("n", [2, 50])
def test_a_few_samples_are_learnt_without_a_warning(shape, n):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = suggest(normal(n, *shape))
        config = found.config.changed(steps=1)
        trained = Trainer(found.model(), found.data, config, loss=found.loss())
        assert trained.train(progress=False).sde == found.sde()


@pytest.mark.global_rng
def test_a_model_is_a_function_of_data_and_seed():
    x = normal(40, 3)

    def weights(seed):
        torch.rand(1)
        return suggest(x, seed=seed).model().net.stem.weight

    assert torch.equal(weights(1), weights(1))
    assert not torch.equal(weights(1), weights(2))


@given(
    sides=st.lists(st.integers(1, 600), min_size=1, max_size=3).filter(
        lambda s: math.prod(s) < 10**7 and max(s) >= 4
    )
)
def test_the_receptive_field_of_a_u_net_is_the_whole_event_and_its_batch_fits_into_memory(sides):
    shape = (1, *sides)
    chosen = {name: value for name, (value, _) in network(shape, {}, 1000).items()}
    net = NetConfig(**chosen)
    assert net.type == "unet"
    finest = [math.ceil(side / net.patch) for side in sides]
    assert all(math.ceil(side / 2 ** (len(net.channels) - 1)) <= 8 for side in finest)
    assert math.prod(finest) <= 2**14
    batch = recipe(shape, net, 1000)["batch_size"][0]
    assert batch * math.prod(finest) <= 2**16


@given(
    sides=st.lists(st.integers(4, 64), min_size=1, max_size=3),
    factor=st.floats(1, 4),
)
def test_larger_events_get_no_larger_batches_and_wider_networks_no_larger_rates(sides, factor):
    def numbers(sides):
        chosen = {name: value for name, (value, _) in network((1, *sides), {}, 10**6).items()}
        return recipe((1, *sides), NetConfig(**(chosen | {"patch": 1})), 10**6)

    larger = [math.ceil(factor * side) for side in sides]
    assert numbers(larger)["batch_size"][0] <= numbers(sides)["batch_size"][0]
    widths = (8, 64, 65, 128, 1000)
    rates = [rate_of(width, "adam")[0] for width in widths]
    assert rates == sorted(rates, reverse=True)
    # what one update of Adam can add to a sum over a layer is bounded, to the digits of a rate
    most = 1.05 * 64 * rate_of(64, "adam")[0]
    assert all(rate * width <= most for rate, width in zip(rates, widths, strict=True))


def options_of(**optimiser):
    """Options that say this of the optimiser and leave all else open."""
    return TrainOptions(optimiser=type(TrainOptions().optimiser)(**optimiser))


@pytest.mark.slow
@pytest.mark.parametrize("shape", [(2,), (1, 8, 8)])
def test_a_wider_network_has_a_lower_rate_of_adam(shape):
    samples, source = Data(normal(20, *shape)), DataConfig(source="")

    def rate(width=1024, **options):
        net, train = NetOptions(channels=(8, width)), options_of(rule="adam", **options)
        run = RunConfig(data=source, net=net, train=train)
        return run.begun(samples)[0].config.optimiser.lr

    assert rate() == rate_of(1024, "adam")[0] < rate(8)
    assert rate(lr=0.5) == 0.5


def test_every_optimiser_has_its_rate():
    samples, source = Data(normal(20, 1, 8, 8)), DataConfig(source="")
    for rule in ("adam", "muon"):
        run = RunConfig(data=source, train=options_of(rule=rule)).begun(samples)[0]
        widest = max(run.net.channels)
        assert run.config.optimiser.lr == rate_of(widest, rule)[0]
        assert run.config.optimiser.rule == rule


@pytest.mark.slow
def test_a_model_to_begin_with_gets_the_rate_of_its_own_width(points, tmp_path):
    samples = DataConfig(source=points).load()
    model = model_of(samples, NetConfig(type="mlp", channels=(1024,)), VESDE(), 0)
    model.save_pretrained(tmp_path / "wide")
    run = RunConfig(data=DataConfig(source=points), init=str(tmp_path / "wide"))
    assert run.begun(samples)[0].config.optimiser.lr == rate_of(1024, "adam")[0]


@pytest.mark.parametrize(
    ("shape", "kind", "words"),
    [
        ((7,), MLP, "7 numbers"),
        ((2, 100), UNet, "2 channels of 100 steps"),
        ((40, 3), MLP, "40 channels of 3 steps, too few for convolutions"),
        ((1, 28, 20), UNet, "a grey image of 28x20 pixels"),
        ((3, 2, 2), MLP, "a colour image of 2x2 pixels, too few for convolutions"),
        ((1, 12, 12, 12), UNet, "1 channel of 12x12x12 voxels"),
        ((1, 4, 4, 4, 4), MLP, "1 channel of 4x4x4x4"),
    ],
)
def test_the_meaning_of_a_shape_is_printed(shape, kind, words):
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="samples of 40x3 are read as")
        found = suggest(normal(8, *shape))
    assert words in found.reasons["net"]
    assert words in str(found)
    assert isinstance(found.model().net, kind)


def test_a_network_can_be_chosen_if_it_fits_the_shape():
    assert isinstance(suggest(normal(9, 1, 8, 8), net="mlp").model().net, MLP)
    with pytest.raises(UnknownNameError, match="unknown network 'unt'; did you mean 'unet'"):
        suggest(normal(9, 2), net="unt")
    with pytest.raises(InvalidValueError, match=r"have the shape \(2,\); use the network mlp"):
        suggest(normal(9, 2), net="unet")
    with pytest.raises(InvalidValueError, match="use the network mlp"):
        NetConfig(type="unet", channels=(4,)).build((2,), {})


@pytest.mark.parametrize("shape", [(2, 300), (1, 8, 8), (1, 20, 20, 20)])
def test_a_transformer_that_is_asked_for_has_256_tokens_at_most(shape):
    found = suggest(normal(9, *shape), net="dit")
    patch = found.net.patch
    assert math.prod(math.ceil(side / patch) for side in shape[1:]) <= 256
    assert found.config.optimiser.rule == "adam"
    with torch.random.fork_rng(devices=[]):
        net = found.net.build(shape, {"label": Classes(3), "y": Field((2,))})
    assert net.declared(shape) == {"label": 3, "y": (2,)}


@pytest.mark.parametrize("options", [dict(channels=(8, 4)), dict(channels=()), dict(blocks=2)])
def test_a_transformer_has_one_width_and_no_options_of_a_u_net(options):
    with pytest.raises(InvalidValueError, match="one width for each of its blocks"):
        NetConfig(**({"type": "dit", "channels": (8, 8)} | options))


@pytest.mark.slow
def test_a_transformer_is_trained_and_sampled_by_the_commands(tmp_path):
    run, x = tmp_path / "run", tmp_path / "x.npy"
    words = ["--steps", "2", "--batch-size", "8", "--channels", "8", "8", "--no-pilot"]
    assert main(["train", "--data", "digits", "--net", "dit", "--out", str(run), *words]) == 0
    assert main(["sample", str(run), "--sampler", "ddim", "--n", "2", "--out", str(x)]) == 0
    more = ["--init", str(run), "--out", str(tmp_path / "more"), "--steps", "1", "--no-pilot"]
    assert main(["train", "--data", "digits", *more]) == 0


def test_a_condition_of_other_axes_gets_a_network_that_takes_it():
    kinds = {"y": Field((3,)), "odd": Field((5, 2)), "label": Classes(4)}
    assert network((1, 8, 8), kinds, 100)["type"][0] == "mlp"
    assert network((1, 8, 8), {"y": Field((3,))}, 100)["type"][0] == "unet"


# The command


def test_the_command_that_is_printed_makes_the_run_that_train_makes(points, capsys):
    assert main(["suggest", points]) == 0
    text = capsys.readouterr().out.split("\n\n")[1]
    words = shlex.split(text.replace("\\\n", " "))
    assert words[:2] == ["scoresde", "train"]
    given = Train.parse(words[2:]).settings
    plain = RunConfig(data=DataConfig(source=points))
    samples = plain.data.load()
    assert given.open() <= {"blocks", "patch", "attention"}
    assert given.begun(samples)[0] == plain.begun(samples)[0]


def test_train_and_suggest_agree_to_the_last_weight(points):
    run, model, samples = RunConfig(data=DataConfig(source=points)).begun(
        DataConfig(source=points).load()
    )
    found = suggest(samples)
    own = found.model()
    assert (run.config, model.sde) == (found.config, found.sde())
    for name, value in own.state_dict().items():
        assert torch.equal(value, model.state_dict()[name])
    assert described(run.loss(model)) == described(found.loss())
    trained = [
        Trainer(start, samples, run.config.changed(steps=3), loss=loss).train(progress=False)
        for start, loss in ((model, run.loss(model)), (own, found.loss()))
    ]
    for one, other in zip(*(score.state_dict().values() for score in trained), strict=True):
        assert torch.equal(one, other)


@pytest.mark.slow
@given(st.integers(0, 9), st.sampled_from([(1,), (2,), (1, 8, 8)]), st.floats(0, 30))
def test_the_data_check_has_no_remark_on_the_suggested_noise(seed, shape, far):
    x = torch.randn(200, *shape, generator=torch.Generator().manual_seed(seed))
    x[: 60 * (seed % 2) + 1] += far  # a mode, or an outlier
    found = suggest(x)
    assert not [remark for remark in remarks(found.data, found.sde()) if "noise" in remark]


OVERRIDES = {
    "sde": dict(sde=VESDE(0.1, 5.0)),
    "channels": dict(net=NetOptions(channels=(8,))),
    "lr": dict(train=TrainOptions(optimiser=type(TrainOptions().optimiser)(lr=0.5))),
    "batch_size": dict(train=TrainOptions(batch_size=3)),
    "steps": dict(train=TrainOptions(steps=7)),
    "held_out": dict(train=TrainOptions(keeping=type(TrainOptions().keeping)(held_out=0.25))),
}


@given(st.integers(2, 10**7))
def test_a_tenth_is_held_out_but_not_more_than_a_thousand_nor_any_of_a_few(n):
    share, why = held_out_of(n)
    assert 0 <= share <= 0.1
    assert (share == 0) == (n < 50)
    assert share * n <= 1050  # it has two digits
    assert why.startswith(f"{n if n < 50 else round(share * n):,} samples")


def test_a_run_holds_out_data_by_default(points):
    for words, share in (((), 0.1), (("--held-out", "0"), 0.0), (("--held-out", "0.3"), 0.3)):
        given = Train.parse(["--data", points, "--out", "run", *words]).settings
        samples = given.data.load()
        run, model, samples = given.begun(samples)
        assert run.config.keeping.held_out == share
        held = Trainer(model, samples, run.config).held_out
        assert (0 if held is None else len(held.data)) == round(share * len(samples))


@pytest.mark.parametrize("name", OVERRIDES)
@pytest.mark.parametrize("shape", [(2,), (1, 8, 8)])
def test_a_given_option_does_not_change_the_others(name, shape):
    samples, source = Data(normal(20, *shape)), DataConfig(source="")
    plain = RunConfig(data=source).begun(samples)[0].words()
    own = RunConfig(data=source, **OVERRIDES[name]).begun(samples)[0].words()
    assert {key for key in plain if own[key] != plain[key]} == {name}


@pytest.mark.slow
@pytest.mark.parametrize("answer", ["yes", "no"])
@pytest.mark.parametrize("shape", [(2,), (1, 8, 8)])
def test_a_given_precision_is_used_and_changes_nothing_else(shape, answer):
    samples = Data(normal(20, *shape))
    words = ["--data", "points.npz", "--out", "run"]
    plain, own = (
        Train.parse(given).settings.begun(samples)[0].words()
        for given in (words, [*words, "--bf16", answer])
    )
    assert own == {**plain, "bf16": answer}
    bare = Train.parse([*words, "--bf16"]).settings
    assert bare.train.compute.bf16 is True


def test_float16_that_is_asked_for_leaves_no_choice_of_bfloat16():
    samples, words = Data(normal(20, 1, 8, 8)), ["--data", "x.npy", "--out", "run", "--fp16"]
    compute = Train.parse(words).settings.begun(samples)[0].train.compute
    assert (compute.fp16, compute.bf16) == (True, False)


def test_bfloat16_is_for_u_nets_on_devices_that_have_it():
    half = has_bfloat16(torch.device("cpu"))
    assert suggest(normal(9, 1, 8, 8)).config.compute.bf16 == half
    assert not suggest(normal(9, 2)).config.compute.bf16
    assert not has_bfloat16(torch.device("meta"))


@pytest.mark.slow
def test_a_run_of_a_complete_file_has_no_open_options(points, tmp_path, monkeypatch, capsys):
    words = ["train", "--data", points, "--steps", "2"]
    assert main([*words, "--out", "a"]) == 0
    printed = capsys.readouterr().out
    assert "  --net mlp  for 2 numbers" in printed
    assert "  --steps 2  as given; without this option it would be" in printed
    found = tomllib.loads(Path("a/config.toml").read_text())
    assert found["net"]["type"] == "mlp"
    assert found["sde"]["type"] == "VESDE"

    def unwanted(*_, **__):
        raise AssertionError("it was asked again")

    monkeypatch.setattr(cli.config, "suggest", unwanted)
    assert main(["train", "--config", "a/config.toml", "--out", "b"]) == 0
    assert different(Path("a/model.safetensors"), Path("b/model.safetensors")) == []
    assert main([*words, "--out", "a"]) == 0  # the run in the folder is taken up again


def test_the_word_auto_leaves_an_option_open(points):
    words = ["--data", points, "--out", "run"]
    open_ones = [
        f"--{name}" for name in ("sde", "net", "channels", "law", "lr", "batch-size", "held-out")
    ]
    spelt = [*words, *(word for name in open_ones for word in (name, "auto"))]
    assert Train.parse(spelt).settings == Train.parse(words).settings
    closed = Train.parse([*words, "--attention", "--patch", "2"]).settings
    assert (closed.net.attention, closed.net.patch) == ((), 2)


def test_equal_samples_are_reported_before_anything_is_made(tmp_path, capsys):
    np.save(tmp_path / "x.npy", np.ones((9, 2), "f"))
    words = ["train", "--data", str(tmp_path / "x.npy"), "--out", str(tmp_path / "run")]
    assert main(words) == 1
    assert "are all equal, so they have no scale" in said(capsys)
    assert not (tmp_path / "run").exists()


def test_the_help_is_in_groups_with_readable_defaults(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "120")
    with pytest.raises(SystemExit, match="0"):
        main(["train", "--help"])
    text = capsys.readouterr().out
    groups = re.findall(r"^\W*(\w+) options \W*$", text, re.MULTILINE)
    assert groups == [
        *("data", "network", "objective", "training"),
        *("optimiser", "averages", "speed", "keeping"),
    ]
    shown = re.findall(r"\(default: ([^)]*)\)", text)
    assert {"auto", "1,000", "no", "none"} <= set(shown)
    assert not {"", "None", "False", "1000"} & set(shown)


def test_one_call_trains_what_is_suggested(tmp_path):
    x = normal(80, 2)
    found = suggest(x)
    by_hand = Trainer(found.model(), x, found.config.changed(steps=2), loss=found.loss())
    trainer = found.trainer(tmp_path, steps=2)
    assert "; 8 of 80 held out)" in repr(trainer)
    one, two = (which.train(progress=False).state_dict() for which in (trainer, by_hand))
    assert all(torch.equal(one[name], two[name]) for name in one)
    assert (tmp_path / "model.safetensors").is_file()
    with pytest.raises(UnknownNameError, match="stepps"):
        found.trainer(stepps=3)


def test_the_line_of_a_suggestion_leaves_out_what_only_the_samplers_of_papers_use():
    line = repr(suggest(torch.randn(60, 2, generator=torch.Generator().manual_seed(0))))
    assert "sigma_max=" in line
    assert not [name for name in ("ratio=", "levels=", "kappa=", "snr=") if name in line]
