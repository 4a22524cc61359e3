r"""Solve the reverse SDE by the solvers of torchsde, driven by the Brownian path of a seed.

torchsde (Li et al. 2020, arXiv:2001.01328; Kidger et al. 2021, arXiv:2105.13493) integrates
$dy = f\,du + g\,dB$ for flat states `(B, D)` and increasing times, so it is called with the reverse
SDE in $u = -t$,

$$ dy = -\big[f x - g^2 \nabla\log p_t(x)\big] du + g\,dB_u, \qquad B_u = -W_{-u}, $$

where $W$ is the Brownian path that `EulerMaruyama` also uses. The noise is additive, so the Itô and
Stratonovich forms are the same, and all methods converge to the same samples.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import ClassVar

import torch
from torch import Tensor

from scoresde.checks import check_integer, check_name, check_range
from scoresde.errors import ConvergenceError, NonFiniteError
from scoresde.noise.global_rng import forked_rng
from scoresde.samplers.sampler import NoiseLike, Sampler, State
from scoresde.sde import SDE, Facts, ReverseSDE, expand

__all__ = ["TorchSDE"]

# For each method, the form of the SDE that torchsde requires, and the evaluations of one step.
_METHODS = {
    "euler": ("ito", 1),
    "milstein": ("ito", 1),
    "srk": ("ito", 2),
    "euler_heun": ("stratonovich", 1),
    "heun": ("stratonovich", 2),
    "midpoint": ("stratonovich", 2),
    "log_ode": ("stratonovich", 2),
    "reversible_heun": ("stratonovich", 1),
}
# The methods of first order in the drift, and the methods that evaluate the drift within a step.
_FIRST = ("euler", "milstein", "euler_heun")
_MIDDLE = ("midpoint", "log_ode", "srk")
# The method that has a second state, and needs one more evaluation at the start of a run.
_REVERSIBLE = "reversible_heun"


@dataclass(frozen=True)
class TorchSDE(Sampler):
    r"""Solve the reverse SDE by a method of torchsde, with fixed or adaptive steps.

    | method | its scheme for this SDE | strong order | evaluations for N steps |
    | --- | --- | --- | --- |
    | `"euler"`, `"milstein"` | Euler-Maruyama | 1 | N |
    | `"euler_heun"` | the same, with the mean of g at both times | 1 | N |
    | `"heun"` | the trapezoidal rule | 1 | 2 N |
    | `"midpoint"`, `"log_ode"` | the midpoint rule | 1 | 2 N |
    | `"srk"` | SRA1 of Rößler (2010), doi:10.1137/09076636X | 3/2 | 2 N |
    | `"reversible_heun"` | Kidger et al. (2021), arXiv:2105.13493 | 1 | N + 1 |

    `"reversible_heun"` keeps two states, whose difference grows as fast as the reverse SDE
    contracts. So it is less stable, and needs hundreds of steps where `"heun"` needs tens.

    Args:
        method: The name of a method.
        adaptive: Let torchsde choose the steps between two times of the grid, by default only T and
            eps. It compares one step with two steps of half the length, and uses one step size for
            the whole batch. So, unlike with `AdaptiveSDE`, a sample depends on the rest of its
            batch.
        rtol: The tolerance relative to the state.
        atol: The absolute tolerance.
        dt_min: The shortest adaptive step. A step of this length is accepted whatever its error,
            with a warning.
        max_nfe: The largest number of evaluations of an adaptive run.

    Raises:
        UnknownNameError: There is no such method.
        InvalidValueError: Another parameter is out of range, or an adaptive step falls below the
            resolution of the Brownian path.
        NonFiniteError: An adaptive step becomes NaN.
        ConvergenceError: An adaptive run needs more than `max_nfe` evaluations.
    """

    steps: ClassVar[int] = 1000
    method: str = "euler"
    adaptive: bool = False
    rtol: float = 0.02
    atol: float = 0.02
    dt_min: float = 1e-4
    max_nfe: int = 10_000

    def __post_init__(self) -> None:
        super().__post_init__()
        check_name("method of torchsde", self.method, _METHODS)
        for name in ("rtol", "atol", "dt_min"):
            check_range(name, getattr(self, name), "(0, inf)")
        check_integer("max_nfe", self.max_nfe, 1)
        if self.adaptive:
            # the grid is T and eps; torchsde chooses the steps in between
            object.__setattr__(self, "steps", 1)

    @property
    def nfe_per_step(self) -> int:
        """Return the number of evaluations of one step; for adaptive steps an upper bound."""
        return self.max_nfe if self.adaptive else self.cost(1)

    @property
    def order(self) -> int | None:
        """Return the order in the drift, or None for adaptive steps."""
        return None if self.adaptive else 1 if self.method in _FIRST else 2

    @property
    def coupled(self) -> bool:
        """Return True for adaptive steps, since the whole batch has one step size."""
        return self.adaptive

    @property
    def between(self) -> bool:
        """Return True for adaptive steps, and for methods that evaluate in the middle of a step."""
        return self.adaptive or self.method in _MIDDLE

    def cost(self, steps: int) -> int:
        """Return the number of evaluations of a run; for adaptive steps `max_nfe`."""
        if self.adaptive:
            return self.max_nfe * min(steps, 1)
        return steps * _METHODS[self.method][1] + (self.method == _REVERSIBLE)

    def steps_for(self, nfe: int) -> int:
        """Return the largest number of steps with at most `nfe` evaluations; adaptive: 1 or 0."""
        if self.adaptive:
            return int(nfe > _METHODS[self.method][1])
        return super().steps_for(nfe)

    def prepared(self, facts: Facts, sde: SDE, *, nfe: int | None = None) -> TorchSDE:
        """Return this sampler, with `max_nfe` at most `nfe` if it is adaptive."""
        if nfe is None or not self.adaptive:
            return self
        return replace(self, max_nfe=min(self.max_nfe, nfe))

    def step(self, rsde: ReverseSDE, x: Tensor, t: Tensor, s: Tensor, noise: NoiseLike) -> Tensor:
        """Return a draw of p_s from the draw `x` of p_t."""
        (state,) = self.trajectory(rsde, x, torch.stack((t, s)), noise)
        return state.x

    def trajectory(
        self, rsde: ReverseSDE, x: Tensor, times: Tensor, noise: NoiseLike
    ) -> Iterator[State]:
        """Yield the states at `times[1:]`."""
        import torchsde

        reading, _ = _METHODS[self.method]
        kind = _Diagonal if self.method == _REVERSIBLE else _Additive
        budget = self.max_nfe if self.adaptive else math.inf
        problem = kind(rsde, x, reading, budget)
        path, y, extra = _Path(noise, x), _flat(x), None
        for t, s in pairwise(times):
            problem.prepare(t, s, y, extra)
            # torchsde's checks draw numbers from the global generator
            with forked_rng(device=x.device):
                try:
                    ys, extra = torchsde.sdeint(
                        problem,
                        y,
                        torch.stack((-t, -s)),
                        bm=path,
                        method=self.method,
                        # inf makes one step that ends exactly at s; t - s may be rounded
                        dt=float(t - s) if self.adaptive else math.inf,
                        adaptive=self.adaptive,
                        rtol=self.rtol,
                        atol=self.atol,
                        dt_min=self.dt_min,
                        extra=True,
                        extra_solver_state=extra,
                    )
                except AssertionError as error:
                    raise NonFiniteError(
                        f"an adaptive step of torchsde became NaN: {error}; increase rtol and atol"
                    ) from error
            y = ys[-1]
            yield State.of(rsde, s, y.reshape(x.shape))


class _Reversed:
    """Define the reverse SDE in u = -t with torchsde's interface, and cache the last 3 drifts."""

    noise_type: str

    def __init__(self, rsde: ReverseSDE, x: Tensor, sde_type: str, budget: float) -> None:
        self.rsde, self.shape, self.sde_type = rsde, x.shape, sde_type
        self.budget, self.spent = budget, rsde.nfe
        self.kept: deque[tuple[Tensor, Tensor, Tensor]] = deque(maxlen=3)

    def prepare(self, t: Tensor, s: Tensor, y: Tensor, extra: tuple[Tensor, ...] | None) -> None:
        """Prepare for a solve from t down to s, from `y` and the solver's state `extra`."""
        self.end = float(s)
        if extra:
            # torchsde's checks ask for the drift at y and do not use it, so do not evaluate it
            self.kept.append((-t, y, extra[0]))

    def f(self, u: Tensor, y: Tensor) -> Tensor:
        """Return the drift `(B, D)`."""
        for time, state, value in self.kept:
            if state is y and time == u:
                return value
        if self.rsde.nfe - self.spent >= self.budget:
            raise ConvergenceError(
                f"torchsde reached only t = {-float(u):.6g} on the way to {self.end:.6g} in "
                f"max_nfe = {self.budget} evaluations; increase max_nfe, or rtol and atol"
            )
        drift = -_flat(self.rsde.drift(y.reshape(self.shape), -u))
        self.kept.append((u, y, drift))
        return drift


