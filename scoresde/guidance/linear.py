r"""Define linear measurements with Gaussian noise, $y = A x_0 + \text{std}\,\varepsilon$."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial

import torch
from torch import Tensor

from scoresde.checks import (
    as_numbers,
    check_batch,
    check_dense,
    check_finite,
    quoted,
    summary,
)
from scoresde.errors import (
    DeviceError,
    InvalidTypeError,
    InvalidValueError,
    ScoreSDEError,
    ShapeError,
)
from scoresde.guidance.krylov import Solution, solve
from scoresde.precision import full_precision
from scoresde.units import Identity, Transform

__all__ = ["Linear"]

# The matrix A A^T is computed for measurements with at most this many entries.
_LARGEST = 1024
# The largest number of products with the covariance `guess`, which cost no network pass.
_CHEAP = 20
# The largest relative deviation from linearity that counts as rounding, in float32.
_ROUNDING = 1e-3


@dataclass(frozen=True, eq=False, repr=False)
class Linear:
    r"""Define a linear measurement with Gaussian noise, $y = A x_0 + \text{std}\,\varepsilon$.

    A call maps events `(B, *event)` to measurements without noise, `(B, *m)`.

    Args:
        A: A matrix `(m, D)` for the flattened event, or a linear function of a batch of events that
            autograd can differentiate, such as an operator of `scoresde.guidance.operators`. The
            function must return real numbers; return complex ones as `torch.view_as_real(y)`.
        std: The standard deviation of the noise, a number or a tensor of the shape of y; at
            least 0.
        transform: The map to model units from the units of the events that A takes;
            `posterior(..., units=True)` sets this field.

    Raises:
        InvalidValueError: `std` is negative.
        NonFiniteError: `std` or the matrix has a NaN or an infinity.
        InvalidTypeError: `A` is neither a function nor a tensor of real numbers, or `std` is not a
            number.
        ShapeError: `A` is a tensor that is not a matrix, or is empty.

    Examples:
        >>> total = Linear(torch.tensor([[1.0, 1.0]]), std=0.1)  # the sum of two numbers
        >>> total(torch.tensor([[2.0, 3.0]]))
        tensor([[5.]])
    """

    A: Callable[[Tensor], Tensor] | Tensor
    std: float | Tensor
    transform: Transform = field(default_factory=Identity)

    __repr__ = summary

    def __post_init__(self) -> None:
        std = as_numbers("std", self.std, dtype=torch.float64)
        check_finite("std", std)
        if (std < 0).any():
            raise InvalidValueError(
                f"std, the standard deviation of the noise, must not be negative, got {quoted(std)}"
            )
        if isinstance(self.A, Tensor):
            if self.A.ndim != 2:
                raise ShapeError(
                    f"a tensor A must be a matrix (m, D), got shape {tuple(self.A.shape)}; give "
                    "other linear maps as functions"
                )
            _check_matrix(self.A)
        elif not callable(self.A) or isinstance(self.A, type):
            raise InvalidTypeError(f"A must be a linear function or a matrix, got {quoted(self.A)}")

    @full_precision()
    def __call__(self, x: Tensor) -> Tensor:
        """Return the measurements of events `(B, *event)` without noise, `(B, *m)`."""
        check_batch("what is measured", x, finite=False)
        raw = self.transform.inverse(x).to(x.dtype)
        if isinstance(self.A, Tensor):
            if raw.shape[1:].numel() != self.A.shape[1]:
                raise ShapeError(
                    f"A takes events of {self.A.shape[1]} numbers, got events of shape "
                    f"{tuple(raw.shape[1:])}"
                )
            return raw.reshape(len(raw), raw.shape[1:].numel()) @ self.A.to(raw).T
        try:
            return self.A(raw)
        except RuntimeError as error:
            if not re.search(r"dtype|scalar type|type .* should be the same", str(error)):
                raise
            raise InvalidTypeError(
                f"A fails for events of {raw.dtype} ({error}); convert the tensors that A uses to "
                "the dtype of its argument, or sample with dtype=torch.float64"
            ) from error

    def slope(self, z: Tensor) -> Tensor:
        """Return the change of the measurements for a change `z` of the events."""
        value = self(z)
        shifted = not isinstance(self.transform, Identity)
        return value - self(torch.zeros_like(z[:1])) if shifted else value

    def adjoint(self, v: Tensor, like: Tensor) -> Tensor:
        r"""Return $A^T v$, `(B, *event)` as `like`, for measurements v `(B, *m)`."""
        recording = torch.is_grad_enabled()
        with torch.enable_grad():
            x = torch.zeros_like(like).requires_grad_()
            (found,) = torch.autograd.grad(self(x), x, v, create_graph=recording)
        return found

    def variance(self, like: Tensor) -> Tensor:
        """Return the variance of the noise in the dtype of `like`; it broadcasts to `like`."""
        return (torch.as_tensor(self.std, dtype=torch.float64) ** 2).to(like)

    def unit(self, like: Tensor) -> Tensor:
        """Return the standard deviation of the noise, shaped as `variance`; 1 where it is 0."""
        std = torch.as_tensor(self.std, dtype=torch.float64)
        return torch.where(std > 0, std, 1.0).to(like)

    def gap(self, y: Tensor, x0: Tensor) -> Tensor:
        """Return $y - A x_0$, with 0 for missing entries of y."""
        return torch.where(y.isnan(), 0.0, y - self(x0))

    def solved(
        self,
        r: Tensor,
        spread: Callable[[Tensor], Tensor],
        like: Tensor,
        there: Tensor,
        iterations: int,
        guess: Callable[[Tensor], Tensor] | None = None,
    ) -> Solution:
        r"""Solve $(A V A^T + \text{std}^2)\,u = r$ over the entries of y that are not missing.

        Args:
            r: Right-hand sides, 0 where an entry is missing.
            spread: A function that returns the product of $V$ with a tensor of the events' shape.
            like: A tensor of the events' shape.
            there: True for the entries that are not missing, `(B, *m)`.
            iterations: The largest number of products with $V$; never more than the entries of y.
            guess: A function that multiplies by an approximation of $V$, without a network pass.
        """
        # divide every entry by the std of its noise, so that the units of y do not matter
        unit, most = self.unit(r), max(r.shape[1:].numel(), 1)
        noise = (self.variance(r) > 0).to(r)

        def product(
            p: Tensor, spread: Callable[[Tensor], Tensor] = spread
        ) -> tuple[Tensor, Tensor]:
            z = spread(self.adjoint(p / unit, like))
            return z, there * self.slope(z) / unit + noise * p

        def inner(left: Tensor) -> Tensor:
            return left if guess is None else solve(left, near, min(_CHEAP, most)).u

        near = product if guess is None else partial(product, spread=guess)
        found = solve(r / unit, product, min(iterations, most), inner)
        return found._replace(u=found.u / unit)

    def log_constant(self, var: float, like: Tensor, there: Tensor) -> Tensor:
        r"""Return $-\tfrac12 \log\det 2\pi(\text{var}\,A A^T + \text{std}^2)$, `(B,)` in float64.

        Missing entries of y are left out. If y has more than 1,024 entries, `var` is taken as 0.
        """
        rows = there.reshape(len(there), there.shape[1:].numel())
        noise = self.variance(torch.empty(0, dtype=torch.float64))
        noise = noise.expand(there.shape[1:]).reshape(-1).to(rows.device)
        m = len(noise)
        if m > _LARGEST:
            logs = torch.where(rows, noise.log(), 0.0).sum(1)
        else:
            eye = torch.eye(m, dtype=torch.float64, device=rows.device)
            event = like.new_zeros(m, *like.shape[1:]).double()
            with torch.no_grad():
                back = self.adjoint(eye.reshape(m, *there.shape[1:]), event)
                gram = self.slope(back).reshape(m, m)
            both = rows[:, :, None] & rows[:, None, :]
            whole = torch.where(both, var * gram + noise.diag(), eye)
            logs = torch.linalg.slogdet(whole).logabsdet
        return -(rows.sum(1) * math.log(2 * math.pi) + logs) / 2

    def check(self, event: Sequence[int], device: torch.device) -> tuple[int, ...]:
        """Check that the map is linear, and return the shape of one measurement.

        The map is applied to three random events in float32, or in float64 if float32 fails.

        Raises:
            DeviceError: The map returns a tensor on another device.
            InvalidValueError: The map is not linear, mixes the events of a batch, writes into its
                argument, or cannot be differentiated.
            InvalidTypeError: The map does not return real numbers, or raises an error.
            NonFiniteError: The map returns NaN or infinity.
            ShapeError: The map does not return a row for each event, or `std` has another shape.
        """
        draw = torch.Generator().manual_seed(0)
        drawn = torch.randn(3, *event, generator=draw, dtype=torch.float64).to(device)
        try:
            try:
                y = self._checked(x := drawn.float())
            except (RuntimeError, InvalidTypeError):
                y = self._checked(x := drawn.clone())
        except ScoreSDEError:
            raise
        except Exception as error:  # a function of the user may raise any error
            raise InvalidTypeError(
                f"A fails for a batch of events, a tensor of shape {tuple(x.shape)}: "
                f"{type(error).__name__}: {error}"
            ) from error
        y = y.detach()
        if y.device != x.device:
            raise DeviceError(f"A must return a tensor on {x.device}, as given, got {y.device}")
        if not torch.equal(x, drawn.to(x)):
            raise InvalidValueError(
                "A writes into its argument; let it compute a new tensor, as x * 2 does and "
                "x.mul_(2) does not"
            )
        if y.numel() == 0:
            raise ShapeError(
                f"A must return at least one number: for events of shape {tuple(event)} it "
                f"returned the shape {tuple(y.shape[1:])}"
            )
        check_finite("the result of A for a standard normal event", y)
        size = float(y.abs().max())
        self._expect(self.slope(x[2:]) - y[2:], size, "mixes the events of a batch")
        # use large arguments, since a function that saturates is nearly linear near 0
        for a, b in ((1.5, -0.75), (150.0, -75.0)):
            mixed = self.slope(a * x[:1] + b * x[1:2]) - (a * y[:1] + b * y[1:2])
            name = f"is not linear: A({a} u - {-b} v) is not {a} A(u) - {-b} A(v)"
            self._expect(mixed, a * size, name)
        v = torch.randn(y.shape, generator=draw, dtype=torch.float64).to(y)
        try:
            back = self.adjoint(v, x)
        except RuntimeError as error:
            raise InvalidValueError(
                f"A cannot be differentiated by autograd ({error}); write it in torch, without "
                "detach or no_grad"
            ) from error
        gap = ((v * y).sum() - (back * x).sum()).detach()
        scale = float(v.norm() * y.norm())
        self._expect(gap, scale, "has a wrong gradient in autograd: <A u, v> is not <u, A^T v>")
        try:
            self.variance(y).expand(y.shape[1:])
        except RuntimeError as error:
            raise ShapeError(
                f"std must be a number or of the shape {tuple(y.shape[1:])} of a measurement, got "
                f"{tuple(torch.as_tensor(self.std).shape)}"
            ) from error
        return tuple(y.shape[1:])

    def _checked(self, x: Tensor) -> Tensor:
        y = self.slope(x)
        if not isinstance(y, Tensor) or not y.is_floating_point():
            got = y.dtype if isinstance(y, Tensor) else type(y).__name__
            raise InvalidTypeError(
                f"A must return a tensor of real floating point numbers, got {got}; return complex "
                "numbers as torch.view_as_real(y)"
            )
        if y.ndim == 0 or len(y) != len(x):
            raise ShapeError(
                f"A receives a batch of events and must return a row for each, (B, *); for the "
                f"shape {tuple(x.shape)} it returned {tuple(y.shape)}"
            )
        return y

    @staticmethod
    def _expect(zero: Tensor, size: float, otherwise: str) -> None:
        if not float(zero.detach().abs().max()) <= _ROUNDING * max(size, 1e-30):
            raise InvalidValueError(
                f"A {otherwise}; for a measurement that is not linear give a function "
                "log_likelihood(y, x0)"
            )


def _check_matrix(matrix: Tensor) -> None:
    """Raise an error unless a matrix has at least one entry, and all are real and finite."""
    if matrix.layout != torch.strided:
        matrix = matrix.to_dense()
    check_dense("A", matrix)
    if matrix.is_complex():
        raise InvalidTypeError(
            "A must be a real matrix, got a complex one; stack its real and imaginary parts"
        )
    check_finite("A", matrix)
    if matrix.numel() == 0:
        raise ShapeError(f"A must have at least one entry, got the shape {tuple(matrix.shape)}")
