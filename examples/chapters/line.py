"""Compute the exact distribution of Langevin dynamics on the line after any number of steps."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from scoresde.targets import GaussianMixture

REACH, POINTS, START = 6.0, 601, -4.0


def places() -> Tensor:
    """Return points of the line, `(n, 1)`, much closer than the width of a step's noise."""
    return torch.linspace(-REACH, REACH, POINTS, dtype=torch.float64)[:, None]


def errors(target: GaussianMixture, eps: float, doublings: int) -> list[float]:
    """Return the total variation from the target after 1, 2, 4, ... steps of size eps.

    The matrix of transition probabilities of a step is squared repeatedly, up to 2^(doublings - 1)
    steps from one point. No samples are drawn.
    """
    x = places()
    wanted = target.log_prob(x).softmax(0)
    step = torch.distributions.Normal(x + eps * target.score(x), (2 * eps) ** 0.5)
    kernel = step.log_prob(x.T).softmax(1)  # from the point of the row to that of the column
    start, found = int((x - START).abs().argmin()), []
    for _ in range(doublings):
        found.append(float((kernel[start] - wanted).abs().sum() / 2))
        kernel = kernel @ kernel
    return found


def table(
    target: GaussianMixture, sizes: Sequence[float], doublings: int
) -> tuple[list[int], dict[str, list[float]]]:
    """Print the errors for several sizes of the step; return the numbers of steps, and the rows."""
    counts, rows = [2**i for i in range(doublings)], {}
    print("step   total variation from the target after K steps")
    print("   K = " + "".join(f"{k:6d}" for k in counts[::2]))
    for eps in sizes:
        rows[f"ε = {eps:g}"] = found = errors(target, eps, doublings)
        print(f"{eps:5.3f}  " + "".join(f"{e:6.3f}" for e in found[::2]))
    return counts, rows
