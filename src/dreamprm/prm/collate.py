"""Records to batches: the processor's own prompt and images, step positions by token, padding on either side.

Shapes: B examples, T tokens, S steps of the longest chain of the batch.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from dreamprm.data.readers.images import MAX_PIXELS, ImageError, load_image
from dreamprm.data.record import Image, Record, RecordError
from dreamprm.prm.families import row_examples
from dreamprm.prm.feature_cache import content_name
from dreamprm.prm.prompt import Prompt, Rendered, render, tokenizer_of
from dreamprm.prm.tokens import locate, special_tokens_option

__all__ = ["Batch", "Collator", "Encoded"]


@dataclass(frozen=True, slots=True)
class Batch:
    """What a PRM, a loss and a weigher read.

    inputs: the model's own arguments (input_ids, attention_mask, pixel_values …).
    step_positions: the token whose output judges the step.  labels: probability that the step is right, 0 where
    `label_mask` is false.  correct: 1 or 0 for the chain's final answer, NaN where it is not known.
    index: the example's row in its data set (-1 where it has none).  domain: -1 where domains are not in use.
    row_examples: module-name prefix -> example of each leading row of that module's input (see prm/rows.py).
    encoded: the examples one by one, as the processor gave them, on the CPU.
    """

    inputs: dict[str, Tensor]
    step_positions: Int[Tensor, "B S"]
    step_mask: Bool[Tensor, "B S"]
    labels: Float[Tensor, "B S"]
    label_mask: Bool[Tensor, "B S"]
    correct: Float[Tensor, " B"]
    index: Int[Tensor, " B"]
    domain: Int[Tensor, " B"]
    keys: list[str]
    row_examples: dict[str, Tensor] = field(default_factory=dict)
    encoded: Sequence[Encoded] = ()

    def __len__(self) -> int:
        return len(self.keys)

    def to(self, device: torch.device | str, *, non_blocking: bool = False) -> Batch:
        """The same batch with every tensor on the device."""
        return self._with(lambda value: value.to(device, non_blocking=non_blocking))

    def pinned(self) -> Batch:
        """The same batch in memory that a GPU reads by itself, so that it can be moved while the GPU computes."""
        return self._with(lambda value: value.pin_memory())

    def _with(self, change: Callable[[Tensor], Tensor]) -> Batch:
        def changed(value: Any) -> Any:
            if isinstance(value, dict):
                return {name: changed(entry) for name, entry in value.items()}
            return change(value) if isinstance(value, Tensor) else value

        return replace(self, **{entry.name: changed(getattr(self, entry.name)) for entry in fields(self)})


@dataclass(frozen=True, slots=True)
class Encoded:
    """One chain after the processor: per-token rows, everything else the processor gave, and the judged tokens."""

    sequences: dict[str, Tensor]
    stacks: dict[str, Tensor]
    positions: list[int]
    _name: list[str] = field(default_factory=list, repr=False, compare=False)

    @property
    def name(self) -> str:
        """A name for what the model reads and where it is judged, to the last bit; computed once."""
        if not self._name:
            parts = sorted({**self.sequences, **self.stacks}.items())
            note = f"{[name for name, _ in parts]} {self.positions}"
            self._name.append(content_name(*(value for _, value in parts), note=note))
        return self._name[0]


@dataclass(slots=True)
class Collator:
    """Makes a `Batch` of a list of records, or of (row, record) pairs where the row matters (instance table).

    processor: the model's processor, or its tokenizer for a text-only model.
    domains: the domain vocabulary; a record of another domain is an error. None: domains are not used.
    max_length: tokens allowed, image tokens included; a longer chain is an error that names it, never cut.
    max_image_side: images are shrunk so that their longest side fits.  padding_side: scores do not depend on it.
    images_kwargs: what the image processor is called with (e.g. max_patches), the same in training and at test.
    cache: number of encoded chains kept in memory; 0 encodes anew each time.
    """

    processor: Any
    prompt: Prompt = field(default_factory=Prompt)
    domains: Sequence[str] | None = None
    max_length: int | None = None
    max_image_side: int | None = None
    max_image_pixels: int = MAX_PIXELS
    padding_side: str = "right"
    images_kwargs: Mapping[str, Any] = field(default_factory=dict)
    cache: int = 0
    _domain_index: dict[str, int] = field(init=False, repr=False)
    _cached: OrderedDict[tuple[Any, ...], Encoded] = field(init=False, repr=False, default_factory=OrderedDict)

    def __post_init__(self) -> None:
        if self.padding_side not in ("left", "right"):
            raise ValueError(f"padding_side is {self.padding_side!r}; allowed are 'left' and 'right'")
        for name in ("max_length", "max_image_side"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name} is {value}; it must be at least 1, or None for no limit")
        if self.domains is not None and len(set(self.domains)) != len(self.domains):
            raise ValueError(f"domains must not repeat: {list(self.domains)}")
        self._domain_index = {name: index for index, name in enumerate(self.domains or ())}

    def __call__(self, records: Sequence[Record] | Sequence[tuple[int, Record]]) -> Batch:
        rows = [item[0] if isinstance(item, tuple) else -1 for item in records]
        chains = [item[1] if isinstance(item, tuple) else item for item in records]
        return self.batch(rows, chains, [self.encode(record) for record in chains])

    def batch(self, rows: Sequence[int], chains: Sequence[Record], encoded: Sequence[Encoded]) -> Batch:
        """The batch of these records, which lie in these rows and are encoded already."""
        if not encoded:
            raise ValueError("a batch needs at least one record")
        lengths = [len(item.sequences["input_ids"]) for item in encoded]
        inputs = self.join(encoded)
        left = self.padding_side == "left"
        offsets = [max(lengths) - length if left else 0 for length in lengths]
        num_steps = max(len(record.steps) for record in chains)
        labels = [[*record.labels] + [None] * (num_steps - len(record.labels)) for record in chains]
        return Batch(
            inputs=inputs,
            step_positions=torch.tensor(
                [
                    [position + offset for position in item.positions] + [0] * (num_steps - len(item.positions))
                    for item, offset in zip(encoded, offsets)
                ]
            ),
            step_mask=torch.tensor([[step < len(record.steps) for step in range(num_steps)] for record in chains]),
            labels=torch.tensor([[0.0 if label is None else float(label) for label in row] for row in labels]),
            label_mask=torch.tensor([[label is not None for label in row] for row in labels]),
            correct=torch.tensor([math.nan if r.correct is None else float(r.correct) for r in chains]),
            index=torch.tensor(rows),
            domain=torch.tensor([self._domain(record) for record in chains]),
            keys=[record.key for record in chains],
            row_examples=row_examples(self.processor, [item.stacks for item in encoded]),
            encoded=encoded,
        )

    def fits(self, record: Record) -> bool:
        """Whether a record has at most `max_length` tokens, image tokens included."""
        anyway = replace(self, max_length=None)
        return self.max_length is None or len(anyway._encode(record).sequences["input_ids"]) <= self.max_length

    def refuse_longer(self, record: Record, num_tokens: int) -> None:
        """Raises RecordError for a chain of more than `max_length` tokens."""
        if self.max_length is not None and num_tokens > self.max_length:
            raise RecordError(
                f"{num_tokens} tokens in {len(record.steps)} steps and {len(record.images)} images; max_length allows "
                f"{self.max_length}. Raise max_length, allow fewer tiles per image, or drop the record",
                source=f"record {record.key!r}",
            )

    def render(self, record: Record) -> Rendered:
        """The exact prompt of a record; `.marked()` brackets the places where its steps are judged."""
        given = (self.prompt, self.processor, record.question, record.steps, len(record.images))
        try:
            return render(*given, breaks=record.extra.get("breaks", ()))
        except RecordError as error:
            raise RecordError(error.reason, source=f"record {record.key!r}", field=error.field) from None

    def _domain(self, record: Record) -> int:
        if self.domains is None:
            return -1
        if record.domain not in self._domain_index:
            raise RecordError(
                f"{record.domain!r} is not one of the domains in use: {', '.join(self._domain_index)}; "
                "add it to the training data, or drop the record",
                source=f"record {record.key!r}",
                field="domain",
            )
        return self._domain_index[record.domain]

    def encode(self, record: Record) -> Encoded:
        """One chain after the processor, from the cache where there is one."""
        item = self.kept(record) or self._encode(record)
        self.keep(record, item)
        return item

    def kept(self, record: Record) -> Encoded | None:
        """A chain that the cache holds. It may be asked from another thread."""
        return self._cached.get((record.key, record.question, record.steps, record.images)) if self.cache else None

    def keep(self, record: Record, item: Encoded) -> None:
        """Hold an encoded chain, and drop the one that was longest not used where there are too many."""
        if self.cache:
            name = (record.key, record.question, record.steps, record.images)
            self._cached[name] = item
            self._cached.move_to_end(name)
        if len(self._cached) > self.cache:
            self._cached.popitem(last=False)

    def _encode(self, record: Record) -> Encoded:
        where = f"record {record.key!r}"
        rendered = self.render(record)
        tokenizer = tokenizer_of(self.processor)
        try:
            located = locate(tokenizer, rendered, self.prompt.layout)
            images = [self._open(image) for image in record.images]
        except RecordError as error:
            raise RecordError(error.reason, source=where, field=error.field) from None
        whole = self.encode_text(rendered.text, images, where)
        ids = whole.sequences["input_ids"]
        grown = len(ids) - len(located.ids)
        # Images stand in the first turn only, so their expansion shifts every judged token by the same amount; the
        # tokens from the first step's mark on must therefore be the same with and without the images.
        if ids[located.positions[0] + grown :].tolist() != located.ids[located.positions[0] :]:
            raise RecordError(
                "the processor changes the text after the first step, so its steps cannot be found", source=where
            )
        self.refuse_longer(record, len(ids))
        return replace(whole, positions=[position + grown for position in located.positions])

    def encode_text(self, text: str, images: list[Any], where: str = "") -> Encoded:
        """A prompt as the model reads it, images opened; without judged tokens. where: what errors name."""
        given = self._process(text, images, tokenizer_of(self.processor), where)
        ids = given["input_ids"][0]
        sequences = {k: v[0] for k, v in given.items() if isinstance(v, Tensor) and v.shape == given["input_ids"].shape}
        stacks = {k: v for k, v in given.items() if isinstance(v, Tensor) and k not in sequences}
        sequences.setdefault("attention_mask", torch.ones_like(ids))
        return Encoded(sequences, stacks, [])

    def _process(self, text: str, images: list[Any], tokenizer: Any, where: str) -> dict[str, Any]:
        options: dict[str, Any] = {"return_tensors": "pt", **special_tokens_option(tokenizer, text)}
        if self.processor is tokenizer:
            if images:
                raise RecordError(
                    "this model reads text only; use a multimodal model, or records without images",
                    source=where,
                    field="images",
                )
            return dict(tokenizer(text, verbose=False, **options))
        if images and self.images_kwargs:
            options["images_kwargs"] = dict(self.images_kwargs)
        try:
            return dict(self.processor(text=[text], images=[images] if images else None, **options))
        except (ValueError, ZeroDivisionError) as error:  # sides of more than 200 to 1, say
            if not images:
                raise
            sizes = ", ".join(f"{image.width} x {image.height}" for image in images)
            reason = f"the processor refuses the images ({sizes} pixels): {str(error)[:200]}"
            raise RecordError(reason, source=where, field="images") from None

    def _open(self, image: Image) -> Any:
        try:
            return load_image(image, max_pixels=self.max_image_pixels, max_side=self.max_image_side)
        except ImageError as error:
            raise RecordError(str(error), field="images") from None

    def join(self, encoded: Sequence[Encoded]) -> dict[str, Tensor]:
        """The model's arguments for several chains: tokens padded to the longest, images one after another."""
        length = max(len(item.sequences["input_ids"]) for item in encoded)
        return self._pad_sequences(encoded, length) | _join_stacks([item.stacks for item in encoded])

    def _pad_sequences(self, encoded: Sequence[Encoded], length: int) -> dict[str, Tensor]:
        pad_token = tokenizer_of(self.processor).pad_token_id
        fill = {"input_ids": 0 if pad_token is None else pad_token}
        padded = {}
        for name in encoded[0].sequences:
            rows = [item.sequences[name] for item in encoded]
            sides = [(length - len(row), 0) if self.padding_side == "left" else (0, length - len(row)) for row in rows]
            value = fill.get(name, 0)
            padded[name] = torch.stack([torch.nn.functional.pad(*both, value=value) for both in zip(rows, sides)])
        return padded


def _join_stacks(stacks: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """Concatenates along the rows; where images differ in their number of tiles, the missing tiles are zeros."""
    joined = {}
    for name in dict.fromkeys(name for stack in stacks for name in stack):
        parts = [stack[name] for stack in stacks if name in stack]
        if len({part.shape[1:2] for part in parts}) > 1:
            width = max(part.shape[1] for part in parts)
            parts = [
                torch.nn.functional.pad(part, [0, 0] * (part.ndim - 2) + [0, width - part.shape[1]]) for part in parts
            ]
        joined[name] = torch.cat(parts)
    return joined
