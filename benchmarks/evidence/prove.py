"""The slow proof: every weigher on the embedded world, several seeds, paired. `make prove`, or

    python -m benchmarks.evidence.prove [--seeds 5] [--workers 2] [--folder runs/prove] [OVERRIDE ...]

A seed decides the cold start, which chains are drawn, which labels are wrong, and the order of the batches; all arms of
a seed share its cold-started PRM, so that they differ in their weights alone. Runs whose results.json exists are kept,
so an interrupted proof goes on. Writes benchmarks/reports/DATE-world.{json,md}.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import datetime
import json
import math
import os
import platform
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

from scipy import stats

from dreamprm.evaluate.weights import domain_rank_correlation
from dreamprm.world.trouble import DOMAIN_SOURCES

REPORTS = Path(__file__).parents[1] / "reports"
# Arm -> the command's overrides. The domain arms run on the world whose domains are bad as a whole.
ARMS = {
    "no_selection": ["+experiment=no_selection"],
    "clean_only": ["+experiment=clean_only"],
    "instance_net": ["+experiment=instance_net"],
    "instance_table": ["+experiment=instance_table"],
    "paper_recipe": ["+experiment=paper_recipe"],
    "domains_no_selection": ["+experiment=no_selection", "data=world_domains"],
    "domains_instance_net": ["+experiment=instance_net", "data=world_domains"],
    "domain_table": ["+experiment=domain_table"],
}


def run(arguments: list[str], folder: Path) -> None:
    """One training run in a process of its own, with its log beside it."""
    if (folder / "results.json").is_file():
        return
    folder.parent.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "src.train", *arguments, f"run_dir={folder}", "threads=1", "log_every=25"]
    with open(folder.parent / f"{folder.name}.log", "w", encoding="utf-8") as log:
        log.write(" ".join(command[1:]) + "\n")
        log.flush()
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
        status = subprocess.run(command, stdout=log, stderr=subprocess.STDOUT, env=environment, check=False).returncode
    if status:
        raise SystemExit(f"{' '.join(command[1:])} ended with {status}; see {log.name}")


def run_all(jobs: list[tuple[list[str], Path]], workers: int) -> None:
    """All jobs (arguments, folder), `workers` at a time. Raises SystemExit at the first that fails."""
    with concurrent.futures.ThreadPoolExecutor(workers) as pool:
        for job in concurrent.futures.as_completed([pool.submit(run, *job) for job in jobs]):
            job.result()


def interval(values: list[float]) -> tuple[float, float, float]:
    """Mean and Student's 95 % interval over seeds."""
    mean = statistics.fmean(values)
    if len(values) < 2:
        return mean, math.nan, math.nan
    half = float(stats.t.ppf(0.975, len(values) - 1)) * statistics.stdev(values) / math.sqrt(len(values))
    return mean, mean - half, mean + half


def show(values: list[float]) -> str:
    mean, low, high = interval(values)
    return f"{mean:.3f} [{low:.3f}, {high:.3f}]"


def collect(folder: Path, seeds: range) -> dict[str, list[dict[str, Any]]]:
    """Arm -> its results by seed, for the arms that all seeds have finished."""
    found = {}
    for arm in ARMS:
        paths = [folder / arm / f"seed{seed}" / "results.json" for seed in seeds]
        if all(path.is_file() for path in paths):
            found[arm] = [json.loads(path.read_text()) for path in paths]
    return found


def best(results: list[dict[str, Any]], name: str = "prm", number: str = "8") -> list[float]:
    return [result["best_of_n"][name][number]["value"] for result in results]


