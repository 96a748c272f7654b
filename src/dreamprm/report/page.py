"""report.html: one file without scripts or links, readable anywhere."""

from __future__ import annotations

import base64
from html import escape
from pathlib import Path
from typing import Any

from dreamprm.files import write_atomically
from dreamprm.report.comparison_table import COLUMNS, comparison_rows
from dreamprm.report.content import NAMES, figures, read_run
from dreamprm.report.plots import best_of_n_figure, curves_figure, domain_figure, quality_figure
from dreamprm.report.style import CSS

__all__ = ["write_report"]


def write_report(folder: Path) -> Path:
    """Write `report.html` into a finished run's folder; its path. Raises UserError where no run has finished."""
    run = read_run(folder)
    results = run.results
    parts = [
        _head(results),
        _section("Best of N", _best_of_n_table(results) + best_of_n_figure(run)),
        _section("Beside baselines", _comparison(results)),
        _section("Training", curves_figure(run) + _training_note(results)),
        _section("Weights by known quality", quality_figure(run) + _weights_note(results)),
        _section("Domains", domain_figure(run)),
        _section("Highest weights", _cards([row for row in run.examples if row["end"] == "highest"])),
        _section("Lowest weights", _cards([row for row in run.examples if row["end"] == "lowest"])),
        _section("Figures", _numbers(results)),
        _section("Configuration", f"<details><summary>config.yaml</summary><pre>{escape(run.config)}</pre></details>"),
    ]
    title = escape(f"{results['experiment']}, seed {results['seed']}")
    page = (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{title}</title>'
        f'<meta name="viewport" content="width=device-width, initial-scale=1"><style>{CSS}</style></head>'
        f"<body><main>{''.join(parts)}</main></body></html>\n"
    )
    path = folder / "report.html"
    write_atomically(path, page.encode())
    return path


def _section(title: str, body: str) -> str:
    return f"<section><h2>{escape(title)}</h2>{body}</section>" if body.strip() else ""


def _head(results: dict[str, Any]) -> str:
    largest = _largest(results)
    points = results.get("best_of_n", {})
    tiles = []
    if largest:
        for name in ("policy", "self_consistency", "prm", "weighted_vote"):
            point = points.get(name, {}).get("1" if name == "policy" else largest)
            if point:
                note = f"{point['low']:.3f} to {point['high']:.3f}"
                tiles.append(_tile(NAMES[name], f"{point['value']:.3f}", note))
    separation = results.get("weights", {}).get("separation")
    if separation:
        auc = separation["auc"]
        note = f"AUC against the truth, {auc['low']:.3f} to {auc['high']:.3f}"
        tiles.append(_tile("weights find the bad", f"{auc['value']:.3f}", note))
    number = f", best of {largest}" if largest else ""
    return (
        f"<header><p class='kind'>training run{number}</p><h1>{escape(results['experiment'])}"
        f" <span>seed {escape(str(results['seed']))}</span></h1><p>{escape(results.get('description', ''))}</p>"
        f"<div class='tiles'>{''.join(tiles)}</div></header>"
    )


def _tile(name: str, value: str, note: str) -> str:
    return f"<div class='tile'><b>{escape(value)}</b><span>{escape(name)}</span><small>{escape(note)}</small></div>"


def _largest(results: dict[str, Any]) -> str:
    numbers = [int(number) for row in results.get("best_of_n", {}).values() for number in row]
    return str(max(numbers)) if numbers else ""


def _best_of_n_table(results: dict[str, Any]) -> str:
    points = results.get("best_of_n", {})
    numbers = sorted({int(number) for row in points.values() for number in row})
    if not numbers:
        return ""
    head = "".join(f"<th>{number}</th>" for number in numbers)
    rows = ""
    for name, label in NAMES.items():
        if name not in points:
            continue
        cells = ""
        for number in numbers:
            point = points[name].get(str(number))
            cells += (
                f"<td>{point['value']:.3f}<small>{point['low']:.2f}–{point['high']:.2f}</small></td>"
                if point
                else "<td></td>"
            )
        rows += f"<tr class='{name}'><th>{escape(label)}</th>{cells}</tr>"
    count = next((point["n"] for row in points.values() for point in row.values()), 0)
    return (
        f"<table><thead><tr><th>candidates</th>{head}</tr></thead><tbody>{rows}</tbody></table>"
        f"<p class='note'>Share of {escape(str(count))} test questions answered right; small: 95 % interval. "
        "The oracle picks a right candidate wherever there is one.</p>"
    )


