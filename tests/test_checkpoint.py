"""Test that checkpoints are read bit for bit, and damaged checkpoints are refused."""

import errno
import hashlib
import json
import math
import os
import random
import subprocess
import sys
from unittest import mock

import numpy as np
import pytest
import safetensors.torch
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from scoresde import checkpoint
from scoresde.checkpoint import tensors as tensors_file
from scoresde.errors import CheckpointError, InvalidTypeError, InvalidValueError

DTYPES = sorted(tensors_file._DTYPES, key=str)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
    # A lone surrogate is no text.
    | st.text(st.characters(exclude_categories=["Cs"]), max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("ab", max_size=3), inner),
    max_leaves=6,
)  # fmt: skip


def bits(tensor):
    return tensor.contiguous().reshape(-1).view(torch.uint8)


def tensors_of(seed, dtype, shape):
    g = torch.Generator().manual_seed(seed)
    x = torch.randint(-100, 100, shape, generator=g).to(dtype)
    return {"x": x, "view": x.T if x.ndim == 2 else x, "none": x.new_empty(0, 3)}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("checkpoints")


@pytest.fixture(scope="module")
def good(folder):
    path = folder / "good.safetensors"
    checkpoint.save_tensors(path, tensors_of(0, torch.float32, (3, 2)), {"step": 7, "lr": 0.1})
    return path.read_bytes()


def header_and_data(raw):
    end = 8 + int.from_bytes(raw[:8], "little")
    return json.loads(raw[8:end]), raw[end:]


def with_header(header, data=b""):
    """Return a safetensors file of any header, given as JSON or as text."""
    text = (header if isinstance(header, str) else json.dumps(header)).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text + data


def of_schema_1(path):
    """The file as it was written before there were numbers."""
    tensors, meta = checkpoint.load_tensors(path)
    text = json.dumps(meta)
    digest = hashlib.sha256(text.encode())
    for name in sorted(tensors):
        value = tensors[name]
        digest.update(f"\n{name} {value.dtype} {tuple(value.shape)}\n".encode())
        digest.update(bytes(bits(value).tolist()))
    header = {"format": "scoresde-1", "meta": text, "sha256": digest.hexdigest()}
    return safetensors.torch.save(tensors, header)


def step_files(path):
    return [file.name for file in sorted(path.glob("step-*"))]


@pytest.mark.slow
@pytest.mark.law(61)
@given(
    seed=st.integers(0, 2**31),
    dtype=st.sampled_from(DTYPES),
    shape=st.lists(st.integers(1, 4), max_size=3).map(tuple),
    meta=st.dictionaries(st.text("xyz", max_size=4), JSON, max_size=3),
)
def test_a_saved_state_is_loaded_bit_for_bit(folder, seed, dtype, shape, meta):
    path = folder / "round_trip.safetensors"
    saved = tensors_of(seed, dtype, shape)
    checkpoint.save_tensors(path, saved, meta)
    loaded, found = checkpoint.load_tensors(path)
    assert found == meta
    assert loaded.keys() == saved.keys()
    for name, value in saved.items():
        assert loaded[name].dtype == value.dtype
        assert loaded[name].shape == value.shape
        assert torch.equal(bits(loaded[name]), bits(value))


def test_nan_tensors_keep_their_bits(folder):
    nan = torch.tensor([math.nan, -math.inf, -0.0])
    checkpoint.save_tensors(folder / "nan.safetensors", {"x": nan})
    assert torch.equal(bits(checkpoint.load_tensors(folder / "nan.safetensors")[0]["x"]), bits(nan))


def assert_detected_or_harmless(path, saved, meta):
    """Reading the file raises our error, or returns what was saved, bit for bit."""
    try:
        tensors, found = checkpoint.load_tensors(path)
    except CheckpointError:
        return
    assert found == meta
    assert tensors.keys() == saved.keys()
    for name, value in saved.items():
        assert (tensors[name].dtype, tensors[name].shape) == (value.dtype, value.shape)
        assert torch.equal(bits(tensors[name]), bits(value))


