"""List the samplers that are tested: every name, and further settings.

What a sampler is, it says itself; a name in `SAMPLERS` is held to all laws of `test_samplers.py`
and to the contract of `test_protocol.py` without an entry here.
"""

import re
from dataclasses import replace
from pathlib import Path

import torch

from scoresde import SAMPLERS, Moments, Pilot
from scoresde.samplers import (
    DDIM,
    DEIS,
    DPM2,
    ERSDE,
    IPNDM,
    LMS,
    MALA,
    PC,
    AdaptiveSDE,
    Ancestral,
    AnnealedLangevin,
    ConsistentAnnealed,
    DPMSolverPP,
    EulerMaruyama,
    Fast,
    FixedLangevin,
    Heun,
    Langevin,
    ProbabilityFlow,
    Restart,
    ReverseDiffusion,
    Sampler,
    SASolver,
    ScaledLangevin,
    Scipy,
    TauMultistep,
    TorchSDE,
    TwoStage,
    UniPC,
)
from scoresde.sde import SDE

# a pilot measured on some data
PILOT = Pilot.measure(
    torch.linspace(-6, 6, 12, dtype=torch.float64),
    torch.randn(9, 12, generator=torch.Generator().manual_seed(0), dtype=torch.float64),
    Moments(0.1, var=0.4),
    12,
)
PREDICTORS = {
    "em": EulerMaruyama(),
    "reverse_diffusion": ReverseDiffusion(),
    "ancestral": Ancestral(),
    "ancestral_large": Ancestral("large"),
    "ddim_1": DDIM(1.0),
}
# Without noise: samplers that follow the probability flow.
FLOWS = {
    "flow": EulerMaruyama(eta=0.0),
    "ddim": DDIM(),
    "heun": Heun(),
    "dpm2": DPM2(),
    "lms": LMS(),
    "ipndm": IPNDM(),
    "exponential": TauMultistep(order=4, corrector=2),
    "dpmpp_1s": DPMSolverPP(order=1),
    "dpmpp_2s": TwoStage(),
    "dpmpp_2m": DPMSolverPP(),
    "dpmpp_3m": DPMSolverPP(order=3),
    "unipc_2": UniPC(2, 2),
    "unipc": UniPC(),
    "deis": DEIS(),
    "fast": Fast(),
    "fast_pilot": Fast(pilot=PILOT),
}
ALL = (
    {name: sampler for name, sampler in SAMPLERS.items() if name != "euler"}
    | PREDICTORS
    | FLOWS
    | {
        "ddim_half": DDIM(0.5),
        "heun_churn": Heun(churn=3.0, s_noise=1.007),
        "restart": Restart(),
        "cas": ConsistentAnnealed(0.5),
        "pc": PC(),
        "pc_2": PC(Ancestral(), Langevin(0.1), k=2),
        "pc_none": PC(None, ScaledLangevin(0.3), k=2),
        "ald": AnnealedLangevin(),
        "langevin": Langevin(),
        "scaled": ScaledLangevin(),
        "fixed": FixedLangevin(1e-5),
        "mala": MALA(),
        "dopri5": ProbabilityFlow(),
        "tsit5": ProbabilityFlow("tsit5", 1e-6, 1e-5),
        "scipy": Scipy(),
        "adaptive": AdaptiveSDE(),
        "torchsde": TorchSDE(),
        "torchsde_srk": TorchSDE("srk"),
        "torchsde_heun": TorchSDE("heun"),
        "torchsde_reversible": TorchSDE("reversible_heun"),
        "seeds_2": TwoStage(r=0.4, tau=1.0),
        "dpmpp_1s_sde": DPMSolverPP(order=1, tau=1.0),
        "dpmpp_2m_sde": DPMSolverPP(tau=1.0),
        "dpmpp_3m_sde": DPMSolverPP(order=3, tau=1.0),
        "sa_solver": SASolver(),
        "er_sde": ERSDE(),
        "fast_sde": Fast(tau=0.3),
    }
)

