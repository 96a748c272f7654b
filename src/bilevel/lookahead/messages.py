"""What is said where a hypergradient cannot be trusted: what was compared, which parameters, what to do."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from .check import Agreement
from .sum_rule import Residual
from .taken_step import named

__all__ = ["disagreement", "step_wrong", "sum_rule_broken"]


def sum_rule_broken(product: str, residual: Residual, names: Mapping[Tensor, str]) -> str:
    """A use that was not seen, or gradient that was not declared."""
    hooked = [p for p in residual.failing if p._backward_hooks or getattr(p, "_post_accumulate_grad_hooks", None)]
    return (
        f"the sum rule is broken, residual {residual.largest:.1e}, for {named(residual.failing, names)}: what product="
        f"{product!r} knows of its gradient is not what .grad holds. "
        + ("A hook changes it: remove the hook, or write what it does into the model. " if hooked else "")
        + "Likely: gradient of something other than lookahead.backward (declare it: `with lookahead.unweighted():`), "
        "no optimizer.zero_grad() before this update, a use of the parameter that the product does not see (in the "
        "loss code, compiled or custom code), or an input changed since. Choose another product, or go on by "
        "Lookahead(check='log')"
    )


def disagreement(product: str, agreement: Agreement, names: Mapping[Tensor, str]) -> str:
    """Something is given to the wrong example."""
    worst = "".join(f"\n  {named(group, names)}: {error:.1e}" for error, group in agreement.worst if group)
    return (
        f"product={product!r} differs from plain autograd on this batch by {agreement.error:.1e} (relative); the "
        "hypergradient cannot be trusted."
        + (f" Worst parameters:{worst}" if worst else "")
        + "\nLikely: rows that are not examples (give lookahead.inner(rows=…)), a layer or a loss that mixes "
        "examples, or a custom function. Choose another product, or go on by Lookahead(check='log')"
    )


def step_wrong(ratio: float) -> str:
    """u is not the derivative of the step."""
    return (
        f"u differs from autograd through the optimizer's own formula by {ratio:.0f} times what rounding explains; the "
        "hypergradient cannot be trusted. Likely: an optimizer whose class was changed, or state that something else "
        "writes to. Go on by Lookahead(check='log')"
    )
