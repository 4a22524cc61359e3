"""Test gradients of the samples of every sampler against finite differences."""

import pytest
import torch
from torch import nn

import scoresde
from scoresde import SAMPLERS, Facts, Field, Noise
from scoresde.errors import InvalidTypeError, InvalidValueError
from scoresde.guidance import Linear, Projection, posterior
from scoresde.samplers import Impute, Metropolis, Particles, ProbabilityFlow, SplitGibbs

VP = scoresde.VPSDE()
NAMES = sorted(SAMPLERS.keys() - {"scipy"})


class Net(nn.Module):
    """Define the score of a law that is no Gaussian, with a weight and a condition."""

    facts = Facts(sde=VP, event_shape=(2,), conditions={"y": Field((2,))})

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.tensor([0.7, -0.4], dtype=torch.float64))
        self.drop = nn.Dropout(0.5)

    def forward(self, x, t, condition=None):
        y = 0.0 if condition is None else condition["y"]
        alpha, sigma = VP.at(t.double(), x)
        var = alpha**2 * 0.6 + sigma**2
        return self.drop(-(x - alpha * y) / var + 0.3 * torch.tanh(self.weight * x + y))


def drawn(name, net, x, y, **options):
    sampler = SAMPLERS[name] if isinstance(name, str) else name
    if isinstance(sampler, ProbabilityFlow):
        sampler = ProbabilityFlow(sampler.method, rtol=1e-8, atol=1e-8)
    options = dict(seed=3, condition={"y": y}) | options
    if sampler.adaptive:  # a part of the way is enough
        options |= dict(times=[0.4, 0.38 if sampler.stochastic else 0.1], denoise=False)
    else:
        options |= dict(steps=4)
    return scoresde.sample(net, None, sampler, x=x, **options)


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_the_gradient_is_that_of_finite_differences(name):
    """In the start, in the weights and in the condition; adaptive solvers at tight tolerances."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(2, 2, generator=generator, dtype=torch.float64).requires_grad_()
    y = torch.randn(2, 2, generator=generator, dtype=torch.float64).requires_grad_()
    pull, net = torch.randn(2, 2, generator=generator, dtype=torch.float64), Net().train()
    out = drawn(name, net, x, y, grad=True)
    assert net.training
    given = (x, y, net.weight)
    found = torch.autograd.grad((out * pull).sum(), given)
    # one way in all of them, on which each has its share
    way = [torch.randn(part.shape, generator=generator, dtype=torch.float64) for part in given]
    ends = []
    for step in (1e-5, -1e-5):
        with torch.no_grad():
            for part, along in zip(given, way, strict=True):
                part += step * along
            ends.append((drawn(name, net, x.detach(), y.detach()) * pull).sum())
            for part, along in zip(given, way, strict=True):
                part -= step * along
    right = float(ends[0] - ends[1]) / 2e-5
    shares = [float((g * along).sum()) for g, along in zip(found, way, strict=True)]
    assert min(map(abs, shares)) > 1e-3
    assert abs(sum(shares) - right) <= 1e-4 * max(abs(right), 0.1)


@pytest.mark.slow
@pytest.mark.parametrize("method", [Impute(), SplitGibbs(SAMPLERS["ancestral"], 0.5, 2)])
def test_gradients_go_through_samplers_of_posteriors(method):
    prior = scoresde.targets.Gaussian([0.0, 0.0], cov=[[1.0, 0.6], [0.6, 1.0]])
    if isinstance(method, Impute):
        score, given = (
            prior.at(VP),
            {"known": torch.tensor([0.4, 0.0]), "mask": torch.tensor([1, 0])},
        )
    else:
        score = posterior(prior.at(VP), Linear(torch.tensor([[1.0, 0.0]]), 0.5))
        given = {"measurement": torch.tensor([[0.4]])}
    name = next(iter(given))

    def end(value):
        condition = given | {name: value}
        options = dict(sampler=method, n=1, steps=3, seed=0, dtype=torch.float64, grad=True)
        return scoresde.sample(score, condition=condition, **options).sum()

    value = given[name].double().requires_grad_()
    (found,) = torch.autograd.grad(end(value), value)
    step = torch.zeros_like(value)
    step.view(-1)[0] = 1e-5
    with torch.no_grad():
        right = float(end(value + step) - end(value - step)) / 2e-5
    assert abs(float(found.flatten()[0]) - right) < 1e-4


@pytest.mark.parametrize("sampler", ["scipy", Particles(), Metropolis(SAMPLERS["ddim"])])
def test_a_sampler_without_a_gradient_is_refused(sampler):
    with pytest.raises(InvalidTypeError, match="is not differentiable"):
        scoresde.sample(Net(), None, sampler, grad=True)


def test_inference_mode_is_refused_since_it_records_no_gradient():
    with torch.inference_mode(), pytest.raises(InvalidValueError, match=r"torch\.inference_mode"):
        scoresde.sample(Net(), None, "heun", n=1, steps=1, grad=True)


def test_the_directions_of_a_projection_are_differentiated_wherever_they_were_made():
    x = torch.ones(1, 3, dtype=torch.float64)
    with torch.inference_mode():
        found = Projection(2, seed=7)(x)
    back = Linear(Projection(2, seed=7), std=1.0).adjoint(found.clone(), x)
    assert back.shape == x.shape


@pytest.mark.slow
@pytest.mark.global_rng  # first weights
def test_a_run_keeps_states_and_no_activations():
    kept = []

    class Wide(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = nn.Sequential(nn.Linear(2, 500), nn.Tanh(), nn.Linear(500, 2))
            for weight in self.net.parameters():
                nn.init.constant_(weight, 0.01)

        def forward(self, x, t):
            return self.net(x)

    def pack(value):
        kept.append(value.numel())
        return value

    model = Wide().requires_grad_(False)
    x = torch.zeros(3, 2, requires_grad=True)
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda value: value):
        out = scoresde.sample(model, VP, "ddim", x=x, steps=5, seed=0, grad=True)
    assert max(kept) <= 6
    assert torch.autograd.grad(out.sum(), x)[0].abs().sum() > 0


@pytest.mark.slow
def test_without_grad_nothing_is_kept_and_units_are_floats_with_it():
    x = torch.zeros(3, 2, dtype=torch.float64, requires_grad=True)
    y = torch.zeros(3, 2, dtype=torch.float64)
    assert not drawn("ddim", Net(), x, y).requires_grad
    model = scoresde.load("mnist")
    start = 80 * Noise.of(0, 1).normal(torch.zeros(1, 1, 28, 28), 0.0).requires_grad_()
    options = dict(sampler="ddim", x=start, steps=2, condition={"label": 3}, units=True, seed=0)
    out = scoresde.sample(model, grad=True, **options)
    assert out.dtype == torch.float32
    (found,) = torch.autograd.grad(out.sum(), start)
    assert (found != 0).any()
    states = list(scoresde.trajectory(model, grad=True, **options))
    assert states[-1].denoised.requires_grad
