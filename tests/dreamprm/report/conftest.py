"""A finished run's folder as the trainer writes it, with made-up numbers."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image


def _png(rng: np.random.Generator) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(rng.integers(0, 255, (32, 32, 3), dtype=np.uint8)).save(stream, "PNG")
    return stream.getvalue()


def _make_run(folder: Path, *, known: bool = True) -> Path:
    rng = np.random.default_rng(0)
    folder.mkdir(parents=True, exist_ok=True)

    def point(value: float) -> dict[str, float]:
        return {"value": value, "low": value - 0.04, "high": value + 0.04, "n": 400}

    rows = {"policy": 0.51, "self_consistency": 0.7, "prm": 0.78, "weighted_vote": 0.8, "oracle": 0.84}
    best_of_n = {
        name: {str(n): point(0.51 + (top - 0.51) * np.log2(n) / 3) for n in (1, 2, 4, 8)} for name, top in rows.items()
    }
    results = {
        "experiment": "instance_net",
        "description": "an instance net on <the> world",
        "seed": 0,
        "verdict": "the meta set gave a signal: the outer loss went from 0.3 to 0.1, its AUC 0.910 (0.880 to 0.930)",
        "best_of_n": best_of_n,
        "cold_start": {"best_of_n": {"prm": {"8": point(0.6)}}, "steps": {"auc": point(0.8)}},
        "meta": {
            "outer_loss": {"before": 0.3, "after": 0.1, "change": point(-0.2)},
            "auc": {"before": point(0.6), "after": point(0.91), "change": point(0.31)},
        },
        "sum_rule": 3.1e-6,
        "steps": {"auc": point(0.97), "macro_f1": point(0.91), "num_steps": 9000},
        "weights": {"mean": 1.0, "spread": 0.6}
        | (
            {
                "separation": {"auc": point(0.98), "mean_good": 1.6, "num_bad": 240},
                "domain_rank_correlation": {"value": 0.9, "p": 0.01, "domains": ["count"]},
            }
            if known
            else {"separation": None, "domain_rank_correlation": None}
        ),
        "cost": {"seconds": 321.5, "updates": 700, "check_error": 0.00001, "skipped_outer_updates": 1},
    }
    (folder / "results.json").write_text(json.dumps(results))
    with (folder / "metrics.jsonl").open("w") as stream:
        for update in range(300):
            phase = "cold" if update < 100 else "bilevel"
            noise = float(rng.normal(0, 0.03))
            numbers = (
                {"loss": 0.7 * np.exp(-update / 50) + 0.1 + noise, "dense_loss": 1.2 * np.exp(-update / 40) + 0.2}
                if phase == "cold"
                else {
                    "inner_loss": 0.5 + noise,
                    "outer_loss": 0.25 * np.exp(-(update - 100) / 80) + 0.05 + noise / 3,
                    "weight_mean": 1.0 + noise,
                    "weight_std": min(0.6, (update - 100) / 100),
                }
            )
            stream.write(json.dumps({"update": update, "phase": phase} | numbers) + "\n")
    domains = ["count", "chart", "table", "compare", "compute", "trivial"]
    good = rng.random(600) < 0.6
    weights = np.where(good, rng.normal(1.6, 0.2, 600), rng.normal(0.3, 0.2, 600)).clip(0, 2)
    pq.write_table(
        pa.table(
            {
                "key": [f"k{i}" for i in range(600)],
                "source": ["world"] * 600,
                "domain": [domains[i % 6] for i in range(600)],
                "weight": weights,
                "step_scores": [[0.9, 0.2]] * 600,
                "known_quality": pa.array([0.2 * (i % 6) if known else None for i in range(600)], type=pa.float64()),
                "known_good": pa.array(list(good) if known else [None] * 600, type=pa.bool_()),
            }
        ),
        folder / "weights.parquet",
    )
    cards = [
        {
            "end": end,
            "key": f"{end}{i}",
            "domain": domains[i],
            "weight": 1.9 - i / 10 if end == "highest" else i / 10,
            "question": "How many red things & blue things are there? <b>Count</b> them.",
            "steps": ["red 3", "blue 4", "3 and 4 is 8", "answer 8"],
            "labels": [1.0, 1.0, 0.0, None],
            "scores": [0.98, 0.91, 0.07, 0.1],
            "image": _png(rng),
            "known_good": end == "highest" if known else None,
        }
        for end in ("highest", "lowest")
        for i in range(6)
    ]
    pq.write_table(pa.Table.from_pylist(cards), folder / "examples.parquet")
    (folder / "config.yaml").write_text("name: instance_net\nseed: 0\n")
    return folder


@pytest.fixture
def make_run() -> Callable[[Path], Path]:
    return _make_run


@pytest.fixture
def finished_run(tmp_path: Path) -> Path:
    return _make_run(tmp_path / "run")


@pytest.fixture
def run_without_truth(tmp_path: Path) -> Path:
    return _make_run(tmp_path / "run", known=False)
