"""`label`: Monte-Carlo labels by the policy's completions of every prefix."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from dreamprm.choices import Device, Judge
from dreamprm.commands.command import command
from dreamprm.commands.files import StageData
from dreamprm.policy.sampling import PolicyConfig
from dreamprm.progress import Reporter, say
from dreamprm.setting import Settings, setting

__all__ = ["LabelStage", "label", "main"]


@dataclass
class LabelStage(Settings):
    """Monte-Carlo labels for every step of `data`: the share of `num` completions that come out right."""

    out: str = setting("labelled.jsonl", "file that is written")
    num: int = setting(16, "completions of a step", least=1)
    seed: int = setting(0, "of the draws", least=0)
    judge: Judge = setting(Judge.math, "how an answer is compared with the reference")
    device: Device = setting(Device.auto, "auto: a GPU where there is one")
    data: StageData = setting(StageData())
    policy: PolicyConfig = setting(PolicyConfig())


def label(settings: LabelStage) -> Path:
    """Write the records of the data again, each step labelled with its share of right completions."""
    from dreamprm.commands.files import read_records, write_records
    from dreamprm.config.build import build_policy
    from dreamprm.policy import monte_carlo
    from dreamprm.policy.answers import ends_right

    records = read_records(settings.data)
    policy = build_policy(settings.policy, settings.device)
    with Reporter("label", sum(max(0, len(record.steps) - 1) for record in records) * settings.num) as report:
        policy.progress = lambda done, total: report.update(done, {})
        counts = monte_carlo(
            policy, records, partial(ends_right, judge=settings.judge), settings.num, seed=settings.seed
        )
    labelled = [replace(record, labels=count.labels) for record, count in zip(records, counts, strict=True)]
    path = Path(settings.out)
    write_records(path, labelled)
    say(f"{len(labelled)} chains with {settings.num} completions per step: {path}")
    return path


main = command("label", LabelStage, label)
