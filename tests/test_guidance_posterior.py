"""Test posteriors of measurements against exact posteriors of Gaussians and mixtures."""

import itertools
import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import gaussians, generators, sdes, times_of
from torch.testing import assert_close

import scoresde
from scoresde import Condition, Facts, Moments, Wrapped, facts
from scoresde.errors import (
    DeviceError,
    InvalidTypeError,
    InvalidValueError,
    NonFiniteError,
    ShapeError,
    UnknownNameError,
)
from scoresde.guidance import (
    Blur,
    Downsample,
    Fourier,
    Grey,
    Linear,
    Mask,
    Projection,
    posterior,
)
from scoresde.guidance.approximations import Denoised, mmps
from scoresde.samplers import Heun, Scipy
from scoresde.targets import Gaussian, GaussianMixture

VP = scoresde.VPSDE()
STD = 0.1


class Blind(Wrapped):
    """Define a score without moments in its facts."""

    @property
    def facts(self) -> Facts:
        return replace(super().facts, moments=None)


def normal(generator, *shape):
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def correlated(seed=3, d=6, m=3, std=STD):
    """A Gaussian of d dimensions, a matrix that measures m numbers, and such numbers."""
    generator = torch.Generator().manual_seed(seed)
    root = normal(generator, d, d)
    prior = Gaussian(normal(generator, d), cov=root @ root.T / d + 0.1 * torch.eye(d))
    a = normal(generator, m, d)
    x = prior.sample(1, generator=generator, dtype=torch.float64)
    return prior, a, (x @ a.T + std * normal(generator, 1, m))


def law_of_a_run(score, sampler, exact, y, **options):
    """Mean and covariance at eps of a run without noise, from the exact law at T."""
    sde, d = facts(score).sde, len(y[0]) * 2
    width = float(sde.sigma(torch.tensor(sde.T)))
    x = torch.cat([torch.zeros(1, d), width * torch.eye(d)]).double()
    options |= dict(condition={"measurement": y}, denoise=False, x=x, seed=0)
    end = scoresde.sample(score, sampler=sampler, **options)
    slope = (end[1:] - end[0]).T / width
    first = exact.moments().at(*sde_at(sde, sde.T))
    return end[0] + slope @ first.mean, slope @ first.cov @ slope.T


def sde_at(sde, t):
    time = torch.tensor(t, dtype=torch.float64)
    return sde.alpha(time), sde.sigma(time)


def errors(found, exact, sde):
    """Of mean and covariance at eps, relative to the largest entry of the covariance."""
    right = exact.moments().at(*sde_at(sde, sde.eps))
    size = right.cov.abs().max()
    mean, cov = found
    return float((mean - right.mean).abs().max() / size.sqrt()), float(
        (cov - right.cov).abs().max() / size
    )


# The laws


@pytest.mark.slow
@pytest.mark.law(70)
@settings(max_examples=30)
@given(sdes(continuous=True), generators(), st.data())
def test_moment_matching_is_exact_for_gaussians_at_every_time(sde, generator, data):
    prior = Gaussian(*moments_of(data.draw(gaussians((4,), full=True))))
    a, y = normal(generator, 2, 4), normal(generator, 1, 2)
    exact = prior.posterior(a, 0.3, y[0]).at(sde)
    t = data.draw(times_of(sde)).expand(3)
    alpha, sigma = (float(part) for part in sde_at(sde, float(t[0])))
    x = alpha * normal(generator, 3, 4) + sigma * normal(generator, 3, 4)
    right = exact(x, t)
    for score, iterations in ((prior.at(sde), 1), (Blind(prior.at(sde)), 2)):
        made = posterior(score, Linear(a, 0.3), iterations=iterations)
        found = made(x, t, {"measurement": y.expand(3, 2)})
        # the Jacobian of a score at much noise loses digits of the covariance: sigma^2 / v of them
        tolerance = 1e-9 * (1 + (sigma / alpha) ** 2)
        assert (found - right).abs().max() <= tolerance * right.abs().max()


def moments_of(moments):
    return moments.mean, moments.cov


@pytest.mark.long
@pytest.mark.law(70)
def test_moment_matching_with_as_many_iterations_as_the_rank_ends_in_the_posterior():
    """And fewer, and the other methods, do not: the test discriminates."""
    prior, a, y = correlated()
    exact, score = prior.posterior(a, STD, y[0]), Blind(prior.at(VP))
    tight = Scipy("DOP853", rtol=1e-7, atol=1e-7, max_nfe=10**5)
    found = law_of_a_run(posterior(score, Linear(a, STD), iterations=3), tight, exact, y)
    assert max(errors(found, exact, VP)) < 1e-6
    left = []
    for k, steps in ((1, 30), (2, 30), (5, 30), (5, 60), (5, 120)):
        made = posterior(score, Linear(a, STD), iterations=k)
        left.append(errors(law_of_a_run(made, Heun(), exact, y, steps=steps), exact, VP)[1])
    # the rest is that of Heun's steps, of the second order: below 2e-4 from 400 steps on
    assert left[4] < 0.3 * left[3] < 0.09 * left[2] < left[1] < left[0]
    assert left[4] * (120 / 400) ** 2 < 2e-4
    for method in ("pigdm", "dps"):
        made = posterior(score, Linear(a, STD), method)
        assert errors(law_of_a_run(made, Heun(), exact, y, steps=30), exact, VP)[1] > 0.05