@pytest.mark.slow
@pytest.mark.parametrize("number", [1, 2])
def test_a_thousand_random_damages_are_detected_or_harmless(folder, number):
    path = folder / "damaged.safetensors"
    saved, meta = tensors_of(0, torch.float32, (3, 2)), {"step": 7, "lr": 0.1}
    checkpoint.save_tensors(path, saved, meta)
    good = path.read_bytes() if number == 2 else of_schema_1(path)
    path.write_bytes(good)
    assert checkpoint.schema(path) == number
    chance = random.Random(number)
    for _ in range(1000):
        damaged = bytearray(good)
        kind, place = chance.randrange(4), chance.randrange(len(good))
        if kind == 0:
            damaged[place] ^= 1 << chance.randrange(8)
        elif kind == 1:
            damaged[place] = chance.randrange(256)
        elif kind == 2:
            del damaged[place:]
        else:
            damaged[place:place] = chance.randbytes(chance.randrange(1, 9))
        path.write_bytes(damaged)
        assert_detected_or_harmless(path, saved, meta)


@pytest.mark.parametrize("size", range(10))  # about the end of the header's length
def test_a_file_of_a_few_bytes_is_truncated(folder, good, size):
    path = folder / "few.safetensors"
    path.write_bytes(good[:size])
    with pytest.raises(CheckpointError, match=rf"is truncated: it has {size} bytes"):
        checkpoint.load_tensors(path)


@given(cut=st.floats(0, 1, exclude_max=True))
def test_every_truncation_is_detected(folder, good, cut):
    path = folder / "cut.safetensors"
    path.write_bytes(good[: int(cut * len(good))])
    with pytest.raises(CheckpointError, match=r"cut\.safetensors is truncated: it has"):
        checkpoint.load_tensors(path)


@given(place=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7))
def test_every_flipped_bit_is_detected(folder, good, place, bit):
    path = folder / "flipped.safetensors"
    damaged = bytearray(good)
    damaged[int(place * len(good))] ^= 1 << bit
    path.write_bytes(damaged)
    with pytest.raises(CheckpointError, match=r"flipped\.safetensors"):
        checkpoint.load_tensors(path)


@pytest.mark.parametrize(
    "entry",
    [
        {"dtype": "F32", "shape": [2**40], "data_offsets": [0, 2**42]},
        {"dtype": "F32", "shape": [2**40], "data_offsets": [0, 8]},
        {"dtype": "F32", "shape": [2**62, 2**62], "data_offsets": [0, 8]},
        {"dtype": "F32", "shape": [-2], "data_offsets": [0, 8]},
        {"dtype": "F32", "shape": [2], "data_offsets": [8, 0]},
        {"dtype": "F32", "shape": [2], "data_offsets": [0, 1e999]},
        {"dtype": "F32", "shape": [2], "data_offsets": []},
        {"dtype": "F33", "shape": [2], "data_offsets": [0, 8]},
        {"shape": [2], "data_offsets": [0, 8]},
        8,
    ],
)
def test_a_header_that_claims_the_impossible_is_refused(tmp_path, entry):
    path = tmp_path / "claim.safetensors"
    path.write_bytes(with_header({"x": entry}, bytes(8)))
    with pytest.raises(CheckpointError, match=r"claim\.safetensors"):
        checkpoint.load_tensors(path)


@pytest.mark.parametrize(
    "header", ["[" * 100_000, '{"a":' * 100_000, "[]", "{}", '{"a": NaN}', '"x"', "\ud83d"]
)
def test_a_header_that_is_no_header_is_refused(tmp_path, header):
    path = tmp_path / "odd.safetensors"
    path.write_bytes(with_header(header.encode("utf-8", "surrogatepass").decode("latin-1")))
    with pytest.raises(CheckpointError, match=r"odd\.safetensors"):
        checkpoint.load_tensors(path)


@pytest.mark.parametrize("text", ["[" * 100_000 + "]" * 100_000, "[1]", '{"a": 1, "a": 2}'])
def test_unusual_json_is_refused_even_if_the_checksum_agrees(tmp_path, text):
    path = tmp_path / "odd.safetensors"
    digest = hashlib.sha256(f"2\n{text}".encode()).hexdigest()
    ours = {"format": "scoresde", "schema": "2", "meta": text, "sha256": digest}
    path.write_bytes(with_header({"__metadata__": ours}))
    with pytest.raises(CheckpointError, match=r"odd\.safetensors .* is damaged"):
        checkpoint.load_tensors(path)


