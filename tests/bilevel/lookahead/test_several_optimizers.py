"""Several optimizers that step together: against differences of the plain loop, which steps them one after another."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from bilevel import Lookahead


class Both:
    """Two optimizers behind one name, for the plain loop."""

    def __init__(self, *optimizers: torch.optim.Optimizer) -> None:
        self.optimizers = optimizers

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        return [group for one in self.optimizers for group in one.param_groups]

    def zero_grad(self) -> None:
        for one in self.optimizers:
            one.zero_grad()

    def step(self) -> None:
        for one in self.optimizers:
            one.step()


def split(model: nn.Module) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
    parameters = list(model.parameters())
    return [p for p in parameters if p.ndim == 2], [p for p in parameters if p.ndim != 2]


PAIRS = {
    "sgd-adamw": lambda m, n: (torch.optim.SGD(m, lr=0.1, momentum=0.9), torch.optim.AdamW(n, lr=0.02)),
    "adam-adam": lambda m, n: (torch.optim.Adam(m, lr=0.01), torch.optim.Adam(n, lr=0.03, weight_decay=0.1)),
    "rmsprop-adagrad": lambda m, n: (torch.optim.RMSprop(m, lr=0.01), torch.optim.Adagrad(n, lr=0.05)),
}


@pytest.mark.parametrize("options", [{}, {"clip_norm": 0.05}, {"product": "jvp"}, {"product": "unroll"}], ids=str)
@pytest.mark.parametrize("name", PAIRS)
def test_each_parameter_by_its_own_optimizer(case: Any, name: str, options: dict[str, Any]) -> None:
    one = case(optimizer=lambda model: Both(*PAIRS[name](*split(model))), **options)
    lookahead, model, both, phi = begin(one)
    lookahead.step()
    lookahead.backward_outer(one.outer(model, one.outer_batch))
    expected = one.difference()
    assert float((phi.grad - expected).norm() / expected.norm()) < 1e-8  # what the differences resolve
    theirs = one.plain(phi.detach())[1].parameters()
    assert all(torch.equal(p, q) for p, q in zip(model.parameters(), theirs, strict=True))
    assert lookahead.report["check"] < 1e-9
    assert lookahead.report["sum_rule"] < 1e-12
    del both


def begin(one: Any) -> tuple[Lookahead, nn.Module, Both, torch.Tensor]:
    model, both, phi = one.fresh()
    phi.requires_grad_()
    lookahead = Lookahead(model, list(both.optimizers), one.product, clip_norm=one.clip_norm)
    with lookahead.inner():
        lookahead.backward(one.losses(model, one.inner_batch), one.coefficients(phi))
    return lookahead, model, both, phi


def test_muon_and_adamw_are_the_sum_of_what_each_does_alone(case: Any) -> None:
    """torch rounds Muon's step to bfloat16, so differences say nothing; but each parameter's share is its own."""

    def together(model: nn.Module) -> Both:
        matrices, rest = split(model)
        return Both(torch.optim.Muon(matrices, lr=0.02), torch.optim.AdamW(rest, lr=0.02))

    one = case(optimizer=together)
    lookahead, model, _, phi = begin(one)
    lookahead.step()
    lookahead.backward_outer(one.outer(model, one.outer_batch))
    parts = []
    for place in (0, 1):  # the same update with the other optimizer's parameters out of the derivative
        lookahead, model, both, single = begin(one)
        lookahead.step()
        after = dict(model.named_parameters())
        others = {id(p) for group in both.optimizers[1 - place].param_groups for p in group["params"]}
        held = {name: p.detach() if id(p) in others else p for name, p in after.items()}
        out = torch.func.functional_call(model, held, (one.outer_batch[0],))
        lookahead.backward_outer(nn.functional.cross_entropy(out, one.outer_batch[1]))
        parts.append(single.grad)
    assert all(float(part.norm()) > 1e-4 for part in parts)
    torch.testing.assert_close(phi.grad, parts[0] + parts[1], rtol=1e-10, atol=1e-14)


def test_a_gradient_scaler_and_schedules_see_both(case: Any) -> None:
    one = case(optimizer=lambda model: Both(*PAIRS["adam-adam"](*split(model))))
    expected = one.difference()
    model, both, phi = one.fresh()
    phi.requires_grad_()
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10)
    lookahead = Lookahead(model, both.optimizers, scaler=scaler)
    with lookahead.inner():
        lookahead.backward(one.losses(model, one.inner_batch), one.coefficients(phi))
    lookahead.step()
    for group in both.param_groups:  # a schedule, after the step
        group["lr"] *= 7
    lookahead.backward_outer(one.outer(model, one.outer_batch))
    assert float((phi.grad - expected).norm() / expected.norm()) < 1e-8


def test_what_cannot_be_right_is_refused(case: Any) -> None:
    model, both, _ = case(optimizer=lambda model: Both(*PAIRS["adam-adam"](*split(model)))).fresh()
    again = torch.optim.SGD(model.parameters(), lr=0.1)
    with pytest.raises(ValueError, match=r"belongs to SGD \(optimizer 1\) and to Adam \(optimizer 0\)"):
        Lookahead(model, [both.optimizers[0], again])
    with pytest.raises(ValueError, match="empty list"):
        Lookahead(model, [])
    lookahead = Lookahead(model, both.optimizers)
    both.optimizers[1].add_param_group({"params": list(nn.Linear(2, 2).double().parameters())})
    with pytest.raises(ValueError, match=r"group 2 is not in the model"), lookahead.inner():
        pass


def test_one_of_them_stepped_alone_is_refused(case: Any) -> None:
    one = case(optimizer=lambda model: Both(*PAIRS["sgd-adamw"](*split(model))))
    lookahead, model, both, _ = begin(one)
    both.optimizers[1].step()
    with pytest.raises(
        RuntimeError, match=r"optimizer.step\(\) was called where lookahead.step\(\) belongs|written to"
    ):
        lookahead.step()
    lookahead, model, both, _ = begin(one)
    lookahead.step()
    both.optimizers[0].step()
    with pytest.raises(RuntimeError, match="took another step"):
        lookahead.backward_outer(one.outer(model, one.outer_batch))
