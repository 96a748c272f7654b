"""`sample`: the policy, a local model or a server, writes candidates for every question."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from dreamprm.commands.command import command
from dreamprm.commands.policy_stage import HOW, PolicyStage
from dreamprm.data.record import Record
from dreamprm.progress import say
from dreamprm.setting import setting

__all__ = ["SampleStage", "main", "sample"]

Rows = list[dict[str, Any]]


@dataclass
class SampleStage(PolicyStage):
    """The policy writes `num` candidates for every question of `data`. A run that was killed goes on where it was."""

    out: str = setting("candidates.jsonl", "file that is appended to")
    num: int = setting(8, "candidates of a question", least=1)


def sample(settings: SampleStage) -> Path:
    """Write `num` candidates per question of the data as records; those with a reference are judged by it."""
    from dreamprm.commands.files import made_of, read_records, require_other_file
    from dreamprm.commands.stage_output import write_stage
    from dreamprm.config.paths import conf_dir

    out = Path(settings.out)
    require_other_file(out, settings.data)
    settings.endpoint = settings.endpoint.with_recipe(conf_dir() / "endpoint")
    questions = list({record.group: record for record in read_records(settings.data)}.values())
    about = made_of("sample", settings, questions, *(f"endpoint.{name}" for name in HOW), "endpoint.recipe")
    by_server = settings.endpoint.url is not None
    # A unit is a server's chain; of a local model a batch, since its draws depend on what it holds.
    size = max(1, settings.policy.batch_size // settings.num)
    sizes = [min(size, len(questions) - start) * settings.num for start in range(0, len(questions), size)]
    if by_server:
        sizes = [1] * (len(questions) * settings.num)

    def make(units: Sequence[int], rows: Rows) -> Iterator[Rows]:
        if by_server:
            yield from _from_server(settings, questions, units, rows)
        else:
            yield from _from_model(settings, [questions[u * size : (u + 1) * size] for u in units], units)

    if write_stage(out, about, sizes, make, shard=settings.shard, overwrite=settings.overwrite):
        say(f"{sum(sizes)} candidates for {len(questions)} questions: {out}")
    return out


def _from_model(settings: SampleStage, units: Sequence[Sequence[Record]], numbers: Sequence[int]) -> Iterator[Rows]:
    from dreamprm.config.build import build_policy
    from dreamprm.policy import Prefix

    policy = build_policy(settings.policy, settings.device) if units else None
    for number, questions in zip(numbers, units, strict=True):
        assert policy is not None
        prefixes = [Prefix(record.question, record.images) for record in questions]
        sampled = policy.sample(prefixes, settings.num, seed=settings.seed * 1_000_003 + number)
        yield [
            _row(settings, record, response, policy=settings.policy.path)
            for record, responses in zip(questions, sampled, strict=True)
            for response in responses
        ]


def _from_server(
    settings: SampleStage, questions: Sequence[Record], units: Sequence[int], rows: Rows
) -> Iterator[Rows]:
    from dreamprm.policy import Prefix
    from dreamprm.policy.endpoint import Endpoint

    endpoint = Endpoint(settings.endpoint)
    for name in ("tokens_in", "tokens_out"):  # what an earlier part of the run has used counts
        setattr(endpoint.budget, name, sum(int(row.get("extra", {}).get(name, 0)) for row in rows))
    asked = [questions[unit // settings.num] for unit in units]
    names = [f"{record.group}|{unit % settings.num}" for record, unit in zip(asked, units, strict=True)]
    prefixes = [Prefix(record.question, record.images) for record in asked]
    texts: dict[str, list[str]] = {}
    replies = endpoint.replies(prefixes, names, settings.seed)
    for number, (record, reply) in enumerate(zip(asked, replies, strict=True), 1):
        texts.setdefault(record.group, []).append(reply.text)
        if number == len(asked):  # whoever writes the rows asks for no more than these
            _warn_if_alike([each for each in texts.values() if len(each) > 1], settings)
        used = {"tokens_in": reply.tokens_in, "tokens_out": reply.tokens_out, "finish": reply.finish}
        yield [_row(settings, record, reply.text, policy=settings.endpoint.model, **used)]


def _warn_if_alike(texts: Sequence[Sequence[str]], settings: SampleStage) -> None:
    """Say so where a server was to sample and gave every question one chain over and over."""
    if settings.endpoint.temperature != 0 and texts and all(len(set(each)) == 1 for each in texts):
        say(
            f"warning: all candidates of each of {len(texts)} questions are alike: the server does not sample, "
            "whatever endpoint.temperature says (`transformers serve` samples where the model's generation_config.json "
            'says "do_sample": true)'
        )


def _row(settings: SampleStage, record: Record, response: str, **extra: Any) -> dict[str, Any]:
    from dreamprm.commands.files import record_row
    from dreamprm.policy.answers import answer_of, ends_right, steps_of

    chain = replace(
        record,
        steps=steps_of(response),
        labels=(),
        answer=answer_of(response),
        correct=None if record.reference is None else ends_right(record, response, settings.judge),
        extra={},
    )
    return record_row(Path(settings.out), chain, **extra)


main = command("sample", SampleStage, sample)
