"""A small model with one of everything, and the hypergradient by autograd through torch's own differentiable step."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

from bilevel import Lookahead, Status

NUM_EXAMPLES, NUM_TOKENS = 5, 4


class Scale(nn.Module):
    """Parameters used directly: a class token, a position table, a layer scale, a root-mean-square norm."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.token = nn.Parameter(torch.randn(1, 1, width))
        self.positions = nn.Parameter(torch.randn(1, NUM_TOKENS + 1, width))
        self.scale = nn.Parameter(torch.rand(width) + 0.5)
        self.root = nn.Parameter(torch.rand(width))

    def forward(self, x: Tensor) -> Tensor:
        x = torch.cat([self.token.expand(x.shape[0], -1, -1), x], dim=1) + self.positions
        x = x * self.scale
        return (1.0 + self.root.to(x.dtype)) * (x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6))


class Everything(nn.Module):
    """Embedding (tied to the last layer), positions looked up once, convolutions, attention, norms, dropout."""

    def __init__(self, width: int = 6, vocabulary: int = 11, dropout: float = 0.0) -> None:
        super().__init__()
        self.embedding = nn.Embedding(vocabulary, width, padding_idx=0)
        self.places = nn.Embedding(NUM_TOKENS, width)
        self.conv1 = nn.Conv1d(width, width, 3, padding=1, groups=2)
        self.conv2 = nn.Conv2d(1, 3, 2, stride=2)
        self.image = nn.Linear(3, width)
        self.special = Scale(width)
        self.query, self.key = nn.Linear(width, width), nn.Linear(width, width, bias=False)
        self.norm = nn.LayerNorm(width)
        self.rms = nn.RMSNorm(width)
        self.group = nn.Linear(width, width)
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(width, vocabulary)
        self.head.weight = self.embedding.weight

    def forward(self, batch: dict[str, Tensor]) -> Tensor:
        tokens = batch["tokens"]
        x = self.embedding(tokens) + self.places(torch.arange(tokens.shape[1])[None])
        x = x + self.conv1(x.mT).mT
        picture = self.image(self.conv2(batch["image"]).flatten(2).mean(-1))
        x = self.special(x) + picture[:, None]
        attended = F.scaled_dot_product_attention(self.query(x), self.key(x), x)
        x = self.rms(self.norm(x + self.dropout(attended)))
        return self.head(torch.tanh(self.group(self.dropout(x)))).mean(1)


def _batch(seed: int) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {
        "tokens": torch.randint(0, 11, (NUM_EXAMPLES, NUM_TOKENS), generator=generator),
        "image": torch.randn(NUM_EXAMPLES, 1, 4, 4, generator=generator, dtype=torch.float64),
        "label": torch.randint(0, 11, (NUM_EXAMPLES,), generator=generator),
    }


