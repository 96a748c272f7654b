"""Dense targets: captions and solutions, what the base learns from first and what stays beside +/- labels later.

A reader of +/- alone never learns to look at the image (one bit per step, and shortcuts abound); a caption names every
number of the image, token by token. Keep a batch of these beside the labelled chains while the verdict is learned.
"""

from __future__ import annotations

import io
import random
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from dreamprm.world.mistakes import Carelessness, careless_solution
from dreamprm.world.questions import DOMAINS, sample_question
from dreamprm.world.scene import STYLES, caption, draw, sample_scene
from dreamprm.world.tasks import Solution

__all__ = ["DESCRIBE", "DenseExample", "dense_batch", "dense_examples", "dense_loss"]

DESCRIBE = "describe"
_IGNORED = -100


@dataclass(frozen=True, slots=True)
class DenseExample:
    """An image (PNG bytes) and a conversation about it: turns of (the user's words, the words to learn)."""

    image: bytes
    turns: tuple[tuple[str, str], ...]


def dense_examples(
    seed: int = 0,
    *,
    captions: float = 0.25,
    careless: Carelessness | None = None,
    domains: Sequence[str] = tuple(DOMAINS),
    splits: Iterable[str] = ("train", "cold"),
) -> Iterator[DenseExample]:
    """An endless stream, the same for the same seed.

    A share `captions` are captions alone, of random scenes with one to four things in any style; the rest are solutions
    of questions of `splits` (the true ones, or careless ones where rates are given) with the image's caption after
    them, so that each image is used twice.
    """
    if not 0.0 <= captions <= 1.0:
        raise ValueError(f"captions is a share in [0, 1], not {captions}")
    rng = random.Random(f"dense {seed}")
    wanted = tuple(splits)
    while True:
        if rng.random() < captions:
            scene = sample_scene(rng.choice(STYLES), rng.randint(1, 4), rng)
            yield DenseExample(draw(scene), ((DESCRIBE, caption(scene)),))
            continue
        question = sample_question(rng.choice(domains), rng, wanted)
        solution = question.solution if careless is None else careless_solution(question, careless, rng)
        turns = (question.text, response_text(solution)), (DESCRIBE, caption(question.scene))
        yield DenseExample(draw(question.scene), turns)


def response_text(solution: Solution) -> str:
    """A solution as the policy writes it: one step a line."""
    return "\n".join(step.text for step in solution)


def dense_batch(processor: Any, examples: Sequence[DenseExample]) -> dict[str, Tensor]:
    """What the model's forward takes, right-padded, with `labels` (-100 wherever there is nothing to learn): every
    assistant turn and the token that ends it."""
    inputs = processor(
        text=[processor.apply_chat_template(_messages(example), tokenize=False) for example in examples],
        images=[[Image.open(io.BytesIO(example.image))] for example in examples],
        padding=True,
        padding_side="right",
        return_tensors="pt",
        add_special_tokens=False,
    )
    ids: Tensor = inputs["input_ids"]  # (B, T)
    opens = (ids == processor.tokenizer.assistant_token_id).long()
    ends = (ids == processor.tokenizer.eos_token_id).long()
    # A token is learned from the one after `<assistant>` to the `<end>` that closes it.
    learned = (opens.cumsum(dim=1) - opens) > (ends.cumsum(dim=1) - ends)
    return {**inputs, "labels": torch.where(learned, ids, _IGNORED)}


def _messages(example: DenseExample) -> list[dict[str, Any]]:
    messages: list[dict[str, Any]] = []
    for place, (prompt, target) in enumerate(example.turns):
        images = [{"type": "image"}] if place == 0 else []
        messages.append({"role": "user", "content": [*images, {"type": "text", "text": prompt}]})
        messages.append({"role": "assistant", "content": [{"type": "text", "text": target}]})
    return messages


def dense_loss(model: torch.nn.Module, batch: dict[str, Tensor]) -> Tensor:
    """Mean next-token cross-entropy over the tokens to learn; a scalar."""
    inputs = {name: value for name, value in batch.items() if name != "labels"}
    hidden = model.get_submodule("model")(**inputs).last_hidden_state[:, :-1]  # (B, T-1, H)
    labels = batch["labels"][:, 1:]
    learned = labels != _IGNORED
    logits = model.get_submodule("lm_head")(hidden[learned])  # (tokens to learn, V)
    return torch.nn.functional.cross_entropy(logits.float(), labels[learned])
