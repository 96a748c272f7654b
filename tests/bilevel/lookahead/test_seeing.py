"""Uses of a parameter that do not go through module.attribute: exact, and training is the plain loop's; or refused."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

import bilevel

EXACT = 1e-9
ALL = ("ghost", "jvp", "unroll")


def cross_entropy(model: nn.Module, batch: Any) -> Tensor:
    return F.cross_entropy(model(batch[0]), batch[1], reduction="none")


class Base(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.base, self.head = nn.Linear(5, 6), nn.Linear(6, 3)
        self.kept = [self.base.weight]
        self.temperature = nn.Parameter(torch.tensor(0.3))

    def hidden(self, x: Tensor) -> Tensor:
        return self.base(x)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.hidden(x).tanh()) * self.temperature.exp()


class FunctionalCall(Base):
    def hidden(self, x: Tensor) -> Tensor:
        return torch.func.functional_call(self.base, {"weight": 2 * self.base.weight.detach()}, (x,))


class KeptInAList(Base):
    def hidden(self, x: Tensor) -> Tensor:
        return F.linear(x, self.kept[0], self.base.bias)


class NoGradTarget(Base):
    def hidden(self, x: Tensor) -> Tensor:
        with torch.no_grad():  # forward mode alone would carry the tangent on
            target = self.base(x)
        return self.base(x) - 0.5 * target


class ChangedInPlace(Base):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x).mul_(0.5).add_(self.head.bias)


class Checkpointed(Base):
    def hidden(self, x: Tensor) -> Tensor:
        return checkpoint(self.base, x, use_reentrant=False)


class Output:
    """Not a container that torch knows."""

    def __init__(self, logits: Tensor) -> None:
        self.logits, self.name = logits, "logits"


class PlainObject(Base):
    def forward(self, x: Tensor) -> Any:
        return Output(super().forward(x))


def from_object(model: nn.Module, batch: Any) -> Tensor:
    return F.cross_entropy(model(batch[0]).logits, batch[1], reduction="none")


def output_changed(model: nn.Module, batch: Any) -> Tensor:
    logits = model(batch[0])
    logits /= 2.0
    return F.cross_entropy(logits, batch[1], reduction="none")


def in_loss_code(model: Any, batch: Any) -> Tensor:
    return F.cross_entropy(model(batch[0]) * F.softplus(model.temperature), batch[1], reduction="none")


def teacher(model: Any, batch: Any) -> Tensor:
    old = {name: 0.5 * p.detach() for name, p in model.named_parameters()}
    target = torch.func.functional_call(model, old, (batch[0],))
    logits = model(batch[0])
    return F.cross_entropy(logits, batch[1], reduction="none") + (logits - target.detach()).square().mean(-1)


def no_grad_call(model: nn.Module, batch: Any) -> Tensor:
    with torch.no_grad():
        right = model(batch[0]).argmax(-1) == batch[1]
    return cross_entropy(model, batch) * (2.0 - right.double())


def smooth(model: Any, batch: Any) -> Tensor:
    """An outer loss without a stopped gradient, which differences would see."""
    logits = model.head(model.base(batch[0]).tanh()) * model.temperature.exp()
    return F.cross_entropy(logits, batch[1])


SEEN = {
    "plain": (Base, cross_entropy),
    "functional_call in forward": (FunctionalCall, cross_entropy),
    "kept in a list": (KeptInAList, cross_entropy),
    "a target without gradient": (NoGradTarget, cross_entropy),
    "checkpointed": (Checkpointed, cross_entropy),
    "plain object": (PlainObject, from_object),
    "output changed in place": (Base, output_changed),
    "in the loss code": (Base, in_loss_code),
    "teacher by functional_call": (Base, teacher),
    "no-grad call": (Base, no_grad_call),
}


@pytest.mark.parametrize("product", ALL)
@pytest.mark.parametrize("name", SEEN)
def test_seen_wherever_it_is_used(case: Any, name: str, product: str) -> None:
    build, losses = SEEN[name]
    outcome = case(build=build, losses=losses, outer=smooth, product=product).run()
    assert outcome.error < EXACT
    assert outcome.moved == 0.0 if product == "unroll" else outcome.moved < 1e-15
    assert outcome.lookahead.report["sum_rule"] < 1e-12


def penalty(model: nn.Module, batch: Any) -> Tensor:
    return cross_entropy(model, batch) + 0.03 * torch.stack([p.square().sum() for p in model.parameters()]).sum()


@pytest.mark.parametrize("product", ALL)
def test_a_penalty_in_the_losses(case: Any, product: str) -> None:
    assert case(losses=penalty, product=product).run().error < EXACT


def test_a_hooked_activation_in_the_loss(case: Any) -> None:
    def losses(model: Any, batch: Any) -> Tensor:
        seen: list[Tensor] = []
        handle = model.base.register_forward_hook(lambda module, args, out: seen.append(out))
        each = cross_entropy(model, batch)
        handle.remove()
        return each + 0.1 * seen[0].square().mean(-1)

    for product in ALL:
        assert case(build=Base, losses=losses, product=product).run().error < EXACT


def hooked(gradient: bool) -> nn.Module:
    model = nn.Sequential(nn.Linear(5, 6), nn.Tanh(), nn.Linear(6, 3))
    if gradient:
        model[0].weight.register_hook(lambda g: g * 0.1)
    else:

        def shrink(parameter: Any) -> None:
            parameter.grad.mul_(0.1)

        model[0].weight.register_post_accumulate_grad_hook(shrink)
    return model


@pytest.mark.parametrize("product", ALL)
def test_hooks_that_change_the_gradient(case: Any, product: str) -> None:
    if product == "unroll":  # the hook is part of what is differentiated twice
        outcome = case(build=lambda: hooked(True), product=product).run()
        assert outcome.error < EXACT
        assert outcome.moved == 0.0
    else:
        with pytest.raises(bilevel.HypergradientCheckError, match=r"0\.weight.*A hook changes it"):
            case(build=lambda: hooked(True), product=product).run()
    with pytest.raises(bilevel.HypergradientCheckError, match=r"0\.weight.*A hook changes it"):
        case(build=lambda: hooked(False), product=product).run()


class Reentrant(Base):
    def hidden(self, x: Tensor) -> Tensor:
        return checkpoint(self.base, x.clone().requires_grad_(), use_reentrant=True)


@pytest.mark.parametrize("product", ALL)
def test_reentrant_checkpointing_is_refused(case: Any, product: str) -> None:
    with pytest.raises(RuntimeError, match="use_reentrant=False"):
        case(build=Reentrant, product=product).run()


class Renormed(nn.Module):
    def __init__(self, by_data: bool) -> None:
        super().__init__()
        self.layer, self.by_data = nn.Linear(5, 3), by_data

    def forward(self, x: Tensor) -> Tensor:
        if self.by_data:
            self.layer.weight.data = F.normalize(self.layer.weight.data, dim=1)
        else:
            with torch.no_grad():
                self.layer.weight.div_(self.layer.weight.norm(dim=1, keepdim=True))
        return self.layer(x)


@pytest.mark.parametrize("by_data", [False, True])
@pytest.mark.parametrize("product", ALL)
def test_weights_renormed_in_forward_are_refused(case: Any, product: str, by_data: bool) -> None:
    with pytest.raises(RuntimeError, match=r"layer\.weight.*renormed in forward"):
        case(build=lambda: Renormed(by_data), product=product).run()


@pytest.mark.parametrize("product", ALL)
@pytest.mark.parametrize("in_place", [False, True])
def test_compiled_parts_run_uncompiled(case: Any, product: str, in_place: bool) -> None:
    def build() -> nn.Module:
        model = Base()
        if in_place:
            model.compile(backend="eager")
        else:
            model.base = torch.compile(model.base, backend="eager")  # pyright: ignore[reportAttributeAccessIssue]
        return model

    outcome = case(build=build, product=product).run()
    assert outcome.error < EXACT
    assert outcome.moved < 1e-15


@pytest.mark.parametrize("product", ["jvp", "fd", "darts", "unroll"])
def test_a_replay_leaves_batch_norm_alone(case: Any, product: str) -> None:
    def build() -> nn.Module:
        return nn.Sequential(nn.Linear(5, 6), nn.BatchNorm1d(6), nn.Tanh(), nn.Linear(6, 3))

    outcome = case(build=build, product=product, warm=0).run()
    if product in ("jvp", "unroll"):
        assert outcome.error < EXACT
    lookahead, model, _, _ = case(build=build, product=product, warm=0).begin()
    counted = int(model[1].num_batches_tracked)
    mean = model[1].running_mean.clone()
    lookahead.step()
    lookahead.backward_outer(case(build=build).outer_batch[0].sum() * model[0].weight.sum())
    assert int(model[1].num_batches_tracked) == counted
    assert torch.equal(model[1].running_mean, mean)


def test_an_input_filled_again_is_refused_by_a_replay(case: Any) -> None:
    made = case(product="jvp")
    lookahead, model, _, _ = made.begin()
    lookahead.step()
    made.inner_batch[0].add_(1.0)
    with pytest.raises(RuntimeError, match="an input of the model was written to"):
        lookahead.backward_outer(cross_entropy(model, made.outer_batch).mean())
