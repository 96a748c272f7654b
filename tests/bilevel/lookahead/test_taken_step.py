"""u = Cᵀ D v of the step that was taken, whatever happens until `backward_outer`: exact, or refused by name."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import SGD, Adam, AdamW, RMSprop
from torch.optim.lr_scheduler import ExponentialLR

import bilevel
from bilevel import Lookahead
from bilevel.lookahead.typed import square_sum

EXACT = 1e-9
ALL = ("ghost", "jvp", "unroll")


def mlp() -> nn.Module:
    return nn.Sequential(nn.Linear(5, 6), nn.Tanh(), nn.Linear(6, 3))


class TwoHeads(nn.Module):
    """The auxiliary head is the inner loss's alone: no outer gradient, but its gradient is clipped with the rest."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.main, self.auxiliary = nn.Linear(5, 6), nn.Linear(6, 3), nn.Linear(6, 3)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        hidden = self.body(x).tanh()
        return self.main(hidden), self.auxiliary(hidden)


def both(model: nn.Module, batch: Any) -> Tensor:
    main, auxiliary = model(batch[0])
    losses = [F.cross_entropy(logits, batch[1], reduction="none") for logits in (main, auxiliary)]
    return losses[0] + 3 * losses[1]


def main_only(model: nn.Module, batch: Any) -> Tensor:
    return F.cross_entropy(model(batch[0])[0], batch[1])


@pytest.mark.parametrize("product", ALL)
@pytest.mark.parametrize("kind", [SGD, AdamW])
@pytest.mark.parametrize("clipping", [{}, {"clip_norm": 0.3}, {"clip_value": 0.05}], ids=str)
def test_a_parameter_of_the_inner_loss_alone(case: Any, product: str, kind: Any, clipping: dict[str, float]) -> None:
    made = case(TwoHeads, lambda m: kind(m.parameters(), lr=0.05), both, main_only, product, **clipping)
    outcome = made.run()
    # a clipped value is a corner of the plain loop: differences of step 1e-3 must not cross it, and do not here
    assert outcome.error < EXACT
    assert outcome.moved < 1e-15


