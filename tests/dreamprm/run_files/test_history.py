"""history.jsonl: its pulls are what moved the weights, it is cut on resume, and its size is bounded."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from dreamprm.config import TrainConfig
from dreamprm.run_files.history import HISTORY, WeightHistory, read_history
from dreamprm.trainer.run import train

Settings = Callable[..., TrainConfig]

LR = 5.0


def test_the_pulls_are_what_moved_a_tables_weights(tiny_settings: Settings) -> None:
    """With plain gradient descent on a table of weights: w' = w - lr dF/dw = w + lr d / B."""
    settings = tiny_settings(
        "weigher.sparse=false", "optimizer@outer.optimizer=sgd", f"outer.optimizer.lr={LR}",
        "schedule@outer.schedule=constant", "outer.clip_norm=null", "outer.begin=0", "cold.updates=1",
        "inner.updates=13", "inner.batch_size=2", "inner.accumulate=2",
        experiment="instance_table",
    )  # fmt: skip
    folder = train(settings)
    assert folder is not None
    history = read_history(folder)
    end = pq.read_table(folder / "weights.parquet")["weight"].to_pylist()
    assert sorted(history) == list(range(24))
    moved = 0.0
    for row, moments in history.items():
        weights = [weight for _, weight, _ in moments] + [end[row]]
        for (_, weight, pull), then in zip(moments, weights[1:], strict=True):
            # Five digits are kept of each.
            assert then == pytest.approx(weight + LR * pull / 4, abs=2e-4)
            moved = max(moved, abs(LR * pull / 4))
    assert moved > 0.01
    page = (folder / "explorer" / "rows" / "0.js").read_text()
    assert page.count('"history":[[') == 24


def test_it_is_cut_where_a_run_goes_on(tmp_path: Path) -> None:
    history = WeightHistory.of_run(tmp_path, 10, 2, 100, writes=True)
    history.begin(None)
    for update in range(5):
        history.add(update, [update, 9], [1.0, 2.0], [0.123456789, float("nan")])
    with (tmp_path / HISTORY).open("a") as stream:
        stream.write('{"update": 5, "rows": [1, 2], "weig')
    history.begin(3)
    assert [json.loads(line)["update"] for line in (tmp_path / HISTORY).read_text().splitlines()] == [0, 1, 2]
    assert read_history(tmp_path) == {number: [(number, 1.0, 0.12346)] for number in range(3)}
    WeightHistory.of_run(tmp_path, 10, 2, 100, writes=True).begin(None)
    assert read_history(tmp_path) == {}


def test_a_large_run_keeps_a_sample(tmp_path: Path) -> None:
    history = WeightHistory.of_run(tmp_path, 565_096, 128, 1_000_000, writes=True)
    kept_updates = 1_000_000 / history.every
    assert 565_096 / history.stride <= 4000
    assert kept_updates * 128 / history.stride <= 200_000
    history.begin(None)
    history.add(0, list(range(200)), [1.0] * 200, [0.0] * 200)
    assert sorted(read_history(tmp_path)) == [0, history.stride]


def test_another_process_writes_nothing(tmp_path: Path) -> None:
    history = WeightHistory.of_run(tmp_path, 10, 2, 100, writes=False)
    history.begin(None)
    history.add(0, [1], [1.0], [1.0])
    assert not (tmp_path / HISTORY).exists()
