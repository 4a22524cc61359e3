"""The samplers that the tests go through: every exported class, with settings worth a test.

A new sampler is added here and to `SAMPLERS`, and is then held to all laws of `test_samplers.py`
and to the contract of `test_protocol.py`.
"""

from dataclasses import replace

from scoresde.samplers import (
    DDIM,
    DPM2,
    IPNDM,
    LMS,
    MALA,
    PC,
    AdaptiveSDE,
    Ancestral,
    AnnealedLangevin,
    ConsistentAnnealed,
    EulerMaruyama,
    FixedLangevin,
    Heun,
    Langevin,
    ProbabilityFlow,
    Restart,
    ReverseDiffusion,
    Sampler,
    ScaledLangevin,
    Scipy,
    TorchSDE,
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
    }
)

# Which take steps of their own, different for each sample, between the times of the grid. What
# holds for them up to a tolerance only is in `test_ode.py` and `test_adaptive.py`.
ADAPTIVE = {name for name, sampler in ALL.items() if sampler.adaptive}
FIXED = [name for name in ALL if name not in ADAPTIVE]
# Which make one system of the whole batch, where samples meet within the tolerance.
COUPLED = {"scipy"}
# Names of `SAMPLERS` that follow the probability flow, without noise.
NOISELESS = {"ddim", "euler", "heun", "dpm2", "lms", "ipndm", "dopri5", "tsit5", "scipy"}
# Whose step may add no noise.
SILENT = FLOWS.keys() | ADAPTIVE | {"heun_churn", "mala", "restart"}
# Whose run is more than its steps.
OWN_LOOP = {"ald", "heun_churn", "ipndm", "lms", "restart", "torchsde_reversible"}
# Whose evaluations are not all at times of the grid.
BETWEEN = ADAPTIVE | {"dpm2", "heun_churn", "restart", "torchsde_srk"}
# Which see the sample as x / alpha at the noise sigma / alpha alone, whatever the SDE.
RESCALED = FLOWS.keys() - {"flow"} | {
    "ancestral", "ancestral_large", "cas", "ddim_1", "ddim_half", "heun_churn", "restart",
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
        return replace(sampler, sigma_min=sampler.sigma_min * c, sigma_max=sampler.sigma_max * c)
    return sampler
