"""torch's own multi-head attention and transformer layers, in training and in eval mode."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

SIZES = {"d_model": 6, "nhead": 2, "dim_feedforward": 8, "dropout": 0.0, "batch_first": True}


class SelfAttention(nn.Module):
    def __init__(self, first: bool = True, weights: bool = False, **settings: Any) -> None:
        super().__init__()
        self.attention, self.first, self.weights = (
            nn.MultiheadAttention(6, 2, batch_first=first, **settings),
            first,
            weights,
        )

    def forward(self, x: Tensor) -> Tensor:
        x = x if self.first else x.transpose(0, 1)
        y, weights = self.attention(x, x[..., : self.attention.kdim], x[..., : self.attention.vdim],
                                    need_weights=self.weights)  # fmt: skip
        y = y if self.first else y.transpose(0, 1)
        return torch.cat([y.flatten(1), weights.flatten(1)], 1) if self.weights else y


class Decoder(nn.Module):
    def __init__(self, num: int) -> None:
        super().__init__()
        layer = nn.TransformerDecoderLayer(**SIZES)
        self.layers = nn.TransformerDecoder(layer, num)

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x, x.flip(1)[:, :3])


MODELS = {
    "attention": SelfAttention,
    "positions first": lambda: SelfAttention(first=False),
    "with its weights": lambda: SelfAttention(weights=True),
    "bias of keys and values": lambda: SelfAttention(add_bias_kv=True),
    "a key of zeros": lambda: SelfAttention(add_zero_attn=True),
    "other widths": lambda: SelfAttention(kdim=4, vdim=3),
    "encoder layer": lambda: nn.TransformerEncoderLayer(**SIZES),
    "encoder layer, norm first": lambda: nn.TransformerEncoderLayer(**SIZES, norm_first=True, activation="gelu"),
    "encoder in eval mode": lambda: nn.TransformerEncoder(nn.TransformerEncoderLayer(**SIZES), 2).eval(),
    "decoder": lambda: Decoder(2),
}


@pytest.mark.parametrize("name", MODELS)
def test_seen_through(compare: Any, name: str) -> None:
    compare(MODELS[name])


@pytest.mark.parametrize("name", ["attention", "encoder layer", "decoder"])
def test_as_many_positions_as_examples(compare: Any, name: str) -> None:
    compare(MODELS[name], draw=lambda num: torch.randn(num, 4, 6, dtype=torch.float64))


def test_rows_that_are_not_examples_inside_attention(compare: Any) -> None:
    """Two rows an example, as tiles of an image."""

    class Tiles(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.attention = SelfAttention()

        def forward(self, x: Tensor) -> Tensor:
            tiles = torch.cat([x, x.flip(1)], 1).reshape(2 * len(x), 5, 6)
            return self.attention(tiles).reshape(len(x), -1)

    rows = {"attention": torch.arange(4).repeat_interleave(2)}
    value, expected = compare.value(Tiles, "ghost", rows=rows), compare.value(Tiles, "jvp")
    assert float((value - expected).norm() / expected.norm()) < 1e-12  # float64, two exact ways
