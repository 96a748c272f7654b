"""One update of each phase: the cold start's, and the bilevel one.

Shapes: B examples of a micro-batch, S steps.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from bilevel import Status
from dreamprm.errors import UserError
from dreamprm.loss import example_losses, outer_loss
from dreamprm.prm.collate import Batch
from dreamprm.trainer.schedule import set_lr
from dreamprm.trainer.state import Run
from dreamprm.trainer.unrolled_updates import is_unrolled, unrolled_updates
from dreamprm.weigher import from_batch, project

__all__ = ["bilevel_update", "cold_update"]


def cold_update(run: Run) -> dict[str, float]:
    """One update on the plain mean loss, plus `dense_weight` times the world's dense loss where there is one."""
    settings, optimizer = run.settings.cold, run.inner_optimizer
    assert optimizer is not None, "the phase builds its optimizer"
    lr = set_lr(optimizer, settings.optimizer.lr, settings.schedule, run.update, settings.updates)
    total = settings.batch_size * settings.accumulate
    rows = run.samplers["cold"].draw(total)
    optimizer.zero_grad()
    losses: list[Tensor] = []
    for micro in _pieces(rows, settings.batch_size):
        batch = run.batch(run.cold, micro)
        with run.autocast():
            each = _inner_losses(run, batch, run.prm(batch))
            loss = each.sum() / total
        loss.backward()
        losses.append(each.detach())
    numbers = {"loss": torch.cat(losses).mean().item(), "lr": lr}
    if run.dense_loss is not None and settings.dense_weight > 0:
        # Another seed for every update: nothing about the stream of captions has to be saved.
        with run.autocast():
            dense = run.dense_loss(run.prm, run.settings.seed * 1_000_003 + run.update, settings.dense_batch_size)
        (settings.dense_weight * dense).backward()
        numbers["dense_loss"] = dense.item()
    _clip(list(run.trainable().values()), settings.clip_norm)
    optimizer.step()
    return numbers


def bilevel_update(run: Run) -> dict[str, float]:
    """One inner update with weighted examples and, every `outer.every` updates, one outer update of the weigher.

    g = sum_i w_i(phi)/B grad l_i(theta);  theta' = optimizer(theta, clip(g));  phi follows dF(theta')/dphi
    """
    settings, update = run.settings, run.update - run.num_cold
    outer_now = run.learns_weights and update >= settings.outer.begin and (update + 1) % settings.outer.every == 0
    assert run.inner_optimizer is not None, "the phase builds its optimizer"
    inner = settings.inner
    lr = set_lr(run.inner_optimizer, inner.optimizer.lr, inner.schedule, update, inner.updates)
    if is_unrolled(settings) and _window_begins(run, update):
        numbers, status = unrolled_updates(run, lr)
        run.update += settings.hypergradient.unroll - 1
        return numbers | _weigher_update(run, update, status)
    outer_now = outer_now and not is_unrolled(settings)
    rows = run.samplers["inner"].draw(inner.batch_size * inner.accumulate)
    run.inner_optimizer.zero_grad()
    losses: list[Tensor] = []
    weights: list[Tensor] = []
    for micro in _pieces(rows, inner.batch_size):
        batch = run.batch(run.train, micro)
        with run.lookahead.inner(rows=run.prm.row_examples(batch), record=outer_now):
            with run.autocast():
                logits = run.prm(batch)
                each = _inner_losses(run, batch, logits)
            features = from_batch(batch, logits, each)
            weight = run.weigher(features)
            run.weigher.observe(features)
            run.lookahead.backward(each, weight / len(rows))
        losses.append(each.detach())
        weights.append(weight.detach())
    run.lookahead.step()
    used = torch.cat(weights)
    numbers = {
        "inner_loss": torch.cat(losses).mean().item(),
        "weight_mean": used.mean().item(),
        "weight_std": used.std(correction=0).item(),
        "lr": lr,
    }
    return numbers | (_outer_update(run, update) if outer_now else {})


