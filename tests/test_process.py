"""Test the process derived from a kernel: moments, transitions, simulation."""

import math
from dataclasses import dataclass, fields, replace
from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.integrate import solve_ivp
from strategies import (
    SDES,
    log_floats,
    sdes,
    times_of,
    ve_sdes,
    vp_sdes,
)
from torch import Tensor
from torch.testing import assert_close

from scoresde import sample
from scoresde.errors import InvalidValueError, ScoreSDEError
from scoresde.sde import (
    EDMSDE,
    SDE,
    VESDE,
    VPSDE,
    ItoSDE,
    NCSNLadder,
    SubVPSDE,
    process_of,
)
from scoresde.targets import Gaussian


@dataclass(frozen=True)
class Reparametrised(SDE):
    """`base` under the clock phi(t) = T (exp(k t / T) - 1) / (exp(k) - 1)."""

    base: SDE
    k: float

    def phi(self, t: Tensor) -> Tensor:
        return self.T * torch.expm1(self.k * t / self.T) / math.expm1(self.k)

    def alpha(self, t: Tensor) -> Tensor:
        return self.base.alpha(self.phi(t))

    def sigma(self, t: Tensor) -> Tensor:
        return self.base.sigma(self.phi(t))


@dataclass(frozen=True)
class Scaled(SDE):
    """Define the process x_t / alpha_t of `base`, which is variance exploding."""

    base: SDE

    def alpha(self, t: Tensor) -> Tensor:
        return torch.ones_like(t)

    def sigma(self, t: Tensor) -> Tensor:
        return self.base.sigma(t) / self.base.alpha(t)


def close(a: Tensor, b: Tensor, rel: float, scale: float = 0.0) -> None:
    assert_close(a, b, rtol=rel, atol=rel * scale)


@pytest.mark.slow
@pytest.mark.law(1)
@given(st.data())
def test_moments_of_the_process_solve_their_differential_equation(data):
    """dm/dt = f m, dv/dt = 2 f v + g^2 from (alpha_0, sigma_0^2) leads to (alpha_t, sigma_t^2)."""
    sde = data.draw(sdes(continuous=True))
    t = data.draw(times_of(sde, 3))

    def slope(u, y):
        u = torch.tensor(u, dtype=torch.float64)
        f, g = float(sde.drift(torch.ones(1).double(), u)), float(sde.diffusion(u))
        return [f * y[0], 2 * f * y[1] + g**2]

    zero = torch.tensor(0.0, dtype=torch.float64)
    start = [float(sde.alpha(zero)), float(sde.sigma(zero)) ** 2]
    out = solve_ivp(
        slope, (0, float(t[-1])), start, "DOP853", t_eval=t.numpy(), rtol=1e-11, atol=1e-14
    )
    alpha, var = torch.from_numpy(out.y)
    close(alpha, sde.alpha(t), 1e-9, scale=1)
    close(var, sde.sigma(t) ** 2, 1e-9, scale=1)


@pytest.mark.law(2)
@given(st.data())
def test_transition_composes_over_intermediate_times(data):
    sde = data.draw(sdes())
    s, u, t = data.draw(times_of(sde, 3, gap=0.02))
    (a, v), (b, w), (c, y) = sde.transition(s, t), sde.transition(s, u), sde.transition(u, t)
    close(a, b * c, 1e-12)
    close(v, c**2 * w + y, 1e-12)


@pytest.mark.law(3)
@given(st.data())
def test_transition_carries_the_kernel_from_one_time_to_the_next(data):
    """alpha_t = a alpha_s and sigma_t^2 = a^2 sigma_s^2 + v, from s = 0 too."""
    sde = data.draw(sdes())
    t = data.draw(times_of(sde, 5)).clamp(min=1e-4 * sde.T)
    for s in (torch.zeros_like(t), t[0].expand(5)):
        a, v = sde.transition(s, t)
        close(a * sde.alpha(s), sde.alpha(t), 1e-12)
        close(a**2 * sde.sigma(s) ** 2 + v, sde.sigma(t) ** 2, 1e-12)
        assert (v[s < t] > 0).all()


@pytest.mark.law(3)
@given(st.data())
def test_transition_to_the_same_time_is_the_identity(data):
    sde = data.draw(sdes())
    t = torch.cat([data.draw(times_of(sde, 3)), torch.tensor([0.0, sde.T])])
    a, v = sde.transition(t, t)
    assert torch.equal(a, torch.ones_like(t))
    assert torch.equal(v, torch.zeros_like(t))


