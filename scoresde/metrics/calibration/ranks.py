r"""Rank true parameters among draws; the ranks are uniform if the draws are from the posterior."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["Directions", "energy_scores", "nearest", "position"]


def position(truth: Tensor, draws: Tensor, tie: Tensor) -> Tensor:
    r"""Return the rank of each true value among its draws, scaled to (0, 1).

    $u = (\#\{\text{draws below}\} + v\,(1 + \#\{\text{equal}\})) / (L + 1)$ with $v$ uniform
    (Talts et al. 2018, arXiv:1804.06788, made continuous by $v$). This rank is uniform if the true
    value and the draws have the same distribution.

    Args:
        truth: `(N,)`.
        draws: `(N, L)`.
        tie: Uniform numbers $v$, `(N,)`.
    """
    below = (draws < truth[:, None]).sum(1)
    equal = (draws == truth[:, None]).sum(1)
    u: Tensor = (below + tie * (1 + equal)) / (draws.shape[1] + 1)
    # callers transform u to a normal deviate, which is infinite for u = 0 or 1
    return u.clamp(1e-15, 1 - 1e-15)


@dataclass(frozen=True, eq=False)
class Directions:
    """Hold the directions along which parameter vectors are tested: entries and projections.

    Attributes:
        names: The names of the K directions, such as "entry 0" and "projection 1".
        weights: `(d, K)`. The K tested numbers of a vector are its products with the K columns.
    """

    names: tuple[str, ...]
    weights: Tensor

    @classmethod
    def of(
        cls,
        scale: Tensor,
        entries: int,
        projections: int,
        generator: torch.Generator,
        called: Sequence[str] = (),
    ) -> Directions:
        """Choose entries and random projections.

        Args:
            scale: Standard deviations of the entries, `(d,)`.
            entries: The largest number of entries to test. If a vector has more entries, the
                tested entries are chosen at random.
            projections: The number of random directions; none in one dimension.
            generator: The generator.
            called: The names of the entries; empty for "entry 0", "entry 1", ...
        """
        d = len(scale)
        chosen = torch.randperm(d, generator=generator)[:entries].sort().values
        count = 0 if d == 1 else projections
        random = torch.randn(d, count, generator=generator, dtype=scale.dtype)
        axes = scale.new_zeros(d, len(chosen))
        axes[chosen, torch.arange(len(chosen))] = 1
        names = [called[i] if called else f"entry {i}" for i in chosen.tolist()]
        names += [f"projection {i}" for i in range(count)]
        weights = torch.cat([axes, random / random.norm(dim=0)], 1) / scale[:, None]
        return cls(tuple(names), weights)

    def numbers(self, truth: Tensor, draws: Tensor) -> dict[str, tuple[Tensor, Tensor]]:
        """Return for each tested number, by name, the true values `(N,)` and the draws `(N, L)`.

        Args:
            truth: `(N, d)`.
            draws: `(N, L, d)`.
        """
        true, drawn = truth @ self.weights, draws @ self.weights
        return {name: (true[:, i], drawn[..., i]) for i, name in enumerate(self.names)}


def nearest(y: Tensor, among: Tensor, rows: int = 256) -> Tensor:
    """Return the index of the nearest row of `among` for each row of `y`, `(N,)`.

    Args:
        y: Observations `(N, m)`, in units of their standard deviation.
        among: Other observations `(M, m)`, in the same units.
        rows: The number of rows of `y` that are compared at once.
    """
    parts = (y[i : i + rows] for i in range(0, len(y), rows))
    return torch.cat([torch.cdist(part, among).argmin(1) for part in parts])


def energy_scores(truth: Tensor, draws: Tensor, order: Tensor) -> Tensor:
    r"""Return the energy score of each true value.

    The score is

    $$ \frac1L\sum_k \|\theta_k - \theta\| - \frac1{2 L}\sum_k \|\theta_k - \theta_{\pi(k)}\|, $$

    where $\theta$ is the true value, $\theta_k$ are its L draws, and $\pi$ is a random cyclic
    permutation of the draws. The L pairs $(k, \pi(k))$ estimate the mean over all pairs of draws.
    The expected score, $E\|\theta_1 - \theta\| - \frac12 E\|\theta_1 - \theta_2\|$, is smallest if
    the draws are from the posterior (Gneiting & Raftery 2007, doi:10.1198/016214506000001437).

    Args:
        truth: `(N, d)`.
        draws: `(N, L, d)`, L at least 2.
        order: A random order of the draws of each true value, `(N, L)`.
    """
    mixed = draws.gather(1, order[..., None].expand_as(draws))
    far = (draws - truth[:, None]).norm(dim=2).mean(1)
    apart = (mixed - mixed.roll(1, 1)).norm(dim=2).mean(1)
    scores: Tensor = far - apart / 2
    return scores
