"""The loop: the phases in order, checkpoints between updates, a clean stop when asked."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import replace
from functools import partial

from bilevel.spans import span
from dreamprm.distributed import everyone
from dreamprm.interrupt import StopRequest
from dreamprm.metrics import MetricsFile, PhaseName
from dreamprm.phases.bilevel_phase import BilevelPhase
from dreamprm.phases.cold_phase import ColdPhase
from dreamprm.phases.floor import floor_seconds
from dreamprm.phases.phase import Phase
from dreamprm.phases.state import Run
from dreamprm.phases.trust_phase import TrustPhase
from dreamprm.phases.unrolled_phase import UnrolledPhase, is_unrolled
from dreamprm.progress import Reporter, RunProgress, Stage
from dreamprm.tracker import Tracker
from dreamprm.trainer.judging import AFTER, BEFORE, judge, judging_stage
from dreamprm.trainer.resume import checkpoint_run

__all__ = ["WEIGH", "enter_phase", "run_progress", "train_phases"]

WEIGH = "weigh"
_OF_A_PASS = 0.02  # one feed-forward block at the judged tokens
_STAGES = {PhaseName.COLD: "cold start", PhaseName.TRUST: "trust", PhaseName.BILEVEL: "bilevel"}


def enter_phase(run: Run) -> Phase:
    """The phase of the next update: the one that the run is in, or the one that begins, with fresh optimizers."""
    if run.phase is None or run.phase.name is not run.phase_name:
        if run.phase_name is PhaseName.COLD:
            run.phase = ColdPhase(run)
        elif run.phase_name is PhaseName.TRUST:
            run.phase = TrustPhase(run)
        else:
            run.phase = UnrolledPhase(run) if is_unrolled(run.settings) else BilevelPhase(run)
    return run.phase


def run_progress(run: Run) -> RunProgress:
    """The stages of this run. A forward pass of one chain costs one, a backward pass two, a hypergradient about one."""
    cold, inner, outer = run.settings.cold, run.settings.inner, run.settings.outer
    dense = cold.dense_batch_size if run.dense_loss is not None and cold.dense_weight else 0
    chains, meta = inner.batch_size * inner.accumulate, outer.batch_size * outer.accumulate
    judged = cold.batch_size * cold.accumulate
    bilevel = 3 * chains + ((chains + 3 * meta) / outer.every if run.learns_weights else 0)
    stages = [
        Stage(_STAGES[PhaseName.COLD], run.num_cold, "update", judged, 3 * (judged + dense)),
        Stage(_STAGES[PhaseName.TRUST], run.num_trust, "update", chains, 3 * (chains + meta)),
        judging_stage(run, BEFORE),
        Stage(_STAGES[PhaseName.BILEVEL], inner.updates, "update", chains, bilevel),
        Stage(WEIGH, len(run.train)),
        judging_stage(run, AFTER),
    ]
    if run.prm.kept is not None:
        stages = _by_first_visits(run, stages, judged)
    return RunProgress([stage for stage in stages if stage.total])


def _by_first_visits(run: Run, stages: Sequence[Stage], judged: int) -> list[Stage]:
    """Where all but a last block is frozen, a chain costs a pass when it is met first, and little ever after."""
    cold = min(run.num_cold * judged, len(run.cold))
    fresh = dict.fromkeys((stage.name for stage in stages), 0)
    fresh[_STAGES[PhaseName.COLD]] = cold
    first = PhaseName.TRUST if run.num_trust else PhaseName.BILEVEL
    fresh[_STAGES[first]] = len(run.train) - (cold if run.cold is run.train else 0)
    fresh[_STAGES[first]] += len(run.meta) if run.num_trust else 0
    judging = judging_stage(run, BEFORE)
    fresh[judging.name] = judging.total - (len(run.meta) if run.num_trust else 0)
    return [
        replace(stage, passes=fresh[stage.name] / stage.total + _OF_A_PASS * stage.passes) if stage.total else stage
        for stage in stages
    ]


def train_phases(
    run: Run, stop: StopRequest, metrics: MetricsFile | None, tracker: Tracker | None, progress: RunProgress
) -> bool:
    """Train to the last update. Returns False when it was stopped before, with a checkpoint of where it stands.

    metrics: None in all processes of a run but the first.
    """
    while run.update < run.num_updates:
        if run.phase_name is PhaseName.BILEVEL and run.update == run.num_before and run.before is None:
            run.before = judge(run, BEFORE, progress, stop)
            if run.before is None or any(everyone(stop.asked)):
                checkpoint_run(run, metrics)
                return False
        if not _train_phase(run, enter_phase(run), stop, metrics, tracker, progress):
            return False
    return True


def _train_phase(
    run: Run,
    phase: Phase,
    stop: StopRequest,
    metrics: MetricsFile | None,
    tracker: Tracker | None,
    progress: RunProgress,
) -> bool:
    first, end = {
        PhaseName.COLD: (0, run.num_cold),
        PhaseName.TRUST: (run.num_cold, run.num_before),
        PhaseName.BILEVEL: (run.num_before, run.num_updates),
    }[phase.name]
    floor = partial(floor_seconds, run) if phase.name is PhaseName.BILEVEL else None
    run.prm.train()
    with progress.stage(_STAGES[phase.name], run.update - first) as report:
        while run.update < end:
            profile = run.profile
            with profile.update(phase.name.value, floor) if profile is not None else nullcontext():
                if not _turn(run, phase, first, end, stop, metrics, tracker, report):
                    return False
    run.ahead.forget()
    return True


def _turn(
    run: Run,
    phase: Phase,
    first: int,
    end: int,
    stop: StopRequest,
    metrics: MetricsFile | None,
    tracker: Tracker | None,
    report: Reporter,
) -> bool:
    """One update of a phase, and what is to be done after it. Returns False where the run stops here.

    first, end: the phase's first update, and the one after its last.
    """
    settings = run.settings
    began, before = time.monotonic(), run.update
    numbers, num_made = phase.update()
    run.update = before + num_made
    seconds = run.counters.seconds
    seconds[phase.name] = seconds.get(phase.name, 0.0) + time.monotonic() - began
    with span("logging"):
        last = run.update - 1
        if last % settings.log_every == 0 or run.update >= end:
            if metrics is not None:
                metrics.write(last, phase.name, numbers)
            if tracker is not None:
                tracker.log(last, numbers)
        report.update(run.update - first, numbers)
    asked = any(everyone(stop.asked))
    asked = asked or (settings.stop_at is not None and before < settings.stop_at <= run.update)
    every = settings.checkpoint.every
    due = every and run.update // every > before // every
    if asked or due or run.update == run.num_updates:
        with span("checkpoint"):
            checkpoint_run(run, metrics)
    return not asked or run.update >= run.num_updates
