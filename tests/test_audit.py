"""Test the audit: exact scores pass, and wrong scores fail at the noise scales with errors."""

import json
import math

import numpy as np
import pytest
import scipy.stats
import torch
from hypothesis import given
from hypothesis import strategies as st
from strategies import SDES, generators

import scoresde
from scoresde.audit import agreement as agreements
from scoresde.audit import audit, identities
from scoresde.audit.references import Linear
from scoresde.cli import main
from scoresde.divergence import divergence
from scoresde.errors import InvalidTypeError, InvalidValueError, NonFiniteError, ShapeError
from scoresde.metrics import energy_distance
from scoresde.nn import MLP
from scoresde.score import ScoreModel
from scoresde.sde import VESDE, VPSDE, Moments, expand
from scoresde.targets import Gaussian, GaussianMixture

QUICK = dict(levels=9, samples=32, steps=24)


def seeded(seed):
    return torch.Generator().manual_seed(seed)


def modes(dimensions=32):
    """Two modes that are apart, and wide enough that noise of .01 is small."""
    means = torch.randn(2, dimensions, generator=seeded(0))
    return GaussianMixture([0.3, 0.7], means, stds=0.3)


class Bent:
    """Define the exact score, changed where sigma / alpha lies in a band."""

    def __init__(self, target, sde, change, low=0.0, high=math.inf):
        self.exact, self.change, self.low, self.high = target.at(sde), change, low, high
        self.sde, self.facts = sde, self.exact.facts

    def ratio(self, t):
        return self.sde.sigma(t.double()) / self.sde.alpha(t.double())

    def __call__(self, x, t):
        score, ratio = self.exact(x, t), self.ratio(t)
        inside = expand(((ratio > self.low) & (ratio < self.high)).double(), x)
        sigma = expand(self.sde.sigma(t.double()), x)
        return score + inside * (self.change(score, sigma) - score)


def stretched(score, sigma):
    return 1.1 * score


def shifted(score, sigma):
    return score + 0.1 / sigma


def in_band(found, low, high):
    return [a.ratio for a in found.levels if low < a.ratio < high]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["ve", "vp", "sub_vp", "cosine", "edm", "flow", "ncsn", "betas"])
def test_a_perfect_score_passes_every_test_at_every_level(name):
    sde, target = SDES[name], modes()
    found = audit(target.at(sde), sde, target.sample(400, generator=seeded(1)), **QUICK)
    assert [a.failed for a in found.levels] == [()] * len(found.levels)
    assert found.worst is None
    assert found.parted is None
    assert "these samples show no error" in found.verdict()
    for level in found.levels:
        for estimate in (level.findings.calibration, level.findings.stein, level.findings.slope):
            assert abs(estimate.value - 1) < 5 * estimate.stderr + 1e-6


@pytest.mark.slow
@pytest.mark.parametrize("sde", [VESDE(), VPSDE()], ids=["ve", "vp"])
@pytest.mark.parametrize("band", [(0.2, 1.0), (1.0, 6.0)])
@pytest.mark.parametrize(
    ("change", "test"), [(stretched, "calibration"), (stretched, "stein"), (shifted, "bias")]
)
def test_a_score_wrong_in_a_band_is_found_in_that_band_and_no_other(sde, band, change, test):
    target = modes()
    x = target.sample(512, generator=seeded(2))
    found = audit(Bent(target, sde, change, *band), sde, x, **QUICK)
    failed = [a.ratio for a in found.levels if test in a.failed]
    assert failed == in_band(found, *band)
    assert [a.ratio for a in found.levels if a.failed] == failed
    assert found.worst.ratio in failed
    assert f"{found.worst.ratio:.3g}" in found.verdict()


def test_the_worst_level_has_the_largest_loss_and_not_the_most_certain_one():
    target, sde = modes(), VESDE()
    both = Bent(target, sde, lambda s, _: 1.3 * s, 0.2, 0.5)
    both.exact = Bent(target, sde, stretched, 1.0, 6.0)
    found = audit(both, sde, target.sample(512, generator=seeded(3)), **QUICK)
    assert {a.ratio for a in found.levels if a.failed} == {
        *in_band(found, 0.2, 0.5), *in_band(found, 1.0, 6.0),
    }  # fmt: skip
    assert 0.2 < found.worst.ratio < 0.5


