"""Test Metropolis's rule: the density is invariant, and samples converge to it."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from strategies import dtypes, generators, log_floats, sdes, shapes, times_of
from torch.distributions import Normal
from torch.testing import assert_close

import scoresde
from scoresde import Run, sample
from scoresde.errors import InvalidTypeError, InvalidValueError, NonFiniteError, ShapeError
from scoresde.guidance import Linear, posterior
from scoresde.noise import Noise
from scoresde.samplers import (
    DDIM,
    MALA,
    PC,
    Ancestral,
    FixedLangevin,
    Heun,
    Metropolis,
    ScaledLangevin,
    correct,
)
from scoresde.score import EnergyScore
from scoresde.sde import VESDE
from scoresde.targets import Gaussian, GaussianMixture

SDE, T = VESDE(0.1, 5), torch.tensor(0.3, dtype=torch.float64)
SIGMA = float(SDE.sigma(T))
BELL = Gaussian([0.7], var=0.2)
HUMPS = GaussianMixture([0.3, 0.7], [[-1.0], [0.8]], stds=[0.1, 0.4])
N = 40_000


def moments(x):
    """Means and standard errors of some functions of a sample `(N, 1)`."""
    values = torch.cat([x, x**2, x**3, (x > 0.2).double()], 1)
    return values.mean(0), values.std(0) / math.sqrt(len(x))


def draws(target, seed):
    return target.sample(
        N, SDE, T, generator=torch.Generator().manual_seed(seed), dtype=torch.float64
    )


def apart(x, y):
    """By how many standard errors two samples differ at most."""
    (one, e), (two, f) = moments(x), moments(y)
    return float(((one - two) / (e**2 + f**2).sqrt()).abs().max())


@pytest.mark.slow
@pytest.mark.parametrize("target", [BELL, HUMPS], ids=repr)
@pytest.mark.parametrize("kappa", [0.3, 1.5, 6.0])
def test_any_step_leaves_the_density_unchanged_unlike_unadjusted_ones(target, kappa):
    rsde, noise = SDE.reverse(target.at(SDE)), Noise.of(0, N)
    x, fresh = draws(target, 1), draws(target, 2)
    adjusted = correct(MALA(kappa), 3, rsde, x, T, noise)
    assert 0.05 < (adjusted != x).double().mean() <= 1
    assert apart(adjusted, fresh) < 4.9
    if kappa == 1.5:
        assert apart(correct(ScaledLangevin(kappa), 3, rsde, x, T, noise), fresh) > 4.9


@pytest.mark.slow
@pytest.mark.parametrize("target", [BELL, HUMPS], ids=repr)
def test_metropolis_steps_find_the_density_from_another_start(target):
    rsde = SDE.reverse(target.at(SDE))
    n = N // 8
    start = torch.full((n, 1), 2.0, dtype=torch.float64)
    x = correct(MALA(1.0), 100, rsde, start, T, Noise.of(3, n))
    assert apart(x, draws(target, 4)) < 4.9


class GivenNoise:
    """Define the noise z of the proposal, and the number w that decides."""

    def __init__(self, z, w):
        self.z, self.w = z, w

    def normal(self, like, t, k=0):
        return self.z if k == 0 else self.w


@given(st.data(), log_floats(0.05, 5))
def test_a_move_is_made_with_the_probability_of_metropolis_and_hastings(data, kappa):
    sde = data.draw(sdes())
    t = data.draw(times_of(sde))
    alpha, sigma = float(sde.alpha(t)), float(sde.sigma(t))
    target = GaussianMixture([0.4, 0.6], [[-sigma / alpha], [0.5]], stds=0.7)
    score = target.at(sde)
    x, z = torch.randn(2, 9, 1, generator=data.draw(generators()), dtype=torch.float64)
    x = alpha * x + sigma * x.flip(0)
    epsilon = kappa * sigma**2

    def log_kernel(start, end):
        drift = start + epsilon * score(start, t)
        return Normal(drift, math.sqrt(2 * epsilon)).log_prob(end).flatten()

    y = x + epsilon * score(x, t) + math.sqrt(2 * epsilon) * z
    gain = score.log_prob(y, t) + log_kernel(y, x) - score.log_prob(x, t) - log_kernel(x, y)
    chance = gain.clamp(max=0).exp()
    for shift in (-1e-6, 1e-6):
        # not so near to 1 that the rounding of a sure move's gain, 1e-16 over the noise, decides
        w = torch.special.ndtri((chance + shift).clamp(1e-12, 1 - 1e-9))
        found = MALA(kappa).step(sde.reverse(score), x, t, t, GivenNoise(z, w))
        moves = (torch.special.ndtr(w) < chance)[:, None]
        assert_close(found, torch.where(moves, y, x), rtol=1e-9, atol=1e-9 * sigma)
        assert moves[chance > 1e-5].all() or shift > 0


def test_an_energy_is_corrected_as_its_target_is():
    energy = EnergyScore(lambda x, t: -HUMPS.at(SDE).log_prob(x, t))
    x = draws(HUMPS, 5)[:50]
    one, two = (
        correct(MALA(), 5, SDE.reverse(score), x, T, Noise.of(0, 50))
        for score in (energy, HUMPS.at(SDE))
    )
    assert_close(one, two, rtol=1e-9, atol=1e-9)


def test_a_condition_reaches_the_density():
    class Centred:
        """Define the energy of N(centre, 1)."""

        def __call__(self, x, t, condition):
            return ((x - condition["centre"]) ** 2).sum(1) / 2

    centre = torch.tensor([[0.0], [50.0], [-50.0]])
    x = sample(
        EnergyScore(Centred()), SDE, PC(Ancestral(), MALA()), shape=(1,), n=3, seed=0, steps=30,
        condition={"centre": centre}, denoise=False,
    )  # fmt: skip
    assert ((x - centre).abs() < 5).all()


@given(st.data())
def test_the_density_of_a_target_is_that_of_its_score(data):
    sde, dtype, shape = data.draw(sdes()), data.draw(dtypes()), data.draw(shapes())
    t = data.draw(times_of(sde))
    target = Gaussian(torch.full(shape[1:], 0.3), std=0.7)
    x = torch.randn(shape, generator=data.draw(generators()), dtype=dtype)
    rsde = sde.reverse(target.at(sde))
    log_prob = rsde.method("log_prob")
    found = log_prob(x, t)
    assert (found.shape, found.dtype, rsde.nfe) == (shape[:1], dtype, 1)
    assert_close(found, target.log_prob(x, sde, t), rtol=1e-4, atol=1e-4)
    assert log_prob(x[:0], t).shape == (0,)
    moved = MALA().step(rsde, x[:0], t, t, Noise.of(0, 0))
    assert moved.shape == (0, *shape[1:])


def with_density(function):
    class Score:
        log_prob = staticmethod(function)

        def __call__(self, x, t):
            return -x

    return Score()


@pytest.mark.parametrize(
    ("score", "error", "message"),
    [
        (lambda x, t: -x, InvalidTypeError, r"no method log_prob\(x, t\); use an EnergyScore"),
        (with_density(lambda x, t: 1.0), InvalidTypeError, "must return a tensor, got float"),
        (with_density(lambda x, t: x), ShapeError, r"expected \(3,\), got \(3, 2\)"),
        (with_density(lambda x, t: x[:, 0] * math.nan), NonFiniteError, r"in samples \[0, 1, 2\]"),
    ],
)
def test_a_density_is_needed_and_checked(score, error, message):
    with pytest.raises(error, match=message):
        MALA().step(SDE.reverse(score), torch.ones(3, 2), T, T, Noise.of(0, 3))


# The end of a run

VP = scoresde.VPSDE()
END = torch.tensor(VP.eps, dtype=torch.float64)
PLANE = GaussianMixture([0.4, 0.6], [[0.3, 0.6], [-0.4, -0.2]], stds=[0.6, 0.3])
ROW, Y = torch.tensor([[1.0, 0.5]]), torch.tensor([0.8], dtype=torch.float64)


def measured(prior, std=0.5):
    """Return the posterior's score, and the exact posterior."""
    score = posterior(prior.at(VP), Linear(ROW, std), iterations=1)
    return score, prior.posterior(ROW, std, Y)


