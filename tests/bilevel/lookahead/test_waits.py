"""On a GPU an update waits for the device a fixed number of times, however many parameters the model has."""

from __future__ import annotations

from collections import Counter

import pytest
import torch
from tests.waits import waits
from torch import nn

from bilevel import Lookahead
from bilevel.lookahead.rules import linear


def _counted(depth: int, product: str) -> Counter[str]:
    torch.manual_seed(0)
    model = nn.Sequential(*[layer for _ in range(depth) for layer in (nn.Linear(4, 4), nn.Tanh(), nn.LayerNorm(4))])
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    lookahead = Lookahead(model, optimizer, product, clip_norm=0.01)  # type: ignore[arg-type]
    weights = torch.ones(6, requires_grad=True)

    def update() -> None:
        optimizer.zero_grad()
        with lookahead.inner():
            losses = model(torch.randn(6, 5, 4))[..., 0].exp().sum(1)
            lookahead.backward(losses, weights / 6)
        lookahead.step()
        lookahead.backward_outer(model(torch.randn(6, 5, 4))[..., 1].exp().mean())

    for _ in range(4):  # the checks of updates 1, 2 and 4 wait as often as they like
        update()
    with waits(on_cpu=[state["step"] for state in optimizer.state.values()]) as found:
        update()
    return found


@pytest.mark.parametrize("product", ["ghost", "jvp", "unroll"])
def test_no_wait_for_each_parameter(product: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(linear, "_positions_in_use", lambda rows, delta: None)  # on a GPU it does not look
    shallow, deep = _counted(2, product), _counted(6, product)
    assert shallow == deep
    # Of each level the norm, and the outer loss. The sum rule: <u, g>, Σ c d. The clip: <x, g>. θ untouched.
    # jvp asks one more: whether any tangent is there at all.
    assert 0 < sum(deep.values()) <= (9 if product == "jvp" else 8), deep


def test_a_wait_is_seen() -> None:
    value = torch.ones(3)
    with waits() as found:
        _ = value.sum().item(), value.tolist(), value[value > 0], bool(value.any()), value.nonzero()
    assert sum(found.values()) == 5
    with waits(on_cpu=[value]) as found:
        value.tolist()
    assert not found
