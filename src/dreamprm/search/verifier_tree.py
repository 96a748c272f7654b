"""Diverse verifier tree search: beams of width 1 that know nothing of one another (Beeching, Tunstall, Rush 2024)."""

from __future__ import annotations

from dreamprm.search.tree import Node, Tree, best_first

__all__ = ["dvts"]


def dvts(tree: Tree, width: int) -> list[Node]:
    """The chain of each of `width` subtrees, the best first: in a subtree the best of `tree.samples` steps is kept."""
    kept = [Node() for _ in range(width)]
    for _ in range(tree.max_steps):
        places = [place for place, node in enumerate(kept) if node.finish == "open"]
        if not places or tree.used >= tree.budget:
            break
        for place, children in zip(places, tree.grow([kept[place] for place in places])):
            if children:
                kept[place] = max(children, key=lambda node: node.value)
    return best_first(kept)
