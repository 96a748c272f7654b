"""The PRM beside baselines that read no text, on all held-out chains and by collection, as rows of a table."""

from __future__ import annotations

from typing import Any

__all__ = ["COLUMNS", "comparison_rows"]

COLUMNS = ("collection", "scores by", "step AUC", "first-error F1", "F1, tuned on meta", "best of N")
_LABELS = {"position": "position only", "stronger_model": "prefer the stronger model"}


def comparison_rows(results: dict[str, Any], *, intervals: bool = True) -> list[tuple[str, ...]]:
    """One row per collection and method, cells as text, empty where a figure is not defined; no row without baselines.

    intervals: with 95 % intervals behind the values.
    """
    if not results.get("baselines"):
        return []
    baselines: dict[str, dict[str, Any]] = results["baselines"]
    methods = {"PRM": results} | {_LABELS.get(name, name): found for name, found in baselines.items()}
    rows: list[tuple[str, ...]] = []
    for collection in ("", *results.get("by_source", {})):
        for method, figures in methods.items():
            part = figures.get("by_source", {}).get(collection, {}) if collection else figures
            cells = _cells(part, intervals)
            if any(cells):
                rows.append((collection or "all", method, *cells))
    return rows


def _cells(part: dict[str, Any], intervals: bool) -> tuple[str, ...]:
    first, points = part.get("first_error") or {}, part.get("best_of_n", {}).get("prm", {})
    largest = max(points, key=int) if points else ""
    f1, tuned = first.get("f1"), (first.get("tuned") or {}).get("f1")
    return (
        _text((part.get("steps") or {}).get("auc"), intervals),
        "" if f1 is None else f"{f1:.3f}",
        "" if tuned is None else f"{tuned:.3f}",
        f"{_text(points[largest], intervals)}, N {largest}" if largest else "",
    )


def _text(point: dict[str, float] | None, interval: bool) -> str:
    if point is None:
        return ""
    ends = f" ({point['low']:.2f}–{point['high']:.2f})" if interval else ""
    return f"{point['value']:.3f}{ends}"
