"""Test calibration: exact p-values, the rate of false alarms, and the detection of errors."""

import json
import math

import numpy as np
import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from scipy import stats
from torch.testing import assert_close

from scoresde.errors import (
    DataError,
    InvalidTypeError,
    InvalidValueError,
    NonFiniteError,
    ShapeError,
)
from scoresde.metrics import calibrate, calibrate_pairs
from scoresde.metrics.calibration.ranks import Directions, energy_scores, nearest, position
from scoresde.metrics.calibration.result import Quantity
from scoresde.metrics.calibration.uniformity import (
    POINTS,
    _leaving,
    band,
    binomial_p,
    chi_square_p,
    counts_of,
    ecdf_p,
    holm,
)

DOUBLE = torch.float64
# theta ~ N(0, I) in two dimensions, y = A theta + noise of variance .5
A = torch.tensor([[1.0, 0.5], [0.0, 1.0]], dtype=DOUBLE)
COV = torch.linalg.inv(torch.eye(2, dtype=DOUBLE) + 2 * A.T @ A)
GAIN = 2 * COV @ A.T
ROOT = torch.linalg.cholesky(COV)


def gen(seed=0):
    return torch.Generator().manual_seed(seed)


def simulate(n, seed):
    theta, noise = torch.randn(2, n, 2, generator=gen(seed), dtype=DOUBLE)
    return theta, theta @ A.T + math.sqrt(0.5) * noise


def posterior(y, k, seed, scale=1.0, shift=0.0):
    """Draws of the exact posterior, made narrower, or moved by a share of the spread."""
    noise = torch.randn(len(y), k, 2, generator=gen(seed), dtype=DOUBLE)
    moved = shift * COV[0, 0].sqrt() * torch.tensor([1.0, 0.0], dtype=DOUBLE)
    return (y @ GAIN.T)[:, None] + scale * noise @ ROOT.T + moved


def log_likelihood(theta, y):
    return -(y - theta @ A.T).square().sum(1)


def log_density(theta, y):
    law = torch.distributions.MultivariateNormal(y @ GAIN.T, scale_tril=ROOT)
    return law.log_prob(theta)


# Exact tests


@given(
    n=st.integers(1, 40),
    points=st.lists(st.integers(0, 98), min_size=2, max_size=2, unique=True).map(sorted),
    data=st.data(),
)
def test_the_probability_of_leaving_a_band_is_that_of_multinomial_counts(n, points, data):
    """A band that binds at two points alone, by the sum over all counts there."""
    ends = [sorted(data.draw(st.lists(st.integers(0, n), min_size=2, max_size=2))) for _ in points]
    (first, second), ((a, b), (c, d)) = points, ends
    low, high = np.zeros(99, dtype=int), np.full(99, n)
    low[first:], high[: first + 1] = a, b
    low[second:], high[second] = max(a, c), d
    high[first + 1 : second] = n
    high[: first + 1] = np.minimum(high[: first + 1], b)
    z = POINTS[[first, second]]
    one, two = np.meshgrid(np.arange(a, b + 1), np.arange(max(a, c), d + 1), indexing="ij")
    stays = stats.binom(n, z[0]).pmf(one)
    share = (z[1] - z[0]) / (1 - z[0])
    stays = stays * np.where(two >= one, stats.binom(n - one, share).pmf(two - one), 0.0)
    assert math.isclose(_leaving(low, high, n), 1 - stays.sum(), abs_tol=1e-9)


@pytest.mark.slow
@pytest.mark.parametrize("n", [5, 60, 700])
def test_p_values_have_their_nominal_rate(n):
    """Discrete p-values are never too small; 4 standard errors of 200 repetitions."""
    u = torch.rand(200, n, generator=gen(n), dtype=DOUBLE)
    p = torch.tensor([ecdf_p(counts_of(row), n) for row in u])
    for level in (0.01, 0.05, 0.3):
        share = float((p <= level).double().mean())
        assert share < level + 4 * math.sqrt(level / 200)
        assert n < 60 or share > level - 4 * math.sqrt(level / 200)
    squares = torch.tensor([chi_square_p(row) for row in u])
    assert abs(float((squares < 0.05).double().mean()) - 0.05) < 4 * math.sqrt(0.05 / 200)


