"""The candidates of one question, with all that a selector may look at."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from dreamprm.choices import Judge
from dreamprm.data.record import Record
from dreamprm.selection import answer_classes, as_votes, chain_scores

__all__ = ["Candidates"]


@dataclass(frozen=True, slots=True)
class Candidates:
    """correct: how right each candidate is, 0 or 1, or between them where a benchmark grades.
    answers: equal texts are one answer, None is none.  scores: what best-of-N takes the highest of.
    votes: scores on [0, 1], for the weighted vote.
    cluster: questions that are not independent of one another share it (`extra["cluster"]`); else the question itself.
    rankings: name -> values of other selectors of the highest, one per candidate (`Candidates.of_records`)."""

    question: str
    correct: tuple[float, ...]
    answers: tuple[str | None, ...]
    scores: tuple[float, ...]
    votes: tuple[float, ...]
    cluster: str
    rankings: Mapping[str, tuple[float, ...]] = field(default_factory=dict)

    @classmethod
    def of_records(
        cls,
        records: Sequence[Record],
        step_scores: Sequence[Sequence[float]],
        how: str = "mean",
        aggregations: Sequence[str] = (),
        baselines: bool = False,
        judge: Judge | str = Judge.math,
        worth: Sequence[float] | None = None,
    ) -> list[Candidates]:
        """Records grouped by question, in the order of first appearance.

        aggregations: adds each as a ranking `prm_NAME`.  baselines: adds `outcome` (the last step's score), `longest`
        and `shortest` (by the characters of the steps), and, where there are several policies, `stronger_model` (its
        share of right chains on all other clusters of questions).  judge: which answers are the same.  worth: how right
        each record is, in [0, 1], in place of its `correct`.
        Raises ValueError for a record of which it is not known whether its answer is right.
        """
        rows: dict[str, list[int]] = {}
        for row, record in enumerate(records):
            if record.correct is None:
                raise ValueError(f"record {record.key!r}: best-of-N needs to know whether its answer is right")
            rows.setdefault(record.group, []).append(row)
        scores = chain_scores(step_scores, how)
        votes = as_votes(scores, how)
        rankings = {f"prm_{name}": chain_scores(step_scores, name) for name in aggregations}
        if baselines:
            rankings |= _baselines(records, step_scores)
        return [
            cls(
                question=group,
                correct=tuple(float(bool(records[r].correct)) if worth is None else worth[r] for r in members),
                answers=tuple(_answers([records[row] for row in members], judge)),
                scores=tuple(scores[members].tolist()),
                votes=tuple(votes[members].tolist()),
                cluster=_cluster(records[members[0]]),
                rankings={name: tuple(values[members].tolist()) for name, values in rankings.items()},
            )
            for group, members in rows.items()
        ]


def _answers(records: Sequence[Record], judge: Judge | str) -> list[str | None]:
    return answer_classes([record.answer for record in records], records[0].question, judge)


def _baselines(records: Sequence[Record], step_scores: Sequence[Sequence[float]]) -> dict[str, np.ndarray]:
    lengths = np.asarray([float(sum(map(len, record.steps))) for record in records])
    found = {"outcome": chain_scores(step_scores, "last"), "longest": lengths, "shortest": -lengths}
    stronger = _stronger_model(records)
    return found if stronger is None else found | {"stronger_model": stronger}


def _stronger_model(records: Sequence[Record]) -> np.ndarray | None:
    """Per record the share of right chains of its policy over all other clusters; None with fewer than two policies.

    A policy that wrote nothing elsewhere gets the share of all policies elsewhere.
    """
    policies = [record.extra.get("policy") for record in records]
    if len(set(policies) - {None}) < 2:
        return None
    right: dict[tuple[object, object], float] = defaultdict(float)
    count: dict[tuple[object, object], int] = defaultdict(int)
    for record, policy in zip(records, policies):
        for key in ((policy, None), (policy, _cluster(record)), (None, None), (None, _cluster(record))):
            right[key] += bool(record.correct)
            count[key] += 1

    def elsewhere(policy: object, cluster: str) -> float | None:
        others = count[policy, None] - count[policy, cluster]
        return (right[policy, None] - right[policy, cluster]) / others if others else None

    values = [
        next((share for name in (policy, None) if (share := elsewhere(name, _cluster(record))) is not None), 0.5)
        for record, policy in zip(records, policies)
    ]
    return np.asarray(values)


def _cluster(record: Record) -> str:
    return str(record.extra.get("cluster", record.group))
