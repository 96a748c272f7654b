"""The matrix as tables: means with intervals, paired differences, ranks over troubles, and what it cost."""

from __future__ import annotations

import datetime
import math
import os
import platform
import statistics
import subprocess
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from scipy import stats

from benchmarks.evidence.drawing import Interval, draw_dots
from benchmarks.evidence.methods import KINDS_OF_METHODS

__all__ = ["command_line", "commit", "interval", "interval_of", "kept_reading", "write_report"]

REPORTS = Path(__file__).parents[1] / "reports"
FIGURE = "best_of_n"
REFERENCES = ("no_selection", "meta_directly", "meta_added")
READING = "## Reading (written by hand; everything else here is printed)"
DRAWN = ("crowd", "flips", "clean")
SUFFIX, LONGER_TITLE = "_longer", ", longer last training"


def interval_of(values: Sequence[float]) -> Interval:
    """Mean and Student's 95 % interval over seeds; of one seed its value three times."""
    mean = statistics.fmean(values)
    if len(values) < 2:
        return mean, mean, mean
    half = float(stats.t.ppf(0.975, len(values) - 1)) * statistics.stdev(values) / math.sqrt(len(values))
    return mean, mean - half, mean + half


def interval(values: Sequence[float]) -> str:
    """The same as text."""
    mean, low, high = interval_of(values)
    return f"{mean:.3f}" if len(values) < 2 else f"{mean:.3f} [{low:.3f}, {high:.3f}]"


def command_line(module: str, arguments: Sequence[str]) -> str:
    """The command that printed a report; the folders of this machine are left out."""
    places = [place for place, word in enumerate(arguments) if word in ("--folder", "--data")]
    dropped = {place + more for place in places for more in (0, 1)}
    return " ".join(["python -m", module, *(w for place, w in enumerate(arguments) if place not in dropped)])


def kept_reading(path: Path) -> list[str]:
    """What was written by hand into the report that stands there: it is older than the tables, and stays."""
    text = path.read_text(encoding="utf-8") if path.is_file() else ""
    if READING not in text:
        return []
    part = text[text.index(READING) + len(READING) :]
    return ["", READING, *part.split("\n## ")[0].rstrip().split("\n")]


def write_report(cells: list[dict[str, Any]], baselines: dict[str, float], command: str, folder: Path) -> Path:
    """DATE-evidence.md and .parquet among the reports, and the cells in the folder too."""
    pq.write_table(pa.Table.from_pylist(cells), folder / "cells.parquet")
    today = datetime.datetime.now(tz=datetime.UTC).date().isoformat()
    path = REPORTS / f"{today}-evidence.md"
    cells = [_renamed(cell) for cell in cells]
    troubles = list(dict.fromkeys(cell["trouble"] for cell in cells))
    named = ", ".join(f"{name} {value:.3f}" for name, value in baselines.items())
    lines = [
        f"# Does learning the weights help, and against what: {today}",
        "",
        f"`{command}` at commit {commit()}; torch {torch.__version__}, Python {platform.python_version()}, "
        f"{os.cpu_count()} cores, one thread per process.",
        "",
        f"Best-of-8 by the weakest step (the outcome model: by the last) on the {cells[0]['judged']} questions, the "
        f"same for all: {named}. Intervals "
        "are Student's, 95 %, over seeds. Trust AUC: the trust that a method ends with against the truth.",
        "",
        *_figure(cells, baselines, path.with_suffix(".svg")),
        *kept_reading(path),
    ]
    for trouble in troubles:
        lines += ["", f"## {trouble}", "", *_table([cell for cell in cells if cell["trouble"] == trouble])]
    lines += _cleaned(cells, troubles)
    lines += [
        "",
        "## Ranks over troubles",
        "",
        *_ranks(cells, [trouble for trouble in troubles if LONGER_TITLE not in trouble]),
        "",
    ]
    seconds = sum(c["seconds"] for c in cells)
    lines += [
        f"Cost: {len(cells)} cells of {seconds / len(cells):.1f} s on one core each in the mean ({seconds / 60:.0f} "
        "minutes in all), and once the base and its states of all chains (about ten minutes).",
        "",
    ]
    pq.write_table(pa.Table.from_pylist(cells), path.with_suffix(".parquet"))
    path.write_text("\n".join(lines), encoding="utf-8")
    return path


def _renamed(cell: dict[str, Any]) -> dict[str, Any]:
    """A longer last training is a table of its own, whose methods keep their names."""
    name = cell["method"]
    if not name.endswith(SUFFIX):
        return cell
    return cell | {"method": name.removesuffix(SUFFIX), "trouble": cell["trouble"] + LONGER_TITLE}


