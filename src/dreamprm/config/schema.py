"""The settings of a training run, as dataclasses: every name, type and default that a configuration may set.

Groups of which there are several kinds (a weigher is a table or a net) have one dataclass per kind in `kinds.py`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum

from dreamprm.config.kinds import (
    Adam,
    AdamW,
    Constant,
    DataSettings,
    InstanceNet,
    OptimizerSettings,
    ScheduleSettings,
    WeigherSettings,
    WorldData,
    WorldMeta,
)

__all__ = [
    "Aggregate",
    "CheckpointConfig",
    "ColdConfig",
    "Device",
    "EvaluateConfig",
    "Head",
    "HypergradientConfig",
    "InnerConfig",
    "LoraConfig",
    "Loss",
    "ModelConfig",
    "OuterConfig",
    "OuterForm",
    "Precision",
    "Product",
    "Quantize",
    "TrackerConfig",
    "TrackerKind",
    "TrainConfig",
]


class Device(Enum):
    auto = "auto"
    cpu = "cpu"
    cuda = "cuda"


class Precision(Enum):
    """`bf16` computes under autocast and keeps the parameters in fp32; `pure_bf16` keeps them in bf16 too (as published)."""

    fp32 = "fp32"
    bf16 = "bf16"
    pure_bf16 = "pure_bf16"


class Head(Enum):
    generative = "generative"
    discriminative = "discriminative"
    token = "token"


class Quantize(Enum):
    none = "none"
    int8 = "int8"
    nf4 = "nf4"


class Loss(Enum):
    cross_entropy = "cross_entropy"
    mse = "mse"


class Aggregate(Enum):
    mean = "mean"
    min = "min"
    max = "max"
    last = "last"
    product = "product"
    log_mean = "log_mean"
    log_odds_sum = "log_odds_sum"
    log_odds_mean = "log_odds_mean"


class OuterForm(Enum):
    """`aggregate`: (A(step scores) - r)^2; `step_mean`: mean over steps of (P(+) if r = 1 else P(-)), squared distance to 1."""

    aggregate = "aggregate"
    step_mean = "step_mean"


class Product(Enum):
    ghost = "ghost"
    jvp = "jvp"
    fd = "fd"
    unroll = "unroll"


class TrackerKind(Enum):
    none = "none"
    tensorboard = "tensorboard"
    trackio = "trackio"
    wandb = "wandb"


def _positive(owner: object, *names: str) -> None:
    for name in names:
        value = getattr(owner, name)
        if value is not None and value <= 0:
            raise ValueError(f"{name} must be above 0, is {value}")


def _not_negative(owner: object, *names: str) -> None:
    for name in names:
        value = getattr(owner, name)
        if value is not None and value < 0:
            raise ValueError(f"{name} must not be negative, is {value}")


@dataclass
class LoraConfig:
    """Low-rank adapters by peft; rank 0 trains the parameters themselves."""

    rank: int = 0
    alpha: float = 16.0
    dropout: float = 0.0
    targets: str = "all-linear"

    def __post_init__(self) -> None:
        _not_negative(self, "rank", "dropout")


@dataclass
class ModelConfig:
    """The PRM. `path`: `world` for the shipped tiny InternVL, else a folder or a hub name."""

    path: str = "world"
    head: Head = Head.generative
    needs: str = ""
    prompt: str = "visualprm"
    quantize: Quantize = Quantize.none
    lora: LoraConfig = field(default_factory=LoraConfig)
    freeze_vision: bool = False
    gradient_checkpointing: bool = False
    max_tiles: int | None = None
    longest_side: int | None = None
    max_length: int | None = None


@dataclass
class ColdConfig:
    """The cold start: plain training on the +/- labels (and the world's dense targets) before any weight is learned."""

    updates: int = 400
    batch_size: int = 64
    accumulate: int = 1
    clip_norm: float | None = 1.0
    dense_weight: float = 0.5
    num_examples: int | None = None
    optimizer: OptimizerSettings = field(default_factory=AdamW)
    schedule: ScheduleSettings = field(default_factory=Constant)

    def __post_init__(self) -> None:
        _positive(self, "batch_size", "accumulate", "clip_norm", "num_examples")
        _not_negative(self, "updates", "dense_weight")


@dataclass
class InnerConfig:
    """The inner problem: fit the PRM on weighted training chains. One update sees accumulate x batch_size chains."""

    updates: int = 300
    batch_size: int = 64
    accumulate: int = 1
    loss: Loss = Loss.cross_entropy
    clip_norm: float | None = 1.0
    optimizer: OptimizerSettings = field(default_factory=AdamW)
    schedule: ScheduleSettings = field(default_factory=Constant)

    def __post_init__(self) -> None:
        _positive(self, "batch_size", "accumulate", "clip_norm")
        _not_negative(self, "updates")


@dataclass
class OuterConfig:
    """The outer problem: choose the weigher so that the updated PRM judges the meta set well; once every `every` updates."""

    batch_size: int = 128
    every: int = 1
    aggregate: Aggregate = Aggregate.mean
    form: OuterForm = OuterForm.aggregate
    clip_norm: float | None = 1.0
    max_not_finite: int = 20
    optimizer: OptimizerSettings = field(default_factory=Adam)
    schedule: ScheduleSettings = field(default_factory=Constant)

    def __post_init__(self) -> None:
        _positive(self, "batch_size", "every", "clip_norm", "max_not_finite")


@dataclass
class HypergradientConfig:
    """How the derivative of the outer loss by the weights is computed; see docs of `bilevel.Lookahead`."""

    product: Product = Product.ghost
    adam: str = "exact"
    unroll: int = 1
    check: bool = True

    def __post_init__(self) -> None:
        _positive(self, "unroll")
        if self.adam not in ("exact", "frozen"):
            raise ValueError(f"adam must be exact or frozen, is {self.adam!r}")


@dataclass
class CheckpointConfig:
    """`every` 0 writes one at the end (and on Ctrl-C) only."""

    every: int = 100
    keep: int = 2

    def __post_init__(self) -> None:
        _not_negative(self, "every")
        _positive(self, "keep")


@dataclass
class EvaluateConfig:
    """The evaluation after training. `num_questions` null takes all."""

    aggregate: Aggregate = Aggregate.mean
    batch_size: int = 64
    num_candidates: list[int] = field(default_factory=lambda: [1, 2, 4, 8])
    num_questions: int | None = None
    num_resamples: int = 1000
    threshold: float = 0.5
    seed: int = 0

    def __post_init__(self) -> None:
        _positive(self, "batch_size", "num_questions", "num_resamples")
        if not self.num_candidates or min(self.num_candidates) < 1:
            raise ValueError(f"num_candidates must be a list of numbers from 1 on, is {self.num_candidates}")


@dataclass
class TrackerConfig:
    """metrics.jsonl is always written; a tracker shows the same numbers elsewhere too."""

    kind: TrackerKind = TrackerKind.none
    project: str = "dreamprm"


@dataclass
class TrainConfig:
    """One run: `python -m src.train +experiment=instance_net`."""

    name: str = "instance_net"
    description: str = ""
    seed: int = 0
    run_dir: str | None = None
    resume: str | None = None
    device: Device = Device.auto
    precision: Precision = Precision.fp32
    threads: int | None = None
    log_every: int = 1
    data: DataSettings = field(default_factory=WorldData)
    meta: DataSettings = field(default_factory=WorldMeta)
    model: ModelConfig = field(default_factory=ModelConfig)
    weigher: WeigherSettings = field(default_factory=InstanceNet)
    hypergradient: HypergradientConfig = field(default_factory=HypergradientConfig)
    cold: ColdConfig = field(default_factory=ColdConfig)
    inner: InnerConfig = field(default_factory=InnerConfig)
    outer: OuterConfig = field(default_factory=OuterConfig)
    checkpoint: CheckpointConfig = field(default_factory=CheckpointConfig)
    evaluate: EvaluateConfig = field(default_factory=EvaluateConfig)
    tracker: TrackerConfig = field(default_factory=TrackerConfig)

    def __post_init__(self) -> None:
        _positive(self, "threads", "log_every")
