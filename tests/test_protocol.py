"""Test the same contract for every name in SAMPLERS under every SDE."""

import math
from dataclasses import fields, is_dataclass

import pytest
import torch
from methods import ADAPTIVE, can_run, coarse, in_turn
from strategies import SDES, UserSDE

from scoresde import SAMPLERS, Wrapped, sample, samplers, sde, trajectory
from scoresde.noise import Noise
from scoresde.samplers import Corrector, ExponentialMultistep, Sampler, TauMultistep
from scoresde.targets import Gaussian

TARGET = Gaussian([[0.5, -1.0], [0.0, 2.0]], var=[[0.3, 1.0], [0.1, 2.0]])
STEPS = 4

# a few steps of most methods under most processes are far too few
pytestmark = pytest.mark.filterwarnings("ignore:the samples are .* times as large")


def pairs(names, k):
    """Every sampler under k of the SDEs that it can run, in turn."""
    found = [pair for pair in in_turn(names, SDES, k) if can_run(pair[0], SDES[pair[1]])]
    return pytest.mark.parametrize(("name", "process"), found)


class Spy(Wrapped):
    """Define the exact score, which records its arguments."""

    def __init__(self, score):
        super().__init__(score)
        self.calls = []

    def __call__(self, x, t):
        assert not torch.is_grad_enabled()
        assert t.shape == (len(x),)
        self.calls.append((t.tolist(), tuple(x.shape), x.dtype, t.dtype))
        return self.score(x, t)


@pytest.mark.slow
@pairs(SAMPLERS, 2)
def test_every_sampler_keeps_the_contract_under_every_sde(name, process):
    path = SDES[process]
    spy = Spy(TARGET.at(path))
    grid = SAMPLERS[name].times(path, STEPS, spy.facts.moments)
    arguments = dict(n=3, steps=STEPS, seed=5, dtype=torch.float64)
    states = list(trajectory(spy, path, coarse(name), **arguments))
    # evaluations: counted, reported and documented
    assert len(spy.calls) == states[-1].nfe
    adaptive = SAMPLERS[name].adaptive
    assert adaptive or states[-1].nfe == SAMPLERS[name].cost(STEPS) + 1
    assert [s.nfe for s in states] == sorted(s.nfe for s in states)
    assert states[0].nfe == 0
    # what the score was given
    assert {call[1:] for call in spy.calls} == {((3, 2, 2), torch.float64, torch.float64)}
    asked = {t for call in spy.calls for t in call[0]}
    assert asked <= set(grid.tolist()) or SAMPLERS[name].between
    assert min(asked) >= path.eps
    assert max(asked) <= path.T
    assert adaptive or all(len({*call[0]}) == 1 for call in spy.calls)
    assert len(states) == 1 + SAMPLERS[name].states(len(grid) - 1) + 1
    # the grid
    assert sorted({float(s.t) for s in states}, reverse=True) == grid.tolist()
    assert all(s.t.dtype == torch.float64 and s.t.shape == () for s in states)
    # the states: finite, whole, and each its own tensor
    for state in states:
        assert state.x.isfinite().all()
        assert (state.x.shape, state.x.dtype) == ((3, 2, 2), torch.float64)
        assert not state.x.requires_grad
    assert len({s.x.data_ptr() for s in states[:-1]}) == len(states) - 1
    assert all(s.denoised is None for s in states[:-1])
    # the front door is the last state, and denoising is Tweedie's formula
    end, t = states[-1], grid[-1]
    out = sample(spy, path, coarse(name), **arguments)
    assert torch.equal(out, end.denoised)
    x0 = (end.x + path.sigma(t) ** 2 * TARGET.score(end.x, path, t)) / path.alpha(t)
    torch.testing.assert_close(end.denoised, x0, rtol=1e-9, atol=1e-9)


@pytest.mark.slow
@pairs([name for name in SAMPLERS if not SAMPLERS[name].coupled], 1)
def test_every_sample_is_independent_of_its_batch_under_every_sde(name, process):
    path, name = SDES[process], coarse(name)
    score, arguments = TARGET.at(path), dict(steps=3, seed=2**63 + 5)
    whole = sample(score, path, name, n=5, **arguments)
    assert whole.dtype == torch.float32
    assert len(whole.unique()) == whole.numel()
    assert torch.equal(whole[3:], sample(score, path, name, n=2, first=3, **arguments))
    assert torch.equal(whole, sample(score, path, name, n=5, batch_size=2, **arguments))
    assert not (whole == sample(score, path, name, n=5, steps=3, seed=1)).any()


@pytest.mark.slow
@pairs(SAMPLERS, 2)
def test_one_step_is_enough_for_every_sampler_under_every_sde(name, process):
    path = SDES[process]
    for denoise in (False, True):
        out = sample(TARGET.at(path), path, name, n=2, steps=1, seed=0, denoise=denoise)
        assert out.shape == (2, 2, 2)
        assert out.isfinite().all()
    *_, end = trajectory(TARGET.at(path), path, name, steps=1, seed=0, denoise=False)
    assert float(end.t) == path.eps


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "process"),
    in_turn(sorted(SAMPLERS.keys() - ADAPTIVE), ["ve", "vp", "sub_vp", "edm", "flow"], 1),
)
def test_the_steps_of_ten_thousand_are_not_too_short_for_any_sampler(name, process):
    """The first, the middle and the last of them, in single precision, from exact draws."""
    path = SDES[process]
    score, grid, n = TARGET.at(path), path.times(10_000), 200
    for first in (0, 4995, 9990):
        times = grid[first : first + 11]
        x = TARGET.sample(n, path, times[0], generator=torch.Generator().manual_seed(0))
        noise = Noise.of(0, n, horizon=path.T)
        *_, end = SAMPLERS[name].trajectory(path.reverse(score), x.float(), times, noise)
        assert end.x.isfinite().all()
        # annealed Langevin's own law is wider, by up to a third
        exact = TARGET.sample(n, path, times[-1], generator=torch.Generator().manual_seed(1))
        ratio = end.x.double().var(0) / exact.double().var(0)
        assert ((ratio > 0.5) & (ratio < 2)).all(), ratio


@pytest.mark.parametrize("name", SAMPLERS)
def test_a_name_is_a_frozen_dataclass_with_documented_defaults(name):
    sampler = SAMPLERS[name]
    assert is_dataclass(sampler)
    assert sampler == type(sampler)(**{f.name: getattr(sampler, f.name) for f in fields(sampler)})
    assert type(sampler).__doc__
    assert type(sampler).steps >= 1
    known = vars(samplers) | {type(sampler).__name__: type(sampler), "inf": math.inf}
    assert eval(repr(sampler), known) == sampler


def classes_of(module):
    """Return the classes that a module exports."""
    values = (getattr(module, name) for name in module.__all__)
    return {value for value in values if isinstance(value, type)}


def test_every_exported_sde_and_sampler_is_run_here():
    assert {*sde.SDES.values(), UserSDE} == {type(path) for path in SDES.values()}
    methods = {k for k in classes_of(samplers) if issubclass(k, Sampler)}
    methods -= {Sampler, samplers.Adaptive}
    # what needs conditions, or a posterior, or runs another
    methods -= {samplers.Impute, samplers.MeanStart, samplers.Particles, samplers.SplitGibbs}
    methods -= {samplers.Metropolis, samplers.Parallel}
    methods = {k for k in methods if not issubclass(k, Corrector)}
    methods -= {ExponentialMultistep, TauMultistep}  # what others are settings of
    assert methods <= {type(sampler) for sampler in SAMPLERS.values()}
