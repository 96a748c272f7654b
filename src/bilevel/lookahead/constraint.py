"""A projection after the step, as part of the derivative: θ' = P(θ̃), θ̃ = T(θ, g̃), so v becomes Pᵀ v before D.

P is any differentiable function of the named parameters, and Pᵀ is autograd's: where a bound is active it holds the
coordinate and no gradient passes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeAlias

import torch
from torch import Tensor

from .graph import leaves
from .typed import gradients

__all__ = ["Constraint", "Projection"]

Projection: TypeAlias = Callable[[dict[str, Tensor]], Mapping[str, Tensor]]
"""{name: parameter} of all trained parameters -> {name: what it becomes} of those that are constrained. Pure."""


class Constraint:
    """One projection of one step; `before` holds θ̃ of what was constrained."""

    def __init__(self, projection: Projection, names: Mapping[Tensor, str]) -> None:
        self._projection, self._names = projection, names
        self._inputs: dict[Tensor, Tensor] = {}
        self._outputs: dict[Tensor, Tensor] = {}
        self.before: dict[Tensor, Tensor] = {}

    def apply(self) -> None:
        """Project the parameters where they stand.

        Raises:
            ValueError: a projection that gives other names or shapes, writes into what it is given, or depends on
                anything else that is learned.
        """
        names = self._names
        self._inputs = {p: p.detach().clone().requires_grad_() for p in names}
        owner = {name: p for p, name in names.items()}
        try:
            with torch.enable_grad():
                found = self._projection({name: self._inputs[p] for p, name in names.items()})
        except RuntimeError as error:
            if "in-place" not in str(error):
                raise
            raise ValueError(
                "the projection writes into a parameter that it is given; return new tensors (clamp, not clamp_): "
                "Lookahead puts them in place"
            ) from error
        for name, tensor in found.items():
            if name not in owner or tensor.shape != owner[name].shape:
                raise ValueError(
                    f"the projection gives {name} {tuple(tensor.shape)}; allowed are names and shapes of the "
                    f"parameters that the optimizer trains: {', '.join(list(owner)[:5])} …"
                )
        inputs = set(self._inputs.values())
        if any(leaf not in inputs for leaf in leaves(*found.values())):
            raise ValueError(
                "the projection depends on a tensor that requires grad and is no parameter that the optimizer trains; "
                "its derivative would be lost: detach it, or write the constraint as a function of the parameters"
            )
        self._outputs = {owner[name]: tensor for name, tensor in found.items()}
        with torch.no_grad():
            for p, tensor in self._outputs.items():
                self.before[p] = self._inputs[p].detach()
                p.copy_(tensor)

    def pull(self, vector: dict[Tensor, Tensor]) -> dict[Tensor, Tensor]:
        """Pᵀ v. A parameter that the projection does not name stays as it is, and may feed others that it names."""
        pulled = {p: v for p, v in vector.items() if p not in self._outputs}
        asked = [p for p in self._outputs if p in vector and self._outputs[p].requires_grad]
        if asked:
            products = [(self._outputs[p] * vector[p].to(self._outputs[p].dtype)).sum() for p in asked]
            total = torch.stack([product.to(products[0].dtype) for product in products]).sum()
            for p, g in zip(self._inputs, gradients(total, list(self._inputs.values())), strict=True):
                if g is not None:
                    g = g.to(vector[p].dtype) if p in vector else g
                    pulled[p] = pulled[p] + g if p in pulled else g.clone()
        return pulled
