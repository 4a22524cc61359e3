"""Test targets against autograd, Tweedie, quadrature, moments, and each other."""

import math

import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from strategies import sdes

from scoresde.errors import InvalidTypeError, InvalidValueError, NonFiniteError, ShapeError
from scoresde.sde import VESDE, VPSDE, expand, facts
from scoresde.targets import (
    EightGaussians,
    Gaussian,
    GaussianMixture,
    KernelDensity,
    Rings,
    SongMixture,
    Spiral,
    TwoMoons,
)

PLANAR = [SongMixture(), EightGaussians(), TwoMoons(), Rings(), Spiral()]
SHAPES = [(), (1,), (2,), (3, 4), (1, 8, 8)]

seeds = st.integers(0, 2**32 - 1)
shapes = st.sampled_from(SHAPES)


def generator(seed):
    return torch.Generator().manual_seed(seed)


def randn(*shape, g):
    return torch.randn(shape, generator=g, dtype=torch.float64)


def covariances(k, d, g):
    root = randn(k, d, d, g=g) / d**0.5
    return root @ root.mT + 0.05 * torch.eye(d, dtype=torch.float64)


def full_mixture(shape, g, k=3):
    d = math.prod(shape)
    weights = torch.softmax(randn(k, g=g), 0)
    return GaussianMixture(weights, 2 * randn(k, *shape, g=g), covariances(k, d, g))


def diagonal_mixture(shape, g, k=3):
    weights = torch.softmax(randn(k, g=g), 0)
    return GaussianMixture(
        weights, 2 * randn(k, *shape, g=g), stds=randn(k, *shape, g=g).abs() + 0.1
    )


def isotropic_mixture(shape, g, k=3):
    weights = torch.softmax(randn(k, g=g), 0)
    return GaussianMixture(weights, 2 * randn(k, *shape, g=g), stds=randn(k, g=g).abs() + 0.1)


def full_gaussian(shape, g):
    return Gaussian(randn(*shape, g=g), covariances(1, math.prod(shape), g)[0])


def diagonal_gaussian(shape, g):
    return Gaussian(randn(*shape, g=g), var=randn(*shape, g=g) ** 2 + 0.01)


KINDS = [full_mixture, diagonal_mixture, isotropic_mixture, full_gaussian, diagonal_gaussian]
ELEMENTWISE = [diagonal_mixture, isotropic_mixture, diagonal_gaussian]
kinds = st.sampled_from(KINDS)


def points(target, sde, n, g):
    """Times over the whole of the SDE, and draws of p_t that are spread out threefold."""
    t = sde.eps + (sde.T - sde.eps) * torch.rand(n, generator=g, dtype=torch.float64)
    x = target.sample(n, sde, t, generator=g, dtype=torch.float64)
    return x + 2 * expand(sde.sigma(t), x) * randn(*x.shape, g=g), t


def gap(a, b):
    return float(((a - b).abs() / (1 + b.abs())).detach().max())


def tweedie_gap(denoised, score, x, sde, t):
    """Relative to x: the sum on the right cancels down to alpha x_0, and with it go its digits."""
    alpha, sigma = expand(sde.alpha(t), x), expand(sde.sigma(t), x)
    error = alpha * denoised - (x + sigma**2 * score)
    return float((error.abs() / (1 + x.abs())).detach().max())


@given(kinds, shapes, sdes(), seeds)
def test_the_score_is_the_gradient_of_the_log_density_at_every_time(kind, shape, sde, seed):
    g = generator(seed)
    target = kind(shape, g)
    x, t = points(target, sde, 5, g)
    x.requires_grad_()
    (gradient,) = torch.autograd.grad(target.log_prob(x, sde, t).sum(), x)
    assert gap(target.score(x, sde, t), gradient) < 1e-9
    assert torch.equal(target.score(x, sde, t), target.at(sde)(x, t))


@given(kinds, shapes, sdes(), seeds)
def test_denoise_is_tweedies_formula(kind, shape, sde, seed):
    g = generator(seed)
    target = kind(shape, g)
    x, t = points(target, sde, 5, g)
    score = target.at(sde)
    assert tweedie_gap(target.denoise(x, sde, t), score(x, t), x, sde, t) < 1e-11


