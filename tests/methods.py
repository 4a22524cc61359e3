"""The samplers that the tests go through: every exported class, with settings worth a test.

A new sampler is added here and to `SAMPLERS`, and is then held to all laws of `test_samplers.py`
and to the contract of `test_protocol.py`.
"""

from scoresde.samplers import (
    PC,
    Ancestral,
    AnnealedLangevin,
    EulerMaruyama,
    FixedLangevin,
    Langevin,
    ReverseDiffusion,
    ScaledLangevin,
)

PREDICTORS = {
    "euler_maruyama": EulerMaruyama(),
    "reverse_diffusion": ReverseDiffusion(),
    "ancestral": Ancestral(),
    "ancestral_large": Ancestral(large=True),
}
ALL = PREDICTORS | {
    "flow": EulerMaruyama(eta=0.0),
    "pc": PC(),
    "pc_2": PC(Ancestral(), Langevin(0.1), k=2),
    "pc_none": PC(None, ScaledLangevin(0.3), k=2),
    "ald": AnnealedLangevin(),
    "langevin": Langevin(),
    "scaled": ScaledLangevin(),
    "fixed": FixedLangevin(1e-5),
}

# Evaluations of N steps, as documented; what is not listed takes one for each step.
EVALUATIONS = {
    "pc": lambda n: 2 * n,
    "pc_2": lambda n: 3 * n,
    "pc_none": lambda n: 2 * n,
    "ald": lambda n: 5 * (n + 1),
}


def evaluations(name: str, steps: int) -> int:
    """What `steps` steps of the sampler of that name cost."""
    return EVALUATIONS.get(name, lambda n: n)(steps)
