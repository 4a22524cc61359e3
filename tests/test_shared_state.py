"""Test the state shared with the user's program: modes, autocast, generators, defaults."""

import copy
import functools
import gc
import itertools
import linecache
import os
import signal
import struct
import sys
import threading
import warnings
import weakref
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch import nn
from torch._subclasses import FakeTensorMode

import scoresde
from scoresde import (
    SAMPLERS,
    VPSDE,
    Moments,
    Noise,
    Run,
    ScoreModel,
    decode,
    encode,
    log_prob,
    metrics,
    sample,
    targets,
    trajectory,
)
from scoresde.audit import audit
from scoresde.errors import DeviceError, TrainingError
from scoresde.guidance import Blur, Downsample, Grey, Linear, Projection, posterior
from scoresde.nn import MLP
from scoresde.nn.dropout import Dropout, seeded
from scoresde.noise import seeds_of
from scoresde.noise.global_rng import forked_rng
from scoresde.objectives import LOSSES, LearnedWeight, dsm_loss
from scoresde.precision import full_precision, in_user_settings
from scoresde.score import evaluating, inside, modules
from scoresde.training import Callback, Keeping, Optimiser, TrainConfig, Trainer

SDE = VPSDE()
GENERATOR = torch.Generator().manual_seed(0)
X = torch.randn(6, 4, generator=GENERATOR)
ROOT = torch.randn(4, 4, generator=GENERATOR)
COV = ROOT @ ROOT.T + 0.1 * torch.eye(4)


