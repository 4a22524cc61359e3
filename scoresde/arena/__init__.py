r"""Compare samplers on problems with known answers, at equal numbers of evaluations."""

from scoresde.arena.contender import FAST, Contender, Informed, contenders
from scoresde.arena.densities import image_densities
from scoresde.arena.judges import LAW
from scoresde.arena.problem import Problem
from scoresde.arena.problems import HELD_OUT, TUNING, digits, tuning
from scoresde.arena.referee import BUDGETS, compare
from scoresde.arena.reference import DOP853, FlowMap, RungeKutta4
from scoresde.arena.results import Ratio, Results, Row

__all__ = [
    "BUDGETS",
    "DOP853",
    "FAST",
    "HELD_OUT",
    "LAW",
    "TUNING",
    "Contender",
    "FlowMap",
    "Informed",
    "Problem",
    "Ratio",
    "Results",
    "Row",
    "RungeKutta4",
    "compare",
    "contenders",
    "digits",
    "image_densities",
    "tuning",
]
