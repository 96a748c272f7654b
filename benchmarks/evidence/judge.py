"""The last layer of a Qwen2 decoder and a two-word verdict, on hidden states that are kept: the part that is trained.

It computes what the whole PRM computes (a test compares them), at the judged tokens alone.

Shapes: B chains, T tokens, S steps, D hidden width, A heads.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional as F

__all__ = ["Judge", "last_layer"]

_NAMES = ("q", "k", "v")


@torch.no_grad()
def last_layer(prm: Any) -> dict[str, Tensor]:
    """The tensors of a PRM's last layer, of its final norm, and the direction of + against -."""
    body = prm.body.language_model
    layer = body.layers[-1]
    found = {
        f"{name}_{kind}": getattr(getattr(layer.self_attn, f"{name}_proj"), kind)
        for name in _NAMES
        for kind in ("weight", "bias")
    }
    eye = torch.eye(body.config.hidden_size)[None]
    zero = prm.head(torch.zeros_like(eye[:, :1]))
    found |= {
        "out": layer.self_attn.o_proj.weight,
        "gate": layer.mlp.gate_proj.weight,
        "up": layer.mlp.up_proj.weight,
        "down": layer.mlp.down_proj.weight,
        "norm_attention": layer.input_layernorm.weight,
        "norm_mlp": layer.post_attention_layernorm.weight,
        "norm_final": body.norm.weight,
        "verdict": (prm.head(eye) - zero)[0],
        "offset": zero[0, 0],
    }
    return {name: value.detach().clone() for name, value in found.items()}


class Judge(nn.Module):
    """(hidden (B, T, D), positions (B, S)) -> log-odds that each step is right, (B, S)."""

    angles: Tensor

    def __init__(self, tensors: dict[str, Tensor], heads: int = 4, theta: float = 10000.0, eps: float = 1e-6) -> None:
        super().__init__()
        self.tensors = nn.ParameterDict({name: nn.Parameter(value.clone()) for name, value in tensors.items()})
        self.heads, self.eps = heads, eps
        size = tensors["q_weight"].shape[0] // heads
        angles = torch.arange(1024)[:, None] * theta ** -(torch.arange(0, size, 2) / size)
        self.register_buffer("angles", torch.cat([angles, angles], -1), persistent=False)  # (T, D / A)

    def forward(self, hidden: Tensor, positions: Tensor) -> Tensor:
        w = self.tensors
        asked = hidden.gather(1, positions[..., None].expand(-1, -1, hidden.shape[-1]))  # (B, S, D)
        states, queries = self._norm(hidden, "norm_attention"), self._norm(asked, "norm_attention")
        places = torch.arange(hidden.shape[1])
        q = self._turn(self._project(queries, "q"), positions[:, None])
        k, v = self._turn(self._project(states, "k"), places), self._project(states, "v")
        scores = q @ k.transpose(-1, -2) / math.sqrt(q.shape[-1])  # (B, A, S, T)
        scores = scores.masked_fill(places > positions[:, None, :, None], -1e9)
        attended = rearrange(scores.softmax(-1) @ v, "b a s d -> b s (a d)")
        asked = asked + attended @ w["out"].T
        inner = self._norm(asked, "norm_mlp")
        asked = asked + (F.silu(inner @ w["gate"].T) * (inner @ w["up"].T)) @ w["down"].T
        return self._norm(asked, "norm_final") @ w["verdict"] + w["offset"]

    def _norm(self, x: Tensor, name: str) -> Tensor:
        return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + self.eps) * self.tensors[name]

    def _project(self, x: Tensor, name: str) -> Tensor:
        return rearrange(
            x @ self.tensors[f"{name}_weight"].T + self.tensors[f"{name}_bias"], "b t (a d) -> b a t d", a=self.heads
        )

    def _turn(self, x: Tensor, places: Tensor) -> Tensor:
        """Rotary positions."""
        angles = self.angles[places]
        first, second = x.chunk(2, -1)
        return x * angles.cos() + torch.cat([-second, first], -1) * angles.sin()
