"""The entry point: arguments, statuses, transforms, memory."""

import gc
import itertools
import math
import subprocess
import sys
from typing import Any

import pytest
import torch

import bilevel
from bilevel import Status, testing

SGD = bilevel.SGD(lr=0.1)
METHODS = {
    "one_step": bilevel.OneStep(SGD),
    "unrolled": bilevel.Unrolled(SGD),
    "forward_mode": bilevel.ForwardMode(SGD),
    "implicit": bilevel.Implicit(bilevel.CG(max_iterations=3, damping=1.0)),
    "finite_difference": bilevel.FiniteDifference(SGD),
    "sama": bilevel.SAMA(SGD),
    "soba": bilevel.SOBA(SGD),
    "f2sa": bilevel.ValueFunctionPenalty(SGD),
    "bome": bilevel.ValueFunctionPenalty(SGD, variant="bome"),
}


def test_import_pulls_in_torch_and_the_standard_library_only() -> None:
    script = """
import sys, torch
before = set(sys.modules)
import bilevel
new = {name.partition(".")[0] for name in set(sys.modules) - before}
print(sorted(new - set(sys.stdlib_module_names) - {"torch", "bilevel"}))
"""
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("method", METHODS.values(), ids=METHODS.keys())
def test_an_outer_gradient_that_is_not_finite_is_a_status(net: Any, method: bilevel.Method) -> None:
    x, y, rows = net.outer_batch
    result = bilevel.hypergradient(
        net.problem, net.params, net.hyper, net.inner_batches[:1], (x, y * torch.inf, rows), method=method
    )
    assert result.status is Status.NOT_FINITE
    assert not result.status.ok
    assert "skip this update" in str(result.status)


@pytest.mark.parametrize("method", METHODS.values(), ids=METHODS.keys())
def test_arguments_stay_as_they_are_bit_for_bit(net: Any, method: bilevel.Method) -> None:
    before = [tensor.clone() for tensor in (*net.params.values(), *net.hyper.values())]
    bilevel.hypergradient(net.problem, net.params, net.hyper, net.inner_batches[:1], net.outer_batch, method=method)
    now = (*net.params.values(), *net.hyper.values())
    assert all(torch.equal(a, b) for a, b in zip(before, now, strict=True))


@pytest.mark.parametrize("method", METHODS.values(), ids=METHODS.keys())
def test_updates_hold_live_tensors_and_memory_constant(net: Any, method: bilevel.Method) -> None:
    num_updates = 200 if method is METHODS["unrolled"] else 60
    # Parameters that require grad are what would keep a graph alive from call to call.
    params = {name: torch.nn.Parameter(tensor.float()) for name, tensor in net.params.items()}
    hyper = {name: torch.nn.Parameter(tensor.float()) for name, tensor in net.hyper.items()}
    batch = tuple(t.float() if t.is_floating_point() else t for t in net.inner_batches[0])
    state: Any = None
    counts: list[int] = []
    resident: list[int] = []
    for update in range(num_updates):
        result = bilevel.hypergradient(net.problem, params, hyper, [batch], batch, method=method, state=state)
        params, state = result.params, result.state
        hyper = {name: tensor - 1e-4 * result.grad[name] for name, tensor in hyper.items()}
        if update in (20, num_updates - 1):
            gc.collect()
            counts.append(sum(issubclass(type(thing), torch.Tensor) for thing in gc.get_objects()))
            with open("/proc/self/statm") as statm:
                resident.append(int(statm.read().split()[1]) * 4096)
    assert counts[1] == counts[0]
    # What the allocators move by themselves; the count above is the sharper of the two.
    assert resident[1] - resident[0] < 4 * 2**20


