"""README.md of a trained PRM's folder: the card that a model hub shows. Its form is model_card.md.jinja."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from dreamprm.files import write_atomically
from dreamprm.report.content import NAMES

__all__ = ["CardFacts", "write_model_card"]


@dataclass(frozen=True)
class CardFacts:
    """What the card says beside the run's results.

    base: the base model's name on the hub, if it has one; model: what to call it otherwise.
    data, meta: kind and file names, never whole paths, which are a machine's own.
    """

    base: str | None
    model: str
    architecture: str
    head: str
    layout: str
    images: bool
    data: str
    meta: str
    weigher: str
    aggregation: str


def write_model_card(folder: Path, facts: CardFacts, results: dict[str, Any]) -> Path:
    """Write README.md into the PRM's folder; its path."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent), autoescape=False, undefined=StrictUndefined, trim_blocks=True
    )
    rows, num_questions = _rows(results)
    text = environment.get_template("model_card.md.jinja").render(
        **{name: _plain(value) for name, value in vars(facts).items()},
        name=_plain(results["experiment"]),
        seed=results["seed"],
        verdict=_plain(results.get("verdict") or ""),
        rows=rows,
        num_questions=num_questions,
        folder=folder.name,
        **{package: version(package) for package in ("torch", "transformers")},
        version=version("dreamprm"),
    )
    path = folder / "README.md"
    write_atomically(path, text.encode())
    return path


def _plain(value: Any) -> Any:
    """One line, without what would end a table's cell or begin markup."""
    return " ".join(value.replace("|", "/").replace("<", "&lt;").split()) if isinstance(value, str) else value


def _rows(results: dict[str, Any]) -> tuple[list[tuple[str, str]], int]:
    found: list[tuple[str, str]] = []
    num_questions = 0
    for name, label in NAMES.items():
        points = results.get("best_of_n", {}).get(name) or {}
        if points:
            largest = max(points, key=int)
            of = "" if name == "policy" else f" ({largest} candidates)"
            found.append((label + of, _value(points[largest])))
            num_questions = points[largest].get("n", num_questions)
    area = results.get("steps", {}).get("auc")
    if area:
        found.append(("AUC of steps", _value(area)))
    area = results.get("meta", {}).get("auc", {}).get("after")
    if area:
        found.append(("AUC of the meta set's chains", _value(area)))
    return found, num_questions


def _value(point: dict[str, Any]) -> str:
    ends = f" [{point['low']:.3f}, {point['high']:.3f}]" if "low" in point else ""
    return f"{point['value']:.3f}{ends}"
