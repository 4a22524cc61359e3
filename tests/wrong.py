"""Measure the smallest wrong factor that the tests of each law catch.

`python tests/wrong.py [LAW ...]` multiplies, law by law, one result of the package by 1 + d and
runs the tests of that law, for d between 1 and 1e-12. The least d at which one of them fails is
what `docs/laws.md` shows. The check of closed forms when an SDE is made is switched off, so that
it is the law that catches the factor. `--check` asks only that the factors of the page are caught,
which the nightly run does.
"""

from __future__ import annotations

import argparse
import functools
import importlib
import os
import re
import sys
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

TESTS = Path(__file__).parent
PAGE = TESTS.parent / "docs/laws.md"
FACTORS = (1.0, 0.3, 0.1, 0.03, 0.01, 3e-3, *(10.0**-k for k in range(3, 13)))


def whole(out: Any, d: float, _: tuple[Any, ...]) -> Any:
    """Multiply the result, or every number in a tuple of results."""
    if isinstance(out, tuple):
        return (
            type(out)(*(x * (1 + d) for x in out))
            if hasattr(out, "_fields")
            else tuple(x * (1 + d) for x in out)
        )
    return out * (1 + d)


def part(i: int) -> Callable[..., Any]:
    """Multiply the i-th of several results."""

    def change(out: Any, d: float, _: tuple[Any, ...]) -> Any:
        parts = [x * (1 + d) if j == i else x for j, x in enumerate(out)]
        return type(out)(*parts) if hasattr(out, "_fields") else tuple(parts)

    return change


def first_row(out: Any, d: float, _: tuple[Any, ...]) -> Any:
    """Multiply the first sample of a batch."""
    scale = out.new_ones(out.shape[:1])
    scale[:1] += d
    return out * scale.reshape(-1, *[1] * (out.ndim - 1))


def first_of_many(out: Any, d: float, args: tuple[Any, ...]) -> Any:
    """Multiply the first sample of a batch that has others."""
    return first_row(out, d, args) if out.shape[0] > 1 else out


def leaking(out: Any, d: float, _: tuple[Any, ...]) -> Any:
    """Add a part of the other samples of the batch."""
    return out + d * out.flip(0)


def at_the_edge(out: Any, d: float, _: tuple[Any, ...]) -> Any:
    """Multiply the first row of an image."""
    scale = out.new_ones(out.shape[-1])
    scale[:1] += d
    return out * scale


def divided(out: Any, d: float, _: tuple[Any, ...]) -> Any:
    """Divide the result."""
    return out / (1 + d)


def late(out: Any, d: float, args: tuple[Any, ...]) -> Any:
    """Divide at times after a third of [0, T]."""
    sde, t = args
    return out / (1 + d * (t > sde.T / 3))


def at_scalar_times(out: Any, d: float, args: tuple[Any, ...]) -> Any:
    """Multiply where the time has no axis."""
    return out * (1 + d) if args[-1].ndim == 0 else out


