"""Images: handwritten digits, 40 % of the training labels wrong.

python examples/noisy_digits.py --seeds 5
"""

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from rivals import Problem, worked
from sklearn.datasets import load_digits
from torch import Tensor, nn


def losses(model: nn.Module, inputs: Mapping[str, Tensor]) -> Tensor:
    return F.cross_entropy(model(inputs["pixels"]), inputs["labels"], reduction="none")


def correct(model: nn.Module, inputs: Mapping[str, Tensor]) -> Tensor:
    return model(inputs["pixels"]).argmax(-1) == inputs["labels"]


def problem(seed: int, num_train: int = 600, num_trusted: int = 100, epochs: float = 60) -> Problem:
    draw = torch.Generator().manual_seed(seed)
    pixels, truth = (torch.tensor(array) for array in load_digits(return_X_y=True))
    order = torch.randperm(len(truth), generator=draw)
    pixels, truth = pixels[order].float() / 16, truth[order]
    labels, bad = truth.clone(), torch.rand(num_train, generator=draw) < 0.4
    labels[:num_train][bad] += torch.randint(1, 10, (int(bad.sum()),), generator=draw)
    rows = [{"pixels": x, "labels": int(y) % 10} for x, y in zip(pixels, labels, strict=True)]
    return Problem(
        train=rows[:num_train],
        trusted=rows[num_train : num_train + num_trusted],
        test=rows[num_train + num_trusted :],
        raw=[{"pixels": row["pixels"].tolist(), "label": row["labels"]} for row in rows[:num_train]],
        bad=bad.tolist(),
        model=lambda: nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10)),
        losses=losses,
        correct=correct,
        arguments={
            "num_train_epochs": epochs, "per_device_train_batch_size": 50, "optim": "sgd", "learning_rate": 0.1,
            "lr_scheduler_type": "constant",
        },
        weigher_rate=0.1,
        epochs={"trusted alone": 120, "known right": 120},
    )  # fmt: skip


if __name__ == "__main__":
    worked("noisy_digits", problem)
