"""Test that implicit score matching agrees with denoising, by quadrature."""

import itertools
import math

import numpy as np
import pytest
import torch
from given import Given
from hypothesis import given
from hypothesis import strategies as st
from strategies import SDES, dtypes, generators, log_floats, sdes, shapes, times_of
from torch.testing import assert_close

from scoresde import nn, targets
from scoresde.errors import (
    InvalidTypeError,
    InvalidValueError,
    NonFiniteError,
    ShapeError,
    UnknownNameError,
)
from scoresde.objectives import dsm_loss, fd_ssm_loss, ism_loss, power, sigma2, ssm_loss
from scoresde.score import EnergyScore, ScoreModel
from scoresde.sde import EDMSDE, VESDE, VPSDE, FlowSDE, expand

IMPLICIT = {"ism": ism_loss, "ssm": ssm_loss, "fd_ssm": fd_ssm_loss}
PROJECTIONS = ("rademacher", "gaussian", "sphere")
NODES, MASSES = (torch.from_numpy(a) for a in np.polynomial.hermite_e.hermegauss(5))
MASSES = MASSES / MASSES.sum()
SIGNS = torch.tensor(list(itertools.product([-1.0, 1.0], repeat=2)), dtype=torch.float64)


def quadrature(mixture):
    """Points, noise, directions and masses that integrate polynomials of degree 9 in the plane.

    The data are a mixture with isotropic components, the directions all pairs of signs.
    """
    u = torch.cartesian_prod(*[NODES] * 4)
    mass = torch.cartesian_prod(*[MASSES] * 4).prod(1)
    std = mixture.components.variances.sqrt()
    x = torch.cat([m + s * u[:, :2] for m, s in zip(mixture.means, std, strict=True)])
    z, mass = u[:, 2:].repeat(len(std), 1), torch.cat([w * mass for w in mixture.weights])
    rows = torch.arange(len(x)).repeat_interleave(4)
    return x[rows], z[rows], SIGNS.repeat(len(x), 1), mass[rows] / 4


def quadratic(theta, scale, centre=0.0):
    """Return a score with six free numbers for each of its two entries, quadratic in x."""

    def score(x, t):
        y = (x - centre) / scale
        one = torch.ones_like(y[:, :1])
        features = torch.cat([one, y, y**2, y[:, :1] * y[:, 1:]], 1)
        return features @ theta / scale

    return score


@st.composite
def mixtures(draw):
    means = draw(st.lists(st.floats(-2, 2), min_size=4, max_size=4))
    stds = [draw(log_floats(0.1, 2)) for _ in range(2)]
    weight = draw(st.floats(0.1, 0.9))
    means = torch.tensor(means, dtype=torch.float64).reshape(2, 2)
    return targets.GaussianMixture([weight, 1 - weight], means, stds=stds)


# The same gradient as denoising


@pytest.mark.slow
@pytest.mark.law(42)
@pytest.mark.parametrize("name", IMPLICIT)
@given(sde=sdes(), mixture=mixtures(), data=st.data())
def test_the_gradient_is_that_of_denoising(name, sde, mixture, data):
    """On a mixture of two Gaussians in the plane, for any quadratic score, integrated exactly."""
    t = data.draw(times_of(sde))
    x, z, v, mass = quadrature(mixture)
    alpha, sigma = float(sde.alpha(t)), float(sde.sigma(t))
    reach = math.sqrt(alpha**2 * 8 + sigma**2)
    theta = torch.randn(6, 2, generator=data.draw(generators()), dtype=torch.float64)
    theta.requires_grad_()
    score = quadratic(theta, reach)
    # the mean of two slopes is free of the third derivative, which a quadratic has not
    options = dict(step=1e-3 * reach / sigma) if name == "fd_ssm" else {}

    def gradient(loss, **options):
        noise = Given(z, v)
        value = loss(score, sde, x, t=t, weight=power(0), noise=noise, **options)
        return torch.autograd.grad((mass * value).sum(), theta)[0] * reach**2

    ours, theirs = gradient(IMPLICIT[name], **options), gradient(dsm_loss)
    # (s+ + s-) / 2 is s + h^2 s'' / 2
    tolerance = 1e-4 if name == "fd_ssm" else 1e-8
    assert_close(ours, theirs, rtol=tolerance, atol=tolerance * float(1 + reach / sigma))
    controlled = gradient(dsm_loss, control_variate=True)
    assert_close(controlled, theirs, rtol=1e-8, atol=1e-8 * float(1 + reach / sigma))


