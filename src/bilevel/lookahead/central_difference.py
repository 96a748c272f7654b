"""The products `fd` and `darts`: a difference of two plain forward passes. Not exact; to compare with, or where nothing
else runs.

ẏ = (y(θ + εu) - y(θ - εu)) / 2ε with ε = epsilon / ‖u‖, rounded to the parameters' dtype.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor

from .recorder import Sites
from .replay import Replay
from .seeing import Replacing
from .taken_step import TakenStep
from .typed import norm

__all__ = ["CentralDifference", "PublishedDifference"]


class CentralDifference(Replay):
    """`fd`: at θ, with the same random numbers. In fp32 only."""

    exact: ClassVar[bool] = False

    @staticmethod
    def refuse(sites: Sites) -> None:
        """The perturbation must not be below the spacing of the parameters."""
        if any(p.dtype in (torch.bfloat16, torch.float16) for p in sites.parameters):
            raise ValueError(
                "product='fd' with 16-bit parameters is rounding noise: the perturbation is below their spacing; "
                "use 'ghost' or 'jvp', or keep fp32 master weights under autocast"
            )

    def _at(self, step: TakenStep) -> Mapping[Tensor, Tensor]:
        return step.theta()

    def _direction(self, cotangent: Mapping[Tensor, Tensor], step: TakenStep) -> dict[Tensor, Tensor]:
        # Where the inner gradient is 0 (a token that the batch does not hold) u has no effect, and Adam's is huge: left
        # in, it would use up the whole perturbation.
        return {
            p: u.masked_fill(step.gradients[p][0] == 0, 0.0) if p in step.gradients else u for p, u in cotangent.items()
        }

    def _changes(self, cotangent: Mapping[Tensor, Tensor], step: TakenStep) -> dict[tuple[int, int], Tensor]:
        parameters, u = self._at(step), self._direction(cotangent, step)
        size = norm(torch.stack([norm(v.float()) for v in u.values()])) if u else torch.zeros(())
        shift = torch.where(size > 0, self.epsilon / size, 0.0)
        scale = torch.where(shift > 0, 0.5 / shift, 0.0)
        ends: list[list[list[Tensor]]] = []
        for sign in (1.0, -1.0):
            moved = dict(parameters)
            for p, v in u.items():
                moved[p] = parameters[p] + (sign * shift * v).to(parameters[p].dtype)
            replacing = Replacing(self.model, moved, unmoved=parameters)
            ends.append([self._run(call, replacing) for call in self.calls])
        changes: dict[tuple[int, int], Tensor] = {}
        for call, high, low in zip(self.calls, *ends, strict=True):
            for place in (place for other, place in self._asked if other is call):
                wide = torch.promote_types(high[place].dtype, torch.float32)
                changes[id(call), place] = (high[place].to(wide) - low[place].to(wide)) * scale.to(wide)
        return changes


class PublishedDifference(CentralDifference):
    """`darts`: at θ', with v in place of u and fresh dropout masks, as the papers' code does."""

    needs_before: ClassVar[bool] = False
    through_step: ClassVar[bool] = False
    same_random: ClassVar[bool] = False

    @staticmethod
    def refuse(sites: Sites) -> None:
        """Nothing: it is here to be compared with, in any precision."""

    def _at(self, step: TakenStep) -> Mapping[Tensor, Tensor]:
        return {p: p.detach() for p in self.sites.parameters}

    def _direction(self, cotangent: Mapping[Tensor, Tensor], step: TakenStep) -> dict[Tensor, Tensor]:
        return dict(cotangent)
