"""Test that untrusted files are read correctly or refused with a clear error."""

import io
import json
import math
import os
import re
from functools import partial

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from scoresde import checkpoint
from scoresde.cli import main
from scoresde.cli.config import RunConfig
from scoresde.errors import (
    CheckpointError,
    InvalidValueError,
    NonFiniteError,
    ScoreSDEError,
)
from scoresde.nn import MLP, DiT, NCSNpp, NCSNv2, UNet
from scoresde.pretrained import rebuild
from scoresde.pretrained.markdown import block, code
from scoresde.score import Pilot, ScoreModel
from scoresde.sde import VESDE, Moments
from scoresde.training import TrainConfig, Trainer
from scoresde.units import Standardize

NETS = {
    "MLP": lambda: (MLP(2, hidden=(8, 8), num_classes=3, condition={"y": 4}), (2,)),
    "UNet": lambda: (
        UNet(
            1, channels=(4, 8), attention=(1,), num_classes={"label": 3, "kind": 2},
            condition={"y": (4,), "forcing": (2, 4, 4)},
        ),
        (1, 8, 8),
    ),
    "NCSNpp": lambda: (
        NCSNpp(1, 8, width=8, mult=(1, 2), blocks=1, attention=(4,)), (1, 8, 8),
    ),
    "NCSNv2": lambda: (NCSNv2(1, 8, 4), (1, 8, 8)),
    "DiT": lambda: (DiT(1, width=8, depth=1, heads=2, num_classes=3), (1, 8, 8)),
}  # fmt: skip
UNITS = {"y": (torch.arange(4.0), torch.arange(4.0) + 1)}


def model(name="MLP"):
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        net, shape = NETS[name]()
    units = UNITS if "y" in net.declared(shape) else None
    return ScoreModel(net, VESDE(), shape, condition_moments=units)


def changed(value, path, new):
    """A JSON value with another one in it."""
    if not path:
        return new
    return {**value, path[0]: changed(value.get(path[0], {}), path[1:], new)}


def forged(folder, *changes, name="MLP", spoil=lambda tensors: tensors):
    """Return a model with a changed description and a checksum that agrees."""
    model(name).save_pretrained(folder)
    path = folder / "model.safetensors"
    tensors, config = checkpoint.load_tensors(path)
    for keys, new in changes:
        config = changed(config, keys.split("."), new)
    checkpoint.save_tensors(path, spoil(tensors), config)
    return folder


def refused(folder, message):
    with pytest.raises(CheckpointError) as caught:
        ScoreModel.from_pretrained(folder)
    text = str(caught.value)
    assert re.search(message, text), text
    assert str(folder / "model.safetensors") in text
    assert len(text) < 2_000


# Larger than it is


