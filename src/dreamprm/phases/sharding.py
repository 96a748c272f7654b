"""`distributed.shard`: the PRM, its gradients and the inner optimizer's state split over the processes (FSDP2).

Every process holds its rows of each parameter. A unit, which is whole while it computes and no longer, is one layer of
the text model; the rest (embeddings, vision tower, head) is one more. All processes have to make the same passes, since
each pass gathers: so they judge as many chains as the first one, and what only some of them would train is refused.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from dreamprm.choices import Quantize, Trained, Vision
from dreamprm.config.schema import TrainConfig
from dreamprm.data.record import Record
from dreamprm.distributed import everyone, is_first, is_split, local_part, num_processes, rank
from dreamprm.errors import ConfigError, UserError
from dreamprm.prm.collate import Batch
from dreamprm.prm.frozen import layer_list
from dreamprm.prm.model import PRM

__all__ = [
    "Skeleton",
    "check_sharding",
    "empty_like",
    "is_sharded",
    "laid_out",
    "laid_out_state",
    "of_rows",
    "read_block",
    "refuse_dense",
    "refuse_uneven",
    "shard",
    "unsupported",
]


def is_sharded(settings: TrainConfig) -> bool:
    """Whether this run's model is split: a process alone has nothing to split."""
    return settings.distributed.shard and num_processes() > 1


def check_sharding(settings: TrainConfig) -> None:
    """Raises ConfigError for what cannot be split, with the way out."""
    if is_sharded(settings) and (found := unsupported(settings)):
        raise ConfigError(found)


def unsupported(settings: TrainConfig) -> str | None:
    """What of these settings a split model cannot do, and the way out; None where it can do all."""
    model, optimizers = settings.model, {"cold": settings.cold.optimizer, "inner": settings.inner.optimizer}
    refused = {
        f"weigher={settings.weigher.kind}": (
            settings.weigher.kind == "trust",  # goes back to parameters of before
            "use weigher=instance_net",
        ),
        f"hypergradient.product={settings.hypergradient.product}": (
            settings.hypergradient.product != "ghost",
            "use hypergradient=ghost",
        ),
        f"model.quantize={model.quantize}": (model.quantize is not Quantize.none, "use model.quantize=none"),
        f"model.vision={model.vision}": (model.vision is Vision.cached, "use model.vision=frozen"),
        f"model.freeze_layers={model.freeze_layers}": (model.freeze_layers > 0, "use model.freeze_layers=0"),
        f"model.trained={model.trained}": (model.trained is not Trained.whole, "use model.trained=whole"),
        "model.gradient_checkpointing=true": (model.gradient_checkpointing, "use model.gradient_checkpointing=false"),
        "outer.by_question=true": (settings.outer.by_question, "use outer.by_question=false"),
        "profile=true": (settings.profile, "use profile=false"),
    }
    for name, optimizer in optimizers.items():
        refused[f"{name}.optimizer.kind={optimizer.kind}"] = (
            optimizer.kind == "adamw8bit",
            f"use optimizer@{name}.optimizer=adamw",
        )
    for what, (is_set, instead) in refused.items():
        if is_set:
            return f"{what} needs whole parameters in every process: {instead}, or distributed.shard=false"
    return None


def refuse_dense(settings: TrainConfig, *, has_dense: bool) -> None:
    """Raises ConfigError where the source's dense loss, which reads the model past the PRM, would be trained on."""
    if is_sharded(settings) and has_dense and settings.cold.updates and settings.cold.dense_weight:
        raise ConfigError(
            f"cold.dense_weight={settings.cold.dense_weight:g} reads the model by parts, which distributed.shard=true "
            "does not support: use cold.dense_weight=0, or distributed.shard=false"
        )


def shard(prm: PRM, device: torch.device) -> Skeleton:
    """Split the PRM over all processes and move it to its device; what is needed to make it whole again."""
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    skeleton = Skeleton(prm)
    mesh = init_device_mesh(device.type, (num_processes(),))
    try:
        _, layers = layer_list(prm.body)
    except ValueError as error:
        raise ConfigError(f"distributed.shard=true: {error}") from error
    # What a pass without a backward one leaves whole would be read by no hook: so nothing is left whole.
    for module in (*layers, prm):
        fully_shard(module, mesh=mesh, reshard_after_forward=True)
    prm.to(device)
    return skeleton


