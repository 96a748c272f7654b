"""u = D v of every optimizer, against autograd through its own formula.

Each formula below is written from the optimizer's paper and documentation, as a function of θ, the gradient and the
state before the update; that it is the update which torch takes is checked at every update too.
"""

import math
from collections.abc import Callable, Mapping
from typing import Any

import pytest
import torch
from torch import Tensor

import bilevel
from bilevel.steps import UnsupportedOptimizerError, diagonal, register_step

Formula = Callable[[Tensor, Tensor, Mapping[str, Any], Mapping[str, Any]], Tensor]


def nadam(theta: Tensor, g: Tensor, state: Mapping[str, Any], group: Mapping[str, Any]) -> Tensor:
    (beta1, beta2), lr, decay, t = group["betas"], group["lr"], group["weight_decay"], state["step"] + 1
    if group["decoupled_weight_decay"]:
        theta = theta * (1 - lr * decay)
    else:
        g = g + decay * theta
    mu, mu_next = (beta1 * (1 - 0.5 * 0.96 ** (k * group["momentum_decay"])) for k in (t, t + 1))
    product = (torch.tensor(state["mu_product"], dtype=torch.get_default_dtype()) * mu).item()  # in torch's precision
    m = beta1 * state["exp_avg"] + (1 - beta1) * g
    v = beta2 * state["exp_avg_sq"] + (1 - beta2) * g**2
    denominator = (v / (1 - beta2**t)).sqrt() + group["eps"]
    step = (1 - mu) / (1 - product) * g + mu_next / (1 - product * mu_next) * m
    return theta - lr * step / denominator


def radam(theta: Tensor, g: Tensor, state: Mapping[str, Any], group: Mapping[str, Any]) -> Tensor:
    (beta1, beta2), lr, decay, t = group["betas"], group["lr"], group["weight_decay"], state["step"] + 1
    if group["decoupled_weight_decay"]:
        theta = theta * (1 - lr * decay)
    else:
        g = g + decay * theta
    m_hat = (beta1 * state["exp_avg"] + (1 - beta1) * g) / (1 - beta1**t)
    v = beta2 * state["exp_avg_sq"] + (1 - beta2) * g**2
    rho_inf = 2 / (1 - beta2) - 1
    rho = rho_inf - 2 * t * beta2**t / (1 - beta2**t)
    if rho <= 5:
        return theta - lr * m_hat
    r = math.sqrt((rho - 4) * (rho - 2) * rho_inf / ((rho_inf - 4) * (rho_inf - 2) * rho))
    return theta - lr * r * m_hat * math.sqrt(1 - beta2**t) / (v.sqrt() + group["eps"])


def adamax(theta: Tensor, g: Tensor, state: Mapping[str, Any], group: Mapping[str, Any]) -> Tensor:
    (beta1, beta2), t = group["betas"], state["step"] + 1
    g = g + group["weight_decay"] * theta
    m = beta1 * state["exp_avg"] + (1 - beta1) * g
    largest = torch.maximum(beta2 * state["exp_inf"], g.abs() + group["eps"])
    return theta - group["lr"] / (1 - beta1**t) * m / largest


def adadelta(theta: Tensor, g: Tensor, state: Mapping[str, Any], group: Mapping[str, Any]) -> Tensor:
    rho, eps = group["rho"], group["eps"]
    g = g + group["weight_decay"] * theta
    v = rho * state["square_avg"] + (1 - rho) * g**2
    return theta - group["lr"] * ((state["acc_delta"] + eps) / (v + eps)).sqrt() * g


def adafactor(theta: Tensor, g: Tensor, state: Mapping[str, Any], group: Mapping[str, Any]) -> Tensor:
    lr, t = group["lr"], state["step"] + 1
    eps1 = group["eps"][0] or torch.finfo(theta.dtype).eps
    keep = 1 - t ** group["beta2_decay"]
    alpha = max(group["eps"][1], math.sqrt(float((theta.detach() ** 2).mean()))) * min(lr, 1 / math.sqrt(t))
    if g.dim() > 1:
        rows = keep * state["row_var"] + (1 - keep) * (g**2).mean(-1, keepdim=True)
        columns = keep * state["col_var"] + (1 - keep) * (g**2).mean(-2, keepdim=True)
        v = rows * columns / rows.mean(-2, keepdim=True)
    else:
        v = keep * state["variance"] + (1 - keep) * g**2
    update = g / v.clamp(min=eps1**2).sqrt()
    limit = torch.clamp((update**2).mean().sqrt() / group["d"], min=1.0)
    return theta * (1 - lr * group["weight_decay"]) - alpha * update / limit


