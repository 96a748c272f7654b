"""The report as plain data for JSON, and as tables for people."""

from __future__ import annotations

from collections import Counter
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from dreamprm.doctor.findings import Finding
from dreamprm.doctor.survey import Survey
from dreamprm.doctor.trivial import Predictor

__all__ = ["as_data", "show"]

_COLOURS = {"error": "bold red", "warning": "yellow", "info": "cyan"}


def _quantile(counts: Counter[int], share: float) -> int:
    seen, total = 0, counts.total()
    for value in sorted(counts):
        seen += counts[value]
        if seen >= share * total:
            return value
    return 0


def as_data(found: Survey, features: list[Predictor]) -> dict[str, Any]:
    """Counts of one data set, for JSON."""
    steps, chains = found.num_steps, Counter(group[0] for group in found.groups.values())
    num_labels, judged = found.positive + found.negative, [g for g in found.groups.values() if g[1] + g[2] > 1]
    return {
        "files": found.files,
        "formats": found.formats,
        "rows": found.rows,
        "bad_rows": found.bad.count,
        "chains": found.records,
        "questions": len(found.groups),
        "chains_per_question": {str(size): count for size, count in sorted(chains.items())},
        "mixed_questions": sum(1 for g in judged if g[1] and g[2]),
        "domains": dict(found.domains.most_common()),
        "ids": len(found.ids),
        "duplicates": found.duplicates,
        "steps": {
            "total": sum(size * count for size, count in steps.items()),
            "mean": round(sum(size * count for size, count in steps.items()) / max(1, steps.total()), 3),
            "median": _quantile(steps, 0.5),
            "longest": max(steps, default=0),
            "chains_without": steps[0],
            "bare_answers": found.bare_answers,
        },
        "labels": {
            "right": found.positive,
            "wrong": found.negative,
            "soft": found.soft,
            "without": found.unlabelled,
            "wrong_share": round(found.negative / num_labels, 5) if num_labels else None,
            "chains": found.labelled_chains,
        },
        "correct": {"right": sum(found.right), "wrong": len(found.right) - sum(found.right)},
        "digits": {"rows_lost": found.rows_losing_digits, "rows_at_risk": found.rows_risking_digits},
        "images": {
            "files": found.images,
            "checked": found.images_checked,
            "missing": found.images_missing,
            "broken": found.images_broken,
        },
        "trivial_features": {item.feature: round(item.auc, 4) for item in features},
        "longest_text": found.longest,
    }


def _line(data: dict[str, Any], *path: str) -> str:
    value: Any = data
    for name in path:
        value = value[name]
    return f"{value:,}" if isinstance(value, (int, float)) else "-" if value is None else str(value)


_LINES: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("rows", ("rows",)),
    ("bad rows", ("bad_rows",)),
    ("questions", ("questions",)),
    ("chains", ("chains",)),
    ("questions with right and wrong chains", ("mixed_questions",)),
    ("steps", ("steps", "total")),
    ("steps per chain, mean", ("steps", "mean")),
    ("steps per chain, median", ("steps", "median")),
    ("steps per chain, most", ("steps", "longest")),
    ("chains without steps", ("steps", "chains_without")),
    ("chains that are a bare answer", ("steps", "bare_answers")),
    ("step labels +", ("labels", "right")),
    ("step labels -", ("labels", "wrong")),
    ("soft step labels", ("labels", "soft")),
    ("steps without label", ("labels", "without")),
    ("chains right by their answer", ("correct", "right")),
    ("chains wrong by their answer", ("correct", "wrong")),
    ("different ids", ("ids",)),
    ("duplicate rows", ("duplicates",)),
    ("images", ("images", "files")),
    ("images missing", ("images", "missing")),
    ("images broken", ("images", "broken")),
)


def show(console: Console, data: dict[str, dict[str, Any]], findings: dict[str, list[Finding]]) -> None:
    """One table of counts with a column per data set, one of findings."""
    counts = Table(title="What the files hold", title_justify="left")
    counts.add_column("")
    for name, part in data.items():
        counts.add_column(f"{name}\n{escape('+'.join(part['formats']))}", justify="right")
    for title, path in _LINES:
        counts.add_row(title, *(_line(part, *path) for part in data.values()))
    console.print(counts)
    table = Table(title="Findings", title_justify="left", show_lines=True)
    for column in ("where", "", "finding", "what to do"):
        table.add_column(column, overflow="fold")
    for name, listed in findings.items():
        for item in listed:
            colour = _COLOURS[item.severity.value]
            example = f"\n[dim]e.g. {escape(item.examples[0][:4096])}[/dim]" if item.examples else ""
            words = escape(item.message) + example
            table.add_row(name, f"[{colour}]{item.severity.value}[/{colour}]", words, escape(item.advice))
    console.print(table if table.row_count else "No findings.")
