"""The folder of real data, and a writer of JSON Lines."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real data: DREAMPRM_DATA, else shared/data beside the checkout."""
    beside = Path(__file__).resolve().parents[4] / "shared" / "data"
    folder = Path(os.environ.get("DREAMPRM_DATA") or beside)
    if not (folder / "dreamprm_meta").is_dir():
        pytest.skip(f"no real data in {folder}; set DREAMPRM_DATA to their folder")
    return folder


@pytest.fixture
def write_rows(tmp_path: Path) -> Callable[..., Path]:
    def write(*rows: dict[str, Any], name: str = "rows.jsonl") -> Path:
        path = tmp_path / name
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        return path

    return write
