"""Test time grids of samplers, and distributions of training times."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from strategies import SDES, generators, log_floats, sdes, ve_sdes
from torch.testing import assert_close

from scoresde.errors import InvalidTypeError, InvalidValueError, ScoreSDEError, UnknownNameError
from scoresde.sde import (
    EDMSDE,
    VESDE,
    VPSDE,
    BrownianBridgeSDE,
    FlowSDE,
    Importance,
    Laplace,
    Logistic,
    LogNormal,
    Uniform,
    spacings,
)
from scoresde.sde.coordinates import half_log_snr, half_log_snr_range

every_spacing = st.sampled_from(
    [
        spacings.EqualSteps(),
        spacings.LogSNR(),
        spacings.Karras(),
        spacings.Karras(1.0),
        spacings.Karras(3.5),
        spacings.Geometric(),
        spacings.AYS(),
        spacings.SPACINGS["ays_video"],
        spacings.AYS((3.0, 0.1)),
    ]
)
continuous = [name for name, sde in SDES.items() if sde.levels is None]


def midpoints(n: int) -> torch.Tensor:
    """Return an even cover of [0, 1), so that an expectation over a law is a quadrature."""
    return (torch.arange(n, dtype=torch.float64) + 0.5) / n


@pytest.mark.law(36)
@given(sdes(continuous=True), every_spacing, st.integers(1, 300))
def test_a_grid_runs_from_the_last_time_to_eps_exactly(sde, spacing, steps):
    if spacing == spacings.Geometric() and sde.eps == 0:
        return
    t = sde.times(steps, spacing=spacing)
    assert t.dtype == torch.float64
    assert t.shape == (steps + 1,)
    assert t[0] == sde.T
    assert t[-1] == sde.eps
    assert (t.diff() < 0).all()
    assert float(-t.diff().sum()) == pytest.approx(sde.T - sde.eps, rel=1e-14)


@given(sdes())
def test_one_step_goes_from_T_to_eps(sde):
    assert sde.times(1).tolist() == [sde.T, sde.eps]


@pytest.mark.slow
@pytest.mark.parametrize("spacing", [None, *spacings.SPACINGS])
@pytest.mark.parametrize("name", continuous)
def test_a_hundred_thousand_steps_are_still_in_order(name, spacing):
    sde = SDES[name]
    if spacing != "geometric" or sde.eps > 0:
        assert (sde.times(100_000, spacing=spacing).diff() < 0).all()


def equal_steps(values: torch.Tensor) -> None:
    steps = values.diff()
    assert_close(
        steps, steps.mean().expand_as(steps), rtol=1e-6, atol=1e-9 * float(values.abs().max())
    )


@given(sdes(continuous=True), st.integers(2, 50), st.floats(1, 10))
def test_each_spacing_is_even_in_its_own_variable(sde, steps, rho):
    ratio = lambda t: sde.sigma(t) / sde.alpha(t)  # noqa: E731
    equal_steps(sde.times(steps, spacing="uniform"))
    equal_steps(sde.log_snr(sde.times(steps, spacing="log_snr")))
    equal_steps(ratio(sde.times(steps, spacing=spacings.Karras(rho))) ** (1 / rho))
    if sde.eps > 0:
        equal_steps(sde.times(steps, spacing="geometric").log())


@given(st.integers(1, 100), log_floats(1e-3, 0.1), log_floats(1, 100), st.floats(1, 10))
def test_the_grid_of_edm_is_that_of_its_paper(steps, low, high, rho):
    """Karras et al. (2022), eq. 5, of which the last zero is `denoise`."""
    sde = EDMSDE(T=high, eps=low)
    i = torch.arange(steps + 1, dtype=torch.float64)
    sigma = (high ** (1 / rho) + i / steps * (low ** (1 / rho) - high ** (1 / rho))) ** rho
    assert_close(sde.times(steps, spacing=spacings.Karras(rho)), sigma, rtol=1e-10, atol=0)


@given(st.sampled_from(["ays", "ays_sdxl", "ays_deepfloyd", "ays_video"]), st.integers(1, 12))
def test_a_published_table_is_unchanged_for_an_sde_of_its_range(name, k):
    """At its ten steps, and at multiples of them with more in between, even in the logarithm."""
    table = torch.tensor(spacings.SPACINGS[name].sigmas, dtype=torch.float64)
    sde = EDMSDE(T=float(table[0]), eps=float(table[-1]))
    times = sde.times(10 * k, spacing=name)
    assert_close(times[::k], table, rtol=1e-10, atol=0)
    for part in times[:-1].unfold(0, k, k):
        equal_steps(part.log())


@given(sdes(continuous=True), st.integers(1, 40), log_floats(1e-3, 0.5), log_floats(2, 100))
def test_a_table_is_stretched_to_the_range_of_any_other_sde_in_the_logarithm(sde, steps, low, high):
    sigmas = (high, math.sqrt(low * high) * 1.3, low)
    times, table = sde.times(steps, spacing=spacings.AYS(sigmas)), EDMSDE(T=high, eps=low)

    def height(sde, t):
        log = sde.log_snr(t)
        return (log - log[-1]) / (log[0] - log[-1])

    own = height(table, table.times(steps, spacing=spacings.AYS(sigmas)))
    assert_close(height(sde, times), own, rtol=0, atol=1e-9)


@given(st.integers(2, 100), ve_sdes(levels=st.none()))
def test_spacings_meet_where_their_formulas_do(steps, ve):
    edm = EDMSDE()

    def same(sde, one, other):
        one, other = (sde.times(steps, spacing=spacing) for spacing in (one, other))
        assert_close(one, other, rtol=1e-9, atol=1e-12 * sde.T)

    same(ve, "uniform", "log_snr")
    same(edm, "geometric", "log_snr")
    same(edm, "uniform", spacings.Karras(1.0))
    same(edm, "log_snr", spacings.Karras(math.inf))
    same(edm, "karras", spacings.Karras())
    same(edm, "log_snr", spacings.AYS((7.0, 0.3)))


def test_each_sde_declares_its_own_spacing():
    defaults = {name: SDES[name].spacing for name in continuous}
    assert defaults.pop("edm") == spacings.Karras(7.0)
    assert defaults.pop("flow") == defaults.pop("BrownianBridgeSDE") == spacings.LogSNR()
    assert set(defaults.values()) == {spacings.EqualSteps()}
    for name in continuous:
        sde = SDES[name]
        assert torch.equal(sde.times(13), sde.times(13, spacing=sde.spacing))


@given(sdes(), st.integers(0, 100), generators())
def test_training_times_lie_between_eps_and_the_end(sde, n, generator):
    state = generator.get_state()
    t, weights = sde.sample_times(n, generator=generator)
    assert t.shape == weights.shape == (n,)
    assert t.dtype == weights.dtype == torch.float64
    assert ((t >= sde.eps) & (t <= sde.T)).all()
    assert (weights > 0).all()
    again, _ = sde.sample_times(n, generator=generator.set_state(state))
    assert torch.equal(t, again)


@pytest.mark.global_rng
def test_without_a_generator_training_times_come_from_the_global_one():
    t, _ = VPSDE().sample_times(5)
    assert not torch.equal(t, VPSDE().sample_times(5)[0])


def test_each_sde_declares_its_own_law_of_training_times():
    laws = {name: sde.time_law for name, sde in SDES.items()}
    assert laws.pop("edm") == LogNormal(-1.2, 1.2)
    assert laws.pop("BrownianBridgeSDE") == Logistic()
    assert set(laws.values()) == {Uniform()}
    seeds = [torch.Generator().manual_seed(3) for _ in range(2)]
    ours, _ = EDMSDE().sample_times(9, generator=seeds[0])
    theirs, _ = EDMSDE().sample_times(9, law=LogNormal(), generator=seeds[1])
    assert torch.equal(ours, theirs)


@given(sdes(continuous=True))
def test_uniform_times_fill_the_interval_evenly(sde):
    u = midpoints(50)
    t, weights = Uniform()(sde, u)
    assert_close((t - sde.eps) / (sde.T - sde.eps), u, rtol=1e-12, atol=1e-12)
    assert (weights == 1).all()


def test_drawn_uniform_times_have_the_moments_of_a_uniform_law():
    sde, n = VPSDE(eps=0.2), 40_000
    t, _ = sde.sample_times(n, generator=torch.Generator().manual_seed(1))
    u = (t - 0.2) / 0.8
    assert abs(u.mean() - 1 / 2) < 5 * math.sqrt(1 / 12 / n)
    assert abs((u**2).mean() - 1 / 3) < 5 * math.sqrt(4 / 45 / n)


@given(st.floats(-1, 1), st.floats(0.1, 0.6))
def test_the_noise_of_laplace_times_has_the_distribution_function_of_laplace(mean, scale):
    u, sde = midpoints(50), BrownianBridgeSDE()
    z = (-sde.log_snr(Laplace(mean, scale)(sde, u)[0]) / 2 - mean) / scale
    assert_close(torch.where(z < 0, z.exp() / 2, 1 - (-z).exp() / 2), u, rtol=1e-7, atol=1e-7)


@given(log_floats(0.1, 30))
def test_logistic_times_have_one_law_of_the_noise_and_are_uniform_at_s_of_one(s):
    u, sde = midpoints(50), BrownianBridgeSDE(s)
    t, weights = Logistic()(sde, u)
    assert_close(sde.log_snr(t), -torch.logit(u), rtol=1e-9, atol=1e-9)
    assert_close(Logistic()(BrownianBridgeSDE(), u)[0], u, rtol=1e-9, atol=1e-9)
    assert (weights == 1).all()


@given(sdes(continuous=True), st.floats(-3, 3), st.floats(0.1, 3))
def test_log_normal_times_have_log_normal_noise(sde, mean, std):
    u = midpoints(200)
    t, weights = LogNormal(mean, std)(sde, u)
    low, high = (
        -0.5 * sde.log_snr(torch.tensor(end, dtype=torch.float64)) for end in (sde.eps, sde.T)
    )
    normal = torch.distributions.Normal(mean, std)
    inside = (normal.icdf(u) > low) & (normal.icdf(u) < high)
    noise = -0.5 * sde.log_snr(t)
    assert_close(normal.cdf(noise[inside]), u[inside], rtol=0, atol=1e-6)
    assert_close(noise, normal.icdf(u).clamp(low, high), rtol=1e-6, atol=1e-6)
    assert (weights == 1).all()


@pytest.mark.slow
@given(sdes(continuous=True))
def test_importance_sampled_times_have_density_g2_over_sigma2(sde):
    """The weight is the ratio of the densities, Z sigma^2 / g^2 / (T - eps)."""

    def density(t: torch.Tensor) -> torch.Tensor:
        return (sde.diffusion(t) / sde.sigma(t)) ** 2

    def integral(a: float, b: float) -> float:
        """By Gauss's rule on pieces over which the noise changes by a small factor."""
        ends = sde.times(8, spacing="log_snr").flip(0).clamp(a, b)
        x, w = (torch.from_numpy(v) for v in np.polynomial.legendre.leggauss(30))
        middle, half = (ends[1:] + ends[:-1]) / 2, ends.diff() / 2
        return float((density(middle[:, None] + half[:, None] * x) * w).sum(1) @ half)

    total = integral(sde.eps, sde.T)
    u = torch.tensor([0.2, 0.5, 0.9], dtype=torch.float64)
    t, weights = Importance()(sde, u)
    for i in range(3):
        share = integral(sde.eps, float(t[i])) / total
        assert min(abs(share - u[i]), abs(1 - share - u[i])) < 1e-6
        expected = total / float(density(t[i])) / (sde.T - sde.eps)
        assert float(weights[i]) == pytest.approx(expected, rel=1e-6)


