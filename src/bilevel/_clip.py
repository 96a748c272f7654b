"""Clipping that can be differentiated."""

from torch import Tensor

from . import _tree as tree
from ._types import Tensors


def clip_by_global_norm(grads: Tensors, max_norm: float | None) -> Tensors:
    """Scale all gradients together so that their norm is at most `max_norm`; None leaves them alone.

    g * min(1, max_norm / (‖g‖ + 1e-6)), as torch.nn.utils.clip_grad_norm_ computes it.
    """
    if max_norm is None or not grads:
        return grads
    coefficient: Tensor = (max_norm / (tree.norm(grads) + 1e-6)).clamp(max=1.0)
    return {name: grad * coefficient.to(grad.dtype) for name, grad in grads.items()}
