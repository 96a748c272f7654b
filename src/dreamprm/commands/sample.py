"""`sample`: the policy writes candidates for every question."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from omegaconf import DictConfig

from dreamprm.commands.settings import SampleStage
from dreamprm.config.launch import launch
from dreamprm.config.resolve import to_settings
from dreamprm.progress import Reporter, say

__all__ = ["main", "sample"]


def sample(settings: SampleStage) -> Path:
    """Write `num` candidates per question of the data as records; those with a reference are judged by it."""
    from dreamprm.commands.files import read_records, write_records
    from dreamprm.config.build import build_policy
    from dreamprm.policy import Prefix
    from dreamprm.policy.answers import answer_of, same_answer, steps_of

    questions = list({record.group: record for record in read_records(settings.data)}.values())
    policy = build_policy(settings.policy, settings.device)
    prefixes = [Prefix(record.question, record.images) for record in questions]
    with Reporter("sample", len(questions) * settings.num) as report:
        policy.progress = lambda done, total: report.update(done, {})
        sampled = policy.sample(prefixes, settings.num, seed=settings.seed)
    chains = [
        replace(
            record,
            key=f"{record.key}:{place}",
            steps=steps_of(response),
            labels=(),
            answer=answer_of(response),
            correct=None if record.reference is None else same_answer(record, response),
            extra={"policy": settings.policy.path},
        )
        for record, responses in zip(questions, sampled, strict=True)
        for place, response in enumerate(responses)
    ]
    path = Path(settings.out)
    write_records(path, chains)
    say(f"{len(chains)} candidates for {len(questions)} questions: {path}")
    return path


def _run(config: DictConfig, overrides: list[str]) -> None:
    sample(to_settings(config, SampleStage))


def main(arguments: list[str], program: str) -> None:
    launch("sample", _run, arguments, program)
