"""Test every SDE, including a user's: the kernel at any time and shape, and bad inputs."""

import doctest
import importlib
import inspect
import itertools
import json
import math
import pkgutil
from dataclasses import asdict, dataclass, fields, replace

import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from strategies import (
    KINDS,
    SDES,
    UserSDE,
    dtypes,
    generators,
    made,
    sdes,
    shapes,
    times_of,
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
    BrownianBridgeSDE,
    CosineSDE,
    FlowSDE,
    LogNormal,
    SubVPSDE,
    expand,
)

every_sde = pytest.mark.parametrize("sde", SDES.values(), ids=SDES)


@dataclass(frozen=True)
class Shrinking(SDE):
    """No diffusion at all: its noise falls with time."""

    pace: float = 1.0

    def alpha(self, t: Tensor) -> Tensor:
        return torch.ones_like(t)

    def sigma(self, t: Tensor) -> Tensor:
        return 2 - self.pace * t


def close(a: Tensor, b: Tensor, rel: float, scale: float = 0.0) -> None:
    assert_close(a, b, rtol=rel, atol=rel * scale)


every_kind = pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)


def test_every_exported_sde_is_a_row_of_the_table_and_goes_through_the_protocol():
    exported = (getattr(scoresde.sde, name) for name in scoresde.sde.__all__)
    exported = {kind for kind in exported if isinstance(kind, type) and issubclass(kind, SDE)}
    rows = {kind for kind in exported if not inspect.isabstract(kind)}
    assert rows <= set(KINDS.values()) == {type(sde) for sde in SDES.values()} - {UserSDE}
    assert all(name == kind.__name__ for name, kind in KINDS.items())


@every_kind
def test_a_vanishing_signal_is_at_T_between_a_75th_and_a_thousandth_of_the_noise(kind):
    sde = made(kind)
    end = torch.tensor(sde.T, dtype=torch.float64)
    if sde.alpha(end) < 0.5:
        assert 75 <= sde.sigma(end) / sde.alpha(end) <= 1000
    else:
        assert sde.alpha(end) == 1


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
        assert 0.005 < ratio < 0.02
    end = torch.tensor(sde.T, dtype=torch.float64)
    assert sde.sigma(end) <= 1000 * sde.alpha(end)


@pytest.mark.slow
@every_sde
@given(shape=st.lists(st.integers(0, 4), max_size=3).map(tuple), double=st.booleans())
@example(shape=(), double=True)
@example(shape=(0,), double=False)
def test_functions_of_time_keep_any_shape(sde, shape, double):
    dtype = torch.float64 if double else torch.float32
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
    if sde.levels is None:
        for single, double in zip(sde.coefficients(t), sde.coefficients(t.double()), strict=True):
            # what float32 cannot hold is zero
            close(single.double(), double, 1e-5, scale=1e-30)


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


@pytest.mark.law(4)
@given(st.data())
def test_the_signal_to_noise_ratio_decreases(data):
    sde = data.draw(sdes())
    u = torch.rand(64, generator=data.draw(generators()), dtype=torch.float64).sort().values
    # from 0, where there may be no noise at all, and no two times nearer than 1e-4
    t = sde.T * (u * (1 - 63e-4) + torch.arange(64) * 1e-4).clamp(max=1)
    for times in (t, torch.cat([t.new_zeros(1), t[1:]])):
        snr = (sde.alpha(times) / sde.sigma(times)) ** 2
        assert (snr.diff() < 0).all()
        assert (sde.log_snr(times).diff() < 0).all()
        assert (sde.log_snr(times.float()).diff() <= 0).all()
    close(sde.log_snr(t), 2 * (sde.alpha(t).log() - sde.sigma(t).log()), 1e-10, scale=10)


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
    # also below eps, where the kernel is defined too
    t = torch.linspace(sde.eps / 8, sde.T, 33, dtype=torch.float64)
    log_snr = sde.log_snr(t)
    close(sde.time(log_snr), t, 1e-9, scale=sde.T)
    close(sde.log_snr(sde.time(log_snr)), log_snr, 1e-9, scale=10)
    close(SDE.time(sde, log_snr), t, 1e-9, scale=sde.T)


@pytest.mark.slow
@pytest.mark.law(9)
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


@every_sde
def test_words_and_booleans_are_refused_as_numbers(sde):
    numbers = [field.name for field in fields(sde) if field.init and field.type in ("float", float)]
    for name, wrong in itertools.product(numbers, [True, False, "1", "a", None]):
        with pytest.raises(InvalidTypeError, match=f"{name} of .* got {wrong!r}"):
            replace(sde, **{name: wrong})