@pytest.mark.slow
@pytest.mark.law(42)
@pytest.mark.parametrize("loss", [ism_loss, ssm_loss], ids=["ism", "ssm"])
@given(sde=sdes(), mean=st.floats(-3, 3), std=log_floats(0.1, 3), data=st.data())
def test_the_loss_is_the_fisher_divergence_up_to_a_constant(loss, sde, mean, std, data):
    """E loss(s) - E loss(grad log p) = lambda E |s - grad log p|^2: no half, summed, weighted."""
    t = data.draw(times_of(sde))
    target = targets.GaussianMixture([0.5, 0.5], [[mean, 0.0]] * 2, stds=std)
    x, z, v, mass = quadrature(target)
    alpha, sigma = float(sde.alpha(t)), float(sde.sigma(t))
    total = math.sqrt(alpha**2 * std**2 + sigma**2)
    theta = torch.randn(6, 2, generator=data.draw(generators()), dtype=torch.float64)
    centre = torch.tensor([alpha * mean, 0.0], dtype=torch.float64)
    score, exact = quadratic(theta, total, centre), target.at(sde)

    def expected(score):
        value = loss(score, sde, x, t=t, weight=sigma2, noise=Given(z, v))
        return (mass * value).sum()

    state = alpha * x + sigma * z
    gap = (score(state, t) - exact(state, t)).pow(2).sum(1)
    divergence = sigma**2 * (mass * gap).sum()
    assert_close(expected(score) - expected(exact), divergence, rtol=1e-8, atol=1e-9)


@pytest.mark.parametrize("name", IMPLICIT)
@pytest.mark.parametrize("sde", [VPSDE(), EDMSDE(), FlowSDE()], ids=lambda s: type(s).__name__)
def test_without_noise_the_best_linear_score_is_that_of_the_data(name, sde):
    """At t = 0 the gradient vanishes at s = -(x - mu) / v: the naive model needs no code."""
    target = targets.Gaussian([1.0, -2.0], var=0.5)
    x, z, v, mass = quadrature(targets.GaussianMixture([1.0], [[1.0, -2.0]], stds=math.sqrt(0.5)))
    slope = torch.full((2,), -2.0, dtype=torch.float64, requires_grad=True)
    shift = torch.tensor([2.0, -4.0], dtype=torch.float64, requires_grad=True)

    def score(x, t):
        assert (t == 0).all()
        return slope * x + shift

    assert_close(score(x, torch.zeros(1)), target.score(x))
    options = dict(t=0.0, weight=power(0), noise=Given(z, v))
    value = IMPLICIT[name](score, sde, x, **options)
    loss = (mass * value).sum()
    assert_close(loss, torch.tensor(2 * -2.0 * 2 + 2 / 0.5, dtype=torch.float64))  # 2 tr + E|s|^2
    for gradient in torch.autograd.grad(loss, (slope, shift)):
        assert gradient.abs().max() < 1e-9


@given(seed=st.integers(0, 2**32), projection=st.sampled_from(PROJECTIONS))
def test_finite_differences_err_by_the_second_order_of_their_step(seed, projection):
    """Against the derivative along the same direction: a fourth for half of the step."""
    x = torch.randn(200, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)

    def score(x, t):
        return torch.sin(2 * x.roll(1, 1)) - x**3

    def loss(function, **options):
        generator = torch.Generator().manual_seed(seed)
        options |= dict(projection=projection, t=0.3, generator=generator)
        return function(score, VPSDE(), x, **options).detach()

    exact = loss(ssm_loss)
    errors = [float((loss(fd_ssm_loss, step=h) - exact).abs().mean()) for h in (0.04, 0.02, 0.01)]
    for coarse, fine in itertools.pairwise(errors):
        assert 1.95 < math.log2(coarse / fine) < 2.05


