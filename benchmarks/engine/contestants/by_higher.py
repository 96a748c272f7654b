"""higher: a functional copy of the model, a differentiable Adam, autograd through the step.

Two things keep it from running here as it is, and both are worked around so that there is something to measure:
it has no AdamW (Adam without weight decay makes the same steps as AdamW without), and its patched ModuleList cannot be
sliced, as transformers 5 does.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from ..cases import Case
from .contestant import seed_inner, seed_outer

__all__ = ["Higher"]


class Layers(nn.ModuleList):
    """A list of layers whose slice is a plain list."""

    def __getitem__(self, index: Any) -> Any:
        return [*self._modules.values()][index]


class Higher:
    """`innerloop_ctx` around every update; new parameters and moments are then written back by hand."""

    def __init__(self, case: Case) -> None:
        import higher  # type: ignore[import-not-found]

        self.case, self.higher = case, higher
        self.optimizer: torch.optim.Optimizer = case.optimizer
        if case.setting.workarounds or not case.setting.weight_decay:
            self.optimizer = torch.optim.Adam(case.parameters, lr=case.setting.lr)
        if case.setting.workarounds:
            case.model.backbone.layers = Layers(case.model.backbone.layers)
        if case.optimizer.state and self.optimizer is not case.optimizer:
            self.optimizer.load_state_dict(
                {**case.optimizer.state_dict(), "param_groups": self.optimizer.state_dict()["param_groups"]}
            )
            case.optimizer.state.clear()

    def clip(self, gradients: list[Tensor]) -> list[Tensor]:
        """torch's clipping by norm, differentiable."""
        limit = self.case.setting.clip_norm
        if limit is None:
            return gradients
        norm = torch.linalg.vector_norm(torch.stack([torch.linalg.vector_norm(g) for g in gradients]))
        scale = (limit / (norm + 1e-6)).clamp(max=1.0)
        return [g * scale for g in gradients]

    def update(self) -> Tensor:
        """dF/draw."""
        case = self.case
        with (
            sdpa_kernel(SDPBackend.MATH),
            self.higher.innerloop_ctx(case.model, self.optimizer) as (model, optimizer),
        ):
            seed_inner()
            optimizer.step((case.coefficients() * case.losses(case.inner, model)).sum(), grad_callback=self.clip)
            seed_outer()
            (grad,) = torch.autograd.grad(case.losses(case.outer, model).mean(), case.raw)
            with torch.no_grad():
                for parameter, moved in zip(case.parameters, model.parameters(), strict=True):
                    parameter.copy_(moved)
                for parameter, moments in zip(case.parameters, optimizer.state[0].values(), strict=True):
                    self.optimizer.state[parameter].update({k: _detached(v) for k, v in moments.items()})
        return grad


def _detached(value: Tensor | int) -> Tensor:
    return value.detach() if isinstance(value, Tensor) else torch.tensor(float(value))
