"""Test the arguments and results of `sample` and `trajectory`."""

import copy
import math
import runpy
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from methods import coarse, documented, in_the_readme, in_turn
from oracle import gaussian, tweedie
from torch import nn
from torch.testing import assert_close

import scoresde
from scoresde import (
    SAMPLERS,
    Facts,
    Rescheduled,
    ScoreModel,
    Wrapped,
    from_denoiser,
    sample,
    trajectory,
)
from scoresde.errors import (
    DeviceError,
    InvalidTypeError,
    InvalidValueError,
    MemoryLimitError,
    NonFiniteError,
    ScoreSDEError,
    ShapeError,
    UnknownNameError,
)
from scoresde.noise import Noise
from scoresde.samplers import (
    DDIM,
    PC,
    Ancestral,
    AnnealedLangevin,
    Langevin,
    Restart,
    ReverseDiffusion,
    TorchSDE,
)
from scoresde.score import modules
from scoresde.sde import (
    EDMSDE,
    VESDE,
    VPSDE,
    Condition,
    Field,
    FlowSDE,
    Moments,
    NCSNLadder,
    SubVPSDE,
)
from scoresde.targets import Gaussian, GaussianMixture

SDE = VPSDE()
DIAGONAL = Gaussian([0.5, -1.0, 2.0], std=[0.3, 1.0, 2.0])
MOMENTS = DIAGONAL.moments()
MIXING = Gaussian([0.5, -1.0], cov=[[1.0, 0.6], [0.6, 0.5]])


def unet(sde):
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(1)
        net = scoresde.nn.UNet(1, channels=(8, 8), blocks=1, features=16, seed=0)
    g = torch.Generator().manual_seed(0)
    with torch.no_grad():  # the zero-initialised output would hide the network
        for p in net.parameters():
            p.add_(0.1 * torch.randn(p.shape, generator=g))
    return ScoreModel(net, sde, (1, 6, 6))


UNET = unet(SDE)
ADAPTIVE = {name for name in SAMPLERS if SAMPLERS[name].adaptive}
COUPLED = {name for name in SAMPLERS if SAMPLERS[name].coupled}


class Net(nn.Module):
    """Define a network with a layer that depends on the mode, and a record of its mode."""

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(-0.5))
        self.drop = nn.Dropout(0.5)
        self.frozen = nn.Dropout(0.5).eval()
        self.modes = []

    def forward(self, x, c, **condition):
        self.modes.append((self.training, self.drop.training))
        return self.scale * self.drop(x)


# A sample depends on its seed and its number alone


# the paths of "adaptive" are drawn sample by sample, too slowly for this
@pytest.mark.slow
@pytest.mark.law(28)
@pytest.mark.parametrize("name", sorted(SAMPLERS.keys() - COUPLED - {"adaptive"}))
@pytest.mark.parametrize(
    ("score", "tolerance"), [(DIAGONAL, 0), (MIXING, 1e-12)], ids=["elementwise", "matrix"]
)
def test_the_first_16_of_64_samples_are_the_16_samples(name, score, tolerance):
    def draw(n, **options):
        return sample(
            score.at(SDE), SDE, coarse(name), n=n, seed=0, steps=4, dtype=torch.float64, **options
        )

    whole, near = draw(64), dict(rtol=tolerance, atol=tolerance)
    assert_close(whole[:16], draw(16), **near)
    assert_close(whole[8:16], draw(8, first=8), **near)
    for batch_size in (5, 100):
        assert_close(whole[:16], draw(16, batch_size=batch_size), **near)
    assert not torch.isin(whole[:16], whole[16:]).any()


@pytest.mark.slow
@pytest.mark.law(28)
@pytest.mark.parametrize("name", sorted(SAMPLERS.keys() - COUPLED))
def test_with_a_network_too(name):
    def draw(n, **options):
        # long steps of high order extrapolate far, and the network's rounding with it
        return sample(net, SDE, coarse(name), n=n, seed=0, steps=4, dtype=dtype, **options)

    # in single precision rounding may decide whether a step of an adaptive method is accepted
    adaptive = SAMPLERS[name].adaptive
    net = copy.deepcopy(UNET).double() if adaptive else UNET
    dtype = torch.float64 if adaptive else torch.float32

    whole = draw(5)
    assert whole.std() > 0.1
    assert_close(whole[3:], draw(2, first=3), rtol=1e-5, atol=1e-5)
    # at one fixed chunk shape bit for bit, the padded last chunk included
    assert torch.equal(draw(5, batch_size=3), draw(6, batch_size=3)[:5])


@pytest.mark.slow
@pytest.mark.law(28)
@given(
    st.sampled_from(sorted(SAMPLERS.keys() - COUPLED)),
    st.integers(0, 2**64 - 1),
    st.integers(0, 10**12),
    st.data(),
)
def test_any_part_of_any_seed_can_be_drawn_in_any_chunks(name, seed, first, data):
    n = data.draw(st.integers(1, 12))
    i = data.draw(st.integers(0, n - 1))
    part = data.draw(st.integers(1, n - i))
    size = data.draw(st.none() | st.integers(1, 15))
    arguments = dict(steps=2, seed=seed, denoise=data.draw(st.booleans()))
    score = DIAGONAL.at(SDE)
    whole = sample(score, SDE, name, n=n, first=first, **arguments)
    some = sample(score, SDE, name, n=part, first=first + i, batch_size=size, **arguments)
    assert torch.equal(whole[i : i + part], some)


def test_a_chunk_has_exactly_its_size_and_the_last_is_padded():
    sizes = []

    def score(x, t):
        sizes.append(len(x))
        return -x

    out = sample(score, SDE, "em", n=10, shape=(2,), steps=1, batch_size=4, seed=0)
    assert out.shape == (10, 2)
    assert sizes == [4] * 6


@pytest.mark.slow
@pytest.mark.parametrize("name", SAMPLERS)
def test_two_seeds_give_other_samples_and_one_seed_the_same(name):
    def draw(seed):
        return sample(DIAGONAL.at(SDE), SDE, coarse(name), n=4, seed=seed, steps=3)

    three = draw(3)
    assert torch.equal(draw(3), three)
    assert not (draw(4) == three).any()