def muon(theta: Tensor, g: Tensor, state: Mapping[str, Any], group: Mapping[str, Any]) -> Tensor:
    momentum, (rows, columns) = group["momentum"], theta.shape
    b = momentum * state["momentum_buffer"] + (1 - momentum) * g
    x = (1 - momentum) * g + momentum * b if group["nesterov"] else b
    x = x / x.square().sum().sqrt()
    a1, a3, a5 = group["ns_coefficients"]
    for _ in range(group["ns_steps"]):  # on the other side than the code's, and term by term
        gram = x.T @ x
        x = a1 * x + a3 * x @ gram + a5 * x @ gram @ gram
    ratio = 0.2 * math.sqrt(max(rows, columns)) if group["adjust_lr_fn"] else math.sqrt(max(1, rows / columns))
    return theta * (1 - group["lr"] * group["weight_decay"]) - group["lr"] * ratio * x


def sgd(theta: Tensor, g: Tensor, state: Mapping[str, Any], group: Mapping[str, Any]) -> Tensor:
    g = g + group["weight_decay"] * theta
    b = group["momentum"] * state["momentum_buffer"] + g if "momentum_buffer" in state else g
    return theta - group["lr"] * b


def adam(theta: Tensor, g: Tensor, state: Mapping[str, Any], group: Mapping[str, Any]) -> Tensor:
    (beta1, beta2), t = group["betas"], state["step"] + 1
    g = g + group["weight_decay"] * theta
    m = beta1 * state["exp_avg"] + (1 - beta1) * g
    v = beta2 * state["exp_avg_sq"] + (1 - beta2) * g**2
    return theta - group["lr"] * (m / (1 - beta1**t)) / ((v / (1 - beta2**t)).sqrt() + group["eps"])


Optim = torch.optim
CASES: dict[str, tuple[type[Optim.Optimizer], Formula, dict[str, Any]]] = {
    "nadam": (Optim.NAdam, nadam, {}),
    "nadam_l2": (Optim.NAdam, nadam, {"weight_decay": 0.3, "foreach": True}),
    "nadam_decoupled": (Optim.NAdam, nadam, {"weight_decay": 0.3, "decoupled_weight_decay": True, "maximize": True}),
    "nadam_maximize_l2": (Optim.NAdam, nadam, {"weight_decay": 0.3, "maximize": True, "momentum_decay": 0.1}),
    "radam": (Optim.RAdam, radam, {"betas": (0.9, 0.99)}),
    "radam_l2": (Optim.RAdam, radam, {"betas": (0.8, 0.97), "weight_decay": 0.3, "foreach": True}),
    "radam_decoupled": (Optim.RAdam, radam, {"weight_decay": 0.3, "decoupled_weight_decay": True}),
    "radam_maximize_l2": (Optim.RAdam, radam, {"weight_decay": 0.3, "maximize": True, "eps": 1e-3}),
    "adamax": (Optim.Adamax, adamax, {"betas": (0.9, 0.8)}),
    "adamax_l2": (Optim.Adamax, adamax, {"betas": (0.9, 0.8), "weight_decay": 0.3, "foreach": True}),
    "adamax_maximize": (Optim.Adamax, adamax, {"weight_decay": 0.3, "maximize": True, "eps": 1e-2}),
    "adadelta": (Optim.Adadelta, adadelta, {}),
    "adadelta_l2": (Optim.Adadelta, adadelta, {"weight_decay": 0.3, "rho": 0.5, "eps": 1e-2, "foreach": True}),
    "adadelta_maximize": (Optim.Adadelta, adadelta, {"weight_decay": 0.1, "maximize": True}),
    "adafactor": (Optim.Adafactor, adafactor, {}),
    "adafactor_limit": (Optim.Adafactor, adafactor, {"d": 1.5, "weight_decay": 0.3, "maximize": True}),
    "adafactor_foreach": (Optim.Adafactor, adafactor, {"eps": (1e-3, 2.0), "foreach": True}),
    "muon": (Optim.Muon, muon, {}),
    "muon_plain": (Optim.Muon, muon, {"nesterov": False, "weight_decay": 0.5, "ns_steps": 3}),
    "muon_rms": (Optim.Muon, muon, {"adjust_lr_fn": "match_rms_adamw", "momentum": 0.5}),
    "sgd_tensor_lr": (Optim.SGD, sgd, {"momentum": 0.9, "weight_decay": 0.1, "tensor_lr": True}),
    "adam_tensor_lr": (Optim.Adam, adam, {"weight_decay": 0.1, "tensor_lr": True, "foreach": False}),
    "nadam_tensor_lr": (Optim.NAdam, nadam, {"weight_decay": 0.1, "tensor_lr": True, "foreach": False}),
    "adafactor_tensor_lr": (Optim.Adafactor, adafactor, {"weight_decay": 0.1, "tensor_lr": True}),
}


