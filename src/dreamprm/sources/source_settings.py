"""The settings of every source of chains, and the words by which `data.kind` and `meta.kind` name them."""

from __future__ import annotations

from dataclasses import dataclass

from dreamprm.choices import Judged, Keep, Trouble
from dreamprm.data.file_data import DataSettings, FileData
from dreamprm.setting import Settings, setting

__all__ = [
    "DATA_KINDS",
    "META_KINDS",
    "HeldOut",
    "PoolCollection",
    "PoolData",
    "SplitFileData",
    "WorldData",
    "WorldMeta",
]


@dataclass
class WorldData(DataSettings):
    """The embedded world's training chains."""

    kind: str = "world"
    seed: int = setting(0, "which chains are drawn and which labels are wrong", least=0)
    trouble: Trouble = setting(Trouble.flips, "what is wrong with the labels: see dreamprm.world.trouble")
    share: float | None = setting(None, "how much of the trouble, where it has a share; null: its own", least=0, most=1)
    num_chains: int | None = setting(None, "training chains; null: 3,000, or all that a trouble has", least=1)
    keep: Keep = setting(Keep.all, "clean: only the right ones, known to the world alone; for comparison")
    judged: Judged = setting(Judged.test, "validation: other questions, to choose settings on")


@dataclass
class WorldMeta(DataSettings):
    """The embedded world's meta set: questions on the target, several judged chains each."""

    kind: str = "world_meta"
    seed: int = setting(0, "which chains are drawn", least=0)
    num_chains: int | None = setting(None, "meta chains; null: all", least=1)


@dataclass
class SplitFileData(FileData):
    """Own files; whole questions of them can be held out as meta set (`meta=held_out`) and as test set."""

    seed: int = setting(0, "which questions are held out", least=0)
    meta_share: float = setting(0.0, "share of the questions that are held out as meta set", least=0, below=1)
    test_share: float = setting(0.0, "share of the questions that are held out as test set", least=0, below=1)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.meta_share + self.test_share >= 1:
            raise ValueError(
                "meta_share and test_share must leave something to train on, are "
                f"{self.meta_share} and {self.test_share}"
            )


@dataclass
class PoolCollection(Settings):
    """A file or folder of a pool."""

    path: str = setting("", "below the pool's folder")
    format: str | None = setting(None, "name of the format; null: recognised")
    outcome: bool = setting(False, "a chain's outcome becomes the label of its steps, where there are no step labels")
    domain: str | None = setting(None, "the name for all of its chains")
    max_per_domain: int | None = setting(None, "only about that many chains of each domain", least=1)


@dataclass
class PoolData(DataSettings):
    """Several files split by question into training, meta and test sets (`meta=held_out`).

    Rows that cannot be read are passed over, with their number said.
    """

    kind: str = "pool"
    folder: str | None = setting(None, "where the collections lie; null takes the environment's DREAMPRM_DATA")
    sources: list[PoolCollection] = setting([], "collections, as [{path: FILE}, …]")
    seed: int = setting(0, "which questions are held out", least=0)
    meta_share: float = setting(0.2, "share of the questions that are the meta set", above=0, below=1)
    test_share: float = setting(0.3, "share of the questions that are the test set", above=0, below=1)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.meta_share + self.test_share >= 1:
            raise ValueError(
                "meta_share and test_share must leave something to train on, are "
                f"{self.meta_share} and {self.test_share}"
            )


@dataclass
class HeldOut(DataSettings):
    """The meta set that `data` holds out."""

    kind: str = "held_out"


DATA_KINDS: dict[str, type[DataSettings]] = {"world": WorldData, "files": SplitFileData, "pool": PoolData}
"""`data.kind` -> settings."""

META_KINDS: dict[str, type[DataSettings]] = {"world_meta": WorldMeta, "files": FileData, "held_out": HeldOut}
"""`meta.kind` -> settings."""
