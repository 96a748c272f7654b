"""Everybody who takes part, by name; a peer's package is imported when its contestant is made."""

from __future__ import annotations

from ..cases import Case
from ..names import NAMES, PRODUCTS
from .base import Contestant as Contestant
from .betty import Betty
from .floor import Floor
from .functional import OneStep
from .higher import Higher
from .lookahead import Lookahead
from .torchopt import TorchOpt


def make(name: str, case: Case) -> Contestant:
    """The contestant around a fresh case. Raises ImportError where a peer is not installed."""
    if name in PRODUCTS:
        return Lookahead(case, name)
    others = {"floor": Floor, "OneStep": OneStep, "betty": Betty, "torchopt": TorchOpt, "higher": Higher}
    if name not in others:
        raise ValueError(f"no contestant {name!r}; there are {', '.join(NAMES)}")
    return others[name](case)