@pytest.mark.parametrize("name", NETS)
def test_every_network_of_ours_has_an_outline(tmp_path, name):
    """All those that a file can name."""
    assert set(NETS) == set(rebuild._NETS)
    original = model(name).eval()
    original.save_pretrained(tmp_path)
    found = ScoreModel.from_pretrained(tmp_path)
    state = found.state_dict()
    assert all(torch.equal(v, state[k]) for k, v in original.state_dict().items())
    assert {p.device.type for p in found.parameters()} == {"cpu"}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "option", "value"),
    [
        ("MLP", "hidden", [2**20, 2**20]),
        ("MLP", "hidden", [2**31, 2**31]),
        ("MLP", "hidden", [8] * 200_000),
        ("MLP", "hidden", [8] * 100),
        ("MLP", "features", [2**40]),
        ("MLP", "features", [1] * 100_000 + [2]),
        ("MLP", "num_classes", 2**40),
        ("MLP", "num_classes", 10**100),
        ("UNet", "channels", [2**16] * 8),
        ("UNet", "channels", [2**62, 8]),
        ("UNet", "channels", [4] * 5_000),
        ("UNet", "channels", [4] * 60),
        ("UNet", "blocks", 200_000),
        ("UNet", "blocks", 10**12),
        ("UNet", "patch", 2**20),
        ("UNet", "patch", 10**300),
        ("UNet", "features", 2**40),
        ("UNet", "attention", list(range(100_000))),
        ("UNet", "attention", [0] * 100_000),
        ("UNet", "in_channels", 2**40),
        ("UNet", "num_classes", {"label": 3, "kind": 2**40}),
        ("MLP", "condition", {"y": 2**40}),
        ("MLP", "condition", {"y": [2**31, 2**31]}),
        ("MLP", "condition", {"y": 10**100}),
        ("MLP", "condition", {f"y{i}": 1 for i in range(100_000)}),
        ("UNet", "condition", {"y": [4], "forcing": 2**40}),
        ("UNet", "condition", {"y": [2**62], "forcing": [2, 4, 4]}),
        ("NCSNv2", "width", 2**40),
        ("NCSNv2", "channels", 2**40),
        ("DiT", "width", 2**40),
        ("DiT", "depth", 10**12),
        ("DiT", "patch", 2**40),
        ("NCSNpp", "width", 2**40),
        ("NCSNpp", "blocks", 10**12),
        ("NCSNpp", "mult", [1] * 5_000),
        ("NCSNpp", "mult", [2**40, 1]),
        ("NCSNpp", "channels", 2**40),
    ],
)
def test_a_network_is_not_larger_than_its_stored_tensors(tmp_path, name, option, value):
    folder = forged(tmp_path, (f"net.config.{option}", value), name=name)
    refused(folder, r"larger than its \d+ tensors|RuntimeError: |RecursionError|ValueError: |Over")


@pytest.mark.parametrize("fourier", [None, 16.0])
def test_the_frequencies_of_a_network_are_not_more_than_the_stored_ones(tmp_path, fourier):
    """They are not trained, and were made before the limit was checked."""
    changes = [("net.config.fourier", fourier), ("net.config.width", 2**28)]
    refused(forged(tmp_path, *changes, name="NCSNpp"), "larger than its")


@pytest.mark.parametrize("hidden", [[2**20, 2**20], [8] * 100, [8] * 2_000])
def test_nothing_is_made_in_memory_before_the_size_is_checked(tmp_path, monkeypatch, hidden):
    made = []
    folder = forged(tmp_path, ("net.config.hidden", hidden))
    real = MLP.__init__

    def watched(self, *args, **options):
        made.append(torch.empty(0).device.type)
        real(self, *args, **options)

    monkeypatch.setattr(MLP, "__init__", watched)
    refused(folder, "the network that it describes is larger than its 30 tensors")
    assert made == (["meta"] if len(hidden) < 1_000 else [])


def test_a_network_of_the_same_size_and_other_tensors_is_refused_by_their_names(tmp_path):
    refused(
        forged(tmp_path, ("net.config.num_classes", None)),
        r"does not fit MLP; 1 unexpected: net\.embedding\.label\.weight",
    )
    refused(
        forged(tmp_path, ("net.config.hidden", [8, 9])),
        r"2 missing: .* 15 of another shape: net\.\S+ is \(",
    )


# Files that are not descriptions


