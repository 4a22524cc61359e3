"""Run samplers of other libraries in the arena; each library is imported when it is used."""

from __future__ import annotations

import importlib
from collections.abc import Sequence

from scoresde.arena.peers.peer import Peer, on_all_grids
from scoresde.checks import check_name
from scoresde.errors import MissingExtraError

__all__ = ["LIBRARIES", "Peer", "peers"]

LIBRARIES = ("azula", "diffusers", "k_diffusion")
"""The libraries with adapters."""

_PEERS = "pip install 'scoresde[peers]'"
# k-diffusion requires an old numpy, and packages that its samplers do not use
_INSTALL = {
    "azula": _PEERS,
    "diffusers": _PEERS,
    "k_diffusion": "pip install --no-deps k-diffusion",
}


def peers(libraries: Sequence[str] = LIBRARIES) -> dict[str, Peer]:
    """Return every sampler of some libraries, on every grid, by names such as `azula:Heun@karras`.

    Args:
        libraries: The libraries, of `LIBRARIES`.

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
            what = f"comparing with {library}"
            raise MissingExtraError.by(library, _INSTALL[library], what) from error
        found |= on_all_grids(library, methods)
    return found
