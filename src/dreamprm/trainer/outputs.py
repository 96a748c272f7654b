"""What a finished run leaves: the PRM, the weigher, a weight for every training example, and its figures."""

from __future__ import annotations

import json
import math
import resource
import sys
import time
from pathlib import Path
from typing import Any

import torch

from dreamprm.distributed import everyone, is_first, num_processes, rank
from dreamprm.errors import UserError
from dreamprm.evaluate.verdict import Evidence, verdict
from dreamprm.files import replacing, write_atomically
from dreamprm.loss import example_losses
from dreamprm.metrics import PhaseName
from dreamprm.phases.state import Run
from dreamprm.progress import RunProgress
from dreamprm.report.explorer import write_explorer
from dreamprm.report.model_card import CardFacts, write_model_card
from dreamprm.run_files.history import read_history
from dreamprm.run_files.weight_tables import weight_figures, write_weights
from dreamprm.sources import RunData, known_good
from dreamprm.sources.world_source import MODEL, READER
from dreamprm.trainer.baselines import compare_with_baselines
from dreamprm.trainer.judging import AFTER, evidence, judge
from dreamprm.trainer.loop import WEIGH
from dreamprm.weigher import Features, InstanceTable, from_batch
from dreamprm.weigher import save as save_weigher

__all__ = ["write_outputs"]


def write_outputs(run: Run, data: RunData, began: float, progress: RunProgress) -> dict[str, Any]:
    """Write prm/, weigher.safetensors, both tables of weights, explorer/ and results.json; return the results.

    Every process scores its part; the first one writes.
    """
    run.prm.eval()
    run.weigher.eval()
    rows = _weigh(run, progress)
    folder, settings = run.folder, run.settings
    _require_finite(rows)
    after = judge(run, AFTER, progress)
    assert after is not None, "nobody asked to stop"
    prm = run.prm if run.skeleton is None else run.skeleton.filled(run.prm)
    weigher = run.weigher.whole() if isinstance(run.weigher, InstanceTable) else run.weigher
    if not is_first() or prm is None or weigher is None:
        return {}
    with replacing(folder / "prm") as part:
        prm.save_pretrained(part)
    keys = [record.key for record in run.train]
    save_weigher(weigher, folder / "weigher.safetensors", keys=keys, domains=data.domains)
    write_weights(folder, run.train, rows)
    title = f"{settings.name}, seed {settings.seed}"
    write_explorer(folder / "explorer", title, run.train, rows, read_history(folder))
    found = evidence(run, run.before, after)
    results = {
        "experiment": settings.name,
        "description": settings.description,
        "seed": settings.seed,
        "verdict": verdict(found),
        "best_of_n": {},
        "steps": {},
        **(compare_with_baselines(run, after) if data.by_collection else after.figures),
        "cold_start": {} if run.before is None else run.before.figures,
        "meta": _meta_figures(found),
        "sum_rule": run.counters.sum_rule,
        "weights": weight_figures(rows) | ({"sureness": run.counters.sureness} if run.num_trust else {}),
        "cost": _cost(run, time.monotonic() - began),
    }
    text = json.dumps(results, indent=2, ensure_ascii=False) + "\n"
    write_atomically(folder / "results.json", text.encode())
    write_model_card(folder / "prm", _card_facts(run), results)
    return results


def _card_facts(run: Run) -> CardFacts:
    settings, prm = run.settings, run.prm
    path = settings.model.path
    # A hub's name has one slash and is no folder here.
    is_hub_name = path.count("/") == 1 and ":" not in path and not Path(path).exists()
    named = "the embedded world's tiny InternVL" if path in (MODEL, READER) else Path(path).name
    return CardFacts(
        base=path if is_hub_name else None,
        model=named,
        architecture=type(prm.transformer).__name__,
        head=prm.kind.value,
        layout=prm.prompt.layout.value,
        images=any(record.images for record in run.train[:100]),
        data=_named(settings.data),
        meta=_named(settings.meta),
        weigher=settings.weigher.kind,
        aggregation=prm.aggregation,
    )


def _named(settings: Any) -> str:
    """What data these are: their kind, and the file's name without the folders, which are a machine's own."""
    path = getattr(settings, "path", None)
    trouble = getattr(settings, "trouble", None)
    more = Path(path).name if path else getattr(trouble, "value", trouble)
    return f"{settings.kind}: {more}" if more else settings.kind