def signed(group: Mapping[str, Any], g: Tensor) -> Tensor:
    return -g if group.get("maximize") else g


@pytest.mark.parametrize("name", CASES)
@pytest.mark.usefixtures("muon_in_double")
def test_equals_autograd_through_the_formula(name: str) -> None:
    kind, formula, options = CASES[name]
    options = dict(options)
    lr: float | Tensor = 0.05
    if options.pop("tensor_lr", False):
        lr = torch.tensor(0.05, dtype=torch.float64)
    draw = torch.Generator().manual_seed(0)
    shapes = [(5, 3), (3, 5)] if kind is Optim.Muon else [(4, 3), (5,), (2, 3, 4)]
    parameters = [torch.nn.Parameter(torch.randn(shape, generator=draw, dtype=torch.float64)) for shape in shapes]
    optimizer = kind(parameters, lr=lr, **options)
    for update in range(8):
        before = [p.detach().clone() for p in parameters]
        for p in parameters:
            p.grad = torch.randn(p.shape, generator=draw, dtype=torch.float64) * (3.0 if update == 4 else 1.0)
        states = [snapshot(optimizer, p) for p in parameters]
        optimizer.step()
        vectors = [torch.randn(p.shape, generator=draw, dtype=torch.float64) for p in parameters]
        kept = [v.clone() for v in vectors]
        found = bilevel.step_vjp(optimizer, vectors)
        for p, theta, state, v, u in zip(parameters, before, states, vectors, found, strict=True):
            (group,) = optimizer.param_groups
            g = p.grad.clone().requires_grad_()
            after = formula(theta, signed(group, g), state, group)
            torch.testing.assert_close(after.detach(), p.detach(), rtol=0, atol=1e-12)
            (expected,) = torch.autograd.grad(after, g, -v)
            # The first update of Adam's kin is a sign: D is a difference of equal terms, of the size of lr / |g|.
            size = expected.norm() if update else torch.maximum(expected.norm(), group["lr"] * v.norm())
            error = float((u - expected).norm() / size)
            assert error <= 1e-10, (name, update, tuple(p.shape), error)
        assert all(torch.equal(v, k) for v, k in zip(vectors, kept, strict=True))
        in_place = bilevel.step_vjp(optimizer, [v.clone() for v in vectors], inplace=True)
        assert all(torch.equal(a, b) for a, b in zip(in_place, found, strict=True))


def snapshot(optimizer: Optim.Optimizer, parameter: Tensor) -> dict[str, Any]:
    """The state before the update; zeros stand for what the first update will make."""
    state = {
        key: value.item() if isinstance(value, Tensor) and value.ndim == 0 else value.clone()
        for key, value in optimizer.state.get(parameter, {}).items()
        if value is not None
    }
    if state:
        return state
    if isinstance(optimizer, Optim.SGD):
        return {}
    zero = torch.zeros_like(parameter)
    names = ("exp_avg", "exp_avg_sq", "exp_inf", "square_avg", "acc_delta", "variance", "momentum_buffer")
    factored = {"row_var": zero[..., :1], "col_var": zero[..., :1, :]} if parameter.ndim > 1 else {}
    return {"step": 0, "mu_product": 1.0, **dict.fromkeys(names, zero), **factored}


