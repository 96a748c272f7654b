"""The exact methods against one autograd graph through the loop, for every optimizer and option."""

from collections.abc import Callable
from typing import Any

import pytest
import torch

import bilevel
from bilevel import testing


def lr(hyper: dict[str, torch.Tensor]) -> torch.Tensor:
    return hyper["lr"]


def decay(hyper: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return dict(zip(("first", "bias", "second"), hyper["decay"], strict=True))


def share(name: str) -> Callable[[dict[str, torch.Tensor]], torch.Tensor]:
    return lambda hyper: hyper[name]


OPTIMIZERS = {
    "sgd": bilevel.SGD(lr=lr),
    "decay": bilevel.SGD(lr=lr, weight_decay=decay),
    "momentum": bilevel.SGD(lr=lr, momentum=0.9),
    "dampening": bilevel.SGD(lr=lr, momentum=0.9, dampening=0.3, weight_decay=decay),
    "nesterov": bilevel.SGD(lr=lr, momentum=0.9, nesterov=True, weight_decay=0.1),
    "maximize": bilevel.SGD(lr=0.01, maximize=True),
    "adam": bilevel.Adam(lr=lr),
    "adam_l2": bilevel.Adam(lr=0.05, betas=(0.8, 0.9), weight_decay=decay),
    "amsgrad": bilevel.Adam(lr=0.05, amsgrad=True),
    "adamw": bilevel.AdamW(lr=lr, weight_decay=decay),
    # A setting of every kind from hyper.
    "learned_momentum": bilevel.SGD(lr=lr, momentum=share("momentum"), dampening=share("dampening")),
    "learned_nesterov": bilevel.SGD(lr=lr, momentum=share("momentum"), nesterov=True),
    "learned_betas": bilevel.Adam(lr=0.05, betas=(share("momentum"), share("beta2")), eps=share("eps")),
    "learned_betas_w": bilevel.AdamW(lr=lr, betas=(0.9, share("beta2")), weight_decay=decay),
    "rate_per_step": bilevel.SGD(lr=bilevel.PerStep(lambda hyper, k: hyper["decay"][k % 3] + 0.02 * hyper["lr"])),
    "nadam": bilevel.NAdam(lr=lr, betas=(share("momentum"), 0.9), weight_decay=decay),
    "rmsprop": bilevel.RMSprop(lr=0.01, alpha=share("beta2"), momentum=share("momentum"), centered=True, eps=0.1),
    "adagrad": bilevel.Adagrad(lr=lr, lr_decay=0.1, weight_decay=decay, eps=share("eps")),
}


def agree(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> None:
    assert testing.relative_error(found, expected) <= 1e-10
    for name, tensor in expected.items():  # a small block must be right too, not only the largest
        torch.testing.assert_close(found[name], tensor, rtol=1e-8, atol=1e-12)


@pytest.mark.parametrize("clip_norm", [None, 0.2])
@pytest.mark.parametrize("optimizer", OPTIMIZERS.values(), ids=OPTIMIZERS.keys())
@pytest.mark.parametrize(
    "build",
    [
        lambda optimizer, clip_norm: bilevel.Unrolled(optimizer, clip_norm=clip_norm),
        lambda optimizer, clip_norm: bilevel.Unrolled(optimizer, clip_norm=clip_norm, product="vjp"),
        lambda optimizer, clip_norm: bilevel.ForwardMode(optimizer, clip_norm=clip_norm, chunk_size=6),
    ],
    ids=["jvp", "vjp", "forward"],
)
def test_several_steps(
    net: Any, build: Callable[..., bilevel.Method], optimizer: bilevel.Optimizer, clip_norm: float | None
) -> None:
    arguments = (net.problem, net.params, net.hyper, net.inner_batches[:3], net.outer_batch)
    expected = testing.through_the_loop(*arguments, optimizer=optimizer, clip_norm=clip_norm)
    agree(bilevel.hypergradient(*arguments, method=build(optimizer, clip_norm)).grad, expected)


@pytest.mark.parametrize("clip_norm", [None, 0.2])
@pytest.mark.parametrize("product", ["jvp", "vjp"])
@pytest.mark.parametrize("optimizer", OPTIMIZERS.values(), ids=OPTIMIZERS.keys())
def test_one_step_from_the_middle_of_a_run(
    net: Any, optimizer: bilevel.Optimizer, product: str, clip_norm: float | None
) -> None:
    warm = bilevel.hypergradient(
        net.problem, net.params, net.hyper, net.inner_batches[:2], net.outer_batch, method=bilevel.Unrolled(optimizer)
    )
    arguments = (net.problem, warm.params, net.hyper, net.inner_batches[2:3], net.outer_batch)
    method = bilevel.OneStep(optimizer, product=product, clip_norm=clip_norm)
    result = bilevel.hypergradient(*arguments, method=method, state=warm.state)
    expected = testing.through_the_loop(*arguments, optimizer=optimizer, clip_norm=clip_norm, state=warm.state)
    agree(result.grad, expected)
    assert result.state.step == 3


@pytest.mark.parametrize("method", [bilevel.Unrolled, bilevel.ForwardMode], ids=["unrolled", "forward"])
def test_muon_on_matrices(net: Any, method: Callable[..., bilevel.Method]) -> None:
    def without_bias(loss: Any) -> Any:
        return lambda params, hyper, batch: loss({**params, "bias": net.params["bias"]}, hyper, batch)

    problem = bilevel.Bilevel(without_bias(net.problem.inner), without_bias(net.problem.outer))
    params = {name: net.params[name] for name in ("first", "second")}
    arguments = (problem, params, net.hyper, net.inner_batches[:3], net.outer_batch)
    optimizer = bilevel.Muon(lr=lr, momentum=share("momentum"))
    expected = testing.through_the_loop(*arguments, optimizer=optimizer)
    agree(bilevel.hypergradient(*arguments, method=method(optimizer)).grad, expected)


@pytest.mark.parametrize("optimizer", [bilevel.SGD(lr=lr, weight_decay=decay), bilevel.AdamW(lr=lr, weight_decay=0.3)])
@pytest.mark.parametrize(
    "build",
    [bilevel.Unrolled, bilevel.ForwardMode, lambda o: bilevel.Unrolled(o, checkpoint_every=2, product="vjp")],
    ids=["unrolled", "forward", "checkpoints"],
)
def test_a_start_that_is_learned(net: Any, build: Callable[..., bilevel.Method], optimizer: bilevel.Optimizer) -> None:
    """MAML's derivative, weight decay on the parameters themselves, against one graph through everything."""
    names = {f"initial.{name}": tensor for name, tensor in net.params.items()}
    hyper = {**net.hyper, **names}

    def start(hyper: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        return {name: hyper[f"initial.{name}"].sin() for name in net.params}

    problem = bilevel.Bilevel(net.problem.inner, net.problem.outer, start)
    for batches in (net.inner_batches[:1], net.inner_batches[:3]):
        leaves = {name: tensor.clone().requires_grad_() for name, tensor in hyper.items()}
        params = start(leaves)
        state = optimizer.init(params)
        for batch in batches:
            grads = torch.autograd.grad(problem.inner(params, leaves, batch), list(params.values()), create_graph=True)
            params, state = optimizer.update(params, dict(zip(params, grads, strict=True)), state, leaves)
        value = problem.outer(params, leaves, net.outer_batch)
        found = torch.autograd.grad(value, list(leaves.values()), materialize_grads=True)
        methods = [build(optimizer), *([bilevel.OneStep(optimizer)] if len(batches) == 1 else [])]
        for method in methods:
            result = bilevel.hypergradient(problem, None, hyper, batches, net.outer_batch, method=method)
            agree(result.grad, dict(zip(leaves, found, strict=True)))


def test_first_order_and_reptile_by_hand(net: Any) -> None:
    problem = bilevel.Bilevel(net.problem.inner, net.problem.outer, lambda hyper: {n: 2 * hyper[n] for n in net.params})
    hyper, batches = {**net.hyper, **net.params}, net.inner_batches[:3]
    params = {name: 2 * tensor for name, tensor in net.params.items()}
    rate, shrink = 0.05, 0.1
    for batch in batches:
        grads = torch.func.grad(net.problem.inner)(params, hyper, batch)
        params = {name: (1 - rate * shrink) * tensor - rate * grads[name] for name, tensor in params.items()}
    outer = torch.func.grad(net.problem.outer)(params, hyper, net.outer_batch)
    optimizer = bilevel.SGD(lr=rate, weight_decay=shrink)
    method = bilevel.Unrolled(optimizer, first_order=True)
    result = bilevel.hypergradient(problem, None, hyper, batches, net.outer_batch, method=method)
    reptile = bilevel.hypergradient(problem, None, hyper, batches, net.outer_batch, method=bilevel.Reptile(optimizer))
    for name in net.params:
        expected = 2 * (1 - rate * shrink) ** 3 * outer[name]
        torch.testing.assert_close(result.grad[name], expected, rtol=1e-12, atol=1e-14)
        way = 2 * (2 * net.params[name] - params[name])
        torch.testing.assert_close(reptile.grad[name], way, rtol=1e-12, atol=1e-14)
    assert not reptile.grad["weights"].any()
    torch.testing.assert_close(reptile.outer_loss, net.problem.outer(params, hyper, net.outer_batch))
    assert result.stats["passes"] == 4


@pytest.mark.parametrize("every", [1, 2, 3, 9])
def test_checkpoints_change_nothing(net: Any, every: int) -> None:
    arguments = (net.problem, net.params, net.hyper, net.inner_batches, net.outer_batch)
    plain = bilevel.hypergradient(*arguments, method=bilevel.Unrolled(OPTIMIZERS["adamw"]))
    method = bilevel.Unrolled(OPTIMIZERS["adamw"], checkpoint_every=every)
    again = bilevel.hypergradient(*arguments, method=method)
    assert all(torch.equal(again.grad[name], tensor) for name, tensor in plain.grad.items())
    assert all(torch.equal(again.params[name], tensor) for name, tensor in plain.params.items())


@pytest.mark.parametrize("every", [None, 1])
def test_truncation_differentiates_the_last_steps_only(net: Any, every: int | None) -> None:
    optimizer = OPTIMIZERS["momentum"]
    head = bilevel.hypergradient(
        net.problem, net.params, net.hyper, net.inner_batches[:3], net.outer_batch, method=bilevel.Unrolled(optimizer)
    )
    tail = (net.problem, head.params, net.hyper, net.inner_batches[3:], net.outer_batch)
    expected = testing.through_the_loop(*tail, optimizer=optimizer, state=head.state)
    result = bilevel.hypergradient(
        net.problem,
        net.params,
        net.hyper,
        net.inner_batches,
        net.outer_batch,
        method=bilevel.Unrolled(optimizer, truncate=2, checkpoint_every=every),
    )
    agree(result.grad, expected)


def test_two_halves_are_the_whole_trajectory(net: Any) -> None:
    method = bilevel.Unrolled(OPTIMIZERS["adam"])
    rest = (net.outer_batch,)
    whole = bilevel.hypergradient(net.problem, net.params, net.hyper, net.inner_batches, *rest, method=method)
    half = bilevel.hypergradient(net.problem, net.params, net.hyper, net.inner_batches[:2], *rest, method=method)
    other = bilevel.hypergradient(
        net.problem, half.params, net.hyper, net.inner_batches[2:], *rest, method=method, state=half.state
    )
    assert all(torch.equal(other.params[name], tensor) for name, tensor in whole.params.items())
    assert other.state.step == whole.state.step == 5


def test_dropout_is_one_function_over_all_passes(net: Any) -> None:
    def inner(params: dict[str, torch.Tensor], hyper: dict[str, torch.Tensor], batch: Any) -> torch.Tensor:
        kept = {name: torch.nn.functional.dropout(tensor, 0.3) for name, tensor in params.items()}
        return net.problem.inner(kept, hyper, batch)

    problem = bilevel.Bilevel(inner, net.problem.outer)
    arguments = (problem, net.params, net.hyper, net.inner_batches, net.outer_batch)
    optimizer = OPTIMIZERS["momentum"]
    torch.manual_seed(1)
    expected = testing.through_the_loop(*arguments, optimizer=optimizer)
    after = torch.get_rng_state()
    for method in (
        bilevel.Unrolled(optimizer),
        bilevel.Unrolled(optimizer, product="vjp", checkpoint_every=2),
        bilevel.ForwardMode(optimizer, chunk_size=5),
    ):
        torch.manual_seed(1)
        agree(bilevel.hypergradient(*arguments, method=method).grad, expected)
        assert torch.equal(torch.get_rng_state(), after)