@pytest.mark.long
def test_a_sample_is_the_prior_then_the_trajectory_then_tweedie():
    score, x = DIAGONAL.at(SDE), torch.empty(5, 3, dtype=torch.float64)
    for name, sampler in SAMPLERS.items():
        noise, rsde = Noise.of(9, 5, first=2), SDE.reverse(score, moments=score.facts.moments)
        state = SDE.prior(score.facts.moments).sample(noise.normal(x, math.inf))
        times = sampler.times(SDE, 4, score.facts.moments)
        for at in coarse(name).trajectory(rsde, state, times, noise):
            state = at.x
        arguments = dict(n=5, seed=9, first=2, steps=4, dtype=torch.float64)
        assert torch.equal(sample(score, SDE, coarse(name), denoise=False, **arguments), state)
        end = rsde.denoise(state, SDE.eps)
        assert torch.equal(sample(score, SDE, coarse(name), **arguments), end)


@pytest.mark.slow
@pytest.mark.parametrize("name", SAMPLERS)
def test_the_given_start_takes_the_place_of_the_prior(name):
    x = torch.full((4, 3), 0.7)
    arguments = dict(x=x, times=[0.2, 0.195])
    one, two = (sample(DIAGONAL.at(SDE), SDE, name, seed=s, **arguments) for s in (0, 1))
    assert one.shape == (4, 3)
    # from a given start the flow leads to one end only
    assert torch.equal(one, two) == (not SAMPLERS[name].stochastic)
    first = next(trajectory(DIAGONAL.at(SDE), SDE, name, seed=0, **arguments))
    assert torch.equal(first.x, x)
    assert torch.equal(x, torch.full((4, 3), 0.7))


# Where the randomness comes from


@pytest.mark.law(29)
def test_a_seed_or_a_generator_leaves_the_global_generator_alone():
    before = torch.get_rng_state()
    arguments = dict(n=2, steps=2)
    sample(DIAGONAL.at(SDE), SDE, seed=0, **arguments)
    sample(DIAGONAL.at(SDE), SDE, generator=torch.Generator().manual_seed(0), **arguments)
    sample(DIAGONAL.at(SDE), SDE, generator=[torch.Generator() for _ in range(2)], **arguments)
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.law(29)
@pytest.mark.global_rng
def test_with_neither_the_global_generator_is_used():
    def draw():
        return sample(DIAGONAL.at(SDE), SDE, n=3, steps=2)

    state = torch.get_rng_state()
    one = draw()
    assert not torch.equal(torch.get_rng_state(), state)
    assert not torch.equal(draw(), one)
    torch.set_rng_state(state)
    assert torch.equal(draw(), one)
    # one integer is drawn, whatever n is
    after = torch.get_rng_state()
    torch.set_rng_state(state)
    sample(DIAGONAL.at(SDE), SDE, n=9, steps=4)
    assert torch.equal(torch.get_rng_state(), after)


@pytest.mark.law(29)
def test_a_generator_determines_the_samples_and_a_list_one_each():
    def draw(generator, n=3):
        return sample(DIAGONAL.at(SDE), SDE, n=n, steps=2, generator=generator)

    one = draw(torch.Generator().manual_seed(5))
    assert torch.equal(one, draw(torch.Generator().manual_seed(5)))
    assert torch.equal(one, draw(torch.Generator().manual_seed(5), n=7)[:3])
    assert len(one.unique()) == one.numel()
    many = draw([torch.Generator().manual_seed(i) for i in range(3)])
    mixed = draw([torch.Generator().manual_seed(i) for i in (2, 0, 1)])
    assert torch.equal(mixed, many[[2, 0, 1]])
    assert torch.equal(draw([torch.Generator().manual_seed(1)], n=1), many[1:2])


# Evaluations, steps and times


class Counted(Wrapped):
    def __init__(self, score):
        super().__init__(score)
        self.calls, self.times = 0, []

    def __call__(self, x, t):
        self.calls += 1
        self.times.append(float(t[0]))
        return self.score(x, t)


@pytest.mark.slow
@pytest.mark.law(35)
@pytest.mark.filterwarnings("ignore:the samples are .* times as large")
@pytest.mark.parametrize("name", sorted(in_the_readme() - ADAPTIVE))
@pytest.mark.parametrize(("n", "denoise"), [(1, True), (2, False), (9, True)])
def test_evaluations_reported_counted_and_documented_agree(name, n, denoise):
    score, options = Counted(DIAGONAL.at(SDE)), dict(shape=(3,), n=2, denoise=denoise, seed=0)
    *_, end = trajectory(score, SDE, name, steps=n, moments=Moments(0.0, 1.0), **options)
    cost = documented(name, n) + denoise
    assert (end.nfe, score.calls) == (cost, cost)
    # the steps for a budget of that size
    spent = Counted(DIAGONAL.at(SDE))
    sample(spent, SDE, name, nfe=cost, **options)
    assert spent.calls == cost


def test_evaluations_are_per_sample_and_do_not_add_up_over_chunks():
    score = Counted(DIAGONAL.at(SDE))
    sample(score, SDE, "em", shape=(3,), n=6, steps=4, batch_size=2, seed=0)
    assert score.calls == 3 * 5


@pytest.mark.slow
@pytest.mark.law(36)
@pytest.mark.parametrize(
    ("name", "sde"),
    in_turn(SAMPLERS, [VPSDE(), EDMSDE(), VPSDE(T=0.7, eps=0.02), VESDE(levels=9)], 2),
    ids=repr,
)
def test_the_grid_goes_from_T_to_eps_exactly_and_the_score_is_evaluated_within_it(name, sde):
    score = Counted(DIAGONAL.at(sde))
    if SAMPLERS[name].between and sde.levels:
        with pytest.raises(InvalidValueError, match="evaluates the score between the times"):
            trajectory(score, sde, name, steps=8, seed=0)
        return
    states = list(
        trajectory(score, sde, coarse(name), shape=(3,), steps=8, seed=0, dtype=torch.float64)
    )
    t = [float(state.t) for state in states]
    assert (t[0], t[-1]) == (sde.T, sde.eps)
    assert all(a >= b for a, b in pairwise(t))
    assert sum(a - b for a, b in pairwise(t)) == pytest.approx(sde.T - sde.eps, rel=1e-12)
    assert sorted(set(t), reverse=True) == SAMPLERS[name].times(sde, 8, MOMENTS).tolist()
    assert sde.eps <= min(score.times) <= max(score.times) <= sde.T
    assert score.times[-1] == sde.eps


