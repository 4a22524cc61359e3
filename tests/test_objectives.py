"""Test denoising score matching: its minimum, its weights and its times, mostly exactly."""

import functools
import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pytest
import torch
from given import Given
from hypothesis import given
from hypothesis import strategies as st
from outputs import Output, meant
from strategies import SDES, gaussians, generators, log_floats, sdes, shapes, times_of
from torch import nn
from torch.testing import assert_close

from scoresde import Noise, targets
from scoresde.errors import (
    InvalidTypeError,
    InvalidValueError,
    NonFiniteError,
    ShapeError,
)
from scoresde.objectives import (
    WEIGHTS,
    LearnedWeight,
    dsm_floor,
    dsm_loss,
    edm,
    flow,
    g2,
    ism_loss,
    min_snr,
    passing,
    perturb,
    power,
    sigma2,
    ssm_loss,
)
from scoresde.score import ScoreModel
from scoresde.sde import (
    EDMSDE,
    VESDE,
    VPSDE,
    FlowSDE,
    Importance,
    LogNormal,
    Moments,
    NCSNLadder,
    TimeLaw,
    expand,
)


def loss_at(model, sde, x, z, t, **options):
    """Return the loss with this noise in place of a random one."""
    return dsm_loss(model, sde, x, t=t, noise=Given(z), **options)


NODES, MASSES = (torch.from_numpy(a) for a in np.polynomial.hermite_e.hermegauss(20))
MASSES = MASSES / MASSES.sum()


def expected_loss(model, sde, t, mean, var, **options):
    """Return the mean of the loss over data N(mean, var) and noise, by Gauss-Hermite quadrature."""
    u, z = torch.cartesian_prod(NODES, NODES).T
    losses = loss_at(model, sde, (mean + math.sqrt(var) * u)[:, None], z[:, None], t, **options)
    return (torch.outer(MASSES, MASSES).flatten() * losses).sum()


def exact_expectation(model, sde, t, data, **options):
    """Return the same for data of several dimensions and a score affine in x: a quadratic loss.

    Over N(0, I) in n dimensions a quadratic has the mean of its values at +- sqrt(n) e_i.
    """
    shape = torch.as_tensor(data.mean).shape
    size = math.prod(shape)
    points = math.sqrt(2 * size) * torch.eye(2 * size, dtype=torch.float64)
    u, z = (half.reshape(-1, *shape) for half in torch.cat([points, -points]).chunk(2, dim=1))
    return loss_at(model, sde, data.sample(u), z, t, **options).mean()


def gaussian(data):
    spread = {"var": data.var} if data.cov is None else {"cov": data.cov}
    return targets.Gaussian(data.mean, **spread)


# The minimum


@pytest.mark.slow
@pytest.mark.law(40)
@given(sde=sdes(), mean=st.floats(-3, 3), var=log_floats(1e-3, 10), data=st.data())
def test_the_best_linear_score_is_the_score_of_the_gaussian(sde, mean, var, data):
    """For s = a x + b the gradient vanishes at a = -1 / V, b = alpha mu / V."""
    t = data.draw(times_of(sde))
    alpha, sigma = float(sde.alpha(t)), float(sde.sigma(t))
    total = alpha**2 * var + sigma**2
    ab = torch.tensor([-1 / total, alpha * mean / total], dtype=torch.float64, requires_grad=True)

    def score(x, t):
        return ab[0] * x + ab[1]

    gradient = torch.autograd.grad(expected_loss(score, sde, t, mean, var), ab)[0]
    # what cancels in it: 2 sigma (sigma s + z) x, and the same without x
    reach = abs(alpha * mean) + math.sqrt(total)
    scale = 2 * sigma * (1 + sigma * reach / total) * torch.tensor([reach, 1.0])
    assert (gradient.abs() <= 1e-10 * scale).all()


