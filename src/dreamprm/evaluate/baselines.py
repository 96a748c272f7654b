"""Baselines that read no text: the step's position alone, and the model that wrote the chain.

Both are fitted on the training chains. A PRM that does not beat them has learned the shape of its data.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

from dreamprm.data.record import Record
from dreamprm.evaluate.figures import cluster_of, true_steps

__all__ = ["held_out_position_scores", "position_scores", "stronger_model_scores"]

_MOST_STEPS = 24


def position_scores(train: Sequence[Record], records: Sequence[Record]) -> list[list[float]]:
    """Per step the share of right labels among training steps in the same place (one right and one wrong added).

    Places from the 24th on count as one.
    """
    right: dict[int, float] = defaultdict(float)
    count: dict[int, int] = defaultdict(int)
    for record in train:
        for place, label in enumerate(record.labels):
            if label is not None:
                right[min(place, _MOST_STEPS)] += label
                count[min(place, _MOST_STEPS)] += 1
    places = [min(place, _MOST_STEPS) for place in range(max((len(record.steps) for record in records), default=0))]
    scores = [(right[place] + 1) / (count[place] + 2) for place in places]
    return [scores[: len(record.steps)] for record in records]


def held_out_position_scores(records: Sequence[Record]) -> list[list[float]]:
    """As `position_scores`, where there is nothing to train on: every record by the steps of all other questions."""
    right: dict[tuple[str | None, int], float] = defaultdict(float)
    count: dict[tuple[str | None, int], int] = defaultdict(int)
    for record in records:
        for place, truth in enumerate(true_steps(record)):
            if truth is not None:
                for name in (None, cluster_of(record)):
                    right[name, min(place, _MOST_STEPS)] += truth
                    count[name, min(place, _MOST_STEPS)] += 1

    def score(cluster: str, place: int) -> float:
        own, every = (cluster, place), (None, place)
        return (right[every] - right[own] + 1) / (count[every] - count[own] + 2)

    return [
        [score(cluster_of(record), min(place, _MOST_STEPS)) for place in range(len(record.steps))] for record in records
    ]


def stronger_model_scores(train: Sequence[Record], records: Sequence[Record]) -> list[list[float]] | None:
    """Every step of a chain scores its policy's share of right training chains, per source of the record.

    None where the records come from fewer than two policies. A policy that training never saw scores the mean.
    """
    policies = {record.extra.get("policy") for record in records} - {None}
    judged = [record for record in train if record.correct is not None and record.extra.get("policy") is not None]
    if len(policies) < 2 or not judged:
        return None
    shares: dict[str, list[bool]] = defaultdict(list)
    for record in judged:
        shares[str(record.extra["policy"])].append(bool(record.correct))
    mean = sum(bool(record.correct) for record in judged) / len(judged)
    values = {name: sum(given) / len(given) for name, given in shares.items()}
    return [[values.get(str(record.extra.get("policy")), mean)] * len(record.steps) for record in records]
