"""A randomised adversary of `bilevel.Lookahead`: is anything ever wrong in silence?

    python -m benchmarks.engine.adversary --models 2000 [--first 0] [--seed N]

Each case is a small model in float64 with some updates, drawn from its number (adversary_models.py). Beside it the same
updates run as a plain torch loop in a world of its own. Every recorded update must either

    be exact    dF/dφ equal to sixth-order central differences of the plain loop, relative error at most 1e-6, and
                parameters and buffers after the update equal to the plain loop's: bit for bit, under `ghost` up to the
                last bits of a power (see `_same`), or
    be refused  by an error that is raised by `bilevel` itself and names something.

Anything else is SILENT (a wrong number, or other training) or FOREIGN (an error from inside torch), and printed with
its seed. A hypergradient below what differences can resolve is counted as flat. `unroll` computes attention by the math
kernel, and so does the plain loop beside it.

One file because the plain loop and its twin through Lookahead are read side by side.
"""

from __future__ import annotations

import argparse
import logging
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

from bilevel import Lookahead, Status

from .adversary_models import CLASSES, OPTIMIZERS, WIDTH, Net, Recipe, draw

__all__ = ["Outcome", "judge", "main"]

TOLERANCE = 1e-6  # what sixth-order differences in float64 resolve of most cases
STEPS = (3e-3, 1e-3, 1e-4, 1e-5)  # a kink within reach of the first is out of reach of the last
Data = tuple[Tensor, Tensor]


@dataclass
class Outcome:
    """kind: exact, flat, refused, SILENT or FOREIGN; text: the message or what is wrong."""

    kind: str
    text: str = ""
    worst: float = 0.0


