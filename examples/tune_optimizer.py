"""Tune a learning rate and one weight decay per parameter by their derivatives.

A net is trained on few digits for many steps; forward mode carries the derivative of all parameters with respect to
the five hyperparameters along, at a memory that does not grow with the number of steps.

    python examples/tune_optimizer.py
"""

import argparse

import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from torch import Tensor

import bilevel

Tensors = dict[str, Tensor]
Batch = tuple[Tensor, Tensor]


def logits(params: Tensors, x: Tensor) -> Tensor:
    hidden = torch.tanh(x @ params["weight1"] + params["bias1"])
    return hidden @ params["weight2"] + params["bias2"]  # (B, 10)


def loss(params: Tensors, hyper: Tensors, batch: Batch) -> Tensor:
    return F.cross_entropy(logits(params, batch[0]), batch[1])


def learning_rate(hyper: Tensors) -> Tensor:
    return hyper["log_lr"].exp()


def weight_decay(hyper: Tensors) -> dict[str, float | Tensor]:
    return {name.removeprefix("log_decay."): tensor.exp() for name, tensor in hyper.items() if "decay" in name}


def main(argv: list[str] | None = None) -> list[dict[str, float]]:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--updates", type=int, default=30)
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--hidden", type=int, default=16)
    settings = parser.parse_args(argv)
    pixels, targets = load_digits(return_X_y=True)
    draw = torch.Generator().manual_seed(0)
    order = torch.randperm(len(targets), generator=draw)
    x, y = torch.tensor(pixels / 16, dtype=torch.float32)[order], torch.tensor(targets)[order]
    train, validation, test = (x[:100], y[:100]), (x[100:600], y[100:600]), (x[600:], y[600:])
    params = {
        "weight1": torch.randn(64, settings.hidden, generator=draw) / 8,
        "bias1": torch.zeros(settings.hidden),
        "weight2": torch.randn(settings.hidden, 10, generator=draw) / settings.hidden**0.5,
        "bias2": torch.zeros(10),
    }
    hyper = {"log_lr": torch.tensor(-2.5), **{f"log_decay.{name}": torch.tensor(-6.0) for name in params}}
    problem = bilevel.Bilevel(inner=loss, outer=loss)
    optimizer = bilevel.SGD(lr=learning_rate, momentum=0.9, weight_decay=weight_decay)
    method, tune = bilevel.ForwardMode(optimizer), bilevel.Adam(lr=0.15)
    tune_state, rows = tune.init(hyper), []
    for update in range(settings.updates):
        result = bilevel.hypergradient(problem, params, hyper, [train] * settings.steps, validation, method=method)
        row = {"validation": result.outer_loss.item(), "lr": learning_rate(hyper).item()}
        row["test_accuracy"] = (logits(result.params, test[0]).argmax(1) == test[1]).float().mean().item()
        row |= {f"decay.{name}": float(value) for name, value in weight_decay(hyper).items()}
        rows.append(row)
        if update % 5 == 0 or update == settings.updates - 1:
            print(f"{update:3d}  " + "  ".join(f"{name} {value:.4f}" for name, value in row.items()))
        hyper, tune_state = tune.update(hyper, result.grad, tune_state)
    return rows


if __name__ == "__main__":
    main()
