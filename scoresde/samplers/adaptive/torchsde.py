r"""The solvers of torchsde on the reverse SDE, driven by the seed's Brownian path.

torchsde (Li et al. 2020, arXiv:2001.01328; Kidger et al. 2021, arXiv:2105.13493) integrates
$dy = f\,du + g\,dB$ for flat states `(B, D)` and rising times, so it is given the reverse SDE in
$u = -t$,

$$ dy = -\big[f x - g^2 \nabla\log p_t(x)\big] du + g\,dB_u, \qquad B_u = -W_{-u}, $$

with $W$ the path that `EulerMaruyama` follows as well. The noise is additive: the readings of Itô
and of Stratonovich are the same, and all methods tend to the same samples.
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
from scoresde.samplers.sampler import NoiseLike, Sampler, State
from scoresde.sde import SDE, Facts, ReverseSDE, expand

__all__ = ["TorchSDE"]

# The reading of the SDE that torchsde wants for a method, and the evaluations of one step.
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
# Those of the first order in the drift, and those that ask in the middle of a step.
_FIRST = ("euler", "milstein", "euler_heun")
_MIDDLE = ("midpoint", "log_ode", "srk")
# The method that keeps a second state, which costs one evaluation at the start of a run.
_REVERSIBLE = "reversible_heun"


@dataclass(frozen=True)
class TorchSDE(Sampler):
    r"""A solver of torchsde, one of its steps for each step of the grid, or as many as it takes.

    | method | what it is here | strong order | evaluations for N steps |
    | --- | --- | --- | --- |
    | `"euler"`, `"milstein"` | Euler-Maruyama | 1 | N |
    | `"euler_heun"` | the same, with the mean of g at both times | 1 | N |
    | `"heun"` | the trapezoidal rule | 1 | 2 N |
    | `"midpoint"`, `"log_ode"` | the midpoint rule | 1 | 2 N |
    | `"srk"` | SRA1 of Rößler (2010), doi:10.1137/09076636X | 3/2 | 2 N |
    | `"reversible_heun"` | Kidger et al. (2021), arXiv:2105.13493 | 1 | N + 1 |

    The last one pays for its reversibility with its stability. Two states leapfrog over each other,
    and their difference grows as fast as the reverse SDE contracts: it needs hundreds of steps
    where `"heun"` needs tens, and is no worse from there on.

    Args:
        method: The name of a method.
        adaptive: Whether torchsde chooses its steps between two times of the grid, which is then
            from T to eps alone unless more is asked for. It compares one step with two of half the
            length and takes one step size for the whole batch, so that samples depend on their
            neighbours; `AdaptiveSDE` keeps them apart.
        rtol: The tolerance relative to the state.
        atol: The absolute tolerance.
        dt_min: The shortest adaptive step, which is taken whatever its error, with a warning.
        max_nfe: The most evaluations of an adaptive run.

    Raises:
        UnknownNameError: There is no such method.
        InvalidValueError: Another parameter has an impossible value, or an adaptive step falls
            below the resolution of the Brownian path.
        ConvergenceError: `max_nfe` is used up before the end of an adaptive run.
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
            # the grid is the two ends, whose steps in between are torchsde's
            object.__setattr__(self, "steps", 1)

    @property
    def nfe_per_step(self) -> int:
        """Return the evaluations of one step by itself; at most, where it is adaptive."""
        return self.max_nfe if self.adaptive else self.cost(1)

    @property
    def order(self) -> int | None:
        """Return the order of its drift; None where it chooses its own steps."""
        return None if self.adaptive else 1 if self.method in _FIRST else 2

    @property
    def coupled(self) -> bool:
        """Return True where it is adaptive: the whole batch has one step size."""
        return self.adaptive

    @property
    def between(self) -> bool:
        """Return True for adaptive steps, and for methods that ask in the middle of a step."""
        return self.adaptive or self.method in _MIDDLE

    def cost(self, steps: int) -> int:
        """Return evaluations of a run; an adaptive one is bounded as a whole."""
        if self.adaptive:
            return self.max_nfe * min(steps, 1)
        return steps * _METHODS[self.method][1] + (self.method == _REVERSIBLE)

    def steps_for(self, nfe: int) -> int:
        """Return how many steps `nfe` evaluations buy; an adaptive run is one, from T to eps."""
        if self.adaptive:
            return int(nfe > _METHODS[self.method][1])
        return super().steps_for(nfe)

    def prepared(self, facts: Facts, sde: SDE, *, nfe: int | None = None) -> TorchSDE:
        """Return it with `max_nfe` at most `nfe` where it is adaptive."""
        if nfe is None or not self.adaptive:
            return self
        return replace(self, max_nfe=min(self.max_nfe, nfe))

    def step(self, rsde: ReverseSDE, x: Tensor, t: Tensor, s: Tensor, noise: NoiseLike) -> Tensor:
        """Return a draw of p_t becomes a draw of p_s."""
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
        # its checks draw numbers from the global generator
        devices = [x.device] if x.is_cuda else []
        for t, s in pairwise(times):
            problem.starts(t, s, y, extra)
            with torch.random.fork_rng(devices):
                try:
                    ys, extra = torchsde.sdeint(
                        problem,
                        y,
                        torch.stack((-t, -s)),
                        bm=path,
                        method=self.method,
                        # one step to the end, whatever rounding makes of its length
                        dt=float(t - s) if self.adaptive else math.inf,
                        adaptive=self.adaptive,
                        rtol=self.rtol,
                        atol=self.atol,
                        dt_min=self.dt_min,
                        extra=True,
                        extra_solver_state=extra,
                    )
                except AssertionError as error:
                    raise NonFiniteError(f"an adaptive step met NaN: {error}") from error
            y = ys[-1]
            yield State.of(rsde, s, y.reshape(x.shape))


