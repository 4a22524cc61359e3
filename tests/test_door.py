"""Test the calls of a score by the reverse SDE, and the scores that it refuses."""

import math
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from strategies import (
    SDES,
    Exact,
    dtypes,
    generators,
    sdes,
    shapes,
    times_of,
)
from torch import Tensor
from torch.testing import assert_close

from scoresde.errors import (
    DeviceError,
    InvalidTypeError,
    InvalidValueError,
    NonFiniteError,
    ScoreSDEError,
    ShapeError,
)
from scoresde.sde import VESDE, VPSDE, CosineSDE, FlowSDE, Moments, ReverseSDE


class WithDenoiser(Exact):
    """Define a score with a method `denoise` that is not of its score."""

    def denoise(self, x: Tensor, t: Tensor) -> Tensor:
        raise AssertionError("what the score returns is the truth")


@given(st.data())
def test_the_denoiser_is_tweedies_formula_even_if_the_score_has_such_a_method(data):
    sde, shape = data.draw(sdes()), data.draw(shapes())
    t = data.draw(times_of(sde))
    score = WithDenoiser(sde, 0.3, 0.7)
    rsde = sde.reverse(score)
    x = torch.randn(shape, generator=data.draw(generators()), dtype=torch.float64)
    alpha, sigma = float(sde.alpha(t)), float(sde.sigma(t))
    found = rsde.denoise(x, t)
    assert rsde.nfe == 1
    assert [tuple(t.shape) for t in score.asked] == [shape[:1]]
    assert_close(alpha * found, x + sigma**2 * score(x, t), rtol=1e-12, atol=1e-12)


@given(st.data())
def test_the_score_receives_one_time_for_each_sample(data):
    sde, shape, dtype = data.draw(sdes()), data.draw(shapes()), data.draw(dtypes())
    t = data.draw(times_of(sde))
    x = torch.ones(shape, dtype=dtype)
    batch = t.expand(shape[0])
    outs = []
    for form in (float(t), t, t.reshape(1), batch):
        score = Exact(sde, 0.3, 0.7)
        rsde = sde.reverse(score)
        outs.append((rsde.score(x, form), rsde.drift(x, form), rsde.denoise(x, form)))
        assert rsde.nfe == 3
        for asked in score.asked:
            assert asked.shape == (shape[0],)
            assert asked.dtype == dtype
            assert torch.equal(asked, batch.to(dtype))
        for out in outs[-1]:
            assert out.shape == shape
            assert out.dtype == dtype
    for other in outs[1:]:
        assert all(torch.equal(a, b) for a, b in zip(outs[0], other, strict=True))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_states_have_single_precision_times(dtype):
    score = Exact(VESDE(), 0.0, 1.0)
    rsde = VESDE().reverse(score)
    out = rsde.score(torch.ones(2, 3, dtype=dtype), 0.123456)
    assert out.dtype == dtype
    assert score.asked[0].dtype == torch.float32
    assert score.asked[0][0] == torch.tensor(0.123456)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_states_are_denoised_at_noise_whose_square_it_cannot_hold(dtype):
    """348 squared is infinity in float16."""
    sde = VESDE(0.01, 348.0)
    score = Exact(sde, 0.5, 0.25)
    rsde = sde.reverse(lambda x, t: score(x.double(), t))
    x = 348 * torch.randn(4, 3, generator=torch.Generator().manual_seed(0)).to(dtype)
    half, exact = (rsde.denoise(y, sde.T) for y in (x, x.double()))
    assert half.dtype == dtype
    assert ((half - exact).abs() <= 4 * torch.finfo(dtype).eps * (1 + x.abs().double())).all()


@given(shapes(), st.sampled_from(sorted(SDES)))
def test_an_empty_batch_costs_no_evaluation(shape, name):
    sde = SDES[name]

    def never(x, t):
        raise AssertionError("the network was asked about nothing")

    rsde = sde.reverse(never)
    x = torch.ones(0, *shape[1:])
    for t in (sde.T / 2, torch.full((0,), sde.T / 2)):
        for out in (rsde.score(x, t), rsde.drift(x, t), rsde.denoise(x, t)):
            assert out.shape == x.shape
    assert rsde.nfe == 0