def test_known_moments_make_one_iteration_enough_for_gaussians():
    prior, a, y = correlated()
    exact = prior.posterior(a, STD, y[0])
    made = posterior(prior.at(VP), Linear(a, STD), iterations=1)
    explicit = posterior(Blind(prior.at(VP)), Linear(a, STD), iterations=1, moments=prior.moments())
    x, t, given = torch.ones(2, 6).double(), torch.tensor(0.5), {"measurement": y.expand(2, 3)}
    assert torch.equal(explicit(x, t, given), made(x, t, given))
    with pytest.raises(ShapeError, match="one event has shape"):
        posterior(prior.at(VP), Linear(a, STD), moments=Moments(torch.zeros(5), var=1.0))
    found = law_of_a_run(made, scoresde.samplers.UniPC(), exact, y, steps=40)
    assert errors(found, exact, VP)[1] < 2e-4


# Exact posteriors


@given(generators(), st.integers(1, 3), st.sampled_from([0.0, 0.2, 1.5]))
def test_the_exact_posterior_is_that_of_bayes(generator, k, std):
    """Where the noise has a density; else what is measured comes out as it was."""
    root = normal(generator, k, 4, 4)
    prior = GaussianMixture(
        torch.full((k,), 1 / k), normal(generator, k, 2, 2), root @ root.mT + 0.1 * torch.eye(4)
    )
    a = normal(generator, 3, 4)
    y = normal(generator, 3)
    law = prior.posterior(a, std, y)
    x = normal(generator, 5, 2, 2)
    if std == 0:
        drawn = law.sample(5, generator=generator, dtype=torch.float64)
        torch.testing.assert_close(drawn.flatten(1) @ a.T, y.expand(5, 3), rtol=1e-6, atol=1e-6)
        return
    gap = y - x.flatten(1) @ a.T
    likelihood = -(gap**2).sum(1) / (2 * std**2) - 3 * math.log(std * math.sqrt(2 * math.pi))
    joint = prior.log_prob(x) + likelihood
    torch.testing.assert_close(law.log_prob(x) + law.log_evidence, joint, rtol=1e-6, atol=1e-6)


def test_an_exact_posterior_takes_functions_and_what_is_missing():
    prior, a, y = correlated()
    one = prior.posterior(a, [0.1, 0.2, 0.3], y[0])
    two = prior.posterior(lambda x: x @ a.T, torch.tensor([0.1, 0.2, 0.3]), y[0])
    torch.testing.assert_close(one.means, two.means)
    lost = y[0].clone()
    lost[1] = math.nan
    part = prior.posterior(a[[0, 2]], 0.1, y[0, [0, 2]])
    torch.testing.assert_close(prior.posterior(a, 0.1, lost).means, part.means)
    nothing = prior.posterior(a, 0.1, torch.full((3,), math.nan))
    torch.testing.assert_close(nothing.moments().cov, prior.moments().cov)
    assert nothing.log_evidence == 0


@pytest.mark.parametrize(
    ("error", "change"),
    [
        (ShapeError, dict(A=torch.ones(2, 5))),
        (ShapeError, dict(y=[1.0, 2.0])),
        (ShapeError, dict(std=[0.1, 0.1])),
        (InvalidValueError, dict(std=-0.1)),
        (InvalidValueError, dict(A=torch.ones(3, 6), std=0.0)),
        (InvalidValueError, dict(A=lambda x: x[:, :3] + 1)),
        (InvalidTypeError, dict(A=lambda x: x[:2])),
        (InvalidTypeError, dict(y="three")),
    ],
)
def test_an_impossible_measurement_has_no_exact_posterior(error, change):
    prior, a, y = correlated()
    with pytest.raises(error):
        prior.posterior(**{"A": a, "std": 0.1, "y": y[0]} | change)


# Operators

