"""k updates, stop, resume, n - k updates equals n updates bit for bit, the weigher and its optimizer included."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf
from safetensors.torch import load_file, save_file

from dreamprm.config import ConfigError, TrainConfig
from dreamprm.config.launch import compose_config
from dreamprm.config.resolve import to_plain
from dreamprm.errors import UserError
from dreamprm.metrics import read_metrics
from dreamprm.run_files.checkpoint import latest_checkpoint, load_checkpoint
from dreamprm.run_files.folder import resumed_settings
from dreamprm.run_files.history import read_history
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
    assert read_history(whole) == read_history(parts)
    one, two = ((folder / "weigher.safetensors").read_bytes() for folder in (whole, parts))
    assert one == two, "byte for byte, metadata included"
    results = [json.loads((folder / "results.json").read_text()) for folder in (whole, parts)]
    assert results[0]["weights"] == results[1]["weights"]


@pytest.mark.parametrize("stop_at", [5, 9, 11], ids=["in the looks", "in a judge", "between two judges"])
def test_trust_goes_on_where_it_was(tiny_settings: Settings, stop_at: int) -> None:
    """Cold start to 2, looks to 9 (the first is no look), a judge to 11, another to 13, the last training to 16."""
    small = ("model.question=null", "weigher.judge_updates=2", "weigher.passes=1")
    whole = train(tiny_settings(*small, run="whole", experiment="trust"))
    settings = tiny_settings(*small, f"stop_at={stop_at}", run="parts", experiment="trust")
    assert train(settings) is None
    parts = train(_resume(Path(str(settings.run_dir))))
    assert whole is not None
    assert parts is not None
    one, two = _last(whole), _last(parts)
    assert set(one) == set(two)
    assert all(torch.equal(value, two[name]) for name, value in one.items())
    assert _metrics(whole) == _metrics(parts)
    assert len(_metrics(whole)) == 16


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


@pytest.mark.parametrize(
    ("change", "differing"),
    [("labels", "training chains: .*labels"), ("order", "training chains: keys"), ("meta", "meta chains: labels")],
)
def test_data_that_changed_are_refused(
    tiny_settings: Settings, tiny_files: Path, tmp_path: Path, change: str, differing: str
) -> None:
    files = {name: tmp_path / f"{name}.jsonl" for name in ("train", "meta")}
    for name, path in files.items():
        path.write_bytes((tiny_files / f"{name}.jsonl").read_bytes())
    settings = tiny_settings(f"data.path={files['train']}", f"meta.path={files['meta']}", "stop_at=1")
    train(settings)
    rows = [json.loads(line) for line in files["train"].read_text().splitlines()]
    judged = [json.loads(line) for line in files["meta"].read_text().splitlines()]
    if change == "labels":
        rows[3]["labels"] = [1 - label for label in rows[3]["labels"]]
    elif change == "order":
        rows.reverse()
    else:
        judged[0]["correct"] = not judged[0]["correct"]
    for name, lines in (("train", rows), ("meta", judged)):
        files[name].write_text("".join(json.dumps(row) + "\n" for row in lines))
    with pytest.raises(UserError, match=f"the data are not those that the run was trained on .*{differing}"):
        train(_resume(Path(str(settings.run_dir))))


def test_another_base_under_the_adapters_is_refused(tiny_settings: Settings, tiny_files: Path, tmp_path: Path) -> None:
    """A checkpoint holds what is trained; what is frozen is read again, and must be what it was."""
    base = tmp_path / "base"
    shutil.copytree(tiny_files / "base", base)
    settings = tiny_settings(f"model.path={base}", "model.vision=frozen", "stop_at=1")
    train(settings)
    held = load_file(base / "model.safetensors")
    name = next(name for name in held if "vision" in name and held[name].ndim > 1)
    held[name][0] += 0.1
    save_file(held, base / "model.safetensors", {"format": "pt"})
    with pytest.raises(UserError, match=r"is not the one that the run began with .its frozen parameters differ"):
        train(_resume(Path(str(settings.run_dir))))


def test_a_run_that_diverged_goes_on_with_a_lower_rate(
    tiny_settings: Settings, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = tiny_settings("checkpoint.every=1", "inner.optimizer.lr=1e8", "inner.schedule.warmup=0")
    folder = Path(str(settings.run_dir))
    ruined = folder / "checkpoints" / "update-00000003"  # finite, but no loss at its parameters is
    way_out = (
        rf"update 2 is from before\..*: rm -r {ruined} .* dreamprm train resume={folder} inner\.optimizer\.lr=1e\+07"
    )
    with pytest.raises(UserError, match=way_out):
        train(settings)
    shutil.rmtree(ruined)
    assert not (folder / "prm").exists(), "nothing of it is published"
    last = latest_checkpoint(folder / "checkpoints")
    assert last is not None
    assert all(bool(value.isfinite().all()) for value in load_file(last / "state.safetensors").values())
    words = [f"resume={folder}", "inner.optimizer.lr=1e-4"]
    assert train(resumed_settings(compose_config("train", words), words)) == folder
    said = capsys.readouterr().out
    assert f"changed from update {int(last.name[-8:])} on: inner.optimizer.lr 100000000.0 -> 0.0001" in said
    assert (folder / "prm" / "model.safetensors").exists()


@pytest.mark.parametrize("names", [{"WORLD_SIZE": "2", "RANK": "0"}, {"WORLD_SIZE": "2", "RANK": "1"}])
def test_one_process_of_several_is_refused(
    tiny_settings: Settings, monkeypatch: pytest.MonkeyPatch, names: dict[str, str]
) -> None:
    for name, value in names.items():
        monkeypatch.setenv(name, value)
    settings = tiny_settings()
    with pytest.raises(UserError, match="start them by torchrun"):
        train(settings)
    assert not Path(str(settings.run_dir)).exists()
