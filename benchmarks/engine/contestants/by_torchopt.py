"""TorchOpt's differentiable AdamW with its clipping chained before it, and autograd through the step."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from ..cases import Case
from .contestant import seed_inner, seed_outer

__all__ = ["TorchOpt"]


class TorchOpt:
    """MetaOptimizer's loop; attention by the one kernel that can be differentiated twice."""

    def __init__(self, case: Case) -> None:
        import torchopt  # type: ignore[import-not-found]

        setting = case.setting
        step = torchopt.adamw(lr=setting.lr, weight_decay=setting.weight_decay)
        if setting.clip_norm is not None:
            step = torchopt.chain(torchopt.clip.clip_grad_norm(max_norm=setting.clip_norm), step)
        self.case, self.torchopt = case, torchopt
        self.optimizer = torchopt.MetaOptimizer(case.model, step)
        if case.optimizer.state:
            # TorchOpt's own order of the parameters, which is not the model's.
            params = torchopt.pytree.tree_leaves(self.optimizer.param_containers_groups[0])
            self.optimizer.state_groups[0] = _fill(step.init(tuple(params)), [case.optimizer.state[p] for p in params])
        case.optimizer.state.clear()

    def update(self) -> Tensor:
        """dF/draw."""
        case = self.case
        case.raw.grad = None
        with sdpa_kernel(SDPBackend.MATH):
            seed_inner()
            self.optimizer.step((case.coefficients() * case.losses(case.inner)).sum())
            seed_outer()
            (grad,) = torch.autograd.grad(case.losses(case.outer).mean(), case.raw)
        self.torchopt.stop_gradient(case.model)
        self.torchopt.stop_gradient(self.optimizer)
        return grad


def _fill(state: Any, live: list[dict[str, Tensor]]) -> Any:
    """torch.optim's moments in TorchOpt's nest of tuples."""
    if hasattr(state, "_replace") and {"mu", "nu", "count"} <= set(state._fields):
        count = [torch.full_like(kept, int(moments["step"])) for kept, moments in zip(state.count, live, strict=True)]
        return state._replace(
            mu=tuple(moments["exp_avg"].clone() for moments in live),
            nu=tuple(moments["exp_avg_sq"].clone() for moments in live),
            count=tuple(count),
        )
    if isinstance(state, tuple) and not hasattr(state, "_fields"):
        return tuple(_fill(part, live) for part in state)
    return state
