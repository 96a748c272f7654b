"""One model, three ways to the same numbers: `ghost`, `jvp`, and plain autograd over micro-batches of one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from bilevel import Lookahead

LR, NUM_EXAMPLES, NUM_OUTER = 0.1, 4, 3
Draw = Callable[[int], Tensor]


def tokens(num: int) -> Tensor:
    """(num, 5, 6), five positions, so that no other dimension is as large as the batch."""
    return torch.randn(num, 5, 6, dtype=torch.float64)


def losses_of(model: nn.Module, x: Tensor) -> Tensor:
    """(B,), not linear in the output, and different in each of its entries."""
    y = model(x).flatten(1)
    return (torch.sin(y) * torch.arange(1, 1 + y.shape[1])).square().mean(1) + y.sum(1)


def value_by_micro_batches(
    model: nn.Module, optimizer: Any, x: Tensor, outer: Tensor, raw: Tensor, fresh: Callable[[], nn.Module]
) -> Tensor:
    """-c'_i <u, ∇ℓ_i>, each ∇ℓ_i by a backward pass over example i alone; SGD, u = lr ∇F(θ')."""
    parameters = list(model.parameters())
    singles = []
    for place in range(len(x)):
        # A model that changes its buffers in a forward pass does so once.
        single = fresh()
        grads = torch.autograd.grad(
            losses_of(single, x[place : place + 1])[0], list(single.parameters()), allow_unused=True
        )
        singles.append([torch.zeros_like(p) if g is None else g for p, g in zip(parameters, grads, strict=True)])
    (raw.detach().sigmoid() * losses_of(model, x)).sum().backward()
    optimizer.step()
    v = torch.autograd.grad(losses_of(model, outer).mean(), parameters, allow_unused=True)
    rows = [sum((LR * a * b).sum() for a, b in zip(v, single, strict=True) if a is not None) for single in singles]
    (slope,) = torch.autograd.grad(raw.sigmoid().sum(), raw)
    return -slope * torch.stack([torch.as_tensor(row) for row in rows])


@dataclass
class Compare:
    def fresh(self, build: Callable[[], nn.Module], draw: Draw) -> tuple[nn.Module, Any, Tensor, Tensor, Tensor]:
        torch.manual_seed(0)
        model = build().double()
        with torch.no_grad():
            for parameter in model.parameters():  # scales and biases start at constants: move all
                parameter.add_(0.1 * torch.randn_like(parameter))
        optimizer = torch.optim.SGD(model.parameters(), lr=LR)
        raw = torch.randn(NUM_EXAMPLES, dtype=torch.float64).requires_grad_()
        return model, optimizer, draw(NUM_EXAMPLES), draw(NUM_OUTER), raw

    def value(self, build: Callable[[], nn.Module], product: Any, draw: Draw = tokens, **options: Any) -> Tensor:
        model, optimizer, x, outer, raw = self.fresh(build, draw)
        lookahead = Lookahead(model, optimizer, product)
        with lookahead.inner(**options):
            lookahead.backward(losses_of(model, x), raw.sigmoid())
        lookahead.step()
        lookahead.backward_outer(losses_of(model, outer).mean())
        assert raw.grad is not None
        return raw.grad

    def __call__(
        self, build: Callable[[], nn.Module], products: tuple[str, ...] = ("ghost", "jvp"), draw: Draw = tokens
    ) -> None:
        expected = value_by_micro_batches(*self.fresh(build, draw), lambda: self.fresh(build, draw)[0])
        assert float(expected.norm()) > 1e-6
        for product in products:
            error = float((self.value(build, product, draw) - expected).norm() / expected.norm())
            # float64: a few hundred roundings of 1e-16, on sums that partly cancel
            assert error < 1e-12, (product, error)


@pytest.fixture
def compare() -> Compare:
    return Compare()


class Turned(nn.Module):
    """A layer over (B, channels, positions)."""

    def __init__(self, layer: nn.Module, shape: tuple[int, ...] = (6, 5)) -> None:
        super().__init__()
        self.layer, self.shape = layer, shape

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x.mT.contiguous().reshape(len(x), *self.shape))


@pytest.fixture
def turned() -> type[Turned]:
    return Turned


class Function(nn.Module):
    """function(self, x) with parameters of its own."""

    def __init__(self, function: Callable[[Any, Tensor], Tensor], **shapes: tuple[int, ...]) -> None:
        super().__init__()
        self.function = function
        for name, shape in shapes.items():
            setattr(self, name, nn.Parameter(torch.randn(shape)))

    def forward(self, x: Tensor) -> Tensor:
        return self.function(self, x)


@pytest.fixture
def of() -> type[Function]:
    return Function
