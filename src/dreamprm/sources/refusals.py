"""Data that cannot teach what they are to teach: refused before the model is loaded."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Mapping, Sequence
from itertools import combinations
from pathlib import Path

import numpy as np

from dreamprm.data.readers.stream import RecordStream
from dreamprm.data.readers.text import fingerprint
from dreamprm.data.record import Image, Record
from dreamprm.errors import UserError
from dreamprm.sources.run_data import RunData
from dreamprm.sources.sample import sample

__all__ = ["refuse", "shared_questions"]


def refuse(data: RunData, batches: Mapping[str, int], *, weighs: bool, num_steps: int | None = None) -> None:
    """Raises UserError, one line with what to change, where

    * all labels of the training chains looked at are one number;
    * the meta set that is to teach the weights holds right chains only, or wrong ones only;
    * one question stands in two of the training, meta and test sets;
    * a batch is larger than the data that it is drawn from;
    * a training chain has more steps than a weigher's table is wide.

    batches: "cold", "inner", "outer" -> chains of one update.  weighs: whether weights are learned.
    num_steps: that width, None where there is no such table.
    """
    _refuse_labels(data.train)
    if weighs:
        _refuse_one_outcome(data.meta)
    sets = {"training": data.train, "meta": data.meta, "test": data.test}
    for (first, one), (second, two) in combinations(sets.items(), 2):
        shared = shared_questions(one, two)
        if shared:
            example = " ".join(shared[0].question.split())[:60]
            raise UserError(
                f"the {first} and the {second} set share {len(shared)} questions, e.g. {example!r} ({shared[0].key}): "
                f"leave them out of one of the two, or what is learned on the one will look right on the other"
            )
    _refuse_batches(data, batches)
    if num_steps is not None:
        _refuse_longer(data.train, num_steps)


def _refuse_longer(train: Sequence[Record], num_steps: int) -> None:
    longest = max(train, key=lambda record: len(record.steps))
    if len(longest.steps) > num_steps:
        raise UserError(
            f"the longest training chain has {len(longest.steps)} steps ({longest.key}), and the weigher's table is "
            f"{num_steps} steps wide: set weigher.num_steps={len(longest.steps)}"
        )


def _refuse_batches(data: RunData, batches: Mapping[str, int]) -> None:
    for name, records in (("cold", data.cold), ("inner", data.train), ("outer", data.meta)):
        size = batches.get(name, 0)
        if size > len(records):
            kind = {"cold": "cold-start", "inner": "training", "outer": "meta"}[name]
            raise UserError(
                f"one update of {size} chains ({name}.batch_size times {name}.accumulate) is larger than the "
                f"{len(records)} {kind} chains: set {name}.batch_size to at most {len(records)}"
            )


def _refuse_labels(train: Sequence[Record]) -> None:
    labels = {label for record in sample(train) for label in record.labels if label is not None}
    if len(labels) == 1:
        raise UserError(
            f"every step label of the training chains is {labels.pop():g}: there is nothing to tell apart; "
            "look at the data with dreamprm doctor"
        )


def _refuse_one_outcome(meta: Sequence[Record]) -> None:
    # A sample may miss a rare outcome: then the whole set is looked at.
    for records in (sample(meta), meta):
        if len({record.correct for record in records}) > 1:
            return
    word = "right" if meta[0].correct else "wrong"
    raise UserError(
        f"all {len(meta)} meta chains are {word}: weights are learned from the difference between right and wrong "
        "chains; set meta.path to chains of both kinds"
    )


def shared_questions(one: Sequence[Record], two: Sequence[Record]) -> list[Record]:
    """The records of `one` whose question stands in `two` too, one for each question: the same words (but for case,
    spacing and markup) and the same images, by content.

    Of files that stay on disk only questions of the same group are compared.
    """
    if isinstance(one, RecordStream) and isinstance(two, RecordStream):
        one, two = _of_common_groups(one, two)
    words: dict[str, list[Record]] = defaultdict(list)
    for record in two:
        words[fingerprint(record.question)].append(record)
    found: dict[tuple[str, ...], Record] = {}
    known: dict[str, set[tuple[str, ...]]] = {}
    for record in one:
        mark = fingerprint(record.question)
        if mark not in words:
            continue
        if mark not in known:
            known[mark] = {_pictures(other) for other in words[mark]}
        pictures = _pictures(record)
        if pictures in known[mark]:
            found.setdefault((mark, *pictures), record)
    return list(found.values())


def _of_common_groups(one: RecordStream, two: RecordStream) -> tuple[RecordStream, RecordStream]:
    common = np.intersect1d(one.group, two.group)
    first, second = (stream.take(np.flatnonzero(np.isin(stream.group, common))) for stream in (one, two))
    return first, second


def _pictures(record: Record) -> tuple[str, ...]:
    return tuple(_content(image) for image in record.images)


def _content(image: Image) -> str:
    if isinstance(image, Path):
        try:
            image = image.read_bytes()
        except OSError:
            return str(image)
    return hashlib.blake2b(image, digest_size=12).hexdigest()
