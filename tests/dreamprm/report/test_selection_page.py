"""The page of a selection in a real browser: whole, escaped, and no wider than a telephone."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from tests.dreamprm.data.readers.conftest import png

from dreamprm.commands.select import SelectStage, select

LONG = "averyveryverylongword" * 12 + " <b>bold</b> <script>document.title='broken'</script>"


def _page(folder: Path, num_questions: int = 3) -> Path:
    (folder / "a.png").write_bytes(png(900, 300))
    rows: list[dict[str, Any]] = [
        {
            "group": f"question {question}",
            "question": f"Number {question}? {LONG}",
            "images": ["a.png"],
            "steps": [f"chain {chain}", LONG],
            "answer": "7" if chain == 2 else LONG,
            "reference": "7",
            "correct": chain == 2,
            "extra": {"step_scores": [0.9 - 0.2 * chain, 0.5]},
        }
        for question in range(num_questions)
        for chain in range(4)
    ]
    (folder / "scores.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    out = folder / "selection.jsonl"
    select(SelectStage(scores=str(folder / "scores.jsonl"), out=str(out), num_resamples=20, num_shown=2))
    return out.with_suffix(".html")


def test_every_shown_question_has_its_part(tmp_path: Path) -> None:
    text = _page(tmp_path).read_text()
    assert [int(number) for number in re.findall(r'<section class="question" id="q(\d+)"', text)] == [1, 2]
    assert text.count("data:image/png;base64,") == 2
    assert text.count('<details class="chain chosen" open>') == 2
    assert text.count('<a href="#q1" class="bad missed"') == 1, "a right candidate was not chosen"
    # Steps are coloured by their scores: from red at 0 to green at 1.
    assert re.findall(r"--share:(\d+)", text)[:2] == ["108", "60"]
    assert "<script" not in text
    addresses = re.findall(r'(?:src|href)="([^"]*)', text)
    assert all(address.startswith(("#", "data:")) for address in addresses), "no link leads out"


@pytest.mark.skipif(shutil.which("chromium") is None, reason="needs chromium")
def test_a_browser_shows_it_within_420_pixels(tmp_path: Path) -> None:
    page = _page(tmp_path)
    # The page has no script; a copy gets one that tells what the browser made of it.
    told = (
        "const w = innerWidth, all = [...document.images];"
        "const seen = all.every(i => i.naturalWidth > 0 && i.getBoundingClientRect().right <= w);"
        "document.title = [w, document.documentElement.scrollWidth, all.length, seen].join(' ')"
    )
    script = f"<script>addEventListener('load', () => {{{told}}})</script></body>"
    copy = tmp_path / "copy.html"
    copy.write_text(page.read_text().replace("</body>", script))
    command = [
        "chromium", "--headless", "--no-sandbox", "--disable-gpu", "--window-size=420,900", "--dump-dom",
        f"--user-data-dir={tmp_path / 'browser'}", "--virtual-time-budget=3000", copy.as_uri(),
    ]  # fmt: skip
    shown = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False).stdout
    title = re.search(r"<title>(\d+) (\d+) (\d+) (\w+)</title>", shown)
    assert title is not None, shown[:500]
    assert int(title[2]) <= int(title[1]), "nothing is wider than the window"
    assert int(title[1]) <= 500, "some versions of the browser open no window below 500 pixels"
    assert (title[3], title[4]) == ("2", "true"), "both images are shown, within the page"
