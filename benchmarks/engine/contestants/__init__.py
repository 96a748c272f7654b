"""Everybody who takes part, by name; a peer's package is imported when its contestant is made."""

from __future__ import annotations

from ..cases import Case
from ..names import NAMES, PRODUCTS
from .by_betty import Betty
from .by_higher import Higher
from .by_lookahead import Lookahead
from .by_torchopt import TorchOpt
from .contestant import Contestant as Contestant
from .floor import Floor
from .functional import OneStep


def make(name: str, case: Case) -> Contestant:
    """The contestant around a fresh case. Raises ImportError where a peer is not installed."""
    if name in PRODUCTS:
        return Lookahead(case, name)
    others = {"floor": Floor, "OneStep": OneStep, "betty": Betty, "torchopt": TorchOpt, "higher": Higher}
    if name not in others:
        raise ValueError(f"no contestant {name!r}; there are {', '.join(NAMES)}")
    return others[name](case)