def _comparison(results: dict[str, Any]) -> str:
    rows = comparison_rows(results)
    if not rows:
        return ""
    head = "".join(f"<th>{escape(name)}</th>" for name in COLUMNS)
    body = "".join("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in rows)
    return (
        f"<table class='figures'><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
        "<p class='note'>The baselines read no text: a step's position alone, and how often the model that wrote the "
        "chain is right. Both are fitted on the training chains; every question here was held out.</p>"
    )


def _training_note(results: dict[str, Any]) -> str:
    error = results.get("cost", {}).get("check_error")
    skipped = results.get("cost", {}).get("skipped_outer_updates", 0)
    notes = []
    if error is not None:
        notes.append(f"Hypergradient checked against plain autograd: last relative error {error:.1e}.")
    if skipped:
        notes.append(f"{escape(str(skipped))} outer updates were skipped: their gradient was not finite.")
    return f"<p class='note'>{' '.join(notes)}</p>" if notes else ""


def _weights_note(results: dict[str, Any]) -> str:
    weights = results.get("weights", {})
    notes = []
    if weights.get("separation"):
        auc = weights["separation"]["auc"]["value"]
        notes.append(f"Weights tell rightly labelled from mislabelled examples with an AUC of {auc:.3f}.")
    if weights.get("domain_rank_correlation"):
        value = weights["domain_rank_correlation"]["value"]
        notes.append(f"Rank correlation of domain weights with known quality: {value:.2f}.")
    return f"<p class='note'>{' '.join(notes)} Training never saw this truth.</p>" if notes else ""


def _cards(rows: list[dict[str, Any]]) -> str:
    cards = []
    for row in rows:
        image = ""
        if row.get("image"):
            kind = "png" if row["image"][:4] == b"\x89PNG" else "jpeg"
            data = base64.b64encode(row["image"]).decode()
            image = f"<img alt='' src='data:image/{kind};base64,{data}'>"
        steps = ""
        for step, label, score in zip(row["steps"], row["labels"], row["scores"], strict=True):
            mark = "" if label is None else ("+" if label > 0.5 else "−")
            tone = "" if label is None else ("plus" if label > 0.5 else "minus")
            steps += f"<li><i class='{tone}'>{mark}</i><span>{escape(step)}</span><b>{score:.2f}</b></li>"
        good = row.get("known_good")
        badge = (
            "" if good is None else f"<em class='{'good' if good else 'bad'}'>{'right' if good else 'mislabelled'}</em>"
        )
        cards.append(
            f"<article><div class='top'>{image}<div><strong>{row['weight']:.3f}</strong>"
            f"<span>{escape(row['domain'])}</span>{badge}</div></div><p>{escape(row['question'])}</p><ol>{steps}</ol></article>"
        )
    if not cards:
        return ""
    note = "Sign: the label that training saw; number: the PRM's score of the step after training."
    return f"<div class='cards'>{''.join(cards)}</div><p class='note'>{note}</p>"


def _numbers(results: dict[str, Any]) -> str:
    rows = ""
    for group, name, value, ends in figures(results):
        shown = f"{value:,}" if isinstance(value, int) else f"{value:.4g}"
        interval = f"<small>{ends[0]:.4g} to {ends[1]:.4g}</small>" if ends else ""
        label = escape(name.replace("_", " "))
        rows += f"<tr><th>{escape(group)}</th><td>{label}</td><td>{shown}{interval}</td></tr>"
    return f"<table class='figures'><tbody>{rows}</tbody></table>" if rows else ""