IMAGES = (3, 4, 6)
KEEP = torch.rand(IMAGES, generator=torch.Generator().manual_seed(0)) > 0.6
OPERATORS = {
    "mask": Mask(KEEP),
    "blur": Blur(0.8),
    "downsample": Downsample(2),
    "grey": Grey(),
    "fourier": Fourier(KEEP[0]),
    "projection": Projection(5),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", OPERATORS)
def test_an_operator_is_linear_and_measures_each_event_by_itself(name):
    prior = Gaussian(torch.zeros(IMAGES), std=0.7)
    score = posterior(prior.at(VP), Linear(OPERATORS[name], 0.1))  # checked there
    x = normal(torch.Generator().manual_seed(1), 4, *IMAGES)
    y = OPERATORS[name](x)
    assert facts(score).conditions == {"measurement": scoresde.Field(tuple(y.shape[1:]))}
    assert y.dtype == torch.float64
    exact = prior.posterior(OPERATORS[name], 0.1, y[0]).at(VP)
    at = x.flip(0)
    made = score(at, torch.tensor(0.4).double(), {"measurement": y[:1].expand(4, *y.shape[1:])})
    torch.testing.assert_close(made, exact(at, torch.tensor(0.4)), rtol=1e-8, atol=1e-8)


def test_a_blur_over_an_axis_of_one_channel_is_refused():
    x = normal(torch.Generator().manual_seed(0), 2, 1, 64)
    with pytest.raises(ShapeError, match="for signals dims=1"):
        Blur(2.0)(x)
    signal = Blur(2.0, dims=1)(x)
    torch.testing.assert_close(signal, Blur(2.0, dims=1)(x[:, 0])[:, None])


def test_operators_measure_what_their_names_say():
    x = normal(torch.Generator().manual_seed(0), 2, *IMAGES)
    assert torch.equal(Mask(KEEP)(x)[1], x[1][KEEP])
    assert torch.equal(Downsample(2)(x)[1, 2, 1, 2], x[1, 2, 2:4, 4:6].mean())
    torch.testing.assert_close(Grey()(x)[:, 0], 0.299 * x[:, 0] + 0.587 * x[:, 1] + 0.114 * x[:, 2])
    flat = torch.ones(1, 40, 40, dtype=torch.float64)
    torch.testing.assert_close(Blur(1.5)(flat)[0, 15:25, 15:25], flat[0, 15:25, 15:25])
    whole = Fourier(torch.ones(4, 6))(x)
    torch.testing.assert_close((whole**2).sum(), (x**2).sum())
    q = Projection(7, seed=2)
    back = torch.stack([q(row[None])[0] for row in torch.eye(72).double().reshape(72, *IMAGES)], 1)
    torch.testing.assert_close(back @ back.T, torch.eye(7).double())


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: Mask([0.0, 0.5]),
        lambda: Mask([False, False]),
        lambda: Blur(0.0),
        lambda: Blur("a"),
        lambda: Blur(1e9),
        lambda: Grey(("a",)),
        lambda: Grey((math.nan, 1.0, 1.0)),
        lambda: Grey(()),
        lambda: Grey(1.0),
        lambda: Linear(torch.tensor([[math.nan, 1.0]]), 1.0),
        lambda: Linear(torch.tensor([[1j, 1.0]]), 1.0),
        lambda: Linear(torch.ones(0, 2), 1.0),
        lambda: Linear(torch.ones(1, 2, device="meta"), 1.0),
        lambda: Downsample(0),
        lambda: Projection(0),
        lambda: Linear(lambda x: x, -1.0),
        lambda: Linear(torch.ones(3), 1.0),
        lambda: Linear(3, 1.0),
        lambda: Linear(lambda x: x, "loud"),
        lambda: Linear(lambda x: x, math.nan),
        lambda: Fourier([0, 0]),
    ],
)
def test_an_impossible_operator_is_refused(wrong):
    with pytest.raises(scoresde.ScoreSDEError):
        wrong()


# At the door


def never(x, t):
    raise AssertionError("the score was evaluated")


class Unasked:
    """Define a score with facts that is never evaluated."""

    facts = Facts(sde=VP, event_shape=(4,), conditions={})
    __call__ = staticmethod(never)


@pytest.mark.parametrize(
    ("error", "measured", "match"),
    [
        (InvalidValueError, Linear(lambda x: x.abs(), 0.1), "is not linear"),
        (InvalidValueError, Linear(lambda x: x + 1, 0.1), "is not linear"),
        (InvalidValueError, Linear(lambda x: x - x.mean(0), 0.1), "mixes the events"),
        (InvalidValueError, Linear(lambda x: x.mul_(2) / 2, 0.1), "A writes into its argument"),
        (DeviceError, Linear(lambda x: x.to("meta"), 0.1), "must return a tensor on cpu"),
        (InvalidValueError, Linear(lambda x: x.detach(), 0.1), "cannot be differentiated"),
        (InvalidTypeError, Linear(lambda x: torch.fft.fft(x), 0.1), "view_as_real"),
        (InvalidTypeError, Linear(lambda x: x @ torch.ones(5, 2), 0.1), "A fails for a batch"),
        (ShapeError, Linear(lambda x: x[0], 0.1), "a row for each"),
        (ShapeError, Linear(lambda x: x[:, :0], 0.1), "A must "),
        (NonFiniteError, Linear(lambda x: x / 0, 0.1), "the result of A"),
        (InvalidValueError, Linear(lambda x: x.clamp(-5, 5), 0.1), "is not linear"),
        (ShapeError, Linear(lambda x: x, torch.ones(3)), "std must be a number or of the shape"),
        (ShapeError, Linear(torch.ones(2, 5), 0.1), "A takes events of 5 numbers"),
        (ShapeError, Linear(Mask([1, 0, 1]), 0.1), "the mask is for events"),
        (ShapeError, Linear(Downsample(3, dims=1), 0.1), "do not divide"),
        (ShapeError, Linear(Grey(), 0.1), "3 channels"),
        (ShapeError, Linear(Blur(1.0), 0.1), "last 2 axes"),
        (InvalidValueError, Linear(Projection(5), 0.1), "no 5 orthonormal"),
    ],
)
def test_a_map_that_measures_nothing_of_the_events_is_refused_before_any_evaluation(
    error, measured, match
):
    with pytest.raises(error, match=match):
        posterior(Unasked(), measured)


