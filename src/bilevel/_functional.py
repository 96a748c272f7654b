# torch ships these functions with partly unknown types, and jvp with a union of two return types.
# pyright: reportUnknownMemberType=false, reportUnknownArgumentType=false, reportUnknownVariableType=false
"""torch.func's transforms and some matrix functions, with the types that the rest of the library relies on."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any, TypeVar, cast

import torch
from torch import Tensor

T = TypeVar("T")


def jvp(function: Callable[..., T], primals: tuple[Any, ...], tangents: tuple[Any, ...]) -> tuple[T, T]:
    """Value and derivative of `function` at `primals` along `tangents`."""
    return cast(tuple[T, T], torch.func.jvp(function, primals, tangents))


def vjp(function: Callable[..., T], *primals: Any) -> Callable[[T], tuple[Any, ...]]:
    """The transposed Jacobian of `function` at `primals`: cotangent -> one cotangent per primal."""
    return torch.func.vjp(function, *primals)[1]


def grad(function: Callable[..., Any], argnums: int | tuple[int, ...], *, has_aux: bool = False) -> Callable[..., Any]:
    """The gradient of a scalar function."""
    return torch.func.grad(function, argnums, has_aux=has_aux)


def vmap(
    function: Callable[..., T], *, in_dims: Any = 0, out_dims: Any = 0, chunk_size: int | None = None
) -> Callable[..., T]:
    """`function` over a batch; random numbers are the same for every member."""
    return torch.func.vmap(function, in_dims, out_dims, randomness="same", chunk_size=chunk_size)


def outside_transforms() -> AbstractContextManager[None]:
    """While open, tensors are made as if no transform of torch.func were at work."""
    return cast(Any, torch)._C._DisableFuncTorch()


def qr(matrix: Tensor) -> tuple[Tensor, Tensor]:
    """Orthonormal (n, r) and triangular (r, r) factors of (n, r)."""
    q, r = torch.linalg.qr(matrix)
    return q, r


def eigh(matrix: Tensor) -> tuple[Tensor, Tensor]:
    """Ascending eigenvalues (n,) and eigenvectors (n, n) of a symmetric matrix."""
    eigenvalues, vectors = torch.linalg.eigh(matrix)
    return eigenvalues, vectors


def svd(matrix: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """U (n, n), descending singular values (n,) and Vᵀ (n, n) of a square matrix."""
    left, values, right = torch.linalg.svd(matrix)
    return left, values, right


def solve(matrix: Tensor, rhs: Tensor) -> Tensor:
    """matrix⁻¹ rhs."""
    return torch.linalg.solve(matrix, rhs)


def split(tensor: Tensor, sizes: int | list[int]) -> list[Tensor]:
    """Pieces along the first axis."""
    return list(torch.split(tensor, sizes))