# What holds for adaptive steps only up to a tolerance is in `test_ode.py` and `test_adaptive.py`.
ADAPTIVE = {name for name, sampler in ALL.items() if sampler.adaptive}
FIXED = [name for name in ALL if name not in ADAPTIVE]
COUPLED = {name for name, sampler in ALL.items() if sampler.coupled}
# Samplers whose step adds no noise, at some noise levels or at all.
SILENT = {name for name, sampler in ALL.items() if not sampler.stochastic}
SILENT |= ADAPTIVE | {"heun_churn", "mala", "restart", "sa_solver"}
# Samplers whose runs do more than single steps.
OWN_LOOP = {
    name
    for name, sampler in ALL.items()
    if type(sampler).trajectory not in (Sampler.trajectory, TorchSDE.trajectory)
} | {"torchsde_reversible"}
# Samplers with a fixed Gaussian or fixed noise levels, which do not shift with the data.
ROOTED = {"er_sde", "fast_pilot"}
# Samplers that use only x / alpha and the noise sigma / alpha, whatever the SDE.
RESCALED = FLOWS.keys() - {"flow"} | {
    "ancestral", "ancestral_large", "cas", "ddim_1", "ddim_half", "dpmpp_1s_sde", "dpmpp_2m_sde",
    "dpmpp_3m_sde", "dpmpp_sde", "er_sde", "fast_sde", "heun_churn", "restart", "sa_solver",
    "seeds_2",
}  # fmt: skip


def coarse(name: str, tolerance: float = 0.1) -> Sampler:
    """Return the sampler of a name, an adaptive one with a large tolerance and so few steps."""
    sampler = (SAMPLERS | ALL)[name]
    return replace(sampler, rtol=tolerance, atol=tolerance) if sampler.adaptive else sampler


def in_turn(names, others, k):
    """Return every name with k of the others in turn: all are met, though not all together."""
    others = list(others)
    return [
        (name, others[(k * i + j) % len(others)]) for i, name in enumerate(names) for j in range(k)
    ]


def can_run(name: str, sde: SDE) -> bool:
    """Return False for a method that evaluates the score between the levels of a ladder."""
    return not (SAMPLERS[name].between and sde.levels)


README = (Path(__file__).parent.parent / "README.md").read_text()


def in_the_readme() -> set[str]:
    """Return the names of samplers that the README's table explains."""
    rows = (line for line in README.splitlines() if re.match(r'\| `"', line))
    return {name for row in rows for name in re.findall(r'`"(\w+)"`', row.split("|")[1])}


def documented(name: str, steps: int) -> int:
    """Return the evaluations of N steps in the README's table of samplers."""
    row = next(line for line in README.splitlines() if re.match(rf'\|.*`"{name}"`.*\|', line))
    formula = row.strip("| ").split("|")[-1].strip()
    formula = re.sub(r"(?<=[\w)]) (?=[\w(])", " * ", formula)
    sampler = SAMPLERS[name]
    interval = sampler.intervals[0] if name == "restart" else sampler
    values = {"N": steps, "k": getattr(interval, "k", None), "M": interval.steps}
    return int(eval(formula, {}, values))


def scaled(name: str, c: float) -> Sampler:
    """Return the sampler for noise and data `c` times as large."""
    sampler = (SAMPLERS | ALL)[name]
    if name == "fixed":
        return replace(sampler, epsilon=sampler.epsilon * c**2)
    if name == "restart":
        wider = (
            replace(interval, sigma_min=interval.sigma_min * c, sigma_max=interval.sigma_max * c)
            for interval in sampler.intervals
        )
        return replace(sampler, intervals=tuple(wider))
    if name == "sa_solver":
        low, high = sampler.window
        return replace(sampler, window=(low * c, high * c))
    return sampler
