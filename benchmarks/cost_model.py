"""What one update costs in computing, memory and bytes exchanged, by arithmetic; and what that says of large runs.

    python -m benchmarks.cost_model            # the tables of benchmarks/cost-model.md
    python -m benchmarks.cost_points           # the same arithmetic against measured points

Notation: N parameters in matrices, L layers of width H with a feed-forward block of I, T tokens of a chain; B inner and
M outer chains of an update; n processes, each with all of the model (replicated) or its n-th part (sharded).
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["PRODUCTS", "Card", "Cost", "Model", "Stack", "cost"]

PRODUCTS = {"none": 0.0, "ghost": 1.0, "jvp": 3.0}
"""Forward passes of the inner chains that the hypergradient adds: U x of every layer, without attention; or all of
W ẋ, U x and W x once more, attention too."""


@dataclass(frozen=True)
class Stack:
    """Transformer layers. kv: width of keys and values; gated: three matrices in the feed-forward block, not two."""

    layers: int
    width: int
    feed_forward: int
    kv: int
    tokens: int
    gated: bool = True

    @property
    def matrices(self) -> int:
        """N: parameters in matrices."""
        attention = 2 * self.width * self.width + 2 * self.width * self.kv
        return self.layers * (attention + (3 if self.gated else 2) * self.width * self.feed_forward)

    @property
    def matmul_flops(self) -> float:
        """Of the forward pass of one chain: 2 N T."""
        return 2.0 * self.matrices * self.tokens

    @property
    def attention_flops(self) -> float:
        """Q Kᵀ and the weighted sum of V: 4 L T² H."""
        return 4.0 * self.layers * self.tokens**2 * self.width

    @property
    def saved(self) -> int:
        """Numbers that autograd keeps of one chain, as `plan=true` finds them of transformers' Qwen2 (16 H + 4 I of a
        token and layer: norms keep three) and InternViT (10 H + 2 I), with fused attention.

        Fewer copies make 17 H of a GPT's layer: Korthikanti et al. (arXiv 2205.05198), section 4.1, in 16 bits.
        """
        each = 16 * self.width + 4 * self.feed_forward if self.gated else 10 * self.width + 2 * self.feed_forward
        return self.layers * self.tokens * each

    @property
    def deltas(self) -> int:
        """Numbers of the output gradients that `ghost` keeps of one chain: of q, k, v, o and the block's matrices."""
        block = (3 if self.gated else 2) * self.feed_forward - (self.feed_forward - self.width)
        return self.layers * self.tokens * (2 * self.width + 2 * self.kv + block)


@dataclass(frozen=True)
class Model:
    """text and tower as stacks; embeddings: parameters outside matrices that are trained (tables of words)."""

    name: str
    text: Stack
    tower: Stack | None
    embeddings: int

    @property
    def stacks(self) -> list[Stack]:
        return [stack for stack in (self.text, self.tower) if stack is not None]

    @property
    def parameters(self) -> int:
        return sum(stack.matrices for stack in self.stacks) + self.embeddings


@dataclass(frozen=True)
class Card:
    """What one process has: GB, TFLOP/s that a training reaches, TB/s of its memory, GB/s to the others."""

    name: str
    gigabytes: float
    teraflops: float
    memory_terabytes: float
    link_gigabytes: float


@dataclass(frozen=True)
class Cost:
    """Of one update, of one process.

    flops, floor_flops: with and without the hypergradient.  states: bytes of parameters, gradients, moments and v.
    unit: bytes of the largest layer gathered whole, with its u.  activations: bytes of a chain's, of one level.  tape:
    bytes that a chain leaves for the hypergradient.  exchanged, floor_exchanged: bytes sent; table: bytes of the
    weigher's rows and moments.  fits: chains of a micro-batch.  seconds: computing, or exchanging if that is longer,
    and the optimizer's passes over memory.
    """

    flops: float
    floor_flops: float
    states: float
    unit: float
    activations: float
    tape: float
    exchanged: float
    floor_exchanged: float
    table: float
    fits: int
    seconds: float
    floor_seconds: float

    @property
    def ratio(self) -> float:
        return self.flops / self.floor_flops