class Net(nn.Module):
    """Define a network with dropout, and one product in which autocast shows."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(4, 4)
        self.drop = nn.Dropout(0.5)
        self.dtypes, self.modes = set(), set()
        with torch.no_grad():
            self.linear.weight.copy_(ROOT / 8)
            self.linear.bias.zero_()

    def forward(self, x, c, **condition):
        self.modes.add(self.training)
        out = self.linear(x)
        self.dtypes.add(out.dtype)
        return self.drop(out.to(x.dtype))


def built(sde=SDE):
    with torch.random.fork_rng():
        return ScoreModel(Net(), sde, (4,), moments=Moments(0.0, cov=COV))


# Evaluation mode


def test_two_interleaved_trajectories_of_a_model_with_dropout_are_those_of_each_alone():
    model = built().train()
    alone = [sample(model, sampler="em", n=2, steps=6, seed=seed) for seed in (0, 1)]
    runs = [trajectory(model, sampler="em", n=2, steps=6, seed=seed) for seed in (0, 1)]
    last = [None, None]
    for number in (0, 1, 1, 0, 0, 1, 1, 1, 1, 1, 1, 0, 0, 0, 0, 0):  # one ends before the other
        last[number] = next(runs[number], last[number])
    assert next(runs[0], None) is None
    assert next(runs[1], None) is None
    for state, expected in zip(last, alone, strict=True):
        assert torch.equal(state.denoised, expected)
    assert model.net.modes == {False}
    assert all(layer.training for layer in model.modules())


def test_later_changes_of_the_arguments_do_not_affect_a_run():
    """The start, the times and the conditions are those at the time when they were given."""
    x, label = torch.ones(2, 2), torch.zeros(2)
    times = torch.tensor([0.5, 0.1], dtype=torch.float64)

    def score(x, t, condition):
        return -x + condition["label"][:, None]

    def run():
        given = dict(x=x, times=times, condition={"label": label}, seed=0)
        return Run.of(score, SDE, "ddim", **given)

    first, later = run(), run()
    want = first.draw().x
    for each in (x, times, label):
        each.mul_(0.9)
    assert torch.equal(later.draw().x, want)
    assert not torch.equal(run().draw().x, want)


def test_between_the_states_of_a_trajectory_a_model_has_its_own_mode():
    model = built().train()
    model.net.drop.eval()
    first = trajectory(model, sampler="em", steps=6, seed=0)
    second = trajectory(model, sampler="em", steps=6, seed=1)
    next(first), next(second), next(second)
    assert (model.training, model.net.drop.training) == (True, False)
    model.eval()
    next(second), second.close()
    assert not model.training
    assert model.net.modes == {False}


def test_a_training_in_the_middle_of_a_trajectory_changes_neither():
    """Evaluation mode belongs to a step of the sampler, training mode to a step of the trainer."""

    def trained(each):
        rate = Optimiser(lr=1e-30)  # the score stays what it is
        config = TrainConfig(steps=4, batch_size=2, optimiser=rate, keeping=Keeping(log_every=1))
        trainer = Trainer(model, X, config, callbacks=[each])
        trainer.train()
        return [row["loss"] for row in trainer.history.rows]

    class Between(Callback):
        def on_log(self, row):
            states.append(next(run))

    model = built().eval()
    whole = [state.x for state in trajectory(model, sampler="em", n=2, steps=6, seed=0)]
    alone = trained(Callback())
    states, run = [], trajectory(model, sampler="em", n=2, steps=6, seed=0)
    assert trained(Between()) == alone
    assert len(states) == 4
    states += run
    assert all(torch.equal(state.x, x) for state, x in zip(states, whole, strict=True))
    assert not any(layer.training for layer in model.modules())


class Held(Net):
    """Stops in an evaluation until another thread has had its turn."""

    def forward(self, x, c):
        self.there.set()
        assert self.go.wait(60)
        return super().forward(x, c)


@pytest.mark.parametrize("first", ["sample", "train", "loss"])
def test_a_conflicting_use_by_a_second_thread_is_refused_without_effect_on_the_first(first):
    """A model is trained or evaluated by one thread, never both by two: weights change in place."""
    model, there, go = built(), threading.Event(), threading.Event()
    Held.there, Held.go = there, go  # events cannot be copied, as a trainer copies its model
    with torch.random.fork_rng():
        model.net = Held()

    def draw():
        return sample(model, sampler="em", n=2, steps=3, seed=0)

    def train():
        trainer = Trainer(model, X, TrainConfig(steps=2, batch_size=2, seed=1))
        trainer.train(progress=False)
        return torch.tensor([row["loss"] for row in trainer.history.rows])

    def loss():
        return dsm_loss(model, SDE, X, noise=Noise.of(0, len(X)))

    work, other = {"sample": (draw, train), "train": (train, draw), "loss": (draw, loss)}[first]
    go.set()
    before = copy.deepcopy(model.state_dict())
    alone = work()
    model.load_state_dict(before)
    model.train()
    there.clear(), go.clear()
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(work)
        assert there.wait(60)
        with pytest.raises(TrainingError, match=r"another thread .* this model"):
            other()
        go.set()
        assert torch.equal(running.result(), alone)
    assert all(layer.training for layer in model.modules())
    if first != "loss":  # which draws its dropout from torch's global generator
        other()


def by_turns(work, calls, threads):
    """Call work(0), work(1), ... in threads that take turns every microsecond."""
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        with ThreadPoolExecutor(threads) as pool:
            return list(pool.map(work, range(calls)))
    finally:
        sys.setswitchinterval(interval)


def test_two_models_with_dropout_learn_in_two_threads_what_each_learns_alone():
    """torch's dropout draws from the global generator, which is one for all threads."""

    def train(_):
        trainer = trainers.pop()
        trainer.train(progress=False)
        return trainer.score.net.linear.weight.detach()

    config = TrainConfig(steps=12, batch_size=2)
    trainers = [Trainer(built(), X, config) for _ in range(4)]
    alone = train(0)
    found = by_turns(train, calls=3, threads=2)
    assert all(torch.equal(weight, alone) for weight in found)