@pytest.mark.slow
@pytest.mark.parametrize(
    ("keys", "value", "message"),
    [
        ("event_shape", [2**40, 2**40], "its event shape is"),
        ("event_shape", [], "its event shape is"),
        ("event_shape", [0], "its event shape is"),
        ("event_shape", [-2], "its event shape is"),
        ("event_shape", [2.0], "its event shape is"),
        ("event_shape", [True, 2], "its event shape is"),
        ("event_shape", "22", "since its event_shape is"),
        ("event_shape", None, "since its event_shape is"),
        ("event_shape", [1] * 17, "its event shape is"),
        ("event_shape", [3], "expected x of shape"),
        ("event_shape", [2, 1], "expected x of shape"),
        ("steps", 0, "must be from 1 to 100,000"),
        ("steps", 10**12, "must be from 1 to 100,000"),
        ("steps", 2.5, "must be from 1 to 100,000"),
        ("steps", "many", "must be from 1 to 100,000"),
        ("steps", True, "must be from 1 to 100,000"),
        ("predicts", "everything", "unknown predicts"),
        ("predicts", 3, "predicts"),
        ("sde.type", "os.system", r"sde of this model has the class os\.system"),
        ("sde.levels", 10**9, "its SDE has 1,000,000,000 levels"),
        ("sde.sigma_min", [1.0] * 200_000, "more than 100,000 numbers"),
        ("sde.sigma_min", "x", "must be a number"),
        ("sde.unheard", 1, "unheard"),
        ("sde", [], ""),
        ("net", "MLP", ""),
        ("net.type", "eval", "net of this model has the class eval"),
        ("net.type", ["MLP"], ""),
        ("net.config", None, ""),
        ("net.config.dropout", 1e300, ""),
        ("net.config.unheard", 1, "unheard"),
        ("net.config.seed", -1, "seed must be an integer"),
        ("net.config.embedding", {"a": 1}, "embedding must be a string"),
        ("transform", {"type": "Standardize", "shift": [0.0] * 5, "scale": [1.0] * 5}, "5 shifts"),
        (
            "transform",
            {"type": "Range", "low": 1, "high": 0},
            "is not the description of a transform",
        ),
        ("transform", "eval", "is not the description of a transform"),
        ("pilot", {"nfe": 1}, "its pilot is damaged"),
        ("pilot", None, "its pilot is damaged"),
        ("pilot", {"nfe": 1, "unheard": 2}, "its pilot is damaged"),
    ],
)
def test_every_part_of_a_description_is_checked(tmp_path, keys, value, message):
    refused(forged(tmp_path, (keys, value)), message)


def test_fields_are_no_larger_than_a_field_may_be(tmp_path):
    """Their sizes leave no trace in the weights."""
    forcing = {"y": [4], "forcing": [2, 2**40, 2**40]}
    folder = forged(tmp_path, ("net.config.condition", forcing), name="UNet")
    refused(folder, "has conditions of more than 2,147,483,648 numbers")


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("mean_y", torch.full((4,), torch.nan), "'y' must have a finite mean"),
        ("std_y", torch.zeros(4), "a standard deviation above 0"),
        (
            "std_y",
            torch.ones(5),
            r"'y' must be numbers or broadcast to its shape \(4,\), got \(5,\)",
        ),
        ("mean_y", torch.zeros(1, 4), r"broadcast to its shape \(4,\), got \(1, 4\)"),
        ("mean_y", None, "std_y"),
        ("std_y", None, "std_y"),
        ("mean_z", torch.zeros(4), "z"),
        ("mean_label", torch.zeros(()), "label"),
    ],
)
def test_the_units_of_conditions_are_checked(tmp_path, name, value, message):
    def spoil(tensors):
        tensors |= {f"condition_units.std_{name[5:]}": torch.ones(4)} if "z" in name else {}
        tensors |= {"condition_units.std_label": torch.ones(())} if "label" in name else {}
        tensors[f"condition_units.{name}"] = value
        return {k: v for k, v in tensors.items() if v is not None}

    refused(forged(tmp_path, spoil=spoil), message)


LEAF = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
LEAF |= st.sampled_from([2**20, 2**40, 10**30, -1, 0, "", "MLP", "x" * 300, "../..", [], {}])
KEYS = [
    "event_shape", "steps", "predicts", "transform", "pilot", "sde", "sde.type", "sde.T", "sde.eps",
    "sde.levels", "sde.sigma_min", "sde.sigma_max", "net", "net.type", "net.config",
    "net.config.features", "net.config.hidden", "net.config.embedding", "net.config.seed",
    "net.config.num_classes", "net.config.condition", "net.config.dropout",
    "parameters", "training", "license", "classes",
]  # fmt: skip


