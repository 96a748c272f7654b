"""Where the shipped models lie, and how they are loaded."""

from __future__ import annotations

from pathlib import Path

__all__ = ["base_folder", "reader_folder"]


def base_folder() -> Path:
    """The folder of the shipped tiny InternVL: safetensors, configuration, tokenizer, processor, chat template.

    `AutoModelForImageTextToText.from_pretrained(base_folder())` and `AutoProcessor.from_pretrained(base_folder())`
    load it, with or without torchvision.
    """
    return Path(__file__).parent / "base"


def reader_folder() -> Path:
    """The folder of the base after image-text matching (`build_reader.py`), as `dreamprm.PRM.from_pretrained` loads it:
    it can tell whether a text fits an image, as pretrained models can, and has judged no chain."""
    return Path(__file__).parent / "reader"
