"""One run from settings to report: data, PRM, weigher; cold start; bilevel; evaluation; files."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from dreamprm.config.build import build_device, build_prm, build_weigher, check_model
from dreamprm.config.resolve import to_plain
from dreamprm.config.schema import TrainConfig
from dreamprm.data.readers import RecordStream
from dreamprm.data.record import Record, RecordError
from dreamprm.distributed import first_then_others, is_first, num_processes, rank, together
from dreamprm.doctor.quick import quick
from dreamprm.errors import ConfigError, UserError
from dreamprm.heap import keep_freed_memory
from dreamprm.interrupt import StopRequest
from dreamprm.metrics import MetricsFile
from dreamprm.phases.sharding import check_sharding, is_sharded, refuse_dense, shard
from dreamprm.phases.state import Run
from dreamprm.phases.unrolled_phase import check_unrolled, is_unrolled
from dreamprm.prm.collate import Collator
from dreamprm.profiling import Profile, write_profile
from dreamprm.progress import say
from dreamprm.report import print_results, write_report
from dreamprm.run_files.folder import run_folder, save_settings
from dreamprm.run_files.history import WeightHistory
from dreamprm.sources import RunData, check_needs, load_data
from dreamprm.sources.refusals import refuse
from dreamprm.sources.sample import sample
from dreamprm.tracker import Tracker, open_tracker, require_tracker
from dreamprm.trainer.loop import enter_phase, run_progress, train_phases
from dreamprm.trainer.outputs import write_outputs
from dreamprm.trainer.resume import remember_sources, require_finite_run, resume_run, say_what_metrics_lack

__all__ = ["build_run", "prepare", "show_prompts", "train"]


def train(settings: TrainConfig) -> Path | None:
    """Train, evaluate and write the run's folder; the folder, or None when the run was stopped before its end.

    Under torchrun every process calls it, and all of them are one run (see `dreamprm.distributed`).
    Raises UserError for whatever the user can mend.
    """
    with together(), run_folder(settings) as folder:
        return _train_in(settings, folder)


def _train_in(settings: TrainConfig, folder: Path) -> Path | None:
    """`train`, in a folder that this process, or the first of several, holds."""
    began = time.monotonic()
    settings.run_dir = str(folder)
    data, run = prepare(settings, folder)
    remember_sources(run)
    if is_sharded(settings):
        run.skeleton = shard(run.prm, run.device)
    resume_at = resume_run(run, enter_phase) if settings.resume else None
    _announce(run, data, resume_at)
    progress = run_progress(run)
    run.history = _history(run, resume_at)
    if settings.profile:
        run.profile = Profile(run.device, run.counters.profile)
    metrics, tracker = _files(settings, run, resume_at) if is_first() else (None, None)
    try:
        with StopRequest() as stop:
            finished = train_phases(run, stop, metrics, tracker, progress)
    except ValueError as error:
        raise UserError(f"update {run.update}: {error}") from error
    finally:
        run.ahead.close()
        if metrics is not None:
            metrics.close()
        if tracker is not None:
            tracker.close()
        if run.profile is not None:
            run.profile.close()
    if run.profile is not None and is_first():
        name = f"{settings.name}, seed {settings.seed}"
        say(f"profile: {write_profile(run.folder, name, run.profile)}")
    if not finished:
        run.prm.flush_features()
        say(f"stopped after update {run.update} of {run.num_updates}; go on with: dreamprm train resume={run.folder}")
        return None
    require_finite_run(run)
    results = write_outputs(run, data, began, progress)
    run.prm.flush_features()
    if is_first():
        report = write_report(run.folder)
        print_results(results)
        say(f"report: {report}")
    return run.folder


def _history(run: Run, resume_at: int | None) -> WeightHistory | None:
    """None where no weight is learned."""
    inner = run.settings.inner
    if not run.learns_weights or not len(run.train):
        return None
    per_update = inner.batch_size * inner.accumulate // run.settings.outer.every
    history = WeightHistory.of_run(run.folder, len(run.train), per_update, run.num_updates, is_first())
    history.begin(resume_at)
    return history


def _files(settings: TrainConfig, run: Run, resume_at: int | None) -> tuple[MetricsFile, Tracker | None]:
    """Write the settings; open what the numbers go to."""
    save_settings(settings, run.folder)
    metrics = MetricsFile(run.folder / "metrics.jsonl", resume_at=resume_at)
    say_what_metrics_lack(metrics.path, metrics.num_rows, run.num_metrics)
    name = f"{settings.name}-seed{settings.seed}"
    return metrics, open_tracker(settings.tracker, run.folder, name, to_plain(settings))


def show_prompts(settings: TrainConfig) -> None:
    """Print the first training chains as the model reads them, and start nothing. Raises UserError as `train` does.

    Brackets stand around what is judged after each step; an image placeholder becomes as many tokens as are counted.
    """
    _, run = prepare(settings, Path("."))
    for row in range(min(settings.show_prompts, len(run.train))):
        record = run.train[row]
        try:
            text, batch = run.collator.render(record).marked(), run.collator([record])
        except RecordError as error:
            raise UserError(str(error)) from error
        places = ", ".join(str(place) for place in batch.step_positions[0].tolist())
        say(f"{record.key}: {batch.inputs['input_ids'].shape[1]} tokens, steps judged at tokens {places}")
        say(text + "\n")


def prepare(settings: TrainConfig, folder: Path) -> tuple[RunData, Run]:
    """Check what the run needs, read its data and build its objects."""
    check_needs(settings)
    check_unrolled(settings)
    check_parts(settings)
    check_sharding(settings)
    check_model(settings.model)
    require_tracker(settings.tracker)
    if settings.threads is not None:
        torch.set_num_threads(settings.threads)
    torch.manual_seed(settings.seed)
    try:
        say("reading the data …")
        data = first_then_others(lambda: load_data(settings))
        if not settings.show_prompts:
            width = getattr(settings.weigher, "num_steps", None)
            refuse(data, _batches(settings), weighs=settings.reads_meta, num_steps=width)
            for line in quick(sample(data.train), sample(data.meta), sample(data.test)):
                say(f"  {line}")
        say(f"loading the model {settings.model.path} …")
        run = build_run(settings, data, folder)
        refuse_dense(settings, has_dense=run.dense_loss is not None)
        if not is_first():  # what is built is the same everywhere; dropout masks are each process's own
            torch.manual_seed(settings.seed + 1_000_003 * rank())
        return data, run
    except (ValueError, OSError) as error:
        raise UserError(str(error)) from error


def check_parts(settings: TrainConfig) -> None:
    """Raises ConfigError for what several processes cannot share, with the way out."""
    number = num_processes()
    if number == 1:
        return
    if is_unrolled(settings):
        raise ConfigError(
            "hypergradient.unroll > 1 and hypergradient.detach=false run in one process: start without torchrun"
        )
    for name, part in (("cold", settings.cold), ("inner", settings.inner), ("outer", settings.outer)):
        if part.batch_size < number:
            raise ConfigError(
                f"{name}.batch_size={part.batch_size} is less than one chain for each of {number} processes: raise it "
                "(it is that of all processes together), or start fewer"
            )


def _batches(settings: TrainConfig) -> dict[str, int]:
    """Chains of one update, of the parts that make updates."""
    parts: dict[str, Any] = {"cold": settings.cold, "inner": settings.inner}
    found = {name: part.batch_size * part.accumulate for name, part in parts.items() if part.updates}
    if settings.reads_meta and settings.inner.updates:
        found["outer"] = settings.outer.batch_size * settings.outer.accumulate
    return found


def build_run(settings: TrainConfig, data: RunData, folder: Path) -> Run:
    """The objects of a run before its first update."""
    device = build_device(settings.device)
    if device.type == "cpu":
        keep_freed_memory()
    # What is split goes to its device in parts, when it is.
    whole_on = torch.device("cpu") if is_sharded(settings) else device
    prm = build_prm(settings.model, settings.precision, whole_on)
    if settings.model.leave_out_longer:
        data = _fitting(data, prm.collator())
    weigher = build_weigher(settings.weigher, num_examples=len(data.train), num_domains=len(data.domains))
    return Run(
        settings=settings,
        folder=folder,
        device=device,
        prm=prm,
        collator=prm.collator(domains=data.domains, cache=settings.model.cache),
        judge=prm.collator(cache=settings.model.cache),
        train=data.train,
        meta=data.meta,
        test=data.test,
        cold=data.cold,
        weigher=weigher.to(device),
        dense_loss=data.dense_loss(settings.model.path, device),
    )


def _fitting(data: RunData, collator: Collator) -> RunData:
    """The data without the chains that are longer than the collator allows; says how many these are."""
    parts = {"training": data.train, "meta": data.meta, "test": data.test}
    kept = {name: _those_that_fit(records, collator) for name, records in parts.items()}
    left_out = [f"{len(parts[name]) - len(kept[name])} of {len(parts[name])} {name} chains" for name in parts]
    say(f"left out, above model.max_length={collator.max_length} tokens: {', '.join(left_out)}")
    if not kept["training"] or (data.meta and not kept["meta"]):
        raise UserError(f"no chain is left with at most {collator.max_length} tokens: raise model.max_length")
    cold = kept["training"] if data.cold is data.train else _those_that_fit(data.cold, collator)
    return replace(data, train=kept["training"], meta=kept["meta"], test=kept["test"], cold=cold)


def _those_that_fit(records: Sequence[Record], collator: Collator) -> Sequence[Record]:
    places = [place for place, record in enumerate(records) if collator.fits(record)]
    return records.take(places) if isinstance(records, RecordStream) else [records[place] for place in places]


def _announce(run: Run, data: RunData, resume_at: int | None) -> None:
    parameters = sum(value.numel() for value in run.trainable().values())
    facts: list[Any] = [
        f"{len(run.train)} training chains in {len(data.domains)} domains",
        f"{len(run.meta)} meta chains",
        f"{len(run.test)} test chains",
        f"{parameters:,} trainable parameters on {run.device}",
    ]
    go_on = "" if resume_at is None else f", going on at update {resume_at}"
    say(f"{run.settings.name}, seed {run.settings.seed}, in {run.folder}{go_on}")
    say("  " + "; ".join(facts))
