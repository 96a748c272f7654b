"""The inner optimizers take exactly torch.optim's steps."""

import itertools
from collections.abc import Callable

import pytest
import torch

import bilevel

SGD_OPTIONS = [
    {"momentum": momentum, "dampening": dampening, "nesterov": nesterov}
    for momentum, dampening, nesterov in itertools.product((0.0, 0.9), (0.0, 0.3), (False, True))
    if not nesterov or (momentum and not dampening)
]
CASES = [
    pytest.param(ours, theirs, {**options, "weight_decay": decay, "maximize": maximize}, id=f"{ours.__name__}-{number}")
    for number, (ours, theirs, options, decay, maximize) in enumerate(
        (*pair, decay, maximize)
        for pair in [
            *((bilevel.SGD, torch.optim.SGD, options) for options in SGD_OPTIONS),
            *(
                (ours, theirs, {"betas": (0.8, 0.95), "eps": eps, "amsgrad": amsgrad})
                for ours, theirs in ((bilevel.Adam, torch.optim.Adam), (bilevel.AdamW, torch.optim.AdamW))
                for eps, amsgrad in ((1e-8, False), (1e-3, True))
            ),
        ]
        for decay, maximize in itertools.product((0.0, 0.1), (False, True))
    )
]


@pytest.mark.parametrize(("ours", "theirs", "options"), CASES)
def test_same_trajectory_as_torch(
    ours: Callable[..., bilevel.Optimizer], theirs: Callable[..., torch.optim.Optimizer], options: dict[str, object]
) -> None:
    torch.manual_seed(0)
    params = {"a": torch.randn(3, 2, dtype=torch.float64), "b": torch.randn((), dtype=torch.float64)}
    live = {name: tensor.clone().requires_grad_() for name, tensor in params.items()}
    optimizer, reference = ours(lr=0.05, **options), theirs(list(live.values()), lr=0.05, **options)
    state = optimizer.init(params)
    for number in range(10):
        grads = {name: torch.randn_like(tensor) for name, tensor in params.items()}
        grads["a"][0, 0] = 0.0  # a coordinate without a gradient
        if number:
            grads["a"][1, 0] *= 100.0 if number == 3 else 1.0  # a peak that amsgrad remembers
        for name, tensor in live.items():
            tensor.grad = grads[name].clone()
        reference.step()
        params, state = optimizer.update(params, grads, state)
        for name, tensor in live.items():
            torch.testing.assert_close(params[name], tensor.detach(), rtol=1e-12, atol=1e-12)
    assert state.step == 10
    for name, moment in state.moments.items():
        for key, tensor in moment.items():
            expected = reference.state[live[key]][name]
            torch.testing.assert_close(tensor, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("optimizer", [bilevel.Adam(lr=0.1), bilevel.AdamW(lr=0.1), bilevel.Adam(lr=0.1, amsgrad=True)])
def test_adam_is_finite_where_a_gradient_is_zero(optimizer: bilevel.Optimizer) -> None:
    params = {"w": torch.tensor([1.0, 2.0])}

    def after(grads: torch.Tensor) -> torch.Tensor:
        return optimizer.update(params, {"w": grads}, optimizer.init(params))[0]["w"]

    jacobian = torch.func.jacrev(after)(torch.tensor([0.0, 0.5]))
    assert torch.isfinite(jacobian).all()
    assert torch.isfinite(torch.func.jacfwd(after)(torch.tensor([0.0, 0.5]))).all()
    # m̂ / eps with m̂ = g: the derivative at a zero gradient.
    assert jacobian[0, 0].item() == pytest.approx(-0.1 / 1e-8, rel=1e-5)


def test_settings_from_hyper_and_per_parameter() -> None:
    params = {"a": torch.ones(2), "b": torch.ones(2)}
    grads = {"a": torch.ones(2), "b": torch.ones(2)}
    optimizer = bilevel.SGD(
        lr={"a": 0.1, "b": torch.tensor(0.2)},
        weight_decay=lambda hyper: {"a": hyper["decay"][0], "b": hyper["decay"][1]},
    )
    new, _ = optimizer.update(params, grads, optimizer.init(params), {"decay": torch.tensor([1.0, 3.0])})
    torch.testing.assert_close(new, {"a": torch.full((2,), 0.8), "b": torch.full((2,), 0.2)})


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: bilevel.SGD(lr=-1.0), r"SGD\(lr=-1.0\).*at least 0"),
        (lambda: bilevel.SGD(lr=float("nan")), "finite"),
        (lambda: bilevel.SGD(lr=0.1, nesterov=True), "momentum above 0"),
        (lambda: bilevel.SGD(lr=0.1, momentum=0.9, dampening=0.1, nesterov=True), "no dampening"),
        (lambda: bilevel.SGD(lr=torch.tensor(1)), "int64.*floating-point"),
        (lambda: bilevel.Adam(betas=(0.9, 1.0)), "below 1"),
        (lambda: bilevel.Adam(eps=0.0), "greater than 0"),
        (lambda: bilevel.AdamW(weight_decay={"w": -0.1}), "at least 0"),
    ],
)
def test_settings_out_of_range_are_refused(build: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build()


def test_settings_that_do_not_fit_the_parameters_are_refused() -> None:
    params = {"a": torch.ones(1), "b": torch.ones(1)}
    optimizer = bilevel.SGD(lr={"a": 0.1, "c": 0.1})
    with pytest.raises(ValueError, match="b, c in only one"):
        optimizer.update(params, params, optimizer.init(params))
    optimizer = bilevel.SGD(lr=lambda hyper: hyper["lr"])
    with pytest.raises(ValueError, match="pass hyper"):
        optimizer.update(params, params, optimizer.init(params))
