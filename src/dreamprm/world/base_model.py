"""Where the shipped base lies, and how it is loaded."""

from __future__ import annotations

from pathlib import Path

__all__ = ["base_folder"]


def base_folder() -> Path:
    """The folder of the shipped tiny InternVL: safetensors, configuration, tokenizer, processor, chat template.

    `AutoModelForImageTextToText.from_pretrained(base_folder())` and `AutoProcessor.from_pretrained(base_folder())`
    load it, with or without torchvision.
    """
    return Path(__file__).parent / "base"
