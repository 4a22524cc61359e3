"""Test Gaussian moments of data, and the prior with and without them."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from strategies import SDES, dtypes, gaussians, generators, sdes, shapes, times_of
from torch.distributions import MultivariateNormal, Normal
from torch.testing import assert_close

from scoresde.errors import InvalidValueError, ScoreSDEError, ShapeError
from scoresde.sde import VESDE, VPSDE, Moments


def dense(moments: Moments, event: tuple[int, ...]) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean `(D,)` and covariance `(D, D)`, written out."""
    mean = torch.as_tensor(moments.mean, dtype=torch.float64).expand(event).flatten()
    if moments.cov is not None:
        return mean, moments.cov
    var = torch.as_tensor(moments.var, dtype=torch.float64).expand(event)
    return mean, torch.diag(var.flatten())


def end(sde):
    return torch.tensor(sde.T, dtype=torch.float64)


@given(st.data())
def test_moments_at_a_time_are_those_of_the_perturbed_data(data):
    sde, event = data.draw(sdes()), data.draw(shapes())[1:]
    t, clean = data.draw(times_of(sde)), data.draw(gaussians(event))
    noisy = clean.at(sde.alpha(t), sde.sigma(t))
    (mean, cov), (clean_mean, clean_cov) = dense(noisy, event), dense(clean, event)
    assert_close(mean, sde.alpha(t) * clean_mean, rtol=1e-12, atol=0)
    expected = sde.alpha(t) ** 2 * clean_cov + sde.sigma(t) ** 2 * torch.eye(len(cov)).double()
    assert_close(cov, expected, rtol=1e-12, atol=1e-12)


@given(st.data())
def test_a_draw_is_affine_with_the_stated_mean_and_covariance(data):
    event = data.draw(shapes())[1:]
    moments, size = data.draw(gaussians(event)), math.prod(event)
    zero = moments.sample(torch.zeros(1, *event, dtype=torch.float64))
    unit = moments.sample(torch.eye(size, dtype=torch.float64).reshape(size, *event))
    mean, cov = dense(moments, event)
    assert_close(zero.flatten(), mean, rtol=0, atol=0)
    root = (unit - zero).reshape(size, size)
    assert_close(root.T @ root, cov, rtol=1e-10, atol=1e-10)


@given(generators())
def test_a_covariance_of_a_line_has_draws_on_it(generator):
    """Rounding makes some of the eigenvalues 0 slightly negative."""
    line = torch.randn(5, generator=generator, dtype=torch.float64)
    z = torch.randn(3, 5, generator=generator, dtype=torch.float64)
    x = Moments(0.0, cov=torch.outer(line, line)).sample(z)
    along = (x @ line) / line.square().sum()
    assert_close(x, along[:, None] * line, rtol=0, atol=1e-6)


@given(st.data())
def test_log_density_is_that_of_the_normal_law(data):
    shape, dtype = data.draw(shapes()), data.draw(dtypes())
    moments = data.draw(gaussians(shape[1:]))
    x = 3 * torch.randn(shape, generator=data.draw(generators()), dtype=dtype)
    out = moments.log_prob(x)
    assert out.shape == shape[:1]
    assert out.dtype == dtype
    mean, cov = dense(moments, shape[1:])
    flat = x.double().reshape(shape[0], -1)
    expected = MultivariateNormal(mean, cov).log_prob(flat)
    tight = 1e-9 if dtype == torch.float64 else 2e-3
    assert_close(out.double(), expected, rtol=tight, atol=tight)


