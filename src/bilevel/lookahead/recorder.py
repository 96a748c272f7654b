"""What a product is: how it watches an inner block, adds the weighted gradient to `.grad`, and gives d_i afterwards."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Protocol

import torch
from torch import Tensor, nn

from .graph import lowest, without_hooks
from .processes import Processes
from .shards import Shards
from .typed import gradients, named_modules, own_parameters

if TYPE_CHECKING:
    from .taken_step import TakenStep

__all__ = ["Part", "Recorder", "Sites", "away_from_zero", "lowest", "plain_autograd"]


@dataclass(frozen=True)
class Part:
    """The share of d that is due to some parameters: values, shaped like the losses."""

    parameters: tuple[Tensor, ...]
    values: Tensor

    @staticmethod
    def divided(parts: Sequence[Part], zero: Tensor, divide: Tensor) -> list[Part]:
        """Parts of c_i d_i as parts of d_i. The first one is their sum: it is rounded once, as the sum, not by part."""
        total = zero
        for part in parts:
            total += part.values
        whole = Part((), total / divide)
        if not parts:
            return [whole]
        rows = torch.stack([part.values for part in parts]) / divide  # few calls: there are hundreds of parts
        return [whole, *(Part(part.parameters, row) for part, row in zip(parts, rows.unbind(), strict=True))]


class Sites:
    """The trainable parameters of a model: their names, the modules around them, and how they are sharded."""

    def __init__(self, model: nn.Module, parameters: Sequence[Tensor], processes: Processes | None = None) -> None:
        self.model, self.parameters = model, tuple(parameters)
        self.processes = processes or Processes()
        self.shards = Shards(model, self.parameters, self.processes)
        # Under fully_shard, the whole parameters that the graph holds in place of the shards, once they were met.
        self.stand_ins: dict[Tensor, str] = {}
        trained = set(parameters)
        self.names: dict[Tensor, str] = {}
        self.modules = [module for _, module in named_modules(model)]
        holders: set[nn.Module] = set()
        for prefix, module in named_modules(model):
            for attribute, parameter in own_parameters(module).items():
                if parameter is not None and parameter in trained:
                    self.names.setdefault(parameter, f"{prefix}.{attribute}" if prefix else attribute)
                    holders.add(module)
        # Trained by another optimizer, if by any: their movement depends on the weights too.
        self.others = {p: name for name, p in model.named_parameters() if p.requires_grad and p not in trained}
        # Modules that hold a trained parameter themselves or directly above one that does.
        units = self.shards.places
        self.ancestors = [
            m for m in model.modules() if m in holders or m in units or any(c in holders for c in m.children())
        ]

    def holds(self, leaf: Tensor) -> bool:
        """Whether a leaf of a graph is one of the parameters, or stands in for one."""
        return leaf in self.names or leaf in self.stand_ins


class Recorder(Protocol):
    """One product, for one micro-batch. `Lookahead` knows no more of it than this.

    exact: whether Σ c_i d_i = <u, g> must hold; needs_before: whether θ is needed after the step; through_step: whether
    it wants u = Cᵀ D v, or v itself. precision: the lowest precision that the model computed in.
    """

    exact: ClassVar[bool]
    needs_before: ClassVar[bool]
    through_step: ClassVar[bool]
    precision: torch.dtype | None

    def __init__(self, sites: Sites, rows: Mapping[str, Tensor] | None, epsilon: float) -> None: ...

    @staticmethod
    def refuse(sites: Sites) -> None:
        """Raise ValueError for a model that this product cannot serve, naming the way out."""
        ...

    def open(self) -> AbstractContextManager[None]:
        """Watch the model while the user computes the losses."""
        ...

    def backward(self, losses: Tensor, coefficients: Tensor, scale: float) -> Tensor:
        """Add scale Σ c ∇ℓ to `.grad`; return the coefficients that were used."""
        ...

    def roots(self, losses: Tensor) -> Sequence[Tensor]:
        """Where the graph of the losses begins: they, and what stands behind a cut in it."""
        ...

    def autograd(self, losses: Tensor, weights: Tensor, parameters: Sequence[Tensor]) -> Sequence[Tensor | None]:
        """Σ w ∇ℓ by ordinary autograd, keeping the graph: what the product is checked against."""
        ...

    def products(self, cotangent: Mapping[Tensor, Tensor], step: TakenStep) -> list[Part]:
        """d, shaped like the losses; then its parts by parameters, where the product can tell them apart."""
        ...


def plain_autograd(
    losses: Tensor, weights: Tensor, parameters: Sequence[Tensor], hooks: bool = False
) -> Sequence[Tensor | None]:
    """Σ w ∇ℓ on the losses' own graph, which is kept. hooks: whether gradient hooks take part."""
    with without_hooks([] if hooks else parameters):
        return gradients(losses, parameters, retain_graph=True, weights=weights)


def away_from_zero(coefficients: Tensor) -> Tensor:
    """d_i is recovered by dividing by c_i: hold |c_i| above 1e-12 of the largest, so that a weight of 0 can come back.

    Floating point keeps its relative precision at any size, so nothing is lost by the smallness; only fp16 losses,
    whose exponents end at 1e-8, get a larger floor.
    """
    if not coefficients.numel():  # one of several processes, with no example in this micro-batch
        return coefficients
    largest = coefficients.abs().max()
    base = torch.where(largest > 0, largest, torch.full_like(largest, 1.0 / len(coefficients)))
    floor = base * (1e-3 if coefficients.dtype == torch.float16 else 1e-12)
    sign = torch.where(coefficients < 0, -1.0, 1.0).to(coefficients.dtype)
    return torch.where(coefficients.abs() < floor, sign * floor, coefficients)
