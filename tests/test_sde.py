"""Every SDE, ours and a user's: the kernel, the process that follows from it, and bad inputs."""

import json
import math
from dataclasses import asdict, dataclass, fields
from itertools import pairwise

import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from scipy.integrate import solve_ivp
from strategies import (
    SDES,
    UserSDE,
    dtypes,
    generators,
    log_floats,
    sdes,
    shapes,
    times_of,
    ve_sdes,
    vp_sdes,
)
from torch import Tensor
from torch.testing import assert_close

import scoresde.sde
from scoresde.errors import InvalidTypeError, ScoreSDEError, ShapeError
from scoresde.sde import (
    EDMSDE,
    SDE,
    VESDE,
    VPSDE,
    CosineSDE,
    FlowSDE,
    LogNormal,
    SubVPSDE,
    expand,
)

every_sde = pytest.mark.parametrize("sde", SDES.values(), ids=SDES)


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
    """The process x_t / alpha_t of `base`, which is variance exploding."""

    base: SDE

    def alpha(self, t: Tensor) -> Tensor:
        return torch.ones_like(t)

    def sigma(self, t: Tensor) -> Tensor:
        return self.base.sigma(t) / self.base.alpha(t)


@dataclass(frozen=True)
class Shrinking(SDE):
    """No diffusion at all: its noise falls with time."""

    def alpha(self, t: Tensor) -> Tensor:
        return torch.ones_like(t)

    def sigma(self, t: Tensor) -> Tensor:
        return 2 - t


def close(a: Tensor, b: Tensor, rel: float, scale: float = 0.0) -> None:
    assert_close(a, b, rtol=rel, atol=rel * scale)


def test_every_exported_sde_goes_through_the_protocol():
    exported = (getattr(scoresde.sde, name) for name in scoresde.sde.__all__)
    exported = {kind for kind in exported if isinstance(kind, type) and issubclass(kind, SDE)}
    assert exported - {SDE} == {type(sde) for sde in SDES.values()} - {UserSDE}


@every_sde
def test_fields_survive_json(sde):
    stored = json.loads(json.dumps(asdict(sde)))
    again = type(sde)(**{f.name: stored[f.name] for f in fields(sde) if f.init})
    assert again == sde
    assert hash(again) == hash(sde)
    assert asdict(again) == asdict(sde)


@every_sde
def test_noise_to_signal_at_eps_is_about_a_hundredth(sde):
    if sde.levels is None and not isinstance(sde, UserSDE | EDMSDE):
        ratio = torch.exp(-sde.log_snr(torch.tensor(sde.eps, dtype=torch.float64)) / 2)
        assert 0.009 < ratio < 0.011
    assert sde.alpha(torch.tensor(sde.T, dtype=torch.float64)) >= 1e-3