def test_the_fisher_error_and_the_floor_are_those_of_the_closed_form():
    v, c, sde = 0.25, 1.2, VESDE()
    target = Gaussian(torch.zeros(64), var=v)
    x = target.sample(512, generator=seeded(4))
    found = audit(Bent(target, sde, lambda s, _: c * s), sde, x, target=target, **QUICK)
    for level in found.levels:
        whole = v + level.ratio**2
        for estimate, exact in (
            (level.fisher, (c - 1) ** 2 * level.ratio**2 / whole),
            (level.floor, v / whole),
        ):
            assert abs(estimate.value - exact) < 5 * estimate.stderr
        assert level.excess is level.fisher
        assert level.loss.value >= level.floor.value - 5 * level.loss.stderr
    largest = max(found.levels, key=lambda a: a.fisher.value)
    assert found.worst is largest


@pytest.mark.slow
@pytest.mark.parametrize("c", [0.8, 1.1])
def test_the_ratios_are_those_of_the_closed_form(c):
    v, sde = 0.25, VPSDE()
    target = Gaussian(torch.full((64,), 0.5), var=v)
    x = target.sample(800, generator=seeded(20))
    found = audit(Bent(target, sde, lambda s, _: c * s), sde, x, **QUICK)
    for level in found.levels:
        # shares of the noise and of the signal in a state
        noise = level.ratio**2 / (v + level.ratio**2)
        findings = level.findings
        for estimate, exact in (
            (findings.calibration, (1 - 2 * c * noise + c**2 * noise) / (1 - c * noise)),
            (findings.stein, c),
            (findings.slope, (1 - noise) / (1 - c * noise)),
        ):
            if abs(1 - c * noise) > 0.05:
                assert abs(estimate.value - exact) < 5 * estimate.stderr + 1e-4
        assert abs(findings.bias.value) < 5 * findings.bias.stderr + 1e-9


def test_the_two_ways_of_sampling_begin_from_independent_draws():
    sde, target = VESDE(), modes(4)
    x = target.sample(30, generator=seeded(21))
    first = audit(target.at(sde), sde, x, levels=3, samples=30, steps=4).levels[0]
    # equal sets of m samples would be at -1 / (m - 1)
    assert abs(first.agreement.value + 1 / 29) > 1e-3


def avoidable(factor, tilt, generator):
    """What an audit of a bent score finds avoidable, and its error."""
    # the error of scores of the form -(a x) / V is removed by a linear correction
    n, v, sigma = 4000, 0.5, 0.7
    x = math.sqrt(v) * torch.randn(n, 3, generator=generator, dtype=torch.float64)
    z = torch.randn(n, 3, generator=generator, dtype=torch.float64)
    tables, errors, truths = [], [], []
    for noise in (z, -z):
        state = x + sigma * noise
        exact = sigma * state / (v + sigma**2)
        said = factor * exact + tilt * torch.sin(3 * state)
        tables.append(identities.products(noise, said, state / sigma))
        errors.append(noise - said)
        truths.append(((said - exact) ** 2).mean(1))
    found = identities.examine((tables[0] + tables[1]) / 2, (errors[0] + errors[1]) / 2)
    return found.avoidable, float((truths[0] + truths[1]).mean() / 2)


@pytest.mark.slow
@given(st.floats(0.7, 1.3), st.floats(-0.5, 0.5), generators())
def test_the_avoidable_loss_is_at_most_the_error(factor, tilt, generator):
    found, truth = avoidable(factor, tilt, generator)
    assert found.value < truth + 5 * found.stderr + 1e-9


@pytest.mark.slow
def test_nothing_is_avoidable_on_average_where_the_multiples_were_not_fitted():
    """Perfect predictions: what the multiples seem to save is noise, which one half cannot know."""
    e, said, u = torch.randn(3, 1000, 20, 3, generator=seeded(5), dtype=torch.float64)
    found = [
        identities._avoidable(identities.products(said + e, said, u)).value
        for e, said, u in zip(e, said, u, strict=True)
    ]
    found = torch.tensor(found)
    assert float(found.mean()) < -4 * float(found.std()) / math.sqrt(len(found))


