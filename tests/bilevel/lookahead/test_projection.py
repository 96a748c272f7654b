"""A constraint after the step, inside the derivative: against differences of the plain loop with the constraint."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from bilevel import Lookahead

Named = dict[str, Tensor]


def box(named: Named) -> Named:
    return {name: p.clamp(-0.3, 0.3) for name, p in named.items()}


def unit_rows(named: Named) -> Named:
    return {"0.weight": named["0.weight"] / named["0.weight"].norm(dim=1, keepdim=True).clamp(min=0.5)}


def one_from_another(named: Named) -> Named:
    """A constraint that couples parameters: the last bias is the mean of the first."""
    return {"2.bias": named["0.bias"].mean() + 0.5 * named["2.bias"], "2.weight": named["2.weight"].relu()}


PROJECTIONS = {"box": box, "unit_rows": unit_rows, "coupled": one_from_another}
OPTIMIZERS = {
    "sgd": lambda model: torch.optim.SGD(model.parameters(), lr=0.5, momentum=0.9),
    "adamw": lambda model: torch.optim.AdamW(model.parameters(), lr=0.05),
}


def constrained(projection: Any, optimizer: Any) -> Any:
    """The optimizer of the plain loop: it projects after every step."""

    def build(model: Any) -> Any:
        live = optimizer(model)
        step = live.step

        def step_and_project(*args: Any) -> None:
            step(*args)
            with torch.no_grad():
                named = dict(model.named_parameters())
                for name, value in projection({n: p.detach().clone() for n, p in named.items()}).items():
                    named[name].copy_(value)

        live.step = step_and_project
        live.inner_step = step
        return live

    return build


@pytest.mark.parametrize("options", [{}, {"clip_norm": 0.05}, {"product": "jvp"}, {"product": "unroll"}], ids=str)
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("name", PROJECTIONS)
def test_equals_differences_of_the_constrained_loop(case: Any, name: str, optimizer: str, options: Any) -> None:
    one = case(optimizer=constrained(PROJECTIONS[name], OPTIMIZERS[optimizer]), **options)
    expected = one.difference()
    model, live, phi = one.fresh()
    phi.requires_grad_()
    live.step = live.inner_step
    lookahead = Lookahead(model, live, one.product, clip_norm=one.clip_norm, projection=PROJECTIONS[name])
    with lookahead.inner():
        lookahead.backward(one.losses(model, one.inner_batch), one.coefficients(phi))
    before = [p.detach().clone() for p in model.parameters()]
    lookahead.step()
    lookahead.backward_outer(one.outer(model, one.outer_batch))
    assert float((phi.grad - expected).norm() / expected.norm()) < 1e-8  # what the differences resolve
    theirs = one.plain(phi.detach())[1].parameters()
    assert all(torch.equal(p, q) for p, q in zip(model.parameters(), theirs, strict=True))
    assert not all(torch.equal(p, q) for p, q in zip(model.parameters(), before, strict=True))
    assert lookahead.report["check"] < 1e-9


def test_it_matters_and_unrecorded_updates_are_constrained_too(case: Any) -> None:
    one = case(optimizer=OPTIMIZERS["sgd"])
    model, live, phi = one.fresh()
    lookahead = Lookahead(model, live, projection=box)
    with lookahead.inner(record=False):
        lookahead.backward(one.losses(model, one.inner_batch), one.coefficients(phi))
    lookahead.step()
    assert max(float(p.detach().abs().max()) for p in model.parameters()) == pytest.approx(0.3)


@pytest.mark.parametrize(
    ("projection", "message"),
    [
        (lambda named: {"3.weight": named["0.weight"]}, r"gives 3.weight \(6, 5\)"),
        (lambda named: {"0.weight": named["0.bias"]}, r"gives 0.weight \(6,\)"),
        (lambda named: {"0.weight": named["0.weight"].clamp_(0, 1)}, r"clamp, not clamp_"),
        (
            lambda named: {"0.bias": named["0.bias"] * torch.ones(6, dtype=torch.float64, requires_grad=True)},
            "depends on a tensor that requires grad",
        ),
    ],
)
def test_projections_that_cannot_be_right_are_refused(case: Any, projection: Any, message: str) -> None:
    one = case()
    model, live, phi = one.fresh()
    lookahead = Lookahead(model, live, projection=projection)
    with lookahead.inner():
        lookahead.backward(one.losses(model, one.inner_batch), one.coefficients(phi.requires_grad_()))
    with pytest.raises(ValueError, match=message):
        lookahead.step()
