"""`make docs`: every code block of README and docs runs as it stands, in order, page by page.

A page's ```bash blocks run in a folder that looks like a fresh checkout; its ```python blocks share one namespace. A
block that cannot run here says why, in the line above its fence: `<!-- not run: reason -->`; one that a reader is to
save has its place there: `<!-- file: folder/name.py -->`. A block without a language that follows a ```bash block is
what that block prints, and is compared with it (`printed.py`).
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from printed import missing

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md")), ROOT / "src" / "bilevel" / "README.md"]
BLOCK = re.compile(
    r"(?:^<!-- not run: (?P<reason>.+?) -->\n|^<!-- file: (?P<file>\S+) -->\n)?"
    r"^```(?P<kind>bash|python)\n(?P<code>.*?)^```$"
    r"(?:\n\n^```\n(?P<printed>.*?)^```$)?",
    re.M | re.S,
)


def blocks(page: Path) -> list[tuple[int, re.Match[str]]]:
    """(line, match) of a page's blocks."""
    text = page.read_text(encoding="utf-8")
    return [(text[: found.start()].count("\n") + 1, found) for found in BLOCK.finditer(text)]


def _checkout(folder: Path) -> Path:
    """A folder whose entries are the checkout's, so that a page's runs and files stay out of it."""
    for entry in ROOT.iterdir():
        if entry.name not in ("runs", "outputs", "multirun", ".git"):
            (folder / entry.name).symlink_to(entry)
    return folder


@pytest.mark.docs
@pytest.mark.parametrize("page", PAGES, ids=[str(page.relative_to(ROOT)) for page in PAGES])
def test_a_page_runs(page: Path, tmp_path: Path) -> None:
    folder = _checkout(tmp_path)
    environment = os.environ | {
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT / "src"),
        "HF_HUB_OFFLINE": "1",
        "COLUMNS": "118",  # of the terminal that the pages' tables were printed on
    }
    script: list[str] = []  # python blocks run together, each after the bash blocks above it
    for line, found in blocks(page):
        code, file = found["code"], found["file"]
        if found["reason"] is not None:
            continue
        if file is not None:
            (folder / file).parent.mkdir(parents=True, exist_ok=True)
            (folder / file).write_text(code, encoding="utf-8")
            continue
        where = f"{page.relative_to(ROOT)}:{line}"
        if found["kind"] == "python":
            script.append(code)
            command = [sys.executable, "-c", "\n".join(script)]
        else:
            command = ["bash", "-euo", "pipefail", "-c", code]
        done = subprocess.run(
            command, cwd=folder, env=environment, capture_output=True, text=True, timeout=900, check=False
        )
        assert done.returncode == 0, f"{where}\n{done.stdout[-2000:]}\n{done.stderr[-3000:]}"
        lost = missing(found["printed"] or "", done.stdout)
        assert not lost, f"{where} prints something else:\n{done.stdout[-4000:]}\nwhere the page has\n" + "\n".join(
            lost
        )


def test_every_page_has_blocks_or_none_that_are_skipped_without_reason() -> None:
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        fences = len(re.findall(r"^```(?:bash|python)$", text, re.M))
        assert fences == len(blocks(page)), f"{page}: a fence that is not closed, or no block"
