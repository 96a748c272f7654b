"""The model families in tiny random configurations of their real classes, with the processors that belong to them."""

import io
import random
from collections.abc import Callable
from importlib import import_module
from typing import Any

import PIL.Image
import pytest
import torch
import transformers

from dreamprm.prm.processor import image_only

TEXT = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "initializer_range": 0.1,
    "max_position_embeddings": 1024,
    "bos_token_id": None,
}
SIGLIP = {
    "model_type": "siglip_vision_model",
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 24,
    "image_size": 16,
    "patch_size": 4,
    "vision_use_head": False,
}
TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{% for c in m['content'] %}"
    "{% if c['type'] == 'image' %}IMAGE{% else %}{{ c['text'] }}{% endif %}{% endfor %}<|im_end|>\n{% endfor %}"
)


def tokenizer(core: Any, **extra: str) -> Any:
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=core.backend_tokenizer,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        extra_special_tokens={"start": "<|im_start|>", **extra},
    )


def pil(module: str, name: str, **settings: Any) -> Any:
    found = getattr(import_module(f"transformers.models.{module}.image_processing_pil_{module}"), name)
    return found(**settings)


def qwen(core: Any, kind: str) -> tuple[Any, Any]:
    marks = {
        "image_token": "<|image_pad|>",
        "video_token": "<|video_pad|>",
        "vision_bos_token": "<|vision_start|>",
        "vision_eos_token": "<|vision_end|>",
    }
    words = tokenizer(core, **marks)
    ids = {
        f"{name}_id": words.convert_tokens_to_ids(mark)
        for name, mark in zip(("image_token", "video_token", "vision_start_token", "vision_end_token"), marks.values())
    }
    rope = {"rope_type": "default", "mrope_section": [1, 1, 2], "rope_theta": 10000.0}
    text = {**TEXT, "vocab_size": len(words), "rope_parameters": rope, "head_dim": 8}
    common = {"depth": 2, "num_heads": 2, "patch_size": 4, "spatial_merge_size": 2, "temporal_patch_size": 2}
    vision = {
        "Qwen2VL": {**common, "embed_dim": 16, "hidden_size": 32, "mlp_ratio": 2, "in_channels": 3},
        "Qwen2_5_VL": {
            **common,
            "hidden_size": 16,
            "out_hidden_size": 32,
            "intermediate_size": 24,
            "window_size": 16,
            "fullatt_block_indexes": [1],
        },
        "Qwen3VL": {
            **common,
            "hidden_size": 16,
            "out_hidden_size": 32,
            "intermediate_size": 24,
            "num_position_embeddings": 16,
            "deepstack_visual_indexes": [0],
        },
    }[kind]
    config = getattr(transformers, f"{kind}Config")(vision_config=vision, text_config=text, **ids)
    images = pil("qwen2_vl", "Qwen2VLImageProcessorPil", patch_size=4, min_pixels=64, max_pixels=1024)
    processor = image_only(getattr(transformers, f"{kind}Processor"))(
        images,
        words,
        chat_template=TEMPLATE.replace("IMAGE", "<|vision_start|><|image_pad|><|vision_end|>"),
    )
    return getattr(transformers, f"{kind}ForConditionalGeneration")(config), processor


def llava(core: Any) -> tuple[Any, Any]:
    words = tokenizer(core, image_token="<image>", video_token="<video>")
    grid = [[16, 16], [16, 32], [32, 16]]
    config = transformers.LlavaOnevisionConfig(
        vision_config=SIGLIP,
        text_config={"model_type": "qwen2", **TEXT, "vocab_size": len(words)},
        image_token_id=words.convert_tokens_to_ids("<image>"),
        video_token_id=words.convert_tokens_to_ids("<video>"),
        image_grid_pinpoints=grid,
        vision_feature_layer=-1,
    )
    images = pil(
        "llava_onevision",
        "LlavaOnevisionImageProcessorPil",
        size={"height": 16, "width": 16},
        image_grid_pinpoints=grid,
    )
    processor = image_only(transformers.LlavaOnevisionProcessor)(
        images,
        words,
        num_image_tokens=16,
        vision_feature_select_strategy="full",
        chat_template=TEMPLATE.replace("IMAGE", "<image>\n"),
    )
    return transformers.LlavaOnevisionForConditionalGeneration(config), processor


def aya(core: Any) -> tuple[Any, Any]:
    marks = ["<|START_OF_IMG|>", "<|END_OF_IMG|>", "<|IMG_PATCH|>", "TILE", "TILE_GLOBAL"]
    words = tokenizer(core, **{f"mark_{place}": mark for place, mark in enumerate(marks)}, image_token="<image>")
    config = transformers.AyaVisionConfig(
        vision_config=SIGLIP,
        # The two-row head refuses a scale of the logits.
        text_config={"model_type": "cohere2", **TEXT, "vocab_size": len(words), "logit_scale": 1.0, "head_dim": 8},
        image_token_index=words.convert_tokens_to_ids("<|IMG_PATCH|>"),
    )
    images = pil(
        "got_ocr2",
        "GotOcr2ImageProcessorPil",
        size={"height": 16, "width": 16},
        crop_to_patches=True,
        min_patches=1,
        max_patches=3,
    )
    processor = transformers.AyaVisionProcessor(
        images,
        words,
        patch_size=4,
        img_size=16,
        downsample_factor=2,
        chat_template=TEMPLATE.replace("IMAGE", "<image>\n"),
    )
    return transformers.AyaVisionForConditionalGeneration(config), processor


@pytest.fixture(scope="session")
def build_family(tiny_tokenizer: Any, tiny_processor: Any, build_internvl: Any) -> Callable[[str], tuple[Any, Any]]:
    """Builds (model, processor) of a family with random weights, the same at each call."""

    def build(family: str) -> tuple[Any, Any]:
        if family == "InternVL":
            return build_internvl(), tiny_processor
        torch.manual_seed(0)
        others = {"LlavaOnevision": llava, "AyaVision": aya}
        model, processor = others[family](tiny_tokenizer) if family in others else qwen(tiny_tokenizer, family)
        return model.eval(), processor

    return build


@pytest.fixture(scope="session")
def mixed_records(make_record: Any) -> list[Any]:
    """One image, none, two of unlike shape, one of several tiles; the first image comes twice."""
    small, wide, other = _noise(16, 16, 0), _noise(32, 16, 1), _noise(32, 16, 2)
    return [
        make_record("a", labels=(1.0, 0.0), correct=True, images=(small,)),
        make_record("b", ("x", "y", "z"), labels=(0.5, None, 1.0), correct=False),
        make_record("c", labels=(0.0, 1.0), correct=True, images=(wide, small)),
        make_record("d", labels=(0.0, 1.0), correct=False, images=(other,)),
    ]


def _noise(width: int, height: int, seed: int) -> bytes:
    """A PNG of which no two tiles are the same."""
    stream = io.BytesIO()
    pixels = random.Random(seed).randbytes(3 * width * height)
    PIL.Image.frombytes("RGB", (width, height), pixels).save(stream, "PNG")
    return stream.getvalue()


@pytest.fixture(scope="session")
def noise() -> Callable[[int, int, int], bytes]:
    return _noise
