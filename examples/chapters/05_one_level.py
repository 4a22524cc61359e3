"""Chapter 5. One noise level: the score is learnt everywhere, and the samples are blurred.

With noise of variance sigma^2 there are data between the modes, so that the score can be learnt
there. But Langevin dynamics then draws from p_sigma, whose modes are wider by sigma^2. No single
level is good at both. At small levels the variance of the gradient is large; a control variate
reduces it.

    python examples/chapters/05_one_level.py --out figures
"""

from __future__ import annotations

from functools import partial

import common
import torch
import tyro
from common import BOX, Options, chains, relative_error, seeded
from panels import BLUE, GREY, RED, cloud, curves, grid, panels, save, tick

from scoresde import EDMSDE, dsm_loss
from scoresde.objectives import power
from scoresde.samplers import FixedLangevin
from scoresde.targets import SongMixture


def main(options: Options) -> None:
    target, sde = SongMixture(), EDMSDE()  # the noise at time t is t
    data = target.sample(20_000, generator=seeded(0))
    levels = (0.3, 2.0, 5.0) if options.short else (0.3, 0.6, 1.0, 2.0, 3.0, 5.0, 8.0)
    log_p = target.log_prob(grid(BOX, 100))
    desert = grid(BOX, 100)[log_p < log_p.max() - 6.9]  # below a thousandth of the maximum
    n, moves, steps = (500, 100, 50) if options.short else (4_000, 400, 1_000)
    desert_errors, weight_errors, ends, start = [], [], {}, common.in_the_box(n)
    print("sigma   error in the desert   above the diagonal: chains, exact", end="")
    print("   mode's variance, exact")
    for level in levels:
        net, width = common.network(), 1 + level**2
        score = lambda x, t, net=net: net(x)  # noqa: E731
        loss = partial(dsm_loss, score, sde, t=level)
        common.train(net, common.batches(data, loss), steps=steps, lr=5e-3)
        x = chains(score, sde, FixedLangevin(0.05 * width), moves, start, level, seed=3)
        ends[level] = x
        # the variance across the line that joins the modes is that of one mode
        blur = float(((x[:, 0] - x[:, 1]) / 2**0.5).var())
        # above the other diagonal lies the mode of weight .8 and, once blurred, some of the other
        side = float(torch.special.ndtr(torch.tensor(50 / width).sqrt()))
        above, true = common.upper(x), 0.8 * side + 0.2 * (1 - side)
        desert_errors.append(relative_error(net(desert), target.score(desert, sde, level)))
        weight_errors.append(abs(above - true))
        print(f"{level:5.1f}   {desert_errors[-1]:19.4f}   {above:26.3f}, {true:.3f}", end="")
        print(f"   {blur:15.2f}, {width:5.2f}")
        if not options.short:  # the step's own bias is 1 / (1 - .05 / 2)
            assert abs(blur / width * (1 - 0.025) - 1) < 0.1

    # the trouble of small levels: one sample's gradient of E |s + z / sigma|^2
    print("sigma    variance of the gradient   with the control variate")
    x = target.sample(20_000, generator=seeded(4))
    for level in (1.0, 0.1, 0.01):
        means, variances = [], []
        for control_variate in (False, True):
            a = torch.full((len(x), 1), -0.1, requires_grad=True)
            loss = partial(dsm_loss, lambda x, t, a=a: a * x, sde, t=level, weight=power(0))
            value = loss(x, control_variate=control_variate, generator=seeded(5))
            gradient = torch.autograd.grad(value.sum(), a)[0]
            means.append(float(gradient.mean()))
            variances.append(float(gradient.var()))
        print(f"{level:5.2f}   {variances[0]:24.4g}   {variances[1]:24.4g}", end="")
        print(f"   (means {means[0]:.2f} and {means[1]:.2f})")
        assert abs(means[0] - means[1]) <= 5 * (sum(variances) / len(x)) ** 0.5  # one mean
    assert variances[1] < 1e-4 * variances[0]

    figure, axes = panels(4, size=(3.4, 3.5))
    for ax, level in zip(axes, (levels[0], levels[len(levels) // 2], levels[-2]), strict=False):
        cloud(ax, log_p.exp(), BOX, ends[level], f"Langevin at σ = {level:g}")
    blur = [s**2 / (1 + s**2) for s in levels]
    axes[3].plot(levels, blur, lw=3, color=BLUE, label="blur: σ² / (1 + σ²)")
    lines = {"the score's error in the desert": desert_errors}
    lines["the chains' error in weight"] = weight_errors
    look = dict(xlabel="σ", xscale="log", title="no level is good at all", ylim=(-0.02, 1.35))
    curves(axes[3], levels, lines, (GREY, RED), **look)
    tick(axes[3], levels)
    save(figure, options, "05_one_level.png")


if __name__ == "__main__":
    main(tyro.cli(Options))