@pytest.mark.parametrize("recompute", [False, True])
def test_draws_of_another_thread_do_not_change_the_dropout_of_a_network_of_the_package(recompute):
    def learnt(between=lambda: None):
        with torch.random.fork_rng():
            torch.default_generator.manual_seed(0)
            net = MLP(4, hidden=(8, 8), dropout=0.5)
        # what another thread draws in the middle of a forward and of a backward pass
        net.layers[1].register_forward_pre_hook(lambda *_: between())
        net.layers[1].register_full_backward_hook(lambda *_: between())
        config = TrainConfig().changed(steps=3, batch_size=4, accumulate=2, recompute=recompute)
        trainer = Trainer(ScoreModel(net, SDE, (4,)), X, config)
        trainer.train(progress=False)
        return torch.cat([p.detach().flatten() for p in net.parameters()])

    def draw():
        with ThreadPoolExecutor(1) as pool:
            pool.submit(torch.rand, 3).result()

    with torch.random.fork_rng():
        assert torch.equal(learnt(draw), learnt())


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_process_does_not_wait_for_threads_of_its_parent():
    model, entered, end = built().train(), threading.Event(), threading.Event()

    def hold():
        with forked_rng(), evaluating(model):
            entered.set()
            end.wait(60)

    with ThreadPoolExecutor(1) as pool:
        held = pool.submit(hold)
        assert entered.wait(60)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # of forks beside threads
            pid = os.fork()
        if pid == 0:
            signal.alarm(30)
            code = 1
            try:
                Trainer(model, X, TrainConfig(steps=1, batch_size=2)).train(progress=False)
                code = 0 if all(layer.training for layer in model.modules()) else 2
            finally:
                os._exit(code)
        code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        end.set()
        held.result()
    assert code == 0
    assert all(layer.training for layer in model.modules())


def test_dropout_of_a_seed_drops_its_share_and_repeats_its_mask_until_the_block_ends():
    layer, other, x = Dropout(0.25), Dropout(0.25), torch.ones(200, 300, dtype=torch.float64)
    state = torch.get_rng_state()
    with seeded([layer, other], 5):
        one, again, apart = layer(x), layer(x), other(x)
        assert torch.equal(layer.eval()(x), x)
    assert torch.equal(torch.get_rng_state(), state)
    layer.train()
    with seeded([layer, other], 6):
        later = layer(x)
    with seeded([layer], 5):
        assert torch.equal(layer(x), one)
    assert torch.equal(one, again)
    assert set(one.unique().tolist()) == {0.0, 4 / 3}
    for kept in (one, apart, later):
        assert abs(kept.mean() - 1) < 5 * (1 / 3 / x.numel()) ** 0.5
    for kept in (apart, later):  # independent masks
        assert abs(((one - 1) * (kept - 1)).mean()) < 5 / 3 / x.numel() ** 0.5
    assert layer.seed is None
    with seeded([everything := Dropout(1.0)], 5):
        assert torch.equal(everything(x), 0 * x)


def test_setting_training_mode_during_an_evaluation_is_reported():
    net = built().net.eval()

    def score(x, t):
        return net.train()(x, t)

    warns = pytest.warns(RuntimeWarning, match="was set to training mode during an evaluation")
    with warns, torch.random.fork_rng():
        sample(score, SDE, "em", shape=(4,), steps=1, seed=0)
    assert not net.training


def test_one_model_is_trained_by_one_trainer_at_a_time():
    """Two that change the same gradients in two threads end the process by a signal."""
    model, config = built(), TrainConfig(steps=2, batch_size=2)
    second = Trainer(model, X, config)

    class Both(Callback):
        def on_start(self, step, config):
            with pytest.raises(TrainingError, match="the model is already being trained"):
                second.train()

    Trainer(model, X, config, callbacks=[Both()]).train()
    second.train()


def test_two_threads_sample_one_model_with_dropout_as_each_does_alone():
    model = built().train()
    alone = [sample(model, sampler="heun", n=2, steps=20, seed=seed) for seed in (0, 1)]
    start = threading.Barrier(2, timeout=60)

    def work(seed):
        start.wait()
        return [sample(model, sampler="heun", n=2, steps=20, seed=seed) for _ in range(5)]

    with ThreadPoolExecutor(2) as pool:
        for found, expected in zip(pool.map(work, (0, 1)), alone, strict=True):
            assert all(torch.equal(x, expected) for x in found)
    assert model.net.modes == {False}
    assert all(layer.training for layer in model.modules())


