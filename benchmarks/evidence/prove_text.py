"""The weighers on real chains, several seeds, paired: `python -m benchmarks.evidence.prove_text [--seeds 5]`.

Each seed holds out other questions, and draws other batches; all arms of a seed share these and one cold-started PRM.
Runs whose results.json exists are kept, so an interrupted proof goes on. Writes
benchmarks/reports/DATE-real-text.{json,md}. Needs the extra `text` and the data (DREAMPRM_DATA, or shared/data beside
the checkout).
"""

from __future__ import annotations

import argparse
import concurrent.futures
import datetime
import json
import os
import platform
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

from benchmarks.evidence.prove import REPORTS, run, show

ARMS = {
    "no_selection": ["weigher=uniform"],
    "domain_table": ["weigher=domain_table"],
    "instance_table": ["weigher=instance_table", "optimizer@outer.optimizer=row_adam"],
    "instance_net": ["weigher=instance_net"],
}
BASELINES = {"position": "position only", "stronger_model": "prefer the stronger model"}
# Column -> where its number stands in results.json.
FIGURES: dict[str, tuple[str, ...]] = {
    "step AUC": ("steps", "auc", "value"),
    "first-error F1": ("first_error", "f1"),
    "F1, threshold tuned on meta": ("first_error", "tuned", "f1"),
    "best-of-8": ("best_of_n", "prm", "8", "value"),
    "weighted vote": ("best_of_n", "weighted_vote", "8", "value"),
}

Results = dict[str, Any]


def figure(results: Results, path: tuple[str, ...]) -> float | None:
    """The number at a path, None where the results have none."""
    found: Any = results
    for name in path:
        found = found.get(name) if isinstance(found, dict) else None
    return found


def cells(runs: list[Results]) -> str:
    """Mean and interval of each figure over seeds."""
    texts = []
    for path in FIGURES.values():
        values = [value for value in (figure(run, path) for run in runs) if value is not None]
        texts.append(show(values) if len(values) == len(runs) else "-")
    return " | ".join(texts)


def tables(results: dict[str, list[Results]]) -> list[str]:
    """All held-out chains by arm and baseline; paired differences; by collection; the domains' weights."""
    head = f"| | {' | '.join(FIGURES)} |", f"|{'---|' * (len(FIGURES) + 1)}"
    reference = results["no_selection"]
    lines = [*head]
    lines += [f"| {arm} | {cells(runs)} |" for arm, runs in results.items()]
    for name, label in BASELINES.items():
        found = [run["baselines"][name] for run in reference if name in run.get("baselines", {})]
        if len(found) == len(reference):
            lines.append(f"| *{label}* | {cells(found)} |")
    lines += ["", "Paired by seed, minus no_selection:", "", *head]
    for arm, runs in results.items():
        if arm == "no_selection":
            continue
        texts = []
        for path in FIGURES.values():
            pairs = [(figure(one, path), figure(other, path)) for one, other in zip(runs, reference, strict=True)]
            told = [a - b for a, b in pairs if a is not None and b is not None]
            texts.append(show(told) if len(told) == len(pairs) else "-")
        lines.append(f"| {arm} | {' | '.join(texts)} |")
    lines += ["", "By collection, step AUC:", ""]
    collections = sorted({name for run in reference for name in run["by_source"]})
    path = FIGURES["step AUC"]
    told = [
        name
        for name in collections
        if all(figure(run["by_source"].get(name, {}), path) is not None for run in reference)
    ]
    lines += [f"| | {' | '.join(told)} |", f"|{'---|' * (len(told) + 1)}"]
    for arm, runs in results.items():
        values = [show([figure(run["by_source"][name], path) or 0.0 for run in runs]) for name in told]
        lines.append(f"| {arm} | {' | '.join(values)} |")
    lines += ["", "Mean weight of each domain's training chains, over seeds:", ""]
    learned = {arm: runs for arm, runs in results.items() if runs[0]["weights"]["spread"] > 1e-9}
    domains = sorted({name for run in reference for name in run["weights"]["domains"]})
    lines += [f"| domain | {' | '.join(learned)} |", f"|{'---|' * (len(learned) + 1)}"]
    for domain in domains:
        means = [[run["weights"]["domains"].get(domain) for run in runs] for runs in learned.values()]
        texts = [show([value for value in values if value is not None]) for values in means]
        lines.append(f"| {domain} | {' | '.join(texts)} |")
    return lines


def run_all(jobs: list[tuple[list[str], Path]], options: argparse.Namespace) -> None:
    """Several runs at once; stops at the first that fails."""
    with concurrent.futures.ThreadPoolExecutor(options.workers) as pool:
        for job in concurrent.futures.as_completed([pool.submit(run, *job) for job in jobs]):
            job.result()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--workers", type=int, default=2, help="runs at once, of one thread each")
    parser.add_argument("--folder", type=Path, default=Path("runs/prove_text"))
    parser.add_argument("overrides", nargs="*", help="settings for every arm, as inner.updates=300")
    options = parser.parse_args()
    folder: Path = options.folder.resolve()
    seeds = range(options.seeds)
    common = ["+experiment=real_text", *options.overrides]
    cold = [folder / "cold" / f"seed{seed}" for seed in seeds]
    run_all([([*common, "weigher=uniform", "inner.updates=0", f"seed={seed}"], cold[seed]) for seed in seeds], options)
    run_all(
        [
            (
                [*common, *ARMS[arm], f"seed={seed}", f"model.path={cold[seed] / 'prm'}", "cold.updates=0"],
                folder / arm / f"seed{seed}",
            )
            for seed in seeds
            for arm in ARMS
        ],
        options,
    )
    results = {
        arm: [json.loads((folder / arm / f"seed{seed}" / "results.json").read_text()) for seed in seeds]
        for arm in ("cold", *ARMS)
    }
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False
    ).stdout.strip()
    import torch
    import transformers

    today = datetime.datetime.now(tz=datetime.UTC).date().isoformat()
    minutes = statistics.fmean(run["cost"]["seconds"] for runs in results.values() for run in runs) / 60
    text = [
        f"# Weighers on real text, {today}",
        "",
        f"`python -m benchmarks.evidence.prove_text {' '.join(sys.argv[1:])}` "
        f"at commit {commit}; torch {torch.__version__}, "
        f"transformers {transformers.__version__}, Python {platform.python_version()}, {os.cpu_count()} cores, one "
        f"thread and {minutes:.1f} minutes per run. {options.seeds} seeds; intervals are Student's, 95 %, over seeds.",
        "",
        *tables(results),
        "",
    ]
    path = REPORTS / f"{today}-real-text.md"
    path.write_text("\n".join(text), encoding="utf-8")
    path.with_suffix(".json").write_text(json.dumps({"commit": commit, "arms": results}))
    print(path)


if __name__ == "__main__":
    main()
