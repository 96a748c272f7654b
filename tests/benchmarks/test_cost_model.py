"""The cost model's arithmetic: against multiplications that torch counts, bytes that processes send, and by hand."""

from __future__ import annotations

import pytest
from benchmarks.cost_model import Card, Model, Stack, cost
from benchmarks.cost_points import computing_points

CARD = Card("", gigabytes=10, teraflops=1, memory_terabytes=1, link_gigabytes=1)
MODEL = Model("", Stack(layers=2, width=8, feed_forward=16, kv=4, tokens=10), None, embeddings=100)


@pytest.mark.parametrize("product", ["ghost", "jvp"])
def test_multiplications_are_those_that_torch_counts(product: str) -> None:
    """In the last layer ghost multiplies at one position only, and embeddings and head are left out: 1.03 here."""
    passes, whole, _ = computing_points("micro", product, pairs=1)
    assert passes.predicted == pytest.approx(passes.measured, rel=0.01)
    assert whole.predicted == pytest.approx(whole.measured, rel=0.05 if product == "ghost" else 0.01)


def test_by_hand() -> None:
    matrices = 2 * (2 * 8 * 8 + 2 * 8 * 4 + 3 * 8 * 16)
    assert MODEL.parameters == matrices + 100
    forward = 2 * matrices * 10 + 4 * 2 * 10**2 * 8
    found = cost(MODEL, CARD, inner=3, outer=5)
    assert found.floor_flops == 3 * forward * 8
    assert found.flops == found.floor_flops + 2 * matrices * 10 * 3
    assert found.states == 20 * MODEL.parameters
    assert found.exchanged == 0
    assert found.fits == (0.9 * 10e9 - found.states) // (found.activations + found.tape)


def test_processes_share_the_work_and_send_gradients() -> None:
    one = cost(MODEL, CARD, inner=8, outer=8)
    replicated = cost(MODEL, CARD, inner=8, outer=8, processes=4)
    sharded = cost(MODEL, CARD, inner=8, outer=8, processes=4, sharded=True)
    assert replicated.flops == sharded.flops == one.flops / 4
    assert sharded.states == one.states / 4
    share = 4 * MODEL.parameters * 3 / 4
    assert replicated.exchanged == 4 * share, "g and v, each summed"
    assert sharded.exchanged == 7 * share, "parameters four times, g and v scattered, u gathered"
    assert cost(MODEL, CARD, inner=8, outer=8, product="none").ratio == 1