@pytest.mark.slow
def test_several_threads_draw_from_one_noise_what_each_would_alone():
    run = Run.of(lambda x, t: -x, SDE, "em", shape=(4,), n=4, steps=40, seed=0)
    noise, like = Noise(range(40), [0] * 40), torch.empty(40, 8)

    def work(_):
        path = torch.stack([state.x for state in run.states()])
        return path, torch.stack([noise.normal(like, t) for t in range(20)])

    expected, found = work(0), by_turns(work, calls=8, threads=4)
    for k in range(2):
        assert all(torch.equal(parts[k], expected[k]) for parts in found)


REGISTRY = {}


class ByProperty:
    """Define a score whose network is reached by its property alone."""

    @property
    def net(self):
        return REGISTRY["net"]

    def __call__(self, x, t):
        return -self.net(x, t)


class ByCachedProperty(ByProperty):
    @functools.cached_property
    def net(self):
        return REGISTRY["net"]


class ByReference:
    """Define a score that holds its network weakly."""

    def __init__(self, net):
        self.net = weakref.ref(net)

    def __call__(self, x, t):
        return -self.net()(x, t)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["property", "cached", "reference", "dead reference"])
def test_networks_behind_properties_and_weak_references_are_evaluated(kind):
    net = REGISTRY["net"] = built().net
    score = {
        "property": ByProperty, "cached": ByCachedProperty, "reference": lambda: ByReference(net),
        "dead reference": lambda: ByReference(built().net),
    }[kind]()  # fmt: skip
    if kind == "dead reference":
        gc.collect()
        assert modules(score) == []
        return
    with evaluating(score):
        score(X, torch.ones(6))
    assert net.modes == {False}
    assert net.training


class Lazy:
    """An object whose class and attributes cannot be read, as of a lazy import that fails."""

    @property
    def __class__(self):
        raise ImportError("no such package")

    def __getattr__(self, name):
        raise OSError("closed")


def test_objects_that_cannot_be_read_are_skipped_in_the_search_for_networks():
    net, gone = built().net, weakref.proxy(built())
    gc.collect()
    with pytest.raises(ReferenceError):
        modules(gone.net)
    lazy = Lazy()

    class Holds:
        def __init__(self):
            self.parts = [gone, lazy, {"net": net}, gone]
            self.gone, self.lazy = gone, lazy

        def __call__(self, x, t):
            return -net(x, t)

    assert modules(Holds()) == [net]
    assert modules(lambda x, t: (gone, lazy, -net(x, t))) == [net]
    assert modules(weakref.proxy(net))[0] == net


# Autocast


def exact_score(x, t):
    return -x  # nothing in it that autocast changes