@given(sde=sdes(), step=log_floats(1e-3, 0.5), data=st.data())
def test_the_step_of_finite_differences_is_in_units_of_the_noise(sde, step, data):
    t, seen = data.draw(times_of(sde)), []
    x = torch.randn(5, 3, generator=data.draw(generators()), dtype=torch.float64)
    options = dict(step=step, generator=data.draw(generators()))
    fd_ssm_loss(lambda x, t: seen.append(x) or -x, sde, x, t=t, **options)
    # where there is none, it is the step itself
    fd_ssm_loss(lambda x, t: seen.append(x) or -x, EDMSDE(), x, t=0.0, weight=power(0), **options)
    for (plus, minus), size in zip((seen[:2], seen[2:]), (sde.sigma(t), 1.0), strict=True):
        width = torch.full_like(x, step * float(size))
        assert_close((plus - minus).abs() / 2, width, rtol=1e-6, atol=1e-13)


# Directions


@pytest.mark.law(42)
@pytest.mark.parametrize("projection", PROJECTIONS)
def test_every_projection_has_the_identity_for_its_second_moment(projection):
    """Seen through a score s = A x: E v^T A v = tr A, within 5 standard errors of 100,000."""
    a = torch.tensor([[1.0, 2.0], [-0.5, 3.0]], dtype=torch.float64)
    x = torch.zeros(100_000, 2, dtype=torch.float64)
    generator = torch.Generator().manual_seed(0)
    options = dict(t=0.0, weight=power(0), projection=projection, generator=generator)
    slope = ssm_loss(lambda x, t: x @ a.T, EDMSDE(), x, **options) / 2  # the score is 0 at x = 0
    assert abs(slope.mean() - 4) <= 5 * slope.std() / math.sqrt(len(x))
    s = (a + a.T) / 2
    # of one vector of signs 2 (|S|^2 - sum a_ii^2), of a normal one 2 |S|^2
    variance = 2 * s.pow(2).sum() - (2 * s.diagonal().pow(2).sum()) * (projection == "rademacher")
    if projection != "sphere":
        assert_close(slope.var(), variance, rtol=0.05, atol=0)


@pytest.mark.slow
@given(projection=st.sampled_from(PROJECTIONS), generator=generators())
def test_both_forms_of_sliced_score_matching_have_one_mean(projection, generator):
    """And the reduced one the smaller variance, on a Gaussian's score."""
    target = targets.Gaussian([0.0, 1.0, 0.5], var=0.7)
    x = target.sample(20_000, generator=generator, dtype=torch.float64)
    options = dict(t=0.5, projection=projection)
    state = generator.get_state()
    plain, reduced = (
        ssm_loss(
            target.at(VPSDE()), VPSDE(), x, variance_reduced=form,
            generator=generator.set_state(state), **options,
        )
        for form in (False, True)
    )  # fmt: skip
    gap = plain - reduced
    assert abs(gap.mean()) <= 6 * gap.std() / math.sqrt(len(x))
    assert reduced.var() < plain.var()


@pytest.mark.slow
@given(exact=st.integers(0, 6), generator=generators())
def test_the_trace_is_exact_up_to_the_stated_size(exact, generator):
    """Hutchinson's estimate above it; for a separable score both are the same number."""
    x = torch.randn(5, 2, 2, generator=generator, dtype=torch.float64)

    def separable(x, t):
        return torch.sin(x)

    def mixing(x, t):
        return torch.sin(x + 2 * x.flip(1))

    state = generator.get_state()

    def run(loss, score, **options):
        generator.set_state(state)
        return loss(score, VPSDE(), x, generator=generator, **options)

    assert_close(run(ism_loss, separable, exact=exact), run(ssm_loss, separable))
    same = torch.allclose(run(ism_loss, mixing, exact=exact), run(ssm_loss, mixing))
    assert same == (exact < 4)


