"""Einsum, bilinear layers, tensordot, and matrix products with a parameter on either side."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

FUNCTIONS: dict[str, tuple[Any, dict[str, tuple[int, ...]]]] = {
    "einsum": (lambda m, x: torch.einsum("btc,cd->btd", x, m.w), {"w": (6, 5)}),
    "einsum, heads": (lambda m, x: torch.einsum("btc,chd->bhtd", x, m.w), {"w": (6, 2, 3)}),
    "einsum, parameter first": (lambda m, x: torch.einsum("oc,b...c->b...o", m.w, x), {"w": (5, 6)}),
    "einsum, two activations": (lambda m, x: torch.einsum("btc,cd,bsd->bts", x, m.w, x), {"w": (6, 6)}),
    "einsum, two parameters": (lambda m, x: torch.einsum("btc,cd,de->bte", x, m.w, m.v), {"w": (6, 3), "v": (3, 6)}),
    "einsum, one parameter twice": (lambda m, x: torch.einsum("btc,cd,de->bte", x, m.w, m.w), {"w": (6, 6)}),
    "einsum, a vector": (lambda m, x: torch.einsum("btc,c->bt", x, m.w), {"w": (6,)}),
    "tensordot": (lambda m, x: torch.tensordot(x, m.w, dims=1), {"w": (6, 5)}),
    "a vector": (lambda m, x: x @ m.w, {"w": (6,)}),
    "parameter first": (lambda m, x: m.w @ x, {"w": (4, 5)}),
    "by position": (lambda m, x: x[:, :, None] @ m.w, {"w": (5, 6, 2)}),
    "mm": (lambda m, x: torch.mm(x[:, 0], m.w), {"w": (6, 5)}),
    "bmm": (lambda m, x: torch.bmm(x, m.w.expand(len(x), -1, -1)), {"w": (6, 5)}),
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_products(compare: Any, of: Any, name: str) -> None:
    function, shapes = FUNCTIONS[name]
    compare(lambda: of(function, **shapes))


@pytest.mark.parametrize("bias", [True, False])
def test_bilinear(compare: Any, bias: bool) -> None:
    class Pair(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.pair = nn.Linear(6, 6), nn.Bilinear(6, 6, 3, bias=bias)

        def forward(self, x: Tensor) -> Tensor:
            return self.pair(self.first(x), x.flip(1))

    compare(Pair)
