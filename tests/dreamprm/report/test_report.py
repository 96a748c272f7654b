"""The page stands alone, shows what is known, and leaves out what is not."""

from __future__ import annotations

import io
import json
import re
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest
from rich.console import Console

from dreamprm.errors import UserError
from dreamprm.report import print_results, write_report
from dreamprm.report.plots import smooth


def test_the_page_needs_nothing_beside_it(finished_run: Path) -> None:
    text = write_report(finished_run).read_text()
    assert "<script" not in text
    for address in re.findall(r'(?:src|href)=["\']([^"\']*)', text):
        assert address.startswith(("data:image/", "#")), address
    figures = re.findall(r"<svg.*?</svg>", text, re.DOTALL)
    assert len(figures) == 4
    for figure in figures:
        ElementTree.fromstring(figure)  # well-formed, or the page ends there


def test_it_shows_the_results_and_the_truth(finished_run: Path) -> None:
    text = write_report(finished_run).read_text()
    for words in ("0.780", "weights find the bad", "Highest weights", "Lowest weights", "mislabelled", "AUC of 0.980"):
        assert words in text
    assert "&lt;b&gt;Count&lt;/b&gt;" in text, "questions are data, not markup"
    assert text.count("<article>") == 12


def test_without_known_truth_it_claims_none(run_without_truth: Path) -> None:
    text = write_report(run_without_truth).read_text()
    assert "weights find the bad" not in text
    assert "Weights by known quality" not in text
    assert text.count("<svg") == 3


def test_the_same_run_gives_the_same_page(finished_run: Path) -> None:
    one = write_report(finished_run).read_bytes()
    assert write_report(finished_run).read_bytes() == one


def test_a_folder_without_results_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"holds no results\.json"):
        write_report(tmp_path)


def test_the_table_fits_eighty_characters(finished_run: Path) -> None:
    stream = io.StringIO()
    results = json.loads((finished_run / "results.json").read_text())
    print_results(results, Console(file=stream, width=80))
    lines = stream.getvalue().splitlines()
    assert "…" not in stream.getvalue(), "nothing is cut"
    assert max(map(len, lines[:7])) <= 80
    assert "PRM, best of N" in stream.getvalue()


def test_the_running_mean() -> None:
    assert smooth([1.0, 3.0, 5.0, 7.0], 2).tolist() == [1.0, 2.0, 4.0, 6.0]
