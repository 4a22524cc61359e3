"""Test metrics against closed forms, invariances and brute force."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from scoresde.errors import InvalidTypeError, InvalidValueError, NonFiniteError, ShapeError
from scoresde.metrics import frechet_distance, nearest_distance, total_variation

seeds = st.integers(0, 2**32 - 1)
sizes = st.integers(1, 6)


def generator(seed):
    return torch.Generator().manual_seed(seed)


def randn(*shape, g):
    return torch.randn(shape, generator=g, dtype=torch.float64)


def samples_with(mean, cov, g, n=40):
    """Samples whose mean and covariance are exactly the ones asked for."""
    d = len(mean)
    z = randn(n, d, g=g)
    z, _ = torch.linalg.qr(z - z.mean(0))
    value, basis = torch.linalg.eigh(cov)
    return mean + math.sqrt(n - 1) * z @ (basis * value.clamp(min=0).sqrt()).T


def covariance(d, rank, g):
    root = randn(d, rank, g=g)
    return root @ root.T


@given(sizes, seeds)
def test_the_frechet_distance_of_commuting_covariances_is_the_closed_form(d, seed):
    g = generator(seed)
    basis, _ = torch.linalg.qr(randn(d, d, g=g))
    means, stds = randn(2, d, g=g), randn(2, d, g=g).abs()
    x, y = (samples_with(m, basis * s**2 @ basis.T, g) for m, s in zip(means, stds, strict=True))
    want = (means[0] - means[1]).square().sum() + (stds[0] - stds[1]).square().sum()
    assert math.isclose(frechet_distance(x, y), want, rel_tol=1e-9, abs_tol=1e-12)


@given(sizes, seeds)
def test_the_frechet_distance_is_the_trace_formula(d, seed):
    g = generator(seed)
    means = randn(2, d, g=g)
    a, b = (covariance(d, d, g) + 0.1 * torch.eye(d, dtype=torch.float64) for _ in range(2))
    x, y = samples_with(means[0], a, g), samples_with(means[1], b, g)
    # The product has the eigenvalues of a symmetric one: real and positive.
    cross = torch.linalg.eigvals(a @ b).real.sqrt().sum()
    want = (means[0] - means[1]).square().sum() + a.trace() + b.trace() - 2 * cross
    assert math.isclose(frechet_distance(x, y), want, rel_tol=1e-8, abs_tol=1e-10)


@given(st.integers(2, 60), sizes, seeds)
def test_the_frechet_distance_to_itself_is_zero_even_with_fewer_samples_than_features(n, d, seed):
    x = randn(n, 10 * d, g=generator(seed))
    assert 0 <= frechet_distance(x, x) < 1e-20 * x.numel()
    assert frechet_distance(x, x.flip(0)) < 1e-20 * x.numel()


@given(sizes, st.integers(1, 3), seeds)
def test_the_frechet_distance_is_symmetric_and_ignores_rotations_and_shifts(d, rank, seed):
    g = generator(seed)
    rank = min(rank, d)
    x = samples_with(randn(d, g=g), covariance(d, rank, g), g)
    y = samples_with(randn(d, g=g), covariance(d, d, g), g, n=30)
    rotation, _ = torch.linalg.qr(randn(d, d, g=g))
    shift = randn(d, g=g)
    distance = frechet_distance(x, y)
    close = dict(rel_tol=1e-9, abs_tol=1e-11)
    assert math.isclose(frechet_distance(y, x), distance, **close)
    assert math.isclose(
        frechet_distance(x @ rotation + shift, y @ rotation + shift), distance, **close
    )
    assert math.isclose(frechet_distance(3 * x, 3 * y), 9 * distance, **close)


@given(seeds)
def test_singular_covariances_keep_their_digits(seed):
    g = generator(seed)
    mean = torch.zeros(2, dtype=torch.float64)
    line = torch.tensor([[1.0, 0.0], [0.0, 0.0]], dtype=torch.float64)
    other = torch.tensor([[0.0, 0.0], [0.0, 1e-16]], dtype=torch.float64)
    # Orthogonal lines have no transport in common: d^2 is the sum of the traces.
    assert math.isclose(
        frechet_distance(samples_with(mean, 1e-16 * line, g), samples_with(mean, other, g)),
        2e-16,
        rel_tol=1e-9,
    )


@given(st.integers(2, 3000), seeds)
def test_features_are_computed_for_every_sample_in_order(n, seed):
    g = generator(seed)
    x, y = randn(n, 1, 2, 3, g=g), randn(7, 1, 2, 3, g=g)
    weight = randn(6, 4, g=g)

    def features(images):
        assert len(images) <= 1024
        return images.flatten(1) @ weight

    want = frechet_distance(features(x[:1024]) if n <= 1024 else x.flatten(1) @ weight, features(y))
    assert math.isclose(frechet_distance(x, y, features=features), want, rel_tol=1e-9)


def test_float32_samples_are_compared_in_float64():
    x = torch.randn(100, 3, generator=generator(0))
    assert frechet_distance(x, x + 1e-4) == pytest.approx(3e-8, rel=1e-3)


@given(st.integers(0, 20), st.integers(1, 20), sizes, seeds)
def test_the_nearest_distance_is_the_minimum_over_all_pairs(n, m, d, seed):
    g = generator(seed)
    x, y = randn(n, d, 2, g=g), randn(m, d, 2, g=g)
    pairs = (x[:, None] - y[None]).flatten(2).norm(dim=2)
    got = nearest_distance(x, y)
    assert got.shape == (n,)
    assert torch.allclose(got, pairs.amin(1), rtol=1e-12)


def test_a_copy_is_at_distance_zero_exactly(monkeypatch):
    y = 100 + torch.randn(50, 7, generator=generator(1))
    monkeypatch.setattr("scoresde.metrics.distances._ENTRIES", 120)  # chunks of two rows
    assert torch.equal(nearest_distance(y[10:25], y), torch.zeros(15, dtype=torch.float64))


@given(st.lists(st.integers(0, 50), min_size=2, max_size=8).filter(any), seeds)
def test_total_variation_is_a_distance_between_histograms(counts, seed):
    p = torch.tensor(counts, dtype=torch.float64)
    q = torch.rand(len(counts), generator=generator(seed), dtype=torch.float64) + 0.01
    assert total_variation(p, p) == 0
    assert total_variation(p, 7 * p) == pytest.approx(0, abs=1e-15)
    assert total_variation(p, q) == pytest.approx(total_variation(q, p))
    # The largest difference over all sets of classes, which are the subsets.
    gap = p / p.sum() - q / q.sum()
    assert total_variation(p, q) == pytest.approx(gap.clamp(min=0).sum().item(), abs=1e-12)


def test_disjoint_histograms_differ_by_one():
    assert total_variation(torch.tensor([3, 0]), torch.tensor([0.0, 0.2])) == 1
    assert total_variation(1e308 * torch.ones(2).double(), torch.ones(2)) == 0


def test_a_copy_is_found_far_from_the_origin():
    y = torch.randn(300, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64) + 1e8
    assert (nearest_distance(y, y) == 0).all()


X = torch.zeros(4, 3)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: frechet_distance(X[:1], X), ShapeError, "at least 2 samples, got x of shape"),
        (lambda: frechet_distance(X, X[:0]), ShapeError, "at least 2 samples, got y of shape"),
        (
            lambda: frechet_distance(X, X[:, :2]),
            ShapeError,
            "number of features, got 3.*and 2 for y",
        ),
        (lambda: frechet_distance(X, X + math.nan), NonFiniteError, "y holds NaN"),
        (lambda: frechet_distance(X.numpy(), X), InvalidTypeError, "x must be a tensor"),
        (
            lambda: frechet_distance(X, X, features=lambda v: v.mean(0)),
            ShapeError,
            "one row per sample, got 3 rows for 4",
        ),
        (
            lambda: frechet_distance(X, X, features=lambda v: v / 0),
            NonFiniteError,
            r"features\(x\) holds NaN",
        ),
        (lambda: nearest_distance(X, X[:, :2]), ShapeError, r"\(4, 3\) and \(4, 2\)"),
        (lambda: nearest_distance(X, X[:0]), ShapeError, "y holds no sample"),
        (lambda: nearest_distance(X[0, 0], X[0, 0]), ShapeError, r"must have shape \(B, \*\)"),
        (lambda: nearest_distance(X / 0, X), NonFiniteError, "x holds NaN"),
        (lambda: nearest_distance(X.double() + 1e200, X), NonFiniteError, "x holds.*overflow"),
        (lambda: frechet_distance(X, X.double() + 1e200), NonFiniteError, "y holds.*overflow"),
        (
            lambda: nearest_distance(X.double(), 1e-162 * (X.double() + 1)),
            NonFiniteError,
            "underflow",
        ),
        (lambda: total_variation(X[0], X[0] + 1), InvalidValueError, "p must be a histogram"),
        (lambda: total_variation(X[0] + 1, X[0] - 1), InvalidValueError, "q must be a histogram"),
        (lambda: total_variation(X[0] + 1, X[0, :2] + 1), ShapeError, r"\(3,\) and \(2,\)"),
        (lambda: total_variation(X + 1, X + 1), ShapeError, "bincount"),
        (lambda: total_variation([1, 2], X[0]), InvalidTypeError, "p must be a tensor, got"),
    ],
)
def test_bad_inputs_are_named(call, error, message):
    with pytest.raises(error, match=message):
        call()
