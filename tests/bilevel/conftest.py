"""A small problem with everything in it: a net, data weights, and the optimizer's own settings in hyper."""

from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor

import bilevel

Tensors = dict[str, Tensor]
Batch = tuple[Tensor, Tensor, Tensor]


class Net(NamedTuple):
    problem: bilevel.Bilevel
    params: Tensors
    hyper: Tensors
    inner_batches: list[Batch]
    outer_batch: Batch


@pytest.fixture
def net() -> Net:
    draw = torch.Generator().manual_seed(0)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=draw, dtype=torch.float64)

    def losses(params: Tensors, batch: Batch) -> Tensor:
        hidden = torch.tanh(batch[0] @ params["first"] + params["bias"])
        return ((hidden @ params["second"] - batch[1]) ** 2).sum(-1)

    def inner(params: Tensors, hyper: Tensors, batch: Batch) -> Tensor:
        return (hyper["weights"][batch[2]] * losses(params, batch)).mean()

    def outer(params: Tensors, hyper: Tensors, batch: Batch) -> Tensor:
        return losses(params, batch).mean() + 0.01 * (hyper["weights"] ** 2).sum()

    x, y = normal(12, 3), normal(12, 2)
    rows = torch.arange(12)
    batches = [(x[i : i + 4], y[i : i + 4], rows[i : i + 4]) for i in (0, 4, 8, 2, 6)]
    params = {"first": 0.5 * normal(3, 4), "bias": 0.1 * normal(4), "second": 0.5 * normal(4, 2)}
    hyper = {
        "weights": 0.5 + torch.rand(12, generator=draw, dtype=torch.float64),
        "lr": torch.tensor(0.05, dtype=torch.float64),
        "decay": torch.tensor([0.1, 0.0, 0.2], dtype=torch.float64),
        **{
            name: torch.tensor(value, dtype=torch.float64)
            for name, value in (("momentum", 0.8), ("dampening", 0.2), ("beta2", 0.9), ("eps", 0.01))
        },
    }
    return Net(bilevel.Bilevel(inner, outer), params, hyper, batches, (normal(8, 3), normal(8, 2), rows[:8]))


@pytest.fixture
def muon_in_double(monkeypatch: pytest.MonkeyPatch) -> None:
    """torch.optim.Muon's own code in double precision: it casts by `bfloat16()`, from torch 2.15 on by `to`."""
    to = torch.Tensor.to

    def wide(tensor: torch.Tensor, *args: Any, **named: Any) -> torch.Tensor:
        return tensor.clone() if named.get("dtype") is torch.bfloat16 else to(tensor, *args, **named)

    monkeypatch.setattr(torch.Tensor, "bfloat16", torch.Tensor.clone)
    monkeypatch.setattr(torch.Tensor, "to", wide)