@pytest.mark.law(40)
@given(sde=sdes(), mean=st.floats(-3, 3), var=log_floats(1e-3, 10), data=st.data())
def test_any_other_linear_score_loses_more(sde, mean, var, data):
    t = data.draw(times_of(sde))
    alpha, sigma = float(sde.alpha(t)), float(sde.sigma(t))
    total = alpha**2 * var + sigma**2
    slope, shift = data.draw(st.floats(-3, 3)), data.draw(st.floats(-3, 3))

    def score(x, t):
        centred = x - alpha * mean
        return (-1 + slope) * centred / total + shift / math.sqrt(total)

    loss = expected_loss(score, sde, t, mean, var)
    floor = dsm_floor(sde, t, Moments(0.0, var=torch.tensor([var], dtype=torch.float64)))
    # E |s - grad log p|^2 = (slope^2 + shift^2) / V
    excess = sigma**2 * (slope**2 + shift**2) / total
    assert_close(loss, floor + excess, rtol=1e-9, atol=1e-11)


@pytest.mark.slow
@pytest.mark.law(41)
@pytest.mark.parametrize("weight", [sigma2, g2, edm(0.5)])
@pytest.mark.parametrize("full", [False, True])
@given(sde=sdes(), data=st.data())
def test_the_floor_is_the_loss_of_the_exact_score(full, weight, sde, data):
    t = data.draw(times_of(sde))
    moments = data.draw(gaussians(data.draw(shapes(1, 2)), full=full))
    score = gaussian(moments).at(sde)
    loss = exact_expectation(score, sde, t, moments, weight=weight)
    alpha, sigma = float(sde.alpha(t)), float(sde.sigma(t))
    rounding = 1e-11 * float(weight(sde, t)) / sigma**2 * (1 + 10 * alpha / sigma)
    assert_close(loss, dsm_floor(sde, t, moments, weight=weight), rtol=1e-9, atol=rounding)


@pytest.mark.law(41)
def test_the_floor_in_figures():
    """VE at sigma = 1, two dimensions of variance 1/4: 2 * (1/4) / (1/4 + 1) = .4, and not 0."""
    t = VESDE().time(torch.zeros((), dtype=torch.float64))
    floor = dsm_floor(VESDE(), t, Moments(0.0, var=torch.full((2,), 0.25)))
    assert_close(floor, torch.tensor(0.4, dtype=torch.float64))
    assert dsm_floor(VESDE(), torch.zeros(2, 3), Moments(0.0, var=torch.ones(4))).shape == (2, 3)


def test_there_is_no_floor_without_noise():
    with pytest.raises(
        InvalidValueError,
        match=r"no noise at t = 0, where sigma is 0; choose times at or above eps",
    ):
        dsm_floor(VPSDE(), 0.0, Moments(0.0, var=torch.ones(4)))


# Times


@dataclass(frozen=True)
class ImportantVP(VPSDE):
    time_law: ClassVar[TimeLaw] = Importance()


@dataclass(frozen=True)
class LogNormalVP(VPSDE):
    time_law: ClassVar[TimeLaw] = LogNormal(0.0, 1.2)


@pytest.mark.slow
@pytest.mark.law(43)
@pytest.mark.parametrize("sde", [VPSDE(), ImportantVP(), VPSDE(levels=9), ImportantVP(levels=9)])
def test_the_mean_over_random_times_is_the_mean_over_all_times(sde):
    """However the times are drawn; 5 standard errors of 200,000 samples."""
    generator = torch.Generator().manual_seed(0)
    n, data = 200_000, Moments(torch.tensor([0.5]), var=torch.tensor([0.25]))
    x = 0.5 + 0.5 * torch.randn(n, 1, generator=generator, dtype=torch.float64)
    losses = dsm_loss(lambda x, t: -x, sde, x, generator=generator)
    grid = torch.linspace(sde.eps, sde.T, 20_001 if sde.levels is None else sde.levels).double()
    alpha, sigma = sde.alpha(grid), sde.sigma(grid)
    # E |sigma (-x) + z|^2, in closed form
    exact = sigma**2 * alpha**2 * (0.25 + 0.5**2) + (1 - sigma**2) ** 2
    expected = exact.mean() if sde.levels else torch.trapezoid(exact, grid) / (sde.T - sde.eps)
    assert abs(losses.mean() - expected) <= 5 * losses.std() / math.sqrt(n)
    floor = dsm_floor(sde, grid, data)
    assert (exact >= floor).all()