def at_the_end(method, score, **options):
    """Return a run of one step from states at eps, which the inner sampler leaves alone."""
    options = dict(seed=0, denoise=False, times=[VP.eps * (1 + 1e-9), VP.eps]) | options
    return Run.of(score, sampler=method, **options).draw()


def test_a_chain_under_a_gaussian_posterior_is_that_under_its_closed_form():
    prior = Gaussian([0.2, -0.3], cov=[[1.0, 0.6], [0.6, 0.8]])
    score, exact = measured(prior)
    draw = torch.Generator().manual_seed(0)
    x = prior.sample(50, VP, END, generator=draw, dtype=torch.float64)
    method = Metropolis(DDIM(), width=0.7, k=8)
    given = {"measurement": Y.expand(50, 1)}
    found = at_the_end(method, score, x=x, condition=given)
    right = at_the_end(method, exact.at(VP), x=x)
    assert_close(found.x, right.x, rtol=1e-6, atol=1e-6)
    assert torch.equal(found.info["acceptance"], right.info["acceptance"])
    assert 0.2 < right.info["acceptance"].mean() < 0.9
    assert found.nfe == method.cost(1) == 1 + 2 * 9
    assert found.passes == 3 * (1 + 9) + 9  # of the posterior three, of the prior one


@pytest.mark.slow
def test_exact_draws_of_the_posterior_of_a_mixture_keep_their_law_and_unadjusted_ones_do_not():
    n = N // 2
    score, exact = measured(PLANE)
    generator = torch.Generator().manual_seed(1)
    x, fresh = exact.sample(2 * n, VP, END, generator=generator, dtype=torch.float64).split(n)
    given = {"measurement": Y.expand(n, 1)}
    found = at_the_end(Metropolis(DDIM(), width=0.5, k=4), score, x=x, condition=given)
    assert 0.3 < found.info["acceptance"].mean() < 0.9
    assert max(apart(found.x[:, i : i + 1], fresh[:, i : i + 1]) for i in (0, 1)) < 4.9
    step = FixedLangevin(0.5**2 / 2)
    loose = correct(step, 4, VP.reverse(exact.at(VP)), x, END, Noise.of(0, n))
    assert apart(loose[:, :1], fresh[:, :1]) > 4.9


