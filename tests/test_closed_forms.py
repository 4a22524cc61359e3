"""Test that an SDE is refused if its closed forms disagree with alpha and sigma."""

import re
from dataclasses import dataclass, fields, replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from strategies import SDES, log_floats, sdes
from torch import Tensor

from scoresde.errors import InvalidTypeError, InvalidValueError, ScoreSDEError, ShapeError
from scoresde.sde import EDMSDE, SDE, VESDE, VPSDE, CosineSDE, FlowSDE, Moments, SubVPSDE
from scoresde.sde.closed_forms import METHODS

PAIRS = ("coefficients", "transition", "at", "marginal")


def altered(sde: SDE, **methods) -> SDE:
    """Return the SDE of a subclass with these methods, and the same fields."""
    kind = dataclass(frozen=True)(type("Mine", (type(sde),), methods))
    return kind(**{f.name: getattr(sde, f.name) for f in fields(sde) if f.init})


def off(sde: SDE, name: str, share: float):
    """Return a method of an SDE that is wrong by a share of its value."""
    own = getattr(sde, name)
    factor = 1 + share
    return {
        "coefficients": lambda _, t: (own(t)[0] * factor, own(t)[1] * factor),
        "drift": lambda _, x, t: own(x, t) * factor,
        "diffusion": lambda _, t: own(t) * factor,
        "log_snr": lambda _, t: own(t) + share,
        "time": lambda _, log_snr: own(log_snr) * factor,
        "transition": lambda _, s, t: (own(s, t)[0], own(s, t)[1] * factor),
        "at": lambda _, t, x: (own(t, x)[0], own(t, x)[1] * factor),
        "marginal": lambda _, x0, t: (own(x0, t)[0] * factor, own(x0, t)[1]),
        "perturb": lambda _, x0, t, noise: own(x0, t, noise) * factor,
    }[name]


def assert_refused(name: str, message: str, make) -> None:
    with pytest.raises(InvalidValueError, match=f"^{name} of .*{message}.*override both"):
        make()


@given(sdes(continuous=True), st.sampled_from(METHODS), st.sampled_from([-0.01, 0.01]))
def test_a_method_that_is_off_by_a_hundredth_is_named(sde, name, share):
    if name == "drift" and abs(sde.coefficients(torch.tensor(sde.T / 2))[0]) * sde.T < 1e-6:
        return  # no drift is no drift times anything
    assert_refused(name, "alpha and sigma", lambda: altered(sde, **{name: off(sde, name, share)}))


@pytest.mark.parametrize(
    "grid",
    [
        torch.linspace(0.001, 1, 5, dtype=torch.float64),
        torch.linspace(1, 0.001, 5),
        torch.linspace(1, 0.002, 5, dtype=torch.float64),
        torch.linspace(1, 0.001, 6, dtype=torch.float64),
        torch.full((5,), torch.nan, dtype=torch.float64),
        [1.0, 0.5, 0.2, 0.1, 0.001],
        None,
    ],
)
def test_times_that_do_not_go_down_from_the_end_to_eps_are_refused(grid):
    """Samples on an increasing grid had a thousandth of their standard deviation."""
    with pytest.raises(ScoreSDEError, match=r"^times of Mine must"):
        altered(VPSDE(), times=lambda self, steps=None, *, spacing=None: grid)


def test_decreasing_times_and_a_prior_without_moments_are_accepted():
    def times(self, steps=None, *, spacing=None):
        return torch.logspace(0, -3, steps + 1, dtype=torch.float64).clamp(self.eps, self.T)

    assert altered(VPSDE(), times=times).times(3).shape == (4,)
    with pytest.raises(InvalidTypeError, match="prior of Mine must return Moments"):
        altered(VPSDE(), prior=lambda self, moments=None: None)


@given(sdes(), st.sets(st.sampled_from(METHODS)))
def test_methods_that_agree_may_be_overridden_in_any_number(sde, names):
    twin = altered(sde, **{name: off(sde, name, 1e-9) for name in names})
    assert twin.same_process(sde)


