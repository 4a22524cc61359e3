"""Adapt methods of other libraries for posteriors of linear measurements.

Each is a function that maps a problem of `inverse.py` to draws. If two settings of a method were
compared, the better one is used here, even if the other is the default.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from peers.of_azula import AZULA
from peers.of_deepinv import DEEPINV

PEERS: Mapping[str, Mapping[str, Callable[[Any], Any]]] = {"azula": AZULA, "deepinv": DEEPINV}
