"""Compare samplers: run every contender on every problem with every budget."""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal

import torch
from torch import Tensor

from scoresde.arena.contender import Contender, Informed, Own, contenders
from scoresde.arena.judges import LAW, flow_errors, law_errors, law_interval
from scoresde.arena.problem import Problem
from scoresde.arena.problems import TUNING
from scoresde.arena.results import Results, Row
from scoresde.checks import check_integer, door
from scoresde.errors import InvalidValueError, NonFiniteError
from scoresde.metrics import mean_interval
from scoresde.progress import each

__all__ = ["BUDGETS", "compare"]

BUDGETS = (5, 10, 20, 35, 50, 100, 200)
"""The default budgets: evaluations per sample, including the one for Tweedie's estimate."""

# The least number of random halves, over all runs, from which the intervals of by="law" are
# computed.
_HALVES = 40


@door
def compare(
    samplers: Mapping[str, Any] | Sequence[str],
    problems: Sequence[Problem] = TUNING,
    budgets: Sequence[int] = BUDGETS,
    *,
    by: Literal["flow", "law"] = "flow",
    n: int = 256,
    repeats: int = 4,
    seed: int = 0,
    progress: bool | None = None,
) -> Results:
    r"""Run samplers on problems with known answers, and measure their errors.

    All samplers start from the same draws of $p_T$, exact ones if the problem has a target and
    draws of the prior otherwise. They integrate to `eps`, and end with
    Tweedie's estimate, which counts as one evaluation. Samplers of this package are given the
    data's moments, as `sample` gives them the moments of a model; for Gaussian data these determine
    the exact result. A sampler that diverges in a run has an infinite error; a budget that is too
    small for any run of a sampler has no row.

    Args:
        samplers: Names of samplers; or samplers, names or functions (`Contender`) by their names in
            tables.
        problems: The problems; `TUNING` by default, `HELD_OUT` for a final comparison.
        budgets: The largest numbers of evaluations per sample.
        by: "flow", the distance to the exact flow map, for deterministic samplers (stochastic
            samplers are left out); or "law", the errors of the distribution of samples that `LAW`
            lists, for all samplers on problems with a target.
        n: The number of samples of one run: at least 2, or 4 with "law". On mixtures nearly all of
            the "flow" error of many samplers comes from a few samples in a thousand that end in a
            wrong mode. A run in which no sample does this has a far smaller error, and an interval
            that does not contain the true error.
        repeats: With "law", the number of runs of n samples, over which errors are averaged. With
            "flow" there is one run.
        seed: The seed of starts, samplers and exact samples.
        progress: Show a bar; None shows a bar in a terminal or a notebook, and lines elsewhere.

    Returns:
        One row for each sampler, problem, budget and metric, with a 95 % interval for the error at
        this n (by `metrics.mean_interval`, or by random halves with "law"). With "law" a row also
        has the noise floor, which is the error of n exact samples.

    Raises:
        UnknownNameError, InvalidTypeError: `samplers` holds an unknown name, or something that is
            neither a sampler nor a name nor a function; or `by` is unknown.
        InvalidValueError: `n`, `repeats`, `seed` or a budget is out of range; there is no problem,
            no budget or no sampler to compare; `by` is "law" and a problem has no target; or every
            budget is too small.
    """
    check_integer("n", n, 2 if by == "flow" else 4)
    check_integer("repeats", repeats, 1)
    if not 0 <= seed < 2**63:
        raise InvalidValueError(f"a seed must lie in [0, 2**63), got {seed}")
    for budget in budgets:
        check_integer("each budget", budget, 2)
    run = _flow if by == "flow" else _law
    entered = contenders(samplers)
    if not entered or not problems or not budgets:
        raise InvalidValueError(
            "there is nothing to run; give at least one sampler, one problem and one budget"
        )
    if by == "flow":
        entered = {
            name: contender
            for name, contender in entered.items()
            if _is_deterministic(problems[0], contender, budgets)
        }
    if not entered:
        raise InvalidValueError(
            "by='flow' compares samplers without noise, but all of these add noise: "
            f"{', '.join(contenders(samplers))}; take by='law'"
        )
    pairs = list(itertools.product(problems, entered.items()))
    rows: list[Row] = []
    for problem, (name, contender) in each(pairs, "comparing", unit="pair", show=progress):
        rows += run(problem, name, contender, budgets, n, repeats, seed)
    if not rows:
        raise InvalidValueError(
            f"budgets of {', '.join(map(str, budgets))} evaluations are too small for "
            f"{', '.join(entered)}; give larger budgets"
        )
    return Results(tuple(rows))


