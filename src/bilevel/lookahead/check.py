"""The comparison at the first update: the chosen product against plain autograd on two examples of the real batch.

<u, ∇ℓ_i> is also what an ordinary backward pass of ℓ_i alone gives: slow and large, but with no rule, no replay and
no formula in it, on the very graph of the update (same dropout masks, same casts, same kernels).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from .typed import gradients, norm

__all__ = ["HypergradientCheckError", "Reference", "cosine"]

THRESHOLD = 0.99


class HypergradientCheckError(RuntimeError):
    """The product disagrees with plain autograd at the first update."""


@dataclass
class Reference:
    """∇ℓ_i of the first and the last example of a micro-batch, taken on its graph before the weighted pass frees it."""

    examples: tuple[int, ...]
    gradients: list[dict[Tensor, Tensor]] = field(default_factory=list[dict[Tensor, Tensor]])

    @staticmethod
    def take(losses: Tensor, parameters: Sequence[Tensor]) -> Reference:
        """One backward pass for each of the two examples, keeping the graph."""
        reference = Reference(tuple(sorted({0, len(losses) - 1})))
        for example in reference.examples:
            grads = gradients(losses[example], parameters, retain_graph=True)
            reference.gradients.append({p: g.detach() for p, g in zip(parameters, grads, strict=True) if g is not None})
        return reference

    def refuse_hidden(self, names: Mapping[Tensor, str], before: Mapping[Tensor, int]) -> None:
        """Raise where the weighted pass wrote a gradient that torch.autograd.grad does not see."""
        for parameter, name in names.items():
            written = parameter.grad is not None and before.get(parameter) != parameter.grad._version
            if written and not any(parameter in kept for kept in self.gradients):
                raise RuntimeError(
                    f"{name}: has a gradient that torch.autograd.grad does not see, so the outer gradient would miss "
                    "it; this is reentrant gradient checkpointing: checkpoint with use_reentrant=False"
                )

    def product(self, cotangent: Mapping[Tensor, Tensor], parameter: Tensor | None = None) -> Tensor:
        """<u, ∇ℓ_i> over all parameters, or over one, for the examples kept: (E,)."""
        chosen = list(cotangent) if parameter is None else [parameter]
        rows: list[Tensor] = []
        for kept in self.gradients:
            parts = [(cotangent[p].double() * kept[p].double()).sum() for p in chosen if p in kept and p in cotangent]
            rows.append(torch.stack(parts).sum() if parts else torch.zeros((), dtype=torch.float64))
        return torch.stack([row.cpu() for row in rows])


def cosine(product: Tensor, reference: Tensor) -> float:
    """Agreement of two vectors of products; a wrong length counts like a wrong direction.

    The cosine of the angle, or the smaller ratio of the two lengths where that is worse: two numbers alone
    have a cosine near one by luck. NaN where the reference is zero.
    """
    a, b = product.double().cpu(), reference.double().cpu()
    size_a, size_b = float(norm(a)), float(norm(b))
    if size_b == 0.0:
        return math.nan
    if size_a == 0.0 or not math.isfinite(size_a):
        return 0.0
    angle = float(a @ b) / (size_a * size_b)
    # cos φ = .99 is a relative error of .14, and so is a length that is off by that much.
    ratio = min(size_a, size_b) / max(size_a, size_b)
    return min(angle, 1.0 - 0.5 * (1.0 - ratio) ** 2)


def explain(agreement: float, product: str, worst: Sequence[tuple[str, float]]) -> str:
    """The message of the error."""
    named = "".join(f"\n  {name}: {value:.4f}" for name, value in worst)
    return (
        f"the product {product!r} agrees with plain autograd on two examples of this batch to {agreement:.4f} only "
        f"(below {THRESHOLD}); the hypergradient cannot be trusted."
        + (f" Worst parameters:{named}" if named else "")
        + "\nLikely: rows that are not examples (give lookahead.inner(rows=…)), a layer that mixes examples, "
        "low precision with product='fd', or a custom function. Choose another product, or go on by "
        "Lookahead(check='log')"
    )
