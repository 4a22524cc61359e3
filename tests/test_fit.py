"""Test the corrections of the weights of Fast that are fitted to a pilot run."""

import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from strategies import generators
from torch.testing import assert_close

from scoresde import Pilot, Wrapped, pilot, sample
from scoresde.arena import TUNING
from scoresde.errors import NonFiniteError, ShapeError
from scoresde.samplers import PC, Fast, Langevin
from scoresde.sampling.audition import audition, runs_of
from scoresde.sampling.fit import Fitting, Updated, fitted_on, ridge, states_at
from scoresde.sampling.learn import PilotRun
from scoresde.score import Fit, Setting
from scoresde.sde import EDMSDE, VESDE, VPSDE, FlowSDE
from scoresde.targets import Gaussian

DTYPE = torch.float64
N = 6
SDE = VPSDE()
BLOBS = next(p for p in TUNING if p.name == "blobs/VPSDE").target.at(SDE)
OPTIONS = dict(seed=1, n=64, dtype=DTYPE, progress=False)


@pytest.fixture(scope="module")
def run():
    """Return a pilot without settings, and the states of its run."""
    return PilotRun(BLOBS, SDE, dtype=DTYPE, progress=False).measure()


@pytest.fixture(scope="module")
def fitted(run):
    found = audition(BLOBS, SDE, *run, N, progress=False)
    assert [*found.fits] == [N]
    return found


# The formula


@pytest.mark.slow
@given(generators(), st.integers(1, 5), st.integers(3, 30))
def test_a_gap_that_terms_explain_is_explained_except_for_the_farthest_tenth(generator, m, n):
    terms = torch.randn(m, n, 8, generator=generator, dtype=DTYPE)
    numbers = torch.randn(m, generator=generator, dtype=DTYPE)
    gap = torch.einsum("m,mnd->nd", numbers, terms)
    wild = round(0.1 * n)
    if wild:
        gap[:wild] += 1e3
    gram = torch.einsum("mnd,knd->mk", terms[:, wild:], terms[:, wild:])
    # a ridge of 1e-4 of each term
    penalty = 1e-4 * gram.diagonal().diag()
    exact = torch.linalg.solve(gram + penalty, gram @ numbers)
    assert_close(torch.tensor(ridge(gap, *terms), dtype=DTYPE), exact, rtol=1e-9, atol=1e-9)
    assert ridge(gap, 0 * gap) == (0.0,)


@pytest.mark.slow
@pytest.mark.parametrize("sde", [VESDE(), VPSDE(), EDMSDE(), FlowSDE()])
def test_the_states_between_those_of_a_pilot_run_are_on_the_flow(sde):
    score = Gaussian([1.0, -2.0], std=0.5).at(sde)
    found, states = PilotRun(score, sde, n=4, steps=160, dtype=DTYPE, progress=False).measure()
    times = Fast(pilot=found).times(sde, 7)

    def scale(t):
        return (0.25 * sde.alpha(t) ** 2 + sde.sigma(t) ** 2).sqrt()[:, None, None]

    mean = torch.tensor([1.0, -2.0], dtype=DTYPE)
    centre = sde.alpha(times)[:, None, None] * mean
    z = (states[0] - sde.alpha(times[:1]) * mean) / scale(times[:1])
    exact = centre + scale(times) * z
    assert_close(states_at(found, states, sde, times) / scale(times), exact / scale(times),
                 rtol=1e-6, atol=1e-6)  # fmt: skip


# What it does


@pytest.mark.slow
def test_the_fit_leads_other_starts_nearer_to_the_ends_of_the_flow(fitted):
    exact = sample(BLOBS, SDE, "unipc", steps=200, **OPTIONS)

    def error(method):
        squares = (sample(BLOBS, SDE, method, steps=N, **OPTIONS) - exact).square().mean(1)
        return float(squares.sort().values[:58].mean().sqrt())

    fast = Fast(pilot=fitted)
    assert error(fast) < 0.8 * error(replace(fast, fit=False))
    assert error(fast) < 0.2 * error("dpmpp_2m")


@pytest.mark.parametrize("setting", [Setting(4, 3, 0.0), Setting(3, 0, 1.5)])
def test_a_run_with_the_numbers_of_a_fit_is_the_run_that_fitted_them(run, setting):
    known, states = run
    options = dict(x=states[0], seed=0, steps=N, dtype=DTYPE, progress=False)
    method = Fast(pilot=replace(known, choices={N: setting}))
    fitting = Fitting(states_at(known, states, SDE, method.times(SDE, N)))
    own = sample(BLOBS, SDE, Updated(method, fitting), pilot=False, **options)
    fit = Fit(setting, tuple(fitting.rows))
    again = sample(BLOBS, SDE, Fast(pilot=replace(known, fits={N: fit})), **options)
    assert_close(again, own, rtol=1e-12, atol=1e-12)


