"""`make build`: the wheel in fresh environments, from an empty folder. The bare one brings torch and nothing else."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
pytestmark = pytest.mark.packaging


@pytest.fixture(scope="module")
def wheel() -> Path:
    return max((ROOT / "dist").glob("dreamprm-*.whl"), key=lambda path: path.stat().st_mtime)


def _environment(folder: Path, *packages: str) -> Path:
    subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
    python = folder / "bin" / "python"
    pip = [
        str(python),
        "-m",
        "pip",
        "install",
        "-q",
        "--disable-pip-version-check",
        "-c",
        str(ROOT / "constraints.txt"),
    ]
    subprocess.run([*pip, "torch==2.13.0"], check=True)
    subprocess.run([*pip, *packages], check=True)
    return python


def _run(folder: Path, *command: str) -> str:
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_wheel_holds_what_a_run_needs(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    for needed in ("dreamprm/conf/train.yaml", "bilevel/py.typed", "dreamprm/py.typed"):
        assert needed in names
    assert any(name.startswith("dreamprm/world/base/") and name.endswith(".safetensors") for name in names)
    assert not [name for name in names if name.startswith(("src/", "tests/", "shared/"))]


def test_bilevel_needs_torch_alone(wheel: Path, tmp_path: Path) -> None:
    python = _environment(tmp_path / "bare", str(wheel))
    code = (
        "import sys, bilevel; from importlib.util import find_spec;"
        "assert not [n for n in ('transformers', 'hydra', 'omegaconf', 'pyarrow', 'peft') if find_spec(n)];"
        "print(bilevel.Lookahead.__name__)"
    )
    assert _run(tmp_path, str(python), "-c", code).strip() == "Lookahead"


def test_the_whole_runs_from_an_empty_folder(wheel: Path, tmp_path: Path) -> None:
    python = _environment(tmp_path / "whole", f"{wheel}[prm]")
    empty = tmp_path / "empty"
    empty.mkdir()
    command = str(python.parent / "dreamprm")
    assert "experiment" in _run(empty, command, "train", "--help")
    assert _run(empty, command, "--version").strip().endswith("0.1.0")
    small = ["data.num_chains=8", "meta.num_chains=8", "cold.updates=1", "inner.updates=1", "evaluate.num_questions=2"]
    batches = ["cold.batch_size=4", "cold.dense_batch_size=2", "inner.batch_size=4", "outer.batch_size=4"]
    _run(empty, command, "train", *small, *batches, "run_dir=run")
    assert (empty / "run" / "report.html").is_file()
