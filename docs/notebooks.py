"""The tutorials: notebooks kept as Python files (jupytext's percent format), run, and written as Markdown pages.

    python docs/notebooks.py docs/tutorials/engine.py        # runs it and prints the page

`mkdocs build` takes each page from here. A notebook runs once per state of the checkout's code: its page is kept in
.cache/tutorials under a name that changes with the notebook, the packages and the installed versions.
"""

from __future__ import annotations

import base64
import hashlib
import os
import re
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jupytext
from nbclient import NotebookClient

ROOT = Path(__file__).resolve().parents[1]
CACHE = ROOT / ".cache" / "tutorials"
NOTEBOOKS = sorted((ROOT / "docs" / "tutorials").glob("*.py"))
SETTINGS = {
    "OMP_NUM_THREADS": "1",
    "HF_HUB_OFFLINE": "1",
    "PYTHONPATH": str(ROOT / "src"),
    "PATH": f"{Path(sys.executable).parent}:{os.environ.get('PATH', '')}",
    "PYDEVD_DISABLE_FILE_VALIDATION": "1",  # the debugger's advice, which would stand among the outputs
}
_COLOUR = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
SECONDS = 600  # of one cell, on a crowded machine


def page(notebook: Path, *, fresh: bool = False) -> str:
    """A notebook's page, from the cache where this very state of the checkout has run it. fresh: run it anyway."""
    kept = CACHE / f"{notebook.stem}-{_state(notebook)}.md"
    if fresh or not kept.is_file():
        text = as_markdown(execute(notebook), notebook)
        CACHE.mkdir(parents=True, exist_ok=True)
        for old in CACHE.glob(f"{notebook.stem}-*.md"):
            old.unlink()
        kept.write_text(text, encoding="utf-8")
    return kept.read_text(encoding="utf-8")


def _state(notebook: Path) -> str:
    """Of the notebook, both packages, the settings' files and the versions that the figures come from."""
    digest = hashlib.sha256("".join(f"{name} {version(name)}\n" for name in ("torch", "transformers")).encode())
    files = [
        path for folder in ("src", "conf") for path in (ROOT / folder).rglob("*") if path.suffix in (".py", ".yaml")
    ]
    for path in (notebook, Path(__file__), *sorted(files)):
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


def execute(notebook: Path) -> Any:
    """The notebook with its outputs, run in a folder of its own. Raises CellExecutionError where a cell fails."""
    book = jupytext.read(notebook, fmt="py:percent")
    with tempfile.TemporaryDirectory() as folder:
        client = NotebookClient(
            book,
            timeout=SECONDS,
            kernel_name="python3",
            resources={"metadata": {"path": folder}},
            extra_arguments=["--log-level=ERROR", "--InlineBackend.figure_formats={'svg'}"],
        )
        return client.execute(env=os.environ | SETTINGS)


def as_markdown(book: Any, notebook: Path) -> str:
    """Text as it is, code and printed lines as blocks, pictures by the words that their cell has for them (`alt=`)."""
    parts = []
    for cell in book.cells:
        if cell.cell_type == "markdown":
            parts.append(cell.source)
        elif cell.source:
            parts += [_code(cell.source), *_outputs(cell)]
    source = (
        f'<a href="{notebook.name}" download>This page as a notebook</a>, a Python file in jupytext\'s percent format.'
    )
    return "\n\n".join([*parts, source]) + "\n"


def _code(source: str) -> str:
    magic, _, rest = source.partition("\n")
    return f"```bash\n{rest}\n```" if magic == "%%bash" else f"```python\n{source}\n```"


def _outputs(cell: Any) -> list[str]:
    """What the cell printed, in one block, and its pictures. stderr, advice of other libraries, is left out: what fails
    ends the run."""
    printed = "".join(output["text"] for output in cell.outputs if output.get("name") == "stdout").rstrip()
    parts = [f"```text\n{_COLOUR.sub('', printed)}\n```"] if printed else []
    for output in cell.outputs:
        if drawing := output.get("data", {}).get("image/svg+xml"):
            encoded = base64.b64encode(drawing.encode()).decode()
            parts.append(f'<img alt="{cell.metadata["alt"]}" src="data:image/svg+xml;base64,{encoded}">')
    return parts


if __name__ == "__main__":
    for name in sys.argv[1:]:
        path = Path(name).resolve()
        print(as_markdown(execute(path), path))
