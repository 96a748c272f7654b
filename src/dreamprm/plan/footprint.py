"""What passes of a model hold, measured by forward passes of one chain and of two; linear in the number of chains.

On a CPU no large tensor of numbers is computed, or even touched: only its size matters, so that the plan of a model of
billions of parameters takes little more than loading it.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode

from dreamprm.data.record import Record
from dreamprm.loss import example_losses, outer_loss
from dreamprm.phases.state import Run
from dreamprm.prm.feature_cache import FeatureStore
from dreamprm.prm.model import PRM

__all__ = ["Linear", "Moment", "longest", "measured", "nothing_kept", "num_bytes", "recomputed"]

_LOOKED_AT, _ENCODED = 4096, 32


@dataclass(frozen=True)
class Linear:
    """Bytes as a function of the number of chains."""

    constant: int = 0
    per_chain: int = 0

    def at(self, chains: int) -> int:
        return self.constant + self.per_chain * chains

    @staticmethod
    def through(one: int, two: int) -> Linear:
        """The line through the bytes of one chain and those of two."""
        slope = max(0, two - one)
        return Linear(max(0, one - slope), slope)


@dataclass(frozen=True)
class Moment:
    """A backward pass that has come down to one module, in bytes.

    saved: what autograd still holds.  apart: what of it no tape keeps too.  deltas: output gradients of the modules
    above.  gradients: of their parameters.
    """

    saved: Linear
    apart: Linear
    deltas: Linear
    gradients: int


def num_bytes(tensors: Sequence[Tensor]) -> int:
    return sum(value.numel() * value.element_size() for value in tensors)


def longest(run: Run, records: Sequence[Record]) -> int:
    """The row of the longest chain: of up to 4,096, spread over all, those with the most text and images are encoded.

    A step counts as 20 characters (its verdict's tokens), an image as 2,000.
    """
    rows = range(0, len(records), max(1, len(records) // _LOOKED_AT))

    def size(row: int) -> int:
        record = records[row]
        return len(record.question) + sum(len(step) + 20 for step in record.steps) + 2000 * len(record.images)

    largest = sorted(rows, key=size, reverse=True)[:_ENCODED]
    return max(largest, key=lambda row: int(run.batch(records, [row]).inputs["input_ids"].shape[1]))


def measured(run: Run, row: int, records: Sequence[Record], *, inner: bool) -> tuple[tuple[Moment, ...], Linear]:
    """The moments of a backward pass, from its end to its begin, and what the tape keeps of layers' inputs."""
    one, two = (_marks(run, [row] * count, records, inner) for count in (1, 2))
    last = one[-1], two[-1]
    moments = tuple(
        Moment(
            saved=Linear.through(a.saved, b.saved),
            apart=Linear.through(a.saved - a.shared, b.saved - b.shared),
            deltas=Linear.through(last[0].deltas - a.deltas, last[1].deltas - b.deltas),
            gradients=last[0].gradients - a.gradients,
        )
        for a, b in zip(one, two, strict=True)
    )
    return moments, Linear.through(last[0].inputs, last[1].inputs)


def recomputed(run: Run, row: int) -> Linear:
    """What the largest checkpointed block saves when it runs anew, by a forward pass that checkpoints nothing."""
    from transformers.modeling_layers import GradientCheckpointingLayer

    blocks = [module for module in run.prm.modules() if isinstance(module, GradientCheckpointingLayer)]
    sizes: list[int] = []
    for block in blocks:
        block.gradient_checkpointing = False
    try:
        for count in (1, 2):
            batch = run.batch(run.train, [row] * count)
            with _Watch(run.prm, blocks) as watch, _sizes_alone(run), run.autocast():
                run.prm(batch)
            sizes.append(watch.largest_block())
    finally:
        for block in blocks:
            block.gradient_checkpointing = True
    return Linear.through(sizes[0], sizes[1])


@contextmanager
def nothing_kept(prm: PRM) -> Generator[None]:
    """What frozen parts give within, which are sizes and no numbers, is kept for nobody: their stores are others."""
    parts: list[Any] = [part for part in (prm.frozen, prm.kept, prm.vision) if part is not None]
    before = [dict(vars(part)) for part in parts]
    for part in parts:
        part.store = FeatureStore()
        if hasattr(part, "folder"):
            part.folder = None
    try:
        yield
    finally:
        for part, state in zip(parts, before, strict=True):
            vars(part).update(state)


@dataclass
class _Mark:
    """Running sums of a forward pass, in bytes; shared: what autograd and the tape both keep."""

    saved: int = 0
    inputs: int = 0
    shared: int = 0
    deltas: int = 0
    gradients: int = 0


def _marks(run: Run, rows: Sequence[int], records: Sequence[Record], inner: bool) -> list[_Mark]:
    """A mark at the begin of a forward pass, after every module that holds a trained parameter, and at its end."""
    batch, outer = run.batch(records, rows), run.settings.outer
    run.prm.train()
    if run.prm.kept is not None:  # what is kept is compared with the whole pass, and must be real
        with torch.no_grad(), run.autocast():
            run.prm(batch)
    with _Watch(run.prm) as watch, _sizes_alone(run), run.autocast():
        logits = run.prm(batch)
        if inner:
            loss = example_losses(logits, batch, run.settings.inner.loss).sum()
        else:
            loss = outer_loss(logits, batch, outer.aggregate, outer.loss)
    del loss, logits
    return watch.marks()


def _sizes_alone(run: Run) -> AbstractContextManager[Any]:
    return _SizesAlone() if run.device.type == "cpu" else nullcontext()


class _SizesAlone(TorchDispatchMode):
    """Large floating-point results are left as they come, uncomputed; views, integers and masks are real.

    Autograd stands above this and saves what it always saves.
    """

    LARGE = 4096

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        tensors = [leaf for leaf in pytree.tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        aliases = any(value.alias_info is not None for value in (*func._schema.arguments, *func._schema.returns))
        if aliases or type(func) is not torch._ops.OpOverload or sum(value.numel() for value in tensors) < self.LARGE:
            return func(*args, **kwargs)
        try:
            found = func(*pytree.tree_map(_on_meta, args), **pytree.tree_map(_on_meta, kwargs))
        except (NotImplementedError, RuntimeError, TypeError):  # sizes that depend on values
            return func(*args, **kwargs)
        outputs = [leaf for leaf in pytree.tree_leaves(found) if isinstance(leaf, Tensor)]
        if not outputs or any(value.device.type != "meta" or not value.is_floating_point() for value in outputs):
            return func(*args, **kwargs)
        return pytree.tree_map(_untouched, found)


def _on_meta(value: Any) -> Any:
    return value.to("meta") if isinstance(value, Tensor) else torch.device("meta") if value == "cpu" else value


def _untouched(value: Any) -> Any:
    if not isinstance(value, Tensor):
        return value
    # What the system has promised; it gives no page of it before one is written.
    return torch.empty_strided(value.shape, value.stride(), dtype=value.dtype)


class _Watch:
    """Counts what autograd saves, and what a tape would keep, while a forward pass runs.

    The tape keeps the inputs and the output gradients of layers with a matrix; of norms and biases it keeps one
    gradient per example, which is nothing beside these.
    """

    def __init__(self, model: nn.Module, blocks: Sequence[nn.Module] = ()) -> None:
        self.model, self.blocks = model, blocks
        self.events: list[tuple[str, int, int]] = []  # kind, storage or parameter, bytes
        self.alive: list[Tensor] = []  # held, so that no address is used twice
        self.own = {value.untyped_storage().data_ptr() for value in (*model.parameters(), *model.buffers())}
        self.handles: list[Any] = []
        self.hooks = torch.autograd.graph.saved_tensors_hooks(self._save, lambda value: value)

    def __enter__(self) -> _Watch:
        for module in self.model.modules():
            trained = [value for value in module.parameters(recurse=False) if value.requires_grad]
            if trained:
                self.handles.append(module.register_forward_hook(self._hook(trained)))
        for block in self.blocks:
            self.handles.append(block.register_forward_pre_hook(lambda *_: self.events.append(("begin", 0, 0))))
            self.handles.append(block.register_forward_hook(lambda *_: self.events.append(("end", 0, 0))))
        self.hooks.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        self.hooks.__exit__(*error)
        for handle in self.handles:
            handle.remove()

    def _note(self, kind: str, value: Tensor) -> None:
        storage = value.untyped_storage()
        self.events.append((kind, storage.data_ptr(), storage.nbytes()))
        self.alive.append(value.detach())

    def _save(self, value: Tensor) -> Tensor:
        if value.untyped_storage().data_ptr() not in self.own:
            self._note("saved", value)
        return value

    def _hook(self, trained: Sequence[Tensor]) -> Callable[[nn.Module, Any, Any], None]:
        has_matrix = any(value.ndim > 1 for value in trained)

        def after(module: nn.Module, given: tuple[Any, ...], output: Any) -> None:
            if has_matrix:
                for value in given:
                    if isinstance(value, Tensor) and value.is_floating_point():
                        self._note("inputs", value)
                if isinstance(output, Tensor):
                    self.events.append(("deltas", len(self.events), output.numel() * output.element_size()))
            self.events += [("gradients", id(value), num_bytes([value])) for value in trained]
            self.events.append(("mark", 0, 0))

        return after

    def marks(self) -> list[_Mark]:
        both = {place for kind, place, _ in self.events if kind == "inputs"}
        seen: set[tuple[str, int]] = set()
        sums = _Mark()
        found = [_Mark()]
        for kind, place, size in self.events:
            if kind == "mark":
                found.append(replace(sums))
            elif (kind, place) not in seen and kind not in ("begin", "end"):
                seen.add((kind, place))
                setattr(sums, kind, getattr(sums, kind) + size)
                sums.shared += size if kind == "saved" and place in both else 0
        return [*found, replace(sums)]

    def largest_block(self) -> int:
        """The most that was saved between the begin and the end of a block; blocks do not lie in one another."""
        seen: set[int] = set()
        largest = size = 0
        for kind, place, number in self.events:
            if kind == "begin":
                size = 0
            elif kind == "end":
                largest = max(largest, size)
            elif kind == "saved" and place not in seen:
                seen.add(place)
                size += number
        return largest