def of_a_score_that_is_zero(sde, n, **options):
    """Return the losses of n samples at the origin, their times and their noise."""
    x, seen = torch.zeros(n, 3, dtype=torch.float64), []

    def score(x, t):
        seen.extend((x, t))
        return 0 * x

    losses = dsm_loss(score, sde, x, noise=Noise.of(0, n), **options)
    state, t = seen
    return losses, t, state / expand(sde.sigma(t), x)


def test_a_law_that_is_part_of_the_objective_is_not_weighted_away():
    losses, t, z = of_a_score_that_is_zero(LogNormalVP(), 1000)
    sde = LogNormalVP()
    assert_close(losses, (z**2).sum(1))
    log_ratio = (sde.sigma(t) / sde.alpha(t)).log()
    assert abs(log_ratio.mean()) <= 5 * 1.2 / math.sqrt(1000)


@pytest.mark.law(44)
@pytest.mark.parametrize("sde", [ImportantVP(), ImportantVP(levels=9)])
def test_importance_sampling_flattens_the_likelihood_weight(sde):
    """With p(t) ~ g^2 / sigma^2 each error in the noise counts the same, Z / (T - eps)."""
    losses, _, z = of_a_score_that_is_zero(sde, 500, weight=g2)
    scale = losses / (z**2).sum(1)
    ends = sde.log_snr(torch.tensor([sde.eps, sde.T], dtype=torch.float64))
    exact = (ends[0] - ends[1]) / (sde.T - sde.eps)
    if sde.levels:
        grid = sde.times()
        exact = (g2(sde, grid) / sde.sigma(grid) ** 2).mean()
    assert_close(scale, exact.expand(500), rtol=1e-10, atol=0)


@given(levels=st.integers(2, 60), low=log_floats(1e-3, 1), data=st.data())
def test_a_geometric_ladder_has_the_losses_of_ve_with_levels(levels, low, data):
    high = low * data.draw(log_floats(2, 1e5))
    ve, ladder = VESDE(low, high, levels=levels), NCSNLadder.geometric(low, high, levels)
    x = torch.randn(5, 3, generator=data.draw(generators()), dtype=torch.float64)
    seed = data.draw(st.integers(0, 2**32))
    losses = []
    for sde in (ve, ladder):
        model = ScoreModel(Output(), sde, (3,)).double()
        losses.append(dsm_loss(model, sde, x, generator=torch.Generator().manual_seed(seed)))
    assert_close(*losses, rtol=1e-12, atol=1e-12)


# Weights


WEIGHT_OF = {
    "eps": sigma2,
    "x0": lambda sde, t: sde.sigma(t) ** 4 / sde.alpha(t) ** 2,
    "v": lambda sde, t: (
        sde.sigma(t) ** 2 * (sde.alpha(t) ** 2 + sde.sigma(t) ** 2) ** 2 / sde.alpha(t) ** 2
    ),
    "flow": lambda sde, t: (g2(sde, t) / 2) ** 2,
    "score": power(0),
    "sigma_score": sigma2,
}


@pytest.mark.slow
@pytest.mark.law(44)
@pytest.mark.parametrize("name", [*WEIGHT_OF, "edm"])
@given(sde=sdes(), shape=shapes(2, 3), var=log_floats(1e-2, 10), data=st.data())
def test_each_parameterisation_has_a_weight_under_which_the_loss_is_its_own_error(
    name, sde, shape, var, data
):
    """sigma^2 |ds|^2 = |d eps|^2 = (alpha / sigma)^2 |d x0|^2 = ...; EDM's weight is that of F."""
    t, generator = data.draw(times_of(sde)), data.draw(generators())
    x0, z, out = torch.randn(3, *shape, generator=generator, dtype=torch.float64)
    var = float(torch.tensor(var))
    target, size = meant(name, sde, t, var, x0, z)
    model = ScoreModel(Output(target + out), sde, shape[1:], name, Moments(0.0, var=var)).double()
    weight = edm(var) if name == "edm" else WEIGHT_OF[name]
    loss = loss_at(model, sde, x0, z, t, weight=weight)
    alpha, sigma = float(sde.alpha(t)), float(sde.sigma(t))
    # digits of `out` that are lost beside the target, and those of x beside its noise
    rounding = 1e-11 * (1 + float(size.max())) * (1 + alpha / sigma + sigma / alpha)
    assert_close(loss, (out**2).flatten(1).sum(1), rtol=rounding, atol=rounding)