def _outer_update(run: Run, update: int) -> dict[str, float]:
    """The hypergradient at the updated parameters, and the weigher's update."""
    outer, optimizer = run.settings.outer, run.outer_optimizer
    assert optimizer is not None, "the phase builds its optimizer"
    optimizer.zero_grad()
    *earlier, last = _pieces(run.samplers["outer"].draw(outer.batch_size * outer.accumulate), outer.batch_size)
    for rows in earlier:
        run.lookahead.accumulate_outer(_outer_loss(run, rows))
    status = run.lookahead.backward_outer(_outer_loss(run, last))
    numbers = {"outer_loss": run.lookahead.report["outer_loss"]}
    if "check" in run.lookahead.report:
        run.counters.check_cosine = numbers["check_cosine"] = run.lookahead.report["check"]
    return numbers | _weigher_update(run, update, status)


def _outer_loss(run: Run, rows: Sequence[int]) -> Tensor:
    """The outer loss of a micro-batch of meta chains."""
    batch, outer = run.batch(run.meta, rows), run.settings.outer
    with run.autocast():
        return outer_loss(run.prm(batch), batch, outer.aggregate.name, outer.loss.name)


def _weigher_update(run: Run, update: int, status: Status) -> dict[str, float]:
    """Clip, step and project the weigher; an update whose gradient is not finite is counted and left out."""
    outer, optimizer, counters = run.settings.outer, run.outer_optimizer, run.counters
    assert optimizer is not None, "the phase builds its optimizer"
    set_lr(optimizer, outer.optimizer.lr, outer.schedule, update, max(1, run.settings.inner.updates))
    counters.outer_updates += 1
    gradients = [value.grad for value in run.weigher.parameters() if value.grad is not None]
    if status is Status.NOT_FINITE or not all(_finite(gradient) for gradient in gradients):
        counters.skipped_outer += 1
        counters.skipped_in_a_row += 1
        if counters.skipped_in_a_row > outer.max_not_finite:
            raise UserError(
                f"the outer gradient was not finite {counters.skipped_in_a_row} times in a row, up to update "
                f"{run.update}: lower inner.optimizer.lr, or raise outer.max_not_finite to wait longer"
            )
        return {"outer_skipped": 1.0}
    counters.skipped_in_a_row = 0
    norm = _clip(list(run.weigher.parameters()), outer.clip_norm)
    optimizer.step()
    project(run.weigher)
    return {"hypergradient_norm": norm}


def _window_begins(run: Run, update: int) -> bool:
    """Whether the next `unroll` updates end with an outer one."""
    settings, end = run.settings, update + run.settings.hypergradient.unroll
    fits = end <= settings.inner.updates and end % settings.outer.every == 0
    return run.learns_weights and update >= settings.outer.begin and fits


def _inner_losses(run: Run, batch: Batch, logits: Tensor) -> Tensor:
    """The loss of every example. Raises UserError naming the examples whose loss is not finite."""
    losses = example_losses(logits, batch, run.settings.inner.loss.name)
    bad = (~losses.detach().isfinite()).nonzero().flatten().tolist()
    if bad:
        keys = ", ".join(batch.keys[place] for place in bad[:5]) + (" …" if len(bad) > 5 else "")
        raise UserError(
            f"update {run.update}: the loss of {len(bad)} of {len(losses)} examples is not finite ({keys}). "
            "Lower the learning rate, set clip_norm, or look at these examples; "
            "the last checkpoint is from before this update"
        )
    return losses


def _pieces(rows: Sequence[int], size: int) -> Iterator[list[int]]:
    for start in range(0, len(rows), size):
        yield list(rows[start : start + size])


def _finite(gradient: Tensor) -> bool:
    values = gradient.coalesce().values() if gradient.is_sparse else gradient
    return bool(values.isfinite().all())


def _clip(parameters: list[torch.nn.Parameter], norm: float | None) -> float:
    """Clip by the global norm in place, sparse gradients too; return the norm before."""
    parts: list[Tensor] = []
    for parameter in parameters:
        if parameter.grad is not None:
            if parameter.grad.is_sparse:
                parameter.grad = parameter.grad.coalesce()
                parts.append(parameter.grad._values())
            else:
                parts.append(parameter.grad)
    if not parts:
        return 0.0
    total = torch.stack([part.norm(dtype=torch.float32) for part in parts]).norm()
    if norm is not None and total > norm:
        factor = norm / (total + 1e-6)
        for part in parts:
            part.mul_(factor.to(part.dtype))
    return total.item()
