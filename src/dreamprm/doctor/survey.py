"""One pass over a data set that counts what a trainer must know; memory grows by bytes per row, never by texts."""

from __future__ import annotations

import hashlib
import heapq
import re
from array import array
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dreamprm.data.answer_text import is_bare_answer
from dreamprm.data.file_data import FilePlace
from dreamprm.data.readers import BadRows, ImageError, load_image
from dreamprm.data.readers.locate import parts
from dreamprm.data.readers.parse import parse_row
from dreamprm.data.readers.text import fingerprint
from dreamprm.data.record import Image, Record, RecordError
from dreamprm.doctor.digits import digits_at_risk, digits_lost

__all__ = ["EXTREME", "Survey", "survey"]

EXTREME = 200
"""The ratio of an image's sides from which processors refuse it (Qwen-VL's smart_resize does)."""

_SPECIAL = re.compile(r"<\|[A-Za-z_]{2,30}\|>|</?(?:IMG_CONTEXT|img|image|s|bos|eos|pad)>|\[/?INST\]")
_EXAMPLES = 5


def _hash(*parts: str) -> int:
    digest = hashlib.blake2b("\x1f".join(parts).encode("utf-8", "surrogatepass"), digest_size=8)
    return int.from_bytes(digest.digest(), "little")


@dataclass
class Survey:
    """Counts of one data set. `features` and `right` are aligned: one entry per chain whose final answer was judged."""

    files: list[str] = field(default_factory=list)
    formats: list[str] = field(default_factory=list)
    rows: int = 0
    records: int = 0
    bad: BadRows = field(default_factory=lambda: BadRows("skip"))
    domains: Counter[str] = field(default_factory=Counter)
    groups: dict[int, list[int]] = field(default_factory=dict)  # group -> [chains, right, wrong]
    questions: dict[int, int] = field(default_factory=dict)  # words of the question -> one of its groups
    asked: dict[int, str] = field(default_factory=dict)  # the beginnings of the first 20,000 questions
    split_questions: int = 0  # questions whose words stand under several groups
    ids: Counter[str] = field(default_factory=Counter)
    contents: set[int] = field(default_factory=set)
    duplicates: int = 0
    num_steps: Counter[int] = field(default_factory=Counter)
    bare_answers: int = 0
    positive: int = 0
    negative: int = 0
    soft: int = 0
    unlabelled: int = 0
    labelled_chains: int = 0
    verdicts: Counter[str] = field(default_factory=Counter)
    verdict_chains_wrong: int = 0
    rows_losing_digits: int = 0
    rows_risking_digits: int = 0
    special: Counter[str] = field(default_factory=Counter)
    longest: int = 0
    images: int = 0
    images_checked: int = 0
    images_missing: int = 0
    images_broken: int = 0
    images_extreme: int = 0
    features: dict[str, array[float]] = field(default_factory=dict)
    right: array[int] = field(default_factory=lambda: array("b"))
    policies: dict[str, list[int]] = field(default_factory=dict)  # policy -> [right, wrong]
    step_place: array[float] = field(default_factory=lambda: array("f"))
    step_right: array[int] = field(default_factory=lambda: array("b"))
    examples: dict[str, list[str]] = field(default_factory=dict)

    def example(self, kind: str, text: str) -> None:
        kept = self.examples.setdefault(kind, [])
        if len(kept) < _EXAMPLES:
            kept.append(text)


def _count_labels(found: Survey, record: Record) -> None:
    known = [label for label in record.labels if label is not None]
    found.labelled_chains += bool(known)
    found.unlabelled += len(record.steps) - len(known)
    for place, label in enumerate(record.labels):
        if label is None:
            continue
        found.positive += label >= 0.5
        found.negative += label < 0.5
        found.soft += label not in (0.0, 1.0)
        found.step_place.append(place)
        found.step_right.append(label >= 0.5)
    verdicts = record.extra.get("verdicts")
    if verdicts:
        found.verdicts.update("+" if verdict else "-" for verdict in verdicts)
        if record.correct is False and all(verdicts):
            found.verdict_chains_wrong += 1
            found.example("placeholder", record.key)


def _count_outcome(found: Survey, record: Record) -> None:
    group = found.groups.setdefault(_hash(record.group), [0, 0, 0])
    group[0] += 1
    if record.correct is None:
        return
    group[1 if record.correct else 2] += 1
    found.right.append(record.correct)
    bare = len(record.steps) == 1 and is_bare_answer(record.steps[0])
    values = {
        "has steps": float(bool(record.steps)),
        "is a bare answer": float(bare),
        "number of steps": float(len(record.steps)),
        "length of the chain": float(sum(map(len, record.steps))),
    }
    for name, value in values.items():
        found.features.setdefault(name, array("f")).append(value)
    if policy := record.extra.get("policy"):
        counts = found.policies.setdefault(str(policy), [0, 0])
        counts[0 if record.correct else 1] += 1


