"""The settings of a training run: every name, type and default that a configuration may set, once.

`TrainConfig()` is the default experiment, `+experiment=instance_net`. Settings of a room stand in that room (weighers,
optimizers, schedules, sources, trackers); a group that comes in several kinds is chosen by its `kind`.
One file because it is the list of all there is to set, which readers search.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import get_args

from bilevel.lookahead.product_table import PRODUCTS
from bilevel.lookahead.words import AdamDerivative, Check
from dreamprm.choices import Device, HeadKind, Judge, Layout, Precision, Quantize, Side, Trained, Vision
from dreamprm.config.optimizers import SGD, Adam, AdamW, OptimizerSettings, RowAdamSettings
from dreamprm.config.schedule import Cosine, Schedule
from dreamprm.data.file_data import DataSettings, FileData
from dreamprm.evaluate.figures import FigureSettings
from dreamprm.loss import INNER_LOSSES, OUTER_LOSSES
from dreamprm.prm.aggregation import AGGREGATIONS
from dreamprm.setting import Settings, setting
from dreamprm.sources.world_source import WorldData, WorldMeta
from dreamprm.tracker import TrackerSettings
from dreamprm.weigher.instance_net import InstanceNetSettings
from dreamprm.weigher.instance_table import InstanceTableSettings
from dreamprm.weigher.step_net import StepNetSettings
from dreamprm.weigher.step_table import StepTableSettings
from dreamprm.weigher.trust import TrustSettings
from dreamprm.weigher.weigher import WeigherSettings

__all__ = [
    "CheckpointConfig",
    "ColdConfig",
    "DistributedConfig",
    "EvaluateConfig",
    "HypergradientConfig",
    "InnerConfig",
    "LoraConfig",
    "ModelConfig",
    "OuterConfig",
    "TrainConfig",
]

_BATCH = "chains of a micro-batch"
_ACCUMULATE = "micro-batches of an update"
_CLIP = "largest norm of the gradient; null: no clipping"


@dataclass
class LoraConfig(Settings):
    """Low-rank adapters by peft."""

    rank: int = setting(0, "rank; 0 trains the parameters themselves", least=0)
    alpha: int = setting(16, "scale: adapters are multiplied by alpha / rank", least=1)
    dropout: float = setting(0.0, "dropout before the adapters", least=0, below=1)
    targets: str = setting("all-linear", "which layers: all-linear, or names with commas between")


@dataclass
class ModelConfig(Settings):
    """The PRM's model."""

    path: str = setting(
        "world",
        "world: the shipped tiny InternVL; world_reader: after image-text matching; package:NAME/FOLDER of an "
        "installed package, a GGUF file of it too; a folder; a hub name",
    )
    head: HeadKind | None = setting(
        HeadKind.generative, "how it is read at a step; null: as the folder says, else generative"
    )
    needs: str = setting("", "what to get where the model is not there, in one line")
    layout: Layout | None = setting(None, "where the verdict on a step stands; null: as the folder says, else turns")
    # Without headings, which cost the tiny model a fifth of its tokens.
    question: str | None = setting(
        "{question}\n{step}", "the first turn, with the fields {question} and {step}; null: the layout's own"
    )
    separator: str | None = setting(None, "what follows each step in the two separator layouts; null: a blank line")
    quantize: Quantize = setting(Quantize.none, "how the frozen base is held; needs adapters")
    lora: LoraConfig = setting(LoraConfig())
    vision: Vision = setting(Vision.trained, "what becomes of the vision tower; cached: computed once per image")
    vision_megabytes: int = setting(1024, "how much of a cached tower's output may lie in memory", least=1)
    num_layers: int | None = setting(
        None, "only that many of a text model's layers, the lowest, are read and kept; null: all", least=1
    )
    freeze_layers: int = setting(0, "lower layers of a text model that stay as they are, with its embeddings", least=0)
    trained: Trained = setting(
        Trained.whole, "last_feed_forward: only the last block behind attention, a chain being a few kept vectors"
    )
    features: str | None = setting(None, "folder that keeps frozen layers' output between runs; null: in memory only")
    dropout: float | None = setting(None, "every dropout probability of the model; null leaves them", least=0, below=1)
    gradient_checkpointing: bool = setting(False, "compute activations anew in the backward pass: slower, less memory")
    attention: str | None = setting(None, "attention kernel by transformers' name, e.g. sdpa")
    max_tiles: int | None = setting(None, "most tiles of an image; null: the processor's own", least=1)
    max_image_side: int | None = setting(None, "images are scaled down to that many pixels; null: not", least=1)
    max_length: int | None = setting(None, "most tokens of a chain; null: the model's own", least=1)
    leave_out_longer: bool = setting(False, "leave chains above max_length out instead of an error")
    padding_side: Side = setting(Side.right, "where padding stands")
    # The tiny model's images are of 32 pixels: encoded chains are small.
    cache: int = setting(20000, "encoded chains kept in memory", least=0)


