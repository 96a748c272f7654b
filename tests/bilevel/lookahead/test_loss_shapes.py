"""One d per loss, whatever the losses' shape; and the outer loss's direct term in the weigher."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import bilevel
from bilevel import Lookahead

EXACT = 1e-9


class Steps(nn.Module):
    """(B, S, 5) -> (B, S, 3)"""

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.mix, self.head = nn.Linear(5, 6), nn.Linear(6, 6), nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.layer(x).tanh()
        return self.head((hidden + self.mix(hidden.cumsum(1))).tanh())


def by_step(model: nn.Module, batch: Any) -> Tensor:
    x, label = batch
    return F.cross_entropy(model(x).mT, label, reduction="none")  # (B, S)


def by_label(model: nn.Module, batch: Any) -> Tensor:
    x, label = batch
    chances = model(x).log_softmax(-1)
    return -chances.gather(-1, torch.stack([label, (label + 1) % 3], -1))  # (B, S, 2)


def batch(seed: int) -> tuple[Tensor, Tensor]:
    draw = torch.Generator().manual_seed(seed)
    x = torch.randn(3, 4, 5, generator=draw, dtype=torch.float64)
    return x, torch.randint(0, 3, (3, 4), generator=draw)


@pytest.mark.parametrize("product", ["jvp", "unroll"])
@pytest.mark.parametrize("losses", [by_step, by_label])
@pytest.mark.parametrize("clip_norm", [None, 0.05])
def test_one_number_per_loss(case: Any, product: str, losses: Any, clip_norm: float | None) -> None:
    made = case(Steps, losses=losses, outer=lambda m, b: losses(m, b).mean(), product=product, clip_norm=clip_norm)
    made.inner_batch, made.outer_batch = batch(1), batch(2)
    outcome = made.run()
    assert outcome.error < EXACT
    assert outcome.moved < 1e-15


def test_ghost_refuses_with_the_way_out(case: Any) -> None:
    made = case(Steps, losses=by_step)
    made.inner_batch = batch(1)
    with pytest.raises(ValueError, match=r"takes one loss per example, \(B,\), not \(3, 4\).*'jvp' or 'unroll'"):
        made.begin()


def test_losses_that_couple_the_examples(case: Any) -> None:
    """A contrastive loss: exact by jvp and unroll; ghost cannot tell the examples apart, and the check says so."""

    def contrastive(model: nn.Module, data: Any) -> Tensor:
        features = F.normalize(model(data[0]), dim=-1)
        return F.cross_entropy(features @ features.mT, torch.arange(len(features)).flip(0), reduction="none")

    outer = case().outer
    for product in ("jvp", "unroll"):
        assert case(losses=contrastive, outer=outer, product=product).run().error < EXACT
    with pytest.raises(bilevel.HypergradientCheckError, match="mixes examples"):
        case(losses=contrastive, outer=outer).run()


def test_a_coefficient_of_zero(case: Any) -> None:
    made = case(product="jvp")
    made.coefficients = lambda phi: (phi + 1.0) / 4  # the first is 0
    assert made.run().error < EXACT


@pytest.mark.parametrize("product", ["ghost", "jvp", "unroll"])
@pytest.mark.parametrize("same_forward", [False, True])
def test_a_weigher_on_features_that_are_not_detached(case: Any, product: Any, same_forward: bool) -> None:
    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body, self.head = nn.Linear(5, 6), nn.Linear(6, 3)

        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            hidden = self.body(x).tanh()
            return self.head(hidden), hidden

    made = case()
    (x, label), (outer_x, outer_label) = made.inner_batch, made.outer_batch

    def run(detach: bool) -> tuple[Tensor, Tensor, Any]:
        torch.manual_seed(0)
        model = Model().double()
        weigher = nn.Linear(6, 1).double()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        lookahead = Lookahead(model, optimizer, product)
        with lookahead.inner():
            logits, hidden = model(x)
            if not same_forward:
                hidden = model.body(x).tanh()
            weight = weigher(hidden.detach() if detach else hidden).sigmoid().squeeze(-1) / 4
            lookahead.backward(F.cross_entropy(logits, label, reduction="none"), weight)
        lookahead.step()
        before = model.body.weight.grad.clone()  # pyright: ignore[reportOptionalMemberAccess]
        lookahead.backward_outer(F.cross_entropy(model(outer_x)[0], outer_label))
        assert torch.equal(model.body.weight.grad, before)  # pyright: ignore[reportArgumentType]
        return weigher.weight.grad, weigher.bias.grad, model  # pyright: ignore[reportReturnType]

    for actual, expected in zip(run(detach=False)[:2], run(detach=True)[:2], strict=True):
        assert torch.equal(actual, expected)


@pytest.mark.parametrize("accumulate", [False, True])
def test_a_direct_term_in_the_weigher(case: Any, accumulate: bool) -> None:
    made = case()
    slope = torch.arange(4, dtype=torch.float64)
    lookahead, model, _, phi = made.begin()
    lookahead.step()
    if accumulate:
        lookahead.accumulate_outer(made.outer(model, made.outer_batch) + 3 * (phi * slope).sum())
    lookahead.backward_outer(made.outer(model, made.outer_batch) + (phi * slope).sum())
    assert phi.grad is not None
    expected = made.difference() + slope * (2 if accumulate else 1)
    assert float((phi.grad - expected).norm() / expected.norm()) < EXACT
