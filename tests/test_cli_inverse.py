"""Test `scoresde inpaint` and `scoresde solve`."""

import math
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from scoresde import VESDE, ScoreModel, sample
from scoresde.cli import main, solve
from scoresde.guidance import Blur, Downsample, Linear, posterior
from scoresde.nn import MLP, UNet


def files(folder):
    """Return an image of a stroke, where it is known, and a measurement of it."""
    x = np.zeros((1, 28, 28))
    x[:, 5:23, 12:16] = 255
    mask = np.zeros((1, 28, 28))
    mask[:, :14] = 1
    np.save(folder / "known.npy", x)
    np.save(folder / "mask.npy", mask[0])  # the axis of one channel may be left out
    np.save(folder / "y.npy", Downsample(7)(torch.from_numpy(x[None]).float())[0].numpy())
    return x, mask.astype(bool)


@pytest.mark.slow
def test_the_known_part_of_an_image_is_kept(tmp_path, capsys):
    x, mask = files(tmp_path)
    words = ["--image", f"{tmp_path}/known.npy", "--mask", f"{tmp_path}/mask.npy"]
    words += ["--n", "2", "--resample", "1", "--steps", "2", "--out", f"{tmp_path}/out.npy"]
    assert main(["inpaint", "mnist", *words]) == 0
    said = capsys.readouterr().out
    assert "2 inpainted" in said
    assert f"\n  scoresde inpaint mnist --image {tmp_path}/known.npy" in said
    assert "--n 2 --resample 2 " in said.splitlines()[-1]
    found = np.load(tmp_path / "out.npy")
    assert found.shape == (2, 1, 28, 28)
    assert (found[:, mask] == x[mask]).all()
    assert (found[0, ~mask] != found[1, ~mask]).any()


@pytest.mark.slow
def test_a_measurement_in_the_units_of_the_data_is_met(tmp_path, capsys):
    files(tmp_path)
    words = ["--operator", "downsample=7", "--y", f"{tmp_path}/y.npy", "--std", "2", "--n", "1"]
    words += ["--iterations", "1", "--steps", "4", "--out", f"{tmp_path}/out.npy"]
    assert main(["solve", "mnist", *words]) == 0
    assert "passes of the network" in capsys.readouterr().out
    found = Downsample(7)(torch.from_numpy(np.load(tmp_path / "out.npy")).float())[0].numpy()
    assert np.abs(found - np.load(tmp_path / "y.npy")).mean() < 30


def test_an_operator_acts_on_the_axes_that_events_have_besides_their_channels():
    for shape, dims in [((12,), 1), ((1, 12), 1), ((2, 12), 1), ((1, 6, 6), 2), ((1, 4, 4, 4), 3)]:
        model = ScoreModel(torch.nn.Identity(), VESDE(0.01, 1.0), shape)
        x = torch.linspace(-1, 1, 2 * math.prod(shape)).reshape(2, *shape) ** 3
        assert torch.equal(solve._operator("blur=2", model)(x), Blur(2.0, dims)(x))
        assert torch.equal(solve._operator("downsample=2", model)(x), Downsample(2, dims)(x))


