"""What the fast path uses of torch, with types: torch ships these functions without, or with partly unknown ones."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd import forward_ad
from torch.nn.attention import SDPBackend, sdpa_kernel

__all__ = [
    "attention",
    "backward",
    "broadcast_shapes",
    "floats",
    "fork_random",
    "fused_weight_norm",
    "gradients",
    "hook",
    "is_compiled",
    "make_dual",
    "named_modules",
    "no_tangent",
    "norm",
    "own_buffers",
    "own_parameters",
    "square_sum",
    "tangent",
    "vecdot",
    "weight_norm",
    "without_mkldnn",
]

_torch: Any = torch
_forward_ad: Any = forward_ad


def norm(tensor: Tensor, dtype: torch.dtype | None = None) -> Tensor:
    """Euclidean norm over all entries, summed in `dtype`."""
    return _torch.linalg.vector_norm(tensor, dtype=dtype)


def square_sum(tensor: Tensor) -> Tensor:
    """Σ of the squares of all entries, in float64; without a copy of the whole, and on a CPU out of its cache."""
    if tensor.device.type != "cpu":
        return norm(tensor, torch.float64).square()
    flat: Any = tensor.detach().reshape(-1)
    sums: list[Tensor] = [torch.dot(wide, wide) for piece in flat.split(2**18) for wide in (piece.double(),)]
    return torch.stack(sums).sum()


def floats(values: Sequence[Tensor]) -> list[float]:
    """Tensors of one number each, as numbers. However many they are, a GPU is waited for once."""
    if not values:
        return []
    device = values[0].device
    both: Any = torch.stack([value.detach().reshape(()).to(device, torch.float64) for value in values])
    return both.tolist()


def weight_norm(v: Tensor, g: Tensor, dim: int = 0) -> Tensor:
    """g v / ‖v‖, the norm over every dimension but `dim`, or over all where that is -1: torch's own, written out."""
    over = tuple(i for i in range(v.ndim) if dim == -1 or i != dim % v.ndim)
    size = _torch.linalg.vector_norm(v, dim=over, keepdim=True)
    return v * (g / (size if dim != -1 else size.reshape(g.shape)))


fused_weight_norm: Callable[..., Tensor] = _torch._weight_norm


def vecdot(left: Tensor, right: Tensor) -> Tensor:
    """Dot products along the last dimension."""
    return _torch.linalg.vecdot(left, right)


def broadcast_shapes(*shapes: torch.Size) -> torch.Size:
    """The common shape."""
    return _torch.broadcast_shapes(*shapes)


def backward(loss: Tensor, inputs: Sequence[Tensor] | None = None, retain_graph: bool = False) -> None:
    """loss.backward(), into the inputs alone where some are given.

    Not by the method, nor by torch.autograd.backward: both are torch functions, a mode is off while it handles one, and
    what checkpointing computes anew inside the backward pass must be seen as it was the first time.
    """
    _torch.autograd.graph._engine_run_backward(
        (loss,), (_torch.ones_like(loss),), retain_graph, False, tuple(inputs or ()), True, accumulate_grad=True
    )


def gradients(
    loss: Tensor,
    inputs: Sequence[Tensor],
    *,
    create_graph: bool = False,
    retain_graph: bool | None = None,
    weights: Tensor | None = None,
) -> tuple[Tensor | None, ...]:
    """torch.autograd.grad of <weights, loss>, None for an input that the loss does not depend on.

    By what torch.autograd.grad calls, for the reason in `backward`.
    """
    seed = _torch.ones_like(loss) if weights is None else weights
    keep = create_graph if retain_graph is None else retain_graph
    return _torch.autograd.graph._engine_run_backward(
        (loss,), (seed,), keep, create_graph, tuple(inputs), True, accumulate_grad=False
    )


def hook(tensor: Tensor, function: Callable[[Tensor], None]) -> None:
    """Call `function` with the tensor's gradient when a backward pass reaches it."""
    hooked: Any = tensor
    hooked.register_hook(function)


def attention(math: bool) -> AbstractContextManager[None]:
    """Scaled dot-product attention by the math kernel, or by whichever torch chooses."""
    kernel: Any = sdpa_kernel
    return kernel(SDPBackend.MATH) if math else nullcontext()


@contextmanager
def without_mkldnn() -> Generator[None]:
    """Recurrent layers by torch's own functions: the CPU's fused one has no forward mode."""
    library: Any = torch.backends.mkldnn
    before = library.enabled
    library.enabled = False
    try:
        yield
    finally:
        library.enabled = before


def make_dual(primal: Tensor, direction: Tensor) -> Tensor:
    """A dual tensor of the current level."""
    return _forward_ad.make_dual(primal, direction)


def tangent(tensor: Tensor) -> Tensor | None:
    """The tangent of a dual tensor of the current level."""
    return _forward_ad.unpack_dual(tensor).tangent


def fork_random(devices: Sequence[torch.device], enabled: bool) -> AbstractContextManager[None]:
    """Put the generators back afterwards."""
    return _torch.random.fork_rng(devices, enabled=enabled)


def named_modules(model: nn.Module) -> list[tuple[str, nn.Module]]:
    """Every module once, under its first name."""
    root: Any = model
    return list(root.named_modules(remove_duplicate=True))


def own_parameters(module: nn.Module) -> dict[str, nn.Parameter | None]:
    """The module's own table of parameters, tied ones included under each of their names."""
    owner: Any = module
    return owner._parameters


def own_buffers(module: nn.Module) -> dict[str, Tensor | None]:
    """The module's own table of buffers."""
    owner: Any = module
    return owner._buffers


def is_compiled(module: nn.Module) -> bool:
    """Whether the module is torch.compile's wrapper, or was compiled in place."""
    owner: Any = module
    return hasattr(module, "_orig_mod") or owner._compiled_call_impl is not None


def no_tangent(tensor: Tensor) -> Tensor:
    """The value of a dual tensor of the current level, any other tensor as it is."""
    unpacked = _forward_ad.unpack_dual(tensor)
    return tensor if unpacked.tangent is None else unpacked.primal
