"""explorer/: every training example of a run, to sort, search and filter in a browser, without a server.

index.html reads columns.js (one number or short text per example) at once and rows/N.js (a thousand whole examples)
when one of them is opened: scripts, since a page on a disk may not read other files. Texts reach the page as JSON and
are set as text, never as markup. An example that the run followed shows its weight over time and what pulled at it; the
examples most like it are found in the browser, by the words of their questions.
"""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from dreamprm.data.record import Record
from dreamprm.files import replacing, write_atomically

__all__ = ["write_explorer"]

_HERE = Path(__file__).parent
_CHUNK = 1000
_TITLE = 90  # characters of a question in the list
_MOST = 200_000  # examples; a browser holds no more with pleasure
_MOMENTS = 60  # of an example; more than a small drawing shows
_LARGEST_IMAGE = 20_000  # bytes; larger ones would make the folder as large as the data


@dataclass(frozen=True)
class _Columns:
    """What the list shows and filters by, a value per example."""

    key: list[str]
    question: list[str]
    domains: list[str]
    domain: list[int]
    weight: list[float | None]
    loss: list[float | None]
    score: list[float | None]
    wrong: list[int]
    truth: list[int]


def write_explorer(
    folder: Path,
    title: str,
    records: Sequence[Record],
    rows: Sequence[dict[str, Any]],
    history: Mapping[int, Sequence[tuple[int, float, float]]] | None = None,
) -> Path | None:
    """Write folder/index.html and its data; the page's path, None for more than 200,000 examples.

    rows: one per record, with the columns of weights.parquet (weight, loss, step_scores, step_weights, known_good).
    history: by the number of the record, (update, weight, pull), for those that the run followed.
    """
    if len(rows) > _MOST:
        return None
    columns = _columns(records, rows)
    with replacing(folder) as part:
        (part / "rows").mkdir(parents=True)
        write_atomically(part / "columns.js", f"window.COLUMNS={_json(vars(columns))}\n".encode())
        for number in range(math.ceil(len(rows) / _CHUNK)):
            place = slice(number * _CHUNK, (number + 1) * _CHUNK)
            found = zip(range(len(rows))[place], records[place], rows[place], strict=True)
            whole = [_whole(record, row, (history or {}).get(i, ())) for i, record, row in found]
            text = f"window.addRows({number},{_json(whole)})\n"
            write_atomically(part / "rows" / f"{number}.js", text.encode())
        page = _page(title, has_truth=any(value >= 0 for value in columns.truth))
        write_atomically(part / "index.html", page.encode())
    return folder / "index.html"


def _page(title: str, has_truth: bool) -> str:
    environment = Environment(
        loader=FileSystemLoader(_HERE), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    css = Markup((_HERE / "style.css").read_text(encoding="utf-8"))
    return environment.get_template("explorer.html.jinja").render(
        title=title, css=css, chunk=_CHUNK, has_truth=has_truth
    )


def _columns(records: Sequence[Record], rows: Sequence[dict[str, Any]]) -> _Columns:
    domains = sorted({record.domain for record in records})
    number = {name: place for place, name in enumerate(domains)}
    return _Columns(
        key=[record.key for record in records],
        question=[" ".join(record.question.split())[:_TITLE] for record in records],
        domains=domains,
        domain=[number[record.domain] for record in records],
        weight=_rounded(row["weight"] for row in rows),
        loss=_rounded(row["loss"] for row in rows),
        score=_rounded(min(row["step_scores"], default=math.nan) for row in rows),
        wrong=[int(any(label is not None and label <= 0.5 for label in record.labels)) for record in records],
        truth=[-1 if row["known_good"] is None else int(row["known_good"]) for row in rows],
    )


def _whole(record: Record, row: dict[str, Any], moments: Sequence[tuple[int, float, float]]) -> dict[str, Any]:
    found: dict[str, Any] = {
        "question": record.question,
        "steps": list(record.steps),
        "labels": list(record.labels),
        "scores": _rounded(row["step_scores"]),
    }
    if row.get("step_weights") is not None:
        found["weights"] = _rounded(row["step_weights"])
    if moments:
        thin = moments[:: math.ceil(len(moments) / _MOMENTS)]
        found["history"] = [list(moment) for moment in thin]
        pulls = [pull for _, _, pull in moments]
        found["pulls"] = [len(pulls), sum(pull > 0 for pull in pulls), sum(pulls) / len(pulls)]
    image = _image(record)
    return found | ({"image": image} if image else {})


def _image(record: Record) -> str | None:
    if not record.images:
        return None
    first = record.images[0]
    try:
        if isinstance(first, Path) and first.stat().st_size > _LARGEST_IMAGE:
            return None
        data = first.read_bytes() if isinstance(first, Path) else bytes(first)
    except OSError:
        return None  # gone since it was trained on: the page does without
    if len(data) > _LARGEST_IMAGE:
        return None
    kind = "png" if data[:4] == b"\x89PNG" else "jpeg"
    return f"data:image/{kind};base64,{base64.b64encode(data).decode()}"


def _rounded(values: Iterable[float]) -> list[float | None]:
    """JSON has no NaN; six digits are more than a page shows."""
    return [round(value, 6) if math.isfinite(value) else None for value in values]


def _json(value: Any) -> str:
    """JSON that ends no script: `</script>` and JavaScript's own line ends are written as escapes."""
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")
