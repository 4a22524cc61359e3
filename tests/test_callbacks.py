"""Test callbacks: they get the right numbers, do not affect the run, and continue with it."""

import os
import sys
import types

import numpy as np
import pytest
import torch
from PIL import Image
from test_cli import said, train
from test_training import CONFIG, assert_same, data, make, rows

from scoresde import plot
from scoresde.cli.config import DataConfig, RunConfig
from scoresde.data import Data
from scoresde.errors import CheckpointError, InvalidValueError, MissingExtraError, UnknownNameError
from scoresde.nn import MLP, UNet
from scoresde.score import ScoreModel
from scoresde.sde import VESDE, Moments
from scoresde.training import Callback, Pictures, TensorBoard, Trackio, Trainer, WandB, loggers
from scoresde.units import Standardize

EVENTS = ["on_start", "on_log", "on_checkpoint", "on_end"]


def run(folder, *callbacks, steps=None, **changes):
    """Return the trainer of a run of 13 steps, with log steps 2, 4, 5, 6, 8, 10, 12 and 13."""
    config = CONFIG.changed(**changes)
    trainer = Trainer(make(), data(), config, folder=folder, callbacks=callbacks)
    trainer.train(steps)
    return trainer


# Faults


class Broken(Callback):
    """Fails in one of its methods, and counts how often it is called at all."""

    def __init__(self, event, error):
        self.calls = 0
        for name in EVENTS:
            setattr(self, name, lambda *_, name=name: self.act(name == event, error))

    def act(self, fails, error):
        self.calls += 1
        if fails:
            raise error


@pytest.mark.slow
@pytest.mark.parametrize("event", EVENTS)
def test_a_callback_that_fails_is_dropped_with_one_warning_and_the_run_continues(tmp_path, event):
    broken, behind = Broken(event, OSError("the wire is cut")), Broken(None, None)
    with pytest.warns(RuntimeWarning) as warned:
        disturbed = run(tmp_path / "disturbed", broken, behind)
    assert [str(w.message) for w in warned] == [
        f"Broken.{event} failed with OSError: the wire is cut; the run continues without it"
    ]
    assert broken.calls == {"on_start": 1, "on_log": 2, "on_checkpoint": 5, "on_end": 13}[event]
    assert behind.calls == 13  # one start, 8 measurements, 3 checkpoints and the end
    assert_same(disturbed, run(tmp_path / "whole"))


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
def test_a_callback_may_end_the_run(tmp_path, error):
    with pytest.raises(error):
        run(tmp_path, Broken("on_log", error()))


@pytest.mark.slow
def test_a_callback_that_ends_the_run_costs_no_step(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "parts", Broken("on_log", KeyboardInterrupt()))
    resumed = run(tmp_path / "parts", steps=0)
    assert resumed.step == 2  # at the first measurement, where there is no checkpoint
    resumed.train()
    assert_same(resumed, run(tmp_path / "whole"))


class Spoiler(Callback):
    """Changes all it is given."""

    def __init__(self, spoil):
        self.spoil = spoil

    def on_log(self, row):
        row.clear()

    def on_checkpoint(self, step, model):
        self.spoil(model)


class Rows(Callback):
    """Define a callback that keeps the rows of the log."""

    def __init__(self):
        self.seen = []

    def on_log(self, row):
        self.seen.append(row)


@pytest.mark.slow
@pytest.mark.parametrize(
    "spoil",
    [
        lambda model: torch.nn.utils.vector_to_parameters(torch.zeros(9999), model.parameters()),
        lambda model: model.half(),
        lambda model: model.train().requires_grad_(True),
    ],
    ids=["zeros", "half", "mode"],
)
def test_changes_by_a_callback_affect_neither_the_run_nor_other_callbacks(tmp_path, spoil):
    behind = Rows()
    disturbed = run(tmp_path / "disturbed", Spoiler(spoil), behind)
    assert_same(disturbed, run(tmp_path / "whole"))
    assert not disturbed.ema.model.training
    assert [row["step"] for row in behind.seen] == [2, 4, 5, 6, 8, 10, 12, 13]


def test_a_log_that_cannot_be_written_costs_only_the_log(tmp_path):
    (tmp_path / "log.jsonl").mkdir()
    with pytest.warns(RuntimeWarning, match=r"JSONLines.on_start failed with CheckpointError"):
        run(tmp_path)
    assert (tmp_path / "model.safetensors").exists()


# TensorBoard, the real one


