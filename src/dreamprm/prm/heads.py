"""Heads: hidden states at the judged tokens -> log-odds that each step is right.

Shapes: B examples, S steps, H hidden width, V vocabulary.
"""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

__all__ = ["LabelHead", "LinearHead", "VocabularyHead", "class_log_odds", "gather_steps", "output_rows"]


def _full_precision(linear: nn.Linear, hidden: Tensor) -> Tensor:
    # The difference of two logits is what is wanted; in bf16 it would keep two or three digits.
    with torch.autocast(hidden.device.type, enabled=False):
        return linear(hidden.to(linear.weight.dtype) if linear.weight.is_floating_point() else hidden)


class LabelHead(nn.Module):
    """Two rows of the language model's head, its rows for right and wrong.

    log-odds = <w_right - w_wrong, h> + b_right - b_wrong, which is the log-odds of the softmax over the two logits.
    A Linear(H, 2) of its own, started as a copy in float32 and written back on saving: the vocabulary's other rows
    are never touched, and a head that is tied to the embedding does not move the embedding of '+' and '-'.
    """

    def __init__(self, weight: Float[Tensor, "V H"], bias: Float[Tensor, " V"] | None, right: int, wrong: int) -> None:
        super().__init__()
        rows = torch.tensor([right, wrong], device=weight.device)
        self.rows = nn.Linear(weight.shape[1], 2, bias=bias is not None, device=weight.device, dtype=torch.float32)
        with torch.no_grad():
            self.rows.weight.copy_(weight[rows])
            if bias is not None:
                self.rows.bias.copy_(bias[rows])

    def forward(self, hidden: Float[Tensor, "B S H"]) -> Float[Tensor, "B S"]:
        logits = _full_precision(self.rows, hidden)
        return logits[..., 0] - logits[..., 1]


class LinearHead(nn.Module):
    """log-odds = <w, h> + b; starts at zero, so that every step starts at 1/2."""

    def __init__(self, hidden_size: int, device: torch.device | None = None) -> None:
        super().__init__()
        self.score = nn.Linear(hidden_size, 1, device=device, dtype=torch.float32)
        nn.init.zeros_(self.score.weight)
        nn.init.zeros_(self.score.bias)

    def forward(self, hidden: Float[Tensor, "B S H"]) -> Float[Tensor, "B S"]:
        return _full_precision(self.score, hidden)[..., 0]


class VocabularyHead(nn.Module):
    """log-odds = <w, W h> + b, with W the language model's head (DreamPRM, arXiv 2505.20241, released code).

    Differs from the released code in that all steps of a chain are read in one pass: W h is computed at the judged
    tokens only, so the vocabulary's width appears B·S times, never B·T times.
    """

    def __init__(self, vocabulary_size: int, device: torch.device | None = None) -> None:
        super().__init__()
        self.score = nn.Linear(vocabulary_size, 1, device=device, dtype=torch.float32)
        nn.init.normal_(self.score.weight, std=vocabulary_size**-0.5)
        nn.init.zeros_(self.score.bias)

    def forward(self, hidden: Float[Tensor, "B S H"], output: nn.Linear) -> Float[Tensor, "B S"]:
        logits = _full_precision(output, hidden)
        return _full_precision(self.score, logits)[..., 0]


def class_log_odds(logits: Float[Tensor, "B S C"], right_class: int = 1) -> Float[Tensor, "B S"]:
    """One class: its logit. Two: the difference of the logit for right and the other."""
    logits = logits.float()
    if logits.shape[-1] == 1:
        return logits[..., 0]
    return logits[..., right_class] - logits[..., 1 - right_class]


def output_rows(model: Any) -> nn.Linear:
    """The language model's head; a clear error where there is none or where its logits are changed afterwards."""
    output = model.get_output_embeddings()
    if output is None:
        raise ValueError(f"{type(model).__name__} has no language-model head; use head='linear'")
    if not output.weight.is_floating_point():
        raise ValueError("the language-model head is quantized; leave it out of the quantization (skip_modules)")
    config = model.config.get_text_config()
    for name in ("final_logit_softcapping", "logit_scale", "logits_scaling", "lm_head_multiplier"):
        if getattr(config, name, None) not in (None, 1, 1.0):
            raise ValueError(
                f"{type(model).__name__} changes its logits by {name}={getattr(config, name)}, which the two-row head "
                "does not do; use head='linear'"
            )
    return output


def gather_steps(hidden: Float[Tensor, "B T H"], positions: Tensor) -> Float[Tensor, "B S H"]:
    """Hidden states at the judged tokens; the batch dimension stays in front, so that rows remain examples."""
    return hidden.gather(1, positions[..., None].expand(-1, -1, hidden.shape[-1]))
