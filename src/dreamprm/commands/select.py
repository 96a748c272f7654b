"""`select`: one candidate per question of a scores file, and what every way of choosing is worth."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dreamprm.choices import Judge, Voting
from dreamprm.commands.command import command
from dreamprm.data.record import Record
from dreamprm.errors import UserError
from dreamprm.prm.aggregation import AGGREGATIONS
from dreamprm.progress import say
from dreamprm.setting import Settings, setting

__all__ = ["SelectStage", "main", "select"]


@dataclass
class SelectStage(Settings):
    """Best-of-N: one candidate per question of a scores file, and the accuracy of every way of choosing."""

    scores: str | None = setting(None, "a file that `dreamprm score` wrote")
    out: str = setting("selection.jsonl", "file that is written; its figures and report go beside it")
    method: Voting = setting(Voting.prm, "how the candidate is chosen")
    aggregate: str = setting("mean", "how step scores become a chain's score", words=AGGREGATIONS)
    judge: Judge = setting(Judge.math, "which answers are the same, for the votes")
    num_candidates: list[int] = setting([], "the N of the accuracies; empty: every N", least=1)
    blocks: int | None = setting(None, "also accuracies over blocks of so many candidates, as published", least=1)
    num_resamples: int = setting(1000, "resamples of an interval", least=1)
    seed: int = setting(0, "of the resamples", least=0)
    report: bool = setting(True, "write report.html beside the selection")
    num_shown: int = setting(50, "questions that the report shows whole", least=0)


def select(settings: SelectStage) -> Path:
    """Write a line per question: group, the chosen candidate's index, answer, steps, who is tied with it, all scores.

    Where the outcomes are known, OUT.results.json has the accuracy of every selector by N; OUT.html shows it all.
    """
    from dreamprm.commands.files import needed, read_scores, write_lines

    records, step_scores = read_scores(needed(settings.scores, "scores", "a file that dreamprm score wrote"))
    path = Path(settings.out)
    try:
        lines = _lines(records, step_scores, settings)
        results = _results(records, step_scores, settings)
    except ValueError as error:
        raise UserError(f"{settings.scores}: {error}") from error
    write_lines(path, lines)
    if results:
        _write_figures(path.with_suffix(".results.json"), results)
    if settings.report:
        from dreamprm.report.selection_page import write_selection_report

        shown = settings.num_shown
        write_selection_report(
            path.with_suffix(".html"), records, step_scores, lines, results, shown, str(settings.method)
        )
    known = [line["expected_correct"] for line in lines if line["expected_correct"] is not None]
    right = f", {sum(known):.4g} of {len(known)} right" if known else ""
    say(f"{len(lines)} questions, method {settings.method}{right}: {path}")
    return path


def _write_figures(path: Path, results: dict[str, Any]) -> None:
    from dreamprm.files import write_atomically
    from dreamprm.report.table import print_results

    write_atomically(path, (json.dumps(results, indent=2, ensure_ascii=False) + "\n").encode())
    shown = [number for number in ("1", "2", "4", "8", "16", "32", "64") if number in results["best_of_n"]["prm"]]
    last = list(results["best_of_n"]["prm"])[-1]
    numbers = shown if last in shown else [*shown, last]
    table = {name: {number: row[number] for number in numbers} for name, row in results["best_of_n"].items()}
    print_results(results | {"best_of_n": table})


def _lines(
    records: Sequence[Record], step_scores: Sequence[Sequence[float]], settings: SelectStage
) -> list[dict[str, Any]]:
    from dreamprm.selection import answer_classes, as_votes, chain_scores, vote_winners, winners

    members: dict[str, list[int]] = {}
    for row, record in enumerate(records):
        members.setdefault(record.group, []).append(row)
    scores = chain_scores(step_scores, settings.aggregate)
    votes = as_votes(scores, settings.aggregate)
    lines: list[dict[str, Any]] = []
    for group, rows in members.items():
        own = scores[rows].tolist()
        if settings.method is Voting.prm:
            tied = [[index] for index in winners(own)]
        else:
            answers = answer_classes([records[row].answer for row in rows], records[rows[0]].question, settings.judge)
            given = [1.0] * len(rows) if settings.method is Voting.self_consistency else votes[rows].tolist()
            tied = vote_winners(answers, given)
        everyone = [index for answer in tied for index in answer]
        # Of those that are tied the one the PRM scores highest, then the one whose text comes first: whatever the order
        # of rows, the same chain is chosen.
        index = min(everyone, key=lambda index: (-own[index], records[rows[index]].steps))
        right = [[records[rows[index]].correct for index in answer] for answer in tied]
        chosen = records[rows[index]]
        lines.append(
            {
                "group": group,
                "question": chosen.question,
                "index": index,
                "answer": chosen.answer,
                "correct": chosen.correct,
                "expected_correct": _mean([_mean(answer) for answer in right]),
                "tied": everyone if len(tied) > 1 else [],
                "steps": list(chosen.steps),
                "chain_scores": own,
            }
        )
    return lines


def _mean(values: Sequence[float | bool | None]) -> float | None:
    """The mean, None where one is not known."""
    known = [float(value) for value in values if value is not None]
    return sum(known) / len(known) if values and len(known) == len(values) else None


def _results(
    records: Sequence[Record], step_scores: Sequence[Sequence[float]], settings: SelectStage
) -> dict[str, Any]:
    """The figures of results.json, `differences` between selectors and `blocks`; empty where no outcome is known."""
    from dreamprm.evaluate import Candidates, best_of_n_table, block_accuracies, difference_table
    from dreamprm.evaluate.reliability import reliability
    from dreamprm.policy.answers import judge_version

    rows = [row for row, record in enumerate(records) if record.correct is not None]
    if not rows:
        return {}
    others = [name for name in AGGREGATIONS if name != settings.aggregate]
    chosen, scores = [records[row] for row in rows], [step_scores[row] for row in rows]
    questions = Candidates.of_records(chosen, scores, settings.aggregate, others, baselines=True, judge=settings.judge)
    options: dict[str, Any] = {"num_resamples": settings.num_resamples, "seed": settings.seed}
    numbers = settings.num_candidates or None
    results: dict[str, Any] = {
        "experiment": "select",
        "seed": settings.seed,
        "aggregate": settings.aggregate,
        "judge": judge_version(settings.judge),
        "best_of_n": best_of_n_table(questions, numbers, **options),
        "differences": difference_table(questions, num_candidates=numbers, **options),
        "reliability": reliability(questions),
    }
    if settings.blocks is not None:
        found = block_accuracies(questions, settings.blocks)
        results["blocks"] = {"size": settings.blocks} | {name: float(row.mean()) for name, row in found.items()}
    return results


main = command("select", SelectStage, select)