@given(sde=sdes(), data=st.data())
def test_weights_by_name_are_what_they_say(sde, data):
    t = data.draw(times_of(sde))
    assert set(WEIGHTS) == {"sigma2", "g2", "flow", "edm", "min_snr", "power"}
    sigma, g, alpha = sde.sigma(t), sde.diffusion(t), sde.alpha(t)
    assert_close(WEIGHTS["sigma2"](sde, t), sigma**2, rtol=1e-14, atol=0)
    assert_close(WEIGHTS["g2"](sde, t), g**2, rtol=1e-12, atol=0)
    noise = sigma / alpha
    assert_close(WEIGHTS["edm"](sde, t), sigma**2 * (1 + noise**2), rtol=1e-12, atol=0)
    # on the denoiser's error, (alpha / sigma^2)^2 of it, the lesser of SNR and 5
    of_denoiser = WEIGHTS["min_snr"](sde, t) / noise**2 / sigma**2
    assert_close(of_denoiser, (1 / noise**2).clamp(max=5), rtol=1e-12, atol=0)
    snr = alpha**2 * 0.3 / sigma**2
    found = min_snr(2.0, var=0.3)(sde, t)
    assert_close(found, sigma**2 * (2.0 / snr).clamp(max=1), rtol=1e-12, atol=0)
    for p in (0.0, 1.0, 2.5):
        assert_close(power(p)(sde, t), sigma**p, rtol=1e-12, atol=0)


@given(sde=sdes(), data=st.data())
def test_the_weight_multiplies_the_squared_error_of_the_score(sde, data):
    """lambda |s + z / sigma|^2: no half, summed over the event."""
    t, shape = data.draw(times_of(sde)), data.draw(shapes())
    x, z = torch.randn(2, *shape, generator=data.draw(generators()), dtype=torch.float64)
    for weight in WEIGHTS.values():
        loss = loss_at(lambda x, t: torch.sin(x), sde, x, z, t, weight=weight)
        alpha, sigma = float(sde.alpha(t)), float(sde.sigma(t))
        error = torch.sin(alpha * x + sigma * z) + z / sigma
        by_hand = float(weight(sde, t)) * (error**2).reshape(len(x), -1).sum(1)
        assert_close(loss, by_hand, rtol=1e-10, atol=1e-10)


# What it is a function of


@pytest.mark.law(46)
@given(st.data())
def test_the_loss_of_a_sample_does_not_depend_on_its_batch_mates(data):
    sde, shape = data.draw(sdes()), data.draw(shapes(1, 4))
    x, z = torch.randn(2, *shape, generator=data.draw(generators()), dtype=torch.float64)
    t = torch.stack([data.draw(times_of(sde)) for _ in range(len(x))])
    together = loss_at(lambda x, t: torch.sin(x) * expand(t, x), sde, x, z, t)
    assert together.shape == (len(x),)
    for i in range(len(x)):
        one = slice(i, i + 1)
        alone = loss_at(lambda x, t: torch.sin(x) * expand(t, x), sde, x[one], z[one], t[one])
        assert_close(alone, together[one], rtol=1e-12, atol=1e-12)


@given(t=st.floats(1e-3, 1), seed=st.integers(0, 2**32))
def test_one_time_for_all_is_that_time_for_each(t, seed):
    x = torch.randn(3, 2, generator=torch.Generator().manual_seed(1))

    def loss(t):
        generator = torch.Generator().manual_seed(seed)
        return dsm_loss(lambda x, t: -x * t[:, None], VPSDE(), x, t=t, generator=generator)

    for same in (torch.tensor(t, dtype=torch.float64), torch.full((3,), t, dtype=torch.float64)):
        assert torch.equal(loss(same), loss(t))