@pytest.mark.parametrize(
    ("error", "options", "match"),
    [
        (InvalidValueError, dict(method="dps"), "which is 0"),
        (InvalidValueError, dict(iterations=0), "iterations"),
        (InvalidValueError, dict(units=True), "transform"),
        (UnknownNameError, dict(method="mmpps"), "mmps"),
        (InvalidValueError, dict(name=""), "name= must be a word"),
        (ShapeError, dict(shape=(2,)), r"\(4,\), but shape= is \(2,\)"),
    ],
)
def test_an_impossible_posterior_is_refused(error, options, match):
    with pytest.raises(error, match=match):
        posterior(Unasked(), Linear(lambda x: x, 0.0), **options)


def test_a_measurement_that_does_not_fit_is_an_error_before_any_evaluation():
    made, options = (
        posterior(Unasked(), Linear(torch.ones(2, 4), 0.1)),
        dict(sampler="ddim", seed=0),
    )
    for y, error in (
        (torch.ones(3), ShapeError),
        (torch.ones(5, 2), ShapeError),
        (torch.ones(2, dtype=torch.int64), InvalidTypeError),
    ):
        with pytest.raises(error):
            scoresde.sample(made, n=4, condition={"measurement": y}, **options)
    with pytest.raises(UnknownNameError, match="measurement"):
        scoresde.sample(made, condition={"measured": torch.ones(2)}, **options)
    with pytest.raises(InvalidValueError, match="none was given"):
        scoresde.sample(made, n=4, **options)
    with pytest.raises(InvalidValueError, match="another name"):
        posterior(made, Linear(torch.ones(2, 4), 0.1))
    with pytest.raises(InvalidValueError, match="has no SDE in its facts"):
        posterior(never, Linear(torch.ones(2, 4), 0.1))
    with pytest.raises(UnknownNameError, match="method of a log-likelihood"):
        posterior(Unasked(), lambda y, x0: -x0.sum(1), "pigdm")


class Loose:
    """Define a score without an event shape and conditions in its facts."""

    facts = Facts(sde=VP)

    def __call__(self, x, t):
        assert x.shape[1:] == (4,)
        return -x


def test_a_score_without_an_event_shape_is_checked_at_its_first_call():
    y = torch.zeros(3, 2)
    made = posterior(Loose(), Linear(torch.ones(2, 4), 0.1))
    options = dict(sampler="ddim", steps=2, n=3, seed=0)
    x = scoresde.sample(made, shape=(4,), condition={"measurement": y}, **options)
    assert x.sum(1).abs().max() < 0.5 < scoresde.sample(Loose(), shape=(4,), **options).abs().max()
    fresh = posterior(Loose(), Linear(torch.ones(2, 4), 0.1))
    with pytest.raises(ShapeError, match="A takes events of 4 numbers"):
        scoresde.sample(fresh, shape=(5,), condition={"measurement": y}, **options)
    with pytest.raises(ShapeError, match=r"(must have the shape|needs one row)"):
        scoresde.sample(made, shape=(4,), condition={"measurement": torch.zeros(3, 5)}, **options)


def test_a_score_that_cannot_be_differentiated_is_named():
    class Flat(Loose):
        def __call__(self, x, t):
            return -x.detach()

    made = posterior(Flat(), Linear(torch.ones(2, 4), 0.1))
    with pytest.raises(InvalidValueError, match="cannot be differentiated"):
        made(torch.ones(1, 4), torch.tensor([0.5]), {"measurement": torch.ones(1, 2)})


# What is missing, units, several measurements


def test_an_entry_that_is_nan_was_not_measured():
    prior, a, y = correlated()
    x, t = prior.sample(2, VP, 0.3, generator=torch.Generator().manual_seed(0)).double(), 0.3
    t = torch.full((2,), t, dtype=torch.float64)
    lost = y.expand(2, 3).clone()
    lost[0, 1] = math.nan
    lost[1] = math.nan
    for method in ("mmps", "pigdm", "dps"):
        found = posterior(prior.at(VP), Linear(a, STD), method)(x, t, {"measurement": lost})
        part = posterior(prior.at(VP), Linear(a[[0, 2]], STD), method)
        right = part(x[:1], t[:1], {"measurement": y[:, [0, 2]]})
        torch.testing.assert_close(found[:1], right, rtol=1e-9, atol=1e-9)
        torch.testing.assert_close(found[1:], prior.at(VP)(x[1:], t[1:]))


