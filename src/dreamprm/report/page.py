"""report.html: one file without scripts or links, readable anywhere. Its form is page.html.jinja and style.css."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from dreamprm.errors import UserError
from dreamprm.files import write_atomically
from dreamprm.report.comparison_table import COLUMNS, comparison_rows
from dreamprm.report.content import NAMES, RunContent, figures, read_run, run_without_selection
from dreamprm.report.plots import best_of_n_figure, curve_figures, domain_figure, quality_figure

__all__ = ["write_report"]

_HERE = Path(__file__).parent


def write_report(folder: Path) -> Path:
    """Write `report.html` into a finished run's folder; its path.

    Raises UserError where no run has finished, and where its files are not what a run writes.
    """
    run = read_run(folder)
    # Everything that comes from a run is escaped by the template; the figures are ours.
    environment = Environment(
        loader=FileSystemLoader(_HERE), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    try:
        page = environment.get_template("page.html.jinja").render(_context(run))
    except (TypeError, ValueError, KeyError, AttributeError) as error:
        raise UserError(f"{folder}: its files are not what a run writes ({type(error).__name__}: {error})") from error
    path = folder / "report.html"
    write_atomically(path, page.encode())
    return path


def _context(run: RunContent) -> dict[str, Any]:
    results = {"experiment": "", "seed": "", "description": "", "verdict": ""} | run.results
    points = run.results.get("best_of_n", {})
    numbers = sorted({int(number) for row in points.values() for number in row})
    largest = str(numbers[-1]) if numbers else ""
    other = run_without_selection(run)
    rows = {"cold_start": run.results.get("cold_start", {}).get("best_of_n", {}).get("prm", {})}
    rows["no_selection"] = other[1].get("best_of_n", {}).get("prm", {}) if other else {}
    drawn = {
        "best_of_n": Markup(best_of_n_figure(run)),
        "curves": [Markup(figure) for figure in curve_figures(run)],
        "quality": Markup(quality_figure(run)),
        "domains": Markup(domain_figure(run)),
    }
    ends = ("Highest weights", "highest"), ("Lowest weights", "lowest")
    return {
        "results": results,
        "css": Markup((_HERE / "style.css").read_text(encoding="utf-8")),
        "tone": _tone(str(results["verdict"])),
        "largest": largest,
        "tiles": _tiles(run.results, largest, rows),
        "numbers": numbers,
        "best_of_n": _best_of_n(points, rows, numbers),
        "beside_note": f"Without selection: {other[0]}, the same settings with every weight 1." if other else "",
        "num_questions": next((point["n"] for row in points.values() for point in row.values()), 0),
        "comparison_columns": COLUMNS,
        "comparison": comparison_rows(run.results),
        "before_after": _before_after(run.results),
        "figures": drawn,
        "training_notes": _training_notes(run.results),
        "weight_notes": _weight_notes(run.results),
        "domain_note": _domain_note(run),
        "card_sections": [(title, [_card(row) for row in run.examples if row["end"] == end]) for title, end in ends],
        "numbers_table": [_number(*row) for row in figures(run.results)],
        "config": run.config,
    }


def _tone(verdict: str) -> str:
    """The colour of the verdict: `no`, `yes`, or neither."""
    if "not to be trusted" in verdict:
        return "no"
    good = "gave a signal" in verdict or verdict.startswith("the PRM is better")
    return "yes" if good and "no gain" not in verdict else ""


def _tiles(results: dict[str, Any], largest: str, rows: dict[str, Any]) -> list[dict[str, Any]]:
    """The headline numbers, each with what it is to be compared with."""
    points = results.get("best_of_n", {})
    tiles: list[dict[str, Any]] = []
    if largest and "prm" in points:
        policy = points.get("policy", {}).get("1")
        vote = points.get("self_consistency", {}).get(largest)
        others = [
            ("policy alone", policy),
            ("self-consistency", vote),
            ("cold-started PRM", rows["cold_start"].get(largest)),
        ]
        others = [(name, point) for name, point in others if point]
        for name in ("prm", "weighted_vote"):
            point = points.get(name, {}).get(largest)
            if point:
                beside = [_beside(point, label, other) for label, other in others]
                label = NAMES[name].replace("best of N", f"best of {largest}")
                tiles.append(_tile(label, point, beside))
    area = results.get("meta", {}).get("auc")
    if area and not results["meta"].get("trained_on"):
        tiles.append(
            _tile("AUC on the meta set", area["after"], [f"before {area['before']['value']:.3f}", "chance .5"])
        )
    separation = results.get("weights", {}).get("separation")
    if separation:
        tiles.append(_tile("weights find the bad", separation["auc"], ["AUC against the known truth", "chance .5"]))
    return tiles


def _tile(name: str, point: dict[str, Any], notes: list[str]) -> dict[str, Any]:
    interval = f"{point['low']:.3f} to {point['high']:.3f}"
    return {"name": name, "value": f"{point['value']:.3f}", "notes": [interval, *notes]}


def _beside(point: dict[str, Any], label: str, other: dict[str, Any]) -> str:
    """`above policy alone (.512)`; level with what lies within the point's own interval."""
    word = "level with"
    if not point["low"] <= other["value"] <= point["high"]:
        word = "above" if point["value"] > other["value"] else "below"
    return f"{word} {label} ({other['value']:.3f})"


