"""Best-of-N on a benchmark of answers: how right the chosen chain of each question is, by the benchmark's own figures.

* MathVista, MathVision, MMStar, MMMU, MMMU-Pro: the share of right answers, overall and by category; MMMU-Pro's overall
  figure is the mean of this over its two parts, `standard (10 options)` and `vision`, which are two files.
* MM-Vet: the mean grade, overall and by capability (a question counts in each of its own).
* R-Bench-V: overall, without mathematics, and by category.
* WeMath: the share right of one-, two- and three-step questions, and its four-way score, strict and loose:
  1 - (IK + IG / 2 + RM) / problems, where IG has all steps right and the problem wrong, IK not all steps right and the
  problem wrong, RM the problem right and a step wrong (strict) or every step wrong (loose). Source: arXiv 2407.01284.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from dreamprm.data.record import Record
from dreamprm.evaluate.best_of_n import best_of_n_table, question_accuracies
from dreamprm.evaluate.candidates import Candidates
from dreamprm.evaluate.figures import FigureSettings, Scores

__all__ = ["joined", "judge_answers"]


def joined(chains: Sequence[Record], questions: Sequence[Record]) -> list[Record]:
    """For every chain its question of the benchmark's file.

    Raises ValueError for a chain of a question that the file does not have, and for a file in which one stands twice.
    """
    known: dict[str, Record] = {}
    for question in questions:
        if question.group in known:
            raise ValueError(f"{question.source}: question {question.group!r} stands twice; give one split's file")
        known[question.group] = question
    strangers = [chain.group for chain in chains if chain.group not in known]
    if strangers:
        raise ValueError(
            f"{len(strangers)} of {len(chains)} chains are of questions that data.path does not have, e.g. "
            f"{strangers[0]!r}: give the file that they were sampled for"
        )
    return [known[chain.group] for chain in chains]


def judge_answers(
    name: str,
    chains: Sequence[Record],
    questions: Sequence[Record],
    worth: Sequence[float],
    scores: Scores | None,
    settings: FigureSettings,
) -> dict[str, Any]:
    """{"benchmark", "num_chains", "num_questions", "best_of_n", "by_category", …}.

    questions: of every chain (`joined`).  worth: how right every chain is, in [0, 1].  scores: step scores of the
    chains; without them only `policy`, self-consistency and `oracle` are told.  Figures by category, and WeMath's, are
    those of the PRM's choice among all candidates; without scores of the mean chain.
    """
    judged = [
        replace(chain, question=question.question, correct=bool(value >= 0.5), reference=question.reference)
        for chain, question, value in zip(chains, questions, worth, strict=True)
    ]
    given = scores if scores is not None else [[0.5] * len(chain.steps) for chain in judged]
    candidates = Candidates.of_records(judged, given, settings.aggregate, judge=settings.judge, worth=worth)
    options: dict[str, Any] = {"num_resamples": settings.num_resamples, "seed": settings.seed}
    table = best_of_n_table(candidates, settings.num_candidates, **options)
    if scores is None:
        table = {method: row for method, row in table.items() if method not in ("prm", "weighted_vote")}
    most = max(len(question.correct) for question in candidates)
    chosen = question_accuracies(candidates, [most])["policy" if scores is None else "prm"][most]
    asked = {question.group: question for question in questions}
    value = {each.question: float(right) for each, right in zip(candidates, chosen)}
    found: dict[str, Any] = {
        "benchmark": name,
        "num_chains": len(chains),
        "num_questions": len(candidates),
        "best_of_n": table,
        "by_category": _by_category(value, asked),
    }
    if name == "rbenchv":
        rest = [right for group, right in value.items() if asked[group].extra.get("category") != "math"]
        found["without_math"] = sum(rest) / len(rest) if rest else None
    if name == "wemath":
        found |= _we_math(value, asked)
    return found


def _by_category(value: Mapping[str, float], asked: Mapping[str, Record]) -> dict[str, dict[str, float]]:
    parts: dict[str, list[float]] = {}
    for group, right in value.items():
        names = asked[group].extra.get("category")
        for name in names if isinstance(names, (tuple, list)) else [names or asked[group].domain]:
            parts.setdefault(str(name), []).append(right)
    return {name: {"value": sum(rows) / len(rows), "n": len(rows)} for name, rows in sorted(parts.items())}


def _we_math(value: Mapping[str, float], asked: Mapping[str, Record]) -> dict[str, Any]:
    """Expected values where tied candidates share the choice: a question is right with probability `value`, and the
    questions of a problem are chosen independently of one another."""
    problems: dict[tuple[str, str], dict[str, float]] = {}
    for group, right in value.items():
        key = str(asked[group].extra.get("key") or "")
        number, _, part = key.partition("steps_")
        problems.setdefault((number, str(asked[group].extra.get("id"))), {})[part] = right
    whole = {name: parts for name, parts in problems.items() if set(parts) == _parts_of(name[0])}
    counts = dict.fromkeys(("IK", "IG", "CM_strict", "CM_loose", "RM_strict", "RM_loose"), 0.0)
    for parts in whole.values():
        multi = parts["multi"]
        steps = [right for part, right in parts.items() if part != "multi"]
        every, none = 1.0, 1.0
        for right in steps:
            every, none = every * right, none * (1 - right)
        counts["IG"] += every * (1 - multi)
        counts["IK"] += (1 - every) * (1 - multi)
        counts["CM_strict"] += every * multi
        counts["RM_strict"] += (1 - every) * multi
        counts["CM_loose"] += (1 - none) * multi
        counts["RM_loose"] += none * multi
    total = len(whole)
    lost = counts["IK"] + counts["IG"] / 2
    ones = [right for (_, _), parts in whole.items() for part, right in parts.items() if part != "multi"]
    return {
        "num_problems": total,
        "num_incomplete": len(problems) - total,
        "score_strict": 1 - (lost + counts["RM_strict"]) / total if total else None,
        "score_loose": 1 - (lost + counts["RM_loose"]) / total if total else None,
        "four_way": {name: count / total for name, count in counts.items()} if total else None,
        "by_steps": {
            "1": sum(ones) / len(ones) if ones else None,
            **{number: _mean([parts["multi"] for (n, _), parts in whole.items() if n == number]) for number in "23"},
        },
    }


def _parts_of(number: str) -> set[str]:
    return {*(str(place) for place in range(1, int(number) + 1)), "multi"} if number in ("2", "3") else {"none"}


def _mean(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None
