"""The product `unroll`: double backward through the inner gradient. Exact, and as large as the whole graph."""

from __future__ import annotations

from collections.abc import Generator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from .tape import Site, substitute
from .typed import gradients

__all__ = ["DoubleBackward"]


class DoubleBackward:
    """The differentiable inner gradient of one micro-batch: g(c) = Σ_i c_i ∇ℓ_i, so d_i = ∂<u, g>/∂c_i."""

    def __init__(self, model: nn.Module, sites: list[Site], rows: Mapping[str, Tensor] | None) -> None:
        self.sites = sites
        # Aliases by name, copies by value: the optimizer will write into the parameters while this graph is alive.
        self.copies = {p: p.clone() for p in dict.fromkeys(site.parameter for site in sites)}
        self.coefficients: Tensor | None = None
        self.gradients: dict[Tensor, Tensor] = {}

    @contextmanager
    def open(self) -> Generator[None]:
        """The model runs on copies of its parameters, attention by the only kernel that can be differentiated twice."""
        with sdpa_kernel(SDPBackend.MATH), substitute(self.sites, lambda site: self.copies[site.parameter]):
            yield

    def backward(self, losses: Tensor, coefficients: Tensor, scale: float | Tensor) -> None:
        """Add Σ c_i ∇ℓ_i to `.grad` and keep its graph."""
        self.coefficients = coefficients.detach().to(losses.dtype).requires_grad_()
        total = (self.coefficients * losses).sum() * scale
        inputs = list(self.copies.values())
        grads = gradients(total, inputs, create_graph=True)
        for parameter, gradient in zip(self.copies, grads, strict=True):
            if gradient is None:
                continue
            self.gradients[parameter] = gradient
            value = gradient.detach()
            parameter.grad = value.clone() if parameter.grad is None else parameter.grad.add_(value)

    def products(self, cotangent: Mapping[Tensor, Tensor]) -> Tensor:
        """<u, ∇ℓ_i> for every example, (B,), times the loss scale."""
        if self.coefficients is None:
            raise RuntimeError("call lookahead.backward(losses, coefficients) inside lookahead.inner()")
        used = [p for p in self.gradients if p in cotangent]
        (d,) = torch.autograd.grad(
            [self.gradients[p] for p in used],
            [self.coefficients],
            grad_outputs=[cotangent[p].to(self.gradients[p].dtype) for p in used],
        )
        self.gradients.clear()
        return d