def test_a_tensor_that_occurs_twice_is_refused(folder, good):
    path = folder / "twice.safetensors"
    end = 8 + int.from_bytes(good[:8], "little")
    text = good[8:end].decode().rstrip()
    entry = '"x":{"dtype":"F32","shape":[3,2],"data_offsets":[0,24]}'
    path.write_bytes(with_header(text[:-1] + "," + entry + "}", good[end:]))
    with pytest.raises(CheckpointError, match="its header is damaged"):
        checkpoint.load_tensors(path)


def test_a_file_stores_its_schema(folder, good):
    header, _ = header_and_data(good)
    assert header["__metadata__"]["format"] == "scoresde"
    assert header["__metadata__"]["schema"] == str(checkpoint.SCHEMA)
    assert checkpoint.schema(folder / "good.safetensors") == checkpoint.SCHEMA == 2


def test_a_file_of_the_first_schema_is_still_read(folder, good):
    path = folder / "first.safetensors"
    path.write_bytes(of_schema_1(folder / "good.safetensors"))
    tensors, meta = checkpoint.load_tensors(path)
    assert (checkpoint.schema(path), meta) == (1, {"step": 7, "lr": 0.1})
    expected = checkpoint.load_tensors(folder / "good.safetensors")[0]
    assert all(torch.equal(tensors[name], value) for name, value in expected.items())


@pytest.mark.parametrize("number", ["3", "12345678901234567890"])
def test_a_file_of_a_newer_schema_is_refused_as_such(folder, good, number):
    header, data = header_and_data(good)
    header["__metadata__"]["schema"] = number
    path = folder / "newer.safetensors"
    path.write_bytes(with_header(header, data))
    with pytest.raises(
        checkpoint.NewerError, match=r"was written by a newer scoresde: its schema is .* --upgrade"
    ):
        checkpoint.load_tensors(path)


@pytest.mark.parametrize("number", ["0", "1", "-2", "2.0", "²", ""])
def test_a_number_that_is_no_schema_is_refused(folder, good, number):
    header, data = header_and_data(good)
    header["__metadata__"]["schema"] = number
    path = folder / "no_schema.safetensors"
    path.write_bytes(with_header(header, data))
    with pytest.raises(CheckpointError, match="that scoresde did not write"):
        checkpoint.load_tensors(path)


@pytest.mark.parametrize("size", [640, 1152, 19280])
def test_a_header_whose_length_looks_like_a_pickle_is_read(tmp_path, size):
    """The length is the file's beginning: 640 is the bytes 80 02, as in a pickle."""
    path = tmp_path / "model.safetensors"
    checkpoint.save_tensors(path, {"x": torch.ones(2)}, {"pad": ""})
    short = int.from_bytes(path.read_bytes()[:8], "little")
    for pad in range(size - short - 16, size - short + 17):
        checkpoint.save_tensors(path, {"x": torch.ones(2)}, {"pad": "x" * max(pad, 0)})
        if int.from_bytes(path.read_bytes()[:8], "little") == size:
            break
    assert int.from_bytes(path.read_bytes()[:8], "little") == size
    assert torch.equal(checkpoint.load_tensors(path)[0]["x"], torch.ones(2))


def test_numbers_that_are_read_as_another_type_are_detected(folder, good):
    path = folder / "retyped.safetensors"
    assert good.count(b'"F32"') > 0
    path.write_bytes(good.replace(b'"F32"', b'"I32"'))
    with pytest.raises(CheckpointError, match="is damaged: its SHA-256 is"):
        checkpoint.load_tensors(path)


def test_a_truncated_file_is_reported_with_its_size_and_the_expected_one(folder, good):
    path = folder / "short.safetensors"
    path.write_bytes(good[:-5])
    with pytest.raises(CheckpointError, match=f"has {len(good) - 5} bytes, expected {len(good)};"):
        checkpoint.load_tensors(path)


