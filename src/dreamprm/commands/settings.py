"""Settings of the stage commands; each is checked as `train`'s are."""

from __future__ import annotations

from dataclasses import dataclass, field

from dreamprm.config.kinds import OnBadRow
from dreamprm.config.schema import Aggregate, Device, EvaluateConfig, Precision

__all__ = [
    "EvaluateStage",
    "LabelStage",
    "PolicyConfig",
    "ReportStage",
    "SampleStage",
    "ScoreStage",
    "SelectStage",
    "StageData",
]


@dataclass
class StageData:
    """`path`: a file that a reader knows, or `world/SPLIT` for a split of the embedded world."""

    path: str | None = None
    format: str | None = None
    images: str | None = None
    on_bad_row: OnBadRow = OnBadRow.error
    limit: int | None = None


@dataclass
class PolicyConfig:
    """The model that writes chains. `path`: `world` for the shipped tiny InternVL, else a folder or a hub name."""

    path: str = "world"
    temperature: float = 1.0
    top_p: float = 1.0
    max_new_tokens: int = 512
    batch_size: int = 64
    system: str | None = None


@dataclass
class SampleStage:
    """`num` candidates for every question of `data`, written to `out`."""

    out: str = "candidates.jsonl"
    num: int = 8
    seed: int = 0
    device: Device = Device.auto
    data: StageData = field(default_factory=StageData)
    policy: PolicyConfig = field(default_factory=PolicyConfig)


@dataclass
class LabelStage:
    """Monte-Carlo labels for every step of `data`: the share of `num` completions that come out right."""

    out: str = "labelled.jsonl"
    num: int = 16
    seed: int = 0
    device: Device = Device.auto
    data: StageData = field(default_factory=StageData)
    policy: PolicyConfig = field(default_factory=PolicyConfig)


@dataclass
class ScoreStage:
    """The PRM's score of every step of `data`; `prm`: a folder that training wrote, or any model that PRM loads."""

    prm: str | None = None
    out: str = "scores.jsonl"
    batch_size: int = 8
    device: Device = Device.auto
    precision: Precision = Precision.fp32
    data: StageData = field(default_factory=StageData)


@dataclass
class SelectStage:
    """One candidate per question of a scores file. `method`: prm, weighted_vote or self_consistency."""

    scores: str | None = None
    out: str = "selection.jsonl"
    method: str = "prm"
    aggregate: Aggregate = Aggregate.mean


@dataclass
class EvaluateStage:
    """Best-of-N and step-level figures of a scores file."""

    scores: str | None = None
    out: str = "results.json"
    name: str = "evaluate"
    evaluate: EvaluateConfig = field(default_factory=EvaluateConfig)


@dataclass
class ReportStage:
    """report.html of a finished run's folder, written again."""

    run_dir: str | None = None
