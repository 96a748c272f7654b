"""Find the wrong labels among scikit-learn's digits, half of which are corrupted.

Inner: fit softmax regression to the weighted training data. Outer: do well on a small clean meta set. Each example has
a weight of its own, sigmoid(raw); implicit differentiation says how to move it.

    python examples/hyper_cleaning_digits.py --seeds 5
"""

import argparse
import time
from typing import NamedTuple

import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from sklearn.metrics import roc_auc_score
from torch import Tensor

import bilevel

DECAY = 1e-3
Tensors = dict[str, Tensor]
Batch = tuple[Tensor, Tensor]


class Split(NamedTuple):
    train: Batch
    meta: Batch
    test: Batch
    corrupted: Tensor  # (num_train,)


def load(seed: int, num_train: int, num_meta: int) -> Split:
    """The digits in a random order, half of the training labels moved to another class."""
    pixels, targets = load_digits(return_X_y=True)
    draw = torch.Generator().manual_seed(seed)
    order = torch.randperm(len(targets), generator=draw)
    x, y = torch.tensor(pixels / 16, dtype=torch.float32)[order], torch.tensor(targets)[order]
    corrupted = torch.zeros(num_train, dtype=torch.bool)
    corrupted[torch.randperm(num_train, generator=draw)[: num_train // 2]] = True
    labels = y[:num_train].clone()
    labels[corrupted] = (labels[corrupted] + torch.randint(1, 10, (int(corrupted.sum()),), generator=draw)) % 10
    end = num_train + num_meta
    return Split((x[:num_train], labels), (x[num_train:end], y[num_train:end]), (x[end:], y[end:]), corrupted)


def start() -> Tensors:
    return {"weight": torch.zeros(64, 10), "bias": torch.zeros(10)}


def logits(params: Tensors, x: Tensor) -> Tensor:
    return x @ params["weight"] + params["bias"]  # (B, 10)


def weighted_loss(params: Tensors, weights: Tensor, batch: Batch) -> Tensor:
    losses = F.cross_entropy(logits(params, batch[0]), batch[1], reduction="none")  # (B,)
    return (weights * losses).mean() + DECAY * sum((tensor**2).sum() for tensor in params.values())


def inner(params: Tensors, hyper: Tensors, batch: Batch) -> Tensor:
    return weighted_loss(params, torch.sigmoid(hyper["raw"]), batch)


def outer(params: Tensors, hyper: Tensors, batch: Batch) -> Tensor:
    return F.cross_entropy(logits(params, batch[0]), batch[1])


def learn_weights(split: Split, num_updates: int) -> Tensor:
    """One weight per training example: follow the inner optimum by a few steps, then one implicit hypergradient."""
    problem = bilevel.Bilevel(inner, outer)
    method = bilevel.Implicit(bilevel.CG(max_iterations=8, tolerance=1e-3))
    fit, tune = bilevel.SGD(lr=2.0, momentum=0.9), bilevel.Adam(lr=0.3)
    params, hyper = start(), {"raw": torch.zeros(len(split.corrupted))}
    fit_state, tune_state = fit.init(params), tune.init(hyper)
    for _ in range(num_updates):
        for _ in range(10):
            params, fit_state = fit.update(params, torch.func.grad(inner)(params, hyper, split.train), fit_state)
        result = bilevel.hypergradient(problem, params, hyper, [split.train], split.meta, method=method)
        hyper, tune_state = tune.update(hyper, result.grad, tune_state)
    return torch.sigmoid(hyper["raw"])


def accuracy_of(weights: Tensor, batch: Batch, test: Batch) -> float:
    """Test accuracy of a model trained from scratch under these weights."""
    params, optimizer = start(), bilevel.Adam(lr=0.05)
    state = optimizer.init(params)
    for _ in range(300):
        params, state = optimizer.update(params, torch.func.grad(weighted_loss)(params, weights, batch), state)
    return (logits(params, test[0]).argmax(1) == test[1]).float().mean().item()


def run(seed: int, num_updates: int, num_train: int, num_meta: int) -> dict[str, float]:
    split = load(seed, num_train, num_meta)
    weights = learn_weights(split, num_updates)
    clean = (~split.corrupted).float()
    return {
        "auc": float(roc_auc_score(clean.numpy(), weights.numpy())),
        "learned": accuracy_of(weights, split.train, split.test),
        "clean_half": accuracy_of(clean, split.train, split.test),
        "all": accuracy_of(torch.ones(num_train), split.train, split.test),
        "meta_only": accuracy_of(torch.ones(num_meta), split.meta, split.test),
    }


def main(argv: list[str] | None = None) -> list[dict[str, float]]:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--updates", type=int, default=80)
    parser.add_argument("--train", type=int, default=1000)
    parser.add_argument("--meta", type=int, default=300)
    settings = parser.parse_args(argv)
    began, rows = time.perf_counter(), []
    print("seed    auc  accuracy: learned  clean half     all  meta only")
    for seed in range(settings.seeds):
        row = run(seed, settings.updates, settings.train, settings.meta)
        rows.append(row)
        print(
            f"{seed:4d}  {row['auc']:.3f}  {row['learned']:17.3f}  {row['clean_half']:10.3f}"
            f"  {row['all']:6.3f}  {row['meta_only']:9.3f}"
        )
    means = {name: sum(row[name] for row in rows) / len(rows) for name in rows[0]}
    print(
        f"mean  {means['auc']:.3f}  {means['learned']:17.3f}  {means['clean_half']:10.3f}"
        f"  {means['all']:6.3f}  {means['meta_only']:9.3f}   {time.perf_counter() - began:.0f} s"
    )
    return rows


if __name__ == "__main__":
    main()
