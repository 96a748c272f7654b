"""What a finished run's folder holds, read once for the report."""

from __future__ import annotations

import json
from dataclasses import dataclass
from glob import glob
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import yaml

from dreamprm.errors import UserError
from dreamprm.metrics import read_metrics

__all__ = ["NAMES", "RunContent", "figures", "read_run", "run_without_selection"]

NAMES = {
    "policy": "policy alone",
    "self_consistency": "self-consistency",
    "prm": "PRM, best of N",
    "weighted_vote": "PRM-weighted vote",
    "oracle": "oracle",
}
"""How results.json's names are written for readers, in the order of tables and legends."""


@dataclass(frozen=True)
class RunContent:
    """results.json, metrics.jsonl, weights.parquet and examples.parquet of one run, as plain Python values."""

    folder: Path
    results: dict[str, Any]
    metrics: list[dict[str, Any]]
    weights: dict[str, list[Any]]
    examples: list[dict[str, Any]]
    config: str

    def series(self, phase: str, name: str) -> tuple[list[int], list[float]]:
        """(updates, values) of one logged number, without the updates where it was not logged."""
        rows = [row for row in self.metrics if row["phase"] == phase and row.get(name) is not None]
        return [row["update"] for row in rows], [row[name] for row in rows]


def figures(results: dict[str, Any]) -> list[tuple[str, str, float, tuple[float, float] | None]]:
    """Every single number of the groups steps, weights and cost: (group, name, value, its interval if it has one)."""
    found: list[tuple[str, str, float, tuple[float, float] | None]] = []

    def visit(group: str, name: str, value: Any) -> None:
        if isinstance(value, dict) and "value" in value:
            ends = (value["low"], value["high"]) if "low" in value else None
            found.append((group, name, value["value"], ends))
        elif isinstance(value, dict) and name == "separation":
            for inner, number in value.items():
                visit(group, inner.replace("auc", "auc_against_known"), number)
        elif isinstance(value, (int, float)) and not isinstance(value, bool):
            found.append((group, name, value, None))

    for group in ("steps", "weights", "cost"):
        for name, value in results.get(group, {}).items():
            if name != "threshold":  # a setting, not a figure
                visit(group, name, value)
    if results.get("sum_rule") is not None:
        visit("cost", "sum_rule", results["sum_rule"])
    return found


def read_run(folder: Path) -> RunContent:
    """Read a run's folder. Raises UserError where the run has not finished, or a file of it is damaged."""
    if not (folder / "results.json").is_file():
        raise UserError(f"{folder} holds no results.json: give the folder of a run that has finished")
    weights, examples = _table(folder / "weights.parquet"), _table(folder / "examples.parquet")
    config = folder / "config.yaml"
    return RunContent(
        folder=folder,
        results=_results(folder / "results.json"),
        metrics=read_metrics(folder / "metrics.jsonl") if (folder / "metrics.jsonl").is_file() else [],
        weights={} if weights is None else weights.to_pydict(),
        examples=[] if examples is None else examples.to_pylist(),
        config=config.read_bytes().decode("utf-8", "replace") if config.is_file() else "",
    )


def _results(path: Path) -> dict[str, Any]:
    try:
        results = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is damaged: {str(error).splitlines()[0]}") from error
    groups = ("best_of_n", "steps", "weights", "cost")
    if not isinstance(results, dict) or not all(isinstance(results.get(name, {}), dict) for name in groups):
        raise UserError(f"{path} is not what a run writes: it must be an object whose {', '.join(groups)} are objects")
    return {"experiment": "?", "seed": "?"} | results


def _table(path: Path) -> pa.Table | None:
    if not path.is_file():
        return None
    try:
        return pq.read_table(path)
    except (OSError, pa.ArrowInvalid) as error:
        raise UserError(f"{path} is damaged: {str(error).splitlines()[0]}") from error


_COMPARED = ("seed", "precision", "data", "meta", "test", "model", "cold", "inner")


def run_without_selection(run: RunContent) -> tuple[str, dict[str, Any]] | None:
    """(folder, results) of a finished run beside this one, `runs/*/*`, of the same settings but with every weight 1;
    None where there is none, and for such a run itself."""
    own = _plain(run.config)
    if not own or own.get("weigher", {}).get("kind") == "uniform":
        return None
    runs = run.folder.resolve().parent.parent
    for name in sorted(glob("*/*/results.json", root_dir=runs)):  # pathlib's raises where a folder vanishes
        path = runs / name
        try:  # a neighbour may vanish, or be half written, while this run ends
            other = _plain(path.with_name("config.yaml").read_text(encoding="utf-8"))
            same = all(other.get(name) == own.get(name) for name in _COMPARED)
            if other.get("weigher", {}).get("kind") == "uniform" and same:
                return f"{path.parents[1].name}/{path.parent.name}", json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            continue
    return None


def _plain(text: str) -> dict[str, Any]:
    """The mapping that a config.yaml holds; empty where it holds none, or shares parts by anchors, as no run writes."""
    try:
        loaded = {} if "&" in text else yaml.safe_load(text)
    except yaml.YAMLError:
        return {}
    return loaded if isinstance(loaded, dict) else {}