@pytest.mark.parametrize("factor", [0.7, 0.8, 1.2, 1.3])
def test_all_of_a_wrong_factor_is_avoidable(factor):
    found, truth = avoidable(factor, 0.0, seeded(24))
    # noise in the multiples that are fitted takes off about 1 / n of the loss
    assert abs(found.value - truth) < 5 * found.stderr + 1e-3
    assert found.value > 0.8 * truth


@pytest.mark.parametrize("factor", [1.0, 1.5, -0.3])
def test_calibration_compares_the_error_with_the_jacobian_of_the_score(factor):
    # Stein's lemma: E[z e] = D + sigma^2 E[div s], also for scores that are wrong
    sde, target, sigma, n = VESDE(), modes(3), 0.6, 20_000
    t = sde.time(torch.tensor(-2 * math.log(sigma), dtype=torch.float64))
    x = target.sample(n, generator=seeded(5), dtype=torch.float64)
    z = torch.randn(n, 3, generator=seeded(6), dtype=torch.float64)
    score, trace = divergence(lambda y: factor * target.at(sde)(y, t), x + sigma * z)
    said = -sigma * score
    claimed = (3 + sigma**2 * trace) / 3
    table = identities.products(z, said, (x + sigma * z) / sigma)
    gap = identities.mean(table[:, 1] - claimed)
    assert abs(gap.value) < 5 * gap.stderr
    found = identities.examine(table, z - said)
    ratio = float(table[:, 0].mean() / claimed.mean())
    assert found.calibration.value == pytest.approx(ratio, rel=0.1)


@pytest.mark.slow
@pytest.mark.parametrize("size", [1, 40])
def test_the_test_for_a_bias_rejects_at_its_nominal_rate(size):
    generator, rounds = seeded(7), 1500
    scale = torch.linspace(0.1, 1, size, dtype=torch.float64)
    deviates = []
    for _ in range(rounds):
        errors = scale * torch.randn(60, size, generator=generator, dtype=torch.float64)
        deviates.append(identities._bias(errors)[1])
    alarms = sum(z > 2.326 for z in deviates)  # 1 in 100
    assert scipy.stats.binom.cdf(alarms, rounds, 0.015) > 1e-4
    assert scipy.stats.binom.sf(alarms, rounds, 0.02) > 1e-4


@given(st.floats(0.2, 60), st.floats(0.01, 20))
def test_deviates_are_those_of_the_gamma_law(degrees, value):
    p = scipy.stats.chi2.sf(value, degrees)
    if 1e-12 < p < 1 - 1e-6:
        found = identities.matched(value, degrees, 2 * degrees)
        assert found == pytest.approx(scipy.stats.norm.isf(p), abs=1e-6)


@pytest.mark.parametrize(("n", "size"), [(30, 5), (5, 12)])
@pytest.mark.parametrize(("alpha", "sigma"), [(1.0, 0.3), (0.4, 2.0)])
def test_the_linear_denoiser_has_the_loss_of_the_dense_formula(n, size, alpha, sigma):
    generator = seeded(8)
    mix = torch.randn(size, size, generator=generator, dtype=torch.float64)
    data = torch.randn(n, size, generator=generator, dtype=torch.float64) @ mix + 1
    fit = Linear(data)
    cov = fit.axes * (fit.variances - fit.rest) @ fit.axes.T + fit.rest * torch.eye(size).double()
    gain = alpha * cov @ torch.linalg.inv(alpha**2 * cov + sigma**2 * torch.eye(size).double())
    x = torch.randn(6, size, generator=generator, dtype=torch.float64)
    # these have mean 0 and covariance I, so that their mean is exact for squares
    z = math.sqrt(size) * torch.cat([torch.eye(size), -torch.eye(size)]).double()
    state = alpha * x[:, None] + sigma * z
    denoised = data.mean(0) + (state - alpha * data.mean(0)) @ gain.T
    errors = z - (state - alpha * denoised) / sigma
    exact = errors.square().mean((1, 2))
    torch.testing.assert_close(fit.loss(x, alpha, sigma), exact)


