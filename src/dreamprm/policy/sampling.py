"""Batched sampling of responses from any image-text-to-text model of transformers."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from dreamprm.data.readers.images import ImageError, load_image
from dreamprm.data.record import IMAGE_PLACE, Image, RecordError
from dreamprm.setting import Settings, setting

__all__ = ["Policy", "PolicyConfig", "Prefix"]


@dataclass(frozen=True, slots=True)
class Prefix:
    """What the policy goes on from: a question, its images, and the response so far (empty: from the start).

    The response so far is continued word for word, so it ends where the next step begins (after a line break, say).
    """

    question: str
    images: tuple[Image, ...] = ()
    response: str = ""


@dataclass
class PolicyConfig(Settings):
    """The model that writes chains."""

    path: str = setting("world", "world: the shipped tiny InternVL; a folder; a hub name")
    temperature: float = setting(1.0, "logits are divided by it; 0 takes the likeliest token", least=0, most=1000)
    top_p: float = setting(1.0, "smallest set of tokens that holds this probability", above=0, most=1)
    max_new_tokens: int = setting(512, "a response is cut there", least=1)
    batch_size: int = setting(64, "responses sampled at once", least=1)
    system: str | None = setting(None, "a system turn")


@dataclass(slots=True)
class Policy:
    """A model with its processor, and how to sample from it.

    temperature: logits are divided by it; 0 takes the likeliest token.  top_p: smallest set of tokens that holds this
    probability.  batch_size: responses sampled at once; the responses of a seed depend on it.  system: a system turn.
    max_new_tokens: a response that reaches it is cut there.
    """

    model: Any
    processor: Any
    temperature: float = PolicyConfig.temperature
    top_p: float = PolicyConfig.top_p
    max_new_tokens: int = PolicyConfig.max_new_tokens
    batch_size: int = PolicyConfig.batch_size
    system: str | None = PolicyConfig.system
    progress: Callable[[int, int], None] | None = None

    def __post_init__(self) -> None:
        if not 0.0 <= self.temperature < math.inf:
            raise ValueError(f"temperature is {self.temperature}; it must be a number of 0 or more")
        if not 0.0 < self.top_p <= 1.0:
            raise ValueError(f"top_p is {self.top_p}; it must lie in (0, 1]")
        for name in ("max_new_tokens", "batch_size"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be at least 1")

    def sample(self, prefixes: Sequence[Prefix], num: int = 1, *, seed: int = 0) -> list[list[str]]:
        """`num` whole responses (prefix and continuation) for each prefix; the same for the same seed and batch size.

        The global random state of torch is left as it was. Prompts of similar length share a batch, padded on the left.
        """
        if num < 1:
            raise ValueError(f"num is {num}; at least one response per prefix can be sampled")
        texts = [self._render(prefix) for prefix in prefixes]
        jobs = [row for row in range(len(prefixes)) for _ in range(num)]
        jobs.sort(key=lambda row: len(texts[row]))  # stable: a question's samples stay together
        found: list[list[str]] = [[] for _ in prefixes]
        devices = [self.model.device] if self.model.device.type == "cuda" else []
        with torch.random.fork_rng(devices=devices):
            torch.manual_seed(seed)
            for start in range(0, len(jobs), self.batch_size):
                rows = jobs[start : start + self.batch_size]
                for row, text in zip(
                    rows, self._generate([prefixes[row] for row in rows], [texts[row] for row in rows])
                ):
                    found[row].append(prefixes[row].response + text)
                if self.progress is not None:
                    self.progress(min(start + self.batch_size, len(jobs)), len(jobs))
        return found

    def _render(self, prefix: Prefix) -> str:
        messages: list[dict[str, Any]] = []
        if self.system is not None:
            messages.append({"role": "system", "content": [{"type": "text", "text": self.system}]})
        messages.append({"role": "user", "content": _content(prefix.question, len(prefix.images))})
        prompt = self.processor.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
        return prompt + prefix.response

    def _generate(self, prefixes: Sequence[Prefix], texts: Sequence[str]) -> list[str]:
        inputs = self.encode(prefixes, texts)
        output = self.generate(inputs, self.max_new_tokens)
        return self.processor.tokenizer.batch_decode(
            output[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True
        )

    def encode(self, prefixes: Sequence[Prefix], texts: Sequence[str] | None = None) -> Any:
        """The model's inputs for the prefixes, padded on the left."""
        texts = [self._render(prefix) for prefix in prefixes] if texts is None else texts
        images = [[_open(image, prefix.question) for image in prefix.images] for prefix in prefixes]
        bos = self.processor.tokenizer.bos_token
        return self.processor(
            text=list(texts),
            images=images if any(images) else None,
            padding=True,
            padding_side="left",
            return_tensors="pt",
            add_special_tokens=not (bos and texts[0].startswith(bos)),
        ).to(self.model.device)

    @torch.no_grad()
    def generate(self, inputs: Any, limit: int, **more: Any) -> torch.Tensor:
        """Tokens of inputs and of at most `limit` more, drawn as the settings say; more: for transformers' generate."""
        sampling = self.temperature > 0
        options = {"temperature": self.temperature, "top_p": self.top_p, "top_k": 0} if sampling else {}
        was_training = self.model.training
        self.model.eval()
        try:
            return self.model.generate(
                **inputs,
                do_sample=sampling,
                max_new_tokens=limit,
                pad_token_id=self.processor.tokenizer.pad_token_id,
                **options,
                **more,
            )
        finally:
            self.model.train(was_training)


def _content(question: str, num_images: int) -> list[dict[str, str]]:
    """The question with its images before it, or each at its place in it, as the PRM reads it too."""
    image = {"type": "image"}
    if not num_images or question.count(IMAGE_PLACE) != num_images:
        return [*([image] * num_images), {"type": "text", "text": question}]
    first, *others = ({"type": "text", "text": piece} for piece in question.split(IMAGE_PLACE))
    pieces = [first, *(piece for text in others for piece in (image, text))]
    return [piece for piece in pieces if piece.get("text") != ""]


def _open(image: Image, question: str) -> Any:
    try:
        return load_image(image)
    except ImageError as error:
        raise RecordError(str(error), source=f"question {question[:60]!r}", field="images") from None
