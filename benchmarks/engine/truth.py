"""The hypergradient in float64 by autograd through AdamW's formula, with none of the engine's code."""

from __future__ import annotations

import copy

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from .cases import Case
from .contestants.contestant import seed_inner, seed_outer

__all__ = ["truth"]


def truth(case: Case) -> tuple[Tensor, float]:
    """dF/draw, (B,), and the inner gradient's norm before clipping, from the case's own parameters and moments."""
    setting = case.setting
    model = copy.deepcopy(case.model).double()
    parameters = dict(model.named_parameters())
    raw = case.raw.detach().double().requires_grad_()
    coefficients = torch.nn.functional.softplus(raw) / len(raw)
    with sdpa_kernel(SDPBackend.MATH):  # the one kernel that can be differentiated twice
        seed_inner()
        inner = (coefficients * case.losses(case.inner, model)).sum()
        gradients = torch.autograd.grad(inner, list(parameters.values()), create_graph=True)
        norm = torch.stack([g.square().sum() for g in gradients]).sum().sqrt()
        if setting.clip_norm is not None:
            gradients = [g * torch.clamp(setting.clip_norm / (norm + 1e-6), max=1.0) for g in gradients]
        after = {
            name: _adamw(case, live, parameter, gradient)
            for live, (name, parameter), gradient in zip(case.parameters, parameters.items(), gradients, strict=True)
        }
        seed_outer()
        losses = case.losses(case.outer, lambda tokens: torch.func.functional_call(model, after, (tokens,)))
        (grad,) = torch.autograd.grad(losses.mean(), raw)
    return grad, float(norm.detach())


def _adamw(case: Case, live: Tensor, parameter: Tensor, gradient: Tensor) -> Tensor:
    """θ' of one parameter, differentiable in its gradient; the state is that of the live optimizer."""
    group, state = case.optimizer.param_groups[0], case.optimizer.state.get(live, {})
    beta1, beta2 = group["betas"]
    t = int(state["step"]) + 1 if state else 1
    first = beta1 * state["exp_avg"].double() if state else 0.0
    second = beta2 * state["exp_avg_sq"].double() if state else 0.0
    m = first + (1 - beta1) * gradient
    v = second + (1 - beta2) * gradient.square()
    # A coordinate whose gradient has always been 0 (a token never seen) does not move; sqrt'(0) would make it NaN.
    zero = v == 0
    s = torch.where(zero, 0.0, torch.where(zero, 1.0, v / (1 - beta2**t)).sqrt())
    return parameter * (1 - group["lr"] * group["weight_decay"]) - group["lr"] * (m / (1 - beta1**t)) / (
        s + group["eps"]
    )