@given(st.sampled_from(PLANAR), sdes(), seeds)
def test_the_familiar_densities_have_exact_scores_too(target, sde, seed):
    x, t = points(target, sde, 5, generator(seed))
    x.requires_grad_()
    (gradient,) = torch.autograd.grad(target.log_prob(x, sde, t).sum(), x)
    assert gap(target.score(x, sde, t), gradient) < 1e-9
    assert tweedie_gap(target.denoise(x, sde, t), gradient, x, sde, t) < 1e-11


@pytest.mark.slow
@given(shapes, sdes(), seeds)
def test_the_score_of_a_gaussian_solves_its_linear_system(shape, sde, seed):
    g = generator(seed)
    d = math.prod(shape)
    mean, cov = randn(*shape, g=g), covariances(1, d, g)[0]
    x, t = points(Gaussian(mean, cov), sde, 4, g)
    for i in range(len(x)):
        a, v = sde.alpha(t[i]), sde.sigma(t[i]) ** 2
        system = a**2 * cov + v * torch.eye(d, dtype=torch.float64)
        normal = torch.distributions.MultivariateNormal(a * mean.reshape(d), system)
        offset = x[i].reshape(d) - a * mean.reshape(d)
        want = -torch.linalg.solve(system, offset).reshape(shape)
        assert gap(Gaussian(mean, cov).score(x[i : i + 1], sde, t[i])[0], want) < 1e-9
        got = Gaussian(mean, cov).log_prob(x[i : i + 1], sde, t[i])
        assert gap(got, normal.log_prob(x[i].reshape(1, d))) < 1e-9


@pytest.mark.slow
@given(shapes, sdes(), seeds)
def test_a_mixture_of_one_is_its_gaussian(shape, sde, seed):
    g = generator(seed)
    mean, cov = randn(*shape, g=g), covariances(1, math.prod(shape), g)
    one, gaussian = GaussianMixture([1.0], mean[None], cov), Gaussian(mean, cov[0])
    x, t = points(gaussian, sde, 4, g)
    for method in ("log_prob", "score", "denoise"):
        assert torch.equal(getattr(one, method)(x, sde, t), getattr(gaussian, method)(x, sde, t))


@pytest.mark.slow
@given(shapes, sdes(), seeds)
def test_equal_parameters_mean_the_same_in_every_form(shape, sde, seed):
    g = generator(seed)
    weights, means = torch.softmax(randn(3, g=g), 0), randn(3, *shape, g=g)
    stds = randn(3, g=g).abs() + 0.1
    d = math.prod(shape)
    axes = (stds[:, None] ** 2).expand(3, d)
    # A basis other than the coordinate axes: isotropic covariances must give the same result.
    rotation, _ = torch.linalg.qr(randn(d, d, g=g))
    covs = rotation @ torch.diag_embed(axes) @ rotation.T
    forms = [
        GaussianMixture(weights, means, stds=stds),
        GaussianMixture(weights, means, stds=axes.sqrt().reshape(3, *shape)),
        GaussianMixture(weights, means, torch.diag_embed(axes)),
        GaussianMixture(weights, means, (covs + covs.mT) / 2),
    ]
    x, t = points(forms[0], sde, 4, g)
    for form in forms[1:]:
        for method in ("log_prob", "score", "denoise", "responsibilities"):
            want = getattr(forms[0], method)(x, sde, t)
            assert gap(getattr(form, method)(x, sde, t), want) < 1e-9


@given(kinds, shapes, sdes(), seeds)
def test_one_time_for_all_and_one_for_each_agree(kind, shape, sde, seed):
    g = generator(seed)
    target = kind(shape, g)
    x, t = points(target, sde, 4, g)
    time = float(t[0])
    for method in ("log_prob", "score", "denoise", "responsibilities"):
        each = getattr(target, method)(x, sde, torch.full((4,), time, dtype=torch.float64))
        assert torch.equal(getattr(target, method)(x, sde, time), each)
        assert torch.equal(getattr(target, method)(x, sde, t[:1]), each)
    assert target.score(x, sde, time).shape == (4, *shape)


@given(kinds, shapes, sdes(), seeds)
def test_float32_differs_from_float64_by_its_rounding_only(kind, shape, sde, seed):
    g = generator(seed)
    target = kind(shape, g)
    x, t = points(target, sde, 4, g)
    x = x.float()
    for method in ("log_prob", "score", "denoise"):
        narrow, wide = (getattr(target, method)(v, sde, t) for v in (x, x.double()))
        assert narrow.dtype == torch.float32
        assert torch.equal(narrow, wide.float())


