"""The tutorials run as they stand, without network, and show what their text says they show."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[2]
pytestmark = pytest.mark.docs


@pytest.fixture(scope="module")
def notebooks() -> ModuleType:
    pytest.importorskip("jupytext", reason="needs the extra site: make site installs it")
    spec = importlib.util.spec_from_file_location("notebooks", ROOT / "docs" / "notebooks.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _number(page: str, words: str) -> float:
    """The number printed behind these words."""
    found = re.search(re.escape(words) + r"[: ]*(-?[\d.]+(?:e[+-]\d+)?)", page)
    assert found is not None, words
    return float(found[1].rstrip("."))


def test_the_engine_is_exact_and_finds_wrong_labels(notebooks: ModuleType) -> None:
    page = notebooks.page(ROOT / "docs" / "tutorials" / "engine.py", fresh=True)
    assert _number(page, "relative error against autograd") < 1e-12  # rounding in float64
    assert _number(page, "one step, exact          float64   relative error") < 1e-12
    assert _number(page, "finite difference        float32   relative error") > 1e-6
    found = re.search(r"([\d.]+) with equal weights, ([\d.]+) with learned ones", page)
    assert found is not None
    assert float(found[2]) > float(found[1]) + 0.1
    assert page.count("<img alt=") == 2


def test_the_fine_tuning_is_better_with_weights(notebooks: ModuleType) -> None:
    page = notebooks.page(ROOT / "docs" / "tutorials" / "reweight.py", fresh=True)
    assert _number(page, "trained with weights: accuracy") > _number(page, "trained on all of them: accuracy")
    assert _number(page, "AUC of the weights against the planted noise") > 0.88
    assert _number(page, "trained on the cleaned file: accuracy") > _number(page, "trained on all of them: accuracy")


def test_the_prm_learns_whom_to_trust(notebooks: ModuleType) -> None:
    page = notebooks.page(ROOT / "docs" / "tutorials" / "prm.py", fresh=True)
    assert "the PRM is better than before on questions that it has not seen" in " ".join(page.split())
    assert _number(page, "AUC of the weights") > _number(page, "of minus the cold start's loss")
    assert not re.search(r"\x1b|stage \d of \d.*\n.*stage \d of \d.*\n.*stage \d of", page)  # frames of a bar
