"""The table of published benchmarks, and the two ways to judge by one.

A benchmark of *steps* says how well step scores find wrong steps (see step_benchmarks.py). A benchmark of *answers* is
a test set of questions: candidates were sampled for it, a PRM scored them, and best-of-N says how often the chosen
answer is right by the benchmark's own rule (see answer_rules.py), or by a judge where the benchmark is decided by one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from dreamprm.data.record import Record
from dreamprm.evaluate import answer_rules
from dreamprm.evaluate.baselines import held_out_position_scores
from dreamprm.evaluate.figures import Scores
from dreamprm.evaluate.step_benchmarks import prm_bench, process_bench, visual_process_bench

__all__ = ["ANSWERS", "BENCHMARKS", "STEPS", "AnswerBenchmark", "judge_benchmark"]

Judge = Callable[[Sequence[Record], Scores, float, dict[str, Any]], dict[str, Any]]


@dataclass(frozen=True)
class AnswerBenchmark:
    """formats: of its files, as their publishers have them and as VLMEvalKit does.  rule: None where only a judge can
    decide.  graded: whether the judge gives a grade from 0 to 1 and not a verdict.  source: its paper."""

    formats: tuple[str, ...]
    rule: answer_rules.Rule | None
    source: str
    graded: bool = False


STEPS: dict[str, tuple[str, Judge]] = {
    "visualprocessbench": ("visual_process_bench", visual_process_bench),
    "processbench": ("process_bench", process_bench),
    "prmbench": ("prmbench", prm_bench),
}
"""Name -> (the format of its file, what judges it)."""

ANSWERS: dict[str, AnswerBenchmark] = {
    "mathvista": AnswerBenchmark(("mathvista", "vlmevalkit"), answer_rules.mathvista, "arXiv 2310.02255"),
    "mathvision": AnswerBenchmark(("mathvision", "vlmevalkit"), answer_rules.mathvision, "arXiv 2402.14804"),
    "wemath": AnswerBenchmark(("we_math", "vlmevalkit"), answer_rules.we_math, "arXiv 2407.01284"),
    "mmvet": AnswerBenchmark(("mm_vet", "vlmevalkit"), None, "arXiv 2308.02490", graded=True),
    "mmstar": AnswerBenchmark(("mmstar", "vlmevalkit"), answer_rules.mmstar, "arXiv 2403.20330"),
    "mmmu": AnswerBenchmark(("mmmu", "vlmevalkit"), answer_rules.mmmu, "arXiv 2311.16502"),
    "mmmu_pro": AnswerBenchmark(("mmmu", "vlmevalkit"), answer_rules.mmmu_pro, "arXiv 2409.02813"),
    "rbenchv": AnswerBenchmark(("r_bench_v", "vlmevalkit"), None, "arXiv 2505.16770"),
}

BENCHMARKS = (*STEPS, *ANSWERS)


def judge_benchmark(
    name: str,
    records: Sequence[Record],
    scorers: Mapping[str, Scores],
    *,
    threshold: float = 0.5,
    num_resamples: int = 200,
    seed: int = 0,
) -> dict[str, Any]:
    """Step scores by a benchmark of steps: {"benchmark", "num_chains", "judged": {scorer: figures}}, `position` among
    the scorers.

    scorers: name -> step scores of the records. Raises ValueError for an unknown benchmark, scores that are not one per
    step, and records none of which the benchmark can judge.
    """
    if name not in STEPS:
        raise ValueError(f"{name!r} is no benchmark of steps; there are {', '.join(STEPS)}")
    for scorer, scores in scorers.items():
        if [len(row) for row in scores] != [len(record.steps) for record in records]:
            raise ValueError(f"{scorer}: there must be one score for every step of every chain")
    judge = STEPS[name][1]
    options = {"num_resamples": num_resamples, "seed": seed}
    everyone = {**scorers, "position": held_out_position_scores(records)}
    return {
        "benchmark": name,
        "num_chains": len(records),
        "judged": {scorer: judge(records, scores, threshold, options) for scorer, scores in everyone.items()},
    }
