"""Judging the PRM on the meta set and on the test set: once before the bilevel phase, once after it."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch.nn.utils.rnn import pad_sequence

from dreamprm.data.record import Record
from dreamprm.distributed import everyone, num_processes, rank
from dreamprm.evaluate import Candidates, Interval, paired_difference, question_accuracies
from dreamprm.evaluate.figures import cluster_of, figures, first_questions
from dreamprm.evaluate.verdict import Evidence, change_of, step_change_of
from dreamprm.interrupt import StopRequest
from dreamprm.loss import OUTER_LOSSES
from dreamprm.phases.sharding import read_block
from dreamprm.phases.state import Judged, Run
from dreamprm.prm.aggregation import aggregate
from dreamprm.progress import RunProgress, Stage

__all__ = ["AFTER", "BEFORE", "evidence", "judge", "judging_stage", "test_records"]

BEFORE, AFTER = "judge before", "judge after"
"""Names of the two stages."""


def test_records(run: Run) -> list[Record]:
    """The test chains of the first `evaluate.num_questions` questions."""
    return [run.test[row] for row in first_questions(run.test, run.settings.evaluate.num_questions)]


def judging_stage(run: Run, name: str) -> Stage:
    return Stage(name, len(run.meta) + len(first_questions(run.test, run.settings.evaluate.num_questions)))


def judge(run: Run, name: str, progress: RunProgress, stop: StopRequest | None = None) -> Judged | None:
    """Judge the PRM as it is now. None where a stop was asked for in between."""
    given, test = run.settings.evaluate, test_records(run)
    log_odds: list[list[float]] = []
    scores: list[list[float]] = []
    with progress.stage(name) as report:
        for records, read, found in (
            (run.meta, run.prm.log_odds_records, log_odds),
            (test, run.prm.score_records, scores),
        ):
            before, size = report.done, given.batch_size * 8
            for start in range(0, len(records), size * num_processes()):
                if stop is not None and any(everyone(stop.asked)):
                    return None
                own = start + rank() * size  # the blocks that one process would read, one after another
                block = (
                    read_block(read, records, start, own, size, given.batch_size)
                    if run.is_split
                    else read(records[own : own + size], given.batch_size)
                )
                for part in everyone(block):
                    found += part
                report.update(before + len(found), {})
    meta_steps = [torch.tensor(row, dtype=torch.float64).sigmoid().tolist() for row in log_odds]
    return Judged(
        meta_losses=_outer_losses(run, log_odds),
        meta_scores=[aggregate(row, given.aggregate) for row in meta_steps],
        test_scores=[aggregate(row, given.aggregate) for row in scores],
        figures=figures(test, scores, given.figures()) if test else {},
        meta_steps=meta_steps,
        test_steps=scores,
    )


def _outer_losses(run: Run, log_odds: Sequence[Sequence[float]]) -> list[float]:
    """The outer loss of every meta chain, over the whole set at once."""
    if not log_odds:
        return []
    outer = run.settings.outer
    rows = [torch.tensor(row, dtype=torch.float64) for row in log_odds]
    mask = pad_sequence([torch.ones(len(row), dtype=torch.bool) for row in rows], batch_first=True)  # (M, S)
    right = torch.tensor([float(bool(record.correct)) for record in run.meta], dtype=torch.float64)
    losses = OUTER_LOSSES[outer.loss](pad_sequence(rows, batch_first=True), right, mask, outer.aggregate)
    return [float(value) for value in losses]


def evidence(run: Run, before: Judged | None, after: Judged) -> Evidence:
    """What the verdict rests on; without a judgement before, the one after stands for both."""
    before, counters = before or after, run.counters
    gain, count = _gain(run, after)
    return Evidence(
        learns=run.learns_weights or run.num_trust > 0,
        outer_updates=counters.outer_updates,
        skipped=counters.skipped_outer,
        meta=change_of(run.meta, before.meta_scores, after.meta_scores) if run.meta else None,
        losses_before=before.meta_losses,
        losses_after=after.meta_losses,
        clusters=[cluster_of(record) for record in run.meta],
        test=change_of(test_records(run), before.test_scores, after.test_scores) if run.test else None,
        # An earlier format's checkpoint holds no steps of the test set.
        steps=step_change_of(test_records(run), before.test_steps, after.test_steps) if before.test_steps else None,
        gain=gain,
        num_candidates=count,
        trained_on_meta=run.settings.inner.meta_weight > 0,
    )


def _gain(run: Run, after: Judged) -> tuple[Interval | None, int]:
    """Best-of-N of the PRM less the policy's accuracy on the same questions, and N: the largest that was judged."""
    points = after.figures.get("best_of_n", {}).get("prm", {})
    if not points:
        return None, 0
    count, given = max(map(int, points)), run.settings.evaluate
    rows = [(record, score) for record, score in zip(test_records(run), after.test_steps) if record.correct is not None]
    questions = Candidates.of_records(
        [record for record, _ in rows], [score for _, score in rows], given.figures().aggregate
    )
    accuracies = question_accuracies(questions, [count])
    clusters = [question.cluster for question in questions]
    return paired_difference(accuracies["prm"][count], accuracies["policy"][count], clusters, num_resamples=500), count
