"""Any function of parameters alone: u goes through it at θ, also where two parameters or buffers meet."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import bilevel

FUNCTIONS: dict[str, tuple[Any, dict[str, tuple[int, ...]]]] = {
    "sum of two": (lambda m, x: F.linear(x, m.w + m.v), {"w": (5, 6), "v": (5, 6)}),
    "merged adapter": (lambda m, x: F.linear(x, m.w + 0.5 * m.b @ m.a), {"w": (5, 6), "a": (2, 6), "b": (5, 2)}),
    "rows of length one": (lambda m, x: F.linear(x, m.w / m.w.norm(dim=1, keepdim=True)), {"w": (5, 6)}),
    "normalize": (lambda m, x: F.linear(F.normalize(x, dim=-1), F.normalize(m.w)), {"w": (5, 6)}),
    "standardised": (
        lambda m, x: F.linear(x, (m.w - m.w.mean(1, keepdim=True)) / m.w.std(1, keepdim=True)),
        {"w": (5, 6)},
    ),
    "stack": (lambda m, x: x @ torch.stack([m.w, m.v]).mT, {"w": (6,), "v": (6,)}),
    "cat": (lambda m, x: F.linear(x, torch.cat([m.w, m.v])), {"w": (2, 6), "v": (3, 6)}),
    "tril": (lambda m, x: F.linear(x, m.w.tril()), {"w": (6, 6)}),
    "power": (lambda m, x: x * m.w**2, {"w": (6,)}),
    "log": (lambda m, x: x * m.w.abs().log1p(), {"w": (6,)}),
    "pad": (lambda m, x: x * F.pad(m.w, (1, 1)), {"w": (4,)}),
    "softmax, one by one": (
        lambda m, x: F.softmax(m.w, 0)[0] * x + F.softmax(m.w, 0)[1] * x.flip(1),
        {"w": (2,)},
    ),
    "a number": (lambda m, x: x * torch.sigmoid(m.t) + m.s, {"t": (), "s": ()}),
    "a number in the exponent": (lambda m, x: x.abs() ** m.t, {"t": ()}),
    "a number that divides": (lambda m, x: x / (1.0 + m.t * m.t), {"t": ()}),
    "bias and queries of their own": (
        lambda m, x: F.scaled_dot_product_attention(F.linear(m.q, m.w).expand(len(x), -1, -1), x, x),
        {"q": (1, 3, 6), "w": (6, 6)},
    ),
    "two in one pointwise function": (lambda m, x: torch.addcmul(m.b, x, m.w), {"w": (6,), "b": (6,)}),
    "largest": (lambda m, x: torch.maximum(x, m.w), {"w": (6,)}),
    "where a mask says": (lambda m, x: torch.where(x[..., :1] > 0, x, m.w), {"w": (6,)}),
    "mask token": (lambda m, x: x + (x[..., :1] > 0) * m.w, {"w": (6,)}),
    "between": (lambda m, x: torch.lerp(x, x.flip(1), m.w), {"w": (6,)}),
    "cast like it": (lambda m, x: x.float().type_as(m.w) * m.w, {"w": (6,)}),
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_functions_of_parameters(compare: Any, of: Any, name: str) -> None:
    function, shapes = FUNCTIONS[name]
    compare(lambda: of(function, **shapes))


def test_a_penalty_inside_the_losses_under_ghost(case: Any) -> None:
    def penalised(model: nn.Module, data: tuple[Tensor, Tensor]) -> Tensor:
        fit = F.cross_entropy(model(data[0]), data[1], reduction="none")
        return fit + 0.03 * torch.stack([p.square().sum() for p in model.parameters()]).sum()

    outcome = case(losses=penalised).run()
    assert outcome.error < 1e-9  # central differences of sixth order in float64
    assert outcome.moved == 0.0


def test_random_functions_of_a_parameter_are_refused(compare: Any, of: Any) -> None:
    with pytest.raises(bilevel.NoRuleError, match="dropout"):
        compare.value(lambda: of(lambda m, x: F.linear(x, F.dropout(m.w, 0.5)), w=(5, 6)), "ghost")


@pytest.mark.parametrize("layer", [nn.LSTM, nn.GRU, nn.RNN])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_recurrent_layers_name_jvp_which_works(compare: Any, layer: Any, dtype: torch.dtype) -> None:
    class Recurrent(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = layer(6, 5, batch_first=True).to(dtype)

        def double(self) -> Recurrent:  # the precision under test
            return self

        def forward(self, x: Tensor) -> Tensor:
            return self.layer(x.to(dtype))[0]

    with pytest.raises(bilevel.NoRuleError, match=r"weight_hh_l0.*choose product='jvp'"):
        compare.value(Recurrent, "ghost")
    if dtype == torch.float64:
        compare(Recurrent, products=("jvp", "unroll"))
    else:
        value, expected = (compare.value(Recurrent, product) for product in ("jvp", "fd"))
        assert float((value - expected).norm() / expected.norm()) < 1e-2  # what a difference in fp32 is good for


@pytest.mark.parametrize("kind", [torch.optim.SGD, torch.optim.RMSprop])
def test_a_number_with_momentum_is_checked_too(case: Any, kind: Any) -> None:
    """The optimizer's state of a parameter without dimensions has none either."""

    class Scaled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer, self.scale = nn.Linear(5, 3), nn.Parameter(torch.tensor(0.5))

        def forward(self, x: Tensor) -> Tensor:
            return self.layer(x) * self.scale.exp()

    outcome = case(build=Scaled, optimizer=lambda m: kind(m.parameters(), lr=0.1, momentum=0.9)).run()
    assert outcome.error < 1e-9  # central differences of sixth order in float64
