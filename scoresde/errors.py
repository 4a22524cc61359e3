"""Define the errors that scoresde raises.

Each error that is raised is a `ScoreSDEError` and also a builtin error. For example, both
`except ScoreSDEError` and `except ValueError` catch an `InvalidValueError`.
"""

from __future__ import annotations

import difflib
import os
import re
import sysconfig
import traceback
from collections.abc import Iterable

__all__ = [
    "CheckpointError",
    "ConvergenceError",
    "DataError",
    "DeviceError",
    "InvalidTypeError",
    "InvalidValueError",
    "MemoryLimitError",
    "MissingExtraError",
    "NonFiniteError",
    "PeerError",
    "ScoreSDEError",
    "ShapeError",
    "TrainingError",
    "UnknownNameError",
]

_LISTED = 50  # the largest number of names that a message lists
# folders of libraries; a notebook does not show the calls in their files
_INNER = (
    os.path.dirname(__file__),
    *(sysconfig.get_path(name) for name in ("stdlib", "purelib", "platlib")),
)


class ScoreSDEError(Exception):
    """Report an error of scoresde; this is the base class of all errors of scoresde.

    Examples:
        >>> import scoresde
        >>> try:
        ...     scoresde.VESDE(sigma_min=1.0, sigma_max=0.1)
        ... except scoresde.ScoreSDEError as error:
        ...     print(isinstance(error, ValueError), error)
        True need 0 < sigma_min < sigma_max, finite, got sigma_min = 1.0, sigma_max = 0.1
    """

    def _render_traceback_(self) -> list[str]:
        """Return the lines that a notebook shows: the calls in the user's code, and the message.

        With `SCORESDE_DEBUG=1` in the environment all calls are shown.
        """
        if os.environ.get("SCORESDE_DEBUG") == "1":
            return "".join(traceback.format_exception(self)).splitlines()
        calls = traceback.extract_tb(self.__traceback__)
        own = [call for call in calls if not call.filename.startswith(_INNER)]
        lines = "".join(traceback.format_list(own)).splitlines()
        lines = [re.sub(r'File ".*ipykernel_.*?"', "a cell", line) for line in lines]
        return [*lines, f"{type(self).__name__}: {self}"]


class InvalidValueError(ScoreSDEError, ValueError):
    """Report an argument with a wrong value."""


class InvalidTypeError(ScoreSDEError, TypeError):
    """Report an argument of a wrong type or dtype."""


class ShapeError(ScoreSDEError, ValueError):
    """Report a tensor of a wrong shape."""


class DeviceError(ScoreSDEError, RuntimeError):
    """Report a device that cannot be used, or tensors on different devices."""


class NonFiniteError(ScoreSDEError, RuntimeError):
    """Report a NaN or an infinity."""


class ConvergenceError(ScoreSDEError, RuntimeError):
    """Report a solver that needs too many evaluations, or steps too small to change the time."""


class MemoryLimitError(ScoreSDEError, MemoryError):
    """Report a batch that does not fit into memory."""


class CheckpointError(ScoreSDEError, RuntimeError):
    """Report a checkpoint that is missing or damaged, has another format, or cannot be written."""


class DataError(ScoreSDEError, ValueError):
    """Report training data that cannot be found, read or used.

    Attributes:
        faults: The faults as a list, if the error reports several.
    """

    faults: tuple[str, ...] = ()


class TrainingError(ScoreSDEError, RuntimeError):
    """Report training that cannot continue."""


class PeerError(ScoreSDEError, RuntimeError):
    """Report that another process of the job died, failed, or did not answer."""


class MissingExtraError(ScoreSDEError, ImportError):
    """Report an optional dependency that is not installed."""

    @classmethod
    def of(cls, package: str, extra: str, purpose: str) -> MissingExtraError:
        """Return the error for a `purpose` that needs `package`, which `extra` installs."""
        return cls.by(package, f"pip install 'scoresde[{extra}]'", purpose)

    @classmethod
    def by(cls, package: str, command: str, purpose: str) -> MissingExtraError:
        """Return the error for a `purpose` that needs `package`, which `command` installs."""
        return cls(
            f"{purpose} needs the package {package!r}, which is not installed; run `{command}`"
        )


class UnknownNameError(ScoreSDEError, ValueError, KeyError):
    """Report a name that is not among the choices."""

    __str__ = Exception.__str__  # KeyError.__str__ would put the message in quotes

    @classmethod
    def of(cls, kind: str, name: object, choices: Iterable[str]) -> UnknownNameError:
        """Return the error for an unknown `name` of a `kind`; suggest the most similar choice."""
        names = sorted(choices)
        small = {other.lower(): other for other in names}
        near = difflib.get_close_matches(str(name)[:200].lower(), small, n=1)
        hint = f"; did you mean {small[near[0]]!r}?" if near else ";"
        given = repr(name)
        given = given if len(given) <= 200 else f"{given[:197]}..."
        more = f" and {len(names) - _LISTED} more" if len(names) > _LISTED else ""
        return cls(f"unknown {kind} {given}{hint} choose from {', '.join(names[:_LISTED])}{more}")