@given(sdes(continuous=True), st.sampled_from(["alpha", "sigma"]))
def test_closed_forms_that_a_subclass_left_behind_are_refused(sde, name):
    own = getattr(sde, name)
    overriding = any(getattr(type(sde), m) is not getattr(SDE, m) for m in METHODS)
    change = {name: lambda _, t: own(t) * torch.exp(-0.05 * t / sde.T)}
    if overriding:
        with pytest.raises(InvalidValueError, match=r"^[a-z_]* of Mine "):
            altered(sde, **change)
    else:
        altered(sde, **change)
    # without any closed form the new process is accepted
    derived = {name: getattr(SDE, name) for name in METHODS}
    assert not altered(sde, **change, **derived).same_process(sde)


def test_half_of_a_change_is_refused_with_both_values():
    @dataclass(frozen=True)
    class Halved(VPSDE):
        def alpha(self, t):
            return super().alpha(t) ** 0.5

    with pytest.raises(InvalidValueError) as caught:
        Halved()
    message = str(caught.value)
    assert message.startswith("coefficients of Halved disagrees with its alpha and sigma")
    own, derived = (
        float(n) for n in re.search("f = (.*), but alpha and sigma give (.*);", message).groups()
    )
    t = float(re.search("at t = (.*) it", message)[1])
    assert own == pytest.approx(-VPSDE().beta(t) / 2, rel=1e-4)
    assert derived == pytest.approx(own / 2, rel=1e-6)


@pytest.mark.parametrize("name", ["beta", "beta_integral"])
def test_a_helper_that_changes_half_of_the_formulas_is_noticed(name):
    own = getattr(VPSDE(), name)
    assert_refused(
        "coefficients", "Mine", lambda: altered(VPSDE(), **{name: lambda _, t: own(t) * 1.1})
    )


def test_the_comparison_comes_after_every_post_init():
    @dataclass(frozen=True)
    class Late(VPSDE):
        pace: float = 1.0

        def __post_init__(self):
            super().__post_init__()
            object.__setattr__(self, "squared", self.pace**2)

        def log_snr(self, t):
            return super().log_snr(t) * self.squared

    assert Late().squared == 1
    assert_refused("log_snr", "Late", lambda: Late(pace=1.1))
    assert_refused("log_snr", "Late", lambda: replace(Late(), pace=1.1))


MODES = [torch.no_grad, torch.inference_mode, torch.enable_grad, lambda: torch.device("meta")]


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("sde", SDES.values(), ids=SDES)
def test_sdes_are_made_in_every_mode_of_torch(sde, mode):
    with mode():
        again = replace(sde)
        t = torch.tensor([sde.T / 2], device="cpu")
        f, g2 = SDE.coefficients(again, t)
    assert again == sde
    assert torch.equal(f, SDE.coefficients(sde, t)[0])
    assert torch.equal(g2, SDE.coefficients(sde, t)[1])


@pytest.mark.parametrize(
    "make",
    [
        lambda: VESDE(1e-30, 1e30),
        lambda: VESDE(1e3, 1e8, T=80.0),
        lambda: VESDE(0.5, 0.5 * (1 + 1e-9)),
        lambda: VPSDE(0.1, 5000.0),
        lambda: VPSDE(1e-9, 1e-9),
        lambda: SubVPSDE(1e-9, 1e4),
        lambda: EDMSDE(T=1e9, eps=1e-9),
        lambda: CosineSDE(T=1 - 1e-12),
        lambda: FlowSDE(T=1 - 1e-12),
        *(lambda sde=sde: replace(sde, eps=0.0) for sde in SDES.values()),
        *(lambda sde=sde: replace(sde, eps=1e-12) for sde in SDES.values() if sde.eps),
        *(lambda sde=sde: replace(sde, eps=0.999 * sde.T) for sde in SDES.values() if sde.eps),
    ],
)
def test_extreme_numbers_are_no_disagreement(make):
    make()


@given(st.floats(1e-4, 3), st.floats(0.5, 2))
def test_a_sigma_that_cancels_is_no_disagreement(rate, power):
    """With sigma^2 = 1 - alpha^2 computed as it is written, beside forms that do not cancel."""

    class Written(SDE):
        def alpha(self, t):
            return torch.exp(-rate * t**power)

        def sigma(self, t):
            return (1 - self.alpha(t) ** 2).sqrt()

        def log_snr(self, t):
            return -torch.log(torch.expm1(2 * rate * t**power))

        def time(self, log_snr):
            return (torch.log1p(torch.exp(-log_snr)) / 2 / rate) ** (1 / power)

        def coefficients(self, t):
            slope = rate * power * t ** (power - 1)
            return -slope, 2 * slope

    for eps in (1e-3, 1e-5, 0.0):
        Written(eps=eps)