@dataclass
class ColdConfig(Settings):
    """The cold start: plain training on the +/- labels (and the world's dense targets) before any weight is learned."""

    updates: int = setting(240, "updates", least=0)
    batch_size: int = setting(64, _BATCH, least=1)
    accumulate: int = setting(1, _ACCUMULATE, least=1)
    clip_norm: float | None = setting(1.0, _CLIP, above=0)
    dense_weight: float = setting(0.5, "of the world's captions and solutions beside the +/- loss", least=0)
    dense_batch_size: int = setting(32, "captions and solutions of an update", least=1)
    num_examples: int | None = setting(None, "chains of the cold start; null: all", least=1)
    optimizer: OptimizerSettings = setting(AdamW(lr=1e-3))
    schedule: Schedule = setting(Cosine())


@dataclass
class InnerConfig(Settings):
    """The inner problem: fit the PRM on weighted training chains. One update sees accumulate x batch_size chains."""

    updates: int = setting(150, "updates", least=0)
    batch_size: int = setting(64, _BATCH, least=1)
    accumulate: int = setting(1, _ACCUMULATE, least=1)
    loss: str = setting("cross_entropy", "loss of a step against its label", words=INNER_LOSSES)
    clip_norm: float | None = setting(1.0, _CLIP, above=0)
    optimizer: OptimizerSettings = setting(AdamW(lr=1e-4))
    meta_weight: float = setting(
        0.0, "of the loss of a batch of meta chains' outcomes, trained on beside the pool", least=0
    )
    meta_loss: str | None = setting(None, "which loss that is; null: outer.loss", words=OUTER_LOSSES)
    meta_batch_size: int | None = setting(None, "meta chains of that batch; null: outer.batch_size", least=1)
    # Slow at first: mislabelled chains have the largest losses, and would turn the PRM round before they are found.
    schedule: Schedule = setting(Cosine(warmup=0.25))


@dataclass
class OuterConfig(Settings):
    """The outer problem: choose the weigher so that the updated PRM judges the meta set well.

    One outer update sees accumulate x batch_size meta chains; its loss is the mean of the micro-batches' losses.
    """

    batch_size: int = setting(64, _BATCH, least=1)
    accumulate: int = setting(1, _ACCUMULATE, least=1)
    every: int = setting(1, "one outer update every so many inner updates", least=1)
    # Adam's first steps are signs, whose derivative is a matter of the smallest gradients: with one chain a batch in
    # bf16 these are rounding noise.
    begin: int = setting(4, "inner updates before the first outer one", least=0)
    by_question: bool = setting(
        False, "draw the chains of a question one after another, and read what a batch's share once"
    )
    aggregate: str = setting("log_odds_mean", "how step scores become a chain's score", words=AGGREGATIONS)
    # How far right and wrong chains lie apart, whether the PRM is sure or not. The papers' mse says little of a good
    # PRM: only chains that it is unsure of have a gradient, and an overconfident PRM gains by whatever makes it less
    # sure.
    loss: str = setting("contrast", "loss of a chain's score against its outcome; mse: the papers'", words=OUTER_LOSSES)
    # Far below the usual norm of 1e-3: hypergradients keep their direction only. Their size changes a hundredfold with
    # the inner moments, and Adam on the outer level would remember the largest for hundreds of updates.
    clip_norm: float | None = setting(1e-4, "largest norm of the hypergradient; null: no clipping", above=0)
    max_not_finite: int = setting(20, "outer updates in a row that may be left out as not finite", least=1)
    optimizer: OptimizerSettings = setting(Adam(lr=3e-2))
    # Full steps on the first, faint hypergradients would send the net off in a direction that it needs twenty updates
    # to leave; and the outer rate ends with the inner one, where hypergradients shrink.
    schedule: Schedule = setting(Cosine(warmup=0.15))


