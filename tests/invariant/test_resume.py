"""k updates, stop, resume, n - k updates equals n updates bit for bit, the weigher and its optimizer included."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf
from safetensors.torch import load_file

from dreamprm.config import ConfigError, TrainConfig
from dreamprm.config.resolve import to_plain
from dreamprm.metrics import read_metrics
from dreamprm.run_files.checkpoint import latest_checkpoint, load_checkpoint
from dreamprm.run_files.folder import resumed_settings
from dreamprm.trainer.run import train

Settings = Callable[..., TrainConfig]


def _last(folder: Path) -> dict[str, torch.Tensor]:
    path = latest_checkpoint(folder / "checkpoints")
    assert path is not None
    return load_file(path / "state.safetensors")


def _resume(folder: Path, **changes: object) -> TrainConfig:
    composed = OmegaConf.create({"resume": str(folder), "stop_at": None} | changes)
    return resumed_settings(composed, [f"++{name}={value}" for name, value in composed.items()])


def _metrics(folder: Path) -> list[dict[str, object]]:
    return read_metrics(folder / "metrics.jsonl")


@pytest.mark.parametrize(
    ("experiment", "stop_at"),
    [("instance_net", 1), ("instance_net", 2), ("instance_table", 4)],
    ids=["in the cold start", "between the phases", "in the bilevel phase, sparse table"],
)
def test_a_resumed_run_is_the_run(tiny_settings: Settings, experiment: str, stop_at: int) -> None:
    whole = train(tiny_settings(run="whole", experiment=experiment))
    settings = tiny_settings(f"stop_at={stop_at}", run="parts", experiment=experiment)
    assert train(settings) is None
    parts = Path(str(settings.run_dir))
    assert not (parts / "results.json").exists()
    assert train(_resume(parts)) == parts
    assert whole is not None
    one, two = _last(whole), _last(parts)
    assert set(one) == set(two)
    assert {"/parameters", "/weigher", "/optimizers", "/random"} <= {name[: name.index("/", 1)] for name in one}
    for name, value in one.items():
        assert torch.equal(value, two[name]), name
    assert _metrics(whole) == _metrics(parts)
    results = [json.loads((folder / "results.json").read_text()) for folder in (whole, parts)]
    assert results[0]["weights"] == results[1]["weights"]


# peft 0.21 asks transformers 5.23 for a property by its old name.
@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")
def test_dropout_goes_on_where_it_was(tiny_settings: Settings) -> None:
    lora = ("model.lora.rank=2", "model.lora.dropout=0.2")
    whole = train(tiny_settings(*lora, run="whole"))
    settings = tiny_settings(*lora, "stop_at=3", run="parts")
    train(settings)
    parts = train(_resume(Path(str(settings.run_dir))))
    assert whole is not None
    assert parts is not None
    one, two = _last(whole), _last(parts)
    assert all(torch.equal(value, two[name]) for name, value in one.items())
    assert all("lora" in name for name in one if name.startswith("/parameters") and "head" not in name)


def test_other_settings_are_refused_by_name(tiny_settings: Settings) -> None:
    settings = tiny_settings("stop_at=1")
    train(settings)
    folder = Path(str(settings.run_dir))
    composed = OmegaConf.create(to_plain(settings) | {"resume": str(folder), "seed": 1})
    OmegaConf.update(composed, "inner.batch_size", 8)
    with pytest.raises(ConfigError, match=r"inner\.batch_size was 4, now 8; seed was 0, now 1"):
        resumed_settings(composed, ["resume=x", "seed=1", "inner.batch_size=8"])
    with pytest.raises(ConfigError, match=r"no config\.yaml there"):
        _resume(folder / "nowhere")


def test_a_checkpoint_holds_no_pickle(tiny_settings: Settings) -> None:
    settings = tiny_settings("stop_at=1")
    train(settings)
    path = latest_checkpoint(Path(str(settings.run_dir)) / "checkpoints")
    assert path is not None
    assert sorted(file.name for file in path.iterdir()) == ["state.json", "state.safetensors"]
    update, state = load_checkpoint(path)
    assert update == state["update"] == 1
