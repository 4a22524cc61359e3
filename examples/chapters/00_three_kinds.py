"""Chapter 0. Three kinds of generative models.

The chapter compares a normalising flow, trained by likelihood; a generator, trained against an
adversary; and a score. All have about the same number of parameters, and are trained on the same
5,000 points for the same time of one core. Their samples and densities are compared.

    python examples/chapters/00_three_kinds.py --out figures
"""

from __future__ import annotations

import math
import time

import torch
import tyro
from common import Options, seeded, teach, weights_of
from panels import BLUE, cloud, field, grid, panels, save, shade
from rivals import against_an_adversary, by_likelihood

import scoresde
from scoresde import VESDE
from scoresde.metrics import energy_distance
from scoresde.targets import TwoMoons

REACH, N = 2.0, 5_000
FLOW, GENERATOR, SCORE = "a flow, by likelihood", "a generator, by an adversary", "a score"


def main(options: Options) -> None:
    torch.set_num_threads(1)
    target, sde, seconds = TwoMoons(), VESDE(0.02, 10.0), 0.5 if options.short else 20.0
    x, held = (target.sample(N, generator=seeded(seed)) for seed in (0, 1))
    flow, generator = by_likelihood(x, seconds), against_an_adversary(x, seconds)
    start = time.process_time()
    teach(x, sde, (32, 32, 32), steps=50)  # how many steps is that a second?
    steps = int(50 * seconds / (time.process_time() - start))
    model = teach(x, sde, (32, 32, 32), steps)

    z = torch.randn(N, 2, generator=seeded(2))
    with torch.no_grad():
        samples = {FLOW: flow.sample(z), GENERATOR: generator(z)}
    samples[SCORE] = scoresde.sample(model, sampler="fast", nfe=50, n=N, seed=2)
    known = scoresde.log_prob(model, sde, held[:300], t=0.0).value
    densities = {
        FLOW: f"{float(flow.log_prob(held).mean().detach()):.3f}",
        GENERATOR: "none",
        SCORE: f"{float(known.mean()):.3f}, by the probability flow",
    }
    sizes = dict(zip(samples, map(weights_of, (flow, generator, model)), strict=True))
    print(f"two moons, {N:,} points, {seconds:g} s of one core each")
    print("                               parameters   energy distance   mean log density held out")
    for name, drawn in samples.items():
        far = energy_distance(drawn, held)
        print(f"{name:30s} {sizes[name]:10,d} {far:17.5f}   {densities[name]}")
    exact, again = float(target.log_prob(held).mean()), energy_distance(x, held)
    print(f"{'the law itself':30s} {'':10s} {again:17.5f}   {exact:.3f}")

    figure, axes = panels(4, 2, size=(3.0, 3.1))
    points = grid(REACH)
    t = torch.tensor(math.log(0.5 / sde.sigma_min) / math.log(sde.sigma_max / sde.sigma_min))
    density = target.log_prob(points).exp()
    cloud(axes[0], density, REACH, x, "data, 1,500 of 5,000", top=1.5)
    for ax, (name, drawn) in zip(axes[1:], samples.items(), strict=False):
        cloud(ax, density, REACH, drawn, name, top=1.5, color=BLUE)
    noised = target.log_prob(points, sde, t).exp()
    fields = {axes[4]: lambda x: target.score(x, sde, t), axes[7]: lambda x: model(x, t)}
    for (ax, score), name in zip(fields.items(), ("true", "learnt"), strict=True):
        field(ax, noised, REACH, score, f"the {name} score at σ = .5", scale=100, top=1.5)
    flow_knows = flow.log_prob(points).exp()
    for ax, values, name in (
        (axes[5], flow_knows, "the flow's density"),
        (axes[6], 0 * noised, ""),
    ):
        shade(ax, values, REACH, vmin=0, vmax=1.5)
        ax.set_title(name, fontsize=10)
    axes[6].text(0, 0, "no density, no score:\nsamples are all", ha="center", va="center")
    save(figure, options, "00_three_kinds.png")


if __name__ == "__main__":
    main(tyro.cli(Options))
