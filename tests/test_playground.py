"""Test that the playground's JavaScript computes the same numbers as the package."""

import json
import shutil
import subprocess
from pathlib import Path

import pytest
import torch
from torch import Tensor

from scoresde import VESDE, VPSDE, FlowSDE, NCSNLadder
from scoresde.sampling import SAMPLERS
from scoresde.targets import GaussianMixture

SCRIPT = Path(__file__).parent.parent / "docs" / "assets" / "playground" / "diffusion.js"
WEIGHTS, MEANS, STDS = [0.2, 0.5, 0.3], [[-2.0, 1.0], [1.5, 0.5], [0.0, -2.0]], [0.3, 0.5, 0.2]
TARGET = GaussianMixture(WEIGHTS, MEANS, stds=STDS)
PROCESSES = {
    "vesde": (VESDE(0.01, 50.0), [0.01, 50.0]),
    "vpsde": (VPSDE(), [0.1, 20.0]),
    "flow": (FlowSDE(), []),
    "ladder": (NCSNLadder.geometric(0.01, 50.0, 9), [9, 0.01, 50.0]),
}
NAMES = ("ddim", "heun", "em", "ancestral", "pc", "ald")  # of both sides
N = 5  # particles

# What JavaScript finds for cases.
FOUND = """(D, cases) => cases.map(({ sde, args, sampler, steps, mixture, z, draws }) => {
  const process = D.SDES[sde](...args);
  const times = D.grid(process, steps);
  const starts = z.map((pair) => D.start(mixture, process, pair));
  const ends = starts.map((p, i) => {
    let k = 0;
    return D.run(mixture, process, sampler, times, p, () => draws[k++][i]);
  });
  return { starts, ends };
})"""
PROGRAM = f"""
const [D, fs] = [require(process.argv[1]), require("fs")];
console.log(JSON.stringify(({FOUND})(D, JSON.parse(fs.readFileSync(0)))));
"""


class Recorded:
    """Noise that writes down what it gave, in order."""

    def __init__(self) -> None:
        self.draws: list[list[list[float]]] = []
        self.generator = torch.Generator().manual_seed(0)

    def normal(self, like: Tensor, t: Tensor, k: int = 0) -> Tensor:
        z = torch.randn(like.shape, generator=self.generator, dtype=like.dtype)
        self.draws.append(z.tolist())
        return z

    def increment(self, like: Tensor, s: Tensor, t: Tensor) -> Tensor:
        return self.normal(like, t)

    def fork(self, k: int) -> "Recorded":
        return self


def in_python(name: str, sampler: str, steps: int) -> tuple[dict[str, object], Tensor, Tensor]:
    """Return the case for JavaScript, and the package's starts and ends."""
    sde, args = PROCESSES[name]
    spacing = None if sde.levels is not None else "log_snr"
    times = sde.times(None if sde.levels is not None else steps, spacing=spacing)
    moments, noise = TARGET.moments(), Recorded()
    z = torch.randn(N, 2, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    start = sde.prior(moments).sample(z)
    rsde = sde.reverse(TARGET.at(sde))
    x = start.clone()
    for state in SAMPLERS[sampler].trajectory(rsde, x.clone(), times, noise):
        x = state.x
    end = rsde.denoise(x, times[-1])
    mixture = [
        {"weight": w, "mean": m, "std": s} for w, m, s in zip(WEIGHTS, MEANS, STDS, strict=True)
    ]
    case = dict(sde=name, args=args, sampler=sampler, steps=steps, mixture=mixture)
    return case | dict(z=z.tolist(), draws=noise.draws), start, end


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("node") is None, reason="node is not installed")
def test_the_same_starts_and_noise_give_the_same_particles_in_javascript_and_python():
    known = [in_python(name, sampler, 12) for name in PROCESSES for sampler in NAMES]
    done = subprocess.run(
        ["node", "-e", PROGRAM, str(SCRIPT)],
        input=json.dumps([case for case, _, _ in known]),
        capture_output=True, text=True, check=True, timeout=60,
    )  # fmt: skip
    found = json.loads(done.stdout)
    assert len(found) == len(known) == 24
    for (case, start, end), answer in zip(known, found, strict=True):
        what = (case["sde"], case["sampler"])
        starts, ends = (torch.tensor(answer[k], dtype=torch.float64) for k in ("starts", "ends"))
        assert (starts - start).abs().max() < 1e-9 * start.abs().max(), what
        assert (ends - end).abs().max() < 1e-8, what
