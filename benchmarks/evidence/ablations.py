"""What makes the signal: d = -dF/dw against the truth, one thing changed at a time.

    python -m benchmarks.evidence.ablations [NAME …] [--troubles crowd,flips] [--seeds 3] [--only-report]

Each NAME prints its table and draws its figure: derivative, outer_loss, outer_batch, inner_batch, lookahead, features,
meta_set, cold_start, units, noise. Resumable: what is measured of a trouble and a seed is kept in the folder. With all
of them benchmarks/reports/DATE-ablations.md is written, beside its figures; what stands there after "Outcome:" is
written by hand and kept.
"""

from __future__ import annotations

import argparse
import datetime
import json
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from benchmarks.evidence.ablation_measures import ABLATIONS, Ablation, Found
from benchmarks.evidence.drawing import draw_lines
from benchmarks.evidence.report import REPORTS, command_line, commit, interval, interval_of
from benchmarks.evidence.start import Start, load_start

Kept = dict[str, dict[str, list[Found]]]
"""Ablation -> trouble -> what was found, by seed."""


def measure(names: Sequence[str], options: argparse.Namespace) -> None:
    """What is not there yet, start by start."""
    for seed in range(options.first_seed, options.first_seed + options.seeds):
        for trouble in options.troubles.split(","):
            start: Start | None = None
            for name in names:
                path = place(options.folder, name, trouble, seed)
                if path.is_file():
                    continue
                start = start or load_start(options.folder, trouble, seed, "test")
                torch.manual_seed(seed)
                found = ABLATIONS[name].measure(start)
                path.parent.mkdir(parents=True, exist_ok=True)
                part = path.with_suffix(".part")
                part.write_text(json.dumps(found))
                part.replace(path)
                print(f"{trouble} {seed} {name}", flush=True)


def place(folder: Path, name: str, trouble: str, seed: int) -> Path:
    return folder / "ablations" / f"{name}-{trouble}-{seed}.json"


def read(names: Sequence[str], options: argparse.Namespace) -> Kept:
    kept: Kept = {}
    for name in names:
        for trouble in options.troubles.split(","):
            paths = [
                place(options.folder, name, trouble, seed)
                for seed in range(options.first_seed, options.first_seed + options.seeds)
            ]
            if found := [json.loads(path.read_text()) for path in paths if path.is_file()]:
                kept.setdefault(name, {})[trouble] = found
    return kept


def table(ablation: Ablation, found: list[Found]) -> list[str]:
    """Rows by columns; several measures of one cell stand behind each other."""
    rows = list(found[0])
    columns = list(dict.fromkeys(column for row in rows for column in found[0][row]))
    lines = [f"| {ablation.axis} | {' | '.join(columns)} |", "|---" * (len(columns) + 1) + "|"]
    for row in rows:
        cells = []
        for column in columns:
            measures = [one[row][column] for one in found if column in one.get(row, {})]
            texts = [interval([values[name] for values in measures]) for name in measures[0]] if measures else ["-"]
            cells.append(" / ".join(texts))
        lines.append(f"| {row} | {' | '.join(cells)} |")
    return lines


def draw(name: str, ablation: Ablation, by_trouble: dict[str, list[Found]], path: Path) -> str:
    """The figure of the first measure, one panel a trouble; the text that describes it."""
    panels: dict[str, Any] = {}
    x: list[str] = []
    for trouble, found in by_trouble.items():
        rows = list(found[0])
        x = list(dict.fromkeys(column for row in rows for column in found[0][row]))
        lines = {column: [found[0][row].get(column) and _mean(found, row, column) for row in rows] for column in x}
        if ablation.along_rows:
            panels[trouble] = {column: [point for point in points if point] for column, points in lines.items()}
            x = rows
        else:
            panels[trouble] = {row: [_mean(found, row, column) for column in found[0][row]] for row in rows}
    measured = next(iter(next(iter(next(iter(by_trouble.values()))[0].values())).values()))
    what = ablation.value or f"AUC of {next(iter(measured))}"
    described = f"{name}: {what} by {ablation.axis}, on {' and '.join(by_trouble)}, 95 % intervals over seeds"
    level = 0.5 if "AUC" in what else None
    draw_lines(panels, x, ablation.axis, what, path, described, level)
    return described


def _mean(found: list[Found], row: str, column: str) -> tuple[float, float, float]:
    measures = [one[row][column] for one in found]
    first = next(iter(measures[0]))
    return interval_of([values[first] for values in measures])


def outcomes_of(path: Path) -> dict[str, str]:
    """Ablation -> the paragraph that was written by hand."""
    text = path.read_text(encoding="utf-8") if path.is_file() else ""
    found = {}
    for section in text.split("\n## ")[1:]:
        if match := re.search(r"^Outcome: .*?(?=\n\n|\Z)", section, re.MULTILINE | re.DOTALL):
            found[section.split("\n", 1)[0]] = match.group()
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(ABLATIONS)}; none: all")
    parser.add_argument("--troubles", default="crowd,flips")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--folder", type=Path, default=Path("runs/evidence"))
    parser.add_argument("--only-report", action="store_true", help="of what is there, whatever is missing")
    options = parser.parse_args()
    if unknown := [name for name in options.names if name not in ABLATIONS]:
        parser.error(f"unknown ablation {unknown[0]}; there are {', '.join(ABLATIONS)}")
    names = options.names or list(ABLATIONS)
    torch.set_num_threads(1)
    if not options.only_report:
        measure(names, options)
    kept = read(names, options)
    today = datetime.datetime.now(tz=datetime.UTC).date().isoformat()
    path = REPORTS / f"{today}-ablations.md"
    by_hand = outcomes_of(path)
    lines = [
        f"# What makes the signal, one thing at a time: {today}",
        "",
        f"`{command_line('benchmarks.evidence.ablations', sys.argv[1:])}` at commit {commit()}. AUC of the trust "
        "against the truth, of steps / of chains (.5 says nothing), unless a section says otherwise; test seeds, "
        'Student\'s 95 % intervals over them. A name after the command prints one section. What follows "Outcome:" is '
        "written by hand.",
    ]
    for name, by_trouble in kept.items():
        ablation = ABLATIONS[name]
        figure = REPORTS / f"{today}-ablations-{name}.svg"
        described = draw(name, ablation, by_trouble, figure)
        lines += ["", f"## {name}", "", f"{ablation.said} Expected: {ablation.expected}"]
        lines += ["", by_hand[name]] if name in by_hand else []
        lines += ["", f"![{described}]({figure.name})"]
        for trouble, found in by_trouble.items():
            lines += ["", f"{trouble}, {len(found)} seeds", "", *table(ablation, found)]
    text = "\n".join([*lines, ""])
    print(text)
    if not options.names:
        path.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