@pytest.mark.slow
@given(
    keys=st.sampled_from(KEYS),
    value=LEAF | st.lists(LEAF, max_size=4) | st.dictionaries(st.sampled_from("ab"), LEAF),
)
def test_any_description_is_read_or_refused_in_a_sentence(tmp_path_factory, keys, value):
    folder = forged(tmp_path_factory.mktemp("model"), (keys, value))
    message = f"{folder / 'model.safetensors'}"
    try:
        found = ScoreModel.from_pretrained(folder)
    except CheckpointError as error:
        message = str(error)
    else:
        assert found(torch.zeros(1, 2), 0.5).isfinite().all()
    assert str(folder / "model.safetensors") in message
    assert len(message) < 2_000


# Files that are not weights


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("name", ["net.head.bias", "mean", "var"])
def test_weights_that_are_not_finite_are_refused(tmp_path, bad, name):
    def spoil(tensors):
        tensors[name].view(-1)[-1:] = bad
        return tensors

    refused(forged(tmp_path, spoil=spoil), "NaN or infinit|finite|variance must be positive")


@pytest.mark.parametrize(
    "dtype", [torch.int32, torch.uint8, torch.bool, torch.complex64, torch.float8_e4m3fn]
)
@pytest.mark.parametrize("name", ["net.head.bias", "var"])
def test_weights_of_another_kind_of_numbers_are_refused(tmp_path, dtype, name):
    def spoil(tensors):
        return {**tensors, name: torch.ones(tensors[name].shape).to(dtype)}

    refused(forged(tmp_path, spoil=spoil), "1 of another kind of numbers: |must be real|isfinite")


def test_a_number_beyond_the_precision_that_reads_it_is_refused(tmp_path):
    def spoil(tensors):
        return {**tensors, "net.head.bias": torch.full((2,), 1e300, dtype=torch.float64)}

    refused(forged(tmp_path, spoil=spoil), r"NaN or infinite, in 1 tensors, .* net\.head\.bias")


def test_a_model_that_could_not_be_read_back_is_not_written(tmp_path):
    made = model()
    with torch.no_grad():
        made.net.head.bias[0] = 1e6
    made.save_pretrained(tmp_path)
    with pytest.raises(NonFiniteError, match=r"net\.head\.bias of up to 1e\+06 are too large"):
        made.save_pretrained(tmp_path, dtype=torch.float16)
    with torch.no_grad():
        made.net.head.bias[0] = math.nan
    with pytest.raises(NonFiniteError, match=r"'net\.head\.bias' is not finite as torch.float32"):
        made.save_pretrained(tmp_path)
    assert ScoreModel.from_pretrained(tmp_path).net.head.bias[0] == 1e6


def test_a_pilot_of_other_numbers_is_refused(tmp_path):
    made = model()
    made.pilot = Pilot.measure(torch.arange(6.0) - 3, torch.eye(6), Moments(0.0, var=1.0), 6)
    made.transform = Standardize((0.0, 1.0), (1.0, 2.0))
    made.save_pretrained(tmp_path)
    assert ScoreModel.from_pretrained(tmp_path).pilot is not None
    path = tmp_path / "model.safetensors"
    tensors, config = checkpoint.load_tensors(path)
    for name, value in (
        ("pilot.levels", torch.zeros(6)),
        ("pilot.levels", torch.arange(6)),
        ("pilot.factor", torch.full((6, 6), math.nan)),
        ("pilot.mean", torch.zeros(5)),
        ("pilot.factor", torch.eye(6) + 1j),
    ):
        checkpoint.save_tensors(path, {**tensors, name: value}, config)
        refused(tmp_path, "its pilot is damaged, or was not written by scoresde")


# Paths that are not regular files


@pytest.mark.skipif(os.name != "posix", reason="needs named pipes")
def test_a_pipe_or_a_device_is_refused_as_a_model_and_does_not_block(tmp_path):
    os.mkfifo(tmp_path / "model.safetensors")
    for path in (tmp_path, tmp_path / "model.safetensors", "/dev/zero"):
        with pytest.raises(CheckpointError, match="it is a pipe or a device"):
            ScoreModel.from_pretrained(path)
    os.mkfifo(tmp_path / "config.toml")
    with pytest.raises(InvalidValueError, match="it is a pipe or a device"):
        RunConfig.read(tmp_path / "config.toml")


