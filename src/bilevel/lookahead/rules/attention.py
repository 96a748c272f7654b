"""Multi-head attention: entered, so that its projections are seen as `linear`; inside, rows are the second dimension.

torch computes on (positions, rows, width), whatever `batch_first` says, and flattens both before the last projection.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor
from torch.nn import functional as F
from torch.utils import _pytree as pytree

from ..tape import Tape
from ..tracked import plain
from .shared import register_rule


def _attention(tape: Tape, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    query: Tensor = plain(args[0] if args else kwargs["query"])
    real = pytree.tree_map(plain, (args, kwargs))
    with tape.second(query.shape[1] if query.ndim == 3 else None):
        return tape.enter(F.multi_head_attention_forward, real[0], real[1])


register_rule(F.multi_head_attention_forward, _attention)