def test_the_first_state_is_the_start_and_the_last_repeats_its_time_and_adds_the_denoised():
    score = DIAGONAL.at(SDE)
    states = list(trajectory(score, SDE, "pc", n=2, steps=3, seed=0))
    assert len(states) == 1 + 3 + 1
    assert [state.nfe for state in states] == [0, 2, 4, 6, 7]
    assert all(state.denoised is None for state in states[:-1])
    assert torch.equal(states[-1].x, states[-2].x)
    assert states[-1].t == states[-2].t
    assert torch.equal(states[-1].denoised, sample(score, SDE, "pc", n=2, steps=3, seed=0))
    plain = list(trajectory(score, SDE, "pc", n=2, steps=3, seed=0, denoise=False))
    assert len(plain) == 1 + 3
    assert torch.equal(plain[-1].x, states[-2].x)


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(SAMPLERS.keys() - ADAPTIVE))
def test_changes_of_a_state_in_place_do_not_affect_the_run(name):
    start = torch.ones(2, 3, requires_grad=True)
    arguments = dict(x=start, steps=3, seed=0)
    for state in trajectory(DIAGONAL.at(SDE), SDE, name, **arguments):
        assert not state.x.requires_grad
        state.x.add_(1).div_(2)
    assert (start == 1).all()
    assert torch.equal(state.denoised, sample(DIAGONAL.at(SDE), SDE, name, **arguments))


def test_the_default_number_of_steps_is_the_models_then_all_levels_then_the_samplers():
    def length(model, sde, sampler="em", **options):
        return len(list(trajectory(model, sde, sampler, seed=0, denoise=False, **options))) - 1

    model = ScoreModel(Net(), SDE, (3,))
    assert length(model, SDE, Short()) == 3
    model.steps = 7
    assert length(model, SDE) == 7
    assert length(model, SDE, Short()) == 3
    assert length(model, SDE, steps=2) == 2
    ladder = VESDE(levels=12)
    assert length(DIAGONAL.at(ladder), ladder) == 11
    assert length(DIAGONAL.at(ladder), ladder, steps=4) == 4


@dataclass(frozen=True)
class Short(ReverseDiffusion):
    """Define a sampler with a small default."""

    steps = 3


@pytest.mark.parametrize("pair", [("steps", "nfe"), ("steps", "times"), ("nfe", "times")])
def test_steps_nfe_and_times_exclude_each_other(pair):
    values = dict(steps=5, nfe=20, times=torch.tensor([1.0, 0.001]))
    with pytest.raises(InvalidValueError, match="give only one of steps=, nfe= and times="):
        sample(DIAGONAL.at(SDE), SDE, seed=0, **{name: values[name] for name in pair})


def test_given_times_are_used_unchanged():
    times = torch.tensor([1.0, 0.37, 0.2, 0.05], dtype=torch.float64)
    states = list(trajectory(DIAGONAL.at(SDE), SDE, "em", times=times, seed=0, denoise=False))
    assert torch.equal(torch.stack([state.t for state in states]), times)


@pytest.mark.parametrize("sde", [VESDE(), VPSDE()], ids=repr)
def test_a_start_below_T_is_drawn_from_the_law_there_and_not_from_the_prior(sde):
    """With times that start early, a draw of the prior at T would be far too wide."""
    start = 0.4
    x = next(trajectory(DIAGONAL.at(sde), sde, times=[start, sde.eps], n=20000, seed=0)).x.double()
    t = torch.tensor(start)
    alpha, sigma = float(sde.alpha(t)), float(sde.sigma(t))
    var = alpha**2 * DIAGONAL.moments().var + sigma**2
    assert ((x.var(0) / var - 1).abs() < 4.9 * math.sqrt(2 / len(x))).all()
    gap = x.mean(0) - alpha * DIAGONAL.moments().mean
    assert (gap.abs() < 4.9 * (var / len(x)).sqrt()).all()


def test_a_run_that_begins_below_T_needs_a_start_or_moments():
    with pytest.raises(InvalidValueError, match=r"starts at 0\.4, below T = 1\.0.*x=.*moments="):
        sample(lambda x, t: -x, SDE, shape=(2,), times=[0.4, 0.1], seed=0)
    sample(lambda x, t: -x, SDE, x=torch.ones(1, 2), times=[0.4, 0.1], seed=0)


# Shape, dtype, memory and gradients


@pytest.mark.law(37)
@given(
    st.sampled_from(list(SAMPLERS)),
    st.lists(st.integers(0, 3), max_size=4).map(tuple),
    st.integers(0, 3),
    st.sampled_from([torch.float16, torch.bfloat16, torch.float32, torch.float64]),
)
def test_samples_have_the_requested_shape_and_dtype(name, shape, n, dtype):
    out = sample(lambda x, t: -x, SDE, name, shape=shape, n=n, steps=2, seed=0, dtype=dtype)
    assert (out.shape, out.dtype) == ((n, *shape), dtype)
    assert out.isfinite().all()
    assert out.is_contiguous()
    assert not out.requires_grad


@given(
    st.sampled_from(["ddim", "em", "pc", "adaptive"]),
    st.lists(st.integers(0, 4), min_size=1, max_size=6),
)
def test_some_rows_of_a_run_are_the_same_samples(name, rows):
    options = {} if coarse(name).adaptive else {"steps": 3}
    whole = scoresde.Run.of(DIAGONAL.at(SDE), SDE, coarse(name), n=5, seed=2, **options)
    assert_close(whole.rows(rows).draw().x, whole.draw().x[rows])


@pytest.mark.slow
def test_a_run_holds_few_states_at_once():
    benchmark = runpy.run_path(str(Path(__file__).parents[1] / "examples/benchmarks/device.py"))
    shape, cpu = (8, 3, 32, 32), torch.device("cpu")
    for name, most in (("dpmpp_2m", 6), ("unipc", 6), ("fast", 9), ("fast_sde", 9), ("pc", 6)):
        run = benchmark["drawing"](name, shape, 45, cpu)
        run.draw()  # its weights are kept for the next run
        with torch.no_grad(), benchmark["Peak"]() as peak:
            run.draw()
        assert peak.most < (most + 0.1) * 4 * math.prod(shape), name


@pytest.mark.slow
@pytest.mark.parametrize("name", SAMPLERS)
def test_the_shape_of_an_event_changes_no_number(name):
    def draw(*shape):
        return sample(score, SDE, name, shape=shape, n=3, steps=3, seed=0)

    def score(x, t):
        return -x - 0.1 * torch.sin(x)

    one = draw(6)
    for shape in ((2, 3), (1, 3, 2), (6, 1, 1, 1)):
        assert torch.equal(draw(*shape), one.reshape(3, *shape))
    assert torch.equal(draw(), draw(1)[:, 0])


@pytest.mark.slow
@pytest.mark.law(37)
@pytest.mark.parametrize("name", SAMPLERS)
def test_strides_have_no_effect_and_the_start_is_not_changed(name):
    target = Gaussian(torch.zeros(2, 3, 4), std=0.5)
    plain = torch.randn(2, 2, 3, 4, generator=torch.Generator().manual_seed(0))
    strided = plain.permute(0, 2, 3, 1).contiguous().permute(0, 3, 1, 2)
    assert not strided.is_contiguous()
    copy = strided.clone()
    one, two = (sample(target.at(SDE), SDE, name, x=x, seed=0, steps=2) for x in (plain, strided))
    assert torch.equal(one, two)
    assert torch.equal(strided, copy)