@pytest.mark.parametrize("name", ["model.pt", "model.pth", "model.ckpt", "pytorch_model.bin"])
def test_a_pickle_is_refused_by_its_name(tmp_path, name):
    (tmp_path / name).write_bytes(b"anything")
    with pytest.raises(CheckpointError, match=f"{name} is a pickle, which can run any code"):
        checkpoint.load_tensors(tmp_path / name)


@pytest.mark.parametrize("start", [b"PK\x03\x04", b"\x80\x02}q", b"\x80\x04\x95"])
def test_a_pickle_is_refused_by_its_content(tmp_path, start):
    path = tmp_path / "model.safetensors"
    path.write_bytes(start + bytes(100))
    with pytest.raises(CheckpointError, match="if you trust it, with"):
        checkpoint.load_tensors(path)


def test_a_file_of_another_library_is_refused_and_named(tmp_path):
    path = tmp_path / "unet.safetensors"
    safetensors.torch.save_file({"down_blocks.0.weight": torch.zeros(2)}, path)
    with pytest.raises(CheckpointError, match=r"did not write .* those of diffusers"):
        checkpoint.load_tensors(path)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(CheckpointError, match=r"there is no file .*nowhere\.safetensors"):
        checkpoint.load_tensors(tmp_path / "nowhere.safetensors")
    with pytest.raises(CheckpointError, match=r"cannot read .*: Is a directory"):
        checkpoint.load_tensors(tmp_path)
    with pytest.raises(CheckpointError, match=r"cannot read .*: embedded null byte"):
        checkpoint.load_tensors("a\0b")


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_number_that_json_lacks_is_refused(tmp_path, value):
    with pytest.raises(InvalidValueError, match="cannot be stored as JSON"):
        checkpoint.write_json(tmp_path / "a.json", {"a": value})
    with pytest.raises(InvalidValueError, match="cannot be stored as JSON"):
        checkpoint.save_tensors(tmp_path / "a.safetensors", {}, {"a": value})
    assert list(tmp_path.iterdir()) == []


def test_numpy_scalars_become_plain_numbers(tmp_path):
    path = tmp_path / "a.json"
    checkpoint.write_json(path, {"a": np.float32(0.5), "b": np.int64(3), "c": np.bool_(True)})
    assert checkpoint.read_json(path) == {"a": 0.5, "b": 3, "c": True}


@pytest.mark.parametrize(
    ("tensors", "error"),
    [
        ({"x": [1, 2]}, InvalidTypeError),
        ([torch.ones(1)], InvalidTypeError),
        ({"x": torch.ones(2).to_sparse()}, InvalidTypeError),
        ({"x": torch.empty(2, device="meta")}, InvalidTypeError),
        ({"x": torch.ones(2, dtype=torch.complex128)}, InvalidTypeError),
        ({3: torch.ones(1)}, InvalidValueError),
        ({"\ud800": torch.ones(1)}, InvalidValueError),
        ({"__metadata__": torch.ones(1)}, InvalidValueError),
    ],
)
def test_tensors_that_could_not_be_read_back_are_not_written(tmp_path, tensors, error):
    path = tmp_path / "a.safetensors"
    checkpoint.save_tensors(path, {"x": torch.zeros(1)})
    with pytest.raises(error, match=r"cannot (be stored|store)"):
        checkpoint.save_tensors(path, tensors)
    assert torch.equal(checkpoint.load_tensors(path)[0]["x"], torch.zeros(1))


def test_meta_that_is_no_object_is_refused(tmp_path):
    with pytest.raises(InvalidTypeError, match=r"expected a JSON object, got \[1\]"):
        checkpoint.save_tensors(tmp_path / "a.safetensors", {}, [1])
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("step", "keep"), [(-1, 2), (1.5, 2), (1, 0)])
def test_steps_and_numbers_to_keep_are_checked(tmp_path, step, keep):
    with pytest.raises(InvalidValueError, match="must be an integer >= "):
        checkpoint.save_step(tmp_path, step, {}, {}, keep=keep)
    assert list(tmp_path.iterdir()) == []


