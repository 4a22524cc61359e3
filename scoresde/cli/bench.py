"""Define `scoresde bench samplers`: measure the error of samplers where the answer is known."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Literal

import tyro

from scoresde import arena, plot
from scoresde.arena.peers import LIBRARIES, peers
from scoresde.checks import check_integer, check_name
from scoresde.cli.options import Seed
from scoresde.cli.outputs import check_folder
from scoresde.cli.terminal import show, tell, then
from scoresde.errors import MissingExtraError
from scoresde.sampling import SAMPLERS
from scoresde.sde import SDE, SDES

__all__ = ["Bench"]

_ALL = tyro.conf.arg(help_behavior_hint="(default: all)")
_SETS = {
    "tuning": arena.TUNING,
    "held-out": arena.HELD_OUT,
    "all": arena.TUNING + arena.HELD_OUT,
}


@dataclass(frozen=True)
class Bench:
    """Measure the error of samplers against the exact answer, at equal numbers of evaluations."""

    samplers: Annotated[tuple[str, ...], _ALL] = ()
    """The names of the samplers to compare."""
    by: Literal["flow", "law"] = "flow"
    """The kind of error. flow: the distance of each sample to the exact flow map, for deterministic
    samplers. law: the errors of the distribution of the samples.
    """
    problems: Literal["tuning", "held-out", "all"] = "tuning"
    """The set of problems: the problems on which settings were chosen (tuning), the problems for
    reporting results (held-out), or both."""
    under: Annotated[tuple[str, ...], tyro.conf.arg(help_behavior_hint="(default: none)")] = ()
    """Use the distributions of the tuning problems with these SDEs, in place of the problems
    themselves."""
    only: Annotated[tuple[str, ...], _ALL] = ()
    """The names of the problems to use, for example moons/VESDE."""
    learned: bool = False
    """Use the packaged model of digits in place of the problems."""
    reference: int = 10_000
    """The number of evaluations with which the reference flow map of the digits is computed, at
    least 4. With 400 the error of the reference is below 1e-5.
    """
    budgets: tuple[int, ...] = arena.BUDGETS
    """The numbers of evaluations of the score for each sample."""
    n: Annotated[
        int | None, tyro.conf.arg(metavar="INT", help_behavior_hint="(default: 256; learned: 16)")
    ] = None
    """The number of samples of one run, at least 2, or 4 with --by law, which should have 1,000."""
    repeats: int = 4
    """The number of runs for each problem with --by law, at least 1; --by flow makes one run."""
    seed: Seed = 0
    peers: bool = False
    """Also run the samplers of azula, diffusers and k-diffusion if they are installed."""
    top: int = 12
    """The largest number of lines of each table, at least 1."""
    out: Annotated[Path | None, tyro.conf.arg(metavar="FOLDER")] = None
    """The folder of the result: all numbers in bench.csv, and in bench.png the errors against the
    number of evaluations."""
    short: bool = False
    """Use few samples, problems and numbers of evaluations, to test in seconds that the command
    works; this replaces --n, --repeats and --budgets."""

    def run(self) -> None:
        """Compare, and print tables."""
        if self.out is not None:
            check_folder(self.out)
        check_integer("top", self.top, 1)
        options = replace(self, n=16, repeats=1, budgets=(10, 20)) if self.short else self
        options._compare()

    def _compare(self) -> None:
        rivals = self._peers() if self.peers else {}
        ours = arena.contenders(self.samplers or tuple(SAMPLERS))
        if "fast" in ours:
            ours |= arena.FAST
        n = (16 if self.learned else 256) if self.n is None else self.n
        results = arena.compare(
            ours | rivals, self._problems(), self.budgets,
            by=self.by, n=n, repeats=self.repeats, seed=self.seed,
        )  # fmt: skip
        show(results.table(top=self.top))
        present = [name for name in rivals if name in results.samplers]
        ratios = results.ratios(present) if self.by == "flow" else ()
        if ratios and present:
            show(f"\n{_ratios(ratios)}")
        if self.out is not None:
            figures = results.to_csv(self.out / "bench.csv")
            picture = plot.save(results.plot(against=present), self.out / "bench.png")
            tell(f"\nthe result is in {figures.absolute()} and {picture.absolute()}")
        name = next((name for name in self.samplers if name in SAMPLERS), "fast")
        then("draw with one", "sample", "mnist", "--sampler", name, "--out", "digits.png")

    def _problems(self) -> tuple[arena.Problem, ...]:
        if self.learned:
            return (arena.digits(400 if self.short else self.reference),)
        chosen = _SETS[self.problems]
        if self.under:
            chosen = tuple(p for name in self.under for p in arena.tuning(_sde(name)))
        if self.short and not self.only:
            return chosen[::5]
        names = [problem.name for problem in chosen]
        for name in self.only:
            check_name("problem", name, names)
        return tuple(p for p in chosen if not self.only or p.name in self.only)

    def _peers(self) -> dict[str, arena.Contender]:
        """Return the samplers of the installed libraries; print which are not installed."""
        found: dict[str, arena.Contender] = {}
        for library in LIBRARIES:
            try:
                found |= peers([library])
            except MissingExtraError as error:
                tell(f"without {library}: {error}\n")
        if self.short:
            found = {name: peer for name, peer in found.items() if name.endswith("@exp")}
        return found


def _sde(name: str) -> SDE:
    check_name("SDE", name, SDES)
    return SDES[name]()


def _ratios(ratios: tuple[arena.Ratio, ...]) -> str:
    """Return the error of each sampler divided by the error of the best peer, as text."""
    names = list(dict.fromkeys(r.sampler for r in ratios))
    budgets = sorted({r.budget for r in ratios})
    lines = [
        "the error divided by the smallest error of the other libraries' samplers on the problem:",
        "the geometric mean over the problems, for each number of evaluations",
        f"{'':24}" + "".join(f"{b:>10}" for b in budgets) + f"{'pilot':>10}",
    ]
    for name in names:
        means = {r.budget: f"{r.mean:.3g}" for r in ratios if r.sampler == name}
        pilot = max(r.pilot for r in ratios if r.sampler == name)
        figures = "".join(f"{means.get(b, '-'):>10}" for b in budgets)
        lines.append(f"  {name:22}{figures}{pilot or '-':>10}")
    return "\n".join(lines)
