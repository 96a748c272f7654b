"""Groups that come in several kinds: one dataclass per kind, chosen by its `kind`; `target` is what gets built."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum

__all__ = [
    "KINDS",
    "SGD",
    "Adam",
    "AdamW",
    "AdamW8bit",
    "Constant",
    "Cosine",
    "DataSettings",
    "DomainTable",
    "FileData",
    "HeldOut",
    "InstanceNet",
    "InstanceTable",
    "Judged",
    "Keep",
    "Labels",
    "Noise",
    "OnBadRow",
    "OptimizerSettings",
    "PoolData",
    "PoolSource",
    "RowAdam",
    "ScheduleSettings",
    "StepDecay",
    "Uniform",
    "WeigherSettings",
    "WorldData",
    "WorldMeta",
]


class Keep(Enum):
    """`clean` reads the known truth of the embedded world: for comparison only, nothing that trains may know it."""

    all = "all"
    clean = "clean"


class OnBadRow(Enum):
    """Stop at the first bad row; pass over them; pass over them and list them in the file `quarantine`."""

    error = "error"
    skip = "skip"
    quarantine = "quarantine"


class Noise(Enum):
    """Which of the world's training labels are wrong; see `dreamprm.world.quality.WorldConfig`."""

    examples = "examples"
    domains = "domains"
    clean = "clean"


class Labels(Enum):
    """`checked`: 0 or 1 by the world's checker; `monte_carlo`: the policy's share of right completions."""

    checked = "checked"
    monte_carlo = "monte_carlo"


class Judged(Enum):
    """Which of the world's questions a run is judged on: choose settings on `validation`, report `test`."""

    test = "test"
    validation = "validation"


@dataclass
class DataSettings:
    """Where chains come from."""

    kind: str = "files"


@dataclass
class WorldData(DataSettings):
    """The embedded world's training chains."""

    kind: str = "world"
    seed: int = 0
    noise: Noise = Noise.examples
    flipped: float = 0.4
    num_chains: int = 3000
    labels: Labels = Labels.checked
    keep: Keep = Keep.all
    judged: Judged = Judged.test

    def __post_init__(self) -> None:
        if not 0.0 <= self.flipped <= 1.0:
            raise ValueError(f"flipped is a probability in [0, 1], is {self.flipped}")


@dataclass
class WorldMeta(DataSettings):
    """The embedded world's meta set: questions on the target, several judged chains each."""

    kind: str = "world_meta"
    seed: int = 0
    num_chains: int | None = None


@dataclass
class FileData(DataSettings):
    """Files on disk in any format that a reader knows; `needs` says in one line what to get where `path` is not set."""

    kind: str = "files"
    path: str | None = None
    format: str | None = None
    images: str | None = None
    needs: str = ""
    on_bad_row: OnBadRow = OnBadRow.error
    quarantine: str | None = None
    split: str | None = None
    limit: int | None = None
    max_per_domain: int | None = None


@dataclass
class PoolSource:
    """A file or folder of a pool, below the pool's folder. `outcome`: a chain's outcome becomes the label of its steps,
    where the source has no step labels; `domain`: the name for all of its chains."""

    path: str = ""
    format: str | None = None
    outcome: bool = False
    domain: str | None = None
    max_per_domain: int | None = None


@dataclass
class PoolData(DataSettings):
    """Several files split by question into training, meta and test sets (`meta=held_out`).

    folder: where the sources lie; null takes the environment's DREAMPRM_DATA.
    Rows that cannot be read are passed over, with their number said.
    """

    kind: str = "pool"
    folder: str | None = None
    sources: list[PoolSource] = field(default_factory=list)
    seed: int = 0
    meta_share: float = 0.2
    test_share: float = 0.3

    def __post_init__(self) -> None:
        if not (self.meta_share > 0 and self.test_share > 0 and self.meta_share + self.test_share < 1):
            raise ValueError(
                f"meta_share and test_share must be above 0 and leave something to train on, are {self.meta_share} "
                f"and {self.test_share}"
            )


@dataclass
class HeldOut(DataSettings):
    """The meta set that a pool holds out."""

    kind: str = "held_out"


@dataclass
class WeigherSettings:
    """What makes weights."""

    kind: str = "uniform"
    target: str = "dreamprm.weigher.Uniform"


@dataclass
class Uniform(WeigherSettings):
    kind: str = "uniform"
    target: str = "dreamprm.weigher.Uniform"


@dataclass
class DomainTable(WeigherSettings):
    """a(raw) / mean(a(raw)), one raw value per domain."""

    kind: str = "domain_table"
    target: str = "dreamprm.weigher.DomainTable"
    activation: str = "softplus"
    normalize: bool = True


