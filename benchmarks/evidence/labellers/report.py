"""The cells as a report: figures with intervals, paired differences, the labellers' weights beside their quality."""

from __future__ import annotations

import datetime
import os
import platform
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from scipy import stats

from benchmarks.evidence.labellers.methods import BOUNDS, CHOSEN_ON_META, ON_META
from benchmarks.evidence.report import REPORTS, commit, interval, kept_reading
from dreamprm.evaluate.intervals import bootstrap

__all__ = ["HOW", "write_report"]

HOW = "last"  # the aggregate of the tables, and the weigher that is compared: both chosen on validation questions
CHOSEN = {"question": "instance_table", "all": "instance_table_positive"}
FIGURES = {"best-of-8": "best_of_8", "AUC": "auc", "AUC within questions": "auc_within"}
Cells = Sequence[Mapping[str, Any]]


def write_report(
    cells: Cells, quality: Mapping[str, float], command: str, num_chains: int, suffix: Sequence[str]
) -> Path:
    """DATE-seven-labellers.md and .parquet among the reports; suffix: what is not as by default."""
    today = datetime.datetime.now(tz=datetime.UTC).date().isoformat()
    chosen = CHOSEN["all" if "all" in suffix else "question"]
    path = REPORTS / f"{'-'.join([today, 'seven-labellers', *suffix])}.md"
    judged, seeds = cells[0]["judged"], sorted({cell["seed"] for cell in cells})
    lines = [
        f"# Seven labellers: {today}",
        "",
        f"`{command}` at commit {commit()}; torch {torch.__version__}, Python {platform.python_version()}, "
        f"{os.cpu_count()} cores, one thread. {num_chains} chains with features; seeds {seeds[0]} to {seeds[-1]}, "
        f"{cells[0]['num_questions']} {judged} questions each. Intervals are Student's, 95 %, over seeds, whose "
        "questions overlap in part.",
        *kept_reading(path),
        "",
        *_table(cells),
        "",
        "## Paired by seed",
        "",
        *_paired(cells, chosen),
        "",
        "## Mean weight of each labeller",
        "",
        *_weights(cells, quality),
        "",
    ]
    pq.write_table(
        pa.Table.from_pylist([{k: v for k, v in cell.items() if not k.startswith("picked")} for cell in cells]),
        path.with_suffix(".parquet"),
    )
    path.write_text("\n".join(lines), encoding="utf-8")
    return path


def _by_seed(cells: Cells, method: str, figure: str) -> dict[int, float]:
    return {cell["seed"]: cell[figure] for cell in cells if cell["method"] == method and figure in cell}


def _kind(method: str) -> str:
    return (
        "bound"
        if method in BOUNDS
        else "trains on the meta set"
        if method in ON_META
        else "chooses on it"
        if method in CHOSEN_ON_META
        else ""
    )


def _methods(cells: Cells) -> list[str]:
    """From best to worst."""
    names = list(dict.fromkeys(cell["method"] for cell in cells))
    return sorted(names, key=lambda name: -statistics.fmean(_by_seed(cells, name, f"best_of_8_{HOW}").values()))


def _table(cells: Cells) -> list[str]:
    lines = [f"| method | | {' | '.join(FIGURES)} | seconds |", "|---" * (len(FIGURES) + 3) + "|"]
    for method in _methods(cells):
        values = [interval(list(_by_seed(cells, method, f"{name}_{HOW}").values())) for name in FIGURES.values()]
        seconds = statistics.fmean(_by_seed(cells, method, "seconds").values())
        lines.append(f"| {method} | {_kind(method)} | {' | '.join(values)} | {seconds:.1f} |")
    return lines


def _paired(cells: Cells, chosen: str) -> list[str]:
    lines = [
        f"{chosen} less each other method; the last column draws the test questions anew instead of the seeds:",
        "",
        f"| | {' | '.join(FIGURES)} | best-of-8, over questions |",
        "|---" * (len(FIGURES) + 2) + "|",
    ]
    for method in _methods(cells):
        if method == chosen:
            continue
        texts = []
        for name in FIGURES.values():
            one, other = _by_seed(cells, chosen, f"{name}_{HOW}"), _by_seed(cells, method, f"{name}_{HOW}")
            shared = sorted(one.keys() & other.keys())
            texts.append(interval([one[seed] - other[seed] for seed in shared]) if shared else "-")
        texts.append(_over_questions(cells, chosen, method))
        lines.append(f"| {method} | {' | '.join(texts)} |")
    return lines


def _over_questions(cells: Cells, chosen: str, method: str) -> str:
    """The mean difference of best-of-8 to the chosen weigher: whole questions are drawn, with all seeds of each."""
    picked = {(cell["method"], cell["seed"]): cell[f"picked_{HOW}"] for cell in cells}
    names, values = [], []
    for seed in sorted({cell["seed"] for cell in cells}):
        if (chosen, seed) in picked and (method, seed) in picked:
            one, other = picked[chosen, seed], picked[method, seed]
            names += list(one)
            values += [one[name] - other[name] for name in one]
    if not values:
        return "-"
    differences = np.asarray(values)
    found = bootstrap(lambda rows: float(differences[rows].mean()), names, num_resamples=2000, seed=0)
    return f"{found.value:.3f} [{found.low:.3f}, {found.high:.3f}]"


def _weights(cells: Cells, quality: Mapping[str, float]) -> list[str]:
    names = sorted(quality, key=lambda name: quality[name])
    lines = ["Known quality: AUC of the labeller's score of the last step, over all 16,000 chains.", ""]
    lines += [f"| | {' | '.join(names)} | rank correlation, by seed | of the means |"]
    lines.append("|---" * (len(names) + 3) + "|")
    lines.append(f"| *known quality* | {' | '.join(f'{quality[name]:.3f}' for name in names)} | | |")
    for method in _methods(cells):
        ranks = _by_seed(cells, method, "rank")
        if ranks and (method not in BOUNDS or method == "labellers_on_meta"):
            means = [statistics.fmean(_by_seed(cells, method, f"weight_{name}").values()) for name in names]
            told = interval(list(ranks.values()))
            whole = float(stats.spearmanr(means, [quality[name] for name in names]).statistic)
            lines.append(f"| {method} | {' | '.join(f'{mean:.2f}' for mean in means)} | {told} | {whole:.2f} |")
    return lines