@pytest.mark.slow
@pytest.mark.parametrize(("n", "level"), [(50, 0.05), (400, 0.2)])
def test_a_band_has_its_nominal_rate_and_is_left_where_the_p_value_is_below(n, level):
    low, high = band(n, level)
    left = 0
    for row in torch.rand(200, n, generator=gen(7), dtype=DOUBLE):
        counts = counts_of(row)
        outside = bool(((counts < low) | (counts > high)).any())
        left += outside
        assert outside == (ecdf_p(counts, n) <= level)
    assert left / 200 < level + 4 * math.sqrt(level / 200)


@given(seed=st.integers(0, 99), draws=st.integers(1, 6), ties=st.booleans())
@example(seed=0, draws=3, ties=True)
def test_places_are_uniform_for_exchangeable_draws_with_ties_or_without(seed, draws, ties):
    values = torch.randn(3000, draws + 1, generator=gen(seed), dtype=DOUBLE)
    values = values.round() if ties else values
    u = position(
        values[:, 0], values[:, 1:], torch.rand(3000, generator=gen(seed + 1), dtype=DOUBLE)
    )
    assert ((u > 0) & (u < 1)).all()
    assert ecdf_p(counts_of(u), 3000) > 1e-6


@given(p=st.lists(st.floats(0, 1), min_size=1, max_size=8))
def test_holms_adjustment_rejects_what_stepping_down_rejects(p):
    adjusted = holm(torch.tensor(p, dtype=DOUBLE))
    for level in (0.01, 0.2, 0.7):
        rejected = set()
        for rank, i in enumerate(np.argsort(p, kind="stable")):
            if p[i] * (len(p) - rank) > level:
                break
            rejected.add(int(i))
        assert {i for i, value in enumerate(adjusted.tolist()) if value <= level} == rejected


def test_a_quantity_counts_its_central_intervals():
    u = torch.linspace(0.0005, 0.9995, 1000, dtype=DOUBLE)
    found = Quantity.of("it", u)
    assert found.coverage == (0.5, 0.9)
    assert found.errors == pytest.approx((0, 0), abs=1e-9)
    assert all(value > 0.5 for value in (found.p["ranks"], found.p["50 %"], found.p["90 %"]))
    assert binomial_p(10, 10, 0.5) == pytest.approx(2 * 0.5**10)


def test_a_quantity_shows_on_which_side_the_draws_lie():
    """Half of the truths lie above all draws, and half a little below their middle."""
    u = torch.cat([torch.linspace(0.991, 0.999, 500), torch.linspace(0.26, 0.5, 500)]).double()
    half = Quantity.of("it", u)
    assert half.place == pytest.approx(0.6875, abs=1e-6)
    assert half.fault == "too low"
    assert Quantity.of("it", 1 - u).fault == "too high"
    assert Quantity.of("it", 0.5 + 0.4 * (u - 0.5)).fault.startswith("too wide")


# The numbers that are ranked


def test_the_energy_score_is_that_of_two_independent_draws():
    truth, draws = torch.randn(3, 2, generator=gen()), torch.randn(3, 2, 2, generator=gen(1))
    order = torch.tensor([[0, 1], [1, 0], [0, 1]])
    for i, score in enumerate(energy_scores(truth, draws, order)):
        far = sum(float((d - truth[i]).norm()) for d in draws[i]) / 2
        assert float(score) == pytest.approx(far - float((draws[i][0] - draws[i][1]).norm()) / 2)