@given(st.data())
def test_transition_over_a_short_time_is_one_step_of_the_process(data):
    """a = 1 + f h + O(h^2) and v = g^2 h + O(h^2), which a short h cannot hide behind rounding."""
    sde = data.draw(sdes(continuous=True))
    t = data.draw(times_of(sde)) * 0.9 + 0.05 * sde.T
    f, g2 = sde.coefficients(t)
    errors = []
    for h in (1e-4 * sde.T, 0.5e-4 * sde.T):
        a, v = sde.transition(t, t + h)
        errors.append(float(abs(v / (g2 * h) - 1)))
        close(a - 1, f * h, 0.05, scale=float(f * h) ** 2 + 1e-9)
    assert errors[0] < 0.05
    assert errors[1] < 0.6 * errors[0] + 1e-9


@pytest.mark.law(6)
@given(st.data())
def test_sub_vp_has_the_mean_of_vp_and_its_variance_squared(data):
    vp = data.draw(vp_sdes(levels=st.none()))
    sub = SubVPSDE(vp.beta_min, vp.beta_max, T=vp.T, eps=vp.eps)
    t = data.draw(times_of(vp, 5))
    close(sub.alpha(t), vp.alpha(t), 1e-14)
    close(sub.sigma(t) ** 2, vp.sigma(t) ** 4, 1e-12)
    assert (sub.sigma(t) < vp.sigma(t)).all()
    b = vp.beta_min * t + (vp.beta_max - vp.beta_min) * t**2 / 2
    beta = vp.beta_min + (vp.beta_max - vp.beta_min) * t
    close(sub.drift(torch.ones_like(t), t), -beta / 2, 1e-12)
    close(sub.diffusion(t) ** 2, beta * -torch.expm1(-2 * b), 1e-12)


@pytest.mark.law(7)
@given(st.floats(1e-3, 13), st.floats(0, 1))
def test_vp_with_a_constant_rate_decays_exponentially(beta, t):
    sde = VPSDE(beta, beta)
    assert float(sde.alpha(torch.tensor(t, dtype=torch.float64))) == pytest.approx(
        math.exp(-beta * t / 2)
    )
    assert float(sde.diffusion(t)) == pytest.approx(math.sqrt(beta), rel=1e-12)
    # and its clock is computed without a division by the slope, which is 0
    times = torch.tensor([1e-9, 1e-3, 0.5, 1.0], dtype=torch.float64)
    for kind in (VPSDE, SubVPSDE):
        path = kind(beta, beta)
        close(path.time(path.log_snr(times)), times, 1e-9)


@pytest.mark.parametrize("sde", [VPSDE(), SubVPSDE()], ids=repr)
def test_small_times_of_vp_keep_their_digits(sde):
    t = torch.logspace(-12, 0, 13, dtype=torch.float64)
    close(sde.time(sde.log_snr(t)), t, 1e-9)


@pytest.mark.law(7)
@given(log_floats(1e-4, 1), log_floats(1e-9, 1e-2), st.floats(0, 1), log_floats(0.1, 10))
def test_ve_without_a_range_of_noise_does_not_diffuse(low, gap, u, T):
    sde = VESDE(low, low * (1 + gap), T=T)
    expected = 2 * math.log(sde.sigma_max / low) / T * low**2 * (1 + gap) ** (2 * u)
    assert float(sde.diffusion(u * T)) ** 2 == pytest.approx(expected, rel=1e-6)


@pytest.mark.law(7)
@given(st.floats(0.0, 80.0))
def test_edm_adds_noise_at_the_rate_two_t(t):
    assert float(EDMSDE().diffusion(t)) == pytest.approx(math.sqrt(2 * t), rel=1e-12)


@pytest.mark.law(8)
@given(st.data(), st.floats(0.1, 3))
def test_another_clock_gives_the_same_marginals(data, k):
    base = data.draw(sdes(continuous=True))
    sde = Reparametrised(base, k, T=base.T, eps=base.eps)
    s, t = data.draw(times_of(sde, 2, gap=0.02))
    for ours, theirs in zip(
        sde.transition(s, t), base.transition(sde.phi(s), sde.phi(t)), strict=True
    ):
        close(ours, theirs, 1e-10)
    (f, g2), (base_f, base_g2) = sde.coefficients(t), base.coefficients(sde.phi(t))
    rate = k * torch.exp(k * t / sde.T) / math.expm1(k)
    close(f, base_f * rate, 1e-9, scale=1e-3 / sde.T)
    close(g2, base_g2 * rate, 1e-9)


@pytest.mark.law(8)
@given(st.data())
def test_dividing_by_the_signal_scale_gives_a_variance_exploding_process(data):
    base = data.draw(sdes(continuous=True))
    sde = Scaled(base, T=base.T, eps=base.eps)
    s, t = data.draw(times_of(sde, 2, gap=0.02))
    _, v = base.transition(s, t)
    one, w = sde.transition(s, t)
    assert one == 1
    close(w, v / base.alpha(t) ** 2, 1e-10)
    f, g2 = sde.coefficients(t)
    close(f, torch.zeros_like(f), 0, scale=0)
    close(g2, base.coefficients(t)[1] / base.alpha(t) ** 2, 1e-9)