@pytest.mark.slow
@pytest.mark.parametrize(("n", "size"), [(40, 6), (10, 30)])
def test_the_covariance_is_shrunk_by_the_formula_of_ledoit_and_wolf(n, size):
    covariance = pytest.importorskip("sklearn.covariance")
    scale = torch.linspace(0.1, 2, size, dtype=torch.float64)
    data = scale * torch.randn(n, size, generator=seeded(9), dtype=torch.float64)
    fit = Linear(data)
    cov = fit.axes * (fit.variances - fit.rest) @ fit.axes.T + fit.rest * torch.eye(size).double()
    expected, _ = covariance.ledoit_wolf(data.numpy())
    np.testing.assert_allclose(cov.numpy(), expected, atol=1e-10)


def test_an_interval_of_the_audit_has_its_nominal_coverage():
    values = torch.randn(2000, 200, generator=seeded(0), dtype=torch.float64)
    found = [identities.mean(row) for row in values]
    below, above = (
        sum(cut) / 2000 for cut in zip(*((e.high < 0, e.low > 0) for e in found), strict=True)
    )
    error = 4 * math.sqrt(0.025 / 2000)
    assert below == pytest.approx(0.025, abs=error)
    assert above == pytest.approx(0.025, abs=error)


def test_the_linear_denoiser_is_evaluated_only_on_samples_that_it_was_not_fitted_to():
    sde, target = VESDE(), Gaussian(torch.zeros(60), var=torch.logspace(-3, 0.5, 60))
    x = target.sample(40, generator=seeded(22), dtype=torch.float64)
    found = audit(target.at(sde), sde, x, target=target, **QUICK)
    even, odd = x[::2], x[1::2]
    for level in found.levels:
        fair = Linear(odd).loss(even, 1.0, level.ratio), Linear(even).loss(odd, 1.0, level.ratio)
        assert level.linear.value == pytest.approx(float(torch.cat(fair).mean()))
        assert level.linear.value > level.floor.value - 3 * level.floor.stderr
    # on the training samples it has a lower loss than the exact score
    assert float(Linear(even).loss(even, 1.0, 1.0).mean()) < float(
        (target.moments().var / (target.moments().var + 1)).mean()
    )


def test_a_model_with_half_of_the_covariance_is_worse_than_a_linear_one():
    target, sde = Gaussian(torch.zeros(16), var=torch.linspace(0.01, 2, 16)), VESDE()
    lazy = Gaussian(torch.zeros(16), var=0.3).at(sde)
    found = audit(lambda x, t: lazy(x, t), sde, target.sample(600, generator=seeded(10)), **QUICK)
    assert any("linear" in a.failed for a in found.levels)


def test_the_distance_of_samples_is_the_energy_distance_in_its_own_units():
    x = torch.randn(40, 2, 3, generator=seeded(11))
    y = torch.randn(40, 2, 3, generator=seeded(12)) + 0.4
    found = agreements.agreement(x, y, seeded(13))
    across = torch.cdist(x.double().flatten(1), y.double().flatten(1)).mean()
    assert found.value == pytest.approx(energy_distance(x, y) / (2 * float(across)), abs=1e-9)
    assert found.value > found.floor
    assert found.z > 3


@pytest.mark.slow
def test_samples_of_one_law_are_rarely_distinguished():
    generator = seeded(14)
    draws = [torch.randn(2, 20, 2, generator=generator) for _ in range(100)]
    found = [agreements.agreement(*pair, generator) for pair in draws]
    above = sum(a.value > a.floor for a in found)
    assert scipy.stats.binom.cdf(above, 100, 0.05) > 1e-4
    assert scipy.stats.binom.sf(above - 1, 100, 0.05) > 1e-4
    assert max(a.z for a in found) < 4.5


def test_sde_and_flow_differ_if_the_score_is_that_of_no_diffusion():
    sde, target = VESDE(), modes(8)
    x = target.sample(200, generator=seeded(15))
    found = audit(
        Bent(target, sde, lambda s, _: 1.5 * s, 0.3, 3.0), sde, x, levels=9, samples=128, steps=32
    )
    assert found.parted is not None
    assert found.parted.ratio < 3.0
    assert "differ from" in found.verdict()


