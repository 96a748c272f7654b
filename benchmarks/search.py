"""Search against best-of-N at equal tokens on the embedded world: `python benchmarks/search.py PRM QUESTIONS SEED …`.

Per question the search is run first; best-of-N then draws whole chains with just the tokens that the search used. One
line of JSON per seed and method: the share of right answers of both, and the tokens of both.
"""

from __future__ import annotations

import json
import sys
from functools import partial
from typing import Any

from dreamprm.choices import Device
from dreamprm.config.build import build_policy
from dreamprm.policy import PolicyConfig
from dreamprm.policy.answers import ends_right
from dreamprm.policy.step_writer import StepWriter
from dreamprm.prm import PRM
from dreamprm.search import Node, Tree, beam, dvts
from dreamprm.world import load


def best_of_n(tree: Tree) -> Node:
    """The best of whole chains, drawn until the budget is used; one that the budget cut is chosen last."""
    chains: list[Node] = []
    while tree.used < tree.budget:
        chains += dvts(tree, 1)
    return max(chains, key=lambda node: (node.finish == "stop", node.value))


def main(path: str, num_questions: int, seeds: list[int]) -> None:
    write, score = StepWriter(build_policy(PolicyConfig(), Device.auto)), PRM.from_pretrained(path).score_records
    records: list[Any] = list({record.group: record for record in load("test")}.values())[:num_questions]
    methods = {"beam": (beam, 0), "dvts": (dvts, 0), "beam, lookahead 1": (beam, 1)}
    for seed in seeds:
        for name, (method, lookahead) in methods.items():
            row: dict[str, Any] = {"seed": seed, "method": name, "right": 0, "best_of_n": 0, "tokens": 0, "tokens_n": 0}
            for place, record in enumerate(records):
                tree_of = partial(Tree, record, write, score, seed=seed * 1_000_003 + place)
                tree = tree_of(samples=4, lookahead=lookahead)
                found = method(tree, 4)[0]
                rival = tree_of(samples=1, budget=tree.used)
                row["right"] += ends_right(record, "\n".join(found.steps)) / len(records)
                row["best_of_n"] += ends_right(record, "\n".join(best_of_n(rival).steps)) / len(records)
                row["tokens"] += tree.used
                row["tokens_n"] += rival.used
            print(json.dumps(row), flush=True)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), [int(seed) for seed in sys.argv[3:]])