class Sum(nn.Module):
    """The outer gradients of the two parameters are one tensor."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.other = nn.Parameter(0.3 * torch.randn(6, 5)), nn.Parameter(0.3 * torch.randn(6, 5))
        self.head = nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(F.linear(x, self.one + self.other).tanh())


@pytest.mark.parametrize("product", ["jvp", "unroll"])
@pytest.mark.parametrize("kind", [SGD, AdamW])
def test_two_parameters_with_one_outer_gradient(case: Any, product: str, kind: Any) -> None:
    assert case(Sum, lambda m: kind(m.parameters(), lr=0.05), product=product).run().error < EXACT


class Tables(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Parameter(torch.randn(1, 5)), nn.Parameter(torch.randn(1, 5))
        self.head = nn.Linear(5, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head((x + self.first + self.second).tanh())


def test_two_broadcast_tables_and_an_outer_batch_of_one(case: Any) -> None:
    made = case(Tables)
    made.outer_batch = (made.outer_batch[0][:1], made.outer_batch[1][:1])
    assert made.run().error < EXACT


@pytest.mark.parametrize("lr", [0.01, torch.tensor(0.01, dtype=torch.float64)], ids=["float", "tensor"])
def test_a_scheduler_in_between(case: Any, lr: Any) -> None:
    def optimizer(model: nn.Module) -> torch.optim.Optimizer:
        made = Adam(model.parameters(), lr=lr.clone() if isinstance(lr, Tensor) else lr)
        schedules[made] = ExponentialLR(made, 0.5)
        return made

    schedules: dict[Any, ExponentialLR] = {}
    assert case(optimizer=optimizer, between=lambda m, o: schedules[o].step()).run().error < EXACT


@pytest.mark.parametrize("kind", [SGD, Adam])
@pytest.mark.parametrize("product", ALL)
def test_zero_grad_in_between(case: Any, kind: Any, product: str) -> None:
    made = case(optimizer=lambda m: kind(m.parameters(), lr=0.05), product=product, clip_norm=0.1)
    made.between = lambda model, optimizer: optimizer.zero_grad()
    assert made.run().error < EXACT
    made.between = lambda model, optimizer: optimizer.zero_grad(set_to_none=False)
    with pytest.raises(RuntimeError, match=r"0\.weight.*zero_grad\(set_to_none=False\)"):
        made.run()


def write(model: nn.Module, optimizer: Any) -> None:
    with torch.no_grad():
        next(model.parameters()).clamp_(-0.1, 0.1)


def write_behind(model: nn.Module, optimizer: Any) -> None:
    next(model.parameters()).data.clamp_(-0.1, 0.1)


def another_backward(model: nn.Module, optimizer: Any) -> None:
    model(torch.ones(2, 5, dtype=torch.float64)).sum().backward()


def new_group(model: nn.Module, optimizer: Any) -> None:
    extra = nn.Linear(2, 2).double()
    model.add_module("extra", extra)
    optimizer.add_param_group({"params": list(extra.parameters())})


@pytest.mark.parametrize(
    ("between", "message"),
    [
        (write, r"0\.weight.*changed between lookahead\.step\(\) and backward_outer"),
        (write_behind, r"0\.weight.*changed between lookahead\.step"),
        (another_backward, r"0\.weight.*\.grad was written to"),
        (lambda m, o: o.step(), "another step after lookahead"),
        (lambda m, o: m[0].requires_grad_(False), r"0\.weight.*frozen between"),
    ],
)
def test_what_changes_in_between_is_refused(case: Any, between: Any, message: str) -> None:
    with pytest.raises((RuntimeError, bilevel.HypergradientCheckError), match=message):
        case(between=between).run()


def test_a_group_added_in_between_changes_nothing(case: Any) -> None:
    made = case()
    lookahead, model, optimizer, phi = made.begin()
    lookahead.step()
    new_group(model, optimizer)
    data = made.outer_batch
    hidden = model[2](model[1](model[0](data[0])))
    lookahead.backward_outer(F.cross_entropy(hidden, data[1]))
    assert float((phi.grad - made.difference()).norm() / made.difference().norm()) < EXACT


@pytest.mark.parametrize("product", ALL)
@pytest.mark.parametrize("how", ["unfreeze", "add_param_group", "freeze"])
def test_the_trainable_set_changes_between_updates(case: Any, product: str, how: str) -> None:
    made = case(product=product, clip_norm=0.1)

    def update(lookahead: Any, model: nn.Module, optimizer: Any, phi: Tensor) -> None:
        optimizer.zero_grad()
        with lookahead.inner():
            lookahead.backward(made.losses(model, made.inner_batch), made.coefficients(phi))
        lookahead.step()
        lookahead.backward_outer(made.outer(model, made.outer_batch))

    def start() -> tuple[Any, Any]:
        torch.manual_seed(0)
        model: Any = mlp().double()
        model[0].requires_grad_(how == "freeze")
        return model, SGD(model[2].parameters() if how == "add_param_group" else model.parameters(), lr=0.1)

    def change(model: Any, optimizer: Any) -> None:
        model[0].requires_grad_(how != "freeze")
        if how == "add_param_group":
            optimizer.add_param_group({"params": list(model[0].parameters()), "lr": 0.3})

    phi = torch.linspace(-1, 1, 4, dtype=torch.float64)
    model, optimizer = start()
    lookahead = Lookahead(model, optimizer, product, clip_norm=0.1)  # pyright: ignore[reportArgumentType]
    update(lookahead, model, optimizer, phi.clone().requires_grad_())
    change(model, optimizer)
    optimizer.zero_grad()
    actual = phi.clone().requires_grad_()
    update(lookahead, model, optimizer, actual)
    assert lookahead.report["check"] < 1e-7  # looked at again, because something had changed
    # The same second update by a Lookahead that never knew the first: the state is SGD's, there is none.
    model, optimizer = start()
    first = Lookahead(model, optimizer, product, clip_norm=0.1)  # pyright: ignore[reportArgumentType]
    update(first, model, optimizer, phi.clone().requires_grad_())
    change(model, optimizer)
    expected = phi.clone().requires_grad_()
    update(Lookahead(model, optimizer, product, clip_norm=0.1), model, optimizer, expected)  # pyright: ignore
    assert actual.grad is not None
    assert torch.equal(actual.grad, expected.grad)


def test_two_optimizers_on_one_model(case: Any) -> None:
    made = case(optimizer=lambda m: SGD(m[0].parameters(), lr=0.1), warm=0)
    lookahead, model, _, _ = made.begin()
    other = SGD(model[2].parameters(), lr=0.1)
    lookahead.step()
    other.step()
    with pytest.raises(RuntimeError, match=r"2\.weight.*one optimizer"):
        lookahead.backward_outer(made.outer(model, made.outer_batch))
    lookahead, model, _, _ = made.begin()
    SGD(model[2].parameters(), lr=0.1).step()
    with pytest.raises(RuntimeError, match=r"2\.weight.*one optimizer"):
        lookahead.step()


def test_own_clipping_and_a_pre_hook_are_refused(case: Any) -> None:
    lookahead, model, optimizer, _ = case().begin()
    nn.utils.clip_grad_norm_(model.parameters(), 0.01)
    with pytest.raises(RuntimeError, match=r"0\.weight.*clip_norm="):
        lookahead.step()
    lookahead, model, optimizer, _ = case().begin()
    optimizer.register_step_pre_hook(lambda *_: nn.utils.clip_grad_norm_(model.parameters(), 0.01) and None)
    with pytest.raises(RuntimeError, match=r"0\.weight.*step_pre_hook"):
        lookahead.step()


def test_no_step_was_taken(case: Any) -> None:
    """As under accelerate's accumulation, whose optimizer passes only every n-th step on."""

    class Accumulating:
        def __init__(self, optimizer: torch.optim.Optimizer) -> None:
            self.optimizer = optimizer

        def step(self) -> None: ...

    made = case()
    model, optimizer, phi = made.fresh()
    lookahead = Lookahead(model, Accumulating(optimizer))
    with lookahead.inner():
        lookahead.backward(made.losses(model, made.inner_batch), made.coefficients(phi.requires_grad_()))
    with pytest.raises(RuntimeError, match=r"took no step.*accumulation"):
        lookahead.step()


