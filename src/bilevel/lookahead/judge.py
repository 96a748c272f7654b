"""From v to d, with every check on the way: the optimizer's own formula, plain autograd, the sum rule."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from ..spans import span
from .check import HypergradientCheckError, Reference, Schedule
from .messages import disagreement, step_wrong, sum_rule_broken
from .processes import Processes
from .recorder import Part, Recorder, lowest
from .sum_rule import Share, sum_rule, sums_of
from .taken_step import TakenStep
from .update_record import MicroBatch, Update

__all__ = ["Judge"]

_log = logging.getLogger("bilevel")


class Judge:
    """The second half of `backward_outer`. check: "raise", "log" or "off"; report: where the numbers go.

    Where several processes train together, what one of them finds wrong is kept until all have come to the same place,
    and then all fail.
    """

    def __init__(
        self, product: str, recorder: type[Recorder], check: str, schedule: Schedule, processes: Processes
    ) -> None:
        self.product, self.recorder, self.check, self.schedule = product, recorder, check, schedule
        self.processes = processes
        self.report: dict[str, float] = {}
        self._problem: str | None = None

    @span("u = D v")
    def cotangent(self, update: Update, taken: TakenStep, vector: dict[Tensor, Tensor]) -> dict[Tensor, Tensor]:
        """u = Cᵀ D v, written into v; or v itself, where the product wants that."""
        self._problem = None
        if not self.recorder.through_step:
            return vector
        vector = taken.through_projection(vector)
        probe = update.probe
        if probe is not None:
            probe.take(vector)
        x = taken.through_step(vector)
        before_clip = 0.0 if probe is None else taken.against_gradient(x)
        cotangent = taken.through_clip(x)
        if probe is not None:
            try:
                worst = probe.verify(taken, cotangent, before_clip)
            except RuntimeError as error:  # whatever `check` says: it is no comparison of two ways
                if self.processes.size == 1:
                    raise
                self._problem, worst = str(error), None
            if worst is not None and not worst <= 1.0:
                self._fail(step_wrong(worst))
        return cotangent

    @span("products")
    def surrogate(self, update: Update, taken: TakenStep, cotangent: dict[Tensor, Tensor]) -> Tensor | None:
        """-Σ c d of all micro-batches, d held; the checks on the way. None where a d is not finite."""
        surrogate: Tensor | None = None
        finite = True
        precision: torch.dtype | None = None
        shares: list[Share] = []
        total = Share((), 0.0, 0.0)
        for batch in update.batches:
            assert batch.coefficients is not None, "inner() has seen to it"
            assert batch.used is not None, "inner() has seen to it"
            parts = batch.recorder.products(cotangent, taken)
            own, whole = sums_of(parts, batch.used)
            shares, total = shares + own, Share((), total.sum + whole.sum, total.size + whole.size)
            finite = finite and math.isfinite(whole.sum)
            precision = lowest(precision, batch.precision or batch.used.dtype)
            if batch.reference is not None:
                self._compare(batch.reference, parts, cotangent, batch, update)
            part = -(batch.coefficients * parts[0].values.to(batch.coefficients.dtype)).sum()
            surrogate = part if surrogate is None else surrogate + part
        assert surrogate is not None, "there is a micro-batch"
        assert precision is not None, "there is a micro-batch"
        self.schedule.note(taken.parameters)
        if self.processes.any(not finite):
            return None
        unscaled = update.ledger.unscaled(taken.scale)
        with span("sum rule"):
            residual = sum_rule(shares, total, cotangent, taken, unscaled, precision, self.processes)
        self.report["sum_rule"] = max(residual.largest, self.report.get("sum_rule", 0.0))  # of all updates together
        if residual.failing and self.recorder.exact:
            self._fail(sum_rule_broken(self.product, residual, update.sites.names))
        if self.processes.size > 1:
            problem = self.processes.agree(self._problem)
            if problem is not None:
                raise HypergradientCheckError(problem)
        return surrogate

    def _compare(
        self,
        reference: Reference,
        parts: Sequence[Part],
        cotangent: Mapping[Tensor, Tensor],
        batch: MicroBatch,
        update: Update,
    ) -> None:
        start = time.perf_counter()
        assert batch.used is not None, "inner() has seen to it"
        precision = batch.precision or batch.used.dtype
        least = batch.used.abs().min().item() if batch.used.numel() else 1.0
        agreement = reference.compare(parts, cotangent, precision, least)
        if math.isnan(agreement.error):
            self.schedule.again()
            return
        seconds = update.check_seconds + time.perf_counter() - start
        if not self.schedule.quiet:
            self.report |= {"check": agreement.error, "check_seconds": seconds}
        _log.info(
            "hypergradient check: %s differs from plain autograd by %.1e (%.2f s)",
            self.product,
            agreement.error,
            seconds,
        )
        if agreement.bad and self.recorder.exact:
            self._fail(disagreement(self.product, agreement, update.sites.names))

    def _fail(self, message: str) -> None:
        if self.check == "raise":
            if self.processes.size > 1:
                self._problem = self._problem or message
                return
            raise HypergradientCheckError(message)
        if self.check != "off":
            _log.warning("%s", message)