@pytest.mark.slow
@pytest.mark.law(10)
@pytest.mark.parametrize(
    "name", ["ve", "vp", "sub_vp", "cosine", "edm", "flow", "ncsn", "betas", "user"]
)
def test_forward_simulation_by_transitions_has_the_marginal_moments(name):
    sde, n, x0 = SDES[name], 140_000, 0.7
    generator = torch.Generator().manual_seed(len(name))
    x = torch.full((n,), x0, dtype=torch.float64)
    times = sde.times(None if sde.levels else 6).flip(0)
    x = sde.perturb(x, times[0], torch.randn(n, generator=generator, dtype=torch.float64))
    for s, t in pairwise(times):
        a, v = sde.transition(s, t)
        x = a * x + v.sqrt() * torch.randn(n, generator=generator, dtype=torch.float64)
        mean, std = sde.marginal(torch.tensor([x0], dtype=torch.float64), t)
        assert abs(x.mean() - mean) < 5 * std / math.sqrt(n)
        assert abs(x.var() / std**2 - 1) < 5 * math.sqrt(2 / n)


def euler_maruyama_variance(sde: SDE, steps: int) -> float:
    """Return the exact variance at T of Euler-Maruyama with left points, probed step by step."""
    var = float(sde.sigma(torch.tensor(0.0).double())) ** 2
    h = sde.T / steps
    for i in range(steps):
        t = i * h
        gain = 1 + h * float(sde.drift(torch.ones(1).double(), t))
        var = gain**2 * var + h * float(sde.diffusion(t)) ** 2
    return var


@pytest.mark.slow
@pytest.mark.law(10)
@given(ve_sdes(levels=st.none()))
def test_euler_maruyama_on_ve_has_the_bias_of_its_left_points(sde):
    """Left points add up to 2 L h / (exp(2 L h) - 1) of the variance, L = log(ratio)."""
    rate = math.log(sde.sigma_max / sde.sigma_min)
    x = 2 * rate / 60
    missing = (sde.sigma_max**2 - sde.sigma_min**2) * (1 - x / math.expm1(x))
    ours = euler_maruyama_variance(sde, 60)
    assert ours == pytest.approx(sde.sigma_max**2 - missing, rel=1e-9)


@pytest.mark.slow
@pytest.mark.law(10)
@pytest.mark.parametrize("name", ["vp", "sub_vp", "user"])
def test_the_bias_of_euler_maruyama_is_of_first_order(name):
    sde = SDES[name]
    exact = float(sde.sigma(torch.tensor(sde.T, dtype=torch.float64))) ** 2
    bias = [abs(euler_maruyama_variance(sde, n) - exact) for n in (100, 200, 400)]
    assert 0 < bias[1] < 0.6 * bias[0]
    assert 0 < bias[2] < 0.6 * bias[1]


@dataclass(frozen=True, kw_only=True)
class Twin(ItoSDE):
    """Define the process of another SDE, by its drift and diffusion."""

    base: SDE

    def coefficients(self, t: Tensor) -> tuple[Tensor, Tensor]:
        return self.base.coefficients(t)


def again(sde: SDE, **changes) -> SDE:
    """Return the same SDE as an object of a subclass, with other fields where given."""
    kind = dataclass(frozen=True)(type("Mine", (type(sde),), {}))
    return kind(**{f.name: getattr(sde, f.name) for f in fields(sde) if f.init} | changes)


@given(sdes())
def test_a_process_is_the_same_as_itself_and_as_that_of_a_subclass(sde):
    for other in (sde, replace(sde), again(sde)):
        assert sde.same_process(other)
        assert other.same_process(sde)


@given(sdes(continuous=True), st.none() | st.integers(2, 40), st.floats(0.01, 1))
def test_levels_and_eps_make_no_other_process(sde, levels, share):
    other = again(sde, levels=levels, eps=sde.eps + (sde.T - sde.eps) * share * 0.9)
    assert sde.same_process(other)
    assert other.same_process(sde)


@given(sdes(continuous=True))
def test_a_process_by_drift_and_diffusion_is_the_same(sde):
    if float(sde.alpha(torch.tensor(0.0, dtype=torch.float64))) != 1:
        return  # an ItoSDE begins with the data
    start = float(sde.sigma(torch.tensor(0.0, dtype=torch.float64)))
    twin = Twin(base=sde, sigma0=start, T=sde.T, eps=sde.eps)
    assert sde.same_process(twin)
    assert twin.same_process(sde)


