"""Compare the rounds of `Parallel` with the evaluations of the sampler, on the packaged digits.

For each sampler and tolerance: the evaluations of the sampler alone, the rounds that follow one
another, the evaluations in all, and how far the samples are from the sampler's own, as the root
mean square over pixels in [-1, 1], its median and largest over samples.

    python examples/benchmarks/parallel.py            # ten minutes
    python examples/benchmarks/parallel.py --short    # seconds
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import tyro

from scoresde import SAMPLERS, Run, load
from scoresde.samplers import Parallel


@dataclass(frozen=True)
class Options:
    """Choose what to run."""

    samplers: tuple[str, ...] = ("ddim", "dpmpp_2m", "ancestral", "pc", "dpmpp_2m_sde")
    """Names of samplers."""
    steps: int = 100
    """Steps of each."""
    tolerances: tuple[float, ...] = (1e-2, 1e-3)
    """Tolerances."""
    widths: tuple[int, ...] = (20, 200)
    """Evaluations of a sample at a time."""
    n: int = 8
    """Samples, of seed 1."""
    short: bool = False
    """One sampler, one sample and few steps."""


def main(options: Options) -> None:
    """Print the table."""
    if options.short:
        options = Options(("ddim",), steps=10, tolerances=(1e-2,), widths=(10,), n=1)
    torch.set_num_threads(1)
    model = load("mnist")
    print("sampler        alone  tolerance  width  rounds (most)  in all  difference (most)")
    for name in options.samplers:
        given = dict(n=options.n, steps=options.steps, seed=1, denoise=False, progress=False)
        alone = Run.of(model, sampler=name, **given).draw()
        for tolerance in options.tolerances:
            for width in options.widths:
                method = Parallel(SAMPLERS[name], tolerance, width)
                found = Run.of(model, sampler=method, **given).draw()
                rounds = found.info["sequential"]
                off = (found.x - alone.x).square().flatten(1).mean(1).sqrt()
                print(
                    f"{name:13} {alone.nfe:6} {tolerance:10g} {width:6} "
                    f"{rounds.mean():7.1f} {rounds.max():7.0f} {found.nfe:7} "
                    f"{off.median():10.1e} {off.max():8.1e}",
                    flush=True,
                )


if __name__ == "__main__":
    main(tyro.cli(Options))