@pytest.mark.parametrize("optimizer", [bilevel.SGD(lr=lambda h: h["lr"], momentum=0.9), bilevel.Adam(lr=0.1)])
@pytest.mark.parametrize("build", [bilevel.OneStep, bilevel.Unrolled, bilevel.ForwardMode])
def test_composes_with_vmap_and_jacrev(net: Any, build: Any, optimizer: bilevel.Optimizer) -> None:
    def weights_gradient(scale: torch.Tensor) -> torch.Tensor:
        hyper = {**net.hyper, "weights": net.hyper["weights"] * scale}
        method = build(optimizer, clip_norm=0.3)
        batches = net.inner_batches[:1]
        return bilevel.hypergradient(net.problem, net.params, hyper, batches, net.outer_batch, method=method).grad[
            "weights"
        ]

    scales = torch.tensor([0.5, 1.0, 2.0], dtype=torch.float64)
    together = torch.func.vmap(weights_gradient)(scales)
    apart = torch.stack([weights_gradient(scale) for scale in scales])
    torch.testing.assert_close(together, apart, rtol=1e-10, atol=1e-13)
    derivative = torch.func.jacrev(weights_gradient)(scales[1])
    step = 1e-5
    numeric = (weights_gradient(scales[1] + step) - weights_gradient(scales[1] - step)) / (2 * step)
    # The central difference itself: step² and rounding / step.
    torch.testing.assert_close(derivative, numeric, rtol=1e-5, atol=1e-8)
    assert derivative.abs().max() > 1e-4


def test_create_graph_lets_autograd_through(net: Any) -> None:
    hyper = {name: tensor.clone().requires_grad_() for name, tensor in net.hyper.items()}
    arguments = (net.problem, net.params, hyper, net.inner_batches[:2], net.outer_batch)
    plain = bilevel.hypergradient(*arguments, method=METHODS["unrolled"])
    assert not plain.grad["weights"].requires_grad
    result = bilevel.hypergradient(*arguments, method=METHODS["unrolled"], create_graph=True)
    (second,) = torch.autograd.grad(result.grad["weights"].sum(), hyper["weights"])
    assert second.abs().sum() > 0


def test_descent_finds_the_global_minimum_of_the_toy() -> None:
    known = testing.toy(start=1.5)
    assert known.solution is not None
    hyper = known.hyper
    for _ in range(40):
        result = bilevel.hypergradient(
            known.problem, known.solution(hyper), hyper, [None], None, method=bilevel.Implicit(bilevel.CG())
        )
        hyper = {"x": (hyper["x"] - 0.02 * result.grad["x"]).clamp(0.0, 3.0)}
    assert result.status is Status.CONVERGED
    assert hyper["x"].item() == pytest.approx(1.21515, abs=5e-6)
    assert result.outer_loss.item() == pytest.approx(0.199911, abs=5e-7)


def test_the_toys_other_minima_are_where_they_are_said_to_be() -> None:
    for place, value in ((0.38236, 0.442706), (2.82964, 1.243458)):
        known = testing.toy(start=place)
        assert known.implicit_grad is not None
        # The place is given to five digits, so the gradient there is that times the curvature.
        assert abs(known.implicit_grad(known.hyper)["x"].item()) < 2e-4
        outer = known.problem.outer({"y": -known.hyper["x"]}, known.hyper, None)
        assert outer.item() == pytest.approx(value, abs=1e-6)


def test_finite_differences_fall_as_the_square_of_epsilon(net: Any) -> None:
    def inner(params: dict[str, torch.Tensor], hyper: dict[str, torch.Tensor], batch: Any) -> torch.Tensor:
        return net.problem.inner({name: tensor.exp() for name, tensor in params.items()}, hyper, batch)

    problem = bilevel.Bilevel(inner, net.problem.outer)
    arguments = (problem, net.params, net.hyper, net.inner_batches[:1], net.outer_batch)
    exact = bilevel.hypergradient(*arguments, method=bilevel.OneStep(SGD)).grad
    errors = [
        testing.relative_error(
            bilevel.hypergradient(*arguments, method=bilevel.FiniteDifference(SGD, epsilon=epsilon)).grad, exact
        )
        for epsilon in (0.1, 0.05, 0.025)
    ]
    orders = [math.log2(first / second) for first, second in itertools.pairwise(errors)]
    assert orders == pytest.approx([2.0, 2.0], abs=0.1)