class Problem:
    """One inner and one outer batch, one raw weight per example, and the exact hypergradient to compare with."""

    def __init__(
        self,
        optimizer: Callable[[Any], torch.optim.Optimizer],
        *,
        dropout: float = 0.0,
        warmup: int = 0,
        clip_norm: float | None = None,
        clip_value: float | None = None,
        accumulate: int = 1,
    ) -> None:
        torch.manual_seed(0)
        self.model = Everything(dropout=dropout).double()
        self.optimizer = optimizer(self.model)
        self.clip_norm, self.clip_value = clip_norm, clip_value
        self.inner = [_batch(seed) for seed in range(1, 1 + accumulate)]
        self.outer_batch = _batch(99)
        self.raw = torch.randn(accumulate, NUM_EXAMPLES, dtype=torch.float64).requires_grad_()
        for seed in range(warmup):
            self.optimizer.zero_grad()
            self.losses(self.model, _batch(200 + seed)).mean().backward()
            self.optimizer.step()

    @staticmethod
    def losses(model: nn.Module, batch: dict[str, Tensor]) -> Tensor:
        return F.cross_entropy(model(batch), batch["label"], reduction="none")

    def coefficients(self, number: int) -> Tensor:
        return F.softplus(self.raw[number]) / NUM_EXAMPLES

    def run(self, product: str = "ghost", **options: Any) -> Lookahead:
        """One meta-update through `Lookahead`; leaves the hypergradient in raw.grad."""
        lookahead = Lookahead(
            self.model, self.optimizer, product, clip_norm=self.clip_norm, clip_value=self.clip_value, **options
        )
        self.raw.grad = None
        self.optimizer.zero_grad()
        torch.manual_seed(7)
        for number, batch in enumerate(self.inner):
            with lookahead.inner():
                lookahead.backward(self.losses(self.model, batch), self.coefficients(number))
        lookahead.step()
        torch.manual_seed(8)
        lookahead.backward_outer(self.losses(self.model, self.outer_batch).mean())
        return lookahead

    def truth(self) -> Tensor:
        """dF/draw by autograd through torch's differentiable optimizer; call before `run`, which moves the model."""
        model, state = copy.deepcopy(self.model), copy.deepcopy(self.optimizer.state_dict())
        names = {p: n for n, p in model.named_parameters()}
        torch.manual_seed(7)
        with sdpa_kernel(SDPBackend.MATH):
            total = torch.stack(
                [(self.coefficients(k) * self.losses(model, batch)).sum() for k, batch in enumerate(self.inner)]
            ).sum()
            parameters = list(model.parameters())
            gradients = list(torch.autograd.grad(total, parameters, create_graph=True))
        if self.clip_norm is not None:
            norm = torch.stack([g.pow(2).sum() for g in gradients]).sum().sqrt()
            gradients = [g * torch.clamp(self.clip_norm / (norm + 1e-6), max=1.0) for g in gradients]
        if self.clip_value is not None:
            gradients = [g.clamp(-self.clip_value, self.clip_value) for g in gradients]
        moved = [p.detach().clone() for p in parameters]
        live = {id(p): place for place, p in enumerate(self.model.parameters())}
        groups = []
        for group in self.optimizer.param_groups:
            kept = {k: v for k, v in group.items() if k not in ("params", "foreach", "fused", "differentiable")}
            groups.append({**kept, "params": [moved[live[id(p)]] for p in group["params"]]})
        kind = type(self.optimizer)
        stepper = kind(groups, differentiable=True, foreach=False)
        stepper.load_state_dict({**state, "param_groups": stepper.state_dict()["param_groups"]})
        for target, gradient in zip(moved, gradients, strict=True):
            target.grad = gradient
            kept = stepper.state[target]
            if "step" in kept:  # torch counts in fp32, and its differentiable path computes 1 - beta^t in that dtype
                kept["step"] = kept["step"].double()
        for group in stepper.param_groups:
            if group.get("momentum") and not state["state"] and kind is torch.optim.SGD:
                # torch detaches the first step's buffer; a buffer of zeros without dampening makes the same step
                group["dampening"] = 0.0
                for target in group["params"]:
                    stepper.state[target]["momentum_buffer"] = torch.zeros_like(target)
        stepper.step()
        torch.manual_seed(8)
        after = {names[p]: m for p, m in zip(parameters, moved, strict=True)}
        after["head.weight"] = after["embedding.weight"]
        outer = torch.func.functional_call(model, after, (self.outer_batch,), tie_weights=False)
        loss = F.cross_entropy(outer, self.outer_batch["label"])
        return torch.autograd.grad(loss, self.raw)[0]


@pytest.fixture
def problem() -> type[Problem]:
    return Problem


Batch = tuple[Tensor, Tensor]
WIDTH, NUM_CLASSES = 5, 3


def draw_batch(num_examples: int = 4, seed: int = 1) -> Batch:
    draw = torch.Generator().manual_seed(seed)
    x = torch.randn(num_examples, WIDTH, generator=draw, dtype=torch.float64)
    return x, torch.randint(0, NUM_CLASSES, (num_examples,), generator=draw)


def cross_entropy(model: nn.Module, data: Batch) -> Tensor:
    """(B,)"""
    return F.cross_entropy(model(data[0]), data[1], reduction="none")


def mlp() -> nn.Module:
    return nn.Sequential(nn.Linear(WIDTH, 6), nn.Tanh(), nn.Linear(6, NUM_CLASSES))