TARGET = targets.Gaussian(torch.zeros(4), cov=COV)
OTHER = torch.randn(24, 4, generator=GENERATOR)
MEASURED, Y = Linear(ROOT[:2], std=0.1), {"measurement": OTHER[:6, :2]}
# Everything of ours with a product of matrices in it; the score has none, or is exact itself.
CALLS = {
    **{
        f"sample, {name}": lambda name=name: sample(
            exact_score, SDE, name, n=6, shape=(4,), steps=1 if SAMPLERS[name].adaptive else 4,
            seed=0, moments=Moments(0.0, cov=COV),
        )
        for name in SAMPLERS
    },
    "trajectory": lambda: list(
        trajectory(exact_score, SDE, "fast", n=6, shape=(4,), steps=4, seed=0,
                   moments=Moments(0.0, cov=COV))
    )[-1].x,
    "Run": lambda: Run.of(
        exact_score, SDE, "fast", n=6, shape=(4,), steps=4, seed=0, moments=Moments(0.0, cov=COV)
    ).draw().x,
    "a target": lambda: sample(TARGET.at(SDE), SDE, "ddim", n=6, steps=4, seed=0),
    "pilot": lambda: scoresde.pilot(exact_score, SDE, shape=(4,), n=4, steps=6,
                                    moments=Moments(0.0, cov=COV)).factor,
    "log_prob": lambda: log_prob(exact_score, SDE, X, moments=Moments(0.0, cov=COV)).value,
    "encode": lambda: encode(exact_score, SDE, X),
    "decode": lambda: decode(exact_score, SDE, X),
    **{
        f"{name} loss": lambda loss=loss: loss(TARGET.at(SDE), SDE, X, noise=Noise.of(0, 6))
        for name, loss in LOSSES.items()
    },
    "learned weight": lambda: learned()(exact_score, SDE, X, noise=Noise.of(0, 6)),
    "Moments.sample": lambda: Moments(0.0, cov=COV).sample(X),
    "Moments.log_prob": lambda: Moments(0.0, cov=COV).log_prob(X),
    "prior_sample": lambda: SDE.prior_sample(
        (4,), n=6, moments=Moments(0.0, cov=COV), generator=torch.Generator().manual_seed(0)
    ),
    "Target.sample": lambda: TARGET.sample(6, generator=torch.Generator().manual_seed(0)),
    "Target.score": lambda: TARGET.score(X, SDE, 0.5),
    "TargetScore": lambda: TARGET.at(SDE)(X, 0.5),
    "audit": lambda: torch.tensor(
        audit(TARGET.at(SDE), SDE, OTHER, levels=5, samples=4, steps=4, progress=False)
        .levels[0].loss.value, device="cpu"
    ),
    "evaluate": lambda: torch.tensor(
        [row.samples for row in metrics.evaluate(X, OTHER, resamples=0).values()], device="cpu"
    ),
    "posterior": lambda: posterior(TARGET.at(SDE), MEASURED)(
        X, torch.tensor(0.5, device="cpu"), Y
    ),
    "posterior's draw": lambda: posterior(TARGET.at(SDE), MEASURED).refreshed(
        X, 0.5, Noise.of(0, 6), Y
    )[0],
    **{
        f"{operator}": lambda operator=operator: operator(X[:, None])
        for operator in (Blur(1.0, dims=1), Projection(3), Grey((1.0,)), Downsample(2, dims=1))
    },
    "kernel_distance": lambda: torch.tensor(metrics.kernel_distance(X, OTHER), device="cpu"),
    "suggest": lambda: torch.tensor(scoresde.suggest(OTHER).sigma_min, device="cpu"),
}  # fmt: skip


def learned():
    weight = LearnedWeight(LOSSES["dsm"], features=8)
    nn.init.constant_(weight.slopes, 0.3)
    return weight


@pytest.mark.slow
@pytest.mark.parametrize("name", CALLS)
@pytest.mark.filterwarnings("ignore:memory:UserWarning")
def test_autocast_does_not_change_the_code_of_the_package(name):
    with torch.random.fork_rng():
        torch.default_generator.manual_seed(0)
        expected = CALLS[name]()
        torch.default_generator.manual_seed(0)
        with torch.autocast("cpu", torch.bfloat16):
            found = CALLS[name]()
            assert torch.is_autocast_enabled("cpu")
    assert found.dtype == expected.dtype
    assert torch.equal(found, expected)


@pytest.mark.slow
@pytest.mark.parametrize("name", CALLS)
@pytest.mark.filterwarnings("ignore:memory:UserWarning")
def test_a_default_device_does_not_change_the_code_of_the_package(name):
    """The meta device stands for a GPU: a number that is made there and read is an error."""
    with torch.random.fork_rng():
        torch.default_generator.manual_seed(0)
        expected = CALLS[name]()
        torch.default_generator.manual_seed(0)
        with torch.device("meta"):
            found = CALLS[name]()
            assert torch.empty(0).is_meta
    assert found.device.type == "cpu"
    assert torch.equal(found, expected)


@pytest.mark.global_rng
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_a_default_dtype_changes_neither_a_stored_model_nor_numbers(tmp_path, dtype):
    model = ScoreModel(MLP(2, hidden=(4,), embedding="sinusoidal"), SDE, (2,)).eval()
    model.save_pretrained(tmp_path)
    before, moments = torch.get_default_dtype(), Moments(0.3, var=[0.1, 0.7])
    torch.set_default_dtype(dtype)
    try:
        found, same = ScoreModel.from_pretrained(tmp_path), Moments(0.3, var=[0.1, 0.7])
        waves = MLP(2, hidden=(4,)).embedding.wave
    finally:
        torch.set_default_dtype(before)
    assert torch.equal(found(X[:, :2], 0.5), model(X[:, :2], 0.5))
    assert same.var.tolist() == pytest.approx(moments.var.tolist(), rel=1e-6)
    assert torch.equal(waves.frequencies, MLP(2, hidden=(4,)).embedding.wave.frequencies)