class Tabled(SDE):
    """Define a kernel by numpy, which autograd cannot differentiate."""

    def alpha(self, t: Tensor) -> Tensor:
        return torch.from_numpy(np.asarray(np.exp(-t.detach().numpy())))

    def sigma(self, t: Tensor) -> Tensor:
        return torch.from_numpy(np.asarray(np.sqrt(-np.expm1(-2 * t.detach().numpy()))))


def test_a_kernel_that_autograd_cannot_differentiate_is_reported_where_it_is_needed():
    with pytest.raises(InvalidValueError, match=r"cannot differentiate alpha .* override coeff"):
        Tabled().diffusion(0.5)
    assert Tabled().transition(0.2, 0.7)[1] > 0


@pytest.mark.parametrize("name", METHODS[1:])
def test_a_kernel_that_autograd_cannot_differentiate_is_compared_as_far_as_possible(name):
    closed = lambda _, t: (-torch.ones_like(t), 2 * torch.ones_like(t))  # noqa: E731
    sde = altered(Tabled(), coefficients=closed)
    assert float(sde.diffusion(0.5)) == pytest.approx(2**0.5)
    assert_refused(name, "Mine", lambda: altered(sde, **{name: off(sde, name, 0.01)}))


@pytest.mark.parametrize("name", ["alpha", "sigma", *METHODS])
def test_values_of_another_shape_are_named(name):
    short = lambda _, *times: (1.0, 1.0) if name in PAIRS else 1.0  # noqa: E731
    with pytest.raises(ShapeError, match=rf"^{name} of Mine must return a tensor .* \(7,\), got"):
        altered(VPSDE(), **{name: short})


@pytest.mark.parametrize("name", PAIRS)
def test_methods_with_two_results_must_return_two(name):
    with pytest.raises(ShapeError, match=f"^{name} of Mine must return two tensors"):
        altered(VPSDE(), **{name: lambda _, *times: times[0]})


@given(sdes(), log_floats(1e-3, 1e3))
def test_an_overridden_prior_must_be_that_of_data_of_some_variance(sde, std):
    """N(0, 1) for a VESDE of sigma up to 50, say, starts every sample elsewhere."""
    end = torch.tensor(sde.T, dtype=torch.float64)
    alpha, sigma = float(sde.alpha(end)), float(sde.sigma(end))
    var = (std**2 - sigma**2) / alpha**2
    if -1e-9 < var * alpha**2 / sigma**2 < 1e-5 or 0.99e4 < var < 1.01e4:
        return
    change = dict(prior_std=property(lambda _: std))
    if 0 < var < 1e4:
        assert float(altered(sde, **change).prior().var) == pytest.approx(std**2)
    else:
        with pytest.raises(InvalidValueError, match="prior_std of Mine is not the std of any"):
            altered(sde, **change)


@pytest.mark.parametrize("sde", SDES.values(), ids=SDES)
def test_a_prior_that_disagrees_is_named(sde):
    def shifted(self, moments=None):
        found = SDE.prior(self, moments)
        return Moments(found.mean + 1, var=found.var)

    def wide(self, moments=None):
        found = SDE.prior(self, moments)
        return Moments(found.mean, var=1.01 * found.var)

    for prior in (shifted, wide):
        with pytest.raises(InvalidValueError, match="prior of Mine disagrees with its alpha"):
            altered(sde, prior=prior)
    altered(sde, prior=lambda self, moments=None: SDE.prior(self, moments))


def test_a_ratio_that_rises_keeps_its_own_message():
    @dataclass(frozen=True)
    class Rising(SDE):
        def alpha(self, t):
            return torch.ones_like(t)

        def sigma(self, t):
            return 2 - t

        def transition(self, s, t):
            return super().transition(s, t)

    with pytest.raises(InvalidValueError, match=r"signal-to-noise ratio .* must fall with t"):
        Rising()
