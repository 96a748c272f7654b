"""What every contestant works on: a Qwen2 classifier, two batches, one raw weight per example, a live AdamW.

Coefficients are c_i = softplus(raw_i) / B, the inner loss Σ_i c_i ℓ_i, the outer loss the mean over its batch.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import Qwen2Config, Qwen2Model

__all__ = ["SIZES", "Batch", "Case", "Setting"]

VOCABULARY = 4096

SIZES: dict[str, dict[str, int]] = {
    "micro": {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2},
    "1M": {"hidden_size": 96, "intermediate_size": 256, "num_hidden_layers": 6, "num_attention_heads": 4},
    "11M": {"hidden_size": 320, "intermediate_size": 864, "num_hidden_layers": 8, "num_attention_heads": 8},
    "50M": {"hidden_size": 576, "intermediate_size": 1536, "num_hidden_layers": 12, "num_attention_heads": 9},
    "135M": {
        "hidden_size": 576, "intermediate_size": 1536, "num_hidden_layers": 30, "num_attention_heads": 9,
        "num_key_value_heads": 3, "vocab_size": 49152,
    },
}  # fmt: skip
"""1.1, 11.2 and 50.2 million parameters, 4,096 x hidden of them in the table of tokens; 135M: the shape of SmolLM2."""


@dataclass(frozen=True)
class Setting:
    """One column of the tables."""

    size: str
    dtype: str = "float32"
    num_examples: int = 8
    num_tokens: int = 128
    dropout: float = 0.0
    clip_norm: float | None = 1.0
    lr: float = 1e-3
    weight_decay: float = 0.01
    scale: float = 1.0
    """Multiplies the losses: what makes clipping bite or not."""
    workarounds: bool = True
    """Whether a peer gets what it needs to run with this torch and this transformers at all."""


@dataclass(frozen=True)
class Batch:
    """tokens: (B, T); labels: (B,)."""

    tokens: Tensor
    labels: Tensor


class Classifier(nn.Module):
    """Two logits at the last position."""

    def __init__(self, setting: Setting) -> None:
        super().__init__()
        shape = SIZES[setting.size]
        usual = {"vocab_size": VOCABULARY, "num_key_value_heads": shape["num_attention_heads"]}
        config = Qwen2Config(
            max_position_embeddings=setting.num_tokens,
            attention_dropout=setting.dropout,
            use_cache=False,
            **usual | shape,
        )
        self.backbone = Qwen2Model(config)
        self.head = nn.Linear(config.hidden_size, 2, bias=False)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.head(self.backbone(input_ids=tokens).last_hidden_state[:, -1])  # (B, 2)


class Case:
    """A model in training, made anew from the same seeds by every contestant."""

    def __init__(self, setting: Setting) -> None:
        torch.manual_seed(0)
        self.setting = setting
        self.model = Classifier(setting).to(getattr(torch, setting.dtype)).train()
        self.parameters = list(self.model.parameters())
        self.optimizer = torch.optim.AdamW(self.parameters, lr=setting.lr, weight_decay=setting.weight_decay)
        self.inner, self.outer = self.batch(1), self.batch(2)
        self.raw = torch.randn(setting.num_examples, generator=torch.Generator().manual_seed(3)).requires_grad_()

    def batch(self, seed: int) -> Batch:
        """Random tokens; the label is the parity of the first, so that there is something to fit."""
        size = (self.setting.num_examples, self.setting.num_tokens)
        tokens = torch.randint(0, VOCABULARY, size, generator=torch.Generator().manual_seed(seed))
        return Batch(tokens, tokens[:, 0] % 2)

    def losses(self, batch: Batch, model: Callable[[Tensor], Tensor] | None = None) -> Tensor:
        """Cross-entropy of each example, (B,), in fp32 or wider."""
        logits = (model or self.model)(batch.tokens)
        if logits.dtype != torch.float64:
            logits = logits.float()
        return F.cross_entropy(logits, batch.labels, reduction="none") * self.setting.scale

    def coefficients(self) -> Tensor:
        """c, (B,), attached to raw."""
        return F.softplus(self.raw) / len(self.raw)

    def train(self, num_updates: int) -> None:
        """Plain updates, each on a batch of its own."""
        for update in range(num_updates):
            torch.manual_seed(1000 + update)
            self.optimizer.zero_grad()
            self.losses(self.batch(100 + update)).mean().backward()
            self.clip()
            self.optimizer.step()
        self.optimizer.zero_grad()

    def clip(self) -> None:
        """Clip `.grad` as the setting says."""
        if self.setting.clip_norm is not None:
            torch.nn.utils.clip_grad_norm_(self.parameters, self.setting.clip_norm)

    def snapshot(self) -> dict[str, Any]:
        """Model and optimizer, to be loaded into another case of the same setting."""
        return copy.deepcopy({"model": self.model.state_dict(), "optimizer": self.optimizer.state_dict()})

    def load(self, snapshot: dict[str, Any]) -> None:
        """Take over a snapshot."""
        self.model.load_state_dict(snapshot["model"])
        self.optimizer.load_state_dict(copy.deepcopy(snapshot["optimizer"]))

    @property
    def num_parameters(self) -> int:
        """Of the model."""
        return sum(parameter.numel() for parameter in self.parameters)
