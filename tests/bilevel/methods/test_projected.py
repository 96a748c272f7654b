"""A constraint after every step, inside the derivative: against one graph through the loop, and by hand."""

from typing import Any

import pytest
import torch
from torch import Tensor

import bilevel
from bilevel import testing

Tensors = dict[str, Tensor]


def bounded(params: Tensors, hyper: Tensors) -> Tensors:
    """A box whose edge is learned; only one of the parameters is held."""
    return {"first": params["first"].clamp(-0.5 - hyper["lr"], 0.5 + hyper["lr"])}


def on_the_sphere(params: Tensors, hyper: Tensors) -> Tensors:
    return {"second": params["second"] / params["second"].norm(dim=0), "bias": params["bias"].relu()}


OPTIMIZERS = {
    "box": bilevel.Projected(bilevel.SGD(lr=lambda hyper: hyper["lr"], momentum=0.9), bounded),
    "sphere": bilevel.Projected(bilevel.AdamW(lr=0.05, weight_decay=lambda hyper: hyper["eps"]), on_the_sphere),
}


@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.parametrize("build", [bilevel.Unrolled, bilevel.ForwardMode])
def test_several_steps(net: Any, name: str, build: Any) -> None:
    arguments = (net.problem, net.params, net.hyper, net.inner_batches[:3], net.outer_batch)
    optimizer = OPTIMIZERS[name]
    expected = testing.through_the_loop(*arguments, optimizer=optimizer, clip_norm=0.3)
    found = bilevel.hypergradient(*arguments, method=build(optimizer, clip_norm=0.3))
    assert testing.relative_error(found.grad, expected) < 1e-10
    plain = bilevel.hypergradient(*arguments, method=build(optimizer.optimizer, clip_norm=0.3))
    assert testing.relative_error(plain.grad, expected) > 1e-2  # the constraint is active, and matters
    assert found.stats == plain.stats


def test_one_step_by_hand() -> None:
    """θ' = clamp(θ - lr g, max=φ): a coordinate on the bound passes nothing to the weights, and 1 to the bound."""
    problem = bilevel.Bilevel(
        lambda params, hyper, batch: (hyper["w"] * params["z"]).sum(),
        lambda params, hyper, batch: (params["z"] * torch.tensor([1.0, 10.0, 100.0])).sum(),
    )
    optimizer = bilevel.Projected(bilevel.SGD(lr=0.1), lambda params, hyper: {"z": params["z"].clamp(max=hyper["top"])})
    hyper = {"w": torch.tensor([-1.0, 1.0, -9.0]), "top": torch.tensor(0.5)}
    for method in (bilevel.OneStep(optimizer), bilevel.Unrolled(optimizer), bilevel.FiniteDifference(optimizer)):
        result = bilevel.hypergradient(problem, {"z": torch.zeros(3)}, hyper, [None], None, method=method)
        assert result.params["z"].tolist() == pytest.approx([0.1, -0.1, 0.5])
        assert result.grad["w"].tolist() == pytest.approx([-0.1, -1.0, 0.0], abs=1e-5)
        assert result.grad["top"].item() == pytest.approx(100.0)


def test_many_projected_steps_meet_the_implicit_answer_of_the_fixed_point() -> None:
    """Non-negative least squares: unrolled to convergence, and by the implicit rule at the fixed point."""
    draw = torch.Generator().manual_seed(0)
    x = torch.randn(12, 4, generator=draw, dtype=torch.float64)
    y = x @ torch.tensor([1.0, -1.0, 0.5, 0.0], dtype=torch.float64)

    def inner(params: Tensors, hyper: Tensors, batch: Any) -> Tensor:
        return (hyper["w"] * (x @ params["z"] - y) ** 2).mean()

    def outer(params: Tensors, hyper: Tensors, batch: Any) -> Tensor:
        return (params["z"] * torch.arange(4.0)).sum()

    def project(params: Tensors, hyper: Tensors) -> Tensors:
        return {"z": params["z"].relu()}

    hyper = {"w": torch.rand(12, generator=draw, dtype=torch.float64) + 0.5}
    method = bilevel.Unrolled(bilevel.Projected(bilevel.SGD(lr=0.1), project))
    start = {"z": torch.ones(4, dtype=torch.float64)}
    long = bilevel.hypergradient(bilevel.Bilevel(inner, outer), start, hyper, [None] * 400, None, method=method)
    assert (long.params["z"] == 0).any()
    step = bilevel.proximal_map(inner, lambda params, hyper, rate: project(params, hyper), rate=0.1)
    implicit = bilevel.hypergradient(
        bilevel.FixedPoint(step, outer), long.params, hyper, [None], None, method=bilevel.Implicit(bilevel.Direct())
    )
    assert testing.relative_error(long.grad, implicit.grad) < 1e-8  # 400 steps of contraction


def test_what_cannot_be_right_is_refused(net: Any) -> None:
    rest = (net.params, net.hyper, net.inner_batches[:1], net.outer_batch)
    for found, message in (({"third": torch.ones(1)}, "gives third"), ({"bias": torch.ones(1)}, r"gives bias \(1,\)")):
        optimizer = bilevel.Projected(bilevel.SGD(lr=0.1), lambda params, hyper, found=found: found)
        with pytest.raises(ValueError, match=message):
            bilevel.hypergradient(net.problem, *rest, method=bilevel.OneStep(optimizer))
    for build in (bilevel.SOBA, bilevel.ValueFunctionPenalty):
        with pytest.raises(ValueError, match="FixedPoint of proximal_map"):
            build(bilevel.Projected(bilevel.SGD(lr=0.1), on_the_sphere))
    with pytest.raises(ValueError, match="functional optimizer"):
        bilevel.Projected(0.1, on_the_sphere)
    with pytest.raises(ValueError, match="allowed is a function"):
        bilevel.Projected(bilevel.SGD(lr=0.1), None)