def generator(seed):
    return torch.Generator().manual_seed(seed)


def conditional(n, seed):
    theta, noise = torch.randn(2, n, 2, generator=generator(seed), dtype=torch.float64)
    return theta, theta + noise


def of_posterior(y, k, seed):
    z = torch.randn(len(y), k, 2, generator=generator(seed), dtype=torch.float64)
    return y[:, None] / 2 + 0.5**0.5 * z


@pytest.mark.global_rng
@pytest.mark.parametrize("dtype", [torch.float16, torch.float64])
def test_a_default_dtype_changes_no_figure_of_samples(dtype):
    x, held, train = (torch.randn(300, 2, generator=generator(i)) for i in range(3))
    data = scoresde.data.Data(x, label=torch.arange(300) % 2)

    def figures():
        return (
            metrics.memorisation(x, held, train),
            metrics.calibrate(of_posterior, conditional, n=40, draws=9, rerun=False).as_json(),
            metrics.Classifier.fit(data, steps=2)(x).dtype,
            targets.Gaussian([1e5], std=1.0).means.item(),
        )

    before, expected = torch.get_default_dtype(), figures()
    torch.set_default_dtype(dtype)
    try:
        found = figures()
    finally:
        torch.set_default_dtype(before)
    assert found == expected


def test_numbers_stay_on_the_cpu_under_a_default_device_without_numbers():
    found = metrics.calibrate(of_posterior, conditional, n=40, draws=9, rerun=False)
    audited = audit(TARGET.at(SDE), SDE, OTHER, levels=3, samples=4, steps=4, progress=False)
    alarms, nats = found.alarms, audited.nats
    with torch.device("meta"):
        assert Linear(torch.eye(2, device="cpu"), 0.2).std == 0.2
        assert found.alarms == alarms
        assert audited.nats == nats


def test_tensors_without_numbers_are_refused():
    """Torch runs a program under a FakeTensorMode to find shapes alone."""
    score = scoresde.targets.Gaussian([0.0], std=1.0).at(scoresde.VPSDE())
    with FakeTensorMode():
        x = torch.zeros(2, 1)
        for call in (
            lambda: sample(score, n=2, steps=2),
            lambda: scoresde.log_prob(score, None, x),
            scoresde.VESDE,
        ):
            with pytest.raises(DeviceError, match="FakeTensorMode is active"):
                call()
    with pytest.raises(DeviceError, match="x is a FakeTensor, which holds no numbers"):
        sample(score, x=x, steps=2)


def test_the_users_network_runs_under_the_users_default_device():
    devices = set()

    def score(x, t):
        devices.add(torch.empty(0).device.type)
        return -x

    with torch.device("meta"):
        sample(score, SDE, "heun", n=2, shape=(4,), steps=3, seed=0)
        for _ in trajectory(score, SDE, "fast", n=2, shape=(4,), steps=3, seed=0):
            devices.add(torch.empty(0).device.type)
        LOSSES["dsm"](score, SDE, X, noise=Noise.of(0, 6))
    assert devices == {"meta"}


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_the_users_network_runs_under_the_users_autocast(dtype):
    model = built().eval()
    with torch.autocast("cpu", dtype):
        states = trajectory(model, sampler="fast", n=2, steps=3, seed=0)
        for state in states:
            assert torch.is_autocast_enabled("cpu")
            assert state.x.dtype == torch.float32
            assert torch.mm(state.x, ROOT).dtype == dtype  # the user's own code, in between
        log_prob(model, SDE, X, rtol=1e-1, atol=1e-1)
        LOSSES["dsm"](model, SDE, X, noise=Noise.of(0, 6))
    assert model.net.dtypes == {dtype}
    model.net.dtypes.clear()
    sample(model, n=2, steps=3, seed=0)
    assert model.net.dtypes == {torch.float32}