@pytest.mark.slow
def test_a_score_that_memorised_its_training_data_is_distinguished_from_one_that_learnt_the_law():
    sde, target, labels = VESDE(0.05, 5.0), modes(16), torch.arange(100) % 2
    train, x = (target.sample(n, generator=seeded(n)) for n in (100, 400))
    heart = GaussianMixture([0.01] * 100, train, stds=0.0).at(sde)
    knowing, learned = (
        audit(lambda x, t, s=score: s(x, t), sde, x, train=train, **QUICK)
        for score in (target.at(sde), heart)
    )
    assert not any("memory" in a.failed for a in knowing.levels)
    for level in knowing.levels:
        assert abs(level.memory.share.value) < 5 * level.memory.share.stderr
        assert level.memory.loss.value > level.memory.floor.value
    small = learned.levels[-1]
    assert "memory" in small.failed
    assert small.memory.share.value == pytest.approx(1, abs=1e-6)
    for level in learned.levels:
        assert level.memory.loss.value == pytest.approx(level.memory.floor.value, rel=1e-4)
    # memorising each class memorises more than all together: the floor is lower
    split = audit(
        lambda x, t, condition: heart(x, t), sde, x, condition={"label": torch.arange(400) % 2},
        train=train, train_condition={"label": labels}, **QUICK,
    )  # fmt: skip
    floors = [(a.memory.floor.value, b.memory.floor.value) for a, b in zip(
        split.levels, learned.levels, strict=True)]  # fmt: skip
    assert all(a < b + 1e-9 for a, b in floors)
    assert any(a < 0.9 * b for a, b in floors)
    assert "by heart" in str(split)
    assert split.as_json()["levels"][-1]["memory"]["share"]["value"] > 0.9


def test_figures_do_not_depend_on_the_size_of_the_batches():
    sde, target = VPSDE(), modes(5)
    x = target.sample(40, generator=seeded(16), dtype=torch.float64)
    runs = [
        audit(target.at(sde), sde, x, levels=4, samples=10, steps=6, batch_size=size, seed=3)
        for size in (7, 64)
    ]
    one, two = (run.as_json() for run in runs)
    assert one["levels"][2]["loss"] == pytest.approx(two["levels"][2]["loss"], rel=1e-9)
    assert one["levels"][3]["agreement"]["value"] == pytest.approx(
        two["levels"][3]["agreement"]["value"], rel=1e-6
    )
    other = audit(target.at(sde), sde, x, levels=4, samples=10, steps=6, seed=4)
    assert other.levels[2].loss != runs[0].levels[2].loss


def test_a_seed_may_be_an_integer_of_numpy():
    sde, target = VESDE(), Gaussian(torch.zeros(2), var=0.5)
    x = target.sample(16, generator=seeded(21))
    found = [
        audit(target.at(sde), sde, x, train=x, levels=2, samples=4, steps=2, seed=seed)
        for seed in (5, np.int64(5))
    ]
    assert str(found[0]) == str(found[1])


def test_tensors_that_require_gradients_are_unchanged():
    sde, target = VESDE(), modes(3)
    x = target.sample(20, generator=seeded(23)).requires_grad_()
    found = audit(target.at(sde), sde, x, train=x, levels=3, samples=4, steps=4)
    assert x.grad is None
    assert math.isfinite(found.nats)


def test_the_mean_of_the_samples_causes_no_alarm():
    # at large noise the mean of 300 samples has a larger variance than the denoiser
    sde, target = VESDE(), Gaussian(torch.zeros(64), var=1.0)
    x = target.sample(300, generator=seeded(17))
    found = audit(target.at(sde), sde, x, levels=5, samples=2, steps=4)
    assert all(a.failed == () for a in found.levels)
    assert all(abs(a.findings.z["slope"]) < 4 for a in found.levels)


def test_data_at_one_point_cause_no_alarm():
    sde, target = VESDE(), Gaussian(torch.ones(4), var=0.0)
    found = audit(target.at(sde), sde, torch.ones(64, 4), **QUICK)
    assert all(a.failed == () for a in found.levels)
    assert "null" in json.dumps(found.as_json()) or found.as_json()["worst"] is None


