"""Train the networks of chapter 7b, and measure them at every noise level."""

from __future__ import annotations

from functools import partial

import torch
from bodies import SHAPES, TOLD
from common import batches, relative_error, seeded, train, weights_of
from torch import Tensor

from scoresde import VESDE, Moments, ScoreModel, dsm_loss
from scoresde.targets import TwoMoons

SDE, LEVELS = VESDE(0.02, 20.0), torch.logspace(-1.69, 0.7, 9)


def time_of(sigma: Tensor) -> Tensor:
    """Return the times of noise levels."""
    return SDE.time(-2 * sigma.double().log()).float()


def shapes(digits: Tensor, held: Tensor, seconds: float) -> tuple[dict[str, Tensor], ScoreModel]:
    """Return the held-out losses of networks of all shapes by level, and the last one, a U-Net."""
    moments = Moments(digits.mean(0), var=float((digits - digits.mean(0)).pow(2).mean()))
    many, losses = held.repeat(4, 1, 1, 1) if seconds > 1 else held[:100], {}
    print(f"8x8 digits, {seconds:g} s of one core each, mean over 9 levels from .02 to 5")
    print("                       parameters   ms/step   held-out loss per pixel")
    for name, body in SHAPES.items():
        torch.manual_seed(0)
        model = ScoreModel(body(), SDE, (1, 8, 8), moments=moments)
        loss = partial(dsm_loss, model, SDE)
        done = train(model, batches(digits, loss, 128), seconds=seconds)
        found = [loss(many, t=t, generator=seeded(2)).mean().detach() / 64 for t in time_of(LEVELS)]
        losses[name] = torch.stack(found)
        cost = f"{weights_of(model):10,d} {1e3 * seconds / done:9.1f}"
        print(f"{name:22s} {cost} {losses[name].mean():25.3f}")
    return losses, model


def telling(steps: int) -> dict[str, list[float]]:
    """Return the errors on two moons by level, for three embeddings of the level and none."""
    target, errors = TwoMoons(), {}
    data = target.sample(20_000, generator=seeded(0))
    print(f"two moons, {steps:,} steps each, relative Fisher error, mean over the same levels")
    for name, net in TOLD.items():
        torch.manual_seed(0)
        model = ScoreModel(net(), SDE, (2,), moments=target.moments())
        train(model, batches(data, partial(dsm_loss, model, SDE)), steps=steps)
        errors[name] = []
        for t in time_of(LEVELS):
            x = target.sample(4_000, SDE, t, generator=seeded(1))
            errors[name].append(relative_error(model(x, t), target.score(x, SDE, t)))
        print(f"{name:22s} {sum(errors[name]) / 9:.4f}")
    return errors
