"""Nodes of a search over steps, and how they grow, are valued and paid for."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from dreamprm.data.record import Record
from dreamprm.policy.step_writer import Written
from dreamprm.prm.aggregation import aggregate

__all__ = ["Node", "Tree"]

Write = Callable[[Record, Sequence[Sequence[str]], int, int], list[Written]]
Score = Callable[[Sequence[Record]], list[list[float]]]


@dataclass(frozen=True, slots=True)
class Node:
    """A chain so far. finish: open; stop: the policy ended it; length: a step was cut.  value: what search ranks by."""

    steps: tuple[str, ...] = ()
    finish: str = "open"
    value: float = -math.inf


@dataclass(slots=True)
class Tree:
    """The search of one question.

    write: (question, chains, most tokens of a step, seed) -> the next step of each chain.  score: step scores of
    records.  samples: children of a node.  lookahead: a child is valued by the chain that is so many steps longer.
    budget: tokens that the policy may write, lookahead included; never exceeded.  how: aggregation of step scores.
    """

    record: Record
    write: Write
    score: Score
    samples: int = 4
    lookahead: int = 0
    max_steps: int = 16
    step_tokens: int = 128
    budget: int = 4096
    how: str = "mean"
    seed: int = 0
    used: int = 0
    draws: int = 0

    def grow(self, parents: Sequence[Node]) -> list[list[Node]]:
        """The valued children of each parent; fewer, or none, where the budget ends."""
        places = [place for place in range(len(parents)) for _ in range(self.samples)]
        children = self._longer([parents[place] for place in places])
        ahead = children
        for _ in range(self.lookahead):
            open_ones = [place for place, node in enumerate(ahead) if node.finish == "open"]
            longer = self._longer([ahead[place] for place in open_ones])
            ahead = [*ahead]
            for place, node in zip(open_ones, longer):  # the budget may have made fewer
                ahead[place] = node
        values = [aggregate(scores, self.how) for scores in self.scores(ahead)]
        found: list[list[Node]] = [[] for _ in parents]
        for place, node, value in zip(places, children, values):
            found[place].append(replace(node, value=value))
        return found

    def scores(self, nodes: Sequence[Node]) -> list[list[float]]:
        """Step scores of each node's chain; a chain without a step is scored as the step `(empty)`."""
        if not nodes:
            return []
        return self.score([replace(self.record, steps=node.steps or ("(empty)",), labels=()) for node in nodes])

    def _longer(self, nodes: Sequence[Node]) -> list[Node]:
        """Each node with one step more, as many as the budget allows, from the first on."""
        left = self.budget - self.used
        nodes = nodes[:left]
        if not nodes:
            return []
        limit = min(self.step_tokens, left // len(nodes))
        seed = self.seed * 1_000_003 + self.draws
        self.draws += 1
        written = self.write(self.record, [node.steps for node in nodes], limit, seed)
        self.used += sum(step.tokens for step in written)
        return [_with(node, step) for node, step in zip(nodes, written, strict=True)]


def _with(node: Node, step: Written) -> Node:
    steps = (*node.steps, step.text) if step.text else node.steps
    return Node(steps, "open" if step.finish == "step" else step.finish)


def best_first(nodes: Sequence[Node]) -> list[Node]:
    """Chains that the policy ended before those that were cut, then by value; equals stay in order."""
    return sorted(nodes, key=lambda node: (node.finish != "stop", -node.value))