@pytest.mark.slow
def test_an_audit_has_a_table_json_and_a_picture(tmp_path):
    sde, target = VESDE(), modes(6)
    x = target.sample(64, generator=seeded(17))
    for truth, train in ((None, x[:20]), (target, None)):
        found = audit(
            Bent(target, sde, lambda s, _: 2 * s), sde, x, target=truth, train=train, levels=4,
            samples=8, steps=6,
        )  # fmt: skip
        text = str(found)
        assert len(text.splitlines()) == 1 + 1 + 4 + 2 + 1
        assert ("floor" in text.splitlines()[1].split()) == (truth is not None)
        stored = json.loads(found.to_json(tmp_path / "a.json").read_text())
        assert stored["worst"] == found.worst.ratio
        assert len(stored["levels"]) == 4
        assert text.startswith("variance exploding, x_t = x_0 + sigma_t z")
        panels = found.plot().axes
        assert len(panels) == 5
        tests = [label.get_text() for label in panels[-1].get_yticklabels()]
        assert ("memory" in tests) == (train is not None)
        assert found._repr_html_().startswith("<pre")


def test_the_picture_marks_every_failed_test_and_what_leaves_its_frame():
    sde, target = VESDE(), modes(6)
    x = target.sample(64, generator=seeded(17))
    options = {"target": target, "levels": 4, "samples": 8, "steps": 6}
    for factor in (2, 1):
        found = audit(Bent(target, sde, lambda s, _, c=factor: c * s), sde, x, **options)
        _, tests, excess, _, failed = found.plot().axes
        names = [label.get_text() for label in failed.get_yticklabels()]
        marks = failed.collections[0].get_offsets()
        seen = {(float(ratio), names[int(at)]) for ratio, at in marks}
        seen = {(ratio, name) for ratio, name in seen if name != "SDE-ODE"}
        assert seen == {(a.ratio, name) for a in found.levels for name in a.failed}
        _, high = tests.get_ylim()
        shown = {float(line.get_xdata()[0]) for line in tests.lines if line.get_marker() == "^"}
        values = {
            a.ratio: [f.value for f in (a.findings.calibration, a.findings.stein, a.findings.slope)]
            for a in found.levels
        }
        assert shown == {ratio for ratio, three in values.items() if max(three) > high}
        assert bool(seen) == bool(shown) == (factor == 2)
    # rounding of an exact score is not reported as a finding
    assert excess.get_ylim() == pytest.approx((-5e-7, 5e-7))


@pytest.mark.slow
def test_nats_are_the_excess_in_the_integral_of_the_bound():
    sde, v, c = VESDE(), 0.25, 1.2
    target = Gaussian(torch.zeros(32), var=v)
    found = audit(
        Bent(target, sde, lambda s, _: c * s), sde, target.sample(400, generator=seeded(18)),
        target=target, levels=25, samples=8, steps=24,
    )  # fmt: skip
    # the excess is (c - 1)^2 / (1 + v e^lambda)
    low, high = (v * math.exp(a.log_snr) for a in (found.levels[0], found.levels[-1]))
    integral = math.log(high / low) - math.log((1 + high) / (1 + low))
    assert found.nats == pytest.approx(16 * (c - 1) ** 2 * integral, rel=0.02)


