"""Metropolis's rule: a density that is left alone exactly, and that is found."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from strategies import dtypes, generators, log_floats, sdes, shapes, times_of
from torch.distributions import Normal
from torch.testing import assert_close

from scoresde import sample
from scoresde.errors import InvalidTypeError, NonFiniteError, ShapeError
from scoresde.noise import Noise
from scoresde.samplers import MALA, PC, Ancestral, ScaledLangevin, correct
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
    """The noise z of the proposal, and the number w that decides."""

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
        """The energy of N(centre, 1)."""

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
