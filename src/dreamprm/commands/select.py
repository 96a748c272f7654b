"""`select`: one candidate per question of a scores file."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from dreamprm.choices import Voting
from dreamprm.commands.command import command
from dreamprm.prm.aggregation import AGGREGATIONS
from dreamprm.progress import say
from dreamprm.setting import Settings, setting

__all__ = ["SelectStage", "main", "select"]


@dataclass
class SelectStage(Settings):
    """Best-of-N: one candidate per question of a scores file."""

    scores: str | None = setting(None, "a file that `dreamprm score` wrote")
    out: str = setting("selection.jsonl", "file that is written")
    method: Voting = setting(Voting.prm, "how the candidate is chosen")
    aggregate: str = setting("mean", "how step scores become a chain's score", words=AGGREGATIONS)


def select(settings: SelectStage) -> Path:
    """Write one line per question: its group, the chosen candidate's index, answer and steps, and all chain scores."""
    from dreamprm.commands.files import needed, read_scores, write_lines
    from dreamprm.selection import highest, majority, weighted_vote

    records, step_scores = read_scores(needed(settings.scores, "scores", "a file that dreamprm score wrote"))
    members: dict[str, list[int]] = {}
    for row, record in enumerate(records):
        members.setdefault(record.group, []).append(row)
    scored = _chain_scores(step_scores, settings.aggregate)
    lines = []
    for group, rows in members.items():
        scores, votes = [scored[row][0] for row in rows], [scored[row][1] for row in rows]
        answers = [records[row].answer for row in rows]
        if settings.method is Voting.prm:
            index = highest(scores)
        else:
            index = majority(answers) if settings.method is Voting.self_consistency else weighted_vote(answers, votes)
        chosen = records[rows[index]]
        lines.append(
            {
                "group": group,
                "question": chosen.question,
                "index": index,
                "answer": chosen.answer,
                "correct": chosen.correct,
                "steps": list(chosen.steps),
                "chain_scores": scores,
            }
        )
    path = Path(settings.out)
    write_lines(path, lines)
    known = [line["correct"] for line in lines if line["correct"] is not None]
    right = f", {sum(known)} of {len(known)} right" if known else ""
    say(f"{len(lines)} questions, method {settings.method}{right}: {path}")
    return path


def _chain_scores(step_scores: list[list[float]], how: str) -> list[tuple[float, float]]:
    """(score, vote on [0, 1]) of every chain."""
    import torch

    from dreamprm.prm.aggregation import aggregate, as_probability

    found: list[tuple[float, float]] = []
    for steps in step_scores:
        value = aggregate(steps, how)
        found.append((value, float(as_probability(torch.tensor(value, dtype=torch.float64), how))))
    return found


main = command("select", SelectStage, select)
