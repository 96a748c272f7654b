"""The shapes that every part of the library speaks: dictionaries of tensors, and losses over them."""

from collections.abc import Callable
from typing import Any, TypeAlias

from torch import Tensor

Tensors: TypeAlias = dict[str, Tensor]
"""Named tensors: parameters, hyperparameters, gradients or directions."""

Loss: TypeAlias = Callable[[Tensors, Tensors, Any], Tensor]
"""(params, hyper, batch) -> scalar."""