class _Additive(_Reversed):
    noise_type = "additive"

    def g_prod(self, u: Tensor, y: Tensor, v: Tensor) -> Tensor:
        """Return the diffusion times `v`, `(B, D)`."""
        return expand(self.rsde.diffusion(-u), y) * v


class _Diagonal(_Reversed):
    noise_type = "diagonal"

    def g(self, u: Tensor, y: Tensor) -> Tensor:
        """Return the diffusion `(B, D)`."""
        return expand(self.rsde.diffusion(-u), y) * torch.ones_like(y)


class _Path:
    """Define the flattened Brownian motion B_u = -W_{-u} with torchsde's interface."""

    # methods for additive noise do not use the Lévy areas of Davie or Foster
    levy_area_approximation = "foster"

    def __init__(self, noise: NoiseLike, x: Tensor) -> None:
        self.noise, self.x = noise, x
        self.shape = _flat(x).shape

    def __call__(
        self, ua: Tensor, ub: Tensor, return_U: bool = False, return_A: bool = False
    ) -> Tensor | tuple[Tensor, Tensor | None]:
        r"""Return $B_b - B_a$, and with `return_U` $\int_a^b (B_r - B_a)\,dr$ too."""
        h = ub - ua
        z = _flat(self.noise.increment(self.x, -ub, -ua))
        increment = expand(h.sqrt(), z) * z
        if return_A:
            return increment, None
        if not return_U:
            return increment
        a = _flat(self.noise.area(self.x, -ub, -ua))
        return increment, expand(h**1.5, z) * (z / 2 - a / math.sqrt(12))


def _flat(x: Tensor) -> Tensor:
    """Return `(B, *)` flattened to `(B, D)`, also for B = 0 or D = 0."""
    return x.reshape(x.shape[0], math.prod(x.shape[1:]))
