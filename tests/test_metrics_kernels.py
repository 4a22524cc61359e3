"""Test kernel, neighbour and memorisation metrics against closed forms and brute force."""

import math
from fractions import Fraction

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from scoresde.errors import (
    DataError,
    InvalidValueError,
    NonFiniteError,
    ShapeError,
    UnknownNameError,
)
from scoresde.metrics import (
    Copies,
    Kernel,
    Neighbours,
    Support,
    halves,
    kernel_distance,
    memorisation,
    nearest_distance,
    precision_recall,
)

seeds = st.integers(0, 2**32 - 1)


def randn(*shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def rotation(d, seed=0):
    return torch.linalg.qr(randn(d, d, seed=seed))[0]


def discrepancy(kernel, x, y):
    """The U-statistic, pair by pair."""

    def mean(a, b, same):
        pairs = [
            kernel(a[i], b[j]) for i in range(len(a)) for j in range(len(b)) if not same or i != j
        ]
        return sum(pairs) / len(pairs)

    return float(mean(x, x, True) + mean(y, y, True) - 2 * mean(x, y, False))  # fmt: skip


@given(st.integers(2, 9), st.integers(2, 9), st.integers(1, 4), seeds)
def test_kernel_distances_are_the_means_over_different_pairs(n, m, d, seed):
    x, y = randn(n, d, seed=seed), 1 + randn(m, d, seed=seed + 1)
    for kind, kernel in (
        ("gaussian", lambda a, b: torch.exp(-(a - b).square().sum() / (2 * 0.7**2))),
        ("cubic", lambda a, b: (a @ b / d + 1) ** 3),
    ):
        options = {"bandwidth": 0.7} if kind == "gaussian" else {}
        got = kernel_distance(x, y, kernel=kind, **options)
        assert got == pytest.approx(discrepancy(kernel, x, y), rel=1e-8, abs=1e-7)


@pytest.mark.parametrize(
    ("scale", "offset"), [(1, 1e4), (1, 1e8), (1e-3, 1), (1e-9, -1), (1e-30, 0), (1e30, 0)]
)
def test_the_cubic_kernel_keeps_its_digits_far_from_the_origin_and_near_it(scale, offset):
    x, y = offset + scale * randn(5, 2, seed=1), offset + scale * (1 + randn(6, 2, seed=2))

    def kernel(a, b):
        return (sum(p * q for p, q in zip(a, b, strict=True)) / 2 + 1) ** 3

    exact = ([[Fraction(v) for v in row] for row in part.tolist()] for part in (x, y))
    want = discrepancy(kernel, *exact)
    assert kernel_distance(x, y, kernel="cubic") == pytest.approx(want, rel=1e-11, abs=0)


@pytest.mark.slow
@given(st.integers(6, 12), st.integers(1, 3), seeds)
def test_the_figure_of_some_rows_is_that_of_these_rows_alone(n, d, seed):
    x, y = randn(n, d, seed=seed), 0.5 + randn(n, d, seed=seed + 1)
    rows, others = (halves(n, 3, seed=seed, stream=i) for i in range(2))
    for metric in (Kernel("gaussian", 1.3), Kernel("cubic"), Neighbours(2), Copies(y[:1] + 9)):
        for name, values in metric(x, y, rows, others).items():
            for value, i, j in zip(values, rows, others, strict=True):
                whole = torch.ones(1, int(i.sum()), dtype=torch.bool)
                alone = metric(x[i], y[j], whole, whole)[name]
                assert float(value) == pytest.approx(float(alone), rel=1e-9, abs=1e-9)


@pytest.mark.parametrize("kind", ["gaussian", "cubic", "distance"])
def test_a_table_that_is_made_in_parts_has_the_same_sums(kind, monkeypatch):
    x, y = randn(23, 3, seed=1), 0.5 + randn(19, 3, seed=2)
    rows, others = halves(23, 3, seed=1), halves(19, 3, seed=2)
    (want,) = Kernel(kind)(x, y, rows, others).values()
    monkeypatch.setattr("scoresde.metrics.distances._ENTRIES", 60)  # two or three rows at a time
    (found,) = Kernel(kind)(x, y, rows, others).values()
    assert torch.allclose(found, want, rtol=1e-10, atol=1e-12)


def test_the_bandwidth_is_the_median_distance_or_the_mean_or_one():
    x, y = randn(9, 2, seed=1), randn(6, 2, seed=2)

    def found(bandwidth=None):
        return kernel_distance(x, y, bandwidth=bandwidth)

    assert found() == pytest.approx(found(float(torch.pdist(y).median())), rel=1e-10)
    y[1:] = y[1]  # most distances are 0
    assert found() == pytest.approx(found(float(torch.pdist(y).mean())), rel=1e-10)
    y[:] = y[1]
    assert found() == pytest.approx(found(1.0), rel=1e-10)


@pytest.mark.slow
@pytest.mark.parametrize(("shift", "scale"), [(0.0, 1.0), (0.8, 1.0), (0.0, 2.0)])
def test_the_gaussian_kernel_finds_the_discrepancy_of_gaussians_without_bias(shift, scale):
    d, s, n = 3, 1.5, 20

    def overlap(variance, mean):  # E k(X, Y) with X - Y ~ N(mean, variance)
        total = s**2 + variance
        return (s**2 / total) ** (d / 2) * math.exp(-d * mean**2 / (2 * total))

    want = overlap(2 * scale**2, 0) + overlap(2, 0) - 2 * overlap(1 + scale**2, shift)
    values = torch.tensor(
        [
            kernel_distance(
                shift + scale * randn(n, d, seed=2 * i), randn(n, d, seed=2 * i + 1), bandwidth=s
            )
            for i in range(400)
        ]
    )
    assert float(values.mean()) == pytest.approx(want, abs=4.5 * float(values.std()) / 20)
    if want == 0:
        assert values.min() < 0


@given(st.integers(4, 20), st.integers(1, 4), seeds)
def test_distances_ignore_order_rotation_shift_and_for_the_median_scale(n, d, seed):
    x, y = randn(n, d, seed=seed), 0.3 + randn(n, d, seed=seed + 1)
    turn, mixed = rotation(d, seed), torch.randperm(n, generator=torch.Generator().manual_seed(1))
    want = kernel_distance(x, y)
    assert kernel_distance(5 * x @ turn + 2, 5 * y @ turn + 2) == pytest.approx(want, abs=1e-6)
    assert kernel_distance(x[mixed], y) == pytest.approx(want, abs=1e-9)
    support = precision_recall(x, y, k=2)
    assert precision_recall(x[mixed], y.flip(0), k=2) == pytest.approx(support)
    assert precision_recall(3 * x @ turn - 1, 3 * y @ turn - 1, k=2) == pytest.approx(support)


def test_equal_features_are_at_no_distance():
    x = torch.full((12, 3), 2.5)
    assert kernel_distance(x, x) == pytest.approx(0, abs=1e-12)
    assert kernel_distance(x, x, kernel="cubic") == pytest.approx(0, abs=1e-12)
    assert precision_recall(x, x)[:2] == (1, 1)


def brute(x, y, k):
    """Precision, recall, density and coverage by their definitions."""

    def apart(a, b):
        return (a[:, None] - b).norm(dim=2)

    def reach(a):
        return (apart(a, a) + torch.diag(torch.full((len(a),), math.inf))).sort(1)[0][:, k - 1]

    inside, back = apart(x, y) <= reach(y), apart(y, x) <= reach(x)
    shares = [float(hits.any(1).double().mean()) for hits in (inside, back, inside.T)]
    return Support(*shares[:2], float(inside.sum()) / (k * len(x)), shares[2])


@given(st.integers(4, 12), st.integers(4, 12), st.integers(1, 3), st.integers(1, 3), seeds)
def test_support_agrees_with_its_definition(n, m, d, k, seed):
    x, y = randn(n, d, seed=seed), 0.5 + randn(m, d, seed=seed + 1)
    assert precision_recall(x, y, k=k) == pytest.approx(brute(x, y, k))


def test_halves_of_many_rows_use_their_own_neighbours(monkeypatch):
    n = 120  # of which 44 neighbours are kept
    monkeypatch.setattr("scoresde.metrics.distances._ENTRIES", 1000)  # several chunks
    x, y = randn(n, 2, seed=1), 0.3 + randn(n, 2, seed=2)
    rows, others = (halves(n, 4, seed=3, stream=i) for i in range(2))
    found = Neighbours(1)(x, y, rows, others)
    for s, (i, j) in enumerate(zip(rows, others, strict=True)):
        want = brute(x[i], y[j], 1)
        assert [float(found[name][s]) for name in Support._fields] == pytest.approx(list(want))


@given(st.integers(2, 20), st.integers(1, 4), st.integers(1, 3), seeds)
def test_a_set_lies_on_its_own_support(n, d, k, seed):
    x = randn(n + k, d, seed=seed)
    assert precision_recall(x, x, k=k) == pytest.approx((1, 1, (k + 1) / k, 1))
    assert precision_recall(x, x + 1e6, k=k) == (0, 0, 0, 0)


@pytest.mark.slow
@pytest.mark.parametrize(("n", "m", "k"), [(20, 20, 3), (15, 30, 2)])
def test_density_and_coverage_of_equal_laws_are_known_for_any_law(n, m, k):
    rows = []
    for i in range(300):
        x, y = randn(n, 2, seed=2 * i).exp(), randn(m, 2, seed=2 * i + 1).exp()
        rows.append(precision_recall(x, y, k=k)[2:])
    found = torch.tensor(rows)
    coverage = 1 - math.prod((m - i) / (m + n - i) for i in range(1, k + 1))
    error = 4.5 * found.std(0) / math.sqrt(300)
    assert float(found[:, 0].mean()) == pytest.approx(1, abs=float(error[0]))
    assert float(found[:, 1].mean()) == pytest.approx(coverage, abs=float(error[1]))


@given(st.integers(5, 20), st.integers(1, 8), seeds)
def test_more_samples_cover_no_less_and_wider_balls_hold_no_less(n, more, seed):
    x, y = randn(n + more, 2, seed=seed), randn(n, 2, seed=seed + 1)
    assert precision_recall(x, y, k=2).coverage >= precision_recall(x[:n], y, k=2).coverage
    narrow, wide = precision_recall(x, y, k=1), precision_recall(x, y, k=3)
    assert wide.precision >= narrow.precision
    assert wide.recall >= narrow.recall


def test_a_dropped_mode_costs_recall_and_coverage_and_no_precision():
    mode = 20.0 * (torch.arange(400) % 4)[:, None]
    y, all_modes = mode + randn(400, 2, seed=1), mode + randn(400, 2, seed=2)
    three = all_modes[mode[:, 0] < 60]
    whole, part = precision_recall(all_modes, y), precision_recall(three, y)
    assert part.precision == pytest.approx(whole.precision, abs=0.02)
    assert part.recall == pytest.approx(0.75 * whole.recall, abs=0.02)
    assert part.coverage == pytest.approx(0.75 * whole.coverage, abs=0.02)


@given(st.integers(1, 12), st.integers(1, 12), seeds)
def test_nearer_is_the_share_of_pairs_and_turns_round_with_its_sides(n, m, seed):
    # on a lattice, so that there are ties
    x, y, train = ((2 * randn(k, 2, seed=seed + i)).round() for i, k in enumerate((n, m, 5)))
    train = train + 0.25
    a, b = nearest_distance(x, train), nearest_distance(y, train)
    want = float(((a[:, None] < b).double() + 0.5 * (a[:, None] == b)).mean())
    found = memorisation(x, y, train)
    assert found.nearer == pytest.approx(want)
    assert memorisation(y, x, train).nearer == pytest.approx(1 - want)
    assert found.copied == pytest.approx(float((a < b.quantile(0.01)).double().mean()))


@pytest.mark.slow
def test_the_statistic_of_new_samples_is_standard_normal():
    train = randn(60, 2, seed=10_000)
    found = torch.tensor(
        [
            memorisation(randn(40, 2, seed=2 * i), randn(50, 2, seed=2 * i + 1), train).c_t
            for i in range(400)
        ]
    )
    assert abs(float(found.mean())) < 4.5 / 20
    assert float(found.var()) == pytest.approx(1, abs=4.5 * math.sqrt(2 / 400))


def test_copies_are_distinguished_from_new_samples():
    train, held, new = (randn(300, 4, seed=i) for i in range(3))
    copies = memorisation(train + 1e-3 * new, held, train)
    assert copies.copied == 1
    assert copies.nearer > 0.99
    assert copies.c_t < -15
    some = memorisation(torch.cat([train[:30], new[30:]]), held, train)
    assert some.copied == pytest.approx(0.1 + 0.9 * 0.01, abs=0.03)


X = torch.zeros(4, 3)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: kernel_distance(X[:1], X), ShapeError, "at least 2 events"),
        (lambda: kernel_distance(X, X[:, :2]), ShapeError, r"\(4, 3\) and \(4, 2\)"),
        (lambda: kernel_distance(X, X / 0), NonFiniteError, "y holds NaN"),
        (lambda: kernel_distance(X, X, kernel="linear"), UnknownNameError, "'linear'"),
        (lambda: kernel_distance(X, X, bandwidth=0), InvalidValueError, "bandwidth.*got 0"),
        (lambda: precision_recall(X, X), ShapeError, "at least 6"),
        (lambda: precision_recall(X, X[:, :1], k=1), ShapeError, "the same shape"),
        (lambda: precision_recall(X, X, k=0), InvalidValueError, "k must be.*got 0"),
        (
            lambda: Neighbours(3)(X, X, halves(4, 2, seed=0), halves(4, 2, seed=0)),
            ShapeError,
            "at least 8 samples on either side, got 4 and 4",
        ),
        (lambda: memorisation(X, X, X), DataError, "100.0% of the held-out data"),
        (lambda: memorisation(X[:0], X, X + 1), ShapeError, "x and held must each hold at least 1"),
        (lambda: memorisation(X, X, X[:0]), ShapeError, "no sample"),
        (lambda: memorisation(X, X, X + 1, quantile=1), InvalidValueError, "got 1"),
    ],
)
def test_bad_inputs_are_named(call, error, message):
    with pytest.raises(error, match=message):
        call()


@pytest.mark.parametrize("kernel", ["gaussian", "cubic"])
def test_events_without_entries_are_at_no_distance(kernel):
    assert kernel_distance(torch.zeros(9, 0), torch.zeros(7, 0), kernel=kernel) == 0


def test_a_kernel_that_overflows_is_an_error_and_one_set_twice_keeps_its_diagonal():
    x = randn(10, 3)
    with pytest.raises(NonFiniteError, match="cubic kernel overflows"):
        kernel_distance(1e100 * x, x, kernel="cubic")
    rows = torch.ones(1, 10, dtype=torch.bool)
    twice = Kernel("cubic")(x, x, rows, rows)["kid"]
    assert twice == Kernel("cubic")(x, x.clone(), rows, rows)["kid"]
