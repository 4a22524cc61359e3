"""Record on the device which values are not finite, so that no evaluation waits for the check."""

from __future__ import annotations

import torch
from torch import Tensor

from scoresde.errors import NonFiniteError

__all__ = ["Watch", "not_finite"]

# the record is read after this number of evaluations
_EVERY = 128


class Watch:
    """Record for each sample the first evaluation at which its value was not finite.

    The record stays on the device and is read only every `_EVERY` evaluations.
    """

    def __init__(self) -> None:
        # for each batch size, the record of the rows `(B,)`: 0, or the position in `_seen`, counted
        # from 1, of the first evaluation at which the row was not finite
        self._first: dict[int, Tensor] = {}
        self._seen: list[tuple[str, int, Tensor]] = []

    def note(self, what: str, value: Tensor, nfe: int, time: Tensor) -> None:
        """Record whether the rows of a value `(B, *)`, evaluated at a time, are finite.

        Raises:
            NonFiniteError: The record was read, and a recorded value was not finite.
        """
        self._seen.append((what, nfe, time))
        bad = value.detach().isfinite().reshape(len(value), -1).all(1).logical_not()
        first = self._first.get(len(value))
        if first is None:
            first = self._first[len(value)] = bad.new_zeros(len(value), dtype=torch.int64)
        first.masked_fill_(bad & (first == 0), len(self._seen))
        if len(self._seen) >= _EVERY:
            self.settle()

    def settle(self) -> None:
        """Read the record from the device, and clear it.

        Raises:
            NonFiniteError: A value was not finite; the message names the evaluation and the
                samples.
        """
        firsts = [first.tolist() for first in self._first.values()]
        seen, self._seen, self._first = self._seen, [], {}
        found = [number for first in firsts for number in first if number]
        if found:
            number = min(found)
            bad = next([i for i, k in enumerate(f) if k == number] for f in firsts if number in f)
            what, nfe, time = seen[number - 1]
            raise not_finite(what, nfe, time, bad, "")


def not_finite(what: str, nfe: int, time: Tensor, samples: list[int], where: str) -> NonFiniteError:
    """Return the error that names an evaluation and the samples that were not finite."""
    return NonFiniteError(
        f"the {what} returned NaN or infinity at evaluation {nfe}, "
        f"t = {time.flatten()[0].item():.6g}, in samples {samples[:8]}{where}; "
        "try more steps, a smaller corrector step, or float32"
    )
