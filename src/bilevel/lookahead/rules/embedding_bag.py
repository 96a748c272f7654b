"""EmbeddingBag by sum or mean: d_i += <δ_i, bag(U)_i>, keeping δ."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor
from torch.nn import functional as F

from ..tape import Tape
from ..tracked import NoRuleError, Tracked
from .product import note_multilinear
from .shared import arguments, register_rule

_bag: Callable[..., Tensor] = F.embedding_bag
_NAMES = (
    "input", "weight", "offsets", "max_norm", "norm_type", "scale_grad_by_freq", "mode", "sparse", "per_sample_weights",
    "include_last_offset", "padding_idx",
)  # fmt: skip


def _embedding_bag(tape: Tape, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    a = arguments(
        _NAMES, args, kwargs, offsets=None, max_norm=None, norm_type=2.0, scale_grad_by_freq=False, mode="mean",
        sparse=False, per_sample_weights=None, include_last_offset=False, padding_idx=None,
    )  # fmt: skip
    weight = a["weight"]
    if a["max_norm"] is not None or a["scale_grad_by_freq"] or a["sparse"] or a["mode"] == "max":
        raise NoRuleError(
            f"{weight.path}: embedding_bag with max_norm, scale_grad_by_freq, sparse or mode='max' has no ghost rule, "
            "and torch no second derivative of it; make the layer without them, or embed and reduce in two functions"
        )
    if isinstance(a["per_sample_weights"], Tracked) or not isinstance(weight, Tracked):
        raise NoRuleError(
            f"{plain_path(a['per_sample_weights'])}: per_sample_weights of embedding_bag that are a parameter have no "
            "ghost rule; embed and sum in two functions"
        )
    output = _bag(**{**a, "weight": weight.value})
    held = dict(a)
    if isinstance(a["per_sample_weights"], Tensor):
        held["per_sample_weights"] = a["per_sample_weights"].detach().clone()

    def apply(u: Tensor) -> Tensor:
        given = held["per_sample_weights"]
        return _bag(**{**held, "weight": u, "per_sample_weights": None if given is None else given.to(u.dtype)})

    note_multilinear(tape, output, weight, apply)
    return output


def plain_path(value: Any) -> str:
    return value.path if isinstance(value, Tracked) else "a parameter"


register_rule(F.embedding_bag, _embedding_bag)
