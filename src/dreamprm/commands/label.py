"""`label`: labels for the steps of chains, by completions of a policy or by a judge; the model is local or a server."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from dreamprm.commands.command import command
from dreamprm.commands.policy_stage import HOW, PolicyStage
from dreamprm.data.record import Record
from dreamprm.policy.sampling import Prefix
from dreamprm.progress import say
from dreamprm.setting import setting

__all__ = ["LabelStage", "label", "main"]

METHODS = ("full", "binary", "judge")
_CHAINS_OF_A_SERVER = 16  # worked on together, so that the requests of some fill the pauses of others
Rows = list[dict[str, Any]]


@dataclass
class LabelStage(PolicyStage):
    """Labels for every step of `data`: the share of `num` completions that come out right. A run that was killed goes
    on where it was."""

    out: str = setting("labelled.jsonl", "file that is appended to")
    method: str = setting(
        "full", "full: complete every prefix; binary: search the first error; judge: a model names it", words=METHODS
    )
    num: int = setting(16, "completions of a step", least=1)
    most: int | None = setting(None, "complete again, up to so many, while all are right or all wrong", least=1)
    early_stop: bool = setting(False, "spend nothing behind the first step without a right completion")
    threshold: float | None = setting(None, "hard labels: 1 above this share, e.g. 0; null: the share itself", least=0)


def label(settings: LabelStage) -> Path:
    """Write the records of the data again with their labels.

    Raises UserError for chains without a reference, which completions cannot label, before anything is loaded.
    """
    from dreamprm.commands.files import made_of, read_records, read_rows, require_other_file
    from dreamprm.commands.stage_output import write_stage
    from dreamprm.config.paths import conf_dir
    from dreamprm.errors import ConfigError, UserError

    out = Path(settings.out)
    require_other_file(out, settings.data)
    settings.endpoint = settings.endpoint.with_recipe(conf_dir() / "endpoint")
    if settings.method == "judge":
        settings.endpoint = settings.endpoint.as_judge()
    records = read_records(settings.data)
    if settings.method == "judge" and settings.endpoint.url is None:
        raise ConfigError("method=judge needs a server that judges: set endpoint.url and endpoint.model")
    lacking = [record.key for record in records if record.reference is None]
    if lacking and settings.method != "judge":
        raise UserError(
            f"{len(lacking)} of {len(records)} chains have no reference answer to judge completions by, e.g. "
            f"{lacking[0]!r}: set `reference`, or use method=judge"
        )
    about = made_of("label", settings, records, *(f"endpoint.{name}" for name in HOW), "endpoint.recipe")
    by_server = settings.endpoint.url is not None
    size = _CHAINS_OF_A_SERVER if by_server else max(1, settings.policy.batch_size // settings.num)
    sizes = [min(size, len(records) - start) for start in range(0, len(records), size)]

    def make(units: Sequence[int], rows: Rows) -> Iterator[Rows]:
        complete = _completer(settings, rows) if units else None
        for unit in units:
            assert complete is not None
            yield _labelled(settings, out, records[unit * size : (unit + 1) * size], complete, unit)

    if write_stage(out, about, sizes, make, shard=settings.shard, overwrite=settings.overwrite):
        used, full = (sum(int(row["extra"].get(name, 0)) for row in read_rows(out)) for name in ("used", "full"))
        saved = f"; {used:,} completions, {full - used:,} fewer than every prefix takes" if full else ""
        say(f"{len(records)} chains with labels by method {settings.method}{saved}: {out}")
    return out


def _labelled(settings: LabelStage, out: Path, records: Sequence[Record], complete: Any, unit: int) -> Rows:
    from dreamprm.commands.files import record_row

    if settings.method == "judge":
        return _judged(out, records, complete)
    from dreamprm.policy.answers import ends_right
    from dreamprm.policy.step_values import binary_search, every_prefix, run_labellers

    is_right = partial(ends_right, judge=settings.judge)
    whole = [is_right(record, "\n".join(record.steps)) for record in records]
    if settings.method == "binary":
        labellers = [binary_search(record, right, settings.num) for record, right in zip(records, whole)]
    else:
        more = {"most": settings.most, "early_stop": settings.early_stop}
        labellers = [every_prefix(record, right, settings.num, **more) for record, right in zip(records, whole)]
    rows: Rows = []
    found = run_labellers(labellers, records, lambda asks, owners: complete(asks, owners, unit), is_right)
    for record, labels in zip(records, found, strict=True):
        values = labels.values
        if settings.threshold is not None:
            values = tuple(float(value > settings.threshold) for value in values)
        extra = {"used": labels.used, "full": labels.full, "shares": list(labels.values)}
        rows.append(record_row(out, replace(record, labels=values), **extra))
    return rows


def _judged(out: Path, records: Sequence[Record], complete: Any) -> Rows:
    from dreamprm.commands.files import record_row
    from dreamprm.policy.judge_steps import judge_prompt, read_verdict
    from dreamprm.policy.step_values import Ask

    asks = [Ask(judge_prompt(record), 1, "judge") for record in records]
    rows: Rows = []
    for record, (response,) in zip(records, complete(asks, list(records), 0), strict=True):
        labels = read_verdict(response, len(record.steps))
        # A verdict that cannot be read labels nothing.
        chain = replace(record, labels=labels or (None,) * len(record.steps))
        rows.append(record_row(out, chain, verdict="read" if labels else "unreadable"))
    return rows


def _completer(settings: LabelStage, rows: Rows) -> Any:
    """(asks, the records they are of, unit) -> whole responses for each ask."""
    if settings.endpoint.url is not None:
        return _server_completer(settings)
    from dreamprm.config.build import build_policy

    policy = build_policy(settings.policy, settings.device)

    def complete(asks: list[Any], owners: list[Record], unit: int) -> list[list[str]]:
        rounds = "|".join(sorted({ask.name for ask in asks}))
        seed = _seed(f"{settings.seed}|{unit}|{rounds}")
        return policy.sample([ask.prefix for ask in asks], asks[0].num, seed=seed)

    return complete


def _server_completer(settings: LabelStage) -> Any:
    from dreamprm.policy.endpoint import Endpoint

    endpoint = Endpoint(settings.endpoint)

    def complete(asks: list[Any], owners: list[Record], unit: int) -> list[list[str]]:
        prefixes: list[Prefix] = [ask.prefix for ask in asks for _ in range(ask.num)]
        names = [f"{owner.key}|{ask.name}|{place}" for ask, owner in zip(asks, owners) for place in range(ask.num)]
        texts = iter([reply.text for reply in endpoint.replies(prefixes, names, settings.seed)])
        return [[next(texts) for _ in range(ask.num)] for ask in asks]

    return complete


def _seed(text: str) -> int:
    import hashlib

    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=4).digest(), "little")


main = command("label", LabelStage, label)
