"""Search against best-of-N at equal tokens on the embedded world.

    python -m benchmarks.search PRM [--questions 40] [--seeds 5] [--out benchmarks/reports/2026-11-26-search.md]

Per question the search is run first; best-of-N then draws whole chains with just the tokens that the search used, and
the PRM takes the best. Differences are paired by question and seed; intervals draw questions, a question's seeds
together. `truth` in place of PRM's folder takes the world's own truth as the scorer: the most that search can bring.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from dreamprm.choices import Device
from dreamprm.config.build import build_policy
from dreamprm.data.record import Record
from dreamprm.evaluate.intervals import mean_interval, paired_difference
from dreamprm.policy import PolicyConfig
from dreamprm.policy.answers import ends_right
from dreamprm.policy.step_writer import StepWriter
from dreamprm.prm import PRM
from dreamprm.search import Node, Tree, beam, dvts
from dreamprm.world import load
from dreamprm.world.questions import Question
from dreamprm.world.splits import read_chains
from dreamprm.world.trouble import true_labels

METHODS: dict[str, tuple[Callable[[Tree, int], list[Node]], int]] = {
    "beam": (beam, 0),
    "dvts": (dvts, 0),
    "beam, lookahead 1": (beam, 1),
}
WIDTH = SAMPLES = 4


def best_of_n(tree: Tree) -> Node:
    """The best of whole chains, drawn until the budget is used; one that the budget cut is chosen last."""
    chains: list[Node] = []
    while tree.used < tree.budget:
        chains += dvts(tree, 1)
    return max(chains, key=lambda node: (node.finish == "stop", node.value))


def truth_scorer() -> Callable[[Sequence[Record]], list[list[float]]]:
    questions: dict[str, Question] = {chain.question.identity: chain.question for chain in read_chains()}
    return lambda records: [list(true_labels(questions[record.group], record.steps)) for record in records]


def report(rows: list[dict[str, Any]], prm: str, num_questions: int, num_seeds: int) -> str:
    lines = [
        "# Search against best-of-N at equal tokens, 26 November 2026",
        "",
        f"`python -m benchmarks.search PRM --questions {num_questions} --seeds {num_seeds}`: the embedded world's test",
        f"questions, its tiny policy, step scores by {prm}; {WIDTH} chains or subtrees, {SAMPLES} next steps of each,",
        "chains valued by the mean of their step scores. Intervals are 95 %, over questions.",
        "",
        "| method | tokens of a question | right | best-of-N, same tokens | difference |",
        "|---|---|---|---|---|",
    ]
    for name in METHODS:
        own = [row for row in rows if row["method"] == name]
        by_question = {row["question"]: [r for r in own if r["question"] == row["question"]] for row in own}
        mine, theirs = (
            np.asarray([np.mean([row[key] for row in part]) for part in by_question.values()])
            for key in ("right", "best_of_n")
        )
        found = [mean_interval(mine), mean_interval(theirs), paired_difference(mine, theirs)]
        used = [np.mean([row[key] for row in own]) for key in ("tokens", "tokens_n")]
        cells = [name, f"{used[0]:.0f} ({used[1]:.0f})"]
        cells += [f"{x.value:.3f} ({x.low:.3f} to {x.high:.3f})" for x in found]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def main(words: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.search")
    parser.add_argument("prm", help="the folder prm/ of a run, or truth")
    parser.add_argument("--questions", type=int, default=40)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--out", type=Path)
    given = parser.parse_args(words)
    write = StepWriter(build_policy(PolicyConfig(), Device.auto))
    score = truth_scorer() if given.prm == "truth" else PRM.from_pretrained(given.prm).score_records
    records = list({record.group: record for record in load("test")}.values())
    records = records[:: max(1, len(records) // given.questions)][: given.questions]  # over all domains
    rows: list[dict[str, Any]] = []
    for seed in range(given.seeds):
        for place, record in enumerate(records):
            for name, (method, lookahead) in METHODS.items():
                tree_of = partial(Tree, record, write, score, seed=seed * 1_000_003 + place)
                tree = tree_of(samples=SAMPLES, lookahead=lookahead)
                found = method(tree, WIDTH)[0]
                rival = tree_of(samples=1, budget=tree.used)
                row = {"seed": seed, "question": record.group, "method": name, "tokens": tree.used}
                row["right"] = ends_right(record, "\n".join(found.steps))
                row["best_of_n"] = ends_right(record, "\n".join(best_of_n(rival).steps))
                row["tokens_n"] = rival.used
                rows.append(row)
        # Whole after every seed: what is stopped has told something.
        text = report(rows, "the world's truth" if given.prm == "truth" else "a PRM", len(records), seed + 1)
        if given.out is not None:
            given.out.write_text(text)
        print(text, flush=True)


if __name__ == "__main__":
    main()