class Alternating:
    """Multiply every other result, as a function with a memory would."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, out: Any, d: float, args: tuple[Any, ...]) -> Any:
        """Multiply the result of every second call."""
        self.calls += 1
        return whole(out, d, args) if self.calls % 2 else out


@dataclass(frozen=True)
class Wrong:
    """One result of the package, and how it is made wrong."""

    where: str
    what: str
    change: Callable[..., Any] = whole

    def apply(self, d: float) -> None:
        """Replace the function wherever the package holds it."""
        module, _, path = self.where.partition(":")
        owner: Any = importlib.import_module(f"scoresde.{module}")
        *parents, name = path.split(".")
        for parent in parents:
            owner = getattr(owner, parent)
        right = vars(owner)[name]

        @functools.wraps(right)
        def wrong(*args: Any, **kwargs: Any) -> Any:
            return self.change(right(*args, **kwargs), d, args)

        setattr(owner, name, wrong)
        for other in list(sys.modules.values()):
            if getattr(other, "__name__", "").startswith("scoresde"):
                for key, value in list(vars(other).items()):
                    if value is right:
                        setattr(other, key, wrong)


WRONG = {
    1: Wrong("sde.paths:VPSDE.coefficients", "$g^2$ of VP", part(1)),
    2: Wrong("sde.kernel:Kernel.transition", "$a$ of the transition", part(0)),
    3: Wrong("sde.kernel:Kernel.transition", "$a$ of the transition", part(0)),
    4: Wrong("sde.kernel:Kernel.log_snr", "log-SNR after $T/3$", late),
    5: Wrong("sde.process:SDE.prior_mismatch", "the mismatch"),
    6: Wrong("sde.paths:SubVPSDE.sigma", r"$\sigma$ of sub-VP"),
    7: Wrong("sde.paths:VPSDE.alpha", r"$\alpha$ of VP"),
    8: Wrong("sde.kernel:Kernel.coefficients", "$g^2$ as derived", part(1)),
    9: Wrong("sde.paths:VPSDE.sigma", r"$\sigma$ of VP at times without an axis", at_scalar_times),
    10: Wrong("sde.kernel:Kernel.transition", "$v$ of the transition", part(1)),
    11: Wrong("sde.ladder:NCSNLadder.sigma", r"$\sigma$ of the ladder"),
    12: Wrong("sde.ladder:NCSNLadder.sigma", r"$\sigma$ of the ladder after $T/3$", late),
    13: Wrong("sde.process:SDE.index", "the index"),
    14: Wrong("objectives.denoising:dsm_loss", "the loss"),
    15: Wrong("samplers.flow.predictors:ReverseDiffusion.step", "a step of reverse diffusion"),
    16: Wrong("samplers.langevin.annealed:AnnealedLangevin.step", "a step"),
    17: Wrong("sde.kernel:Kernel.transition", "$v$ of the transition", part(1)),
    18: Wrong("sde.reverse:ReverseSDE.drift", "the drift"),
    19: Wrong("sde.reverse:ReverseSDE.drift", "the drift"),
    20: Wrong("sde.reverse:ReverseSDE.diffusion", "the diffusion"),
    21: Wrong("samplers.flow.euler:DDIM.step", "a step of DDIM"),
    22: Wrong("sde.reverse:ReverseSDE.score", "the score"),
    23: Wrong("sde.reverse:ReverseSDE.score", "the score of every other evaluation", Alternating()),
    24: Wrong("samplers.flow.heun:Heun.step", "a step of Heun"),
    25: Wrong("samplers.flow.heun:Heun.step", "a step of Heun"),
    26: Wrong("samplers.flow.predictors:Ancestral.step", "an ancestral step"),
    27: Wrong("samplers.flow.predictors:EulerMaruyama.step", "the first sample", first_row),
    28: Wrong("noise.source:Noise.normal", "the noise of the first of several", first_of_many),
    29: Wrong("noise.source:Noise.normal", "the noise of every other call", Alternating()),
    30: Wrong("samplers.flow.predictors:EulerMaruyama.step", "a step of Euler-Maruyama"),
    31: Wrong("samplers.langevin.pc:PC.step", "a step"),
    32: Wrong("samplers.langevin.langevin:FixedLangevin.step_size", "the size of the step"),
    33: Wrong("samplers.langevin.annealed:AnnealedLangevin.step", "a step"),
    34: Wrong("samplers.langevin.langevin:Langevin.step_size", "the size of the step"),
    35: Wrong("samplers.sampler:Sampler.cost", "the documented evaluations"),
    36: Wrong("sde.process:SDE.times", "the grid"),
    37: Wrong("samplers.sampler:Sampler.finish", "every other sample", Alternating()),
    38: Wrong("sde.reverse:ReverseSDE.denoise", "Tweedie's formula"),
    39: Wrong("noise.source:Noise.increment", "every other increment", Alternating()),
    40: Wrong("objectives.perturbed:weight_at", "the weight at every other call", Alternating()),
    41: Wrong("objectives.denoising:dsm_floor", "the floor"),
    42: Wrong("objectives.implicit:_trace", "the trace"),
    43: Wrong("objectives.denoising:dsm_loss", "the loss"),
    44: Wrong("objectives.perturbed:weight_at", "the weight"),
    45: Wrong("sde.coordinates:c_noise", "the noise level given to the network"),
    46: Wrong("objectives.perturbed:event_sum", "the loss of the first sample", first_of_many),
    47: Wrong("likelihood.flow:Flow.divergence", "the divergence of the score", part(1)),
    48: Wrong("likelihood.flow:Flow.divergence", "the divergence of the score", part(1)),
    49: Wrong("divergence:hutchinson", "the estimate", part(1)),
    50: Wrong("likelihood.bits:bits_per_dim", "the bits"),
    51: Wrong("sde.moments:Moments.log_prob", "the log-density of the prior"),
    52: Wrong("guidance.classified:Classified.__call__", "the guided score"),
    54: Wrong("guidance.between:Between.__call__", "the guided score"),
    55: Wrong("nn.unet:UNet.forward", "what leaks from one sample to another", leaking),
    57: Wrong("nn.unet:UNet.forward", "the first row of pixels", at_the_edge),
    60: Wrong("nn.unet:UNet.forward", "every other output", Alternating()),
    63: Wrong("ema.profile:Exponential.decay_at", "the decay"),
    67: Wrong("guidance.composed:ByGauss.combined", "the composed score"),
    69: Wrong("sde.bridge:BrownianBridgeSDE.sigma", r"$\sigma$ of the bridge"),
    70: Wrong("guidance.krylov:solve", "the solution of the normal equations", part(0)),
    71: Wrong("noise.source:Noise.normal", "the noise"),
    72: Wrong("samplers.posteriors.gibbs:SplitGibbs.alternated", "the alternated state"),
    73: Wrong("samplers.langevin.impute:Impute.step", "a step"),
    77: Wrong("sde.ito:ItoSDE.sigma", r"$\sigma$ of a drift and diffusion"),
    78: Wrong("likelihood.flow:error_of_two", "the bar of the solver, divided", divided),
    80: Wrong("objectives.weights:flow", "the weight of flow matching"),
}
"""What is made wrong for each law that has a measured factor on the page."""


def node_ids(law: int) -> list[str]:
    """Return the tests that the page names for a law, as pytest writes them."""
    row = re.search(rf"^\| L{law} \|.*$", PAGE.read_text(), re.MULTILINE)
    assert row is not None, f"no law {law}"
    found = re.findall(r"`(\w+)`: `(\w+)`", row[0])
    return [f"{TESTS}/test_{file}.py::test_{name}" for file, name in found]


def caught(law: int, d: float) -> bool:
    """Return True if a test of the law fails when its result is multiplied by 1 + d.

    The tests run in a child of this process, which has imported everything.
    """
    child = os.fork()
    if not child:
        code = 2
        try:
            code = int(_run(law, d))
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if code not in (0, 1):
        raise RuntimeError(f"the tests of law {law} did not run: exit {code}")
    return code == 1


class _WithoutShrinking:
    """Define a plugin of pytest: stop at the first counterexample."""

    def pytest_collection_finish(self) -> None:
        """Load a profile without the phase that makes a counterexample small."""
        from hypothesis import Phase, settings

        ci = settings.get_profile("ci")
        settings.register_profile("wrong", parent=ci, phases=[Phase.explicit, Phase.generate])
        settings.load_profile("wrong")


def _run(law: int, d: float) -> int:
    """Run the tests of a law under a wrong factor, and return pytest's exit code."""
    import pytest

    if not os.environ.get("WRONG_SHOW"):
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    if d:
        importlib.import_module("scoresde.sde.process").check_closed_forms = lambda *_: None
        WRONG[law].apply(d)
    options = ["-x", "-q", "-n", "0", "-p", "no:cacheprovider", "--rootdir", str(TESTS.parent)]
    options += ["-W", "ignore::pytest.PytestAssertRewriteWarning"]
    return pytest.main([*options, *node_ids(law)], plugins=[_WithoutShrinking()])


