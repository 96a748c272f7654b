"""What of a model a checkpoint does not hold, in a few digests: a resumed run can tell that it is still the same."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Any

import torch

from dreamprm.prm.prompt import tokenizer_of

if TYPE_CHECKING:
    from dreamprm.prm.model import PRM

__all__ = ["model_digests"]

_SAMPLED = 2**16
"""Values of a tensor that are looked at: another model differs in nearly all of them."""


def model_digests(prm: PRM) -> dict[str, str]:
    """`frozen parameters` (names, shapes, at most 65,536 values of each), `tokenizer` (its file and its chat
    template), `image processor` (its settings)."""
    processor = prm.processor
    tokenizer = tokenizer_of(processor)
    backend = getattr(tokenizer, "backend_tokenizer", None)
    words = tokenizer.get_vocab() if backend is None else backend.to_str()
    templates = [getattr(one, "chat_template", None) for one in (processor, tokenizer)]
    images: Any = getattr(processor, "image_processor", None)
    return {
        "frozen parameters": _frozen(prm),
        "tokenizer": _hash(words, templates),
        "image processor": _hash("" if images is None else images.to_json_string()),
    }


@torch.no_grad()
def _frozen(prm: PRM) -> str:
    digest = hashlib.blake2b(digest_size=16)
    for name, value in prm.named_parameters():
        if value.requires_grad or value.is_meta:
            continue
        digest.update(f"{name} {tuple(value.shape)} {value.dtype}".encode())
        flat = value.detach().reshape(-1)
        sampled = flat[:: max(1, len(flat) // _SAMPLED)].cpu().contiguous()
        digest.update(sampled.view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _hash(*facts: Any) -> str:
    return hashlib.blake2b(json.dumps(facts, sort_keys=True).encode(), digest_size=16).hexdigest()