@given(sdes(), sdes())
def test_being_the_same_process_is_symmetric_and_means_the_same_transitions(one, other):
    assert one.same_process(other) == other.same_process(one)
    if one.same_process(other):
        t = torch.linspace(max(one.eps, other.eps), one.T, 5, dtype=torch.float64)
        close(one.sigma(t), other.sigma(t), 1e-5)


@given(st.data(), st.sampled_from([-1e-3, 1e-3]))
def test_other_parameters_are_another_process(data, change):
    sde = data.draw(sdes())
    names = [f.name for f in fields(sde) if f.init and f.name not in ("eps", "levels")]
    name = data.draw(st.sampled_from(names))
    value = getattr(sde, name)
    if type(value) is tuple:
        value = (*value[:-1], value[-1] * (1 + change))
        if name == "sigmas" and value[-1] <= value[-2]:
            return
        if name == "betas" and value[-1] * math.prod(1 - b for b in value[:-1]) < 1e-2:
            return  # too small to change the variance
    elif (sde.T + 1e-3 >= 1 and name == "T") or value < 1e-2:
        return  # cosine and flow end before 1, and a parameter may be too small to matter
    else:
        value *= 1 + change
    other = replace(sde, **{name: value})
    assert not sde.same_process(other)
    assert not other.same_process(sde)


def test_two_processes_that_meet_at_one_level_are_not_the_same():
    """At T alone they agree, and at the first level of one of them, where the other is not used."""
    one, other = VESDE(0.01, 50.0, levels=2), VESDE(0.02, 50.0, eps=0.5)
    assert not one.same_process(other)
    assert not other.same_process(one)


def test_processes_with_infinities_or_tensors_are_compared_too():
    @dataclass(frozen=True, eq=False)
    class Table(SDE):
        scales: Tensor

        def alpha(self, t):
            return self.scales[0] / (1 - t)

        def sigma(self, t):
            return self.scales[1] * t / (1 - t) ** 2

    one, same, other = (Table(torch.tensor([1.0, s]).double()) for s in (2.0, 2.0, 3.0))
    assert one.same_process(same)
    assert not one.same_process(other)


@pytest.mark.filterwarnings("ignore:the data have a standard deviation")
@pytest.mark.slow
@given(log_floats(1e-3, 1), log_floats(10, 1e4), st.integers(8, 40))
def test_a_score_of_ve_with_levels_serves_the_equal_ladder(low, ratio, levels):
    ve = VESDE(low, low * ratio, levels=levels)
    ladder = NCSNLadder.geometric(low, low * ratio, levels)
    score = Gaussian(torch.tensor([1.0, -1.0], dtype=torch.float64), var=0.5).at(ve)
    assert process_of(score, ladder) is ladder
    kwargs = dict(n=3, seed=0, dtype=torch.float64)
    ours, theirs = (sample(score, sde, "ancestral", **kwargs) for sde in (ve, ladder))
    close(ours, theirs, 1e-6, scale=1)


@pytest.mark.parametrize("name", SDES)
def test_another_process_than_the_score_s_own_is_refused_by_name(name):
    sde = SDES[name]
    own = VPSDE(beta_max=15.0)
    score = Gaussian(torch.zeros(2), var=0.5).at(own)
    with pytest.raises(InvalidValueError, match=r"belongs to VPSDE\(.*Rescheduled\(score, sde\)"):
        process_of(score, sde)
    assert process_of(score, None) is own
    assert process_of(score, replace(own, levels=5)) == replace(own, levels=5)
    assert process_of(lambda x, t: -x, sde) is sde


@pytest.mark.parametrize(
    ("alpha", "sigma", "message"),
    [
        (lambda t: torch.ones_like(t), lambda t: 2 - t, "must fall with t"),
        (lambda t: torch.ones_like(t), lambda t: 0.1 + torch.sin(3 * t), "must fall with t"),
        (lambda t: -torch.ones_like(t), lambda t: t, "alpha of Made must be .* but it is -1"),
        (lambda t: t * float("nan"), lambda t: t, "alpha of Made must be .* but it is nan"),
        (torch.ones_like, lambda t: 1e200 * t, r"sigma of Made must be .* but it is .*e\+1"),
        (lambda t: torch.ones_like(t), lambda t: t.numpy(), "must return a floating-point tensor"),
    ],
)
def test_two_functions_that_define_no_process_are_refused_when_the_sde_is_made(
    alpha, sigma, message
):
    class Made(SDE):
        def alpha(self, t):
            return alpha(t)

        def sigma(self, t):
            return sigma(t)

    with pytest.raises(ScoreSDEError, match=message):
        Made()
