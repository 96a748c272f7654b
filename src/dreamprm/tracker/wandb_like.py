"""wandb, and trackio, which has the same three calls."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

__all__ = ["WandbLikeTracker"]


class WandbLikeTracker:
    """`init`, `log(numbers, step=update)`, `finish` of the module that `package` names."""

    def __init__(self, package: str, project: str, name: str, run_dir: Path, config: dict[str, Any]) -> None:
        self._module = importlib.import_module(package)
        extra = {"dir": str(run_dir)} if package == "wandb" else {}
        self._module.init(project=project, name=name, config=config, **extra)

    def log(self, update: int, numbers: dict[str, float]) -> None:
        self._module.log(numbers, step=update)

    def close(self) -> None:
        self._module.finish()