def scalars(folder, name):
    """Return the points of a curve as TensorBoard shows them."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    found = EventAccumulator(str(folder / "tensorboard"))
    found.Reload()
    return [(event.step, event.value) for event in found.Scalars(name)]


def test_tensorboard_shows_the_log(tmp_path):
    run(tmp_path, TensorBoard(tmp_path))
    for name in ("loss", "grad_norm", "lr"):
        expected = [(row["step"], pytest.approx(row[name], rel=1e-6)) for row in rows(tmp_path)]
        assert scalars(tmp_path, name) == expected


def test_tensorboard_continues_the_same_curve_after_a_crash(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        # after the measurement at step 8, when the last checkpoint is that of step 5
        run(tmp_path, TensorBoard(tmp_path), AtStep(8, KeyboardInterrupt()))
    assert [step for step, _ in scalars(tmp_path, "loss")] == [2, 4, 5, 6, 8]
    run(tmp_path, TensorBoard(tmp_path))
    assert [step for step, _ in scalars(tmp_path, "loss")] == [2, 4, 5, 6, 8, 10, 12, 13]


class AtStep(Callback):
    """Define a callback that raises at the log of a step."""

    def __init__(self, step, error):
        self.step, self.error = step, error

    def on_log(self, row):
        if row["step"] == self.step:
            raise self.error


# Weights & Biases and trackio, as far as they are called


class Board(types.ModuleType):
    """Define a module like wandb and trackio, which records its calls."""

    def __init__(self, name):
        super().__init__(name)
        self.calls, self.runs = [], []

    def init(self, *, project, name, config, resume, id=None, dir=None, allow_val_change=None):
        self.calls.append(dict(project=project, name=name, id=id, resume=resume, config=config))
        self.runs.append(Run())
        return self.runs[-1]


class Run:
    """One run of theirs."""

    def __init__(self):
        self.rows, self.finished, self.metrics = [], False, {}

    def log(self, data, step=None):
        assert (step is None) == ("step" in data)
        self.rows.append((data["step"] if step is None else step, data["loss"]))

    def define_metric(self, name, step_metric):
        self.metrics[name] = step_metric

    def finish(self):
        self.finished = True


@pytest.fixture(params=[WandB, Trackio])
def board(request, monkeypatch):
    """Return a callback class and the module that it calls."""
    name = request.param.__name__.lower()
    module = Board(name)
    monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.delenv(f"{name.upper()}_PROJECT", raising=False)
    return request.param, module


@pytest.mark.slow
def test_a_board_receives_the_log_and_continues_under_the_same_name(board, tmp_path):
    make_callback, module = board
    for steps in (6, None):
        run(tmp_path / "digits", make_callback(tmp_path / "digits"), steps=steps)
    first, second = module.calls
    assert first == second
    assert first["project"] == "scoresde"
    assert first["name"].startswith("digits")
    assert first["resume"] == "allow"
    assert first["config"] == CONFIG.as_json()
    assert all(run.finished for run in module.runs)
    found = [row for run in module.runs for row in run.rows]
    assert found == [(row["step"], row["loss"]) for row in rows(tmp_path / "digits")]


def test_two_runs_of_one_name_do_not_mix_on_a_board(board, tmp_path):
    make_callback, module = board
    for parent in ("a", "b"):
        run(tmp_path / parent / "run", make_callback(tmp_path / parent / "run"), steps=1)
    one, other = ((call["id"], call["name"]) for call in module.calls)
    assert one != other


def test_the_project_of_a_board_is_that_of_the_environment(board, tmp_path, monkeypatch):
    make_callback, module = board
    monkeypatch.setenv(f"{module.__name__.upper()}_PROJECT", "mine")
    run(tmp_path, make_callback(tmp_path), steps=1)
    assert module.calls[0]["project"] == "mine"


def test_wandb_counts_by_our_steps_which_may_go_back(tmp_path, monkeypatch):
    module = Board("wandb")
    monkeypatch.setitem(sys.modules, "wandb", module)
    run(tmp_path, WandB(tmp_path), steps=1)
    assert module.runs[0].metrics == {"*": "step"}


# Pictures


@pytest.mark.slow
def test_pictures_leave_the_run_bit_for_bit_as_it_was(tmp_path):
    undisturbed = run(None)
    assert_same(run(tmp_path, Pictures(tmp_path, n=3)), undisturbed)
    names = [path.name for path in sorted((tmp_path / "pictures").iterdir())]
    assert names == ["step-00000005.png", "step-00000010.png", "step-00000013.png"]
    assert all((tmp_path / name).exists() for name in ("loss.png", "samples.png", "levels.png"))


@pytest.mark.slow
def test_the_shared_picture_of_samples_holds_no_data(tmp_path):
    """`push` shares samples.png, so it must not depend on the data."""
    model, found = images(), []
    for value in (-1.0, 1.0):
        pictures = Pictures(tmp_path, n=4)
        pictures.on_data(Data(torch.full((9, 1, 4, 4), value)))
        pictures.on_checkpoint(1, model)
        names = ("samples.png", "pictures/step-00000001.png")
        found.append([hash((tmp_path / name).read_bytes()) for name in names])
    assert found[0][0] == found[1][0]
    assert found[0][1] != found[1][1]


def size(path):
    with Image.open(path) as picture:
        return picture.size


def images(levels=None):
    """Return a model of tiny images with classes, all of whose weights are random."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        net = UNet(1, channels=(4,), patch=2, num_classes=2)
        for p in net.parameters():
            torch.nn.init.normal_(p, std=0.1)
    return ScoreModel(net, VESDE(levels=levels), (1, 4, 4), moments=Moments(0.0, var=1.0)).eval()


