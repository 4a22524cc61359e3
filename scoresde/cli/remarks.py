"""Print remarks after samples are drawn."""

from __future__ import annotations

from collections.abc import Sequence

from scoresde.cli.terminal import tell

__all__ = ["tell_costs"]

# If drawing at most half a batch took longer than this, in seconds, a smaller batch is proposed.
_LONG = 5.0


def tell_costs(n: int, batch_size: int, seconds: float, whole: Sequence[str] = ()) -> None:
    """Print that a smaller batch is faster, if drawing took long, and which columns were rounded.

    Args:
        n: The number of samples.
        batch_size: The number of samples that the network evaluated at once.
        seconds: The time that drawing took.
        whole: The names of the rounded columns.
    """
    if 2 * n <= batch_size and seconds > _LONG:
        tell(
            f"{batch_size} samples were computed and {n} kept, so that they do not depend on --n; "
            f"--batch-size {n} is faster, and may change the last digits"
        )
    if whole:
        tell(f"rounded, since the data have only integers: {', '.join(whole)}")