def test_the_energy_score_does_not_depend_on_the_order_of_the_draws_on_average():
    """In one dimension it is that of all pairs, for sorted draws too, within 5 standard errors."""
    truth = torch.randn(2000, 1, generator=gen(), dtype=DOUBLE)
    draws = torch.randn(2000, 30, 1, generator=gen(1), dtype=DOUBLE).sort(1).values
    far = (draws - truth[:, None]).abs().mean((1, 2))
    apart = (draws - draws.mT).abs().sum((1, 2)) / (2 * 30 * 29)
    order = torch.rand(2000, 30, generator=gen(2)).argsort(1)
    gap = energy_scores(truth, draws, order) - (far - apart)
    assert abs(float(gap.mean())) < 5 * float(gap.std()) / math.sqrt(2000)


def test_entries_and_projections_are_in_units_of_the_spread():
    scale = torch.tensor([2.0, 5.0, 1.0], dtype=DOUBLE)
    found = Directions.of(scale, entries=2, projections=4, generator=gen())
    assert len(found.names) == 6
    assert_close((found.weights * scale[:, None]).norm(dim=0), torch.ones(6, dtype=DOUBLE))
    assert Directions.of(scale[:1], 16, 8, gen()).names == ("entry 0",)


def test_the_nearest_data_are_those_of_a_full_comparison():
    y, among = torch.randn(30, 3, generator=gen()), torch.randn(50, 3, generator=gen(1))
    assert torch.equal(nearest(y, among, rows=7), torch.cdist(y, among).argmin(1))


# The door


def test_the_exact_posterior_passes_and_its_sharpness_is_that_of_the_closed_form():
    found = calibrate(
        posterior, simulate, n=2000, log_likelihood=log_likelihood, log_density=log_density
    )
    assert found.passed, str(found)
    assert found.first is None
    truth = -math.log(2 * math.pi * math.e) - 0.5 * float(torch.logdet(COV))
    assert found.log_density.low < truth < found.log_density.high
    assert 0.2 < found.skill.low < found.skill.value < found.skill.high < 0.7


@pytest.mark.slow
@pytest.mark.law(74)
@pytest.mark.parametrize(
    "draw",
    [
        lambda y, k, seed: posterior(y, k, seed, scale=0.8),
        lambda y, k, seed: posterior(y, k, seed, scale=0.9),
        lambda y, k, seed: posterior(y, k, seed, shift=0.1),
        lambda y, k, seed: posterior(y.roll(1, 0), k, seed),
        lambda y, k, seed: simulate(len(y) * k, seed)[0].unflatten(0, (len(y), k)),
    ],
    ids=["std x .8", "std x .9", "mean + .1 std", "swapped y", "the prior"],
)
def test_a_posterior_that_is_wrong_is_rejected(draw):
    """With 6,000 data sets, which a shift of a tenth of the spread in one entry needs."""
    found = calibrate(draw, simulate, log_likelihood=log_likelihood, rerun=False)
    assert not found.passed, str(found)


@pytest.mark.law(74)
def test_draws_of_the_prior_are_rejected_by_the_distance_alone():
    """Entries and projections pass, since the draws have the law of the truth."""

    def prior(y, k, seed):
        return simulate(len(y) * k, seed)[0].unflatten(0, (len(y), k))

    found = calibrate(prior, simulate, n=1000, rerun=False)
    assert {name.split(",")[0] for name in found.alarms} == {"distance"}
    assert abs(found.skill.value) < 0.03


@pytest.mark.slow
@pytest.mark.law(74)
def test_false_alarms_are_as_rare_as_stated():
    """At 20 % in all, 30 repetitions: fewer than 20 % plus 4 standard errors."""
    alarms = sum(
        not calibrate(
            posterior, simulate, n=100, draws=19, level=0.2, rerun=False, seed=seed
        ).passed
        for seed in range(30)
    )
    assert alarms / 30 < 0.2 + 4 * math.sqrt(0.2 * 0.8 / 30)


