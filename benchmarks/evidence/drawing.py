"""The reports' figures: SVG files without a ground of their own, in colours that can be read on white and on black."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib import rc_context
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

__all__ = ["COLOURS", "Interval", "draw_dots", "draw_lines"]

INK, FAINT = "#737b86", "#9aa1ab"  # contrast above 4 : 1 on white and on #0d1117 alike; the lines between
COLOURS = {"learned weights": "#3d82cc", "trains on outcomes": "#d97a1f", "neither": INK, "bound": "#2f9a69"}
LINES = ("#3d82cc", "#d97a1f", "#2f9a69", "#cf5a50", "#9467bd", INK)
_STYLE: Any = {
    "font.size": 9,
    "axes.edgecolor": FAINT,
    "axes.labelcolor": INK,
    "axes.titlecolor": INK,
    "axes.titlesize": 10,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": FAINT,
    "grid.alpha": 0.3,
    "xtick.color": INK,
    "ytick.color": INK,
    "text.color": INK,
    "legend.frameon": False,
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    "svg.hashsalt": "evidence",
    "svg.fonttype": "none",
    "font.family": "sans-serif",
}
Interval = tuple[float, float, float]
"""Mean, lower and upper end."""


def draw_dots(
    panels: Mapping[str, Mapping[str, Interval]],
    kinds: Mapping[str, str],
    marks: Mapping[str, float],
    axis: str,
    path: Path,
    described: str,
) -> None:
    """One panel for each key: rows from best to worst, a dot with its interval, coloured by the kind of the row; marks
    are lines through all panels."""
    rows = max(map(len, panels.values()))
    with rc_context(_STYLE):
        figure = Figure(figsize=(3.4 * len(panels), 0.9 + 0.24 * rows), layout="constrained")
        for place, (title, found) in enumerate(panels.items(), 1):
            axes = figure.add_subplot(1, len(panels), place)
            order = sorted(found, key=lambda name: found[name][0])
            for height, name in enumerate(order):
                mean, low, high = found[name]
                colour = COLOURS[kinds[name]]
                axes.plot([low, high], [height, height], color=colour, linewidth=1.6)
                axes.plot([mean], [height], "o", color=colour, markersize=5)
            for name, value in marks.items():
                axes.axvline(value, color=INK, linewidth=1, linestyle=":")
                axes.text(value, len(order) - 0.3, name, fontsize=7.5, ha="center", va="bottom")
            axes.set_yticks(range(len(order)), [name.replace("_", " ") for name in order])
            axes.set_ylim(-0.6, rows + 0.4)
            axes.set_title(title, pad=12)
            axes.set_xlabel(axis)
            axes.grid(axis="y", visible=False)
        used = [kind for kind in COLOURS if any(kinds[name] == kind for found in panels.values() for name in found)]
        for kind in used:
            axes.plot([], [], "o-", color=COLOURS[kind], label=kind)
        figure.legend(loc="outside lower center", ncols=len(used))
        _save(figure, path, described)


def draw_lines(
    panels: Mapping[str, Mapping[str, Sequence[Interval]]],
    x: Sequence[str],
    axis: str,
    value: str,
    path: Path,
    described: str,
    level: float | None = None,
) -> None:
    """One panel for each key, its rows as lines over `x`, which are placed at equal distances, intervals as bars."""
    with rc_context(_STYLE):
        figure = Figure(figsize=(3.6 * len(panels), 2.8), layout="constrained")
        for place, (title, found) in enumerate(panels.items(), 1):
            axes = figure.add_subplot(1, len(panels), place)
            for number, (name, points) in enumerate(found.items()):
                colour, shift = LINES[number % len(LINES)], 0.06 * (number - (len(found) - 1) / 2)
                places = [column + shift for column in range(len(points))]
                means = [point[0] for point in points]
                errors = [[m - low for m, low, _ in points], [high - m for m, _, high in points]]
                axes.errorbar(places, means, errors, color=colour, marker="o", markersize=4, linewidth=1.4, label=name)
            if level is not None:
                axes.axhline(level, color=INK, linewidth=1, linestyle=":")
            axes.set_xticks(range(len(x)), x)
            axes.set_xlabel(axis)
            axes.set_ylabel(value)
            axes.set_title(title)
            axes.legend(fontsize=7.5)
        _save(figure, path, described)


def _save(figure: Figure, path: Path, described: str) -> None:
    """The file, with a title that screen readers say."""
    import io

    stream = io.StringIO()
    FigureCanvasSVG(figure).print_svg(stream, metadata={"Date": None, "Creator": None})
    text = stream.getvalue()
    start = text.index(">", text.index("<svg")) + 1
    said = described.replace("&", "&amp;").replace("<", "&lt;")
    path.write_text(f"{text[:start]}\n <title>{said}</title>{text[start:]}", encoding="utf-8")