@pytest.mark.slow
def test_the_samples_do_not_depend_on_the_global_state(tmp_path):
    with torch.random.fork_rng(devices=[]):
        for step in (1, 2):
            torch.rand(step)
            Pictures(tmp_path).on_checkpoint(step, images())
    first, second = sorted((tmp_path / "pictures").iterdir())
    with Image.open(first) as one, Image.open(second) as other:
        above = 40  # a title, which names the step
        box = (0, above, *one.size)
        assert (np.asarray(one.crop(box)) == np.asarray(other.crop(box))).all()
        assert min(one.size) >= 600


@pytest.mark.slow
def test_the_samples_of_other_weights_differ(tmp_path):
    model = images()
    Pictures(tmp_path, n=2).on_checkpoint(1, model)
    next(model.net.parameters()).data.mul_(2)
    Pictures(tmp_path, n=2).on_checkpoint(2, model)
    first, second = sorted((tmp_path / "pictures").iterdir())
    assert not np.array_equal(*(np.asarray(Image.open(path)) for path in (first, second)))


@pytest.mark.slow
def test_points_are_shown_in_the_units_of_the_data(tmp_path, monkeypatch):
    shown = []
    real = plot.samples
    monkeypatch.setattr(
        plot,
        "samples",
        lambda x, **options: shown.append(options["transform"].inverse(x)) or real(x),
    )
    model = make(num_classes=None).eval()
    for scale in (1.0, 100.0):
        model.transform = Standardize((0.0, 0.0), (scale, scale))
        Pictures(tmp_path, n=3).on_checkpoint(1, model)
    torch.testing.assert_close(shown[2], 100 * shown[0])


def test_the_number_of_samples_is_at_least_one(tmp_path):
    with pytest.raises(InvalidValueError, match="n must be an integer >= 1, got 0"):
        Pictures(tmp_path, n=0)


def test_a_ladder_of_few_levels_is_drawn_in_its_own_steps(tmp_path):
    Pictures(tmp_path, n=2).on_checkpoint(1, images(levels=4))
    assert (tmp_path / "samples.png").exists()


@pytest.mark.slow
@pytest.mark.parametrize("shape", [(1,), (3,), (9,), (2, 12), (4, 5), (1, 3, 3, 3)])
def test_samples_of_any_shape_are_drawn_beside_data(tmp_path, shape):
    x = torch.randn(20, *shape, generator=torch.Generator().manual_seed(0))
    with torch.random.fork_rng(devices=[]):
        model = ScoreModel(MLP(shape, hidden=(4,)), VESDE(), shape)
    pictures = Pictures(tmp_path, n=5)
    pictures.on_data(Data(x))
    pictures.on_checkpoint(1, model)
    with Image.open(tmp_path / "pictures" / "step-00000001.png") as picture:
        assert min(picture.size) > 200
    assert (tmp_path / "samples.png").exists()


def test_the_loss_of_held_out_data_is_a_separate_curve(tmp_path, monkeypatch):
    rows = ('{"step": 1, "loss": 2.0}', '{"step": 2, "loss": 1.0, "held_out": 1.5}')
    (tmp_path / "log.jsonl").write_text("\n".join(rows) + "\n")
    drawn = []
    monkeypatch.setattr(plot, "save", lambda figure, path: drawn.append(figure))
    Pictures(tmp_path, n=2).on_checkpoint(2, images())
    lines = {line.get_label(): line.get_xydata().tolist() for line in drawn[0].axes[0].lines}
    assert lines == {
        "training,\nlast weights": [[1, 2.0], [2, 1.0]],
        "held-out data,\naveraged weights": [[2, 1.5]],
    }


