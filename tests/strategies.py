"""Define strategies of hypothesis: SDEs, shapes, times, Gaussian data, generators.

`KINDS` are the classes of the table of SDEs, and `SDES` holds at least one instance of each, and of
a user's, for tests that go through all of them by name; `sdes()` draws any of those kinds with its
parameters. A new row of the table is in all of them, with default parameters. Everything stays
within what the laws promise: alpha(T) >= 1e-3, noise ratios up to 1e5.
"""

import math
from dataclasses import dataclass

import torch
from hypothesis import strategies as st
from torch import Tensor

from scoresde.sde import (
    EDMSDE,
    SDE,
    VESDE,
    VPSDE,
    BetaLadder,
    CosineSDE,
    FlowSDE,
    Moments,
    NCSNLadder,
    SubVPSDE,
    expand,
)
from scoresde.sde import SDES as KINDS


@dataclass(frozen=True)
class UserSDE(SDE):
    """Define a user's own SDE: two functions of time, and everything else derived."""

    decay: float = 2.0
    noise: float = 1.5

    def alpha(self, t: Tensor) -> Tensor:
        return 1 / (1 + self.decay * t)

    def sigma(self, t: Tensor) -> Tensor:
        return self.noise * t * (1 + t)


TABLES = {
    "NCSNLadder": [0.01 * 2**i for i in range(13)],
    "BetaLadder": torch.linspace(1e-4, 0.02, 1000),
}


def made(kind: type[SDE], **fields: object) -> SDE:
    """Return an SDE of a class with default parameters; a ladder has a usual table."""
    return kind(TABLES[kind.__name__]) if kind.__name__ in TABLES else kind(**fields)


SDES: dict[str, SDE] = {
    "ve": VESDE(),
    "vp": VPSDE(),
    "sub_vp": SubVPSDE(),
    "cosine": CosineSDE(),
    "edm": EDMSDE(),
    "flow": FlowSDE(),
    "ve_levels": VESDE(levels=20),
    "vp_levels": VPSDE(levels=7),
    "ncsn": NCSNLadder((0.01, 0.03, 0.2, 0.7, 1.0, 5.0)),
    "betas": BetaLadder(torch.linspace(1e-3, 0.2, 50)),
    "user": UserSDE(),
    "user_levels": UserSDE(levels=5),
}
SDES |= {name: kind() for name, kind in KINDS.items() if kind not in map(type, SDES.values())}