def test_evaluations_are_counted_once_each():
    calls = []
    rsde = VPSDE().reverse(lambda x, t: calls.append(1) or -x)
    x = torch.ones(5, 2)
    for expected, ask in enumerate([rsde.score, rsde.drift, rsde.denoise, rsde.drift], start=1):
        ask(x, 0.5)
        assert rsde.nfe == expected == len(calls)
    rsde.diffusion(0.5)
    assert rsde.nfe == 4
    assert VPSDE().reverse(lambda x, t: -x).nfe == 0


def test_the_reverse_sde_has_its_process_and_moments():
    sde, moments = VESDE(), Moments(0.5, var=2.0)
    rsde = sde.reverse(lambda x, t: -x, moments=moments)
    assert isinstance(rsde, ReverseSDE)
    assert rsde.sde is sde
    assert rsde.moments is moments
    assert sde.reverse(lambda x, t: -x).moments is None
    assert not hasattr(rsde, "transition")
    assert not hasattr(rsde, "prior_sample")


def test_gradients_pass_through_the_reverse_sde():
    x = torch.ones(2, 3, requires_grad=True)
    VPSDE().reverse(lambda x, t: -(x**3)).score(x, 0.5).sum().backward()
    assert_close(x.grad, torch.full((2, 3), -3.0))


def test_the_state_is_not_changed():
    x = torch.ones(2, 3)
    rsde = VPSDE().reverse(lambda x, t: -x)
    rsde.score(x, 0.5), rsde.drift(x, 0.5), rsde.denoise(x, 0.5)
    assert (x == 1).all()


def nan_in_second(x, t):
    return torch.where(torch.arange(len(x)).reshape(-1, *(1,) * (x.ndim - 1)) == 1, math.nan, -x)


@pytest.mark.parametrize("shape", [(3,), (3, 2), (3, 1, 4, 4)])
def test_a_score_that_is_not_finite_is_located(shape):
    x = torch.ones(shape)
    rsde = VPSDE().reverse(nan_in_second)
    message = r"NaN or infinity at evaluation 1, t = 0.25, in samples \[1\], although its input"
    with pytest.raises(NonFiniteError, match=message) as caught:
        rsde.score(x, 0.25)
    assert isinstance(caught.value, RuntimeError)
    for ask in (rsde.drift, rsde.denoise):
        with pytest.raises(NonFiniteError, match=r"in samples \[1\]"):
            ask(x, 0.25)
    with pytest.raises(NonFiniteError, match="and its input was not finite"):
        VPSDE().reverse(lambda x, t: x).score(x * math.nan, 0.25)


def test_finiteness_is_checked_unless_it_is_switched_off():
    x = torch.ones(3, 2)
    rsde = VPSDE().reverse(nan_in_second, check_finite=False)
    assert rsde.score(x, 0.25)[1].isnan().all()
    assert rsde.score(x, 0.25)[[0, 2]].isfinite().all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64])
def test_a_finite_score_passes_though_its_sum_does_not_and_infinities_never_cancel(dtype):
    largest = torch.finfo(dtype).max
    x = torch.ones(3, 2, dtype=dtype)
    rsde = VPSDE().reverse(lambda x, t: torch.full_like(x, largest))
    assert (rsde.score(x, 0.25) == largest).all()
    ends = torch.tensor([math.inf, -math.inf], dtype=dtype)
    with pytest.raises(NonFiniteError, match=r"in samples \[0, 1, 2\]"):
        VPSDE().reverse(lambda x, t: x * ends).score(x, 0.25)


def test_a_score_that_overflows_half_precision_is_not_finite():
    rsde = VPSDE().reverse(lambda x, t: -1e6 * x.float())
    with pytest.raises(NonFiniteError, match="float32"):
        rsde.score(torch.ones(2, 3, dtype=torch.float16), 0.5)


WRONG_SHAPES = {
    "one channel": lambda x, t: x[:, :1],
    "twice the channels": lambda x, t: torch.cat([x, x], 1),
    "no batch": lambda x, t: x[0],
    "one sample": lambda x, t: x[:1],
    "a number for each sample": lambda x, t: t,
}


