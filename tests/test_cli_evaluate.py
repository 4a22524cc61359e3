"""Test `scoresde evaluate`: its samples, its comparisons, its files and its errors."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch

from scoresde import VESDE, ScoreModel, checkpoint
from scoresde.cli import main
from scoresde.metrics import Classifier, evaluate
from scoresde.metrics.evaluating import floor_of
from scoresde.nn import MLP
from scoresde.sampling import Run

QUICK = ["--sampler", "ddim", "--steps", "2", "--resamples", "3", "--metrics", "frechet", "kid"]


def points(path, n, seed, classes=None):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(n, 2, generator=generator)
    arrays = {"x": x.numpy()} if classes is None else {"x": x.numpy(), "y": np.arange(n) % classes}
    np.savez(path, **arrays)
    return path


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Return the folder of a run of two steps on points of the plane, and in it held-out points."""
    folder = tmp_path_factory.mktemp("evaluate") / "run"
    source = str(points(folder.parent / "train.npz", 60, 0))
    words = ["--data", source, "--out", str(folder), "--steps", "2", "--channels", "4"]
    words += ["--held-out", "0"]
    assert main(["train", *words, "--batch-size", "8"]) == 0
    points(folder.parent / "held.npz", 60, 1)
    points(folder.parent / "labelled.npz", 60, 2, classes=3)
    return folder


@pytest.fixture
def command(run, tmp_path, monkeypatch):
    """Run the command on this run, in a separate folder; return its exit code."""
    monkeypatch.chdir(tmp_path)

    def call(*options, data="held.npz"):
        words = ["evaluate", str(run), "--data", str(run.parent / data), "--n", "12"]
        words += [] if "--out" in options else ["--out", "report"]
        return main([*words, *QUICK, *options])

    return call


@pytest.mark.slow
def test_it_writes_a_table_a_file_and_a_picture(command, tmp_path, capsys):
    assert command("--out", "deep/report") == 0
    out = capsys.readouterr().out
    assert re.search(r"^frechet +small ", out, re.M)
    stored = json.loads((tmp_path / "deep/report/report.json").read_text())
    assert stored["n"] == 12
    assert list(stored["figures"]) == ["frechet", "frechet_limit", "kid"]
    assert (tmp_path / "deep/report/report.png").stat().st_size > 5000


@pytest.mark.slow
def test_the_command_prints_the_result_of_evaluate(command, run, tmp_path):
    assert command("--seed", "3", "--train-data", str(run.parent / "train.npz")) == 0
    stored = json.loads((tmp_path / "report/report.json").read_text())
    want = evaluate(
        tmp_path / "report/samples", run.parent / "held.npz", train=run.parent / "train.npz",
        metrics=["frechet", "kid"], seed=3, resamples=3,
    )  # fmt: skip
    assert stored == json.loads(json.dumps(want.as_json()))
    assert "copied" in stored["figures"]


@pytest.mark.slow
def test_the_same_command_again_draws_nothing_and_prints_the_same(command, tmp_path, monkeypatch):
    assert command() == 0
    before = (tmp_path / "report/report.json").read_bytes()
    monkeypatch.setattr("scoresde.cli.drawing.Run", None)  # calling it now fails
    assert command() == 0
    assert (tmp_path / "report/report.json").read_bytes() == before


def labelled_model(path):
    with torch.random.fork_rng(devices=[]):
        net = MLP(2, hidden=(4,), num_classes=3)
    ScoreModel(net, VESDE(), (2,)).save_pretrained(path)


@pytest.mark.slow
@pytest.mark.parametrize("data", ["held.npz", "labelled.npz"])
def test_a_report_replaces_the_one_before_of_other_samples(command, tmp_path, data):
    """The command that `train` prints must work for a second model, too."""
    assert command("--seed", "1", "--n", "30") == 0
    assert command("--seed", "2", data=data) == 0
    replaced = {path.name: path.read_bytes() for path in (tmp_path / "report/samples").iterdir()}
    assert command("--seed", "2", "--out", "new", data=data) == 0
    drawn = {path.name: path.read_bytes() for path in (tmp_path / "new/samples").iterdir()}
    assert replaced == drawn