class World:
    """One model with its optimizer, and one update of it as a plain loop."""

    def __init__(self, recipe: Recipe) -> None:
        torch.manual_seed(recipe.seed)
        self.recipe = recipe
        self.model: Any = Net(recipe).double()
        with torch.no_grad():
            for p in self.model.parameters():
                p.add_(0.1 * torch.randn_like(p))
        late = [self.model.head.bias] if "add group" in recipe.events else []
        for p in late:
            p.requires_grad_(False)
        listed = [p for p in self.model.parameters() if not any(p is q for q in late)]
        if recipe.frozen:
            for p in listed[:: max(2, round(1 / recipe.frozen))][:-1]:
                p.requires_grad_(False)
        self.optimizer = OPTIMIZERS[recipe.optimizer](listed)
        if recipe.groups == 2 and len(listed) > 2:
            held = self.optimizer.param_groups[0]
            held["params"], rest = listed[:2], listed[2:]
            self.optimizer.add_param_group({"params": rest, "lr": held["lr"] * 0.5})
        self.other = torch.optim.SGD([self.model.head.weight], lr=0.01)
        for number in range(recipe.warm):
            self.optimizer.zero_grad()
            self.losses(self.data(900 + number, (3, 3)), number).mean().backward()
            self.optimizer.step()
        self.optimizer.zero_grad()

    def data(self, number: int, size: tuple[int, int]) -> Data:
        made = torch.Generator().manual_seed(1000 * self.recipe.seed + number)
        x = torch.randn(*size, WIDTH, generator=made, dtype=torch.float64)
        return x, torch.randint(0, CLASSES, (size[0],), generator=made)

    def losses(self, data: Data, number: int) -> Tensor:
        torch.manual_seed(number)
        logits, pooled = self.model(data[0])
        value = F.cross_entropy(logits, data[1], reduction="none")
        if self.model.extra is not None:
            value = value + self.model.extra(pooled).square().squeeze(-1)
        if self.recipe.penalty:
            value = value + self.recipe.penalty * self.squares()
        if self.recipe.coupled:
            value = value + self.recipe.coupled * (pooled - pooled.mean(0)).square().sum(1)
        return value

    def squares(self) -> Tensor:
        return torch.stack([p.square().sum() for p in self.model.parameters() if p.requires_grad]).sum()

    def outer(self, number: int, phi: Tensor, event: str) -> Tensor:
        torch.manual_seed(number)
        data = self.data(number, (5, 3))
        value = F.cross_entropy(self.model(data[0])[0], data[1])
        return value + 0.1 * phi.sigmoid().square().sum() if event == "direct term" else value

    @staticmethod
    def coefficients(phi: Tensor, sizes: Sequence[tuple[int, int]]) -> list[Tensor]:
        return list((phi.sigmoid() / phi.numel()).split([size[0] for size in sizes]))

    # -- events, in the order in which they come ----------------------------------------------------------------------

    def prepare(self, event: str) -> None:
        """Before an update: what is trained, and in which mode."""
        parameters = list(self.model.parameters())
        if event == "unfreeze":
            for p in parameters:
                p.requires_grad_(any(p is q for g in self.optimizer.param_groups for q in g["params"]))
        elif event == "freeze":
            parameters[0].requires_grad_(False)
        elif event == "add group":
            bias = self.model.head.bias
            if not any(bias is q for g in self.optimizer.param_groups for q in g["params"]):
                bias.requires_grad_(True)
                self.optimizer.add_param_group({"params": [bias], "lr": 0.02})
        elif event in ("train", "eval"):
            self.model.train(event == "train")
        elif event == "open gate":
            for module in self.model.modules():
                if hasattr(module, "closed"):
                    module.closed = False

    def before_inner(self, event: str) -> None:
        if event == "stale grad":
            self.losses(self.data(700, (2, 3)), 700).mean().backward()

    def after_inner(self, event: str, declared: Callable[[], Any] | None = None) -> None:
        if event == "declared penalty" and declared is not None:
            with declared():
                (0.05 * self.squares()).backward()
        elif event in ("undeclared penalty", "declared penalty"):
            (0.05 * self.squares()).backward()
        elif event == "own clipping":
            nn.utils.clip_grad_norm_(self.model.parameters(), 0.03)
        elif event == "second optimizer":
            self.other.step()

    def clip(self) -> None:
        parameters = [p for g in self.optimizer.param_groups for p in g["params"]]
        if "clip_norm" in self.recipe.clip:
            nn.utils.clip_grad_norm_(parameters, self.recipe.clip["clip_norm"])
        if "clip_value" in self.recipe.clip:
            nn.utils.clip_grad_value_(parameters, self.recipe.clip["clip_value"])

    def between(self, event: str) -> None:
        if event == "lower lr between":
            self._lower()
        elif event == "zero grad between":
            self.optimizer.zero_grad()
        elif event == "frozen between":
            self.model.head.weight.requires_grad_(False)
        elif event == "moved between":
            with torch.no_grad():
                self.model.head.weight.mul_(0.98)

    def finish(self, event: str) -> None:
        if event == "lower lr after":
            self._lower()
        elif event == "frozen between":
            self.model.head.weight.requires_grad_(True)

    def _lower(self) -> None:
        for group in self.optimizer.param_groups:
            if isinstance(group["lr"], Tensor):
                group["lr"].mul_(0.5)
            else:
                group["lr"] *= 0.5

    # -- the plain loop ------------------------------------------------------------------------------------------------

    def update(self, number: int, phi: Tensor) -> float:
        """One update with coefficients σ(φ)/Σ B; F."""
        event, sizes = self.recipe.events[number], self.recipe.sizes[number]
        self.optimizer.zero_grad()
        self.before_inner(event)
        math = self.recipe.product == "unroll" and event != "skip"
        for place, (size, c) in enumerate(zip(sizes, self.coefficients(phi, sizes), strict=True)):
            with sdpa_kernel(SDPBackend.MATH) if math else nullcontext():
                losses = self.losses(self.data(10 * number + place, size), 10 * number + place)
            (c * losses).sum().backward()
        if event == "unrecorded batch":
            self.losses(self.data(500, (2, 4)), 500).mean().backward()
        self.after_inner(event)
        if event != "plain step":
            self.clip()
        self.optimizer.step()
        self.between(event)
        value = self.outer(400 + number, phi, event)
        if event == "two outer":
            value = (value + self.outer(450 + number, phi, event)) / 2
        self.finish(event)
        return value.item()

    def snapshot(self) -> Callable[[], None]:
        """Everything as it is now; call the result to have it back."""

        def copies(values: dict[Any, Any]) -> dict[Any, Any]:
            return {k: v.detach().clone() if isinstance(v, Tensor) else v for k, v in values.items()}

        tensors = [(t, t.detach().clone()) for t in (*self.model.parameters(), *self.model.buffers())]
        flags = [(p, p.requires_grad) for p in self.model.parameters()]
        states = {p: copies(state) for p, state in self.optimizer.state.items()}
        groups = [copies({k: v for k, v in g.items() if k != "params"}) for g in self.optimizer.param_groups]

        def restore() -> None:
            with torch.no_grad():
                for tensor, kept in tensors:
                    tensor.copy_(kept)
            for p, flag in flags:
                p.requires_grad_(flag)
            self.optimizer.state.clear()
            for p, state in states.items():
                self.optimizer.state[p] = copies(state)
            for group, kept in zip(self.optimizer.param_groups, groups, strict=True):
                group.update(copies(kept))

        return restore

    def difference(self, number: int, phi: Tensor, step: float) -> Tensor:
        """dF/dφ of the update by a sixth-order central difference."""
        restore, rows = self.snapshot(), []
        for direction in torch.eye(phi.numel(), dtype=torch.float64) * step:
            pairs: list[float] = []
            for k in (1, 2, 3):
                restore()
                above = self.update(number, phi + k * direction)
                restore()
                pairs.append(above - self.update(number, phi - k * direction))
            rows.append((45 * pairs[0] - 9 * pairs[1] + pairs[2]) / (60 * step))
        restore()
        return torch.tensor(rows, dtype=torch.float64)