def test_an_object_that_json_lacks_is_refused(tmp_path):
    with pytest.raises(InvalidTypeError, match=r"cannot store .* \(PosixPath\) as JSON"):
        checkpoint.write_json(tmp_path / "a.json", {"a": tmp_path})


@pytest.mark.parametrize(
    "text",
    ["[1]", "{", '{"a": NaN}', '{"a": 1e999}', "", "\xff", '{"a": 1, "a": 1}', '{"a":' * 100_000],
)
def test_a_file_that_is_no_json_object_is_refused(tmp_path, text):
    (tmp_path / "a.json").write_text(text, encoding="latin-1")
    with pytest.raises(CheckpointError, match=r"a\.json (is not valid JSON|holds a JSON list)"):
        checkpoint.read_json(tmp_path / "a.json")


def deep():
    value = {}
    for _ in range(100_000):
        value = {"a": value}
    return value


@pytest.mark.parametrize("value", [{1: 0, "1": 0}, {"a": {None: 0, "null": 0}}, deep()])
def test_json_that_could_not_be_read_back_is_not_written(tmp_path, value):
    with pytest.raises(InvalidValueError, match="cannot be stored as JSON"):
        checkpoint.save_tensors(tmp_path / "a.safetensors", {}, value)
    assert list(tmp_path.iterdir()) == []


def test_a_crash_before_the_rename_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "a.safetensors"
    checkpoint.save_tensors(path, {"x": torch.zeros(2)})

    def crash(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", crash)
    with pytest.raises(KeyboardInterrupt):
        checkpoint.save_tensors(path, {"x": torch.ones(2)})
    assert torch.equal(checkpoint.load_tensors(path)[0]["x"], torch.zeros(2))
    assert [file.name for file in tmp_path.iterdir()] == ["a.safetensors"]


def test_a_file_is_complete_on_the_disk_before_it_takes_its_name(tmp_path, monkeypatch):
    events = []
    fsync, replace = os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda f: (events.append("fsync"), fsync(f)))
    monkeypatch.setattr(os, "replace", lambda a, b: (events.append("replace"), replace(a, b)))
    checkpoint.write_json(tmp_path / "a.json", {})
    assert events == ["fsync", "replace", "fsync"]


