"""The folder of real data."""

from __future__ import annotations

import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def meta_sets() -> Path:
    """The two published meta sets: below DREAMPRM_DATA, else in shared/data beside the checkout."""
    beside = Path(__file__).resolve().parents[4] / "shared" / "data"
    folder = Path(os.environ.get("DREAMPRM_DATA") or beside) / "dreamprm_meta"
    if not folder.is_dir():
        pytest.skip(f"no real data in {folder}; set DREAMPRM_DATA to their folder")
    return folder
