"""`make site`: the pages build without network, link to nothing that is not there, and can be read on a phone."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

ROOT = Path(__file__).resolve().parents[2]
pytestmark = pytest.mark.docs


class _Links(HTMLParser):
    """links: what a reader can follow.  loaded: what a browser fetches by itself.  names: places in the page."""

    def __init__(self) -> None:
        super().__init__()
        self.links: list[str] = []
        self.loaded: list[str] = []
        self.names: set[str] = set()
        self.without_words: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        self.names |= {value for name in ("id", "name") if (value := given.get(name))}
        target = given.get("href") if tag in ("a", "link") else given.get("src")
        if target:
            (self.links if tag == "a" else self.loaded).append(target)
        if tag == "img" and not given.get("alt"):
            self.without_words.append(str(target))


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("mkdocs", reason="needs the extra site: make site installs it")
    folder = tmp_path_factory.mktemp("site")
    settings = {"PYTHONPATH": str(ROOT / "src"), "NO_MKDOCS_2_WARNING": "1", "https_proxy": "http://127.0.0.1:9"}
    command = [sys.executable, "-m", "mkdocs", "build", "-q", "--site-dir", str(folder)]
    done = subprocess.run(command, cwd=ROOT, env=os.environ | settings, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return folder


def _pages(site: Path) -> dict[Path, _Links]:
    found = {}
    for path in site.rglob("*.html"):
        found[path] = _Links()
        found[path].feed(path.read_text(encoding="utf-8"))
    return found


def test_nothing_is_loaded_from_elsewhere_and_no_link_is_broken(site: Path) -> None:
    pages = _pages(site)
    broken, foreign = [], []
    for path, page in pages.items():
        foreign += [(path.name, target) for target in page.loaded if urlsplit(target).scheme in ("http", "https")]
        for target in (*page.links, *page.loaded):
            parts = urlsplit(target)
            if parts.scheme or target.startswith("//") or path.name == "404.html":
                continue
            there = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            if not there.is_file() or (
                parts.fragment and there in pages and unquote(parts.fragment) not in pages[there].names
            ):
                broken.append((path.name, target))
    assert not foreign
    assert not broken
    assert not [(path.name, image) for path, page in pages.items() for image in page.without_words]


@pytest.mark.skipif(shutil.which("chromium") is None, reason="needs chromium")
@pytest.mark.parametrize(
    "page",
    ["index.html", "docs/which-method.html", "docs/api/bilevel.html"]
    + [f"docs/tutorials/{name}.html" for name in ("engine", "reweight", "prm")],
)
def test_no_page_is_wider_than_its_window(site: Path, page: str, tmp_path: Path) -> None:
    """The page's width, measured in the browser in frames of 420 and of 1,300 pixels."""
    for width in (420, 1300):
        frame = site / f"frame{width}.html"  # a headless window of its own is never narrower than 500 pixels
        frame.write_text(
            f'<iframe src="{page}" width="{width}" height="900" style="border:0"></iframe><script>'
            "document.querySelector('iframe').onload = (event) => { document.title ="
            " 'WIDE ' + event.target.contentDocument.documentElement.scrollWidth }</script>",
            encoding="utf-8",
        )
        command = [
            "chromium", "--headless", "--no-sandbox", "--disable-gpu", "--allow-file-access-from-files",
            f"--user-data-dir={tmp_path / str(width)}", "--virtual-time-budget=3000", "--dump-dom", frame.as_uri(),
        ]  # fmt: skip
        shown = subprocess.run(command, capture_output=True, text=True, timeout=120).stdout
        frame.unlink()
        assert "WIDE " in shown
        assert 0 < int(shown.split("WIDE ")[1].split("<")[0]) <= width, (page, width)