@pytest.mark.parametrize("kind", [Optim.NAdam, Optim.RAdam, Optim.Adamax, Optim.Adadelta, Optim.Adafactor])
def test_a_gradient_of_zero_gives_finite_derivatives(kind: type[Optim.Optimizer]) -> None:
    parameter = torch.nn.Parameter(torch.ones(2, 3))
    optimizer = kind([parameter], lr=0.1)
    for _ in range(7):
        parameter.grad = torch.zeros(2, 3)
        parameter.grad[0, 1] = 1.0
        optimizer.step()
        (u,) = bilevel.step_vjp(optimizer, [torch.ones(2, 3)])
        assert u.isfinite().all()


@pytest.mark.parametrize(
    "kind", [Optim.Adam, Optim.NAdam, Optim.RAdam, Optim.Adamax, Optim.RMSprop, Optim.Adagrad, Optim.Adadelta]
)
def test_no_spike_in_16_bits_where_no_gradient_came(kind: type[Optim.Optimizer]) -> None:
    parameter = torch.nn.Parameter(torch.ones(2, dtype=torch.bfloat16))
    optimizer = kind([parameter], lr=0.1)
    for scale in (1.0, -2.0, 0.5, 1.5, 3.0, 0.3, 2.0):
        parameter.grad = torch.tensor([scale, 0.0], dtype=torch.bfloat16)
        optimizer.step()
    (u,) = bilevel.step_vjp(optimizer, [torch.ones(2)])
    assert abs(float(u[0])) > 0
    if kind is not Optim.Adadelta:  # whose two averages hold ε both: its D there is lr, no spike
        assert float(u[1]) == 0.0
    assert abs(float(u[1])) <= 0.1 * (1 + 1e-6)  # lr, in float32


@pytest.mark.parametrize("kind", [Optim.NAdam, Optim.RAdam, Optim.Adamax, Optim.Adadelta])
def test_frozen_holds_the_second_moments(kind: type[Optim.Optimizer]) -> None:
    """Frozen, u is linear in nothing but v: D does not change with the sign of g, exact D of Adam's kind does."""
    parameter = torch.nn.Parameter(torch.ones(3, dtype=torch.float64))
    optimizer = kind([parameter], lr=0.1)
    for scale in (1.0, -2.0, 0.5, 1.5, 3.0, 0.3, 6.0):
        parameter.grad = scale * torch.tensor([1.0, -1.0, 0.5], dtype=torch.float64)
        optimizer.step()
    ones = torch.ones(3, dtype=torch.float64)
    (frozen,) = bilevel.step_vjp(optimizer, [ones], adam="frozen")
    (exact,) = bilevel.step_vjp(optimizer, [ones])
    assert (frozen > 0).all()
    assert float((frozen - exact).abs().max()) > 1e-6
    with torch.no_grad():
        parameter.grad.neg_()
    (other,) = bilevel.step_vjp(optimizer, [ones], adam="frozen")
    if kind is not Optim.Adadelta:  # whose x is made again from g², which has no sign either
        torch.testing.assert_close(other, frozen, rtol=1e-12, atol=0)


@pytest.mark.parametrize(
    ("optimizer", "message"),
    [
        (lambda p: Optim.Rprop(p), "sign method"),
        (lambda p: Optim.ASGD(p), "no longer holds the rate"),
        (lambda p: Optim.LBFGS(p), "many times"),
        (lambda p: Optim.SparseAdam(p), "no derivative rule.*register_step"),
        (lambda p: Optim.Adadelta(p, rho=0.0), "rho above 0"),
    ],
)
def test_what_has_no_rule_is_refused(optimizer: Callable[[Any], Optim.Optimizer], message: str) -> None:
    parameter = torch.nn.Parameter(torch.ones(2))
    live = optimizer([parameter])
    with pytest.raises(UnsupportedOptimizerError, match=message):
        bilevel.steps.check_optimizer(live)
    parameter.grad = torch.ones(2)
    with pytest.raises(UnsupportedOptimizerError, match=message):
        bilevel.step_vjp(live, [torch.ones(2)])


@pytest.mark.parametrize("kind", ["Lion", "PagedLion", "Lion8bit"])
def test_lion_is_refused_by_name(kind: str) -> None:
    bnb = pytest.importorskip("bitsandbytes")
    with pytest.raises(UnsupportedOptimizerError, match="sign method"):
        bilevel.steps.check_optimizer(getattr(bnb.optim, kind)([torch.nn.Parameter(torch.ones(2))]))