@pytest.mark.law(44)
@pytest.mark.parametrize("name", continuous)
@pytest.mark.parametrize("power", [0, 1, 3])
def test_importance_weights_turn_averages_back_into_uniform_ones(name, power):
    sde = SDES[name]
    t, weights = Importance()(sde, midpoints(20_000))
    expected = (sde.T ** (power + 1) - sde.eps ** (power + 1)) / (power + 1) / (sde.T - sde.eps)
    assert float((weights * t**power).mean()) == pytest.approx(expected, rel=1e-4)


@given(sdes())
def test_importance_weights_of_levels_are_one_over_their_probabilities(sde):
    if sde.levels is None:
        return
    u = midpoints(50_000)
    t, weights = Importance()(sde, u)
    grid = sde.times().flip(0)
    expected = sde.coefficients(grid)[1] / sde.sigma(grid) ** 2
    expected = expected / expected.sum()
    counts = torch.bincount(sde.index(t), minlength=sde.levels) / len(u)
    assert_close(counts.double(), expected, rtol=0, atol=2 / len(u))
    assert_close(weights, 1 / (sde.levels * expected[sde.index(t)]), rtol=1e-9, atol=0)


BAD = {
    "zero steps": (lambda: VPSDE().times(0), InvalidValueError, "steps must lie in .*, got 0"),
    "negative steps": (
        lambda: VPSDE().times(-3),
        InvalidValueError,
        "steps must lie in .*, got -3",
    ),
    "half a step": (
        lambda: VPSDE().times(2.5),
        InvalidTypeError,
        "must be an integer or None, got 2.5",
    ),
    "true steps": (
        lambda: VPSDE().times(True),
        InvalidTypeError,
        "must be an integer or None, got True",
    ),
    "no steps": (lambda: VPSDE().times(), InvalidValueError, r"needs the number of steps"),
    "zero steps of levels": (
        lambda: VPSDE(levels=5).times(0),
        InvalidValueError,
        "steps must lie in .*, got 0",
    ),
    "an unknown name": (
        lambda: VPSDE().times(5, spacing="karas"),
        UnknownNameError,
        "unknown spacing 'karas'; did you mean 'karras'\\? choose from ays, ays_deepfloyd, ",
    ),
    "a name like none": (
        lambda: VPSDE().times(5, spacing="zzz"),
        UnknownNameError,
        "unknown spacing 'zzz'; choose from ays, ays_deepf",
    ),
    "geometric to zero": (
        lambda: VESDE().times(5, spacing="geometric"),
        InvalidValueError,
        "VESDE has eps = 0.0; use spacing='log_snr'",
    ),
    "log-snr without noise": (
        lambda: VPSDE(eps=0.0).times(5, spacing="log_snr"),
        InvalidValueError,
        "no noise at t = 0, ",
    ),
    "karras without noise": (
        lambda: FlowSDE(eps=0.0).times(5, spacing="karras"),
        InvalidValueError,
        "no noise at t = 0, ",
    ),
    "rho of zero": (
        lambda: spacings.Karras(0.0),
        InvalidValueError,
        "rho must be positive, got 0.0",
    ),
    "rho nan": (
        lambda: spacings.Karras(math.nan),
        InvalidValueError,
        "rho must be positive, got nan",
    ),
    "a table that rises": (
        lambda: spacings.AYS((0.1, 2.0)),
        InvalidValueError,
        r"at least two positive and decreasing sigmas, got \(0.1, 2.0\)",
    ),
    "a table of one": (lambda: spacings.AYS((0.1,)), InvalidValueError, "at least two positive"),
    "a table that ends at zero": (
        lambda: spacings.AYS((1.0, 0.0)),
        InvalidValueError,
        "at least two positive",
    ),
    "importance without noise": (
        lambda: EDMSDE(eps=0.0).sample_times(3, law=Importance(), generator=torch.Generator()),
        InvalidValueError,
        r"no noise at t = 0, .*importance sampling of times needs eps > 0",
    ),
    "width nan": (
        lambda: LogNormal(std=math.nan),
        InvalidValueError,
        "std must be finite, got nan",
    ),
    "mean nan": (
        lambda: LogNormal(mean=math.nan),
        InvalidValueError,
        "mean must be finite, got nan",
    ),
    "a spacing that is none": (
        lambda: VPSDE().times(5, spacing=7),
        InvalidTypeError,
        "spacing.*got 7",
    ),
    "a class in place of its object": (
        lambda: VPSDE().times(5, spacing=spacings.Karras),
        InvalidTypeError,
        "spacing must be a callable, a string or None",
    ),
    "a rho that overflows": (
        lambda: VPSDE().times(4, spacing=spacings.Karras(1e-3)),
        InvalidValueError,
        r"Karras\(rho=0.001\) does not give 5 decreasing times from T = 1.0 to eps = 0.001",
    ),
    "a spacing that rises": (
        lambda: VPSDE().times(4, spacing=lambda sde, n: torch.linspace(0, 1, n + 1)),
        InvalidValueError,
        "does not give 5 decreasing times",
    ),
    "a spacing of other steps": (
        lambda: VPSDE().times(4, spacing=lambda sde, n: torch.linspace(1, 0, n)),
        InvalidValueError,
        "does not give 5 decreasing times",
    ),
    "a negative number of times": (
        lambda: VPSDE().sample_times(-1, generator=torch.Generator()),
        InvalidValueError,
        "got -1",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_impossible_grids_and_laws_are_named(name):
    call, kind, message = BAD[name]
    with pytest.raises(kind, match=message) as caught:
        call()
    assert isinstance(caught.value, ScoreSDEError)


def test_times_of_a_user_defined_spacing_are_in_double_precision():
    t = VPSDE().times(4, spacing=lambda sde, n: torch.linspace(sde.T, sde.eps, n + 1))
    assert (t.dtype, t[-1]) == (torch.float64, 1e-3)


def test_numpy_integers_are_numbers_of_steps():
    assert torch.equal(VPSDE().times(np.int64(4)), VPSDE().times(4))


@given(sdes(), st.integers(1, 60), log_floats(1e-6, 1e6))
def test_times_about_a_size_are_half_even_in_log_snr_and_half_in_the_angle(sde, steps, size):
    steps = steps if sde.levels is None else min(steps, sde.levels - 1)
    t = spacings.times_about(sde, steps, size)
    assert t.shape == (steps + 1,)
    assert (t[0], t[-1]) == (sde.T, sde.eps)
    assert (t.diff() < 0).all()
    low, high = half_log_snr_range(sde).tolist()
    if sde.levels is not None or steps < 2:
        return
    size = min(max(size, math.exp(-high)), math.exp(-low))
    ell = half_log_snr(sde, t).clamp(max=high)
    phi = torch.atan(torch.exp(-ell) / size)
    place = (ell - low) / (high - low) + (phi[0] - phi) / (phi[0] - phi[-1])
    assert_close(place, torch.linspace(0, 2, steps + 1).double(), rtol=0, atol=2e-3)
