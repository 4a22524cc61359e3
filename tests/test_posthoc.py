"""Test that averages made after the training equal averages made during it."""

import json
import math
import os

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from test_training import CONFIG, assert_same, data, make
from torch import nn

from scoresde import checkpoint
from scoresde.cli import main
from scoresde.ema import (
    Average,
    Exponential,
    Power,
    PowerEMA,
    fit,
    fitting,
    posthoc,
    reconstruct,
    save_snapshot,
    snapshots_in,
)
from scoresde.errors import (
    CheckpointError,
    InvalidTypeError,
    InvalidValueError,
    NonFiniteError,
    ScoreSDEError,
)
from scoresde.score import ScoreModel
from scoresde.training import Trainer

TARGETS = [
    (Power(0.15), 400),
    (Power(0.07), 400),
    (Power(0.08), 250),
    (Exponential(0.98), 400),
    (Exponential(0.99), 300),
]


def steps(n, every):
    """Return the snapshots of the usual two averages of a run."""
    return [(Power(sigma), k) for sigma in (0.05, 0.1) for k in range(every, n + 1, every)]


def weights(profile, n, length):
    """How much the weights of each step count."""
    share = profile.share(torch.arange(length + 1), n)
    return torch.diff(share, prepend=torch.zeros(1))


def walk(length=400, dimensions=500, seed=0):
    """Weights that walk at random, from somewhere far away."""
    g = torch.Generator().manual_seed(seed)
    moves = torch.randn(length + 1, dimensions, generator=g, dtype=torch.float64)
    return 100 + moves.cumsum(0)


def miss(found, stored, profile, at, path):
    """How far a sum of stored averages is off, relative to the average's distance from `path`."""
    length = len(path) - 1
    made = sum(x * weights(*s, length) for x, s in zip(found, stored, strict=True)) @ path
    wanted = weights(profile, at, length) @ path
    return float((made - wanted).norm() / (wanted - path[at]).norm())


def by_densities(stored, target, at):
    """The fit of Karras et al. (2024, arXiv:2312.02696), by their closed-form inner product."""

    def product(a, s, b, t):
        first, last = np.minimum(s, t), np.maximum(s, t)
        of_last = np.where(s < t, b, a)
        return (a + 1) * (b + 1) / (a + b + 1) * (first / last) ** of_last / last

    gamma = np.array([profile.gamma for profile, _ in stored])
    t = np.array([float(n) for _, n in stored])
    gram = product(gamma[:, None], t[:, None], gamma, t)
    return np.linalg.solve(gram, product(gamma, t, target.gamma, float(at)))


# The fit


@pytest.mark.parametrize(("profile", "at"), TARGETS, ids=str)
@pytest.mark.parametrize("every", [50, 20])
def test_the_expected_miss_is_the_miss_of_weights_that_walk_at_random(profile, at, every):
    stored = steps(400, every)
    found = fit(stored, profile, at)
    assert float(found.weights.sum()) == pytest.approx(1, abs=1e-12)
    assert miss(found.weights, stored, profile, at, walk()) == pytest.approx(found.error, rel=0.15)


@pytest.mark.parametrize(("profile", "at"), TARGETS, ids=str)
def test_more_snapshots_are_better(profile, at):
    errors = [fit(steps(400, every), profile, at).error for every in (50, 25, 10)]
    assert errors[0] > 2 * errors[1] > 4 * errors[2]
    assert errors[2] < 0.02


@given(seed=st.integers(0, 2**31), size=st.floats(1e-4, 1), i=st.integers(0, len(TARGETS) - 1))
def test_no_other_sum_of_the_snapshots_comes_nearer(seed, size, i):
    profile, at = TARGETS[i]
    stored = steps(400, 50)
    k = torch.arange(400)
    shares = torch.stack([p.share(k, n) for p, n in stored])
    best = fit(stored, profile, at).weights
    g = torch.Generator().manual_seed(seed)
    other = torch.randn(len(best), generator=g, dtype=torch.float64)
    other = best + size * (other - other.mean()) / other.norm()
    square = [float((x @ shares - profile.share(k, at)).square().sum()) for x in (best, other)]
    assert square[0] < square[1] * (1 + 1e-9)


