"""Test pictures: their contents, their sizes, and the data that they refuse."""

import doctest
import io
import itertools
import math
import sys

import matplotlib
import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from PIL import Image

import scoresde
from scoresde import EDMSDE, VESDE, VPSDE, NCSNLadder, plot
from scoresde.data import BYTES, Data
from scoresde.errors import (
    InvalidTypeError,
    InvalidValueError,
    NonFiniteError,
    ShapeError,
)
from scoresde.plot import paper, sets
from scoresde.plot.states import paths
from scoresde.plot.stretch import is_far, stretch
from scoresde.samplers import State
from scoresde.targets import Gaussian, TwoMoons
from scoresde.units import Range, Standardize


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=generator(seed))


def pixels(figure, dpi=None):
    """What `save` would write, as bytes `(h, w, 3)`; with fewer dots it takes less time."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=dpi or figure.dpi, facecolor=figure.get_facecolor())
    with Image.open(buffer) as image:
        return np.asarray(image.convert("RGB"))


# Images


@pytest.mark.slow
@given(
    n=st.integers(1, 7),
    channels=st.sampled_from([1, 3]),
    height=st.integers(1, 9),
    width=st.integers(1, 9),
    columns=st.integers(1, 9),
    scale=st.integers(1, 4),
    seed=st.integers(0, 2**32 - 1),
)
def test_a_picture_holds_every_image_enlarged_in_its_place(
    n, channels, height, width, columns, scale, seed
):
    levels = torch.randint(0, 256, (n, channels, height, width), generator=generator(seed))
    drawn = plot.images(levels / 127.5 - 1, columns=columns, scale=scale, limits=(-1.0, 1.0))
    picture = pixels(drawn)
    columns = min(columns, n)
    rows = math.ceil(n / columns)
    high, wide, gap = height * scale, width * scale, 2
    assert picture.shape[:2] == (rows * (high + gap) + gap, columns * (wide + gap) + gap)
    for i in range(n):
        top, left = (i // columns) * (high + gap) + gap, (i % columns) * (wide + gap) + gap
        cell = picture[top : top + high, left : left + wide]
        want = levels[i].movedim(0, -1).numpy().repeat(scale, 0).repeat(scale, 1)
        np.testing.assert_array_equal(cell, np.broadcast_to(want, cell.shape))


@pytest.mark.slow
@given(n=st.integers(1, 40), height=st.integers(1, 300), width=st.integers(1, 300))
@example(n=16, height=37, width=53)
def test_a_picture_is_large_enough_to_look_at_and_small_enough_to_keep(n, height, width):
    drawn = plot.images(torch.zeros(n, 1, height, width))
    wide, high = drawn.get_size_inches() * drawn.dpi
    assert 600 <= max(wide, high) <= 4200
    if (n, height, width) == (16, 37, 53):
        assert wide >= 600


@pytest.mark.slow
def test_images_without_room_in_a_picture_are_left_out_with_a_note():
    drawn = plot.images(torch.zeros(30, 1, 20, 20), scale=60)
    assert (drawn.get_size_inches() * drawn.dpi).max() <= 4200
    assert any("of 30" in text.get_text() for text in drawn.axes[0].texts)


def test_bytes_half_precision_and_graphs_are_drawn_alike():
    levels = torch.randint(0, 256, (2, 1, 3, 3), generator=generator(), dtype=torch.uint8)
    want = pixels(plot.images(levels.double() / 127.5 - 1))
    np.testing.assert_array_equal(pixels(plot.images(levels)), want)
    grey = torch.zeros(1, 1, 2, 2, dtype=torch.bfloat16, requires_grad=True)
    assert (pixels(plot.images(grey, scale=1))[2:4, 2:4] == 128).all()


def test_a_label_is_above_its_image_and_does_not_touch_it():
    x = torch.full((4, 1, 9, 9), -1.0)
    drawn = plot.images(x, labels=["a", "b", "c", "d"], columns=2, scale=10, title="four")
    texts = {text.get_text(): text.get_position() for text in drawn.axes[0].texts}
    assert texts["b"][0] - texts["a"][0] == 92
    assert texts["c"][1] > texts["a"][1]
    black = (pixels(drawn) == 0).all(-1)
    assert (black.sum(0).max(), black.sum(1).max()) == (180, 180)


def test_channels_that_are_not_colours_are_side_by_side():
    x = torch.stack([torch.full((4, 4), -1.0), torch.full((4, 4), 1.0)])[None]
    picture = pixels(plot.images(x, scale=2))
    assert (picture[2:10, 2:10] == 0).all()
    assert (picture[2:10, 12:20] == 255).all()


GREY_AND_MORE = [
    ("grey", (1, 8, 8), 40.0, 120.0), ("colour", (3, 8, 8), 40.0, 120.0),
    ("volume", (1, 4, 4, 4), 40.0, 120.0), ("field", (1, 8, 8), 1e-3, 0.0),
]  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize(("name", "shape", "size", "shift"), GREY_AND_MORE)
def test_images_of_any_values_look_alike_by_either_name_and_are_not_black_and_white(
    name, shape, size, shift
):
    x = size * normal(4, *shape) + shift
    own = plot.volumes if name == "volume" else plot.images
    picture = pixels(own(x, columns=2))
    np.testing.assert_array_equal(picture, pixels(plot.samples(x, columns=2)))
    inside = picture[:, : picture.shape[1] // 2]
    share = np.isin(inside, (0, 255)).mean()
    assert share < 0.5
    assert len(np.unique(inside)) > 30


def test_the_place_between_and_below_slices_is_empty_and_not_dark():
    volume = torch.full((1, 1, 2, 3, 5), -1.0)
    drawn = plot.volumes(volume, scale=10, limits=(-1.0, 1.0))
    picture = pixels(drawn)
    rows = picture[2:32]
    black, white = (rows == 0).all(-1), (rows == 255).all(-1)
    # across depth 3 x 5, across height 2 x 5, across width 2 x 3
    assert black.sum() == 100 * (15 + 10 + 6)
    assert white.any()


def test_pixels_without_room_are_left_out_with_a_note():
    x = normal(1, 1, 2, 4100)
    drawn = plot.images(x, scale=1, limits=(-1, 1))
    assert any("1 pixel in 2 along" in text.get_text() for text in drawn.axes[0].texts)
    thin = plot.images(x[..., ::2, ::2], scale=1, limits=(-1, 1))
    np.testing.assert_array_equal(pixels(drawn)[:5, :2000], pixels(thin)[:5, :2000])


def test_channels_without_room_are_noted():
    texts = [text.get_text() for text in plot.samples(normal(4, 12, 6, 6)).axes[0].texts]
    assert "the first 8 of 12 channels" in texts


def test_a_note_below_a_picture_of_pixels_is_not_cut_off():
    drawn = plot.samples(normal(5, 300, 2))
    pixels(drawn)
    (note,) = drawn.axes[0].texts
    assert "if they are signals" in note.get_text()
    box = note.get_window_extent()
    assert 0 <= box.x0 < box.x1 <= drawn.bbox.width
    assert 0 <= box.y0


def as_array(x):
    return x.numpy()


def as_list(x):
    return x.tolist()


@pytest.mark.slow
@pytest.mark.parametrize("shape", [(2,), (2, 30), (1, 6, 6), (1, 3, 4, 5)])
@pytest.mark.parametrize("form", [as_array, as_list, list, scoresde.data.Data])
def test_arrays_lists_and_data_are_drawn_as_tensors_are(shape, form):
    x = normal(5, *shape)
    want, got = plot.samples(x), plot.samples(form(x))
    for panel in got.axes if form is Data else ():  # which have a colour of their own
        for dots in panel.collections:
            dots.set_facecolor(paper.RED)
        for line in panel.lines:
            line.set_color(paper.RED)
    np.testing.assert_array_equal(pixels(got, dpi=32), pixels(want, dpi=32))


def test_data_are_blue_and_samples_red_in_every_picture_and_classes_neither():
    x, blue, red = normal(20, 2), paper.BLUE, paper.RED

    def tones(drawn):
        return [to_hex(panel.collections[-1].get_facecolor()[0]) for panel in drawn.axes]

    assert tones(plot.samples(Data(x))) == [blue]
    assert tones(plot.samples(x)) == [red]
    assert tones(plot.samples({"samples": x, "data": Data(x)})) == [red, blue]
    assert tones(plot.points({"samples": x, "data": x})) == [blue]  # the last of one panel
    bars = plot.bars({"": {"samples": (1, 0, 2), "floor": (1, 0, 2)}}).axes[0].patches
    assert [to_hex(bar.get_facecolor()) for bar in bars] == [red, blue]
    by_class = plot.points(x, labels=["oak", "elm"] * 10).axes[0].collections
    assert not {to_hex(dots.get_facecolor()[0]) for dots in by_class} & {red, blue}


def test_classes_have_the_same_colours_in_any_order_of_the_samples():
    words = [f"label {k}" for k in (2, 9, 10)]
    there, back = (plot.points(normal(3, 2), labels=row).axes[0] for row in (words, words[::-1]))
    for one, other, word in zip(there.collections, back.collections, words, strict=True):
        assert one.get_label() == other.get_label() == word
        assert to_hex(one.get_facecolor()[0]) == to_hex(other.get_facecolor()[0])


def test_a_class_has_its_colour_whichever_others_are_drawn_and_however_it_is_named():
    def colours(picture):
        dots = [dots for panel in picture.axes for dots in panel.collections]
        return {part.get_label(): to_hex(part.get_facecolor()[0]) for part in dots}

    x = normal(6, 2)
    data = Data(x, kind=["ring", "blob", "ring", "blob", "ring", "dot"])
    whole = colours(plot.samples(x, labels=data))
    assert len(set(whole.values())) == 3
    rings = data[torch.tensor([0, 2, 4])]
    assert colours(plot.samples(x[:3], labels=rings)) == {"ring": whole["ring"]}
    sets = plot.points({"ring": x[:2], "dot": x[2:4], "blob": x[4:]})
    assert colours(sets) == whole


def test_the_bands_in_the_legend_of_signals_are_as_dark_as_those_drawn():
    x = normal(20, 1, 9)
    for drawn in (plot.samples(x), plot.samples({"data": x, "samples": x})):
        legend = drawn.axes[-1].get_legend()
        wide, narrow = legend.legend_handles[:2]
        parts = [band.get_alpha() for band in drawn.axes[-1].collections]
        assert wide.get_facecolor()[3] == pytest.approx(parts[0])
        seen = 1 - (1 - parts[0]) * (1 - parts[1])  # one band over the other
        assert narrow.get_facecolor()[3] == pytest.approx(seen)


@pytest.mark.parametrize(("n", "m"), [(1, 400), (400, 30), (9, 9)])
def test_histograms_of_several_sets_have_the_same_bins(n, m):
    drawn = plot.points({"data": normal(n, 1), "samples": normal(m, 1, seed=1)}).axes[0]
    one, other = (np.unique(patch.get_path().vertices[:, 0]) for patch in drawn.patches)
    np.testing.assert_array_equal(one, other)


def test_samples_are_converted_to_the_units_of_the_data_beside_them():
    units = Standardize((10.0, 20.0), (2.0, 3.0))
    raw = units.inverse(normal(50, 2))
    data = scoresde.data.Data(raw, transform=units, columns=["height", "mass"])
    left, right = plot.samples({"data": data, "samples": normal(50, 2)}, transform=units).axes
    own, samples = (panel.collections[-1].get_offsets() for panel in (left, right))
    np.testing.assert_allclose(own, raw, rtol=1e-5)
    np.testing.assert_allclose(samples, raw, rtol=1e-5)
    assert (left.get_xlabel().split("\n")[0], left.get_ylabel()) == ("height", "mass")


@pytest.mark.slow
@pytest.mark.parametrize("draw", [plot.images, plot.volumes, plot.signals, plot.points])
def test_every_function_draws_in_the_units_of_the_data(draw):
    shapes = {plot.images: (1, 6, 6), plot.volumes: (1, 3, 3, 3), plot.signals: (1, 9)}
    x, units = normal(20, *shapes.get(draw, (2,))), Range(0.0, 80.0)
    want = pixels(draw(units.inverse(x.double())), dpi=32)
    np.testing.assert_array_equal(pixels(draw(x, transform=units), dpi=32), want)


# Labels


@pytest.mark.parametrize("form", [as_list, as_array, lambda labels: labels])
@pytest.mark.parametrize("shape", [(1, 6, 6), (1, 3, 4, 5)])
def test_labels_are_above_the_images_of_every_set(shape, form):
    labels = form(torch.tensor([7, 8, 7]))
    x = normal(3, *shape)
    drawn = plot.samples({"data": x, "samples": x}, labels=labels)
    texts = [text.get_text() for text in drawn.axes[0].texts]
    assert (texts.count("7"), texts.count("8")) == (4, 2)


@pytest.mark.slow
@pytest.mark.parametrize("shape", [(1,), (2,), (3,), (2, 30)])
@pytest.mark.parametrize("sets", [1, 2])
def test_labels_are_colours_in_the_legend(shape, sets):
    x, labels = normal(30, *shape), [i % 3 for i in range(30)]
    drawn = plot.samples(x if sets == 1 else {"data": x, "samples": x}, labels=labels)
    legends = [panel.get_legend() for panel in drawn.axes if panel.get_legend() is not None]
    (legend,) = legends
    words = [text.get_text() for text in legend.get_texts()]
    for label in "012":
        assert any(label in word.split(":")[0].replace(",", "").split() for word in words)


def test_of_more_kinds_than_colours_the_last_ones_are_together():
    drawn = plot.points(normal(60, 2), labels=[i % 20 for i in range(60)])
    sizes = {c.get_label(): len(c.get_offsets()) for c in drawn.axes[0].collections}
    assert len(sizes) <= 10
    assert sum(sizes.values()) == 60
    assert sizes["others"] == 33


# Any shape

SHAPES = st.sampled_from(
    [(), (1,), (2,), (3,), (5,), (9,), (40,), (2, 100), (1, 7), (6, 8), (28, 28), (1, 8, 8),
     (3, 8, 8), (2, 5, 5), (12, 4, 4), (1, 8, 8, 8), (3, 4, 5, 6), (1, 2, 3, 4, 5)]
)  # fmt: skip


@pytest.mark.long
@given(
    shape=SHAPES,
    n=st.sampled_from([1, 2, 13, 30]),
    size=st.sampled_from([0.0, 1e-30, 1e-3, 1.0, 1e30]),
    shift=st.sampled_from([0.0, 1.0, -1e6]),
    sets=st.booleans(),
    inside=st.booleans(),
)
def test_samples_of_every_shape_and_size_are_drawn(shape, n, size, shift, sets, inside):
    x = size * normal(n, *shape).double() + shift
    ax = Figure().subplots() if inside else None
    drawn = plot.samples({"data": x, "samples": x} if sets else x, ax=ax, title="a title")
    assert isinstance(drawn, Figure)
    assert pixels(drawn, dpi=32).std() > 0
    assert drawn is ax.figure if inside else min(drawn.get_size_inches() * drawn.dpi) > 10


@pytest.mark.slow
@pytest.mark.parametrize(
    ("shape", "number"), [((1,), 1), ((2,), 1), ((5,), 25), ((9,), 1), ((3, 50), 3), ((8, 8), 1)]
)
def test_a_picture_has_as_many_panels_as_there_is_to_see(shape, number):
    assert len(plot.samples(normal(20, *shape)).axes) == number


def test_samples_are_drawn_in_the_units_of_the_data():
    x = normal(50, 2)
    drawn = plot.samples(x, transform=Standardize((10.0, 20.0), (2.0, 3.0)))
    want = x * torch.tensor([2.0, 3.0]) + torch.tensor([10.0, 20.0])
    np.testing.assert_allclose(drawn.axes[0].collections[0].get_offsets(), want, rtol=1e-5)
    levels = torch.tensor([-1.0, 0.0, 1.0]).reshape(3, 1, 1, 1)
    drawn = plot.samples(levels, transform=Range(0, 16, 17), scale=1, columns=3)
    assert pixels(drawn)[2, [2, 5, 8], 0].tolist() == [0, 128, 255]


def test_points_are_divided_into_sets_by_their_labels():
    drawn = plot.samples(normal(6, 2), labels=["a", "b", "a", "b", "a", "a"])
    sizes = {c.get_label(): len(c.get_offsets()) for c in drawn.axes[0].collections}
    assert sizes == {"a": 4, "b": 2}


def test_values_that_are_not_grey_levels_have_a_scale_beside_them():
    x = 7 * normal(2, 1, 5, 5) + 30
    (scale,) = plot.samples(x).axes[0].child_axes
    low, high = scale.get_ylim()
    assert float(x.min()) <= low < high <= float(x.max())
    assert not plot.samples(x.clamp(-1, 1)).axes[0].child_axes


# Points


def test_a_point_lies_where_it_should_and_the_truth_is_marked():
    x = normal(30, 2)
    drawn = plot.points({"data": x, "samples": x + 1}, truth=[0.5, 0.25], names=["a", "b$"])
    axes = drawn.axes[0]
    data, samples, truth = (c.get_offsets() for c in axes.collections)
    np.testing.assert_allclose(samples - data, 1, atol=1e-6)
    assert truth.tolist() == [[0.5, 0.25]]
    assert (axes.get_xlabel().split("\n")[0], axes.get_ylabel()) == ("a", r"b\$")
    assert {"data", "samples", "the truth"} == set(axes.get_legend_handles_labels()[1])


def test_in_a_corner_plot_every_pair_is_in_its_row_and_column():
    x = normal(20, 4) * torch.tensor([1.0, 10.0, 100.0, 1000.0])
    drawn = plot.points(x)
    for row in range(4):
        for column in range(row):
            shown = drawn.axes[4 * row + column].collections[0].get_offsets()
            np.testing.assert_allclose(shown, x[:, [column, row]])


def test_the_density_of_a_line_integrates_to_one_as_its_histogram_does():
    drawn = plot.points(normal(500, 1), density=Gaussian([0.0], var=1.0))
    axes = drawn.axes[0]
    x, y = axes.lines[0].get_data()
    assert float(torch.trapezoid(torch.as_tensor(y), torch.as_tensor(x))) == pytest.approx(
        1, abs=1e-3
    )
    x, y = axes.patches[0].get_xy().T
    area = abs(x @ np.roll(y, -1) - y @ np.roll(x, -1)) / 2
    assert area == pytest.approx(1, rel=1e-6)


def _areas(axes):
    corners = [patch.get_xy().T for patch in axes.patches]
    return [abs(x @ np.roll(y, -1) - y @ np.roll(x, -1)) / 2 for x, y in corners]


@pytest.mark.parametrize("whole", [False, True])
def test_the_histogram_of_a_label_has_the_share_of_its_samples(whole):
    x = 10 * normal(100, 1)
    axes = plot.points(x.round() if whole else x, labels=["a"] * 80 + ["b"] * 20).axes[0]
    np.testing.assert_allclose(_areas(axes), [0.8, 0.2], rtol=1e-6)


def test_a_wide_set_of_few_numbers_does_not_widen_the_bins_of_narrow_labels():
    x = torch.cat([normal(200, 1), normal(200, 1, seed=1) + 40, torch.tensor([[0.3], [40.3]] * 5)])
    axes = plot.points(x, labels=["a"] * 200 + ["b"] * 200 + ["c"] * 10).axes[0]
    edges = np.unique(axes.patches[0].get_path().vertices[:, 0])
    assert np.diff(edges).max() < 1


def test_known_values_have_the_same_colour_in_the_legend_as_in_the_panels():
    x = normal(3, 1, 8)
    axes = plot.samples({"a": x, "b": x}, known=x[0]).axes[-1]
    (handle,) = (one for one in axes.get_legend().legend_handles if one.get_label() == "known")
    (line,) = (one for one in axes.lines if one.get_label() == "known")
    assert handle.get_color() == line.get_color()


def test_an_outlier_does_not_set_the_scale_and_is_counted():
    samples = normal(1000, 2)
    samples[0] = 1e9
    axes = plot.points(samples).axes[0]
    assert np.ptp(axes.get_xlim()) < 10
    assert "of 1,000 lie outside" in axes.get_xlabel()


@pytest.mark.slow
@pytest.mark.parametrize("names", [(), ("height", "mass")])
@pytest.mark.parametrize("sets", [1, 2, 3])
def test_the_note_below_points_is_not_cut_off(names, sets):
    x = normal(1000, 2)
    x[:3] = 1e6
    drawn = plot.samples({f"set {i}": x for i in range(sets)}, names=names, title="step 100")
    pixels(drawn)
    for panel in drawn.axes:
        assert "lie outside" in panel.get_xlabel()
        assert panel.xaxis.label.get_window_extent().y0 >= 0


def test_the_note_below_a_corner_plot_touches_no_label():
    x = normal(1000, 3) * torch.tensor([1.0, 10.0, 1e5])
    x[:3] = 1e9
    drawn = plot.points(x, names=["height", "mass", "income"])
    pixels(drawn)
    assert "lie outside" in drawn.get_supxlabel()
    note = drawn._supxlabel.get_window_extent()
    for panel in drawn.axes[-3:]:
        assert panel.xaxis.label.get_window_extent().y0 >= note.y1


@pytest.mark.parametrize(("scale", "even"), [(1.0, True), (1e4, False)])
def test_axes_have_one_scale_unless_one_entry_spreads_much_more(scale, even):
    axes = plot.points(normal(500, 2) * torch.tensor([1.0, scale])).axes[0]
    assert (axes.get_aspect() == 1.0) == even


@pytest.mark.parametrize(("scale", "even"), [(1.0, True), (2.2, True), (5.0, False)])
def test_a_circle_of_named_entries_is_round_unless_their_ranges_differ_much(scale, even):
    x = normal(500, 2) * torch.tensor([1.0, scale])
    for picture in (plot.points, plot.samples):
        axes = picture(x, names=["east", "north"]).axes[0]
        assert (axes.get_aspect() == 1.0) == even


# Signals


def test_few_signals_are_lines_and_many_are_quantiles():
    x = normal(5, 2, 30)
    first, second = plot.signals(x).axes
    for c, axes in enumerate((first, second)):
        for line, want in zip(axes.lines, x[:, c], strict=True):
            np.testing.assert_allclose(line.get_ydata(), want)
    x = normal(101, 1, 30)
    drawn = plot.signals({"data": x})
    np.testing.assert_allclose(
        drawn.axes[0].lines[-1].get_ydata(), np.median(x[:, 0], 0), rtol=1e-6
    )


def test_known_values_are_dots_over_signals_and_the_first_of_the_images():
    known = normal(1, 2, 30)[0]
    known[:, 10:20] = torch.nan
    for panel, want in zip(plot.samples(normal(5, 2, 30), known=known).axes, known, strict=True):
        dots = next(line for line in panel.lines if line.get_label() == "known")
        np.testing.assert_array_equal(dots.get_ydata(), want)
    with pytest.raises(ShapeError, match="known must be of shape"):
        plot.signals(normal(5, 2, 30), known=known[:1])
    with pytest.raises(NonFiniteError, match="truth"):
        plot.signals(normal(5, 2, 30), truth=known)
    x, part = normal(4, 1, 6, 6).sigmoid(), torch.full((1, 6, 6), torch.nan)
    part[:, :3] = 1.0
    whole = plot.images(
        torch.cat([part[None].nan_to_num(nan=float(x.amin() + x.amax()) / 2), x]),
        limits=(0, 1), labels=["known", "", "", "", ""],
    )  # fmt: skip
    np.testing.assert_array_equal(pixels(plot.samples(x, known=part, limits=(0, 1))), pixels(whole))


def test_images_of_several_sizes_are_drawn_side_by_side_as_each_alone():
    sets = {
        "truth": normal(1, 8, 8), "measured": normal(1, 1, 4, 4), "draws": normal(4, 1, 8, 8),
        "colour": normal(1, 3, 6, 6),
    }  # fmt: skip
    whole, left, top = pixels(plot.samples(sets, limits=(-2, 2))), 0, 22  # a line of names
    for part in sets.values():
        alone = pixels(plot.images(part, limits=(-2, 2)))
        height, width = alone.shape[:2]
        np.testing.assert_array_equal(whole[top : top + height, left : left + width], alone)
        left += width + 24
    assert left - 24 == whole.shape[1]


def test_known_values_are_drawn_beside_several_sets():
    x, part = normal(4, 1, 6, 6).sigmoid(), torch.full((1, 6, 6), torch.nan)
    part[:, :3] = 1.0
    middle = part[None].nan_to_num(nan=float(x.amin() + x.amax()) / 2)
    sets = {"samples": x, "others": 1 - x}
    whole = plot.samples({"known": middle, **sets}, limits=(0, 1))
    found = plot.samples(sets, known=part, limits=(0, 1))
    np.testing.assert_array_equal(pixels(found), pixels(whole))
    for more in (dict(x=sets, labels=[*"abcd"]), dict(x={"known": x, "samples": x})):
        with pytest.raises(InvalidValueError, match="other names and no labels"):
            plot.samples(known=part, **more)
    with pytest.raises(ShapeError, match="known must be of shape"):
        plot.samples(sets, known=part[:, :2])
    signal = normal(1, 2, 30)[0]
    drawn = plot.samples({"a": normal(5, 2, 30), "b": normal(5, 2, 30)}, known=signal)
    for panel, want in zip(drawn.axes, signal.repeat_interleave(2, 0), strict=True):
        dots = next(line for line in panel.lines if line.get_label() == "known")
        np.testing.assert_array_equal(dots.get_ydata(), want)


# Ways


def test_arrows_point_along_the_score():
    sde = VESDE()
    target = Gaussian([0.0, 0.0], var=1.0)
    drawn = plot.field(target.at(sde), normal(50, 2), 0.5)
    quiver = drawn.axes[0].collections[-1]
    at, arrows = quiver.XY, np.stack([quiver.U, quiver.V], 1)
    cosine = (at * arrows).sum(1) / np.linalg.norm(at, axis=1) / np.linalg.norm(arrows, axis=1)
    np.testing.assert_allclose(cosine, -1, rtol=1e-5)  # to the mode


@pytest.mark.slow
@pytest.mark.parametrize("shape", [(1,), (2,), (3,), (2, 30), (1, 6, 6), (1, 4, 4, 4)])
def test_runs_of_every_shape_are_drawn_and_filmed(tmp_path, shape):
    target = Gaussian(torch.zeros(shape), var=0.5)

    def run():
        return scoresde.trajectory(target.at(VESDE()), sampler="euler", n=3, steps=2, seed=0)

    assert min(pixels(plot.trajectory(run())).shape[:2]) > 100
    if len(shape) > 1:
        assert min(pixels(plot.strip(run(), steps=3)).shape[:2]) > 50
    with Image.open(plot.animate(run(), tmp_path / "run.gif")) as film:
        assert film.n_frames in (3, 4)  # the start, two steps, and the end if that looks new
        assert max(film.size) >= 480


@pytest.mark.slow
@pytest.mark.parametrize("shape", [(1,), (2,), (3,), (2, 30)])
def test_the_panels_of_a_film_stay_where_they_are_and_keep_their_axes(tmp_path, monkeypatch, shape):
    seen = []
    encoded = plot.paper.encoded

    def spied(drawn, kind):
        content = encoded(drawn, kind)
        seen.append([(p.bbox.extents, p.get_xlim(), p.get_ylim()) for p in drawn.axes])
        is_far = shape in ((2,), (2, 30))
        assert is_far == ("logarithmic beyond the dotted" in drawn.axes[-1].get_xlabel())
        return content

    monkeypatch.setattr(plot.paper, "encoded", spied)
    score = Gaussian(torch.zeros(shape), var=0.5).at(VESDE())
    run = [*scoresde.trajectory(score, sampler="euler", n=5, steps=2, seed=0)]
    with Image.open(plot.animate(run, tmp_path / "film.gif")) as film:
        assert film.n_frames >= 3
    for before, after in itertools.pairwise(seen):
        for (place, *ends), (same, *others) in zip(before, after, strict=True):
            np.testing.assert_allclose(place, same, atol=0.5)
            axes = [0, 1] if shape == (2,) else [0] if len(shape) == 1 else [1]  # no densities
            assert [ends[axis] for axis in axes] == [others[axis] for axis in axes]


@pytest.mark.slow
@pytest.mark.parametrize("shape", [(2,), (2, 30), (1, 6, 6)])
def test_a_film_shows_the_classes_of_its_samples(tmp_path, monkeypatch, shape):
    seen, encoded = [], plot.paper.encoded

    def spied(drawn, kind):
        panel = drawn.axes[0]
        marks = panel.get_legend_handles_labels()[1] + [text.get_text() for text in panel.texts]
        seen.append({"oak", "elm"} <= {*marks})
        return encoded(drawn, kind)

    monkeypatch.setattr(plot.paper, "encoded", spied)
    score = Gaussian(torch.zeros(shape), var=0.5).at(VESDE())
    run = [*scoresde.trajectory(score, sampler="euler", n=4, steps=1, seed=0)]
    plot.animate(run, tmp_path / "film.gif", labels=["oak", "elm", "oak", "elm"])
    assert seen
    assert all(seen)
    with pytest.raises(ShapeError, match="label for each"):
        plot.animate(run, tmp_path / "film.gif", labels=["oak"])


def test_the_labels_of_data_are_the_names_of_their_classes():
    x = normal(6, 2)
    trees = scoresde.data.Data(x, kind=["oak", "elm", None, "elm", "oak", "ash"])
    words = plot.samples(x, labels=trees).axes[0].get_legend_handles_labels()[1]
    assert words == ["ash", "elm", "oak", "missing"]
    counted = scoresde.data.Data(x, label=torch.arange(6) % 2)
    assert plot.samples(x, labels=counted).axes[0].get_legend_handles_labels()[1] == ["0", "1"]
    with pytest.raises(InvalidValueError, match="data with classes"):
        plot.samples(x, labels=scoresde.data.Data(x))


@pytest.mark.slow
def test_the_last_state_of_an_animation_and_of_a_strip_is_labelled_denoised(tmp_path):
    score = Gaussian(torch.zeros(1, 6, 6), var=0.5).at(VESDE())
    run = [*scoresde.trajectory(score, sampler="euler", n=1, steps=2, seed=0)]
    assert "denoised" in plot.animate(run, tmp_path / "film.html").read_text()
    assert any("denoised" in text.get_text() for text in plot.strip(run).axes[0].texts)


def test_a_picture_of_a_part_of_the_entries_has_a_note():
    states = [State(torch.tensor(t), normal(3, 3) * t**4) for t in (1.0, 0.5)]
    axes = plot.trajectory(states).axes[0]
    assert "the first 2 of 3 entries; logarithmic beyond" in axes.get_xlabel()
    states = [State(torch.tensor(t), normal(3, 2, 30)) for t in (1.0, 0.5)]
    legend = plot.trajectory(states).axes[-1].get_legend()
    assert [text.get_text() for text in legend.get_texts()] == ["channel 0", "channel 1"]


def test_a_trajectory_has_the_names_that_its_model_knows():
    model = scoresde.suggest(normal(20, 3)).model()
    model.columns = ("height", "girth", "age")
    run = scoresde.trajectory(model, sampler="euler", n=3, steps=1, seed=0)
    axes = plot.trajectory(run).axes[0]
    assert axes.get_xlabel().startswith("height")
    assert axes.get_ylabel() == "girth"


@pytest.mark.parametrize("shape", [(2,), (1, 9)])
def test_a_trajectory_is_drawn_in_the_units_of_the_data(shape):
    units = Standardize((10.0,), (2.0,))
    states = [State(torch.tensor(t), normal(3, *shape) * t) for t in (1.0, 0.5)]
    own = [State(s.t, units.inverse(s.x)) for s in states]
    got, want = (
        [line.get_xydata() for panel in drawn.axes for line in panel.lines]
        for drawn in (plot.trajectory(states, transform=units), plot.trajectory(own))
    )
    np.testing.assert_array_equal(got, want)


def test_an_axis_of_noise_four_times_as_wide_as_the_data_is_stretched_and_has_ticks_outside():
    panel = plot.figure((2, 2)).subplots()
    assert stretch(panel.xaxis, (-6.5, 6.5), (-31.0, 31.0))
    ticks = panel.get_xticks().tolist()
    assert (ticks[0], ticks[-1]) == (-30, 30)
    low, high = panel.xaxis.get_transform().transform(np.asarray(panel.get_xlim()))
    assert high - low < 3  # the data have more than two thirds of the axis
    assert not stretch(panel.yaxis, (-6.5, 6.5), (-19.0, 19.0))


@settings(max_examples=20)
@given(width=st.floats(0.1, 10), offset=st.floats(-50, 50), reach=st.floats(1, 1e4))
def test_a_stretched_axis_is_increasing_continuous_and_linear_over_the_data(width, offset, reach):
    panel = plot.figure((2, 2)).subplots()
    inner, outer = (offset, offset + width), (offset - reach * width, offset + reach * width)
    notes = stretch(panel.xaxis, inner, outer)
    assert bool(notes) == is_far(inner, outer)
    if notes:
        place = panel.xaxis.get_transform().transform
        x = np.linspace(*outer, 1001)
        assert (np.diff(place(x)) > 0).all()
        np.testing.assert_allclose(place(np.asarray(inner)), [-1, 1], atol=1e-9)
        inside = np.linspace(*inner, 5)
        np.testing.assert_allclose(place(inside), np.linspace(-1, 1, 5), atol=1e-9)
        np.testing.assert_allclose(panel.xaxis.get_transform().inverted().transform(place(x)), x)
        assert all(outer[0] <= tick <= outer[1] for tick in panel.get_xticks())


def test_paths_end_at_the_last_state():
    states = [State(torch.tensor(t), normal(3, 2) * t) for t in (1.0, 0.5, 0.25)]
    axes = plot.trajectory(iter(states)).axes[0]
    np.testing.assert_allclose(axes.collections[-1].get_offsets(), states[-1].x)
    of_runs = [line for line in axes.lines if line.get_linestyle() != ":"]
    assert all(len(line.get_xdata()) == 3 for line in of_runs)


def test_a_film_of_many_states_has_the_first_and_the_last_and_keeps_few(tmp_path):
    alive = []

    def states():
        import weakref

        for i in range(200):
            x = torch.full((1, 1, 3, 3), i / 100 - 1)
            alive.append(weakref.ref(x))
            yield State(torch.tensor(1 - i / 200), x)

    path = plot.animate(states(), tmp_path / "film.gif", frames=5, scale=20)
    with Image.open(path) as film:
        assert film.n_frames == 5
        shades = []
        for i in range(5):
            film.seek(i)
            shades.append(np.asarray(film.convert("L"))[-10, film.size[0] // 2])
    assert shades[0] < 10
    assert shades[-1] > 235
    assert sum(ref() is not None for ref in alive) <= 1


@pytest.mark.slow
def test_a_film_of_few_states_takes_no_more_however_many_frames_it_may_have(tmp_path):
    plot.animate(run_of((3, 2), (3, 2)), tmp_path / "a.gif", frames=10**12)
    with Image.open(tmp_path / "a.gif") as film:
        assert film.n_frames <= 2


def test_a_trajectory_of_one_state_is_drawn():
    assert plot.trajectory(run_of((3, 1)))._repr_png_()


def test_a_strip_of_numbers_is_drawn():
    assert plot.strip(run_of((3,), (3,)), n=3)._repr_png_()


def test_curves_of_a_later_panel_only_are_in_the_legend_of_an_axes_too():
    panel = plot.figure((4, 3)).subplots()
    plot.pareto({"a": {}, "b": {"curve": [(1.0, 1.0, 0.5, 2.0)]}}, ax=panel)
    legends = [axes.get_legend() for axes in panel.child_axes]
    assert [t.get_text() for legend in legends if legend for t in legend.get_texts()] == ["curve"]


def test_curves_without_labels_in_one_axes_have_different_colours():
    panel = plot.curve([2.0] * 60).axes[0]
    plot.curve([1.0], ax=panel)
    plot.curve([3.0], ax=panel)
    assert len({line.get_color() for line in panel.lines}) == 3


@pytest.mark.parametrize(("shape", "n"), [((2,), 60), ((1, 8, 8), 4), ((2, 30), 4)])
def test_a_trajectory_keeps_no_more_samples_than_it_draws(shape, n):
    states = [State(torch.tensor(t), normal(70, *shape)) for t in (1.0, 0.5)]
    assert paths(states, None, None)[1].shape == (2, n, *shape)


def test_a_curve_joins_axes_of_any_scale():
    panel = plot.figure((3, 3)).subplots()
    panel.set_xscale("log")
    assert plot.curve([1.0, 2.0], ax=panel)._repr_png_()


@pytest.mark.slow
def test_a_page_contains_all_its_frames_and_loads_nothing_else(tmp_path):
    states = [State(torch.tensor(t), normal(3, 2) * t) for t in (1.0, 0.5, 0.25)]
    text = plot.animate(iter(states), tmp_path / "run.html").read_text()
    assert text.count('"iVBOR') == 3
    assert "http" not in text


# Noise levels, curves, bars


@pytest.mark.parametrize("sde", [VPSDE(), VESDE(), EDMSDE(), NCSNLadder.geometric(0.01, 9.0, 7)])
def test_a_ladder_shows_alpha_sigma_and_their_ratio_at_its_times(sde):
    drawn = plot.ladder(sde, times=sde.times(None if sde.levels else 5))
    for at in (0, 2, 4):
        line, marks = drawn.axes[0].lines[at : at + 2]
        t = torch.as_tensor(line.get_xdata())
        want = (sde.alpha(t), None, sde.sigma(t), None, sde.log_snr(t).exp())[at]
        np.testing.assert_allclose(line.get_ydata(), want)
        assert len(marks.get_xdata()) == len(sde.times(None if sde.levels else 5))


def test_losses_are_drawn_above_their_floor():
    rows = [(r, 2 / r, 1.5 / r, 3 / r) for r in (4.0, 1.0, 2.0)]
    axes = plot.loss_by_noise(
        {"model": rows}, floor=[(r, 1 / r, 0, 0) for r in (1.0, 2.0, 4.0)]
    ).axes[0]
    model, floor = (line.get_ydata() for line in axes.lines)
    np.testing.assert_allclose(model, [2, 1, 0.5])
    np.testing.assert_allclose(floor, model / 2)
    assert axes.get_yscale() == axes.get_xscale() == "log"


@pytest.mark.parametrize("n", [1, 2, 49, 500])
def test_a_curve_of_any_length_is_drawn_and_others_join_it(n):
    values = torch.rand(n, generator=generator()) + 0.1
    drawn = plot.curve(values, steps=range(10, 10 + n), label="training", title="run")
    axes = drawn.axes[0]
    assert plot.curve([0.5, 0.4], steps=[10, 12], label="held out", ax=axes) is drawn
    assert axes.get_legend_handles_labels()[1] == ["training", "held out"]
    assert axes.get_yscale() == "log"
    assert float(axes.lines[-2].get_ydata().mean()) == pytest.approx(float(values.mean()), rel=0.1)
    assert plot.curve([1.0, -1.0, 0.5], name="bits").axes[0].get_yscale() == "linear"


@pytest.mark.parametrize("values", [[0.9802, 0.9766], [-2.0, -2.01], [3.0]])
def test_a_small_change_of_a_loss_looks_small(values):
    axes = plot.curve(values).axes[0]
    low, high = axes.get_ylim()
    assert max(values) - min(values) < 0.1 * (high - low)
    assert low < min(values) <= max(values) < high
    assert ("logarithmic" in axes.get_ylabel()) == (axes.get_yscale() == "log")


def test_a_bar_is_as_high_as_its_number():
    panels = {"one": {"samples": (1.0, 0.5, 2.0), "floor": (4.0, 3.9, 4.1)}}
    axes = plot.bars(panels, title="high and low").axes[0]
    assert [bar.get_height() for bar in axes.patches] == [1.0, 4.0]
    low, high = zip(*(c.get_segments()[0][:, 1] for c in axes.collections), strict=True)
    np.testing.assert_allclose([low, high], [[0.5, 3.9], [2.0, 4.1]])


@pytest.mark.parametrize("points", [[], [(1, 0.0, 0.0, 0.0)], [(0, 1.0, 0.5, 2.0)]])
def test_a_panel_without_a_point_that_has_a_logarithm_is_empty(points):
    assert not plot.pareto({"a": {"b": points}}).axes[0].lines


def test_an_error_that_chance_made_negative_is_drawn_at_its_upper_end():
    points = [(9, 0.5, 0.4, 0.6), (20, -0.1, -0.3, 0.2)]
    axes = plot.pareto({"a": {"b": points}}).axes[0]
    limit, curve = axes.lines
    assert (limit.get_marker(), [*limit.get_xydata()[0]]) == ("v", [20, 0.2])
    assert [*curve.get_xydata()[0]] == [9, 0.5]
    assert "at most" in axes.get_ylabel()


def test_an_error_of_rounding_does_not_stretch_a_panel_and_prices_are_plain_numbers():
    points = [(9, 1.0, 0.5, 2.0), (20, 1e-15, 0.0, 1e-14)]
    axes = plot.pareto({"a": {"b": points}}).axes[0]
    assert 1e-12 < axes.get_ylim()[0] < 1e-8
    low, high = axes.get_xlim()
    shown = [
        label
        for at, label in zip(axes.get_xticks(), axes.get_xticklabels(), strict=True)
        if low <= at <= high
    ]
    assert {"10", "20"} <= {label.get_text() for label in shown}
    assert not any(label.get_text() for label in axes.get_xticklabels(minor=True))


# Paper

FUNCTIONS = {
    "points": lambda ax: plot.points(normal(20, 2), density=TwoMoons(), title="x", ax=ax),
    "corner": lambda ax: plot.points({"a": normal(20, 3), "b": normal(9, 3)}, title="x", ax=ax),
    "line": lambda ax: plot.points(normal(20, 1), truth=[0.0], ax=ax),
    "signals": lambda ax: plot.signals(normal(20, 2, 9), title="x", ax=ax),
    "images": lambda ax: plot.images(normal(2, 1, 4, 4), limits=None, title="x", ax=ax),
    "volumes": lambda ax: plot.volumes(normal(2, 1, 4, 4, 4), ax=ax),
    "field": lambda ax: plot.field(TwoMoons().at(VESDE()), normal(20, 2), 0.5, ax=ax),
    "trajectory": lambda ax: plot.trajectory(
        [State(torch.tensor(t), normal(3, 2) * t) for t in (1.0, 0.5)], ax=ax
    ),
    "strip": lambda ax: plot.strip(
        [State(torch.tensor(t), normal(3, 1, 9) * t) for t in (1.0, 0.5)], title="x", ax=ax
    ),
    "ladder": lambda ax: plot.ladder(VPSDE(), ax=ax),
    "loss_by_noise": lambda ax: plot.loss_by_noise(
        {"a": [(1, 2, 1, 3), (2, 1, 0.5, 2)]}, title="x", ax=ax
    ),
    "curve": lambda ax: plot.curve([3.0, 2.0], title="x", ax=ax),
    "bars": lambda ax: plot.bars({"a": {"b": (1, 0, 2)}, "c": {"b": (1, 0, 2)}}, title="x", ax=ax),
    "pareto": lambda ax: plot.pareto({"a": {"b": [(1, 2, 1, 3)]}, "c": {}}, ax=ax),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_figure_is_the_same_in_a_dark_style_and_drawn_into_a_given_axes(name):
    own = pixels(FUNCTIONS[name](None), dpi=32)
    with matplotlib.rc_context({"savefig.facecolor": "black", "lines.color": "white"}):
        from matplotlib import style

        style.use("dark_background")
        dark = pixels(FUNCTIONS[name](None), dpi=32)
    np.testing.assert_array_equal(own, dark)
    assert own.mean() > 100
    outer = Figure()
    left, right = outer.subplots(1, 2)
    assert FUNCTIONS[name](left) is outer
    assert not right.has_data()


@pytest.mark.slow
def test_figures_are_drawn_without_pyplot_and_its_global_state(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.pyplot", None)  # importing it now fails
    before = {k: matplotlib.rcParams[k] for k in matplotlib.rcParams if k != "backend"}
    for draw in FUNCTIONS.values():
        draw(None)  # saving is tested below
    assert all(matplotlib.rcParams[k] == value for k, value in before.items())


@pytest.mark.slow
def test_a_notebook_finds_the_picture_of_a_figure():
    drawn = plot.points(normal(5, 2))
    assert repr(drawn) == "<Figure of 1 panel>"
    assert drawn._repr_png_().startswith(b"\x89PNG")


@pytest.mark.slow
@pytest.mark.parametrize("suffix", ["png", "jpg", "jpeg", "pdf", "svg", "PNG"])
def test_a_figure_is_saved_in_the_format_of_its_suffix_without_other_files(tmp_path, suffix):
    path = tmp_path / "a" / "b" / f"picture.{suffix}"
    for _ in range(2):
        assert plot.save(plot.images(torch.zeros(1, 3, 4, 4)), str(path)) == path
    starts = {"png": b"\x89PNG", "jpg": b"\xff\xd8", "jpeg": b"\xff\xd8", "pdf": b"%PDF"}
    assert path.read_bytes().startswith(starts.get(suffix.lower(), b"<?xml"))
    assert [p.name for p in path.parent.iterdir()] == [path.name]


def test_a_picture_that_cannot_be_written_leaves_the_old_one(tmp_path, monkeypatch):
    path, drawn = tmp_path / "grid.png", plot.images(torch.zeros(1, 1, 4, 4))
    plot.save(drawn, path)
    before = path.read_bytes()

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.replace", full)
    with pytest.raises(InvalidValueError, match="No space left on device"):
        plot.save(drawn, path)
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["grid.png"]
    monkeypatch.undo()
    with pytest.raises(InvalidValueError, match="cannot write"):
        plot.save(drawn, path / "below_a_file.png")


def test_names_with_missing_glyphs_or_wrong_formulas_are_drawn():
    names = ["\u4e00$x", "a_{b$ $\ud800"]
    drawn = plot.points({"$\\bad{": normal(9, 2), "\u4e01": normal(9, 2)}, names=names)
    assert drawn._repr_png_()


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(set(plot.__all__) - {"Series", "figure", "volumes"}))
def test_the_example_of_a_function_runs(name):
    thing = getattr(plot, name)
    (found,) = doctest.DocTestFinder(recurse=False).find(
        thing, name, globs=vars(sys.modules[thing.__module__]).copy()
    )
    assert doctest.DocTestRunner().run(found).failed == 0


# Refusals

IMAGES = torch.zeros(2, 1, 4, 4)
POINTS = torch.zeros(3, 2)


def run_of(*shapes):
    """States of zeros of these shapes."""
    return [State(torch.tensor(0.5), torch.zeros(shape)) for shape in shapes]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: plot.images(torch.zeros(2, 4)), ShapeError, r"\(N, C, H, W\).*got \(2, 4\)"),
        (lambda: plot.images(IMAGES[:0]), ShapeError, r"at least one number.*\(0, 1, 4, 4\)"),
        (lambda: plot.images({1, 2}), InvalidTypeError, "must be a tensor, an array, a list.*Data"),
        (lambda: plot.samples("moons"), InvalidTypeError, r"got 'moons'; for a table or a file"),
        (lambda: plot.images(torch.zeros(9, 2, 50)), ShapeError, "signals of 2 channels"),
        (lambda: plot.images(IMAGES, labels="ab"), InvalidTypeError, "labels must be a sequence"),
        (
            lambda: plot.images(IMAGES, labels=torch.zeros(len(IMAGES), 1)),
            InvalidTypeError,
            "labels must be a sequence",
        ),
        (lambda: plot.volumes({"a": IMAGES[None]}, labels=[1, 2]), ShapeError, "got 2 labels"),
        (lambda: plot.trajectory(POINTS), InvalidTypeError, "the states of a run.*plot.samples"),
        (lambda: plot.animate(POINTS, "a.gif"), InvalidTypeError, "the states of a run"),
        (lambda: plot.strip(iter([])), InvalidValueError, "read only once"),
        (lambda: plot.images(IMAGES / 0), NonFiniteError, "images holds NaN or infinity"),
        (lambda: plot.images(IMAGES, columns=0), InvalidValueError, "columns.*got 0"),
        (lambda: plot.images(IMAGES, scale=1.5), InvalidTypeError, r"scale.*got 1\.5"),
        (lambda: plot.images(IMAGES, limits=(1.0, 1.0)), InvalidValueError, "limits"),
        (lambda: plot.samples({"a": IMAGES, "b": POINTS}), ShapeError, "the same shape"),
        (lambda: plot.samples({"a": POINTS, "b": POINTS[:, :1]}), ShapeError, "the same shape"),
        (lambda: plot.volumes(IMAGES), ShapeError, r"\(N, C, D, H, W\)"),
        (lambda: plot.volumes(torch.zeros(5)), ShapeError, r"\(N, C, D, H, W\)"),
        (lambda: plot.points(IMAGES), ShapeError, r"\(N, d\).*plot.samples"),
        (lambda: plot.points(POINTS[:0]), ShapeError, r"got shape \(0, 2\)"),
        (lambda: plot.points(POINTS / 0), NonFiniteError, "x holds NaN"),
        (lambda: plot.points({}), InvalidValueError, "nothing to show"),
        (lambda: plot.points(POINTS, names=["a"]), ShapeError, "2 entries, got 1"),
        (lambda: plot.points(POINTS, truth=[1.0]), ShapeError, "2 entries, got 1"),
        (lambda: plot.points(POINTS, ax=3), InvalidTypeError, "ax must be an Axes"),
        (
            lambda: plot.points(POINTS, density=Gaussian([0.0], var=1.0)),
            ShapeError,
            r"event shape \(2,\).*got \(1,\)",
        ),
        (lambda: plot.points(POINTS.double() + 1e200), InvalidValueError, "1.0e\\+200.*scale it"),
        (lambda: plot.signals(POINTS[:, 0]), ShapeError, r"\(N, C, T\)"),
        (lambda: plot.signals(POINTS, at=[1.0]), ShapeError, "each of the 2 values"),
        (lambda: plot.samples(POINTS * math.nan), NonFiniteError, "samples holds NaN"),
        (lambda: plot.samples(POINTS, labels=["a"]), ShapeError, "a label for each"),
        (lambda: plot.trajectory([]), InvalidValueError, "nothing to show"),
        (lambda: plot.field(lambda x, t: x, POINTS[:, :1], 0.5), ShapeError, r"\(N, 2\)"),
        (
            lambda: plot.field(lambda x, t: x, POINTS, 0.5, density=TwoMoons()),
            InvalidValueError,
            "score has no SDE",
        ),
        (lambda: plot.ladder(VPSDE(), times=[2.0]), InvalidValueError, "2"),
        (lambda: plot.loss_by_noise({}), InvalidValueError, "nothing to show"),
        (lambda: plot.curve([]), ShapeError, r"got shape \(0,\)"),
        (lambda: plot.curve(torch.ones(1, 1)), ShapeError, r"got shape \(1, 1\)"),
        (lambda: plot.curve([1.0, math.inf]), NonFiniteError, "values holds NaN or infinity"),
        (lambda: plot.curve(["a"]), InvalidTypeError, "values must be a number or a tensor"),
        (lambda: plot.curve([1.0], steps=[1, 2]), ShapeError, "got 2 and 1"),
        (lambda: plot.pareto({}), InvalidValueError, "nothing to show"),
        (lambda: plot.bars({}), InvalidValueError, "nothing to show"),
        (lambda: plot.bars({"a": {}}), ShapeError, "a must be a vector"),
        (lambda: plot.bars({"a": {"b": (1, 0, math.inf)}}), NonFiniteError, "a holds NaN"),
        (lambda: plot.images(IMAGES, limits=(0.0, math.inf)), InvalidValueError, "finite"),
        (lambda: plot.points(POINTS, frame=[(0.0, 0.0)] * 2), InvalidValueError, "increase"),
        (lambda: plot.kind(5), InvalidTypeError, "event_shape"),
        (lambda: plot.loss_by_noise({"a": []}), ShapeError, "at least one point"),
        (
            lambda: plot.loss_by_noise({"a": [(0.0, 1.0, 1.0, 1.0)]}),
            InvalidValueError,
            "above 0, got 0",
        ),
        (lambda: plot.trajectory(run_of((3, 2), (3, 3))), ShapeError, "the same shape"),
        (lambda: plot.strip(run_of((3, 2), (2, 2)), n=3), ShapeError, "the same shape"),
        (lambda: plot.animate(run_of((3, 2), (3, 3)), "a.gif"), ShapeError, "the same shape"),
        *(
            (lambda draw=draw: draw([State(torch.tensor(0.5), torch.full((2, 2), 3e38))]), *what)
            for draw in (plot.trajectory, plot.strip, lambda run: plot.animate(run, "a.gif"))
            for what in [(InvalidValueError, "too large for a picture")]
        ),
        (lambda: plot.trajectory(run_of((3, 2)), names=["a"]), ShapeError, "2 entries, got 1"),
        (
            lambda: plot.trajectory(run_of((3, 3)), density=TwoMoons()),
            ShapeError,
            "in the plane.*3 entries",
        ),
        (
            lambda: plot.field(TwoMoons().at(VESDE()), POINTS, 0.5, names=["a"]),
            ShapeError,
            "2 entries, got 1",
        ),
        (lambda: plot.animate(run_of((3, 2)), "a.gif", seconds=1e9), InvalidValueError, "seconds"),
        (
            lambda: plot.save(plot.points(POINTS, title=r"$\frac{$"), "a.png"),
            InvalidValueError,
            "read as a formula",
        ),
        (
            lambda: plot.curve([1.0], ax=plot.figure((2, 2)).add_subplot(projection="polar")),
            InvalidValueError,
            "straight axes, got polar axes",
        ),
        (lambda: plot.save(plot.images(IMAGES), "a.bmp"), InvalidValueError, "ends in .png, .jpg"),
        (lambda: plot.animate([], "a.png"), InvalidValueError, r"ends in \.gif, \.html"),
        (lambda: plot.animate([], "a.gif"), InvalidValueError, "nothing to show"),
    ],
)
def test_what_cannot_be_drawn_is_refused_and_leaves_no_file(
    tmp_path, monkeypatch, call, error, message
):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(error, match=message):
        call()
    assert not list(tmp_path.iterdir())


def test_samples_in_model_units_are_drawn_in_those_of_the_data_beside_them():
    data = Data((127 + 60 * normal(8, 1, 4, 4)).clamp(0, 255).byte(), transform=BYTES)
    found = sets.given("x", {"data": data, "samples": data.x}).sets
    torch.testing.assert_close(found["samples"], found["data"], rtol=0, atol=1e-3)
    # what is in the data's units already stays as it is
    raw = {"data": data, "samples": data.raw.float()}
    assert torch.equal(sets.given("x", raw).sets["samples"], data.raw.double())


def test_samples_without_a_class_are_grey_and_change_no_colour_of_a_class():
    """ "missing" took a place between the sorted names, so later classes changed their colour."""
    x = {"": torch.zeros(4, 2)}
    whole = sets.tones_of(x, sets.words_of(["fern", "moss", "missing", "palm"], x))
    x = {"": torch.zeros(3, 2)}
    known = sets.tones_of(x, sets.words_of(["fern", "moss", "palm"], x))
    assert [*whole] == ["fern", "moss", "palm", "missing"]
    assert whole == {**known, "missing": paper.GREY}