def test_the_error_without_acceptance_is_of_the_first_order_in_the_size_of_the_step():
    """Of the variance V of a Gaussian it is V / (1 - epsilon / 2V) - V."""
    rsde, x = VP.reverse(BELL.at(VP)), torch.tensor([[0.0], [1.0]], dtype=torch.float64)
    variance = float(VP.alpha(END) ** 2 * 0.2 + VP.sigma(END) ** 2)
    errors = []
    for epsilon in (0.02, 0.01, 0.005):
        step = FixedLangevin(epsilon)
        ends = step.step(rsde, x, END, END, GivenNoise(torch.zeros(2, 1), None))
        stationary = 2 * epsilon / (1 - float(ends[1] - ends[0]) ** 2)
        errors.append(stationary - variance)
    assert errors[0] / errors[1] == pytest.approx(2, rel=0.06)
    assert errors[1] / errors[2] == pytest.approx(2, rel=0.03)


@pytest.mark.slow
def test_a_run_that_ends_in_a_wrong_law_is_led_to_the_posterior():
    score, exact = measured(PLANE)
    n, given = N // 8, {"measurement": Y}
    drawn = {}
    for name, method in (("bare", Heun()), ("led", Metropolis(Heun(), width=0.5, k=60))):
        drawn[name] = sample(
            score, sampler=method, n=n, steps=6, seed=0, denoise=False, condition=given,
            dtype=torch.float64,
        )  # fmt: skip
    generator = torch.Generator().manual_seed(3)
    fresh = exact.sample(N, VP, END, generator=generator, dtype=torch.float64)
    assert max(apart(drawn["led"][:, i : i + 1], fresh[:, i : i + 1]) for i in (0, 1)) < 4.9
    assert apart(drawn["bare"][:, :1], fresh[:, :1]) > 4.9


def test_a_chain_does_not_depend_on_its_batch_and_has_the_states_and_the_cost_that_it_states():
    score, _ = measured(PLANE)
    method = Metropolis(Ancestral(), width=0.4, k=3)
    run = Run.of(
        score, sampler=method, n=5, steps=4, seed=0, condition={"measurement": Y},
        dtype=torch.float64,
    )  # fmt: skip
    whole, parts = run.draw(), run.draw(batch_size=2)
    assert_close(whole.x, parts.x, rtol=1e-9, atol=1e-9)
    assert torch.equal(whole.info["acceptance"], parts.info["acceptance"])
    assert whole.nfe == method.cost(4) + 1
    assert method.cost(method.steps_for(40)) <= 40 < method.cost(method.steps_for(40) + 1)
    assert len(list(run.states())) == 1 + method.states(4) + 1


def bare(x, t):
    return -x


@pytest.mark.parametrize(
    ("error", "make", "message"),
    [
        (InvalidTypeError, lambda: drawn_by(Metropolis(DDIM()), bare), "density of the score"),
        (
            InvalidTypeError,
            lambda: drawn_by(
                Metropolis(DDIM()),
                posterior(
                    scoresde.from_network(bare, VP, "score", event_shape=(2,)), Linear(ROW, 0.5)
                ),
            ),
            "density of the prior",
        ),
        (
            InvalidValueError,
            lambda: drawn_by(Metropolis(DDIM()), measured(PLANE)[0], steps=None, times=[1.0, 0.1]),
            "above eps",
        ),
        (InvalidValueError, lambda: Metropolis(DDIM(), width=0.0), "width"),
        (InvalidValueError, lambda: Metropolis(DDIM(), k=-1), "k"),
        (
            InvalidTypeError,
            lambda: PC(Metropolis(DDIM())),
            "does more than take steps along a grid",
        ),
    ],
)
def test_a_chain_without_a_density_or_away_from_eps_is_refused(error, make, message):
    with pytest.raises(error, match=message):
        make()


def drawn_by(method, score, **options):
    options = dict(steps=2, shape=(2,), condition={"measurement": Y}) | options
    if score is bare:
        options |= dict(condition=None, sde=VP)
    return sample(score, options.pop("sde", None), method, n=2, seed=0, **options)