def test_an_alarm_is_repeated_with_four_times_as_many_other_data_sets():
    asked = []

    def counted(n, seed):
        asked.append((n, seed))
        return simulate(n, seed)

    found = calibrate(lambda y, k, seed: posterior(y, k, seed, scale=0.5), counted, n=200, draws=9)
    assert (found.n, found.first.n) == (800, 200)
    assert not found.passed
    assert [n for n, _ in asked] == [200, 200, 800, 800]
    assert len({seed for _, seed in asked}) == 4


def test_a_seed_gives_one_result_for_any_batch_size_of_a_sampler_that_ignores_it():
    def by_data(y, k, seed):  # each row by its own numbers
        return y[:, None] * torch.linspace(-1, 1, k, dtype=DOUBLE)[None, :, None]

    one, other = (
        calibrate(by_data, simulate, n=60, draws=5, batch_size=size, rerun=False)
        for size in (60, 7)
    )
    assert one.as_json() == other.as_json()


def test_parameters_and_data_of_any_shape_are_accepted():
    def fields(n, seed):
        theta = torch.randn(n, 1, 5, 5, generator=gen(seed))
        return theta, theta.mean((1, 2, 3))

    def draw(y, k, seed):
        free = torch.randn(len(y), k, 1, 5, 5, generator=gen(seed))
        return free - free.mean((2, 3, 4), keepdim=True) + y[:, None, None, None, None]

    found = calibrate(draw, fields, n=300, draws=19)
    assert found.passed, str(found)
    assert len(found.quantities) == 16 + 8 + 1


def test_a_result_is_a_table_json_and_a_picture(tmp_path):
    found = calibrate(lambda y, k, seed: posterior(y, k, seed, scale=0.5), simulate, n=100, draws=9)
    assert "Not calibrated: " in str(found)
    assert "in 90 %  off, s.e." in str(found)
    assert "that of draws from the prior, which ignore the data" in found.verdict()
    stored = json.loads(found.to_json(tmp_path / "it.json").read_text())
    assert stored["verdict"] == found.verdict()
    assert stored["first"]["n"] == 100
    places, coverage = found.plot().axes
    assert [label.get_text() for label in coverage.get_yticklabels()] == [
        quantity.name for quantity in found.quantities
    ]
    assert len(places.lines) == len(found.quantities) + 1
    assert len(places.get_legend().get_texts()) >= 2


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        (dict(n=3), InvalidValueError, "n must be an integer >= 20"),
        (dict(draws=1), InvalidValueError, "draws must be an integer >= 2"),
        (dict(level=1.0), InvalidValueError, "level"),
        (dict(draw=lambda y, k, seed: torch.zeros(len(y), k)), ShapeError, r"\(20, 99, 2\)"),
        (dict(draw=lambda y, k, seed: math.nan * posterior(y, k, seed)), NonFiniteError, "draws"),
        (
            dict(draw=lambda y, k, seed: None),
            InvalidTypeError,
            "the draws must be a number or a tensor",
        ),
        (dict(simulate=lambda n, seed: 1), InvalidTypeError, "must return parameters and data"),
        (
            dict(simulate=lambda n, seed: simulate(n + 1, seed)),
            ShapeError,
            "must return parameters",
        ),
        (dict(log_likelihood=lambda theta, y: theta), ShapeError, "one number for each of"),
        (dict(log_density=lambda theta, y: theta[:, 0] * math.nan), NonFiniteError, "log_density"),
        (dict(log_density=lambda theta, y: theta[:, 0].log()), NonFiniteError, "log_density"),
        (
            dict(simulate=lambda n, seed: tuple(1e200 * part for part in simulate(n, seed))),
            NonFiniteError,
            r"theta holds numbers up to .*e\+200, so their squares overflow; divide the param",
        ),
        (
            dict(simulate=lambda n, seed: (simulate(n, seed)[0], 1e-300 * simulate(n, seed)[1])),
            NonFiniteError,
            r"y holds numbers up to .*e-300, so their squares underflow; divide the param",
        ),
        (
            dict(draw=lambda y, k, seed: 1e200 * posterior(y, k, seed)),
            NonFiniteError,
            "the draws holds numbers up to .*, so their squares overflow",
        ),
        (dict(draw=3), InvalidTypeError, "draw"),
        (
            dict(simulate=lambda n, seed: (torch.ones(n, 2), torch.zeros(n, 2))),
            DataError,
            "all parameters are equal",
        ),
    ],
)
def test_unfitting_arguments_are_refused_in_a_sentence(change, error, words):
    given = dict(draw=posterior, simulate=simulate, n=20) | change
    with pytest.raises(error, match=words):
        calibrate(given.pop("draw"), given.pop("simulate"), **given)