def test_a_generator_determines_the_loss():
    x = torch.zeros(8, 2)

    def loss(seed):
        generator = torch.Generator().manual_seed(seed)
        return dsm_loss(lambda x, t: 0 * x, VPSDE(), x, generator=generator)

    assert torch.equal(loss(1), loss(1))
    assert not torch.equal(loss(1), loss(2))


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64])
@pytest.mark.parametrize("shape", [(0, 3), (2,), (4, 1, 2, 3)])
def test_the_loss_is_one_number_a_sample_in_the_dtype_of_the_data(shape, dtype):
    seen = []

    def score(x, t):
        seen.append((x.dtype, t.dtype, tuple(t.shape)))
        return -x

    generator = torch.Generator().manual_seed(0)
    loss = dsm_loss(score, VPSDE(), torch.zeros(shape, dtype=dtype), generator=generator)
    assert loss.shape == shape[:1]
    assert loss.dtype == dtype
    time = torch.promote_types(dtype, torch.float32)  # half precision is too coarse for times
    assert seen == ([(dtype, time, shape[:1])] if shape[0] else [])


def test_the_loss_teaches_the_weights_and_hands_on_the_condition():
    net = Output(torch.zeros(2, requires_grad=True))
    model, label = ScoreModel(net, VESDE(), (2,)), torch.tensor([1, 0, 2])
    generator = torch.Generator().manual_seed(0)
    x, condition = torch.ones(3, 2), {"label": label}
    dsm_loss(model, VESDE(), x, condition=condition, generator=generator).mean().backward()
    assert (net.out.grad != 0).all()
    assert torch.equal(net.asked[0][2]["label"], label)


# What it refuses


def run(x=None, model=lambda x, t: -x, sde=None, **options):
    x = torch.zeros(2, 3) if x is None else x
    generator = torch.Generator().manual_seed(0)
    return dsm_loss(model, sde or VPSDE(), x, generator=generator, **options)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int64, torch.bool])
def test_bytes_and_integers_are_refused_as_data(dtype):
    message = r"x must be floating point, got .*8-bit images: x\.float\(\) / 127\.5 - 1"
    with pytest.raises(InvalidTypeError, match=message):
        run(torch.zeros(2, 3, dtype=dtype))


def test_an_allowed_nan_of_the_data_affects_only_the_loss_of_its_sample():
    model = ScoreModel(nn.Identity(), VPSDE(), (2,))
    x = torch.tensor([[math.nan, 0.0], [1.0, 0.0], [0.0, math.inf]])
    model.net.forward = lambda x, c: x
    with passing():
        loss = dsm_loss(model, model.sde, x, t=0.5, noise=Noise.of(0, 3))
    assert loss.isfinite().tolist() == [False, True, False]


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_data_with_a_nan_or_an_infinity_are_refused(value):
    with pytest.raises(NonFiniteError, match="x holds NaN or infinity; remove or repair"):
        run(torch.tensor([[0.0, value]]))


@pytest.mark.parametrize(
    ("t", "error", "message"),
    [
        (
            0.0,
            InvalidValueError,
            "no noise at t = 0, where sigma is 0; choose times at or above eps = 0.001",
        ),
        (1.5, InvalidValueError, r"time must lie in \[0, 1.0\], got .*1.5"),
        (-0.1, InvalidValueError, r"time must lie in \[0, 1.0\], got .*-0.1"),
        (math.nan, InvalidValueError, r"time must lie in \[0, 1.0\], got .*nan"),
        (torch.full((3,), 0.5), ShapeError, r"time must have shape \(\) or \(B,\) = \(2,\), got"),
        (torch.full((2, 1), 0.5), ShapeError, r"time must have shape \(\) or \(B,\) = \(2,\), got"),
    ],
)
def test_an_impossible_time_is_refused(t, error, message):
    with pytest.raises(error, match=message):
        run(t=t)


def test_the_sde_of_another_model_is_refused():
    with pytest.raises(InvalidValueError, match=r"this score belongs to VESDE\(.*, not to VPSDE\("):
        run(model=ScoreModel(nn.Identity(), VESDE(), (3,)))


@pytest.mark.parametrize("shape", [(2, 1), (2, 6), (1, 3), (3,), ()])
def test_a_score_of_another_shape_is_refused_and_never_broadcast(shape):
    message = r"the score must return the shape of its input, expected \(2, 3\), got "
    with pytest.raises(ShapeError, match=message):
        run(model=lambda x, t: torch.zeros(shape))


