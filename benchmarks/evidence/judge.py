"""The upper part of a PRM on kept states, the part that is trained: the last layer's feed-forward block, the final norm
and the verdict's direction.

    z = <v, norm(a + W_down (silu(W_gate n) * W_up n))> + b,   n = norm(a),

a the residual stream at a judged token after the last layer's attention. It computes what the whole PRM computes (a
test compares them), in a thousandth of its time: all below is frozen, so that a chain is S vectors.

Shapes: B chains, S steps, D hidden width.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

__all__ = ["Judge", "upper_part"]


@torch.no_grad()
def upper_part(prm: Any) -> dict[str, Tensor]:
    """The tensors of a PRM's last feed-forward block, of its final norm, and the direction of + against -."""
    body = prm.body.language_model
    layer = body.layers[-1]
    eye = torch.eye(body.config.hidden_size)[None]
    zero = prm.head(torch.zeros_like(eye[:, :1]))
    found = {
        "gate": layer.mlp.gate_proj.weight,
        "up": layer.mlp.up_proj.weight,
        "down": layer.mlp.down_proj.weight,
        "norm_mlp": layer.post_attention_layernorm.weight,
        "norm_final": body.norm.weight,
        "verdict": (prm.head(eye) - zero)[0],
        "offset": zero[0, 0],
    }
    return {name: value.detach().clone() for name, value in found.items()}


class Judge(nn.Module):
    """states (B, S, D) -> log-odds that each step is right, (B, S)."""

    def __init__(self, tensors: dict[str, Tensor], eps: float = 1e-6) -> None:
        super().__init__()
        self.tensors = nn.ParameterDict({name: nn.Parameter(value.clone()) for name, value in tensors.items()})
        self.eps = eps

    def forward(self, states: Tensor) -> Tensor:
        w = self.tensors
        inner = self._norm(states, "norm_mlp")
        moved = states + (F.silu(inner @ w["gate"].T) * (inner @ w["up"].T)) @ w["down"].T
        return self._norm(moved, "norm_final") @ w["verdict"] + w["offset"]

    def tensors_of(self) -> dict[str, Tensor]:
        """Its tensors, to start another one from."""
        return {name: value.detach().clone() for name, value in self.tensors.items()}

    def _norm(self, x: Tensor, name: str) -> Tensor:
        return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + self.eps) * self.tensors[name]
