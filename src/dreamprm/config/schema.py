"""The settings of a training run, as dataclasses: every name, type and default that a configuration may set.

Groups of which there are several kinds (a weigher is a table or a net) have one dataclass per kind in `kinds.py`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum

from dreamprm.config.kinds import (
    SGD,
    Adam,
    AdamW,
    Constant,
    DataSettings,
    InstanceNet,
    InstanceTable,
    OptimizerSettings,
    RowAdam,
    ScheduleSettings,
    WeigherSettings,
    WorldData,
    WorldMeta,
)
from dreamprm.evaluate.figures import FigureSettings

__all__ = [
    "AdamDerivative",
    "Aggregate",
    "Check",
    "CheckpointConfig",
    "ColdConfig",
    "Device",
    "EvaluateConfig",
    "Head",
    "HypergradientConfig",
    "InnerConfig",
    "Layout",
    "LoraConfig",
    "Loss",
    "ModelConfig",
    "OuterConfig",
    "OuterLoss",
    "Precision",
    "Product",
    "Quantize",
    "TrackerConfig",
    "TrackerKind",
    "TrainConfig",
    "Vision",
]


class Device(Enum):
    auto = "auto"
    cpu = "cpu"
    cuda = "cuda"


class Precision(Enum):
    """`bf16` is autocast over parameters in fp32; `pure_bf16` keeps the parameters in bf16, as published."""

    fp32 = "fp32"
    bf16 = "bf16"
    pure_bf16 = "pure_bf16"


class Head(Enum):
    """How the model is read at a step; see `dreamprm.prm.HeadKind`. `auto`: as the folder says, else generative."""

    auto = "auto"
    generative = "generative"
    vocabulary = "vocabulary"
    linear = "linear"
    token_classification = "token_classification"


class Layout(Enum):
    """Where the verdict on a step stands; see `dreamprm.prm.Layout`."""

    turns = "turns"
    chat_separator = "chat_separator"
    separator = "separator"


class Quantize(Enum):
    none = "none"
    int8 = "int8"
    nf4 = "nf4"


class Vision(Enum):
    """The vision tower (Qwen-VL's with its merger): `trained`; `frozen`, which keeps adapters out of it too; `cached`:
    frozen, and computed once per image."""

    trained = "trained"
    frozen = "frozen"
    cached = "cached"


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


class OuterLoss(Enum):
    """`mse`: (A(step scores) - r)², as the papers say; the others: see `dreamprm.loss.OuterLoss`."""

    mse = "mse"
    cross_entropy = "cross_entropy"
    steps = "steps"
    dreamprm15_code = "dreamprm15_code"
    contrast = "contrast"


class Product(Enum):
    """See `bilevel.Lookahead`; `darts` is the finite difference of the published code, to compare with."""

    ghost = "ghost"
    jvp = "jvp"
    fd = "fd"
    unroll = "unroll"
    darts = "darts"


class AdamDerivative(Enum):
    """`exact`, or with Adam's second moment held fixed."""

    exact = "exact"
    frozen = "frozen"


class Check(Enum):
    """The comparison with plain autograd at the first update: stop below .99, only log, or leave it out."""

    stop = "raise"
    log = "log"
    off = "off"


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
    alpha: int = 16
    dropout: float = 0.0
    targets: str = "all-linear"

    def __post_init__(self) -> None:
        _not_negative(self, "rank", "dropout")


@dataclass
class ModelConfig:
    """The PRM. `path`: `world` for the shipped tiny InternVL; `package:NAME/FOLDER` for a folder inside an installed
    package; else a folder or a hub name.

    `freeze_layers`: that many lower layers of a text model, and its embeddings, stay as they are; what they give is
    computed once per chain.
    `vision`: what becomes of the vision tower; `vision_megabytes`: how much of a cached one's output may lie in memory.
    `features`: the folder that keeps the output of frozen layers and of a cached tower between runs too.
    `leave_out_longer`: chains above `max_length` are left out, in training and in evaluation, instead of an error.
    `dropout`: sets every dropout probability of the model; null leaves them.
    """

    path: str = "world"
    head: Head = Head.auto
    needs: str = ""
    layout: Layout | None = None
    question: str | None = None
    separator: str | None = None
    quantize: Quantize = Quantize.none
    lora: LoraConfig = field(default_factory=LoraConfig)
    vision: Vision = Vision.trained
    vision_megabytes: int = 1024
    freeze_layers: int = 0
    features: str | None = None
    dropout: float | None = None
    gradient_checkpointing: bool = False
    attention: str | None = None
    max_tiles: int | None = None
    max_image_side: int | None = None
    max_length: int | None = None
    leave_out_longer: bool = False
    padding_side: str = "right"
    cache: int = 0

    def __post_init__(self) -> None:
        _positive(self, "max_tiles", "max_image_side", "max_length", "vision_megabytes")
        _not_negative(self, "cache", "freeze_layers", "dropout")
        if self.padding_side not in ("left", "right"):
            raise ValueError(f"padding_side must be left or right, is {self.padding_side!r}")


@dataclass
class ColdConfig:
    """The cold start: plain training on the +/- labels (and the world's dense targets) before any weight is learned."""

    updates: int = 400
    batch_size: int = 64
    accumulate: int = 1
    clip_norm: float | None = 1.0
    dense_weight: float = 0.5
    dense_batch_size: int = 64
    num_examples: int | None = None
    optimizer: OptimizerSettings = field(default_factory=AdamW)
    schedule: ScheduleSettings = field(default_factory=Constant)

    def __post_init__(self) -> None:
        _positive(self, "batch_size", "accumulate", "clip_norm", "num_examples", "dense_batch_size")
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
    """The outer problem: choose the weigher so that the updated PRM judges the meta set well, every `every` updates.

    One outer update sees accumulate x batch_size meta chains; its loss is the mean of the micro-batches' losses.

    `begin`: inner updates before the first outer one. Adam's first steps are signs, whose derivative is a matter of the
    smallest gradients: with one chain a batch in bf16 these are rounding noise.
    """

    batch_size: int = 128
    accumulate: int = 1
    every: int = 1
    begin: int = 1
    aggregate: Aggregate = Aggregate.mean
    loss: OuterLoss = OuterLoss.mse
    clip_norm: float | None = 1.0
    max_not_finite: int = 20
    optimizer: OptimizerSettings = field(default_factory=Adam)
    schedule: ScheduleSettings = field(default_factory=Constant)

    def __post_init__(self) -> None:
        _positive(self, "batch_size", "accumulate", "every", "clip_norm", "max_not_finite")
        _not_negative(self, "begin")


@dataclass
class HypergradientConfig:
    """How the derivative of the outer loss by the weights is computed; see docs of `bilevel.Lookahead`."""

    product: Product = Product.ghost
    adam: AdamDerivative = AdamDerivative.exact
    unroll: int = 1
    check: Check = Check.stop

    def __post_init__(self) -> None:
        _positive(self, "unroll")


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

    def figures(self) -> FigureSettings:
        """What `dreamprm.evaluate.figures` takes of these."""
        return FigureSettings(
            aggregate=self.aggregate.name,
            num_candidates=tuple(self.num_candidates),
            num_resamples=self.num_resamples,
            threshold=self.threshold,
            seed=self.seed,
        )


@dataclass
class TrackerConfig:
    """metrics.jsonl is always written; a tracker shows the same numbers elsewhere too."""

    kind: TrackerKind = TrackerKind.none
    project: str = "dreamprm"


@dataclass
class TrainConfig:
    """One run: `python -m src.train +experiment=instance_net`. `plan`: only say what it needs of memory.

    `show_prompts`: only print that many training chains as the model reads them.
    """

    name: str = "instance_net"
    description: str = ""
    seed: int = 0
    run_dir: str | None = None
    resume: str | None = None
    device: Device = Device.auto
    precision: Precision = Precision.fp32
    threads: int | None = None
    stop_at: int | None = None
    plan: bool = False
    show_prompts: int = 0
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
        _positive(self, "threads", "stop_at", "log_every")
        _not_negative(self, "show_prompts")
        _check_rows(self.weigher, self.outer.optimizer)


def _check_rows(weigher: WeigherSettings, optimizer: OptimizerSettings) -> None:
    """A sparse table is put back into its bounds on the batch's rows only, so nothing may move the others."""
    if not (isinstance(weigher, InstanceTable) and weigher.sparse):
        return
    moves_batch_only = isinstance(optimizer, RowAdam) or (
        isinstance(optimizer, SGD) and not optimizer.momentum and not optimizer.weight_decay
    )
    if not moves_batch_only:
        raise ValueError(
            "weigher.sparse=true needs an outer optimizer that moves the batch's rows only: "
            "optimizer@outer.optimizer=row_adam, or sgd with outer.optimizer.momentum=0; "
            f"for {optimizer.kind} set weigher.sparse=false"
        )