def test_solutions_for_blurred_signals_of_a_class_are_those_of_the_python_operator(
    tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    with torch.random.fork_rng(devices=[]):
        net = UNet(1, channels=(4, 8), blocks=1, spatial=1, num_classes=2)
    model = ScoreModel(net, VESDE(0.01, 1.0), (1, 16))
    model.save_pretrained("model")
    blur = Blur(2.0, dims=1)
    y = blur(torch.linspace(-1, 1, 16).reshape(1, 1, 16))[0]
    np.save("y.npy", y.numpy())
    words = ["--operator", "blur=2", "--y", "y.npy", "--std", "0.1", "--class", "1", "--n", "2"]
    words += ["--steps", "2", "--iterations", "2", "--batch-size", "2", "--out", "x.npy"]
    assert main(["solve", "model", *words]) == 0
    assert " --class 1 " in capsys.readouterr().out
    score = posterior(model, Linear(blur, 0.1), iterations=2, units=True)
    given = {"measurement": y, "label": torch.tensor([1])}
    expected = sample(score, sampler="heun", n=2, steps=2, seed=0, condition=given, units=True)
    np.testing.assert_allclose(np.load("x.npy"), expected.numpy(), rtol=1e-5, atol=1e-6)


@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize(
    ("size", "words"),
    [
        ((40, 60), "40 x 60 pixels; it was cropped about its centre and resized to the 28 x 28 p"),
        ((56, 56), "56 x 56 pixels; it was resized to the 28 x 28 pixels of the model"),
        ((28, 28), ""),
    ],
)
def test_an_image_of_another_size_is_changed_with_a_warning(size, words, capsys, tmp_path):
    Image.new("RGB", size).save(tmp_path / "in.png")
    np.save(tmp_path / "mask.npy", np.eye(28))
    given = ["--image", f"{tmp_path}/in.png", "--mask", f"{tmp_path}/mask.npy", "--resample", "1"]
    options = ["--n", "1", "--steps", "1", "--batch-size", "1", "--out", f"{tmp_path}/x.npy"]
    assert main(["inpaint", "mnist", *given, *options]) == 0
    said = [line for line in capsys.readouterr().err.splitlines() if "pixels" in line]
    assert len(said) == bool(words)
    assert all(words in line for line in said)


@pytest.mark.slow
def test_a_completed_row_of_a_table_is_written_as_a_table(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("scoresde.cli.remarks._LONG", -1.0)
    with torch.random.fork_rng(devices=[]):
        net = MLP(3, hidden=(4,), num_classes=2)
    model = ScoreModel(net, VESDE(0.01, 1.0), (3,))
    model.columns, model.whole = ("a", "b", "c"), ("a",)
    model.save_pretrained("model")
    np.save("row.npy", np.array([1, 0.25, 0], "f4"))
    np.save("mask.npy", np.array([1, 1, 0]))
    options = ["--n", "2", "--steps", "2", "--condition", "label=1", "--out", "x.csv"]
    known = ["--image", "row.npy", "--mask", "mask.npy", "--resample", "1"]
    measured = ["--y", "row.npy", "--operator", "mask=mask.npy", "--std", "1", "--iterations", "1"]
    for words in (["inpaint", "model", *known], ["solve", "model", *measured]):
        assert main([*words, *options]) == 0
        out = capsys.readouterr().out
        assert "16 samples were computed and 2 kept" in out
        assert "--batch-size 2 is faster" in out
        lines = [line.split(",") for line in Path("x.csv").read_text().splitlines()]
        assert lines[0] == ["a", "b", "c", "label"]
        assert [line[3] for line in lines[1:]] == ["1", "1"]
        if words[0] == "inpaint":
            assert [line[:2] for line in lines[1:]] == [["1", "0.25"]] * 2
    assert main(["inpaint", "mnist", *known, "--n", "2", "--out", "x.csv"]) == 1
    assert "a .csv holds vectors" in capsys.readouterr().err


@pytest.mark.slow
def test_the_empty_cells_of_a_table_are_filled_in(tmp_path, monkeypatch, capsys):
    """Known cells keep every digit, and each row has its own class, if any."""
    monkeypatch.chdir(tmp_path)
    rows = ["1.5,2,a", "0.1,3,b", "-1.25,4,b"]
    Path("data.csv").write_text("\n".join(["u,v,kind", *rows * 4]))
    train = ["train", "--data", "data.csv", "--condition", "kind", "--steps", "1", "--out", "run"]
    assert main([*train, "--batch-size", "4", "--quiet"]) == 0
    Path("rows.csv").write_text("kind,v,u\na,,0.7\n,5,\nb,,\n")
    fill = ["inpaint", "run", "--image", "rows.csv", "--resample", "1", "--steps", "2"]
    capsys.readouterr()
    assert main([*fill, "--n", "2", "--out", "x.csv"]) == 0
    assert "kind is a condition, which is not drawn: it stays empty in 1 of 3 rows" in (
        capsys.readouterr().out
    )
    assert main([*fill, "--out", "x.png"]) == 0
    first, *found = [line.split(",") for line in Path("x.csv").read_text().splitlines()]
    assert first == ["u", "v", "kind"]
    assert [kind for _, _, kind in found] == ["a", "a", "", "", "b", "b"]
    assert [u for u, _, _ in found[:2]] == ["0.7"] * 2
    assert [v for _, v, _ in found[2:4]] == ["5"] * 2
    assert all(cell for row in found for cell in row[:2])
    np.save("rows.npy", [[0.7, np.nan], [np.nan, 5]])
    given = ["--condition", "kind=b", "--out", "x.npy"]
    assert main([*fill[:3], "rows.npy", *fill[4:], *given]) == 0
    assert np.load("x.npy")[[0, 1], [0, 1]].tolist() == [np.float32(0.7), 5]
    several = []
    for known in ("1,2", ",2"):  # a row without a gap is not drawn, and changes no other row
        Path("rows.csv").write_text(f"v,u\n3,\n{known}\n,0.25\n")
        capsys.readouterr()
        assert main([*fill, "--out", "x.csv"]) == 0
        told = "1 of 3 rows have no gap, and stay equal" in capsys.readouterr().out
        several.append(Path("x.csv").read_text().splitlines()[1:])
        assert told == (known == "1,2")
    assert several[0][1] == "2,1"
    assert several[0][::2] == several[1][::2]
    Path("rows.csv").write_text("v,u\n,2\n")  # the column of the condition may be left out
    assert main([*fill, "--out", "x.csv"]) == 0
    u, v, *_ = Path("x.csv").read_text().splitlines()[1].split(",")
    assert (u, bool(v)) == ("2", True)
    Path("rows.csv").write_text("v,u\n1,2\n")
    capsys.readouterr()
    assert main([*fill, "--out", "x.csv"]) == 1
    assert "nothing to draw" in capsys.readouterr().err


@pytest.mark.slow
def test_a_masked_measurement_may_have_the_shape_of_a_whole_sample(tmp_path, capsys):
    x, mask = files(tmp_path)
    np.save(tmp_path / "entries.npy", x[mask])
    found = []
    for y in ("known.npy", "entries.npy"):
        words = ["--operator", f"mask={tmp_path}/mask.npy", "--y", f"{tmp_path}/{y}", "--std", "2"]
        words += ["--n", "1", "--iterations", "1", "--steps", "2", "--out", f"{tmp_path}/out.npy"]
        assert main(["solve", "mnist", *words]) == 0
        assert "next, to draw other solutions" in capsys.readouterr().out
        found.append(np.load(tmp_path / "out.npy"))
    np.testing.assert_array_equal(*found)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("operator", "words"),
    [
        ("downsampl=7", "did you mean 'downsample'"),
        ("grey=3", "write grey without a value"),
        ("blur", "blur=VALUE"),
        ("blur=wide", "takes a number"),
        ("downsample=2.5", "takes a whole number"),
        ("mask=none.npy", "does not exist"),
        ("downsample=5", "do not divide"),
    ],
)
def test_an_impossible_operator_is_reported_in_one_line(operator, words, tmp_path, capsys):
    files(tmp_path)
    given = ["--y", f"{tmp_path}/y.npy", "--std", "2", "--out", f"{tmp_path}/out.npy"]
    assert main(["solve", "mnist", "--operator", operator, *given]) == 1
    assert words in capsys.readouterr().err


@pytest.mark.slow
def test_no_data_that_a_model_was_trained_on_are_replaced(tmp_path, monkeypatch, capsys):
    """Neither a file, nor that of their conditions, nor one in a folder, nor by a link."""
    monkeypatch.chdir(tmp_path)
    x = np.random.default_rng(0).normal(size=(40, 2)).astype(np.float32)
    np.save("x.npy", x)
    np.savetxt("y.csv", x[:, :1], header="y", comments="", delimiter=",")
    os.mkdir("photos")
    for name in ("a.png", "b.png"):
        Image.new("L", (4, 4)).save(f"photos/{name}")
    os.link("photos/a.png", "photos/c.png")
    os.symlink("x.npy", "link.npy")
    train = ["train", "--data", "x.npy", "--condition", "y=y.csv", "--steps", "1", "--out", "run"]
    assert main([*train, "--batch-size", "4", "--quiet"]) == 0
    files = ["x.npy", "y.csv", "photos/a.png"]
    before = [Path(name).read_bytes() for name in files]
    for command in (
        ["sample", "run", "--out", "x.npy"],
        ["sample", "run", "--out", "link.npy"],
        ["sample", "run", "--out", "y.csv"],
        ["sample", "run", "--beside", "photos", "--out", "photos/a.png"],
        ["likelihood", "run", "--out", "y.csv"],
        ["edit", "run", "--out", "x.npy"],
        ["data", "check", "photos", "--out", "photos/c.png"],
    ):
        capsys.readouterr()
        assert main(command) == 1
        assert "is read by this command, or belongs to the data" in capsys.readouterr().err, command
    assert [Path(name).read_bytes() for name in files] == before


@pytest.mark.parametrize("name", ["known", "mask", "y"])
def test_no_file_that_is_read_is_replaced(name, tmp_path, capsys):
    files(tmp_path)
    before = (tmp_path / f"{name}.npy").read_bytes()
    inpaint = ["inpaint", "--image", "known.npy", "--mask", "mask.npy"]
    solve = ["solve", "--operator", "mask=mask.npy", "--y", "y.npy", "--std", "2"]
    for command, *words in (
        [solve, inpaint] if name == "mask" else [solve if name == "y" else inpaint]
    ):
        given = [f"mask={tmp_path}/mask.npy" if w == "mask=mask.npy" else w for w in words]
        given = [f"{tmp_path}/{w}" if w.endswith(".npy") and "=" not in w else w for w in given]
        assert main([command, "mnist", *given, "--out", f"{tmp_path}/{name}.npy"]) == 1
        assert "is read by this command" in capsys.readouterr().err
    assert (tmp_path / f"{name}.npy").read_bytes() == before


@pytest.mark.slow
@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda path: np.save(path, np.ones((1, 28, 28), complex)), "holds complex numbers"),
        (os.mkfifo, "a pipe or a device"),
        (lambda path: os.mkfifo(path.with_suffix(".png")), "a pipe or a device"),
    ],
)
def test_a_file_that_is_no_image_is_reported_in_one_line(make, words, tmp_path, capsys):
    files(tmp_path)
    make(tmp_path / "odd.npy")
    (odd,) = tmp_path.glob("odd.*")
    given = ["--image", str(odd), "--mask", f"{tmp_path}/mask.npy", "--out", f"{tmp_path}/x.npy"]
    assert main(["inpaint", "mnist", *given]) == 1
    err = capsys.readouterr().err
    assert words in err
    assert err.count("\n") == 1
