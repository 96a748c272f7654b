"""Nested parameters and hyperparameters: the same numbers as flat ones, built like what was given."""

from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor

import bilevel

Tensors = dict[str, Tensor]


class Layer(NamedTuple):
    weight: Tensor
    bias: Tensor


def pack(flat: Tensors) -> dict[str, Any]:
    return {"layers": [Layer(flat["first"], flat["bias"]), (flat["second"],)]}


def unpack(tree: dict[str, Any]) -> Tensors:
    return {"first": tree["layers"][0].weight, "bias": tree["layers"][0].bias, "second": tree["layers"][1][0]}


def pack_hyper(flat: Tensors) -> dict[str, Any]:
    return {"data": [flat["weights"]], "settings": {name: flat[name] for name in flat if name != "weights"}}


def unpack_hyper(tree: dict[str, Any]) -> Tensors:
    return {"weights": tree["data"][0], **tree["settings"]}


def nested(problem: bilevel.Bilevel) -> bilevel.Bilevel:
    return bilevel.Bilevel(
        lambda params, hyper, batch: problem.inner(unpack(params), unpack_hyper(hyper), batch),
        lambda params, hyper, batch: problem.outer(unpack(params), unpack_hyper(hyper), batch),
    )


FLAT = bilevel.AdamW(
    lr=bilevel.PerStep(lambda hyper, k: hyper["lr"] * (k + 1)),
    betas=(lambda hyper: hyper["momentum"], 0.99),
    weight_decay=lambda hyper: dict(zip(("first", "bias", "second"), hyper["decay"], strict=True)),
)
NESTED = bilevel.AdamW(
    lr=bilevel.PerStep(lambda hyper, k: hyper["settings"]["lr"] * (k + 1)),
    betas=(lambda hyper: hyper["settings"]["momentum"], 0.99),
    weight_decay=lambda hyper: pack(dict(zip(("first", "bias", "second"), hyper["settings"]["decay"], strict=True))),
)


def same(found: bilevel.Result, expected: bilevel.Result) -> None:
    for name, tensor in unpack_hyper(found.grad).items():
        assert torch.equal(tensor, expected.grad[name])
    for name, tensor in unpack(found.params).items():
        assert torch.equal(tensor, expected.params[name])
    assert type(found.params["layers"][0]) is Layer
    assert found.status is expected.status


@pytest.mark.parametrize("build", [bilevel.Unrolled, bilevel.ForwardMode, bilevel.OneStep, bilevel.FiniteDifference])
def test_the_same_numbers_as_flat_ones(net: Any, build: Any) -> None:
    batches = net.inner_batches[: 1 if build in (bilevel.OneStep, bilevel.FiniteDifference) else 3]
    rest = (batches, net.outer_batch)
    expected = bilevel.hypergradient(net.problem, net.params, net.hyper, *rest, method=build(FLAT))
    trees = (pack(net.params), pack_hyper(net.hyper))
    found = bilevel.hypergradient(nested(net.problem), *trees, *rest, method=build(NESTED))
    same(found, expected)
    again = bilevel.hypergradient(
        nested(net.problem), found.params, trees[1], *rest, method=build(NESTED), state=found.state
    )
    onward = bilevel.hypergradient(
        net.problem, expected.params, net.hyper, *rest, method=build(FLAT), state=expected.state
    )
    same(again, onward)


def test_implicit_start_root_and_projection() -> None:
    a = torch.tensor([[2.0, 0.5], [-0.5, 1.0]], dtype=torch.float64)
    x = torch.tensor([0.3, -1.0], dtype=torch.float64)

    def function(params: Any, hyper: Any, batch: Any) -> Any:
        value = a @ torch.stack(params[0]) - hyper[0]
        return [(value[0], value[1])]

    z = torch.linalg.solve(a, x)
    root = bilevel.Root(function, lambda params, hyper, batch: params[0][0] * params[0][1])
    method = bilevel.Implicit(bilevel.GMRES(tolerance=1e-13))
    result = bilevel.hypergradient(root, [(z[0], z[1])], (x,), [None], None, method=method)
    assert isinstance(result.grad, tuple)
    torch.testing.assert_close(result.grad[0], torch.linalg.solve(a.T, z.flip(0)), rtol=1e-11, atol=1e-13)

    problem = bilevel.Bilevel(
        lambda params, hyper, batch: (params["z"][0] ** 2).sum() / 2,
        lambda params, hyper, batch: params["z"][0].sum(),
        start=lambda hyper: {"z": [2 * hyper]},
    )
    held = bilevel.Projected(bilevel.SGD(lr=0.5), lambda params, hyper: {"z": [params["z"][0].clamp(min=hyper.sum())]})
    result = bilevel.hypergradient(problem, None, x, [None], None, method=bilevel.Unrolled(held))
    # θ' = max(x, Σ x) with Σ x = -.7: the first coordinate is free (.3), the second is held at Σ x.
    assert result.params["z"][0].tolist() == pytest.approx([0.3, -0.7])
    assert result.grad.tolist() == pytest.approx([2.0, 1.0])


def test_a_lasso_over_a_tree() -> None:
    def inner(params: Any, hyper: Any, batch: Any) -> Tensor:
        return ((params[0] - batch) ** 2).sum() / 2

    def shrink(params: Any, hyper: Any, rate: float) -> Any:
        return [params[0].sign() * (params[0].abs() - rate * hyper["l1"]).clamp(min=0)]

    step = bilevel.proximal_map(inner, shrink, rate=0.5)
    target = torch.tensor([2.0, -1.0, 0.1], dtype=torch.float64)
    hyper = {"l1": torch.tensor(0.25, dtype=torch.float64)}
    params = [target.sign() * (target.abs() - 0.25).clamp(min=0)]
    lasso = bilevel.FixedPoint(step, lambda params, hyper, batch: params[0] @ torch.ones(3).double())
    result = bilevel.hypergradient(lasso, params, hyper, [target], None, method=bilevel.Implicit(bilevel.Direct()))
    assert result.grad["l1"].item() == pytest.approx(0.0)  # -sign(2) - sign(-1) + 0
    assert result.status.ok


def test_under_vmap(net: Any) -> None:
    def of(scale: Tensor) -> Tensor:
        hyper = pack_hyper({**net.hyper, "weights": net.hyper["weights"] * scale})
        arguments = (nested(net.problem), pack(net.params), hyper, net.inner_batches[:2], net.outer_batch)
        return bilevel.hypergradient(*arguments, method=bilevel.Unrolled(NESTED)).grad["data"][0]

    scales = torch.tensor([0.5, 2.0], dtype=torch.float64)
    apart = torch.stack([of(scale) for scale in scales])
    torch.testing.assert_close(torch.func.vmap(of)(scales), apart, rtol=1e-10, atol=1e-13)


@pytest.mark.parametrize(
    ("tree", "message"),
    [
        ({"layers": [1.0]}, r"hyper\['layers'\]\[0\] is float; allowed is a real"),
        ({"layers": []}, "at least one entry"),
        ({"a.b": torch.ones(1), "a": {"b": torch.ones(1)}}, "two leaves are called 'a.b'"),
        ({"layers": [torch.tensor([1])]}, r"hyper\['layers.0'\] is torch.int64"),
    ],
)
def test_trees_that_cannot_be_right_are_refused(net: Any, tree: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        bilevel.hypergradient(
            net.problem, net.params, tree, net.inner_batches[:1], net.outer_batch, method=bilevel.OneStep(FLAT)
        )