class Watched(World):
    """The same updates through Lookahead."""

    def __init__(self, recipe: Recipe) -> None:
        super().__init__(recipe)
        self.lookahead = Lookahead(self.model, self.optimizer, recipe.product, **recipe.clip)  # pyright: ignore

    def hypergradient(self, number: int, phi: Tensor) -> Tensor | None:
        """dF/dφ of the update; None where it was not asked for."""
        event, sizes = self.recipe.events[number], self.recipe.sizes[number]
        lookahead, phi = self.lookahead, phi.clone().requires_grad_()
        self.optimizer.zero_grad()
        self.before_inner(event)
        for place, (size, c) in enumerate(zip(sizes, self.coefficients(phi, sizes), strict=True)):
            with lookahead.inner(record=event != "skip"):
                lookahead.backward(self.losses(self.data(10 * number + place, size), 10 * number + place), c)
        if event == "unrecorded batch":
            with lookahead.inner(record=False):
                losses = self.losses(self.data(500, (2, 4)), 500)
                lookahead.backward(losses, torch.full_like(losses, 1 / len(losses)))
        self.after_inner(event, lookahead.unweighted)
        if event == "plain step":
            self.optimizer.step()
        else:
            lookahead.step()
        self.between(event)
        value = self.outer(400 + number, phi, event)
        if event in ("skip", "no outer"):
            self.finish(event)
            return None
        if event == "two outer":
            lookahead.accumulate_outer(value)
            value = self.outer(450 + number, phi, event)
        status = lookahead.backward_outer(value)
        self.finish(event)
        if status is not Status.DONE:
            raise RuntimeError(f"bilevel: {status}")
        return torch.zeros_like(phi) if phi.grad is None else phi.grad


def _ours(error: Exception) -> bool:
    """Whether `bilevel` raised it itself."""
    frames = traceback.extract_tb(error.__traceback__)
    return bool(frames) and ("/bilevel/" in frames[-1].filename or str(error).startswith("bilevel:"))


