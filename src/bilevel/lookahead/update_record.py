"""What `Lookahead` keeps of one update, and what it refuses before there is one."""

from __future__ import annotations

import weakref
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, get_args

import torch
from torch import Tensor

from .check import Reference
from .ledger import Ledger
from .outer_gradient import OuterGradient
from .product_table import PRODUCTS
from .recorder import Recorder, Sites
from .step_probe import StepProbe
from .taken_step import TakenStep
from .together import Before
from .words import AdamDerivative, Check

__all__ = ["MicroBatch", "Update", "count_steps", "refuse_parameters", "validate", "with_gradient"]


@dataclass
class MicroBatch:
    """What one inner block leaves for the hypergradient."""

    recorder: Recorder
    coefficients: Tensor | None = None  # attached to the weigher
    used: Tensor | None = None  # as the backward pass had them
    precision: torch.dtype | None = None
    reference: Reference | None = None


@dataclass
class Update:
    """One update, from its first inner block to its hypergradient. Nothing of it is left for the next."""

    sites: Sites
    ledger: Ledger
    batches: list[MicroBatch]
    written: dict[Tensor, tuple[int, int]]
    num_steps: int
    due: bool = False
    check_seconds: float = 0.0
    probe: StepProbe | None = None
    taken: TakenStep | None = None
    before: Before | None = None
    outer: OuterGradient | None = None


def count_steps(owner: object, optimizer: torch.optim.Optimizer, counter: list[int]) -> None:
    def count(*_: Any) -> None:
        counter[0] += 1

    weakref.finalize(owner, optimizer.register_step_post_hook(count).remove)


def refuse_parameters(groups: Sequence[Mapping[str, Any]], sites: Sites) -> None:
    if not sites.parameters:
        raise ValueError("the optimizer holds no trainable parameter of the model")
    for index, group in enumerate(groups):
        for place, parameter in enumerate(group["params"]):
            if parameter.requires_grad and parameter not in sites.names:
                raise ValueError(
                    f"parameter {place} of the optimizer's group {index} is not in the model; Lookahead sees the "
                    "losses through the model only: make it a parameter of the model, or give it its own optimizer"
                )
            if parameter.requires_grad and parameter.is_complex():
                raise ValueError(f"{sites.names[parameter]}: complex parameters have no rule; keep two real ones")


def with_gradient(sites: Sites) -> dict[Tensor, str]:
    return {p: name for p, name in sites.others.items() if p.grad is not None}


def validate(
    product: str, adam: str, check: str, clip_norm: float | None, clip_value: float | None, epsilon: float
) -> None:
    for name, value, allowed in (
        ("product", product, tuple(PRODUCTS)),
        ("adam", adam, get_args(AdamDerivative)),
        ("check", check, get_args(Check)),
    ):
        if value not in allowed:
            raise ValueError(f"{name} must be one of {', '.join(allowed)}, is {value!r}")
    for name, value in (("clip_norm", clip_norm), ("clip_value", clip_value), ("epsilon", epsilon)):
        if value is not None and not value > 0:
            raise ValueError(f"{name} must be positive, is {value!r}")
    if clip_norm is not None and clip_value is not None:
        raise ValueError("clip by norm or by value, not both: give clip_norm or clip_value")