def plain(x, t, condition=None):
    return -x


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        (dict(x=torch.zeros(15, 3)), ShapeError, "16"),
        (dict(model=plain, x=torch.zeros(20, 0)), ShapeError, "with at least one entry each"),
        (dict(x=torch.zeros(20, 4)), ShapeError, "events"),
        (dict(x=torch.zeros(20, 3, dtype=torch.long)), InvalidTypeError, "floating"),
        (dict(x=torch.full((20, 3), math.nan)), NonFiniteError, "NaN"),
        (dict(levels=1), InvalidValueError, "levels"),
        (dict(steps=2), InvalidValueError, "steps"),
        (dict(samples=1), InvalidValueError, "samples"),
        (dict(batch_size=0), InvalidValueError, "batch_size"),
        (dict(seed=-1), InvalidValueError, "seed"),
        (dict(target="moons"), InvalidTypeError, "target must be a Target"),
        (dict(target=Gaussian(torch.zeros(2), var=1.0)), ShapeError, "target"),
        (dict(model=plain, condition={"label": torch.zeros(3)}), ShapeError, "label"),
        (dict(train=torch.zeros(20, 2)), ShapeError, "events"),
        (dict(model=plain, train=torch.zeros(20, 2)), ShapeError, "of the same shape"),
        (dict(train=torch.zeros(15, 3)), ShapeError, "needs train of at least 16"),
        (dict(condition=torch.zeros(20)), InvalidTypeError, "must be a mapping"),
        (
            dict(
                model=plain,
                train=torch.zeros(20, 3),
                train_condition={"label": torch.zeros(20)},
            ),
            InvalidValueError,
            "give the same",
        ),
        (
            dict(model=plain, train_condition={"label": torch.zeros(20)}),
            InvalidValueError,
            "give the same",
        ),
        (dict(sde=VPSDE()), InvalidValueError, "belongs to"),
        (dict(model=3), InvalidTypeError, "callable"),
        (dict(model=lambda x, t: x * math.nan), NonFiniteError, "NaN"),
    ],
)
def test_unfitting_arguments_are_refused(change, error, words):
    sde = VESDE()
    given = dict(
        model=modes(3).at(sde), sde=sde, x=torch.zeros(20, 3), levels=4, samples=4, steps=6
    )
    given |= change
    model, process, x = (given.pop(name) for name in ("model", "sde", "x"))
    with pytest.raises(error, match=words):
        audit(model, process, x, **given)


def test_without_an_sde_the_one_in_the_facts_of_the_score_is_taken():
    sde, target = VESDE(), modes(3)
    x, quick = target.sample(20, generator=seeded(4)), dict(levels=3, samples=4, steps=4)
    assert audit(target.at(sde), None, x, **quick) == audit(target.at(sde), sde, x, **quick)
    with pytest.raises(InvalidValueError, match="has no SDE in its facts"):
        audit(plain, None, x, **quick)


def small_model(tmp_path, classes=None):
    with torch.random.fork_rng(devices=[]):
        net = MLP(2, hidden=(8,), num_classes=classes)
    model = ScoreModel(net, VESDE(0.05, 5.0), (2,), moments=Moments(0.0, var=1.0))
    model.save_pretrained(tmp_path / "model")
    return tmp_path / "model"


@pytest.mark.slow
def test_the_command_prints_a_table_and_draws(tmp_path, capsys):
    folder = small_model(tmp_path, classes=3)
    x = scoresde.targets.TwoMoons().sample(100, generator=seeded(19)).numpy()
    np.savez(tmp_path / "moons.npz", x=x, y=np.arange(100) % 3)
    words = [str(folder), "--data", str(tmp_path / "moons.npz"), "--levels", "4", "--steps", "6"]
    out = ["--out", str(tmp_path / "a"), "--train-data", str(tmp_path / "moons.npz")]
    assert main(["audit", *words, *out, "--n", "32", "--draws", "8"]) == 0
    said = capsys.readouterr().out
    assert "32 samples of the data" in said
    assert str(tmp_path / "a/audit.png") in said
    assert (tmp_path / "a/audit.png").exists()
    assert json.loads((tmp_path / "a/audit.json").read_text())["n"] == 32


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--out", "x.npz"], "is a file; name a folder"),
        (["--out", "report.png"], "writes a folder; got 'report.png', so write 'report'"),
        (["--out", "x.npz/a"], "is a file; name a folder"),
        (["--n", "3"], "16"),
        (["--data", "nothing.npz"], "does not exist"),
    ],
)
def test_the_command_refuses_impossible_requests(tmp_path, monkeypatch, capsys, options, words):
    monkeypatch.chdir(tmp_path)
    folder = small_model(tmp_path)
    monkeypatch.setattr("scoresde.cli.audit.audit", None)  # the work
    np.savez(tmp_path / "x.npz", x=np.zeros((50, 2), dtype=np.float32))
    given = {"--data": "x.npz"} | dict([options])
    code = main(["audit", str(folder), *(w for pair in given.items() for w in pair)])
    assert code == 1
    assert words in capsys.readouterr().err
