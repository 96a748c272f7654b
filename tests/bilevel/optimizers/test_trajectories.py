"""The inner optimizers take exactly torch.optim's steps."""

import itertools
from collections.abc import Callable, Iterator

import pytest
import torch

import bilevel
from bilevel._orthogonal import SHAPE_RULES, shape_factor

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
            (bilevel.NAdam, torch.optim.NAdam, {}),
            (bilevel.NAdam, torch.optim.NAdam, {"betas": (0.8, 0.95), "momentum_decay": 0.1}),
            (bilevel.RMSprop, torch.optim.RMSprop, {}),
            (bilevel.RMSprop, torch.optim.RMSprop, {"alpha": 0.8, "centered": True, "momentum": 0.9, "eps": 1e-3}),
            (bilevel.Adagrad, torch.optim.Adagrad, {}),
            (bilevel.Adagrad, torch.optim.Adagrad, {"lr_decay": 0.1, "initial_accumulator_value": 0.2}),
        ]
        for decay, maximize in itertools.product((0.0, 0.1), (False, True))
    )
]


@pytest.fixture
def double() -> Iterator[None]:
    """NAdam keeps its product of momenta in the default precision; in float32 it would round at 1e-8."""
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


@pytest.mark.usefixtures("double")
@pytest.mark.parametrize(("ours", "theirs", "options"), CASES)
def test_same_trajectory_as_torch(
    ours: Callable[..., bilevel.Optimizer],
    theirs: Callable[..., torch.optim.Optimizer],
    options: dict[str, object],
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
        (lambda: bilevel.Adam(betas=0.9), "two numbers"),
        (lambda: bilevel.NAdam(momentum_decay=-1.0), "at least 0"),
        (lambda: bilevel.RMSprop(alpha=1.0), "below 1"),
        (lambda: bilevel.Adagrad(initial_accumulator_value=-1.0), "at least 0"),
        (lambda: bilevel.Muon(momentum=1.0), "below 1"),
        (lambda: bilevel.Muon(adjust_lr_fn="adam"), "match_rms_adamw"),
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


@pytest.mark.usefixtures("muon_in_double")
@pytest.mark.parametrize("options", [{}, {"nesterov": False, "adjust_lr_fn": "match_rms_adamw", "weight_decay": 0.0}])
def test_muon_is_torchs_but_for_its_bfloat16(options: dict[str, object]) -> None:
    torch.manual_seed(0)
    params = {"a": torch.randn(4, 3, dtype=torch.float64), "b": torch.randn(3, 5, dtype=torch.float64)}
    live = {name: tensor.clone().requires_grad_() for name, tensor in params.items()}
    optimizer, reference = bilevel.Muon(lr=0.05, **options), torch.optim.Muon(list(live.values()), lr=0.05, **options)
    state = optimizer.init(params)
    for _ in range(6):
        grads = {name: torch.randn_like(tensor) for name, tensor in params.items()}
        for name, tensor in live.items():
            tensor.grad = grads[name].clone()
        reference.step()
        params, state = optimizer.update(params, grads, state)
        for name, tensor in live.items():
            torch.testing.assert_close(params[name], tensor.detach(), rtol=1e-12, atol=1e-12)
            torch.testing.assert_close(
                state.moments["momentum_buffer"][name], reference.state[tensor]["momentum_buffer"], rtol=1e-12, atol=0
            )
    with pytest.raises(ValueError, match="matrices only"):
        optimizer.update({"c": torch.ones(3)}, {"c": torch.ones(3)}, optimizer.init({"c": torch.ones(3)}))


def test_muons_rate_by_the_shape_of_a_matrix() -> None:
    factors = {rule: (shape_factor(rule, (4, 9)), shape_factor(rule, (9, 4))) for rule in SHAPE_RULES}
    assert factors == {
        None: (1.0, 1.5),
        "original": (1.0, 1.5),
        "match_rms_adamw": (pytest.approx(0.6), pytest.approx(0.6)),
        "spectral_unclamped": (pytest.approx(2 / 3), 1.5),
    }
    theta = torch.zeros(4, 9, dtype=torch.float64, requires_grad=True)
    theta.grad = torch.randn_like(theta)
    try:
        reference = torch.optim.Muon([theta], lr=0.1, adjust_lr_fn="spectral_unclamped")
    except ValueError:  # a torch that does not know it
        return
    optimizer, params = bilevel.Muon(lr=0.1, adjust_lr_fn="spectral_unclamped"), {"": theta.detach().clone()}
    found, _ = optimizer.update(params, {"": theta.grad}, optimizer.init(params))
    reference.step()
    torch.testing.assert_close(found[""], theta.detach(), rtol=2e-2, atol=1e-3)  # torch's bfloat16


UNUSED = [
    (bilevel.SGD, torch.optim.SGD, {"momentum": 0.9, "dampening": 0.3}),
    (bilevel.Adam, torch.optim.Adam, {"betas": (0.8, 0.95)}),
    (bilevel.AdamW, torch.optim.AdamW, {}),
    (bilevel.RMSprop, torch.optim.RMSprop, {"momentum": 0.9}),
]


@pytest.mark.parametrize(("ours", "theirs", "options"), UNUSED)
@pytest.mark.parametrize("method", [bilevel.Unrolled, bilevel.ForwardMode], ids=["unrolled", "forward"])
def test_a_parameter_that_a_loss_does_not_use_is_left_alone(
    ours: Callable[..., bilevel.Optimizer],
    theirs: Callable[..., torch.optim.Optimizer],
    options: dict[str, object],
    method: Callable[..., bilevel.Method],
) -> None:
    """As torch.optim does it: no decay, no momentum, and its own count of updates; once used, now and then not."""

    def loss(params: dict[str, torch.Tensor], hyper: dict[str, torch.Tensor], use: tuple[str, ...]) -> torch.Tensor:
        return torch.stack([(hyper["w"] * params[name].sin()).sum() for name in use]).sum()

    torch.manual_seed(0)
    params = {name: torch.randn(3, dtype=torch.float64) for name in ("a", "b", "never")}
    hyper = {"w": torch.rand(3, dtype=torch.float64)}
    live = {name: tensor.clone().requires_grad_() for name, tensor in params.items()}
    optimizer = ours(lr=0.05, weight_decay=0.3, **options)
    reference = theirs(list(live.values()), lr=0.05, weight_decay=0.3, **options)
    uses = [("a",), ("a", "b"), ("a", "b"), ("a",), ("b",), ("a", "b")]
    for use in uses:
        reference.zero_grad()
        loss(live, hyper, use).backward()
        reference.step()
    problem = bilevel.Bilevel(loss, loss)
    everything = ("a", "b", "never")
    result = bilevel.hypergradient(problem, params, hyper, uses, everything, method=method(optimizer, clip_norm=1e9))
    for name, tensor in live.items():
        torch.testing.assert_close(result.params[name], tensor.detach(), rtol=1e-12, atol=1e-12)
    assert torch.equal(result.params["never"], params["never"])
    expected = bilevel.testing.through_the_loop(problem, params, hyper, uses, everything, optimizer=optimizer)
    assert bilevel.testing.relative_error(result.grad, expected) < 1e-10


def test_an_optimizer_of_ones_own_that_cannot_leave_one_out_says_so() -> None:
    class Plain:
        def init(self, params: dict[str, torch.Tensor]) -> bilevel.State:
            return bilevel.State()

        def update(self, params, grads, state, hyper=None):  # type: ignore[no-untyped-def]
            return {name: param - 0.1 * grads[name] for name, param in params.items()}, bilevel.State(state.step + 1)

    problem = bilevel.Bilevel(lambda p, h, b: h["w"] * p["a"] ** 2, lambda p, h, b: p["a"])
    params = {"a": torch.tensor(1.0), "head": torch.tensor(1.0)}
    with pytest.raises(ValueError, match=r"does not use head, and Plain\.update"):
        bilevel.hypergradient(problem, params, {"w": torch.tensor(1.0)}, [None], None, method=bilevel.OneStep(Plain()))