@pytest.mark.slow
def test_a_fit_that_loses_on_starts_that_it_was_not_fitted_on_is_left_out(run):
    """The states between start and end are here those of other starts, for two thirds."""
    known, states = run
    mixed = states.clone()
    mixed[1:-1, : fitted_on(32)] = states[1:-1, : fitted_on(32)].flip(1)
    assert not audition(BLOBS, SDE, known, mixed, N, progress=False).fits


# Where it is left out


class Guided(Wrapped):
    """Define a score that says that it is guided."""

    @property
    def facts(self):
        return replace(super().facts, density=False)

    def __call__(self, x, t, condition=None):
        return self.ask(self.score, x, t, condition)


@pytest.mark.slow
def test_nothing_is_added_under_guidance_on_other_times_with_noise_or_given_orders(fitted):
    bare, options = replace(fitted, fits={}), dict(seed=1, n=4, dtype=DTYPE, progress=False)

    def differs(make, score=BLOBS, sde=SDE, **more):
        draws = [sample(score, sde, make(p), **{**options, **more}) for p in (fitted, bare)]
        return not torch.equal(*draws)

    times = Fast(pilot=fitted).times(SDE, N)
    moved = torch.cat((times[:2], 0.99 * times[2:-1], times[-1:]))
    assert differs(lambda p: Fast(pilot=p), steps=N)
    assert differs(lambda p: Fast(pilot=p), times=times)
    assert not differs(lambda p: Fast(pilot=p, fit=False), steps=N)
    assert not differs(lambda p: Fast(pilot=p), steps=N + 1)
    assert not differs(lambda p: Fast(pilot=p), times=moved)
    assert not differs(lambda p: Fast(pilot=p, order=3), steps=N)
    assert not differs(lambda p: Fast(pilot=p, tau=0.3), steps=N)
    assert not differs(lambda p: Fast(pilot=p), score=Guided(BLOBS), steps=N)
    wide = VPSDE(beta_max=25.0)
    other = next(p for p in TUNING if p.name == "blobs/VPSDE").target.at(wide)
    assert not differs(lambda p: Fast(pilot=p), score=other, sde=wide, steps=N)
    # an outer sampler that makes its steps one by one has no earlier residuals
    assert not differs(lambda p: PC(Fast(pilot=p), Langevin()), steps=N)


def test_few_steps_are_fitted_within_three_times_the_evaluations_of_a_pilot():
    assert all(8 * n <= runs_of(n) * n <= 192 for n in range(2, 25))
    assert runs_of(4) == 12
    assert runs_of(1) == runs_of(25) == 0


@pytest.mark.slow
@pytest.mark.parametrize(("n", "length"), [(8, 1.0), (32, 1e6)])
def test_of_few_or_large_trajectories_nothing_is_fitted(n, length):
    """The latter have one state kept at each end."""
    found, states = PilotRun(BLOBS, SDE, n=n, dtype=DTYPE, progress=False).measure()
    if length > 1:
        states = states[[0, -1]]
    assert not audition(BLOBS, SDE, found, states, 2, progress=False).fits


# What is refused


def test_a_fit_has_a_finite_row_for_every_update(fitted):
    fit = fitted.fits[N]
    assert len(fit.rows) == (2 * N - 1 if fit.setting.corrector else N)
    with pytest.raises(ShapeError, match="must have"):
        replace(fitted, fits={N + 1: fit})
    with pytest.raises(NonFiniteError, match="NaN"):
        replace(fit, rows=((math.nan,),))


def test_a_fit_is_stored_with_its_pilot(fitted):
    found = Pilot.of(fitted.tensors(), fitted.numbers())
    assert found.fits == fitted.fits
    assert found.choices == fitted.choices


def test_a_fit_for_another_version_of_the_method_is_not_read(fitted):
    numbers = fitted.numbers()
    found = Pilot.of(fitted.tensors(), numbers | {"version": numbers["version"] + 1})
    assert not found.fits
    assert not found.choices
    assert torch.equal(found.factor.float(), fitted.factor.float())


@pytest.mark.slow
def test_a_pilot_with_budgets_has_their_fits(fitted):
    found = pilot(BLOBS, SDE, budgets=[N], dtype=DTYPE, progress=False)
    assert found.fits == fitted.fits
