"""Test pictures and animations of `scoresde sample` for samples of any kind."""

import numpy as np
import pytest
import torch
from PIL import Image

from scoresde import VESDE, ScoreModel, plot
from scoresde.cli import main
from scoresde.cli.sample_picture import PictureOptions, picture
from scoresde.nn import MLP
from scoresde.units import Standardize

SHAPES = {
    "line": (1,), "plane": (2,), "table": (4,), "vector": (30,), "signal": (2, 24),
    "matrix": (6, 7), "image": (1, 6, 6), "channels": (2, 4, 4), "volume": (1, 4, 4, 4),
}  # fmt: skip


def saved(folder, shape, **options):
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        net = MLP(shape, hidden=(4,), **options)
    size = shape[0]
    model = ScoreModel(net, VESDE(), shape).eval()
    model.transform = Standardize((50.0,) * size, (2.0,) * size)
    model.save_pretrained(folder)
    return model


@pytest.mark.slow
@pytest.mark.parametrize("name", SHAPES)
def test_every_kind_of_samples_has_a_picture(name, tmp_path, capsys):
    saved(tmp_path / "model", SHAPES[name])
    out = tmp_path / "x.png"
    words = ["sample", str(tmp_path / "model"), "--steps", "1", "--sampler", "ddim", "--n", "3"]
    assert main([*words, "--out", str(out)]) == 0
    said = capsys.readouterr().out
    assert "3 samples of shape " in said
    assert f"write {tmp_path}/x.npy to use their numbers again" in said
    with Image.open(out) as drawn:
        assert max(drawn.size) >= 480
    assert [path.name for path in tmp_path.iterdir() if path.name != "model"] == ["x.png"]


@pytest.mark.slow
@pytest.mark.parametrize("suffix", ["gif", "html", "jpg", "svg"])
def test_a_run_is_a_film_and_a_picture_of_other_kinds(suffix, tmp_path):
    saved(tmp_path / "model", (1, 6, 6), num_classes=3)
    out = tmp_path / f"x.{suffix}"
    words = ["sample", str(tmp_path / "model"), "--steps", "2", "--sampler", "ddim", "--n", "2"]
    assert main([*words, "--class", "1", "--out", str(out)]) == 0
    start = {"gif": b"GIF8", "html": b"<!doctype", "jpg": b"\xff\xd8", "svg": b"<?xml"}[suffix]
    assert out.read_bytes().startswith(start)


def test_a_film_takes_a_condition_for_each_sample_of_its_default_number(tmp_path, capsys):
    saved(tmp_path / "model", (2, 24), condition={"y": 1})
    np.save(tmp_path / "y.npy", np.zeros((12, 1), np.float32))
    words = ["sample", str(tmp_path / "model"), "--steps", "1", "--sampler", "ddim"]
    words += ["--condition", f"y={tmp_path / 'y.npy'}", "--out", str(tmp_path / "x.gif")]
    assert main(words) == 0
    assert "the trajectory of 12 samples" in capsys.readouterr().out


def test_scale_and_columns_are_those_of_the_picture(tmp_path):
    saved(tmp_path / "model", (3, 5, 7))
    out = tmp_path / "x.png"
    words = ["sample", str(tmp_path / "model"), "--steps", "1", "--sampler", "ddim", "--n", "6"]
    assert main([*words, "--out", str(out), "--scale", "3", "--columns", "6"]) == 0
    wide, high = 6 * (7 * 3 + 2) + 2, 5 * 3 + 2 + 2
    with Image.open(out) as drawn:  # below the images are the limits of their colours
        grey = (np.asarray(drawn.convert("RGB")) == 128).all(-1)
    rows, columns = np.flatnonzero(grey.sum(1) == wide), np.flatnonzero(grey.sum(0) == high)
    assert np.ptp(rows) + 1 == high
    assert np.ptp(columns) + 1 == wide


def test_points_have_the_units_of_the_data_and_as_many_as_show_a_law(tmp_path, monkeypatch):
    saved(tmp_path / "model", (2,))
    drawn = []
    monkeypatch.setattr(plot, "save", lambda figure, path: drawn.append(figure))
    words = ["sample", str(tmp_path / "model"), "--steps", "1", "--sampler", "ddim"]
    assert main([*words, "--out", str(tmp_path / "x.png")]) == 0
    monkeypatch.undo()
    assert main([*words, "--n", "1000", "--out", str(tmp_path / "x.npy")]) == 0
    shown = drawn[0].axes[0].collections[0].get_offsets()
    np.testing.assert_allclose(shown, np.load(tmp_path / "x.npy"), rtol=1e-5)


def test_conditions_are_named_above_images_and_in_the_title_where_all_have_one(tmp_path):
    model = saved(tmp_path / "model", (1, 4, 4), num_classes=3, condition={"y": 2})
    x = torch.zeros(3, 1, 4, 4)
    options = PictureOptions(given={"y": torch.tensor([[0.5, 2.0]])})
    drawn = picture({"x": x, "y": torch.tensor([0, 2, 1])}, model, options)
    texts = [text.get_text() for text in drawn.axes[0].texts]
    assert texts == ["label 0", "label 2", "label 1", "y = 0.5, 2"]
    many = picture(
        {"x": torch.zeros(65, 1, 4, 4), "y": torch.arange(65) % 3}, model, PictureOptions()
    )
    assert not many.axes[0].texts


def test_samples_are_drawn_beside_data_in_their_units(tmp_path, monkeypatch, capsys):
    model = saved(tmp_path / "model", (2,))
    x = model.transform.inverse(torch.linspace(-1, 1, 18).reshape(9, 2))
    np.savez(tmp_path / "x.npz", x=x.numpy())
    drawn = []
    monkeypatch.setattr(plot, "save", lambda figure, path: drawn.append(figure))
    words = ["sample", str(tmp_path / "model"), "--steps", "1", "--sampler", "ddim", "--n", "5"]
    words += ["--beside", str(tmp_path / "x.npz"), "--out"]
    assert main([*words, str(tmp_path / "x.png")]) == 0
    first, second = drawn[0].axes[:2]
    assert (first.get_title(), second.get_title()) == ("data", "samples")
    shown = torch.as_tensor(np.asarray(first.collections[0].get_offsets()), dtype=x.dtype)
    assert len(shown) == 5
    assert torch.cdist(shown, x).amin(1).max() < 1e-3
    assert main([*words, str(tmp_path / "x.npy")]) == 1
    assert "--beside needs a picture" in capsys.readouterr().err