def test_a_full_disk_keeps_the_old_checkpoint(tmp_path, monkeypatch):
    checkpoint.save_step(tmp_path, 1, {"x": torch.zeros(2)}, {}, keep=2)

    def full(_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(CheckpointError, match="device; an older file there, if any"):
        checkpoint.save_step(tmp_path, 2, {"x": torch.ones(2)}, {}, keep=2)
    path, tensors, _ = checkpoint.latest(tmp_path)
    assert path.name == "step-00000001.safetensors"
    assert torch.equal(tensors["x"], torch.zeros(2))
    assert len(list(tmp_path.iterdir())) == 1


@pytest.mark.skipif(os.name != "posix", reason="file modes are those of POSIX")
def test_a_replaced_file_keeps_its_mode(tmp_path):
    path = tmp_path / "a.json"
    checkpoint.write_json(path, {})
    path.chmod(0o640)
    checkpoint.write_json(path, {"a": 1})
    assert path.stat().st_mode & 0o777 == 0o640


def failing(monkeypatch, name, errors):
    """Let an `os` function fail with these errors in turn, and then work; returns its calls."""
    real, calls = getattr(os, name), []

    def fail(*args, **options):
        calls.append(args)
        if len(calls) <= len(errors):
            number = errors[len(calls) - 1]
            raise OSError(number, os.strerror(number))
        return real(*args, **options)

    monkeypatch.setattr(os, name, fail)
    return calls


def test_a_write_that_fails_once_is_repeated(tmp_path, monkeypatch):
    calls = failing(monkeypatch, "replace", [errno.ESTALE])
    checkpoint.write_json(tmp_path / "a.json", {"a": 1})
    assert (len(calls), checkpoint.read_json(tmp_path / "a.json")) == (2, {"a": 1})


@pytest.mark.parametrize("errors", [[errno.EIO, errno.EIO], [errno.ENOSPC], [errno.EROFS]])
def test_a_disk_that_is_missing_or_full_is_an_error(tmp_path, monkeypatch, errors):
    calls = failing(monkeypatch, "replace", errors)
    with pytest.raises(CheckpointError, match=f"{os.strerror(errors[-1])}; an older file"):
        checkpoint.write_json(tmp_path / "a.json", {"a": 1})
    assert len(calls) == len(errors)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("answer", [errno.EINVAL, errno.EBADF, errno.ENOSYS, errno.ENOTSUP])
@pytest.mark.parametrize("only_folders", [True, False])
def test_a_file_system_that_cannot_flush_is_accepted(tmp_path, monkeypatch, answer, only_folders):
    fsync = os.fsync

    def flush(descriptor):
        if not only_folders or os.path.isdir(f"/proc/self/fd/{descriptor}"):
            raise OSError(answer, os.strerror(answer))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", flush)
    checkpoint.write_json(tmp_path / "a.json", {"a": 1})
    assert checkpoint.read_json(tmp_path / "a.json") == {"a": 1}


def test_a_file_that_cannot_be_removed_is_left(tmp_path, monkeypatch):
    for step in (1, 2):
        checkpoint.save_step(tmp_path, step, {}, {}, keep=2)
    (tmp_path / f".scoresde-{'0' * 32}.tmp").write_text("half")
    denied = OSError(errno.EACCES, os.strerror(errno.EACCES))
    monkeypatch.setattr(type(tmp_path), "unlink", mock.Mock(side_effect=denied))
    checkpoint.clean(tmp_path)
    monkeypatch.undo()
    failing(monkeypatch, "unlink", [errno.EROFS] * 9)
    assert len(list(tmp_path.iterdir())) == 3


def test_a_folder_that_cannot_be_read_is_no_empty_folder(tmp_path, monkeypatch):
    checkpoint.save_step(tmp_path, 1, {}, {}, keep=2)
    failing(monkeypatch, "listdir", [errno.EACCES])
    with pytest.raises(CheckpointError, match=r"cannot read the folder .*: Permission denied"):
        checkpoint.latest(tmp_path)


def test_the_last_checkpoints_are_kept(tmp_path):
    for step in (5, 10, 15, 100000000):
        checkpoint.save_step(tmp_path, step, {}, {"step": step}, keep=2)
    assert step_files(tmp_path) == ["step-00000015.safetensors", "step-100000000.safetensors"]
    assert checkpoint.latest(tmp_path)[2] == {"step": 100000000}


def test_a_folder_without_checkpoints_has_no_latest(tmp_path):
    assert checkpoint.latest(tmp_path / "nowhere") is None


def test_a_damaged_newest_checkpoint_falls_back_to_the_one_before(tmp_path):
    for step in (1, 2):
        checkpoint.save_step(tmp_path, step, {"x": torch.ones(4)}, {"step": step}, keep=2)
    newest = tmp_path / "step-00000002.safetensors"
    newest.write_bytes(newest.read_bytes()[:-1])
    with pytest.warns(
        RuntimeWarning, match="step-00000002.* is truncated.*continuing from step-.*1"
    ):
        path, _, meta = checkpoint.latest(tmp_path)
    assert (path.name, meta) == ("step-00000001.safetensors", {"step": 1})


def test_a_damaged_later_checkpoint_does_not_replace_a_good_one(tmp_path):
    for step in (1, 2, 9):
        checkpoint.save_step(tmp_path, step, {}, {}, keep=3)
    (tmp_path / "step-00000009.safetensors").write_bytes(b"")
    checkpoint.save_step(tmp_path, 3, {}, {}, keep=2)
    names = [f"step-{step:08d}.safetensors" for step in (2, 3, 9)]
    assert step_files(tmp_path) == names


def test_a_newest_checkpoint_of_a_newer_scoresde_is_not_skipped(tmp_path, monkeypatch):
    checkpoint.save_step(tmp_path, 1, {}, {}, keep=2)
    monkeypatch.setattr("scoresde.checkpoint.tensors.SCHEMA", 3)
    checkpoint.save_step(tmp_path, 2, {}, {}, keep=2)
    assert checkpoint.latest(tmp_path)[0].name == "step-00000002.safetensors"
    monkeypatch.undo()
    with pytest.raises(checkpoint.NewerError, match=r"step-00000002.* by a newer scoresde"):
        checkpoint.latest(tmp_path)


def test_a_file_that_is_set_aside_is_kept_and_not_counted(tmp_path):
    for step in (1, 2, 3):
        checkpoint.save_step(tmp_path, step, {}, {}, keep=3)
    checkpoint.set_aside(tmp_path, after=1)
    assert [step for step, _ in checkpoint.steps_in(tmp_path)] == [1]
    assert len(list(tmp_path.glob("step-*.damaged"))) == 2


def test_training_does_not_restart_silently_if_all_checkpoints_are_damaged(tmp_path):
    checkpoint.save_step(tmp_path, 1, {}, {}, keep=2)
    (tmp_path / "step-00000001.safetensors").write_bytes(b"junk")
    with pytest.raises(CheckpointError, match="is damaged"):
        checkpoint.latest(tmp_path)


def test_a_state_with_other_names_is_refused_and_at_most_five_are_listed():
    module = nn.Sequential(*(nn.LayerNorm(2) for _ in range(4)))
    foreign = {f"module.all_modules.{i}.W": torch.zeros(1) for i in range(7)}
    with pytest.raises(CheckpointError) as caught:
        checkpoint.load_state(module, foreign, source="x.safetensors")
    message = str(caught.value)
    assert "8 missing: 0.weight, 0.bias, 1.weight, 1.bias, 2.weight, and 3 more" in message
    assert "7 unexpected: module.all_modules.0.W" in message
    assert "and 2 more" in message
    assert "score_sde_pytorch" in message


@pytest.mark.global_rng
def test_different_tensors_for_one_of_the_module_are_refused():
    """The last one loaded would be that of both names."""
    tied, apart = (nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2)) for _ in range(2))
    tied[1].weight = tied[0].weight
    with pytest.raises(CheckpointError, match=r"1 different, .* there: 0\.weight and 1\.weight"):
        checkpoint.load_state(tied, apart.state_dict(), source="x")
    checkpoint.load_state(apart, tied.state_dict(), source="x")
    checkpoint.load_state(tied, apart.state_dict(), source="x")