class _Reversed:
    """The reverse SDE in u = -t as torchsde asks for it; a value it asks for twice is kept."""

    noise_type: str

    def __init__(self, rsde: ReverseSDE, x: Tensor, sde_type: str, budget: float) -> None:
        self.rsde, self.shape, self.sde_type = rsde, x.shape, sde_type
        self.budget, self.spent = budget, rsde.nfe
        self.kept: deque[tuple[Tensor, Tensor, Tensor]] = deque(maxlen=3)

    def starts(self, t: Tensor, s: Tensor, y: Tensor, extra: tuple[Tensor, ...] | None) -> None:
        """The solver goes from t down to s next, from `y` and what it kept of the last step."""
        self.end = float(s)
        if extra:
            # the checks ask for the drift of y, whose value nothing uses
            self.kept.append((-t, y, extra[0]))

    def f(self, u: Tensor, y: Tensor) -> Tensor:
        """Return the drift `(B, D)`."""
        for time, state, value in self.kept:
            if state is y and time == u:
                return value
        if self.rsde.nfe - self.spent >= self.budget:
            raise ConvergenceError(
                f"max_nfe = {self.budget} evaluations brought torchsde only to t = "
                f"{-float(u):.6g}, on its way to {self.end:.6g}; raise max_nfe, or loosen "
                "rtol and atol"
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
    """The Brownian motion B_u = -W_{-u}, flat, as torchsde asks for it."""

    # the most that a method asks for; of Davie's and Foster's areas nothing is left in this noise
    levy_area_approximation = "foster"

    def __init__(self, noise: NoiseLike, x: Tensor) -> None:
        self.noise, self.x = noise, x
        self.shape = _flat(x).shape

    def __call__(
        self, ua: Tensor, ub: Tensor, return_U: bool = False, return_A: bool = False
    ) -> Tensor | tuple[Tensor, Tensor | None]:
        r"""Return $B_b - B_a$, and $\int_a^b (B_r - B_a)\,dr$ where it is asked for."""
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
    """Return `(B, *)` as `(B, D)`, also where either is 0."""
    return x.reshape(x.shape[0], math.prod(x.shape[1:]))
