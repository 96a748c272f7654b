"""The functional engine and the live optimizer are two ways to one trajectory."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from dreamprm.config import ConfigError, TrainConfig
from dreamprm.metrics import read_metrics
from dreamprm.phases.unrolled_phase import check_unrolled
from dreamprm.run_files.checkpoint import latest_checkpoint
from dreamprm.trainer import loop
from dreamprm.trainer.run import train

Settings = Callable[..., TrainConfig]


def _state(folder: Path | None) -> dict[str, torch.Tensor]:
    assert folder is not None
    path = latest_checkpoint(folder / "checkpoints")
    assert path is not None
    return load_file(path / "state.safetensors")


@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
def test_one_unrolled_update_is_the_lookahead(
    tiny_settings: Settings, monkeypatch: pytest.MonkeyPatch, optimizer: str
) -> None:
    # The outer optimizer is SGD: Adam's first steps would turn the rounding of a small gradient into a whole step.
    common = (f"optimizer@inner.optimizer={optimizer}", "optimizer@outer.optimizer=sgd", "inner.optimizer.lr=1e-3")
    one = _state(train(tiny_settings(*common, run="lookahead")))
    # unroll=1 alone would take the fast path.
    monkeypatch.setattr(loop, "is_unrolled", lambda settings: True)
    two = _state(train(tiny_settings(*common, run="unrolled")))
    names = [name for name in one if name.startswith(("/parameters", "/weigher"))]
    moved = max(one[name].sub(two[name]).abs().max().item() for name in names)
    # fp32 and other attention kernels: one part in a hundred of an update, which is 1e-3.
    assert moved < 1e-5
    assert {name for name in one if name.startswith("/optimizers")} == {
        name for name in two if name.startswith("/optimizers")
    }


def test_two_unrolled_updates_train_and_resume(tiny_settings: Settings) -> None:
    common = ("hypergradient.unroll=2", "outer.every=2", "inner.updates=5", "outer.begin=0")
    folder = train(tiny_settings(*common))
    assert folder is not None
    rows = [row for row in read_metrics(folder / "metrics.jsonl") if row["phase"] == "bilevel"]
    # Windows of two updates end with an outer one each; the fifth update stands alone.
    assert [(row["update"], "outer_loss" in row) for row in rows] == [(3, True), (5, True), (6, False)]
    assert all(row["hypergradient_norm"] > 0 for row in rows[:2])


def test_a_weigher_that_sees_the_graph_has_another_gradient(tiny_settings: Settings) -> None:
    common = ("weigher=instance_net_paper", "hypergradient.unroll=2", "outer.every=2", "inner.updates=4")
    cut = train(tiny_settings(*common, run="cut"))
    attached = train(tiny_settings(*common, "hypergradient.detach=false", run="attached"))
    assert cut is not None
    assert attached is not None
    first, second = (
        next(row["hypergradient_norm"] for row in read_metrics(folder / "metrics.jsonl") if "outer_loss" in row)
        for folder in (cut, attached)
    )
    assert abs(first - second) > 1e-3 * abs(first)


_TABLE = ["weigher=instance_table", "optimizer@outer.optimizer=row_adam"]


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["hypergradient.unroll=3"], "more than outer.every=1"),
        (["hypergradient.unroll=2", "outer.every=2", "precision=bf16"], "needs precision=fp32, not bf16"),
        (["hypergradient.unroll=2", "outer.every=2", "optimizer@inner.optimizer=adamw8bit"], "not adamw8bit"),
        (["hypergradient.unroll=2", "outer.every=2", *_TABLE], "needs weigher.sparse=false"),
    ],
)
def test_what_it_cannot_do_is_refused(tiny_settings: Settings, overrides: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        check_unrolled(tiny_settings(*overrides))
