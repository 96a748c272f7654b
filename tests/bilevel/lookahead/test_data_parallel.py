"""Two processes, or four, with parts of each batch give the hypergradient and the parameters of one with all of it.

The module itself, DistributedDataParallel around it, and `fully_shard` on it; one spawn of each number makes all runs.
Four share seven examples, in two micro-batches of which the last process has nothing in the second; or three.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, distributed, multiprocessing, nn
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor, Shard, distribute_tensor, init_device_mesh
from torch.nn import functional as F
from torch.nn.parallel import DistributedDataParallel

import bilevel
from bilevel import Lookahead
from bilevel.lookahead.shards import Shards

NUM_PROCESSES, NUM_UPDATES = 2, 3
# (how the model is given to several processes, product)
WAYS = (("module", "ghost"), ("module", "jvp"), ("ddp", "ghost"), ("ddp", "jvp"), ("fsdp", "ghost"))
# (way, product, number of examples) of four processes
WAYS_OF_FOUR = (
    ("module", "jvp", 7),
    ("ddp", "ghost", 7),
    ("fsdp", "ghost", 7),
    ("module", "jvp", 3),
    ("fsdp", "ghost", 3),
)


class Block(nn.Module):
    """An odd width, so that shards are uneven; a scale that a function of the parameter gives."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.up, self.norm = nn.Linear(width, hidden), nn.LayerNorm(hidden)
        self.log_scale = nn.Parameter(torch.zeros(hidden))

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(F.gelu(self.up(x))) * self.log_scale.exp()


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(6, 5)
        self.first, self.second = Block(5, 7), Block(7, 16)
        self.head = nn.Linear(16, 3)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.head(self.second(self.first(self.table(tokens))).mean(1))


def _given(way: str | None, net: Net, size: int) -> nn.Module:
    if way == "ddp":
        return DistributedDataParallel(net)
    if way == "fsdp":
        mesh = init_device_mesh("cpu", (size,))
        for part in (net.first, net.second, net):
            fully_shard(part, mesh=mesh)
    return net


