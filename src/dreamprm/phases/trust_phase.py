"""Between the cold start and the last training: what may be believed of every label, for `weigher=trust`.

Three trainings, none of which stays:

1. From the cold start, `weigher.passes` times over the pool, all weights 1. Every update is looked at by the exact
   hypergradient: d_is = <u, ∇ℓ_is> of its own examples, of size one over the update, is added to their rows. They are
   means over visits and over a moving PRM, where an online weigher would follow each of them at once.
2. and 3. From the PRM as it was before the cold start, which has learned the pool's wrong labels too: on the pool and
   on one half of the meta set's questions each, `weigher.judge_updates` times. With α, β fitted to the other half
   (min CE(α a + β, r), a the chain's aggregate), m_is = α z_is (2 y_is - 1) / 2 is added, z the judge's log-odds.

Then the cold-started PRM is put back. The first uses `inner` and `outer` as the bilevel phase does, the others
`cold`'s batches and optimizer beside `inner.meta_loss`.

Shapes: B examples of an update, S steps, N training examples, W most steps of a chain.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from bilevel import Status
from bilevel.spans import span
from dreamprm.config.build import build_lookahead
from dreamprm.config.optimizers import build_optimizer
from dreamprm.config.schedule import set_lr
from dreamprm.distributed import average_gradients, everyone, everywhere, num_processes, own_part, rank
from dreamprm.loss import fit_confidence, outer_loss, step_losses
from dreamprm.metrics import PhaseName
from dreamprm.phases.phase import Made, clip, inner_losses
from dreamprm.phases.state import Run
from dreamprm.phases.trust_plan import meta_halves
from dreamprm.prm.aggregation import aggregate_log_odds, as_log_odds
from dreamprm.weigher.trust import Trust

__all__ = ["TrustPhase"]

_MOST_SURE = 3.0  # largest α: few held-out chains that a judge happens to tell apart would ask for any


class TrustPhase:
    """The trainings of the file's head, one update a call; what must outlive it is in the weigher's tables."""

    name = PhaseName.TRUST

    def __init__(self, run: Run) -> None:
        assert isinstance(run.weigher, Trust), "no other weigher has this phase"
        self.run, self.weigher = run, run.weigher
        self.halves = meta_halves(run.meta) if run.trust_updates[1] else ([], [])
        self.looks, self.judge_updates = run.trust_updates
        if run.start is None:
            run.start = {name: value.detach().clone() for name, value in run.trainable().items()}
        self._begin(self._part()[0])

    def _part(self) -> tuple[int, int, int]:
        """Which training the next update belongs to (0: looks; 1, 2: judges), its place there, and its length."""
        update = self.run.update - self.run.num_cold
        if update < self.looks:
            return 0, update, self.looks
        part, place = divmod(update - self.looks, self.judge_updates)
        return part + 1, place, self.judge_updates

    def _begin(self, part: int) -> None:
        run, settings = self.run, self.run.settings
        made = settings.cold.optimizer if part else settings.inner.optimizer
        self.optimizer = build_optimizer(made, run.trainable().values())
        self.optimizers = {"inner": self.optimizer}
        if not part:
            self.lookahead = build_lookahead(settings.hypergradient, run.prm, self.optimizer, settings.inner.clip_norm)

    def update(self) -> Made:
        part, place, length = self._part()
        if part and not place:
            self.run.put(self.run.fresh)
            self._begin(part)
        numbers = self._look(place) if not part else self._train_judge(part, place)
        if place == length - 1:
            if part:
                self._judge_labels(part)
            else:
                self.weigher.settle_pulls(self._mask())
        if self.run.update + 1 == self.run.num_cold + self.run.num_trust:
            self.run.put(self.run.start or {})
            self.run.start = None
        return Made(numbers)

    # -- looks ---------------------------------------------------------------------------------------------------

    def _look(self, place: int) -> dict[str, float]:
        """One equally weighted update on the pool, and d of its examples."""
        run, inner, outer = self.run, self.run.settings.inner, self.run.settings.outer
        lr = set_lr(self.optimizer, inner.optimizer.lr, inner.schedule, place, self.looks)
        total = inner.batch_size * inner.accumulate
        micros = run.draw("looks", run.train, inner.batch_size, inner.accumulate)
        self.lookahead.num_updates = run.counters.outer_updates
        self.optimizer.zero_grad()
        record = place >= outer.begin
        losses: list[Tensor] = []
        seen: list[tuple[Sequence[int], Tensor]] = []
        for micro in micros:
            batch = run.batch(run.train, own_part(micro))
            # Of the whole micro-batch in every process, so that what each finds of its own part is averaged into place.
            weight = torch.ones(len(micro), self._width(micro), device=run.device, requires_grad=record)
            with self.lookahead.inner(rows=run.prm.row_examples(batch), record=record):
                with span("inner forward"), run.autocast():
                    logits = run.prm(batch)
                    losses.append(inner_losses(run, batch, logits).detach())
                each = step_losses(logits, batch, inner.loss) / batch.label_mask.sum(1, keepdim=True)
                own = own_part(range(len(micro)))
                self.lookahead.backward(each, weight[own, : each.shape[1]] * num_processes() / total)
            seen.append((micro, weight))
        self.lookahead.step()
        numbers = {"loss": everywhere(torch.cat(losses)).mean().item(), "lr": lr}
        if not record:
            return numbers
        *earlier, last = run.draw("outer", run.meta, outer.batch_size, outer.accumulate)
        for part in earlier:
            self.lookahead.accumulate_outer(self._outcomes(part, outer.loss))
        status = self.lookahead.backward_outer(self._outcomes(last, outer.loss))
        run.counters.outer_updates += 1
        numbers["outer_loss"] = self.lookahead.report["outer_loss"]
        run.counters.check_error = self.lookahead.report.get("check", run.counters.check_error)
        run.counters.sum_rule = max(run.counters.sum_rule or 0.0, self.lookahead.report.get("sum_rule", 0.0))
        if status is Status.NOT_FINITE:
            run.counters.skipped_outer += 1
        else:
            self._keep(seen)
        return numbers

    def _keep(self, seen: list[tuple[Sequence[int], Tensor]]) -> None:
        """Of size one over the update, so that none counts more for a larger rate or outer gradient."""
        pulls = [(rows, -_gradient(weight)) for rows, weight in seen]
        size = math.sqrt(sum(float(values.square().sum()) for _, values in pulls))
        for rows, values in pulls:
            for row, value in zip(rows, values.cpu(), strict=True):
                self.weigher.look([row], value[None] / (size or 1.0))

    def _width(self, rows: Sequence[int]) -> int:
        return max(len(self.run.train[row].steps) for row in rows)

    def _mask(self) -> Tensor:
        """Which of the tables' places are labelled steps, (N, W)."""
        mask = torch.zeros_like(self.weigher.pull, dtype=torch.bool)
        for row, record in enumerate(self.run.train):
            self.weigher.check_width(len(record.steps))
            mask[row, : len(record.steps)] = torch.tensor([label is not None for label in record.labels])
        return mask

    # -- judges --------------------------------------------------------------------------------------------------

    def _train_judge(self, part: int, place: int) -> dict[str, float]:
        """One update on the pool and on a half of the meta set."""
        run, cold = self.run, self.run.settings.cold
        lr = set_lr(self.optimizer, cold.optimizer.lr, cold.schedule, place, self.judge_updates)
        total = cold.batch_size * cold.accumulate
        self.optimizer.zero_grad()
        losses: list[Tensor] = []
        for micro in run.draw("looks", run.train, cold.batch_size, cold.accumulate):
            batch = run.batch(run.train, own_part(micro))
            with run.autocast():
                each = inner_losses(run, batch, run.prm(batch))
                loss = each.sum() * num_processes() / total
            loss.backward()
            losses.append(each.detach())
        half = self.halves[part - 1]
        (rows,) = run.draw(f"half{part}", run.meta, min(cold.batch_size, len(half)), among=half)
        outcomes = self._outcomes(rows, run.settings.meta_loss)
        outcomes.backward()
        parameters = list(run.trainable().values())
        average_gradients(parameters)
        clip(parameters, cold.clip_norm)
        self.optimizer.step()
        return {"loss": everywhere(torch.cat(losses)).mean().item(), "lr": lr}

    def _outcomes(self, rows: Sequence[int], kind: str) -> Tensor:
        """The loss of a batch of meta chains against their outcomes."""
        run, own = self.run, own_part(rows)
        batch = run.batch(run.meta, own)
        with span("outer forward"), run.autocast():
            mean = outer_loss(run.prm(batch), batch, run.settings.outer.aggregate, kind, everywhere)
            return mean * (len(own) * num_processes() / len(rows))

    @torch.no_grad()
    def _judge_labels(self, part: int) -> None:
        """Adds this judge's half of m for every training example."""
        run = self.run
        was_training = run.prm.training
        run.prm.eval()
        sure = self._sureness(self.halves[2 - part])
        run.counters.sureness[part - 1] = sure
        size = run.settings.evaluate.batch_size
        for start in range(0, len(run.train), size * num_processes()):
            own = start + rank() * size
            places = range(min(own, len(run.train)), min(own + size, len(run.train)))
            for rows, values in everyone((list(places), self._beliefs(places, sure))):
                if rows:
                    self.weigher.believe(rows, torch.tensor(values))
        run.prm.train(was_training)

    def _sureness(self, rows: Sequence[int]) -> float:
        """α on held-out meta chains."""
        run, outer = self.run, self.run.settings.outer
        records = [run.meta[row] for row in rows]
        found = run.prm.log_odds_records(records, run.settings.evaluate.batch_size)
        chains = [aggregate_log_odds(torch.tensor([row], dtype=torch.float64), outer.aggregate) for row in found]
        right = torch.tensor([float(bool(record.correct)) for record in records], dtype=torch.float64)
        return min(_MOST_SURE, float(fit_confidence(as_log_odds(torch.cat(chains), outer.aggregate), right)[0]))

    def _beliefs(self, places: range, sure: float) -> list[list[float]]:
        if not places:
            return []
        batch = self.run.batch(self.run.train, places)
        with self.run.autocast():
            z = self.run.prm(batch)
        m = sure * z * (2 * batch.labels - 1) / 2
        return torch.where(batch.label_mask, m, 0.0).tolist()


def _gradient(weight: Tensor) -> Tensor:
    return torch.zeros_like(weight) if weight.grad is None else weight.grad.detach()
