"""A hook of mkdocs: the site's pages are the checkout's own Markdown files, by their path in the checkout, and its
tutorials, which are run for it (`notebooks.py`)."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

sys.path.insert(0, str(Path(__file__).parent))  # mkdocs loads this file by its path
import notebooks

ROOT = Path(__file__).resolve().parents[1]
PAGES = (
    "README.md", "ARCHITECTURE.md", "CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md", "docs/**/*.md",
    "src/bilevel/README.md", "benchmarks/README.md", "benchmarks/*/README.md", "benchmarks/reports/*.md",
)  # fmt: skip
FILES = ("docs/**/*.svg", "docs/**/*.png", "benchmarks/reports/*.svg", "benchmarks/reports/*.png", "examples/*.py",
         "docs/tutorials/*.py", "CITATION.cff", "LICENSE")  # fmt: skip
FENCED = re.compile(r"^```.*?^```", re.M | re.S)
LINK = re.compile(r"(?<!!)\[([^\]]+)\]\((?!https?://|#|mailto:)([^)#\s]+)(#[^)\s]*)?\)")


def on_files(files: Files, config: Any) -> Files:
    """In the place of docs_dir's: every page and every file that pages link to."""
    theme = [file for file in files if not Path(file.abs_src_path or "").is_relative_to(ROOT / "docs")]
    paths = sorted({path for pattern in (*PAGES, *FILES) for path in ROOT.glob(pattern)})
    own = [
        File(path.relative_to(ROOT).as_posix(), str(ROOT), config["site_dir"], config["use_directory_urls"])
        for path in paths
    ]
    run = [
        File.generated(config, _path(notebook), content=notebooks.page(notebook)) for notebook in notebooks.NOTEBOOKS
    ]
    return Files([*theme, *own, *run])


def _path(notebook: Path) -> str:
    return notebook.relative_to(ROOT).with_suffix(".md").as_posix()


def on_page_markdown(markdown: str, page: Any, config: Any, files: Files) -> str:
    """Links to what the site does not have (folders, source files) become their text: the checkout has them."""
    here = Path(page.file.src_uri).parent

    def kept(found: re.Match[str]) -> str:
        target = (ROOT / here / found[2]).resolve()
        if target in notebooks.NOTEBOOKS:
            return f"[{found[1]}]({found[2].removesuffix('.py')}.md{found[3] or ''})"
        known = target.is_relative_to(ROOT) and files.get_file_from_path(target.relative_to(ROOT).as_posix())
        if known:
            return found[0]
        if not target.exists():
            return found[0]  # a broken link, which the strict build reports
        return found[1] if found[1].startswith("`") else f"{found[1]} (`{target.relative_to(ROOT).as_posix()}`)"

    parts, end = [], 0
    for block in FENCED.finditer(markdown):
        parts += [LINK.sub(kept, markdown[end : block.start()]), block[0]]
        end = block.end()
    return "".join([*parts, LINK.sub(kept, markdown[end:])])
