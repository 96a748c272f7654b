"""PReLU, y = max(x, 0) + w min(x, 0): d_i += Σ <δ_i, u min(x_i, 0)>, one slope for all or one for each channel."""

from __future__ import annotations

from typing import Any

from torch import Tensor
from torch.nn import functional as F

from ..derive import derive
from ..tape import Tape
from ..tracked import plain
from .product import note_multilinear
from .shared import activation, arguments, register_rule


def _prelu(tape: Tape, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    if tape.of_parameters_alone(args, kwargs):
        return derive(F.prelu, args, kwargs)
    a = arguments(("input", "weight"), args, kwargs)
    x, weight = activation(a["input"], "prelu"), a["weight"]
    output = F.prelu(x, plain(weight))
    below = x.detach().clamp(max=0.0)

    def apply(u: Tensor) -> Tensor:
        shaped = u.reshape(-1, *[1] * (below.ndim - 2)) if below.ndim > 1 else u
        return below.to(u.dtype) * shaped

    note_multilinear(tape, output, weight, apply)
    return output


register_rule(F.prelu, _prelu)
