"""Other libraries in the arena, each imported only when it is asked for."""

from __future__ import annotations

import importlib
from collections.abc import Sequence

from scoresde.arena.peers.base import Peer, on_all_grids
from scoresde.checks import check_name
from scoresde.errors import MissingExtraError

__all__ = ["LIBRARIES", "Peer", "peers"]

LIBRARIES = ("azula", "diffusers", "k_diffusion")
"""The libraries that there are adapters for."""


def peers(libraries: Sequence[str] = LIBRARIES) -> dict[str, Peer]:
    """Every sampler of some libraries, on every grid, by names such as `azula:Heun@karras`.

    Args:
        libraries: which ones, of `LIBRARIES`.

    Raises:
        UnknownNameError: There is no adapter for a library.
        MissingExtraError: A library is not installed.
    """
    found: dict[str, Peer] = {}
    for library in libraries:
        check_name("library", library, LIBRARIES)
        adapter = importlib.import_module(f"scoresde.arena.peers.from_{library}")
        try:
            methods = adapter.methods()
        except ImportError as error:
            raise MissingExtraError.of(library, "peers", f"comparing with {library}") from error
        found |= on_all_grids(library, methods)
    return found
