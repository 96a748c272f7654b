"""Clipping is torch's, and can be differentiated."""

import pytest
import torch

from bilevel._clip import clip_by_global_norm


@pytest.mark.parametrize("factor", [1e-3, 1.0, 10.0])
def test_clips_as_torch_does(factor: float) -> None:
    torch.manual_seed(0)
    grads = {"a": factor * torch.randn(3, 2, dtype=torch.float64), "b": factor * torch.randn(4, dtype=torch.float64)}
    params = [torch.zeros_like(grad, requires_grad=True) for grad in grads.values()]
    for param, grad in zip(params, grads.values(), strict=True):
        param.grad = grad.clone()
    torch.nn.utils.clip_grad_norm_(params, 1.0)
    for clipped, param in zip(clip_by_global_norm(grads, 1.0).values(), params, strict=True):
        torch.testing.assert_close(clipped, param.grad, rtol=1e-14, atol=0)


def test_none_leaves_gradients_alone() -> None:
    grads = {"a": torch.ones(3)}
    assert clip_by_global_norm(grads, None) is grads


def test_derivative_is_the_formula() -> None:
    torch.manual_seed(0)
    g, x, k = torch.randn(5, dtype=torch.float64), torch.randn(5, dtype=torch.float64), 0.5
    _, pull = torch.func.vjp(lambda g: clip_by_global_norm({"g": g}, k)["g"], g)  # pyright: ignore[reportAssignmentType]
    size = g.norm()
    a = k / (size + 1e-6)
    torch.testing.assert_close(pull(x)[0], a * x - a * (x @ g) * g / (size * (size + 1e-6)), rtol=1e-12, atol=0)


def test_zero_gradients_have_a_finite_derivative_and_nan_stays_nan() -> None:
    zeros = torch.zeros(3, dtype=torch.float64)
    jacobian = torch.func.jacrev(lambda g: clip_by_global_norm({"g": g}, 1.0)["g"])(zeros)
    torch.testing.assert_close(jacobian, torch.eye(3, dtype=torch.float64))
    clipped = clip_by_global_norm({"a": torch.tensor([torch.nan]), "b": torch.ones(2)}, 1.0)
    assert clipped["b"].isnan().all()
