"""Test that times, weights and control variates keep the mean of a loss and lower its variance."""

import math
from dataclasses import replace

import pytest
import torch
from given import Given
from hypothesis import given
from hypothesis import strategies as st
from strategies import SDES, generators, log_floats, sdes, times_of
from torch.testing import assert_close

from scoresde import Noise, targets
from scoresde.errors import InvalidValueError
from scoresde.objectives import LearnedWeight, dsm_loss, g2, power, sigma2, ssm_loss
from scoresde.sde import VESDE, VPSDE, Importance, LogNormal, Stratified, Uniform

TARGET = targets.GaussianMixture([0.5, 0.5], [[-1.0, 0.0], [1.0, 0.5]], stds=0.3)


def batches(loss, n=200, size=64, **options):
    """Return the mean loss of each of n batches."""
    generator = torch.Generator().manual_seed(0)
    means = []
    for _ in range(n):
        x = TARGET.sample(size, generator=generator, dtype=torch.float64)
        means.append(loss(x=x, generator=generator, **options).mean().detach())
    return torch.stack(means)


def assert_one_mean(one, two):
    gap = abs(one.mean() - two.mean())
    assert gap <= 5 * (one.var() / len(one) + two.var() / len(two)).sqrt()


# Times


@given(u=st.integers(1, 200), sde=sdes(), seed=st.integers(0, 2**32))
def test_stratified_times_are_one_in_each_quantile_of_their_law(u, sde, seed):
    generator = torch.Generator().manual_seed(seed)
    t, weight = sde.sample_times(u, law=Stratified(), generator=generator)
    assert (weight == 1).all()
    if sde.levels is None:
        stratum = ((t - sde.eps) / (sde.T - sde.eps) * u).clamp(0, u - 1e-6)
        edges = stratum.sort().values - torch.arange(u)
        assert ((edges > -1e-6) & (edges < 1 + 1e-6)).all()
    else:
        counts = torch.bincount(sde.index(t), minlength=sde.levels)
        assert ((counts - u / sde.levels).abs() < 2).all()


@pytest.mark.slow
def test_stratified_times_come_in_random_order_and_each_follows_the_law():
    generator, sde = torch.Generator().manual_seed(0), VPSDE()
    draws = [sde.sample_times(8, law=Stratified(), generator=generator)[0] for _ in range(4000)]
    t = torch.stack(draws)
    for column in t.T:  # each place of the batch alone: mean 1/2, variance 1/12
        assert abs(column.mean() - 0.5005) < 5 * math.sqrt(1 / 12 / 4000)
        assert abs(column.var() * 12 - 1) < 0.1
    # and within its stratum each is uniform: mean 1/2, variance 1/12, of 32,000
    place = ((t - 1e-3) / (1 - 1e-3) * 8).frac()
    assert abs(place.mean() - 0.5) < 5 * math.sqrt(1 / 12 / 32_000)
    assert abs(place.var() * 12 - 1) < 5 * math.sqrt(0.8 / 32_000)
    assert VPSDE().sample_times(0, law=Stratified())[0].shape == (0,)


@pytest.mark.slow
@pytest.mark.parametrize("law", [Uniform(), Importance(), LogNormal(0.0, 1.0)], ids=repr)
def test_stratified_times_keep_the_mean_of_the_loss_and_lower_its_variance(law):
    sde = VPSDE()
    weight = g2 if law == Importance() else power(6)

    def loss(x, generator, law):
        return dsm_loss(lambda x, t: -0.5 * x, sde, x, law=law, weight=weight, generator=generator)

    plain, spread = batches(loss, law=law), batches(loss, law=Stratified(law))
    assert_one_mean(plain, spread)
    assert spread.var() < 0.9 * plain.var()


@pytest.mark.slow
def test_importance_sampled_times_keep_the_mean_of_the_likelihood_loss_and_lower_its_variance():
    sde = VPSDE()
    score = TARGET.at(sde)

    def loss(x, generator, law):
        return dsm_loss(score, sde, x, law=law, weight=g2, generator=generator)

    uniform, important = (batches(loss, 400, law=law) for law in (Uniform(), Importance()))
    assert_one_mean(uniform, important)
    assert important.var() < 0.1 * uniform.var()


def test_a_law_and_times_exclude_each_other():
    with pytest.raises(InvalidValueError, match="give either the times"):
        dsm_loss(lambda x, t: -x, VPSDE(), torch.zeros(2, 2), t=0.5, law=Uniform())


# The control variate


@given(sde=sdes(), data=st.data())
def test_the_control_variate_has_mean_zero_given_the_data(sde, data):
    """(loss - controlled) sigma^2 / lambda = 2 sigma z s(alpha x0) + |z|^2 - D."""
    t = data.draw(times_of(sde))
    generator = data.draw(generators())
    x, z = torch.randn(2, 20, 3, generator=generator, dtype=torch.float64)
    values = [
        dsm_loss(
            lambda x, t: torch.sin(x), sde, x, t=t, control_variate=form, noise=Given(z),
        )
        for form in (False, True)
    ]  # fmt: skip
    said = sde.sigma(t) * torch.sin(sde.alpha(t) * x)
    expected = (2 * z * said + z**2).sum(1) - 3
    assert_close(values[0] - values[1], expected, rtol=1e-9, atol=1e-9)


