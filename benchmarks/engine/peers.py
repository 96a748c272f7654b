"""A virtual environment for the peers, beside the project's: `python -m benchmarks.engine.peers`.

It sees the project's packages (torch, transformers, the engine) and adds betty-ml, torchopt and higher without their
dependencies, so that no peer changes a version of what the tests run on. betty-ml's metadata refuses new Pythons, its
code does not.
"""

from __future__ import annotations

import subprocess
import sys
import sysconfig
from pathlib import Path

__all__ = ["FOLDER", "main", "python"]

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / ".cache" / "peers"
PACKAGES = ("betty-ml==0.2.1", "torchopt==0.7.3", "higher==0.2.1", "optree>=0.12", "graphviz>=0.20")


def python() -> str:
    """The interpreter that knows the peers where `main` has made one, else this one."""
    made = FOLDER / "bin" / "python"
    return str(made) if made.exists() else sys.executable


def main() -> None:
    """Make the environment."""
    subprocess.run([sys.executable, "-m", "venv", str(FOLDER)], check=True)
    interpreter = FOLDER / "bin" / "python"
    install = ["-m", "pip", "install", "-q", "--disable-pip-version-check", "--no-deps", "--ignore-requires-python"]
    subprocess.run([interpreter, *install, *PACKAGES], check=True)
    own = subprocess.check_output(
        [interpreter, "-c", "import sysconfig; print(sysconfig.get_paths()['purelib'])"], text=True
    )
    shared = [sysconfig.get_paths()["purelib"], str(ROOT / "src")]
    # Path files of another environment are not read, so the engine's editable install is named here again.
    (Path(own.strip()) / "zz_project.pth").write_text("\n".join(shared) + "\n")


if __name__ == "__main__":
    main()
