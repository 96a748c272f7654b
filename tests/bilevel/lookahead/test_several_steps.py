"""Several updates before one outer loss: against differences of the whole plain loop."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bilevel import Lookahead, Status

from .conftest import Batch, draw_batch

NUM_STEPS = 3
# An epsilon of 1e-2: with 1e-8 Adam's first steps are signs, of which differences see nothing; the last test has 1e-8.
OPTIMIZERS = {
    "sgd": lambda m: torch.optim.SGD(m.parameters(), lr=0.3),
    "momentum": lambda m: torch.optim.SGD(m.parameters(), lr=0.2, momentum=0.9, dampening=0.2, weight_decay=0.1),
    "nesterov": lambda m: torch.optim.SGD(m.parameters(), lr=0.1, momentum=0.9, nesterov=True, maximize=False),
    "adam": lambda m: torch.optim.Adam(m.parameters(), lr=0.05, eps=1e-2, weight_decay=0.1),
    "adamw": lambda m: torch.optim.AdamW(m.parameters(), lr=0.05, betas=(0.8, 0.9), eps=1e-2),
    "nadam": lambda m: torch.optim.NAdam(m.parameters(), lr=0.05, eps=1e-2),
    "rmsprop": lambda m: torch.optim.RMSprop(m.parameters(), lr=0.02, centered=True, momentum=0.5),
    "adagrad": lambda m: torch.optim.Adagrad(m.parameters(), lr=0.1, lr_decay=0.1),
    "tensor-rate": lambda m: torch.optim.AdamW(m.parameters(), lr=torch.tensor(0.05, dtype=torch.float64), eps=1e-2),
    "two-groups": lambda m: torch.optim.AdamW(
        [{"params": list(m.parameters())[:2], "lr": 0.1}, {"params": list(m.parameters())[2:]}], lr=0.03, eps=1e-2
    ),
}
BATCHES = [draw_batch(4, seed=10 + k) for k in range(NUM_STEPS)]
OUTER = draw_batch(6, seed=2)


def mlp() -> nn.Module:
    return nn.Sequential(nn.Linear(5, 6), nn.Tanh(), nn.Linear(6, 3))


class Run:
    """A model, its optimizer, two updates before anything is recorded, and then NUM_STEPS recorded ones."""

    def __init__(
        self, optimizer: Callable[[nn.Module], Any], build: Callable[[], nn.Module] = mlp, warm: int = 2
    ) -> None:
        torch.manual_seed(0)
        self.model: Any = build().double()
        self.optimizer = optimizer(self.model)
        for k in range(warm):
            self.optimizer.zero_grad()
            self.losses(draw_batch(4, seed=50 + k)).mean().backward()
            self.optimizer.step()

    def losses(self, batch: Batch) -> Tensor:
        return F.cross_entropy(self.model(batch[0]), batch[1], reduction="none")

    def plain(self, phi: Tensor, clip_norm: float | None = None) -> float:
        for k in range(NUM_STEPS):
            torch.manual_seed(k)
            self.optimizer.zero_grad()
            (weights(phi)[k] * self.losses(BATCHES[k])).sum().backward()
            if clip_norm is not None:
                nn.utils.clip_grad_norm_(self.model.parameters(), clip_norm)
            self.optimizer.step()
        torch.manual_seed(99)
        return self.losses(OUTER).mean().item()

    def recorded(self, phi: Tensor, steps: int = NUM_STEPS, **options: Any) -> Lookahead:
        lookahead = Lookahead(self.model, self.optimizer, "unroll", steps=steps, **options)
        for k in range(NUM_STEPS):
            torch.manual_seed(k)
            self.optimizer.zero_grad()
            with lookahead.inner():
                lookahead.backward(self.losses(BATCHES[k]), weights(phi)[k])
            lookahead.step()
        torch.manual_seed(99)
        assert lookahead.backward_outer(self.losses(OUTER).mean()) is Status.DONE
        return lookahead


def weights(phi: Tensor) -> Tensor:
    """(NUM_STEPS, 4), every weight in every step's normalisation."""
    return phi.sigmoid() / phi.sigmoid().sum() * NUM_STEPS


def start() -> Tensor:
    return torch.linspace(-1, 1, NUM_STEPS * 4, dtype=torch.float64).reshape(NUM_STEPS, 4).requires_grad_()


