"""What to do after a run has diverged."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING

from dreamprm.metrics import PhaseName
from dreamprm.run_files.checkpoint import all_checkpoints

if TYPE_CHECKING:
    from dreamprm.phases.state import Run

__all__ = ["way_back"]


def way_back(run: Run) -> str:
    """How to go on after a run has diverged, in one sentence."""
    cold = run.update <= run.num_cold and run.num_cold > 0 and (run.phase is None or run.phase.name is PhaseName.COLD)
    name, settings = ("cold", run.settings.cold) if cold else ("inner", run.settings.inner)
    lower = f"{name}.optimizer.lr={settings.optimizer.lr / 10:.2g}"
    found = all_checkpoints(run.folder / "checkpoints")
    ruined = [path for path in found if _update_of(path) >= run.update]
    if len(ruined) == len(found):
        return f"No checkpoint is from before: start again with a lower rate ({lower}), or set {name}.clip_norm"
    update = _update_of(found[-1 - len(ruined)])
    # What is not finite follows from the state that the last one holds, whatever the rate.
    remove = f"rm -r {shlex.join(map(str, ruined))}   (it leads here again), then " if ruined else ""
    folder = shlex.quote(str(run.folder))
    return (
        f"The checkpoint of update {update} is from before. Go on from it with a lower rate: {remove}"
        f"dreamprm train resume={folder} {lower}   Or look at the examples"
    )


def _update_of(path: Path) -> int:
    return int(path.name.removeprefix("update-"))