@pytest.mark.parametrize(("profile", "at"), [case for case in TARGETS if "sigma" in str(case[0])])
def test_on_a_walk_the_fit_misses_by_less_than_that_of_the_densities(profile, at):
    stored = steps(400, 50)
    ours = miss(fit(stored, profile, at).weights, stored, profile, at, walk())
    theirs = miss(by_densities(stored, profile, at), stored, profile, at, walk())
    assert ours < 0.8 * theirs


@pytest.mark.parametrize("at", [50, 200, 400])
@pytest.mark.parametrize("sigma", [0.05, 0.1])
def test_a_stored_average_is_found_again(sigma, at):
    stored = steps(400, 50)
    found = fit(stored, Power(sigma), at)
    assert found.error < 1e-6
    assert miss(found.weights, stored, Power(sigma), at, walk()) < 1e-9


def test_a_single_snapshot_is_all_there_is():
    assert fit([(Power(0.1), 7)], Power(0.2), 7).weights.tolist() == [1.0]


@pytest.mark.parametrize(
    ("profile", "at"),
    [(Power(0.15), 4000), (Exponential(0.95), 4000), (Exponential(0.9), 3700), (Power(0.1), 700)],
)
def test_a_few_of_many_updates_are_used_with_the_same_result(profile, at, monkeypatch):
    stored = steps(4000, 500)
    whole = fit(stored, profile, at)
    monkeypatch.setattr(fitting, "_NODES", 256)
    k, width = fitting._updates([n for _, n in stored], at)
    assert len(k) < 300
    assert float(width.sum()) == 4001
    thinned = fit(stored, profile, at)
    assert thinned.error == pytest.approx(whole.error, rel=0.02)
    every = torch.arange(4001)
    found = torch.stack([p.share(every, n) for p, n in stored], 1) @ thinned.weights
    missed = (found - profile.share(every, at)).norm() / profile.share(every, at)[: at + 1].norm()
    assert float(missed) < 1.01 * whole.error


def test_the_rounding_of_the_snapshots_is_not_amplified_more_than_it_is_worth():
    stored, path = steps(400, 4), walk()
    rounded = (torch.stack([weights(*s, 400) for s in stored]) @ path).half().double()
    wanted = weights(Power(0.08), 397, 400) @ path
    off = [
        float((fit(stored, Power(0.08), 397, epsilon=eps).weights @ rounded - wanted).norm())
        for eps in (2**-10, 2**-23)
    ]
    assert off[0] < 0.1 * off[1]


