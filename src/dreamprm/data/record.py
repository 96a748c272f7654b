"""The one record that every reader yields: a question, its images, and one chain of steps with what is known of it."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

__all__ = ["IMAGE_PLACE", "Image", "Record", "RecordError", "content_key"]

Image = Path | bytes
"""An image is a path that was checked to lie below its root, or the encoded bytes of a file (PNG, JPEG, …)."""


IMAGE_PLACE = "<image>"
"""Where a question's text holds it once per image, each image stands at its place; otherwise all stand before it."""


class RecordError(ValueError):
    """A row that cannot become a record; says where it stands, which field is wrong, and what is allowed."""

    def __init__(self, reason: str, *, source: str = "", row: int | None = None, field: str = "") -> None:
        self.reason, self.source, self.row, self.field = reason, source, row, field
        where = ", ".join(part for part in (source, "" if row is None else f"row {row}", field) if part)
        super().__init__(f"{where}: {reason}" if where else reason)


@dataclass(frozen=True, slots=True)
class Record:
    """One chain.

    key: unique and stable name of the example (file, row, content hash): the instance table's index.
    source: the file or collection it came from.  domain: the domain table's index.
    group: name of the question; splits are disjoint in it.
    labels: one per step, the probability that the step is right in [0, 1] (a hard label is 0 or 1);
        None where a step has no label.  An empty tuple where the chain has no step labels at all.
    correct: whether the chain's final answer is right (the outer problem's target), None if not known.
    answer: the chain's own final answer, for voting; reference: the right answer.
    extra: what a reader knows besides (policy model, Monte-Carlo counts, subject …).
    truth: what only an evaluation may read (the embedded world's true labels and quality); training never does.
    """

    key: str
    source: str
    domain: str
    group: str
    question: str
    steps: tuple[str, ...]
    images: tuple[Image, ...] = ()
    labels: tuple[float | None, ...] = ()
    correct: bool | None = None
    answer: str | None = None
    reference: str | None = None
    extra: Mapping[str, Any] = field(default_factory=dict)
    truth: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        def fail(reason: str, name: str) -> None:
            raise RecordError(reason, source=self.source, field=name)

        for name in ("key", "source", "domain", "group", "question"):
            if not isinstance(getattr(self, name), str):
                fail(f"must be a string, is {_kind(getattr(self, name))}", name)
        if not self.key:
            fail("must not be empty", "key")
        if not self.question.strip() and not self.images:
            fail("must hold text where there is no image", "question")
        for index, image in enumerate(self.images):
            if not isinstance(image, (Path, bytes)):
                fail(
                    f"image {index} must be a Path or encoded bytes (as_images makes them), is {_kind(image)}", "images"
                )
        for index, step in enumerate(self.steps):
            if not isinstance(step, str) or not step.strip():
                fail(f"step {index} must be a string with text", "steps")
        if self.labels and len(self.labels) != len(self.steps):
            fail(f"{len(self.labels)} labels for {len(self.steps)} steps; give one per step, or none", "labels")
        for index, label in enumerate(self.labels):
            if label is None:
                continue
            if isinstance(label, bool) or not isinstance(label, (int, float)) or math.isnan(min(label, 2)):
                fail(f"label {index} must be a finite number in [0, 1], is {label!r:.40}", "labels")
            if not 0.0 <= label <= 1.0:
                fail(f"label {index} must lie in [0, 1], is {label!r:.40}", "labels")
        if self.correct is not None and not isinstance(self.correct, bool):
            fail(f"must be true, false or absent, is {self.correct!r}", "correct")


def _kind(value: object) -> str:
    return type(value).__name__


def content_key(source: str, row: int, *parts: str) -> str:
    """A key that is stable while the file's row keeps its content: `source:row:hash`."""
    digest = hashlib.blake2b("\x1f".join(parts).encode("utf-8", "surrogatepass"), digest_size=6).hexdigest()
    return f"{source}:{row}:{digest}"