def table(results: dict[str, list[dict[str, Any]]]) -> list[str]:
    """One row per arm, then the paired differences."""
    lines = [
        "| arm | best-of-8, PRM | best-of-8, PRM-weighted vote | step AUC | AUC of weight against mislabelled"
        " | rank correlation of domains' weights: with quality | with their share of right labels | check cosine"
        " | minutes |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for arm, runs in results.items():
        weights = [run["weights"] for run in runs]
        separations = [w["separation"]["auc"]["value"] for w in weights if w.get("separation")]
        ranks = [w["domain_rank_correlation"] for w in weights]
        ranks = [r["value"] if isinstance(r, dict) else r for r in ranks if r is not None]
        learned = weights[0]["spread"] > 1e-9
        checks = [run["cost"]["check_error"] for run in runs if "check_error" in run["cost"]]
        minutes = statistics.fmean(run["cost"]["seconds"] for run in runs) / 60
        lines.append(
            f"| {arm} | {show(best(runs))} | {show(best(runs, 'weighted_vote'))} "
            f"| {show([run['steps']['auc']['value'] for run in runs])} "
            f"| {show(separations) if learned and separations else '-'} | {show(ranks) if learned and ranks else '-'} "
            f"| {show([label_rank(w['domains']) for w in weights]) if learned and ranks else '-'} "
            f"| {show(checks) if checks else '-'} | {minutes:.1f} |"
        )
    return lines


def label_rank(weights: dict[str, float]) -> float:
    """Spearman's correlation of the sources' weights with their share of right labels alone.

    The world's own `quality` also sets the sources that are trivial or off the target to 0, right as their labels are.
    """
    right = {source.name: 1 - source.flipped for sources in DOMAIN_SOURCES.values() for source in sources}
    found = domain_rank_correlation(weights, right)
    return math.nan if found is None else found["value"]


def differences(results: dict[str, list[dict[str, Any]]]) -> list[str]:
    """Paired by seed: gains over no_selection, shares of the gap to clean_only, the vote against self-consistency."""
    lines = ["| paired by seed | mean [95 %] |", "|---|---|"]

    def row(text: str, values: list[float]) -> None:
        lines.append(f"| {text} | {show(values)} |")

    for base, arms in (
        ("no_selection", ("clean_only", "instance_net", "instance_table", "paper_recipe")),
        ("domains_no_selection", ("domain_table", "domains_instance_net")),
    ):
        for arm in arms:
            if base in results and arm in results:
                pairs = zip(best(results[arm]), best(results[base]), strict=True)
                row(f"best-of-8: {arm} - {base}", [a - b for a, b in pairs])
    if {"no_selection", "clean_only"} <= results.keys():
        low, high = best(results["no_selection"]), best(results["clean_only"])
        for arm in ("instance_net", "instance_table", "paper_recipe"):
            if arm in results:
                values = best(results[arm])
                closed = (statistics.fmean(values) - statistics.fmean(low)) / (
                    statistics.fmean(high) - statistics.fmean(low)
                )
                lines.append(
                    f"| share of the gap no_selection -> clean_only closed by {arm} (of means) | {closed:.2f} |"
                )
    for arm in ("instance_net", "instance_table"):
        if arm in results:
            pairs = zip(best(results[arm], "weighted_vote"), best(results[arm], "self_consistency"), strict=True)
            row(f"{arm}: PRM-weighted vote - self-consistency, best-of-8", [a - b for a, b in pairs])
    return lines


def write_report(results: dict[str, list[dict[str, Any]]], command: str, cold: list[dict[str, Any]]) -> Path:
    """DATE-world.md and .json."""
    REPORTS.mkdir(parents=True, exist_ok=True)
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False
    ).stdout.strip()
    today = datetime.datetime.now(tz=datetime.UTC).date().isoformat()
    reference = next(iter(results.values()))[0]["best_of_n"]
    baselines = ", ".join(
        f"{name} {reference[name]['8']['value']:.3f}" for name in ("policy", "self_consistency", "oracle")
    )
    import torch
    import transformers

    text = [
        f"# Weighers on the embedded world, {today}",
        "",
        f"`{command}` at commit {commit}; torch {torch.__version__}, transformers {transformers.__version__}, "
        f"Python {platform.python_version()}, {os.cpu_count()} cores, one thread per run.",
        "",
        f"Test: {reference['policy']['8']['n']} questions, 8 candidates each; the same for every arm: {baselines}. "
        f"All arms of a seed start from its cold-started PRM: best-of-8 {show(best(cold))}, "
        f"by the vote {show(best(cold, 'weighted_vote'))}. "
        f"{len(next(iter(results.values())))} seeds; intervals are Student's, 95 %, over seeds.",
        "",
        *table(results),
        "",
        *differences(results),
        "",
    ]
    path = REPORTS / f"{today}-world.md"
    path.write_text("\n".join(text), encoding="utf-8")
    path.with_suffix(".json").write_text(
        json.dumps({"command": command, "commit": commit, "cold": cold, "arms": results})
    )
    return path


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--workers", type=int, default=2, help="runs at once, of one thread each")
    parser.add_argument("--folder", type=Path, default=Path("runs/prove"))
    parser.add_argument("--arms", default=",".join(ARMS), help="comma-separated")
    parser.add_argument("overrides", nargs="*", help="settings for every arm, as inner.updates=300")
    options = parser.parse_args()
    folder: Path = options.folder.resolve()
    arms = options.arms.split(",")
    unknown = [arm for arm in arms if arm not in ARMS]
    if unknown:
        parser.error(f"unknown arm {unknown[0]}; the arms are {', '.join(ARMS)}")
    seeds = range(options.seeds)
    cold = [folder / "cold" / f"seed{seed}" for seed in seeds]
    start = ["+experiment=no_selection", "name=cold", *options.overrides, "inner.updates=0"]
    run_all([([*start, f"seed={seed}"], cold[seed]) for seed in seeds], options.workers)
    run_all(
        [
            (
                [*ARMS[arm], *options.overrides, f"seed={seed}", f"model.path={cold[seed] / 'prm'}", "cold.updates=0"],
                folder / arm / f"seed{seed}",
            )
            for seed in seeds
            for arm in arms
        ],
        options.workers,
    )
    results = collect(folder, seeds)
    command = "python -m benchmarks.evidence.prove " + " ".join(sys.argv[1:])
    print(write_report(results, command.strip(), [json.loads((one / "results.json").read_text()) for one in cold]))


if __name__ == "__main__":
    main()
