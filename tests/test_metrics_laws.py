"""Test distances of distributions and intervals of means against closed forms."""

import math

import pytest
import scipy.stats
import torch
from hypothesis import given
from hypothesis import strategies as st

from scoresde.errors import InvalidTypeError, InvalidValueError, NonFiniteError, ShapeError
from scoresde.metrics import energy_distance, mean_interval, sliced_wasserstein


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


@pytest.mark.slow
def test_the_energy_distance_of_shifted_normals_is_the_closed_form():
    shift, n = 0.7, 4_000
    x, y = randn(n, 1, seed=5), shift + randn(n, 1, seed=6)
    # E|N(m, 2)| = 2 / sqrt(pi) exp(-m^2 / 4) + m erf(m / 2)
    across = 2 / math.sqrt(math.pi) * math.exp(-(shift**2) / 4) + shift * math.erf(shift / 2)
    want = 2 * across - 4 / math.sqrt(math.pi)
    assert energy_distance(x, y) == pytest.approx(want, abs=0.05)


@pytest.mark.slow
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


@pytest.mark.parametrize("law", ["normal", "square", "log-normal"])
def test_the_interval_of_a_skewed_mean_has_its_nominal_coverage(law):
    n, reps, hits, widths = 100, 400, 0, []
    z = randn(reps, n, seed=3)
    values, mean = {
        "normal": (z, 0.0), "square": (z**2, 1.0), "log-normal": ((0.8 * z).exp(), math.exp(0.32)),
    }[law]  # fmt: skip
    for row in values:
        low, high = mean_interval(row)
        hits += low <= mean <= high
        widths.append(high - low)
    # Student's interval holds the last two in .93 and .92 of the cases
    assert hits / reps > 0.95 - 2.5 * math.sqrt(0.95 * 0.05 / reps)
    usual = 2 * 1.96 * float(values.mean(1).std())
    assert 0.9 < sorted(widths)[reps // 2] / usual < 1.2


def test_both_ends_of_a_skewed_mean_are_missed_equally():
    values = randn(1000, 60, seed=4) ** 2
    ends = [mean_interval(row, level=0.8) for row in values]
    below, above = (sum(cut) for cut in zip(*((h < 1, low > 1) for low, h in ends), strict=True))
    # Student's misses 14.1 % on one side and 5.7 % on the other
    assert abs(below - above) / 1000 < 3 * math.sqrt(0.2 / 1000)


@given(st.lists(st.floats(-1e3, 1e3), min_size=2, max_size=20), st.floats(0.5, 0.999))
def test_the_interval_is_students_without_skewness_and_changes_with_the_sign(values, level):
    v = torch.tensor(values, dtype=torch.float64)
    low, high = mean_interval(v, level=level)
    assert low <= float(v.mean()) <= high
    assert mean_interval(-v, level=level) == pytest.approx((-high, -low), rel=1e-9, abs=1e-9)
    both = torch.cat([v, -v])
    n = len(both)
    t = scipy.stats.t.ppf((1 + level) / 2, max((n - 1) / 5, min(n - 1, 3)))
    reach = t * float(both.std()) / math.sqrt(n)
    assert mean_interval(both, level=level) == pytest.approx((-reach, reach), rel=1e-6, abs=1e-9)


@given(st.floats(-5, 5))
def test_one_value_tells_nothing_of_its_spread(value):
    assert mean_interval(torch.tensor([value])) == (-math.inf, math.inf)


@given(st.integers(2, 6), st.floats(-5, 5))
def test_the_interval_of_equal_values_is_that_value(n, value):
    low, high = mean_interval(torch.full((n,), value))
    assert low == pytest.approx(value, rel=1e-6)
    assert high == pytest.approx(value, rel=1e-6)


def test_an_interval_beyond_float64_is_refused():
    values = torch.tensor([1e308, 1.1e308, 1.2e308], dtype=torch.float64)
    want = [1e308 * end for end in mean_interval(values / 1e308)]
    assert mean_interval(values) == pytest.approx(want, rel=1e-9)
    with pytest.raises(NonFiniteError, match="overflows float64"):
        mean_interval(torch.tensor([1e308, 1e308, -1e308], dtype=torch.float64))


@given(st.sampled_from([1e-300, 1e-30, 1e30, 1e300]), st.integers(0, 2**32))
def test_the_interval_is_in_the_units_of_the_values(scale, seed):
    v = randn(7, seed=seed)
    got, want = mean_interval(scale * v), mean_interval(v)
    assert got == pytest.approx([scale * end for end in want], rel=1e-9, abs=0)


X = torch.zeros(4, 3)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: energy_distance(X, X[:, :2]), ShapeError, "the same shape"),
        (lambda: energy_distance(X[:1], X), ShapeError, "at least 2"),
        (lambda: sliced_wasserstein(X, X[:2]), ShapeError, "equal numbers of samples"),
        (lambda: sliced_wasserstein(X, X, projections=0), InvalidValueError, "projections"),
        (lambda: sliced_wasserstein(X, X / 0), NonFiniteError, "y holds NaN"),
        (lambda: mean_interval(X), ShapeError, "vector"),
        (lambda: mean_interval(X[:0, 0]), ShapeError, "vector"),
        (lambda: mean_interval(X[0] / 0), NonFiniteError, "values holds NaN"),
        (lambda: mean_interval(X[0], level=1.0), InvalidValueError, "level"),
        (lambda: mean_interval(X[0], level="a"), InvalidTypeError, "level.*'a'"),
    ],
)
def test_bad_inputs_are_named(call, error, message):
    with pytest.raises(error, match=message):
        call()