@dataclass
class HypergradientConfig(Settings):
    """How the derivative of the outer loss by the weights is computed; see `bilevel.Lookahead`."""

    product: str = setting(
        "ghost", "ghost, jvp, unroll: exact; fd: a finite difference; darts: as published", words=PRODUCTS
    )
    adam: str = setting("exact", "frozen: with Adam's moments held fixed", words=get_args(AdamDerivative))
    unroll: int = setting(1, "inner updates that an outer one looks back over; above 1 the functional engine", least=1)
    detach: bool = setting(
        True, "false: the PRM can lower its loss by lowering its weights, as the published code lets it"
    )
    check: str = setting(
        "raise", "comparison with plain autograd: stop, only log, or leave it out", words=get_args(Check)
    )


@dataclass
class CheckpointConfig(Settings):
    """What a run can go on from."""

    every: int = setting(100, "updates between two; 0: one at the end (and on Ctrl-C) only", least=0)
    keep: int = setting(2, "how many of the last are kept", least=1)


@dataclass
class DistributedConfig(Settings):
    """Several processes as one run, started by torchrun; see docs/cluster.md."""

    shard: bool = setting(
        False, "each process holds its rows of the PRM and of the inner optimizer's state (FSDP2); needs ghost"
    )


@dataclass
class EvaluateConfig(Settings):
    """What a PRM is worth: best-of-N and step-level figures."""

    aggregate: str = setting(FigureSettings.aggregate, "how step scores become a chain's score", words=AGGREGATIONS)
    batch_size: int = setting(64, "chains scored at once", least=1)
    num_candidates: list[int] = setting(list(FigureSettings.num_candidates), "the N of best-of-N", least=1)
    num_questions: int | None = setting(None, "only that many questions; null: all", least=1)
    num_resamples: int = setting(FigureSettings.num_resamples, "resamples of an interval", least=1)
    threshold: float = setting(FigureSettings.threshold, "below it a step is called wrong", least=0, most=1)
    judge: Judge = setting(FigureSettings.judge, "which answers are the same, for the votes")
    seed: int = setting(FigureSettings.seed, "of the resamples", least=0)

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.num_candidates:
            raise ValueError("num_candidates must be a list of numbers from 1 on, is []")

    def figures(self) -> FigureSettings:
        """What `dreamprm.evaluate.figures` takes of these."""
        return FigureSettings(
            aggregate=self.aggregate,
            num_candidates=tuple(self.num_candidates),
            num_resamples=self.num_resamples,
            threshold=self.threshold,
            judge=self.judge,
            seed=self.seed,
        )


