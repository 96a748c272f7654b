"""Where all methods of a (trouble, seed) start: the base's upper part, the same after a cold start on the troubled pool
itself, and every chain as vectors below it.

Everything under the last feed-forward block stays the shipped reader's (`dreamprm.world.build_reader`): the vectors of
all chains are computed once for all troubles and seeds, and training the upper part is a matter of seconds.

Shapes: N chains, S steps, D hidden width.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from benchmarks.evidence.chains import Chains, as_chains, encode
from benchmarks.evidence.fitting import train_on
from benchmarks.evidence.judge import Judge, upper_part
from dreamprm.data.record import Record
from dreamprm.prm import PRM
from dreamprm.world import check_disjoint, load, reader_folder

__all__ = ["Start", "load_start", "prepare"]

COLD_UPDATES = 240
_TROUBLES_OF_ALL_CHAINS = ("clean", "off_target")


@dataclass(eq=False)  # itself alone, so that what is learned from it can be kept
class Start:
    """upper, cold: the judge's tensors before and after the cold start.  The chains as the base sees them."""

    trouble: str
    seed: int
    upper: dict[str, Tensor]
    cold: dict[str, Tensor]
    train: Chains
    meta: Chains
    judged: Chains
    num_domains: int


@functools.lru_cache(maxsize=1)
def _world(folder: Path) -> tuple[dict[str, Tensor], dict[str, int], Tensor]:
    """The base's upper part, key -> row, and the states of every chain of the world; computed once per folder."""
    path = folder / "states.pt"
    if not path.is_file():
        prm = PRM.from_pretrained(reader_folder())
        records: dict[str, Record] = {}
        for kind in _TROUBLES_OF_ALL_CHAINS:
            for record in _every(kind):
                records[record.key] = record
        for split in ("meta", "validation", "test"):
            records |= {record.key: record for record in load(split)}
        states = encode(prm, list(records.values()))
        part = path.with_suffix(".part")
        torch.save({"upper": upper_part(prm), "keys": list(records), "states": states}, part)
        part.replace(path)
    found = torch.load(path)
    return found["upper"], {key: row for row, key in enumerate(found["keys"])}, found["states"]


def prepare(folder: Path) -> None:
    """Makes what all starts share, where it is not there yet."""
    _world(folder)


def _every(trouble: str) -> list[Record]:
    """All chains of a trouble's pool."""
    if trouble == "off_target":  # chains that do not help, of any number
        return load("train", trouble="clean", domains=("presence", "succession", "order"), num_chains=_count(True))
    return load("train", trouble="clean", num_chains=_count(False))


def _count(off_target: bool) -> int:
    from dreamprm.world import TARGETS
    from dreamprm.world.splits import read_chains

    pool = [c for c in read_chains() if c.split in ("train", "cold")]
    return sum((c.question.domain in TARGETS) is not off_target for c in pool)


def load_start(folder: Path, trouble: str, seed: int, judged: str, cold_updates: int = COLD_UPDATES) -> Start:
    """The start of a trouble and a seed, from the folder's states, which are made where there are none."""
    upper, rows, states = _world(folder)
    train, meta, test = load("train", trouble=trouble, seed=seed), load("meta"), load(judged)
    check_disjoint(
        **{name: {r.group for r in part} for name, part in (("train", train), ("meta", meta), (judged, test))}
    )
    domains = {name: place for place, name in enumerate(sorted({record.domain for record in train}))}
    parts = []
    for records in (train, meta, test):
        steps = max(len(record.steps) for record in records)
        own = states[torch.tensor([rows[record.key] for record in records])][:, :steps]
        parts.append(as_chains(records, own, domains))
    cold = train_on(Judge(upper), parts[0], updates=cold_updates, seed=seed)
    return Start(trouble, seed, upper, cold.tensors_of(), *parts, len(domains))
