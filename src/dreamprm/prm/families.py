"""Which example each row of a vision module's input belongs to: rows of those modules are tiles or patches."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

__all__ = ["row_examples"]

Stacks = Sequence[Mapping[str, Tensor]]


def row_examples(processor: Any, examples: Stacks, prefix: str = "model.") -> dict[str, Tensor]:
    """Module-name prefix -> example index of each leading row of what those modules read.

    examples: per example, what its processor gave beside the text (`pixel_values`, `image_grid_thw` …).
    prefix: the path from the module that is trained to the transformers model ('model.' inside a PRM).
    The longest prefix of a module's name holds. Empty for text alone, and for families whose rows are examples.
    """
    if not any("pixel_values" in stack for stack in examples):
        return {}
    counts = _FAMILIES.get(type(processor).__name__)
    if counts is None:
        return {}
    return {
        f"{prefix}model.{module}": torch.repeat_interleave(torch.arange(len(examples)), torch.tensor(rows))
        for module, rows in counts(processor, examples).items()
    }


def _tiles(processor: Any, examples: Stacks) -> dict[str, list[int]]:
    """InternVL, Aya Vision: one row per tile in the vision tower and the projector."""
    rows = [len(stack["pixel_values"]) if "pixel_values" in stack else 0 for stack in examples]
    return {"vision_tower": rows, "multi_modal_projector": rows}


def _patches(processor: Any, examples: Stacks) -> dict[str, list[int]]:
    """Qwen-VL: the patches of all images stand in one row without a batch dimension (Lookahead merges them itself)."""
    return {"visual": [len(stack["pixel_values"]) if "pixel_values" in stack else 0 for stack in examples]}


def _padded_tiles(processor: Any, examples: Stacks) -> dict[str, list[int]]:
    """LLaVA-OneVision: (images, tiles, …) before padding; tiles only where an example has one image. Each image is
    followed by the newline parameter once."""
    images = [len(stack["pixel_values"]) if "pixel_values" in stack else 0 for stack in examples]
    tiles = [stack["pixel_values"].shape[1] if count == 1 else count for stack, count in zip(examples, images)]
    return {"vision_tower": tiles, "multi_modal_projector": tiles, "image_newline": images}


_FAMILIES: dict[str, Callable[[Any, Stacks], dict[str, list[int]]]] = {
    "AyaVisionProcessor": _tiles,
    "InternVLProcessor": _tiles,
    "LlavaOnevisionProcessor": _padded_tiles,
    "Qwen2VLProcessor": _patches,
    "Qwen2_5_VLProcessor": _patches,
    "Qwen3VLProcessor": _patches,
}