def test_settings_that_a_score_makes_itself_are_kept():
    seen = []

    def quiet(x, t):
        with torch.autocast("cpu", enabled=False):
            inner = sample(built(), n=len(x), steps=1, seed=0)
            seen.append((x @ ROOT).dtype)
        return -x + 0 * inner

    with torch.autocast("cpu", torch.bfloat16):
        sample(quiet, SDE, "ddim", shape=(4,), steps=1, seed=0)
    assert set(seen) == {torch.float32}


def test_blocks_of_precision_nest():
    def dtype():
        return (X @ ROOT).dtype

    assert in_user_settings(dtype) == torch.float32
    with torch.autocast("cpu", torch.bfloat16), full_precision():
        assert dtype() == torch.float32
        with full_precision():
            assert in_user_settings(dtype) == torch.bfloat16
        assert in_user_settings(lambda: in_user_settings(dtype)) == torch.bfloat16
        with pytest.raises(ZeroDivisionError):
            in_user_settings(lambda: 1 / 0)
        assert dtype() == torch.float32
    assert dtype() == torch.float32


# Forks


def forked(action):
    """Return the integer that an action returns in a process that is forked here."""
    read, write = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of forks among threads, which this child does not use
        child = os.fork()
    if child == 0:
        try:
            os.write(write, struct.pack("<Q", action()))
        finally:
            os._exit(0)
    os.waitpid(child, 0)
    os.close(write)
    with os.fdopen(read, "rb") as file:
        return struct.unpack("<Q", file.read())[0]


def drawn():
    return seeds_of(1, None, None, 0)[0][0]


def picture():
    x = sample(exact_score, SDE, "ddim", shape=(2,), steps=2)
    return int(x.view(torch.int32).long().sum()) % 2**63


@pytest.mark.slow
@pytest.mark.global_rng
@pytest.mark.skipif(not hasattr(os, "fork"), reason="there are no forks")
@pytest.mark.parametrize("action", [drawn, picture])
def test_forked_processes_without_a_seed_draw_different_samples(action):
    def again():  # a fork of a fork
        return forked(action)

    found = [forked(action), forked(action), forked(again), forked(again), action()]
    assert len(set(found)) == 5


@pytest.mark.slow
@pytest.mark.global_rng
@pytest.mark.skipif(not hasattr(os, "fork"), reason="there are no forks")
def test_seeds_determine_samples_in_the_parent_and_after_a_fork_that_sets_one():
    torch.default_generator.manual_seed(7)
    expected = drawn()
    torch.default_generator.manual_seed(7)
    forked(drawn)
    assert drawn() == expected

    def seeded():
        torch.default_generator.manual_seed(7)
        return drawn()

    torch.default_generator.manual_seed(3)
    assert forked(seeded) == expected
    assert forked(lambda: seeds_of(1, 5, None, 0)[0][0]) == 5


class Both(scoresde.Wrapped):
    """Define a score of two models that keeps a run of itself, so that both go together."""

    def __init__(self, own, other):
        super().__init__(own, other)
        self.states = trajectory(self, sampler="ddim", steps=3, n=2, seed=0)
        next(self.states)


def left(other):
    with torch.random.fork_rng():
        Both(ScoreModel(Net(), SDE, (4,)).train(), other)


@pytest.mark.slow
def test_an_unreachable_run_restores_the_modes_of_its_networks():
    with torch.random.fork_rng():
        model = ScoreModel(Net(), SDE, (4,)).train()
    left(model)
    gc.collect()
    assert {layer.training for layer in model.modules()} == {True}


@pytest.mark.slow
def test_an_unreachable_run_may_end_while_another_begins():
    class Collecting(nn.Linear):
        def __setattr__(self, name, value):
            super().__setattr__(name, value)
            if name == "training" and not value:
                gc.collect()

    with torch.random.fork_rng():
        layer, other = Collecting(1, 1), nn.Linear(1, 1)

    def begin():
        left(other)
        with evaluating([layer, other]):
            pass

    gc.disable()
    thread = threading.Thread(target=begin, daemon=True)
    try:
        thread.start()
        thread.join(20)
    finally:
        gc.enable()
    assert not thread.is_alive()
    assert (layer.training, other.training) == (True, True)


