"""A run's checkpoints: what is written besides its state, and what must be the same when it goes on."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from dreamprm.config.resolve import to_plain
from dreamprm.data.fingerprint import changed_data, data_digests
from dreamprm.distributed import from_first, is_first
from dreamprm.errors import UserError
from dreamprm.metrics import MetricsFile
from dreamprm.phases.way_back import way_back
from dreamprm.prm.model_digest import model_digests
from dreamprm.progress import say
from dreamprm.run_files.checkpoint import (
    Checkpoint,
    NotFiniteError,
    load_latest,
    require_finite,
    save_checkpoint,
)
from dreamprm.run_files.folder import changed_settings

if TYPE_CHECKING:
    from dreamprm.phases.phase import Phase
    from dreamprm.phases.state import Run

__all__ = [
    "checkpoint_run",
    "remember_sources",
    "require_finite_run",
    "resume_run",
    "say_what_metrics_lack",
]


def remember_sources(run: Run) -> None:
    """Take the digests of the run's data and of what its model was read from, which its checkpoints hold."""
    sets = {"training": run.train, "meta": run.meta, "test": run.test, "cold-start": run.cold}
    run.digests = from_first(data_digests(sets) if is_first() else {})
    run.model_digests = from_first(model_digests(run.prm) if is_first() else {})


def checkpoint_run(run: Run, metrics: MetricsFile | None) -> None:
    """Write a checkpoint of where the run stands. Every process takes part; the first one, which has `metrics`, writes.

    Of a split model every process writes its rows.
    Raises UserError, and keeps the checkpoints that are there, where the state is not finite.
    """
    state = run.state_dict()
    if metrics is None and not run.is_split and run.weigher.rows is None:
        return
    about = {
        "settings": to_plain(run.settings),
        "data": run.digests,
        "model": run.model_digests,
        "metrics": 0 if metrics is None else metrics.num_rows,
        "changes": run.changes,
    }
    folder, keep = run.folder / "checkpoints", run.settings.checkpoint.keep
    try:
        save_checkpoint(folder, run.update, state, keep=keep, about=about)
    except NotFiniteError as error:
        raise UserError(f"{error}. {way_back(run)}") from error


def require_finite_run(run: Run) -> None:
    """Raises UserError with the way out where a value of the run's state is not finite: nothing of it is published."""
    try:
        require_finite(run.state_dict(), f"after {run.update} updates the run's state")
    except NotFiniteError as error:
        raise UserError(f"{error}. {way_back(run)}") from error


def resume_run(run: Run, enter_phase: Callable[[Run], Phase]) -> int | None:
    """Put the newest whole checkpoint's state back and return its update, or None where there is none.

    enter_phase: builds the optimizers of the phase that `run.update` lies in.
    Raises UserError where the data, the model or the settings are not those of the checkpoint, naming what differs.
    """
    checkpoint = load_latest(run.folder / "checkpoints", run.empty)
    if checkpoint is None:
        say(f"warning: {run.folder} holds no checkpoint: starting at update 0 again")
        return None
    _compare(run, checkpoint)
    run.update = checkpoint.update
    if run.update > run.num_updates:
        raise UserError(
            f"the checkpoint stands at update {run.update}, past the {run.num_updates} of the settings: "
            f"dreamprm train resume={shlex.quote(str(run.folder))} "
            f"inner.updates={run.update - run.num_before}   or more"
        )
    enter_phase(run)
    try:
        run.load_state_dict(checkpoint.tree)
    except (KeyError, TypeError, ValueError, AttributeError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:300]
        raise UserError(f"{checkpoint.path} does not fit this run ({type(error).__name__}: {reason})") from error
    return run.update


def _compare(run: Run, checkpoint: Checkpoint) -> None:
    about = checkpoint.about
    differing = changed_data(about["data"], run.digests)
    if differing:
        raise UserError(
            f"resume={run.folder}: the data are not those that the run was trained on ({differing} differ); put these "
            "back, or start a new run: dreamprm train … without resume"
        )
    known = about.get("model", {})
    other = [name for name, digest in known.items() if digest != run.model_digests.get(name)]
    if other:
        raise UserError(
            f"resume={run.folder}: the model in {run.settings.model.path} is not the one that the run began with (its "
            f"{' and '.join(other)} differ); put it back, or start a new run"
        )
    changed = changed_settings(about["settings"], to_plain(run.settings))
    run.changes = list(about["changes"])
    if changed:
        listed = ", ".join(f"{name} {old} -> {new}" for name, (old, new) in changed.items())
        say(f"changed from update {checkpoint.update} on: {listed}")
        run.changes.append({"update": checkpoint.update, "changed": {k: list(v) for k, v in changed.items()}})
    run.num_metrics = int(about["metrics"])


def say_what_metrics_lack(path: Path, found: int, expected: int) -> None:
    """Warn where metrics.jsonl has fewer rows than when the checkpoint was written."""
    if found < expected:
        say(f"warning: {path} has {found} rows of the {expected} it had: the report will lack the others")