def test_the_control_variate_bounds_the_variance_of_the_gradient_as_the_noise_vanishes():
    """Without it the variance grows as 1 / sigma^2, by 100 for each tenth of the noise."""
    sde, n = VESDE(1e-4, 10.0), 20_000
    x = TARGET.sample(n, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    variances = {}
    for control_variate in (False, True):
        for sigma in (1e-1, 1e-2, 1e-3):
            a = torch.full((n, 1), -1.0, dtype=torch.float64, requires_grad=True)
            t = sde.time(torch.tensor(-2 * math.log(sigma), dtype=torch.float64))
            loss = dsm_loss(
                lambda x, t, a=a: a * x, sde, x, t=t, weight=power(0),
                control_variate=control_variate, generator=torch.Generator().manual_seed(1),
            )  # fmt: skip
            gradient = torch.autograd.grad(loss.sum(), a)[0]
            # d/da E |a x|^2 + 2 a D at a = -1
            mean = -2 * (x**2).sum(1).mean() - 2 * 2 * sigma**2 + 2 * 2
            assert abs(gradient.mean() - mean) <= 5 * gradient.std() / math.sqrt(n)
            variances[control_variate, sigma] = float(gradient.var())
    plain, controlled = ([variances[form, s] for s in (1e-1, 1e-2, 1e-3)] for form in (0, 1))
    assert 50 < plain[2] / plain[1] < 200
    assert controlled[2] < 1.1 * controlled[1] < 1.3 * controlled[0]
    assert controlled[2] < 1e-4 * plain[2]


# The learned weight


@given(sde=sdes(), data=st.data())
def test_a_new_learned_weight_is_its_base(sde, data):
    t = data.draw(times_of(sde, 3))
    learned = LearnedWeight(dsm_loss, power(1.5))
    assert_close(learned.weight(sde, t), power(1.5)(sde, t), rtol=1e-12, atol=0)
    x, noise = torch.ones(3, 2, 2), Noise.of(0, 3)

    def score(x, t):
        return x.sin()

    found = learned(score, sde, x, t=t, noise=noise)
    assert_close(found, dsm_loss(score, sde, x, t=t, weight=power(1.5), noise=noise))


@given(sde=sdes(), data=st.data())
def test_a_learned_weight_is_a_function_of_a_quarter_of_the_log_noise_level(sde, data):
    t, generator = data.draw(times_of(sde, 3)), data.draw(generators())
    learned = LearnedWeight(dsm_loss, features=8)
    with torch.no_grad():
        learned.slopes.copy_(torch.randn(8, generator=generator))
        learned.bias.fill_(0.3)
        c = (sde.sigma(t) / sde.alpha(t)).log().float() / 4
        expected = learned.waves(c) @ learned.slopes + 0.3
        assert_close(learned.log_variance(sde, t).float(), expected, rtol=1e-3, atol=1e-4)
        loss = learned.weight(sde, t) / sde.sigma(t) ** 2
        assert_close(loss, torch.exp(-learned.log_variance(sde, t)), rtol=1e-9, atol=0)


@given(sde=sdes(), factor=log_floats(0.1, 10), data=st.data())
def test_the_learned_uncertainty_of_a_constant_loss_is_that_loss_by_dimension(sde, factor, data):
    """The gradient vanishes at e^u = E loss / D, at every level."""
    generator = data.draw(generators())
    t, _ = sde.sample_times(400, generator=generator)
    learned = LearnedWeight(dsm_loss, lambda sde, t: factor * sde.sigma(t) ** 2)
    with torch.no_grad():
        learned.bias.fill_(math.log(factor))
    x = torch.zeros(400, 3)
    total = learned(lambda x, t: 0 * x, sde, x, t=t, generator=generator).mean()
    gradients = torch.autograd.grad(total, list(learned.parameters()))
    # loss e^-u = |z|^2 with the mean 3 and the variance 6
    assert all(g.abs().max() <= 6 * math.sqrt(6 / 400) for g in gradients)


@pytest.mark.slow
def test_a_learned_weight_learns_the_loss_at_each_level():
    """Of an exact score: e^u = floor / D, over four decades of the noise."""
    sde = VESDE(0.01, 100.0)
    target = targets.Gaussian([0.0, 0.0], var=1.0)
    learned = LearnedWeight(dsm_loss, sigma2, law=Stratified(), features=32)
    generator = torch.Generator().manual_seed(0)
    optimizer = torch.optim.Adam(learned.parameters(), lr=0.05)
    for step in range(400):
        optimizer.param_groups[0]["lr"] = 0.05 * (1 - step / 400)
        optimizer.zero_grad()
        x = target.sample(512, generator=generator)
        learned(target.at(sde), sde, x, generator=generator).mean().backward()
        optimizer.step()
    t = torch.linspace(0.05, 0.75, 20, dtype=torch.float64)
    u = learned.log_variance(sde, t).detach()
    exact = -(1 + sde.sigma(t) ** 2).log()
    assert (u - exact).abs().max() < 0.4, (u, exact)
    assert (u - exact).abs().mean() < 0.12


def test_the_objectives_take_every_law_at_every_sde():
    generator = torch.Generator().manual_seed(0)
    for sde in SDES.values():
        path = replace(sde, eps=1e-3 * sde.T) if sde.levels is None else sde
        for law in (Stratified(), Stratified(LogNormal()), Stratified(Importance())):
            for loss in (dsm_loss, ssm_loss):
                value = loss(lambda x, t: -x, path, torch.ones(7, 2), law=law, generator=generator)
                assert value.isfinite().all()
