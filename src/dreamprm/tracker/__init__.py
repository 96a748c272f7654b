"""Where else the numbers go: TensorBoard, trackio or wandb, each imported only when asked for."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any, Protocol

from dreamprm.config.errors import UserError
from dreamprm.config.schema import TrackerConfig, TrackerKind

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
        from dreamprm.tracker.tensorboard import TensorBoardTracker

        return TensorBoardTracker(run_dir / "tensorboard")
    from dreamprm.tracker.wandb_like import WandbLikeTracker

    return WandbLikeTracker(settings.kind.name, settings.project, name, run_dir, config)
