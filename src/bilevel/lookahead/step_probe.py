"""u against autograd through the optimizer's own formula, on a few coordinates of every parameter.

torch's optimizers can run with `differentiable=True`. Before the step the probe copies a few coordinates of θ and of
the optimizer's state; afterwards it takes the same step on them, differentiably, and compares θ' and u = Cᵀ D v. So a
wrong learning rate, a tensor written to twice, and a change of θ that is not the optimizer's are seen. Optimizers
that are not elementwise, or not torch's, are left alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from .._shards import local
from ..spans import span
from ..steps import ELEMENTWISE
from .check import CHECK_TOLERANCE
from .taken_step import TakenStep, named
from .together import Together
from .typed import gradients, norm

__all__ = ["StepProbe"]

NUM_COORDINATES = 4
_COUNTS = ("step", "mu_product")  # one number each, also where the parameter is one number
_NOT_MINE = ("params", "foreach", "fused", "differentiable", "capturable")


class _Slice:
    """One parameter's coordinates before the step."""

    def __init__(self, parameter: Tensor, kind: Any, state: Mapping[str, Any]) -> None:
        self.parameter, self.kind = parameter, kind
        own = local(parameter)
        # In whole numbers: torch.linspace counts in 32 bits of floating point, which end at 2^24.
        last, count = own.numel() - 1, min(NUM_COORDINATES, own.numel())
        self.places = torch.tensor([i * last // max(1, count - 1) for i in range(count)], device=own.device)
        self.theta = self.of(parameter)
        self.state: dict[str, Any] = {}
        for name, value in state.items():
            if isinstance(value, Tensor):
                value = local(value)
            if isinstance(value, Tensor) and value.shape == own.shape and name not in _COUNTS:
                self.state[name] = self.of(value)
            else:
                self.state[name] = (
                    value.detach().to("cpu", torch.float64, copy=True) if isinstance(value, Tensor) else value
                )

    def of(self, tensor: Tensor) -> Tensor:
        """The coordinates of a tensor like the parameter, in float64 on the CPU."""
        return local(tensor).detach().reshape(-1)[self.places].double().cpu()


class StepProbe:
    """Made before a step (`look`), given v (`take`), asked after u is known (`verify`)."""

    def __init__(self) -> None:
        self._slices: list[tuple[int, _Slice]] = []
        self._vector: dict[Tensor, Tensor] = {}

    @span("check")
    def look(self, optimizers: Together, parameters: Sequence[Tensor]) -> None:
        """Copy θ and the optimizers' state at the coordinates."""
        wanted, number = set(parameters), -1
        for live in optimizers.lives:
            kind: Any = type(live)
            known = kind.__module__.startswith("torch.optim") and kind.__name__ in ELEMENTWISE
            for group in live.param_groups:
                number += 1
                for p in group["params"] if known else ():
                    if p in wanted and local(p).numel() and p.dtype in (torch.float32, torch.float64):
                        self._slices.append((number, _Slice(p, kind, live.state.get(p, {}))))

    @span("check")
    def take(self, vector: Mapping[Tensor, Tensor]) -> None:
        """Copy v, before it is multiplied in place."""
        self._vector = {s.parameter: s.of(vector[s.parameter]) for _, s in self._slices if s.parameter in vector}

    @span("check")
    def verify(self, step: TakenStep, cotangent: Mapping[Tensor, Tensor], before_clip: float) -> float | None:
        """The largest relative error of u at the coordinates. before_clip: <x, g̃> over everything, x = D v.

        Raises RuntimeError where θ' is not what the optimizer's formula makes of θ.
        """
        if not self._slices or step.skipped:
            return None
        moved, grads = self._step_again(step)
        self._verify_theta(step, moved)
        if step.adam == "frozen":
            return None
        pairs = [
            (place, self._vector[s.parameter])
            for place, (_, s) in enumerate(self._slices)
            if s.parameter in self._vector
        ]
        zero = [torch.zeros_like(g) for g in grads]
        x = list(zero)
        if pairs:
            total = torch.stack([(moved[place] * v).sum() for place, v in pairs]).sum()
            x = [z if d is None else -d for d, z in zip(gradients(total, grads), zero, strict=True)]
        expected = self._through_clip(step, grads, x, before_clip)
        worst = 0.0
        size = sum(float(e.square().sum()) for e in expected) ** 0.5
        for (_, s), e, g, m in zip(self._slices, expected, grads, moved, strict=True):
            ours = s.of(cotangent[s.parameter]) if s.parameter in cotangent else torch.zeros_like(e)
            # The scale of the two terms of Adam's D, which cancel at its first step: |v| |Δθ| / |g|.
            v = self._vector.get(s.parameter, torch.zeros_like(e))
            scale = (v * (m.detach() - s.theta) / g.detach().abs().clamp_min(1e-30)).abs()
            error = float(norm(ours - e) / (norm(e) + norm(scale) + 1e-3 * size + 1e-300))
            worst = max(worst, error / CHECK_TOLERANCE[s.parameter.dtype])
        return worst

    def _step_again(self, step: TakenStep) -> tuple[list[Tensor], list[Tensor]]:
        """θ' of the coordinates as a function of their g̃, by torch's own differentiable step."""
        moved = [s.theta.clone() for _, s in self._slices]
        grads = [s.of(step.gradients[s.parameter][0]).requires_grad_() for _, s in self._slices]
        groups: dict[Any, list[dict[str, Any]]] = {}
        for (number, s), target in zip(self._slices, moved, strict=True):
            kept = {k: v for k, v in step.groups[number].items() if k not in _NOT_MINE}
            kept = {k: float(v) if isinstance(v, Tensor) and v.ndim == 0 else v for k, v in kept.items()}
            if s.kind is torch.optim.SGD and kept.get("momentum") and s.state.get("momentum_buffer") is None:
                # torch detaches the first step's buffer; a buffer of zeros without dampening makes the same step.
                kept["dampening"] = 0.0
                s.state["momentum_buffer"] = torch.zeros_like(target)
            groups.setdefault(s.kind, []).append({**kept, "params": [target]})
        steppers: dict[Any, Any] = {kind: kind(own, differentiable=True, foreach=False) for kind, own in groups.items()}
        for (_, s), target, g in zip(self._slices, moved, grads, strict=True):
            target.grad = g
            state = {k: v.clone() if isinstance(v, Tensor) else v for k, v in s.state.items()}
            steppers[s.kind].state[target].update(state)
        # A fresh optimizer counts its steps in the default dtype, and in fp32 1 - β^t loses four digits at t = 1.
        usual = torch.get_default_dtype()
        torch.set_default_dtype(torch.float64)
        try:
            with torch.enable_grad():
                for stepper in steppers.values():
                    stepper.step()
        finally:
            torch.set_default_dtype(usual)
        return moved, grads

    def _verify_theta(self, step: TakenStep, moved: Sequence[Tensor]) -> None:
        wrong: list[Tensor] = []
        for (_, s), expected in zip(self._slices, moved, strict=True):
            now, eps = s.of(step.stepped(s.parameter)), torch.finfo(s.parameter.dtype).eps
            bound = 16 * eps * (s.theta.abs() + now.abs()) + 1e-3 * (expected.detach() - s.theta).abs() + 1e-12
            if bool(((now - expected.detach()).abs() > bound).any()):
                wrong.append(s.parameter)
        if wrong:
            raise RuntimeError(
                f"{named(wrong, step.names)}: after lookahead.step() it is not where the optimizer's formula puts it; "
                "something else changed it (a constraint, another optimizer, a hook of the optimizer). Change "
                "parameters after backward_outer only"
            )

    def _through_clip(
        self, step: TakenStep, grads: Sequence[Tensor], x: Sequence[Tensor], before_clip: float
    ) -> list[Tensor]:
        """Cᵀ x by autograd through the clipping, all other coordinates held."""
        if step.clipping.value is not None:
            return [d * (g.detach().abs() < step.clipping.value) for g, d in zip(grads, x, strict=True)]
        if step.clipping.norm is None or step.size is None or step.size + 1e-6 <= step.clipping.norm:
            return list(x)
        raw = [(g.detach() / step.factor).requires_grad_() for g in grads]
        squares = torch.stack([g.square().sum() for g in raw]).sum()
        products = torch.stack([(d * g).sum() for d, g in zip(x, raw, strict=True)]).sum()
        size = step.size
        others = before_clip / step.factor - float(products.detach())
        length = (squares + (size * size - float(squares.detach()))).sqrt()
        clipped = step.clipping.norm / (length + 1e-6) * (products + others)
        return [torch.zeros_like(g) if d is None else d for g, d in zip(raw, gradients(clipped, raw), strict=True)]
