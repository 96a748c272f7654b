"""`Lookahead`: exact hypergradients for data weights, around a live optimizer in anybody's training loop.

Inner step g = Σ_i c_i(φ) ∇ℓ_i(θ), g̃ = clip(g), θ' = T(θ, g̃; state); outer loss F(θ', φ). With

    v = ∇F(θ'),   u = Cᵀ D v,   D = -∂T/∂g̃,   C = ∂clip/∂g,   d_i = <u, ∇ℓ_i(θ)>

the hypergradient is dF/dφ = ∂F/∂φ - Σ_i (∂c_i/∂φ) d_i: one number per loss is all that is needed of the big model.

One file because it is the one object that users hold: inner, backward, step and backward_outer are one protocol.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from .._shards import local
from ..spans import span
from ..status import Status
from .check import Reference, Schedule
from .constraint import Constraint, Projection
from .graph import leaves, lowest_precision, refuse_early, refuse_reentrant
from .judge import Judge
from .ledger import Ledger
from .outer_gradient import OuterGradient
from .processes import Processes
from .product_table import PRODUCTS, Product
from .recorder import Sites, lowest
from .several_steps import Window, refuse_settings, walk_back
from .shards import inside_wrapper
from .step_probe import StepProbe
from .taken_step import Clipping, TakenStep, fingerprint, named, refuse_moved
from .together import Before, Together
from .typed import backward
from .update_record import MicroBatch, Update, count_steps, refuse_parameters, validate, with_gradient
from .words import AdamDerivative, Check

__all__ = ["Lookahead"]

_log = logging.getLogger("bilevel")


class Lookahead:
    """One-step lookahead hypergradients of data weights.

        lookahead = Lookahead(model, optimizer, clip_norm=1.0)
        optimizer.zero_grad()
        with lookahead.inner():
            losses = example_losses(model, batch)                # (B,)
            lookahead.backward(losses, weigher(batch) / len(losses))
        lookahead.step()
        lookahead.backward_outer(outer_loss(model, meta_batch))  # adds dF/dφ to the weigher's .grad

    Args:
        model: the module whose calls make the losses. Its own optimizer step is what is differentiated.
        optimizer: a live torch.optim optimizer with a rule in `bilevel.steps`, or bitsandbytes Adam(W), 8-bit too. Only
            read. Or a list of several that step together (Muon for the matrices, AdamW for the rest).
        product: how d_i is computed. `ghost` (exact, about one forward's matmuls), `jvp` (exact, forward mode, any
            layer with a forward-mode rule), `unroll` (exact, double backward), `fd` (central difference at θ, fp32
            only), `darts` (difference at θ' without the step's derivative, as the papers' code does: to compare with).
        clip_norm, clip_value: clipping of the inner gradient, inside the derivative; one of the two.
        adam: "exact", or "frozen" for moments held constant.
        scaler: a torch.amp.GradScaler, where the inner backward pass needs one.
        check: "raise" stops where the sum rule is broken (every update) or plain autograd on the real batch and the
            optimizer's own formula disagree (updates 1, 2, 4, 8, … and after every change); "log" only logs; "off"
            makes no comparison and reports the sum rule's residual.
        epsilon: ‖ε u‖ of `fd` and `darts`.
        group: the processes that train together, a group of torch.distributed; None: all there are.
        projection: a constraint that `step` puts on after the optimizer's step, part of the derivative: a pure function
            {name: parameter} -> {name: what it becomes}, of all or some trained parameters.
        steps: differentiate through the last so many recorded updates since the last hypergradient, exactly, by
            `unroll` alone (`several_steps.py` says why); `report["steps"]` says how many there were.

    Several processes: each gives the examples and outer chains that are its own, with coefficients as under
    DistributedDataParallel (w_i over its own number of examples), and `step` and `backward_outer` are called by all.
    The inner gradient, v and φ's gradient become means over the processes, so that a replicated weigher gets the same
    update everywhere. model: the module itself, `DistributedDataParallel(module)` (which averages the gradients once
    more than needed), or one that `fully_shard` was called on (`ghost`): u stays sharded and is gathered unit by unit.

    `report` holds, after `backward_outer`: outer_loss, outer_gradient_norm, inner_gradient_norm (with clip_norm),
    sum_rule (largest relative residual of Σ c d = <u, g>), check (relative error against autograd, when it was made)
    and check_seconds. `num_updates`: recorded updates so far; set it when a run is resumed, and the checks keep their
    places.

    Raises ValueError for what is not supported, naming the way out.
    Limits: no tensor parallelism, no CPU offload of shards. Compiled parts run uncompiled inside.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: Any,
        product: Product = "ghost",
        clip_norm: float | None = None,
        adam: AdamDerivative = "exact",
        *,
        clip_value: float | None = None,
        scaler: Any = None,
        check: Check = "raise",
        epsilon: float = 1e-2,
        group: Any = None,
        projection: Projection | None = None,
        steps: int = 1,
    ) -> None:
        validate(product, adam, check, clip_norm, clip_value, epsilon)
        if hasattr(model, "_orig_mod"):
            raise ValueError("the model is compiled, which hides its functions; give Lookahead the module itself")
        self._optimizers = Together(optimizer)
        self._wrapped, model = model, inside_wrapper(model, product)
        self._processes = Processes(group)
        refuse_settings(steps, product, adam, scaler, self._optimizers, self._processes.size)
        self._window = Window(steps)
        self.model, self.optimizer, self.product, self.adam = model, optimizer, product, adam
        self.clipping, self.scaler, self.epsilon = Clipping(clip_norm, clip_value), scaler, epsilon
        self.report: dict[str, float] = {}
        self._check, self._projection = check, projection
        self._recorder = PRODUCTS[product]
        self._schedule = Schedule()
        self._judge = Judge(product, self._recorder, check, self._schedule, self._processes)
        self._met: torch.dtype | None = None  # the lowest precision in the graph, when it was last looked at
        self._open: MicroBatch | None = None
        self._update: Update | None = None
        self._trained: tuple[Any, ...] = ()
        self._sites = self._find_sites()
        # How often the optimizer has stepped, whoever asked it to; in a list, so that the hook holds nothing else.
        self._num_steps = [0]
        for live in self._optimizers.lives:
            count_steps(self, live, self._num_steps)

    @property
    def num_updates(self) -> int:
        """Recorded updates so far, by which the checks are scheduled."""
        return self._schedule.num_updates

    @num_updates.setter
    def num_updates(self, number: int) -> None:
        self._schedule.num_updates = number

    def _find_sites(self) -> Sites:
        """The trainable parameters now: a layer may be frozen or unfrozen and a group added between two updates."""
        if self._trained and self._sites.shards.any:
            self._sites.shards.reshard(self.model)
        groups = self._optimizers.param_groups
        trained = tuple((p, p.requires_grad) for group in groups for p in group["params"])
        if len(trained) != len(self._trained) or any(
            a[0] is not b[0] or a[1] != b[1] for a, b in zip(trained, self._trained, strict=True)
        ):
            sites = Sites(self.model, [p for p, requires_grad in trained if requires_grad], self._processes)
            refuse_parameters(groups, sites)
            self._optimizers.refuse_shared()
            sites.shards.refuse(sites.names, self.product, self._optimizers.lives, self.scaler)
            if sites.shards.any and self._projection is not None:
                raise ValueError(
                    "a projection with sharded parameters is not supported: it would see one process's part of each; "
                    "replicate the model (DistributedDataParallel), or write the constraint as a parametrization"
                )
            self._processes.device = local(sites.parameters[0]).device
            self._recorder.refuse(sites)
            self._trained, self._sites = trained, sites
        return self._sites

    # -- inner ---------------------------------------------------------------------------------------------------

    @contextmanager
    def inner(self, rows: Mapping[str, Tensor] | None = None, record: bool = True) -> Generator[None]:
        """One micro-batch of the inner step: compute the losses and call `backward` inside.

        rows: where rows are not examples: module-name prefix -> example of each row, (M,) or (L, T), for the modules
            below it (a vision tower's tiles, a packed sequence's patches or positions).
        record: False for an update without a hypergradient: nothing is kept.
        """
        if self._open is not None:
            raise RuntimeError("lookahead.inner() blocks cannot be nested")
        update = self._begin()
        if not record:
            if update.batches:  # its gradient goes into the same step, but not with the weights
                with update.ledger.declared():
                    yield
            else:
                update.ledger.unrecorded()
                yield
            return
        recorder: Any = self._recorder(update.sites, rows, self.epsilon)
        if self._window.length > 1:
            recorder.wants_hessian = True
        batch = MicroBatch(recorder)
        self._open = batch
        try:
            with batch.recorder.open():
                yield
            if batch.coefficients is None:
                raise RuntimeError("lookahead.inner() ended without lookahead.backward(losses, coefficients)")
            self._verify_unwritten(update)
            update.batches.append(batch)
        except BaseException:
            self._update = None
            raise
        finally:
            self._open = None

    def _begin(self) -> Update:
        """The update that this block belongs to: a new one after a step."""
        update = self._update
        if update is not None and update.taken is None and self._num_steps[0] != update.num_steps:
            if update.batches:
                self._refuse_misplaced_step()
            update = None
        if update is not None and update.taken is not None:
            if update.batches and self._window.length > 1:
                self._update = None  # nothing survives an error
                self._window.add(update)
            elif update.batches:
                _log.warning("an update was recorded but not differentiated: lookahead.inner(record=False) costs less")
            update = None
        elif update is None:
            self._window.clear(list(self.model.buffers()))
        if update is None:
            sites = self._find_sites()
            written = {p: fingerprint(p) for p in (*sites.names, *sites.others)}
            self._update = update = Update(sites, Ledger(sites.names, self._processes), [], written, self._num_steps[0])
        return update

    def _verify_unwritten(self, update: Update) -> None:
        refuse_moved(with_gradient(update.sites), update.written)
        moved = [p for p in update.sites.names if fingerprint(p) != update.written[p]]
        if moved:
            raise RuntimeError(
                f"{named(moved, update.sites.names)}: written to inside lookahead.inner() or before lookahead.step() "
                "(an embedding's max_norm, weights renormed in forward), which no gradient passes through; renorm "
                "after backward_outer, or write the norm as a function of the parameter"
            )

    @span("inner backward")
    def backward(self, losses: Tensor, coefficients: Tensor) -> None:
        """Add Σ c ∇ℓ to `.grad`. Both of one shape, (B,), (B, S), (B, S, 2) …; coefficients attached to the weigher.

        `ghost` takes one loss per example, (B,).
        """
        if losses.ndim == 0 or coefficients.shape != losses.shape:
            raise ValueError(
                f"losses and coefficients must be of one shape, one number per example, (B,), or per loss, are "
                f"{tuple(losses.shape)} and {tuple(coefficients.shape)}; a loss that was averaged over the batch "
                "cannot be weighted any more"
            )
        batch, update = self._open, self._update
        used = coefficients.detach().to(losses.dtype)
        scale = self._loss_scale(losses)
        if batch is None:  # inner(record=False)
            total = (used * losses).sum()
            backward(total if self.scaler is None else self.scaler.scale(total))
            return
        assert update is not None, "inner() has begun one"
        if batch.coefficients is not None:
            raise RuntimeError("one lookahead.backward per lookahead.inner() block; open a block for each micro-batch")
        batch.coefficients = coefficients
        compared = self._schedule.new_shapes(getattr(batch.recorder, "alike", frozenset()))
        if not update.batches:
            compared |= self._schedule.due(update.sites.modules, update.sites.parameters, losses)
        if update.sites.shards.any and self._check != "off":  # a comparison takes all processes
            compared = self._processes.any(compared)
        if compared and self._check != "off":
            update.due = True
            refuse_reentrant(losses)
            start = time.perf_counter()
            self._met = lowest_precision(batch.recorder.roots(losses))
            batch.reference = Reference.take(losses, update.sites, batch.recorder.autograd)
            update.check_seconds += time.perf_counter() - start
        update.ledger.begin()
        batch.used = batch.recorder.backward(losses, used, scale)
        batch.precision = batch.recorder.precision
        for dtype in (losses.dtype, self._met or losses.dtype, *(p.dtype for p in update.sites.parameters[:1])):
            batch.precision = lowest(batch.precision, dtype)
        update.ledger.note()

    def _loss_scale(self, losses: Tensor) -> float:
        if self.scaler is None:
            return 1.0
        self.scaler.scale(losses.detach().sum())  # the first call makes the scale
        return float(self.scaler.get_scale())

    @contextmanager
    def unweighted(self) -> Generator[None]:
        """Declare gradient that does not depend on the weights: `with lookahead.unweighted(): penalty.backward()`."""
        if self._open is not None:
            raise RuntimeError("lookahead.unweighted() stands beside lookahead.inner(), not inside it")
        with self._begin().ledger.declared():
            yield

    @span("step")
    def step(self) -> None:
        """Unscale, clip, and take the optimizer's step; the one that `backward_outer` differentiates."""
        if self._open is not None:
            raise RuntimeError("lookahead.step() inside lookahead.inner(): leave the block first")
        update, self._update = self._update, None
        if update is not None and update.taken is not None:
            raise RuntimeError(
                "lookahead.step() was called twice for one update: after it call backward_outer, or begin the next "
                "update with lookahead.inner()"
            )
        recorded = update is not None and bool(update.batches)
        if update is not None and recorded:
            if self._num_steps[0] != update.num_steps:
                self._refuse_misplaced_step()
            self._verify_unwritten(update)
            update.ledger.verify()
            update.probe = StepProbe() if update.due else None
        sites = self._sites if update is None else update.sites
        if self._processes.size > 1 and not sites.shards.any:
            declared = update.ledger.unweighted if update is not None and recorded else None
            self._processes.average_gradients([*sites.names, *sites.others], declared)
        before = self._num_steps[0]
        if update is not None and recorded and self._window.length > 1:
            update.before = Before.of(self._optimizers)
        taken = TakenStep.take(
            self._optimizers, self.scaler, self.clipping, self.adam,
            update.sites.names if update is not None and recorded else {},
            with_gradient(update.sites) if update is not None and recorded else {},
            recorded and self._recorder.needs_before, sites.shards, update.probe if update is not None else None,
            None if self._projection is None else Constraint(self._projection, sites.names),
        )  # fmt: skip
        if update is None or not recorded:
            return
        if self._num_steps[0] - before < len(self._optimizers.lives) and not taken.skipped:
            raise RuntimeError(
                "lookahead.step(): the optimizer took no step (accelerate's gradient accumulation?); open one "
                "lookahead.inner() per micro-batch and call lookahead.step() once, with the optimizer itself"
            )
        update.taken, update.num_steps, self._update = taken, self._num_steps[0], update

    # -- outer ---------------------------------------------------------------------------------------------------

    def accumulate_outer(self, outer_loss: Tensor) -> None:
        """Add ∇F of one outer micro-batch to v; call before `backward_outer`, whose v is then the mean of all."""
        update, self._update = self._ready(), None  # nothing survives an error
        assert update.taken is not None, "_ready has seen to it"
        if update.outer is None:
            recorded = [b for each in (*self._window.past, update) for b in each.batches]
            coefficients = [b.coefficients for b in recorded if b.coefficients is not None]
            weigher = [leaf for leaf in leaves(*coefficients) if not update.sites.holds(leaf)]
            update.outer = OuterGradient(update.sites, weigher, wrapped=self._wrapped is not self.model)
        if update.due:
            refuse_reentrant(outer_loss)
            refuse_early(outer_loss, {**update.sites.names, **update.sites.stand_ins}, update.taken.mark)
        update.outer.add(outer_loss)
        self._update = update

    def backward_outer(self, outer_loss: Tensor) -> Status:
        """Add dF/dφ to the `.grad` of whatever the coefficients came from.

        outer_loss: scalar, computed with the model after `step()`. Returns `Status.DONE`, or `Status.NOT_FINITE` where
        the outer gradient is not finite or the step was skipped; then nothing is added. `report` holds the numbers.
        """
        self.accumulate_outer(outer_loss)
        update, self._update = self._update, None
        assert update is not None, "accumulated above"
        assert update.taken is not None, "accumulated above"
        assert update.outer is not None, "accumulated above"
        taken, outer = update.taken, update.outer
        self._schedule.num_updates += 1
        self.report = {"outer_loss": outer.mean(), "outer_gradient_norm": outer.size()}
        if taken.size is not None:
            self.report["inner_gradient_norm"] = taken.size
        finite = math.isfinite(self.report["outer_gradient_norm"])
        if not finite or taken.skipped or not math.isfinite(self.report.get("inner_gradient_norm", 0.0)):
            if update.due:
                self._schedule.again()
            return Status.NOT_FINITE
        self._judge.report = self.report
        past = self._window.past
        if past:
            self._window.refuse_buffers({b: name for name, b in self.model.named_buffers()})
            surrogate = walk_back([*past, update], outer.vector, self._judge.surrogate)
        else:
            cotangent = self._judge.cotangent(update, taken, outer.vector)
            surrogate = self._judge.surrogate(update, taken, cotangent)
        if self._window.length > 1:
            self.report["steps"] = 1 + len(past)
        if surrogate is None:
            return Status.NOT_FINITE
        for leaf, gradient in outer.direct.items():
            surrogate = surrogate + (leaf * gradient.to(leaf.dtype)).sum()
        reached = leaves(surrogate)
        own = [leaf for leaf in reached if not update.sites.holds(leaf)]
        kept: dict[Tensor, Tensor] = {}
        if self._processes.size > 1:  # what is new is averaged over the processes, what was there stays as it is
            kept = {leaf: leaf.grad for leaf in own if leaf.grad is not None}
            for leaf in own:
                leaf.grad = None
        # A weigher may read the model's features; its gradient ends there, and the parameters' .grad stays as it is.
        with span("weigher"):
            backward(surrogate, None if len(own) == len(reached) else own)
        self._processes.mean_of_new_gradients(own, kept)
        return Status.DONE

    def _ready(self) -> Update:
        """The update whose step was taken. Raises RuntimeError naming the call that is missing."""
        update = self._update
        if self._open is not None:
            raise RuntimeError(
                "backward_outer inside lookahead.inner(): leave the block and call lookahead.step() first"
            )
        if update is None or not update.batches:
            raise RuntimeError(
                "nothing recorded: run lookahead.inner() with record=True, lookahead.backward and lookahead.step() "
                "first (an error in between drops the whole update)"
            )
        for batch in update.batches:
            if batch.coefficients is None or not batch.coefficients.requires_grad:
                self._update = None
                raise ValueError(
                    "the coefficients do not depend on any weigher parameter; was the weigher's output detached?"
                )
        if update.taken is None:
            if self._num_steps[0] != update.num_steps:
                self._refuse_misplaced_step()
            self._update = None
            raise RuntimeError("no step was taken: call lookahead.step() between lookahead.backward and backward_outer")
        if self._num_steps[0] != update.num_steps:
            self._update = None
            raise RuntimeError("the optimizer took another step after lookahead.step(); call backward_outer before it")
        try:
            update.taken.verify_untouched()
        except RuntimeError:
            self._update = None
            raise
        return update

    def _refuse_misplaced_step(self) -> None:
        self._update = None
        raise RuntimeError(
            "optimizer.step() was called where lookahead.step() belongs, so the step that is to be differentiated is "
            "not known; call lookahead.step(), which clips, steps, and remembers"
        )
