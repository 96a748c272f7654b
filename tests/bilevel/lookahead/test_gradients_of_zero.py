"""Coordinates and positions without a gradient: no spike from Adam, no perturbation wasted, no product paid."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bilevel import Lookahead, step_vjp

NUM_EXAMPLES, NUM_TOKENS, WIDTH, VOCABULARY = 4, 6, 8, 50


class Reader(nn.Module):
    """Causal mean over tokens, logits at the last position only; wide and narrow layers, with and without bias."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(VOCABULARY, WIDTH)
        self.up, self.down = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(3 * WIDTH, WIDTH, bias=False)
        self.wide = nn.Linear(WIDTH, 2 * WIDTH, bias=False)
        self.head = nn.Linear(2 * WIDTH, 3)

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.embedding(tokens)
        x = x.cumsum(1) / torch.arange(1, tokens.shape[1] + 1, dtype=x.dtype)[:, None]
        x = x + self.down(torch.tanh(self.up(x)))
        return self.head(torch.tanh(self.wide(x)))[:, -1]


def hypergradient(product: Any, dtype: torch.dtype) -> Tensor:
    torch.manual_seed(0)
    model = Reader().to(dtype)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    lookahead = Lookahead(model, optimizer, product)
    raw = torch.linspace(0.5, 1.5, NUM_EXAMPLES, dtype=dtype).requires_grad_()
    # The outer batch holds other tokens: their rows never get an inner gradient, and Adam's D there is lr / ε.
    inner = torch.randint(0, VOCABULARY // 2, (NUM_EXAMPLES, NUM_TOKENS))
    outer = torch.randint(VOCABULARY // 2, VOCABULARY, (NUM_EXAMPLES, NUM_TOKENS))
    label = torch.arange(NUM_EXAMPLES) % 3
    for _ in range(5):
        optimizer.zero_grad()
        raw.grad = None
        with lookahead.inner():
            lookahead.backward(F.cross_entropy(model(inner), label, reduction="none"), raw / NUM_EXAMPLES)
        lookahead.step()
        lookahead.backward_outer(F.cross_entropy(model(outer), label))
    assert raw.grad is not None
    return raw.grad


def test_positions_without_a_gradient_change_nothing() -> None:
    expected = hypergradient("unroll", torch.float64)
    actual = hypergradient("ghost", torch.float64)
    assert float((actual - expected).norm() / expected.norm()) < 1e-10


def test_finite_difference_does_not_perturb_what_the_batch_does_not_hold() -> None:
    expected = hypergradient("jvp", torch.float32)
    actual = hypergradient("fd", torch.float32)
    # The rounding of fp32 losses over a perturbation of .01; before, all of it went to the outer batch's tokens.
    assert float(torch.cosine_similarity(actual, expected, 0)) > 0.999


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_adam_has_no_spike_at_a_cancelled_gradient_in_16_bits(dtype: torch.dtype) -> None:
    parameter = nn.Parameter(torch.ones(2, dtype=dtype))
    optimizer = torch.optim.AdamW([parameter], lr=0.1)
    for _ in range(2):
        parameter.grad = torch.tensor([0.5, 0.0], dtype=dtype)
        optimizer.step()
    usual, cancelled = step_vjp(optimizer, [torch.ones(2)])[0].tolist()
    assert abs(usual) < 1.0
    # fp32 keeps the formula: lr (1-β1) / (c1 ε), c1 = 1 - .9²
    expected = 0.0 if dtype == torch.bfloat16 else 0.1 * 0.1 / (0.19 * 1e-8)
    assert cancelled == pytest.approx(expected, rel=1e-6)