def test_a_run_of_a_million_updates_is_fitted_quickly():
    stored = steps(10**6, 10**6 // 64)
    assert fit(stored, Power(0.15), 10**6).error < 1e-5
    assert fit(stored, Exponential(0.9999), 10**6).error < 0.02


@pytest.mark.parametrize("at", [0, 401, -1, 2.5, True])
def test_a_step_beyond_the_snapshots_is_refused(at):
    with pytest.raises(ScoreSDEError, match=r"at must (lie in \[1, 400\]|be an integer), got"):
        fit(steps(400, 50), Power(0.1), at)
    with pytest.raises(InvalidTypeError, match="target must be a Profile, got 0"):
        fit(steps(400, 50), 0.1, 400)
    with pytest.raises(InvalidValueError, match="has no updates yet"):
        fit([(Power(0.1), 0), (Power(0.1), 400)], Power(0.1), 400)
    with pytest.raises(InvalidValueError, match="no average is stored"):
        fit([], Power(0.1), 400)


# Snapshots in files


class Weights(nn.Module):
    """Define a thousand weights with a name beside it, a frozen number and a counter."""

    def __init__(self, dtype=torch.float32):
        super().__init__()
        self.free = nn.Parameter(torch.zeros(1000, dtype=dtype))
        self.tied = self.free
        self.fixed = nn.Parameter(torch.zeros(1), requires_grad=False)
        self.register_buffer("count", torch.tensor(0))

    @torch.no_grad()
    def move(self, value):
        self.free.copy_(value)
        self.fixed += 1
        self.count += 1


def tracked(folder, path, others, *, every=20, half=False):
    """Walk along `path`, store snapshots, and return what the averages `others` are at its end."""
    model = Weights(path.dtype)
    powers = [PowerEMA(model, sigma) for sigma in (0.05, 0.1)]
    averages = [Average(model, profile) for profile in others]
    for k, value in enumerate(path[1:], 1):
        model.move(value)
        for average in (*powers, *averages):
            average.update(model)
        if k % every == 0:
            for power in powers:
                save_snapshot(folder, power, half=half)
    return [average.model for average in averages]


@pytest.mark.parametrize("half", [False, True])
def test_a_reconstruction_is_the_average_that_was_tracked(tmp_path, half):
    path = (walk(200, 1000) / 100).float()
    profiles = [Power(0.05), Power(0.12), Exponential(0.97)]
    for profile, model in zip(profiles, tracked(tmp_path, path, profiles, half=half), strict=True):
        found = reconstruct(tmp_path, profile)
        assert (found.profile, found.at, len(found.weights)) == (profile, 200, 20)
        assert sum(found.weights.values()) == pytest.approx(1, abs=1e-12)
        wanted = model.free.detach().double()
        distance = float((wanted - path[-1]).norm())
        off = float((found.state["free"].double() - wanted).norm()) / distance
        ulp = 2.0**-10 if half else 2.0**-23  # of values from 1 to 2
        norm = math.hypot(*found.weights.values())
        rounding = norm * ulp / 12**0.5 * float(wanted.norm()) / distance
        assert off < 1.3 * math.hypot(found.error, rounding) + (0 if half else 1e-6)
        assert found.error < 0.02
        assert torch.equal(found.state["tied"], found.state["free"])
        fresh = Weights()
        fresh.load_state_dict(found.state)
        assert (int(fresh.count), float(fresh.fixed)) == (200, 200)
    exact = reconstruct(tmp_path, Power(0.05)).error
    assert exact < (3e-3 if half else 3e-7)


def test_snapshots_of_half_precision_are_fitted_with_smaller_weights(tmp_path):
    """Their rounding is a thousand times as large, and grows with the weights' norm."""
    path, found = (walk(200, 1000) / 100).float(), {}
    for half in (False, True):
        tracked(tmp_path / str(half), path, [], half=half)
        found[half] = reconstruct(tmp_path / str(half), Power(0.12))
    norms = {half: math.hypot(*f.weights.values()) for half, f in found.items()}
    assert norms[True] < norms[False]
    assert found[True].error > found[False].error


def test_half_snapshots_are_half_as_large_and_what_float16_cannot_hold_stays(tmp_path):
    model = Weights()
    average = PowerEMA(model)
    for value, half in ((1.0, False), (1.0, True), (1e5, True)):
        model.move(torch.full((1000,), value))
        average.profile = Power(0.1)
        average.updates = 0
        average.update(model)
        path = save_snapshot(tmp_path, average, half=half)
        tensors, _ = checkpoint.load_tensors(path)
        dtype = torch.float16 if half and value == 1 else torch.float32
        assert tensors["averaged.free"].dtype == dtype
        assert tensors["copied.fixed"].dtype == torch.float32
        assert float(tensors["averaged.free"][0]) == value


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_an_average_that_is_not_finite_is_not_stored(tmp_path, value):
    average = PowerEMA(Weights())
    average.update(average.model)
    with torch.no_grad():
        average.model.free[3] = value
    with pytest.raises(NonFiniteError, match=r"sigma 0.1 is not finite after 1 updates"):
        save_snapshot(tmp_path, average)
    assert snapshots_in(tmp_path) == []


def test_what_is_not_averaged_comes_from_the_next_snapshot(tmp_path):
    tracked(tmp_path, walk(60, 1000), [], every=20)
    with pytest.warns(RuntimeWarning, match="too few snapshots"):
        found = reconstruct(tmp_path, Power(0.1), at=33)
    assert int(found.state["count"]) == 40
    assert found.state["free"].dtype == torch.float64


@pytest.mark.slow
def test_of_very_many_snapshots_few_are_read_and_suffice(tmp_path, monkeypatch):
    monkeypatch.setattr(posthoc, "_MAX_STEPS", 40)
    path = walk(200, 1000)
    (model,) = tracked(tmp_path, path, [Power(0.15)], every=2)
    found = reconstruct(tmp_path, Power(0.15))
    assert len(found.weights) <= 2 * 40 < len(snapshots_in(tmp_path)) == 200
    assert {s.step for s in found.weights} >= set(range(186, 201, 2))
    off = float((found.state["free"] - model.free).detach().norm())
    off /= float((path[-1] - model.free).detach().norm())
    assert off < 1.3 * found.error < 1e-3
    assert reconstruct(tmp_path, Power(0.1), at=2).error < 1e-6


def test_too_few_snapshots_cause_a_warning(tmp_path):
    tracked(tmp_path, walk(40, 1000), [], every=20)
    with pytest.warns(
        RuntimeWarning, match="too few snapshots for sigma 0.01 at step 31: the expect"
    ):
        reconstruct(tmp_path, Power(0.01), at=31)


def test_a_folder_without_good_snapshots_is_refused(tmp_path):
    with pytest.raises(CheckpointError, match=r"holds no snapshots.* --ema-sigma 0.05 0.1"):
        reconstruct(tmp_path, Power(0.1))
    (tmp_path / "ema" / "sigma-x").mkdir(parents=True)
    assert snapshots_in(tmp_path) == []
    with pytest.raises(InvalidValueError, match="has no updates"):
        save_snapshot(tmp_path, PowerEMA(Weights()))
    tracked(tmp_path, walk(60, 1000), [], every=20)
    first = snapshots_in(tmp_path)[0].path
    good = first.read_bytes()
    first.write_bytes(good[:-9])
    with pytest.raises(CheckpointError, match=r"step-00000020.safetensors is truncated"):
        reconstruct(tmp_path, Power(0.1))
    first.write_bytes(snapshots_in(tmp_path)[1].path.read_bytes())
    with pytest.raises(CheckpointError, match=r"is not a snapshot of sigma 0.05 at step 20"):
        reconstruct(tmp_path, Power(0.1))
    checkpoint.save_tensors(first, {"averaged.free": torch.zeros(3)}, {"sigma": 0.05, "step": 20})
    with pytest.raises(CheckpointError, match="another model than the other snapshots"):
        reconstruct(tmp_path, Power(0.1))


# In training

SEVERAL = CONFIG.changed(
    steps=60,
    ema=(0.9, 0.99),
    ema_sigma=(0.05, 0.1),
    snapshot_every=4,
    save_every=10,
    decay="constant",
)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    trainer = Trainer(make(), data(), SEVERAL, folder=folder)
    trainer.train()
    return folder, trainer


def tensors(path):
    return checkpoint.load_tensors(path)[0]


def same(one, other):
    one, other = tensors(one), tensors(other)
    return one.keys() == other.keys() and all(torch.equal(one[k], other[k]) for k in one)


@pytest.mark.slow
def test_every_decay_is_the_result_of_a_separate_run(run, tmp_path):
    folder, trainer = run
    for decay, where in ((0.9, folder), (0.99, folder / "ema-0.99")):
        said = checkpoint.read_json(where / "config.json")["average"]
        assert said == {"profile": f"decay {decay}"}
        config = SEVERAL.changed(ema=decay, ema_sigma=())
        alone = Trainer(make(), data(), config, folder=tmp_path / str(decay))
        alone.train()
        assert same(where / "model.safetensors", tmp_path / str(decay) / "model.safetensors")
        assert not (tmp_path / str(decay) / "ema").exists()
    assert trainer.train() is trainer.ema.model


@pytest.mark.slow
@pytest.mark.parametrize("decay", [0.9, 0.99])
def test_the_average_of_a_real_run_is_reconstructed(run, decay):
    folder, trainer = run
    found = reconstruct(folder, Exponential(decay))
    wanted = ScoreModel.from_pretrained(folder if decay == 0.9 else folder / "ema-0.99")
    off = distance = 0.0
    for name, value in wanted.state_dict().items():
        off += float((found.state[name] - value).square().sum())
        distance += float((trainer.score.state_dict()[name] - value).square().sum())
    assert (off / distance) ** 0.5 < 3 * found.error + 1e-4
    assert found.error < 0.05


@pytest.mark.parametrize("half", [False, True])
def test_a_run_stores_its_snapshots_in_half_precision_on_request(tmp_path, half):
    config = SEVERAL.changed(steps=4, ema_sigma=(0.1,), snapshot_half=half)
    Trainer(make(), data(), config, folder=tmp_path).train()
    (snapshot,) = snapshots_in(tmp_path)
    averaged, _ = snapshot.read()
    dtypes = {value.dtype for value in averaged.values() if value.is_floating_point()}
    assert dtypes == {torch.float16 if half else torch.float32}


def test_snapshots_are_taken_at_their_steps_and_at_the_end(tmp_path):
    config = SEVERAL.changed(steps=10, ema_sigma=(0.1,))
    Trainer(make(), data(), config, folder=tmp_path).train()
    assert [s.step for s in snapshots_in(tmp_path)] == [4, 8, 10]


@pytest.mark.slow
def test_a_resumed_run_has_the_same_averages_and_the_same_snapshots(run, tmp_path):
    folder, whole = run
    Trainer(make(), data(), SEVERAL, folder=tmp_path).train(47)
    (tmp_path / "step-00000047.safetensors").write_bytes(b"torn")
    stale = tmp_path / "ema" / "sigma-0.1" / "step-00000044.safetensors"
    left = stale.with_name(f".scoresde-{'0' * 32}.tmp")
    left.write_text("half")
    with pytest.warns(RuntimeWarning, match="continuing from step-00000040"):
        last = Trainer(make(), data(), SEVERAL, folder=tmp_path)
    assert stale.exists()
    last.train(2)
    assert not stale.exists()
    last.train()
    assert_same(last, whole)
    assert not left.exists()
    names = [s.path.relative_to(folder) for s in snapshots_in(folder)]
    assert names == [s.path.relative_to(tmp_path) for s in snapshots_in(tmp_path)]
    assert all(same(folder / name, tmp_path / name) for name in names)


@pytest.mark.slow
def test_a_snapshot_of_another_run_is_refused(run, tmp_path):
    folder, _ = run
    Trainer(make(), data(), SEVERAL.changed(seed=1), folder=tmp_path).train()
    foreign = snapshots_in(tmp_path)[-1]
    foreign.path.write_bytes((folder / foreign.path.relative_to(tmp_path)).read_bytes())
    with pytest.raises(CheckpointError, match="is from another run than the other snapshots"):
        reconstruct(tmp_path, Power(0.08))


def test_a_snapshot_that_cannot_be_written_causes_a_warning_and_training_continues(tmp_path):
    (tmp_path / "ema").write_text("in the way")
    with pytest.warns(RuntimeWarning, match="training continues without this snapshot"):
        Trainer(make(), data(), SEVERAL.changed(steps=4), folder=tmp_path).train()
    assert checkpoint.latest(tmp_path)[2]["step"] == 4


def test_a_run_that_breaks_down_leaves_no_snapshot_of_it(tmp_path):
    config = SEVERAL.changed(log_every=50, save_every=50, snapshot_every=1)
    trainer = Trainer(make(), data(), config, folder=tmp_path)
    trainer.train(3)
    with torch.no_grad():
        trainer.score.net.head.bias.fill_(float("nan"))
    with pytest.raises(Exception, match="training failed at step 3"):
        trainer.train()
    assert max(s.step for s in snapshots_in(tmp_path)) == 3


def test_one_decay_is_one_run_however_it_is_written(tmp_path):
    one = CONFIG.changed(ema=(0.9,), steps=2)
    assert one == CONFIG.changed(ema=0.9, steps=2)
    Trainer(make(), data(), one, folder=tmp_path).train()
    with pytest.raises(InvalidValueError, match=r"ema was 0.9 and is \[0.9, 0.99\]"):
        Trainer(make(), data(), one.changed(ema=(0.9, 0.99)), folder=tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (dict(ema=()), "ema must hold at least one decay"),
        (dict(ema=(0.9, 1.0)), r"ema must lie in \[0, 1\), got 1.0"),
        (dict(ema=(0.9, 0.9)), "ema holds a number twice"),
        (dict(ema_sigma=(0.5,)), r"sigma must lie in \[0.0001, 0.2887\], got 0.5"),
        (dict(ema_sigma=(0.1, 0.1)), "ema_sigma holds a number twice"),
        (dict(ema_sigma=0.1), "ema_sigma must be a tuple of numbers, got 0.1"),
        (dict(ema="0.9"), r"ema must be a tuple of numbers, got \('0.9',\)"),
        (dict(snapshot_every=0), "snapshot_every must be an integer >= 1, got 0"),
    ],
)
def test_impossible_averages_are_refused(change, message):
    with pytest.raises((InvalidValueError, InvalidTypeError), match=message):
        CONFIG.changed(**change)


