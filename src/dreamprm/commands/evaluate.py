"""`evaluate`: best-of-N and step-level figures of a scores file, or of a published benchmark of steps or answers."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dreamprm.choices import Device, Precision
from dreamprm.commands.command import command
from dreamprm.commands.files import StageData
from dreamprm.config.schema import EvaluateConfig
from dreamprm.data.record import Record
from dreamprm.errors import ConfigError, UserError
from dreamprm.evaluate.benchmarks import ANSWERS, BENCHMARKS, STEPS
from dreamprm.policy.endpoint import EndpointConfig
from dreamprm.progress import Reporter, only_our_bars, say
from dreamprm.setting import Settings, setting

__all__ = ["EvaluateStage", "evaluate", "main"]


@dataclass
class EvaluateStage(Settings):
    """Best-of-N and step-level figures of a scores file, or a published benchmark of step scores or of answers.

    A benchmark of answers needs `data.path`, your copy of its questions, and `scores` of chains sampled for them.
    """

    scores: str | None = setting(None, "a file that `dreamprm score` wrote")
    benchmark: str | None = setting(None, "judge by this benchmark's own definitions", words=BENCHMARKS)
    prm: str | None = setting(None, "benchmarks of steps, with data.path in place of scores: PRMs, commas between")
    predictions: str | None = setting(
        None, "benchmarks of answers, in place of scores: a result file of VLMEvalKit, or chains without scores"
    )
    result_file: str | None = setting(
        None, "benchmarks of answers: also write the chosen answers as VLMEvalKit's result file (.xlsx, .tsv, .json)"
    )
    out: str = setting("results.json", "file that is written")
    name: str = setting("evaluate", "name in the results")
    device: Device = setting(Device.auto, "auto: a GPU where there is one")
    precision: Precision = setting(Precision.fp32, "bf16: autocast over fp32 parameters; pure_bf16: all in bf16")
    evaluate: EvaluateConfig = setting(EvaluateConfig())
    data: StageData = setting(StageData())
    endpoint: EndpointConfig = setting(EndpointConfig())  # the judge of answers, in place of the benchmark's rule


def evaluate(settings: EvaluateStage) -> Path:
    """Write the figures as training's results.json has them, or the benchmark's, and print the table."""
    from dreamprm.files import write_atomically

    results = {"experiment": settings.name, "seed": settings.evaluate.seed}
    try:
        if settings.benchmark in ANSWERS:
            from dreamprm.commands.judged_answers import judged_answers

            results |= judged_answers(settings)
        else:
            _refuse_answer_settings(settings)
            results |= _benchmark(settings) if settings.benchmark else _figures(settings)
    except ValueError as error:
        raise UserError(str(error)) from error
    path = Path(settings.out)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, (json.dumps(results, indent=2, ensure_ascii=False) + "\n").encode())
    _show(results)
    say(f"figures of {results['num_chains']} chains: {path}")
    return path


def _show(results: dict[str, Any]) -> None:
    from dreamprm.report.benchmark_table import print_benchmark, print_categories
    from dreamprm.report.table import print_results

    if "judged" in results:
        print_benchmark(results)
    else:
        print_results(results)
        if "by_category" in results:
            print_categories(results)


def _refuse_answer_settings(settings: EvaluateStage) -> None:
    """Raises ConfigError for settings that only a benchmark of answers has."""
    for name in ("predictions", "result_file"):
        if getattr(settings, name) is not None:
            raise ConfigError(f"{name} is for a benchmark of answers: benchmark={', '.join(ANSWERS)}")


def _figures(settings: EvaluateStage) -> dict[str, Any]:
    from dreamprm.commands.files import needed, read_scores
    from dreamprm.evaluate.figures import figures, first_questions

    if settings.prm is not None:
        raise ConfigError("prm is for benchmark=…; score your own data with dreamprm score, then give scores=…")
    records, scores = read_scores(needed(settings.scores, "scores", "a file that dreamprm score wrote"))
    rows = first_questions(records, settings.evaluate.num_questions)
    records, scores = [records[row] for row in rows], [scores[row] for row in rows]
    found: dict[str, Any] = {"num_chains": len(records), "best_of_n": {}, "steps": {}}
    return found | figures(records, scores, settings.evaluate.figures())


def _benchmark(settings: EvaluateStage) -> dict[str, Any]:
    from dreamprm.commands.files import needed, read_records, read_scores
    from dreamprm.evaluate.benchmarks import judge_benchmark

    assert settings.benchmark is not None
    scorers: dict[str, list[list[float]]] = {}
    if settings.prm is None:
        path = needed(settings.scores, "scores", "a file that dreamprm score wrote of the benchmark, or set prm")
        records, scorers[Path(path).stem] = read_scores(path)
    else:
        if settings.scores is not None:
            raise ConfigError("scores and prm are both set: give the scores, or the PRMs and data.path")
        needed(settings.data.path, "data.path", f"your copy of {settings.benchmark}'s file")
        if settings.data.format is None:
            settings.data.format = STEPS[settings.benchmark][0]
        records = read_records(settings.data)
        for path in settings.prm.split(","):
            scorers[path.strip()] = _score(path.strip(), records, settings)
    given = settings.evaluate
    return judge_benchmark(
        settings.benchmark,
        records,
        scorers,
        threshold=given.threshold,
        num_resamples=min(200, given.num_resamples),
        seed=given.seed,
    )


def _score(path: str, records: list[Record], settings: EvaluateStage) -> list[list[float]]:
    import torch

    from dreamprm.config.build import build_device
    from dreamprm.prm import PRM

    only_our_bars()
    device = build_device(settings.device)
    dtype = torch.bfloat16 if settings.precision is Precision.pure_bf16 else torch.float32
    try:
        prm = PRM.from_pretrained(path, dtype=dtype).to(device).eval()
    except OSError as error:
        raise UserError(f"prm={path} cannot be loaded: {str(error).splitlines()[0]}") from error
    size = settings.evaluate.batch_size
    scores: list[list[float]] = []
    bf16 = settings.precision is Precision.bf16
    with Reporter(path, len(records)) as report, torch.autocast(device.type, torch.bfloat16, enabled=bf16):
        for start in range(0, len(records), size * 8):
            scores += prm.score_records(records[start : start + size * 8], size)
            report.update(len(scores), {})
    return scores


main = command("evaluate", EvaluateStage, evaluate)
