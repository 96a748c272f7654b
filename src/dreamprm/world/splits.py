"""The world's chains as records."""

from __future__ import annotations

import functools
import math
import random
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from dreamprm.data.record import Record, content_key
from dreamprm.world.questions import TARGETS, Question, answer_of, check_answer
from dreamprm.world.scene import draw
from dreamprm.world.trouble import Labelled, Source, WorldConfig, label_chain, true_labels

__all__ = ["CHAINS", "LOADED", "Chain", "load", "read_chains", "write_chains"]

LOADED = ("train", "meta", "validation", "test")
# Splits of the chains file that training chains are taken from.
_POOL = ("train", "cold")

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
    """The records of a split: `train`, `meta`, `validation` (to choose settings on) or `test`.

    settings: fields of `WorldConfig` that replace those of `config`. Validation, test and meta records are grouped by
    question, several candidates each. Raises ValueError for an unknown split or setting.

    >>> records = load("train", trouble="crowd", num_chains=3000, seed=1)
    """
    if split not in LOADED:
        raise ValueError(f"unknown split {split!r}; the world has {', '.join(LOADED)}")
    try:
        config = replace(config or WorldConfig(), **settings)
    except TypeError as error:
        raise ValueError(f"{error}; the settings are {', '.join(WorldConfig.__slots__)}") from None
    domains = set(config.domains_of(split))
    rows = [(row, chain) for row, chain in enumerate(read_chains()) if chain.question.domain in domains]
    if split == "train":
        return _train(rows, config)
    rows = [(row, chain) for row, chain in rows if chain.split == split]
    return [_record(row, chain, config) for row, chain in rows[: _limit(config.num_chains, rows, split)]]


def _train(rows: list[tuple[int, Chain]], config: WorldConfig) -> list[Record]:
    """Chains in an order that the seed decides: first those that hold Monte-Carlo counts, then the pool's others."""
    counted, others = ([pair for pair in rows if pair[1].split == name] for name in _POOL)
    rng = random.Random(f"order train {config.seed}")
    rng.shuffle(counted)
    rng.shuffle(others)
    if config.trouble == "monte_carlo":
        if not any(chain.mc_total for _, chain in counted):
            raise ValueError("these chains hold no Monte-Carlo counts; build them with dreamprm.world.build_chains")
        others = []
    rows = [*counted, *others]
    if config.trouble == "off_target":
        rows = _mix_off_target(rows, config)
    elif config.trouble == "rare_wrong":
        rows = _mix_rare_wrong(rows, config)
    limit = config.num_chains or min(_NUM_TRAIN, len(rows))
    return [_record(row, chain, config) for row, chain in rows[: _limit(limit, rows, "train")]]


def _limit(limit: int | None, rows: list[tuple[int, Chain]], split: str) -> int | None:
    if limit is not None and limit > len(rows):
        raise ValueError(f"num_chains is {limit}, but split {split!r} has {len(rows)} chains of these domains")
    return limit


def _mix_off_target(rows: list[tuple[int, Chain]], config: WorldConfig) -> list[tuple[int, Chain]]:
    """As many chains as there are, a share of them of domains that do not help, in an order of the seed."""
    useful = [pair for pair in rows if pair[1].question.domain in TARGETS]
    useless = [pair for pair in rows if pair[1].question.domain not in TARGETS]
    return _mixed(useless, useful, config)


def _mix_rare_wrong(rows: list[tuple[int, Chain]], config: WorldConfig) -> list[tuple[int, Chain]]:
    """So few chains with a wrong step that the share of wrong *steps* is the one asked for."""
    right = [pair for pair in rows if all(true_labels(pair[1].question, pair[1].steps))]
    wrong = [pair for pair in rows if not all(true_labels(pair[1].question, pair[1].steps))]
    truths = [true_labels(chain.question, chain.steps) for _, chain in wrong]
    per_chain = sum(truth.count(0.0) for truth in truths) / max(1, sum(map(len, truths)))
    return _mixed(wrong, right, replace(config, share=min(1.0, config.amount / per_chain)))


def _mixed(
    first: list[tuple[int, Chain]], second: list[tuple[int, Chain]], config: WorldConfig
) -> list[tuple[int, Chain]]:
    share = config.amount
    total = int(min(len(first) / share if share else math.inf, len(second) / (1 - share) if share < 1 else math.inf))
    total = min(total, config.num_chains or _NUM_TRAIN)
    count = round(share * total)
    rows = [*first[:count], *second[: total - count]]
    random.Random(f"mix {config.seed}").shuffle(rows)
    return rows


def _record(row: int, chain: Chain, config: WorldConfig) -> Record:
    question = chain.question
    key = content_key("world", row, question.identity, *chain.steps)
    truth = true_labels(question, chain.steps)
    found = Labelled(truth, Source(question.domain))
    if chain.split in _POOL:
        found = label_chain(question, chain.steps, key, config)
        if config.trouble == "monte_carlo":
            found = replace(found, labels=tuple(count / chain.mc_total for count in chain.mc_right))
    # A soft label is wrong where it lies on the other side of one half.
    wrong = tuple((label > 0.5) != (right > 0.5) for label, right in zip(found.labels, truth, strict=True))
    extra = {"task": question.domain, "seed": question.scene.seed}
    if chain.mc_total:
        extra |= {"mc_right": chain.mc_right, "mc_total": chain.mc_total}
    return Record(
        key=key,
        source="world",
        domain=found.source.name,
        group=question.identity,
        question=question.text,
        steps=chain.steps,
        images=(draw(question.scene),),
        # The outer problem knows whether an answer is right, never which step is wrong.
        labels=() if chain.split == "meta" else found.labels,
        correct=check_answer(question, chain.steps),
        answer=answer_of(chain.steps),
        reference=question.answer,
        extra=extra,
        truth={
            "labels": truth,
            "wrong": wrong,
            "mislabelled": any(wrong),
            "quality": found.source.quality,
            "labeller": found.labeller,
        },
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
        question = questions.get(row["question"])
        if question is None:
            question = questions[row["question"]] = Question.from_json(row["question"])
            if question.split != row["split"]:  # what keeps training, meta and test questions apart
                raise ValueError(f"{path}: question {question.identity} is in {row['split']!r}, not {question.split!r}")
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
