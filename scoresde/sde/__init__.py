"""Define stochastic differential equations: perturbation kernels, ladders, and their reversal."""

from collections.abc import Mapping
from types import MappingProxyType

from scoresde.sde.bridge import BrownianBridgeSDE
from scoresde.sde.condition import Classes, Condition, Field, class_name
from scoresde.sde.ito import ItoSDE
from scoresde.sde.ladder import BetaLadder, NCSNLadder
from scoresde.sde.moments import Moments
from scoresde.sde.paths import EDMSDE, VESDE, VPSDE, CosineSDE, FlowSDE, SubVPSDE
from scoresde.sde.process import SDE
from scoresde.sde.reverse import ReverseSDE, check_output, report
from scoresde.sde.score import Facts, Score, ask, facts, passes_of, process_of
from scoresde.sde.shapes import expand
from scoresde.sde.time_laws import (
    Importance,
    Laplace,
    Logistic,
    LogNormal,
    Stratified,
    TimeLaw,
    Uniform,
)

SDES: Mapping[str, type[SDE]] = MappingProxyType(
    {
        kind.__name__: kind
        for kind in (
            VESDE, VPSDE, SubVPSDE, NCSNLadder, BetaLadder, CosineSDE, EDMSDE, FlowSDE,
            BrownianBridgeSDE,
        )
    }
)  # fmt: skip
"""The SDE classes by the names that model files, the command line and the tests use."""

LAWS: Mapping[str, TimeLaw] = MappingProxyType(
    {
        "uniform": Uniform(),
        "lognormal": LogNormal(),
        "logistic": Logistic(),
        "laplace": Laplace(),
        "importance": Importance(),
    }
)
"""The distributions of training times by name. `dataclasses.replace` changes their parameters."""

__all__ = [
    "EDMSDE",
    "LAWS",
    "SDE",
    "SDES",
    "VESDE",
    "VPSDE",
    "BetaLadder",
    "BrownianBridgeSDE",
    "Classes",
    "Condition",
    "CosineSDE",
    "Facts",
    "Field",
    "FlowSDE",
    "Importance",
    "ItoSDE",
    "Laplace",
    "LogNormal",
    "Logistic",
    "Moments",
    "NCSNLadder",
    "ReverseSDE",
    "Score",
    "Stratified",
    "SubVPSDE",
    "TimeLaw",
    "Uniform",
    "ask",
    "check_output",
    "class_name",
    "expand",
    "facts",
    "passes_of",
    "process_of",
    "report",
]