def _count_texts(found: Survey, record: Record) -> None:
    chain = "\n".join(record.steps)
    found.longest = max(found.longest, len(record.question) + len(chain))
    for match in {match[0] for match in _SPECIAL.finditer(record.question + "\n" + chain)}:
        found.special[match] += 1
        found.example("special", f"{record.key}: {match}")
    text, turns = record.extra.get("text"), record.extra.get("turns")
    if isinstance(text, str) and turns and (lost := digits_lost(text, turns)):
        found.rows_losing_digits += 1
        found.example("digits", f"{record.key}: {lost}")
    if risk := digits_at_risk(text if isinstance(text, str) else chain):
        found.rows_risking_digits += 1
        found.example("risk", f"{record.key}: {risk}")


class _Images:
    """A sample of different image files, drawn by the hash of their names, and every encoded image up to its size."""

    def __init__(self, found: Survey, at_most: int) -> None:
        self.found, self.at_most = found, at_most
        self.seen: set[int] = set()
        self.heap: list[tuple[int, Path]] = []

    def add(self, record: Record, image: Image) -> None:
        if isinstance(image, bytes):
            self.found.images += 1
            if not self.at_most or self.found.images_checked < self.at_most:
                self.check(image, record.key)
            return
        name = _hash(str(image))
        if name in self.seen:
            return
        self.seen.add(name)
        self.found.images += 1
        if not self.at_most or len(self.heap) < self.at_most:
            heapq.heappush(self.heap, (-name, image))
        else:
            heapq.heappushpop(self.heap, (-name, image))

    def check(self, image: Image, name: str) -> None:
        self.found.images_checked += 1
        if isinstance(image, Path) and not image.exists():
            self.found.images_missing += 1
            self.found.example("missing", name)
            return
        try:
            width, height = load_image(image).size  # as a model gets it: a cut file shows only when it is decoded
        except ImageError as error:
            self.found.images_broken += 1
            self.found.example("broken", str(error))
            return
        if max(width, height) >= EXTREME * min(width, height):
            self.found.images_extreme += 1
            self.found.example("extreme", f"{name}: {width} x {height}")

    def finish(self) -> None:
        for _, image in sorted(self.heap, key=lambda item: str(item[1])):
            self.check(image, str(image))


def _add(found: Survey, record: Record, images: _Images) -> None:
    found.records += 1
    found.domains[record.domain] += 1
    given: Any = record.extra.get("id")
    if given is not None:
        found.ids[str(given)] += 1
    words, group = _hash(fingerprint(record.question)), _hash(record.group)
    # Questions that speak of their image alone ("What is shown?") are told apart by it.
    words = words if not record.images else _hash(str(words), *(_image_name(image) for image in record.images))
    if found.questions.setdefault(words, group) != group:
        found.split_questions += 1
    if len(found.asked) < 20_000:
        found.asked.setdefault(words, " ".join(record.question[:200].split())[:80])
    content = _hash(str(words), *record.steps)
    found.duplicates += content in found.contents
    if content in found.contents:
        found.example("duplicates", record.key)
    found.contents.add(content)
    found.num_steps[len(record.steps)] += 1
    if not record.steps:
        found.example("no steps", record.key)
    if len(record.steps) == 1 and is_bare_answer(record.steps[0]):
        found.bare_answers += 1
        found.example("bare", f"{record.key}: {record.steps[0]}")
    _count_labels(found, record)
    _count_outcome(found, record)
    _count_texts(found, record)
    for image in record.images:
        images.add(record, image)


def _image_name(image: Image) -> str:
    return image.name if isinstance(image, Path) else hashlib.blake2b(image, digest_size=8).hexdigest()


def survey(settings: FilePlace, bad: BadRows, max_images: int) -> Survey:
    """Count one data set. Raises DataError for files that cannot be read on, RecordError where bad rows are errors."""
    found = Survey(bad=bad)
    images = _Images(found, max_images)
    for part in parts(**settings.reading()):
        found.files.append(str(part.context.path))
        if part.format.name not in found.formats:
            found.formats.append(part.format.name)
        for row in part.container.rows():
            found.rows += 1
            try:
                for record in parse_row(part, row.value, row.number):
                    _add(found, record, images)
            except RecordError as error:
                bad.add(error)
    images.finish()
    return found
