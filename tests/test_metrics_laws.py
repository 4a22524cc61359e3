"""Distances between laws and bootstrap intervals, against closed forms and brute force."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from scoresde.errors import InvalidValueError, NonFiniteError, ShapeError
from scoresde.metrics import bootstrap, energy_distance, sliced_wasserstein


def generator(seed):
    return torch.Generator().manual_seed(seed)


def randn(*shape, seed=0):
    return torch.randn(*shape, generator=generator(seed), dtype=torch.float64)


@given(st.integers(2, 12), st.integers(2, 12), st.integers(1, 4), st.integers(0, 2**32))
def test_the_energy_distance_is_the_mean_over_different_pairs(n, m, d, seed):
    x, y = randn(n, d, seed=seed), 1 + randn(m, d, seed=seed + 1)
    pairs = [(x[i] - y[j]).norm() for i in range(n) for j in range(m)]
    own = [[(a[i] - a[j]).norm() for i in range(len(a)) for j in range(i)] for a in (x, y)]
    want = 2 * sum(pairs) / len(pairs) - sum(sum(part) / len(part) for part in own)
    assert energy_distance(x, y) == pytest.approx(float(want), abs=1e-6)
    assert energy_distance(x + 1e3, y + 1e3) == pytest.approx(float(want), abs=1e-5)
    assert energy_distance(y, x) == pytest.approx(float(want), abs=1e-6)


@pytest.mark.parametrize("distance", [energy_distance, sliced_wasserstein])
def test_two_sets_of_one_law_are_at_distance_zero_on_average(distance):
    options = {} if distance is energy_distance else {"projections": 16}
    values = []
    for seed in range(400):
        if options:
            options["generator"] = generator(seed)
        x, y = randn(16, 3, seed=2 * seed), randn(16, 3, seed=2 * seed + 1)
        values.append(distance(x, y, **options))
    values = torch.tensor(values)
    assert abs(float(values.mean())) < 4.5 * float(values.std()) / math.sqrt(400)
    assert values.min() < 0 < values.max()


def test_the_energy_distance_of_shifted_normals_is_the_closed_form():
    shift, n = 0.7, 4_000
    x, y = randn(n, 1, seed=5), shift + randn(n, 1, seed=6)
    # E|N(m, 2)| = 2 / sqrt(pi) exp(-m^2 / 4) + m erf(m / 2)
    across = 2 / math.sqrt(math.pi) * math.exp(-(shift**2) / 4) + shift * math.erf(shift / 2)
    want = 2 * across - 4 / math.sqrt(math.pi)
    assert energy_distance(x, y) == pytest.approx(want, abs=0.05)


def test_the_sliced_distance_of_normals_is_the_closed_form():
    n, d = 6_000, 4
    x, y = randn(n, d, seed=7), randn(n, d, seed=8)
    shift = torch.tensor([1.0, 0.0, 2.0, 0.0], dtype=torch.float64)
    got = sliced_wasserstein(2 * x + shift, y, projections=500, generator=generator(0))
    assert got == pytest.approx(1 + 5 / d, rel=0.1)


@given(st.integers(1, 5), st.integers(0, 2**32))
def test_the_sliced_distance_of_a_shifted_copy_is_the_mean_squared_shift(d, seed):
    x, shift = randn(10, d, seed=seed), randn(d, seed=seed + 1)
    got = sliced_wasserstein(x + shift, x, projections=64, generator=generator(1))
    u = torch.randn(d, 64, generator=generator(1), dtype=torch.float64)
    u = u / u.norm(dim=0)
    # halves of one set differ from each other, but enter with both signs
    halves = [(part @ u).sort(0)[0] for part in (x[:5], x[5:])]
    s = shift @ u
    crossed = (halves[0] + s - halves[1]) * (halves[1] + s - halves[0])
    want = ((s * s).mean() + crossed.mean()) / 2
    assert got == pytest.approx(float(want), abs=1e-10)


def test_the_bootstrap_covers_a_mean_as_often_as_it_says():
    hits = 0
    for seed in range(300):
        low, high = bootstrap(
            3 + randn(40, seed=seed), resamples=300, generator=generator(seed), level=0.8
        )
        hits += low <= 3 <= high
    # binomial, with the percentile interval a little too narrow
    assert abs(hits / 300 - 0.8) < 0.03 + 4 * math.sqrt(0.8 * 0.2 / 300)


@given(st.integers(1, 6), st.floats(-5, 5))
def test_the_bootstrap_of_equal_values_is_that_value(n, value):
    low, high = bootstrap(torch.full((n,), value), generator=generator(0))
    assert low == pytest.approx(value, rel=1e-6)
    assert high == pytest.approx(value, rel=1e-6)


X = torch.zeros(4, 3)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: energy_distance(X, X[:, :2]), ShapeError, "one shape"),
        (lambda: energy_distance(X[:1], X), ShapeError, "at least 2"),
        (lambda: sliced_wasserstein(X, X[:2]), ShapeError, "as many samples"),
        (lambda: sliced_wasserstein(X, X, projections=0), InvalidValueError, "projections"),
        (lambda: sliced_wasserstein(X, X / 0), NonFiniteError, "y holds NaN"),
        (lambda: bootstrap(X), ShapeError, "vector"),
        (lambda: bootstrap(X[:0, 0]), ShapeError, "vector"),
        (lambda: bootstrap(X[0], level=1.0), InvalidValueError, "level"),
        (lambda: bootstrap(X[0], resamples=0), InvalidValueError, "resamples"),
    ],
)
def test_bad_inputs_are_named(call, error, message):
    with pytest.raises(error, match=message):
        call()
