"""The loop: the phases in order, checkpoints between updates, a clean stop when asked."""

from __future__ import annotations

import time

from dreamprm.metrics import MetricsFile, PhaseName
from dreamprm.progress import Reporter
from dreamprm.tracker import Tracker
from dreamprm.trainer.bilevel_phase import BilevelPhase
from dreamprm.trainer.cold_phase import ColdPhase
from dreamprm.trainer.interrupt import StopRequest
from dreamprm.trainer.phase import Phase
from dreamprm.trainer.resume import checkpoint_run
from dreamprm.trainer.state import Run
from dreamprm.trainer.unrolled_phase import UnrolledPhase, is_unrolled

__all__ = ["enter_phase", "train_phases"]


def enter_phase(run: Run) -> Phase:
    """The phase of the next update: the one that the run is in, or the one that begins, with fresh optimizers."""
    if run.phase is None or run.phase.name is not run.phase_name:
        if run.phase_name is PhaseName.COLD:
            run.phase = ColdPhase(run)
        else:
            run.phase = UnrolledPhase(run) if is_unrolled(run.settings) else BilevelPhase(run)
    return run.phase


def train_phases(run: Run, stop: StopRequest, metrics: MetricsFile, tracker: Tracker | None) -> bool:
    """Train to the last update. Returns False when it was stopped before, with a checkpoint of where it stands."""
    while run.update < run.num_updates:
        if not _train_phase(run, enter_phase(run), stop, metrics, tracker):
            return False
    return True


def _train_phase(run: Run, phase: Phase, stop: StopRequest, metrics: MetricsFile, tracker: Tracker | None) -> bool:
    settings = run.settings
    first, end = (0, run.num_cold) if phase.name is PhaseName.COLD else (run.num_cold, run.num_updates)
    run.prm.train()
    with Reporter(phase.name, end - first, run.update - first) as report:
        while run.update < end:
            began, before = time.monotonic(), run.update
            numbers, num_made = phase.update()
            run.update = before + num_made
            seconds = run.counters.seconds
            seconds[phase.name] = seconds.get(phase.name, 0.0) + time.monotonic() - began
            last = run.update - 1
            if last % settings.log_every == 0 or run.update >= end:
                metrics.write(last, phase.name, numbers)
                if tracker is not None:
                    tracker.log(last, numbers)
            report.update(run.update - first, numbers)
            asked = stop.asked or (settings.stop_at is not None and before < settings.stop_at <= run.update)
            every = settings.checkpoint.every
            due = every and run.update // every > before // every
            if asked or due or run.update == run.num_updates:
                checkpoint_run(run, metrics.num_rows)
            if asked and run.update < run.num_updates:
                return False
    return True