@pytest.mark.law(37)
def test_no_gradient_is_kept_and_the_samples_can_be_used_in_autograd():
    x = torch.ones(2, 3, requires_grad=True)
    for state in trajectory(DIAGONAL.at(SDE), SDE, x=x, steps=2, seed=0):
        assert torch.is_grad_enabled()
        assert state is not None
    out = sample(DIAGONAL.at(SDE), SDE, x=x, steps=2, seed=0)
    assert not out.requires_grad
    weight = torch.ones(3, requires_grad=True)
    (out * weight).sum().backward()
    assert torch.equal(weight.grad, out.sum(0))


def test_a_score_is_evaluated_without_gradients_but_may_turn_them_on():
    def score(x, t):
        assert not torch.is_grad_enabled()
        with torch.enable_grad():
            u = x.detach().requires_grad_()
            (grad,) = torch.autograd.grad(-0.5 * (u**2).sum(), u)
        return grad

    assert sample(score, SDE, "em", shape=(2,), steps=2, seed=0).shape == (1, 2)


def test_half_precision_states_are_computed_in_single_precision():
    out = sample(DIAGONAL.at(SDE), SDE, n=4, seed=0, steps=5, dtype=torch.float16)
    assert torch.equal(out, sample(DIAGONAL.at(SDE), SDE, n=4, seed=0, steps=5).half())


@pytest.mark.parametrize("denoise", [True, False])
def test_samples_beyond_half_precision_are_refused_and_not_infinite(denoise):
    score = Gaussian([1e5], var=1.0).at(SDE)
    arguments = dict(n=2, steps=3, seed=0, denoise=denoise)
    with pytest.raises(NonFiniteError, match=r"of up to 1e\+05 are too large for torch.float16"):
        sample(score, SDE, "ddim", **arguments, dtype=torch.float16)
    assert sample(score, SDE, "ddim", **arguments, dtype=torch.bfloat16).isfinite().all()


