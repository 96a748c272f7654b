"""The wheel in fresh environments: several Pythons, each with the newest and with the lowest versions that it admits.

    python -m pip install uv
    python -m benchmarks.environments --python python3.11 python3.12 python3.13 --resolution newest lowest

`lowest` is the lower bound of every line of pyproject.toml (uv's lowest-direct); what these bring along is newest.
Test tools are newest in both. The tests are this checkout's, the packages are the wheel's. Each environment has torch's
own build for its platform, gigabytes where that is CUDA's: `--find-links FOLDER` takes wheels that lie on the disk.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
import tomllib
from dataclasses import dataclass
from pathlib import Path
from statistics import median

ROOT = Path(__file__).resolve().parents[1]
EXTRAS = ("prm", "api", "serve", "rl", "lightning", "xlsx", "tensorboard")
TOOLS = ("pytest>=8.3", "pytest-xdist>=3.6", "hypothesis>=6.115")
RESOLUTIONS = {"newest": "highest", "lowest": "lowest-direct"}
MOST_SECONDS = 3.0  # that `import bilevel` may take beyond torch

IMPORTS = (
    "import time; a = time.perf_counter(); import torch; b = time.perf_counter(); import bilevel;"
    "print(b - a, time.perf_counter() - b, bilevel.__file__)"
)
VERSIONS = (
    "import importlib.metadata as m, json, sys;"
    "have = {d.name.lower() for d in m.distributions()};"
    "print(json.dumps({n: m.version(n) for n in sys.argv[1:] if n.lower() in have}))"
)


@dataclass(frozen=True)
class Cell:
    """What one environment gave. torch, bilevel: seconds of the imports in the bare environment."""

    python: str
    resolution: str
    torch: float
    bilevel: float
    tests: dict[str, str]
    versions: dict[str, str]


def uv(*words: str) -> None:
    """Raises SystemExit with uv's own last lines."""
    done = subprocess.run([sys.executable, "-m", "uv", *words], cwd=ROOT, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"uv {' '.join(words)}\n" + "\n".join(done.stderr.splitlines()[-15:]))


def direct() -> list[str]:
    """The names of pyproject's own dependencies, those of EXTRAS among them."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    lines = [*project["dependencies"], *(line for name in EXTRAS for line in project["optional-dependencies"][name])]
    names = dict.fromkeys(re.split(r"[<>=!\[; ]", line)[0] for line in lines)
    return [name for name in names if name != "dreamprm"]


def clean_environment() -> dict[str, str]:
    left = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}
    return left | {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}


def run(python: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([str(python), *words], cwd=ROOT, env=clean_environment(), capture_output=True, text=True)


def environment(folder: Path, python: str, *requirements: str) -> Path:
    uv("venv", "-q", "--python", python, str(folder))
    made = folder / "bin" / "python"
    if requirements:
        uv("pip", "install", "-q", "--python", str(made), *requirements)
    return made


def import_seconds(python: Path) -> tuple[float, float]:
    """(torch, bilevel), medians of five processes after one that reads the files in. Raises SystemExit."""
    found = []
    for number in range(6):
        done = run(python, "-c", IMPORTS)
        if done.returncode or str(ROOT) in done.stdout:
            raise SystemExit(f"{python}: import bilevel\n{done.stdout}{done.stderr[-2000:]}")
        if number:
            found.append([float(value) for value in done.stdout.split()[:2]])
    return median(row[0] for row in found), median(row[1] for row in found)


def tested(python: Path, suites: list[str]) -> dict[str, str]:
    """suite -> pytest's last line; what failed goes to the standard error."""
    found = {}
    for suite in suites:
        begin = time.perf_counter()
        done = run(python, "-m", "pytest", *suite.split())
        lines = done.stdout.strip().splitlines()
        found[suite] = f"{lines[-1] if lines else 'nothing'} ({time.perf_counter() - begin:.0f} s)"
        for line in lines:
            if line.startswith(("FAILED", "ERROR", "E  ")):
                print(line[:300], file=sys.stderr, flush=True)
    return found


