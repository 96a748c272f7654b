"""Distil the digits into ten images, one per class.

The hyperparameters are the pixels: the inner steps train a softmax regression on the ten images alone, the outer loss
is that model's on the real training set. The derivative goes back through all inner steps.

    python examples/distill_digits.py

Source: Wang et al., arXiv 1811.10959.
"""

import argparse

import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from torch import Tensor

import bilevel

Tensors = dict[str, Tensor]
Batch = tuple[Tensor, Tensor]
CLASSES = torch.arange(10)


def logits(params: Tensors, x: Tensor) -> Tensor:
    return x @ params["weight"] + params["bias"]  # (B, 10)


def inner(params: Tensors, hyper: Tensors, batch: None) -> Tensor:
    return F.cross_entropy(logits(params, hyper["images"]), CLASSES)


def outer(params: Tensors, hyper: Tensors, batch: Batch) -> Tensor:
    return F.cross_entropy(logits(params, batch[0]), batch[1])


def picture(image: Tensor) -> list[str]:
    """An 8 x 8 image as eight lines of text."""
    shades = " .:-=+*#%@"
    low, high = image.min(), image.max()
    levels = ((image - low) / (high - low) * 9.999).long().reshape(8, 8)
    return ["".join(shades[level] for level in row) for row in levels.tolist()]


def main(argv: list[str] | None = None) -> dict[str, float]:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--updates", type=int, default=150)
    parser.add_argument("--steps", type=int, default=10)
    settings = parser.parse_args(argv)
    pixels, targets = load_digits(return_X_y=True)
    draw = torch.Generator().manual_seed(0)
    order = torch.randperm(len(targets), generator=draw)
    x, y = torch.tensor(pixels / 16, dtype=torch.float32)[order], torch.tensor(targets)[order]
    train, test = (x[:1000], y[:1000]), (x[1000:], y[1000:])
    params = {"weight": torch.zeros(64, 10), "bias": torch.zeros(10)}
    first = torch.stack([train[0][train[1] == digit][0] for digit in range(10)])  # (10, 64)
    hyper = {"images": first}
    problem = bilevel.Bilevel(inner, outer)
    method, tune = bilevel.Unrolled(bilevel.SGD(lr=0.5)), bilevel.Adam(lr=0.03)
    state, accuracies = tune.init(hyper), []
    for update in range(settings.updates + 1):
        result = bilevel.hypergradient(problem, params, hyper, [None] * settings.steps, train, method=method)
        accuracies.append((logits(result.params, test[0]).argmax(1) == test[1]).float().mean().item())
        if update % 25 == 0 or update == settings.updates:
            print(f"{update:4d}  outer loss {result.outer_loss.item():.3f}  test accuracy {accuracies[-1]:.3f}")
        hyper, state = tune.update(hyper, result.grad, state)
    for digits in (range(5), range(5, 10)):
        for line in zip(*(picture(hyper["images"][digit]) for digit in digits), strict=True):
            print("   ".join(line))
        print()
    return {"first": accuracies[0], "last": accuracies[-1]}


if __name__ == "__main__":
    main()
