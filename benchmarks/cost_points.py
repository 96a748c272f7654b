"""The arithmetic of `cost_model.py` against measured points: memory of a chain, computing of an update, bytes sent.

    python -m benchmarks.cost_points

Memory: what `plan=true` finds of the shipped model's class at three shapes. Computing: multiplications that torch
counts (FlopCounterMode) in an update of the engine's benchmark model, with and without the hypergradient, and processor
time beside it. Exchanged: what two gloo processes hand to torch.distributed in one update.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, distributed, multiprocessing, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode
from transformers import AutoConfig, AutoModelForImageTextToText, AutoProcessor

from benchmarks.cost_model import Card, Model, Stack, cost
from benchmarks.engine.cases import SIZES, Case, Setting
from benchmarks.training.__main__ import default_run
from bilevel import Lookahead
from dreamprm.plan.planner import plan_run
from dreamprm.world import base_folder

ANY = Card("any", 1e9, 1, 1, 1)


@dataclass(frozen=True)
class Point:
    what: str
    measured: float
    predicted: float

    @property
    def row(self) -> str:
        return f"| {self.what} | {self.measured:.4g} | {self.predicted:.4g} | {self.predicted / self.measured:.2f} |"


# -- memory ----------------------------------------------------------------------------------------------------------


def memory_points(width: int, layers: int, tower_layers: int) -> list[Point]:
    """Of the shipped model's class, text `width` wide, the tower half of that."""
    config = AutoConfig.from_pretrained(base_folder())
    text, tower = config.text_config, config.vision_config
    text.hidden_size, text.intermediate_size, text.num_hidden_layers = width, 2 * width, layers
    text.layer_types = ["full_attention"] * layers
    tower.hidden_size, tower.intermediate_size, tower.num_hidden_layers = width // 2, width, tower_layers
    with tempfile.TemporaryDirectory() as folder:
        AutoModelForImageTextToText.from_config(config).save_pretrained(folder)
        AutoProcessor.from_pretrained(base_folder()).save_pretrained(folder)
        plan = plan_run(default_run(f"model.path={folder}", "hypergradient.check=off"))
    model = Model(
        "",
        Stack(layers, width, 2 * width, width, plan.num_tokens),
        Stack(tower_layers, width // 2, width, width // 2, 65, gated=False),
        640 * width,
    )
    found = cost(model, ANY, inner=1, outer=1, activation_bytes=4)
    saved = max(moment.saved.per_chain for moment in plan.outer)
    where = f"text {width} wide, {layers} and {tower_layers} layers"
    return [
        Point(f"bytes of a chain's activations, {where}", saved, found.activations),
        Point(f"bytes of its output gradients, {where}", plan.inner[0].deltas.per_chain, found.tape),
        Point(f"bytes of parameters, {where}", plan.parameters, 4 * model.parameters),
    ]


# -- computing -------------------------------------------------------------------------------------------------------


def computing_points(size: str, product: str, pairs: int = 3) -> list[Point]:
    setting = Setting(size)
    shape = {"num_key_value_heads": SIZES[size]["num_attention_heads"], **SIZES[size]}
    width = shape["hidden_size"]
    kv = width * shape["num_key_value_heads"] // shape["num_attention_heads"]
    text = Stack(shape["num_hidden_layers"], width, shape["intermediate_size"], kv, setting.num_tokens)
    number = setting.num_examples
    model = Model(size, text, None, 4096 * width)
    found = cost(model, ANY, inner=number, outer=number, product=product)
    floor, whole = _update(Case(setting), None), _update(Case(setting), product)
    for update in (floor, whole):
        update()
    flops = [_flops(update) for update in (floor, whole)]
    seconds = [min(values) for values in zip(*([_seconds(floor), _seconds(whole)] for _ in range(pairs)))]
    return [
        Point(f"flops of the passes, {size}", flops[0], found.floor_flops),
        Point(f"flops of an update by {product}, {size}", flops[1], found.flops),
        Point(f"processor time of it, in floors, {size}", seconds[1] / seconds[0], found.ratio),
    ]


def _update(case: Case, product: Any) -> Callable[[], None]:
    lookahead = Lookahead(case.model, case.optimizer, product or "ghost", clip_norm=1.0, check="off")

    def update() -> None:
        case.optimizer.zero_grad()
        with lookahead.inner(record=product is not None):
            losses = case.losses(case.inner)
            lookahead.backward(losses, case.coefficients())
        lookahead.step()
        loss = case.losses(case.outer).mean()
        if product is None:
            torch.autograd.grad(loss, case.parameters)
        else:
            lookahead.backward_outer(loss)

    return update


def _flops(update: Callable[[], None]) -> float:
    # The counter knows no fused attention of a CPU.
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        update()
    return counter.get_total_flops()


def _seconds(update: Callable[[], None]) -> float:
    began = time.process_time()
    update()
    return time.process_time() - began


# -- exchanged -------------------------------------------------------------------------------------------------------


def exchange_points(way: str) -> list[Point]:
    """way: module (replicated) or fsdp (sharded)."""
    with tempfile.TemporaryDirectory() as folder:
        multiprocessing.spawn(_process, (way, folder), nprocs=2)  # type: ignore[no-untyped-call]
        sent = torch.load(Path(folder) / "sent.pt")
    model = Model("", Stack(1, 64, 0, 64, 1), None, 0)  # the four matrices of an attention block
    found = cost(model, ANY, inner=4, outer=4, processes=2, sharded=way == "fsdp")
    return [Point(f"bytes that one of two processes sends, {way}", sent, found.exchanged)]


def _process(rank: int, way: str, folder: str) -> None:
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29555"}
    torch.set_num_threads(1)
    distributed.init_process_group("gloo", rank=rank, world_size=2)
    torch.manual_seed(0)
    model = nn.Sequential(*[nn.Linear(64, 64, bias=False) for _ in range(4)])
    if way == "fsdp":
        from torch.distributed.fsdp import fully_shard
        from torch.distributed.tensor import init_device_mesh

        mesh = init_device_mesh("cpu", (2,))
        for part in (*model, model):
            fully_shard(part, mesh=mesh)
    optimizer = torch.optim.AdamW(model.parameters())
    lookahead = Lookahead(model, optimizer, check="off")
    weights = torch.ones(4, requires_grad=True)

    def update() -> None:
        optimizer.zero_grad()
        with lookahead.inner():
            lookahead.backward(model(torch.randn(4, 64)).square().mean(1), weights / 4)
        lookahead.step()
        lookahead.backward_outer(model(torch.randn(4, 64)).mean())

    update()
    with _sent() as total:
        update()
    if rank == 0:
        torch.save(total[0], Path(folder) / "sent.pt")
    distributed.destroy_process_group()


@contextmanager
def _sent() -> Any:
    """Bytes that a ring sends of what is handed over, tensors of at least 1,000 numbers: 2 (n-1)/n of a sum, (n-1)/n of
    what is gathered or scattered."""
    total = [0.0]

    class Count(TorchDispatchMode):
        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            name = str(func)
            if "c10d" in name and "wait" not in name and "wrap" not in name:
                tensors: list[Tensor] = []
                for value in args:
                    tensors += [v for v in (value if isinstance(value, list | tuple) else [value]) if _large(v)]
                largest = max((t.numel() * t.element_size() for t in tensors), default=0)
                if "functional" in name and "gather" in name:
                    largest *= 2  # only the part is handed over
                total[0] += largest * (1.0 if "allreduce" in name else 0.5)
            return func(*args, **(kwargs or {}))

    with Count():
        yield total


def _large(value: Any) -> bool:
    return isinstance(value, Tensor) and value.numel() >= 1000


def points() -> list[Point]:
    torch.set_num_threads(1)
    found: list[Point] = []
    for shape in ((128, 4, 4), (256, 4, 4), (128, 8, 4)):
        found += memory_points(*shape)
    for size, product in (("1M", "ghost"), ("11M", "ghost"), ("11M", "jvp")):
        found += computing_points(size, product)
    for way in ("module", "fsdp"):
        found += exchange_points(way)
    return found


def main() -> None:
    print("| what | measured | by the arithmetic | ratio |")
    print("|---|---|---|---|")
    for point in points():
        print(point.row, flush=True)


if __name__ == "__main__":
    main()