def test_a_file_larger_than_the_memory_is_refused_with_its_size(tmp_path, monkeypatch):
    class Endless(io.BytesIO):
        def fileno(self):
            return descriptor

        def read(self, *_):
            raise MemoryError

    with open(tmp_path / "model.safetensors", "wb") as file:
        file.truncate(2**40)  # a hole, which takes no room
        descriptor = file.fileno()
        monkeypatch.setattr("scoresde.checkpoint.files.open_file", lambda _: Endless())
        with pytest.raises(CheckpointError, match=r"has 1,099,511,627,776 bytes, more than fit"):
            ScoreModel.from_pretrained(tmp_path)


def test_a_header_of_any_length_is_refused_before_it_is_parsed(tmp_path, monkeypatch):
    text = json.dumps({"x": "y" * 2**24}).encode()
    path = tmp_path / "model.safetensors"
    path.write_bytes(len(text).to_bytes(8, "little") + text)
    parsed = []
    monkeypatch.setattr("scoresde.checkpoint.tensors.parse", parsed.append)
    with pytest.raises(CheckpointError, match=r"model\.safetensors .* its header is damaged"):
        ScoreModel.from_pretrained(tmp_path)
    assert parsed == []
    with pytest.raises(InvalidValueError, match=r"at most 16,777,216 can be read back"):
        checkpoint.save_tensors(path, {}, {"x": "y" * 2**24})
    (tmp_path / "a.json").write_bytes(text)
    with pytest.raises(CheckpointError, match=r"a\.json has 16,\S+ bytes; at most 16,777,216"):
        checkpoint.read_json(tmp_path / "a.json")


@pytest.mark.parametrize(
    "text",
    [
        "a = " + "[" * 100_000 + "]" * 100_000,
        "a = " + "{a = " * 100_000 + "1" + "}" * 100_000,
        "[data]\nsource" + ".a" * 100_000 + " = 1",
        "[data]\nsource" + ".a" * 5_000 + " = 1",
        "[" + "a." * 50_000 + "a]",
        "a = 1\n" * 2**20,
        "a = " + "9" * 5_000,
        "\x00",
    ],
)
def test_any_toml_is_read_or_refused_in_a_sentence(tmp_path, text):
    (tmp_path / "config.toml").write_text(text)
    with pytest.raises(ScoreSDEError, match=r"config\.toml") as caught:
        RunConfig.read(tmp_path / "config.toml")
    assert len(str(caught.value)) < 1_000


# How names of files are printed


@pytest.mark.parametrize("foreign", [True, False])
def test_text_of_a_file_contains_no_control_characters_for_a_terminal(tmp_path, capsys, foreign):
    evil = "\x1b]0;owned\x07\x1b[2J"
    changes = [("average", {"profile": evil}), ("transform", evil), ("net.config.embedding", evil)]
    if foreign:
        changes += [("net.type", evil), ("sde.type", evil), ("predicts", evil)]
    forged(tmp_path, *changes)
    main(["info", str(tmp_path)])
    main(["sample", str(tmp_path), "--out", str(tmp_path / "x.npy")])
    shown = capsys.readouterr()
    assert "owned" in shown.out + shown.err
    assert "\x1b" not in shown.out + shown.err
    assert "Traceback" not in shown.err


@pytest.mark.slow
@pytest.mark.parametrize("keys", ["event_shape", "steps", "sde", "net", "predicts", "transform"])
@pytest.mark.parametrize("value", [["a"], {"a": 1}, "a", -1, None, {"type": ["a"]}])
def test_a_description_of_a_model_is_shown_or_refused(tmp_path, capsys, keys, value):
    forged(tmp_path, ("net.type", "Mine"), (keys, value))
    main(["info", str(tmp_path)])
    message = capsys.readouterr().err
    assert not message or re.match(r"scoresde: error: (?!\w+(Error|Exception):)", message), message


