"""vLLM's request `/pooling` as prompts for the model, and the numbers at every token as vLLM answers them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor

from dreamprm.choices import HeadKind
from dreamprm.data.readers.images import load_image
from dreamprm.data.record import RecordError
from dreamprm.prm import PRM, Collator
from dreamprm.prm.collate import Encoded
from dreamprm.serve.jobs import Refused, TokenJob, encode_ids
from dreamprm.serve.requests import ImagePart, Message, PoolingRequest, image_bytes

__all__ = ["answer_of", "pooling_job"]


def pooling_job(prm: PRM, request: PoolingRequest, max_pixels: int, max_images: int) -> TokenJob:
    """What the worker is to read. Raises Refused."""
    if (request.input is None) == (request.messages is None):
        raise Refused("give input or messages, one of the two")
    two_classes = prm.kind is HeadKind.token_classification and prm.transformer.config.num_labels == 2
    if request.use_activation is False and two_classes:
        raise Refused("use_activation=false: the classes of a two-class model are given as probabilities only")
    if request.add_generation_prompt:
        raise Refused("add_generation_prompt: a chain that is judged has no turn to come")
    images_kwargs = prm.collation.get("images_kwargs", {})
    if request.mm_processor_kwargs is not None and request.mm_processor_kwargs != images_kwargs:
        raise Refused(f"mm_processor_kwargs: this PRM reads images by {images_kwargs}, as it was trained")
    if request.messages is not None:
        if request.add_special_tokens:
            raise Refused("add_special_tokens: the chat template writes them")
        return TokenJob(1, _from_messages(request.messages, max_pixels, max_images))
    return _from_input(prm, request)


def _from_input(prm: PRM, request: PoolingRequest) -> TokenJob:
    given: Any = request.input
    if isinstance(given, str) or isinstance(given[0], str):
        if request.add_special_tokens is False:
            raise Refused("add_special_tokens=false: send token ids to decide on every token")
        texts = [given] if isinstance(given, str) else given
        if not all(texts):
            raise Refused("input: a text is empty")
        return TokenJob(len(texts), lambda collate: [collate.encode_text(text, []) for text in texts])
    prompts = [given] if isinstance(given[0], int) else given
    size = prm.transformer.get_input_embeddings().num_embeddings
    config = prm.transformer.config
    images = {getattr(config, name, None) for name in ("image_token_id", "image_token_index", "video_token_id")}
    for row, ids in enumerate(prompts):
        if max(ids) >= size:
            raise Refused(f"input[{row}]: token {max(ids)} is not in the vocabulary of {size}")
        if images & set(ids):
            raise Refused(f"input[{row}]: holds an image's token but no image; send images by messages")
    return TokenJob(len(prompts), lambda collate: [encode_ids(ids) for ids in prompts])


def _from_messages(messages: list[Message], max_pixels: int, max_images: int) -> Callable[[Collator], list[Encoded]]:
    images: list[bytes] = []
    turns: list[dict[str, Any]] = []
    for place, message in enumerate(messages):
        if isinstance(message.content, str):
            turns.append({"role": message.role, "content": message.content})
            continue
        parts: list[dict[str, str]] = []
        for part in message.content:
            if isinstance(part, ImagePart):
                images.append(image_bytes(part.image_url.url, max_pixels, f"messages[{place}]"))
                parts.append({"type": "image"})
            else:
                parts.append({"type": "text", "text": part.text})
        turns.append({"role": message.role, "content": parts})
    if len(images) > max_images:
        raise Refused(f"{len(images)} images; this server allows {max_images}")

    def prepare(collate: Collator) -> list[Encoded]:
        if getattr(collate.processor, "chat_template", None) is None:
            raise Refused("messages: this model has no chat template; send token ids")
        text = collate.processor.apply_chat_template(turns, tokenize=False, add_generation_prompt=False)
        opened = [load_image(image, max_pixels=max_pixels, max_side=collate.max_image_side) for image in images]
        try:
            return [collate.encode_text(text, opened)]
        except RecordError as error:
            raise Refused(error.reason) from None

    return prepare


def answer_of(log_odds: Float[Tensor, " T"], use_activation: bool | None, right_class: int | None) -> list[list[float]]:
    """One row per token: [P(right)], or of two classes both; without activation the log-odds."""
    if use_activation is False:
        return rearrange(log_odds, "t -> t 1").tolist()
    right = log_odds.sigmoid()
    if right_class is None:
        return rearrange(right, "t -> t 1").tolist()
    columns = [-log_odds, log_odds] if right_class == 1 else [log_odds, -log_odds]
    return torch.stack([column.sigmoid() for column in columns], 1).tolist()