def test_sama_points_where_the_exact_gradient_points(net: Any) -> None:
    optimizer = bilevel.Adam(lr=0.01)
    state = optimizer.init(net.params)
    params = net.params
    for batch in net.inner_batches:  # past Adam's first steps, whose derivative is about 0
        grads = torch.func.grad(net.problem.inner)(params, net.hyper, batch)
        params, state = optimizer.update(params, grads, state)
    arguments = (net.problem, params, net.hyper, net.inner_batches[:1], net.outer_batch)
    exact = bilevel.hypergradient(*arguments, method=bilevel.OneStep(optimizer), state=state).grad
    found = bilevel.hypergradient(*arguments, method=bilevel.SAMA(optimizer), state=state).grad
    # One step at lr .01 apart: a point nearby, not the same.
    assert testing.cosine(found, exact) > 0.99
    assert testing.relative_error(found, exact) > 1e-4


def test_soba_converges_to_the_implicit_gradient() -> None:
    known = testing.quadratic(num_params=3, num_hyper=2, condition=2.0)
    assert known.implicit_grad is not None
    method = bilevel.SOBA(bilevel.SGD(lr=0.6), step=0.6)
    batches = [known.inner_batch] * 60
    result = bilevel.hypergradient(known.problem, known.params, known.hyper, batches, known.outer_batch, method=method)
    # 60 steps of contraction .4 leave nothing but rounding.
    assert testing.relative_error(result.grad, known.implicit_grad(known.hyper)) < 1e-8


def test_f2sas_bias_falls_with_the_multiplier() -> None:
    known = testing.quadratic(num_params=3, num_hyper=2, condition=2.0)
    assert known.implicit_grad is not None
    errors: list[float] = []
    for multiplier in (10.0, 100.0, 1000.0):
        method = bilevel.ValueFunctionPenalty(bilevel.SGD(lr=0.5), multiplier=multiplier)
        batches = [known.inner_batch] * 60
        result = bilevel.hypergradient(
            known.problem, known.params, known.hyper, batches, known.outer_batch, method=method
        )
        errors.append(testing.relative_error(result.grad, known.implicit_grad(known.hyper)))
    assert errors[0] / errors[1] == pytest.approx(10.0, rel=0.3)
    assert errors[1] / errors[2] == pytest.approx(10.0, rel=0.1)


