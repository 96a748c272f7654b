"""Where else the numbers go: TensorBoard, trackio or wandb, each imported only when asked for."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from dreamprm.errors import UserError
from dreamprm.setting import Settings, setting

__all__ = ["TRACKERS", "Tracker", "TrackerSettings", "open_tracker", "require_tracker"]


class Tracker(Protocol):
    def log(self, update: int, numbers: dict[str, float]) -> None: ...

    def close(self) -> None: ...


class TensorBoardTracker:
    """Writes event files into `tensorboard` of the run's folder: `tensorboard --logdir runs` shows every run."""

    def __init__(self, settings: TrackerSettings, folder: Path, name: str, config: dict[str, Any]) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._writer = SummaryWriter(str(folder / "tensorboard"))

    def log(self, update: int, numbers: dict[str, float]) -> None:
        for name, value in numbers.items():
            self._writer.add_scalar(name, value, update)

    def close(self) -> None:
        self._writer.close()


class WandbLikeTracker:
    """`init`, `log(numbers, step=update)`, `finish` of the module that the kind names."""

    def __init__(self, settings: TrackerSettings, folder: Path, name: str, config: dict[str, Any]) -> None:
        self._module = importlib.import_module(settings.kind)
        extra = {"dir": str(folder)} if settings.kind == "wandb" else {}
        self._module.init(project=settings.project, name=name, config=config, **extra)

    def log(self, update: int, numbers: dict[str, float]) -> None:
        self._module.log(numbers, step=update)

    def close(self) -> None:
        self._module.finish()


TRACKERS: dict[str, Callable[..., Tracker] | None] = {
    "none": None,
    "tensorboard": TensorBoardTracker,
    "trackio": WandbLikeTracker,
    "wandb": WandbLikeTracker,
}
"""Kind, which is the package's name too -> (settings, folder of the run, its name, its configuration) to a tracker."""


@dataclass
class TrackerSettings(Settings):
    """Where else the numbers go; metrics.jsonl is always written."""

    kind: str = setting("none", "a package that shows the same numbers", words=TRACKERS)
    project: str = setting("dreamprm", "the project of wandb or trackio")


def require_tracker(settings: TrackerSettings) -> None:
    """Raises UserError when the tracker's package is not installed, with the command that installs it."""
    if TRACKERS[settings.kind] is None:
        return
    try:
        importlib.import_module(settings.kind)
    except ImportError as error:
        raise UserError(
            f"tracker={settings.kind} needs the package {settings.kind}, which is not installed: "
            f"pip install 'dreamprm[{settings.kind}]', or tracker=none"
        ) from error


def open_tracker(settings: TrackerSettings, run_dir: Path, name: str, config: dict[str, Any]) -> Tracker | None:
    """The tracker of the settings, None for `kind: none`."""
    require_tracker(settings)
    make = TRACKERS[settings.kind]
    return None if make is None else make(settings, run_dir, name, config)