@given(st.sampled_from(ELEMENTWISE), shapes, sdes(), seeds)
def test_without_a_matrix_product_a_result_does_not_depend_on_its_batch_bitwise(
    kind, shape, sde, seed
):
    g = generator(seed)
    target = kind(shape, g)
    x, t = points(target, sde, 33, g)
    order = torch.randperm(33, generator=g)
    for dtype in (torch.float32, torch.float64):
        for function in (target.at(sde), lambda x, t: target.denoise(x, sde, t)):
            whole = function(x.to(dtype), t)
            assert torch.equal(function(x[order].to(dtype), t[order]), whole[order])
            assert torch.equal(function(x[5:6].to(dtype), t[5:6]), whole[5:6])
            assert torch.equal(function(x[:16].to(dtype), t[:16]), whole[:16])


@given(st.sampled_from([full_mixture, full_gaussian]), shapes, sdes(), seeds)
def test_with_a_matrix_product_a_result_does_not_depend_on_its_batch_up_to_rounding(
    kind, shape, sde, seed
):
    g = generator(seed)
    target = kind(shape, g)
    x, t = points(target, sde, 33, g)
    score = target.at(sde)
    assert gap(score(x[:7], t[:7]), score(x, t)[:7]) < 1e-11


@given(kinds, shapes, st.sampled_from([1.0, 1e3, 1e8]), seeds)
@example(isotropic_mixture, (2,), 1e3, 0)
def test_far_away_and_with_hardly_any_noise_everything_is_finite(kind, shape, distance, seed):
    g = generator(seed)
    target, sde = kind(shape, g), VESDE(sigma_min=1e-6, sigma_max=1e3)
    x = distance * randn(6, *shape, g=g)
    t = torch.tensor([0.0, 0.2, 0.4, 0.6, 0.8, 1.0], dtype=torch.float64)
    for method in ("log_prob", "score", "denoise", "responsibilities"):
        for points_, time in ((x, t), (x.float(), t.float())):
            assert getattr(target, method)(points_, sde, time).isfinite().all()


def test_far_away_the_nearest_mode_takes_over():
    target = GaussianMixture([0.5, 0.5], [[1.0, 0.0], [-1.0, 0.0]], stds=1e-3)
    x = torch.tensor([[1e3, 0.0], [-1e3, 0.0]])
    assert torch.equal(target.responsibilities(x), torch.eye(2))
    assert torch.allclose(target.score(x), -(x - target.means.float()) / 1e-6)


@given(kinds, sdes(), seeds)
def test_one_dimensional_densities_integrate_to_one(kind, sde, seed):
    g = generator(seed)
    target = kind((), g)
    t = sde.eps + (sde.T - sde.eps) * torch.rand((), generator=g, dtype=torch.float64)
    alpha, sigma = sde.alpha(t), sde.sigma(t)
    std = (alpha**2 * target.components.variances.flatten() + sigma**2).sqrt()
    means = alpha * target.means
    low, high = (means - 9 * std).min().item(), (means + 9 * std).max().item()
    # A third of the narrowest width per step: the trapezoidal rule is then exact to 1e-38.
    x = torch.linspace(low, high, 2 + int(3 * (high - low) / std.min()), dtype=torch.float64)
    mass = torch.trapezoid(target.log_prob(x, sde, t).exp(), x)
    assert abs(float(mass) - 1) < 1e-12


