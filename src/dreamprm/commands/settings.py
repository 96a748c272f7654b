"""Settings of the stage commands; each is checked as `train`'s are."""

from __future__ import annotations

from dataclasses import dataclass

from dreamprm.choices import Device, Precision, Voting
from dreamprm.config.schema import EvaluateConfig
from dreamprm.data.file_data import FileRows
from dreamprm.policy.sampling import PolicyConfig
from dreamprm.prm.aggregation import AGGREGATIONS
from dreamprm.setting import Settings, setting

__all__ = ["EvaluateStage", "LabelStage", "ReportStage", "SampleStage", "ScoreStage", "SelectStage", "StageData"]


@dataclass
class StageData(FileRows):
    """The chains or questions to work on; `path` may be world/SPLIT for a split of the embedded world too."""


@dataclass
class SampleStage(Settings):
    """The policy writes `num` candidates for every question of `data`."""

    out: str = setting("candidates.jsonl", "file that is written")
    num: int = setting(8, "candidates of a question", least=1)
    seed: int = setting(0, "of the draws", least=0)
    device: Device = setting(Device.auto, "auto: a GPU where there is one")
    data: StageData = setting(StageData())
    policy: PolicyConfig = setting(PolicyConfig())


@dataclass
class LabelStage(Settings):
    """Monte-Carlo labels for every step of `data`: the share of `num` completions that come out right."""

    out: str = setting("labelled.jsonl", "file that is written")
    num: int = setting(16, "completions of a step", least=1)
    seed: int = setting(0, "of the draws", least=0)
    device: Device = setting(Device.auto, "auto: a GPU where there is one")
    data: StageData = setting(StageData())
    policy: PolicyConfig = setting(PolicyConfig())


@dataclass
class ScoreStage(Settings):
    """The PRM's score of every step of every chain of `data`."""

    prm: str | None = setting(None, "the folder prm/ of a run, or any model that PRM loads")
    out: str = setting("scores.jsonl", "file that is written")
    batch_size: int = setting(8, "chains scored at once", least=1)
    device: Device = setting(Device.auto, "auto: a GPU where there is one")
    precision: Precision = setting(Precision.fp32, "bf16: autocast over fp32 parameters; pure_bf16: all in bf16")
    data: StageData = setting(StageData())


@dataclass
class SelectStage(Settings):
    """Best-of-N: one candidate per question of a scores file."""

    scores: str | None = setting(None, "a file that `dreamprm score` wrote")
    out: str = setting("selection.jsonl", "file that is written")
    method: Voting = setting(Voting.prm, "how the candidate is chosen")
    aggregate: str = setting("mean", "how step scores become a chain's score", words=AGGREGATIONS)


@dataclass
class EvaluateStage(Settings):
    """Best-of-N and step-level figures of a scores file."""

    scores: str | None = setting(None, "a file that `dreamprm score` wrote")
    out: str = setting("results.json", "file that is written")
    name: str = setting("evaluate", "name in the results")
    evaluate: EvaluateConfig = setting(EvaluateConfig())


@dataclass
class ReportStage(Settings):
    """report.html of a finished run, written again from its files."""

    run_dir: str | None = setting(None, "the folder of a finished run")
