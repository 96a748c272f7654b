"""The report of a selection: accuracy against N, reliability, each question with its chains; one file, no script."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Any

from matplotlib import rc_context
from matplotlib.figure import Figure

from dreamprm.data.record import Image, Record
from dreamprm.files import write_atomically
from dreamprm.report.content import NAMES
from dreamprm.report.plots import _COLOURS, _STYLE, BLUE, GREY, _svg

__all__ = ["write_selection_report"]

_CSS = """
article.question { margin-bottom: 14px; } article.question > img { width: auto; max-width: 100%; height: auto; max-height: 280px; }
details.chosen > summary { color: var(--blue); font-weight: 600; } details { margin: 6px 0; overflow-wrap: anywhere; }
li mark { color: inherit; padding: 0 4px; border-radius: 4px; flex: none; } li span { white-space: pre-wrap; }
@media (max-width: 480px) { main { padding: 16px 8px; } section { padding: 4px 10px 12px; } }
"""  # noqa: E501 - one rule per line reads better


def write_selection_report(
    path: Path,
    records: Sequence[Record],
    step_scores: Sequence[Sequence[float]],
    lines: Sequence[dict[str, Any]],
    results: dict[str, Any],
    num_shown: int,
) -> Path:
    """Write the page; `lines` and `results` as the select command makes them, the first `num_shown` questions whole."""
    rows: dict[str, list[int]] = {}
    for row, record in enumerate(records):
        rows.setdefault(record.group, []).append(row)
    parts = [f"<header><p class=kind>selection</p><h1>{len(lines)} questions, {len(records)} chains</h1></header>"]
    if results:
        parts.append(_section("Accuracy by candidates per question", _curves(results)))
        parts.append(_section("Are chain scores probabilities?", _reliability(results["reliability"])))
    shown = [
        _question(
            line, [records[row] for row in rows[line["group"]]], [step_scores[row] for row in rows[line["group"]]]
        )
        for line in lines[:num_shown]
    ]
    parts.append(_section(f"Questions ({len(shown)} of {len(lines)})", "".join(shown)))
    page = (
        '<!doctype html><html lang="en"><head><meta charset="utf-8"><title>selection</title>'
        f'<meta name="viewport" content="width=device-width, initial-scale=1"><style>{_style()}{_CSS}</style></head>'
        f"<body><main>{''.join(parts)}</main></body></html>\n"
    )
    write_atomically(path, page.encode())
    return path


def _style() -> str:
    return (Path(__file__).parent / "style.css").read_text(encoding="utf-8")


def _section(title: str, body: str) -> str:
    return f"<section><h2>{escape(title)}</h2>{body}</section>"


def _curves(results: dict[str, Any]) -> str:
    with rc_context(_STYLE):
        figure = Figure(figsize=(6.4, 3.7), layout="constrained")
        axes = figure.add_subplot()
        for name, label in NAMES.items():
            points = results["best_of_n"].get(name)
            if points:
                numbers = [int(number) for number in points]
                axes.plot(numbers, [p["value"] for p in points.values()], color=_COLOURS[name], label=label, lw=2)
                low, high = ([p[end] for p in points.values()] for end in ("low", "high"))
                axes.fill_between(numbers, low, high, color=_COLOURS[name], alpha=0.12, lw=0)
        axes.set_xlabel("candidates per question")
        axes.set_ylabel("accuracy (bands: 95 %)")
        axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), fontsize=9)
        return _svg(figure)


def _reliability(found: dict[str, Any]) -> str:
    with rc_context(_STYLE):
        figure = Figure(figsize=(4.2, 3.4), layout="constrained")
        axes = figure.add_subplot()
        axes.plot([0, 1], [0, 1], "--", color=GREY, lw=1)
        axes.plot([b["score"] for b in found["bins"]], [b["right"] for b in found["bins"]], "o-", color=BLUE, lw=2)
        axes.set_xlabel("chain score")
        axes.set_ylabel("share of right chains")
        note = f'<p class="note">Expected calibration error {found["ece"]:.3f}; on the dashed line it would be 0.</p>'
        return _svg(figure) + note


def _question(line: dict[str, Any], records: Sequence[Record], scores: Sequence[Sequence[float]]) -> str:
    chains = "".join(
        _chain(record, row, score, place == line["index"])
        for place, (record, row, score) in enumerate(zip(records, scores, line["chain_scores"]))
    )
    images = "".join(f'<img alt="" src="{_source(image)}">' for image in records[0].images[:4])
    return f'<article class="question">{images}<p>{escape(line["question"])}</p>{chains}</article>'


def _chain(record: Record, scores: Sequence[float], score: float, chosen: bool) -> str:
    verdict = {True: "<em class=good>right</em>", False: "<em class=bad>wrong</em>", None: ""}[record.correct]
    answer = "" if record.answer is None else f"answer {escape(record.answer)}"
    steps = "".join(
        f'<li><mark style="background:hsl({120 * p:.0f} 70% 86%)">{p:.2f}</mark><span>{escape(step)}</span></li>'
        for step, p in zip(record.steps, scores)
    )
    head = f"{'chosen, ' if chosen else ''}score {score:.3f} {verdict} {answer}"
    return f"<details{' class=chosen open' if chosen else ''}><summary>{head}</summary><ol>{steps}</ol></details>"


def _source(image: Image) -> str:
    try:
        data = image.read_bytes() if isinstance(image, Path) else image
    except OSError:
        return ""
    kind = "png" if data[:4] == b"\x89PNG" else "webp" if data[8:12] == b"WEBP" else "jpeg"
    return f"data:image/{kind};base64,{base64.b64encode(data).decode()}"
