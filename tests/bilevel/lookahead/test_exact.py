"""Lookahead equals autograd through torch's own differentiable optimizers, in float64."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn
from torch.optim import SGD, Adagrad, Adam, AdamW, RMSprop

# What the sums of a few hundred terms of size one may lose in float64, with a margin of a thousand.
RELATIVE = 1e-10


def groups(model: nn.Module) -> list[dict[str, Any]]:
    """Two groups of different settings."""
    parameters = list(model.parameters())
    return [{"params": parameters[::2], "lr": 0.03}, {"params": parameters[1::2], "lr": 0.01, "weight_decay": 0.2}]


OPTIMIZERS = {
    "sgd": (lambda m: SGD(m.parameters(), lr=0.1), 0),
    "sgd-decay": (lambda m: SGD(m.parameters(), lr=0.1, weight_decay=0.1), 2),
    "sgd-maximize": (lambda m: SGD(m.parameters(), lr=0.1, weight_decay=0.1, maximize=True), 1),
    "momentum-first": (lambda m: SGD(m.parameters(), lr=0.1, momentum=0.9, dampening=0.3), 0),
    "momentum": (lambda m: SGD(m.parameters(), lr=0.1, momentum=0.9, dampening=0.3), 2),
    "nesterov-first": (lambda m: SGD(m.parameters(), lr=0.1, momentum=0.9, nesterov=True), 0),
    "nesterov": (lambda m: SGD(m.parameters(), lr=0.1, momentum=0.9, nesterov=True), 3),
    # Past the first step, where Adam's D is nearly 0 and the hypergradient is rounding noise (test_first_step).
    "adam": (lambda m: Adam(m.parameters(), lr=0.02), 2),
    "adam-l2": (lambda m: Adam(m.parameters(), lr=0.02, weight_decay=0.1), 2),
    "adam-amsgrad": (lambda m: Adam(m.parameters(), lr=0.02, amsgrad=True), 4),
    "adam-maximize": (lambda m: Adam(m.parameters(), lr=0.02, maximize=True, weight_decay=0.1), 2),
    "adam-10": (lambda m: Adam(m.parameters(), lr=0.02), 9),
    "adamw": (lambda m: AdamW(m.parameters(), lr=0.02, weight_decay=0.3), 2),
    "adamw-groups": (lambda m: AdamW(groups(m), lr=0.02, betas=(0.8, 0.95)), 3),
    "adamw-single-tensor": (lambda m: AdamW(m.parameters(), lr=0.02, foreach=False), 2),
    "rmsprop": (lambda m: RMSprop(m.parameters(), lr=0.01), 2),
    "rmsprop-all": (
        lambda m: RMSprop(m.parameters(), lr=0.01, centered=True, momentum=0.5, weight_decay=0.1),
        2,
    ),
    "rmsprop-decay": (lambda m: RMSprop(m.parameters(), lr=0.01, weight_decay=0.1), 2),
    "adagrad": (lambda m: Adagrad(m.parameters(), lr=0.05, lr_decay=0.1, weight_decay=0.1), 3),
}


def relative(actual: torch.Tensor, expected: torch.Tensor) -> float:
    return float((actual - expected).norm() / expected.norm())


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_every_optimizer(problem: Any, name: str) -> None:
    make, warmup = OPTIMIZERS[name]
    case = problem(make, warmup=warmup)
    truth = case.truth()
    case.run("ghost")
    assert relative(case.raw.grad, truth) < RELATIVE


@pytest.mark.parametrize("product", ["ghost", "jvp", "unroll"])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"clip_norm": 0.05},
        {"clip_norm": 1e6},
        {"clip_value": 0.02},
        {"accumulate": 4},
        {"accumulate": 2, "clip_norm": 0.05, "warmup": 5},
        {"dropout": 0.1},
    ],
    ids=str,
)
def test_every_product(problem: Any, product: str, options: dict[str, Any]) -> None:
    case = problem(lambda m: AdamW(m.parameters(), lr=0.02, weight_decay=0.1), **{"warmup": 2, **options})
    truth = case.truth()
    report = case.run(product).report
    assert relative(case.raw.grad, truth) < RELATIVE
    assert report["check"] < 1e-9
    assert report["sum_rule"] < 1e-12  # a margin of ten thousand over what was measured


def test_finite_difference_is_close_only(problem: Any) -> None:
    case = problem(lambda m: AdamW(m.parameters(), lr=0.02), warmup=2)
    truth = case.truth()
    case.run("fd", epsilon=1e-4)
    # Error of a central difference: third derivatives times epsilon squared.
    assert 1e-13 < relative(case.raw.grad, truth) < 1e-6


def test_published_way_points_elsewhere(problem: Any) -> None:
    case = problem(lambda m: AdamW(m.parameters(), lr=0.02), warmup=2, clip_norm=0.05)
    truth = case.truth()
    lookahead = case.run("darts", check="log")
    assert float(torch.cosine_similarity(case.raw.grad.flatten(), truth.flatten(), 0)) < 0.99
    assert lookahead.report["check"] > 1e-3  # far more than rounding


def test_frozen_moments_drop_the_second_term(problem: Any) -> None:
    late = problem(lambda m: Adam(m.parameters(), lr=1e-3), warmup=30)
    truth = late.truth()
    late.run("ghost", adam="frozen")
    similarity = float(torch.cosine_similarity(late.raw.grad.flatten(), truth.flatten(), 0))
    assert 0.95 < similarity < 1 - 1e-9
