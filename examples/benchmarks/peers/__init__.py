"""Methods of other libraries for the posteriors of linear measurements.

Each is a function of a problem of `inverse.py` that returns draws. A setting without which a method
is bad is chosen for it: where its default was the worse of two, the better one stands here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from peers.of_azula import AZULA
from peers.of_deepinv import DEEPINV

PEERS: Mapping[str, Mapping[str, Callable[[Any], Any]]] = {"azula": AZULA, "deepinv": DEEPINV}