@every_sde
@pytest.mark.parametrize("shape", [(), (1,), (5,), (3, 1), (2, 3, 4), (0,)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_functions_of_time_keep_any_shape(sde, shape, dtype):
    t = torch.linspace(sde.eps, sde.T, max(1, math.prod(shape)), dtype=dtype)
    t = t[: math.prod(shape)].reshape(shape)
    before = t.clone()
    f, g2 = sde.coefficients(t)
    for value in (sde.alpha(t), sde.sigma(t), sde.log_snr(t), f, g2):
        assert value.shape == shape
        assert value.dtype == dtype
        assert value.isfinite().all()
        assert not value.requires_grad
    assert (sde.alpha(t) > 0).all()
    assert (sde.sigma(t) > 0).all()
    assert sde.time(sde.log_snr(t)).shape == shape
    assert torch.equal(t, before)


@given(st.data())
def test_sigma_returns_no_alias_of_its_argument(data):
    sde = data.draw(sdes())
    t = data.draw(times_of(sde, 3))
    before = t.clone()
    sde.sigma(t).add_(1)
    sde.alpha(t).add_(1)
    assert torch.equal(t, before)


@given(st.data())
def test_schedules_in_float32_keep_their_relative_precision(data):
    sde = data.draw(sdes())
    t = data.draw(times_of(sde, 8)).float()
    for function in (sde.alpha, sde.sigma):
        close(function(t).double(), function(t.double()), 1e-5)


@pytest.mark.parametrize("sde", [VPSDE(), SubVPSDE()])
@pytest.mark.parametrize("t", [1e-5, 1e-4, 1e-3])
def test_the_variance_of_vp_does_not_cancel_near_zero(sde, t):
    b = VPSDE().beta_integral(torch.tensor(t, dtype=torch.float64))
    std = b.mul(-1).expm1().neg()
    std = std if type(sde) is SubVPSDE else std.sqrt()
    close(sde.sigma(torch.tensor(t, dtype=torch.float32)).double(), std, 1e-6)
    # the series of 1 - exp(-B), good to B^4
    series = b - b**2 / 2 + b**3 / 6
    series = series if type(sde) is SubVPSDE else series.sqrt()
    close(sde.sigma(torch.tensor(t, dtype=torch.float64)), series, 1e-10)


@given(st.data())
def test_the_signal_to_noise_ratio_decreases(data):
    sde = data.draw(sdes())
    t = data.draw(times_of(sde, 16))
    snr = (sde.alpha(t) / sde.sigma(t)) ** 2
    assert (snr.diff() < 0).all()
    assert (sde.log_snr(t).diff() < 0).all()
    assert (sde.log_snr(t.float()).diff() <= 0).all()
    close(sde.log_snr(t), snr.log(), 1e-10, scale=10)


@given(st.data())
@example(data=None)
def test_closed_coefficients_equal_the_derived_ones(data):
    drawn = list(SDES.values()) if data is None else [data.draw(sdes())]
    for sde in drawn:
        t = torch.tensor([sde.T / 3, sde.T]) if data is None else data.draw(times_of(sde, 4))
        f, g2 = sde.coefficients(t.double())
        derived_f, derived_g2 = SDE.coefficients(sde, t.double())
        close(f, derived_f, 1e-9, scale=1e-3 / sde.T)
        close(g2, derived_g2, 1e-9)


@given(st.data())
def test_drift_and_diffusion_are_the_coefficients(data):
    sde, (size, *event) = data.draw(sdes()), data.draw(shapes())
    t = data.draw(times_of(sde, size, gap=0))
    x = torch.randn(size, *event, generator=data.draw(generators()), dtype=torch.float64)
    f, g2 = sde.coefficients(t)
    close(sde.drift(x, t), f.reshape(-1, *(1 for _ in event)) * x, 1e-12)
    close(sde.diffusion(t) ** 2, g2, 1e-12)
    assert sde.diffusion(t).shape == t.shape


@given(sdes())
def test_log_snr_and_time_are_inverse_of_each_other(sde):
    t = torch.linspace(sde.eps, sde.T, 33, dtype=torch.float64)
    log_snr = sde.log_snr(t)
    close(sde.time(log_snr), t, 1e-9, scale=sde.T)
    close(sde.log_snr(sde.time(log_snr)), log_snr, 1e-9, scale=10)
    close(SDE.time(sde, log_snr), t, 1e-9, scale=sde.T)


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


@given(st.data())
def test_transition_composes_over_intermediate_times(data):
    sde = data.draw(sdes())
    s, u, t = data.draw(times_of(sde, 3, gap=0.02))
    (a, v), (b, w), (c, y) = sde.transition(s, t), sde.transition(s, u), sde.transition(u, t)
    close(a, b * c, 1e-12)
    close(v, c**2 * w + y, 1e-12)


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


@given(st.data())
def test_time_broadcasts_over_any_rank_of_data(data):
    sde, shape, dtype = data.draw(sdes()), data.draw(shapes()), data.draw(dtypes())
    generator = data.draw(generators())
    x, z = (torch.randn(shape, generator=generator, dtype=dtype) for _ in "xz")
    t = data.draw(times_of(sde))
    batch = t.expand(shape[0])
    for form in (float(t), t, t.reshape(1), batch, batch.clone()):
        for ours, one in (
            (sde.perturb(x, form, z), sde.perturb(x, batch, z)),
            (sde.drift(x, form), sde.drift(x, batch)),
            (sde.marginal(x, form)[0], sde.marginal(x, batch)[0]),
            (sde.marginal(x, form)[1].expand(shape), sde.marginal(x, batch)[1].expand(shape)),
        ):
            assert ours.shape == shape
            assert ours.dtype == dtype
            assert torch.equal(ours, one)


@given(st.data())
def test_each_sample_is_perturbed_at_its_own_time(data):
    sde, shape = data.draw(sdes()), data.draw(shapes())
    generator = data.draw(generators())
    x, z = (torch.randn(shape, generator=generator, dtype=torch.float64) for _ in "xz")
    t = data.draw(times_of(sde, shape[0], gap=0))[torch.randperm(shape[0], generator=generator)]
    together = sde.perturb(x, t, z)
    for i in range(shape[0]):
        close(together[i], sde.alpha(t[i]) * x[i] + sde.sigma(t[i]) * z[i], 1e-14, scale=1)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@every_sde
def test_half_precision_states_stay_half_and_finite(sde, dtype):
    x = torch.ones(2, 3, dtype=dtype)
    t = torch.tensor([sde.eps, sde.T], dtype=torch.float64)
    out = sde.perturb(x, t, x)
    assert out.dtype == dtype
    assert out.isfinite().all()
    assert sde.drift(x, t).dtype == dtype


@given(st.data())
def test_sub_vp_has_the_mean_of_vp_and_its_variance_squared(data):
    vp = data.draw(vp_sdes(levels=st.none()))
    sub = SubVPSDE(vp.beta_min, vp.beta_max, T=vp.T, eps=vp.eps)
    t = data.draw(times_of(vp, 5))
    close(sub.alpha(t), vp.alpha(t), 1e-14)
    close(sub.sigma(t) ** 2, vp.sigma(t) ** 4, 1e-12)
    assert (sub.sigma(t) < vp.sigma(t)).all()
    b = vp.beta_min * t + (vp.beta_max - vp.beta_min) * t**2 / 2
    close(
        sub.diffusion(t) ** 2,
        (vp.beta_min + (vp.beta_max - vp.beta_min) * t) * -torch.expm1(-2 * b),
        1e-12,
    )


@given(st.floats(1e-3, 13), st.floats(0, 1))
def test_vp_with_a_constant_rate_decays_exponentially(beta, t):
    sde = VPSDE(beta, beta)
    assert float(sde.alpha(torch.tensor(t, dtype=torch.float64))) == pytest.approx(
        math.exp(-beta * t / 2)
    )
    assert float(sde.diffusion(t)) == pytest.approx(math.sqrt(beta), rel=1e-12)


@given(log_floats(1e-4, 1), log_floats(1e-9, 1e-2), st.floats(0, 1), log_floats(0.1, 10))
def test_ve_without_a_range_of_noise_does_not_diffuse(low, gap, u, T):
    sde = VESDE(low, low * (1 + gap), T=T)
    expected = 2 * math.log(sde.sigma_max / low) / T * low**2 * (1 + gap) ** (2 * u)
    assert float(sde.diffusion(u * T)) ** 2 == pytest.approx(expected, rel=1e-6)


@given(st.floats(0.0, 80.0))
def test_edm_adds_noise_at_the_rate_two_t(t):
    assert float(EDMSDE().diffusion(t)) == pytest.approx(math.sqrt(2 * t), rel=1e-12)


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
    """The exact variance at T of Euler-Maruyama with left points, probed step by step."""
    var = float(sde.sigma(torch.tensor(0.0).double())) ** 2
    h = sde.T / steps
    for i in range(steps):
        t = i * h
        gain = 1 + h * float(sde.drift(torch.ones(1).double(), t))
        var = gain**2 * var + h * float(sde.diffusion(t)) ** 2
    return var


@given(ve_sdes(levels=st.none()))
def test_euler_maruyama_on_ve_is_biased_as_its_left_points_say(sde):
    """Left points add up to 2 L h / (exp(2 L h) - 1) of the variance, L = log(ratio)."""
    rate = math.log(sde.sigma_max / sde.sigma_min)
    x = 2 * rate / 60
    missing = (sde.sigma_max**2 - sde.sigma_min**2) * (1 - x / math.expm1(x))
    ours = euler_maruyama_variance(sde, 60)
    assert ours == pytest.approx(sde.sigma_max**2 - missing, rel=1e-9)


@pytest.mark.parametrize("name", ["vp", "sub_vp", "user"])
def test_the_bias_of_euler_maruyama_is_of_first_order(name):
    sde = SDES[name]
    exact = float(sde.sigma(torch.tensor(sde.T, dtype=torch.float64))) ** 2
    bias = [abs(euler_maruyama_variance(sde, n) - exact) for n in (200, 400, 800)]
    assert 0 < bias[1] < 0.6 * bias[0]
    assert 0 < bias[2] < 0.6 * bias[1]


BAD = {
    "ve reversed": (lambda: VESDE(1.0, 0.5), "sigma_min = 1.0, sigma_max = 0.5"),
    "ve constant": (lambda: VESDE(1.0, 1.0), "sigma_min = 1.0, sigma_max = 1.0"),
    "ve zero": (lambda: VESDE(0.0, 1.0), "sigma_min must be > 0.*sigma_min = 0.0"),
    "ve negative": (lambda: VESDE(-1.0, 1.0), "sigma_min must be > 0.*sigma_min = -1.0"),
    "ve nan": (lambda: VESDE(math.nan, 1.0), "sigma_min must be finite, got nan"),
    "ve infinite": (lambda: VESDE(0.1, math.inf), "sigma_max must be finite, got inf"),
    "vp reversed": (lambda: VPSDE(2.0, 1.0), "beta_min = 2.0, beta_max = 1.0"),
    "vp zero": (lambda: VPSDE(0.0, 1.0), "beta_min must be > 0.*beta_min = 0.0"),
    "sub-vp negative": (lambda: SubVPSDE(-1.0, 1.0), "beta_min = -1.0"),
    "cosine to the end": (lambda: CosineSDE(T=1.0), "T < 1, where alpha is positive; got 1.0"),
    "flow to the end": (lambda: FlowSDE(T=1.5), "T < 1, where alpha is positive; got 1.5"),
    "eps negative": (lambda: VPSDE(eps=-0.1), "0 <= eps < T, got eps = -0.1, T = 1.0"),
    "eps after T": (lambda: EDMSDE(T=1.0, eps=2.0), "0 <= eps < T, got eps = 2.0, T = 1.0"),
    "eps nan": (lambda: UserSDE(eps=math.nan), "eps must be finite, got nan"),
    "one level": (lambda: VPSDE(levels=1), "levels must be an integer >= 2 or None, got 1"),
    "half a level": (lambda: VPSDE(levels=2.5), "levels must be an integer >= 2 or None, got 2.5"),
    "law without width": (lambda: LogNormal(std=0.0), "must be positive, got 0.0"),
    "time nan": (lambda: VPSDE().diffusion(math.nan), r"time must lie in \[0, 1.0\], got nan"),
    "time before": (lambda: VPSDE().transition(-0.1, 0.5), r"lie in \[0, 1.0\], got -0.1"),
    "time after": (lambda: EDMSDE().drift(torch.ones(1), 81.0), r"lie in \[0, 80.0\], got 81.0"),
    "a nan among times": (
        lambda: VPSDE().perturb(torch.ones(2, 3), torch.tensor([0.1, math.nan]), torch.ones(2, 3)),
        r"time must lie in \[0, 1.0\]",
    ),
    "transition backwards": (lambda: VPSDE().transition(0.5, 0.4), "need s <= t, got s = 0.5"),
    "transition backwards by a hair": (
        lambda: VPSDE().transition(0.3 + 1e-12, 0.3),
        "transition goes forward",
    ),
    "three times for two": (
        lambda: VPSDE().marginal(torch.ones(2, 3), torch.full((3,), 0.5)),
        r"shape \(\) or \(B,\) = \(2,\), got \(3,\) for x of shape \(2, 3\)",
    ),
    "a matrix of times": (
        lambda: VPSDE().drift(torch.ones(2, 3), torch.full((2, 1), 0.5)),
        r"got \(2, 1\)",
    ),
    "noise for another": (
        lambda: VESDE().perturb(torch.ones(2, 3), 0.5, torch.ones(2, 1)),
        r"noise must have the shape of x0, \(2, 3\); got \(2, 1\)",
    ),
    "singular": (lambda: UserSDE(decay=-1.0).diffusion(1.0), "singular at t = 1.0"),
    "falling noise": (lambda: Shrinking().diffusion(0.5), "signal-to-noise"),
    "falling noise in a transition": (lambda: Shrinking().transition(0.2, 0.5), "signal-to-noise"),
}


@pytest.mark.parametrize("name", BAD)
def test_impossible_values_are_named(name):
    call, message = BAD[name]
    with pytest.raises(ScoreSDEError, match=message) as caught:
        call()
    assert isinstance(caught.value, ValueError)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int64, torch.bool])