def sgd(model: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.SGD(model.parameters(), lr=0.1)


def adamw(model: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.AdamW(model.parameters(), lr=0.02)


@dataclass
class Outcome:
    error: float
    """‖dF/dφ - difference‖ / ‖difference‖."""
    moved: float
    """Largest difference of a parameter after the update from the plain loop's."""
    status: Status
    lookahead: Lookahead


@dataclass
class Case:
    """One update of a small model after two warm-up updates, beside differences of the whole plain loop.

    A sixth-order difference of step 3e-3 errs by about 1e-17 times the seventh derivative, and 1e-16 / 3e-3 of
    rounding: an exact product agrees to 1e-9.
    """

    build: Callable[[], nn.Module] = mlp
    optimizer: Callable[[nn.Module], torch.optim.Optimizer] = sgd
    losses: Callable[[nn.Module, Batch], Tensor] = cross_entropy
    outer: Callable[[nn.Module, Batch], Tensor] = lambda model, data: cross_entropy(model, data).mean()
    product: Any = "ghost"
    clip_norm: float | None = None
    clip_value: float | None = None
    between: Callable[[nn.Module, torch.optim.Optimizer], None] | None = None
    warm: int = 2
    inner_batch: Batch = field(default_factory=draw_batch)
    outer_batch: Batch = field(default_factory=lambda: draw_batch(6, seed=2))

    def fresh(self) -> tuple[nn.Module, torch.optim.Optimizer, Tensor]:
        torch.manual_seed(0)
        model = self.build().double()
        optimizer = self.optimizer(model)
        for _ in range(self.warm):
            optimizer.zero_grad()
            self.losses(model, self.inner_batch).mean().backward()
            optimizer.step()
        optimizer.zero_grad()
        shape = self.losses(model, self.inner_batch).shape
        phi = torch.linspace(-1.0, 1.0, shape.numel(), dtype=torch.float64).reshape(shape)
        return model, optimizer, phi

    def coefficients(self, phi: Tensor) -> Tensor:
        return phi.sigmoid() / phi.numel()

    def plain(self, phi: Tensor) -> tuple[float, nn.Module]:
        model, optimizer, _ = self.fresh()
        (self.coefficients(phi) * self.losses(model, self.inner_batch)).sum().backward()
        parameters = [p for group in optimizer.param_groups for p in group["params"]]
        if self.clip_norm is not None:
            nn.utils.clip_grad_norm_(parameters, self.clip_norm)
        if self.clip_value is not None:
            nn.utils.clip_grad_value_(parameters, self.clip_value)
        optimizer.step()
        return self.outer(model, self.outer_batch).item(), model

    def difference(self) -> Tensor:
        """dF/dφ of the plain loop by a sixth-order central difference."""
        phi, step = self.fresh()[2], 3e-3
        rows = []
        for place in torch.eye(phi.numel(), dtype=torch.float64):
            d = step * place.reshape(phi.shape)
            one, two, three = (self.plain(phi + k * d)[0] - self.plain(phi - k * d)[0] for k in (1, 2, 3))
            rows.append((45 * one - 9 * two + three) / (60 * step))
        return torch.tensor(rows, dtype=torch.float64).reshape(phi.shape)

    def begin(self, **options: Any) -> tuple[Lookahead, nn.Module, torch.optim.Optimizer, Tensor]:
        """A Lookahead around a fresh model, its step taken."""
        model, optimizer, phi = self.fresh()
        phi.requires_grad_()
        lookahead = Lookahead(
            model, optimizer, self.product, clip_norm=self.clip_norm, clip_value=self.clip_value, **options
        )
        with lookahead.inner():
            lookahead.backward(self.losses(model, self.inner_batch), self.coefficients(phi))
        return lookahead, model, optimizer, phi

    def run(self, **options: Any) -> Outcome:
        lookahead, model, optimizer, phi = self.begin(**options)
        lookahead.step()
        if self.between is not None:
            self.between(model, optimizer)
        status = lookahead.backward_outer(self.outer(model, self.outer_batch))
        assert phi.grad is not None
        expected = self.difference()
        theirs = self.plain(phi.detach())[1].parameters()
        with torch.no_grad():
            error = float((phi.grad - expected).norm() / expected.norm())
            moved = max(float((p - q).abs().max()) for p, q in zip(model.parameters(), theirs, strict=True))
        return Outcome(error, moved, status, lookahead)


@pytest.fixture
def case() -> type[Case]:
    return Case
