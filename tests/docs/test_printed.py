"""The comparison of a page with what is printed sees what it is there for."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest


@pytest.fixture(scope="module")
def printed() -> ModuleType:
    spec = importlib.util.spec_from_file_location("printed", Path(__file__).with_name("printed.py"))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


PAGE = """
│ rows      │ 120 │
   …
weights  mean 1.035   spread 0.830
cost     seconds 122   peak MB 1,002   check 1.8e-07
"""
OUTPUT = """
┃ rows ┃ 120 ┃
│ another   │ 7 │
weights  mean 1.031   spread 0.810
cost     seconds 99   peak MB 990   check 2.3e-08
"""


@pytest.mark.parametrize(
    ("old", "new", "lost"),
    [
        ("", "", 0),
        ("120", "121", 1),
        ("1.031", "1.301", 1),
        ("spread", "width", 1),
        ("2.3e-08", "0.2", 1),
        ("┃ rows ┃ 120 ┃\n", "", 1),
    ],
)
def test_a_page_is_held_to_what_is_printed(printed: ModuleType, old: str, new: str, lost: int) -> None:
    assert len(printed.missing(PAGE, OUTPUT.replace(old, new))) == lost
