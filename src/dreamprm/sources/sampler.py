"""Which examples each update sees: every epoch a new permutation, fixed by the seed, resumable in the middle."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from dreamprm.errors import UserError

__all__ = ["EpochSampler"]


class EpochSampler:
    """Draws `count` indices at a time from endless shuffled epochs over `num_examples`.

    The order depends on `(seed, epoch)` alone, so two integers are its whole state, and a batch may span two epochs:
    the sequence of examples does not depend on how it is cut into batches.

    groups: one of each example; the permutation is then of the groups, and the examples of one follow one another.
    """

    def __init__(self, num_examples: int, *, seed: int, groups: Sequence[str] | None = None) -> None:
        if num_examples < 1:
            raise UserError("there is no example to draw from")
        self.num_examples, self.seed = num_examples, seed
        self._blocks: list[list[int]] | None = None
        if groups is not None:
            blocks: dict[str, list[int]] = {}
            for row, group in enumerate(groups):
                blocks.setdefault(group, []).append(row)
            self._blocks = list(blocks.values())
        self.epoch, self.position = 0, 0
        self._order = self._permutation()

    def _permutation(self) -> Tensor:
        generator = torch.Generator().manual_seed((self.seed * 1_000_003 + self.epoch) % (1 << 63))
        if self._blocks is None:
            return torch.randperm(self.num_examples, generator=generator)
        order = torch.randperm(len(self._blocks), generator=generator).tolist()
        return torch.tensor([row for place in order for row in self._blocks[place]])

    def draw(self, count: int) -> list[int]:
        """The next `count` indices."""
        drawn: list[int] = []
        while len(drawn) < count:
            if self.position == self.num_examples:
                self.epoch, self.position = self.epoch + 1, 0
                self._order = self._permutation()
            taken = self._order[self.position : self.position + count - len(drawn)]
            drawn += taken.tolist()
            self.position += len(taken)
        return drawn

    def peek(self, count: int) -> list[int]:
        """What `draw(count)` would give now."""
        before = self.epoch, self.position, self._order
        try:
            return self.draw(count)
        finally:
            self.epoch, self.position, self._order = before

    def state_dict(self) -> dict[str, int]:
        return {"num_examples": self.num_examples, "seed": self.seed, "epoch": self.epoch, "position": self.position}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Raises UserError when the data are not those of the run that is resumed."""
        if (state["num_examples"], state["seed"]) != (self.num_examples, self.seed):
            raise UserError(
                f"the checkpoint drew from {state['num_examples']} examples with seed {state['seed']}, here are "
                f"{self.num_examples} with seed {self.seed}: resume with the data of the first run"
            )
        self.epoch, self.position = state["epoch"], state["position"]
        self._order = self._permutation()
