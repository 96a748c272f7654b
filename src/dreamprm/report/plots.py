"""The report's figures, each as an SVG string to stand in the page."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from dreamprm.metrics import PhaseName
from dreamprm.report.content import NAMES, RunContent

__all__ = [
    "best_of_n_figure",
    "curve_figures",
    "domain_figure",
    "quality_figure",
    "reliability_figure",
    "selection_figure",
]

BLUE, ORANGE, GREEN, RED, GREY = "#3d82cc", "#d97a1f", "#2f9a69", "#cf5a50", "#8a919c"
INK, EDGE, GRID, TICKS, PLATE = "#2d333b", "#c3c8d0", "#eceef1", "#59616d", "#fffffe"
_VARIABLES = {INK: "--ink", EDGE: "--edge", GRID: "--grid", TICKS: "--soft", PLATE: "--card"}
"""Colours that follow the page's light or dark scheme, as variables of style.css."""
_COLOURS = {"policy": GREY, "self_consistency": ORANGE, "prm": BLUE, "weighted_vote": GREEN, "oracle": "#b9bec7"}
_STYLE: Any = {
    "font.size": 9.5,
    "axes.edgecolor": EDGE,
    "axes.labelcolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": GRID,
    "xtick.color": TICKS,
    "ytick.color": TICKS,
    "axes.titlesize": 10,
    "axes.titleweight": "bold",
    "axes.titlecolor": INK,
    "axes.titlelocation": "left",
    "legend.frameon": False,
    "text.color": INK,
    "text.parse_math": False,  # a domain named "$x" is a name
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    "svg.hashsalt": "dreamprm",
}


def _svg(figure: Figure) -> str:
    stream = io.StringIO()
    FigureCanvasSVG(figure).print_svg(stream, metadata={"Date": None})
    text = stream.getvalue()
    for colour, variable in _VARIABLES.items():
        text = text.replace(f": {colour}", f": var({variable})")
    return text[text.index("<svg") :]


def smooth(values: Sequence[float], width: int) -> np.ndarray:
    """Running mean over the last `width` values (fewer at the start)."""
    sums = np.cumsum(np.concatenate([[0.0], np.asarray(values, dtype=float)]))
    ends = np.arange(1, len(values) + 1)
    starts = np.maximum(0, ends - width)
    return (sums[ends] - sums[starts]) / (ends - starts)


def best_of_n_figure(run: RunContent) -> str:
    """Accuracy over the number of candidates, every selector a line, its 95 % interval a band."""
    numbers = sorted({int(number) for row in run.results["best_of_n"].values() for number in row})
    if not numbers:
        return ""
    with rc_context(_STYLE):
        figure = Figure(figsize=(5.2, 4.0), layout="constrained")
        axes = figure.add_subplot()
        for name, label in NAMES.items():
            points = run.results["best_of_n"].get(name)
            if not points:
                continue
            values = [points[str(number)] for number in numbers]
            style = "--" if name in ("oracle", "policy") else "-"
            axes.plot(
                numbers, [v["value"] for v in values], style, marker="o", ms=4, lw=2, color=_COLOURS[name], label=label
            )
            if name in ("prm", "weighted_vote"):
                axes.fill_between(
                    numbers, [v["low"] for v in values], [v["high"] for v in values], color=_COLOURS[name], alpha=0.12
                )
        axes.set_xscale("log", base=2)
        axes.set_xticks(numbers, [str(number) for number in numbers])
        axes.minorticks_off()
        axes.set_xlabel("candidates per question")
        axes.set_ylabel("accuracy")
        figure.legend(loc="outside lower center", ncols=3, fontsize=9)
        return _svg(figure)


def selection_figure(points: Mapping[str, Mapping[str, Mapping[str, float]]]) -> str:
    """Accuracy over every N, each selector a line with its 95 % band. points: method -> N -> cell."""
    with rc_context(_STYLE):
        figure = Figure(figsize=(6.0, 4.2), layout="constrained")
        axes = figure.add_subplot()
        for name, label in NAMES.items():
            if name in points:
                numbers = [int(number) for number in points[name]]
                cells = list(points[name].values())
                style = "--" if name in ("oracle", "policy") else "-"
                axes.plot(numbers, [c["value"] for c in cells], style, color=_COLOURS[name], label=label, lw=2)
                low, high = ([cell[end] for cell in cells] for end in ("low", "high"))
                axes.fill_between(numbers, low, high, color=_COLOURS[name], alpha=0.12, lw=0)
        axes.xaxis.set_major_locator(MaxNLocator(8, integer=True))
        axes.set_xlabel("candidates per question")
        axes.set_ylabel("accuracy")
        figure.legend(loc="outside lower center", ncols=3, fontsize=9)
        return _svg(figure)


def reliability_figure(bins: Sequence[Mapping[str, float]]) -> str:
    """The share of right chains over the chain score, a point per bin, its area that of the chains in it."""
    with rc_context(_STYLE):
        figure = Figure(figsize=(4.4, 3.6), layout="constrained")
        axes = figure.add_subplot()
        axes.plot([0, 1], [0, 1], "--", color=GREY, lw=1)
        scores, right = ([row[name] for row in bins] for name in ("score", "right"))
        most = max(row["n"] for row in bins)
        axes.plot(scores, right, color=BLUE, lw=1.4)
        axes.scatter(scores, right, s=[12 + 120 * row["n"] / most for row in bins], color=BLUE, alpha=0.8, lw=0)
        axes.set_xlim(0, 1)
        axes.set_ylim(0, 1)
        axes.set_xlabel("chain score")
        axes.set_ylabel("share of right chains")
        return _svg(figure)


