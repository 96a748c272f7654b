"""An empty scores file, and several processes that would write one output: each refused in one line."""

from __future__ import annotations

from pathlib import Path

import pytest

from dreamprm.commands.files import read_scores
from dreamprm.commands.stage_output import write_stage
from dreamprm.errors import UserError


def test_an_empty_scores_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "scores.jsonl").write_text("")
    with pytest.raises(UserError, match="is empty"):
        read_scores(str(tmp_path / "scores.jsonl"))


def test_several_processes_need_a_shard_each(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(UserError, match="shard=i/n"):
        write_stage(tmp_path / "out.jsonl", {"command": "score"}, [1], lambda units, rows: iter(()))
    assert not list(tmp_path.iterdir())