def test_a_value_is_quoted_with_two_hundred_characters():
    with pytest.raises(InvalidTypeError) as caught:
        VESDE("a" * 10_000)
    assert len(str(caught.value)) < 300


MODULES = [m.name for m in pkgutil.iter_modules(scoresde.sde.__path__, "scoresde.sde.")]


@pytest.mark.slow
@pytest.mark.parametrize("name", MODULES)
def test_the_examples_of_the_docstrings_run(name):
    module = importlib.import_module(name)
    assert doctest.testmod(module).failed == 0
    for public in set(getattr(module, "__all__", ())) & set(scoresde.sde.__all__):
        kind = getattr(module, public)
        if isinstance(kind, type):
            assert ">>> " in kind.__doc__.partition("Examples:")[2], kind


BAD = {
    "ve reversed": (lambda: VESDE(1.0, 0.5), "sigma_min = 1.0, sigma_max = 0.5"),
    "ve constant": (lambda: VESDE(1.0, 1.0), "sigma_min = 1.0, sigma_max = 1.0"),
    "ve zero": (lambda: VESDE(0.0, 1.0), "need 0 < sigma_min < sigma_max.*sigma_min = 0.0"),
    "ve negative": (lambda: VESDE(-1.0, 1.0), "need 0 < sigma_min < sigma_max.*sigma_min = -1.0"),
    "ve nan": (lambda: VESDE(math.nan, 1.0), "sigma_min must be finite, got nan"),
    "ve infinite": (lambda: VESDE(0.1, math.inf), "sigma_max must be finite, got inf"),
    "vp reversed": (lambda: VPSDE(2.0, 1.0), "beta_min = 2.0, beta_max = 1.0"),
    "vp zero": (lambda: VPSDE(0.0, 1.0), "beta_min must be > 0.*beta_min = 0.0"),
    "sub-vp negative": (lambda: SubVPSDE(-1.0, 1.0), "beta_min = -1.0"),
    "cosine to the end": (lambda: CosineSDE(T=1.0), "T < 1, where alpha is positive; got 1.0"),
    "bridge to the end": (lambda: BrownianBridgeSDE(s=0.05), "scale the data so that s is at"),
    "flow to the end": (lambda: FlowSDE(T=1.5), "T < 1, where alpha is positive; got 1.5"),
    "eps negative": (lambda: VPSDE(eps=-0.1), "0 <= eps < T, got eps = -0.1, T = 1.0"),
    "eps after T": (lambda: EDMSDE(T=1.0, eps=2.0), "0 <= eps < T, got eps = 2.0, T = 1.0"),
    "eps nan": (lambda: UserSDE(eps=math.nan), "eps must be finite, got nan"),
    "one level": (lambda: VPSDE(levels=1), "levels must be an integer >= 2, got 1"),
    "law without width": (lambda: LogNormal(std=0.0), "must be positive and finite, got 0.0"),
    "time nan": (lambda: VPSDE().diffusion(math.nan), r"time must lie in \[0, 1.0\], got nan"),
    "time before": (lambda: VPSDE().transition(-0.1, 0.5), r"lie in \[0, 1.0\], got -0.1"),
    "time just after": (lambda: VPSDE().diffusion(1.00001), r"lie in \[0, 1.0\], got 1.0000"),
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
    "a pole": (lambda: UserSDE(decay=-1.0).diffusion(1.0), "signal-to-noise"),
    "falling noise": (lambda: Shrinking().diffusion(0.5), "signal-to-noise"),
    "falling noise in a transition": (lambda: Shrinking().transition(0.2, 0.5), "signal-to-noise"),
    "slowly falling noise": (lambda: Shrinking(pace=1e-6).diffusion(0.5), "signal-to-noise"),
    "slowly falling noise in a transition": (
        lambda: Shrinking(pace=1e-6).transition(0.2, 0.5),
        "signal-to-noise",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_impossible_values_are_named(name):
    call, message = BAD[name]
    with pytest.raises(ScoreSDEError, match=message) as caught:
        call()
    assert isinstance(caught.value, (ValueError, TypeError))


def test_a_fractional_number_of_levels_is_refused():
    with pytest.raises(InvalidTypeError, match="levels of VPSDE must be an integer or None"):
        VPSDE(levels=2.5)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int64, torch.bool])
def test_integer_states_are_refused(dtype):
    """Coefficients cast to the dtype of an integer state would be zeros."""
    x = torch.ones(2, 3, dtype=dtype)
    with pytest.raises(
        InvalidTypeError, match=r"floating point.*x.float\(\) / 127.5 - 1"
    ) as caught:
        VPSDE().marginal(x, 0.5)
    assert isinstance(caught.value, TypeError)
    assert str(dtype) in str(caught.value)
    with pytest.raises(InvalidTypeError, match="floating point"):
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