# What they are functions of


@pytest.mark.slow
@pytest.mark.parametrize("name", IMPLICIT)
@given(sde=sdes(), shape=shapes(1, 4), dtype=dtypes(), data=st.data())
def test_the_loss_of_a_sample_is_one_number_that_does_not_depend_on_the_batch(
    name, sde, shape, dtype, data
):
    generator = data.draw(generators())
    x, z, v = torch.randn(3, *shape, generator=generator, dtype=dtype)
    t = torch.stack([data.draw(times_of(sde)) for _ in range(len(x))])

    def loss(rows):
        def score(x, t):
            return torch.tanh(x) * expand(t, x)

        noise = Given(z[rows], v[rows])
        losses = IMPLICIT[name](score, sde, x[rows], t=t[rows], noise=noise)
        assert losses.dtype == dtype
        return losses.detach()

    whole = loss(slice(None))
    assert whole.shape == (len(x),)
    assert whole.isfinite().all()
    for i in range(len(x)):
        one = slice(i, i + 1)
        assert_close(loss(one), whole[one], rtol=1e-5, atol=1e-5 * float(whole.abs().max()))


@pytest.mark.global_rng  # the first weights
@pytest.mark.parametrize("name", IMPLICIT)
def test_a_generator_determines_the_loss_with_and_without_gradients(name):
    x = torch.ones(6, 2)
    model = ScoreModel(nn.MLP(2, hidden=(8,)), VESDE(0.1, 5.0), (2,))

    def loss(seed):
        return IMPLICIT[name](
            model, VESDE(0.1, 5.0), x, generator=torch.Generator().manual_seed(seed)
        )

    learned = loss(1)
    assert learned.requires_grad
    learned.mean().backward()
    assert any((p.grad != 0).any() for p in model.parameters() if p.grad is not None)
    with torch.no_grad():
        measured = loss(1)
    assert not measured.requires_grad
    assert torch.equal(measured, learned)
    assert not torch.equal(measured, loss(2))


@pytest.mark.parametrize("name", IMPLICIT)
@pytest.mark.parametrize("shape", [(0, 3), (2,), (4, 1, 2, 3)])
def test_any_shape_and_an_empty_batch_have_a_loss(name, shape):
    generator = torch.Generator().manual_seed(0)
    loss = IMPLICIT[name](lambda x, t: -x, VPSDE(), torch.zeros(shape), generator=generator)
    assert loss.shape == shape[:1]
    assert loss.isfinite().all()


