"""`search`: the policy writes chains step by step, and the PRM says which of them go on."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from dreamprm.commands.command import command
from dreamprm.commands.policy_stage import HOW, PolicyStage
from dreamprm.progress import say
from dreamprm.setting import setting

__all__ = ["SearchStage", "main", "search"]

Rows = list[dict[str, Any]]


@dataclass
class SearchStage(PolicyStage):
    """One chain for every question of `data`, found by search. A run that was killed goes on where it was."""

    prm: str | None = setting(None, "the folder prm/ of a run, or any model that PRM loads")
    out: str = setting("searched.jsonl", "file that is appended to")
    method: str = setting("beam", "beam: the best of all; dvts: the best of each subtree", words=("beam", "dvts"))
    width: int = setting(4, "chains that are kept, or subtrees", least=1)
    samples: int = setting(4, "next steps that are drawn for a chain", least=1)
    lookahead: int = setting(0, "a step is valued after so many steps more", least=0)
    max_steps: int = setting(16, "rounds of search", least=1)
    step_tokens: int = setting(128, "a step that is longer is cut, and its chain ends", least=1)
    token_budget: int = setting(4096, "tokens written for a question, at most", least=1)
    aggregate: str = setting("mean", "how step scores become a chain's: mean, min, last, product …")
    batch_size: int = setting(8, "chains scored at once", least=1)


def search(settings: SearchStage) -> Path:
    """Write the chain that search chose for every question, with its step scores, as `select` and `evaluate` read it.

    Raises UserError where the PRM cannot be read, ConfigError for an aggregation that is none.
    """
    from dreamprm.commands.files import folder_digest, made_of, needed, read_records, require_other_file
    from dreamprm.commands.stage_output import write_stage
    from dreamprm.config.paths import conf_dir
    from dreamprm.errors import ConfigError
    from dreamprm.prm.aggregation import aggregate

    path = needed(settings.prm, "prm", "the folder prm/ of a run, or a model")
    try:
        aggregate([0.5], settings.aggregate)
    except ValueError as error:
        raise ConfigError(str(error)) from error
    out = Path(settings.out)
    require_other_file(out, settings.data)
    settings.endpoint = settings.endpoint.with_recipe(conf_dir() / "endpoint")
    questions = list({record.group: record for record in read_records(settings.data)}.values())
    how = ("prm", "batch_size", "endpoint.recipe", *(f"endpoint.{name}" for name in HOW))
    about = made_of("search", settings, questions, *how) | {"prm": folder_digest(path)}

    def make(units: Sequence[int], rows: Rows) -> Iterator[Rows]:
        write, score = _models(settings, path) if units else (None, None)
        for unit in units:
            yield [_row(settings, questions[unit], write, score, unit)]

    if write_stage(out, about, [1] * len(questions), make, shard=settings.shard, overwrite=settings.overwrite):
        say(f"{len(questions)} chains by {settings.method}: {out}")
    return out


def _models(settings: SearchStage, path: str) -> tuple[Any, Any]:
    from dreamprm.config.build import build_device, build_policy
    from dreamprm.errors import UserError
    from dreamprm.policy.endpoint_steps import EndpointStepWriter
    from dreamprm.policy.step_writer import StepWriter
    from dreamprm.prm import PRM

    try:
        prm: Any = PRM.from_pretrained(path).to(build_device(settings.device))
    except OSError as error:
        raise UserError(str(error)) from error
    if settings.endpoint.url is not None:
        writer: Any = EndpointStepWriter(settings.endpoint)
    else:
        writer = StepWriter(build_policy(settings.policy, settings.device))
    return writer, lambda records: prm.score_records(records, settings.batch_size)


def _row(settings: SearchStage, record: Any, write: Any, score: Any, unit: int) -> dict[str, Any]:
    from dreamprm.commands.files import record_row
    from dreamprm.policy.answers import answer_of, ends_right
    from dreamprm.search import Tree, beam, dvts

    names = ("samples", "lookahead", "max_steps", "step_tokens")
    given = {name: getattr(settings, name) for name in names}
    seed = settings.seed * 1_000_003 + unit
    tree = Tree(record, write, score, budget=settings.token_budget, how=settings.aggregate, seed=seed, **given)
    best = (beam if settings.method == "beam" else dvts)(tree, settings.width)[0]
    (scores,) = tree.scores([best])
    steps = best.steps or ("(empty)",)
    response = "\n".join(steps)
    right = None if record.reference is None else ends_right(record, response, settings.judge)
    chain = replace(record, steps=steps, labels=(), answer=answer_of(response), correct=right, extra={})
    return record_row(Path(settings.out), chain, scores, tokens_out=tree.used, finish=best.finish)


main = command("search", SearchStage, search)
