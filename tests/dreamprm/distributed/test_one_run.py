"""Several processes are the same run as one: numbers, weights, scores, and what it goes on from."""

from __future__ import annotations

import os
import subprocess
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import torch
from omegaconf import OmegaConf
from safetensors.torch import load_file
from tests.conftest import tiny_overrides
from torch import distributed, multiprocessing

from dreamprm.config import TrainConfig, resolve_train
from dreamprm.config.launch import compose_config
from dreamprm.metrics import read_metrics
from dreamprm.run_files.checkpoint import latest_checkpoint
from dreamprm.run_files.folder import resumed_settings
from dreamprm.trainer.run import train

# Micro-batches of 5 chains, which two processes cannot share evenly, with a centre over both of them.
_ODD = ("inner.batch_size=5", "outer.batch_size=5")
RUNS: dict[str, tuple[str, tuple[str, ...]]] = {
    "net": ("instance_net", (*_ODD, "cold.updates=4", "inner.updates=16", "outer.accumulate=2")),
    "table": ("instance_table", (*_ODD, "inner.updates=6", "inner.accumulate=2", "outer.loss=mse")),
    "split": ("instance_table", (*_ODD, "cold.updates=2", "inner.updates=6", "outer.accumulate=2")),
    "calibrated": ("instance_net", ("outer.loss=calibrated", "outer.aggregate=min")),
    "steps": ("step_net", ("outer.loss=mse",)),
    "small_loss": ("small_loss", _ODD),
    "meta_added": ("meta_added", _ODD),  # learns no weights
    "both": ("instance_net", (*_ODD, "inner.meta_weight=1")),  # learns weights beside it
    # Gradient descent: the derivative of Adam's first steps would blow the rounding of single examples' d up.
    "trust": (
        "trust",
        (
            *_ODD,
            "inner.updates=4",
            "inner.meta_batch_size=5",
            "weigher.judge_updates=3",
            "optimizer@inner.optimizer=sgd",
        ),
    ),
}
# Words of the runs in two processes only. They stop after update 5, and one process goes on.
OF_TWO = {
    "table": ("stop_at=5",),
    "split": ("stop_at=5", "distributed.shard=true", "weigher.split_above=1"),
}
# Sums over examples in another order round to 1e-7 of each other in float32, and 16 updates of both levels carry that
# on: 3e-6 is the largest difference of a weight, 2e-7 of a score.
CLOSE = {"rel": 1e-5, "abs": 1e-5}


def _settings(files: Path, folder: Path, name: str, *more: str) -> TrainConfig:
    experiment, words = RUNS[name]
    return resolve_train(compose_config("train", [*tiny_overrides(files, folder / name, experiment), *words, *more]))


def _process(rank: int, files: Path, folder: Path, size: int, runs: Sequence[tuple[str, tuple[str, ...]]]) -> None:
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    distributed.init_process_group("gloo", f"file://{folder}/store", rank=rank, world_size=size)
    for name, more in runs:
        train(_settings(files, folder, name, *more))
    distributed.destroy_process_group()


@pytest.fixture(scope="module")
def folders(tiny_files: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Every run in one process and in two."""
    one, two = tmp_path_factory.mktemp("one"), tmp_path_factory.mktemp("two")
    runs = [(name, OF_TWO.get(name, ())) for name in RUNS]
    multiprocessing.spawn(_process, (tiny_files, two, 2, runs), nprocs=2)
    for name in RUNS:
        assert train(_settings(tiny_files, one, name)) is not None
    for name in OF_TWO:
        if name == "split":
            assert (two / name / "checkpoints" / "update-00000005" / "parts").is_dir()
        composed = OmegaConf.create({"resume": str(two / name), "stop_at": None})
        assert train(resumed_settings(composed, [f"++resume={two / name}", "++stop_at=null"])) is not None
    return one, two


@pytest.mark.parametrize("name", list(RUNS))
def test_two_processes_are_the_run_of_one(folders: tuple[Path, Path], name: str) -> None:
    one, two = (folder / name for folder in folders)
    here, there = (read_metrics(folder / "metrics.jsonl") for folder in (one, two))
    assert [row["update"] for row in here] == [row["update"] for row in there]
    for row, other in zip(here, there, strict=True):
        assert set(row) == set(other)
        for column in {"loss", "inner_loss", "outer_loss", "weight_mean", "lr"} & set(row):
            assert other[column] == pytest.approx(row[column], **CLOSE), (row["update"], column)
    rows, others = (pq.read_table(folder / "weights.parquet").to_pylist() for folder in (one, two))
    for row, other in zip(rows, others, strict=True):
        assert row["key"] == other["key"]
        assert other["weight"] == pytest.approx(row["weight"], **CLOSE)
        assert other["step_scores"] == pytest.approx(row["step_scores"], **CLOSE)
    # Something was learned, so something was compared.
    assert name == "meta_added" or max(abs(row["weight"] - 1) for row in rows) > 1e-3
    state, other_state = (_parameters(folder) for folder in (one, two))
    assert set(state) == set(other_state)
    for parameter, value in state.items():
        torch.testing.assert_close(other_state[parameter], value, rtol=1e-5, atol=1e-5)


def _parameters(folder: Path) -> dict[str, torch.Tensor]:
    last = latest_checkpoint(folder / "checkpoints")
    assert last is not None
    return {k: v for k, v in load_file(last / "state.safetensors").items() if k.startswith("/parameters")}


def test_a_run_of_two_leaves_one_of_everything(folders: tuple[Path, Path]) -> None:
    one, two = (folder / "net" for folder in folders)
    here, there = ({str(path.relative_to(folder)) for path in folder.rglob("*")} for folder in (one, two))
    assert here == there


def _torchrun(*words: str) -> Any:
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [*command, "-m", "dreamprm", "train", *words], capture_output=True, text=True, timeout=120, env=environment
    )


def test_under_torchrun_an_error_is_one_line(tiny_files: Path, folders: tuple[Path, Path]) -> None:
    """The first process finds the folder taken, while the other one waits for it."""
    words = [word.removeprefix("+") for word in tiny_overrides(tiny_files, folders[0] / "net", "instance_net")]
    done = _torchrun(*words)
    assert done.returncode != 0
    own = [line for line in (done.stdout + done.stderr).splitlines() if line.startswith("error:")]
    assert len(own) == 1, done.stdout + done.stderr
    assert "holds a run already" in own[0]
    # What torchrun itself says of it comes after, with its own traceback.
    assert "dreamprm/trainer" not in done.stderr
