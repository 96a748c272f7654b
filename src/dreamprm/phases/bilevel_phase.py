"""Weighted inner updates, each with one outer update of the weigher by the hypergradient of the step just taken.

Of several processes each takes its part of every micro-batch. `Lookahead` makes means over the processes of what they
have summed, so that N of them weigh their chains N times as much as one process weighs the whole batch's.

Shapes: B examples of a micro-batch, S steps.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from bilevel.spans import span
from dreamprm.config.build import build_lookahead
from dreamprm.config.optimizers import build_optimizer
from dreamprm.config.schedule import set_lr
from dreamprm.distributed import everywhere, num_processes, own_part
from dreamprm.loss import outer_loss, step_losses
from dreamprm.metrics import PhaseName
from dreamprm.phases.phase import Made, inner_losses
from dreamprm.phases.state import Run
from dreamprm.phases.weigher_update import WeigherUpdate
from dreamprm.prm.collate import Batch
from dreamprm.prm.shared_prefix import SharedPrefixScorer
from dreamprm.weigher import from_batch

__all__ = ["BilevelPhase"]


class BilevelPhase:
    """g = sum_i w_i(phi)/B grad l_i(theta);  theta' = optimizer(theta, clip(g));  phi follows dF(theta')/dphi.

    weighing: None where the weigher has nothing to learn.
    """

    name = PhaseName.BILEVEL

    def __init__(self, run: Run) -> None:
        settings = run.settings
        self.run = run
        self.optimizer = build_optimizer(settings.inner.optimizer, run.trainable().values())
        self.lookahead = build_lookahead(settings.hypergradient, run.prm, self.optimizer, settings.inner.clip_norm)
        self.weighing = WeigherUpdate(run) if run.learns_weights else None
        self.shared = SharedPrefixScorer(run.prm, run.judge) if settings.outer.by_question else None
        # Rows, their weights, which of them are steps.
        self.seen: list[tuple[Sequence[int], Tensor, Tensor | None]] = []
        self.optimizers = {"inner": self.optimizer}
        if self.weighing is not None:
            self.optimizers["outer"] = self.weighing.optimizer

    def update(self) -> Made:
        """One inner update and, every `outer.every` updates, one outer update of the weigher."""
        update = self.run.update - self.run.num_before
        weighing = self.weighing if self.weighing is not None and self.weighing.due(update) else None
        numbers = self.inner_update(update, record=weighing is not None)
        if weighing is not None:
            numbers |= self._outer_update(update, weighing)
        return Made(numbers)

    def set_inner_lr(self, update: int) -> float:
        inner = self.run.settings.inner
        return set_lr(self.optimizer, inner.optimizer.lr, inner.schedule, update, inner.updates)

    def inner_update(self, update: int, *, record: bool) -> dict[str, float]:
        """One weighted inner update. record: keep what the hypergradient needs of it."""
        run, inner = self.run, self.run.settings.inner
        lr = self.set_inner_lr(update)
        total = inner.batch_size * inner.accumulate
        self.optimizer.zero_grad()
        self.lookahead.num_updates = (
            run.counters.outer_updates
        )  # a resumed run checks itself when one would that went on
        self.seen.clear()
        run.weigher.forget()
        losses: list[Tensor] = []
        weights: list[Tensor] = []
        for micro in run.draw("inner", run.train, inner.batch_size, inner.accumulate):
            batch = run.batch(run.train, own_part(micro))
            with self.lookahead.inner(rows=run.prm.row_examples(batch), record=record):
                with span("inner forward"), run.autocast():
                    logits = run.prm(batch)
                    each = inner_losses(run, batch, logits)
                with span("weigher"):
                    features = from_batch(batch, logits, each)
                    weight = run.weigher(features)
                    run.weigher.observe(features)
                if record and run.history is not None and run.history.due(run.update):
                    weight.retain_grad()
                    self.seen.append((own_part(micro), weight, batch.step_mask if run.weigher.per_step else None))
                counted = _of_steps(run, batch, logits) if run.weigher.per_step else each
                self.lookahead.backward(counted, weight * num_processes() / total)
            losses.append(each.detach())
            weights.append(weight.detach()[batch.step_mask] if run.weigher.per_step else weight.detach())
        if inner.meta_weight:
            self._train_on_meta()
        self.lookahead.step()
        with span("logging"):
            used = everywhere(torch.cat(weights))
            return {
                "inner_loss": everywhere(torch.cat(losses)).mean().item(),
                "weight_mean": used.mean().item(),
                "weight_std": used.std(correction=0).item(),
                "lr": lr,
            }

    def _train_on_meta(self) -> None:
        """Adds the gradient of meta_weight times the outer loss: the meta set used directly, beside the pool."""
        run, outer = self.run, self.run.settings.outer
        with self.lookahead.unweighted():
            (rows,) = run.draw("outer", run.meta, run.settings.inner.meta_batch_size or outer.batch_size)
            (run.settings.inner.meta_weight * self._outer_loss(rows, run.settings.meta_loss)).backward()

    def _outer_update(self, update: int, weighing: WeigherUpdate) -> dict[str, float]:
        """The hypergradient at the updated parameters, and the weigher's update."""
        run, outer = self.run, self.run.settings.outer
        weighing.optimizer.zero_grad()
        *earlier, last = run.draw("outer", run.meta, outer.batch_size, outer.accumulate)
        for rows in earlier:
            self.lookahead.accumulate_outer(self._outer_loss(rows))
        status = self.lookahead.backward_outer(self._outer_loss(last))
        self._remember()
        report = self.lookahead.report
        numbers = {"outer_loss": report["outer_loss"]}
        if "check" in report:
            run.counters.check_error = numbers["check_error"] = report["check"]
        if "sum_rule" in report:
            numbers["sum_rule"] = report["sum_rule"]
            run.counters.sum_rule = max(run.counters.sum_rule or 0.0, report["sum_rule"])
        with span("weigher"):
            return numbers | weighing.step(update, status)

    def _remember(self) -> None:
        """This update's weights and pulls into the run's history; of a chain with weights of steps mean and sum."""
        run, seen = self.run, self.seen
        if run.history is None or not seen:
            return
        scale = -sum(len(rows) for rows, _, _ in seen)
        weights: list[Tensor] = []
        pulls: list[Tensor] = []
        for _, weight, mask in seen:
            pull = torch.zeros_like(weight) if weight.grad is None else weight.grad * scale
            if mask is None:
                mask = torch.ones_like(weight[:, None])
                pull, weight = pull[:, None], weight[:, None]
            weights.append((weight.detach() * mask).sum(1) / mask.sum(1).clamp(min=1))
            pulls.append((pull * mask).sum(1))
        rows = torch.tensor([row for own, _, _ in seen for row in own])
        columns = [everywhere(column).tolist() for column in (rows, torch.cat(weights), torch.cat(pulls))]
        run.history.add(run.update, *columns)
        seen.clear()

    def _outer_loss(self, rows: Sequence[int], kind: str | None = None) -> Tensor:
        """The outer loss of a micro-batch of meta chains, or another loss of theirs."""
        run, outer = self.run, self.run.settings.outer
        own = own_part(rows)
        batch = run.batch(run.meta, own)
        with span("outer forward"), run.autocast():
            logits = run.prm(batch) if self.shared is None else self.shared.of_batch([run.meta[row] for row in own])
            mean = outer_loss(logits, batch, outer.aggregate, kind or outer.loss, everywhere)
            return mean * (len(own) * num_processes() / len(rows))


def _of_steps(run: Run, batch: Batch, logits: Tensor) -> Tensor:
    """The share of every step in its chain's loss, (B, S): they sum to `inner_losses`."""
    return step_losses(logits, batch, run.settings.inner.loss) / batch.label_mask.sum(1, keepdim=True)