def test_two_measurements_are_one_of_both():
    prior, a, y = correlated()
    both = posterior(prior.at(VP), Linear(a, STD))
    first = posterior(prior.at(VP), Linear(a[:1], STD), name="first")
    then = posterior(first, Linear(a[1:], STD), name="then", iterations=2)
    x = prior.sample(2, VP, 0.4, generator=torch.Generator().manual_seed(0)).double()
    t, y = torch.full((2,), 0.4, dtype=torch.float64), y.expand(2, 3)
    found = then(x, t, {"first": y[:, :1], "then": y[:, 1:]})
    torch.testing.assert_close(found, both(x, t, {"measurement": y}), rtol=1e-8, atol=1e-8)
    assert scoresde.sde.passes_of(then, torch.tensor(0.5)) == (1 + 2) * (1 + 2 * 2)


def test_units_are_those_of_the_user():
    """x = (r - 300) / 20: a sum of two r is measured with the noise 2."""
    transform = scoresde.units.Standardize((300.0,), (20.0,))
    prior = Gaussian([0.5, -0.5], cov=[[1.0, 0.6], [0.6, 1.0]])

    class InUnits(Wrapped):
        facts = replace(prior.at(VP).facts, transform=transform)

    a = torch.tensor([[1.0, 1.0]])
    found = posterior(InUnits(prior.at(VP)), Linear(a, 2.0), units=True)
    same = posterior(prior.at(VP), Linear(20 * a, 2.0))
    x, t = prior.sample(3, VP, 0.4, generator=torch.Generator().manual_seed(0)).double(), 0.4
    y = torch.full((3, 1), 610.0).double()
    left = found(x, torch.tensor(t), {"measurement": y})
    right = same(x, torch.tensor(t), {"measurement": y - 600})
    torch.testing.assert_close(left, right, rtol=1e-8, atol=1e-8)
    f = posterior(
        InUnits(prior.at(VP)), lambda y, r: -((y - r @ a.double().T) ** 2).sum(1) / 8, units=True
    )
    torch.testing.assert_close(f(x, torch.tensor(t), {"measurement": y}), left)


# Any likelihood


def gauss(a, std):
    return lambda y, x0: -((y - x0 @ a.T) ** 2).sum(1) / (2 * std**2)


class Slope(torch.autograd.Function):
    """The identity, which cannot be differentiated."""

    @staticmethod
    def forward(ctx, x):
        return x.clone()

    @staticmethod
    def backward(ctx, by_x):
        raise RuntimeError("no derivative")


class Once(torch.autograd.Function):
    """-x^2 / 2, which can be differentiated once."""

    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return -(x**2) / 2

    @staticmethod
    def backward(ctx, by_value):
        (x,) = ctx.saved_tensors
        return Slope.apply(-x * by_value)


def test_dps_needs_the_first_derivatives_of_a_log_likelihood_alone():
    prior, x = Gaussian([0.0, 0.0], std=1.0).at(VP), normal(torch.Generator().manual_seed(0), 4, 2)
    y, t = {"y": torch.ones(4, 1, dtype=torch.float64)}, torch.full((4,), 0.5)
    once = posterior(prior, lambda y, x0: Once.apply(x0[:, 0] - y[:, 0]), "dps", "y", shape=(1,))
    more = posterior(prior, lambda y, x0: -((x0[:, 0] - y[:, 0]) ** 2) / 2, "dps", "y", shape=(1,))
    with torch.no_grad():
        assert_close(once(x, t, y), more(x, t, y))


@pytest.mark.parametrize("method", ["mmps", "dps"])
def test_a_gaussian_log_likelihood_is_the_linear_measurement(method):
    prior, a, y = correlated()
    x = prior.sample(3, VP, 0.3, generator=torch.Generator().manual_seed(0)).double()
    t, given = torch.tensor(0.3).double(), {"measurement": y.expand(3, 3)}
    linear = posterior(prior.at(VP), Linear(a, STD), method)
    general = posterior(prior.at(VP), gauss(a, STD), method, iterations=6)
    torch.testing.assert_close(general(x, t, given), linear(x, t, given), rtol=1e-7, atol=1e-7)


def counts(y, x0):
    """Poisson counts at the rate exp(x)."""
    return (y * x0 - x0.exp()).sum(1)


