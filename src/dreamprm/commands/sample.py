"""`sample`: the policy writes candidates for every question."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from dreamprm.choices import Device, Judge
from dreamprm.commands.command import command
from dreamprm.commands.files import StageData
from dreamprm.policy.sampling import PolicyConfig
from dreamprm.progress import Reporter, say
from dreamprm.setting import Settings, setting

__all__ = ["SampleStage", "main", "sample"]


@dataclass
class SampleStage(Settings):
    """The policy writes `num` candidates for every question of `data`."""

    out: str = setting("candidates.jsonl", "file that is written")
    num: int = setting(8, "candidates of a question", least=1)
    seed: int = setting(0, "of the draws", least=0)
    judge: Judge = setting(Judge.math, "how an answer is compared with the reference")
    device: Device = setting(Device.auto, "auto: a GPU where there is one")
    data: StageData = setting(StageData())
    policy: PolicyConfig = setting(PolicyConfig())


def sample(settings: SampleStage) -> Path:
    """Write `num` candidates per question of the data as records; those with a reference are judged by it."""
    from dreamprm.commands.files import read_records, write_records
    from dreamprm.config.build import build_policy
    from dreamprm.policy import Prefix
    from dreamprm.policy.answers import answer_of, ends_right, steps_of

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
            correct=None if record.reference is None else ends_right(record, response, settings.judge),
            extra={"policy": settings.policy.path},
        )
        for record, responses in zip(questions, sampled, strict=True)
        for place, response in enumerate(responses)
    ]
    path = Path(settings.out)
    write_records(path, chains)
    say(f"{len(chains)} candidates for {len(questions)} questions: {path}")
    return path


main = command("sample", SampleStage, sample)