# Pairs without a simulator


def test_pairs_are_tested_on_rows_that_give_no_points():
    theta, y = simulate(900, 0)
    found = calibrate_pairs(posterior, theta, y, n=600, draws=19, log_likelihood=log_likelihood)
    assert found.passed, str(found)
    assert (found.n, found.first) == (600, None)
    seen = []

    def watched(y, k, seed):
        seen.append(y)
        return posterior(y, k, seed)

    calibrate_pairs(watched, theta, y, draws=2, batch_size=100)
    rows = torch.cat(seen)
    assert len(rows) == 450
    assert len(rows.unique(dim=0)) == 450
    assert (rows[:, None] == y).all(2).any(1).all()


@pytest.mark.parametrize(
    "draw",
    [
        lambda y, k, seed: posterior(y, k, seed, scale=0.7),
        lambda y, k, seed: posterior(y.roll(1, 0), k, seed),
        lambda y, k, seed: simulate(len(y) * k, seed)[0].unflatten(0, (len(y), k)),
    ],
    ids=["std x .7", "swapped y", "the prior"],
)
def test_draws_that_are_wrong_are_rejected_by_pairs(draw):
    found = calibrate_pairs(draw, *simulate(2000, 0))
    assert not found.passed, str(found)


@pytest.mark.long
def test_false_alarms_of_pairs_are_as_rare_as_stated():
    """At 20 % in all, 30 repetitions: fewer than 20 % plus 4 standard errors."""
    alarms = sum(
        not calibrate_pairs(
            posterior, *simulate(150, seed), n=100, draws=19, level=0.2, seed=seed
        ).passed
        for seed in range(30)
    )
    assert alarms / 30 < 0.2 + 4 * math.sqrt(0.2 * 0.8 / 30)


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        (dict(n=390), DataError, "at least 20 pairs must be tested and .* got 390 of 400"),
        (dict(n=2), InvalidValueError, "n must be an integer >= 20"),
        (dict(draws=1), InvalidValueError, "draws must be an integer >= 2"),
        (dict(theta=torch.zeros(30, 2)), ShapeError, "theta and y must be parameters"),
        (dict(theta=torch.zeros(400)), ShapeError, "theta and y must be parameters"),
        (dict(y=torch.full((400, 2), math.nan)), NonFiniteError, "y"),
    ],
)
def test_pairs_that_do_not_fit_are_refused(change, error, words):
    theta, y = simulate(400, 0)
    given = dict(theta=theta, y=y) | change
    with pytest.raises(error, match=words):
        calibrate_pairs(posterior, given.pop("theta"), given.pop("y"), **given)


def test_draws_that_change_their_data_in_place_change_no_result():
    def changing(y, k, seed):
        found = posterior(y.clone(), k, seed)
        y.zero_()
        return found

    theta, y = simulate(200, 0)
    likelihood = lambda theta, y: -((theta - y) ** 2).flatten(1).sum(1)  # noqa: E731
    one, other = (
        calibrate_pairs(f, theta, y, log_likelihood=likelihood, log_density=likelihood)
        for f in (posterior, changing)
    )
    assert one == other