# On the command line


def test_the_command_writes_the_model_and_prints_its_error(run, tmp_path, capsys):
    folder, _ = run
    out = tmp_path / "model"
    assert main(["ema", str(folder), "--decay", "0.99", "--at", "56", "--out", str(out)]) == 0
    found = reconstruct(folder, Exponential(0.99), at=56)
    assert capsys.readouterr().out == (
        f"decay 0.99 at step 56, from 30 snapshots: {out}\n"
        f"expected error {found.error:.2g} of the distance from the average to the weights\n"
        f"next, to see its samples:\n  scoresde sample {out} --out samples.png\n"
    )
    stored = tensors(out / "model.safetensors")
    assert all(torch.equal(stored[name], value) for name, value in found.state.items())
    config = json.loads((out / "config.json").read_text())
    # a singular value decomposition of the same numbers may differ by rounding
    error = pytest.approx(found.error, rel=1e-9)
    assert config["average"] == {"profile": "decay 0.99", "error": error}
    assert config["training"]["done"] == 56
    assert main(["ema", str(folder), "--sigma", "0.12", "--out", str(out)]) == 0
    assert not same(out / "model.safetensors", folder / "model.safetensors")
    capsys.readouterr()
    assert main(["info", str(out)]) == 0
    assert "average           of the weights, sigma 0.12\n" in capsys.readouterr().out
    assert "| Average | sigma 0.12 |" in (out / "README.md").read_text()


