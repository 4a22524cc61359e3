"""The samplers that the tests go through: every exported class, with settings worth a test.

A new sampler is added here and to `SAMPLERS`, and is then held to all laws of `test_samplers.py`
and to the contract of `test_protocol.py`.
"""

from dataclasses import replace

import torch

from scoresde import Moments, Pilot
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

# what a pilot run on some data might have told
PILOT = Pilot.measure(
    torch.linspace(-6, 6, 12, dtype=torch.float64),
    torch.randn(9, 12, generator=torch.Generator().manual_seed(0), dtype=torch.float64),
    Moments(0.1, var=0.4),
    12,
)
PREDICTORS = {
    "euler_maruyama": EulerMaruyama(),
    "reverse_diffusion": ReverseDiffusion(),
    "ancestral": Ancestral(),
    "ancestral_large": Ancestral(large=True),
    "ddim_1": DDIM(1.0),
}
# Without noise: what follows the probability flow.
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
    PREDICTORS
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
        "dpmpp_sde": DPMSolverPP(order=1, tau=1.0),
        "dpmpp_2m_sde": DPMSolverPP(tau=1.0),
        "dpmpp_3m_sde": DPMSolverPP(order=3, tau=1.0),
        "sa_solver": SASolver(),
        "er_sde": ERSDE(),
        "fast_sde": Fast(tau=0.3),
    }
)

# Which take steps of their own, different for each sample, between the times of the grid. What
# holds for them up to a tolerance only is in `test_ode.py` and `test_adaptive.py`.
ADAPTIVE = {name for name, sampler in ALL.items() if sampler.adaptive}
FIXED = [name for name in ALL if name not in ADAPTIVE]
# Which make one system of the whole batch, where samples meet within the tolerance.
COUPLED = {"scipy"}
# Names of `SAMPLERS` that follow the probability flow, without noise.
NOISELESS = FLOWS.keys() | {"euler", "dopri5", "tsit5", "scipy"}
# Whose step may add no noise.
SILENT = FLOWS.keys() | ADAPTIVE | {"heun_churn", "mala", "restart", "sa_solver"}
MULTISTEP = {
    "deis", "dpmpp_2m", "dpmpp_2m_sde", "dpmpp_3m", "dpmpp_3m_sde", "er_sde", "exponential",
    "fast", "fast_pilot", "fast_sde", "sa_solver", "unipc", "unipc_2",
}  # fmt: skip
# Whose run is more than its steps.
OWN_LOOP = {"ald", "heun_churn", "ipndm", "lms", "restart", "torchsde_reversible"} | MULTISTEP
# Whose evaluations are not all at times of the grid.
BETWEEN = ADAPTIVE | {"dpm2", "dpmpp_2s", "heun_churn", "restart", "seeds_2", "torchsde_srk"}
# Which bring a Gaussian or noise levels of their own, that do not move with the data.
ROOTED = {"er_sde", "fast_pilot"}
# Which see the sample as x / alpha at the noise sigma / alpha alone, whatever the SDE.
RESCALED = FLOWS.keys() - {"flow"} | {
    "ancestral", "ancestral_large", "cas", "ddim_1", "ddim_half", "dpmpp_2m_sde", "dpmpp_3m_sde",
    "dpmpp_sde", "er_sde", "fast_sde", "heun_churn", "restart", "sa_solver", "seeds_2",
}  # fmt: skip

# Evaluations of N steps, as documented; what is not listed takes one for each step.
EVALUATIONS = {
    "pc": lambda n: 2 * n,
    "pc_2": lambda n: 3 * n,
    "pc_none": lambda n: 2 * n,
    "ald": lambda n: 5 * (n + 1),
    "heun": lambda n: 2 * n,
    "heun_churn": lambda n: 2 * n,
    "dpm2": lambda n: 2 * n,
    "dpmpp_2s": lambda n: 2 * n,
    "seeds_2": lambda n: 2 * n,
    "restart": lambda n: 2 * n + 12,
    "torchsde_srk": lambda n: 2 * n,
    "torchsde_heun": lambda n: 2 * n,
    "torchsde_reversible": lambda n: n + 1,
    "mala": lambda n: 4 * n,
}


def evaluations(name: str, steps: int) -> int:
    """What `steps` steps of the sampler of that name cost."""
    return EVALUATIONS.get(name, lambda n: n)(steps)


def scaled(name: str, c: float) -> Sampler:
    """The sampler for noise and data `c` times as large."""
    sampler = ALL[name]
    if name == "fixed":
        return replace(sampler, epsilon=sampler.epsilon * c**2)
    if name == "restart":
        wider = (
            replace(stretch, sigma_min=stretch.sigma_min * c, sigma_max=stretch.sigma_max * c)
            for stretch in sampler.stretches
        )
        return replace(sampler, stretches=tuple(wider))
    if name == "sa_solver":
        low, high = sampler.window
        return replace(sampler, window=(low * c, high * c))
    return sampler