@pytest.mark.slow
@pytest.mark.parametrize("name", SAMPLERS)
def test_single_and_double_precision_follow_one_path(name):
    one, two = (
        sample(DIAGONAL.at(SDE), SDE, name, n=4, seed=0, steps=20, dtype=dtype)
        for dtype in (torch.float32, torch.float64)
    )
    assert_close(one.double(), two, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("depth", [0, 1, 2])
def test_samples_are_on_the_device_of_the_model_however_it_is_wrapped(depth):
    score = nn.Linear(3, 3, device="meta")
    for _ in range(depth):
        score = Holder(score)
    with pytest.raises(DeviceError, match="the meta device holds no numbers"):
        trajectory(score, SDE, shape=(3,), seed=0, steps=1)
    there = next(trajectory(score, SDE, shape=(3,), seed=0, steps=1, device="cpu"))
    assert there.x.device.type == "cpu"


@pytest.mark.slow
def test_no_samples_are_an_empty_tensor_at_no_cost():
    target = Gaussian(torch.zeros(8, 8), std=0.5)
    for sampler in [*SAMPLERS, PC(corrector=Langevin(norm="sample"))]:
        score = Counted(target.at(SDE))
        for batch_size in (None, 4):
            out = sample(
                score, SDE, sampler, n=0, shape=(8, 8), steps=3, batch_size=batch_size, seed=0
            )
            assert out.shape == (0, 8, 8)
        assert score.calls == 0
        *_, end = trajectory(score, SDE, sampler, n=0, shape=(8, 8), steps=3, seed=0)
        assert end.nfe == 0
    assert sample(target.at(SDE), SDE, x=torch.empty(0, 8, 8), steps=3, seed=0).shape == (0, 8, 8)


def test_one_sample_is_the_default():
    assert sample(DIAGONAL.at(SDE), SDE, seed=0, steps=1).shape == (1, 3)


# The law at the end


@pytest.mark.filterwarnings("ignore:the data have a standard deviation")
@pytest.mark.slow
@pytest.mark.law(38)
@pytest.mark.parametrize("name", ["pc", "ancestral"])
def test_denoise_ends_with_tweedie_and_without_it_with_a_draw_of_the_last_marginal(name):
    """The variances are m^2 v^2 / V and V: here 4.5 times apart."""
    sde, n = VESDE(0.5, 20.0), 2000
    score = gaussian(sde, 0.3, 0.1)
    arguments = dict(n=n, seed=1, steps=100, dtype=torch.float64)
    noisy, clean = (sample(score, sde, name, denoise=d, **arguments) for d in (False, True))
    assert float(noisy.var()) == pytest.approx(0.1 + 0.25, rel=0.2)
    mean, var = tweedie(score, torch.tensor(0.0))
    assert float(clean.var()) == pytest.approx(float(var), rel=0.2)
    assert float(clean.mean()) == pytest.approx(float(mean), abs=0.02)
    # one is the other, denoised
    assert_close(clean, (noisy + 0.25 * score(noisy, torch.tensor(0.0))), rtol=1e-9, atol=1e-9)


# Models and what wraps them


@pytest.mark.law(60)
def test_a_model_is_in_evaluation_mode_and_each_module_gets_its_mode_back():
    model = ScoreModel(Net(), SDE, (3,)).train()
    model.net.frozen.eval()
    sample(model, SDE, "em", steps=2, seed=0)
    assert model.net.modes == [(False, False)] * 3
    assert (model.training, model.net.drop.training, model.net.frozen.training) == (1, 1, 0)


def test_the_mode_is_restored_between_steps_on_an_early_break_and_after_an_error():
    model = ScoreModel(Net(), SDE, (3,)).train()
    for state in trajectory(model, SDE, "em", steps=5, seed=0):
        assert model.training
        if state.nfe == 2:
            break
    assert model.training
    assert model.net.drop.training
    with torch.no_grad():
        model.net.scale.fill_(math.nan)
    with pytest.raises(NonFiniteError):
        sample(model, SDE, "em", steps=5, seed=0)
    assert model.training
    assert model.net.drop.training
    unused = trajectory(model, SDE, "em", steps=5, seed=0)
    assert model.training
    del unused


class Wrapper(nn.Module):
    """Define a module with a model inside and further layers."""

    def __init__(self, model):
        super().__init__()
        self.model, self.drop = model, nn.Dropout(0.5)

    def forward(self, x, t):
        assert not self.drop.training
        return self.drop(self.model(x, t))


class Holder:
    """Define a score that holds a module as `model`, as guidance does."""

    def __init__(self, model):
        self.model = model

    def __call__(self, x, t):
        return self.model(x, t)


class Denoiser(nn.Module):
    def __init__(self):
        super().__init__()
        self.drop = nn.Dropout(0.5)

    def forward(self, x, t):
        assert not self.training
        assert not self.drop.training
        return 0.5 * x


@pytest.mark.parametrize(
    "score",
    [
        Wrapper(ScoreModel(Net(), SDE, (3,))),
        Holder(Wrapper(ScoreModel(Net(), SDE, (3,)))),
        from_denoiser(Denoiser(), SDE),
        Holder(from_denoiser(Denoiser(), SDE)),
    ],
    ids=["module", "held module", "denoiser", "held denoiser"],
)
def test_every_layer_around_a_model_is_evaluated_too(score, recwarn):
    sample(score, SDE, "em", shape=(3,), steps=2, seed=0)
    lost = [str(warning.message) for warning in recwarn]
    assert all("make the score a subclass of scoresde.Wrapped" in message for message in lost)
    assert modules(score)
    for inner in modules(score):
        assert inner.training
        assert inner.drop.training


def test_conditions_are_divided_into_chunks_with_their_samples():
    class Shift:
        facts = Facts(event_shape=(1,))

        def __call__(self, x, t, condition):
            return condition["mean"] - x

    means = torch.arange(10.0)[:, None]
    arguments = dict(n=10, seed=0, steps=3)
    whole = sample(Shift(), SDE, condition={"mean": means}, **arguments)
    assert torch.equal(
        sample(Shift(), SDE, condition={"mean": means}, batch_size=3, **arguments), whole
    )
    other = sample(Shift(), SDE, condition={"mean": means + 1}, **arguments)
    assert not (other == whole).any()


def test_an_empty_condition_is_none():
    empty = sample(DIAGONAL.at(SDE), SDE, condition={}, seed=0, steps=2)
    assert torch.equal(empty, sample(DIAGONAL.at(SDE), SDE, seed=0, steps=2))


def test_one_row_or_number_of_a_condition_is_that_of_all_samples():
    def shifted(x, t, condition):
        return condition["mean"].reshape(len(x), -1) - x

    def draw(mean, n=3):
        condition = {"mean": mean}
        return sample(shifted, SDE, shape=(1,), n=n, seed=0, steps=2, condition=condition)

    whole = draw(torch.full((3, 1), 2.0))
    for one in (2, 2.0, torch.tensor(2.0), torch.tensor([[2.0]]), np.float32(2)):
        assert torch.equal(draw(one), whole)
    with pytest.raises(ShapeError, match=r"'mean' needs one row for each of the n = 3 samples"):
        draw(torch.ones(2, 1))


def test_numbers_are_vectors_of_one_entry_where_the_score_takes_those():
    declared = {"mean": Field((1,))}
    rows = torch.tensor([1.0, 2.0, 3.0])
    for mean in (rows, rows[:, None]):
        assert Condition.of({"mean": mean}, 3, declared)["mean"].tolist() == [[1.0], [2.0], [3.0]]
    assert Condition.of({"mean": 2.0}, 2, declared)["mean"].tolist() == [[2.0], [2.0]]
    with pytest.raises(ShapeError, match=r"one row for each of the n = 2 samples.*got \(3,\)"):
        Condition.of({"mean": rows}, 2, declared)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(
    "sde",
    [EDMSDE(T=50.0, eps=0.01), EDMSDE(T=49.0, eps=0.02), NCSNLadder.geometric(0.01, 50.0, 20)],
    ids=["edm", "edm within", "ladder"],
)
def test_a_rescheduled_score_reaches_both_ends_of_its_own_noise_levels(sde, dtype):
    """Single precision rounds the time of the smallest level below it."""
    model = ScoreModel(Net(), VESDE(), (3,))
    out = sample(Rescheduled(model, sde), sde, "ancestral", steps=4, n=2, seed=0, dtype=dtype)
    assert out.isfinite().all()


@pytest.mark.parametrize("other", [FlowSDE(T=0.98), VESDE(0.01, 50.0, T=2.0), SubVPSDE()], ids=repr)
def test_a_score_rescheduled_to_another_sde_is_that_of_the_same_data(other):
    own = VESDE(0.001, 2000.0)
    target = Gaussian([0.5, -1.0], std=[0.3, 1.0])
    rescheduled = Rescheduled(target.at(own), other)
    x = torch.randn(5, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    for t in (other.eps, other.T / 2, other.T):
        t = torch.full((5,), t, dtype=torch.float64)
        assert_close(rescheduled(x, t), target.at(other)(x, t), rtol=1e-6, atol=1e-6)


def test_a_model_is_sampled_with_its_own_sde_levels_and_eps_excepted():
    model = ScoreModel(Net(), VESDE(), (3,))
    for sde in (
        VESDE(levels=5), VESDE(eps=0.1), VESDE(levels=5, eps=0.1),
        NCSNLadder.geometric(0.01, 50.0, 5),
    ):  # fmt: skip
        assert sample(model, sde, steps=4, seed=0).shape == (1, 3)
    for sde in (VESDE(sigma_max=49.0), VESDE(T=2.0), VPSDE(), NCSNLadder.geometric(0.01, 49.0, 5)):
        with pytest.raises(
            InvalidValueError, match=r"belongs to VESDE.*, not to .*Rescheduled\(score, sde"
        ):
            sample(model, sde, steps=4, seed=0)


def test_the_prior_takes_the_moments_of_the_data_that_are_known():
    sde = VESDE(0.01, 2.0)
    starts = [
        next(trajectory(score, sde, n=4000, seed=0, steps=1, **options)).x
        for score, options in (
            (Gaussian([3.0], std=4.0).at(sde), {}),
            (lambda x, t: -x, dict(shape=(1,))),
            (lambda x, t: -x, dict(shape=(1,), moments=Moments(3.0, var=16.0))),
        )
    ]
    assert float(starts[0].std()) == pytest.approx(math.sqrt(20), rel=0.06)
    assert float(starts[0].mean()) == pytest.approx(3, abs=0.4)
    assert float(starts[1].std()) == pytest.approx(2, rel=0.06)
    assert torch.equal(starts[0], starts[2])


# What is refused, and with which message


def plain(x, t):
    return -x


OK = dict(shape=(2,), steps=2, seed=0)


@pytest.mark.filterwarnings("ignore:at t = 1 the noise is")
@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (dict(sampler="pcc"), UnknownNameError, r"unknown sampler 'pcc'; did you mean 'pc'\? "),
        (dict(sampler="zzz"), UnknownNameError, "unknown sampler 'zzz'; choose from adaptive, "),
        (dict(sampler=PC), InvalidTypeError, r"sampler must be a string or a Sampler, got <class"),
        (dict(sampler=None), InvalidTypeError, "sampler must be a string or a Sampler, got None"),
        (dict(model=None), InvalidTypeError, "score must be a callable, got None"),
        (dict(sde=VPSDE), InvalidTypeError, r"sde must be an SDE or None, got <class"),
        (dict(sde="vp"), InvalidTypeError, "is an SDE; write sampler='vp'"),
        (dict(shape=None), InvalidValueError, "is unknown for this score; give shape="),
        (dict(shape=2), InvalidTypeError, "shape must be a sequence of integers or None, got 2"),
        (dict(shape=(-1,)), InvalidValueError, "each side of shape must be an integer >= 0"),
        (dict(model=DIAGONAL.at(SDE)), ShapeError, r"the score has \(3,\), shape= has \(2,\)"),
        (dict(x=torch.ones(4, 3)), ShapeError, r"shape= has \(2,\), x has \(3,\)"),
        (dict(x=torch.tensor(1.0)), ShapeError, r"must have shape \(B, \*\)"),
        (dict(x=[[1.0, 2.0]]), InvalidTypeError, "x must be a tensor or None, got .*1.0"),
        (dict(x=torch.ones(4, 2).int()), InvalidTypeError, r"torch.int32; .*x.float\(\) / 127.5"),
        (dict(x=torch.ones(4, 2).byte()), InvalidTypeError, r"torch.uint8; .*x.float\(\) / 127.5"),
        (dict(x=torch.ones(4, 2).bool()), InvalidTypeError, "floating point, got torch.bool"),
        (dict(x=torch.full((4, 2), math.nan)), NonFiniteError, "x holds NaN or infinity"),
        (dict(x=torch.full((4, 2), math.inf)), NonFiniteError, "x holds NaN or inf"),
        (dict(x=torch.ones(4, 2), n=3), ShapeError, "x holds 4 samples, but n = 3"),
        (dict(dtype=torch.int64), InvalidTypeError, "dtype must be floating point, got torch.int"),
        (dict(n=-1), InvalidValueError, "n must be an integer >= 0, got -1"),
        (dict(n=2.0), InvalidTypeError, "n must be an integer or None, got 2.0"),
        (dict(n=True), InvalidTypeError, "n must be an integer or None, got True"),
        (dict(first=-1), InvalidValueError, "first must be an integer >= 0, got -1"),
        (dict(first=1.5), InvalidTypeError, "first must be an integer, got 1.5"),
        (dict(batch_size=0), InvalidValueError, "batch_size must be an integer >= 1, got 0"),
        (dict(batch_size=2.0), InvalidValueError, "batch_size must be an integer >= 1, got 2.0"),
        (dict(steps=0), InvalidValueError, "steps must lie in .*, got 0"),
        (dict(steps=1.5), InvalidTypeError, "steps must be an integer or None, got 1.5"),
        (dict(steps=None, nfe=2), InvalidValueError, r"nfe = 2 is too small for one step of PC\("),
        (dict(steps=None, nfe=0), InvalidValueError, "nfe = 0 is too small for one step"),
        (dict(steps=None, nfe=9.0), InvalidTypeError, "nfe must be an integer or None, got 9.0"),
        (dict(steps=None, nfe="9"), InvalidTypeError, "nfe must be an integer or None, got '9'"),
        (dict(steps=9, sde=VESDE(levels=9)), InvalidValueError, "levels=9; use at most 8 steps"),
        (dict(steps=None, times=[0.1, 0.5]), InvalidValueError, "times must decrease strictly"),
        (dict(steps=None, times=[0.5, 0.5]), InvalidValueError, "times must decrease strictly"),
        (dict(steps=None, times=[1.5, 0.5]), InvalidValueError, r"must lie in \[0, 1.0\]"),
        (dict(steps=None, times=[1.0, -0.5]), InvalidValueError, r"must lie in \[0, 1.0\]"),
        (dict(steps=None, times=[1.0, math.nan]), InvalidValueError, r"must lie in \[0, 1.0\]"),
        (dict(steps=None, times=[]), ShapeError, r"one-dimensional and not empty, got \(0,\)"),
        (dict(steps=None, times=torch.ones(1, 2)), ShapeError, r"one-dimensional .* got \(1, 2\)"),
        (
            dict(steps=None, times=[1.0, 0.3], sde=VESDE(levels=5)),
            InvalidValueError,
            "levels=5 and is defined only at them; take times from sde.times()",
        ),
        (dict(seed=-1), InvalidValueError, r"\[0, 2\*\*64\), got -1"),
        (dict(seed=0.5), InvalidTypeError, "seed must be an integer or None, got 0.5"),
        (dict(generator=torch.Generator()), InvalidValueError, "seed= or generator=, not both"),
        (dict(seed=None, generator=7), InvalidTypeError, "generator must be a Generator, .* got 7"),
        (
            dict(seed=None, generator=[torch.Generator()] * 3, n=2),
            InvalidValueError,
            "a list of 3 generators for n = 2 samples",
        ),
        (dict(condition={"a": torch.ones(3)}), ShapeError, r"'a' needs one row .* got \(3,\)"),
        (dict(condition={"a": "b"}), InvalidTypeError, "'a' must be a number or a tensor, got 'b'"),
        *(
            (
                dict(sde=VPSDE(beta_max=700.0), sampler=name),
                InvalidValueError,
                r"noise is 1\.\d+e\+76 times the data .*torch\.float32.* a smaller T, or dtype=",
            )
            for name in ("dpmpp_2m", "unipc", "fast")
        ),
        # errors found only at the first evaluation
        (dict(model=lambda x, t: x[:, :1]), ShapeError, r"expected \(1, 2\), got \(1, 1\)"),
        (dict(model=lambda x, t: torch.cat([x, x], 1)), ShapeError, "such as a learned variance"),
        (dict(model=lambda x, t: (x,)), InvalidTypeError, "return a tensor, got tuple; wrap it"),
        (dict(model=lambda x, t: x * 1j), InvalidTypeError, "floating point, got torch.complex64"),
        (dict(model=lambda x, t: x.neg_()), InvalidValueError, r"in place, .* x.clone\(\)"),
        (dict(model=lambda x, t: x * math.nan), NonFiniteError, r"evaluation 1, t = 1, in samples"),
        (dict(model=lambda x, t: x / 0), NonFiniteError, "although its input was finite; try more"),
    ],
)  # fmt: skip
def test_bad_input_is_refused_in_a_sentence(arguments, error, message):
    arguments = dict(model=plain, sde=SDE, sampler="pc") | OK | arguments
    model, sde, sampler = (arguments.pop(name) for name in ("model", "sde", "sampler"))
    with pytest.raises(error, match=message) as caught:
        sample(model, sde, sampler, **arguments)
    assert isinstance(caught.value, ScoreSDEError)
    arguments.pop("batch_size", None)
    if "batch_size" not in message:
        with pytest.raises(error, match=message):
            list(trajectory(model, sde, sampler, **arguments))


