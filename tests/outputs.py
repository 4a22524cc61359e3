"""Compute scores from a network's output for each kind of prediction, by the papers' formulas."""

import math

import torch
from torch import nn


class Output(nn.Module):
    """Define a network with a given output, which records its inputs."""

    def __init__(self, out=None):
        super().__init__()
        self.out, self.asked = out, []

    def forward(self, x, c, **condition):
        self.asked.append((x, c, condition))
        return torch.zeros_like(x) if self.out is None else self.out.expand_as(x)


def meant(name, sde, t, var, x0, noise):
    """Return the output of such a network by the papers, and the size of the terms in it."""
    u = t.clone().requires_grad_()
    schedule = (sde.alpha(u) + 0 * u, sde.sigma(u) + 0 * u)  # 0 * u: alpha may be constant
    d_alpha, d_sigma = (float(torch.autograd.grad(value, u)[0]) for value in schedule)
    alpha, sigma = (float(value.detach()) for value in schedule)
    if name == "edm":
        y, s2 = x0 + sigma / alpha * noise, (sigma / alpha) ** 2
        c_skip, c_out = var / (s2 + var), math.sqrt(s2 * var / (s2 + var))
        terms = (x0 / c_out, -c_skip * y / c_out)
    else:
        terms = {
            "eps": (noise,),
            "x0": (x0,),
            "v": (alpha * noise, -sigma * x0),
            "flow": (d_alpha * x0, d_sigma * noise),
            "score": (-noise / sigma,),
            "sigma_score": (-noise,),
        }[name]
    return sum(terms), sum(term.abs() for term in terms)
