"""The doctor's quick part: what a run is about to learn from, in three lines, said before the model is loaded."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from statistics import mean

from dreamprm.data.record import Record

__all__ = ["quick"]


def quick(train: Sequence[Record], meta: Sequence[Record], test: Sequence[Record]) -> list[str]:
    """One line on the training chains' labels, one on the meta set's outcomes, one on the test set's.

    The sets may be samples: every line says how many chains it counted.
    """
    return [_labels(train), _outcomes("meta set", meta), _outcomes("test set", test)]


def _labels(records: Sequence[Record]) -> str:
    labels = [label for record in records for label in record.labels if label is not None]
    whole = [{label > 0.5 for label in record.labels if label is not None} for record in records]
    one_sided = mean(len(sides) == 1 for sides in whole)
    soft = sum(label not in (0.0, 1.0) for label in labels)
    note = f", {soft / len(labels):.0%} of them between 0 and 1" if soft else ""
    domains = len({record.domain for record in records})
    return (
        f"training: {_count(records)}, {domains} domain{'' if domains == 1 else 's'}; {len(labels):,} step "
        f"labels, {mean(label > 0.5 for label in labels):.0%} right{note}; "
        f"{one_sided:.0%} of the chains are labelled all alike"
    )


def _outcomes(name: str, records: Sequence[Record]) -> str:
    judged = [record for record in records if record.correct is not None]
    if not judged:
        return f"{name}: {_count(records)}, no outcome known" if records else f"{name}: none"
    outcomes: dict[str, list[bool]] = defaultdict(list)
    for record in judged:
        outcomes[record.group].append(bool(record.correct))
    mixed = sum(len(set(values)) == 2 for values in outcomes.values())
    return (
        f"{name}: {_count(judged)}, {mean(bool(record.correct) for record in judged):.0%} right; "
        f"{mixed:,} questions have right and wrong chains"
    )


def _count(records: Sequence[Record]) -> str:
    return f"{len(records):,} chains of {len({record.group for record in records}):,} questions"
