"""Several files as one pool of chains, split by question into training, meta and test sets.

Chains of one question (record.group, or the same question text in two sources) never stand in two of the three sets.
"""

from __future__ import annotations

import hashlib
import random
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from dreamprm.data.record import Record

__all__ = ["Split", "from_outcome", "regroup", "split_pool", "thin_out"]


@dataclass(frozen=True)
class Split:
    """train: with step labels.  meta: of known outcome.  test: all of its questions, with labels or outcome."""

    train: list[Record]
    meta: list[Record]
    test: list[Record]


def from_outcome(record: Record, domain: str | None = None) -> Record:
    """The chain with its outcome as the label of every step: what stands in for step labels where nobody gave any."""
    value = None if record.correct is None else float(record.correct)
    labels, extra = (value,) * len(record.steps), {**record.extra, "outcome_labels": True}
    return replace(record, labels=labels, domain=domain or record.domain, extra=extra)


def thin_out(records: Sequence[Record], max_per_domain: int | None) -> list[Record]:
    """At most about that many chains of each domain, whole questions at a time, the same ones in every run."""
    if max_per_domain is None:
        return list(records)
    questions = [str(record.extra.get("question_group", record.group)) for record in records]
    order = sorted(range(len(records)), key=lambda row: (_digest(questions[row]), row))
    counts: Counter[str] = Counter()
    begun: set[tuple[str, str]] = set()
    kept: list[int] = []
    for row in order:
        domain, question = records[row].domain, questions[row]
        if counts[domain] < max_per_domain or (domain, question) in begun:
            begun.add((domain, question))
            counts[domain] += 1
            kept.append(row)
    return [records[row] for row in sorted(kept)]


def split_pool(sources: Sequence[Sequence[Record]], *, meta: float, test: float, seed: int) -> Split:
    """Split questions, source by source in these shares, so that each set has its part of every source.

    A question of which no chain's outcome is known cannot be meta: it trains.  A chain that is in the training share
    without a label is left out.
    """
    units = _units(record for source in sources for record in source)
    judged = {units[_node(record)] for source in sources for record in source if record.correct is not None}
    place: dict[str, str] = {}
    for number, source in enumerate(sources):
        fresh = sorted({units[_node(record)] for record in source} - set(place))
        random.Random(f"{seed} {number}").shuffle(fresh)
        num_test, num_meta = round(test * len(fresh)), round(meta * len(fresh))
        for index, unit in enumerate(fresh):
            to = "test" if index < num_test else "meta" if index < num_test + num_meta else "train"
            place[unit] = "train" if to == "meta" and unit not in judged else to
    parts: dict[str, list[Record]] = defaultdict(list)
    for source in sources:
        for record in source:
            parts[place[units[_node(record)]]].append(record)
    return Split(
        train=[record for record in parts["train"] if _labelled(record)],
        meta=[regroup(record) for record in parts["meta"] if record.correct is not None],
        test=[regroup(record) for record in parts["test"] if _labelled(record) or record.correct is not None],
    )


def regroup(record: Record) -> Record:
    """Where several questions share a group (a premise), candidates are grouped by question and the group is what an
    interval draws: `extra["cluster"]`."""
    question = record.extra.get("question_group")
    if not question:
        return record
    return replace(record, group=str(question), extra={**record.extra, "cluster": record.group})


def _labelled(record: Record) -> bool:
    return any(label is not None for label in record.labels)


def _node(record: Record) -> str:
    return f"group {record.group}"


def _units(records: Iterable[Record]) -> Mapping[str, str]:
    """Group -> the name of the set of groups that are tied to it by a common question text."""
    parent: dict[str, str] = {}

    def find(name: str) -> str:
        parent.setdefault(name, name)
        while parent[name] != name:
            parent[name] = parent[parent[name]]
            name = parent[name]
        return name

    for record in records:
        one, other = sorted((find(_node(record)), find(f"text {' '.join(record.question.casefold().split())}")))
        parent[other] = one
    return {name: find(name) for name in list(parent) if name.startswith("group ")}


def _digest(text: str) -> str:
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).hexdigest()