@pytest.mark.slow
@pytest.mark.parametrize("target", [*PLANAR, full_mixture((2,), generator(3))], ids=repr)
@pytest.mark.parametrize("noisy", [False, True])
def test_densities_in_the_plane_integrate_to_one_with_the_stated_moments(target, noisy):
    at = (VPSDE(), 0.1) if noisy else ()
    reach = float((target.means.abs() + 9 * target.components.variances.max().sqrt()).max())
    reach += 2.0 * noisy
    narrow = float(target.components.variances.min().sqrt())
    axis = torch.arange(-reach, reach, 0.5 * narrow, dtype=torch.float64)
    grid = torch.cartesian_prod(axis, axis)
    mass = torch.cat([target.log_prob(part, *at).exp() for part in torch.split(grid, 2**15)])
    mass = mass * (axis[1] - axis[0]) ** 2
    assert abs(float(mass.sum()) - 1) < 1e-9
    moments = target.moments()
    if noisy:
        time = torch.tensor(0.1, dtype=torch.float64)
        moments = moments.at(VPSDE().alpha(time), VPSDE().sigma(time))
    mean = mass @ grid
    assert gap(mean, moments.mean) < 1e-9
    assert gap((mass[:, None] * (grid - mean)).T @ (grid - mean), moments.cov) < 1e-8


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shape", SHAPES[2:])
@pytest.mark.parametrize("noisy", [False, True])
def test_samples_have_the_moments_within_five_standard_errors(kind, shape, noisy):
    g, n = generator(7), 20_000
    target = kind(shape, g)
    sde, t = VPSDE(), torch.tensor(0.3, dtype=torch.float64)
    moments = target.moments()
    if noisy:
        moments = moments.at(sde.alpha(t), sde.sigma(t))
    x = target.sample(n, *((sde, t) if noisy else ()), generator=g, dtype=torch.float64)
    assert x.shape == (n, *shape)
    z = (x - moments.mean).flatten(1)
    cov = moments.var.flatten().diag() if moments.cov is None else moments.cov
    assert (z.mean(0).abs() < 5 * (cov.diagonal() / n).sqrt()).all()
    products = z[:, :, None] * z[:, None] if z.shape[1] < 20 else z**2
    want = cov if z.shape[1] < 20 else cov.diagonal()
    assert ((products.mean(0) - want).abs() < 5 * (products.var(0) / n).sqrt()).all()


@given(kinds, shapes, seeds)
def test_each_sample_may_have_a_different_time(kind, shape, seed):
    target, sde = kind(shape, generator(seed)), VESDE()
    t = torch.tensor([0.0, 0.3, 1.0], dtype=torch.float64)
    each = target.sample(3, sde, t, generator=generator(seed))
    for i in range(3):
        alone = target.sample(3, sde, t[i], generator=generator(seed))
        assert torch.allclose(alone[i], each[i], rtol=1e-6)


def test_samples_have_the_weights_of_the_components():
    target = GaussianMixture([0.0, 0.7, 0.3], [[0.0], [10.0], [20.0]], stds=1.0)
    n = 50_000
    x = target.sample(n, generator=generator(1))
    share = target.assign(x).bincount(minlength=3) / n
    error = 5 * (target.weights * (1 - target.weights) / n).sqrt()
    assert ((share - target.weights).abs() <= error).all()
    assert share[0] == 0


@given(kinds, shapes, seeds)
def test_a_generator_determines_the_samples_for_any_dtype(kind, shape, seed):
    target = kind(shape, generator(seed))
    wide, narrow = (
        target.sample(9, generator=generator(seed), dtype=dtype)
        for dtype in (torch.float64, torch.float32)
    )
    assert torch.equal(wide.float(), narrow)
    assert target.sample(0, generator=generator(seed)).shape == (0, *shape)


@given(kinds, shapes, seeds)
def test_responsibilities_are_bayes_rule(kind, shape, seed):
    g = generator(seed)
    target = kind(shape, g)
    x = target.sample(5, generator=g, dtype=torch.float64)
    r = target.responsibilities(x)
    assert gap(r.sum(1), torch.ones(5)) < 1e-12
    assert torch.equal(target.assign(x), r.argmax(1))
    c = target.components
    for k in range(len(target.weights)):
        spread = c.variances[k].expand(math.prod(shape)).diag()
        if c.basis is not None:
            spread = c.basis[k] @ spread @ c.basis[k].T
        alone = Gaussian(c.means[k], (spread + spread.T) / 2)
        joint = target.weights[k].log() + alone.log_prob(x)
        assert gap(r[:, k], (joint - target.log_prob(x)).exp()) < 1e-9


