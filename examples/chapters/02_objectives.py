"""Chapter 2. Four ways to match an unknown score.

The Fisher divergence E |s_model - s|^2 contains the unknown s. Implicit, sliced and denoising
score matching have the same gradient in expectation, finite differences nearly so; they differ in
noise and cost. Each trains the same network at the same noise level for the same time.

    python examples/chapters/02_objectives.py --out figures
"""

from __future__ import annotations

import statistics
from functools import partial

import torch
import tyro
from common import Options, network, relative_error, seeded, three_modes, train
from panels import BLUE, arrows, bars, grid, panels, save, shade

from scoresde import EDMSDE, dsm_loss, fd_ssm_loss, ism_loss, ssm_loss

OBJECTIVES = {
    "DSM": dsm_loss,
    "DSM, control variate": partial(dsm_loss, control_variate=True),
    "ISM": ism_loss,
    "SSM": partial(ssm_loss, variance_reduced=False),
    "SSM-VR": ssm_loss,
    "FD-SSM": fd_ssm_loss,
}


def main(options: Options) -> None:
    torch.set_num_threads(1)
    sde, t, target = EDMSDE(), 0.3, three_modes()  # at time t the noise is t
    seconds, seeds = (0.2, 1) if options.short else (2.5, 5)
    x = target.sample(20_000, sde, t, generator=seeded(99))
    exact = target.score(x, sde, t)

    table, field = {}, {}
    print(f"{seconds} s of one core each, {seeds} seeds, batches of 512, noise {t}")
    print("objective              ms/step   Fisher error: median   [lowest, highest]   x DSM's")
    for name, loss in OBJECTIVES.items():
        errors, steps = [], 0
        for seed in range(seeds):
            net = network(seed=seed)

            def objective(g, net=net, loss=loss):
                clean = target.sample(512, generator=g)
                return loss(lambda x, t: net(x), sde, clean, t=t, generator=g)

            steps += train(net, objective, seconds=seconds, lr=5e-3, seed=seed)
            errors.append(relative_error(net(x), exact))
        table[name], field[name] = statistics.median(errors), net
        cost = 1e3 * seconds * seeds / steps
        print(
            f"{name:22s} {cost:7.2f}   {table[name]:20.5f}   [{min(errors):.5f}, {max(errors):.5f}]"
            f"   {table[name] / table['DSM']:7.2f}"
        )
    if not options.short:
        assert max(table["ISM"], table["SSM-VR"]) <= 3 * table["DSM"]
        assert table["FD-SSM"] <= 5 * table["DSM"]

    figure, axes = panels(4, 2, size=(3.0, 3.1))
    fields = {"exact": lambda x: target.score(x, sde, t)} | field
    for ax, (name, score) in zip(axes, fields.items(), strict=False):
        shade(ax, target.log_prob(grid(3.8), sde, t).exp(), 3.8, vmax=0.35)
        color = BLUE if name == "exact" else "black"
        arrows(ax, grid(3.4, 17), score(grid(3.4, 17)), color, scale=130, width=0.005)
        ax.set_title(name, fontsize=10)
    bars(axes[-1], table, "relative Fisher error")
    save(figure, options, "02_objectives.png")


if __name__ == "__main__":
    main(tyro.cli(Options))
