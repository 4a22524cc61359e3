"""Read the states of a run, and draw their pictures with common axes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Protocol

import torch
from torch import Tensor

from scoresde.errors import InvalidTypeError, InvalidValueError, ShapeError
from scoresde.plot import paper
from scoresde.plot.kinds import kind
from scoresde.plot.paper import Axes
from scoresde.plot.stretch import ends_of, stretch
from scoresde.units import Transform

__all__ = ["StateLike", "checked_states", "paths", "share_axis", "single", "words"]

# The largest absolute value in a picture: differences of such numbers are finite in float32.
_LARGEST = 1e37


class StateLike(Protocol):
    """Declare the attributes of the states of a run, such as `scoresde.trajectory` yields.

    A state may also have `columns`, the names of the entries of a sample.
    """

    @property
    def t(self) -> Tensor:
        """Return the time."""
        ...

    @property
    def x(self) -> Tensor:
        """Return the samples at that time, `(B, *)`."""
        ...

    @property
    def denoised(self) -> Tensor | None:
        """Return $E[x_0 | x_t]$, or None if it was not computed."""
        ...


def paths(
    states: Iterable[StateLike], n: int | None, transform: Transform | None
) -> tuple[Tensor, Tensor, tuple[str, ...]]:
    """Return the times `(K,)`, the paths of the first n samples, `(K, n, *)`, and their columns.

    If a state has denoised samples, they replace its samples. Points and signals are converted to
    the units of the data.

    Args:
        states: The states of a run.
        n: The number of samples that are kept; None for 60 points, or 4 other samples.
        transform: The transform of the data.
    """
    times, path = [], []
    columns: tuple[str, ...] = ()
    for t, x, columns in checked_states(states):  # noqa: B007
        times.append(t)
        what = kind(x.shape[1:])
        first = x[: n or (60 if what == "points" else 4)]
        path.append(single(first, transform if what in ("points", "signals") else None))
    return torch.tensor(times), torch.stack(path), columns


def single(x: Tensor, transform: Transform | None = None) -> Tensor:
    """Return the samples of a state in float32, in the units of the data if a transform is given.

    Raises:
        InvalidValueError: A number is too large for float32.
        NonFiniteError: A number is not finite.
    """
    numbers = paper.finite("a state", x)
    numbers = numbers if transform is None else transform.inverse(numbers)
    if (largest := float(numbers.abs().max())) > _LARGEST:
        raise InvalidValueError(
            f"a state reaches {largest:.1e}, too large for a picture; leave the first states out "
            "of the picture, or give the process less noise"
        )
    return numbers.float()


def checked_states(
    states: Iterable[StateLike],
) -> Iterator[tuple[float, Tensor, tuple[str, ...]]]:
    """Yield, for each state of a run, its time, its samples and the names of their entries.

    If a state has denoised samples, they replace its samples.

    Raises:
        InvalidTypeError: `states` holds something else.
        InvalidValueError: There is no state.
        ShapeError: The states have different shapes.
    """
    state, shape = None, None
    for state in states:
        if not all(hasattr(state, name) for name in ("t", "x", "denoised")):
            raise InvalidTypeError(
                "need the states of a run, as scoresde.trajectory yields them, got "
                f"{type(states).__name__}; use plot.samples for a picture of samples"
            )
        x = state.x if state.denoised is None else state.denoised
        if shape not in (None, x.shape):
            raise ShapeError(
                f"all states must have samples of the same shape, got {tuple(shape)}, "
                f"then {tuple(x.shape)}"
            )
        shape = x.shape
        yield float(state.t), x, tuple(getattr(state, "columns", ()))
    if state is None:
        raise InvalidValueError(
            "there is nothing to show: no state is left; a run can be read only once, so make it "
            "again, or keep list(run)"
        )


def words(times: Sequence[float]) -> list[str]:
    """Return the labels of times. If the last two times are equal, the last label is "denoised"."""
    labels = [f"t = {t:.3g}" for t in times]
    if len(times) > 1 and times[-1] == times[-2]:
        labels[-1] = "denoised"
    return labels


def share_axis(panels: Sequence[Axes], states: Tensor) -> list[str]:
    """Give panels the same vertical axis, which shows all states.

    If the states reach far beyond the range of the last state, the axis is logarithmic outside of
    this range.

    Args:
        panels: The panels.
        states: States `(K, n, *)`, which the axis contains.

    Returns:
        A list with one note for the picture, or an empty list.
    """
    inner, outer = ends_of(states[-1]), ends_of(states)
    return [note for panel in panels for note in stretch(panel.yaxis, inner, outer)][:1]
