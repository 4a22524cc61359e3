"""Test that an SDE given by drift and diffusion equals the SDE given by its kernel."""

import math
from dataclasses import dataclass

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from strategies import SDES, log_floats, sdes, times_of
from torch import Tensor
from torch.testing import assert_close

from scoresde import SAMPLERS, ItoSDE, sample
from scoresde.errors import InvalidTypeError, InvalidValueError, ShapeError
from scoresde.sde import SDE, VESDE, VPSDE
from scoresde.targets import Gaussian


@dataclass(frozen=True, kw_only=True)
class Twin(ItoSDE):
    """Define the coefficients of another SDE, and nothing else of it."""

    base: SDE

    def coefficients(self, t: Tensor) -> tuple[Tensor, Tensor]:
        return self.base.coefficients(t)


def begins_with_the_data(sde: SDE) -> bool:
    """Return True if alpha is 1 at time 0, as it is for every `ItoSDE`."""
    return bool(sde.alpha(torch.tensor(0.0, dtype=torch.float64)) == 1)


def twin(base: SDE) -> Twin:
    start = float(base.sigma(torch.tensor(0.0, dtype=torch.float64)))
    return Twin(base=base, sigma0=start, T=base.T, eps=base.eps, levels=base.levels)


def given_by(f, g2, **fields) -> ItoSDE:
    """Return the SDE of two functions of time."""

    class Given(ItoSDE):
        def coefficients(self, t):
            return f(t) + 0 * t, g2(t) + 0 * t

    return Given(**fields)


def close(a: Tensor, b: Tensor, rel: float) -> None:
    assert_close(a, b, rtol=rel, atol=0)


@pytest.mark.slow
@pytest.mark.law(77)
@given(st.data())
def test_the_kernel_of_a_drift_and_diffusion_is_the_closed_one(data):
    base = data.draw(sdes(continuous=True).filter(begins_with_the_data))
    sde = twin(base)
    even = torch.linspace(base.eps, base.T, 50, dtype=torch.float64)
    t = torch.cat([even, data.draw(times_of(base, 9)), base.T - even * 1e-6])
    close(sde.alpha(t), base.alpha(t), 1e-10)
    close(sde.sigma(t), base.sigma(t), 1e-10)
    assert_close(sde.log_snr(t), base.log_snr(t), rtol=1e-10, atol=1e-10)
    assert sde.same_process(base)
    assert base.same_process(sde)


@pytest.mark.slow
@given(st.data())
def test_the_transitions_are_the_closed_ones(data):
    base = data.draw(sdes(continuous=True))
    s, t = data.draw(times_of(base, 2, gap=0.02))
    for ours, theirs in zip(twin(base).transition(s, t), base.transition(s, t), strict=True):
        close(ours, theirs, 1e-8)


