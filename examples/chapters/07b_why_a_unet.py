"""Chapter 7b. Why a U-Net, and why it is given the noise level.

Networks of different shapes learn the score of 8x8 digits, each for the same seconds of one core:
the gradient of one number, an MLP, convolutions at one resolution, at three without and with skips
(a U-Net), and a U-Net without the noise level. Then three embeddings of the level, and none, are
compared on two moons, where the error is exact; and noised digits with images of random pixels.

    python examples/chapters/07b_why_a_unet.py --out figures
"""

from __future__ import annotations

import torch
import tyro
from common import Options, seeded
from panels import BLUE, GOLD, GREEN, GREY, RED, by_level, counts, curves, panels, save, strips
from torch import Tensor
from trials import LEVELS, shapes, telling, time_of

from scoresde.data import load
from scoresde.targets import TwoMoons


def nearest(x: Tensor, data: Tensor) -> Tensor:
    """Return the root mean square difference of each event from the nearest datum."""
    return torch.cdist(x.flatten(1), data.flatten(1)).amin(1) / x[0].numel() ** 0.5


def main(options: Options) -> None:
    digits, held = (part.x for part in load("digits").split(1 / 3))
    losses, model = shapes(digits, held, 0.3 if options.short else 20.0)
    told = telling(50 if options.short else 2_000)

    # the noise level, read off one datum by its distance to the nearest of the clean data
    read = {}
    moons = TwoMoons().sample(len(digits), generator=seeded(0))
    for x, what in ((moons, "2 numbers"), (digits, "64 pixels")):
        read[what] = nearest(x + torch.randn(x.shape, generator=seeded(4)), x)
        print(f"noise 1, read off {what}: {read[what].mean():.2f} ± {read[what].std():.2f}")
    # images of pixels that are drawn at random from those of all digits
    chosen = torch.randint(digits.numel(), (100_000, 64), generator=seeded(3))
    chance = digits.flatten()[chosen].reshape(-1, 1, 8, 8)
    far = {"held-out digits": nearest(held, digits), "random pixels": nearest(chance, digits)}
    low, high = far["random pixels"].min(), far["held-out digits"].max()
    print(f"to the nearest digit: at most {high:.2f} from held-out ones, ", end="")
    print(f"at least {low:.2f} from {len(chance):,} images of random pixels")
    if not options.short:
        *others, best = (found.mean() for found in losses.values())
        *ways, untold = (sum(found) for found in told.values())
        assert best < min(others)
        assert untold > 5 * max(ways)
        assert high < low

    figure, axes = panels(2, 2, size=(5.2, 3.6))
    ratios = {name: found / losses["U-Net"] for name, found in losses.items()}
    title, top = "digits: held-out loss over the U-Net's", (0.9, 1.75)
    colors = (RED, GOLD, GREEN, GREY, "black", BLUE)
    curves(axes[0], LEVELS, ratios, colors, xscale="log", xlabel="σ", title=title, ylim=top)
    by_level(axes[1], LEVELS, told, "two moons: relative Fisher error", (BLUE, GOLD, GREEN, RED))
    title, where = "noise 1, read off one noised datum", "distance to the nearest datum / √d"
    counts(axes[2], read, (GOLD, BLUE), xlabel=where, title=title)
    title, where = "random pixels make no digit", "distance to the nearest training digit / √d"
    counts(axes[3], far, (BLUE, RED), xlabel=where, title=title)
    save(figure, options, "07b_why_a_unet.png")

    sigma = torch.tensor([0.1, 0.25, 0.5, 1.0, 2.0, 4.0])
    wide = sigma[:, None, None, None]
    x = held[:1] + wide * torch.randn(6, 1, 8, 8, generator=seeded(5))
    with torch.no_grad():
        step = wide**2 * model(x, time_of(sigma))
    rows = {"digit + noise": x, "σ² score": step, "their sum": x + step}
    rows["random pixels"] = chance[:6]
    figure, (axis,) = panels(1, size=(9.0, 6.0))
    strips(axis, rows, [f"σ = {s:g}" for s in sigma.tolist()])
    save(figure, options, "07b_why_a_unet_noise.png")


if __name__ == "__main__":
    main(tyro.cli(Options))
