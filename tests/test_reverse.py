"""Test the reverse SDE: Bayes' rule, and its marginals."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.integrate import solve_ivp
from strategies import (
    SDES,
    exact_scores,
    generators,
    sdes,
    shapes,
    times_of,
    vp_sdes,
)
from torch import Tensor
from torch.testing import assert_close

from scoresde.sde import VPSDE, expand


def affine(function, t: Tensor) -> tuple[Tensor, Tensor]:
    """Return a and b of an affine scalar map x -> A x + b, from its values at 0 and 1."""
    b, a_plus_b = function(torch.tensor([[0.0], [1.0]], dtype=torch.float64), t).flatten()
    return a_plus_b - b, b


def normal(x, mean, var):
    return -0.5 * ((x - mean) ** 2 / var + torch.log(2 * math.pi * var))


@pytest.mark.law(17)
@given(st.data())
def test_forward_and_reverse_kernels_obey_the_rule_of_bayes(data):
    """p_t(x) q(y | x) = p_s(y) p(x | y), with the mean of q by Tweedie's formula from the score."""
    sde = data.draw(sdes())
    score, (s, t) = data.draw(exact_scores(sde)), data.draw(times_of(sde, 2, gap=0.01))
    a, v = sde.transition(s, t)
    (mean_s, var_s), (mean_t, var_t) = score.law(s), score.law(t)
    z = torch.randn(2, 9, generator=data.draw(generators()), dtype=torch.float64)
    x = mean_t + var_t.sqrt() * z[0]
    gain = a * var_s / var_t
    mean, var = mean_s + gain * (x - mean_t), var_s * v / var_t
    assert_close(var, var_s - gain**2 * var_t, rtol=1e-9, atol=1e-9 * float(var_s))
    y = mean + var.sqrt() * z[1]
    forward = normal(y, mean_s, var_s) + normal(x, a * y, v)
    assert_close(normal(x, mean_t, var_t) + normal(y, mean, var), forward, rtol=1e-9, atol=1e-7)
    from_score = (x + v * sde.reverse(score).score(x[:, None], t)[:, 0]) / a
    assert_close(from_score, mean, rtol=1e-9, atol=1e-9 * float(var_t.sqrt() / a + abs(mean_t / a)))


@pytest.mark.law(18)
@given(st.data(), st.floats(0, 2))
def test_every_eta_keeps_the_marginals(data, eta):
    """dV/dt = 2 A V - (eta g)^2 and dm/dt = A m + b are those of the forward process."""
    sde = data.draw(sdes())
    score, t = data.draw(exact_scores(sde)), data.draw(times_of(sde))
    rsde = sde.reverse(score)
    a, b = affine(lambda x, t: rsde.drift(x, t, eta), t)
    u = t.clone().requires_grad_()
    mean, var = score.law(u)
    (dmean,) = torch.autograd.grad(mean + 0 * u, u, retain_graph=True)
    (dvar,) = torch.autograd.grad(var, u)
    mean, var = mean.detach(), var.detach()
    noise = rsde.diffusion(t, eta) ** 2
    f, g2 = sde.coefficients(t)
    size = float((2 * f * var).abs() + (1 + eta**2) * g2)
    assert_close(2 * a * var - noise, dvar, rtol=1e-9, atol=1e-10 * size)
    assert_close(a * mean + b, dmean, rtol=1e-9, atol=1e-10 * size * float(mean.abs() / var))


@pytest.mark.law(20)
@given(st.data(), st.floats(0, 2) | st.integers(0, 2))
def test_drift_and_diffusion_are_those_of_the_forward_process_and_the_score(data, eta):
    sde, shape = data.draw(sdes()), data.draw(shapes())
    score = data.draw(exact_scores(sde))
    t = data.draw(times_of(sde, shape[0], gap=0))
    x = torch.randn(shape, generator=data.draw(generators()), dtype=torch.float64)
    rsde = sde.reverse(score)
    push = expand((1 + eta**2) / 2 * sde.diffusion(t) ** 2, x) * score(x, t)
    scale = float(push.abs().max())
    assert_close(rsde.drift(x, t, eta) + push, sde.drift(x, t), rtol=1e-12, atol=1e-12 * scale)
    assert_close(rsde.diffusion(t, eta), eta * sde.diffusion(t), rtol=1e-12, atol=0)
    assert rsde.diffusion(t, eta).dtype == torch.float64