@pytest.mark.slow
def test_poisson_counts_lead_near_their_posterior():
    """The exact one by quadrature, one dimension: moment matching is nearer than dps."""
    prior, y = Gaussian([0.5], var=1.0), torch.tensor([4.0])
    grid = torch.linspace(-5, 6, 20_001, dtype=torch.float64)[:, None]
    mass = (prior.log_prob(grid) + counts(y, grid)).softmax(0)
    mean = float(mass @ grid[:, 0])
    std = math.sqrt(mass @ (grid[:, 0] - mean) ** 2)
    gaps = {}
    for method in ("mmps", "dps"):
        made = posterior(prior.at(VP), counts, method, shape=(1,), iterations=1)
        given = {"measurement": y}
        x = scoresde.sample(made, sampler="heun", steps=20, n=2000, seed=0, condition=given)
        gaps[method] = abs(float(x.mean()) - mean) / std, abs(float(x.std()) / std - 1)
    assert max(gaps["mmps"]) < 0.2 < max(gaps["dps"])


@pytest.mark.parametrize(
    ("function", "error"),
    [
        (lambda y, x0: -(x0**2), ShapeError),
        (lambda y, x0: 3.0, InvalidTypeError),
        (lambda y, x0: -x0.detach().sum(1), InvalidValueError),
        (lambda y, x0: -(x0**2).sum(1) + 0j, InvalidTypeError),
        (lambda y, x0: -(x0 - x0.mean(0)).pow(2).sum(1), InvalidValueError),
        (lambda x0: -(x0**2).sum(1), InvalidTypeError),
    ],
)
def test_an_invalid_log_likelihood_is_refused(function, error):
    prior, _, _ = correlated()
    x, y = torch.ones(2, 6), {"measurement": torch.ones(2, 2)}
    with pytest.raises(error):
        posterior(prior.at(VP), function, shape=(2,))(x, torch.tensor([0.5, 0.5]), y)


def test_matrices_in_any_real_numbers_are_one():
    matrix, x = torch.tensor([[1.0, 0.0, 2.0, 0.0]]), torch.ones(2, 4)
    kinds = (
        matrix.double(),
        matrix.half(),
        matrix.int(),
    )
    for kind in (matrix, *kinds, matrix.clone().requires_grad_()):
        measured = Linear(kind, 0.1)
        assert measured.check((4,), x.device) == (1,)
        assert measured(x).flatten().tolist() == [3.0, 3.0]


def test_a_map_for_double_precision_alone_is_reported_in_single():
    own = torch.ones(1, 4, dtype=torch.float64)
    measured = Linear(lambda x: x @ own.T, 0.1)
    assert measured.check((4,), own.device) == (1,)
    assert measured(torch.ones(1, 4).double()).item() == 4
    with pytest.raises(InvalidTypeError, match=r"dtype of its argument, or sample with dtype"):
        measured(torch.ones(1, 4))


def test_a_posterior_of_any_event_does_not_keep_the_first():
    def score(x, t):
        return -x

    class Known:
        facts = Facts(sde=VP)
        __call__ = staticmethod(score)

    both = posterior(Known(), Linear(lambda x: x, 0.1))
    for shape in ((2,), (3,), (2,)):
        y = {"measurement": torch.ones(1, *shape)}
        assert both(torch.ones(1, *shape), torch.tensor([0.5]), y).shape == (1, *shape)
    assert both.facts.conditions is None


def test_a_likelihood_that_is_a_plane_has_no_curvature():
    prior, _, _ = correlated()
    made = posterior(prior.at(VP), lambda y, x0: (y * x0).sum(1), shape=(6,))
    x, t = torch.zeros(1, 6).double(), torch.tensor([0.5]).double()
    pull = made(x, t, {"measurement": torch.ones(1, 6)}) - prior.at(VP)(x, t)
    alpha, sigma = sde_at(VP, 0.5)
    slope = torch.autograd.functional.jacobian(lambda x: prior.at(VP)(x, t), x)[0, :, 0]
    cov = (sigma / alpha) ** 2 * (torch.eye(6) + sigma**2 * slope)
    torch.testing.assert_close(pull[0], alpha / sigma**2 * cov.sum(1), rtol=1e-8, atol=1e-8)


# Costs and reports


class Counted(Wrapped):
    """Counts its calls, and passes back through it."""

    forward = back = 0

    def __call__(self, x, t, condition=None):
        self.forward += 1
        value = self.ask(self.score, x, t)
        if value.requires_grad:
            value.register_hook(self._seen)
        return value

    def _seen(self, _):
        self.back += 1


@pytest.mark.parametrize("method", ["mmps", "pigdm", "dps"])
@pytest.mark.parametrize("kind", ["linear", "function"])
def test_passes_count_a_pass_back_as_two(method, kind):
    if (method, kind) == ("pigdm", "function"):
        return
    prior, a, y = correlated()
    likelihood = Linear(a, STD) if kind == "linear" else gauss(a.float(), STD)
    score = Counted(prior.at(VP))
    made = posterior(score, likelihood, method, iterations=2, shape=(3,))
    given = {"measurement": y}
    run = scoresde.Run.of(made, sampler="heun", steps=3, n=2, seed=0, condition=given)
    found = run.draw()
    assert (found.nfe, score.forward) == (7, 7)
    assert found.passes == score.forward + 2 * score.back


