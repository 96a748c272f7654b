"""Bags by sum and mean, padded and weighed; what has no rule says what works instead."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import bilevel


class Bag(nn.Module):
    def __init__(self, weighed: bool = False, **settings: Any) -> None:
        super().__init__()
        self.bag, self.weighed = nn.EmbeddingBag(7, 6, **settings), weighed

    def forward(self, x: Tensor) -> Tensor:
        ids = (x[:, :, 0] * 10).abs().long() % 7
        return self.bag(ids, per_sample_weights=x[:, :, 1] if self.weighed else None)


@pytest.mark.parametrize("settings", [{"mode": "mean"}, {"mode": "sum"}, {"mode": "mean", "padding_idx": 2},
                                      {"mode": "sum", "weighed": True}], ids=str)  # fmt: skip
def test_sum_and_mean(compare: Any, settings: dict[str, Any]) -> None:
    compare(lambda: Bag(**settings), products=("ghost",))  # torch has neither a forward mode nor a second derivative


def test_several_bags_in_one_row(compare: Any, of: Any) -> None:
    def bags(module: Any, x: Tensor) -> Tensor:
        ids = (x[:, :, 0] * 10).abs().long() % 7
        starts = torch.arange(0, ids.numel(), ids.shape[1])
        return torch.nn.functional.embedding_bag(ids.flatten(), module.weight, starts, mode="sum")

    compare(lambda: of(bags, weight=(7, 6)), products=("ghost",))


@pytest.mark.parametrize("product", ["ghost", "jvp"])
def test_max_is_refused_and_nothing_that_fails_is_recommended(compare: Any, product: str) -> None:
    with pytest.raises((bilevel.NoRuleError, NotImplementedError), match="embed") as caught:
        compare.value(lambda: Bag(mode="max"), product)
    assert "product='jvp'" not in str(caught.value)


def test_unroll_says_that_torch_has_no_second_derivative(compare: Any) -> None:
    with pytest.raises(NotImplementedError, match=r"no second derivative.*choose product='ghost'"):
        compare.value(lambda: Bag(mode="sum"), "unroll")
