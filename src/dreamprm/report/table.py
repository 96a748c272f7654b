"""The terminal's last word: the table of results."""

from __future__ import annotations

from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from dreamprm.report.comparison_table import COLUMNS, comparison_rows
from dreamprm.report.content import NAMES, figures

__all__ = ["print_results"]


def print_results(results: dict[str, Any], console: Console | None = None) -> None:
    """Print best-of-N with its intervals, then steps, weights and cost, one line each."""
    console = console or Console()
    if results.get("best_of_n"):
        console.print(_best_of_n(results))
    rows = comparison_rows(results, intervals=False)
    if rows:
        console.print(_comparison(rows))
    groups: dict[str, list[str]] = {}
    for group, name, value, _ in figures(results):
        if name in _SHOWN:
            groups.setdefault(group, []).append(f"{_SHOWN[name]} {_short(value)}")
    for group, texts in groups.items():
        console.print(f"[bold]{group:<8}[/bold] {'   '.join(texts)}", highlight=False, soft_wrap=True)
    if results.get("verdict"):
        console.print("[bold]verdict[/bold] ", Text(str(results["verdict"])), highlight=False, soft_wrap=True)


_SHOWN = {
    "auc": "AUC",
    "macro_f1": "macro-F1",
    "mean": "mean",
    "spread": "spread",
    "auc_against_known": "AUC against the known truth",
    "domain_rank_correlation": "rank correlation of domains",
    "seconds": "seconds",
    "peak_memory_mb": "peak MB",
    "check_error": "hypergradient check",
    "sum_rule": "sum rule, largest residual",
    "skipped_outer_updates": "skipped outer updates",
}


def _best_of_n(results: dict[str, Any]) -> Table:
    points = results["best_of_n"]
    numbers = sorted({int(number) for row in points.values() for number in row})
    title = f"{results['experiment']}, seed {results['seed']}: accuracy by candidates per question"
    # Without vertical lines four columns of intervals fit into eighty characters.
    table = Table(
        title=title, box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, collapse_padding=True, title_justify="left"
    )
    table.add_column("", no_wrap=True)
    for number in numbers:
        table.add_column(str(number), justify="right", no_wrap=True)
    for name, label in NAMES.items():
        if name not in points:
            continue
        cells = [_interval(points[name].get(str(number))) for number in numbers]
        table.add_row(label, *cells, style="bold" if name == "prm" else None)
    return table


def _comparison(rows: list[tuple[str, ...]]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, collapse_padding=True)
    for name in COLUMNS:
        table.add_column(name, overflow="fold")
    for row in rows:
        table.add_row(*row)
    return table


def _interval(point: dict[str, float] | None) -> str:
    if point is None:
        return ""
    low, high = (f"{point[end]:.2f}".removeprefix("0") for end in ("low", "high"))
    return f"{point['value']:.3f} [dim]{low}–{high}[/dim]"


def _short(value: float) -> str:
    if isinstance(value, int) or abs(value) >= 10:
        return f"{value:,.0f}"
    return f"{value:.1e}" if 0 < abs(value) < 1e-3 else f"{value:.3f}"
