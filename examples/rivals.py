"""What the worked examples share: a noisy problem, one run of transformers' Trainer, the rivals of the weights.

noisy_text.py, noisy_digits.py and poisoned_sft.py run it; each writes weights.parquet and a cleaned file.
"""

import argparse
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import torch
from scipy.stats import t
from sklearn.metrics import roc_auc_score
from torch import Tensor, nn
from transformers import PrinterCallback, Trainer, TrainingArguments, default_data_collator

from dreamprm.integrations.reweighting_trainer import ReweightingTrainer

Rows = Sequence[Mapping[str, Any]]

CUT = 0.25  # a cleaned file leaves out what ends below a quarter of the weight it began at (chosen on seed 100)


@dataclass(frozen=True)
class Problem:
    """train, trusted, test: rows of tensors that share no example; raw: the training rows as a user would keep them.

    bad: which training rows are wrong; the runs never read it.  losses: (B,).  correct: (B,) of booleans.
    epochs: of the methods that do best with others than `arguments` has, by `--search`.
    """

    train: Rows
    trusted: Rows
    test: Rows
    raw: Rows
    bad: Sequence[bool]
    model: Callable[[], nn.Module]
    losses: Callable[[nn.Module, Mapping[str, Any]], Tensor]
    correct: Callable[[nn.Module, Mapping[str, Any]], Tensor]
    arguments: Mapping[str, Any]
    weigher_rate: float = 0.05
    epochs: Mapping[str, float] = field(default_factory=dict[str, float])


class Table(nn.Module):
    """One weight per training example, 2 σ(raw), which begins at 1."""

    def __init__(self, num_examples: int) -> None:
        super().__init__()
        self.raw = nn.Parameter(torch.zeros(num_examples))

    def forward(self, inputs: Mapping[str, Tensor]) -> Tensor:
        return 2 * torch.sigmoid(self.raw[inputs["index"]])


def fit(problem: Problem, rows: Rows, seed: int, weigher: Table | None = None, method: str = "") -> nn.Module:
    """The model after a run on the rows, weighted where there is a weigher.

    A method has as many updates as epochs over the training rows make, however few its own rows are.
    """
    torch.manual_seed(seed)
    given: dict[str, Any] = {
        "output_dir": "runs/worked", "seed": seed, "remove_unused_columns": False, "report_to": "none",
        "save_strategy": "no", "logging_strategy": "no", "use_cpu": True, "disable_tqdm": True,
    }  # fmt: skip
    settings = dict(problem.arguments)
    epochs = problem.epochs.get(method, settings.pop("num_train_epochs"))
    updates = round(epochs * math.ceil(len(problem.train) / settings["per_device_train_batch_size"]))
    args = TrainingArguments(**(given | settings | {"max_steps": updates}))
    numbered: Any = [{**row, "index": number} for number, row in enumerate(rows)]
    model = problem.model()
    if weigher is None:

        class Plain(Trainer):
            def compute_loss(self, model: nn.Module, inputs: Any, *_: Any, **__: Any) -> Any:
                return problem.losses(model, inputs).mean()

        _quiet(Plain(model, args, train_dataset=numbered)).train()
        return model.eval()
    trainer = ReweightingTrainer(
        model, args, train_dataset=numbered, weigher=weigher, example_losses=problem.losses,
        weigher_optimizer=torch.optim.Adam(weigher.parameters(), lr=problem.weigher_rate),
        meta_dataset=[{**row, "index": 0} for row in problem.trusted], meta_batch_size=len(problem.trusted),
    )  # fmt: skip
    _quiet(trainer).train()
    return model.eval()


def _quiet(trainer: Trainer) -> Trainer:
    trainer.remove_callback(PrinterCallback)
    return trainer


@torch.no_grad()
def each(rows: Rows, ask: Callable[[nn.Module, Mapping[str, Any]], Tensor], model: nn.Module) -> Tensor:
    return ask(model, default_data_collator([dict(row) for row in rows]))


