"""A published benchmark in the terminal: every PRM beside the position alone, at the fixed and the best threshold."""

from __future__ import annotations

from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

__all__ = ["benchmark_rows", "print_benchmark", "print_categories"]

_FIGURES = {
    "visualprocessbench": (("macro-F1", ("macro_f1",)), ("mean of sources", ("macro_f1_weighted_by_source",))),
    "processbench": (("F1, mean of sources", ("f1",)), ("F1, together", ("pooled", "f1"))),
    "prmbench": (("PRMScore", ("prm_score",)),),
}
_PARTS = {"visualprocessbench": "by_source", "processbench": "by_source", "prmbench": "by_class"}
_THRESHOLDS = {"tuned": "tuned on gsm8k", "swept": "best threshold"}


def print_benchmark(results: dict[str, Any], console: Console | None = None) -> None:
    """Print the overall figures, then those of every source or class at the fixed threshold."""
    console = console or Console()
    head, *rows = benchmark_rows(results)
    table = Table(title=results["benchmark"], box=box.SIMPLE_HEAD, show_edge=False, title_justify="left")
    for place, name in enumerate(head):
        table.add_column(name, justify="right" if place else "left", overflow="fold")
    for row in rows:
        table.add_row(*row)
    console.print(table)


def print_categories(results: dict[str, Any], console: Console | None = None) -> None:
    """A benchmark of answers: the chosen chains by category, and what else its paper tells."""
    console = console or Console()
    table = Table(box=box.SIMPLE_HEAD, show_edge=False)
    table.add_column(f"{results['benchmark']}, by category", overflow="fold")
    for name in ("right", "questions"):
        table.add_column(name, justify="right")
    for name, row in results["by_category"].items():
        table.add_row(name, _text(row["value"]), str(row["n"]))
    for name in ("without_math", "score_strict", "score_loose"):
        if name in results:
            table.add_row(name.replace("_", " "), _text(results[name]), str(results.get("num_problems", "")))
    console.print(table)


def benchmark_rows(results: dict[str, Any]) -> list[list[str]]:
    """The table as texts, the head first: one column per scorer."""
    name, judged = results["benchmark"], results["judged"]
    rows = [["", *judged]]
    for key, title in ({"": "threshold"} | _THRESHOLDS).items():
        found = [scorer if not key else scorer.get(key) for scorer in judged.values()]
        if None in found:
            continue
        at = [f"{scorer['threshold']:.3g}" for scorer in found]
        rows.append([title if key else "fixed threshold", *at])
        rows += [[f"  {label}", *(_text(_at(s, path)) for s in found)] for label, path in _FIGURES[name]]
    parts = list(dict.fromkeys(part for scorer in judged.values() for part in scorer[_PARTS[name]]))
    rows.append([_PARTS[name].replace("by_", "by ") + ", fixed threshold", *[""] * len(judged)])
    for part in parts:
        values = [scorer[_PARTS[name]][part] for scorer in judged.values()]
        rows.append([f"  {part}", *(_text(value["f1"] if isinstance(value, dict) else value) for value in values)])
    if name == "prmbench":
        groups = next(iter(judged.values()))["by_group"]
        rows += [[f"  {group}", *(_text(s["by_group"][group]) for s in judged.values())] for group in groups]
    return rows


def _at(found: Any, path: tuple[str, ...]) -> Any:
    for key in path:
        found = found[key]
    return found


def _text(value: Any) -> str:
    if isinstance(value, dict):
        return f"{value['value']:.3f} {value['low']:.2f}–{value['high']:.2f}".replace(" 0.", " .").replace("–0.", "–.")
    return "-" if value is None else f"{value:.3f}"