@pytest.mark.slow
def test_train_takes_one_decay_or_several_on_the_command_line(tmp_path):
    words = ["train", "--data", "digits", "--steps", "2", "--channels", "4", "--batch-size", "8"]
    for name, decays in (("one", ["0.9"]), ("two", ["0.9", "0.99"])):
        out = str(tmp_path / name)
        assert main([*words, "--out", out, "--ema", *decays, "--ema-sigma", "0.1"]) == 0
    assert same(tmp_path / "one" / "model.safetensors", tmp_path / "two" / "model.safetensors")
    assert (tmp_path / "two" / "ema-0.99" / "model.safetensors").exists()
    assert [s.step for s in snapshots_in(tmp_path / "one")] == [2]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("--out model", "give --sigma or --decay, and not both"),
        ("--out model --sigma 0.1 --decay 0.9", "give --sigma or --decay, and not both"),
        ("--out model --sigma 0.5", "--sigma must lie in [0.0001, 0.2887], got 0.5"),
        ("--out model --sigma 0.1 --at 61", "--at must lie in [1, 60], got 61"),
        ("--out {run} --sigma 0.1", "{run} holds a run, whose model would be replaced"),
        ("--out {run}/ema-0.99 --sigma 0.1", "{run}/ema-0.99 holds a model that `scoresde ema` di"),
    ],
)
def test_wrong_options_of_ema_are_reported_in_one_line(
    options, message, run, tmp_path, capsys, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    words = options.format(run=run[0]).split()
    assert main(["ema", str(run[0]), *words]) == 1
    assert capsys.readouterr().err.startswith(f"scoresde: error: {message.format(run=run[0])}")
    assert os.listdir(tmp_path) == []
