"""`label`: Monte-Carlo labels by the policy's completions of every prefix."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from omegaconf import DictConfig

from dreamprm.commands.settings import LabelStage
from dreamprm.config.launch import launch
from dreamprm.config.resolve import to_settings
from dreamprm.progress import Reporter, say

__all__ = ["label", "main"]


def label(settings: LabelStage) -> Path:
    """Write the records of the data again, each step labelled with its share of right completions."""
    from dreamprm.commands.files import read_records, write_records
    from dreamprm.config.build import build_policy
    from dreamprm.policy import monte_carlo
    from dreamprm.policy.answers import same_answer

    records = read_records(settings.data)
    policy = build_policy(settings.policy, settings.device)
    with Reporter("label", sum(max(0, len(record.steps) - 1) for record in records) * settings.num) as report:
        policy.progress = lambda done, total: report.update(done, {})
        counts = monte_carlo(policy, records, same_answer, settings.num, seed=settings.seed)
    labelled = [replace(record, labels=count.labels) for record, count in zip(records, counts, strict=True)]
    path = Path(settings.out)
    write_records(path, labelled)
    say(f"{len(labelled)} chains with {settings.num} completions per step: {path}")
    return path


def _run(config: DictConfig, overrides: list[str]) -> None:
    label(to_settings(config, LabelStage))


def main(arguments: list[str], program: str) -> None:
    launch("label", _run, arguments, program)
