r"""Count how often error bars and intervals contain the exact value, and measure their width.

There are two tables, for log-densities and for the figures of metrics and of the arena, on problems
with known exact values (see `intervals/likelihoods.py` and `intervals/metrics.py`).

    python examples/benchmarks/coverage.py                   # an hour on one core
    python examples/benchmarks/coverage.py likelihoods       # minutes, the first table
    python examples/benchmarks/coverage.py --short           # seconds, to see that all runs
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import tyro
from intervals import likelihoods, metrics


@dataclass(frozen=True)
class Options:
    """Choose what to count."""

    table: tyro.conf.Positional[Literal["likelihoods", "metrics", "both"]] = "both"
    """Of log-densities, of metrics and the arena, or both."""
    settings: bool = False
    """Also print every setting of the log-densities."""
    n: int = 100
    """Samples on either side, of the metrics."""
    short: bool = False
    """Few points and repetitions, to see that all runs."""


def main(options: Options) -> None:
    """Count and print."""
    if options.table != "metrics":
        for line in likelihoods.table(options.short, options.settings):
            print(line, flush=True)
        print()
    if options.table != "likelihoods":
        for line in metrics.table(options.short, options.n):
            print(line, flush=True)


if __name__ == "__main__":
    main(tyro.cli(Options))
