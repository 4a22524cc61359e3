"""Chapter 5. One noise level: the desert fills, and the samples blur.

Noise of variance sigma^2 carries data into the empty parts, so that the score becomes learnable
there; what Langevin dynamics then draws is p_sigma, whose modes are wider by exactly sigma^2. No
single level is good at both. Small levels have one more trouble, and a cure: the gradient's
variance.

    python examples/chapters/05_one_level.py --out figures
"""

from __future__ import annotations

import torch
import tyro
from common import (
    BLUE,
    GREY,
    RED,
    Options,
    dots,
    grid,
    network,
    panels,
    relative_error,
    save,
    shade,
    train,
)

from scoresde import EDMSDE, dsm_loss
from scoresde.noise import Noise
from scoresde.objectives import power
from scoresde.samplers import FixedLangevin, correct
from scoresde.targets import SongMixture

BOX = 8.0


def main(options: Options) -> None:
    target, sde = SongMixture(), EDMSDE()  # the noise at time t is t
    data = target.sample(20_000, generator=torch.Generator().manual_seed(0))
    levels = (0.3, 2.0, 5.0) if options.short else (0.3, 0.6, 1.0, 2.0, 3.0, 5.0, 8.0)
    points = grid(BOX, 100)
    log_p = target.log_prob(points)
    desert = points[log_p < log_p.max() - 6.9]  # below a thousandth of the maximum
    n, moves = (500, 100) if options.short else (4_000, 400)
    start = BOX * (2 * torch.rand(n, 2, generator=torch.Generator().manual_seed(2)) - 1)

    rows, ends = [], {}
    print(
        "sigma   error in the desert   above the diagonal: chains, exact   mode's variance, exact"
    )
    for level in levels:
        net = network()

        def loss(g, level=level, net=net):
            x = data[torch.randint(len(data), (512,), generator=g)]
            return dsm_loss(lambda x, t: net(x), sde, x, t=level, generator=g)

        train(net, loss, steps=50 if options.short else 1_000, lr=5e-3)
        error = relative_error(net(desert), target.score(desert, sde, level))
        step = 0.05 * (1 + level**2)
        rsde = sde.reverse(lambda x, t, net=net: net(x))
        with torch.no_grad():
            x = correct(FixedLangevin(step), moves, rsde, start, level, Noise.of(3, n))
        # the variance across the line that joins the modes is that of one mode
        blur = float(((x[:, 0] - x[:, 1]) / 2**0.5).var())
        # above the other diagonal lies the mode of weight .8 and, once blurred, some of the other
        above = float((x.sum(1) > 0).float().mean())
        side = float(torch.special.ndtr(torch.tensor(50 / (1 + level**2)).sqrt()))
        true = 0.8 * side + 0.2 * (1 - side)
        rows.append((level, error, abs(above - true)))
        ends[level] = x
        print(
            f"{level:5.1f}   {error:19.4f}   {above:26.3f}, {true:.3f}"
            f"   {blur:15.2f}, {1 + level**2:5.2f}"
        )
        if not options.short:  # the step's own bias is 1 / (1 - .05 / 2)
            assert abs(blur / (1 + level**2) * (1 - 0.025) - 1) < 0.1

    # the trouble of small levels: one sample's gradient of E |s + z / sigma|^2
    print("sigma    variance of the gradient   with the control variate")
    x = target.sample(20_000, generator=torch.Generator().manual_seed(4))
    for level in (1.0, 0.1, 0.01):
        found = []
        for control_variate in (False, True):
            a = torch.full((len(x), 1), -0.1, requires_grad=True)
            value = dsm_loss(
                lambda x, t, a=a: a * x, sde, x, t=level, weight=power(0),
                control_variate=control_variate, generator=torch.Generator().manual_seed(5),
            )  # fmt: skip
            gradient = torch.autograd.grad(value.sum(), a)[0]
            found.append((float(gradient.mean()), float(gradient.var())))
        print(f"{level:5.2f}   {found[0][1]:24.4g}   {found[1][1]:24.4g}", end="")
        print(f"   (means {found[0][0]:.2f} and {found[1][0]:.2f})")
        gap, spread = found[0][0] - found[1][0], found[0][1] + found[1][1]
        assert abs(gap) <= 5 * (spread / len(x)) ** 0.5  # one mean
    assert found[1][1] < 1e-4 * found[0][1]

    figure, axes = panels(4, size=(3.4, 3.5))
    for ax, level in zip(axes, (levels[0], levels[len(levels) // 2], levels[-2]), strict=False):
        shade(ax, log_p.exp(), BOX, vmax=0.25)
        dots(ax, ends[level][:1500])
        ax.set_title(f"Langevin at σ = {level:g}")
    sigma, error, wrong = zip(*rows, strict=True)
    blur = [s**2 / (1 + s**2) for s in sigma]
    axes[3].plot(sigma, error, "o-", color=GREY, label="the score's error in the desert")
    axes[3].plot(sigma, wrong, "o-", color=RED, label="the chains' error in weight")
    axes[3].plot(sigma, blur, "-", lw=3, color=BLUE, label="blur: σ² / (1 + σ²)")
    axes[3].set(xlabel="σ", xscale="log", title="no level is good at all", ylim=(-0.02, 1.35))
    axes[3].set_xticks(sigma, [f"{s:g}" for s in sigma])
    axes[3].minorticks_off()
    axes[3].legend(frameon=False, fontsize=8, loc="upper left")
    save(figure, options.out, "05_one_level.png")


if __name__ == "__main__":
    main(tyro.cli(Options))