def _train(way: str | None, product: str, rank: int, size: int = 1, num_examples: int = 8) -> dict[str, Tensor]:
    """dF/dphi of each update and the parameters after the last; the second half of each batch is a micro-batch."""
    torch.manual_seed(0)
    net = Net().double()
    model = _given(way, net, size)
    generator = torch.Generator().manual_seed(1)
    tokens, meta = (torch.randint(0, 6, (num_examples, 4), generator=generator) for _ in range(2))
    label = torch.randint(0, 3, (num_examples,), generator=generator)
    own = torch.arange(rank, num_examples, size)
    half = (-(-num_examples // size) + 1) // 2  # of the process that has most
    parts = own[:half], own[half:]
    phi = torch.tensor([0.3, -0.2, 0.1], dtype=torch.float64, requires_grad=True)
    rows = nn.Embedding(num_examples, 1, sparse=True).double()
    with torch.no_grad():
        rows.weight.copy_(torch.linspace(-1, 1, num_examples)[:, None])
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.02)
    lookahead = Lookahead(model, optimizer, clip_norm=0.1, product=product)  # pyright: ignore[reportArgumentType]

    def outer(part: Tensor) -> Tensor:
        """This process's summands of the mean over all, as a mean over processes and their two micro-batches has it."""
        losses = F.cross_entropy(model(meta[part]), label[part], reduction="sum")
        return losses * (2 * size / num_examples) + 0.1 * phi.square().sum()

    found: dict[str, Tensor] = {}
    for update in range(NUM_UPDATES):
        optimizer.zero_grad()
        for part in parts:
            with lookahead.inner():
                losses = F.cross_entropy(model(tokens[part]), label[part], reduction="none")
                weights = (tokens[part, :3].double() @ phi).sigmoid() + rows(part)[:, 0].exp()
                lookahead.backward(losses, weights * (size / num_examples))
        if update:  # terms without weights
            with lookahead.unweighted():
                (0.3 * outer(own)).backward()
                _penalize(net, way, rank, size)
        lookahead.step()
        phi.grad = torch.ones_like(phi)  # what is there already is added to, not averaged
        rows.weight.grad = None
        lookahead.accumulate_outer(outer(parts[0]))
        lookahead.backward_outer(outer(parts[1]))
        gradient = rows.weight.grad
        assert gradient is not None
        assert gradient.is_sparse
        found[f"phi {update}"], found[f"rows {update}"] = phi.grad, gradient.to_dense()
        found[f"norm {update}"] = torch.tensor(lookahead.report["inner_gradient_norm"])
        assert lookahead.report["sum_rule"] < 1e-9
        if update in (0, 1) and len(own):
            assert lookahead.report["check"] < 1e-7
    for name, parameter in net.named_parameters():
        found[name] = parameter.full_tensor() if isinstance(parameter, DTensor) else parameter.detach()
    return found


def _penalize(net: Net, way: str | None, rank: int, size: int) -> None:
    """The gradient of 0.01 |scale|²: the first process adds it for all; where each has a shard, each its own."""
    share = 1 if way == "fsdp" else size if rank == 0 else 0
    if share:
        (share * 0.01 * net.second.log_scale.square().sum()).backward()


def _refusals() -> dict[str, str]:
    """What is said of what is not supported, by name; both processes ask, as some of it takes both."""
    mesh = init_device_mesh("cpu", (NUM_PROCESSES,))

    def said(make: Callable[[], Any]) -> str:
        with pytest.raises((ValueError, RuntimeError)) as error:
            make()
        return str(error.value)

    def over(model: nn.Module, kind: Any = torch.optim.AdamW, **words: Any) -> Lookahead:
        return Lookahead(model, kind(model.parameters(), lr=0.1), **words)

    def sharded() -> nn.Module:
        layer = nn.Linear(4, 4)
        fully_shard(layer, mesh=mesh)
        return layer

    def split(placement: Any) -> nn.Module:
        layer = nn.Linear(4, 4, bias=False)
        layer.weight = nn.Parameter(distribute_tensor(layer.weight.detach(), mesh, [placement]))
        return layer

    return {
        "jvp": said(lambda: over(sharded(), product="jvp")),
        "adafactor": said(lambda: over(sharded(), torch.optim.Adafactor)),
        "columns": said(lambda: over(split(Shard(1)))),
        "by hand": said(lambda: over(split(Shard(0)))),
        "views": said(lambda: over(DistributedDataParallel(nn.Linear(4, 4), gradient_as_bucket_view=True))),
        "unroll": said(lambda: over(DistributedDataParallel(nn.Linear(4, 4)), product="unroll")),
    }


def _one_process_sees_it(way: str, rank: int) -> str:
    """A use that the product does not see, in process 1 alone: every process stops, with the reason."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2)).double()
    model = fully_shard(net, mesh=init_device_mesh("cpu", (NUM_PROCESSES,))) if way == "fsdp" else net
    phi = torch.ones(4, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    lookahead = Lookahead(model, optimizer)
    x = torch.randn(4, 3, dtype=torch.float64) + rank
    with lookahead.inner():
        losses = model(x).square().mean(1)
        if rank == 1:
            losses = losses.roll(1)  # mixes the examples
        lookahead.backward(losses, phi / 4)
    lookahead.step()
    with pytest.raises(bilevel.HypergradientCheckError) as error:
        lookahead.backward_outer(model(x).square().mean())
    return str(error.value)


def _in_bfloat16(rank: int) -> float:
    """The check against autograd, where the passes compute in bfloat16 and gradients are reduced in float32."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(8, 16), nn.GELU(), nn.Linear(16, 2))
    policy = MixedPrecisionPolicy(param_dtype=torch.bfloat16, reduce_dtype=torch.float32)
    model = fully_shard(net, mesh=init_device_mesh("cpu", (NUM_PROCESSES,)), mp_policy=policy)
    phi = torch.ones(4, requires_grad=True)
    lookahead = Lookahead(model, torch.optim.AdamW(model.parameters(), lr=0.01))
    x = torch.randn(4, 8) + rank
    with lookahead.inner():
        lookahead.backward(model(x).float().square().mean(1), phi / 4)
    lookahead.step()
    lookahead.backward_outer(model(x).float().square().mean())
    return lookahead.report["check"]


def _never_whole(processes: int) -> int:
    """The largest number of entries of u that were in one place, of a model of several units."""
    largest = 0
    gather = Shards.whole

    def watched(self: Shards, *words: Any) -> dict[Tensor, Tensor]:
        nonlocal largest
        found = gather(self, *words)
        largest = max(largest, sum(t.numel() for t in found.values()))
        return found

    Shards.whole = watched  # type: ignore[method-assign]
    try:
        _train("fsdp", "ghost", processes, NUM_PROCESSES)
    finally:
        Shards.whole = gather  # type: ignore[method-assign]
    return largest


def _process(rank: int, folder: str) -> None:
    with _group(rank, folder, NUM_PROCESSES):
        found: dict[str, Any] = {f"{way} {product}": _train(way, product, rank, NUM_PROCESSES) for way, product in WAYS}
        found["refused"] = _refusals()
        found["seen"] = [_one_process_sees_it(way, rank) for way in ("module", "fsdp")]
        found["largest"] = _never_whole(rank)
        found["bf16"] = _in_bfloat16(rank)
        torch.save(found, f"{folder}/{rank}.pt")


def _process_of_four(rank: int, folder: str) -> None:
    with _group(rank, folder, 4):
        found = [_train(way, product, rank, 4, num_examples) for way, product, num_examples in WAYS_OF_FOUR]
        torch.save(found, f"{folder}/{rank}.pt")


@contextmanager
def _group(rank: int, folder: str, size: int) -> Generator[None]:
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    distributed.init_process_group("gloo", f"file://{folder}/store", rank=rank, world_size=size)
    yield
    distributed.destroy_process_group()


@pytest.fixture(scope="module")
def processes(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    folder = tmp_path_factory.mktemp("processes")
    multiprocessing.spawn(_process, (str(folder),), nprocs=NUM_PROCESSES)
    return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in range(NUM_PROCESSES)]


@pytest.mark.parametrize(("way", "product"), WAYS)
def test_two_processes_are_one_with_the_whole_batch(processes: list[dict[str, Any]], way: str, product: str) -> None:
    whole = _train(None, product, 0)
    assert (whole["phi 2"] - 1).abs().max() > 1e-6
    for found in processes:
        # float64; the sums over examples are taken in another order
        torch.testing.assert_close(found[f"{way} {product}"], whole, rtol=1e-10, atol=1e-14)


def test_four_processes_are_one(tmp_path: Path) -> None:
    multiprocessing.spawn(_process_of_four, (str(tmp_path),), nprocs=4)
    everywhere = [torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in range(4)]
    for place, (_, product, num_examples) in enumerate(WAYS_OF_FOUR):
        whole = _train(None, product, 0, num_examples=num_examples)
        for found in everywhere:
            torch.testing.assert_close(found[place], whole, rtol=1e-10, atol=1e-14)


def test_what_is_not_supported_is_named(processes: list[dict[str, Any]]) -> None:
    said = processes[0]["refused"]
    for name, words in (
        ("jvp", "choose product='ghost'"),
        ("adafactor", "elementwise"),
        ("columns", "tensor parallelism"),
        ("by hand", "tensor parallelism"),
        ("views", "gradient_as_bucket_view"),
        ("unroll", "give Lookahead the module itself"),
    ):
        assert words in said[name], said[name]


def test_what_one_process_finds_wrong_stops_all(processes: list[dict[str, Any]]) -> None:
    (here, all_here), (there, all_there) = (found["seen"] for found in processes)
    assert "differs from plain autograd" in there
    assert here.startswith("process 1: product='ghost' differs")
    assert all_here == all_there
    assert "differs from plain autograd" in all_here


def test_u_is_never_whole(processes: list[dict[str, Any]]) -> None:
    net = Net()
    units = [sum(p.numel() for p in part.parameters()) for part in (net.first, net.second)]
    rest = sum(p.numel() for p in net.parameters()) - sum(units)
    assert processes[0]["largest"] == max(*units, rest)


def test_sharded_in_bfloat16(processes: list[dict[str, Any]]) -> None:
    # The engine's own bound for sums in 16 bits; exact to rounding of the activations to 8 bits.
    assert 0 < processes[0]["bf16"] < 5e-2
