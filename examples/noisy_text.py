"""Text: which library a passage of documentation is of, 40 % of the training labels wrong.

The passages are from the docstrings of four installed libraries, so nothing is downloaded.

python examples/noisy_text.py --seeds 5
"""

import inspect
import re
import zlib
from collections.abc import Mapping
from functools import cache
from importlib import import_module

import torch
import torch.nn.functional as F
from rivals import Problem, worked
from torch import Tensor, nn

LIBRARIES = {
    "numpy": ("numpy", "numpy.linalg", "numpy.fft", "numpy.random"),
    "scipy": ("scipy.stats", "scipy.signal", "scipy.optimize"),
    "sklearn": ("sklearn.linear_model", "sklearn.ensemble", "sklearn.preprocessing", "sklearn.metrics"),
    "torch": ("torch", "torch.nn", "torch.optim", "torch.linalg"),
}
FEWEST, WORDS, BUCKETS = 40, 64, 8192


@cache
def passages() -> list[tuple[str, int]]:
    """(passage, number of its library), each once, without the names that would give it away."""
    found: dict[str, int] = {}
    for number, modules in enumerate(LIBRARIES.values()):
        for module in map(import_module, modules):
            for name in sorted(dir(module)):
                part: list[str] = []
                text = inspect.getdoc(getattr(module, name)) if not name.startswith("_") else None
                for line in (text or "").split("Examples")[0].splitlines():
                    part += [word for word in words(line) if word not in LIBRARIES]
                    if len(part) >= FEWEST:
                        found.setdefault(" ".join(part), number)
                        part = []
    return sorted(found.items())


def words(line: str) -> list[str]:
    return re.findall(r"[a-z]{3,}", line.lower())


def tokens(passage: str) -> Tensor:
    buckets = [1 + zlib.crc32(word.encode()) % (BUCKETS - 1) for word in passage.split()]
    return torch.tensor((buckets + [0] * WORDS)[:WORDS])


def losses(model: nn.Module, inputs: Mapping[str, Tensor]) -> Tensor:
    return F.cross_entropy(model(inputs["tokens"]), inputs["labels"], reduction="none")


def correct(model: nn.Module, inputs: Mapping[str, Tensor]) -> Tensor:
    return model(inputs["tokens"]).argmax(-1) == inputs["labels"]


def problem(seed: int, num_train: int = 1200, num_trusted: int = 200, epochs: float = 20) -> Problem:
    draw = torch.Generator().manual_seed(seed)
    by_library = [[text for text, owner in passages() if owner == number] for number in range(len(LIBRARIES))]
    most = min(map(len, by_library))
    picked = [
        (owned[i], number)
        for number, owned in enumerate(by_library)
        for i in torch.randperm(len(owned), generator=draw)[:most].tolist()
    ]
    picked = [picked[i] for i in torch.randperm(len(picked), generator=draw).tolist()]
    bad = torch.rand(num_train, generator=draw) < 0.4
    moved = torch.randint(1, 4, (num_train,), generator=draw) * bad
    labels = [(owner + (int(moved[i]) if i < num_train else 0)) % 4 for i, (_, owner) in enumerate(picked)]
    rows = [{"tokens": tokens(text), "labels": label} for (text, _), label in zip(picked, labels, strict=True)]
    return Problem(
        train=rows[:num_train],
        trusted=rows[num_train : num_train + num_trusted],
        test=rows[num_train + num_trusted : num_train + num_trusted + 2000],
        raw=[{"text": text, "label": label} for (text, _), label in zip(picked, labels, strict=True)][:num_train],
        bad=bad.tolist(),
        model=lambda: nn.Sequential(nn.EmbeddingBag(BUCKETS, 32, padding_idx=0), nn.Linear(32, 4)),
        losses=losses,
        correct=correct,
        arguments={
            "num_train_epochs": epochs, "per_device_train_batch_size": 50, "learning_rate": 3e-3,
            "lr_scheduler_type": "constant", "weight_decay": 0.0,
        },
        weigher_rate=0.1,
        epochs={
            "plain": 10, "plain and trusted": 15, "trusted alone": 45, "cleaned, plain": 30,
            "cleaned and trusted": 30, "known right": 45,
        },
    )  # fmt: skip


if __name__ == "__main__":
    worked("noisy_text", problem)