@pytest.mark.slow
def test_a_perfect_score_has_the_predicted_loss(tmp_path, monkeypatch):
    """Of a Gaussian the linear denoiser is the best: both curves agree within their intervals."""
    sde, var = VESDE(), 4.0
    with torch.random.fork_rng(devices=[]):
        net = MLP((3,), hidden=(4,))

    class Exact(ScoreModel):
        def forward(self, x, t, condition=None):
            return -x / (var + sde.at(t, x)[1] ** 2)

    model = Exact(net, sde, (3,), moments=Moments(0.0, var=var))
    pictures = Pictures(tmp_path, n=2)
    pictures.on_data(Data(2 * torch.randn(50, 3, generator=torch.Generator().manual_seed(0))))
    drawn = []
    monkeypatch.setattr(plot, "save", lambda figure, path: drawn.append(figure))
    pictures.on_checkpoint(1, model)
    ours, linear = (line.get_xydata() for line in drawn[1].axes[0].lines)
    ratio = linear[:, 0]
    np.testing.assert_allclose(linear[:, 1], var / (var + ratio**2), rtol=1e-5)
    spread = (2 / (16 * 3)) ** 0.5  # of a mean of chi-squared numbers
    assert (abs(ours[:, 1] / linear[:, 1] - 1) < 4.5 * spread).all()


def test_a_truncated_line_of_the_log_does_not_stop_the_drawing(tmp_path):
    (tmp_path / "log.jsonl").write_text('{"step": 1, "loss": 2.0}\n{"step": 2, "lo\n{"step": 3}\n')
    Pictures(tmp_path, n=2).on_checkpoint(3, images())
    assert (tmp_path / "loss.png").exists()


# By name


@pytest.mark.slow
def test_the_command_writes_the_logs_that_are_requested(tmp_path, capsys):
    assert train(tmp_path, "--log-to", "tensorboard", "pictures", "--log-every", "1") == 0
    assert [step for step, _ in scalars(tmp_path, "loss")] == [1, 2, 3, 4]
    assert size(tmp_path / "samples.png") > (4 * 8, 4 * 8)
    text = (tmp_path / "config.toml").read_text()
    assert RunConfig.read(tmp_path / "config.toml").log_to == ("tensorboard", "pictures"), text


@pytest.mark.slow
def test_unknown_and_missing_logs_are_reported_before_the_work(tmp_path, capsys, monkeypatch):
    assert train(tmp_path / "run", "--log-to", "tensorbord") == 1
    assert "unknown log 'tensorbord'; did you mean 'tensorboard'?" in said(capsys)
    for name in ("wandb", "trackio"):
        monkeypatch.setitem(sys.modules, name, None)
        assert train(tmp_path / "run", "--log-to", name) == 1
        assert f"needs the package '{name}', which is not installed; run `pip" in said(capsys)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("callback", "module"),
    [(TensorBoard, "torch.utils.tensorboard"), (WandB, "wandb")],
)
def test_a_missing_package_is_an_error_with_its_extra(tmp_path, monkeypatch, callback, module):
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(MissingExtraError, match=r"which is not installed; run `pip install 'sco"):
        callback(tmp_path)


def test_the_error_of_an_installed_but_broken_package_is_reported(tmp_path, monkeypatch):
    (tmp_path / "wandb.py").write_text("import something_that_nobody_has")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "wandb", raising=False)
    with pytest.raises(
        MissingExtraError, match=r"wandb cannot be imported .*something_that_nobody"
    ):
        WandB(str(tmp_path))


def test_a_name_that_is_given_twice_logs_once(tmp_path):
    config = RunConfig(data=DataConfig(source="digits"), log_to=("pictures", "pictures"))
    assert [type(callback) for callback in config.callbacks(tmp_path)] == [Pictures]
    with pytest.raises(UnknownNameError, match="unknown log 'x'"):
        RunConfig(data=DataConfig(source="digits"), log_to=("x",))


@pytest.mark.parametrize("kind", ["a link", "a secret", "a pipe", "bytes"])
def test_the_content_of_another_file_is_never_sent_as_the_number_of_a_run(tmp_path, kind):
    path, secret = tmp_path / "run-id", tmp_path / "secret"
    secret.write_text("abc")
    if kind == "a link":
        path.symlink_to(secret)
    elif kind == "a pipe":
        os.mkfifo(path)
    else:
        path.write_bytes(b"a secret\n" if kind == "a secret" else b"\xff\xfe")
    with pytest.raises(CheckpointError, match="run-id"):
        loggers._run_id(tmp_path)
    path.unlink()
    assert loggers._run_id(tmp_path) == loggers._run_id(tmp_path)
