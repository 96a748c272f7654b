"""Models whose parameters are split over the processes by FSDP2 (`fully_shard`).

Between the passes every process holds its rows of each parameter, of .grad, of the optimizer's state, of v and of u.
Numbers over all entries (norms, dot products) are sums over the shards. While the d_i are taken, u is gathered unit by
unit, a unit being what one `fully_shard` call has made, in the order of the model, so that every process takes part in
the same exchanges whatever its own batch has used.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from .._shards import is_sharded, local
from ..steps import refuse_whole
from .processes import Processes
from .typed import floats, named_modules, own_parameters, square_sum

__all__ = ["Shards", "inside_wrapper"]

Place = tuple[nn.Module, str, Tensor]
"""A module, the name under which it holds a parameter, and that parameter's shard."""


class Shards:
    """The sharded parameters among `parameters`, by unit; none of them where `any` is false."""

    def __init__(self, model: nn.Module, parameters: Sequence[Tensor], processes: Processes) -> None:
        self.processes = processes
        self.parameters = frozenset(p for p in parameters if is_sharded(p))
        self.any = bool(self.parameters)
        self.units: list[list[Tensor]] = []
        self.places: dict[nn.Module, list[Place]] = {}
        if self.any:
            self._find_units(model)

    def _find_units(self, model: nn.Module) -> None:
        """Units in the model's order. places: of the unit, by the module whose call makes its parameters whole."""
        made = [(name, module) for name, module in named_modules(model) if _is_unit(module)]
        by_name = dict(made)
        found: dict[str, dict[Tensor, None]] = {name: {} for name, _ in made}
        for prefix, module in named_modules(model):
            above = [name for name in found if not name or prefix == name or prefix.startswith(name + ".")]
            for attribute, parameter in own_parameters(module).items():
                if parameter is None or parameter not in self.parameters or not above:
                    continue
                unit = max(above, key=len)
                self.places.setdefault(by_name[unit], []).append((module, attribute, parameter))
                found[unit][parameter] = None
        self.units = [list(unit) for unit in found.values() if unit]

    def refuse(self, names: Mapping[Tensor, str], product: str, optimizers: Sequence[Any], scaler: Any) -> None:
        """Raise ValueError for what cannot be done with shards, naming the way out."""
        if not self.any:
            return
        if product != "ghost":
            raise ValueError(
                f"product={product!r} needs whole parameters in every process, and these are sharded by fully_shard; "
                "choose product='ghost', or replicate the model (DistributedDataParallel)"
            )
        plain = [name for p, name in names.items() if p not in self.parameters]
        if plain:
            raise ValueError(f"{plain[0]} is not sharded while others are; call fully_shard on the whole model too")
        if scaler is not None:
            raise ValueError("a GradScaler with sharded parameters is not supported; compute in bfloat16 without one")
        for optimizer in optimizers:
            refuse_whole(optimizer)
        placed = {p for unit in self.units for p in unit}
        for parameter, name in names.items():
            self._refuse_placement(parameter, name, parameter in placed)

    def _refuse_placement(self, parameter: Any, name: str, by_unit: bool) -> None:
        kinds = [type(placement).__name__ for placement in parameter.placements]
        rows = [placement for placement in parameter.placements if type(placement).__name__ == "Shard"]
        fits = set(kinds) <= {"Shard", "Replicate"} and len(rows) <= 1 and all(each.dim == 0 for each in rows)
        if not by_unit or not fits:
            raise ValueError(
                f"{name} is split as {tuple(parameter.placements)}"
                + ("" if by_unit else " by something other than fully_shard")
                + ": tensor parallelism is not supported; shard by fully_shard alone, along the first dimension"
            )
        if local(parameter).device.type != parameter.device_mesh.device_type:
            raise ValueError(
                f"{name} is offloaded to the CPU (CPUOffloadPolicy), which is not supported: call fully_shard without "
                "an offload policy, over more processes where memory is short"
            )

    def reshard(self, model: nn.Module) -> None:
        """Give back what a forward pass without a backward one has left whole (the root unit)."""
        for module in model.modules():
            if _is_unit(module):
                unit: Any = module
                unit.reshard()

    def sum(self, values: Mapping[Tensor, float]) -> float:
        """Σ over parameters and their shards of one number for each; every process gets the same."""
        total = sum(value / self._copies(p) for p, value in values.items())
        return self.processes.sums([total])[0] if self.any else total

    def _copies(self, parameter: Any) -> int:
        """How many processes hold the same shard."""
        if not self.any:
            return 1
        mesh = parameter.device_mesh
        copies = 1
        for dimension, placement in enumerate(parameter.placements):
            if type(placement).__name__ == "Replicate":
                copies *= mesh.size(dimension)
        return copies

    def norm(self, values: Mapping[Tensor, Tensor]) -> float:
        """Euclidean norm over all entries of all shards."""
        squares = floats([square_sum(local(t)) for t in values.values()])
        return self.sum(dict(zip(values, squares, strict=True))) ** 0.5

    def whole(self, parameters: Iterable[Tensor], cotangent: Mapping[Tensor, Tensor]) -> dict[Tensor, Tensor]:
        """u of these parameters, gathered from all shards."""
        from torch.distributed.tensor import DTensor

        found: dict[Tensor, Tensor] = {}
        for parameter in parameters:
            if parameter in cotangent:
                p: Any = parameter
                made: Any = DTensor.from_local(
                    cotangent[parameter], p.device_mesh, p.placements, run_check=False, shape=p.shape, stride=p.stride()
                )
                found[parameter] = made.full_tensor()
        return found


def _is_unit(module: nn.Module) -> bool:
    return any(kind.__name__ == "FSDPModule" for kind in type(module).__mro__)


def inside_wrapper(model: nn.Module, product: str) -> nn.Module:
    """The module that DistributedDataParallel holds; any other model as it is.

    Raises ValueError for wrappers and settings of them that are not supported.
    """
    for name, module in named_modules(model):
        if type(module).__name__ == "FullyShardedDataParallel":
            raise ValueError(
                f"{name or 'the model'} is wrapped by FullyShardedDataParallel, which hides the parameters; use "
                "torch.distributed.fsdp.fully_shard"
            )
    if not isinstance(model, torch.nn.parallel.DistributedDataParallel):
        return model
    wrapper: Any = model
    if wrapper.gradient_as_bucket_view:
        raise ValueError(
            "DistributedDataParallel(gradient_as_bucket_view=True): the outer backward pass would overwrite the inner "
            "gradient; set it to False, or give Lookahead the module itself, whose gradients it averages"
        )
    if wrapper.static_graph or (wrapper.find_unused_parameters and product != "ghost"):
        which = "static_graph" if wrapper.static_graph else "find_unused_parameters"
        raise ValueError(
            f"DistributedDataParallel({which}=True) with product={product!r} is not supported; leave it out, or give "
            "Lookahead the module itself, whose gradients it averages"
        )
    if product == "unroll":
        raise ValueError(
            "product='unroll' takes its gradients without the hooks of DistributedDataParallel; give Lookahead the "
            "module itself, whose gradients it averages, or choose product='ghost'"
        )
    return wrapper.module
