"""`evaluate`: best-of-N and step-level figures of a scores file."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from dreamprm.commands.command import command
from dreamprm.config.schema import EvaluateConfig
from dreamprm.progress import say
from dreamprm.setting import Settings, setting

__all__ = ["EvaluateStage", "evaluate", "main"]


@dataclass
class EvaluateStage(Settings):
    """Best-of-N and step-level figures of a scores file."""

    scores: str | None = setting(None, "a file that `dreamprm score` wrote")
    out: str = setting("results.json", "file that is written")
    name: str = setting("evaluate", "name in the results")
    evaluate: EvaluateConfig = setting(EvaluateConfig())


def evaluate(settings: EvaluateStage) -> Path:
    """Write the figures as training's results.json has them, and print the table."""
    from dreamprm.commands.files import needed, read_scores
    from dreamprm.evaluate.figures import figures, first_questions
    from dreamprm.files import write_atomically
    from dreamprm.report.table import print_results

    records, scores = read_scores(needed(settings.scores, "scores", "a file that dreamprm score wrote"))
    results = {"experiment": settings.name, "seed": settings.evaluate.seed, "best_of_n": {}, "steps": {}}
    rows = first_questions(records, settings.evaluate.num_questions)
    records, scores = [records[row] for row in rows], [scores[row] for row in rows]
    results |= figures(records, scores, settings.evaluate.figures())
    path = Path(settings.out)
    write_atomically(path, (json.dumps(results, indent=2, ensure_ascii=False) + "\n").encode())
    print_results(results)
    say(f"figures of {len(records)} chains: {path}")
    return path


main = command("evaluate", EvaluateStage, evaluate)
