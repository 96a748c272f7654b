"""What a run needs of memory, said before it starts: parameters, gradients, optimizer, activations, tape.

All but two terms follow from sizes. Activations and tape are measured on one chain and on two, by a forward pass of
the very model on the longest chains, and are linear in the number of chains:

    peak = parameters + gradients + optimizer + tape + reference + max(A_inner, A_outer + v)

A: what autograd saves for the backward pass of one micro-batch.  tape: what Lookahead keeps of a recorded update.
reference: two gradients for the check of the first update.  v: the outer gradient, as large as the parameters that
are trained. Left out: the device's own context, the allocator's gaps, a data loader, features of frozen layers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from dreamprm.config.kinds import OptimizerSettings
from dreamprm.config.schema import Check, Product
from dreamprm.data.record import Record
from dreamprm.loss import example_losses, outer_loss
from dreamprm.trainer.state import Run

__all__ = ["Plan", "optimizer_bytes", "plan_run"]

_SAMPLE = 64
_CARDS = (24, 80)


@dataclass(frozen=True)
class Linear:
    """Bytes as a function of the number of chains."""

    constant: int
    per_chain: int

    def at(self, chains: int) -> int:
        return self.constant + self.per_chain * chains


@dataclass(frozen=True)
class Plan:
    """Bytes. num_inner, num_outer: chains of a micro-batch; accumulate: micro-batches that the tape holds."""

    parameters: int
    gradients: int
    optimizer: int
    weigher: int
    reference: int
    cotangent: int
    inner: Linear
    outer: Linear
    tape_of: Linear
    num_inner: int
    num_outer: int
    accumulate: int
    num_tokens: int

    @property
    def tape(self) -> int:
        return self.tape_of.at(self.num_inner) * self.accumulate

    @property
    def peak(self) -> int:
        return self._peak(self.num_inner, self.num_outer)

    def largest_batch(self, limit: int) -> int:
        """The largest micro-batch on both levels that stays within `limit` bytes; 0 where none does."""
        if self._peak(1, 1) > limit:
            return 0
        low, high = 1, 2**16
        while low < high:
            middle = (low + high + 1) // 2
            low, high = (middle, high) if self._peak(middle, middle) <= limit else (low, middle - 1)
        return low

    def _peak(self, num_inner: int, num_outer: int) -> int:
        fixed = self.parameters + self.gradients + self.optimizer + self.weigher + self.reference
        tape = self.tape_of.at(num_inner) * self.accumulate
        return fixed + tape + max(self.inner.at(num_inner), self.outer.at(num_outer) + self.cotangent)

    def text(self) -> str:
        """The plan as lines: what, how many MB, where it comes from."""
        rows = [
            ("parameters", self.parameters, "of the PRM, frozen ones included"),
            ("gradients", self.gradients, "of what is trained"),
            ("optimizer", self.optimizer, "its state"),
            ("weigher", self.weigher, "with its gradient and its optimizer's state"),
            (
                "activations, inner",
                self.inner.at(self.num_inner),
                f"{self.num_inner} chains of {self.num_tokens} tokens",
            ),
            ("activations, outer", self.outer.at(self.num_outer), f"{self.num_outer} chains of the meta set"),
            ("tape", self.tape, "of the inner update, for the hypergradient"),
            ("outer gradient", self.cotangent, "as large as what is trained"),
            ("check", self.reference, "two gradients at the first update; hypergradient.check=off saves them"),
            ("peak", self.peak, "all but the smaller of the two activations, where the outer counts its gradient"),
        ]
        lines = [f"{name:<20}{size / 2**20:>12,.1f} MB  {note}" for name, size, note in rows]
        for card in _CARDS:
            # A tenth is left for the context and the allocator's gaps.
            most = self.largest_batch(int(0.9 * card * 2**30))
            fits = f"micro-batches of up to {most} chains on both levels" if most else "not even one chain"
            lines.append(f"{f'fits {card} GB':<20}{'':>15}  {fits}")
        return "\n".join(lines)


def plan_run(run: Run) -> Plan:
    """Count and measure; nothing of the run changes. Needs the memory of the parameters and of two chains."""
    settings = run.settings
    trainable = list(run.trainable().values())
    weighing = sum(_bytes([value]) for value in run.weigher.parameters())
    product, learns = settings.hypergradient.product, run.learns_weights
    gradients = _bytes(trainable)
    longest = _longest(run, run.train)
    inner, tape = _measured(run, longest, run.train, inner=True)
    if not learns or product is Product.darts:
        tape = Linear(0, 0)
    elif product in (Product.jvp, Product.fd):
        tape = Linear(gradients, 0)  # the parameters before the step; the forward pass is run again
    elif product is Product.unroll:
        tape = Linear(gradients + inner.constant, inner.per_chain)
    outer = _measured(run, _longest(run, run.meta), run.meta, inner=False)[0] if learns else Linear(0, 0)
    return Plan(
        parameters=_bytes([*run.prm.parameters(), *run.prm.buffers()]),
        gradients=gradients,
        optimizer=optimizer_bytes(settings.inner.optimizer, trainable),
        weigher=weighing * 2 + optimizer_bytes(settings.outer.optimizer, list(run.weigher.parameters())),
        reference=2 * gradients if learns and settings.hypergradient.check is not Check.off else 0,
        cotangent=gradients if learns else 0,
        inner=inner,
        outer=outer,
        tape_of=tape,
        num_inner=settings.inner.batch_size,
        num_outer=settings.outer.batch_size if learns else 0,
        accumulate=settings.inner.accumulate,
        num_tokens=int(run.batch(run.train, [longest]).inputs["input_ids"].shape[1]),
    )


def optimizer_bytes(settings: OptimizerSettings, parameters: Sequence[Tensor]) -> int:
    """The optimizer's state. Adam: two moments as large as the parameter; 8-bit: two bytes per number and a scale for
    each block of 256, in full below 4,096 numbers; SGD: a momentum buffer where there is momentum."""
    if settings.kind == "adamw8bit":
        small = sum(8 * value.numel() for value in parameters if value.numel() < 4096)
        large = sum(value.numel() for value in parameters if value.numel() >= 4096)
        return small + 2 * large + 2 * 4 * large // 256
    if settings.kind == "sgd":
        return _bytes(parameters) if getattr(settings, "momentum", 0.0) else 0
    return 2 * _bytes(parameters)


def _bytes(tensors: Sequence[Tensor]) -> int:
    return sum(value.numel() * value.element_size() for value in tensors)


def _longest(run: Run, records: Sequence[Record]) -> int:
    """The row of the longest of up to 64 chains, spread over all."""
    rows = range(0, len(records), max(1, len(records) // _SAMPLE))
    return max(rows, key=lambda row: int(run.batch(records, [row]).inputs["input_ids"].shape[1]))


def _measured(run: Run, row: int, records: Sequence[Record], *, inner: bool) -> tuple[Linear, Linear]:
    """(what autograd saves, what the tape keeps) as functions of the number of chains, all as long as that one."""
    one, two = (_saved(run, [row] * count, records, inner) for count in (1, 2))
    slopes = [max(0, b - a) for a, b in zip(one, two)]
    saved, tape = (Linear(max(0, a - slope), slope) for a, slope in zip(one, slopes))
    return saved, tape


def _saved(run: Run, rows: Sequence[int], records: Sequence[Record], inner: bool) -> tuple[int, int]:
    batch = run.batch(records, rows)
    own = {value.untyped_storage().data_ptr() for value in (*run.prm.parameters(), *run.prm.buffers())}
    held: dict[int, Tensor] = {}  # by storage; held, so that no address is used twice

    def keep(value: Tensor) -> Tensor:
        if value.untyped_storage().data_ptr() not in own:
            held[value.untyped_storage().data_ptr()] = value.detach()
        return value

    run.prm.train()
    hooks = torch.autograd.graph.saved_tensors_hooks(keep, lambda value: value)
    with _tape_sizes(run.prm) as sizes, hooks, run.autocast():
        logits = run.prm(batch)
        outer = run.settings.outer
        if inner:
            loss = example_losses(logits, batch, run.settings.inner.loss.name).sum()
        else:
            loss = outer_loss(logits, batch, outer.aggregate.name, outer.loss.name)
    del loss
    return sum(value.untyped_storage().nbytes() for value in held.values()), sum(sizes.values())


class _tape_sizes:
    """Bytes of the input and of the output's gradient of every module that holds a trained parameter: the tape."""

    def __init__(self, model: nn.Module) -> None:
        self.model, self.sizes = model, dict[Any, int]()
        self.handles: list[Any] = []

    def __enter__(self) -> dict[Any, int]:
        for module in self.model.modules():
            if any(parameter.requires_grad for parameter in module.parameters(recurse=False)):
                self.handles.append(module.register_forward_hook(self._hook()))
        return self.sizes

    def __exit__(self, *error: object) -> None:
        for handle in self.handles:
            handle.remove()

    def _hook(self) -> Callable[[nn.Module, Any, Any], None]:
        def count(module: nn.Module, given: Any, output: Any) -> None:
            # Storages, since q, k and v read the same input; an output's gradient is its own.
            for value in (entry for entry in given if isinstance(entry, Tensor)):
                self.sizes[value.untyped_storage().data_ptr()] = value.untyped_storage().nbytes()
            if isinstance(output, Tensor):
                self.sizes["gradient", len(self.sizes)] = output.numel() * output.element_size()

        return count