def test_the_residual_of_each_sample_is_reported_for_any_batch():
    prior, a, y = correlated()
    made = posterior(Blind(prior.at(VP)), Linear(a, STD), iterations=2)
    options = dict(sampler="ddim", steps=5, n=5, seed=0, dtype=torch.float64)
    run = scoresde.Run.of(made, condition={"measurement": y}, **options)
    whole, parts = run.draw(), run.draw(batch_size=2)
    assert whole.info["residual"].shape == (5,)
    assert (whole.info["residual"] > 1e-3).all()
    torch.testing.assert_close(whole.info["residual"], parts.info["residual"])
    full = posterior(Blind(prior.at(VP)), Linear(a, STD), iterations=3)
    exact = scoresde.Run.of(full, condition={"measurement": y}, **options).draw()
    assert exact.info["residual"].max() < 1e-9
    assert scoresde.Run.of(prior.at(VP), **options).draw().info == {}


def test_the_facts_of_the_prior_are_kept_except_its_density():
    prior, a, y = correlated()
    known = facts(posterior(prior.at(VP), Linear(a, STD)))
    assert (known.sde, known.event_shape, known.density) == (VP, (6,), False)
    made = posterior(prior.at(VP), Linear(a, STD))
    with pytest.raises(scoresde.ScoreSDEError, match="not the gradient of a log-density"):
        scoresde.log_prob(made, None, torch.zeros(1, 6), condition={"measurement": y})
    rsde = VP.reverse(made, condition=Condition({"measurement": y}))
    assert rsde.method("log_prob") is None
    assert Moments(0.0, var=1.0).var == 1.0


# Stiffness


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "other"),
    [*zip(scoresde.SAMPLERS, itertools.cycle(("pigdm", "dps")), strict=False)],
)
def test_a_sharp_measurement_makes_no_sampler_diverge(name, other):
    """At ten steps and a noise of a fiftieth, where the likelihood's own slope is 2,500."""
    prior, a, y = correlated(std=0.02)
    moments = prior.moments()
    size = float((moments.mean**2 + moments.cov.diagonal()).mean().sqrt())
    options = {} if scoresde.SAMPLERS[name].adaptive else {"steps": 10}
    for method in ("mmps", other):
        made = posterior(prior.at(VP), Linear(a, 0.02), method)
        given = {"measurement": y}
        x = scoresde.sample(
            made, sampler=name, n=2, seed=0, dtype=torch.float64, condition=given, **options
        )
        assert float((x**2).mean().sqrt()) < 3 * size
        if method == "mmps":
            assert float((x @ a.T - y).abs().mean()) < 0.5


def test_a_stiff_guided_score_that_diverges_causes_a_warning():
    """The likelihood of the denoised state as a classifier, which is unbounded."""
    target, sde = Gaussian([0.0, 0.0], var=1.0), scoresde.EDMSDE()
    score = target.at(sde)

    def sharp(x, t):
        x0 = x + (t**2)[:, None] * score(x, t)
        return -((x0 - 1) ** 2).sum(1) / (2 * 0.05**2)

    made = scoresde.guidance.classifier(score, sharp, 1.5)
    with pytest.warns(UserWarning, match="times as large as the data.*dopri5"):
        scoresde.sample(made, sampler="fast", steps=8, n=50, seed=0)


@pytest.mark.slow
@pytest.mark.parametrize("method", ["mmps", "pigdm"])
@pytest.mark.parametrize("scale", [1e-20, 1e-8, 1e8, 1e15])
def test_a_measurement_in_any_unit_gives_the_same_samples(method, scale):
    """In small or large units a measurement was ignored, in single precision."""
    prior, a = Gaussian([0.0, 0.0], cov=[[1.0, 0.9], [0.9, 1.0]]), torch.tensor([[1.0, 0.0]])

    def drawn(c):
        made = posterior(prior.at(VP), Linear(c * a, 0.1 * c), method)
        given = {"measurement": [1.5 * c]}
        return scoresde.sample(made, None, "heun", n=20, steps=10, seed=0, condition=given)

    assert torch.allclose(drawn(scale), drawn(1.0), atol=1e-4)


def test_entries_in_different_units_all_count():
    prior = Gaussian([0.0, 0.0], var=1.0)
    likelihood = Linear(torch.diag(torch.tensor([1.0, 1e-8])), torch.tensor([0.1, 1e-9]))
    given = {"measurement": [1.5, 1.5e-8]}
    made = posterior(prior.at(VP), likelihood)
    x = scoresde.sample(made, None, "heun", n=300, steps=20, seed=0, condition=given)
    assert (x.mean(0) - 1.5 / 1.01).abs().max() < 0.05  # the deviation of the mean is .006


