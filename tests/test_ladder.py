"""Test that the NCSN ladder is the VE SDE restricted to its levels."""

import copy
import math
from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.integrate import solve_ivp
from strategies import KINDS, SDES, UserSDE, generators, ladders, log_floats, shapes, times_of
from torch.testing import assert_close

from scoresde.errors import InvalidTypeError, InvalidValueError, ScoreSDEError
from scoresde.objectives import dsm_loss
from scoresde.sde import (
    VESDE,
    VPSDE,
    BetaLadder,
    CosineSDE,
    Importance,
    LogNormal,
    NCSNLadder,
    expand,
)


@st.composite
def twins(draw) -> tuple[VESDE, NCSNLadder]:
    """Return the same geometric ladder, as a VE SDE with levels and as a list of sigmas."""
    low, ratio = draw(log_floats(1e-3, 1)), draw(log_floats(2, 1e5))
    size = draw(st.integers(2, 300))
    return VESDE(low, low * ratio, levels=size), NCSNLadder.geometric(low, low * ratio, size)


def close(a, b, rel):
    assert_close(a, b, rtol=rel, atol=0)


@pytest.mark.law(11)
@given(twins())
def test_levels_are_a_geometric_sequence(pair):
    ve, ladder = pair
    i = torch.arange(ve.levels, dtype=torch.float64)
    expected = ve.sigma_min * (ve.sigma_max / ve.sigma_min) ** (i / (ve.levels - 1))
    close(torch.tensor(ladder.sigmas, dtype=torch.float64), expected, 1e-12)
    for sde in pair:
        sigma = sde.sigma(i * sde.T / (sde.levels - 1))
        close(sigma, expected, 1e-12)
        close(sigma[1:] / sigma[:-1], (sigma[1] / sigma[0]).expand(sde.levels - 1), 1e-12)


@pytest.mark.law(11)
@given(twins())
def test_a_geometric_ladder_has_the_times_marginals_and_transitions_of_ve(pair):
    ve, ladder = pair
    t = ve.times()
    assert torch.equal(t, ladder.times())
    assert len(t) == ve.levels
    x = torch.ones(len(t), 2, dtype=torch.float64)
    for ours, theirs in zip(ve.marginal(x, t), ladder.marginal(x, t), strict=True):
        close(ours, theirs, 1e-12)
    s, t = t[1:], t[:-1]
    for ours, theirs in zip(ve.transition(s, t), ladder.transition(s, t), strict=True):
        close(ours, theirs, 1e-12)
    sigma = ve.sigma(t)
    close(ve.transition(s, t)[1], (sigma - ve.sigma(s)) * (sigma + ve.sigma(s)), 1e-10)
    close(ve.diffusion(t), ladder.diffusion(t), 1e-10)
    assert ladder.prior_std == pytest.approx(ve.prior_std, rel=1e-12)


@given(twins(), generators(), st.sampled_from([None, LogNormal(), Importance()]))
def test_a_geometric_ladder_is_trained_at_the_times_of_ve(pair, generator, law):
    ve, ladder = pair
    state = generator.get_state()
    ours, weights = ve.sample_times(50, law=law, generator=generator)
    theirs, others = ladder.sample_times(50, law=law, generator=generator.set_state(state))
    # a draw at the edge of two levels may round to either
    assert (ours != theirs).sum() <= 1
    close(weights[ours == theirs], others[ours == theirs], 1e-9)


@pytest.mark.law(12)
@given(ladders())
def test_the_steps_of_variance_are_positive_and_telescope(sde):
    """The first level belongs to the kernel: the process itself adds the rest, and no more."""
    t = sde.times().flip(0)
    a, v = sde.transition(t[:-1], t[1:])
    assert (v > 0).all()
    to_end = sde.alpha(t[-1]) / sde.alpha(t[1:])
    added = (to_end**2 * v).sum()
    gain = (sde.alpha(t[-1]) / sde.alpha(t[0])) ** 2
    close(added, sde.sigma(t[-1]) ** 2 - gain * sde.sigma(t[0]) ** 2, 1e-10)
    close(a.prod(), sde.alpha(t[-1]) / sde.alpha(t[0]), 1e-12)


@given(ladders())
def test_the_kernel_has_the_values_of_the_table_at_its_levels(sde):
    t = sde.times().flip(0)
    if isinstance(sde, NCSNLadder):
        close(sde.sigma(t), torch.tensor(sde.sigmas, dtype=torch.float64), 1e-12)
        assert (sde.alpha(t) == 1).all()
    else:
        alpha_bar = torch.tensor(
            [math.prod(1 - b for b in sde.betas[: i + 1]) for i in range(len(t))]
        )
        close(sde.alpha(t) ** 2, alpha_bar.to(t), 1e-6)
        close(sde.alpha(t) ** 2 + sde.sigma(t) ** 2, torch.ones_like(t), 1e-14)
        assert sde.prior_std == 1