def _flow(
    problem: Problem, name: str, contender: Contender, budgets: Sequence[int],
    n: int, repeats: int, seed: int,
) -> Iterator[Row]:  # fmt: skip
    """Yield the rows of a deterministic contender, with its distances to the flow map."""
    x = problem.start(n, seed)
    for budget in budgets:
        begin = time.perf_counter()
        out = _attempt(contender, problem, x, budget, seed)
        if out is None:
            continue
        seconds = time.perf_counter() - begin
        samples, nfe = out
        value = low = high = math.inf
        if samples is not None:
            squares = flow_errors(problem, samples, n, seed)
            value = math.sqrt(float(squares.mean()))
            low, high = (math.sqrt(max(end, 0)) for end in mean_interval(squares))
        pilot = getattr(contender, "pilot_nfe", 0)
        yield Row(problem.name, name, budget, nfe, "flow", value, low, high, None, seconds, pilot)


def _law(
    problem: Problem, name: str, contender: Contender, budgets: Sequence[int],
    n: int, repeats: int, seed: int,
) -> Iterator[Row]:  # fmt: skip
    """Yield the rows of a contender, one for each budget and metric of `LAW`."""
    seeds = [seed + i for i in range(repeats)]
    floors = [law_errors(problem, problem.exact(n, s, part=1), s) for s in seeds]
    parts = max(2, math.ceil(_HALVES / repeats))
    for budget in budgets:
        begin = time.perf_counter()
        outs = [_attempt(contender, problem, problem.start(n, s), budget, s) for s in seeds]
        runs = [out for out in outs if out is not None]
        if len(runs) < repeats:
            continue
        seconds = (time.perf_counter() - begin) / repeats
        failed = dict.fromkeys(LAW, torch.full((1 + parts,), math.inf, dtype=torch.float64))
        errors = [
            failed if samples is None else law_errors(problem, samples, s, parts)
            for (samples, _), s in zip(runs, seeds, strict=True)
        ]
        nfe = max(evaluations for _, evaluations in runs)
        pilot = getattr(contender, "pilot_nfe", 0)
        for metric in LAW:
            found = law_interval(metric, [error[metric] for error in errors], n)
            floor = sum(float(error[metric]) for error in floors) / repeats
            yield Row(problem.name, name, budget, nfe, metric, *found, floor, seconds, pilot)


def _attempt(
    contender: Contender, problem: Problem, x: Tensor, budget: int, seed: int
) -> tuple[Tensor | None, int] | None:
    """Return a contender's samples, None if not finite, and its evaluations.

    Return None if the budget is too small.
    """
    try:
        out = contender(problem, x.clone(), budget, seed)
    except NonFiniteError:
        return None, budget
    if out is None:
        return None
    samples, nfe = out
    return (samples if bool(samples.isfinite().all()) else None), nfe


def _is_deterministic(problem: Problem, contender: Contender, budgets: Sequence[int]) -> bool:
    """Return True for a contender without noise.

    Samplers of this package declare whether they add noise. Another contender is run with two
    seeds, at the smallest and the largest budget, since some methods add no noise in runs of few
    steps.
    """
    if isinstance(contender, (Own, Informed)):
        return not contender.sampler.stochastic
    x = problem.start(1, 0)
    for budget in (min(budgets), max(budgets)):
        runs = [_attempt(contender, problem, x, budget, seed) for seed in (1, 2)]
        samples = [run[0] for run in runs if run is not None and run[0] is not None]
        if len(samples) == 2 and not torch.equal(*samples):
            return False
    return True