def _best_of_n(points: dict[str, Any], rows: dict[str, Any], numbers: list[int]) -> list[dict[str, Any]]:
    """The table's rows: every selector, and beside the PRM what it was before, and without selection."""
    named = {"cold_start": "PRM, cold-started", "no_selection": "PRM, without selection"}
    found: list[dict[str, Any]] = []
    for name, label in NAMES.items():
        if points.get(name):
            found.append({"name": name, "label": label, "points": [points[name].get(str(n)) for n in numbers]})
        if name == "prm":
            found += [
                {"name": other, "label": named[other], "points": [row.get(str(n)) for n in numbers]}
                for other, row in rows.items()
                if row
            ]
    return found


def _before_after(results: dict[str, Any]) -> list[dict[str, Any]]:
    meta, rows = results.get("meta", {}), []
    trained = " (trained on)" if meta.get("trained_on") else ""
    if "outer_loss" in meta:
        rows.append((f"outer loss, whole meta set{trained}", meta["outer_loss"]))
    if "auc" in meta:
        rows.append((f"AUC of meta chains{trained}", meta["auc"]))
    before, after = (results.get(name, {}) for name in ("cold_start", "steps"))
    if before.get("steps", {}).get("auc") and after.get("auc"):
        rows.append(("AUC of test steps", {"before": before["steps"]["auc"], "after": after["auc"]}))
    return [
        {"name": name, "cells": [_cell(values.get(key)) for key in ("before", "after", "change")]}
        for name, values in rows
    ]


def _cell(value: Any) -> dict[str, str]:
    if isinstance(value, dict):
        return {"text": f"{value['value']:.3f}", "ends": f"{value['low']:.3f} to {value['high']:.3f}"}
    return {"text": "" if value is None else f"{value:.4g}", "ends": ""}


def _training_notes(results: dict[str, Any]) -> list[str]:
    cost, notes = results.get("cost", {}), []
    if cost.get("check_error") is not None:
        notes.append(f"Hypergradient checked against plain autograd: last relative error {cost['check_error']:.1e}.")
    if results.get("sum_rule") is not None:
        notes.append(f"Largest residual of the sum rule over all updates: {results['sum_rule']:.2g}.")
    if cost.get("skipped_outer_updates"):
        notes.append(f"{cost['skipped_outer_updates']} outer updates were skipped: their gradient was not finite.")
    return notes


def _weight_notes(results: dict[str, Any]) -> list[str]:
    weights, notes = results.get("weights", {}), []
    if weights.get("separation"):
        auc = weights["separation"]["auc"]["value"]
        notes.append(f"Weights tell rightly labelled from mislabelled examples with an AUC of {auc:.3f}.")
    if weights.get("domain_rank_correlation"):
        value = weights["domain_rank_correlation"]["value"]
        notes.append(f"Rank correlation of domain weights with known quality: {value:.2f}.")
    return [*notes, "Training never saw this truth."] if notes else []


def _domain_note(run: RunContent) -> str:
    if not any(value is not None for value in run.weights.get("known_quality", [])):
        return ""
    return "Known quality is the data's own mark for a domain, 1 the best; training never saw it."


def _card(row: dict[str, Any]) -> dict[str, Any]:
    image = ""
    if row.get("image"):
        kind = "png" if row["image"][:4] == b"\x89PNG" else "jpeg"
        image = f"data:image/{kind};base64,{base64.b64encode(row['image']).decode()}"
    steps = []
    for step, label, score in zip(row["steps"], row["labels"], row["scores"], strict=True):
        right = None if label is None else label > 0.5
        mark, tone = {None: ("", ""), True: ("+", "plus"), False: ("−", "minus")}[right]
        steps.append({"text": step, "mark": mark, "tone": tone, "score": score})
    names = ("weight", "domain", "question")
    return {name: row[name] for name in names} | {"image": image, "steps": steps, "known_good": row.get("known_good")}


def _number(group: str, name: str, value: float, ends: tuple[float, float] | None) -> dict[str, str]:
    return {
        "group": group,
        "name": name.replace("_", " "),
        "value": f"{value:,}" if isinstance(value, int) else f"{value:.4g}",
        "ends": f"{ends[0]:.4g} to {ends[1]:.4g}" if ends else "",
    }
