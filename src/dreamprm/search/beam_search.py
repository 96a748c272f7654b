"""Beam search over steps (Snell et al., arXiv 2408.03314, section 5.1)."""

from __future__ import annotations

from dreamprm.search.tree import Node, Tree, best_first

__all__ = ["beam"]


def beam(tree: Tree, width: int) -> list[Node]:
    """The `width` chains of the last beam at most, the best first.

    Each round every open chain gets `tree.samples` next steps; of these and the ended chains the `width` of highest
    value are kept, equal chains once. The first round draws `width` times as many from the question alone.
    """
    kept = [Node() for _ in range(width)]
    for _ in range(tree.max_steps):
        open_ones = [node for node in kept if node.finish == "open"]
        if not open_ones or tree.used >= tree.budget:
            break
        ended = [node for node in kept if node.finish != "open"]
        grown = tree.grow(open_ones)
        pool = [*ended, *(child for parent, some in zip(open_ones, grown) for child in some or [parent])]
        unlike = {(node.steps, node.finish): node for node in reversed(pool)}  # of equal chains the first
        order = [node for node in pool if unlike[node.steps, node.finish] is node]
        kept = sorted(order, key=lambda node: -node.value)[:width]
    return best_first(kept)
