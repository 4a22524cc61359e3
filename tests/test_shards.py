"""Test samples in shards: each is drawn once, and requests are not mixed."""

import os

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from scoresde import checkpoint, distributed
from scoresde.errors import CheckpointError, InvalidValueError
from scoresde.sampling import Shards

SEED = {"seed": 3, "steps": 5}


class Drawing:
    """Define a function that draws the number i as sample i, and records its calls."""

    def __init__(self):
        self.asked = []

    def __call__(self, rows):
        self.asked.append(rows)
        return {"x": torch.tensor(rows)[:, None] * 1.0, "y": torch.tensor(rows) % 3}


def draw(folder, n, size=4, request=SEED, **options):
    shards, drawing = Shards(folder, n, size), Drawing()
    missing = shards.draw(drawing, request, **options)
    assert missing == len(drawing.asked)
    x = shards.joined()
    assert x["x"].flatten().tolist() == list(range(n))
    assert x["y"].tolist() == [i % 3 for i in range(n)]
    return [rows.start for rows in drawing.asked]


@pytest.mark.slow
@given(n=st.integers(1, 30), size=st.integers(1, 9), processes=st.integers(1, 5))
def test_every_shard_is_drawn_once_for_any_number_of_processes(
    tmp_path_factory, n, size, processes
):
    folder = tmp_path_factory.mktemp("shards")
    shards = Shards(folder, n, size)
    with pytest.MonkeyPatch.context() as patch:
        # process 0 runs last, since only it reads the existing files: here each does
        patch.setattr(distributed, "on_main", lambda action: list(range(len(shards))))
        patch.setattr(distributed, "wait", lambda: None)
        patch.setattr(distributed, "size", lambda: processes)
        asked = []
        for rank in range(processes):
            patch.setattr(distributed, "rank", lambda rank=rank: rank)
            drawing = Drawing()
            shards.draw(drawing, SEED)
            asked += drawing.asked
    assert sorted(i for rows in asked for i in rows) == list(range(n))
    assert draw(folder, n, size) == []
    shards.remove()
    assert not folder.exists()


def test_only_what_is_missing_damaged_or_too_short_is_drawn_again(tmp_path):
    assert draw(tmp_path, 10) == [0, 4, 8]
    assert draw(tmp_path, 10) == []
    (tmp_path / "shard-00000.safetensors").unlink()
    middle = tmp_path / "shard-00001.safetensors"
    middle.write_bytes(middle.read_bytes()[:-7])
    assert draw(tmp_path, 10) == [0, 4]
    assert draw(tmp_path, 15) == [8, 12]


def test_samples_of_another_request_are_refused_by_name_and_kept(tmp_path):
    draw(tmp_path, 5)
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(InvalidValueError, match=r"another request: seed was 3 and is now 4; "):
        draw(tmp_path, 5, request={**SEED, "seed": 4})
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before


@pytest.mark.parametrize("n", [9, 8, 5])
def test_a_folder_may_grow_but_holds_no_more_samples_than_requested(tmp_path, n):
    draw(tmp_path, 10)
    with pytest.raises(InvalidValueError, match=f"holds more than {n} samples, see shard-0000[12]"):
        draw(tmp_path, n)
    assert draw(tmp_path, 10) == []
    assert draw(tmp_path, n, scratch=True) in ([4], [8], [])
    assert draw(tmp_path, n) == []
    Shards(tmp_path, n, 4).remove()
    assert not tmp_path.exists()


def test_scratch_of_another_request_is_drawn_again(tmp_path):
    draw(tmp_path, 5)
    assert draw(tmp_path, 5, request={**SEED, "seed": 4}, scratch=True) == [0, 4]
    assert checkpoint.load_tensors(tmp_path / "shard-00001.safetensors")[1]["request"]["seed"] == 4


def test_an_interrupted_drawing_continues(tmp_path):
    class Interrupted(Drawing):
        def __call__(self, rows):
            if rows.start == 8:
                raise KeyboardInterrupt
            return super().__call__(rows)

    with pytest.raises(KeyboardInterrupt):
        Shards(tmp_path, 14, 4).draw(Interrupted(), SEED)
    assert draw(tmp_path, 14) == [8, 12]


def test_other_files_in_the_folder_are_kept(tmp_path):
    names = ["notes.txt", "shard-1.safetensors", "shard-mine.safetensors"]
    for name in names:
        (tmp_path / name).write_text("keep me")
    draw(tmp_path, 5)
    Shards(tmp_path, 5, 4).remove()
    assert sorted(path.name for path in tmp_path.iterdir()) == names


@pytest.mark.parametrize(
    ("tensors", "meta"),
    [
        ({"x": torch.tensor(1.0)}, {"request": SEED}),
        ({}, {"request": SEED}),
        ({"x": torch.zeros(4, 1), "y": torch.zeros(3)}, {"request": SEED}),
        ({"x": torch.zeros(4, 1)}, {"request": [1]}),
        ({"x": torch.zeros(4, 1)}, {}),
    ],
)
def test_a_shard_of_another_size_is_drawn_again_or_refused(tmp_path, tensors, meta):
    checkpoint.save_tensors(tmp_path / "shard-00000.safetensors", tensors, meta)
    if meta.get("request") == SEED:
        assert draw(tmp_path, 6) == [0, 4]
    else:
        with pytest.raises(InvalidValueError, match="another request"):
            draw(tmp_path, 6)
    assert draw(tmp_path, 6, scratch=True) in ([0, 4], [])


@pytest.mark.parametrize(
    ("tensors", "asked"),
    [
        ({"x": torch.zeros(4, 1), "y": torch.zeros(4).long()}, {**SEED, "seed": 4}),
        ({"x": torch.zeros(4, 1)}, SEED),
        ({"x": torch.zeros(4, 2), "y": torch.zeros(4).long()}, SEED),
        ({"x": torch.zeros(3, 1), "y": torch.zeros(3).long()}, SEED),
    ],
    ids=["seed", "names", "shape", "rows"],
)
@pytest.mark.parametrize("number", [0, 1])
def test_shards_of_two_commands_are_never_joined(tmp_path, tensors, asked, number):
    """As when both write to one file at once, and so into one folder."""
    shards = Shards(tmp_path, 8, 4)
    shards.draw(Drawing(), SEED)
    checkpoint.save_tensors(shards.path(number), tensors, {"request": asked})
    with pytest.raises(CheckpointError, match="does not fit"):
        shards.joined()


@pytest.mark.parametrize(("n", "size"), [(0, 4), (4, 0), (-1, 4), (2.5, 4)])
def test_impossible_numbers_are_refused(tmp_path, n, size):
    with pytest.raises((InvalidValueError, TypeError), match="must be an integer"):
        Shards(tmp_path, n, size)


def test_of_two_processes_one_draws_into_a_folder(tmp_path):
    """And the report of the other is not one of its samples."""
    codes = []

    class Watched(Drawing):
        def __call__(self, rows):
            if not codes:
                child = os.fork()
                if not child:
                    try:
                        Shards(tmp_path, 6, 4).draw(Drawing(), {"seed": 4}, scratch=True)
                    except CheckpointError as error:
                        os._exit("another process draws samples in" in str(error))
                    os._exit(2)
                codes.append(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
            return super().__call__(rows)

    shards = Shards(tmp_path, 6, 4)
    shards.draw(Watched(), SEED)
    assert codes == [1]
    assert shards.joined()["x"].flatten().tolist() == list(range(6))
    shards.remove()
    assert not tmp_path.exists()