@given(seeds, st.integers(1, 5))
def test_data_on_a_plane_have_a_density_as_soon_as_there_is_noise(seed, rank):
    g = generator(seed)
    root = randn(6, rank, g=g)
    target, sde = Gaussian(randn(6, g=g), root @ root.T), VPSDE()
    x, t = points(target, sde, 4, g)
    x.requires_grad_()
    (gradient,) = torch.autograd.grad(target.log_prob(x, sde, t).sum(), x)
    assert gap(target.score(x, sde, t), gradient) < 1e-9
    with pytest.raises(InvalidValueError, match="has no density"):
        target.log_prob(x)
    on_plane = target.sample(5, generator=g, dtype=torch.float64) - target.means[0]
    assert torch.linalg.matrix_rank(on_plane, atol=1e-6) <= rank


@given(shapes, sdes(), seeds)
def test_a_point_mass_is_denoised_to_itself(shape, sde, seed):
    g = generator(seed)
    mean = randn(*shape, g=g)
    x, t = points(Gaussian(mean, var=0.0), sde, 4, g)
    assert torch.equal(Gaussian(mean, var=0.0).denoise(x, sde, t), mean.expand_as(x))


def test_without_noise_the_data_are_their_own_posterior_mean():
    target = full_mixture((3,), generator(5))
    x = target.sample(4, generator=generator(6), dtype=torch.float64)
    assert gap(target.denoise(x), x) < 1e-12


def test_moments_of_a_diagonal_gaussian_are_its_variances():
    mean = torch.arange(6.0).reshape(2, 3)
    moments = Gaussian(mean, std=mean + 1).moments()
    assert torch.equal(moments.mean, mean.double())
    assert torch.equal(moments.var, (mean.double() + 1) ** 2)
    assert moments.cov is None


def test_the_score_of_a_target_has_all_facts_for_a_sampler():
    target, sde = Gaussian([1.0, 2.0], var=[1.0, 4.0]), VPSDE()
    score = target.at(sde)
    known = facts(score)
    assert (known.sde, known.event_shape, known.passes, known.conditions) == (sde, (2,), 1, {})
    assert torch.equal(known.moments.mean, target.moments().mean)
    assert repr(target) == "Gaussian(1 component, event_shape=(2,))"


def test_scores_pass_through_torch_func():
    target, sde = TwoMoons(), VPSDE()
    x = target.sample(4, generator=generator(0), dtype=torch.float64)
    t = torch.tensor(0.3, dtype=torch.float64)
    jacobian = torch.func.vmap(torch.func.jacrev(lambda v: target.at(sde)(v[None], t)[0]))(x)
    assert gap(jacobian, jacobian.mT) < 1e-12  # the Hessian of log p_t


