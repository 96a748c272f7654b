"""The product `jvp`: one forward-mode pass of the model at θ in direction u gives the tangent of every loss. Exact."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from torch import Tensor
from torch.autograd import forward_ad

from .recorder import Sites
from .replay import Replay
from .seeing import Replacing
from .taken_step import TakenStep
from .typed import named_modules, no_tangent, tangent

__all__ = ["ForwardMode", "ZeroTangentError"]


class ZeroTangentError(RuntimeError):
    """Forward mode gave no tangent, or zeros only, where u is not zero."""


class ForwardMode(Replay):
    """ẏ = J u by dual numbers. Needs a forward-mode rule for every function of the model; attention by the math
    kernel.
    """

    forward_mode: ClassVar[bool] = True

    @staticmethod
    def refuse(sites: Sites) -> None:
        """Quantized layers drop the tangent without a sound."""
        quantized = [n for n, m in named_modules(sites.model) if type(m).__module__.startswith("bitsandbytes.nn")]
        if quantized:
            raise ValueError(
                f"product='jvp' through quantized layers ({quantized[0]}, …): they drop the tangent without a sound; "
                "use 'ghost'"
            )

    def _changes(self, cotangent: Mapping[Tensor, Tensor], step: TakenStep) -> dict[tuple[int, int], Tensor]:
        changes: dict[tuple[int, int], Tensor] = {}
        alive = any(bool(u.any()) for u in cotangent.values())
        with forward_ad.dual_level():
            replacing = Replacing(self.model, step.theta(), cotangent)
            for call in self.calls:
                try:
                    outputs = self._run(call, replacing)
                except NotImplementedError as error:
                    raise NotImplementedError(
                        f"forward mode does not know a function of this model ({str(error).splitlines()[0]}); choose "
                        "product='ghost', or 'unroll' where it has a second derivative"
                    ) from error
                for place in (place for other, place in self._asked if other is call):
                    change = tangent(outputs[place])
                    if change is not None:
                        changes[id(call), place] = no_tangent(change)
        # Of no example there is no tangent.
        moved = all(not change.numel() for change in changes.values()) or any(bool(c.any()) for c in changes.values())
        if len(changes) < len(self._asked) or (alive and self._asked and not self._by_parameters and not moved):
            raise ZeroTangentError(
                "forward mode gave no tangent for the model's output: a layer drops it (a frozen 4-bit layer, "
                "a custom autograd function, reentrant checkpointing, compiled code); choose product='ghost'"
            )
        return changes
