"""What `weigher=trust` takes: how many updates, and which half of the meta set each of its judges sees."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from dreamprm.data.record import Record
from dreamprm.errors import UserError
from dreamprm.weigher.trust import TrustSettings

__all__ = ["meta_halves", "trust_samples", "trust_updates"]


def trust_updates(settings: Any, num_examples: int) -> tuple[int, int]:
    """Updates of the looks, and of each of the two judges; none for another weigher."""
    weigher = settings.weigher
    if not isinstance(weigher, TrustSettings):
        return 0, 0
    per_update = settings.inner.batch_size * settings.inner.accumulate
    looks = math.ceil(weigher.passes * num_examples / per_update)
    return (looks + settings.outer.begin if looks else 0), weigher.judge_updates


def meta_halves(meta: Sequence[Record]) -> tuple[list[int], list[int]]:
    """The rows of the meta set by halves of its questions, every other one in the order in which they come.

    Raises UserError where a half has no right chain, or no wrong one.
    """
    questions: dict[str, int] = {}
    halves: tuple[list[int], list[int]] = ([], [])
    for row, record in enumerate(meta):
        halves[questions.setdefault(record.group, len(questions)) % 2].append(row)
    for rows in halves:
        if len({bool(meta[row].correct) for row in rows}) < 2:
            raise UserError(
                f"weigher=trust judges labels by both halves of the meta set's {len(questions)} questions, and one "
                "half holds no right chain, or no wrong one: give a larger meta set, or set weigher.judge_updates=0"
            )
    return halves


def trust_samples(settings: Any, train: Sequence[Record], meta: Sequence[Record]) -> dict[str, int]:
    """Name -> size of what the phase draws from beside the run's own samplers."""
    if not isinstance(settings.weigher, TrustSettings):
        return {}
    halves = meta_halves(meta) if settings.weigher.judge_updates else ()
    return {"looks": len(train)} | {f"half{place}": len(rows) for place, rows in enumerate(halves, 1)}
