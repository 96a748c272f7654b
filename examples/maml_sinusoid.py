"""MAML on sinusoids: learn the parameters from which few steps fit any sine.

The hyperparameters are the initial parameters: `Bilevel(start=…)` says so, and the derivative with respect to them is
then an ordinary hypergradient, which vmap takes for all tasks at once. The result is compared with a manual unroll by
torch.autograd.

    python examples/maml_sinusoid.py

Source: Finn et al., arXiv 1703.03400, section 5.1.
"""

import argparse
import math

import torch
from torch import Tensor

import bilevel

Tensors = dict[str, Tensor]
Batch = tuple[Tensor, Tensor]


def predict(params: Tensors, x: Tensor) -> Tensor:
    hidden = torch.tanh(x @ params["weight1"] + params["bias1"])
    hidden = torch.tanh(hidden @ params["weight2"] + params["bias2"])
    return hidden @ params["weight3"]  # (B, 1)


def loss(params: Tensors, initial: Tensors, batch: Batch) -> Tensor:
    return ((predict(params, batch[0]) - batch[1]) ** 2).mean()


def tasks(num: int, num_examples: int, draw: torch.Generator) -> tuple[Batch, Batch]:
    """Support and query sets of `num` sines: amplitude in [.1, 5], phase in [0, π], x in [-5, 5]."""
    amplitude = 0.1 + 4.9 * torch.rand(num, 1, 1, generator=draw, dtype=torch.float64)
    phase = math.pi * torch.rand(num, 1, 1, generator=draw, dtype=torch.float64)

    def examples() -> Batch:
        x = 10 * torch.rand(num, num_examples, 1, generator=draw, dtype=torch.float64) - 5
        return x, amplitude * torch.sin(x + phase)

    return examples(), examples()


def meta_gradient(initial: Tensors, support: Batch, query: Batch, rate: float, steps: int) -> tuple[Tensors, Tensor]:
    """The mean over tasks of the derivative of the query loss after the inner steps."""
    problem = bilevel.Bilevel(inner=loss, outer=loss, start=lambda initial: initial)
    method = bilevel.Unrolled(bilevel.SGD(lr=rate))

    def of_one_task(support: Batch, query: Batch) -> tuple[Tensors, Tensor]:
        result = bilevel.hypergradient(problem, None, initial, [support] * steps, query, method=method)
        return result.grad, result.outer_loss

    grads, losses = torch.func.vmap(of_one_task)(support, query)
    return {name: tensor.mean(0) for name, tensor in grads.items()}, losses.mean()


def manual_meta_gradient(initial: Tensors, support: Batch, query: Batch, rate: float, steps: int) -> Tensors:
    """The same by hand: one torch.autograd graph through the steps of every task."""
    leaves = {name: tensor.clone().requires_grad_() for name, tensor in initial.items()}
    total = torch.zeros((), dtype=torch.float64)
    for task in range(len(query[0])):
        params = dict(leaves)
        for _ in range(steps):
            fit = ((predict(params, support[0][task]) - support[1][task]) ** 2).mean()
            grads = torch.autograd.grad(fit, list(params.values()), create_graph=True)
            params = {name: tensor - rate * grad for (name, tensor), grad in zip(params.items(), grads, strict=True)}
        total = total + ((predict(params, query[0][task]) - query[1][task]) ** 2).mean()
    grads = torch.autograd.grad(total / len(query[0]), list(leaves.values()))
    return dict(zip(leaves, grads, strict=True))


def main(argv: list[str] | None = None) -> dict[str, float]:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--updates", type=int, default=500)
    parser.add_argument("--tasks", type=int, default=10)
    parser.add_argument("--steps", type=int, default=2)
    parser.add_argument("--rate", type=float, default=0.02)
    settings = parser.parse_args(argv)
    draw, width = torch.Generator().manual_seed(0), 40
    initial = {
        "weight1": torch.randn(1, width, generator=draw, dtype=torch.float64),
        "bias1": torch.randn(width, generator=draw, dtype=torch.float64),
        "weight2": torch.randn(width, width, generator=draw, dtype=torch.float64) / width**0.5,
        "bias2": torch.zeros(width, dtype=torch.float64),
        "weight3": torch.randn(width, 1, generator=draw, dtype=torch.float64) / width**0.5,
    }
    support, query = tasks(settings.tasks, 10, draw)
    found, _ = meta_gradient(initial, support, query, settings.rate, settings.steps)
    by_hand = manual_meta_gradient(initial, support, query, settings.rate, settings.steps)
    error = bilevel.testing.relative_error(found, by_hand)
    print(f"relative error to the manual unroll {error:.1e}")
    held_out = tasks(100, 10, draw)
    _, before = meta_gradient(initial, *held_out, settings.rate, settings.steps)
    optimizer = bilevel.Adam(lr=3e-3)
    state = optimizer.init(initial)
    for _ in range(settings.updates):
        grads, _ = meta_gradient(initial, *tasks(settings.tasks, 10, draw), settings.rate, settings.steps)
        initial, state = optimizer.update(initial, grads, state)
    _, after = meta_gradient(initial, *held_out, settings.rate, settings.steps)
    print(f"query loss after {settings.steps} steps on 100 new sines: {before.item():.3f} -> {after.item():.3f}")
    return {"relative_error": error, "before": before.item(), "after": after.item()}


if __name__ == "__main__":
    main()
