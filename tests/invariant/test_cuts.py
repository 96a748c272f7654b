"""Settings that must not change the trajectory: how a batch is cut into micro-batches, which side is padded."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from dreamprm.config import TrainConfig
from dreamprm.run_files.checkpoint import latest_checkpoint
from dreamprm.trainer.run import train

Settings = Callable[..., TrainConfig]


def _parameters(folder: Path | None) -> dict[str, torch.Tensor]:
    assert folder is not None
    path = latest_checkpoint(folder / "checkpoints")
    assert path is not None
    tensors = load_file(path / "state.safetensors")
    return {name: value for name, value in tensors.items() if name.startswith(("/parameters", "/weigher"))}


def _drift(one: dict[str, torch.Tensor], two: dict[str, torch.Tensor]) -> tuple[float, float]:
    """The largest difference and the mean signed one, over all parameters."""
    differences = torch.cat([(value - two[name]).double().flatten() for name, value in one.items()])
    return differences.abs().max().item(), differences.mean().item()


@pytest.mark.parametrize(
    "change",
    [
        ("inner.batch_size=2", "inner.accumulate=2", "cold.batch_size=2", "cold.accumulate=2"),
        ("outer.batch_size=2", "outer.accumulate=2"),
        ("model.padding_side=left",),
    ],
    ids=["2 x 2 chains are 4 chains", "2 x 2 meta chains are 4", "padding left"],
)
def test_the_trajectory_is_the_same(tiny_settings: Settings, change: tuple[str, ...]) -> None:
    # SGD: Adam's first updates are signs, which blow any rounding of a zero gradient up to a whole step.
    sgd = ("optimizer@cold.optimizer=sgd", "optimizer@inner.optimizer=sgd", "optimizer@outer.optimizer=sgd")
    # The mean of two contrasts is not the contrast of both; that of squared errors is.
    sgd += ("outer.loss=mse", "outer.aggregate=mean")
    one = _parameters(train(tiny_settings(*sgd, run="one")))
    two = _parameters(train(tiny_settings(*sgd, *change, run="two")))
    assert any(name.startswith("/weigher") for name in one)
    largest, signed = _drift(one, two)
    # Five updates in fp32, whose sums are taken in another order: parameters are of order one.
    assert largest < 1e-5
    assert abs(signed) < 1e-7


def test_a_cached_vision_tower_is_a_frozen_one(tiny_settings: Settings) -> None:
    one, two = (_parameters(train(tiny_settings(f"model.vision={how}", run=how))) for how in ("frozen", "cached"))
    assert not any("vision_tower" in name for name in one)
    largest, signed = _drift(one, two)
    # The tower ran on other batches, so its sums may be taken in another order; Adam blows that up, see above.
    assert largest < 1e-5
    assert abs(signed) < 1e-7


@pytest.mark.parametrize(("inner", "outer"), [(1, 1), (7, 5)])
def test_batches_of_any_size_train(tiny_settings: Settings, inner: int, outer: int) -> None:
    settings = tiny_settings(f"inner.batch_size={inner}", f"outer.batch_size={outer}", "inner.updates=4")
    folder = train(settings)
    assert folder is not None
    assert (folder / "report.html").is_file()
