"""What is in `.grad`, and whose: Lookahead's own passes, terms declared by `unweighted()`, or something unknown."""

from __future__ import annotations

from collections.abc import Generator, Mapping
from contextlib import contextmanager

from torch import Tensor

from .._shards import local
from .processes import Processes
from .taken_step import named

__all__ = ["Ledger"]


class Ledger:
    """The gradients of one update, from the first inner block to the step."""

    def __init__(self, names: Mapping[Tensor, str], processes: Processes) -> None:
        self.names, self.processes = names, processes
        self.unweighted: dict[Tensor, Tensor] = {}
        self._known: dict[Tensor, tuple[Tensor, int]] = {}
        self._pending = False
        self._stale: list[Tensor] = []

    def unrecorded(self) -> None:
        """A pass that is not recorded has written before any recorded one; looked at when a recorded one comes."""
        if not self._pending and not self._known:
            self._stale = [p for p in self.names if p.grad is not None and bool(local(p.grad).any())]
        self._pending = True

    @contextmanager
    def declared(self, copy: bool = True) -> Generator[None]:
        """What is written to .grad inside does not depend on the weights."""
        before = {p: p.grad.detach().clone() for p in self.names if p.grad is not None} if copy else {}
        yield
        for p in self.names:
            if p.grad is None:
                continue
            written = p.grad.detach() - before[p] if p in before else p.grad.detach().clone()
            self.unweighted[p] = self.unweighted[p] + written if p in self.unweighted else written
        self.note()

    def begin(self) -> None:
        """A recorded pass is about to write: what unrecorded ones left is theirs."""
        if self._pending:
            self._pending = False
            if self._stale:
                raise RuntimeError(
                    f"{named(self._stale, self.names)}: .grad holds a gradient from before this update; call "
                    "optimizer.zero_grad() first"
                )
            with self.declared(copy=False):
                pass

    def note(self) -> None:
        """Remember `.grad` as the last pass left it."""
        self._known = {p: (p.grad, local(p.grad)._version) for p in self.names if p.grad is not None}

    def verify(self) -> None:
        """Raise where `.grad` was changed by something else since the last pass."""
        if self.processes.size > 1:  # whoever trains may have averaged over the processes; the sum rule sees the rest
            return
        now = {p: (p.grad, local(p.grad)._version) for p in self.names if p.grad is not None}
        changed = [p for p in {**now, **self._known} if not _same(now.get(p), self._known.get(p))]
        if changed:
            raise RuntimeError(
                f"{named(changed, self.names)}: .grad was changed between lookahead.backward and lookahead.step(), "
                "which the hypergradient would not know of; clip by Lookahead(clip_norm=…) or clip_value=, unscale by "
                "scaler=, and put a term that does not depend on the weights under `with lookahead.unweighted():`"
            )

    def unscaled(self, scale: float) -> dict[Tensor, Tensor]:
        """The declared gradients without the loss scale."""
        return self.unweighted if scale == 1.0 else {p: g / scale for p, g in self.unweighted.items()}


def _same(one: tuple[Tensor, int] | None, other: tuple[Tensor, int] | None) -> bool:
    if one is None or other is None:
        return one is other
    return one[0] is other[0] and one[1] == other[1]
