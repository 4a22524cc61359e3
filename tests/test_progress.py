"""Test progress: a bar in terminals and notebooks, and lines in a log."""

import io
import itertools
import math
import sys
import types

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from scoresde import progress
from scoresde.errors import InvalidValueError
from scoresde.progress import duration, each, showing


class Clock:
    """Define a clock that a test moves."""

    def __init__(self):
        self.now = 0.0

    def monotonic(self):
        return self.now


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(progress, "time", clock)
    return clock


class Terminal(io.StringIO):
    """Define a stream that reports to be a terminal."""

    def isatty(self):
        return True


class Full(io.StringIO):
    """Define a stream on a disk without room."""

    def write(self, text):
        raise OSError(28, "No space left on device")


def test_a_terminal_shows_a_bar(monkeypatch):
    monkeypatch.setattr(sys, "stderr", stream := Terminal())
    with showing(4, "training", keep=True) as shown:
        shown.note(loss=0.5, held_out=0.25)
        shown.update(4)
    assert "training" in stream.getvalue()
    assert "4/4" in stream.getvalue()
    assert "loss=0.5, held-out=0.25" in stream.getvalue()


def test_short_work_outside_of_a_terminal_is_silent(capfd, clock):
    with showing(4, "training") as shown:
        for _ in range(4):
            clock.now += 2
            shown.update()
    assert capfd.readouterr().err == ""


def test_long_work_outside_of_a_terminal_reports_progress_and_time(capfd, clock):
    with showing(2000, "training", done=400) as shown:
        shown.note(loss=0.5715, held_out=0.61)
        for _ in range(1600):
            clock.now += 0.125
            shown.update()
    first, *_, last = capfd.readouterr().err.splitlines()
    # 10 of 200 seconds have gone
    assert (
        first
        == "training from step 400: step 480/2,000  loss 0.572  held-out 0.61  3 min 10 s left"
    )
    assert (
        last
        == "training from step 400: step 2,000/2,000  loss 0.572  held-out 0.61  after 3 min 20 s"
    )


@given(st.floats(0.01, 100), st.integers(0, 500))
def test_lines_are_at_least_half_a_minute_apart(seconds, updates):
    clock, stream = Clock(), io.StringIO()
    written = []
    stream.write = lambda text: written.append((clock.now, text))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(progress, "time", clock)
        patch.setattr(sys, "stderr", stream)
        with showing(None, "reading", unit="sample") as shown:
            for _ in range(updates):
                clock.now += seconds
                shown.update()
    times = [when for when, _ in written[:-1]]
    assert bool(written) == (seconds * updates >= 10 and updates > 0)
    assert all(later - before >= 30 for before, later in itertools.pairwise(times))
    assert all("left" not in text for _, text in written)  # the total is unknown


@pytest.mark.parametrize("show", [None, True])
def test_a_stream_that_cannot_be_written_does_not_end_the_work(show, monkeypatch, clock):
    for stream in (Full(), None, closed := io.StringIO()):
        closed.close()
        monkeypatch.setattr(sys, "stderr", stream)
        done = []
        for item in each(range(3), "counting", show=show):
            clock.now += 100
            done.append(item)
        assert done == [0, 1, 2]


def test_a_notebook_has_a_bar_though_its_stream_is_no_terminal(monkeypatch):
    shell = types.SimpleNamespace(config={"IPKernelApp": {}})
    module = types.SimpleNamespace(get_ipython=lambda: shell)
    monkeypatch.setitem(sys.modules, "IPython", module)
    monkeypatch.setattr(sys, "stderr", stream := io.StringIO())
    assert progress.in_notebook()
    with showing(4, "sampling") as shown:
        shown.update(4)
    assert "sampling" in stream.getvalue()


@pytest.mark.parametrize("seconds", [-1.0, math.inf, math.nan])
def test_an_invalid_duration_is_refused(seconds):
    with pytest.raises(InvalidValueError, match="seconds"):
        duration(seconds)


@given(st.floats(0, 1e9))
@example(59.6)
@example(3599.9)
@example(86399.9)
def test_a_duration_has_at_most_two_units(seconds):
    sizes = {"s": 1, "min": 60, "h": 3600, "d": 86400}
    words = duration(seconds).split()
    said = sum(int(n) * sizes[unit] for n, unit in zip(words[::2], words[1::2], strict=True))
    assert len(words) in (2, 4)
    assert abs(said - seconds) <= max(0.5, seconds / 24)
