"""Test that losses and scores with a derivative of attention can be differentiated."""

import copy

import pytest
import torch

import scoresde
from scoresde import guidance, nn, objectives
from scoresde.training import Compute, TrainConfig, Trainer

SDE, SHAPE = scoresde.VPSDE(), (1, 4, 4)
T = torch.full((2,), 0.5, dtype=torch.float64)
NOISE = scoresde.Noise([0, 0], [0, 1])
NETWORKS = {
    "UNet": lambda: nn.UNet(1, channels=(8,), attention=(0,), features=8),
    "DiT": lambda: nn.DiT(1, width=8, depth=1, heads=2),
    "DDPM++": lambda: nn.NCSNpp.vp(
        channels=1, size=4, width=4, mult=(1,), blocks=1, attention=(4,), dropout=0.0
    ),
}


def normal(shape, seed):
    g = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=g, dtype=torch.float64)


class Energy(torch.nn.Module):
    """Define the energy (B,) that is the squared norm of a network's output."""

    def __init__(self, score):
        super().__init__()
        self.net = score.net

    def forward(self, x, c):
        return self.net(x, c).square().flatten(1).sum(1)


def posterior(score):
    likelihood = guidance.Linear(guidance.Mask(torch.eye(4)[None]), 0.3)
    return guidance.posterior(score, likelihood, iterations=1)


CASES = {
    "ism_loss": lambda s, x: objectives.ism_loss(s, SDE, x, t=T, noise=NOISE),
    "ssm_loss": lambda s, x: objectives.ssm_loss(s, SDE, x, t=T, noise=NOISE),
    "energy": lambda s, x: objectives.dsm_loss(
        scoresde.EnergyScore(Energy(s), SDE, SHAPE), SDE, x, t=T, noise=NOISE
    ),
    "posterior": lambda s, x: posterior(s)(x, T, {"measurement": torch.zeros(2, 4)}),
}


@pytest.mark.global_rng  # the first weights
@pytest.mark.parametrize("name", NETWORKS)
def test_the_gradient_in_the_weights_is_that_of_differences(name):
    score = scoresde.ScoreModel(NETWORKS[name](), SDE, SHAPE).double()
    parameters = list(score.parameters())
    for i, p in enumerate(parameters):  # the last layers are zero at first
        p.data = normal(p.shape, i) / max(p[0].numel(), 1) ** 0.5
    x, step = normal((2, *SHAPE), 0), 1e-5
    along = [normal(p.shape, i + 100) for i, p in enumerate(parameters)]

    def moved(case, h):
        for p, v in zip(parameters, along, strict=True):
            p.data += h * v
        value = case(score, x)
        for p, v in zip(parameters, along, strict=True):
            p.data -= h * v
        return float(value.detach().square().sum())

    for case in CASES.values():
        found = torch.autograd.grad(case(score, x).square().sum(), parameters, allow_unused=True)
        exact = sum(
            float((g * v).sum()) for g, v in zip(found, along, strict=True) if g is not None
        )
        slope = (moved(case, step) - moved(case, -step)) / (2 * step)
        assert exact == pytest.approx(slope, rel=1e-5)


@pytest.mark.global_rng  # the first weights
def test_activations_can_be_recomputed():
    """With `recompute` the backward pass evaluates attention as the forward pass did."""
    net = NETWORKS["DiT"]()

    def trained(recompute):
        score = scoresde.ScoreModel(copy.deepcopy(net), SDE, SHAPE)
        config = TrainConfig(steps=2, batch_size=2, compute=Compute(recompute=recompute))
        found = Trainer(score, normal((4, *SHAPE), 0).float(), config, loss=objectives.ssm_loss)
        return found.train(progress=False).state_dict().values()

    assert all(map(torch.equal, trained(False), trained(True)))
