"""Monte-Carlo labels against the true steps of the embedded world, by the completions that they cost.

    python -m benchmarks.labels [--out benchmarks/reports/2026-11-26-labels]

The world's file holds, for every prefix of its training chains, how many of 8 completions by the policy came out right.
The labellers of `dreamprm label` run as they are (`every_prefix`, with and without the early stop, and OmegaPRM's
`binary_search`); a completion that they ask for is one of these 8, drawn without replacement, so that looking at 1 to 8
completions costs nothing. Agreement is with the world's own truth, step by step; intervals draw questions.
"""

from __future__ import annotations

import argparse
import random
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from dreamprm.data.record import Record
from dreamprm.evaluate.intervals import bootstrap
from dreamprm.evaluate.steps import auc
from dreamprm.policy.step_values import Ask, Labeller, binary_search, every_prefix, run_labellers
from dreamprm.world import load

NUMBERS = (1, 2, 4, 8)
METHODS: dict[str, Callable[[Record, bool, int], Labeller]] = {
    "full": every_prefix,
    "full, early stop": lambda record, right, num: every_prefix(record, right, num, early_stop=True),
    "binary": binary_search,
}


@dataclass(frozen=True)
class Row:
    """agreement: share of steps whose label (above 0: right) is the truth.  first: share of chains with a wrong step
    in which it is found exactly.  kept: share of chains without one in which no step is called wrong."""

    method: str
    num: int
    used: float
    full: float
    agreement: Any
    area: Any
    first: float
    kept: float


def measure(records: list[Record], method: str, num: int, seed: int) -> Row:
    """The labels of all records by one method at `num` completions of a prefix."""
    whole = [record.extra["mc_right"][-1] > 0 for record in records]
    labellers = [METHODS[method](record, right, num) for record, right in zip(records, whole)]
    rng = random.Random(f"{method} {num} {seed}")

    def complete(asks: list[Ask], owners: list[Record]) -> list[list[str]]:
        found: list[list[str]] = []
        for ask, owner in zip(asks, owners, strict=True):
            right = owner.extra["mc_right"][ask.prefix.response.count("\n") - 1]
            outcomes = ["right"] * right + ["wrong"] * (owner.extra["mc_total"] - right)
            found.append(rng.sample(outcomes, ask.num))
        return found

    labels = run_labellers(labellers, records, complete, lambda _, text: text == "right")
    truth = [np.asarray(record.truth["labels"]) > 0.5 for record in records]
    values = [np.asarray(label.values) for label in labels]
    y, p = np.concatenate(truth), np.concatenate(values)
    clusters = [record.group for record in records for _ in record.steps]
    hits = (p > 0) == y
    firsts = [(_first(t), _first(v > 0)) for t, v in zip(truth, values)]
    options: dict[str, Any] = {"num_resamples": 200, "seed": seed}
    return Row(
        method,
        num,
        sum(label.used for label in labels) / len(labels),
        sum(label.full for label in labels) / len(labels),
        bootstrap(lambda rows: float(hits[rows].mean()), clusters, **options),
        bootstrap(lambda rows: auc(y[rows], p[rows]), clusters, **options),
        float(np.mean([found == wrong for wrong, found in firsts if wrong >= 0])),
        float(np.mean([found < 0 for wrong, found in firsts if wrong < 0])),
    )


def _first(right: np.ndarray) -> int:
    return -1 if right.all() else int(np.argmin(right))


def report(rows: list[Row], num_chains: int, seed: int, figure: str) -> str:
    lines = [
        "# Monte-Carlo labels against the true steps, 26 November 2026",
        "",
        f"`python -m benchmarks.labels --seed {seed}`: {num_chains:,} chains of the embedded world's tiny policy, its",
        "own completions. A label above 0 calls a step right (VisualPRM's rule). Intervals are 95 %, over questions.",
        "",
        f"![agreement by completions]({figure})",
        "",
        "| method | completions of a prefix | completions of a chain | steps as the truth | AUC of the soft value |"
        " first wrong step found | right chains kept |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        cells = [row.method, str(row.num), f"{row.used:.1f} (of {row.full:.1f})"]
        cells += [f"{x.value:.3f} ({x.low:.3f} to {x.high:.3f})" for x in (row.agreement, row.area)]
        cells += [f"{row.first:.3f}", f"{row.kept:.3f}"]
        lines.append(f"| {' | '.join(cells)} |")
    best = {row.method: row for row in rows}  # at the most completions
    full, binary = best["full"], best["binary"]
    lines += [
        "",
        f"At {full.num} completions of a prefix the search for the first error takes {binary.used / full.used:.0%} of",
        f"what every prefix takes; agreement {binary.agreement.value:.3f} against {full.agreement.value:.3f}. The soft",
        f"values of every prefix rank steps better ({full.area.value:.3f} against {binary.area.value:.3f}): the search",
        "leaves 1 for steps that it did not look at. It keeps every right chain, since it looks for no error where",
        "the answer is right. What more completions cannot mend: a policy that still gets there from a wrong step, or",
        "never from a right one.",
    ]
    return "\n".join(lines) + "\n"


def draw(rows: list[Row], path: Path) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4, 3.6), layout="constrained")
    axes = figure.add_subplot()
    for method in METHODS:
        own = [row for row in rows if row.method == method]
        used = [row.used for row in own]
        axes.plot(used, [row.agreement.value for row in own], "o-", label=method)
        axes.fill_between(used, [r.agreement.low for r in own], [r.agreement.high for r in own], alpha=0.15)
        for row in own:
            axes.annotate(str(row.num), (row.used, row.agreement.value), textcoords="offset points", xytext=(4, 4))
    axes.set_xscale("log", base=2)
    axes.set_xlabel("completions of a chain, in the mean (beside the points: of a prefix)")
    axes.set_ylabel("steps labelled as the truth")
    axes.legend()
    figure.savefig(path, metadata={"Date": None})


def main(words: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.labels")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/reports/2026-11-26-labels"))
    parser.add_argument("--chains", type=int, default=3000)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args(words)
    records = load("train", trouble="monte_carlo", num_chains=given.chains, seed=given.seed)
    rows = [measure(records, method, num, given.seed) for method in METHODS for num in NUMBERS]
    figure = given.out.with_suffix(".svg")
    draw(rows, figure)
    text = report(rows, len(records), given.seed, figure.name)
    given.out.with_suffix(".md").write_text(text)
    print(text)


if __name__ == "__main__":
    main()