def test_wrong_arguments_of_a_trajectory_are_refused_before_it_is_iterated():
    with pytest.raises(UnknownNameError):
        trajectory(plain, SDE, "pcc", shape=(2,))


@dataclass(frozen=True)
class Straight(scoresde.SDE):
    """Define a user's own: the straight flow, all the way to noise alone."""

    constant: float | None = None

    def alpha(self, t):
        return 1 - t if self.constant is None else self.constant

    def sigma(self, t):
        return t.clone()


@pytest.mark.parametrize("name", SAMPLERS)
def test_a_process_that_ends_in_noise_alone_is_refused_before_anything_divides_by_it(name):
    with pytest.raises(
        InvalidValueError, match=r"at t = 1 the state of .* is pure noise.* T = 0.999"
    ):
        sample(plain, Straight(), name, shape=(1,), seed=0)


def test_from_an_earlier_time_of_it_samples_can_be_drawn():
    half = Straight().times(4)[1:]
    assert sample(plain, Straight(), x=torch.ones(1, 1), times=half, seed=0).isfinite().all()


@pytest.mark.parametrize("n", [1, 3])
def test_a_score_may_scale_its_time_in_place(n):
    arguments = dict(shape=(2,), n=n, steps=4, seed=0, dtype=torch.float64)
    plain, scaling = (
        list(trajectory(lambda x, t, f=f: -x * f(t)[:, None], SDE, "ddim", **arguments))
        for f in (lambda t: 999 * t, lambda t: t.mul_(999))
    )
    assert all(torch.equal(a.x, b.x) and a.t == b.t for a, b in zip(plain, scaling, strict=True))