def difference(function: Callable[[Tensor], float], phi: Tensor) -> Tensor:
    """Sixth order; errs by 1e-16 / 3e-3 of rounding and 1e-17 times the seventh derivative."""
    phi, step, rows = phi.detach(), 3e-3, []
    for place in torch.eye(phi.numel(), dtype=torch.float64):
        d = step * place.reshape(phi.shape)
        one, two, three = (function(phi + k * d) - function(phi - k * d) for k in (1, 2, 3))
        rows.append((45 * one - 9 * two + three) / (60 * step))
    return torch.tensor(rows, dtype=torch.float64).reshape(phi.shape)


def error(found: Tensor | None, expected: Tensor) -> float:
    assert found is not None
    return float((found - expected).norm() / expected.norm())


@pytest.mark.parametrize("warm", [0, 2])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_every_optimizer(name: str, warm: int) -> None:
    phi = start()
    run = Run(OPTIMIZERS[name], warm=warm)
    lookahead = run.recorded(phi)
    expected = difference(lambda at: Run(OPTIMIZERS[name], warm=warm).plain(at), phi)
    # NAdam's product of momenta is kept in float32 by torch.
    assert error(phi.grad, expected) < (1e-6 if name == "nadam" else 1e-8)
    theirs = Run(OPTIMIZERS[name], warm=warm)
    theirs.plain(phi.detach())
    assert all(torch.equal(p, q) for p, q in zip(run.model.parameters(), theirs.model.parameters(), strict=True))
    assert lookahead.report["steps"] == NUM_STEPS
    assert lookahead.report["sum_rule"] < 1e-12


def test_one_step_alone_is_something_else() -> None:
    """Or the test above could not fail: the last step's own derivative misses what the earlier ones contribute."""
    phi, last = start(), start()
    Run(OPTIMIZERS["momentum"]).recorded(phi)
    lookahead = Run(OPTIMIZERS["momentum"]).recorded(last, steps=2)
    assert lookahead.report["steps"] == 2
    assert phi.grad is not None
    assert error(last.grad, phi.grad) > 1e-2


def test_truncation_is_the_derivative_of_the_last_steps() -> None:
    phi = start()
    Run(OPTIMIZERS["adamw"]).recorded(phi, steps=2)

    def of_the_last_two(at: Tensor) -> float:
        run = Run(OPTIMIZERS["adamw"])
        for k in range(NUM_STEPS):
            run.optimizer.zero_grad()
            (weights(at if k else phi.detach())[k] * run.losses(BATCHES[k])).sum().backward()
            run.optimizer.step()
        return run.losses(OUTER).mean().item()

    assert error(phi.grad, difference(of_the_last_two, phi)) < 1e-8


def net_with_everything() -> nn.Module:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = nn.Linear(5, 5), nn.Linear(5, 3)
            self.scale = nn.Parameter(torch.rand(5) + 0.5)
            self.unused = nn.Linear(2, 2)

        def forward(self, x: Tensor) -> Tensor:
            x = torch.tanh(self.first(x)) * self.scale
            return self.second(F.dropout(torch.tanh(self.first(x)), 0.2, self.training))

    return Tied()


@pytest.mark.parametrize("options", [{}, {"clip_norm": 0.05}, {"clip_value": 0.05}], ids=str)
def test_shared_layers_dropout_and_clipping(options: dict[str, float]) -> None:
    phi = start()

    def clip(run: Run) -> None:
        value = options.get("clip_value")
        if value is not None:
            for p in run.model.parameters():
                if p.grad is not None:
                    p.grad.clamp_(-value, value)

    def plain(at: Tensor) -> float:
        run = Run(OPTIMIZERS["adamw"], net_with_everything)
        step = run.optimizer.step

        def clipped(*args: Any) -> None:
            clip(run)
            step(*args)

        run.optimizer.step = clipped
        return run.plain(at, options.get("clip_norm"))

    Run(OPTIMIZERS["adamw"], net_with_everything).recorded(phi, **options)
    assert error(phi.grad, difference(plain, phi)) < 1e-7  # clipping by value has kinks nearby


