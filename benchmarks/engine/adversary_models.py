"""The adversary's small models: layers, ties, uses past attributes, optimizers, and what happens between updates.

Everything is drawn from one seed, so that a case is a number: `python -m benchmarks.engine.adversary --seed 17`.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations

__all__ = ["BLOCKS", "EVENTS", "OPTIMIZERS", "Net", "Recipe", "draw"]

WIDTH, CLASSES, MAX_POSITIONS = 4, 3, 6


class Block(nn.Module):
    """function(self, x), (B, T, C) -> (B, T, C), with parameters and layers of its own."""

    def __init__(self, function: Callable[[Any, Tensor], Tensor], **parts: Any) -> None:
        super().__init__()
        self.function = function
        for name, part in parts.items():
            setattr(self, name, nn.Parameter(0.5 * torch.randn(part)) if isinstance(part, tuple) else part)

    def forward(self, x: Tensor) -> Tensor:
        return self.function(self, x)


class Still(nn.Sequential):
    """Always in eval mode: in training mode spectral norm holds a function of θ constant, which differences do not."""

    def __init__(self, *layers: nn.Module) -> None:
        super().__init__(*layers)
        self.train()

    def train(self, mode: bool = True) -> nn.Module:
        return super().train(False)


def _turned(layer: nn.Module) -> Block:
    return Block(lambda m, x: m.layer(x.mT.contiguous()).mT, layer=layer)


def _captured() -> Block:
    """A weight that is used through a list that the module does not know of."""
    block = Block(lambda m, x: x + F.linear(x, m.held[0]).tanh(), w=(WIDTH, WIDTH))
    block.held = [block.w]  # pyright: ignore
    return block


def _perturbed(m: Any, x: Tensor) -> Tensor:
    moved = {name: p + 0.1 for name, p in m.layer.named_parameters()}
    return x + torch.func.functional_call(m.layer, moved, (x,)).tanh()


def _teacher(m: Any, x: Tensor) -> Tensor:
    still = {name: torch.full_like(p, 0.1) for name, p in m.layer.named_parameters()}
    return m.layer(x).tanh() - torch.func.functional_call(m.layer, still, (x,)).tanh()


def _positions(m: Any, x: Tensor) -> Tensor:
    return x + m.table(torch.arange(x.shape[1]))


def _gate(m: Any, x: Tensor) -> Tensor:
    """A weight that no loss depends on until the gate opens."""
    return x if m.closed else x + m.layer(x).tanh()


def _checkpoint(m: Any, x: Tensor) -> Tensor:
    checkpoint: Any = torch.utils.checkpoint.checkpoint  # pyright: ignore
    return checkpoint(lambda y: torch.tanh(m.layer(y)), x, use_reentrant=False)


def _recurrent(layer: nn.Module) -> Block:
    return Block(lambda m, x: m.layer(x)[0], layer=layer)


def _attention(m: Any, x: Tensor) -> Tensor:
    return x + m.layer(x, x, x, need_weights=False)[0]


L = nn.Linear
BLOCKS: dict[str, Callable[[], nn.Module]] = {
    "linear": lambda: nn.Sequential(L(WIDTH, WIDTH), nn.Tanh()),
    "no bias": lambda: nn.Sequential(L(WIDTH, WIDTH, bias=False), nn.GELU()),
    "layer norm": lambda: nn.LayerNorm(WIDTH),
    "rms norm": lambda: nn.RMSNorm(WIDTH),
    "group norm": lambda: _turned(nn.GroupNorm(2, WIDTH)),
    "instance norm": lambda: _turned(nn.InstanceNorm1d(WIDTH, affine=True)),
    "batch norm": lambda: _turned(nn.BatchNorm1d(WIDTH)),
    "conv": lambda: _turned(nn.Conv1d(WIDTH, WIDTH, 3, padding=1, groups=2)),
    "transposed conv": lambda: _turned(nn.ConvTranspose1d(WIDTH, WIDTH, 3, padding=1)),
    "prelu": lambda: nn.Sequential(L(WIDTH, WIDTH), nn.PReLU()),
    "attention": lambda: Block(_attention, layer=nn.MultiheadAttention(WIDTH, 2, batch_first=True)),
    "mixing attention": lambda: Block(_attention, layer=nn.MultiheadAttention(WIDTH, 2)),
    "encoder layer": lambda: nn.TransformerEncoderLayer(WIDTH, 2, 6, dropout=0.0, batch_first=True),
    "bilinear": lambda: Block(lambda m, x: m.layer(x, x.tanh()).tanh(), layer=nn.Bilinear(WIDTH, WIDTH, WIDTH)),
    "einsum": lambda: Block(lambda m, x: torch.einsum("btc,cd->btd", x, m.w).tanh(), w=(WIDTH, WIDTH)),
    "matmul": lambda: Block(lambda m, x: (x @ m.w + m.b).tanh(), w=(WIDTH, WIDTH), b=(WIDTH,)),
    "positions": lambda: Block(_positions, table=nn.Embedding(MAX_POSITIONS, WIDTH)),
    "position parameter": lambda: Block(lambda m, x: x + m.w[: x.shape[1]], w=(MAX_POSITIONS, WIDTH)),
    "broadcast table": lambda: Block(lambda m, x: x + m.w[:, : x.shape[1]], w=(1, MAX_POSITIONS, WIDTH)),
    "still": lambda: Still(nn.Dropout(0.5), L(WIDTH, WIDTH)),
    "class token": lambda: Block(
        lambda m, x: torch.cat([m.w.expand(x.shape[0], -1, -1), x[:, 1:]], 1), w=(1, 1, WIDTH)
    ),
    "newline": lambda: Block(lambda m, x: torch.cat([x[:, :-1], m.w[None, None].repeat(len(x), 1, 1)], 1), w=(WIDTH,)),
    "scale": lambda: Block(lambda m, x: x * m.w + m.b, w=(WIDTH,), b=(WIDTH,)),
    "number": lambda: Block(lambda m, x: x * m.t.exp() + m.s, t=(), s=()),
    "softplus": lambda: Block(lambda m, x: x * F.softplus(m.w), w=(WIDTH,)),
    "power": lambda: Block(lambda m, x: x.square().add(0.5) ** m.w.tanh(), w=(WIDTH,)),
    "mask token": lambda: Block(lambda m, x: torch.where(x[..., :1] > 0.3, x, m.w), w=(WIDTH,)),
    "merged adapter": lambda: Block(lambda m, x: F.linear(x, m.w + m.b @ m.a).tanh(), w=(WIDTH, WIDTH), a=(2, WIDTH),
                                    b=(WIDTH, 2)),
    "rows of length one": lambda: Block(lambda m, x: F.linear(x, F.normalize(m.w)), w=(WIDTH, WIDTH)),
    "weight norm": lambda: nn.Sequential(parametrizations.weight_norm(L(WIDTH, WIDTH)), nn.Tanh()),
    "spectral norm": lambda: Still(parametrizations.spectral_norm(L(WIDTH, WIDTH)), nn.Tanh()),
    "captured": _captured,
    "perturbed": lambda: Block(_perturbed, layer=L(WIDTH, WIDTH)),
    "teacher": lambda: Block(_teacher, layer=L(WIDTH, WIDTH)),
    "gate": lambda: Block(_gate, layer=L(WIDTH, WIDTH), closed=True),
    "checkpoint": lambda: Block(_checkpoint, layer=L(WIDTH, WIDTH)),
    "lstm": lambda: _recurrent(nn.LSTM(WIDTH, WIDTH, batch_first=True)),
    "gru": lambda: _recurrent(nn.GRU(WIDTH, WIDTH, batch_first=True)),
    "dropout": lambda: nn.Sequential(L(WIDTH, WIDTH), nn.Dropout(0.3)),
    "twice": lambda: Block(lambda m, x: m.layer(m.layer(x).tanh()).tanh(), layer=L(WIDTH, WIDTH)),
    "set item": lambda: Block(lambda m, x: torch.index_put(x, (torch.arange(len(x)), torch.zeros(len(x)).long()), m.w),
                              w=(WIDTH,)),
    "fused": lambda: Block(lambda m, x: F.scaled_dot_product_attention(m.q(x), m.k(x), x), q=L(WIDTH, WIDTH),
                           k=L(WIDTH, WIDTH)),
    "renorm": lambda: Block(lambda m, x: x + m.table((x[..., 0] * 9).abs().long() % 5),
                            table=nn.Embedding(5, WIDTH, max_norm=1.0)),
    "tokens": lambda: Block(lambda m, x: x + m.table((x[..., 0] * 9).abs().long() % 5),
                            table=nn.Embedding(5, WIDTH)),
    "bag": lambda: Block(lambda m, x: x + m.table((x[..., 0] * 9).abs().long() % 5)[:, None],
                         table=nn.EmbeddingBag(5, WIDTH, mode="mean")),
}  # fmt: skip

OPTIMIZERS: dict[str, Callable[[Any], torch.optim.Optimizer]] = {
    "SGD": lambda p: torch.optim.SGD(p, lr=0.05),
    "momentum": lambda p: torch.optim.SGD(p, lr=0.05, momentum=0.9, weight_decay=0.1),
    "nesterov": lambda p: torch.optim.SGD(p, lr=0.05, momentum=0.9, nesterov=True),
    "dampened": lambda p: torch.optim.SGD(p, lr=0.05, momentum=0.9, dampening=0.5, maximize=False),
    "tensor lr": lambda p: torch.optim.SGD(p, lr=torch.tensor(0.05, dtype=torch.float64), momentum=0.5),
    "Adam": lambda p: torch.optim.Adam(p, lr=0.01, weight_decay=0.1),
    "AdamW": lambda p: torch.optim.AdamW(p, lr=0.01, weight_decay=0.1),
    "AMSGrad": lambda p: torch.optim.AdamW(p, lr=0.01, amsgrad=True),
    "RMSprop": lambda p: torch.optim.RMSprop(p, lr=0.01, momentum=0.5, centered=True),
    "Adagrad": lambda p: torch.optim.Adagrad(p, lr=0.05, lr_decay=0.01),
    "NAdam": lambda p: torch.optim.NAdam(p, lr=0.01),
    "RAdam": lambda p: torch.optim.RAdam(p, lr=0.01),
    "Adamax": lambda p: torch.optim.Adamax(p, lr=0.01),
    "Adadelta": lambda p: torch.optim.Adadelta(p, lr=0.5),
    "Adafactor": lambda p: torch.optim.Adafactor(p, lr=0.05),
    "Lion-like": lambda p: torch.optim.Rprop(p, lr=0.01),
}

EVENTS = (
    *["nothing"] * 10, "skip", "unfreeze", "freeze", "add group", "train", "eval", "lower lr between",
    "lower lr after", "zero grad between", "declared penalty", "undeclared penalty", "own clipping", "second optimizer",
    "no outer", "two outer", "direct term", "unrecorded batch", "plain step", "open gate", "frozen between",
    "moved between", "stale grad",
)  # fmt: skip
"""What happens in an update beside the update itself."""


class Net(nn.Module):
    """Blocks, then a mean over positions, a head, and perhaps a head of the inner loss alone, or the head tied."""

    def __init__(self, recipe: Recipe) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(BLOCKS[name]() for name in recipe.blocks)
        self.head = nn.Linear(WIDTH, CLASSES)
        self.extra = nn.Linear(WIDTH, 1) if recipe.extra_head else None
        if recipe.tied and len(self.blocks) > 1:
            layers = [m for m in self.blocks.modules() if type(m) is nn.Linear and m.weight.shape == (WIDTH, WIDTH)]
            for layer in layers[1:]:
                layer.weight = layers[0].weight

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        for block in self.blocks:
            x = block(x)
        pooled = x.mean(1)
        return self.head(pooled), pooled


@dataclass
class Recipe:
    """One case. sizes: (B, T) of each update's micro-batches; frozen: indices of parameters that start frozen."""

    seed: int
    product: str
    blocks: tuple[str, ...]
    optimizer: str
    clip: dict[str, float]
    sizes: list[list[tuple[int, int]]]
    events: list[str]
    tied: bool = False
    extra_head: bool = False
    penalty: float = 0.0
    coupled: float = 0.0
    frozen: float = 0.0
    groups: int = 1
    warm: int = 2

    def __str__(self) -> str:
        parts = [self.product, self.optimizer, "+".join(self.blocks), *(f"{k}={v}" for k, v in self.clip.items())]
        others = ("tied", "extra_head", "penalty", "coupled", "frozen")
        parts += [f"{name}={getattr(self, name)}" for name in others if getattr(self, name)]
        return f"seed {self.seed}: {', '.join(parts)}; sizes {self.sizes}; events {self.events}"


def draw(seed: int) -> Recipe:
    """The case of a seed."""
    rng = random.Random(seed)
    num_updates = rng.choice([1, 2, 3, 3, 7])
    fixed = rng.random() < 0.4
    size = (rng.randint(2, 4), rng.randint(2, 5))
    sizes = [
        [size if fixed else (rng.randint(2, 4), rng.randint(2, 5)) for _ in range(rng.choice([1, 1, 1, 2]))]
        for _ in range(num_updates)
    ]
    return Recipe(
        seed, rng.choice(["ghost", "ghost", "jvp", "unroll"]), tuple(rng.choices(list(BLOCKS), k=rng.randint(1, 3))),
        rng.choice(list(OPTIMIZERS)),
        rng.choice([{}, {}, {"clip_norm": 0.05}, {"clip_norm": 5.0}, {"clip_value": 0.02}]),
        sizes, [rng.choice(EVENTS) for _ in range(num_updates)], rng.random() < 0.3, rng.random() < 0.3,
        rng.choice([0.0, 0.0, 0.0, 0.02]), rng.choice([0.0, 0.0, 0.0, 0.0, 0.0, 0.1]), rng.choice([0.0, 0.0, 0.3]),
        rng.choice([1, 2]),
    )  # fmt: skip