def least(law: int) -> float | None:
    """Return the least factor that is caught, by bisection; None if a factor 2 is not."""
    if caught(law, 0.0):
        raise RuntimeError(f"the tests of law {law} fail with nothing wrong")
    if not caught(law, FACTORS[0]):
        return None
    low, high = 0, len(FACTORS)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if caught(law, FACTORS[middle]) else (low, middle)
    return FACTORS[low]


def shown(d: float | None) -> str:
    """Return a factor as the page shows it."""
    return "none below 2" if d is None else f"`1 + {d:g}`"


def promised(law: int) -> float:
    """Return the factor that the page shows for a law, less 1."""
    row = re.search(rf"^\| L{law} \|.*`1 \+ ([\de.-]+)` \|$", PAGE.read_text(), re.MULTILINE)
    if row is None:
        raise RuntimeError(f"the page shows no factor for law {law}")
    return float(row[1])


def main() -> None:
    """Print the smallest wrong factor of each law, or check those of the page."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("laws", nargs="*", type=int, default=sorted(WRONG))
    parser.add_argument("--check", action="store_true", help="only ask whether the page is true")
    options = parser.parse_args()
    missed = []
    for law in options.laws:
        if options.check:
            found = promised(law)
            if not caught(law, found):
                missed.append(law)
            print(f"L{law}: {shown(found)} {'missed' if law in missed else 'caught'}", flush=True)
        else:
            print(f"L{law}: {WRONG[law].what} x {shown(least(law))}", flush=True)
    if missed:
        sys.exit(f"laws that no longer catch their factor: {missed}")


if __name__ == "__main__":
    import scoresde.arena  # what the tests import, once for all children
    import scoresde.training  # noqa: F401

    main()