def run(problem: Problem, seed: int, folder: Path) -> dict[str, float]:
    """Accuracy of every method, and the AUC of weights and of small losses against the planted noise."""
    train, trusted = list(problem.train), list(problem.trusted)
    good = [not is_bad for is_bad in problem.bad]

    def accuracy(model: nn.Module) -> float:
        return each(problem.test, problem.correct, model).float().mean().item()

    plain = fit(problem, train, seed, method="plain")
    losses = each(train, problem.losses, plain)
    table = Table(len(train))
    learned = fit(problem, train, seed, table, method="learned weights")
    weights = table({"index": torch.arange(len(train))}).detach()
    chosen = [number for number, weight in enumerate(weights.tolist()) if weight >= CUT]
    write(folder, problem.raw, weights.tolist(), chosen)
    cleaned = [train[i] for i in chosen]
    rows = {
        # It is told how many are right; the weights are not.
        "small loss": [train[i] for i in losses.argsort()[: sum(good)].tolist()],
        "trusted alone": trusted,
        "plain and trusted": train + trusted,
        "cleaned, plain": cleaned,
        "cleaned and trusted": cleaned + trusted,
        "known right": [row for row, right in zip(train, good, strict=True) if right],
    }
    return {
        "plain": accuracy(plain),
        **{method: accuracy(fit(problem, part, seed, method=method)) for method, part in rows.items()},
        "learned weights": accuracy(learned),
        "AUC of small losses": float(roc_auc_score(good, (-losses).numpy())),
        "AUC of the weights": float(roc_auc_score(good, weights.numpy())),
    }


def write(folder: Path, raw: Rows, weights: Sequence[float], chosen: Sequence[int]) -> None:
    """weights.parquet (row, weight) and cleaned.jsonl, the rows of a weight of at least CUT."""
    folder.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table({"row": list(range(len(raw))), "weight": list(weights)}), folder / "weights.parquet")
    lines = [json.dumps(dict(raw[number]), ensure_ascii=False) + "\n" for number in chosen]
    (folder / "cleaned.jsonl").write_text("".join(lines), encoding="utf-8")


def worked(name: str, make: Callable[[int], Problem], argv: list[str] | None = None) -> dict[str, float]:
    """Run the seeds and print their table; with --search, compare epochs."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--search", type=float, nargs="+", metavar="EPOCHS", help="compare epochs on seeds 100 to 102")
    settings = parser.parse_args(argv)
    folder = Path("runs") / name
    if settings.search:
        return search(make, settings.search, folder)
    means = table([run(make(seed), seed, folder) for seed in range(settings.seeds)])
    print(f"weights.parquet and cleaned.jsonl of the last seed are in {folder}")
    return means


def table(found: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Print what the seeds found, means with Student's 95 % intervals; return the means."""
    means = {}
    for row in found[0]:
        values = [one[row] for one in found]
        means[row] = mean(values)
        half = t.ppf(0.975, len(values) - 1) * stdev(values) / len(values) ** 0.5 if len(values) > 1 else float("nan")
        print(f"{row:<22}{means[row]:.3f} ± {half:.3f}")
    return means


def search(make: Callable[[int], Problem], epochs: Sequence[float], folder: Path) -> dict[str, float]:
    """Print what each method reaches with these epochs on three seeds of their own; return the best epochs of each."""
    best: dict[str, tuple[float, float]] = {}
    for number in epochs:
        found = []
        for seed in (100, 101, 102):
            problem = make(seed)
            # A small loss is judged by the plain run's own epochs, which may be others.
            others = {"plain": problem.epochs["plain"]} if "plain" in problem.epochs else {}
            arguments = dict(problem.arguments) | {"num_train_epochs": number}
            found.append(run(replace(problem, arguments=arguments, epochs=others), seed, folder))
        means = {row: mean(one[row] for one in found) for row in found[0]}
        print(f"{number:g} epochs   " + "   ".join(f"{row} {value:.3f}" for row, value in means.items()), flush=True)
        for row, value in means.items():
            best[row] = max(best.get(row, (0.0, 0.0)), (value, number))
    return {row: number for row, (_, number) in best.items()}