def test_functions_of_time_that_return_no_tensors_are_named():
    with pytest.raises(ShapeError, match=r"alpha of Straight must .* shape .* \(7,\), got 1.0"):
        Straight(constant=1.0)


def test_a_nan_in_one_sample_is_located():
    def score(x, t):
        out = -x
        out[2] = torch.where(t[2] < 0.5, math.nan, out[2])
        return out

    with pytest.raises(NonFiniteError, match=r"t = 0\.4.*, in samples \[2\]"):
        sample(score, SDE, "em", shape=(2,), n=4, steps=10, seed=0)


@pytest.mark.parametrize("denoise", [False, True])
def test_samples_that_overflow_in_the_last_step_are_refused(denoise):
    def score(x, t):
        return torch.full_like(x, 3e38)

    times = [1.0, 0.0] if not denoise else [1.0]
    with pytest.raises(
        NonFiniteError, match=r"the last step gave NaN or infinity in samples \[0\]"
    ):
        sample(score, VESDE(), "reverse_diffusion" if not denoise else PC(), shape=(2,), seed=0,
               times=times, denoise=denoise)  # fmt: skip


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory"),
        RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"),
        MemoryError(),
    ],
)
def test_a_batch_beyond_memory_is_explained(error):
    def score(x, t):
        raise error

    with pytest.raises(
        MemoryLimitError, match=r"10 samples of shape \(2,\).*batch_size.* example 5"
    ):
        sample(score, SDE, shape=(2,), n=10, steps=1, seed=0)


def test_numbers_beyond_memory_are_explained():
    for count in (10**11, 10**12):
        with pytest.raises(MemoryLimitError, match=f"a run of {count} samples"):
            scoresde.Run.of(lambda x, t: -x, SDE, shape=(2,), n=count, steps=1, seed=0)
    with pytest.raises(MemoryLimitError, match="draw fewer"):
        SDE.prior_sample((2**45,))
    with pytest.raises(InvalidValueError, match="steps must lie in"):
        SDE.times(10**9)


def test_other_errors_of_a_model_are_not_changed_but_tell_the_shape_of_the_states():
    def score(x, t):
        raise RuntimeError("something else")

    with pytest.raises(RuntimeError) as caught:
        sample(score, SDE, shape=(2,), steps=1, seed=0)
    assert str(caught.value) == "something else"
    assert caught.value.__notes__ == ["the score was called with states of shape (1, 2)"]


def test_a_model_on_another_device_is_explained():
    def score(x, t):
        raise RuntimeError("Expected all tensors to be on the same device, but found two")

    with pytest.raises(DeviceError, match="the state is on cpu and the score on another device"):
        sample(score, SDE, shape=(2,), steps=1, seed=0)


def test_the_bar_is_shown_on_request_and_on_no_other_occasion(capsys):
    for progress, shown in ((None, False), (False, False), (True, True)):
        sample(plain, SDE, progress=progress, **OK)
        assert ("sampling" in capsys.readouterr().err) == shown
    list(trajectory(plain, SDE, progress=True, **OK))
    assert "sampling" in capsys.readouterr().err


def test_names_and_objects_are_the_same_samplers():
    objects = dict(pc=PC(), reverse_diffusion=ReverseDiffusion(), ancestral=Ancestral())
    objects["ald"] = AnnealedLangevin()
    for name, sampler in objects.items():
        assert SAMPLERS[name] == sampler
        one, two = (sample(plain, SDE, s, **OK) for s in (name, sampler))
        assert torch.equal(one, two)
    with pytest.raises(TypeError):
        SAMPLERS["mine"] = PC()


def test_mixtures_of_any_shape_are_sampled():
    target = GaussianMixture(
        [0.5, 0.5], torch.stack([torch.ones(1, 4, 4), -torch.ones(1, 4, 4)]), stds=0.1
    )
    out = sample(target.at(SDE), SDE, n=20, seed=0, steps=50)
    assert out.shape == (20, 1, 4, 4)
    assert ((out.abs() - 1).abs() < 0.8).all()


def test_a_condition_that_is_no_mapping_is_refused():
    for condition in (torch.tensor([0]), torch.tensor([7]), torch.tensor([1, 2])):
        with pytest.raises(InvalidTypeError, match="condition must be a mapping or None"):
            sample(lambda x, t: -x, VPSDE(), shape=(2,), n=1, steps=2, seed=0, condition=condition)