def test_two_optimizers_and_a_projection() -> None:
    def pair(model: nn.Module) -> list[torch.optim.Optimizer]:
        first, *rest = model.parameters()
        return [torch.optim.SGD([first], lr=0.2, momentum=0.9), torch.optim.Adam(rest, lr=0.05)]

    def box(named: dict[str, Tensor]) -> dict[str, Tensor]:
        return {"0.weight": named["0.weight"].clamp(-0.3, 0.3), "2.bias": named["2.bias"] - named["2.bias"].mean()}

    class Both:
        def __init__(self, model: Any) -> None:
            self.model, self.parts = model, pair(model)

        def zero_grad(self) -> None:
            for part in self.parts:
                part.zero_grad()

        def step(self) -> None:
            for part in self.parts:
                part.step()
            self.project()

        def project(self) -> None:
            with torch.no_grad():
                named = dict(self.model.named_parameters())
                for name, value in box({n: p.detach().clone() for n, p in named.items()}).items():
                    named[name].copy_(value)

    phi, run = start(), Run(Both)
    lookahead = Lookahead(run.model, run.optimizer.parts, "unroll", steps=NUM_STEPS, projection=box)
    for k in range(NUM_STEPS):
        run.optimizer.zero_grad()
        with lookahead.inner():
            lookahead.backward(run.losses(BATCHES[k])[:2], weights(phi)[k, :2])
        with lookahead.inner():  # two micro-batches
            lookahead.backward(run.losses(BATCHES[k])[2:], weights(phi)[k, 2:])
        lookahead.step()
    lookahead.backward_outer(run.losses(OUTER).mean())
    assert error(phi.grad, difference(lambda at: Run(Both).plain(at), phi)) < 1e-8


def test_a_second_window_starts_afresh_and_the_outer_loss_may_hold_the_weights() -> None:
    run, phi = Run(OPTIMIZERS["momentum"]), start()
    lookahead = Lookahead(run.model, run.optimizer, "unroll", steps=NUM_STEPS)

    def window(at: Tensor, run: Run, look: Lookahead | None) -> Tensor:
        for k in range(NUM_STEPS):
            run.optimizer.zero_grad()
            if look is None:
                (weights(at)[k] * run.losses(BATCHES[k])).sum().backward()
                run.optimizer.step()
            else:
                with look.inner():
                    look.backward(run.losses(BATCHES[k]), weights(at)[k])
                look.step()
        return run.losses(OUTER).mean() + 0.1 * at.square().sum()

    lookahead.backward_outer(window(phi, run, lookahead))
    phi.grad = None
    lookahead.backward_outer(window(phi, run, lookahead))
    assert lookahead.report["steps"] == NUM_STEPS

    def plain(at: Tensor) -> float:
        twin = Run(OPTIMIZERS["momentum"])
        window(phi.detach(), twin, None)
        return window(at, twin, None).item()

    assert error(phi.grad, difference(plain, phi)) < 1e-8


@pytest.mark.parametrize("amsgrad", [False, True])
def test_unrolled_says_the_same(amsgrad: bool) -> None:
    """The functional method, on the same problem, without any differences, from Adam's very first step."""
    import bilevel

    options = {"lr": 0.03, "betas": (0.8, 0.9), "weight_decay": 0.1, "amsgrad": amsgrad}
    optimizer = bilevel.AdamW(**options)
    phi, run = start(), Run(lambda m: torch.optim.AdamW(m.parameters(), **options), warm=0)
    params = {name: p.detach().clone() for name, p in run.model.named_parameters()}

    def loss(params: dict[str, Tensor], batch: Batch) -> Tensor:
        return F.cross_entropy(torch.func.functional_call(run.model, params, (batch[0],)), batch[1], reduction="none")

    problem = bilevel.Bilevel(
        lambda params, hyper, k: (weights(hyper["phi"])[k] * loss(params, BATCHES[k])).sum(),
        lambda params, hyper, batch: loss(params, batch).mean(),
    )
    result = bilevel.hypergradient(
        problem, params, {"phi": phi.detach()}, list(range(NUM_STEPS)), OUTER, method=bilevel.Unrolled(optimizer)
    )
    run.recorded(phi)
    torch.testing.assert_close(phi.grad, result.grad["phi"], rtol=1e-10, atol=1e-14)


# -- refusals ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"product": "ghost"}, "choose product='unroll'"),
        ({"product": "jvp"}, "choose product='unroll'"),
        ({"adam": "frozen"}, "choose adam='exact'"),
        ({"steps": 0}, "at least 1"),
    ],
)
def test_settings(options: dict[str, Any], message: str) -> None:
    run = Run(OPTIMIZERS["adam"])
    with pytest.raises(ValueError, match=message):
        Lookahead(run.model, run.optimizer, **{"product": "unroll", "steps": 2, **options})