def test_sparse_and_complex_are_refused_by_name() -> None:
    model = nn.Sequential(nn.Embedding(7, 3, sparse=True))
    lookahead = Lookahead(model, SGD(model.parameters(), lr=0.1), "unroll")
    with lookahead.inner():
        lookahead.backward(model(torch.arange(4)).sum(-1), torch.ones(4, requires_grad=True))
    with pytest.raises(RuntimeError, match=r"0\.weight.*sparse=False"):
        lookahead.step()

    class Complex(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.phase = nn.Parameter(torch.ones(2, dtype=torch.complex64))

    with pytest.raises(ValueError, match="complex"):
        Lookahead(model := Complex(), SGD(model.parameters(), lr=0.1))


def test_u_is_compared_with_the_optimizers_own_formula(case: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from bilevel.lookahead import together

    true = together.step_vjp

    def wrong(*args: Any, **kwargs: Any) -> Any:
        return {p: 1.001 * u for p, u in true(*args, **kwargs).items()}

    monkeypatch.setattr(together, "step_vjp", wrong)
    for kind in (SGD, AdamW, RMSprop):
        with pytest.raises(bilevel.HypergradientCheckError, match="optimizer's own formula"):
            case(optimizer=lambda m, kind=kind: kind(m.parameters(), lr=0.02), clip_norm=0.1).run()


def test_adams_first_step_is_no_false_alarm(case: Any) -> None:
    """A fresh optimizer counts in fp32, where 1 - beta^t loses digits: the comparison must not."""
    outcome = case(optimizer=lambda m: AdamW(m.parameters(), lr=0.05, eps=1e-2), warm=0).run()
    assert outcome.error < 1e-8  # what the differences resolve


@pytest.mark.parametrize(
    "write",
    [
        lambda p: p.data.clamp_(-0.2, 0.2),
        lambda p: p.detach().numpy().__imul__(0.9),
    ],
    ids=["data", "numpy"],
)
def test_writes_that_torch_does_not_count_are_refused(case: Any, write: Any) -> None:
    """Weights clamped by .data after the step, as is often written; at an update without a comparison too."""
    one = case()
    lookahead, model, optimizer, phi = one.begin()
    for number in range(3):
        if number:
            optimizer.zero_grad()
            with lookahead.inner():
                lookahead.backward(one.losses(model, one.inner_batch), one.coefficients(phi))
        lookahead.step()
        if number == 2:
            write(next(model.parameters()))
            with pytest.raises(RuntimeError, match=r"changed between lookahead\.step"):
                lookahead.backward_outer(one.outer(model, one.outer_batch))
        else:
            lookahead.backward_outer(one.outer(model, one.outer_batch))


def test_a_parameter_of_more_entries_than_floats_can_count() -> None:
    """As embeddings of real models are. ℓ_i = E[t_i], F = Σ_j E[o_j]: dF/dc_i = -lr · (how often t_i is an o_j)."""
    rows = 2**24 + 4
    model = nn.Embedding.from_pretrained(torch.zeros(rows, 1), freeze=False)
    lookahead = Lookahead(model, SGD(model.parameters(), lr=0.5))
    weights = torch.ones(3, requires_grad=True)
    with lookahead.inner():
        lookahead.backward(model(torch.tensor([0, rows - 1, 7]))[:, 0], weights)
    lookahead.step()
    lookahead.backward_outer(model(torch.tensor([rows - 1, rows - 1, 0, 1])).sum())
    torch.testing.assert_close(weights.grad, torch.tensor([-0.5, -1.0, 0.0]))


def test_norms_of_large_tensors_are_summed_in_float64() -> None:
    """A plain sum in 32 bits is off by a thousandth here."""
    entries = torch.rand(2**22 + 7) + 1.0
    expected = entries.double().square().sum()
    assert abs(float(square_sum(entries) / expected) - 1.0) < 1e-12
    assert float(square_sum(torch.zeros(0))) == 0.0
    assert float(square_sum(torch.tensor(1e30))) == pytest.approx(1e60, rel=1e-6), "no overflow"
