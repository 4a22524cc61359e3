"""Test the divergence, exact and by probes, against matrices and closed forms."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from strategies import dtypes, exact_scores, generators, sdes, shapes, times_of
from torch.testing import assert_close

from scoresde import divergence as module
from scoresde.divergence import divergence, frobenius, hutchinson
from scoresde.errors import InvalidTypeError, ShapeError
from scoresde.nn import MLP

DOUBLE = torch.float64


def linear(a):
    """x -> A x over the flattened event."""
    return lambda x: (x.reshape(len(x), -1) @ a.T).reshape(x.shape)


@given(st.data(), shapes(), dtypes())
def test_the_divergence_of_a_linear_map_is_its_trace(data, shape, dtype):
    size = math.prod(shape[1:])
    a = torch.randn(size, size, generator=data.draw(generators()), dtype=dtype)
    x = torch.randn(shape, generator=data.draw(generators()), dtype=dtype)
    with torch.no_grad():
        value, trace = divergence(linear(a), x)
    assert_close(value, linear(a)(x))
    assert_close(trace, a.trace().expand(len(x)), rtol=1e-4, atol=1e-4)
    assert (trace.dtype, trace.shape) == (dtype, (shape[0],))
    assert not value.requires_grad
    assert not trace.requires_grad


@given(st.data())
def test_probes_give_the_quadratic_form_of_the_jacobian(data):
    generator, k = data.draw(generators()), data.draw(st.integers(1, 4))
    a = torch.randn(6, 6, generator=generator, dtype=DOUBLE)
    x = torch.randn(5, 2, 3, generator=generator, dtype=DOUBLE)
    v = torch.randn(k, 5, 2, 3, generator=generator, dtype=DOUBLE)
    value, estimates = hutchinson(linear(a), x, v)
    flat = v.flatten(2)
    assert_close(estimates, torch.einsum("kbi,ij,kbj->kb", flat, a, flat))
    assert_close(value, linear(a)(x))


def test_unit_probes_are_the_exact_divergence():
    x = torch.randn(3, 4, generator=torch.Generator().manual_seed(0), dtype=DOUBLE)
    units = torch.eye(4, dtype=DOUBLE)[:, None].expand(4, 3, 4)
    f = lambda x: torch.sin(x) * x.roll(1, 1)  # noqa: E731
    assert_close(hutchinson(f, x, units)[1].sum(0), divergence(f, x)[1])


def test_the_norm_of_the_jacobian_is_that_of_the_matrix_and_by_probes_its_mean():
    a = torch.randn(6, 6, generator=torch.Generator().manual_seed(0), dtype=DOUBLE)
    x = torch.zeros(3, 2, 3, dtype=DOUBLE)
    assert_close(frobenius(linear(a), x), a.norm().expand(3))
    # the axes, each times the root of their number, have the identity as covariance
    axes = math.sqrt(6) * torch.eye(6, dtype=DOUBLE).reshape(6, 1, 2, 3).expand(6, 3, 2, 3)
    assert_close(frobenius(linear(a), x, axes), a.norm().expand(3))


@pytest.mark.law(49)
def test_the_mean_and_the_variance_of_probes_are_the_formulas():
    """All 2^4 Rademacher vectors are summed over, so that nothing is estimated."""
    a = torch.randn(4, 4, generator=torch.Generator().manual_seed(0), dtype=DOUBLE)
    signs = torch.cartesian_prod(*[torch.tensor([-1.0, 1.0], dtype=DOUBLE)] * 4)
    _, estimates = hutchinson(linear(a), torch.ones(1, 4, dtype=DOUBLE), signs[:, None])
    s = (a + a.T) / 2
    assert_close(estimates.mean(), a.trace())
    assert_close(estimates.var(correction=0), 2 * ((s**2).sum() - (s.diagonal() ** 2).sum()))
    # normal probes, by a quadrature that is exact for the fourth degree: 2 |S|^2
    nodes, masses = (torch.from_numpy(v) for v in np.polynomial.hermite_e.hermegauss(3))
    v, mass = torch.cartesian_prod(*[nodes] * 4), torch.cartesian_prod(*[masses] * 4).prod(1)
    mass = mass / mass.sum()
    _, estimates = hutchinson(linear(a), torch.ones(1, 4, dtype=DOUBLE), v[:, None])
    mean = mass @ estimates[:, 0]
    assert_close(mean, a.trace())
    assert_close(mass @ (estimates[:, 0] - mean) ** 2, 2 * (s**2).sum())


@given(st.data())
def test_the_divergence_of_the_score_of_a_gaussian_is_exact_through_the_reverse_sde(data):
    sde = data.draw(sdes())
    score, t = data.draw(exact_scores(sde)), data.draw(times_of(sde))
    x = torch.randn(3, 2, 2, generator=data.draw(generators()), dtype=DOUBLE)
    rsde = sde.reverse(score)
    with torch.no_grad():
        _, trace = divergence(lambda x: rsde.score(x, t), x)
    assert_close(trace, (-4 / score.law(t)[1]).expand(3), rtol=1e-10, atol=0)
    assert rsde.nfe == 1


@pytest.mark.global_rng
def test_a_network_agrees_with_its_jacobian_in_any_number_of_chunks(monkeypatch):
    net, generator = MLP(3, hidden=(16,)), torch.Generator().manual_seed(0)
    torch.nn.init.normal_(net.head.weight, generator=generator)
    net = net.double()
    x = torch.randn(4, 3, generator=torch.Generator().manual_seed(0), dtype=DOUBLE)
    c = torch.zeros(4, dtype=DOUBLE)
    jacobian = torch.autograd.functional.jacobian(lambda x: net(x, c).sum(0), x)
    exact = torch.einsum("ibi->b", jacobian)
    for budget in (1, 24, 2**24):
        monkeypatch.setattr(module, "_BUDGET", budget)
        assert_close(divergence(lambda x: net(x, c), x)[1], exact)


class Unbatched(torch.autograd.Function):
    """Define a function whose derivative cannot be batched."""

    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x**2

    @staticmethod
    def backward(ctx, grad):
        (x,) = ctx.saved_tensors
        return 2 * x * grad if float(grad.abs().sum()) >= 0 else grad


def test_a_function_that_cannot_be_batched_is_differentiated_one_by_one():
    x = torch.randn(4, 3, generator=torch.Generator().manual_seed(0), dtype=DOUBLE)
    assert_close(divergence(Unbatched.apply, x)[1], 2 * x.sum(1))
    probes = torch.ones(2, 4, 3, dtype=DOUBLE)
    assert_close(hutchinson(Unbatched.apply, x, probes)[1], (2 * x.sum(1)).expand(2, 4))


def test_every_sample_has_the_divergence_that_it_has_alone():
    x = torch.randn(9, 5, generator=torch.Generator().manual_seed(0))
    f = lambda x: torch.sin(3 * x) * x.roll(1, 1) ** 2  # noqa: E731
    whole = divergence(f, x)[1]
    assert torch.equal(whole, torch.cat([divergence(f, x[i : i + 1])[1] for i in range(9)]))


def test_an_empty_batch_and_a_constant_part_are_allowed():
    value, trace = divergence(lambda x: 2 * x, torch.ones(0, 3))
    assert (value.shape, trace.shape) == ((0, 3), (0,))
    assert divergence(lambda x: 0 * x + 1, torch.ones(2, 3))[1].tolist() == [0, 0]


def test_what_cannot_be_differentiated_is_refused():
    x = torch.ones(2, 3)
    with pytest.raises(InvalidTypeError, match="cannot be differentiated"):
        divergence(lambda x: x.detach() ** 2, x)
    with pytest.raises(ShapeError, match=r"shape of x, \(2, 3\), got \(2, 1\)"):
        divergence(lambda x: x[:, :1], x)
    with pytest.raises(ShapeError, match=r"\(K, 2, 3\), got \(2, 3\)"):
        hutchinson(lambda x: x, x, x)
