"""A run tells what its PRM was worth before and after, stopped in between or not, and where it learned nothing."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf

from dreamprm.config import TrainConfig, resolve_train
from dreamprm.config.launch import compose_config
from dreamprm.evaluate.verdict import NO_SIGNAL
from dreamprm.prm.model import PRM
from dreamprm.run_files.folder import resumed_settings
from dreamprm.trainer.run import train

Settings = Callable[..., TrainConfig]


def _results(folder: Path | None) -> dict[str, Any]:
    assert folder is not None
    return json.loads((folder / "results.json").read_text())


def test_before_is_the_cold_started_prm(tiny_settings: Settings) -> None:
    whole = _results(train(tiny_settings("inner.updates=3", run="whole")))
    none = _results(train(tiny_settings("inner.updates=0", run="none")))
    # A run that ends with the cold start is judged after it: the same PRM, by the same figures.
    assert whole["meta"]["outer_loss"]["before"] == none["meta"]["outer_loss"]["after"]
    assert whole["meta"]["auc"]["before"] == none["meta"]["auc"]["after"]
    assert whole["meta"]["outer_loss"]["after"] != whole["meta"]["outer_loss"]["before"]
    assert "no outer update was made" in none["verdict"]


@pytest.mark.parametrize("stop_at", [2, 4], ids=["before it is judged", "after"])
def test_a_resumed_run_knows_what_was_before(tiny_settings: Settings, stop_at: int) -> None:
    whole = _results(train(tiny_settings(run="whole")))
    settings = tiny_settings(f"stop_at={stop_at}", run="parts")
    assert train(settings) is None
    composed = OmegaConf.create({"resume": settings.run_dir, "stop_at": None})
    parts = _results(train(resumed_settings(composed, [f"++{k}={v}" for k, v in composed.items()])))
    assert parts["meta"] == whole["meta"]
    assert parts["verdict"] == whole["verdict"]


def test_a_run_that_learned_nothing_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The shipped base reads captions, not verdicts: after one update it judges no better than a coin."""
    small = ["cold.updates=1", "inner.updates=2", "outer.begin=0", "data.num_chains=20", "meta.num_chains=200"]
    sizes = [f"{name}.batch_size=4" for name in ("cold", "inner", "outer")] + ["evaluate.num_questions=12"]
    overrides = ["+experiment=instance_net", *small, *sizes, "evaluate.num_resamples=20", f"run_dir={tmp_path}/run"]
    folder = train(resolve_train(compose_config("train", overrides)))
    found = _results(folder)
    assert found["verdict"].startswith(NO_SIGNAL)
    assert NO_SIGNAL in capsys.readouterr().out
    assert folder is not None
    assert NO_SIGNAL in (folder / "report.html").read_text()
    assert NO_SIGNAL in (folder / "prm" / "README.md").read_text()
    assert set(found["cold_start"]["best_of_n"]["prm"]) == {"1", "2", "4", "8"}


def _rows(first: int, count: int, judged: bool) -> list[dict[str, Any]]:
    """Two chains to a question, one of which says red and is right; of the training chains every fourth lies."""
    rows: list[dict[str, Any]] = []
    for place in range(count):
        right, lies = place % 2 == 0, place % 8 in (2, 5)
        row: dict[str, Any] = {"question": f"{first + place // 2} + 1", "steps": ["red" if right else "blue"]}
        rows.append(row | ({"correct": right} if judged else {"labels": [float(right != lies)]}))
    return rows


def test_a_run_that_learned_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name, rows in (
        ("train", _rows(0, 96, False)),
        ("meta", _rows(1000, 48, True)),
        ("test", _rows(5000, 48, True)),
    ):
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    names = {"data": "train", "meta": "meta", "test": "test"}
    paths = [f"{place}.path={tmp_path}/{name}.jsonl" for place, name in names.items()]
    rates = ["cold.optimizer.lr=1e-3", "inner.optimizer.lr=1e-3"]
    sizes = [f"{name}.batch_size=16" for name in ("cold", "inner", "outer")] + ["cold.updates=2", "inner.updates=30"]
    overrides = [*paths, *rates, *sizes, "data=files", "meta=files", f"run_dir={tmp_path}/run"]
    found = _results(train(resolve_train(compose_config("train", overrides))))
    assert found["verdict"].startswith("the meta set gave a signal: the outer loss went from")
    assert "on the test set AUC" in found["verdict"]
    assert "best of 2 against the policy alone +0." in found["verdict"]
    assert "not to be trusted" not in found["verdict"]
    assert found["meta"]["auc"]["after"]["low"] > 0.5
    assert found["sum_rule"] < 1e-3
    assert found["verdict"] in capsys.readouterr().out.replace("\n", " ")


def test_stopped_while_it_is_judged(tiny_settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = _results(train(tiny_settings(run="whole")))
    settings = tiny_settings(run="parts")
    real = PRM.log_odds_records

    def interrupted(prm: PRM, *arguments: Any) -> list[list[float]]:
        os.kill(os.getpid(), signal.SIGINT)
        return real(prm, *arguments)

    with monkeypatch.context() as patched:
        patched.setattr(PRM, "log_odds_records", interrupted)
        assert train(settings) is None
    composed = OmegaConf.create({"resume": settings.run_dir, "stop_at": None})
    parts = _results(train(resumed_settings(composed, [f"++{k}={v}" for k, v in composed.items()])))
    assert parts["meta"] == whole["meta"]