def cell(folder: Path, wheel: Path, python: str, resolution: str, settings: argparse.Namespace) -> Cell:
    links = ["--find-links", settings.find_links] if settings.find_links else []
    torch = f"torch=={settings.torch}" if settings.torch and resolution == "newest" else "torch"
    version = subprocess.run(
        [python, "-c", "import platform; print(platform.python_version())"], capture_output=True, text=True
    )
    name = f"{version.stdout.strip()}-{resolution}"
    pins = folder / f"{name}.txt"
    extras = [word for extra in EXTRAS for word in ("--extra", extra)]
    wanted = folder / f"{name}.in"
    wanted.write_text(f"{torch}\n")
    uv(
        "pip", "compile", "-q", "pyproject.toml", *extras, "--resolution", RESOLUTIONS[resolution], "--python", python,
        "--constraint", str(wanted), *links, "-o", str(pins),
    )  # fmt: skip
    torch_pin = next(line for line in pins.read_text().splitlines() if line.startswith("torch=="))
    bare = environment(folder / f"{name}-bare", python, *links, torch_pin, str(wheel))
    seconds = import_seconds(bare)
    whole = environment(folder / f"{name}-whole", python)
    uv("pip", "install", "-q", "--python", str(whole), *links, "-r", str(pins), *TOOLS)
    uv("pip", "install", "-q", "--python", str(whole), "--no-deps", str(wheel))
    versions = json.loads(run(whole, "-c", VERSIONS, *direct()).stdout)
    found = Cell(version.stdout.strip(), resolution, *seconds, tested(whole, settings.tests), versions)
    if not settings.keep:
        shutil.rmtree(folder / f"{name}-bare")
        shutil.rmtree(folder / f"{name}-whole")
    return found


def shown(cells: list[Cell], suites: list[str]) -> str:
    lines = [
        "| Python | versions | import torch | import bilevel | " + " | ".join(f"`{suite}`" for suite in suites) + " |"
    ]
    lines.append("|---" * (4 + len(suites)) + "|")
    for one in cells:
        results = " | ".join(one.tests[suite] for suite in suites)
        lines.append(f"| {one.python} | {one.resolution} | {one.torch:.1f} s | {one.bilevel:.2f} s | {results} |")
    lines += ["", "| | " + " | ".join(f"{one.python} {one.resolution}" for one in cells) + " |"]
    lines.append("|---" * (1 + len(cells)) + "|")
    for name in direct():
        lines.append(f"| {name} | " + " | ".join(one.versions.get(name, "") for one in cells) + " |")
    return "\n".join(lines)


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--python", nargs="+", default=["python3.11", "python3.12", "python3.13"])
    parser.add_argument("--resolution", nargs="+", default=list(RESOLUTIONS), choices=list(RESOLUTIONS))
    parser.add_argument(
        "--tests", nargs="+", default=["tests/bilevel", "tests/dreamprm"], help="arguments of pytest each"
    )
    parser.add_argument("--torch", help="this version with newest, in the place of the very newest")
    parser.add_argument("--find-links", help="a folder of wheels")
    parser.add_argument("--folder", help="where the environments are made; a temporary one")
    parser.add_argument("--keep", action="store_true", help="leave the environments there")
    settings = parser.parse_args(argv)
    folder = Path(settings.folder or tempfile.mkdtemp(prefix="environments-"))
    folder.mkdir(parents=True, exist_ok=True)
    uv("build", "-q", "--wheel", "--out-dir", str(folder))
    wheel = max(folder.glob("dreamprm-*.whl"), key=lambda path: path.stat().st_mtime)
    cells = []
    for python in settings.python:
        for resolution in settings.resolution:
            cells.append(cell(folder, wheel, python, resolution, settings))
            print(cells[-1], file=sys.stderr, flush=True)
    print(shown(cells, settings.tests))
    wrong = [
        one
        for one in cells
        if one.bilevel > MOST_SECONDS or any(" failed" in text or " error" in text for text in one.tests.values())
    ]
    return bool(wrong)


if __name__ == "__main__":
    sys.exit(main())