@dataclass
class TrainConfig(Settings):
    """One run: cold start, bilevel training, evaluation, report."""

    name: str = setting("instance_net", "name of the run")
    description: str = setting("instance net with label-aware features, on the embedded world", "shown in the report")
    seed: int = setting(0, "of everything that is drawn", least=0)
    run_dir: str | None = setting(None, "the run's folder; null: runs/NAME/seedSEED, with a number where that is taken")
    resume: str | None = setting(None, "the folder of a run to go on with")
    device: Device = setting(Device.auto, "auto: a GPU where there is one")
    precision: Precision = setting(Precision.fp32, "bf16: autocast over fp32 parameters; pure_bf16: as published")
    threads: int | None = setting(None, "threads of the CPU; null: one per core", least=1)
    prefetch: bool = setting(True, "encode the next update's chains in a thread while this one is computed")
    stop_at: int | None = setting(None, "stop after this update with a checkpoint, as Ctrl-C does", least=1)
    plan: bool = setting(False, "only say what the run needs of memory")
    profile: bool = setting(False, "write where an update's time goes into the run's profile.md")
    show_prompts: int = setting(0, "only print that many training chains as the model reads them", least=0)
    log_every: int = setting(1, "updates between two rows of metrics.jsonl", least=1)
    data: DataSettings = setting(WorldData())
    meta: DataSettings = setting(WorldMeta())
    test: FileData = setting(FileData())
    model: ModelConfig = setting(ModelConfig())
    weigher: WeigherSettings = setting(InstanceNetSettings())
    hypergradient: HypergradientConfig = setting(HypergradientConfig())
    cold: ColdConfig = setting(ColdConfig())
    inner: InnerConfig = setting(InnerConfig())
    outer: OuterConfig = setting(OuterConfig())
    checkpoint: CheckpointConfig = setting(CheckpointConfig())
    distributed: DistributedConfig = setting(DistributedConfig())
    evaluate: EvaluateConfig = setting(EvaluateConfig())
    tracker: TrackerSettings = setting(TrackerSettings())

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_rows(self.weigher, self.outer.optimizer)
        _check_steps(self.weigher, self.hypergradient)
        _check_questions(self.outer, self.hypergradient, self.model)

    @property
    def meta_loss(self) -> str:
        """The loss by which the meta set's outcomes are trained on."""
        return self.inner.meta_loss or self.outer.loss

    @property
    def reads_meta(self) -> bool:
        """Whether the run reads a meta set: to learn weights, or to train on it."""
        return self.weigher.learns or self.inner.meta_weight > 0


def _check_rows(weigher: WeigherSettings, optimizer: OptimizerSettings) -> None:
    """A sparse table is put back into its bounds on the batch's rows only, so nothing may move the others."""
    if not (isinstance(weigher, InstanceTableSettings) and weigher.sparse):
        return
    moves_batch_only = isinstance(optimizer, RowAdamSettings) or (
        isinstance(optimizer, SGD) and not optimizer.momentum and not optimizer.weight_decay
    )
    if not moves_batch_only:
        raise ValueError(
            "weigher.sparse=true needs an outer optimizer that moves the batch's rows only: "
            "optimizer@outer.optimizer=row_adam, or sgd with outer.optimizer.momentum=0; "
            f"for {optimizer.kind} set weigher.sparse=false"
        )


def _check_questions(outer: OuterConfig, hypergradient: HypergradientConfig, model: ModelConfig) -> None:
    """The functional engine reads every chain whole; with checkpointing models keep no keys and values."""
    if outer.by_question and (hypergradient.unroll > 1 or not hypergradient.detach):
        raise ValueError("outer.by_question=true needs hypergradient.unroll=1 and hypergradient.detach=true")
    if outer.by_question and model.gradient_checkpointing:
        raise ValueError("outer.by_question=true needs model.gradient_checkpointing=false")


def _check_steps(weigher: WeigherSettings, hypergradient: HypergradientConfig) -> None:
    """Weights of steps are those of losses (B, S), which forward mode takes."""
    if not isinstance(weigher, (StepNetSettings, StepTableSettings, TrustSettings)):
        return
    if hypergradient.product != "jvp" or hypergradient.unroll > 1 or not hypergradient.detach:
        raise ValueError(
            f"weigher={weigher.kind} weighs every step, which needs hypergradient=jvp "
            "(hypergradient.product=jvp, unroll=1, detach=true)"
        )
