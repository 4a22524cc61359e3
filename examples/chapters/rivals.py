"""Fit a flow by likelihood and a generator by an adversary, for chapter 0."""

from __future__ import annotations

import itertools
import math
import time

import torch
from common import seeded
from torch import Tensor, nn


def mlp(inputs: int, outputs: int, width: int, hidden: int = 2) -> nn.Sequential:
    """Return a network with a number of hidden layers."""
    sizes = [inputs] + [width] * hidden
    layers = [(nn.Linear(a, b), nn.LeakyReLU(0.2)) for a, b in itertools.pairwise(sizes)]
    return nn.Sequential(*itertools.chain(*layers), nn.Linear(width, outputs))


class Flow(nn.Module):
    """Map points to noise by affine couplings, whose Jacobian is triangular (Dinh et al. 2017)."""

    def __init__(self, layers: int = 8, width: int = 40) -> None:
        super().__init__()
        self.nets = nn.ModuleList(mlp(1, 2, width) for _ in range(layers))

    def log_prob(self, x: Tensor) -> Tensor:
        """Return log p(x): the noise's density plus the log determinant."""
        a, b = x.unbind(1)
        log_det = torch.zeros_like(a)
        for net in self.nets:
            log_scale, shift = net(a[:, None]).unbind(1)
            log_scale = 2 * torch.tanh(log_scale / 2)
            a, b = b * log_scale.exp() + shift, a
            log_det = log_det + log_scale
        return log_det - (a**2 + b**2) / 2 - math.log(2 * math.pi)

    def sample(self, z: Tensor) -> Tensor:
        """Map noise to points, the inverse of the couplings."""
        a, b = z.unbind(1)
        for net in reversed(self.nets):
            log_scale, shift = net(b[:, None]).unbind(1)
            log_scale = 2 * torch.tanh(log_scale / 2)
            a, b = b, (a - shift) * torch.exp(-log_scale)
        return torch.stack([a, b], 1)


def by_likelihood(x: Tensor, seconds: float) -> Flow:
    """Fit a flow by maximum likelihood."""
    torch.manual_seed(0)
    flow, generator = Flow(), seeded(0)
    optimizer = torch.optim.Adam(flow.parameters(), lr=2e-3)
    start = time.process_time()
    while time.process_time() - start < seconds:
        optimizer.zero_grad()
        batch = x[torch.randint(len(x), (512,), generator=generator)]
        (-flow.log_prob(batch).mean()).backward()
        optimizer.step()
    return flow


def against_an_adversary(x: Tensor, seconds: float) -> nn.Module:
    """Fit a generator of points against a discriminator (Goodfellow et al. 2014)."""
    torch.manual_seed(0)
    generator, critic, g = mlp(2, 2, 80, 3), mlp(2, 1, 80, 3), seeded(0)
    both = [torch.optim.Adam(net.parameters(), 2e-3, (0.0, 0.9)) for net in (generator, critic)]
    start = time.process_time()
    while time.process_time() - start < seconds:
        real = x[torch.randint(len(x), (512,), generator=g)].requires_grad_()
        fake = generator(torch.randn(512, 2, generator=g))
        found = critic(real)
        (slope,) = torch.autograd.grad(found.sum(), real, create_graph=True)
        softplus = nn.functional.softplus
        loss = softplus(-found) + softplus(critic(fake.detach())) + 0.1 * slope.pow(2).sum(1)
        both[1].zero_grad()
        loss.mean().backward()
        both[1].step()
        both[0].zero_grad()
        softplus(-critic(fake)).mean().backward()
        both[0].step()
    return generator