def _same(one: World, other: World) -> bool:
    """Bit for bit, but for `ghost`: it lays a parameter out by row before it meets an activation. torch's reverse pass
    of x ** w takes x.pow(w - 1), and w - 1 of a parameter by row is a whole tensor, which torch raises by its
    vectorised power; of the parameter alone it is broadcast, and short rows go through the scalar one. The two differ
    in the last bit of 1.4 % of their values (case 525: the weight before a power by 7e-18)."""
    pairs = zip(
        (*one.model.parameters(), *one.model.buffers()),
        (*other.model.parameters(), *other.model.buffers()),
        strict=True,
    )
    if other.recipe.product == "ghost":
        return all(torch.allclose(a, b, rtol=1e-14, atol=1e-15) for a, b in pairs)
    return all(torch.equal(a, b) for a, b in pairs)


def judge(recipe: Recipe) -> Outcome:
    """The case, update by update, until an error or the end."""
    plain, kind, worst = World(recipe), "exact", 0.0
    try:
        ours = Watched(recipe)
    except Exception as error:
        return Outcome("refused" if _ours(error) else "FOREIGN", str(error))
    for number, event in enumerate(recipe.events):
        plain.prepare(event)
        ours.prepare(event)
        total = sum(size[0] for size in recipe.sizes[number])
        phi = torch.linspace(-1.0, 1.0, total, dtype=torch.float64) + 0.1 * number
        try:
            value = ours.hypergradient(number, phi)
        except Exception as error:
            return Outcome("refused" if _ours(error) else "FOREIGN", f"update {number}: {error}", worst)
        if value is not None:
            error, flat = _error(plain, number, phi, value)
            worst = max(worst, error)
            if not error <= TOLERANCE:
                return Outcome("SILENT", f"update {number}: relative error {error:.1e}", worst)
            kind = "flat" if flat and kind == "exact" else kind
        plain.update(number, phi)
        if not _same(plain, ours):
            return Outcome("SILENT", f"update {number}: parameters or buffers differ from the plain loop's", worst)
    return Outcome(kind, worst=worst)


def _error(plain: World, number: int, phi: Tensor, value: Tensor) -> tuple[float, bool]:
    """The relative error at the step that agrees best, and whether the difference is below its own rounding."""
    best, flat = float("inf"), False
    for step in STEPS:
        expected = plain.difference(number, phi, step)
        rounding = 3e-15 / step * phi.numel() ** 0.5
        size = float(expected.norm())
        error = max(float((value - expected).norm()) - rounding, 0.0) / max(size, 1e-300)
        best, flat = min(best, error), flat or size * TOLERANCE < rounding
        if best <= TOLERANCE:
            break
    return best, flat


def main() -> None:
    """Run the cases, print what is wrong, then the counts."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.engine.adversary", description=__doc__)
    parser.add_argument("--models", type=int, default=2000)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--seed", type=int, help="one case only, in words")
    arguments = parser.parse_args()
    logging.disable(logging.WARNING)
    warnings.simplefilter("ignore")
    if arguments.seed is not None:
        print(draw(arguments.seed), judge(draw(arguments.seed)))
        return
    counts: Counter[str] = Counter()
    reasons: Counter[str] = Counter()
    start, worst = time.perf_counter(), 0.0
    for seed in range(arguments.first, arguments.first + arguments.models):
        recipe = draw(seed)
        outcome = judge(recipe)
        counts[outcome.kind] += 1
        if outcome.kind in ("exact", "flat"):
            worst = max(worst, outcome.worst)
        if outcome.kind == "refused":
            reasons[f"{recipe.product}: {outcome.text.split(': ', 1)[-1][:110]}"] += 1
        if outcome.kind in ("SILENT", "FOREIGN"):
            print(f"{outcome.kind}: {outcome.text}\n    {recipe}", flush=True)
        if (seed + 1) % 100 == 0:
            print(
                f"{seed + 1 - arguments.first} cases, {time.perf_counter() - start:.0f} s: {dict(counts)}", flush=True
            )
    print(f"{arguments.models} cases: {dict(counts)}; largest relative error of the exact ones {worst:.1e}")
    for reason, count in reasons.most_common():
        print(f"{count:5d}  {reason}")


if __name__ == "__main__":
    main()
