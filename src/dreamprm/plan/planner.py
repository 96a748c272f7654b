"""What a run needs of memory, said before it starts: the largest of the moments of an update.

Parameters, gradients and states follow from sizes. Activations and tape are measured on one chain and on two, by
forward passes of the very model on a long chain, module by module, and are linear in the number of chains. From these
the plan follows an update through time; t runs down the modules, as a backward pass does:

    inner           P + max(O, reference) + tape' + max_t (held(t) + deltas(t) + gradients(t))
    outer           P + O + G + reference + tape + max_t (saved(t) + v(t))
    hypergradient   P + O + G + reference + tape + v + what the product and the check put beside it
    meta set        P + O + G + reference + tape + max_t saved(t), with inner.meta_weight
    judge           P + O + max_t (saved(t) + gradients(t)), then G + max_t saved(t) of meta chains, of weigher=trust

P: parameters, frozen ones too.  O: the optimizer's state; the first update has none yet, and the later ones have no
reference: a gradient for each of the two examples that the first is checked on.  saved(t): what autograd still holds;
held(t): that, and the inputs that Lookahead keeps.  deltas(t): the output gradients that it has kept by then.  tape:
all inputs and output gradients; tape': those of earlier micro-batches, and their gradient.  v: the outer gradient.
weigher=trust keeps the trained parameters as they were before the cold start all the time, and those after it until its
own trainings are over.

All chains are taken to be as long as the longest that was found, which no batch is: an update of 16 drawn chains of the
embedded world needed 3 % less. Of the peak that torch's profiler finds in updates of that longest chain, the plan is
.93 to 1.05: the world's InternVL with ghost (16 chains: .99, 64: .99), jvp (.97), uniform weights (.98), LoRA (1.00), a
frozen tower (1.00), 8-bit AdamW (.99), bf16 (.98), checkpointing (.96), unroll (.98), two micro-batches (1.02), the
meta set beside (.93), the looks (1.04) and judges (.98) of weigher=trust, and MiniLM with all layers (.99) or the last
alone (1.05). Lacking are what a backward pass holds for one layer's own work. Left out: the device's own context, the
allocator's gaps, a data loader, encoded chains and features that are cached in main memory with the pass that fills
them, the forward pass of `jvp`, `fd` and `darts` (little, but for long chains, whose attention it holds whole), the
world's dense loss in the cold start, and the evaluation, which keeps no activations. No GPU was asked.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from dreamprm.choices import Precision
from dreamprm.config.optimizers import OptimizerSettings
from dreamprm.config.schema import TrainConfig
from dreamprm.errors import UserError
from dreamprm.phases.state import Run
from dreamprm.phases.trust_plan import meta_halves
from dreamprm.phases.unrolled_phase import is_unrolled
from dreamprm.plan.footprint import Linear, Moment, longest, measured, nothing_kept, num_bytes, recomputed
from dreamprm.progress import say
from dreamprm.trainer.run import prepare

__all__ = ["Plan", "optimizer_bytes", "plan_run", "show_plan"]

_CARDS = (24, 80)


@dataclass(frozen=True)
class Plan:
    """Bytes. num_inner, num_outer, num_cold, num_meta (of inner.meta_weight), num_judge and num_judge_meta (of
    weigher=trust): chains of a micro-batch, 0 where there is none; accumulate, accumulate_outer: how many there are.

    inputs: what the tape of a micro-batch keeps of layers' inputs; its deltas are those of the first inner moment.
    references: gradients that the check holds in the first update.  step: what the optimizer's step takes for itself.
    product: what the product holds beside the outer gradient.  recomputed: the largest block's activations, where
    gradient checkpointing computes them anew.  kept: one copy of the trained parameters, where weigher=trust has two.
    """

    parameters: int
    gradients: int
    optimizer: int
    cold_optimizer: int
    weigher: int
    kept: int
    references: int
    step: int
    product: int
    inputs: Linear
    recomputed: Linear
    inner: tuple[Moment, ...]
    outer: tuple[Moment, ...]
    num_inner: int
    num_outer: int
    num_cold: int
    num_meta: int
    num_judge: int
    num_judge_meta: int
    accumulate: int
    accumulate_outer: int
    num_tokens: int

    @property
    def peak(self) -> int:
        return max(self.phases(self.num_inner, self.num_outer).values())

    def tape(self, num_inner: int) -> int:
        """What the tape of a micro-batch keeps until the hypergradient."""
        return self.inputs.at(num_inner) + self.inner[0].deltas.at(num_inner)

    def reference(self, num_inner: int) -> int:
        return min(self.references, num_inner) * self.gradients

    def activations(self, chains: int, moments: Sequence[Moment]) -> int:
        return max((moment.saved.at(chains) for moment in moments), default=0)

    def phases(self, num_inner: int, num_outer: int) -> dict[str, int]:
        """The largest moment of each part of an update, for micro-batches of that many chains."""
        reference, tape, earlier = self.reference(num_inner), self.tape(num_inner), self.accumulate - 1
        # weigher=trust: one copy in the last training, both while the looks record and the judges train.
        last = self.parameters + self.weigher + self.kept
        own = last + (self.kept if self.num_outer else 0)
        after = own + self.gradients + self.optimizer + reference + self.accumulate * tape
        down = max(
            moment.apart.at(num_inner) + moment.deltas.at(num_inner) + (0 if earlier else moment.gradients)
            for moment in self.inner
        )
        before = own + max(self.optimizer, reference) + earlier * tape + (self.gradients if earlier else 0)
        found = {
            "inner pass": before + self.inputs.at(num_inner) + down + self.recomputed.at(num_inner),
            "optimizer step": after + self.step,
        }
        if self.num_cold:
            down = max(moment.saved.at(self.num_cold) + moment.gradients for moment in self.inner)
            found["cold start"] = last + self.cold_optimizer + down + self.recomputed.at(self.num_cold)
        if self.num_judge:
            down = max(moment.saved.at(self.num_judge) + moment.gradients for moment in self.inner)
            meta = self.gradients + self.activations(self.num_judge_meta, self.outer)
            chains = max(self.num_judge, self.num_judge_meta)
            found["judge"] = last + self.kept + self.cold_optimizer + max(down, meta) + self.recomputed.at(chains)
        if self.num_meta:
            meta = self.activations(self.num_meta, self.outer) + self.recomputed.at(self.num_meta)
            found["meta set"] = after - own + last + meta
        if self.num_outer:
            down = max(moment.saved.at(num_outer) + moment.gradients for moment in self.outer)
            # From the second outer micro-batch on, the earlier ones' gradient is there too.
            earlier = self.gradients if self.accumulate_outer > 1 else 0
            found["outer pass"] = after + earlier + down + self.recomputed.at(num_outer)
            found["hypergradient"] = after + self.gradients + self.product
        return found

    def largest_batch(self, limit: int) -> int:
        """The largest micro-batch on both levels that stays within `limit` bytes; 0 where none does."""

        def fits(chains: int) -> bool:
            return max(self.phases(chains, chains if self.num_outer else 0).values()) <= limit

        if not fits(1):
            return 0
        low, high = 1, 2**16
        while low < high:
            middle = (low + high + 1) // 2
            low, high = (middle, high) if fits(middle) else (low, middle - 1)
        return low

    def text(self) -> str:
        """The plan as lines: what, how many MB, where it comes from."""
        inner, outer = self.num_inner, self.num_outer
        chains = f"{inner} chains of {self.num_tokens} tokens"
        rows = [
            ("parameters", self.parameters, "of the PRM, frozen ones included"),
            ("gradients", self.gradients, "of what is trained; the outer gradient is as large"),
            ("optimizer", self.optimizer, "its state"),
            ("weigher", self.weigher, "with its gradient and its optimizer's state"),
            ("kept", 2 * self.kept, "the trained parameters before and after the cold start, for weigher=trust"),
            ("activations, inner", self.activations(inner, self.inner), chains),
            ("activations, outer", self.activations(outer, self.outer), f"{outer} chains of the meta set"),
            ("tape", self.accumulate * self.tape(inner), "of the inner update, for the hypergradient"),
            ("check", self.reference(inner), "gradients at the first update; hypergradient.check=off saves them"),
        ]
        rows = [row for row in rows if row[1]]
        phases = self.phases(inner, outer)
        rows += [(name, size, "at its largest moment") for name, size in phases.items()]
        largest = max(phases, key=lambda name: phases[name])
        rows.append(("peak", self.peak, f"that of the {largest}"))
        lines = [f"{name:<20}{size / 2**20:>12,.1f} MB  {note}" for name, size, note in rows]
        for card in _CARDS:
            # A tenth is left for the context and the allocator's gaps.
            most = self.largest_batch(int(0.9 * card * 2**30))
            fits = f"micro-batches of up to {most} chains on both levels" if most else "not even one chain"
            lines.append(f"{f'fits {card} GB':<20}{'':>15}  {fits}")
        return "\n".join(lines)


def show_plan(settings: TrainConfig) -> Plan:
    """Say what the run needs of memory, and start nothing. Raises UserError as `train` does."""
    _, run = prepare(settings, Path("."))
    plan = plan_run(run)
    say(f"{settings.name}: memory of a run on {run.device}, before it starts")
    say(plan.text())
    return plan


def plan_run(run: Run) -> Plan:
    """Count and measure; nothing of the run changes. Needs the memory of the parameters and of two chains.

    Raises UserError for what it cannot plan.
    """
    settings = run.settings
    if is_unrolled(settings):
        raise UserError(
            "plan=true follows one inner update with weigher inputs that are cut from the PRM: it does not know the "
            "memory of hypergradient.unroll > 1 and of hypergradient.detach=false; plan with hypergradient.unroll=1 "
            "and hypergradient.detach=true for a lower bound"
        )
    with nothing_kept(run.prm):
        return _plan(run)


def _plan(run: Run) -> Plan:
    settings = run.settings
    trainable = list(run.trainable().values())
    weighing = sum(num_bytes([value]) for value in run.weigher.parameters())
    if settings.distributed.shard:
        raise UserError(
            "plan=true is of one process that holds the whole model: it does not know distributed.shard=true; plan "
            "without it, and divide parameters, gradients, optimizer and the outer gradient by the number of processes"
        )
    looks, judges = run.trust_updates
    learns, gradients = run.learns_weights or bool(looks), num_bytes(trainable)
    num_meta = (settings.inner.meta_batch_size or settings.outer.batch_size) if settings.inner.meta_weight else 0
    row = longest(run, run.train)
    inner, inputs = measured(run, row, run.train, inner=True)
    has_outer = learns or judges or num_meta
    outer = measured(run, longest(run, run.meta), run.meta, inner=False)[0] if has_outer else ()
    inner, inputs = _recorded(settings.hypergradient.product if learns else None, inner, inputs, gradients)
    return Plan(
        parameters=num_bytes([*run.prm.parameters(), *run.prm.buffers()]),
        gradients=gradients,
        optimizer=optimizer_bytes(settings.inner.optimizer, trainable),
        cold_optimizer=optimizer_bytes(settings.cold.optimizer, trainable),
        weigher=num_bytes(list(run.weigher.buffers()))
        + 2 * weighing
        + optimizer_bytes(settings.outer.optimizer, list(run.weigher.parameters())),
        kept=gradients if run.num_trust else 0,
        references=2 if learns and settings.hypergradient.check != "off" else 0,
        # torch's multi-tensor steps, the default on a GPU, hold one more tensor of each parameter's size.
        step=gradients if run.device.type == "cuda" and settings.inner.optimizer.kind != "adamw8bit" else 0,
        product=_beside(run, trainable, gradients) if learns else 0,
        inputs=inputs,
        recomputed=recomputed(run, row) if settings.model.gradient_checkpointing else Linear(),
        inner=inner,
        outer=outer,
        num_inner=settings.inner.batch_size,
        num_outer=settings.outer.batch_size if learns else 0,
        num_cold=settings.cold.batch_size if settings.cold.updates else 0,
        num_meta=num_meta,
        num_judge=settings.cold.batch_size if judges else 0,
        num_judge_meta=min(settings.cold.batch_size, *map(len, meta_halves(run.meta))) if judges else 0,
        accumulate=settings.inner.accumulate,
        accumulate_outer=settings.outer.accumulate,
        num_tokens=int(run.batch(run.train, [row]).inputs["input_ids"].shape[1]),
    )


def optimizer_bytes(settings: OptimizerSettings, parameters: Sequence[Tensor]) -> int:
    """The optimizer's state. Adam: two moments as large as the parameter; 8-bit: two bytes per number and a scale for
    each block of 256, in full below 4,096 numbers; SGD: a momentum buffer where there is momentum."""
    if settings.kind == "adamw8bit":
        small = sum(8 * value.numel() for value in parameters if value.numel() < 4096)
        large = sum(value.numel() for value in parameters if value.numel() >= 4096)
        return small + 2 * large + 2 * 4 * large // 256
    if settings.kind == "sgd":
        return num_bytes(parameters) if getattr(settings, "momentum", 0.0) else 0
    return 2 * num_bytes(parameters)


def _recorded(
    product: str | None, moments: tuple[Moment, ...], inputs: Linear, gradients: int
) -> tuple[tuple[Moment, ...], Linear]:
    """The moments of the inner pass, and what it keeps from the forward pass on, as the product records it."""
    if product == "ghost":
        return moments, inputs
    plain = tuple(Moment(m.saved, m.saved, Linear(), m.gradients) for m in moments)
    if product != "unroll":
        return plain, Linear()
    # Copies of the parameters, and a graph of the backward pass that is kept whole: three times the activations, as
    # measured on the embedded world's model.
    saved = moments[-1].saved
    whole = Moment(saved, Linear(), Linear(), gradients)
    return (whole,), Linear(gradients + 3 * saved.constant, 3 * saved.per_chain)


def _beside(run: Run, trainable: Sequence[Tensor], gradients: int) -> int:
    """What the product and the check hold beside the outer gradient: copies of all parameters, and the largest one's
    intermediate results."""
    settings = run.settings.hypergradient
    largest = max((value.numel() for value in trainable), default=0)
    copies = {"jvp": 1, "fd": 2, "darts": 1}.get(settings.product, 0)
    # The optimizer step's derivative has two such tensors in 32 bits, more where states are widened first; the check
    # has three in 64.
    plain = run.settings.inner.optimizer.kind != "adamw8bit" and run.settings.precision is not Precision.pure_bf16
    return copies * gradients + largest * (8 if settings.check == "off" and plain else 24)
