"""Weight norm, both kinds: w = g v / ‖v‖, a function of two parameters, which forward mode knows when written out."""

from __future__ import annotations

from typing import Any

from ..derive import derive
from ..tape import Tape
from ..tracked import plain
from ..typed import fused_weight_norm, weight_norm
from .shared import register_rule


def _weight_norm(tape: Tape, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    value = fused_weight_norm(*map(plain, args), **kwargs)
    return derive(weight_norm, args, kwargs, out=value)


register_rule(fused_weight_norm, _weight_norm)