@given(st.data())
def test_the_noise_is_log_linear_between_the_levels(data):
    sde = data.draw(ladders())
    knots = sde.times().flip(0)
    u = data.draw(st.floats(0.01, 0.99))
    between = sde.log_snr(knots[:-1] + u * knots.diff())
    low, high = sde.log_snr(knots[:-1]), sde.log_snr(knots[1:])
    assert_close(between, low + u * (high - low), rtol=1e-10, atol=1e-10)


@pytest.mark.slow
@given(ladders(max_levels=5))
def test_the_moments_of_a_ladder_solve_their_differential_equation(sde):
    """One solve from level to level, since the coefficients jump there."""
    t = sde.times().flip(0)

    def slope(u, y):
        u = torch.tensor(u, dtype=torch.float64).clamp(inside[0], inside[1])
        f, g2 = (float(c) for c in sde.coefficients(u))
        return [f * y[0], 2 * f * y[1] + g2]

    y = [float(sde.alpha(t[0])), float(sde.sigma(t[0])) ** 2]
    for i in range(len(t) - 1):
        margin = 1e-13 * sde.T
        inside = float(t[i]) + margin, float(t[i + 1]) - margin
        span = (float(t[i]), float(t[i + 1]))
        y = solve_ivp(slope, span, y, "DOP853", rtol=1e-11, atol=1e-14).y[:, -1]
        assert y[0] == pytest.approx(float(sde.alpha(t[i + 1])), rel=1e-9)
        var = float(sde.sigma(t[i + 1])) ** 2
        assert y[1] == pytest.approx(var, abs=1e-9 * max(1, var))


@pytest.mark.slow
@pytest.mark.law(13)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("levels", [2, 11, 2000, 100_000])
@pytest.mark.parametrize("kind", [*KINDS.values(), UserSDE])
def test_every_level_has_its_own_index(kind, levels, dtype):
    if kind is NCSNLadder:
        sde = NCSNLadder.geometric(0.01, 50.0, levels)
    elif kind is BetaLadder:
        sde = BetaLadder([1 / levels] * levels)
    else:
        sde = kind(levels=levels)
    t = sde.times()
    assert len(t) == levels
    assert torch.equal(sde.index(t.to(dtype)), torch.arange(levels - 1, -1, -1))
    # NCSN counts from the largest level down, and back
    labels = levels - 1 - sde.index(t)
    assert torch.equal(labels, torch.arange(levels))
    assert torch.equal(sde.times().flip(0)[levels - 1 - labels], t)


@pytest.mark.law(13)
@given(st.sampled_from([VPSDE, CosineSDE, UserSDE]), st.integers(2, 3000), st.data())
def test_the_index_is_the_nearest_level(kind, levels, data):
    sde = kind(levels=levels)
    t = data.draw(times_of(sde))
    grid = torch.linspace(sde.eps, sde.T, levels, dtype=torch.float64)
    gaps = (grid - t).abs()
    assert gaps[sde.index(t)] <= gaps.min() + 1e-12
    i = sde.index(float(t))
    assert i.shape == ()
    assert i.dtype == torch.int64
    assert sde.index(0.0) == 0
    assert sde.index(torch.full((2, 3), sde.T)).tolist() == [[levels - 1] * 3] * 2


@given(st.integers(2, 400), st.data())
def test_fewer_steps_keep_both_ends_and_skip_levels_evenly(levels, data):
    steps = data.draw(st.integers(1, levels - 1))
    sde = VPSDE(levels=levels)
    t = sde.times(steps)
    assert len(t) == steps + 1
    assert t[0] == sde.T
    assert t[-1] == sde.eps
    index = sde.index(t)
    assert_close(t, sde.times().flip(0)[index], rtol=0, atol=0)
    skips = -index.diff()
    assert skips.min() >= 1
    assert skips.max() - skips.min() <= 2
    even = torch.linspace(levels - 1, 0, steps + 1, dtype=torch.float64)
    assert (index - even).abs().max() <= 0.5 + 1e-9


@pytest.mark.parametrize("law", [None, Importance(), LogNormal()])
@pytest.mark.parametrize("name", [name for name, sde in SDES.items() if sde.levels is not None])
def test_an_sde_with_levels_is_trained_at_its_levels_only(name, law):
    sde = SDES[name]
    generator = torch.Generator().manual_seed(0)
    t, weights = sde.sample_times(4000, law=law, generator=generator)
    grid = sde.times()
    assert torch.isin(t, grid).all()
    assert (weights > 0).all()
    if law is None:
        counts = torch.bincount(sde.index(t), minlength=sde.levels)
        assert len(counts) == sde.levels
        p = 1 / sde.levels
        assert (abs(counts / 4000 - p) < 6 * math.sqrt(p * (1 - p) / 4000)).all()
        assert (weights == 1).all()