def cost(
    model: Model,
    card: Card,
    *,
    inner: int,
    outer: int,
    processes: int = 1,
    sharded: bool = False,
    product: str = "ghost",
    rows: int = 0,
    table_sharded: bool = False,
    checkpointing: bool = False,
    activation_bytes: int = 2,
    moment_bytes: int = 8,
) -> Cost:
    """inner, outer: chains of all processes together. rows: of the weigher's table. moment_bytes: of the optimizer for
    each parameter (AdamW: 8; 8-bit: 2). Parameters, gradients and v are of 4 bytes."""
    matmul = sum(stack.matmul_flops for stack in model.stacks)
    forward = matmul + sum(stack.attention_flops for stack in model.stacks)
    passes = 4 if checkpointing else 3  # forward, backward by activations, backward by parameters; forward again
    floor = passes * forward * (inner + outer) / processes
    flops = floor + PRODUCTS[product] * (forward if product == "jvp" else matmul) * inner / processes

    trained, parts = model.parameters, processes if sharded else 1
    states = trained * (4 + 4 + moment_bytes + (0 if product == "none" else 4)) / parts
    largest = max(stack.matrices / stack.layers for stack in model.stacks)
    unit = 2 * 4 * max(largest, model.embeddings) if sharded else 0.0

    saved = sum(stack.saved for stack in model.stacks)
    if checkpointing:
        saved = sum(stack.layers * stack.tokens * stack.width + stack.saved // stack.layers for stack in model.stacks)
    activations = activation_bytes * saved
    tape = activation_bytes * sum(stack.deltas for stack in model.stacks) if product == "ghost" else 0
    if product == "ghost" and checkpointing:  # the layers' inputs, which autograd does not keep now
        tape += activation_bytes * sum(
            stack.layers * stack.tokens * (3 * stack.width + stack.feed_forward) for stack in model.stacks
        )

    share = 4 * trained * (processes - 1) / processes if processes > 1 else 0.0
    # Replicated: g and v are each reduced, which sends them twice. Sharded: the parameters are gathered for forward and
    # for backward on each level and the gradient is scattered; ghost gathers u once.
    by_level = 3 * share if sharded else 2 * share
    floor_exchanged = 2 * by_level
    exchanged = floor_exchanged + (share if sharded and product == "ghost" else 0.0)
    # A row's weight, its two moments and its own count of updates, of 4 bytes; each process's rows of a batch.
    table = rows * 16 / (processes if table_sharded else 1)
    exchanged += inner * 12 * (processes > 1 and rows > 0)

    free = 0.9 * card.gigabytes * 1e9 - states - unit - table
    fits = max(0, int(free // (activations + tape)))
    steps = trained * (4 + 4 + moment_bytes) * 2 / parts  # read and written
    derivative = 0.0 if product == "none" else trained * (4 + 4 + moment_bytes + 4) / parts  # D, read once

    def seconds(flops: float, sent: float, moved: float) -> float:
        return max(flops / (card.teraflops * 1e12), sent / (card.link_gigabytes * 1e9)) + moved / (
            card.memory_terabytes * 1e12
        )

    return Cost(
        flops, floor, states, unit, activations, tape, exchanged, floor_exchanged, table, fits,
        seconds(flops, exchanged, steps + derivative), seconds(floor, floor_exchanged, steps),
    )  # fmt: skip


H100 = Card("H100, NVLink within 8", 80, 400, 3.3, 300)
H100_FAR = Card("H100, 50 GB/s between nodes", 80, 400, 3.3, 50)


def qwen(name: str, layers: int, width: int, feed_forward: int, kv: int, words: int, tower: bool) -> Model:
    """A Qwen2.5 of that shape, 2,048 tokens, under InternViT-300M's seven tiles of 1,025 tokens, or with none."""
    vision = Stack(24, 1024, 4096, 1024, 7 * 1025, gated=False) if tower else None
    return Model(name, Stack(layers, width, feed_forward, kv, 2048), vision, 2 * words * width)


MODELS = [
    qwen("InternVL3-1B", 24, 896, 4864, 128, 151_674, True),
    qwen("InternVL3-8B", 28, 3584, 18944, 512, 151_674, True),
    qwen("Qwen2.5-72B, text", 80, 8192, 29568, 1024, 152_064, False),
]


def _row(model: Model, card: Card, processes: int, chains: int, **words: object) -> str:
    given = cost(model, card, inner=chains, outer=chains, processes=processes, **words)  # type: ignore[arg-type]
    numbers = [
        model.name, f"{model.parameters / 1e9:.1f}", str(processes), str(chains), f"{given.states / 1e9:.1f}",
        f"{given.unit / 1e9:.1f}", f"{given.activations / 1e9:.2f} + {given.tape / 1e9:.2f}", str(given.fits),
        f"{given.flops / 1e12:.0f}", f"{given.exchanged / 1e9:.0f}", f"{given.seconds:.1f}",
        f"{given.seconds / given.floor_seconds:.2f}",
    ]  # fmt: skip
    return "| " + " | ".join(numbers) + " |"


def tables() -> str:
    """The tables of the page."""
    head = [
        "| model | 10^9 trained | processes | chains on each level | GB of states | GB of a unit | GB of a chain: "
        "activations + tape | chains that fit | TFLOP of a process | GB sent | seconds | of the floor |",
        "|" + "---|" * 12,
    ]
    one, eight, large = MODELS
    rows = [
        _row(one, H100, 1, 8),
        _row(one, H100, 8, 64),
        _row(eight, H100, 8, 64, sharded=True),
        _row(eight, H100, 8, 64, sharded=True, checkpointing=True),
        _row(eight, H100, 8, 64, sharded=True, checkpointing=True, moment_bytes=2),
        _row(large, H100_FAR, 64, 64, sharded=True, checkpointing=True),
        _row(large, H100_FAR, 64, 512, sharded=True, checkpointing=True),
        _row(large, H100_FAR, 64, 512, sharded=True, checkpointing=True, product="jvp"),
    ]
    lines = [*head, *rows, "", "| rows of the table | GB, whole | GB, of 64 processes | MB sent of 4,096 chains |"]
    lines.append("|---|---|---|---|")
    for rows_ in (10**5, 10**8, 10**9):
        whole, part = (
            cost(eight, H100, inner=4096, outer=64, processes=64, rows=rows_, table_sharded=split)
            for split in (False, True)
        )
        lines.append(f"| {rows_:,} | {whole.table / 1e9:.3g} | {part.table / 1e9:.3g} | {4096 * 12 / 1e6:.2f} |")
    return "\n".join(lines)


if __name__ == "__main__":
    print(tables())
