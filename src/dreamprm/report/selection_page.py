"""The report of a selection: accuracy against N, reliability, and a page for each question with its chains; one file,
no script. Its form is selection.html.jinja, style.css and selection.css."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from dreamprm.data.record import Image, Record
from dreamprm.files import write_atomically
from dreamprm.report.content import NAMES
from dreamprm.report.plots import reliability_figure, selection_figure

__all__ = ["write_selection_report"]

_HERE = Path(__file__).parent
_MOST_IMAGES = 8
_SHOWN = (1, 2, 4, 8, 16, 32, 64, 128)
"""The N of the table, and the last one; the curves have every N."""


def write_selection_report(
    path: Path,
    records: Sequence[Record],
    step_scores: Sequence[Sequence[float]],
    lines: Sequence[dict[str, Any]],
    results: dict[str, Any],
    num_shown: int,
    method: str = "prm",
) -> Path:
    """Write the page; `lines` and `results` as the select command makes them, the first `num_shown` questions whole."""
    rows: dict[str, list[int]] = {}
    for row, record in enumerate(records):
        rows.setdefault(record.group, []).append(row)
    points = results.get("best_of_n", {})
    numbers = _numbers(points)
    # Everything that comes from data is escaped by the template; the figures are ours.
    environment = Environment(
        loader=FileSystemLoader(_HERE), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    page = environment.get_template("selection.html.jinja").render(
        css=Markup("\n".join((_HERE / name).read_text(encoding="utf-8") for name in ("style.css", "selection.css"))),
        method=method,
        num_questions=len(lines),
        num_chains=len(records),
        tiles=_tiles(points, numbers),
        numbers=numbers,
        table=[
            {"name": name, "label": label, "points": [points[name][str(number)] for number in numbers]}
            for name, label in NAMES.items()
            if name in points
        ],
        curves=Markup(selection_figure(points)) if points else "",
        reliability=Markup(reliability_figure(results["reliability"]["bins"])) if results else "",
        ece=results["reliability"]["ece"] if results else None,
        questions=[
            _question(line, [records[r] for r in rows[line["group"]]], [step_scores[r] for r in rows[line["group"]]])
            for line in lines[:num_shown]
        ],
    )
    write_atomically(path, page.encode())
    return path


def _numbers(points: dict[str, Any]) -> list[int]:
    every = [int(number) for number in next(iter(points.values()), {})]
    return [number for number in every if number in _SHOWN or number == every[-1]]


def _tiles(points: dict[str, Any], numbers: Sequence[int]) -> list[dict[str, str]]:
    if not numbers:
        return []
    last = str(numbers[-1])
    tiles: list[dict[str, str]] = []
    for name in ("prm", "weighted_vote", "self_consistency", "policy"):
        if name in points:
            point = points[name][last]
            label = NAMES[name].replace("best of N", f"best of {last}")
            ends = f"{point['low']:.2f} to {point['high']:.2f}"
            tiles.append({"value": f"{point['value']:.3f}", "name": label, "ends": ends})
    return tiles


def _question(line: dict[str, Any], records: Sequence[Record], scores: Sequence[Sequence[float]]) -> dict[str, Any]:
    chosen = records[line["index"]]
    values = [float(value) for value in line["chain_scores"]]
    low, high = min(values), max(values)
    chains = [
        {
            "chosen": place == line["index"],
            "tied": place in line["tied"],
            "score": value,
            # The bar is long for the best of this question; aggregations other than means have scales of their own.
            "width": round(100 * (0.08 + 0.92 * (value - low) / (high - low))) if high > low else 100,
            "correct": record.correct,
            "answer": record.answer,
            "steps": [{"text": t, "score": p, "hue": round(120 * p)} for t, p in zip(record.steps, row, strict=True)],
        }
        for place, (record, row, value) in enumerate(zip(records, scores, values, strict=True))
    ]
    return {
        "group": line["group"],
        "text": line["question"],
        "reference": chosen.reference,
        "images": [source for image in chosen.images[:_MOST_IMAGES] if (source := _source(image))],
        "tone": {True: "good", False: "bad", None: ""}[chosen.correct],
        "missed": chosen.correct is False and any(record.correct for record in records),
        # The chosen one first, the others by their scores.
        "chains": sorted(chains, key=lambda chain: (not chain["chosen"], -chain["score"])),
    }


def _source(image: Image) -> str:
    """The image as a data address; "" for a file that is gone."""
    try:
        data = image.read_bytes() if isinstance(image, Path) else image
    except OSError:
        return ""
    kind = "png" if data[:4] == b"\x89PNG" else "webp" if data[8:12] == b"WEBP" else "jpeg"
    return f"data:image/{kind};base64,{base64.b64encode(data).decode()}"