def test_the_reverse_sde_is_the_default():
    rsde = VPSDE().reverse(lambda x, t: -x)
    x = torch.ones(2, 3)
    assert torch.equal(rsde.drift(x, 0.5), rsde.drift(x, 0.5, eta=1.0))
    assert torch.equal(rsde.diffusion(0.5), VPSDE().diffusion(0.5))


@pytest.mark.slow
@pytest.mark.law(19)
@settings(max_examples=8)
@given(st.data())
def test_the_probability_flow_is_its_closed_flow_map_there_and_back(data):
    """x_s = m_s + sqrt(V_s / V_t) (x_t - m_t) for Gaussian data."""
    sde = data.draw(sdes(continuous=True))
    score = data.draw(exact_scores(sde))
    rsde = sde.reverse(score)
    s, t = data.draw(times_of(sde, 2, gap=0.05))
    (mean_s, var_s), (mean_t, var_t) = score.law(s), score.law(t)
    start = mean_t + 1.3 * var_t.sqrt()

    def flow(u, x):
        x = torch.from_numpy(x)[:, None]
        return rsde.drift(x, min(max(float(u), sde.eps), sde.T), eta=0.0)[:, 0].numpy()

    def solve(x, a, b):
        out = solve_ivp(flow, (float(a), float(b)), [float(x)], "DOP853", rtol=1e-8, atol=1e-10)
        return torch.tensor(out.y[0, -1], dtype=torch.float64)

    there = solve(start, t, s)
    scale = float(var_t.sqrt() + mean_t.abs())
    assert_close(there, mean_s + 1.3 * var_s.sqrt(), rtol=1e-6, atol=1e-7)
    assert_close(solve(there, s, t), start, rtol=1e-6, atol=1e-6 * scale)


@pytest.mark.law(21)
@given(st.data())
def test_standard_normal_data_are_unchanged_by_the_flow_under_variance_preservation(data):
    kind = data.draw(st.sampled_from(["vp", "cosine", "betas"]))
    sde = data.draw(vp_sdes()) if kind == "vp" else SDES[kind]
    t = data.draw(times_of(sde, 4))
    x = torch.randn(4, 3, generator=data.draw(generators()), dtype=torch.float64)
    rsde = sde.reverse(lambda x, t: -x)
    scale = float(expand(sde.diffusion(t) ** 2, x).max()) * float(x.abs().max())
    assert_close(rsde.drift(x, t, eta=0.0), torch.zeros_like(x), rtol=0, atol=1e-12 * scale)
    # and so does it under the transitions, by which an ancestral step has variance 1
    a, v = sde.transition(t[:-1], t[1:])
    assert_close(a**2 + v, torch.ones_like(a), rtol=1e-12, atol=0)
    assert_close((1 - v) ** 2 / a**2 + v, torch.ones_like(a), rtol=1e-9, atol=0)


@given(st.data())
def test_denoising_is_the_posterior_mean(data):
    sde, shape = data.draw(sdes()), data.draw(shapes())
    score, t = data.draw(exact_scores(sde)), data.draw(times_of(sde))
    (mean, var), alpha = score.law(t), sde.alpha(t)
    z = torch.randn(shape, generator=data.draw(generators()), dtype=torch.float64)
    x = mean + var.sqrt() * z
    posterior = score.mean + alpha * score.var / var * (x - mean)
    # Tweedie subtracts numbers of size x / alpha
    scale = float(var.sqrt() / alpha) * 4
    assert_close(sde.reverse(score).denoise(x, t), posterior, rtol=1e-9, atol=1e-12 * scale)