@pytest.mark.slow
@pytest.mark.parametrize("a", [[[1.0, 0.5], [0.0, 1.0]], [[1.0, 0.5], [1.0, 0.5]]])
def test_samples_in_single_precision_have_gradients_in_the_measurement(a):
    """With more entries than one they were NaN."""
    prior = Gaussian([0.0, 0.0], cov=[[1.0, 0.9], [0.9, 1.0]])
    made = posterior(prior.at(VP), Linear(torch.tensor(a), 0.1))
    found = []
    for dtype in (torch.float32, torch.float64):
        y = torch.tensor([[1.0, 0.4]], dtype=dtype, requires_grad=True)
        x = scoresde.sample(
            made, None, "heun", n=1, steps=5, seed=0, grad=True, dtype=dtype,
            condition={"measurement": y},
        )  # fmt: skip
        found.append(torch.autograd.grad(x[0, 1], y)[0].double())
    assert torch.allclose(*found, atol=1e-3)


def test_one_measurement_is_that_of_all_samples_where_the_prior_declares_no_conditions():
    prior = Gaussian([0.0, 0.0], cov=[[1.0, 0.9], [0.9, 1.0]]).at(VP)
    free = scoresde.from_network(lambda x, t: prior(x, t), VP, "score", event_shape=(2,))
    made = posterior(free, lambda y, x: -((y - x) ** 2).sum(1) / 0.02, shape=(2,))
    given = dict(sampler="heun", n=2, steps=5, seed=0, condition={"measurement": [1.0, 2.0]})
    assert torch.equal(scoresde.sample(made, **given), scoresde.sample(made, batch_size=1, **given))


def test_integers_are_not_measured():
    for operator in (Linear(torch.tensor([[0.5, 0.5]]), 0.1), scoresde.guidance.Blur(1.0)):
        with pytest.raises(InvalidTypeError, match="must be floating point"):
            operator(torch.full((1, 2), 3))
        for wrong in ([[1.0, 2.0]], torch.tensor(1.0), torch.ones(1, 2).to_sparse(), None):
            with pytest.raises((InvalidTypeError, ShapeError)):
                operator(wrong)


# A schedule that rests


def resting(t):
    """Return the flow, which stands still from .4 to .6."""
    u = torch.where(t < 0.4, t, torch.where(t < 0.6, 0.4, t - 0.2)) / 0.8
    return 1 - u, u


@pytest.mark.long
def test_a_schedule_that_rests_for_a_while_gives_the_samples_of_one_that_does_not():
    prior, a, y = correlated()
    names = ("heun", "dpmpp_3m")
    ends = []
    for schedule, T, eps in ((resting, 0.998, 0.008), (lambda t: (1 - t, t), 0.9975, 0.01)):
        sde = scoresde.interop.Scheduled(schedule, T=T, eps=eps)
        made = posterior(prior.at(sde), Linear(a, STD))
        options = dict(n=2, seed=0, steps=12, dtype=torch.float64, condition={"measurement": y})
        drawn = [scoresde.sample(made, sampler=name, **options) for name in names]
        ends.append(torch.cat(drawn))
        # steps even in time, some of which leave the ratio as it is
        assert scoresde.sample(made, sampler="em", **options).isfinite().all()
    torch.testing.assert_close(*ends, rtol=1e-5, atol=1e-5)


def test_times_between_which_a_schedule_rests_are_named_before_any_evaluation():
    """Multistep methods reported that the score was NaN."""
    for T, grid in ((1.0, {"times": [0.9, 0.55, 0.45, 0.1]}), (0.998, {})):
        sde = scoresde.interop.Scheduled(resting, T=T, eps=0.01, levels=None if grid else 20)
        options = dict(sampler="dpmpp_2m", shape=(1,), n=2, seed=0) | grid
        with pytest.raises(
            InvalidValueError, match="the signal-to-noise ratio of Scheduled is the"
        ):
            scoresde.sample(never, sde, **options)


@given(seed=st.integers(0, 2**32 - 1), iterations=st.integers(1, 6))
def test_no_jacobian_leads_away_from_the_measurement(seed, iterations):
    # of a network it need not be symmetric, and may have negative eigenvalues
    g = torch.Generator().manual_seed(seed)
    J, A = torch.randn(4, 4, generator=g).double(), torch.randn(3, 4, generator=g).double()
    x0, y = torch.randn(5, 4, generator=g).double(), torch.randn(5, 3, generator=g).double()
    measured = Linear(A, 0.1)
    at = Denoised(x0, lambda v: v @ J.T, torch.ones(5).double(), lambda v: v)
    found = mmps(measured, y, at, iterations)
    before, after = ((y - x @ A.T).square().sum(1) / 0.1**2 for x in (x0, x0 + found.w))
    assert (after <= before * (1 + 1e-9)).all()
    assert (found.log_likelihood <= 0).all()
    assert (found.log_likelihood >= -before / 2 * (1 + 1e-9)).all()