def test_integer_states_are_refused(dtype):
    """Coefficients cast to the dtype of an integer state would be zeros."""
    x = torch.ones(2, 3, dtype=dtype)
    with pytest.raises(
        InvalidTypeError, match=r"floating-point.*x.float\(\) / 127.5 - 1"
    ) as caught:
        VPSDE().marginal(x, 0.5)
    assert isinstance(caught.value, TypeError)
    assert str(dtype) in str(caught.value)
    with pytest.raises(InvalidTypeError, match="floating-point"):
        VPSDE().drift(x, torch.full((2,), 0.5))


def test_a_state_without_a_batch_is_refused():
    with pytest.raises(ShapeError, match=r"\(B, \*\)"):
        VPSDE().marginal(torch.tensor(1.0), torch.tensor([0.5]))


def test_a_time_rounded_up_to_float32_is_the_last_time():
    sde = VPSDE(T=0.7)
    assert float(torch.tensor(0.7)) != 0.7
    assert sde.perturb(torch.ones(1), torch.tensor(0.7), torch.ones(1)).isfinite()
    flow = FlowSDE()
    assert flow.diffusion(torch.tensor(flow.T)) > 0


def test_expand_casts_to_the_state():
    x = torch.ones(2, 3, 4)
    assert expand(torch.tensor([0.5, 0.25], dtype=torch.float64), x).shape == (2, 1, 1)
    assert expand(torch.tensor(0.5, dtype=torch.float64), x).dtype == torch.float32