@pytest.mark.slow
def test_samples_are_drawn_under_the_conditions_of_the_data_of_the_floor(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    labelled_model("model")
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((60, 2)), rng.integers(-1, 3, 60)
    np.savez("held.npz", x=x, y=y, other=x)
    np.savetxt("held.csv", np.column_stack([x, y]), delimiter=",", fmt=["%.9g", "%.9g", "%d"])
    words = ["evaluate", "model", "--n", "12", "--batch-size", "5", *QUICK]
    seen, of = [], Run.of

    def spied(*args, **options):
        if options.get("sampler") == "ddim":
            seen.append(options["condition"])
        return of(*args, **options)

    monkeypatch.setattr(Run, "of", spied)
    assert main([*words, "--data", "held.npz", "--seed", "4"]) == 0
    drawn = torch.cat([condition["label"] for condition in seen])
    assert drawn.tolist() == y[floor_of(60, 12, seed=4)].tolist()
    stored = json.loads(Path("report/report.json").read_text())
    want = evaluate(
        "report/samples", "held.npz", metrics=["frechet", "kid"], seed=4, resamples=3,
    )  # fmt: skip
    assert stored == json.loads(json.dumps(want.as_json()))
    table = ["--data", "held.csv", "--condition", "label=2", "--seed", "4", "--out", "again"]
    assert main([*words, *table]) == 0
    assert torch.equal(torch.cat([condition["label"] for condition in seen]), drawn.repeat(2))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("command", "options"),
    [
        ("likelihood", ["--n", "4", "--rtol", ".1"]),
        ("audit", ["--n", "16", "--levels", "2", "--draws", "2", "--steps", "1"]),
    ],
)
def test_conditions_travel_from_any_source_to_a_model(
    command, options, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    labelled_model("model")
    points("held.npz", 20, 1, classes=3)
    held = np.load("held.npz")
    rows = np.column_stack([held["x"], held["y"]])
    np.savetxt("held.csv", rows, delimiter=",", fmt=["%.9g", "%.9g", "%d"])
    np.savez("bare.npz", x=held["x"])
    np.save("y.npy", held["y"])
    said = []
    routes = (
        ["held.npz"],
        ["held.csv", "--condition", "label=2"],
        ["bare.npz", "--condition", "label=y.npy"],
    )
    for words in routes if command == "likelihood" else routes[:2]:
        assert main([command, "model", *options, "--data", *words]) == 0
        text = capsys.readouterr().out
        assert text.startswith(f"data: {words[0]}, 20 samples\n")
        said.append(re.sub(r"in [\d.]+ s|data: .*|next, (.|\n)*", "", text))
    assert set(said) == {said[0]}
    assert main([command, "model", *options, "--data", "bare.npz"]) == 1
    assert "bare.npz has no labels; name its column or its file" in capsys.readouterr().err
    np.save("y.npy", held["y"] + 1)
    words = ["--data", "bare.npz", "--condition", "label=y.npy"]
    assert main([command, "model", *options, *words]) == 1
    assert "expected [0, 2]" in capsys.readouterr().err


@pytest.mark.slow
def test_the_same_command_again_draws_nothing_under_conditions(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    labelled_model("model")
    points("held.npz", 60, 1, classes=3)
    words = ["evaluate", "model", "--data", "held.npz", "--n", "12", *QUICK]
    assert main(words) == 0
    before = Path("report/report.json").read_bytes()
    with monkeypatch.context() as patch:
        patch.setattr(Run, "of", None)  # calling it now fails
        assert main(words) == 0
    assert Path("report/report.json").read_bytes() == before
    points("held.npz", 60, 1, classes=2)  # samples of other conditions are not reused
    assert main(words) == 0
    assert main([*words, "--out", "new"]) == 0
    assert Path("report/report.json").read_bytes() == Path("new/report.json").read_bytes()


@pytest.mark.slow
def test_existing_samples_are_used(command, run, tmp_path, capsys):
    x = torch.from_numpy(np.load(run.parent / "held.npz")["x"])[:20] + 5
    checkpoint.save_tensors(tmp_path / "mine.safetensors", {"x": x})
    assert command("--samples", "mine.safetensors") == 0
    assert not (tmp_path / "report/samples").exists()
    stored = json.loads((tmp_path / "report/report.json").read_text())
    assert stored["n"] == 20
    assert stored["figures"]["frechet"]["samples"]["value"] > 20


@pytest.mark.slow
def test_a_classifier_is_not_trained_on_the_data_that_it_compares(
    command, tmp_path, monkeypatch, capsys
):
    seen = []
    fit = Classifier.fit
    monkeypatch.setattr(
        Classifier, "fit", lambda data, **options: seen.append(data) or fit(data, steps=2)
    )
    assert command("--features", "classifier", data="labelled.npz") == 0
    said = capsys.readouterr().out
    assert re.search(r"the classifier labels \S+% of 40 held-out samples correctly", said)
    stored = json.loads((tmp_path / "report/report.json").read_text())
    assert stored["features"] == "Classifier"
    assert stored["size"] == 64
    assert [len(data) for data in seen] == [20]
    fit(seen[0], steps=1).save(tmp_path / "judge.safetensors")
    assert command("--features", "judge.safetensors") == 0


@pytest.mark.slow
@pytest.mark.filterwarnings("default")
def test_a_model_that_was_trained_on_the_data_is_reported(command, run, capsys):
    assert command(data="train.npz") == 0
    assert "warning: the model was trained on" in capsys.readouterr().err
    assert command("--train-data", str(run.parent / "train.npz"), data="train.npz") == 1
    assert "100.0% of the held-out data are equal to training data" in capsys.readouterr().err
    words = [str(run), "--data", str(run.parent / "train.npz"), "--n", "16"]
    assert main(["likelihood", *words, "--rtol", ".1"]) == 0
    assert "warning: the model was trained on" in capsys.readouterr().err
    assert main(["audit", *words, "--levels", "2", "--draws", "2", "--steps", "1"]) == 0
    assert "warning: the model was trained on" in capsys.readouterr().err


@pytest.mark.slow
def test_a_run_whose_configuration_cannot_be_read_is_treated_as_a_model(command, run):
    before = (run / "config.toml").read_text()
    (run / "config.toml").write_text("[unknown]\nkey = 1\n")
    assert command() == 0
    (run / "config.toml").unlink()
    assert command() == 0
    (run / "config.toml").write_text(before)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--features", "pixel"], "unknown feature map 'pixel'; did you mean 'pixels'"),
        (["--metrics", "fid"], "unknown metric 'fid'; did you mean 'kid'"),
        (["--n", "1"], "n must be an integer >= 4, got 1"),
        (["--features", "classifier"], "needs labels"),
        (["--features", "none.safetensors"], "there is no file"),
        (["--features", "inception"], "pip install 'scoresde"),
        (["--samples", "none"], "none"),
        (["--split", "test"], "has no splits such as 'test'"),
        (["--train-data", "nowhere.npz"], "does not exist"),
        (["--seed", "-1"], "seed"),
        (["--resamples", "-1"], "resamples"),
        (["--resamples", "1"], "a single half gives no standard deviation"),
        (["--metrics"], "nothing to compare"),
        (["--metrics", "neighbours", "--n", "11"], "n must be an integer >= 12, got 11"),
        (["--out", "file"], "'file' is a file"),
        (["--out", "file/deep"], "'file' is a file"),
    ],
)
def test_impossible_requests_are_reported_in_one_line(
    command, capsys, monkeypatch, options, message
):
    name = "torch_fidelity.feature_extractor_inceptionv3"
    monkeypatch.setitem(__import__("sys").modules, name, None)
    monkeypatch.setattr("scoresde.cli.drawing.Run", None)  # it is refused before any is drawn
    Path("file").write_text("kept")
    assert command(*options) == 1
    assert Path("file").read_text() == "kept"
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    assert message in err
    assert "Traceback" not in err