def random_model():
    model = ScoreModel(MLP(2, hidden=(8,)), VPSDE(), (2,)).eval()
    with torch.no_grad():
        for p in model.parameters():
            p.normal_(0.0, 0.3)
    return model


@pytest.mark.slow
@pytest.mark.global_rng
def test_a_pilot_and_moments_are_those_of_the_model_as_it_is():
    model = random_model()
    pilot = model.measured_pilot()
    for change in (
        lambda: setattr(model, "sde", VPSDE(beta_max=10.0)),
        lambda: setattr(model, "predicts", "x0"),
        lambda: model.net.register_forward_hook(lambda net, given, out: 1.5 * out),
        lambda: model.mean.data.add_(1.0),
    ):
        change()
        before, pilot = pilot, model.measured_pilot()
        assert pilot is not before
        assert pilot is model.measured_pilot()
        assert torch.equal(model.moments.mean, model.mean)


@pytest.mark.global_rng
def test_scores_are_mapped_by_vmap_and_runs_say_that_they_are_not():
    model, target = random_model(), targets.Gaussian([1.0, 0.0], std=0.5).at(SDE)
    x, t = X[:, :2], torch.linspace(0.1, 0.9, 6)
    for score in (model, target, scoresde.Rescheduled(model, scoresde.VESDE(0.02, 20.0))):
        mapped = torch.func.vmap(lambda x, t, score=score: score(x[None], t[None])[0])
        torch.testing.assert_close(mapped(x, t), score(x, t))
        assert mapped(x, t + 0.5).isnan().all(1).tolist() == (t + 0.5 > 1).tolist()
    given = posterior(target, Linear(torch.eye(2), 0.1))
    for call in (
        lambda x: sample(target, sampler="heun", x=x[None], times=[0.5, 0.4], seed=0),
        lambda x: log_prob(target, None, x[None]).value,
        lambda x: sample(given, sampler="heun", steps=1, seed=0, condition={"measurement": x}),
    ):
        with pytest.raises(scoresde.ScoreSDEError, match="vmap"):
            torch.func.vmap(call)(x)
    start = functools.partial(sample, target, sampler="heun", times=[0.5, 0.4], seed=0)
    with pytest.raises(scoresde.ScoreSDEError, match=r"torch\.autograd\.grad"):
        torch.func.grad(lambda x: start(x=x).sum())(x)


@pytest.mark.parametrize("time", [-0.5, 7.8, float("nan"), torch.tensor([0.5, 7.8])])
def test_an_exact_score_is_asked_within_its_times(time):
    score = targets.TwoMoons().at(SDE)
    for call in (score, score.log_prob):
        with pytest.raises(scoresde.ScoreSDEError, match="time must lie in"):
            call(X[:2, :2], time)


def test_an_interrupt_at_any_line_leaves_each_layer_in_its_mode():
    """Raise at the n-th line of the module, for every n, as a signal may."""
    net = nn.Sequential(nn.Identity(), nn.Dropout())
    lines = linecache.getlines(inside.__file__)

    def until(n):
        left = [n]

        def trace(frame, event, arg):
            if frame.f_code.co_filename == inside.__file__ and event == "line":
                # Python looks for signals at calls and jumps, and so not at a `try`
                left[0] -= lines[frame.f_lineno - 1].strip() != "try:"
                if left[0] == 0:
                    raise KeyboardInterrupt
            return trace

        before = sys.gettrace()
        sys.settrace(trace)
        try:
            with inside.evaluating(net):
                pass
        finally:
            sys.settrace(before)

    for n in itertools.count(1):
        try:
            until(n)
        except KeyboardInterrupt:
            assert not inside._running, n
            assert all(layer.training for layer in net.modules()), n
        else:
            break
    assert n > 20