@pytest.mark.filterwarnings("ignore:Paged optimizers are not supported on CPU")
@pytest.mark.parametrize("kind", ["PagedAdam", "PagedAdamW", "PagedAdam32bit", "PagedAdamW32bit", "Adam32bit"])
def test_32_bit_moments_of_bitsandbytes(kind: str) -> None:
    """Against Adam's formula in float32. Without a GPU a paged optimizer keeps its moments in plain memory."""
    bnb = pytest.importorskip("bitsandbytes")
    draw = torch.Generator().manual_seed(0)
    parameter = torch.nn.Parameter(torch.randn(40, generator=draw))
    optimizer = getattr(bnb.optim, kind)([parameter], lr=1e-2, weight_decay=0.1, betas=(0.9, 0.99))
    m, s = torch.zeros(40, dtype=torch.float64), torch.zeros(40, dtype=torch.float64)
    for t in range(1, 6):
        parameter.grad = torch.randn(40, generator=draw)
        optimizer.step()
        g = parameter.grad.double().requires_grad_()
        new_m, new_s = 0.9 * m + 0.1 * g, 0.99 * s + 0.01 * g**2
        after = -1e-2 * (new_m / (1 - 0.9**t)) / ((new_s / (1 - 0.99**t)).sqrt() + 1e-8)
        v = torch.randn(40, generator=draw)
        (u,) = bilevel.step_vjp(optimizer, [v])
        (expected,) = torch.autograd.grad(after, g, -v.double())
        # At t = 1 the update is a sign and its derivative rounding; afterwards float32 moments.
        assert float((u - expected).norm()) <= 1e-5 * float(expected.norm()) + 1e-7
        m, s = new_m.detach(), new_s.detach()


def test_sparse_and_complex_are_refused_before_torchs_own_errors() -> None:
    table = torch.nn.Embedding(4, 2, sparse=True)
    optimizer = Optim.SGD(table.parameters(), lr=0.1)
    table(torch.tensor([1])).sum().backward()
    optimizer.step()
    with pytest.raises(UnsupportedOptimizerError, match=r"\(4, 2\) has a sparse gradient"):
        bilevel.step_vjp(optimizer, [torch.ones(4, 2)])
    wave = torch.nn.Parameter(torch.ones(2, dtype=torch.complex64))
    with pytest.raises(UnsupportedOptimizerError, match=r"complex.*view_as_real"):
        bilevel.steps.check_optimizer(Optim.Adam([wave]))


def test_a_rule_of_ones_own() -> None:
    class Halved(Optim.SGD):
        pass

    parameter = torch.nn.Parameter(torch.ones(2))
    optimizer = Halved([parameter], lr=0.5)
    parameter.grad = torch.ones(2)
    with pytest.raises(UnsupportedOptimizerError, match="Halved: no derivative rule"):
        bilevel.step_vjp(optimizer, [torch.ones(2)])
    register_step(Halved, diagonal(lambda update: update.group["lr"] / 2))
    assert bilevel.step_vjp(optimizer, [torch.ones(2)])[0].tolist() == [0.25, 0.25]


@pytest.mark.parametrize("kind", [torch.optim.AdamW, torch.optim.SGD, torch.optim.NAdam, torch.optim.RMSprop])
def test_a_large_parameter_is_its_parts(kind: type[torch.optim.Optimizer]) -> None:
    """On a CPU D is computed piece by piece: every entry as if its piece were a parameter of its own."""
    size = 2**18
    whole = torch.nn.Parameter(torch.randn(2, size + 3))
    parts = [torch.nn.Parameter(part.clone()) for part in whole.detach().view(-1).split(size)]
    gradient, vector = torch.randn_like(whole), torch.randn_like(whole)
    gradient[0, :1000] = 0.0  # entries that no gradient has reached
    found = []
    for parameters in ([whole], parts):
        optimizer = kind(parameters, lr=1e-3)
        for update in range(2):
            for p, g in zip(parameters, gradient.view(-1).split(whole.numel() if len(parameters) == 1 else size)):
                p.grad = g.view_as(p) * (1.0 + update)
            optimizer.step()
        pieces = vector.view(-1).split(whole.numel() if len(parameters) == 1 else size)
        found.append(bilevel.step_vjp(optimizer, [v.view_as(p) for v, p in zip(pieces, parameters)]))
    assert torch.equal(found[0][0].view(-1), torch.cat(found[1]))
