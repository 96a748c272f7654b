"""The terminal's last word: the table of results."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.table import Table

from dreamprm.report.content import NAMES

__all__ = ["print_results"]


def print_results(results: dict[str, Any], console: Console | None = None) -> None:
    """Print best-of-N with its intervals, then steps, weights and cost, one line each."""
    console = console or Console()
    if results.get("best_of_n"):
        console.print(_best_of_n(results))
    for title, group in (("steps", "steps"), ("weights", "weights"), ("cost", "cost")):
        numbers = {name: value for name, value in results.get(group, {}).items() if isinstance(value, (int, float))}
        if numbers:
            text = "   ".join(f"{name.replace('_', ' ')} {_short(value)}" for name, value in numbers.items())
            console.print(f"[bold]{title}[/bold]  {text}", highlight=False, soft_wrap=True)


def _best_of_n(results: dict[str, Any]) -> Table:
    points = results["best_of_n"]
    numbers = sorted({int(number) for row in points.values() for number in row})
    table = Table(title=f"{results['experiment']}, seed {results['seed']}: accuracy by candidates per question")
    table.add_column("")
    for number in numbers:
        table.add_column(str(number), justify="right")
    for name, label in NAMES.items():
        if name not in points:
            continue
        cells = [_interval(points[name].get(str(number))) for number in numbers]
        table.add_row(label, *cells, style="bold" if name == "prm" else None)
    return table


def _interval(point: dict[str, float] | None) -> str:
    if point is None:
        return ""
    return f"{point['value']:.3f} [dim]{point['low']:.2f}–{point['high']:.2f}[/dim]"


def _short(value: float) -> str:
    return f"{value:,}" if isinstance(value, int) else f"{value:.3g}"