def test_parameters_are_copied():
    mean = torch.zeros(2, dtype=torch.float64)
    target = Gaussian(mean, var=1.0)
    mean += 5
    assert torch.equal(target.means, torch.zeros(1, 2, dtype=torch.float64))


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: Gaussian([0.0, 0.0]), InvalidValueError, "exactly one of cov, var, std.*none"),
        (lambda: Gaussian([0.0], var=1.0, std=1.0), InvalidValueError, "got var and std"),
        (lambda: Gaussian([0.0, 0.0], var=-1.0), InvalidValueError, "var must not be negative"),
        (lambda: Gaussian([0.0, math.nan], var=1.0), InvalidValueError, "mean must be finite"),
        (lambda: Gaussian("zero", var=1.0), InvalidTypeError, "mean must be made of numbers"),
        (lambda: Gaussian([True], var=1.0), InvalidTypeError, "real numbers"),
        (lambda: Gaussian([0.0, 0.0], var=[1.0] * 3), ShapeError, r"shape \(2,\), got \(3,\)"),
        (lambda: Gaussian([0.0, 0.0], torch.eye(3)), ShapeError, r"\(2, 2\).*got \(3, 3\)"),
        (lambda: Gaussian([0.0, 0.0], [[1, 2], [0, 1]]), InvalidValueError, "not symmetric"),
        (
            lambda: Gaussian([0.0, 0.0], [[1.0, 2.0], [2.0, 1.0]]),
            InvalidValueError,
            "negative eigenvalue -1",
        ),
        (
            lambda: GaussianMixture([0.5, 0.6], [[0.0], [1.0]], stds=1.0),
            InvalidValueError,
            "sum to one, got a sum of 1.1",
        ),
        (
            lambda: GaussianMixture([1.5, -0.5], [[0.0], [1.0]], stds=1.0),
            InvalidValueError,
            "weights must not be negative, got -0.5",
        ),
        (lambda: GaussianMixture([1.0], [[0.0], [1.0]], stds=1.0), ShapeError, "K components"),
        (lambda: GaussianMixture([1.0], [[0.0]]), InvalidValueError, "exactly one of covs, stds"),
        (lambda: GaussianMixture([1.0], [[0.0]], stds=[1.0, 2.0]), ShapeError, r"got \(2,\)"),
        (
            lambda: GaussianMixture([1.0], [[0.0]], torch.eye(2)),
            ShapeError,
            r"\(1, 1, 1\).*got \(2, 2\)",
        ),
        (lambda: TwoMoons(std=0.0), InvalidValueError, "std must lie in .0.05, inf., got 0.0"),
        (lambda: EightGaussians(radius=math.nan), InvalidValueError, "is not finite in float64"),
        (lambda: EightGaussians(radius=math.inf), InvalidValueError, "is not finite in float64"),
        (lambda: TwoMoons(std=1e200), InvalidValueError, "is not finite in float64"),
        (lambda: Gaussian([0.0], std=1e200), InvalidValueError, "is not finite in float64"),
        (lambda: KernelDensity([[0.0]], 1e200), InvalidValueError, "is not finite in float64"),
        (lambda: KernelDensity([[0.0]], 1e-200), InvalidValueError, "1e-200, underflows to 0"),
        (
            lambda: EightGaussians(std=-1.0),
            InvalidValueError,
            "std must be positive and finite, got -1.0",
        ),
    ],
)
def test_impossible_parameters_are_refused_where_they_are_written(make, error, message):
    with pytest.raises(error, match=message):
        make()


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda q: q.score(torch.zeros(3)), ShapeError, r"x must have shape \(B, 2\), got \(3,\)"),
        (lambda q: q.score(torch.zeros(3, 3)), ShapeError, r"got \(3, 3\)"),
        (lambda q: q.score(torch.zeros(())), ShapeError, r"got \(\)"),
        (lambda q: q.score(torch.zeros(3, 2).int()), InvalidTypeError, "got torch.int32"),
        (lambda q: q.score([[0.0, 0.0]]), InvalidTypeError, "x must be a tensor, got"),
        (lambda q: q.log_prob(torch.tensor([[0.0, math.nan]])), NonFiniteError, "x holds NaN"),
        (lambda q: q.denoise(torch.zeros(1, 2), VPSDE()), InvalidTypeError, "sde is given"),
        (lambda q: q.denoise(torch.zeros(1, 2), t=0.5), InvalidTypeError, "t is given"),
        (lambda q: q.score(torch.zeros(1, 2), VPSDE(), 1.5), InvalidValueError, "got 1.5"),
        (lambda q: q.score(torch.zeros(1, 2), VPSDE(), -0.1), InvalidValueError, r"in \[0, 1"),
        (lambda q: q.score(torch.zeros(1, 2), VPSDE(), math.nan), InvalidValueError, "got nan"),
        (lambda q: q.score(torch.zeros(2, 2), VPSDE(), torch.ones(3)), ShapeError, r"\(3,\)"),
        (lambda q: q.at(VPSDE())(torch.zeros(2, 3), torch.ones(2)), ShapeError, r"\(B, 2\)"),
        (
            lambda q: q.posterior(torch.eye(2), 0.1, [math.inf, 0.0]),
            NonFiniteError,
            "y holds NaN or infinity",
        ),
        (lambda q: q.sample(-1), InvalidValueError, "n must be an integer >= 0, got -1"),
        (lambda q: q.sample(1.5), InvalidTypeError, "got 1.5"),
        (lambda q: q.sample(3, VPSDE(), 2.0), InvalidValueError, "got 2.0"),
        (lambda q: q.sample(3, VPSDE(), torch.ones(4)), ShapeError, r"\(4,\)"),
    ],
)
def test_wrong_arguments_are_refused_in_a_sentence(call, error, message):
    with pytest.raises(error, match=message):
        call(Gaussian([0.0, 0.0], var=1.0))


@pytest.mark.global_rng
def test_without_a_generator_torchs_global_generator_is_used():
    state = torch.get_rng_state()
    first = TwoMoons().sample(5)
    torch.set_rng_state(state)
    assert torch.equal(TwoMoons().sample(5), first)
