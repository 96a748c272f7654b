"""Σ c d = <u, g> at every update: what it catches, what is declared, and what it lets pass."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import bilevel
from bilevel import Lookahead, Status

EXACT = 1e-9
ALL = ("ghost", "jvp", "unroll")


def mlp() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(5, 6), nn.Tanh(), nn.Linear(6, 3)).double()


def difference(phi: Tensor, loop: Any) -> Tensor:
    """Sixth-order central difference of loop(φ); see conftest.Case."""
    rows = []
    for place in torch.eye(len(phi), dtype=torch.float64):
        one, two, three = (loop(phi + k * 3e-3 * place) - loop(phi - k * 3e-3 * place) for k in (1, 2, 3))
        rows.append((45 * one - 9 * two + three) / 0.18)
    return torch.tensor(rows, dtype=torch.float64)


@pytest.mark.parametrize("product", ALL)
@pytest.mark.parametrize("kind", ["penalty", "unrecorded after", "unrecorded before"])
@pytest.mark.parametrize("clip_norm", [None, 0.1])
def test_declared_gradient_is_exact(case: Any, product: Any, kind: str, clip_norm: float | None) -> None:
    """A penalty with a backward of its own; micro-batches without weights beside one with."""
    made = case()
    plain = case()
    plain.inner_batch = (made.outer_batch[0] + 1.0, made.outer_batch[1])

    def extra(model: nn.Module) -> Tensor:
        if kind == "penalty":
            return 0.05 * torch.stack([p.square().sum() for p in model.parameters()]).sum()
        return made.losses(model, plain.inner_batch).mean()

    def loop(phi: Tensor) -> float:
        model = mlp()
        ((made.coefficients(phi) * made.losses(model, made.inner_batch)).sum() + extra(model)).backward()
        if clip_norm:
            nn.utils.clip_grad_norm_(model.parameters(), clip_norm)
        torch.optim.SGD(model.parameters(), lr=0.3).step()
        return made.outer(model, made.outer_batch).item()

    phi = torch.linspace(-1, 1, 4, dtype=torch.float64)
    expected = difference(phi, loop)
    model = mlp()
    lookahead = Lookahead(model, torch.optim.SGD(model.parameters(), lr=0.3), product, clip_norm=clip_norm)
    phi.requires_grad_()

    def beside() -> None:
        if kind == "penalty":
            with lookahead.unweighted():
                extra(model).backward()
        else:
            with lookahead.inner(record=False):
                losses = made.losses(model, plain.inner_batch)
                lookahead.backward(losses, torch.full_like(losses, 1 / len(losses)))

    if kind == "unrecorded before":
        beside()
    with lookahead.inner():
        lookahead.backward(made.losses(model, made.inner_batch), made.coefficients(phi))
    if kind != "unrecorded before":
        beside()
    lookahead.step()
    assert lookahead.backward_outer(made.outer(model, made.outer_batch)) is Status.DONE
    assert phi.grad is not None
    assert float((phi.grad - expected).norm() / expected.norm()) < EXACT
    assert lookahead.report["sum_rule"] < 1e-12


@pytest.mark.parametrize("product", ALL)
def test_undeclared_gradient_is_named(case: Any, product: Any) -> None:
    lookahead, model, _, _ = case(product=product).begin()
    (0.1 * model[2].bias.square().sum()).backward()
    with pytest.raises(RuntimeError, match=r"2\.bias.*lookahead\.unweighted\(\)"):
        lookahead.step()
    # Before the recorded pass nobody has looked yet: the sum rule finds it.
    made = case(product=product)
    model, optimizer, phi = made.fresh()
    lookahead = Lookahead(model, optimizer, product)
    (0.1 * model[2].bias.square().sum()).backward()
    with lookahead.inner():
        lookahead.backward(made.losses(model, made.inner_batch), made.coefficients(phi.requires_grad_()))
    lookahead.step()
    with pytest.raises(bilevel.HypergradientCheckError, match=r"2\.bias.*zero_grad"):
        lookahead.backward_outer(made.outer(model, made.outer_batch))
    assert phi.grad is None


class Gated(nn.Module):
    """A weight that custom code uses, behind a gate that opens at a later update."""

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.hidden = nn.Linear(5, 3), nn.Parameter(torch.randn(5, 3))
        self.gate = 0.0

    def forward(self, x: Tensor) -> Tensor:
        out = self.layer(x)
        return out + self.gate * Straight.apply(x, self.hidden) if self.gate else out  # pyright: ignore


class Straight(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor) -> Tensor:
        ctx.save_for_backward(x, weight)
        return x @ weight

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        x, weight = ctx.saved_tensors
        return grads[0] @ weight.T, x.T @ grads[0]


def test_a_use_that_appears_later_is_found_at_that_update(case: Any) -> None:
    made = case(build=Gated)
    model, optimizer, phi = made.fresh()
    lookahead = Lookahead(model, optimizer)

    def update() -> None:
        optimizer.zero_grad()
        with lookahead.inner():
            lookahead.backward(made.losses(model, made.inner_batch), made.coefficients(phi.requires_grad_()))
        lookahead.step()
        lookahead.backward_outer(made.outer(model, made.outer_batch))

    for _ in range(4):
        update()
    model.gate = 1e-3  # far below what a cosine would see
    with pytest.raises(bilevel.HypergradientCheckError, match=r"residual .* for hidden"):
        update()


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
@pytest.mark.parametrize("product", ["ghost", "jvp"])
def test_the_residual_is_what_the_precision_explains(dtype: torch.dtype, product: Any) -> None:
    # float64: a bound from above, and Adam's first step, whose D is a difference of two equal terms
    bound = {torch.float64: 1e-10, torch.float32: 1e-5, torch.bfloat16: 1e-2}[dtype]
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(64, 256), nn.GELU(), nn.LayerNorm(256), nn.Linear(256, 8)).to(dtype)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    lookahead = Lookahead(model, optimizer, product, clip_norm=0.1)
    x, label = torch.randn(16, 64).to(dtype), torch.randint(0, 8, (16,))
    raw = torch.linspace(0.5, 1.5, 16).requires_grad_()
    for _ in range(3):
        optimizer.zero_grad()
        with lookahead.inner():
            logits = model(x).to(torch.promote_types(dtype, torch.float32))
            lookahead.backward(F.cross_entropy(logits, label, reduction="none"), raw / 16)
        lookahead.step()
        lookahead.backward_outer(F.cross_entropy(model(x.flip(0)).float(), label))
        assert lookahead.report["sum_rule"] < bound


def test_inexact_products_report_and_pass(case: Any) -> None:
    for product in ("fd", "darts"):
        outcome = case(product=product).run()
        assert outcome.status is Status.DONE
        assert outcome.lookahead.report["sum_rule"] > 0
        assert outcome.lookahead.report["check"] > 1e-12


class Patches(nn.Module):
    """A model of images whose patch embedding lies deepest, and a weight that custom code uses behind a gate."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.patch = nn.Conv2d(3, 32, 4, 4)
        self.block = nn.TransformerEncoderLayer(32, 4, 64, 0.0, batch_first=True)
        self.head, self.hidden, self.gate = nn.Linear(32, 2), nn.Parameter(torch.randn(32, 1).repeat(1, 2)), 0.0

    def forward(self, x: Tensor) -> Tensor:
        h = self.block(self.patch(x).flatten(2).transpose(1, 2)).mean(1)
        out = self.head(h)
        return out + self.gate * Straight.apply(h, self.hidden) if self.gate else out  # pyright: ignore


