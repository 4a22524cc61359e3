"""Every error that scoresde raises on purpose.

Each is a `ScoreSDEError` and also the builtin that it resembles, so that both
`except ScoreSDEError` and `except ValueError` do what they say.
"""

from __future__ import annotations

import difflib
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

_LISTED = 50  # names that a message lists


class ScoreSDEError(Exception):
    """Base of all errors raised by scoresde."""


class InvalidValueError(ScoreSDEError, ValueError):
    """An argument has the right type and an impossible value."""


class InvalidTypeError(ScoreSDEError, TypeError):
    """An argument has the wrong type or dtype."""


class ShapeError(ScoreSDEError, ValueError):
    """A tensor has another shape than the problem says."""


class DeviceError(ScoreSDEError, RuntimeError):
    """Tensors that must meet live on different devices."""


class NonFiniteError(ScoreSDEError, RuntimeError):
    """A NaN or an infinity where only finite numbers make sense."""


class ConvergenceError(ScoreSDEError, RuntimeError):
    """A solver that did not arrive within its budget."""


class MemoryLimitError(ScoreSDEError, MemoryError):
    """A batch that does not fit into memory."""


class CheckpointError(ScoreSDEError, RuntimeError):
    """A checkpoint that is missing, damaged, foreign or cannot be written."""


class DataError(ScoreSDEError, ValueError):
    """Training data that cannot be found, read or used."""


class TrainingError(ScoreSDEError, RuntimeError):
    """Training that cannot go on."""


class PeerError(ScoreSDEError, RuntimeError):
    """Another process of the job that died, failed, or did not answer."""


class MissingExtraError(ScoreSDEError, ImportError):
    """An optional dependency that is not installed."""

    @classmethod
    def of(cls, package: str, extra: str, purpose: str) -> MissingExtraError:
        """Return the error for `purpose`, which needs `package` from the extra `extra`."""
        return cls.by(package, f"pip install 'scoresde[{extra}]'", purpose)

    @classmethod
    def by(cls, package: str, command: str, purpose: str) -> MissingExtraError:
        """Return the error for `purpose`, which needs a `package` that a `command` installs."""
        return cls(
            f"{purpose} needs the package {package!r}, which is not installed; run `{command}`"
        )


class UnknownNameError(ScoreSDEError, ValueError, KeyError):
    """A name that is not among the choices."""

    __str__ = Exception.__str__  # a KeyError would show the sentence in quotes

    @classmethod
    def of(cls, kind: str, name: object, choices: Iterable[str]) -> UnknownNameError:
        """Return the error for the `kind` called `name`, with the nearest of the `choices`."""
        names = sorted(choices)
        small = {other.lower(): other for other in names}
        near = difflib.get_close_matches(str(name)[:200].lower(), small, n=1)
        hint = f"; did you mean {small[near[0]]!r}?" if near else ";"
        said = repr(name)
        said = said if len(said) <= 200 else f"{said[:197]}..."
        more = f" and {len(names) - _LISTED} more" if len(names) > _LISTED else ""
        return cls(f"unknown {kind} {said}{hint} choose from {', '.join(names[:_LISTED])}{more}")