@pytest.mark.parametrize("shape", [(), (1,), (5,), (3, 1), (2, 3, 4), (0,), (10_000,)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_functions_of_time_keep_any_shape(shape, dtype):
    sde, base = twin(VPSDE()), VPSDE()
    t = torch.linspace(base.eps, base.T, max(1, math.prod(shape)), dtype=dtype)
    t = t[: math.prod(shape)].reshape(shape)
    for name in ("alpha", "sigma", "log_snr"):
        own = getattr(sde, name)(t)
        assert (own.shape, own.dtype, own.requires_grad) == (shape, dtype, False)
        if shape:
            alone = torch.stack([getattr(sde, name)(one) for one in t.flatten()[:20]] or [own])
            assert torch.equal(own.flatten()[:20], alone.flatten())
        assert_close(own, getattr(base, name)(t), rtol=1e-5, atol=1e-5)


@pytest.mark.slow
@given(st.data())
def test_the_kernel_is_differentiable_more_than_once(data):
    base = data.draw(sdes(continuous=True).filter(begins_with_the_data))
    if type(base).coefficients is SDE.coefficients:
        return  # whose coefficients are not differentiable
    t = data.draw(times_of(base)).requires_grad_()
    for name in ("alpha", "sigma"):
        ours, theirs = (getattr(sde, name)(t) + 0 * t for sde in (twin(base), base))
        for _ in range(2):
            (ours,) = torch.autograd.grad(ours, t, create_graph=True)
            (theirs,) = torch.autograd.grad(theirs, t, create_graph=True)
            scale = float(theirs.detach().abs()) + 1 / base.T**2
            assert_close(ours, theirs, rtol=1e-8, atol=1e-8 * scale)
            ours, theirs = ours + 0 * t, theirs + 0 * t


@pytest.mark.parametrize(
    "mode", [torch.no_grad, torch.inference_mode, lambda: torch.device("meta")]
)
def test_panels_that_were_made_in_any_mode_serve_training_too(mode):
    with mode():
        sde = Twin(base=VPSDE())
        sde.sigma(torch.tensor(0.5, device="cpu"))
    t = torch.tensor(0.5, dtype=torch.float64, requires_grad=True)
    sde.sigma(t).backward()
    assert t.grad > 0


@pytest.mark.slow
@given(log_floats(0.01, 10), st.floats(0.05, 0.9), log_floats(0.1, 80))
def test_coefficients_that_are_infinite_at_0_are_integrated_where_that_can_be(rate, power, T):
    """f = -c t^(p - 1) and g^2 = -2 f: alpha = exp(-c t^p / p), variance preserving."""
    rate, size = rate / T**power, lambda t: rate * t ** (power - 1)
    sde = given_by(lambda t: -size(t), lambda t: 2 * size(t), T=T, eps=1e-3 * T)
    t = torch.linspace(sde.eps, T, 40, dtype=torch.float64)
    clock = rate * t**power / power
    close(sde.alpha(t), torch.exp(-clock), 1e-10)
    close(sde.sigma(t), (-torch.expm1(-2 * clock)).sqrt(), 1e-10)


@pytest.mark.slow
@given(st.floats(0.01, 0.99), *[st.integers(-60, 20).map(lambda n: n / 3)] * 2, st.floats(0, 2))
def test_coefficients_may_jump(where, before, after, start):
    def f(t):
        return torch.where(t < where, t.new_tensor(before), t.new_tensor(after))

    sde = given_by(f, lambda t: 1.0, sigma0=start)
    t = torch.linspace(0.02, 1, 33, dtype=torch.float64)
    log_alpha = before * t.clamp(max=where) + after * (t - where).clamp(min=0)
    assert_close(sde.alpha(t), torch.exp(log_alpha), rtol=1e-10, atol=0)

    def grown(rate, span):
        return span if rate == 0 else math.expm1(2 * rate * span) / (2 * rate)

    at_jump = math.exp(2 * before * where) * start**2 + grown(before, where)
    for time, sigma in zip(t.tolist(), sde.sigma(t).tolist(), strict=True):
        if time < where:
            variance = math.exp(2 * before * time) * start**2 + grown(before, time)
        else:
            variance = math.exp(2 * after * (time - where)) * at_jump + grown(after, time - where)
        assert sigma**2 == pytest.approx(variance, rel=1e-9)


SINGULAR = {
    "diffusion at 0": (lambda t: 0.0, lambda t: 1 / t, {}, r"g\^2 / alpha\^2 .* t = 0:"),
    "steep at 0": (lambda t: 0.0, lambda t: t**-2.5, {}, r"g\^2 / alpha\^2 .* t = 0:"),
    "drift at 0": (lambda t: -1 / t, lambda t: 1.0, {}, "f of Given .* t = 0:"),
    "drift at T": (lambda t: -1 / (1 - t), lambda t: 2 * t, {}, "f of Given .* t = 1:"),
    "diffusion at T": (
        lambda t: 0.0,
        lambda t: 1 / (2 - t),
        dict(T=2.0),
        r"g\^2 / alpha\^2 .* t = 2:",
    ),
    "drift inside": (lambda t: -1 / (t - 0.3).abs(), lambda t: 1.0, {}, "f of Given .* t = 0.3:"),
    "diffusion inside": (
        lambda t: 0.0,
        lambda t: (t - 0.7) ** -2,
        {},
        r"g\^2 / alpha\^2 .* t = 0.7:",
    ),
    "nan": (lambda t: (t - 0.25).sqrt(), lambda t: 1.0, {}, "f of Given cannot be integrated"),
    "noise": (lambda t: torch.sin(1e9 * t), lambda t: 1.0, {}, "not smooth"),
    "negative": (lambda t: 0.0, lambda t: 0.5 - t, {}, r"g\^2 of Given is negative at t = 0\.5"),
    "start": (
        lambda t: 0.0,
        lambda t: t,
        dict(sigma0=-1.0),
        "sigma0 must be finite and >= 0, got -1",
    ),
    "infinite start": (lambda t: 0.0, lambda t: t, dict(sigma0=math.inf), "sigma0 must be finite"),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", SINGULAR)
def test_what_cannot_be_integrated_is_named_with_its_time(name):
    f, g2, fields, message = SINGULAR[name]
    with pytest.raises(InvalidValueError, match=message):
        given_by(f, g2, **fields)


@pytest.mark.parametrize("value", [1.0, (0.0, 1.0), (torch.zeros(3),)])
def test_coefficients_of_another_shape_are_named(value):
    class Wrong(ItoSDE):
        def coefficients(self, t):
            return value

    with pytest.raises(ShapeError, match=r"coefficients of Wrong must return (a|two) tensor"):
        Wrong()


def test_drift_and_diffusion_are_both_required():
    with pytest.raises(TypeError, match="abstract"):
        ItoSDE()
    with pytest.raises(InvalidTypeError, match="sigma0 of Given must be a number"):
        given_by(lambda t: 0.0, lambda t: t, sigma0="a")


def test_a_closed_form_beside_the_coefficients_is_compared_with_them():
    @dataclass(frozen=True, kw_only=True)
    class Half(Twin):
        def alpha(self, t):
            return super().alpha(t) ** 0.5

    with pytest.raises(InvalidValueError, match="coefficients of Half disagrees"):
        Half(base=VPSDE())


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:the samples are .* times as large")
@pytest.mark.parametrize("sampler", ["em", "ancestral", "pc", "dpmpp_2m", "fast", "dopri5"])
@pytest.mark.parametrize("name", ["ve", "vp", "flow", "vp_levels"])
def test_samples_are_those_of_the_closed_process(name, sampler):
    base = SDES[name]
    if base.levels and sampler == "dopri5":
        return  # which asks between the levels
    target = Gaussian(torch.tensor([2.0, -1.0], dtype=torch.float64), var=0.5)
    # the same times to the last digit, by which the noise is addressed
    times = SAMPLERS[sampler].times(base, None if base.levels else 6)
    kwargs = dict(n=3, times=times, seed=0, dtype=torch.float64)
    ours, theirs = (sample(target.at(sde), sde, sampler, **kwargs) for sde in (twin(base), base))
    assert_close(ours, theirs, rtol=1e-6, atol=1e-6)


def test_a_score_of_the_closed_process_serves_the_other():
    target = Gaussian(torch.zeros(2), var=0.5)
    assert sample(target.at(VESDE()), twin(VESDE()), n=2, steps=3, seed=0).isfinite().all()


def test_integers_are_no_coefficients():
    class Rounded(ItoSDE):
        def coefficients(self, t):
            return -t.long(), t.long()

    with pytest.raises(InvalidTypeError, match="floating-point"):
        Rounded()