@given(st.floats(-3, 3), st.floats(1e-3, 10), shapes(), generators())
def test_numbers_hold_for_every_dimension(mean, var, shape, generator):
    x = torch.randn(shape, generator=generator, dtype=torch.float64)
    moments = Moments(mean, var=var)
    expected = Normal(mean, math.sqrt(var)).log_prob(x).reshape(shape[0], -1).sum(1)
    assert_close(moments.log_prob(x), expected, rtol=1e-6, atol=1e-6)
    assert_close(moments.sample(x), mean + math.sqrt(var) * x, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("form", [list, np.array], ids=["list", "array"])
def test_lists_and_arrays_are_moments_too(form):
    z = torch.randn(5, 2, generator=torch.Generator().manual_seed(0))
    for spread in (dict(var=[1.0, 4.0]), dict(cov=[[1.0, 0.5], [0.5, 4.0]])):
        whole = Moments(torch.tensor([0.5, 2.0]), **{k: torch.tensor(v) for k, v in spread.items()})
        given = Moments(form([0.5, 2.0]), **{k: form(v) for k, v in spread.items()})
        assert_close(given.sample(z), whole.sample(z))
        own, other = (m.at(torch.tensor(0.5), torch.tensor(0.1)) for m in (given, whole))
        assert_close(own.log_prob(z), other.log_prob(z))


@pytest.mark.parametrize("form", [torch.tensor, np.array], ids=["tensor", "array"])
def test_a_covariance_that_is_changed_in_place_changes_no_moments(form):
    cov, x = form([[2.0, 1.0], [1.0, 2.0]]), torch.ones(1, 2)
    moments = Moments(0.0, cov=cov)
    expected = MultivariateNormal(torch.zeros(2), torch.tensor([[2.0, 1.0], [1.0, 2.0]]))
    for _ in range(2):  # before its axes are computed, and after
        cov *= 4
        assert_close(moments.log_prob(x), expected.log_prob(x))
    assert moments.mean_variance() == 2


BAD = {
    "both": (lambda: Moments(0.0, var=1.0, cov=torch.eye(2)), InvalidValueError, "not both"),
    "neither": (lambda: Moments(0.0), InvalidValueError, "either var= or cov="),
    "negative": (lambda: Moments(0.0, var=-1.0), InvalidValueError, "negative: -1.0"),
    "negative somewhere": (
        lambda: Moments(0.0, var=torch.tensor([1.0, -2.0])),
        InvalidValueError,
        "negative.*-2",
    ),
    "nan mean": (lambda: Moments(math.nan, var=1.0), InvalidValueError, "mean.*finite, got nan"),
    "infinite": (
        lambda: Moments(0.0, var=math.inf),
        InvalidValueError,
        "variance.*finite, got inf",
    ),
    "nan beside the diagonal": (
        lambda: Moments(0.0, cov=torch.tensor([[1.0, math.nan], [math.nan, 1.0]])),
        InvalidValueError,
        "finite",
    ),
    "oblong": (
        lambda: Moments(0.0, cov=torch.ones(2, 3)),
        ShapeError,
        r"square matrix, got shape \(2, 3\)",
    ),
    "lopsided": (
        lambda: Moments(0.0, cov=torch.tensor([[1.0, 0.5], [0.0, 1.0]])),
        InvalidValueError,
        "symmetric",
    ),
    "not a covariance": (
        lambda: Moments(0.0, cov=torch.tensor([[1.0, 2.0], [2.0, 1.0]])).log_prob(torch.ones(1, 2)),
        InvalidValueError,
        "positive",
    ),
    "nearly a covariance": (
        lambda: Moments(0.0, cov=torch.tensor([[1.0, 1.001], [1.001, 1.0]])).sample(
            torch.ones(1, 2)
        ),
        InvalidValueError,
        "positive semi-definite, but has the eigenvalue -0.001",
    ),
    "a density without width": (
        lambda: Moments(0.0, var=0.0).log_prob(torch.ones(1, 2)),
        InvalidValueError,
        "positive",
    ),
    "a mean for the batch": (
        lambda: Moments(torch.ones(4, 2), var=1.0).sample(torch.ones(4, 2)),
        ShapeError,
        r"mean.*\(4, 2\).*\(2,\)",
    ),
    "a mean that would broadcast": (
        lambda: Moments(torch.ones(3), var=1.0).log_prob(torch.ones(4, 2, 3)),
        ShapeError,
        r"mean.*\(3,\).*\(2, 3\)",
    ),
    "a variance that would broadcast": (
        lambda: Moments(0.0, var=torch.ones(3)).sample(torch.ones(4, 2, 3)),
        ShapeError,
        r"var.*\(3,\).*\(2, 3\)",
    ),
    "a covariance of another event": (
        lambda: Moments(0.0, cov=torch.eye(3)).sample(torch.ones(4, 2, 3)),
        ShapeError,
        r"cov.*\(3, 3\).*\(2, 3\)",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_impossible_moments_are_named(name):
    call, kind, message = BAD[name]
    with pytest.raises(kind, match=message) as caught:
        call()
    assert isinstance(caught.value, ScoreSDEError)


@pytest.mark.parametrize("name", SDES)
def test_the_prior_is_a_standard_normal_scaled_by_its_std(name):
    sde, z = SDES[name], torch.randn(3, 2, 4, generator=torch.Generator().manual_seed(0))
    std = 1.0 if isinstance(sde, VPSDE) or name == "betas" else float(sde.sigma(end(sde)))
    assert sde.prior_mean == 0
    assert sde.prior_std == pytest.approx(std, rel=1e-12)
    draw = sde.prior_sample((2, 4), n=3, generator=torch.Generator().manual_seed(0))
    assert_close(draw, std * z)
    assert_close(
        sde.prior_log_prob(draw),
        Normal(0.0, std).log_prob(draw).flatten(1).sum(1),
        rtol=1e-5,
        atol=0,
    )


@given(st.data())
def test_a_prior_with_the_moments_of_the_data_is_the_law_at_the_end(data):
    sde, shape, dtype = data.draw(sdes()), data.draw(shapes()), data.draw(dtypes())
    event = shape[1:]
    clean = data.draw(gaussians(event))
    mean, cov = dense(sde.prior(clean), event)
    clean_mean, clean_cov = dense(clean, event)
    alpha, sigma = sde.alpha(end(sde)), sde.sigma(end(sde))
    assert_close(mean, alpha * clean_mean, rtol=1e-12, atol=1e-14)
    var = alpha**2 * clean_cov + sigma**2 * torch.eye(len(cov)).double()
    assert_close(cov, var, rtol=1e-12, atol=1e-14 * float(sigma) ** 2)
    generator = data.draw(generators())
    draw = sde.prior_sample(event, n=shape[0], moments=clean, generator=generator, dtype=dtype)
    assert draw.shape == shape
    assert draw.dtype == dtype
    expected = MultivariateNormal(mean, var).log_prob(draw.double().reshape(shape[0], -1))
    assert_close(sde.prior_log_prob(draw, moments=clean).double(), expected, rtol=2e-3, atol=2e-3)


def test_drawing_the_prior_needs_no_global_randomness():
    seeds = [torch.Generator().manual_seed(7) for _ in range(2)]
    one, other = (VESDE().prior_sample((3,), n=2, generator=seed) for seed in seeds)
    assert torch.equal(one, other)


@pytest.mark.law(5)
@given(st.data())
def test_the_mismatch_of_the_prior_is_a_distance_of_gaussians(data):
    """W2 of commuting Gaussians: sqrt(|m - m'|^2 + |S^1/2 - S'^1/2|_F^2)."""
    sde, event = data.draw(sdes()), data.draw(shapes())[1:]
    clean = data.draw(gaussians(event, full=False))
    at_end = clean.at(sde.alpha(end(sde)), sde.sigma(end(sde)))
    gap = at_end.var.sqrt() - sde.prior_std
    expected = math.sqrt(float((at_end.mean**2).sum() + (gap**2).sum()))
    mismatch = sde.prior_mismatch(clean.mean, clean.var)
    assert mismatch == pytest.approx(expected, rel=1e-7, abs=1e-7 * sde.prior_std)
    # the mismatch is 0 for the prior with the moments of the data
    best = sde.prior(clean)
    assert torch.equal(best.mean, at_end.mean)
    assert torch.equal(best.var, at_end.var)


@pytest.mark.law(5)
@given(shapes(), generators())
def test_the_mismatch_of_vp_at_a_point_is_a_few_thousandths_of_its_norm(event, generator):
    point = 30 * torch.randn(event, generator=generator, dtype=torch.float64)
    mismatch = VPSDE().prior_mismatch(point, 0.0)
    norm, size = float(point.norm()), math.sqrt(math.prod(event))
    assert mismatch <= 6.6e-3 * norm + 2.2e-5 * size
    assert mismatch >= 6.5e-3 * norm


@pytest.mark.law(5)
@given(st.floats(-50, 50), shapes(), st.floats(0.01, 2))
def test_the_mismatch_of_ve_at_a_point_is_its_norm(value, event, var):
    point = torch.full(event, value, dtype=torch.float64)
    assert VESDE().prior_mismatch(point, 0.0) == pytest.approx(
        float(point.norm()), rel=1e-9, abs=1e-9
    )
    # sqrt(sigma^2 + v) - sigma = v / (2 sigma) to first order, in each dimension
    spread = VESDE().prior_mismatch(torch.zeros(event), var)
    assert spread == pytest.approx(var / 100 * math.sqrt(math.prod(event)), rel=1e-3)


def test_the_mismatch_takes_a_variance_for_each_dimension():
    sde, mean = VESDE(), torch.zeros(2, 3)
    var = torch.arange(6.0).reshape(2, 3)
    parts = [sde.prior_mismatch(torch.zeros(1), float(v)) ** 2 for v in var.flatten()]
    assert sde.prior_mismatch(mean, var) == pytest.approx(math.sqrt(sum(parts)), rel=1e-9)
    # fresh from a float32 mean, the sum is in float64
    assert sde.prior_mismatch(mean, 1e-12) == pytest.approx(1e-14 * math.sqrt(6), rel=1e-3)


@pytest.mark.parametrize("spread", [{"var": 2 * torch.ones(2)}, {"cov": torch.eye(2)}])
def test_moments_keep_their_numbers_when_the_tensors_they_were_made_of_change(spread):
    given = {"mean": torch.ones(2), **spread}
    moments, z = Moments(**given), torch.ones(3, 2)
    before = moments.sample(z)
    for value in given.values():
        value.mul_(2)
    assert torch.equal(moments.sample(z), before)