_PANELS: list[tuple[PhaseName, str, list[tuple[str, str, str]]]] = [
    (PhaseName.COLD, "cold start: loss", [("loss", "+/− loss", BLUE)]),
    (PhaseName.COLD, "cold start: dense loss", [("dense_loss", "dense loss", GREY)]),
    (PhaseName.TRUST, "trust: loss", [("loss", "+/− loss", BLUE)]),
    (PhaseName.BILEVEL, "bilevel: inner loss", [("inner_loss", "inner", BLUE)]),
    (PhaseName.BILEVEL, "bilevel: outer loss", [("outer_loss", "outer", ORANGE)]),
    (PhaseName.BILEVEL, "bilevel: weights, mean ± spread", [("weight_mean", "mean ± spread", GREEN)]),
]


def curve_figures(run: RunContent) -> list[str]:
    """One figure per number that training logged, each on an axis of its own, over the updates of its phase."""
    found: list[str] = []
    for phase, title, lines in _PANELS:
        if not any(run.series(phase, name)[0] for name, _, _ in lines):
            continue
        with rc_context(_STYLE):
            figure = Figure(figsize=(4.2, 2.5), layout="constrained")
            axes = figure.add_subplot()
            for name, label, colour in lines:
                _curve(axes, run, phase, name, label, colour)
            axes.set_title(title)
            axes.set_xlabel("update of the phase")
            axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
            found.append(_svg(figure))
    return found


def _curve(axes: Axes, run: RunContent, phase: PhaseName, name: str, label: str, colour: str) -> None:
    updates, values = run.series(phase, name)
    if not updates:
        return
    first = min(row["update"] for row in run.metrics if row["phase"] == phase)
    updates = [update - first + 1 for update in updates]
    width = max(1, len(values) // 25)
    line = smooth(values, width)
    if name == "weight_mean":
        spread = smooth(run.series(phase, "weight_std")[1], width)
        axes.fill_between(updates, line - spread, line + spread, color=colour, alpha=0.15, lw=0)
    else:
        axes.plot(updates, values, color=colour, alpha=0.18, lw=0.8)
    axes.plot(updates, line, color=colour, lw=1.8, label=label)


def quality_figure(run: RunContent) -> str:
    """Histograms of the weights of examples known to be good and known to be bad."""
    known = run.weights.get("known_good", [])
    weights = np.asarray(run.weights.get("weight", []), dtype=float)
    good = np.array([flag is True for flag in known], dtype=bool)
    bad = np.array([flag is False for flag in known], dtype=bool)
    if not good.any() or not bad.any():
        return ""
    spread = weights[good | bad]
    low, high = float(spread.min()), float(spread.max())
    if high - low < 1e-6:
        low, high = low - 0.5, high + 0.5
    bins = np.linspace(low, high, 41)
    with rc_context(_STYLE):
        figure = Figure(figsize=(5.2, 3.0), layout="constrained")
        axes = figure.add_subplot()
        for mask, colour, label in ((good, BLUE, "labelled right"), (bad, RED, "mislabelled")):
            text = f"{label} (n = {mask.sum()}, mean {weights[mask].mean():.2f})"
            axes.hist(weights[mask], bins=list(bins), color=colour, alpha=0.55, label=text)
        axes.set_xlabel("weight")
        axes.set_ylabel("training examples")
        axes.legend(fontsize=9)
        return _svg(figure)


def domain_figure(run: RunContent) -> str:
    """One bar per domain: its examples' mean weight, sorted, as in DreamPRM's figure; a line at the overall mean."""
    if not run.weights:
        return ""
    domains: dict[str, list[float]] = {}
    qualities: dict[str, list[float]] = {}
    known = run.weights.get("known_quality", [None] * len(run.weights["weight"]))
    for domain, weight, quality in zip(run.weights["domain"], run.weights["weight"], known, strict=True):
        domains.setdefault(domain, []).append(weight)
        if quality is not None:
            qualities.setdefault(domain, []).append(quality)
    order = sorted(domains, key=lambda name: -float(np.mean(domains[name])))
    means = [float(np.mean(domains[name])) for name in order]
    middle = float(np.mean(run.weights["weight"]))
    with rc_context(_STYLE):
        figure = Figure(figsize=(5.2, 0.34 * len(order) + 1.0), layout="constrained")
        axes = figure.add_subplot()
        axes.grid(axis="y", visible=False)
        span = max(*means, 0.0) - min(*means, 0.0) or 1.0  # all weights may be 0
        places = range(len(order))
        colours = [BLUE if mean >= middle else ORANGE for mean in means]
        axes.barh(places, means, color=colours, height=0.66, alpha=0.85)
        for place, name, mean in zip(places, order, means, strict=True):
            known_text = f"   known quality {np.mean(qualities[name]):.1f}" if qualities.get(name) else ""
            plate = {"facecolor": PLATE, "edgecolor": "none", "pad": 0.6}
            start = max(mean, 0.0) + 0.012 * span
            axes.text(start, place, f"{mean:.2f}{known_text}", va="center", fontsize=8.5, color=INK, bbox=plate)
        axes.axvline(middle, color=INK, lw=0.9, ls=":", zorder=1.5)
        axes.set_yticks(places, order)
        axes.invert_yaxis()
        axes.set_xlim(min(0.0, *means), max(*means, 0.0) + 0.32 * span)
        axes.set_xlabel("mean weight (dotted: over all domains)")
        return _svg(figure)