def test_a_score_that_is_no_tensor_is_refused():
    with pytest.raises(InvalidTypeError, match="the score must return a tensor, got tuple"):
        run(model=lambda x, t: (x, t))


def test_weights_refuse_impossible_numbers():
    for value in (0.0, -1.0, math.nan):
        for weight in (edm, lambda var: min_snr(5.0, var)):
            with pytest.raises(InvalidValueError, match="var must be positive, got "):
                weight(value)
        with pytest.raises(InvalidValueError, match="gamma must be positive, got "):
            min_snr(value)
    for value in (-1.0, math.nan):
        with pytest.raises(InvalidValueError, match="the power must be finite and >= 0, got "):
            power(value)


def test_importance_sampling_needs_noise_at_eps():
    with pytest.raises(
        InvalidValueError, match=r"no noise at t = 0, where sigma is 0; importance sampling"
    ):
        run(sde=ImportantVP(eps=0.0))


def test_every_sde_can_be_trained_at_its_own_times():
    for sde in SDES.values():
        losses = run(sde=sde, model=lambda x, t: 0 * x, x=torch.zeros(50, 3))
        assert losses.isfinite().all()
        assert (losses > 0).all()


def test_a_weight_is_a_function_and_has_the_shape_of_its_times():
    x = torch.zeros(3, 2)
    with pytest.raises(InvalidTypeError, match="weight must be a callable"):
        dsm_loss(lambda x, t: -x, VPSDE(), x, weight="edm", generator=torch.Generator())
    with pytest.raises(ShapeError, match=r"its times' shape, \(3,\), got \(3, 1\)"):
        dsm_loss(
            lambda x, t: -x,
            VPSDE(),
            x,
            weight=lambda sde, t: sde.sigma(t)[:, None],
            generator=torch.Generator(),
        )


@pytest.mark.law(80)
@given(t=st.floats(0.01, 0.99), shape=shapes(2, 4), seed=st.integers(0, 2**32 - 1))
def test_flow_matching_is_denoising_score_matching_with_its_weight(t, shape, seed):
    """L80: |v - (z - x_0)|^2 with v = f x - g^2 s / 2, the velocity that a score implies."""
    sde, generator = FlowSDE(), torch.Generator().manual_seed(seed)
    x0 = torch.randn(shape, generator=generator, dtype=torch.float64)
    noise = Noise.of(seed, len(x0))
    p = perturb(lambda x, t: torch.sin(x), sde, x0, t=t, noise=noise)
    velocity = -p.x / (1 - t) - t / (1 - t) * torch.sin(p.x)
    expected = (velocity - (p.z - x0)).square().flatten(1).sum(1)
    loss = dsm_loss(lambda x, t: torch.sin(x), sde, x0, t=t, noise=noise, weight=flow)
    assert_close(loss, expected, rtol=1e-12, atol=1e-12 / (1 - t) ** 2)


def test_a_floor_takes_a_number_for_its_time_and_one_variance_for_all_entries():
    whole = dsm_floor(EDMSDE(), 1.0, Moments(0.0, var=torch.ones(3)))
    assert whole == 1.5
    assert dsm_floor(EDMSDE(), 1.0, Moments(torch.zeros(3), var=1.0)) == whole


def test_a_learned_weight_refuses_a_loss_whose_weight_would_be_ignored():
    for bound in ({"weight": edm(0.25)}, {"law": LogNormal()}):
        with pytest.raises(InvalidValueError, match="would be ignored"):
            LearnedWeight(functools.partial(dsm_loss, **bound))


@pytest.mark.parametrize("loss", [ism_loss, functools.partial(ssm_loss, projection="rademacher")])
def test_a_learned_weight_refuses_a_loss_that_has_no_uncertainty(loss):
    with pytest.raises(InvalidValueError, match="is negative near its minimum"):
        LearnedWeight(loss)


def test_a_negative_weight_is_refused():
    with pytest.raises(InvalidValueError, match="the weight is negative"):
        run(weight=lambda sde, t: -sde.sigma(t))
    with pytest.raises(InvalidValueError, match="the weight is negative"):
        dsm_floor(VPSDE(), 0.5, Moments(0.0, var=1.0), weight=lambda sde, t: -t)