@pytest.mark.law(66)
@pytest.mark.parametrize("name", WRONG_SHAPES)
@pytest.mark.parametrize("ask", ["score", "drift", "denoise"])
def test_a_score_of_another_shape_is_refused_and_not_broadcast(name, ask):
    x = torch.ones(2, 3, 4)
    got = tuple(WRONG_SHAPES[name](x, torch.full((2,), 0.5)).shape)
    with pytest.raises(ShapeError) as caught:
        getattr(VPSDE().reverse(WRONG_SHAPES[name]), ask)(x, 0.5)
    assert f"expected (2, 3, 4), got {got}" in str(caught.value)
    assert "learned variance" in str(caught.value)


@pytest.mark.parametrize(
    ("out", "kind"),
    [
        (lambda x: (x, x), "tuple"),
        (lambda x: SimpleNamespace(sample=x), "SimpleNamespace"),
        (lambda x: None, "NoneType"),
        (lambda x: x.numpy(), "ndarray"),
    ],
)
def test_a_score_that_is_no_tensor_is_refused_with_an_adapter(out, kind):
    rsde = VPSDE().reverse(lambda x, t: out(x))
    with pytest.raises(InvalidTypeError, match=rf"tensor, got {kind}.*model\(x, t\).sample"):
        rsde.score(torch.ones(2, 3), 0.5)


def test_an_object_that_cannot_be_called_is_refused_as_a_score():
    with pytest.raises(InvalidTypeError, match=r"score must be a callable, got 3"):
        VPSDE().reverse(3)


def test_a_model_on_another_device_is_named():
    def elsewhere(x, t):
        raise RuntimeError("Expected all tensors to be on the same device, but found two")

    with pytest.raises(DeviceError, match="the state is on cpu and the score on another device"):
        VPSDE().reverse(elsewhere).score(torch.ones(2, 3), 0.5)

    def broken(x, t):
        raise RuntimeError("an error of the network's own")

    with pytest.raises(RuntimeError, match="of the network's own") as caught:
        VPSDE().reverse(broken).score(torch.ones(2, 3), 0.5)
    assert not isinstance(caught.value, ScoreSDEError)


BAD_TIMES = {
    "nan": (math.nan, r"time must lie in \[0, 1.0\], got nan"),
    "a nan among them": (torch.tensor([0.5, math.nan]), r"time must lie in \[0, 1.0\]"),
    "before": (-0.5, r"time must lie in \[0, 1.0\], got -0.5"),
    "after": (1.5, r"time must lie in \[0, 1.0\], got 1.5"),
    "three for two": (torch.full((3,), 0.5), r"\(B,\) = \(2,\), got \(3,\)"),
    "a matrix": (torch.full((2, 1), 0.5), r"\(B,\) = \(2,\), got \(2, 1\)"),
}


@pytest.mark.parametrize("ask", ["score", "drift", "denoise"])
@pytest.mark.parametrize("name", BAD_TIMES)
def test_the_network_never_receives_an_impossible_time(name, ask):
    t, message = BAD_TIMES[name]
    rsde = VPSDE().reverse(lambda x, t: pytest.fail("the network was asked"))
    with pytest.raises(ScoreSDEError, match=message) as caught:
        getattr(rsde, ask)(torch.ones(2, 3), t)
    assert isinstance(caught.value, ValueError)
    assert rsde.nfe == 0


@pytest.mark.parametrize("ask", ["score", "drift", "denoise"])
@pytest.mark.parametrize("dtype", [torch.uint8, torch.int64, torch.bool])
def test_integer_states_are_refused_at_the_door(ask, dtype):
    rsde = VPSDE().reverse(lambda x, t: pytest.fail("the network was asked"))
    with pytest.raises(InvalidTypeError, match=r"floating point.*x.float\(\) / 127.5 - 1"):
        getattr(rsde, ask)(torch.ones(2, 3, dtype=dtype), 0.5)


def test_a_singular_end_is_named():
    with pytest.raises(InvalidValueError, match="T < 1"):
        FlowSDE(T=1.0)
    with pytest.raises(InvalidValueError, match="T < 1"):
        CosineSDE(T=1.0)