def _meta_figures(found: Evidence) -> dict[str, Any]:
    """The outer loss over the whole meta set, and the AUC of its chains, before and after the bilevel phase."""
    if not found.losses_after:
        return {}
    losses = {"before": found.losses_before, "after": found.losses_after}
    figures: dict[str, Any] = {"outer_loss": {name: sum(values) / len(values) for name, values in losses.items()}}
    figures["outer_loss"]["change"] = found.loss_change().as_dict()
    figures["trained_on"] = found.trained_on_meta
    if found.meta is not None:
        figures["auc"] = {name: getattr(found.meta, name).as_dict() for name in ("before", "after", "change")}
    return figures


def _require_finite(rows: list[dict[str, Any]]) -> None:
    """Raises UserError where the trained PRM or the weigher gives what is no number: nothing of it is published."""
    bad = [row["key"] for row in rows if not all(map(math.isfinite, (row["weight"], row["loss"], *row["step_scores"])))]
    if bad:
        raise UserError(
            f"the run has diverged: weights, losses or scores of {len(bad)} of {len(rows)} training chains are not "
            f"finite, e.g. of {bad[0]}; nothing was published. Start again with a lower rate or a clip_norm"
        )


@torch.no_grad()
def _weigh(run: Run, progress: RunProgress) -> list[dict[str, Any]]:
    """One row per training example: its weight and what its steps score under the trained PRM."""
    rows: list[dict[str, Any]] = []
    seen: list[Features] = []
    size = run.settings.evaluate.batch_size
    with progress.stage(WEIGH) as report:
        for start in range(0, len(run.train), size * num_processes()):
            own = start + rank() * size  # the blocks that one process would read, one after another
            places = range(min(own, len(run.train)), min(own + size, len(run.train)))
            filled = places or range(start, start + 1)  # a split model's passes are those of all processes
            block = _weigh_block(run, filled if run.is_split else places)
            for part in everyone(block if places else None):
                if part is not None:
                    rows += part[0]
                    seen.append(part[1])
            report.update(len(rows), {})
    run.weigher.settle(seen)
    weights = [weight for features in seen for weight in run.weigher(features).tolist()]
    if run.weigher.per_step:
        steps = [found[: len(row["step_scores"])] for row, found in zip(rows, weights, strict=True)]
        means = [sum(found) / len(found) for found in steps]
        rows = [
            row | {"weight": mean, "step_weights": found} for row, mean, found in zip(rows, means, steps, strict=True)
        ]
        for features in seen:
            for name, values in run.weigher.opinions(features).items():
                for place, found in zip(features.index.tolist(), values.tolist(), strict=True):
                    rows[place][f"step_{name}"] = found[: len(rows[place]["step_scores"])]
        return rows
    return [row | {"weight": weight} for row, weight in zip(rows, weights, strict=True)]


def _weigh_block(run: Run, places: range) -> tuple[list[dict[str, Any]], Features] | None:
    """The rows of these training chains but for their weights, and what the weigher sees of them."""
    if not places:
        return None
    batch = run.batch(run.train, places)
    with run.autocast():
        logits = run.prm(batch)
    losses = example_losses(logits, batch, run.settings.inner.loss)
    scores, each = logits.sigmoid().tolist(), losses.tolist()
    rows: list[dict[str, Any]] = []
    for number, place in enumerate(places):
        record = run.train[place]
        rows.append(
            {
                "key": record.key,
                "source": record.source,
                "domain": record.domain,
                "loss": each[number],
                "step_scores": scores[number][: len(record.steps)],
                "known_good": known_good(record),
                "known_quality": record.truth.get("quality"),
            }
        )
    return rows, from_batch(batch, logits, losses)


def _cost(run: Run, seconds: float) -> dict[str, Any]:
    counters = run.counters
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    cost: dict[str, Any] = {
        "seconds": seconds,
        "seconds_cold_start": counters.seconds.get(PhaseName.COLD, 0.0),
        "seconds_trust": counters.seconds.get(PhaseName.TRUST, 0.0),
        "seconds_bilevel": counters.seconds.get(PhaseName.BILEVEL, 0.0),
        # Kilobytes on Linux, bytes on macOS.
        "peak_memory_mb": peak / (2**20 if sys.platform == "darwin" else 2**10),
        "updates_cold_start": run.num_cold,
        "updates_bilevel": run.settings.inner.updates,
        "outer_updates": counters.outer_updates,
        "skipped_outer_updates": counters.skipped_outer,
        "trainable_parameters": sum(value.numel() for value in run.trainable().values()),
        "threads": torch.get_num_threads(),
        "processes": num_processes(),
        "device": str(run.device),
    }
    if counters.check_error is not None:
        cost["check_error"] = counters.check_error
    if run.device.type == "cuda":
        cost["peak_gpu_memory_mb"] = torch.cuda.max_memory_allocated() / 2**20
    return cost