def _cleaned(cells: list[dict[str, Any]], troubles: list[str]) -> list[str]:
    """How much of the gain a plain run on the cleaned rows keeps, where there is a gain."""
    rows = []
    for trouble in troubles:
        mine = [cell for cell in cells if cell["trouble"] == trouble]
        base, best = _by_seed(mine, "no_selection"), _by_seed(mine, "combined")
        for method in ("cleaned_weights", "cleaned_cut"):
            found = _by_seed(mine, method)
            seeds = sorted(found.keys() & base.keys() & best.keys())
            gain = [best[seed] - base[seed] for seed in seeds]
            if len(seeds) < 2 or interval_of(gain)[1] <= 0:
                continue
            kept = [found[seed] - base[seed] for seed in seeds]
            low, high = _ratio_interval(kept, gain)
            less = interval([a - b for a, b in zip(kept, gain, strict=True)])
            share = statistics.fmean(kept) / statistics.fmean(gain)
            rows.append(f"| {trouble} | {method} | {interval(gain)} | {share:.2f} | {low:.2f} to {high:.2f} | {less} |")
    if not rows:
        return []
    said = (
        "A plain run, without the meta set, on the rows as `dreamprm clean` writes them, by the weights of `combined`: "
        "a row has one weight, the mean of its steps'. The interval of the share draws the seeds anew."
    )
    heads = ["trouble", "rows", "gain of combined over no selection", "share kept", "95 %", "less combined"]
    return ["", "## The cleaned file", "", said, "", f"| {' | '.join(heads)} |", "|---" * len(heads) + "|", *rows]


def _ratio_interval(kept: Sequence[float], gain: Sequence[float], num_resamples: int = 4000) -> tuple[float, float]:
    """The percentile interval of the ratio of the means over drawn seeds."""
    random, one, other = np.random.default_rng(0), np.asarray(kept), np.asarray(gain)
    rows = random.integers(len(one), size=(num_resamples, len(one)))
    low, high = np.quantile(one[rows].mean(1) / other[rows].mean(1), [0.025, 0.975])
    return float(low), float(high)


def _figure(cells: list[dict[str, Any]], baselines: dict[str, float], path: Path) -> list[str]:
    """The headline's picture, and the line that shows it."""
    panels = {
        trouble: {name: interval_of(list(found.values())) for name, found in _drawn(cells, trouble).items()}
        for trouble in DRAWN
        if any(cell["trouble"] == trouble for cell in cells)
    }
    if not panels:
        return []
    said = "; ".join(
        f"{trouble}: " + ", ".join(f"{name} {found[name][0]:.3f}" for name in sorted(found, key=lambda n: -found[n][0]))
        for trouble, found in panels.items()
    )
    described = (
        f"Best-of-8 by method, with 95 % intervals over seeds (the longer last training where it was run). {said}"
    )
    draw_dots(panels, KINDS_OF_METHODS, {"vote": baselines["self_consistency"]}, "best-of-8", path, described)
    return [f"![{described}]({path.name})"]


def _drawn(cells: list[dict[str, Any]], trouble: str) -> dict[str, dict[int, float]]:
    """Methods that have several seeds here, or all where none has; with the longer last training where it was run."""
    longer = [cell for cell in cells if cell["trouble"] == trouble + LONGER_TITLE]
    again = {cell["method"] for cell in longer}
    mine = [c for c in cells if c["trouble"] == trouble and c["method"] not in again] + longer
    found = {method: _by_seed(mine, method) for method in _order(mine)}
    several = {method: values for method, values in found.items() if len(values) > 1}
    return several or found


def commit() -> str:
    found = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False)
    return found.stdout.strip() or "unknown"


def _by_seed(cells: Iterable[dict[str, Any]], method: str, figure: str = FIGURE) -> dict[int, float]:
    return {cell["seed"]: cell[figure] for cell in cells if cell["method"] == method and figure in cell}


def _table(cells: list[dict[str, Any]]) -> list[str]:
    heads = ["best-of-8", "step AUC", *(f"less {name}" for name in REFERENCES), "trust AUC, steps", "chains", "seconds"]
    lines = ["| method | seeds | " + " | ".join(heads) + " |", "|---" * (len(heads) + 2) + "|"]
    for method in _order(cells):
        found = _by_seed(cells, method)
        row = [method, str(len(found)), interval(list(found.values()))]
        row.append(interval(list(_by_seed(cells, method, "step_auc").values())))
        for name in REFERENCES:
            other = _by_seed(cells, name)
            shared = sorted(found.keys() & other.keys())
            row.append("-" if name == method or not shared else interval([found[s] - other[s] for s in shared]))
        for figure in ("trust_step_auc", "trust_chain_auc"):
            values = list(_by_seed(cells, method, figure).values())
            row.append(f"{statistics.fmean(values):.3f}" if values else "-")
        row.append(f"{statistics.fmean(_by_seed(cells, method, 'seconds').values()):.0f}")
        lines.append("| " + " | ".join(row) + " |")
    return lines


def _order(cells: list[dict[str, Any]]) -> list[str]:
    """Methods from best to worst."""
    methods = list(dict.fromkeys(cell["method"] for cell in cells))
    return sorted(methods, key=lambda method: -statistics.fmean(_by_seed(cells, method).values()))


def _ranks(cells: list[dict[str, Any]], troubles: list[str]) -> list[str]:
    """The place of every method that ran on all troubles; the bound is left out."""
    by_trouble = {trouble: [c for c in cells if c["trouble"] == trouble] for trouble in troubles}
    common = set.intersection(*({c["method"] for c in found} for found in by_trouble.values())) - {"known_clean"}
    places = {
        trouble: [method for method in _order(found) if method in common] for trouble, found in by_trouble.items()
    }
    ranks = {m: [places[trouble].index(m) + 1 for trouble in troubles] for m in common}
    lines = ["| method | mean rank | " + " | ".join(troubles) + " |", "|---" * (len(troubles) + 2) + "|"]
    for method, found in sorted(ranks.items(), key=lambda item: (statistics.fmean(item[1]), item[0])):
        lines.append(f"| {method} | {statistics.fmean(found):.1f} | " + " | ".join(map(str, found)) + " |")
    return lines
