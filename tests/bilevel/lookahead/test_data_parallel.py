"""Two processes with half of each batch give the hypergradient of one process with the whole batch."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, distributed, multiprocessing, nn
from torch.nn import functional as F

from bilevel import Lookahead

NUM_EXAMPLES, NUM_PROCESSES = 8, 2
PRODUCTS = ("ghost", "jvp")


def _hypergradient(product: str, rank: int | None) -> Tensor:
    """dF/dphi after the third update; the weight of example i is a function of one shared phi (3,)."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(5, 16), nn.GELU(), nn.LayerNorm(16), nn.Linear(16, 3)).double()
    generator = torch.Generator().manual_seed(1)
    x, meta = (torch.randn(NUM_EXAMPLES, 5, generator=generator, dtype=torch.float64) for _ in range(2))
    label = torch.randint(0, 3, (NUM_EXAMPLES,), generator=generator)
    own = slice(None) if rank is None else slice(rank, None, NUM_PROCESSES)
    phi = torch.tensor([0.3, -0.2, 0.1], dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.02)
    lookahead = Lookahead(model, optimizer, clip_norm=0.1, product=product)
    for _ in range(3):
        optimizer.zero_grad()
        with lookahead.inner():
            losses = F.cross_entropy(model(x[own]), label[own], reduction="none")
            lookahead.backward(losses, (x[own, :3] @ phi).sigmoid() / len(losses))
        if rank is not None:
            for parameter in model.parameters():
                _average(parameter.grad)
        lookahead.step()
        phi.grad = None
        lookahead.backward_outer(F.cross_entropy(model(meta[own]), label[own]))
    if rank is not None:
        _average(phi.grad)
    assert phi.grad is not None
    return phi.grad


def _average(gradient: Tensor | None) -> None:
    assert gradient is not None
    distributed.all_reduce(gradient)
    gradient.div_(NUM_PROCESSES)


def _process(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    distributed.init_process_group("gloo", f"file://{folder}/store", rank=rank, world_size=NUM_PROCESSES)
    torch.save({product: _hypergradient(product, rank) for product in PRODUCTS}, f"{folder}/{rank}.pt")
    distributed.destroy_process_group()


def test_two_processes_are_one_with_the_whole_batch(tmp_path: Path) -> None:
    multiprocessing.spawn(_process, (str(tmp_path),), nprocs=NUM_PROCESSES)
    for product in PRODUCTS:
        whole = _hypergradient(product, None)
        assert whole.abs().max() > 1e-6
        for rank in range(NUM_PROCESSES):
            half = torch.load(tmp_path / f"{rank}.pt", weights_only=True)[product]
            # float64; the sums over examples are taken in another order
            torch.testing.assert_close(half, whole, rtol=1e-10, atol=1e-15)