WORDS = st.text(st.sampled_from("`|\\ab\n#<[~ *"), max_size=20)


@given(text=WORDS)
def test_no_text_ends_the_code_block_that_contains_it(text):
    span = code(text)
    fence = re.match("`+", span)[0]
    assert span.endswith(fence)
    inside = span[len(fence) : -len(fence)]
    assert len(fence) not in {len(run) for run in re.findall("`+", inside)}
    assert not set("|\n") & set(span)
    first, *lines, last = block("toml", text).splitlines()
    fence = first.removesuffix("toml")
    assert last == fence
    assert not any(line.lstrip().startswith(fence) for line in lines)


# Names


def test_a_misspelt_path_is_reported_at_once(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    model().save_pretrained("runs/exp10")
    asked = []
    monkeypatch.setattr("scoresde.pretrained.hub.fetch", lambda name: asked.append(name) or 1 / 0)
    with pytest.raises(CheckpointError) as caught:
        ScoreModel.from_pretrained("runs/exp1")
    assert "but there is a folder 'runs'; did you mean 'runs/exp10'?" in str(caught.value)
    assert "'runs/exp1@main'" in str(caught.value)
    with pytest.raises(CheckpointError, match=r"there is a folder 'runs'; for a model on the hub"):
        ScoreModel.from_pretrained("runs/quite-another")
    assert asked == []
    for name in ("runs/exp1@main", "somebody/exp1"):
        with pytest.raises(ZeroDivisionError):
            ScoreModel.from_pretrained(name)
    assert asked == ["runs/exp1@main", "somebody/exp1"]


def test_numbers_of_numpy_in_a_description_come_back(tmp_path):
    model().save_pretrained(tmp_path, found=np.float32(0.5))
    assert checkpoint.read_json(tmp_path / "config.json")["found"] == 0.5


# A checkpoint, forged or of another name


def points():
    with torch.random.fork_rng(devices=[]):
        return ScoreModel(MLP(2, hidden=(4,)), VESDE(), (2,))


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    config = TrainConfig(steps=2, batch_size=4).changed(held_out=0.5)
    begin = partial(Trainer, data=torch.eye(8)[:, :2].clone(), config=config, folder=folder)
    begin(points()).train(progress=False)
    return begin, folder / "step-00000002.safetensors"


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("what", ["step", "config", "held_out", "config.steps"])
@pytest.mark.parametrize("value", ["x", -1, 10**30, True, 1.5, [1], {"a": 1}, 1])
def test_a_checkpoint_that_no_run_wrote_is_refused(run, what, value):
    begin, path = run
    raw = path.read_bytes()
    tensors, meta = checkpoint.load_tensors(path)
    name, _, inner = what.partition(".")
    meta[name] = {**meta[name], inner: value} if inner else value
    checkpoint.save_tensors(path, tensors, meta)
    try:
        with pytest.raises((CheckpointError, InvalidValueError)):
            begin(points())
    finally:
        path.write_bytes(raw)
    assert begin(points()).finished


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("key", ["exp_avg", "step"])
@pytest.mark.parametrize(
    "spoil",
    [
        lambda x: x.new_zeros(3, 7),
        lambda x: x.long(),
        lambda x: x[None],
        lambda x: None,
    ],
    ids=["shape", "integers", "axis", "missing"],
)
def test_the_state_of_an_optimiser_of_other_weights_is_refused(run, key, spoil):
    begin, path = run
    raw = path.read_bytes()
    tensors, meta = checkpoint.load_tensors(path)
    name = f"optimizer.0.{key}"
    tensors[name] = spoil(tensors[name])
    checkpoint.save_tensors(path, {k: v for k, v in tensors.items() if v is not None}, meta)
    try:
        with pytest.raises(CheckpointError, match="is not a checkpoint of this run"):
            begin(points())
    finally:
        path.write_bytes(raw)
