"""The world's chains as records."""

from __future__ import annotations

import functools
import random
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from dreamprm.data.record import Record, content_key
from dreamprm.world.quality import WorldConfig
from dreamprm.world.questions import SPLITS, Question, answer_of, check_answer, check_step
from dreamprm.world.scene import draw

__all__ = ["CHAINS", "Chain", "load", "read_chains", "write_chains"]

CHAINS = Path(__file__).parent / "chains.parquet"
_NUM_TRAIN = 3000
_SCHEMA = pa.schema(
    {
        "split": pa.string(),
        "question": pa.string(),
        "steps": pa.list_(pa.string()),
        "mc_right": pa.list_(pa.int16()),
        "mc_total": pa.int16(),
    }
)


@dataclass(frozen=True, slots=True)
class Chain:
    """One sampled chain as it is stored: its question, its steps, and for each step how many of `mc_total`
    completions from there came out right (empty where none were sampled)."""

    split: str
    question: Question
    steps: tuple[str, ...]
    mc_right: tuple[int, ...] = ()
    mc_total: int = 0


def load(split: str, config: WorldConfig | None = None, **settings: Any) -> list[Record]:
    """The records of a split: `train`, `cold` (clean, for the cold start), `meta`, `validation` (to choose settings
    on) or `test`.

    settings: fields of `WorldConfig` that replace those of `config`. Validation, test and meta records are grouped by
    question, several candidates each. Raises ValueError for an unknown split or setting.

    >>> records = load("train", noise="examples", flipped=0.4, num_chains=3000, seed=1)
    """
    if split not in SPLITS:
        raise ValueError(f"unknown split {split!r}; the world has {', '.join(SPLITS)}")
    try:
        config = replace(config or WorldConfig(), **settings)
    except TypeError as error:
        raise ValueError(f"{error}; the settings are {', '.join(WorldConfig.__slots__)}") from None
    domains = set(config.domains_of(split))
    rows = [(row, chain) for row, chain in enumerate(read_chains()) if chain.split == split]
    rows = [(row, chain) for row, chain in rows if chain.question.domain in domains]
    limit = config.num_chains
    if split in ("train", "cold"):
        random.Random(f"order {split} {config.seed}").shuffle(rows)
        limit = _NUM_TRAIN if limit is None and split == "train" else limit
    if limit is not None and limit > len(rows):
        raise ValueError(f"num_chains is {limit}, but split {split!r} has {len(rows)} chains of these domains")
    return [_record(row, chain, config) for row, chain in rows[:limit]]


def _record(row: int, chain: Chain, config: WorldConfig) -> Record:
    question = chain.question
    key = content_key("world", row, question.identity, *chain.steps)
    truth = tuple(float(check_step(question, step)) for step in chain.steps)
    source = config.source_of(question.domain, question.identity, chain.split)
    flipped = config.is_flipped(source, key)
    labels = truth
    if config.labels == "monte_carlo" and chain.split == "train":
        if not chain.mc_total:
            raise ValueError("these chains hold no Monte-Carlo counts; build them with dreamprm.world.build_chains")
        labels = tuple(count / chain.mc_total for count in chain.mc_right)
    if flipped:
        labels = tuple(1.0 - label for label in labels)
    extra = {"task": question.domain, "seed": question.scene.seed}
    if chain.mc_total:
        extra |= {"mc_right": chain.mc_right, "mc_total": chain.mc_total}
    return Record(
        key=key,
        source="world",
        domain=source.name,
        group=question.identity,
        question=question.text,
        steps=chain.steps,
        images=(draw(question.scene),),
        # The outer problem knows whether an answer is right, never which step is wrong.
        labels=() if chain.split == "meta" else labels,
        correct=check_answer(question, chain.steps),
        answer=answer_of(chain.steps),
        reference=question.answer,
        extra=extra,
        truth={"labels": truth, "mislabelled": flipped, "quality": source.quality},
    )


@functools.lru_cache(maxsize=2)
def read_chains(path: Path = CHAINS) -> tuple[Chain, ...]:
    """The chains of a file that `write_chains` wrote; raises FileNotFoundError that says how to build it."""
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing; build it with python -m dreamprm.world.build_chains --out {path}")
    table = pq.read_table(path, schema=_SCHEMA)
    questions: dict[str, Question] = {}
    chains = []
    for row in table.to_pylist():
        question = questions.setdefault(row["question"], Question.from_json(row["question"]))
        chains.append(
            Chain(row["split"], question, tuple(row["steps"]), tuple(row["mc_right"] or ()), row["mc_total"] or 0)
        )
    return tuple(chains)


def write_chains(path: Path, chains: list[Chain]) -> None:
    """Store chains, in their order, as one compressed parquet file."""
    rows = [
        {
            "split": chain.split,
            "question": chain.question.to_json(),
            "steps": list(chain.steps),
            "mc_right": list(chain.mc_right),
            "mc_total": chain.mc_total,
        }
        for chain in chains
    ]
    pq.write_table(pa.Table.from_pylist(rows, schema=_SCHEMA), path, compression="zstd", compression_level=15)