class Skeleton:
    """A PRM without numbers, in the first process: what the shards are put back into, to be published."""

    def __init__(self, prm: PRM) -> None:
        self._empty: dict[str, nn.Parameter] = {}
        self._prm: PRM | None = None
        if is_first():
            stand_ins: dict[int, Any] = {}
            for name, value in prm.named_parameters():
                self._empty[name] = nn.Parameter(value.detach().to("meta"), requires_grad=value.requires_grad)
                stand_ins[id(value)] = self._empty[name]
            self._prm = copy.deepcopy(prm, stand_ins)

    @torch.no_grad()
    def filled(self, prm: PRM) -> PRM | None:
        """The whole PRM on the CPU, for the first process; None in the others. One parameter at a time is gathered."""
        filled: dict[int, Any] = {}
        for name, value in prm.named_parameters():
            shards: Any = value
            whole = shards.full_tensor()
            if self._prm is not None:
                filled[id(self._empty[name])] = nn.Parameter(whole.cpu(), requires_grad=value.requires_grad)
        if self._prm is None:
            return None
        made = copy.deepcopy(self._prm, filled)
        buffers = dict(prm.named_buffers())
        for name, value in made.named_buffers():
            value.copy_(buffers[name])
        return made.eval()


def read_block(
    read: Callable[..., list[list[float]]],
    records: Sequence[Record],
    start: int,
    own: int,
    size: int,
    batch_size: int,
) -> list[list[float]]:
    """`read` of this process's block of a split model, records[own : own + size], in as many passes as the first's.

    start: where the first process's block begins, the longest; its chains fill this one up.
    """
    block, first = records[own : own + size], records[start : start + size]
    return read([*block, *first[len(block) :]], batch_size, share_prefix=False)[: len(block)]


def refuse_uneven(batch: Batch) -> None:
    """Raises UserError where some processes' chains have images and others' have none, who would not train a tower."""
    found = everyone(any(name.startswith("pixel_values") for name in batch.inputs))
    if any(found) and not all(found):
        raise UserError(
            f"the chains of process {found.index(False)} have no image, those of process {found.index(True)} have: "
            "with distributed.shard=true all processes must train the same parameters in a pass. Use "
            "a larger batch_size, data of one kind, or distributed.shard=false"
        )


def empty_like(split: Tensor, shape: torch.Size, dtype: torch.dtype) -> Tensor:
    """This process's rows of a tensor of that shape, split as `split` is."""
    from torch.distributed.tensor import empty

    part: Any = split
    return empty(*shape, dtype=dtype, device_mesh=part.device_mesh, placements=part.placements)


def laid_out(value: Tensor, like: Tensor) -> Tensor:
    """A whole tensor, split as `like` is where that is split."""
    if is_split(value) or not is_split(like):
        return value
    own = empty_like(like, value.shape, value.dtype)
    rows = [*value.chunk(num_processes()), *[value[:0]] * num_processes()]  # there are fewer rows than processes
    local_part(own).copy_(rows[rank()])
    return own


def laid_out_state(state: dict[str, Any], optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """An optimizer's saved state with what is shaped like a parameter split as that is."""
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    return state | {
        "state": {
            index: {
                name: laid_out(value, parameters[index])
                if isinstance(value, Tensor) and value.ndim and value.shape == parameters[index].shape
                else value
                for name, value in entry.items()
            }
            for index, entry in state["state"].items()
        }
    }


def of_rows(
    change: Callable[[Tensor], Tensor], weigher: dict[str, Any], optimizers: dict[str, Any]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """A table's state and its optimizer's, with what has the table's rows changed."""
    if "outer" in optimizers:
        outer = optimizers["outer"]
        entries = {key: {name: change(value) for name, value in entry.items()} for key, entry in outer["state"].items()}
        optimizers = optimizers | {"outer": outer | {"state": entries}}
    return weigher | {"table": change(weigher["table"])}, optimizers
