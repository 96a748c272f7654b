"""Every order of Lookahead's calls: the hypergradient is right, or an error names what is missing; nothing
survives it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, settings
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule
from torch import Tensor, nn
from torch.nn import functional as F

import bilevel
from bilevel import Lookahead, Status

LR, NUM_EXAMPLES = 0.2, 3
# What an error may speak of: the call that is missing or misplaced, or the gradient that nobody declared.
NAMED = re.compile(
    r"lookahead\.(inner|step|backward|unweighted)|backward_outer|optimizer\.(step|zero_grad)|zero_grad\(\)"
)


@dataclass
class Contribution:
    """A micro-batch whose gradient sits in .grad: its weights, and ∇ℓ_i at the θ it was taken at, (B, P)."""

    phi: Tensor | None
    rows: Tensor


class Calls(RuleBasedStateMachine):
    """Any call at any time, beside a record of what is in `.grad`; plain SGD, so dF/dφ_i = -lr/B <v, ∇ℓ_i>."""

    product: Any = "ghost"

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.model = nn.Sequential(nn.Linear(2, 3), nn.Tanh(), nn.Linear(3, 2)).double()
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=LR)
        self.lookahead = Lookahead(self.model, self.optimizer, self.product)
        self.inside: list[Contribution] = []  # in .grad now
        self.stepped: list[Contribution] = []  # in .grad when the last step was taken
        self.number = 0

    def data(self) -> tuple[Tensor, Tensor]:
        self.number += 1
        draw = torch.Generator().manual_seed(self.number)
        x = torch.randn(NUM_EXAMPLES, 2, generator=draw, dtype=torch.float64)
        return x, torch.randint(0, 2, (NUM_EXAMPLES,), generator=draw)

    def losses(self, data: tuple[Tensor, Tensor]) -> Tensor:
        return F.cross_entropy(self.model(data[0]), data[1], reduction="none")

    def rows(self, data: tuple[Tensor, Tensor]) -> Tensor:
        parameters = list(self.model.parameters())
        losses = self.losses(data)
        grads = [torch.autograd.grad(loss, parameters, retain_graph=True) for loss in losses.unbind()]
        return torch.stack([torch.cat([g.flatten() for g in row]) for row in grads])

    def refused(self, error: Exception) -> None:
        assert NAMED.search(str(error)), f"the error does not say which call is missing: {error}"

    @rule()
    def zero_grad(self) -> None:
        self.optimizer.zero_grad()
        self.inside = []

    @rule()
    def recorded(self) -> None:
        data, phi = self.data(), torch.linspace(0.5, 1.5, NUM_EXAMPLES, dtype=torch.float64).requires_grad_()
        rows = self.rows(data)
        before = [None if p.grad is None else p.grad.clone() for p in self.model.parameters()]
        try:
            with self.lookahead.inner():
                self.lookahead.backward(self.losses(data), phi / NUM_EXAMPLES)
        except RuntimeError as error:
            self.refused(error)
            changed = any(
                p.grad is not None and (b is None or not torch.equal(p.grad, b))
                for p, b in zip(self.model.parameters(), before, strict=True)
            )
            if changed:  # its gradient is there, its record is not
                self.inside.append(Contribution(phi, rows))
            return
        self.inside.append(Contribution(phi, rows))

    @rule()
    def unrecorded(self) -> None:
        data = self.data()
        rows = self.rows(data)
        try:
            with self.lookahead.inner(record=False):
                self.lookahead.backward(
                    self.losses(data), torch.full((NUM_EXAMPLES,), 1 / NUM_EXAMPLES, dtype=torch.float64)
                )
        except RuntimeError as error:
            self.refused(error)
            return
        self.inside.append(Contribution(None, rows))

    @rule()
    def an_error_inside(self) -> None:
        try:
            with self.lookahead.inner():
                self.losses(self.data())
                raise ZeroDivisionError
        except ZeroDivisionError:
            pass
        except RuntimeError as error:
            self.refused(error)

    @rule()
    def an_error_after_backward(self) -> None:
        data, phi = self.data(), torch.ones(NUM_EXAMPLES, dtype=torch.float64).requires_grad_()
        rows = self.rows(data)
        try:
            with self.lookahead.inner():
                self.lookahead.backward(self.losses(data), phi / NUM_EXAMPLES)
                self.inside.append(Contribution(phi, rows))
                raise ZeroDivisionError
        except ZeroDivisionError:
            pass
        except RuntimeError as error:
            self.refused(error)

    @precondition(lambda self: bool(self.inside))
    @rule()
    def step(self) -> None:
        if not self.inside:
            return
        try:
            self.lookahead.step()
        except RuntimeError as error:
            self.refused(error)
            return
        self.stepped = list(self.inside)

    @precondition(lambda self: bool(self.inside))
    @rule()
    def plain_step(self) -> None:
        self.optimizer.step()
        self.stepped = list(self.inside)

    @rule()
    def outer(self) -> None:
        outer = self.losses(self.data()).mean()
        v = torch.cat(
            [g.flatten() for g in torch.autograd.grad(outer, list(self.model.parameters()), retain_graph=True)]
        )
        for contribution in self.stepped:
            if contribution.phi is not None:
                contribution.phi.grad = None
        try:
            status = self.lookahead.backward_outer(outer)
        except (RuntimeError, bilevel.HypergradientCheckError) as error:
            self.refused(error)
            return
        assert status is Status.DONE
        for contribution in self.stepped:  # all whose weights had a part in the step
            if contribution.phi is not None:
                expected = -LR / NUM_EXAMPLES * contribution.rows @ v
                assert contribution.phi.grad is not None, "a micro-batch had a part in the step and got no gradient"
                torch.testing.assert_close(contribution.phi.grad, expected, rtol=1e-9, atol=1e-12)

    @rule()
    def an_update_without_zero_grad(self) -> None:
        self.recorded()
        self.step()
        self.outer()

    @rule()
    def an_update_with_another_step(self) -> None:
        self.recorded()
        self.plain_step()
        self.outer()

    @rule()
    def a_whole_update_is_right(self) -> None:
        """Whatever was done before."""
        self.zero_grad()
        self.an_error_inside()  # drops what a refusal would have named
        self.zero_grad()
        self.recorded()
        self.recorded()
        self.lookahead.step()
        self.stepped = list(self.inside)
        assert len(self.stepped) == 2
        outer = self.losses(self.data()).mean()
        v = torch.cat(
            [g.flatten() for g in torch.autograd.grad(outer, list(self.model.parameters()), retain_graph=True)]
        )
        assert self.lookahead.backward_outer(outer) is Status.DONE
        for contribution in self.stepped:
            assert contribution.phi is not None
            torch.testing.assert_close(
                contribution.phi.grad, -LR / NUM_EXAMPLES * contribution.rows @ v, rtol=1e-9, atol=1e-12
            )


@pytest.mark.parametrize("product", ["ghost", "jvp", "unroll"])
def test_any_order_of_calls(product: str) -> None:
    machine = type("Calls", (Calls,), {"product": product})
    case = machine.TestCase  # pyright: ignore[reportAttributeAccessIssue]
    case.settings = settings(
        max_examples=25, stateful_step_count=15, deadline=None, database=None, derandomize=True,
        suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    case().runTest()


def begin(product: Any = "ghost") -> tuple[Lookahead, nn.Module, Any, Tensor, Tensor]:
    torch.manual_seed(0)
    model = nn.Linear(2, 2).double()
    optimizer = torch.optim.SGD(model.parameters(), lr=LR)
    return Lookahead(model, optimizer, product), model, optimizer, torch.randn(3, 2).double(), torch.ones(3)


def test_what_each_wrong_order_says() -> None:
    lookahead, model, optimizer, x, ones = begin()

    def inner() -> None:
        with lookahead.inner():
            lookahead.backward(model(x).sum(-1), ones.double().requires_grad_())

    def outer() -> None:
        lookahead.backward_outer(model(x).square().mean())

    with pytest.raises(RuntimeError, match=r"nothing recorded.*lookahead\.step\(\) first"):
        outer()
    inner()
    with pytest.raises(RuntimeError, match=r"no step was taken: call lookahead\.step\(\)"):
        outer()
    inner()
    optimizer.step()
    with pytest.raises(RuntimeError, match=r"optimizer\.step\(\) was called where lookahead\.step\(\) belongs"):
        outer()
    optimizer.zero_grad()
    inner()
    lookahead.step()
    with pytest.raises(RuntimeError, match=r"lookahead\.step\(\) was called twice"):
        lookahead.step()
    optimizer.zero_grad()
    inner()
    early = model(x).square().mean()
    lookahead.step()
    with pytest.raises(RuntimeError, match=r"computed before lookahead\.step\(\)|modified by an inplace"):
        lookahead.backward_outer(early)
    optimizer.zero_grad()
    inner()
    lookahead.step()
    outer()
    with pytest.raises(RuntimeError, match="nothing recorded"):  # consumed once
        outer()
    optimizer.zero_grad()
    inner()
    lookahead.step()
    with torch.no_grad():
        loss = model(x).square().mean()
    with pytest.raises(RuntimeError, match=r"no gradient: compute it with the model after lookahead\.step\(\)"):
        lookahead.backward_outer(loss)


def test_an_update_that_nobody_differentiated_is_dropped() -> None:
    lookahead, model, optimizer, x, ones = begin()
    old, new = ones.double().requires_grad_(), ones.double().requires_grad_()
    for phi in (old, new):
        optimizer.zero_grad()
        with lookahead.inner():
            lookahead.backward(model(x).sum(-1), phi / 3)
        lookahead.step()
    lookahead.backward_outer(model(x).square().mean())
    assert old.grad is None
    assert new.grad is not None