@pytest.mark.slow
@pytest.mark.law(14)
@given(st.data())
def test_denoising_on_a_ladder_is_continuous_denoising_at_its_levels(data):
    """The loss of NCSN, sigma_i^2 |s(x + sigma_i z) + z / sigma_i|^2 at a random level i."""
    ve, ladder = data.draw(twins())
    shape, generator = data.draw(shapes()), data.draw(generators())
    x = torch.randn(shape, generator=generator, dtype=torch.float64)
    seen = []

    def score(x_t, t):
        seen.append((x_t, t))
        return torch.sin(x_t) + expand(t, x_t)

    state = generator.get_state()
    loss = dsm_loss(score, ladder, x, generator=generator)
    x_t, t = seen[0]
    assert loss.shape == shape[:1]
    assert torch.isin(t, ladder.times()).all()
    sigma = expand(torch.tensor(ladder.sigmas, dtype=torch.float64)[ladder.index(t)], x)
    z = (x_t - x) / sigma
    by_hand = sigma**2 * (torch.sin(x_t) + expand(t, x) + z / sigma) ** 2
    assert_close(loss, by_hand.reshape(shape[0], -1).sum(1), rtol=1e-6, atol=1e-6)

    twin = dsm_loss(score, ve, x, generator=generator.set_state(state))
    if torch.equal(seen[1][1], t):
        assert_close(loss, twin, rtol=1e-10, atol=1e-12)
    continuous = replace(ve, levels=None)
    state = generator.get_state()
    ours = dsm_loss(score, ladder, x, t=t, generator=generator)
    theirs = dsm_loss(score, continuous, x, t=t, generator=generator.set_state(state))
    # the sine of a state of the size sigma has the rounding of sigma
    assert_close(ours, theirs, rtol=1e-8, atol=1e-10)


@pytest.mark.law(14)
def test_ddpm_approaches_vp_at_first_order():
    """|alpha_bar / alpha^2 - 1| = O(1 / N) where level i of N stands at time (i + 1) / N."""
    vp, errors = VPSDE(), []
    for n in (250, 500, 1000, 2000):
        i = torch.arange(1, n + 1, dtype=torch.float64)
        table = BetaLadder(vp.beta(i / n) / n)
        assert table.levels == n
        level = table.times().flip(0)
        errors.append(float((table.alpha(level) ** 2 / vp.alpha(i / n) ** 2 - 1).abs().max()))
        assert errors[-1] > 1e-3 * 1000 / n
    orders = [math.log2(a / b) for a, b in pairwise(errors)]
    assert all(abs(order - 1) < 0.35 for order in orders), (errors, orders)
    assert abs(orders[-1] - 1) < 0.06


def test_ddpm_transitions_add_the_betas_of_the_table():
    """The ancestral step x_i = sqrt(1 - beta_i) x_{i-1} + sqrt(beta_i) z."""
    betas = torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64)
    sde = BetaLadder(betas)
    assert isinstance(sde, BetaLadder)
    t = sde.times().flip(0)
    a, v = sde.transition(t[:-1], t[1:])
    close(a**2, 1 - betas[1:], 1e-12)
    close(v, betas[1:], 1e-9)


def test_a_table_of_tiny_betas_keeps_their_digits():
    sde = BetaLadder([1e-13, 1e-9, 1e-3])
    t = sde.times().flip(0)
    close(sde.sigma(t[:2]) ** 2, torch.tensor([1e-13, 1e-9 + 1e-13], dtype=torch.float64), 1e-9)
    close(sde.transition(t[:-1], t[1:])[1], torch.tensor([1e-9, 1e-3], dtype=torch.float64), 1e-9)


@pytest.mark.parametrize("form", [list, tuple, torch.tensor])
def test_any_sequence_is_a_ladder(form):
    values = [0.1, 0.2, 0.7]
    assert BetaLadder(form(values)).levels == 3
    ladder = NCSNLadder(form(values))
    assert ladder.levels == 3
    assert hash(ladder) == hash(NCSNLadder(ladder.sigmas))


def test_a_table_is_made_once_and_one_made_in_inference_mode_serves_training_too():
    sde, t = BetaLadder([0.1, 0.2, 0.3]), torch.tensor([0.2, 0.9], dtype=torch.float64)
    with torch.inference_mode():
        sde.sigma(t)
    table = sde._table
    x = torch.ones(2, 3, requires_grad=True)
    sde.perturb(x, t, torch.zeros(2, 3)).sum().backward()
    assert_close(x.grad, sde.alpha(t)[:, None].float().expand(2, 3))
    assert sde._table is table
    assert copy.deepcopy(sde) == sde == BetaLadder([0.1, 0.2, 0.3])


