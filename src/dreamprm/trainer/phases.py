"""The two phases in order, each with its optimizer; checkpoints between updates, a clean stop when asked."""

from __future__ import annotations

import time

from dreamprm.config.build import build_lookahead, build_optimizer
from dreamprm.metrics import MetricsFile
from dreamprm.progress import Reporter
from dreamprm.tracker import Tracker
from dreamprm.trainer.checkpoint import save_checkpoint
from dreamprm.trainer.interrupt import StopRequest
from dreamprm.trainer.state import Run
from dreamprm.trainer.updates import bilevel_update, cold_update

__all__ = ["enter_phase", "train_phases"]


def enter_phase(run: Run) -> None:
    """Build the optimizers of the phase that the next update belongs to."""
    settings = run.settings
    run.entered = run.phase
    run.outer_optimizer = run.lookahead = None
    if run.entered == "cold":
        run.inner_optimizer = build_optimizer(settings.cold.optimizer, run.trainable().values())
        return
    run.inner_optimizer = build_optimizer(settings.inner.optimizer, run.trainable().values())
    run.lookahead = build_lookahead(settings.hypergradient, run.prm, run.inner_optimizer, settings.inner.clip_norm)
    if run.learns_weights:
        run.outer_optimizer = build_optimizer(settings.outer.optimizer, run.weigher.parameters())


def train_phases(run: Run, stop: StopRequest, metrics: MetricsFile, tracker: Tracker | None) -> bool:
    """Train to the last update. Returns False when it was stopped before, with a checkpoint of where it stands."""
    for phase, end in (("cold", run.num_cold), ("bilevel", run.num_updates)):
        if run.update >= end:
            continue
        if run.entered != phase:
            enter_phase(run)
        if not _train_phase(run, phase, end, stop, metrics, tracker):
            return False
    return True


def _train_phase(
    run: Run, phase: str, end: int, stop: StopRequest, metrics: MetricsFile, tracker: Tracker | None
) -> bool:
    settings = run.settings
    first = 0 if phase == "cold" else run.num_cold
    one_update = cold_update if phase == "cold" else bilevel_update
    run.prm.train()
    with Reporter(phase, end - first, run.update - first) as report:
        while run.update < end:
            began, before = time.monotonic(), run.update
            numbers = one_update(run)
            _count_seconds(run, phase, time.monotonic() - began)
            if run.update % settings.log_every == 0 or run.update + 1 >= end:
                metrics.write(run.update, phase, numbers)
                if tracker is not None:
                    tracker.log(run.update, numbers)
            run.update += 1
            report.update(run.update - first, numbers)
            asked = stop.asked or (settings.stop_at is not None and before < settings.stop_at <= run.update)
            every = settings.checkpoint.every
            due = every and run.update // every > before // every
            if asked or due or run.update == run.num_updates:
                save_checkpoint(run.folder / "checkpoints", run.update, run.state_dict(), keep=settings.checkpoint.keep)
            if asked and run.update < run.num_updates:
                return False
    return True


def _count_seconds(run: Run, phase: str, seconds: float) -> None:
    name = f"seconds_{phase}"
    setattr(run.counters, name, getattr(run.counters, name) + seconds)
