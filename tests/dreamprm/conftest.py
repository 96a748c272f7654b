"""Tiny models of the real classes, with a byte-level tokenizer and a chat template, built without a network."""

import io
import os
from collections.abc import Callable
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import pytest
import torch

from dreamprm.data.record import Record

CHAT_TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n"
    "{% if m['content'] is string %}{{ m['content'] }}{% else %}{% for c in m['content'] %}"
    "{% if c['type'] == 'image' %}<IMG_CONTEXT>\n{% else %}{{ c['text'] }}{% endif %}{% endfor %}{% endif %}"
    "<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
IMAGE_TOKENS = {
    "start_image_token": "<img>",
    "end_image_token": "</img>",
    "context_image_token": "<IMG_CONTEXT>",
    "video_token": "<video>",
}
TEXT = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "initializer_range": 0.2,  # wide enough that scores differ from one another
    "bos_token_id": None,
}


def build_tokenizer() -> Any:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE(vocab={letter: index for index, letter in enumerate(alphabet)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        additional_special_tokens=["<|im_start|>"],
        extra_special_tokens=IMAGE_TOKENS,
        chat_template=CHAT_TEMPLATE,
    )


@pytest.fixture(scope="session")
def tiny_tokenizer() -> Any:
    return build_tokenizer()


@pytest.fixture(scope="session")
def tiny_processor() -> Any:
    """InternVL's processor: 32-pixel tiles of 16 image tokens, at most 4 tiles and a thumbnail."""
    from transformers import InternVLProcessor
    from transformers.models.got_ocr2.image_processing_pil_got_ocr2 import GotOcr2ImageProcessorPil

    from dreamprm.prm.processor import image_only

    images = GotOcr2ImageProcessorPil(
        size={"height": 32, "width": 32}, crop_to_patches=True, min_patches=1, max_patches=4
    )
    return image_only(InternVLProcessor)(
        image_processor=images, tokenizer=build_tokenizer(), image_seq_length=16, chat_template=CHAT_TEMPLATE
    )


@pytest.fixture(scope="session")
def build_internvl(tiny_processor: Any) -> Callable[..., Any]:
    """Builds a fresh InternVL of the real class with random weights."""

    def build(tied: bool = False, seed: int = 0) -> Any:
        from transformers import InternVLConfig, InternVLForConditionalGeneration

        torch.manual_seed(seed)
        tokenizer = tiny_processor.tokenizer
        size = len(tokenizer)
        config = InternVLConfig(
            text_config={
                "model_type": "qwen2",
                **TEXT,
                "vocab_size": size,
                "tie_word_embeddings": tied,
                "eos_token_id": tokenizer.eos_token_id,
                "pad_token_id": tokenizer.pad_token_id,
            },
            vision_config={
                "hidden_size": 16,
                "intermediate_size": 32,
                "num_hidden_layers": 1,
                "num_attention_heads": 2,
                "image_size": [32, 32],
                "patch_size": [4, 4],
            },
            image_token_id=tokenizer.context_image_token_id,
            image_seq_length=16,
            tie_word_embeddings=tied,
        )
        return InternVLForConditionalGeneration(config).eval()

    return build


@pytest.fixture(scope="session")
def build_text_model(tiny_tokenizer: Any) -> Callable[..., Any]:
    """Builds a fresh text-only Qwen2: a causal model, or a token classifier of `num_labels` classes."""

    def build(num_labels: int | None = None, tied: bool = False, seed: int = 0) -> Any:
        from transformers import Qwen2Config, Qwen2ForCausalLM, Qwen2ForTokenClassification

        torch.manual_seed(seed)
        config = Qwen2Config(
            **TEXT,
            vocab_size=len(tiny_tokenizer),
            tie_word_embeddings=tied,
            eos_token_id=tiny_tokenizer.eos_token_id,
            pad_token_id=tiny_tokenizer.pad_token_id,
        )
        if num_labels is None:
            return Qwen2ForCausalLM(config).eval()
        config.num_labels = num_labels
        return Qwen2ForTokenClassification(config).eval()

    return build


@pytest.fixture(scope="session")
def make_image() -> Callable[..., bytes]:
    """A PNG of one colour."""

    def make(width: int = 32, height: int = 32, colour: tuple[int, int, int] = (200, 30, 30)) -> bytes:
        import PIL.Image

        stream = io.BytesIO()
        PIL.Image.new("RGB", (width, height), colour).save(stream, "PNG")
        return stream.getvalue()

    return make


@pytest.fixture(scope="session")
def make_record() -> Callable[..., Record]:
    """A record of which only the interesting fields need to be given."""

    def make(key: str = "a", steps: tuple[str, ...] = ("3 + 4 = 7", "so 7"), **fields: Any) -> Record:
        defaults: dict[str, Any] = {"source": "test", "domain": "sum", "group": "g", "question": "What is 3 + 4 - 0?"}
        return Record(key=key, steps=steps, **{**defaults, **fields})

    return make