def test_a_ladder_of_any_length_of_time_is_the_same_ladder():
    sigmas = (0.1, 0.5, 2.0)
    one, ten = NCSNLadder(sigmas), NCSNLadder(sigmas, T=10.0)
    s, t = one.times()[1:], one.times()[:-1]
    assert_close(one.transition(s, t), ten.transition(10 * s, 10 * t), rtol=1e-12, atol=0)
    assert_close(one.diffusion(t), ten.diffusion(10 * t) * math.sqrt(10), rtol=1e-12, atol=0)


BAD = {
    "falling": (
        lambda: NCSNLadder((1.0, 0.5)),
        r"increasing, but sigmas\[1\] = 0.5; got \(1.0, 0.5\)",
    ),
    "constant": (
        lambda: NCSNLadder((0.5, 0.5)),
        r"increasing, but sigmas\[1\] = 0.5; got \(0.5, 0.5\)",
    ),
    "zero": (lambda: NCSNLadder((0.0, 0.5)), r"positive.*got \(0.0, 0.5\)"),
    "negative": (lambda: NCSNLadder((-1.0, 0.5)), r"positive.*got \(-1.0, 0.5\)"),
    "nan": (lambda: NCSNLadder((0.1, math.nan)), r"finite.*got \(0.1, nan\)"),
    "infinite": (lambda: NCSNLadder((0.1, math.inf)), r"finite.*got \(0.1, inf\)"),
    "one": (lambda: NCSNLadder((1.0,)), "at least 2 levels, got 1 sigmas"),
    "none": (lambda: BetaLadder([]), "at least 2 levels, got 0 betas"),
    "eps": (lambda: NCSNLadder((0.1, 1.0), eps=0.1), "ends at its first level, eps = 0; got 0.1"),
    "beta of 1": (
        lambda: BetaLadder([0.1, 1.0]),
        r"lie in \(0, 1\), but betas\[1\] = 1.0: a beta of 1 removes all signal.*"
        r"clip the table.*got \(0.1, 1.0\)",
    ),
    "beta of 0": (lambda: BetaLadder([0.0, 0.5]), r"lie in \(0, 1\), but betas\[0\] = 0.0"),
    "beta nan": (lambda: BetaLadder([0.1, math.nan]), r"got \(0.1, nan\)"),
    "a beta lost in rounding": (
        lambda: BetaLadder([0.5, 1e-20]),
        "two neighbouring levels are equal",
    ),
    "sigmas lost in rounding": (
        lambda: NCSNLadder((1e5, 1e5 * (1 + 3e-16))),
        "two neighbouring levels are equal",
    ),
    "geometric reversed": (
        lambda: NCSNLadder.geometric(1.0, 0.1, 5),
        "sigma_min = 1.0, sigma_max = 0.1",
    ),
    "levels of a continuous SDE": (
        lambda: VESDE(levels=True),
        "must be an integer or None, got True",
    ),
    "geometric of one": (lambda: NCSNLadder.geometric(0.1, 1.0, 1), "integer >= 2, got 1"),
    "too many steps": (
        lambda: VESDE(levels=10).times(10),
        "10 steps need 11 levels, but this SDE has levels=10; use at most 9 steps",
    ),
    "a spacing of levels": (
        lambda: VESDE(levels=10).times(5, spacing="karras"),
        "spacing='karras' has no meaning for an SDE with levels=10",
    ),
    "an index of a continuous SDE": (lambda: VESDE().index(0.5), "VESDE is continuous"),
    "importance without noise": (
        lambda: VPSDE(eps=0.0, levels=5).sample_times(
            3, law=Importance(), generator=torch.Generator()
        ),
        "no noise at t = 0, .*eps > 0",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_impossible_ladders_are_named(name):
    call, message = BAD[name]
    with pytest.raises(ScoreSDEError, match=message) as caught:
        call()
    assert isinstance(caught.value, InvalidValueError | InvalidTypeError)


@pytest.mark.parametrize(
    "make",
    [
        lambda: BetaLadder([*[0.001234567] * 999, 1.0]),
        lambda: NCSNLadder([*[0.1 + i / 7 for i in range(999)], 0.01]),
        lambda: NCSNLadder([*["0.123456789"] * 999]),
        lambda: BetaLadder(["word"] * 1000),
    ],
)
def test_a_long_table_is_not_quoted_whole(make):
    with pytest.raises(ScoreSDEError) as caught:
        make()
    assert len(str(caught.value)) < 500


@pytest.mark.parametrize("kind", [NCSNLadder, BetaLadder])
@pytest.mark.parametrize("values", ["12", ["0.1", "0.2"], [0.1, True], [b"1", 0.2], 3, [None]])
def test_words_and_booleans_are_refused_as_levels(kind, values):
    with pytest.raises(InvalidTypeError, match="must be numbers, got"):
        kind(values)