@dataclass
class InstanceTable(WeigherSettings):
    """One weight per training example."""

    kind: str = "instance_table"
    target: str = "dreamprm.weigher.InstanceTable"
    start: float = 1.0
    low: float = -1.0
    high: float = 3.0
    sparse: bool = True


class Features(Enum):
    label_aware = "label_aware"
    paper = "paper"


@dataclass
class InstanceNet(WeigherSettings):
    """A small net over each chain's scores and labels."""

    kind: str = "instance_net"
    target: str = "dreamprm.weigher.InstanceNet"
    features: Features = Features.label_aware
    hidden: int = 32
    detach: bool = True
    low: float = 0.0
    high: float | None = None
    activation: str = "leaky_relu"


@dataclass
class OptimizerSettings:
    kind: str = "adamw"
    lr: float = 2e-4
    target: str = "torch.optim.AdamW"

    def __post_init__(self) -> None:
        if self.lr <= 0:
            raise ValueError(f"lr must be above 0, is {self.lr}")


@dataclass
class AdamW(OptimizerSettings):
    kind: str = "adamw"
    target: str = "torch.optim.AdamW"
    betas: list[float] = field(default_factory=lambda: [0.9, 0.999])
    eps: float = 1e-8
    weight_decay: float = 0.01


@dataclass
class Adam(OptimizerSettings):
    kind: str = "adam"
    target: str = "torch.optim.Adam"
    betas: list[float] = field(default_factory=lambda: [0.9, 0.999])
    eps: float = 1e-8
    weight_decay: float = 0.0


@dataclass
class RowAdam(OptimizerSettings):
    """AdamW with a clock per row, for sparse instance tables: an update costs the batch, not the table."""

    kind: str = "row_adam"
    target: str = "dreamprm.weigher.RowAdam"
    betas: list[float] = field(default_factory=lambda: [0.9, 0.999])
    eps: float = 1e-8
    weight_decay: float = 0.0


@dataclass
class AdamW8bit(OptimizerSettings):
    """AdamW whose moments are held in eight bits (bitsandbytes)."""

    kind: str = "adamw8bit"
    target: str = "bitsandbytes.optim.AdamW8bit"
    betas: list[float] = field(default_factory=lambda: [0.9, 0.999])
    eps: float = 1e-8
    weight_decay: float = 0.01


@dataclass
class SGD(OptimizerSettings):
    kind: str = "sgd"
    target: str = "torch.optim.SGD"
    momentum: float = 0.0
    dampening: float = 0.0
    nesterov: bool = False
    weight_decay: float = 0.0


@dataclass
class ScheduleSettings:
    """The learning rate's factor over the updates; `warmup` is a share of all updates."""

    kind: str = "constant"
    warmup: float = 0.0

    def __post_init__(self) -> None:
        if not 0.0 <= self.warmup <= 1.0:
            raise ValueError(f"warmup is a share of all updates in [0, 1], is {self.warmup}")


@dataclass
class Constant(ScheduleSettings):
    kind: str = "constant"


@dataclass
class Cosine(ScheduleSettings):
    kind: str = "cosine"
    warmup: float = 0.05
    final: float = 0.0


@dataclass
class StepDecay(ScheduleSettings):
    kind: str = "step"
    size: int = 5000
    gamma: float = 0.5


_OPTIMIZERS: dict[str, type] = {"adamw": AdamW, "adam": Adam, "adamw8bit": AdamW8bit, "sgd": SGD}
_OUTER_OPTIMIZERS: dict[str, type] = {**_OPTIMIZERS, "row_adam": RowAdam}
_SCHEDULES: dict[str, type] = {"constant": Constant, "cosine": Cosine, "step": StepDecay}

KINDS: dict[str, dict[str, type]] = {
    "data": {"world": WorldData, "files": FileData, "pool": PoolData},
    "meta": {"world_meta": WorldMeta, "files": FileData, "held_out": HeldOut},
    "weigher": {
        "uniform": Uniform,
        "domain_table": DomainTable,
        "instance_table": InstanceTable,
        "instance_net": InstanceNet,
    },
    "cold.optimizer": _OPTIMIZERS,
    "inner.optimizer": _OPTIMIZERS,
    "outer.optimizer": _OUTER_OPTIMIZERS,
    "cold.schedule": _SCHEDULES,
    "inner.schedule": _SCHEDULES,
    "outer.schedule": _SCHEDULES,
}
"""Place in the configuration -> kind -> dataclass."""