def test_a_partial_state_leaves_the_module_alone():
    module = nn.LayerNorm(2)
    before = {k: v.clone() for k, v in module.state_dict().items()}
    with pytest.raises(CheckpointError, match=r"1 missing: bias$"):
        checkpoint.load_state(module, {"weight": torch.zeros(2)}, source="x")
    with pytest.raises(CheckpointError, match=r"bias is \(1,\), expected \(2,\)"):
        checkpoint.load_state(
            module, {"weight": torch.zeros(2), "bias": torch.zeros(1)}, source="x"
        )
    assert all(torch.equal(v, before[k]) for k, v in module.state_dict().items())


def test_the_header_of_a_checkpoint_is_plain_safetensors(folder, good):
    with safetensors.safe_open(folder / "good.safetensors", "pt") as file:
        assert json.loads(file.metadata()["meta"]) == {"step": 7, "lr": 0.1}


@pytest.mark.long
def test_the_same_content_is_the_same_file_in_every_process(tmp_path):
    """Otherwise no two files could be compared by their bytes."""
    code = (
        "import sys, torch; from scoresde import checkpoint\n"
        "checkpoint.save_tensors(sys.argv[1], {n: torch.ones(3) for n in 'caféb'}, {'é': 1})"
    )
    files = [tmp_path / f"{k}.safetensors" for k in range(2)]
    for k, file in enumerate(files):  # in which the set has another order
        env = {**os.environ, "PYTHONHASHSEED": str(k)}
        subprocess.run([sys.executable, "-c", code, file], check=True, env=env)
    assert len({file.read_bytes() for file in files}) == 1
    assert checkpoint.load_tensors(files[0])[1] == {"é": 1}
    safetensors.torch.load_file(files[0])