@pytest.mark.parametrize(
    "optimizer",
    [
        lambda m: torch.optim.Adamax(m.parameters()),
        lambda m: torch.optim.NAdam(m.parameters(), decoupled_weight_decay=True),
    ],
)
def test_optimizers_without_a_functional_twin(optimizer: Any) -> None:
    run = Run(optimizer)
    with pytest.raises(ValueError, match="known here are SGD"):
        Lookahead(run.model, run.optimizer, "unroll", steps=2)
    Lookahead(run.model, run.optimizer, "unroll")


def test_sixteen_bits() -> None:
    model = mlp().bfloat16()
    with pytest.raises(ValueError, match="keep them in float32"):
        Lookahead(model, torch.optim.SGD(model.parameters(), lr=0.1), "unroll", steps=2)


def interfered(between: Callable[[Run, Lookahead], None], build: Callable[[], nn.Module] = mlp) -> None:
    run, phi = Run(OPTIMIZERS["adam"], build), start()
    lookahead = Lookahead(run.model, run.optimizer, "unroll", steps=NUM_STEPS, check="off")
    for k in range(2):
        run.optimizer.zero_grad()
        with lookahead.inner():
            lookahead.backward(run.losses(BATCHES[k]), weights(phi)[k])
        if k:
            between(run, lookahead)
        lookahead.step()
        if not k:
            between(run, lookahead)
    lookahead.backward_outer(run.losses(OUTER).mean())


def write(run: Run, lookahead: Lookahead) -> None:
    with torch.no_grad():
        run.model[0].weight.mul_(0.9)


def reset_state(run: Run, lookahead: Lookahead) -> None:
    for state in run.optimizer.state.values():
        state["exp_avg"].zero_()


def penalty(run: Run, lookahead: Lookahead) -> None:
    with lookahead.unweighted():
        run.model[0].weight.square().sum().backward()


def zero_in_place(run: Run, lookahead: Lookahead) -> None:
    if not lookahead._window.past and run.model[0].weight.grad is not None and not hasattr(run, "zeroed"):
        run.zeroed = True  # type: ignore[attr-defined]
        run.optimizer.zero_grad(set_to_none=False)


def later(function: Callable[[Run, Lookahead], None]) -> Callable[[Run, Lookahead], None]:
    """Only at the second call, between backward and step."""
    calls = [0]

    def call(run: Run, lookahead: Lookahead) -> None:
        calls[0] += 1
        if calls[0] == 2:
            function(run, lookahead)

    return call


def first(function: Callable[[Run, Lookahead], None]) -> Callable[[Run, Lookahead], None]:
    """Only at the first call, between two updates."""
    calls = [0]

    def call(run: Run, lookahead: Lookahead) -> None:
        calls[0] += 1
        if calls[0] == 1:
            function(run, lookahead)

    return call


@pytest.mark.parametrize(
    ("between", "message"),
    [
        (first(write), "changed between two updates of one window"),
        (first(reset_state), "optimizer's state was changed between two updates"),
        (later(penalty), "put the term into the losses"),
        (zero_in_place, "zero_grad.*set_to_none=True"),
    ],
    ids=["parameters", "state", "penalty", "zero_grad"],
)
def test_what_the_derivative_would_not_know_of(between: Any, message: str) -> None:
    with pytest.raises(RuntimeError, match=message):
        interfered(between)


def test_running_statistics() -> None:
    def with_norm() -> nn.Module:
        return nn.Sequential(nn.Linear(5, 6), nn.BatchNorm1d(6), nn.Linear(6, 3))

    with pytest.raises(RuntimeError, match="running statistics"):
        interfered(lambda run, lookahead: None, with_norm)


def test_a_weigher_that_reads_the_model() -> None:
    run, phi = Run(OPTIMIZERS["sgd"]), start()
    lookahead = Lookahead(run.model, run.optimizer, "unroll", steps=2)
    for k in range(2):
        run.optimizer.zero_grad()
        with lookahead.inner():
            losses = run.losses(BATCHES[k])
            lookahead.backward(losses, weights(phi)[k] * (1 + losses))
        lookahead.step()
    with pytest.raises(RuntimeError, match="detach what the weigher reads"):
        lookahead.backward_outer(run.losses(OUTER).mean())
