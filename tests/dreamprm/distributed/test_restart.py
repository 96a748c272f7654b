"""torchrun starts the same words again: they go on with the run that they were."""

from __future__ import annotations

from pathlib import Path

import pytest

from dreamprm.commands import train
from dreamprm.config import resolve_train
from dreamprm.config.launch import compose_config
from dreamprm.run_files.folder import save_settings


def test_words_that_torchrun_starts_again_resume_their_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    words = ["weigher=instance_table", "optimizer@outer.optimizer=row_adam", f"run_dir={tmp_path}"]
    save_settings(resolve_train(compose_config("train", words)), tmp_path)
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "1")
    assert train.main.resolve is not None
    settings = train.main.resolve(compose_config("train", words), words)
    assert (settings.resume, settings.run_dir, settings.weigher.kind) == (
        str(tmp_path),
        str(tmp_path),
        "instance_table",
    )
