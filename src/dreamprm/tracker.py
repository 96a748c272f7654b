"""Where else the numbers go: TensorBoard, trackio or wandb, each imported only when asked for."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any, Protocol

from dreamprm.config.schema import TrackerConfig, TrackerKind
from dreamprm.errors import UserError

__all__ = ["Tracker", "open_tracker", "require_tracker"]


class Tracker(Protocol):
    def log(self, update: int, numbers: dict[str, float]) -> None: ...

    def close(self) -> None: ...


def require_tracker(settings: TrackerConfig) -> None:
    """Raises UserError when the tracker's package is not installed, with the command that installs it."""
    if settings.kind is TrackerKind.none:
        return
    package = settings.kind.name
    try:
        importlib.import_module(package)
    except ImportError as error:
        raise UserError(
            f"tracker={package} needs the package {package}, which is not installed: "
            f"pip install 'dreamprm[{package}]', or tracker=none"
        ) from error


def open_tracker(settings: TrackerConfig, run_dir: Path, name: str, config: dict[str, Any]) -> Tracker | None:
    """The tracker of the settings, None for `kind: none`."""
    require_tracker(settings)
    if settings.kind is TrackerKind.none:
        return None
    if settings.kind is TrackerKind.tensorboard:
        return TensorBoardTracker(run_dir / "tensorboard")
    return WandbLikeTracker(settings.kind.name, settings.project, name, run_dir, config)


class TensorBoardTracker:
    """Writes event files below `folder`: `tensorboard --logdir runs` shows every run."""

    def __init__(self, folder: Path) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._writer = SummaryWriter(str(folder))

    def log(self, update: int, numbers: dict[str, float]) -> None:
        for name, value in numbers.items():
            self._writer.add_scalar(name, value, update)

    def close(self) -> None:
        self._writer.close()


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