@pytest.mark.parametrize("name", IMPLICIT)
def test_a_condition_reaches_the_score(name):
    def score(x, t, condition):
        return -x * condition["scale"][:, None]

    x, scale = torch.ones(3, 2), torch.tensor([0.0, 1.0, 2.0])
    options = dict(t=0.0, weight=power(0), generator=torch.Generator().manual_seed(0))
    loss = IMPLICIT[name](score, EDMSDE(), x, condition={"scale": scale}, **options)
    assert_close(loss, -4 * scale + 2 * scale**2, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", IMPLICIT)
def test_an_energy_is_taught_through_its_second_derivative(name):
    """E = a |x|^2 / 2 on N(0, 1 / 2): the best a is 2."""
    x, z, v, mass = quadrature(targets.GaussianMixture([1.0], [[0.0, 0.0]], stds=math.sqrt(0.5)))
    a = torch.tensor(2.0, dtype=torch.float64, requires_grad=True)
    model = EnergyScore(lambda x, t: a * (x**2).sum(1) / 2)
    options = dict(t=0.0, weight=power(0), noise=Given(z, v))
    value = IMPLICIT[name](model, EDMSDE(), x, **options)
    loss = (mass * value).sum()
    assert_close(loss, torch.tensor(-4.0, dtype=torch.float64))
    assert abs(torch.autograd.grad(loss, a)[0]) < 1e-9


@pytest.mark.slow
@pytest.mark.global_rng  # the first weights
@pytest.mark.parametrize("name", ["dsm", *IMPLICIT])
def test_a_small_network_learns_the_score_by_every_objective(name):
    """Two modes on a line at one noise level: relative Fisher error below 1 % after 300 steps."""
    loss = {"dsm": dsm_loss, **IMPLICIT}[name]
    sde, t = VPSDE(), 0.2
    target = targets.GaussianMixture([0.7, 0.3], [[-1.0], [1.0]], stds=0.5)
    net = torch.nn.Sequential(torch.nn.Linear(1, 32), torch.nn.SiLU(), torch.nn.Linear(32, 1))
    generator = torch.Generator().manual_seed(1)
    torch.nn.init.normal_(net[0].weight, std=2, generator=generator)
    torch.nn.init.normal_(net[0].bias, std=2, generator=generator)
    torch.nn.init.zeros_(net[2].weight)
    optimizer = torch.optim.Adam(net.parameters(), lr=0.02)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 300)
    for _ in range(300):
        optimizer.zero_grad()
        x = target.sample(1024, generator=generator)
        loss(lambda x, t: net(x), sde, x, t=t, generator=generator).mean().backward()
        optimizer.step()
        schedule.step()
    x = target.sample(10_000, sde, t, generator=generator)
    exact = target.score(x, sde, t)
    with torch.no_grad():
        error = float((net(x) - exact).pow(2).sum() / exact.pow(2).sum())
    assert error < 0.01


# What they refuse


def run(name, x=None, score=lambda x, t: -x, sde=None, **options):
    x = torch.zeros(2, 3) if x is None else x
    generator = torch.Generator().manual_seed(0)
    return IMPLICIT[name](score, sde or VPSDE(), x, generator=generator, **options)


@pytest.mark.parametrize("name", IMPLICIT)
def test_impossible_arguments_are_refused(name):
    with pytest.raises(InvalidValueError, match=r"the weight is 0 .*pass weight=power\(0\)"):
        run(name, t=0.0)
    with pytest.raises(InvalidTypeError, match="x must be floating point"):
        run(name, torch.zeros(2, 3, dtype=torch.uint8))
    with pytest.raises(NonFiniteError, match="x holds NaN"):
        run(name, torch.full((2, 3), math.nan))
    with pytest.raises(ShapeError, match="the score must return the shape of its input"):
        run(name, score=lambda x, t: x[:, :1])
    with pytest.raises(InvalidValueError, match=r"time must lie in \[0, 1.0\]"):
        run(name, t=2.0)
    with pytest.raises(InvalidValueError, match="give either the times"):
        run(name, t=0.5, law=VPSDE.time_law)
    with pytest.raises(InvalidValueError, match=r"this score belongs to VESDE"):
        run(name, score=ScoreModel(torch.nn.Identity(), VESDE(), (3,)))


@pytest.mark.parametrize("name", ["ism", "ssm"])
def test_a_score_without_a_derivative_is_refused(name):
    for score in (lambda x, t: -x.detach(), torch.no_grad()(lambda x, t: -x)):
        with pytest.raises(InvalidValueError, match="remove no_grad and detach inside it"):
            run(name, score=score)
        assert run("fd_ssm", score=score).isfinite().all()


def test_unknown_projections_and_impossible_steps_are_refused():
    for name in ("ssm", "fd_ssm"):
        with pytest.raises(UnknownNameError, match="did you mean 'gaussian'"):
            run(name, projection="gausian")
    for step in (0.0, -1.0, math.nan, math.inf):
        with pytest.raises(InvalidValueError, match="step must be positive and finite, got"):
            run("fd_ssm", step=step)


def test_every_sde_can_be_trained_at_its_own_times():
    for name, sde in itertools.product(IMPLICIT, SDES.values()):
        losses = run(name, sde=sde, x=torch.zeros(50, 3))
        assert losses.isfinite().all()
