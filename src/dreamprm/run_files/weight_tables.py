"""weights.parquet and examples.parquet of a run: a weight for every training example, and the extremes in full."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import torch

from dreamprm.data.record import Record
from dreamprm.evaluate import domain_rank_correlation, separation
from dreamprm.files import replacing

__all__ = ["weight_figures", "write_weights"]

_NUM_CARDS = 6
_PARTS = ("posterior", "hypergradient")  # of weigher=trust: what each adds to the trust in every step's label
_WEIGHTS = pa.schema(
    {
        "key": pa.string(),
        "source": pa.string(),
        "domain": pa.string(),
        "weight": pa.float64(),
        "loss": pa.float64(),
        "step_scores": pa.list_(pa.float32()),
        "step_weights": pa.list_(pa.float32()),
        **{f"step_{part}": pa.list_(pa.float32()) for part in _PARTS},
        "known_good": pa.bool_(),
        "known_quality": pa.float64(),
    }
)
_EXAMPLES = pa.schema(
    {
        "end": pa.string(),
        "key": pa.string(),
        "domain": pa.string(),
        "weight": pa.float64(),
        "question": pa.string(),
        "steps": pa.list_(pa.string()),
        "labels": pa.list_(pa.float32()),
        "scores": pa.list_(pa.float32()),
        "image": pa.binary(),
        "known_good": pa.bool_(),
    }
)


def write_weights(folder: Path, records: Sequence[Record], rows: list[dict[str, Any]]) -> None:
    """Write both tables. rows: one for every training example, in their order, with the columns of weights.parquet."""
    tables = {"weights": (rows, _WEIGHTS), "examples": (_cards(records, rows), _EXAMPLES)}
    for name, (lines, schema) in tables.items():
        with replacing(folder / f"{name}.parquet") as part:
            pq.write_table(pa.Table.from_pylist(lines, schema=schema), part)


def _cards(records: Sequence[Record], rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The examples of the highest and of the lowest weights, whole, for the report."""
    weights = [row["weight"] for row in rows]
    if max(weights) - min(weights) < 1e-9:
        return []
    order = sorted(range(len(rows)), key=lambda place: -weights[place])
    ends = [("highest", place) for place in order[:_NUM_CARDS]]
    ends += [("lowest", place) for place in reversed(order[max(_NUM_CARDS, len(order) - _NUM_CARDS) :])]
    cards: list[dict[str, Any]] = []
    for end, place in ends:
        record, row = records[place], rows[place]
        cards.append(
            {name: row[name] for name in ("key", "domain", "weight", "known_good")}
            | {
                "end": end,
                "question": record.question,
                "steps": list(record.steps),
                "labels": list(record.labels),
                "scores": row["step_scores"],
                "image": _image_bytes(record),
            }
        )
    return cards


def _image_bytes(record: Record) -> bytes | None:
    if not record.images:
        return None
    image = record.images[0]
    return image.read_bytes() if isinstance(image, Path) else image


def weight_figures(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """results.json's `weights`: mean, spread, by domain, and how well they tell what is known of the examples.

    parts: how well what they are made of tells it, for weigher=trust.
    """
    weights = torch.tensor([row["weight"] for row in rows], dtype=torch.float64)
    by_domain: dict[str, list[float]] = {}
    quality: dict[str, float] = {}
    for row in rows:
        by_domain.setdefault(row["domain"], []).append(row["weight"])
        if row["known_quality"] is not None:
            quality[row["domain"]] = row["known_quality"]
    means = {domain: sum(values) / len(values) for domain, values in sorted(by_domain.items())}
    known = [row["known_good"] for row in rows]
    parts = [part for part in _PARTS if any(any(row.get(f"step_{part}") or ()) for row in rows)]
    means_of = {part: [sum(row[f"step_{part}"]) / len(row[f"step_{part}"]) for row in rows] for part in parts}
    return {
        "mean": weights.mean().item(),
        "spread": weights.std(correction=0).item(),
        "separation": separation([row["weight"] for row in rows], known),
        **({"parts": {part: separation(means, known) for part, means in means_of.items()}} if parts else {}),
        "domains": means,
        "domain_rank_correlation": domain_rank_correlation(means, quality),
    }
