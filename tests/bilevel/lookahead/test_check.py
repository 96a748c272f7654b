"""When the comparison with autograd is made, and what it finds that the sum rule cannot."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import bilevel
from bilevel import Lookahead


class Loop:
    def __init__(self, model: nn.Module, **options: Any) -> None:
        self.model = model.double()
        self.optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        self.lookahead = Lookahead(model, self.optimizer, **options)
        draw = torch.Generator().manual_seed(1)
        self.x = torch.randn(4, 5, generator=draw, dtype=torch.float64)
        self.label = torch.tensor([0, 1, 2, 1])

    def losses(self) -> Tensor:
        return F.cross_entropy(self.model(self.x), self.label, reduction="none")

    def update(self) -> bool:
        """One update; whether it was compared."""
        phi = torch.ones(4, dtype=torch.float64, requires_grad=True)
        self.optimizer.zero_grad()
        with self.lookahead.inner():
            self.lookahead.backward(self.losses(), phi / 4)
        self.lookahead.step()
        self.lookahead.backward_outer(self.losses().flip(0).square().mean())
        return "check" in self.lookahead.report


def mlp() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(5, 6), nn.Dropout(0.0), nn.Tanh(), nn.Linear(6, 3))


def test_at_updates_1_2_4_8() -> None:
    loop = Loop(mlp())
    assert [number for number in range(1, 18) if loop.update()] == [1, 2, 4, 8, 16]
    assert loop.lookahead.num_updates == 17


def test_a_resumed_run_reports_what_one_that_went_on_does() -> None:
    loop = Loop(mlp())
    for _ in range(5):
        loop.update()
    resumed = Loop(mlp())
    resumed.lookahead.num_updates = 5
    assert [loop.update() for _ in range(4)] == [resumed.update() for _ in range(4)] == [False, False, True, False]


@pytest.mark.parametrize("change", ["mode", "trainable"])
def test_whenever_something_has_changed(change: str) -> None:
    model = mlp()
    loop = Loop(model)
    for _ in range(4):
        loop.update()
    assert not loop.update()
    if change == "mode":
        model.eval()
    else:
        model[0].requires_grad_(False)
    assert loop.update()
    assert not loop.update()


class Mixing(nn.Module):
    """A term that couples the examples of a batch, ramped up from 0: the sum over the examples stays right."""

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.share = nn.Linear(5, 3), 0.0

    def forward(self, x: Tensor) -> Tensor:
        out = self.layer(x)
        return out + self.share * out.flip(0)


def test_examples_that_get_coupled_later_are_found_at_the_next_comparison() -> None:
    model = Mixing()
    loop = Loop(model)
    for _ in range(3):
        loop.update()
    model.share = 1e-3
    with pytest.raises(bilevel.HypergradientCheckError, match="mixes examples"):
        loop.update()  # the fourth
    exact = Loop(Mixing(), product="jvp")
    exact.model.share = 0.5  # pyright: ignore[reportAttributeAccessIssue]
    exact.update()
    assert exact.lookahead.report["check"] < 1e-9


def test_a_position_table_as_long_as_the_batch() -> None:
    class Positions(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table, self.head = nn.Embedding(4, 5), nn.Linear(5, 3)

        def forward(self, x: Tensor) -> Tensor:
            steps = x[:, None] + self.table(torch.arange(4))  # (B, T, C), T = B
            return self.head(steps.tanh()).mean(1)

    with pytest.raises(bilevel.HypergradientCheckError, match=r"table\.weight"):
        Loop(Positions()).update()


@pytest.mark.parametrize("check", ["log", "off"])
def test_only_raise_raises(check: Any, caplog: pytest.LogCaptureFixture) -> None:
    model = Mixing()
    model.share = 0.5
    loop = Loop(model, check=check)
    assert loop.update() is (check == "log")
    assert ("mixes examples" in caplog.text) is (check == "log")


def test_a_parameter_without_dimensions_and_a_function_of_it() -> None:
    class Scaled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer, self.scale = nn.Linear(5, 3), nn.Parameter(torch.tensor(0.5))

        def forward(self, x: Tensor) -> Tensor:
            return self.layer(x) * self.scale.exp()

    for product in ("ghost", "jvp", "unroll"):
        loop = Loop(Scaled(), product=product)
        loop.update()
        assert loop.lookahead.report["check"] < 1e-9


def test_the_way_out_that_is_named_works() -> None:
    class Similar(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer, self.scale = nn.Linear(5, 3), nn.Parameter(torch.rand(5))

        def forward(self, x: Tensor) -> Tensor:
            return self.layer(x) + nn.functional.cosine_similarity(x, self.scale, dim=-1)[:, None]

    loop = Loop(Similar())
    with pytest.raises(bilevel.NoRuleError, match="choose product=") as caught:
        loop.update()
    for product in ("jvp", "unroll"):
        if f"'{product}'" in str(caught.value).split("choose product=")[1]:
            works = Loop(Similar(), product=product)
            works.update()
            assert works.lookahead.report["check"] < 1e-9


class PositionsFirst(nn.Module):
    """(B, T, C) turned into (T, B, C), as torch's layers are by default."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(6, 6), nn.Tanh(), nn.Linear(6, 3))

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x.transpose(0, 1)).mean(0)


@pytest.mark.parametrize("micro_batches", [1, 2])
def test_as_many_positions_as_examples_at_an_update_that_is_not_due(micro_batches: int) -> None:
    """The sum rule holds whichever dimension is taken for the examples; the comparison is made when they are alike."""
    torch.manual_seed(0)
    model, labels = PositionsFirst().double(), torch.tensor([0, 1, 2, 0])
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    lookahead = bilevel.Lookahead(model, optimizer)

    def losses(num_positions: int) -> Tensor:
        x = torch.randn(4, num_positions, 6, dtype=torch.float64)
        return nn.functional.cross_entropy(model(x), labels, reduction="none")

    def update(sizes: list[int]) -> None:
        raw = torch.zeros(4, dtype=torch.float64, requires_grad=True)
        optimizer.zero_grad()
        for size in sizes:
            with lookahead.inner(rows={"layers": torch.arange(4)}):
                lookahead.backward(losses(size), raw.sigmoid())
        lookahead.step()
        lookahead.backward_outer(losses(5).mean())

    for _ in range(2):
        update([5] * micro_batches)
    with pytest.raises(bilevel.HypergradientCheckError, match="differs from plain autograd"):
        update([5] * (micro_batches - 1) + [4])
