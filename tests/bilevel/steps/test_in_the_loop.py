"""The steps of `step_vjp` inside `Lookahead`: dF/dφ against central differences of the plain loop."""

import pytest
import torch
from torch import Tensor, nn

import bilevel

NUM_EXAMPLES, WARM_UPDATES, WIDTH = 4, 6, 1e-4


def batch(seed: int) -> tuple[Tensor, Tensor]:
    draw = torch.Generator().manual_seed(seed)
    return torch.randn(NUM_EXAMPLES, 5, generator=draw, dtype=torch.float64), torch.arange(NUM_EXAMPLES) % 3


def losses(model: nn.Module, seed: int) -> Tensor:
    x, y = batch(seed)
    return nn.functional.cross_entropy(model(x), y, reduction="none")


def trained(kind: type[torch.optim.Optimizer]) -> tuple[nn.Module, torch.optim.Optimizer]:
    """A net of matrices only, which Muon wants, after a few updates."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(5, 8, bias=False), nn.Tanh(), nn.Linear(8, 3, bias=False)).double()
    optimizer = kind(model.parameters(), lr=0.05, weight_decay=0.1)
    for _ in range(WARM_UPDATES):
        optimizer.zero_grad()
        losses(model, 1).mean().backward()
        optimizer.step()
    optimizer.zero_grad()
    return model, optimizer


@pytest.mark.parametrize("clip_norm", [None, 0.05])
@pytest.mark.parametrize("kind", ["NAdam", "RAdam", "Adamax", "Adadelta", "Adafactor", "Muon"])
@pytest.mark.usefixtures("muon_in_double")
def test_equals_central_differences(kind: str, clip_norm: float | None) -> None:
    make = getattr(torch.optim, kind)
    raw = torch.linspace(-1, 1, NUM_EXAMPLES, dtype=torch.float64)

    def value(raw: Tensor) -> float:
        model, optimizer = trained(make)
        (torch.sigmoid(raw) / NUM_EXAMPLES * losses(model, 1)).sum().backward()
        if clip_norm is not None:
            nn.utils.clip_grad_norm_(model.parameters(), clip_norm)
        optimizer.step()
        return losses(model, 2).mean().item()

    moves = WIDTH * torch.eye(NUM_EXAMPLES, dtype=torch.float64)
    slopes = torch.tensor([(value(raw + m) - value(raw - m)) / (2 * WIDTH) for m in moves], dtype=torch.float64)
    model, optimizer = trained(make)
    leaf = raw.clone().requires_grad_()
    lookahead = bilevel.Lookahead(model, optimizer, clip_norm=clip_norm)
    with lookahead.inner():
        lookahead.backward(losses(model, 1), torch.sigmoid(leaf) / NUM_EXAMPLES)
    lookahead.step()
    assert lookahead.backward_outer(losses(model, 2).mean()).ok
    assert leaf.grad is not None
    # A central difference: width² times third derivatives, and rounding / width over slopes down to 1e-6 (Adadelta's).
    assert float((leaf.grad - slopes).norm() / slopes.norm()) < 2e-5
