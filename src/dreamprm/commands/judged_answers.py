"""`evaluate benchmark=…` of a benchmark of answers: who wrote which chain, how right it is, what best-of-N makes of it.

A judge's grades stand in OUT.judged.jsonl, appended to as they come, so that a run that was killed asks for no grade
twice.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from dreamprm.data.record import Record
from dreamprm.errors import ConfigError, UserError
from dreamprm.evaluate.benchmarks import ANSWERS, AnswerBenchmark
from dreamprm.progress import say

__all__ = ["judged_answers"]

Rows = list[dict[str, Any]]


def judged_answers(settings: Any) -> dict[str, Any]:
    """The figures of `judge_answers`, `decided_by`, and of a judge how many replies could not be read.

    Raises UserError for a file of another shape, ConfigError for what is missing or does not go together.
    """
    from dreamprm.commands.files import needed, read_records
    from dreamprm.config.paths import conf_dir
    from dreamprm.evaluate.answer_benchmarks import joined, judge_answers

    benchmark = ANSWERS[settings.benchmark]
    if settings.prm is not None:
        raise ConfigError(f"prm is for benchmarks of steps; for {settings.benchmark} give scores=…, by dreamprm score")
    needed(settings.data.path, "data.path", f"your copy of {settings.benchmark}'s questions")
    settings.endpoint = settings.endpoint.with_recipe(conf_dir() / "endpoint")
    if benchmark.rule is None and settings.endpoint.url is None:
        raise ConfigError(
            f"benchmark={settings.benchmark} is decided by a judge: set endpoint.url and endpoint.model (or "
            "endpoint.recipe)"
        )
    _require_format(settings, benchmark)
    chains, scores = _chains(settings)
    questions = joined(chains, read_records(settings.data))
    if settings.endpoint.url is not None:
        worth, unread = _by_judge(settings, benchmark, chains, questions)
        decided: dict[str, Any] = {"decided_by": f"judge {settings.endpoint.model}", "num_unreadable": unread}
    else:
        assert benchmark.rule is not None
        worth = [float(benchmark.rule(question, _text(chain))) for chain, question in zip(chains, questions)]
        decided = {"decided_by": f"the rule of {benchmark.source}"}
    found = judge_answers(settings.benchmark, chains, questions, worth, scores, settings.evaluate.figures())
    if settings.result_file is not None:
        _write_results(settings, chains, scores)
    return found | decided


def _text(chain: Record) -> str:
    return str(chain.extra.get("text") or "\n".join(chain.steps))


def _require_format(settings: Any, benchmark: AnswerBenchmark) -> None:
    """Raises UserError where `data.path` is no file of this benchmark."""
    from dreamprm.data.readers import recognise

    given = settings.data.format
    try:
        given = given or recognise(settings.data.path, split=settings.data.split)
    except (ValueError, OSError) as error:
        raise UserError(str(error)) from error
    if given not in benchmark.formats:
        raise UserError(
            f"data.path={settings.data.path} is of format {given}; {settings.benchmark} is read from "
            f"{' or '.join(benchmark.formats)} (its publishers' files, or VLMEvalKit's TSV)"
        )
    settings.data.format = given


def _chains(settings: Any) -> tuple[list[Record], list[list[float]] | None]:
    from dreamprm.commands.files import StageData, needed, read_records, read_scores

    if settings.predictions is None:
        return read_scores(needed(settings.scores, "scores", "a file that dreamprm score wrote, or set predictions"))
    if settings.scores is not None:
        raise ConfigError("scores and predictions are both set: give one of them")
    chains = read_records(StageData(path=settings.predictions))
    if not chains or not any(chain.steps for chain in chains):
        raise UserError(
            f"predictions={settings.predictions}: holds no chains; give a result file with the columns index, question "
            "and prediction, or chains that dreamprm sample wrote"
        )
    return chains, None


def _by_judge(
    settings: Any, benchmark: AnswerBenchmark, chains: Sequence[Record], questions: Sequence[Record]
) -> tuple[list[float], int]:
    """(how right every chain is, replies without a grade): these count as wrong, as published."""
    from dreamprm.commands.files import made_of, read_rows
    from dreamprm.commands.policy_stage import HOW
    from dreamprm.commands.stage_output import write_stage
    from dreamprm.policy.endpoint import Endpoint
    from dreamprm.policy.judge_answers import answer_prompt, read_grade

    graded = benchmark.graded
    settings.endpoint = settings.endpoint.as_judge()
    prompts = [answer_prompt(question, _text(chain), graded=graded) for question, chain in zip(questions, chains)]

    def make(units: Sequence[int], rows: Rows) -> Iterator[Rows]:
        if not units:
            return
        endpoint = Endpoint(settings.endpoint)
        names = [f"{chains[unit].key}|grade" for unit in units]
        for reply in endpoint.replies([prompts[unit] for unit in units], names, settings.evaluate.seed):
            yield [{"reply": reply.text, "grade": read_grade(reply.text, graded=graded)}]

    out = Path(settings.out).with_suffix(".judged.jsonl")
    made = made_of("evaluate", settings, chains, *(f"endpoint.{name}" for name in HOW))
    about = {
        "command": "evaluate",
        "endpoint": made["settings"]["endpoint"],
        "input": made["input"],
        "prompts": _digest(prompt.question for prompt in prompts),
    }
    write_stage(out, about, [1] * len(chains), make)
    grades = [row["grade"] for row in read_rows(out)]
    unread = sum(grade is None for grade in grades)
    if unread:
        say(f"{unread} of {len(grades)} replies of the judge hold no grade and count as wrong: {out}")
    return [grade or 0.0 for grade in grades], unread


def _digest(texts: Any) -> str:
    import hashlib

    digest = hashlib.blake2b(digest_size=16)
    for text in texts:
        digest.update(text.encode("utf-8", "replace") + b"\x00")
    return digest.hexdigest()


def _write_results(settings: Any, chains: Sequence[Record], scores: Sequence[Sequence[float]] | None) -> None:
    """The table's rows without their images, and the chosen chain of each as its `prediction`."""
    from dreamprm.data.readers.result_file import write_results
    from dreamprm.selection import chain_scores

    if settings.data.format != "vlmevalkit":
        raise ConfigError("result_file needs data.path to be VLMEvalKit's own TSV, whose rows it repeats")
    if scores is None and len({chain.group for chain in chains}) < len(chains):
        raise ConfigError("result_file needs scores: predictions hold several chains of a question, and none is chosen")
    values = [0.0] * len(chains) if scores is None else chain_scores(scores, settings.evaluate.aggregate).tolist()
    best: dict[str, tuple[float, Record]] = {}
    for chain, value in zip(chains, values, strict=True):
        # Of equals the one whose text comes first, as `select` has it.
        if chain.group not in best or (-value, chain.steps) < (-best[chain.group][0], best[chain.group][1].steps):
            best[chain.group] = value, chain
    path = Path(settings.result_file)
    write_results(path, settings.data.path, {group: _text(chain) for group, (_, chain) in best.items()})
    say(f"the chosen answers as a result file: {path}")