def test_data_of_another_shape_are_refused(command, run, capsys):
    np.savez(run.parent / "wide.npz", x=np.zeros((9, 3)))
    assert command(data="wide.npz") == 1
    assert "have shape (3,), but the model's have (2,)" in capsys.readouterr().err


@pytest.mark.slow
def test_samples_that_were_written_as_a_table_with_classes_are_compared(
    tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    x = torch.randn(300, 2, generator=torch.Generator().manual_seed(0)).tolist()
    rows = [f"{a},{b},{'oak' if i % 2 else 'pine'}\n" for i, (a, b) in enumerate(x)]
    Path("t.csv").write_text("cm,m,species\n" + "".join(rows))
    words = ["--data", "t.csv", "--condition", "label=species", "--held-out", "0.3"]
    assert main(["train", *words, "--steps", "2", "--batch-size", "8", "--out", "run"]) == 0
    assert main(["sample", "run", "--n", "30", "--steps", "3", "--out", "s.csv"]) == 0
    assert Path("s.csv").read_text().splitlines()[0] == "cm,m,label"
    options = ["--metrics", "mmd", "--resamples", "4", "--out", "report"]
    assert main(["evaluate", "run", "--samples", "s.csv", *options]) == 0
    assert "mmd" in capsys.readouterr().out


@pytest.mark.slow
def test_metrics_that_need_more_data_are_left_out_and_the_report_is_in_the_folder_of_the_run(
    run, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    data = str(points(tmp_path / "few.npz", 20, 4))
    words = ["evaluate", str(run), "--data", data, "--steps", "2", "--resamples", "3"]
    assert main(words) == 0
    assert "neighbours is left out" in capsys.readouterr().out
    assert (run / "report/report.json").is_file()
    assert main([*words, "--metrics", "neighbours", "--out", "other"]) == 1
    assert "give more by --data, or fewer --metrics" in capsys.readouterr().err
    assert not Path("other").exists()
