"""Test `evaluate`: sources, features, coverage of intervals, floors, and verdicts."""

import json
import math

import numpy as np
import pytest
import scipy.stats
import torch
from hypothesis import given
from hypothesis import strategies as st

from scoresde import checkpoint
from scoresde.data import BYTES, Data, Range, order
from scoresde.errors import (
    CheckpointError,
    DataError,
    InvalidTypeError,
    InvalidValueError,
    MissingExtraError,
    NonFiniteError,
    ShapeError,
    UnknownNameError,
)
from scoresde.metrics import (
    METRICS,
    Classifier,
    Frechet,
    GaussianFit,
    Inception,
    Kernel,
    Neighbours,
    Sliced,
    evaluate,
    evaluating,
    frechet_distance,
    halves,
    inception,
    sliced_wasserstein,
)
from scoresde.metrics.evaluation import FIGURES, Comparison, Evaluation
from scoresde.metrics.interval import share_interval
from scoresde.metrics.resampling import Estimate, estimate

seeds = st.integers(0, 2**32 - 1)


def randn(*shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


# Fits, merged


@given(
    st.lists(st.integers(0, 9), min_size=1, max_size=6).filter(lambda n: sum(n) >= 2),
    st.integers(1, 6),
    st.floats(0, 1e4),
    seeds,
)
def test_a_fit_is_the_same_however_its_samples_come_in_batches(sizes, d, shift, seed):
    x, y = shift + randn(sum(sizes), d, seed=seed), shift + randn(9, d, seed=seed + 1)
    fit = GaussianFit.of(part for part in x.split(sizes))
    assert fit.n == len(x)
    assert len(fit.root) <= d
    torch.testing.assert_close(fit.mean, x.mean(0), rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(fit.cov, x.T.cov().reshape(d, d), rtol=1e-8, atol=1e-8)
    want = frechet_distance(x, y)
    assert frechet_distance(fit, y) == pytest.approx(want, rel=1e-10, abs=1e-9)


@given(st.integers(1, 20), st.integers(1, 20), st.integers(1, 8), seeds)
def test_fits_merge_like_their_samples(n, m, d, seed):
    x, y = randn(n, d, seed=seed), 3 + randn(m, d, seed=seed + 1)
    both = GaussianFit.of(x) + GaussianFit.of(y)
    whole = GaussianFit.of(torch.cat([x, y]))
    assert both.n == n + m
    torch.testing.assert_close(both.mean, whole.mean, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(both.cov, whole.cov, rtol=1e-10, atol=1e-10)


@given(st.integers(4, 40), st.integers(1, 12), seeds)
def test_the_figures_of_metrics_are_those_of_the_functions(n, d, seed):
    x, y = randn(n, d, seed=seed), 0.2 + randn(n, d, seed=seed + 1)
    whole = torch.ones(1, n, dtype=torch.bool)
    frechet = float(Frechet()(x, y, whole, whole)["frechet"])
    assert frechet == pytest.approx(frechet_distance(x, y), rel=1e-8, abs=1e-10)
    sliced = float(Sliced(8, seed=3)(x, y, whole, whole)["sliced"])
    generator = torch.Generator().manual_seed(3)
    want = sliced_wasserstein(x, y, projections=8, generator=generator)
    assert sliced == pytest.approx(want)


# Halves and their intervals


@given(st.integers(2, 30), st.sampled_from([0, 2, 5]), seeds)
def test_halves_are_halves_and_a_function_of_their_seed(n, resamples, seed):
    found = halves(n, resamples, seed=seed)
    assert found.shape == (1 + resamples, n)
    assert found[0].all()
    assert (found[1:].sum(1) == n // 2).all()
    assert torch.equal(halves(n, resamples, seed=seed), found)
    if n > 20 and resamples > 2:
        assert not torch.equal(halves(n, resamples, seed=seed, stream=1), found)


@given(st.sampled_from([1e-250, 1e-165, 1e-30, 1e30, 1e165, 1e250]), st.booleans(), seeds)
def test_an_interval_is_in_the_units_of_its_figure(scale, square, seed):
    values = randn(9, seed=seed)
    got, want = estimate(scale * values, square=square), estimate(values, square=square)
    assert got == pytest.approx([scale * end for end in want], rel=1e-9, abs=0)
    assert want.low <= want.value <= want.high


def test_an_interval_is_wider_where_its_spread_is_known_less():
    values = randn(41, seed=1)
    spread = float(values[1:].std())
    for samples, freedom in ((math.inf, 39), (100, 1 / (1 / 39 + 7 / 100))):
        found = estimate(values, level=0.9, samples=samples)
        reach = scipy.stats.t.ppf(0.95, freedom) * spread
        assert found.high - found.value == pytest.approx(reach, rel=1e-9)


@given(st.floats(-5, 50), st.floats(0, 1), seeds)
def test_the_interval_of_a_square_inverts_the_test_at_each_value(value, bias, seed):
    parts = randn(200, seed=seed)
    values = torch.cat(
        [
            torch.full((1,), value, dtype=torch.float64),
            value + bias + (parts - parts.mean()) / parts.std(),
        ]
    )
    found, t = estimate(values, square=True, limits=(0, math.inf)), scipy.stats.t.ppf(0.975, 199)
    least = max(bias - 0.5, 0)

    def reach(truth):  # at the spread that the figure would have there; its own is 1
        variance = 1 + (truth - value) / math.hypot(max(value - least, 0), 3)
        return t * math.sqrt(max(variance, 0))

    assert found.high - value == pytest.approx(reach(found.high), rel=1e-6)
    if found.low > least + 1e-9 and found.low < value:
        assert value - found.low == pytest.approx(reach(found.low), rel=1e-6)
    else:
        assert found.low == pytest.approx(min(value, least), abs=1e-9)


@pytest.mark.slow
@pytest.mark.parametrize("size", [1, 4])
@pytest.mark.parametrize("distance", [0.0, 1.0, 2.0, 4.0, 10.0])
def test_intervals_of_a_square_hold_it_and_are_not_wide(size, distance):
    """The squared length of a mean, in units of its error, without the bias that it has."""
    n, reps = 100, 500
    x = randn(reps, n, size, seed=int(distance) + size) * math.sqrt(n)
    x[:, :, 0] += distance
    rows = halves(n, 100, seed=1).double()
    weights = rows / rows.sum(1, keepdim=True)
    means = torch.einsum("bn,rnd->rbd", weights, x).square().sum(2)
    own = torch.einsum("bn,rn->rb", weights**2, x.square().sum(2))
    factor = 1 / (1 - 1 / rows.sum(1))
    found = [
        estimate(values, limits=(0, math.inf), square=True, samples=n)
        for values in factor * (means - own)
    ]
    held = sum(e.low <= distance**2 <= e.high for e in found) / reps
    assert held > 0.95 - 3 * math.sqrt(0.95 * 0.05 / reps)
    width = sorted(e.high - e.low for e in found)[reps // 2]
    assert width < 1.5 * 3.92 * math.sqrt(2 * size + 4 * distance**2)


def test_the_spread_of_a_mean_over_halves_is_its_standard_error():
    x = randn(20, seed=1)
    rows = halves(20, 3000, seed=0)
    means = torch.stack([x[i].mean() for i in rows])
    found = estimate(means, level=0.6826894921)  # one standard error
    assert found.value == pytest.approx(float(x.mean()))
    error = float(x.std()) / math.sqrt(20)
    assert found.high - found.value == pytest.approx(error, rel=0.06)
    assert found.value - found.low == pytest.approx(error, rel=0.06)


def covered(truths, metrics, draw, n, reps, resamples=40):
    """How often the interval of each figure holds its true value."""
    hits = dict.fromkeys(truths, 0)
    for r in range(reps):
        x, y = draw(2 * r), draw(2 * r + 1, reference=True)
        rows = [halves(n, resamples, seed=r, stream=i) for i in range(2)]
        for metric in metrics:
            for name, values in metric(x, y, *rows).items():
                if name in truths:
                    _, *limits, square, _ = FIGURES[name]
                    found = estimate(values, limits=limits, square=square, samples=n)
                    hits[name] += found.low <= truths[name] <= found.high
    return {name: count / reps for name, count in hits.items()}


@pytest.mark.long
def test_intervals_of_different_gaussians_have_their_nominal_coverage():
    n, d, shift, scale, s, reps = 120, 4, 0.4, 1.2, 2.0, 75

    def draw(seed, reference=False):
        x = randn(n, d, seed=seed)
        return x if reference else shift + scale * x

    def overlap(variance, mean):
        total = s**2 + variance
        return (s**2 / total) ** (d / 2) * math.exp(-d * mean**2 / (2 * total))

    truths = {
        "frechet_limit": d * (shift**2 + (scale - 1) ** 2),
        "mmd": overlap(2 * scale**2, 0) + overlap(2, 0) - 2 * overlap(1 + scale**2, shift),
    }
    found = covered(truths, [Frechet(), Kernel("gaussian", s)], draw, n, reps)
    error = 3 * math.sqrt(0.95 * 0.05 / reps)
    for name, share in found.items():
        assert 0.95 - error <= share, (name, share)
        assert share < 1, (name, "an interval that is never wrong is too wide")


@pytest.mark.long
def test_intervals_of_equal_laws_are_not_too_narrow():
    n, k, reps = 60, 3, 50
    coverage = 1 - math.prod((n - i) / (2 * n - i) for i in range(1, k + 1))
    truths = {"frechet_limit": 0, "mmd": 0, "density": 1, "coverage": coverage}
    metrics = [Frechet(), Kernel("gaussian", 1.0), Neighbours(k)]
    found = covered(truths, metrics, lambda seed, reference=False: randn(n, 2, seed=seed), n, reps)
    error = 3.5 * math.sqrt(0.95 * 0.05 / reps)
    assert all(share >= 0.95 - error for share in found.values()), found


def test_the_limit_has_less_of_the_bias_that_grows_with_the_number_of_features():
    n, d, want = 200, 16, 16 * (0.2**2 + 0.1**2)
    found = []
    for i in range(12):
        x, y = 0.2 + 1.1 * randn(n, d, seed=2 * i), randn(n, d, seed=2 * i + 1)
        rows = [halves(n, 20, seed=i, stream=j) for j in range(2)]
        found.append({name: v[0] for name, v in Frechet()(x, y, *rows).items()})
    plain = float(torch.stack([f["frechet"] for f in found]).mean()) - want
    limit = float(torch.stack([f["frechet_limit"] for f in found]).mean()) - want
    assert plain > 0.8 * want  # the distance itself, at 12 times as many samples as features
    assert abs(limit) < 0.2 * plain
    assert "frechet_limit" not in Frechet()(x[:31], y[:31], *(r[:, :31] for r in rows))


@pytest.mark.long
def test_samples_of_the_exact_law_have_the_distance_of_the_floor():
    starred = figures = 0
    for seed in range(25):
        found = evaluate(
            randn(60, 2, seed=2 * seed), randn(120, 2, seed=2 * seed + 1), seed=seed, resamples=30,
            metrics=["frechet", "mmd", "kid", "neighbours"],
        )  # fmt: skip
        starred += sum(row.differs for row in found.values())
        figures += len(found)
    # one in twenty, and fewer for the distances, whose intervals are too wide here
    assert starred <= 0.1 * figures


@given(st.integers(2, 400).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_wilsons_interval_solves_its_equation_and_has_a_width(case):
    k, n = case
    share = k / n
    t = scipy.stats.norm.ppf(0.975)
    low, high = share_interval(share, n, 0.95)
    assert 0 <= low <= share <= high <= 1
    assert high - low > 1 / (n + t**2)
    for end in {low, high} - {0.0, 1.0}:
        assert (share - end) ** 2 == pytest.approx(t**2 * end * (1 - end) / n, abs=1e-9)


def test_shares_on_which_all_halves_agree_have_an_interval_and_no_star_for_one_sample():
    real = torch.rand(200, 2, generator=torch.Generator().manual_seed(1))
    x = torch.cat([real[:100] + 1e-6, torch.full((1, 2), 5.0)])[1:]
    found = evaluate(x, real, metrics=["neighbours"], resamples=4, progress=False)
    for name in ("precision", "coverage", "recall"):
        row = found[name]
        for part in (row.samples, row.floor):
            low, high = share_interval(part.value, 100, 0.95)
            assert 0 <= part.low <= low < high <= part.high <= 1
        assert row.gap.high - row.gap.low > 0.03
    assert -0.1 < found["precision"].gap.value < 0.1
    assert not found["precision"].differs
    assert not Comparison(*[Estimate(0.5, 0.5, 0.5)] * 3).differs


def test_the_table_has_notes_on_figures_that_may_mislead():
    found = evaluate(
        randn(20, 200, seed=1), randn(40, 200, seed=2), metrics=["kid", "mmd"], resamples=4,
        progress=False,
    )  # fmt: skip
    text = str(found)
    assert "kid is meant for the features of a network" in text
    negative = any(min(row.samples.value, row.floor.value) < 0 for row in found.values())
    assert ("may be negative" in text) == negative
    assert repr(found).count("\n") == 0
    assert len(repr(found)) < 200


def test_no_bar_is_shown_for_features_of_tensors_nor_after_errors(capsys):
    evaluate(SAMPLES, REAL, **QUICK | {"progress": True})
    with pytest.raises(ShapeError):
        evaluate(SAMPLES[:1], REAL, **QUICK | {"progress": True})
    assert "features of" not in capsys.readouterr().err


# What evaluate reads


REAL, SAMPLES = randn(80, 2, 3, seed=1), 0.5 + randn(30, 2, 3, seed=2)
QUICK = {"resamples": 4, "metrics": ["frechet", "kid"], "progress": False}


LABELLED = Data(REAL, label=torch.arange(80) % 2)


def shards(folder, x, sizes):
    for i, part in enumerate(x.split(sizes)):
        checkpoint.save_tensors(folder / f"shard-{i:05d}.safetensors", {"x": part})
    return folder


def test_samples_may_be_tensors_batches_data_files_or_folders(tmp_path):
    want = evaluate(SAMPLES, REAL, **QUICK)
    np.save(tmp_path / "x.npy", SAMPLES.numpy())
    np.save(tmp_path / "real.npy", REAL.numpy())
    checkpoint.save_tensors(tmp_path / "x.safetensors", {"x": SAMPLES})
    (tmp_path / "many").mkdir()
    for samples in (
        [SAMPLES[:7], SAMPLES[7:7], SAMPLES[7:]],
        (part for part in SAMPLES.split(11)),
        Data(SAMPLES),
        shards(tmp_path / "many", SAMPLES, 8),
        tmp_path / "x.safetensors",
    ):
        assert evaluate(samples, REAL, **QUICK).as_json() == want.as_json()
    # numpy files are read in single precision, as data are
    found = evaluate(str(tmp_path / "x.npy"), tmp_path / "real.npy", **QUICK)
    assert found["frechet"].samples == pytest.approx(want["frechet"].samples, rel=1e-4)


def test_stored_samples_are_in_the_units_of_the_data(tmp_path):
    real = Data(torch.randint(0, 256, (80, 1, 2, 3), generator=torch.Generator().manual_seed(0),
                dtype=torch.uint8), transform=BYTES)  # fmt: skip
    want = evaluate(real[:30].x, real, **QUICK)
    assert evaluate(real[:30], real, **QUICK).as_json() == want.as_json()
    found = evaluate(shards(tmp_path, real.raw[:30], 8), real, **QUICK)
    assert found.as_json() == want.as_json()
    few = Data(real.raw // 16, transform=Range(0, 16, levels=17))  # bytes that are not in [0, 255]
    np.save(tmp_path / "few.npy", few.raw[:30].numpy())
    found = evaluate(tmp_path / "few.npy", few, **QUICK)
    assert found.as_json() == evaluate(few[:30], few, **QUICK).as_json()


def test_features_are_compared_instead_of_samples():
    want = evaluate(SAMPLES[:, 0], REAL[:, 0], **QUICK)
    found = evaluate(SAMPLES, REAL, features=lambda x: x[:, 0], **QUICK)
    assert found.figures == want.figures
    assert found.size == 3
    assert evaluate(SAMPLES, REAL, features="pixels", **QUICK) == evaluate(SAMPLES, REAL, **QUICK)


def test_a_map_may_change_its_input_in_place():
    samples = SAMPLES.clone()
    found = evaluate(samples, REAL, features=lambda x: x.mul_(2), **QUICK)
    assert torch.equal(samples, SAMPLES)
    assert found.figures == evaluate(2 * SAMPLES, 2 * REAL, **QUICK).figures


def test_numbers_are_equal_on_all_sides():
    assert evaluate(SAMPLES, REAL, **QUICK).n == 30
    assert evaluate(SAMPLES, REAL[:41], **QUICK).n == 20


def test_the_floor_is_of_other_real_data_against_the_same_reference():
    seen = []

    def spy(x, y, rows, others):
        seen.append((x, y, rows, others))
        return {"zero": torch.zeros(len(rows))}

    evaluate(torch.arange(20.0)[:, None], 100 + torch.arange(50.0)[:, None], metrics=[spy])
    (x, y, rows, others), (z, again, floor_rows, same) = seen
    assert torch.equal(y, again)
    assert torch.equal(others, same)
    assert not torch.equal(rows, floor_rows)
    assert sorted(x.flatten().tolist()) == list(range(20))
    held = torch.cat([y, z]).flatten().tolist()
    assert len(set(held)) == 40
    assert min(held) >= 100
    assert held != sorted(held)


def test_symmetric_figures_do_not_depend_on_the_order_of_samples():
    mixed = torch.randperm(30, generator=torch.Generator().manual_seed(0))
    one, two = (evaluate(x, REAL, **QUICK) for x in (SAMPLES, SAMPLES[mixed]))
    for name in ("frechet", "kid"):
        row = one[name]
        assert two[name].samples.value == pytest.approx(row.samples.value)
        assert two[name].floor == row.floor


def test_a_figure_that_was_not_computed_is_absent_from_the_mapping():
    found = evaluate(SAMPLES, REAL, **QUICK)
    assert "kid" in found
    assert "fid" not in found
    assert found.get("fid") is None


def test_samples_are_compared_with_data_in_the_units_in_which_they_are():
    real = Data(1000 + 50 * randn(40, 2, seed=3)).standardized()
    x = randn(20, 2, seed=4)
    one, two = (
        evaluate(part, real, metrics="sliced", resamples=0)
        for part in (x, real.transform.inverse(x))
    )
    assert two["sliced"].samples.value == pytest.approx(one["sliced"].samples.value, rel=1e-4)
    assert f"units of the model, in which the data's mean variance is {two.spread:.3g}" in str(two)
    assert two.spread < 2  # that of the raw data is 2,500
    raw = evaluate(x, randn(40, 2, seed=3), metrics="sliced", resamples=0)
    assert "in squared units of the data, whose mean" in str(raw)


def test_the_verdict_names_the_figures_that_are_worse_than_those_of_data():
    found = evaluate(SAMPLES + 2, REAL, resamples=20, metrics="sliced")
    assert found["sliced"].differs
    assert "Not yet like real data: 1 of 1 figures is worse" in found.verdict()
    assert "sliced" in found.verdict()


def verdict(stars, figures, n, clear=1.001):
    """Return the verdict of an evaluation with `stars` figures, each `clear` half-widths from 0."""
    part = Estimate(0.0, -1.0, 1.0)
    gap = Estimate(clear, clear - 1, clear + 1)
    rows = [Comparison(part, part, gap if k < stars else part) for k in range(figures)]
    names = {f"mine{k}": row for k, row in enumerate(rows)}
    return Evaluation(names, n, 2, "x", 0, 100, 0.95).verdict()


def test_a_verdict_states_few_samples_and_few_stars():
    for n in (10, 99):
        assert verdict(0, 8, n).startswith(f"Undecided: {n} samples against {n} show")
        assert "1 of 8 figures is worse" in verdict(1, 8, n)
    assert verdict(0, 8, 100).startswith("Good: none of the 8 figures")
    assert verdict(0, 1, 100).startswith("Good: no figure tells")
    by_chance = 1 - 0.95**8
    assert verdict(1, 8, 1000).startswith("No clear difference")
    assert f"in {by_chance:.0%} of such tables" in verdict(1, 8, 1000)
    for n in (10, 1000):
        assert verdict(3, 8, n).startswith("Not yet")
        assert verdict(1, 8, n, clear=9).startswith("Not yet")


def test_metrics_that_need_more_samples_are_left_out_unless_they_are_named():
    found = evaluate(SAMPLES[:8], REAL[:16], resamples=4)
    assert found.left_out == ("neighbours",)
    assert "neighbours is left out" in str(found)
    with pytest.raises(ShapeError, match="choose metrics that need fewer"):
        evaluate(SAMPLES[:8], REAL[:16], resamples=4, metrics="neighbours")


def test_a_title_has_the_name_and_fits_its_figure():
    for metrics in ("sliced", None):
        drawn = evaluate(SAMPLES, REAL, resamples=4, metrics=metrics).plot("runs/flowers")
        assert drawn.get_suptitle().startswith("runs/flowers\n")
        drawn.canvas.draw()
        box = drawn._suptitle.get_window_extent()
        assert drawn.bbox.x0 <= box.x0 < box.x1 <= drawn.bbox.x1


def test_the_difference_is_that_of_the_figures():
    for row in evaluate(SAMPLES, REAL, resamples=4, metrics=["neighbours", "sliced"]).values():
        assert row.gap.value == pytest.approx(row.samples.value - row.floor.value)
        for part in row:
            assert part.low <= part.value <= part.high


def test_memorised_samples_are_reported_and_new_ones_are_not():
    train, held, other = (randn(100, 4, seed=i) for i in range(3))
    options = {"metrics": [], "train": train, "resamples": 40}
    copies = evaluate(train + 1e-4 * other, held, **options)
    assert all(copies[name].differs for name in ("copied", "nearer"))
    assert copies["copied"].samples.value == 1
    new = evaluate(other, held, **options)
    assert not new["nearer"].differs


def test_a_user_defined_metric_is_a_callable():
    def shift(x, y, rows, others):
        pairs = zip(rows, others, strict=True)
        return {"shift": torch.stack([(x[i].mean(0) - y[j].mean(0)).norm() for i, j in pairs])}

    found = evaluate(SAMPLES + 2, REAL, metrics=[shift], resamples=10)
    assert found["shift"].differs
    assert "shift" in str(found)


@pytest.mark.long
def test_the_result_is_a_table_a_file_and_a_picture(tmp_path):
    found = evaluate(SAMPLES, REAL, resamples=4)
    text = str(found)
    assert text.startswith("30 samples, and 30 real data as the floor")
    assert all(f"\n{name} " in text for name in found)
    stored = json.loads(found.to_json(tmp_path / "deep" / "report.json").read_text())
    assert stored == found.as_json()
    assert stored["figures"]["mmd"]["gap"]["value"] == found["mmd"].gap.value
    assert stored["verdict"] == found.verdict()
    drawn = found.plot()
    panels = [axes.get_title().partition(",")[0] for axes in drawn.axes]
    assert panels == list(found)
    assert "intervals" in drawn.get_supxlabel()
    html = found._repr_html_()
    assert "&lt;" not in html
    assert "data:image/png;base64," in html
    bare = str(evaluate(SAMPLES, REAL, resamples=0))
    assert "[" not in bare
    assert "*" not in bare


# Feature maps


@pytest.fixture(scope="module")
def clusters():
    """Labelled images of 6x6, of three classes."""
    label = torch.arange(90) % 3
    return Data((label[:, None, None, None] + randn(90, 1, 6, 6, seed=3)).float(), label=label)


@pytest.mark.slow
def test_a_classifier_learns_and_is_a_function_of_its_seed(clusters, tmp_path):
    one = Classifier.fit(clusters, steps=30)
    assert one.accuracy(clusters) > 0.9
    features = one(clusters.x)
    assert features.shape == (90, 64)
    assert not features.requires_grad
    assert torch.equal(Classifier.fit(clusters, steps=30)(clusters.x), features)
    assert not torch.equal(Classifier.fit(clusters, steps=30, seed=1)(clusters.x), features)
    one.save(tmp_path / "judge.safetensors")
    two = Classifier.load(tmp_path / "judge.safetensors")
    assert torch.equal(two(clusters.x), features)
    assert torch.equal(two.predict(clusters.x), one.predict(clusters.x))
    assert features.square().mean() == pytest.approx(1, rel=1e-5)
    assert evaluate(clusters, clusters, features=two, **QUICK).features == "Classifier"


@pytest.mark.parametrize("shape", [(5,), (2, 7), (3, 16, 20), (1, 2, 2)])
def test_a_classifier_takes_events_of_any_shape(shape):
    label = torch.arange(12) % 2
    data = Data(randn(12, *shape).float(), label=label)
    assert Classifier.fit(data, steps=1)(data.x).shape == (12, 64)


class Extractor:
    """What torch-fidelity's extractors promise: bytes (B, 3, H, W) in, a tuple of features out."""

    def __init__(self):
        self.sizes = []

    def __call__(self, x):
        assert x.dtype == torch.uint8
        assert x.ndim == 4
        assert x.shape[1] == 3
        self.sizes.append(len(x))
        return (x.float().mean((2, 3)),)


def test_inception_is_given_bytes_in_three_channels_part_by_part():
    images = torch.tensor([-2.0, -1.0, 0.0, 1.0, 2.0])[:, None, None, None].expand(5, 1, 4, 4)
    extractor = Extractor()
    found = Inception(extractor, batch_size=2)(images)
    assert extractor.sizes == [2, 2, 1]
    assert torch.equal(found, torch.tensor([0.0, 0, 128, 255, 255])[:, None].expand(5, 3))
    assert Inception(extractor)(images.expand(5, 3, 4, 4)).shape == (5, 3)


def test_inception_without_its_package_names_the_extra(monkeypatch):
    monkeypatch.setitem(
        __import__("sys").modules, "torch_fidelity.feature_extractor_inceptionv3", None
    )
    with pytest.raises(MissingExtraError, match=r"pip install 'scoresde\[fidelity\]'"):
        inception()


def empty(tmp_path):
    checkpoint.save_tensors(tmp_path / "shard-0.safetensors", {"y": REAL})
    return tmp_path


def judge(tmp_path, **changes):
    """Return the file of a classifier of another description."""
    fields = {"event_shape": [3], "classes": 2} | changes
    checkpoint.save_tensors(tmp_path / "judge.safetensors", {}, {"classifier": fields})
    return tmp_path / "judge.safetensors"


def damaged(tmp_path):
    (tmp_path / "shard-0.safetensors").write_bytes(b"nothing")
    return tmp_path


@pytest.mark.slow
@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda p: evaluate(SAMPLES, REAL[:3]), ShapeError, "24 real data.*got 30 and 3"),
        (lambda p: evaluate(SAMPLES[:3], REAL, metrics="frechet"), ShapeError, "4 samples.*got 3"),
        (
            lambda p: evaluate(SAMPLES[:11], REAL, metrics="neighbours"),
            ShapeError,
            "at least 12 samples.*got 11",
        ),
        (
            lambda p: evaluate(SAMPLES, REAL[:, 0]),
            ShapeError,
            "the same number of features, got 6 and 3",
        ),
        (lambda p: evaluate(SAMPLES, REAL, train=REAL[:, 0]), ShapeError, "samples and train"),
        (lambda p: evaluate(SAMPLES[:0], REAL), DataError, "samples holds no samples"),
        (lambda p: evaluate([], REAL), DataError, "samples holds no samples"),
        (lambda p: evaluate([SAMPLES, REAL[:, 0]], REAL), ShapeError, r"\(2, 3\) and then \(3,\)"),
        (lambda p: evaluate([1, 2], REAL), InvalidTypeError, "samples must be a tensor.*got"),
        (lambda p: evaluate(7, REAL), InvalidTypeError, "samples must be a tensor.*got"),
        (lambda p: evaluate(SAMPLES / 0, REAL), NonFiniteError, "samples holds NaN"),
        (lambda p: evaluate(1e200 * SAMPLES, REAL), NonFiniteError, "squares overflow"),
        (lambda p: evaluate(SAMPLES, REAL, metrics=["fid"]), UnknownNameError, "'fid'.*'kid'"),
        (
            lambda p: evaluate(SAMPLES, REAL, metrics=[3]),
            InvalidTypeError,
            "metrics must be names or callables",
        ),
        (
            lambda p: evaluate(SAMPLES, REAL, metrics=[Kernel]),
            InvalidTypeError,
            "metrics must be names or callables",
        ),
        (lambda p: evaluate(SAMPLES, REAL, level=1), InvalidValueError, "level must lie"),
        (lambda p: evaluate(1e-160 * SAMPLES, REAL), NonFiniteError, "squares underflow"),
        (lambda p: evaluate(SAMPLES, REAL, resamples=-1), InvalidValueError, "resamples.*got -1"),
        (
            lambda p: evaluate(SAMPLES, REAL, resamples=1),
            InvalidValueError,
            "a single half gives no",
        ),
        (lambda p: evaluate(SAMPLES, REAL, resamples="3"), InvalidTypeError, "resamples.*'3'"),
        (lambda p: evaluate(SAMPLES, REAL, seed="x"), InvalidTypeError, "seed.*'x'"),
        (lambda p: evaluate(SAMPLES, REAL, level="x"), InvalidTypeError, "level.*'x'"),
        (lambda p: evaluate(SAMPLES, REAL, features=3), InvalidTypeError, "features must be.*3"),
        (lambda p: evaluate(SAMPLES, REAL, features="pixel"), UnknownNameError, "'pixels'"),
        (lambda p: evaluate(SAMPLES, REAL, metrics=3), InvalidTypeError, "metrics must be"),
        (
            lambda p: evaluate(SAMPLES, REAL, metrics=[lambda *a: None]),
            InvalidTypeError,
            "by name, got NoneType",
        ),
        (lambda p: evaluate(SAMPLES[..., :0], REAL), ShapeError, r"at least 1, got \{0\}"),
        (lambda p: evaluate(SAMPLES, REAL, metrics=()), InvalidValueError, "nothing to compare"),
        (
            lambda p: evaluate(SAMPLES, REAL, metrics=[lambda *a: {"mean": a[0].mean()}]),
            InvalidTypeError,
            r"one number for each of 101 choices of rows; mean is tensor",
        ),
        (lambda p: Sliced(0), InvalidValueError, "projections.*got 0"),
        (lambda p: Sliced(seed=-1), InvalidValueError, "seed.*got -1"),
        (lambda p: Kernel(bandwidth="x"), InvalidTypeError, "bandwidth.*'x'"),
        (lambda p: Classifier.fit(LABELLED, steps=0), InvalidValueError, "steps.*got 0"),
        (lambda p: Classifier.fit(LABELLED, lr=0), InvalidValueError, "lr must be positive"),
        (lambda p: Classifier.fit(LABELLED, steps=3, lr=1e30), NonFiniteError, "diverged at lr"),
        (lambda p: Classifier.load(judge(p, classes=-1)), CheckpointError, "holds no classifier"),
        (lambda p: Classifier.load(judge(p, event_shape=3)), CheckpointError, "no classifier"),
        (lambda p: evaluate(SAMPLES, REAL, seed=-1), InvalidValueError, "seed.*got -1"),
        (lambda p: evaluate(SAMPLES, REAL, train=REAL), DataError, "not used for training"),
        (lambda p: evaluate(p / "none.npy", REAL), DataError, "does not exist"),
        (lambda p: evaluate(empty(p), REAL), DataError, "has the keys y"),
        (lambda p: evaluate(damaged(p), REAL), CheckpointError, "shard-0"),
        (
            lambda p: evaluate(SAMPLES, REAL, features=lambda x: x.mean(0)),
            ShapeError,
            r"one row per sample, got 2 rows for 30",
        ),
        (lambda p: evaluate(SAMPLES, REAL, **QUICK)["fid"], UnknownNameError, "figure 'fid'"),
        (lambda p: GaussianFit.of(REAL[:0]), ShapeError, "source holds no samples"),
        (
            lambda p: frechet_distance(GaussianFit.of(REAL[:1]), REAL),
            ShapeError,
            "at least 2 samples, got 1",
        ),
        (
            lambda p: GaussianFit.of(REAL) + GaussianFit.of(REAL[:, 0]),
            ShapeError,
            "the same number of features can be added, got 6 and 3",
        ),
        (lambda p: Classifier.fit(Data(REAL)), DataError, "have none"),
        (lambda p: Classifier((), 3), ShapeError, r"got shape \(\)"),
        (lambda p: Classifier((3,), 1), InvalidValueError, "got 1"),
        (
            lambda p: Classifier((3,), 2)(REAL),
            ShapeError,
            r"must have shape \(B, 3\), got \(80, 2, 3\)",
        ),
        (lambda p: Inception(Extractor())(REAL), ShapeError, "choose other features"),
        (lambda p: Inception(Extractor(), 0), InvalidValueError, "batch_size.*got 0"),
        (lambda p: inception("1024"), UnknownNameError, "'1024'"),
        (
            lambda p: Classifier.load(shards(p, REAL, 80) / "shard-00000.safetensors"),
            CheckpointError,
            "holds no classifier",
        ),
    ],
)
@pytest.mark.global_rng  # first weights of networks that are never used
def test_bad_inputs_are_named(tmp_path, call, error, message):
    with pytest.raises(error, match=message):
        call(tmp_path)


def test_bytes_are_in_the_units_of_the_data_they_are_compared_with():
    raw = torch.randint(0, 256, (90, 1, 4, 4), generator=torch.Generator().manual_seed(0))
    real = Data(raw[30:].byte(), transform=BYTES)
    found = evaluate(raw[:30].byte(), real, **QUICK)
    assert found == evaluate(BYTES.forward(raw[:30]), real, **QUICK)


def test_every_metric_accepts_degenerate_features():
    flat_rows = torch.ones(24, 3)
    found = evaluate(flat_rows, flat_rows.repeat(2, 1), metrics=METRICS, resamples=3)
    assert found["precision"].samples.value == 1
    assert found["frechet"].samples.value == pytest.approx(0, abs=1e-12)
    few = evaluate(randn(12, 50, seed=1), randn(24, 50, seed=2), resamples=3)
    assert all(math.isfinite(number) for row in few.values() for part in row for number in part)


def test_networks_of_features_are_in_evaluation_mode_and_restored():
    x, y = torch.arange(80.0).reshape(40, 2), torch.arange(200.0).reshape(100, 2)
    layers = torch.nn.BatchNorm1d(2), torch.nn.Dropout(0.5)
    net = torch.nn.Sequential(*layers).train()
    found = [evaluate(x, y, features=f, metrics="kid", resamples=0) for f in (net, net.forward)]
    assert all(layer.training for layer in layers)
    assert layers[0].num_batches_tracked == 0
    expected = evaluate(x, y, features=net.eval(), metrics="kid", resamples=0)
    assert all(each["kid"] == expected["kid"] for each in found)


def test_the_rows_that_are_compared_do_not_depend_on_a_split_of_the_same_seed():
    """Of 400 rows nearly all 41 held-out ones were among the 75 that were looked at."""
    x = torch.arange(400.0)[:, None]
    held = set(Data(x).split(0.1, seed=0)[1].x.flatten().tolist())
    chosen = order(400, seed=0, epoch=evaluating._OF_SAMPLES)[:75].tolist()
    # hypergeometric with mean 7.5 and deviation 2.3
    assert 1 <= len(held & set(map(float, chosen))) <= 16