def test_implicit_averages_over_inner_batches() -> None:
    known = testing.ridge()
    assert known.solution is not None
    params = known.solution(known.hyper)
    x, y = known.inner_batch
    halves = [(x[:10], y[:10]), (x[10:], y[10:])]
    method = bilevel.Implicit(bilevel.Direct())
    whole = bilevel.hypergradient(
        known.problem, params, known.hyper, [known.inner_batch], known.outer_batch, method=method
    )
    apart = bilevel.hypergradient(known.problem, params, known.hyper, halves, known.outer_batch, method=method)
    assert testing.relative_error(apart.grad, whole.grad) < 1e-12


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"params": {}}, "params must be a dict"),
        ({"hyper": "lr"}, "hyper is str; allowed"),
        ({"hyper": {"n": torch.tensor([1])}}, r"hyper\['n'\] is torch.int64"),
        ({"params": {"n": 1.0}}, r"params\['n'\] is float"),
        ({"inner_batches": torch.ones(3)}, "write \\[batch\\]"),
        ({"inner_batches": iter([1])}, "list or tuple"),
        ({"inner_batches": []}, "is empty"),
        ({"method": bilevel.OneStep}, "give an instance"),
        ({"method": "darts"}, "give an instance"),
    ],
)
def test_arguments_that_cannot_be_right_are_refused(net: Any, changes: dict[str, Any], message: str) -> None:
    arguments = {
        "params": net.params,
        "hyper": net.hyper,
        "inner_batches": net.inner_batches[:1],
        "outer_batch": net.outer_batch,
        "method": METHODS["one_step"],
        **changes,
    }
    with pytest.raises(ValueError, match=message):
        bilevel.hypergradient(net.problem, **arguments)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: bilevel.OneStep(0.1), "functional optimizer"),
        (lambda: bilevel.OneStep(torch.optim.SGD([torch.nn.Parameter(torch.ones(1))], lr=0.1)), "Lookahead"),
        (lambda: bilevel.OneStep(SGD, product="ghost"), "'jvp', 'vjp'"),
        (lambda: bilevel.OneStep(SGD, clip_norm=0.0), "greater than 0"),
        (lambda: bilevel.Unrolled(SGD, truncate=0), "at least 1 or None"),
        (lambda: bilevel.FiniteDifference(SGD, epsilon=0.0), "greater than 0"),
        (lambda: bilevel.SOBA(bilevel.SGD(lr=lambda h: h["lr"])), "does not depend on lr"),
        (lambda: bilevel.ValueFunctionPenalty(SGD, variant="sobow"), "'f2sa', 'bome'"),
        (lambda: bilevel.Bilevel(inner=None, outer=None), "inner"),
    ],
)
def test_settings_that_cannot_be_right_are_refused(build: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build()


def test_several_batches_for_one_step_are_refused(net: Any) -> None:
    for name in ("one_step", "finite_difference"):
        with pytest.raises(ValueError, match="use Unrolled"):
            bilevel.hypergradient(
                net.problem, net.params, net.hyper, net.inner_batches, net.outer_batch, method=METHODS[name]
            )


@pytest.mark.parametrize(
    "method",
    [
        bilevel.OneStep(bilevel.SGD(lr=0.1)),
        bilevel.Unrolled(bilevel.Adam(lr=0.1)),
        bilevel.ForwardMode(bilevel.SGD(lr=0.1)),
        bilevel.Implicit(bilevel.CG()),
        bilevel.Implicit(bilevel.CG(damping=1.0), product="vjp"),
    ],
    ids=lambda method: type(method).__name__,
)
def test_a_loss_that_is_cut_off_is_refused(net: Any, method: bilevel.Method) -> None:
    """Its hypergradient would be zeros, which look like an answer."""
    arguments = (net.params, net.hyper, net.inner_batches[:1], net.outer_batch)

    def cut(params: Any, hyper: Any, batch: Any) -> torch.Tensor:
        values = net.problem.outer({name: value.detach() for name, value in params.items()}, hyper, batch)
        return values.detach()

    def whole_number(params: Any, hyper: Any, batch: Any) -> torch.Tensor:
        return net.problem.outer(params, hyper, batch).round().long()

    with pytest.raises(ValueError, match=r"the outer loss depends on neither.*would be 0"):
        bilevel.hypergradient(bilevel.Bilevel(net.problem.inner, cut), *arguments, method=method)
    with pytest.raises(ValueError, match=r"the outer loss is of torch.int64"):
        bilevel.hypergradient(bilevel.Bilevel(net.problem.inner, whole_number), *arguments, method=method)
    with pytest.raises(ValueError, match=r"the inner loss depends on none of params.*would be 0"):
        bilevel.hypergradient(bilevel.Bilevel(cut, net.problem.outer), *arguments, method=method)


def test_a_loss_that_is_no_scalar_is_refused(net: Any) -> None:
    problem = bilevel.Bilevel(lambda p, h, b: h["weights"], net.problem.outer)
    with pytest.raises(ValueError, match=r"inner loss has shape \(12,\)"):
        bilevel.hypergradient(
            problem, net.params, net.hyper, net.inner_batches[:1], net.outer_batch, method=METHODS["one_step"]
        )


@pytest.mark.parametrize("name", METHODS)
def test_a_state_of_another_kind_is_refused(net: Any, name: str) -> None:
    with pytest.raises(ValueError, match="state"):
        bilevel.hypergradient(
            net.problem,
            net.params,
            net.hyper,
            net.inner_batches[:1],
            net.outer_batch,
            method=METHODS[name],
            state={"state": {}, "param_groups": []},
        )


def test_a_state_of_another_optimizer_is_refused(net: Any) -> None:
    momentum = bilevel.SGD(lr=0.1, momentum=0.9)
    with pytest.raises(ValueError, match="no exp_avg of bias, first, second"):
        bilevel.hypergradient(
            net.problem,
            net.params,
            net.hyper,
            net.inner_batches[:1],
            net.outer_batch,
            method=bilevel.OneStep(bilevel.Adam(lr=0.1)),
            state=momentum.init(net.params),
        )


def test_a_start_is_refused_where_nothing_is_differentiated_by_it(net: Any) -> None:
    problem = bilevel.Bilevel(net.problem.inner, net.problem.outer, lambda hyper: net.params)
    rest = (net.hyper, net.inner_batches[:2], net.outer_batch)
    for name in ("implicit", "finite_difference", "sama", "soba", "f2sa", "bome"):
        with pytest.raises(ValueError, match="use OneStep, Unrolled, ForwardMode or Reptile"):
            bilevel.hypergradient(problem, None, *rest, method=METHODS[name])
    with pytest.raises(ValueError, match="pass params=None"):
        bilevel.hypergradient(problem, net.params, *rest, method=METHODS["unrolled"])
    with pytest.raises(ValueError, match=r"truncate=1\) cuts off"):
        bilevel.hypergradient(problem, None, *rest, method=bilevel.Unrolled(SGD, truncate=1))
    with pytest.raises(ValueError, match="say which they are"):
        bilevel.hypergradient(net.problem, net.params, *rest, method=bilevel.Reptile(SGD))


def test_weight_decay_on_an_offset_is_refused(net: Any) -> None:
    """An offset from learned initial parameters is what would decay, where torch decays the parameters."""

    def shifted(loss: Any) -> Any:
        return lambda params, hyper, batch: loss({n: hyper[n] + params[n] for n in params}, net.hyper, batch)

    problem = bilevel.Bilevel(shifted(net.problem.inner), shifted(net.problem.outer))
    offset = {name: torch.zeros_like(tensor) for name, tensor in net.params.items()}
    rest = (net.params, net.inner_batches[:2], net.outer_batch)
    for optimizer in (bilevel.SGD(lr=0.1, weight_decay=0.1), bilevel.AdamW(lr=0.1)):
        with pytest.raises(ValueError, match="weight_decay would act on the offset"):
            bilevel.hypergradient(problem, offset, *rest, method=bilevel.Unrolled(optimizer))
    assert bilevel.hypergradient(problem, offset, *rest, method=bilevel.Unrolled(SGD)).status.ok


@pytest.mark.parametrize("name", METHODS)
def test_batch_norms_running_statistics_are_refused_with_the_way_out(name: str) -> None:
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.BatchNorm1d(4), torch.nn.Linear(4, 1))
    x = torch.randn(5, 3)

    def loss(params: dict[str, torch.Tensor], hyper: dict[str, torch.Tensor], batch: None) -> torch.Tensor:
        return hyper["w"] * torch.func.functional_call(model, params, (x,)).square().mean()

    params, hyper = dict(model.named_parameters()), {"w": torch.tensor(1.0)}
    before = {key: tensor.clone() for key, tensor in model.state_dict().items()}
    arguments = (bilevel.Bilevel(loss, loss), params, hyper, [None], None)
    with pytest.raises(ValueError, match="replace_all_batch_norm_modules_"):
        bilevel.hypergradient(*arguments, method=METHODS[name])
    assert all(torch.equal(before[key], tensor) for key, tensor in model.state_dict().items())
    torch.func.replace_all_batch_norm_modules_(model)
    result = bilevel.hypergradient(*arguments, method=METHODS[name])
    assert result.outer_loss.isfinite()