class Exact:
    """Define the score of data N(mean, var) in every dimension, with a record of its times."""

    def __init__(self, sde: SDE, mean: float, var: float) -> None:
        self.sde, self.mean, self.var, self.asked = sde, mean, var, []

    def law(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and variance of x_t."""
        alpha = self.sde.alpha(t)
        return alpha * self.mean, alpha**2 * self.var + self.sde.sigma(t) ** 2

    def __call__(self, x: Tensor, t: Tensor) -> Tensor:
        self.asked.append(t)
        mean, var = self.law(t.double())
        return -(x - expand(mean, x)) / expand(var, x)


def log_floats(low: float, high: float) -> st.SearchStrategy[float]:
    """Positive floats, uniform in their logarithm."""
    return st.floats(math.log(low), math.log(high)).map(math.exp)


_LEVELS = st.none() | st.integers(2, 60)


@st.composite
def ve_sdes(draw, levels=_LEVELS) -> VESDE:
    """VE on any [0, T], with sigma_max / sigma_min from 2 to 1e5."""
    low = draw(log_floats(1e-4, 1))
    high = low * draw(log_floats(2, 1e5))
    return VESDE(low, high, T=draw(log_floats(0.1, 10)), levels=draw(levels))


@st.composite
def vp_sdes(draw, kind: type[VPSDE] = VPSDE, levels=_LEVELS) -> VPSDE:
    """VP or sub-VP, ending where alpha(T) is from 1e-3 to about .6."""
    beta_min, slope = draw(log_floats(1e-3, 1)), draw(log_floats(0.1, 40))
    integral = draw(st.floats(1.0, 13.8))
    end = 2 * integral / (beta_min + math.sqrt(beta_min**2 + 2 * slope * integral))
    eps = end * draw(log_floats(1e-3, 0.1))
    return kind(beta_min, beta_min + slope, T=end, eps=eps, levels=draw(levels))


@st.composite
def other_sdes(draw, kind: type[SDE], levels=_LEVELS) -> SDE:
    """Any other kind of the table, or a user's own, at some of its T."""
    end = kind().T * draw(st.floats(0.2, 1))
    fields = dict(T=end, eps=end * draw(log_floats(1e-3, 0.1)), levels=draw(levels))
    if kind is UserSDE:
        fields |= dict(decay=draw(st.floats(0, 20)), noise=draw(log_floats(0.1, 50)))
    return kind(**fields)


@st.composite
def ladders(draw, max_levels=40) -> SDE:
    """Ladders of sigmas or of betas, no two levels nearer than 0.1 %."""
    size = draw(st.integers(2, max_levels))
    if draw(st.booleans()):
        ratios = draw(st.lists(log_floats(1.001, 3), min_size=size - 1, max_size=size - 1))
        low = draw(log_floats(1e-4, 1))
        sigmas = [low]
        for ratio in ratios:
            sigmas.append(min(sigmas[-1] * ratio, 1e5 + sigmas[-1]))
        return NCSNLadder(tuple(sigmas), T=draw(log_floats(0.1, 10)))
    # alpha(T) >= 1e-3
    top = 1 - math.exp(-13.8 / size)
    betas = st.lists(log_floats(1e-4, 0.9).map(lambda b: min(b, top)), min_size=size, max_size=size)
    return BetaLadder(draw(betas))


def sdes(*, continuous: bool = False) -> st.SearchStrategy[SDE]:
    """Every exported SDE and a user's own, any parameters; `continuous` leaves levels out."""
    levels = st.none() if continuous else _LEVELS
    known = {"VESDE": ve_sdes(levels)}
    known |= {kind.__name__: vp_sdes(kind, levels) for kind in (VPSDE, SubVPSDE)}
    rows = {name: kind for name, kind in KINDS.items() if name not in TABLES}
    drawn = [known.get(name, other_sdes(kind, levels)) for name, kind in rows.items()]
    drawn.append(other_sdes(UserSDE, levels))
    return st.one_of(drawn if continuous else [*drawn, ladders()])


def shapes(min_rank: int = 1, max_rank: int = 5) -> st.SearchStrategy[tuple[int, ...]]:
    """Shapes `(B, *)` of a batch of states, of rank 1 to 5, with at least one sample."""
    return st.lists(st.integers(1, 4), min_size=min_rank, max_size=max_rank).map(tuple)


@st.composite
def times_of(draw, sde: SDE, n: int | None = None, gap: float = 1e-4) -> Tensor:
    """A time in [eps, T], `()`; or `n` rising ones `(n,)`, at least `gap * T` apart. Float64."""
    u = sorted(draw(st.floats(0, 1)) for _ in range(1 if n is None else n))
    room = (sde.T - sde.eps) - gap * sde.T * (len(u) - 1)
    t = [sde.eps + room * u[i] + i * gap * sde.T for i in range(len(u))]
    t = torch.tensor(t, dtype=torch.float64).clamp(sde.eps, sde.T)
    return t[0] if n is None else t


def generators() -> st.SearchStrategy[torch.Generator]:
    """Generators on the CPU, from a drawn seed."""
    return st.integers(0, 2**32 - 1).map(lambda seed: torch.Generator().manual_seed(seed))


def dtypes() -> st.SearchStrategy[torch.dtype]:
    """Return the dtypes of a state, half precision left out."""
    return st.sampled_from([torch.float32, torch.float64])


@st.composite
def gaussians(draw, event: tuple[int, ...], full: bool | None = None) -> Moments:
    """Moments of Gaussian data over `event`, float64: mean in [-3, 3], variances in [1e-3, 10].

    `full` is whether the covariance is a matrix; `None` draws that too.
    """
    generator, size = draw(generators()), math.prod(event)
    mean = 6 * torch.rand(event, generator=generator, dtype=torch.float64) - 3
    spread = 1e-3 * 1e4 ** torch.rand(size, generator=generator, dtype=torch.float64)
    if not (draw(st.booleans()) if full is None else full):
        return Moments(mean, var=spread.reshape(event))
    basis = torch.randn(size, size, generator=generator, dtype=torch.float64)
    basis, _ = torch.linalg.qr(basis)
    cov = (basis * spread) @ basis.T
    return Moments(mean, cov=(cov + cov.T) / 2)


@st.composite
def exact_scores(draw, sde: SDE) -> Exact:
    """Return the exact score of data with a mean in [-3, 3] and a variance in [1e-3, 10]."""
    return Exact(sde, draw(st.floats(-3, 3)), draw(log_floats(1e-3, 10)))
