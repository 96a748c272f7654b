"""What goes wrong in a run is said clearly: not a number, Ctrl-C, keys that repeat, images that are not there."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from dreamprm.config import TrainConfig, UserError, resolve_train
from dreamprm.config.launch import compose_config
from dreamprm.interrupt import StopRequest
from dreamprm.metrics import read_metrics
from dreamprm.phases.bilevel_phase import BilevelPhase
from dreamprm.phases.phase import Made
from dreamprm.run_files.checkpoint import latest_checkpoint
from dreamprm.sources import load_data
from dreamprm.trainer.run import train

Settings = Callable[..., TrainConfig]


def _poison(update: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Put a NaN into the model before one bilevel update, as an exploding step leaves it."""
    real = BilevelPhase.update

    def poisoned(phase: BilevelPhase) -> Made:
        if phase.run.update == update:
            with torch.no_grad():
                phase.run.prm.head.rows.weight.fill_(float("nan"))  # type: ignore[union-attr]
        return real(phase)

    monkeypatch.setattr(BilevelPhase, "update", poisoned)


def test_an_inner_loss_that_is_no_number_names_examples_and_update(
    tiny_settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    _poison(3, monkeypatch)
    with pytest.raises(UserError, match=r"update 3: the loss of 4 of 4 examples is not finite \(train") as caught:
        train(tiny_settings("checkpoint.every=1"))
    assert "The checkpoint of update 2 is from before. Go on from it with a lower rate: rm -r " in str(caught.value)
    assert "(it leads here again), then dreamprm train resume=" in str(caught.value)


def test_an_outer_gradient_that_is_no_number_is_counted_and_skipped(
    tiny_settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    from dreamprm.phases import bilevel_phase

    calls: list[int] = []
    real = bilevel_phase.outer_loss

    def sometimes_nan(*arguments: Any) -> torch.Tensor:
        calls.append(1)
        loss = real(*arguments)
        return loss * float("nan") if len(calls) == 2 else loss

    monkeypatch.setattr(bilevel_phase, "outer_loss", sometimes_nan)
    folder = train(tiny_settings("inner.updates=5"))
    assert folder is not None
    cost = json.loads((folder / "results.json").read_text())["cost"]
    assert cost["skipped_outer_updates"] == 1
    assert cost["outer_updates"] == 4
    assert [row["update"] for row in read_metrics(folder / "metrics.jsonl") if row.get("outer_skipped")] == [4]


def test_too_many_in_a_row_stop_the_run(tiny_settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    from dreamprm.phases import bilevel_phase

    real = bilevel_phase.outer_loss
    monkeypatch.setattr(bilevel_phase, "outer_loss", lambda *arguments: real(*arguments) * float("nan"))
    with pytest.raises(UserError, match="not finite 2 times in a row"):
        train(tiny_settings("inner.updates=5", "outer.max_not_finite=1"))


def test_ctrl_c_stops_after_the_update_with_a_checkpoint(
    tiny_settings: Settings, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    real = BilevelPhase.update

    def interrupted(phase: BilevelPhase) -> Made:
        if phase.run.update == 3:
            os.kill(os.getpid(), signal.SIGINT)
        return real(phase)

    monkeypatch.setattr(BilevelPhase, "update", interrupted)
    before = signal.getsignal(signal.SIGINT)
    settings = tiny_settings()
    assert train(settings) is None
    assert signal.getsignal(signal.SIGINT) is before
    path = latest_checkpoint(Path(str(settings.run_dir)) / "checkpoints")
    assert path is not None
    assert path.name == "update-00000004"
    assert (
        f"stopped after update 4 of 5; go on with: dreamprm train resume={settings.run_dir}" in capsys.readouterr().out
    )


def test_a_second_ctrl_c_stops_at_once() -> None:
    with StopRequest() as stop:
        os.kill(os.getpid(), signal.SIGTERM)
        assert stop.asked
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGTERM)


def test_keys_that_repeat_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    import dataclasses

    import dreamprm.world as world

    real = world.load
    monkeypatch.setattr(
        world, "load", lambda *given, **named: [dataclasses.replace(one, key="-1") for one in real(*given, **named)]
    )
    with pytest.raises(UserError, match="examples 0 and 1 share the key '-1' and would share one weight"):
        load_data(resolve_train(compose_config("train", ["data.num_chains=20"])))


def test_a_missing_image_is_named(tiny_settings: Settings, tiny_files: Path, tmp_path: Path) -> None:
    rows = [json.loads(line) for line in (tiny_files / "train.jsonl").read_text().splitlines()]
    rows[5]["images"] = ["gone.png"]
    (tmp_path / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(UserError, match=r"gone\.png"):
        train(tiny_settings(f"data.path={tmp_path / 'train.jsonl'}"))


def test_a_folder_that_holds_a_run_is_not_overwritten(tiny_settings: Settings) -> None:
    settings = tiny_settings("stop_at=1")
    train(settings)
    with pytest.raises(UserError, match="holds a run already: go on with it by dreamprm train resume="):
        train(tiny_settings("stop_at=1"))


def test_numbered_folders_where_none_is_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from dreamprm.config import resolve_train
    from dreamprm.run_files.folder import fresh_folder

    monkeypatch.chdir(tmp_path)
    settings = resolve_train(compose_config("train", ["+experiment=instance_net", "seed=4"]))
    found = [str(fresh_folder(settings)) for _ in range(3)]
    assert found == [f"runs/instance_net/seed4{tail}" for tail in ("", "-2", "-3")]


def test_a_tracker_that_is_not_installed_says_how(tiny_settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "wandb", None)  # what an import of a missing package meets
    with pytest.raises(
        UserError, match=r"needs the package wandb, which is not installed: pip install 'dreamprm\[wandb"
    ):
        train(tiny_settings("tracker=wandb"))
