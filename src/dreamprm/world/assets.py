"""The tiny InternVL's parts other than its weights: tokenizer, chat template, processor and configuration.

The model is `InternVLForConditionalGeneration`. Its processor is transformers' `AyaVisionProcessor`, which tiles by the
same image processor (GotOcr2) and, with the tokens set below, writes InternVL's very layout `<img>` 16 x
`<IMG_CONTEXT>` `</img>`: `InternVLProcessor` itself cannot be loaded where torchvision is missing (its video processor
needs it; transformers 5.23), and the world has no videos. The image processor loads as its PIL version there.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from transformers import AyaVisionProcessor, InternVLConfig, InternVLVisionConfig, PreTrainedTokenizerFast, Qwen2Config
from transformers.models.got_ocr2.image_processing_pil_got_ocr2 import GotOcr2ImageProcessorPil

from dreamprm.world.scene import COLOURS, SIZE

__all__ = ["CHAT_TEMPLATE", "make_config", "make_processor", "make_tokenizer", "save_processor"]

VOCABULARY = 640
_PATCH = 4
_DOWNSAMPLE = 2
_IMAGE_TOKENS = (SIZE // _PATCH // _DOWNSAMPLE) ** 2
SPECIAL = {
    "pad_token": "<pad>",
    "eos_token": "<end>",
    "start_image_token": "<img>",
    "end_image_token": "</img>",
    "context_image_token": "<IMG_CONTEXT>",
    "video_token": "<video>",
    "user_token": "<user>",
    "assistant_token": "<assistant>",
    "system_token": "<system>",
}

# A turn costs one token, and an assistant's turn one more at its end: a chain of four steps takes about 50 tokens.
CHAT_TEMPLATE = """\
{%- for message in messages -%}
{{- '<' + message['role'] + '>' -}}
{%- if message['content'] is string -%}
{{- message['content'] -}}
{%- else -%}
{%- for part in message['content'] -%}
{%- if part['type'] == 'image' -%}{{- '<IMG_CONTEXT>' -}}{%- else -%}{{- part['text'] -}}{%- endif -%}
{%- endfor -%}
{%- endif -%}
{%- if message['role'] == 'assistant' -%}{{- eos_token -}}{%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- '<assistant>' -}}{%- endif -%}"""

_WORDS = "and less is over so most least then here answer same or after ? describe".split()  # noqa: SIM905
_HEADINGS = ("Question", "Solution", "Process", "###", "Step", "Answer")  # of the usual PRM prompts
# So that prompts and English text of other data do not fall apart into bytes.
_ENGLISH = """
the of to in a that for it as was with be by on not he this are at from his but an they which you one all have we
there can more if when will would what so no out up into than them some time its other about two many these then may
now only over new any each number find first second value total step Step steps Question Solution Process question
solution process image figure area length angle triangle circle square answer final equal equals sum difference
product times divided plus minus therefore since because given let Let Therefore So The We To frac sqrt text boxed
cdot left right left( right) ### ** $$ $ = + - * / ( ) . , : ; ## ing ed er ion est
""".split()  # noqa: SIM905


def make_tokenizer() -> PreTrainedTokenizerFast:
    """A byte-level BPE in which every word and number of the world is one token with and without a space before it,
    any other text is spelled in pieces down to bytes, and `+` and `-` are one token each."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY - len(SPECIAL),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        special_tokens=[],
        show_progress=False,
    )
    tokenizer.train_from_iterator(_corpus(), trainer)
    tokenizer.add_special_tokens([AddedToken(token, normalized=False) for token in SPECIAL.values()])
    named: dict[str, Any] = {name: token for name, token in SPECIAL.items() if name in ("pad_token", "eos_token")}
    extra = {name: token for name, token in SPECIAL.items() if name not in named}
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, extra_special_tokens=extra, padding_side="left", model_max_length=2048, **named
    )


def _corpus() -> Iterator[str]:
    for word in [*COLOURS, *_WORDS, *map(str, range(30)), *_HEADINGS]:
        for _ in range(1000):  # outweighs everything else, so that each becomes a single token
            yield word
            yield f" {word}"
    for rank, word in enumerate(_ENGLISH):
        for _ in range(400 - 2 * rank):
            yield word
            yield f" {word}"


def make_processor(
    tokenizer: PreTrainedTokenizerFast, *, size: int = SIZE, patch_size: int = _PATCH
) -> AyaVisionProcessor:
    """Images become tiles of `size` x `size` pixels and (size / patch_size / 2)² tokens each.

    In the world these are 32 pixels and 16 tokens, and a 32 x 32 image is one tile.
    """
    half = [0.5, 0.5, 0.5]
    images = GotOcr2ImageProcessorPil(
        size={"height": size, "width": size}, image_mean=half, image_std=half, max_patches=6
    )
    return AyaVisionProcessor(
        images,
        tokenizer,
        patch_size=patch_size,
        downsample_factor=_DOWNSAMPLE,
        img_size=size,
        image_token=SPECIAL["context_image_token"],
        img_patch_token=SPECIAL["context_image_token"],
        start_of_img_token=SPECIAL["start_image_token"],
        end_of_img_token=SPECIAL["end_image_token"],
        tile_token="",
        tile_global_token="",
        chat_template=CHAT_TEMPLATE,
    )


def save_processor(processor: AyaVisionProcessor, folder: Path) -> None:
    """Write processor, tokenizer and chat template so that `InternVLProcessor` too reads them, to the same effect."""
    processor.save_pretrained(folder)
    path = folder / "processor_config.json"
    tokens = (processor.img_size // processor.patch_size) ** 2
    settings = json.loads(path.read_text()) | {"image_seq_length": tokens}
    path.write_text(json.dumps(settings, indent=2, sort_keys=True) + "\n")


def make_config(tokenizer: PreTrainedTokenizerFast) -> InternVLConfig:
    """About 0.9 million parameters: a vision tower of three layers, width 64; a Qwen2 of four layers, width 128."""
    pad, end, image = (
        _token_id(tokenizer, SPECIAL[name]) for name in ("pad_token", "eos_token", "context_image_token")
    )
    text = Qwen2Config(
        vocab_size=len(tokenizer),
        hidden_size=128,
        intermediate_size=256,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=4,
        max_position_embeddings=2048,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=end,
        pad_token_id=pad,
    )
    vision = InternVLVisionConfig(
        hidden_size=64,
        num_hidden_layers=3,
        num_attention_heads=4,
        intermediate_size=128,
        image_size=[SIZE, SIZE],
        patch_size=[_PATCH, _PATCH],
        attention_bias=True,
        layer_scale_init_value=1.0,
    )
    return InternVLConfig(
        text_config=text,
        vision_config=vision,
        image_token_id=image,
        image_seq_length=_IMAGE_TOKENS,
        downsample_ratio=1 / _DOWNSAMPLE,
        tie_word_embeddings=True,
    )


def _token_id(tokenizer: PreTrainedTokenizerFast, token: str) -> int:
    return tokenizer.get_vocab()[token]