def of_patches(
    gap: float, weights: list[float], labels: list[int], gate: float = 0.0, kind: Any = torch.optim.AdamW
) -> float:
    """The residual of one fp32 update on copies of one image; gap: between the two logits."""
    model = Patches()
    model.gate = gate
    with torch.no_grad():
        model.head.weight.zero_()
        model.head.bias.copy_(torch.tensor([gap, 0.0]))
    lookahead = Lookahead(model, kind(model.parameters(), lr=1e-3))
    x = torch.randn(1, 3, 32, 32).expand(len(labels), -1, -1, -1)
    with lookahead.inner():
        losses = F.cross_entropy(model(x), torch.tensor(labels), reduction="none")
        lookahead.backward(losses, torch.tensor(weights, requires_grad=True))
    lookahead.step()
    lookahead.backward_outer(F.cross_entropy(model(torch.randn(2, 3, 32, 32)), torch.tensor([0, 1])))
    return lookahead.report["sum_rule"]


@pytest.mark.parametrize("gap", [60.0, 75.0, 80.0, 84.0, 88.0, 90.0])
@pytest.mark.parametrize("weight", [1.0, 1e-4, 1e-10])
def test_a_gradient_that_underflows_is_no_error(gap: float, weight: float) -> None:
    """A chain that is learned has a loss of exp(-gap), whose gradient ends below the smallest normal number."""
    assert of_patches(gap, [weight], [0]) < 1e-4


def test_a_small_gradient_hides_no_error() -> None:
    """As long as its gradient is a number like any other, a use that is not seen is found."""
    with pytest.raises(bilevel.HypergradientCheckError, match="hidden"):
        of_patches(60.0, [1.0], [0], gate=1.0, kind=torch.optim.SGD)


@pytest.mark.parametrize("gap", [0.0, 1e-6, 1e-4])
def test_examples_that_cancel_are_no_error(gap: float) -> None:
    """One chain labelled both ways: g is the difference of two gradients, rounded as each of them."""
    assert of_patches(gap, [1.0, 1.0], [0, 1]) < 1e-4
    assert of_patches(gap, [1.0, 1.0 + 1e-6], [0, 1]) < 1e-4


def test_examples_that_cancel_hide_no_error() -> None:
    with pytest.raises(bilevel.HypergradientCheckError, match="hidden"):
        of_patches(1e-3, [1.0, 0.7], [0, 1], gate=1.0, kind=torch.optim.SGD)


class Casting(nn.Module):
    """Computes its norm in another precision than its parameters have, as Llama's does."""

    def __init__(self, inside: torch.dtype) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.scale, self.last = nn.Linear(5, 6), nn.Parameter(torch.ones(6)), nn.Linear(6, 3)
        self.inside = inside

    def forward(self, x: Tensor) -> Tensor:
        h = self.first(x).to(self.inside)
        h = h * torch.rsqrt(h.square().mean(-1, keepdim=True) + 1e-6)
        return self.last(self.scale * h.to(x.dtype))


@pytest.mark.parametrize("product", ALL)
@pytest.mark.parametrize(("inside", "bound"), [(torch.float64, 1e-13), (torch.float32, 1e-4), (torch.bfloat16, 2e-2)])
def test_the_tolerance_follows_the_lowest_precision_inside(
    case: Any, product: Any, inside: torch.dtype, bound: float
) -> None:
    """Forward mode and the reverse pass round differently inside; float64 elsewhere does not make them agree."""
    made = case(build=lambda: Casting(inside).double(), product=product, clip_norm=0.1)
    lookahead = made.run().lookahead
    assert lookahead.report["sum_rule"] < bound
