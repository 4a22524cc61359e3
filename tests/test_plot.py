"""Pictures: their pixels, the files they leave, and what they refuse to draw."""

import math
import sys

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from scoresde import plot
from scoresde.errors import (
    InvalidTypeError,
    InvalidValueError,
    MissingExtraError,
    NonFiniteError,
    ShapeError,
)
from scoresde.targets import Gaussian, TwoMoons


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def pixels(path):
    with Image.open(path) as image:
        assert image.format == "PNG"
        return np.asarray(image)


@given(
    n=st.integers(1, 7),
    channels=st.sampled_from([1, 3]),
    height=st.integers(1, 9),
    width=st.integers(1, 9),
    columns=st.none() | st.integers(1, 9),
    scale=st.integers(1, 4),
    seed=st.integers(0, 2**32 - 1),
)
def test_a_grid_holds_every_image_enlarged_in_its_place(
    tmp_path_factory, n, channels, height, width, columns, scale, seed
):
    g = generator(seed)
    levels = torch.randint(0, 256, (n, channels, height, width), generator=g)
    path = tmp_path_factory.mktemp("grid") / "grid.png"
    plot.grid(levels / 127.5 - 1, path, columns=columns, scale=scale)
    picture = pixels(path)
    columns = min(columns or math.ceil(math.sqrt(n)), n)
    rows = math.ceil(n / columns)
    high, wide, gap = height * scale, width * scale, 2
    assert picture.shape[:2] == (rows * (high + gap) + gap, columns * (wide + gap) + gap)
    assert picture.shape[2:] == (() if channels == 1 else (3,))
    for i in range(n):
        top, left = (i // columns) * (high + gap) + gap, (i % columns) * (wide + gap) + gap
        cell = picture[top : top + high, left : left + wide]
        want = levels[i].movedim(0, -1).numpy().repeat(scale, 0).repeat(scale, 1)
        np.testing.assert_array_equal(cell.reshape(high, wide, channels), want)


def test_small_images_are_enlarged_and_large_ones_are_not(tmp_path):
    for side, shown in ((8, 80), (28, 84), (32, 64), (200, 200)):
        picture = pixels(plot.grid(torch.zeros(1, 1, side, side), tmp_path / "grid.png"))
        assert picture.shape == (shown + 4, shown + 4)


def test_what_lies_outside_of_black_and_white_is_clipped(tmp_path):
    images = torch.tensor([-7.0, -1.0, 1.0, 9.0]).reshape(4, 1, 1, 1)
    picture = pixels(plot.grid(images, tmp_path / "grid.png", columns=4, scale=1))
    np.testing.assert_array_equal(picture[2, [2, 5, 8, 11]], [0, 0, 255, 255])


def test_a_grid_takes_half_precision_and_graphs(tmp_path):
    images = torch.zeros(1, 1, 2, 2, dtype=torch.bfloat16, requires_grad=True)
    assert (pixels(plot.grid(images, tmp_path / "grid.png", scale=1))[2:4, 2:4] == 128).all()


def test_folders_are_made_and_nothing_but_the_picture_stays(tmp_path):
    path = tmp_path / "a" / "b" / "grid.png"
    for _ in range(2):
        assert plot.grid(torch.zeros(1, 3, 4, 4), str(path)) == path
    assert [p.name for p in path.parent.iterdir()] == ["grid.png"]


def test_a_picture_that_cannot_be_written_leaves_the_old_one(tmp_path, monkeypatch):
    path = tmp_path / "grid.png"
    plot.grid(torch.zeros(1, 1, 4, 4), path)
    before = path.read_bytes()

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.replace", full)
    with pytest.raises(InvalidValueError, match="No space left on device"):
        plot.grid(torch.ones(1, 1, 4, 4), path)
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["grid.png"]
    monkeypatch.undo()
    with pytest.raises(InvalidValueError, match="cannot write"):
        plot.grid(torch.ones(1, 1, 4, 4), path / "below_a_file.png")


def test_a_scatter_shows_the_samples_over_their_density(tmp_path):
    samples = TwoMoons().sample(200, generator=generator())
    bare = pixels(plot.scatter(samples, tmp_path / "bare.png"))
    full = pixels(plot.scatter(samples, tmp_path / "full.png", density=TwoMoons(), title="moons"))
    away = pixels(plot.scatter(samples + 100, tmp_path / "away.png", density=TwoMoons()))

    def share(picture, colour):
        """The share of pixels that are clearly red or clearly blue."""
        red, blue = picture[..., 0].astype(int), picture[..., 2].astype(int)
        return ((red - blue if colour == "red" else blue - red) > 60).mean()

    assert share(bare, "red") > 0.003
    assert share(bare, "blue") == 0
    assert share(full, "red") > 0.003
    assert share(full, "blue") > 0.03
    assert share(away, "red") == 0  # the frame is the density's
    assert share(away, "blue") > 0.03


def test_one_sample_that_ran_away_does_not_shrink_the_others(tmp_path):
    samples = torch.randn(1000, 2, generator=generator())
    samples[0] = 1e9
    picture = pixels(plot.scatter(samples, tmp_path / "scatter.png"))
    reds = np.argwhere(picture[..., 0].astype(int) - picture[..., 2] > 60)
    assert (np.ptp(reds, axis=0) > 300).all()


@pytest.mark.parametrize("n", [1, 2, 49, 500])
def test_a_curve_of_any_length_is_drawn(tmp_path, n):
    values = torch.rand(n, generator=generator()) + 0.1
    path = plot.curve(values, tmp_path / "loss.png", steps=range(10, 10 + n), title="training")
    assert (pixels(path)[..., 2].astype(int) - pixels(path)[..., 0] > 60).any()


def test_curves_with_negative_values_are_drawn_on_a_linear_axis(tmp_path):
    assert pixels(plot.curve([1.0, -1.0, 0.5], tmp_path / "curve.png", name="bits")).size


def coloured(picture, colour):
    """How many pixels are of a colour, mixed with white as bars are."""
    want = np.array([0.75 * c + 0.25 * 255 for c in colour])
    return (abs(picture[..., :3] - want).max(-1) < 3).sum()


def test_a_bar_is_as_high_as_its_number(tmp_path):
    panels = {"one": {"samples": (1.0, 0.5, 2.0), "floor": (4.0, 3.9, 4.1)}}
    blue, orange = (31, 119, 180), (255, 127, 14)
    picture = pixels(plot.bars(panels, tmp_path / "bars.png", title="high and low"))
    assert coloured(picture, orange) / coloured(picture, blue) == pytest.approx(4, rel=0.1)
    assert not np.array_equal(picture, pixels(plot.bars({"one": {
        "samples": (1.0, 1.0, 1.0), "floor": (4.0, 3.9, 4.1)}}, tmp_path / "bars.png",
        title="high and low")))  # fmt: skip


def test_pictures_are_drawn_without_pyplot_and_its_global_state(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.pyplot", None)  # importing it now fails
    assert plot.scatter(torch.zeros(3, 2), tmp_path / "scatter.png").exists()
    assert plot.curve([1.0, 2.0], tmp_path / "curve.png").exists()


def test_without_matplotlib_the_error_names_the_extra(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'scoresde\[plot\]'"):
        plot.scatter(torch.zeros(3, 2), tmp_path / "scatter.png")
    assert plot.grid(torch.zeros(1, 1, 2, 2), tmp_path / "grid.png").exists()


IMAGES = torch.zeros(2, 1, 4, 4)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda p: plot.grid(IMAGES[0], p), ShapeError, r"\(B, 1, H, W\).*got \(1, 4, 4\)"),
        (lambda p: plot.grid(torch.zeros(2, 4, 4, 4), p), ShapeError, r"got \(2, 4, 4, 4\)"),
        (lambda p: plot.grid(IMAGES[:0], p), ShapeError, r"got \(0, 1, 4, 4\)"),
        (lambda p: plot.grid(IMAGES.byte(), p), InvalidTypeError, r"images.*torch.uint8"),
        (
            lambda p: plot.grid(IMAGES.numpy(), p),
            InvalidTypeError,
            "images must be a tensor, got array",
        ),
        (lambda p: plot.grid(IMAGES / 0, p), NonFiniteError, "images holds NaN or infinity"),
        (lambda p: plot.grid(IMAGES, p, columns=0), InvalidValueError, "columns.*got 0"),
        (lambda p: plot.grid(IMAGES, p, scale=1.5), InvalidTypeError, r"scale.*got 1\.5"),
        (lambda p: plot.grid(IMAGES, p.with_suffix(".jpg")), InvalidValueError, r"end it in \.png"),
        (lambda p: plot.scatter(torch.zeros(3, 3), p), ShapeError, r"\(N, 2\).*got \(3, 3\)"),
        (lambda p: plot.scatter(torch.zeros(0, 2), p), ShapeError, r"got \(0, 2\)"),
        (lambda p: plot.scatter(torch.full((3, 2), math.nan), p), NonFiniteError, "samples"),
        (
            lambda p: plot.scatter(torch.zeros(3, 2), p, density=Gaussian([0.0], var=1.0)),
            ShapeError,
            r"in the plane.*got \(1,\)",
        ),
        (lambda p: plot.curve([], p), ShapeError, r"got shape \(0,\)"),
        (lambda p: plot.curve(torch.ones(1, 1), p), ShapeError, r"got shape \(1, 1\)"),
        (lambda p: plot.curve([1.0, math.inf], p), NonFiniteError, "values holds NaN or infinity"),
        (
            lambda p: plot.curve(["a"], p),
            InvalidTypeError,
            "values must be a number or a tensor",
        ),
        (lambda p: plot.curve([1.0], p, steps=[1, 2]), ShapeError, "got 2 and 1"),
        (lambda p: plot.pareto({}, p), InvalidValueError, "nothing to show"),
        (lambda p: plot.bars({}, p), InvalidValueError, "nothing to show"),
        (lambda p: plot.bars({"a": {}}, p), ShapeError, "a must be a vector"),
        (
            lambda p: plot.bars({"a": {"b": (1, 0, math.inf)}}, p),
            NonFiniteError,
            "a holds NaN or infinity",
        ),
    ],
)
def test_what_cannot_be_drawn_is_refused_and_leaves_no_file(tmp_path, call, error, message):
    with pytest.raises(error, match=message):
        call(tmp_path / "picture.png")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("points", [[], [(1, 0.0, 0.0, 0.0)], [(0, 1.0, 0.5, 2.0)]])
def test_a_panel_without_a_point_that_has_a_logarithm_is_empty(tmp_path, points):
    path = plot.pareto({"a": {"b": points}}, tmp_path / "picture.png")
    assert path.read_bytes().startswith(b"\x89PNG")


def test_an_error_of_rounding_does_not_stretch_a_panel_and_prices_are_plain_numbers(
    tmp_path, monkeypatch
):
    seen = []
    monkeypatch.setattr(plot.paper, "save", lambda figure, path: seen.append(figure))
    points = [(9, 1.0, 0.5, 2.0), (20, 1e-15, 0.0, 1e-14)]
    plot.pareto({"a": {"b": points}}, tmp_path / "picture.png")
    axes = seen[0].axes[0]
    assert 1e-12 < axes.get_ylim()[0] < 1e-8
    low, high = axes.get_xlim()
    shown = [
        label
        for at, label in zip(axes.get_xticks(), axes.get_xticklabels(), strict=True)
        if low <= at <= high
    ]
    assert [label.get_text() for label in shown] == ["10", "20"]
    assert not any(label.get_text() for label in axes.get_xticklabels(minor=True))