def test_a_score_that_is_its_own_model_does_not_hang():
    def score(x, t):
        return -x

    score.model = score
    assert sample(score, VPSDE(), shape=(2,), steps=2, seed=0).shape == (1, 2)


@pytest.mark.parametrize("norm", ["batch_mean", "sample"])
def test_events_without_dimensions_have_norms_too(norm):
    corrector = PC(corrector=Langevin(norm=norm))
    with pytest.warns(UserWarning, match="0 dimensions|1 dimensions"):
        x = sample(lambda x, t: -x, VPSDE(), corrector, shape=(), n=4, steps=3, seed=0)
    assert x.shape == (4,)
    assert x.isfinite().all()


INNER = {
    "pc": PC(k=2),
    "ald": AnnealedLangevin(k=2),
    "reversible_heun": TorchSDE("reversible_heun"),
}


@pytest.mark.parametrize("inner", INNER)
@pytest.mark.parametrize(("outer", "nfe"), [(PC, 40), (Restart, 61)])
def test_a_budget_includes_the_evaluations_of_nested_samplers(outer, nfe, inner):
    sampler = outer(INNER[inner])
    *_, last = trajectory(lambda x, t: -x, VPSDE(), sampler, shape=(2,), nfe=nfe, seed=0)
    # no further step is run
    assert nfe - sampler.nfe_per_step < last.nfe <= nfe


def test_a_budget_that_levels_cannot_use_is_refused_with_the_one_that_they_can():
    sde, sampler = VESDE(levels=5), AnnealedLangevin(k=2)
    asked = dict(shape=(2,), seed=0)
    with pytest.raises(InvalidValueError, match=r"nfe = 40 allows 18 steps, .* give nfe=11"):
        sample(lambda x, t: -x, sde, sampler, nfe=40, **asked)
    *_, last = trajectory(lambda x, t: -x, sde, sampler, nfe=11, **asked)
    assert last.nfe == 11
    every = sample(lambda x, t: -x, sde, sampler, **asked)
    assert torch.equal(every, last.denoised)


@pytest.mark.parametrize("layer", [nn.Linear(4, 4), nn.Conv1d(3, 3, 1)], ids=["linear", "conv"])
def test_for_a_network_of_another_precision_the_error_names_the_conversion(layer):
    def score(x, t):
        return layer(x)

    asked = dict(shape=(3, 4), steps=2, seed=0, dtype=torch.float64)
    with pytest.raises(InvalidTypeError, match=r"the state is torch\.float64 .*x\.float\(\)"):
        sample(score, VPSDE(), **asked)
    x = sample(lambda x, t: score(x.float(), t.float()), VPSDE(), **asked)
    assert x.dtype == torch.float64


@pytest.mark.parametrize("four", [np.int64(4), np.array(4), torch.tensor(4)], ids=repr)
def test_numbers_of_numpy_and_of_torch_are_numbers(four):
    own = sample(lambda x, t: -x, VPSDE(), shape=(2,), n=4, steps=4, seed=4, first=4)
    given = dict(n=four, seed=four, first=four, batch_size=four)
    for price in ("steps", "nfe"):
        four_steps = four if price == "steps" else four * 2 + 1
        other = sample(plain, VPSDE(), shape=(2,), **given, **{price: four_steps})
        assert torch.equal(own, other)


@pytest.mark.parametrize("device", ["foo", "cuda:999"])
def test_a_missing_device_is_named(device):
    with pytest.raises(DeviceError, match=f"device='{device}' cannot be used here"):
        sample(lambda x, t: -x, VPSDE(), shape=(2,), steps=2, seed=0, device=device)


def test_a_label_of_another_type_or_class_is_refused_before_the_first_evaluation():
    """A float label was an error of the network's own, in its words."""
    model = scoresde.load("mnist")
    for label, message in (
        (torch.tensor([1.0]), "'label' takes integer labels, got torch.float32"),
        (torch.tensor([10]), "'label' takes labels from 0 to 9, or -1 for a missing one"),
        (-2, "'label' takes labels from 0 to 9"),
    ):
        with pytest.raises(ScoreSDEError, match=message):
            scoresde.Run.of(model, condition={"label": label}, seed=0)
    with pytest.raises(UnknownNameError, match="unknown condition 'labels'; did you mean 'label'"):
        scoresde.Run.of(model, condition={"labels": 1}, seed=0)
    with pytest.raises(InvalidValueError, match="this score takes no condition"):
        scoresde.Run.of(DIAGONAL.at(SDE), condition={"label": 1}, seed=0)


@pytest.mark.parametrize(
    "corrector", [Ancestral(), DDIM(), ReverseDiffusion(), Restart()], ids=repr
)
def test_a_corrector_that_changes_the_law_or_does_nothing_is_refused(corrector):
    with pytest.raises(InvalidTypeError, match="is not a corrector"):
        PC(corrector=corrector)
    assert PC(corrector=corrector, k=0).order == 1


@pytest.mark.slow
@pytest.mark.parametrize("sde", [VPSDE(T=2.0), VPSDE(T=2.0, eps=0.0), VESDE(0.01, 1e4)], ids=repr)
@pytest.mark.parametrize("name", ["pc", "dpmpp_2m", "unipc", "er_sde", "fast"])
def test_much_noise_at_the_start_leaves_steps_for_the_data(name, sde):
    """A grid of log-SNRs ended at 1 % of signal and jumped to the data: a std of .08 for 1."""
    target = Gaussian([0.0, 0.0], std=[1.0, 0.3])
    x = sample(target.at(sde), sde, name, n=2000, steps=60, seed=0)
    assert (x.std(0) / torch.tensor([1.0, 0.3]) - 1).abs().max() < 0.12


@pytest.mark.parametrize("name", ["ipndm", "heun"])
def test_a_grid_that_begins_at_too_large_noise_causes_a_warning(name):
    """By `ipndm` the std was 1e11 for .5, and no word of it."""
    sde, target = VPSDE(T=3.0), Gaussian([0.3], std=0.5)
    both = r"at t = 3 the noise is 5.56e\+19 times the data|the samples are .* times as large"
    with pytest.warns(UserWarning, match=both) as caught:
        sample(target.at(sde), sde, name, n=50, seed=0)
    assert len(caught) == 1 + (name == "ipndm")
    sample(target.at(sde), sde, "dopri5", n=50, seed=0)  # which chooses its steps itself


def test_samples_that_are_too_large_cause_a_warning():
    target = Gaussian([0.3], std=0.5)
    with pytest.warns(UserWarning, match="samples are .* times as large as the data .* more steps"):
        sample(target.at(VESDE()), sampler="em", n=50, steps=4, seed=0)
    sample(target.at(VESDE()), sampler="em", n=50, steps=40, seed=0)
