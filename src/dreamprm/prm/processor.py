"""Loads a model's processor, with or without torchvision, and a tokenizer where the model reads text only."""

from __future__ import annotations

import importlib.util
from functools import cache
from pathlib import Path
from typing import Any

__all__ = ["image_only", "load_processor"]


@cache
def image_only(processor_class: type) -> type:
    """The processor class without its video part.

    transformers builds the video part with torchvision and demands it even of a processor that never sees a video;
    without torchvision the class cannot be built at all. What remains is the same code for images and text, under the
    same name, so that a folder saved with it is an ordinary folder of that class.
    """
    from transformers.processing_utils import ProcessorMixin

    class WithoutVideo(ProcessorMixin):
        # Stands between the class and ProcessorMixin in the order of resolution, so the video argument that the class
        # passes upwards is dropped before ProcessorMixin counts and checks the arguments.
        def __init__(
            self, image_processor: Any = None, tokenizer: Any = None, video_processor: Any = None, **options: Any
        ) -> None:
            del video_processor
            super().__init__(image_processor, tokenizer, **options)

    def get_attributes(cls: type) -> list[str]:
        return ["image_processor", "tokenizer"]

    members = {"get_attributes": classmethod(get_attributes), "__module__": processor_class.__module__}
    return type(processor_class.__name__, (processor_class, WithoutVideo), members)


def load_processor(path: str | Path, **options: Any) -> Any:
    """The processor of a model folder or hub name; the tokenizer alone where the model reads text only.

    Never runs code from the folder. Raises what transformers raises where files are missing.
    """
    from transformers import AutoConfig, AutoProcessor, AutoTokenizer

    options = {"trust_remote_code": False, **options}
    config = AutoConfig.from_pretrained(path, **options)
    if getattr(config, "vision_config", None) is None:
        return AutoTokenizer.from_pretrained(path, **options)
    from transformers.models.auto.processing_auto import PROCESSOR_MAPPING

    try:
        return AutoProcessor.from_pretrained(path, **options)
    except Exception:
        # Without torchvision a class with a video part fails in many ways: missing file, missing import, attribute.
        processor_class: Any = PROCESSOR_MAPPING.get(type(config), None)
        has_torchvision = importlib.util.find_spec("torchvision") is not None
        if has_torchvision or processor_class is None or "video_processor" not in processor_class.get_attributes():
            raise
    return image_only(processor_class).from_pretrained(path, **options)
