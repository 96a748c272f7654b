"""What learning weights costs in transformers' Trainer: pairs of a plain and a reweighting run, in turns, one process.

    python -m benchmarks.training.host_overhead --pairs 5

The floor is 1 plus the meta batch's share: with a meta batch as large as the training batch, 2.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import GPT2Config, GPT2LMHeadModel, Trainer, TrainingArguments

from dreamprm.integrations.reweighting_trainer import ReweightingTrainer

NUM_ROWS, TOKENS = 512, 64


class Table(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.raw = nn.Parameter(torch.zeros(NUM_ROWS))

    def forward(self, inputs: Mapping[str, Tensor]) -> Tensor:
        return 2 * torch.sigmoid(self.raw[inputs["index"]])


def losses(model: nn.Module, inputs: Mapping[str, Tensor]) -> Tensor:
    logits = model(input_ids=inputs["input_ids"]).logits[:, :-1]
    return F.cross_entropy(logits.transpose(1, 2), inputs["input_ids"][:, 1:], reduction="none").mean(1)


class Plain(Trainer):
    """The same loss, averaged, so that the pair differs in the weights alone."""

    def compute_loss(self, model: nn.Module, inputs: Any, *_: Any, **__: Any) -> Any:
        return losses(model, inputs).mean()


def seconds(kind: type[Trainer], settings: argparse.Namespace, **words: Any) -> float:
    """Seconds of one run of `train`, its beginning included."""
    torch.manual_seed(0)
    tokens = torch.randint(0, 256, (NUM_ROWS, TOKENS))
    rows = [{"input_ids": row, "index": number} for number, row in enumerate(tokens)]
    if kind is ReweightingTrainer:
        words |= {"example_losses": losses, "weigher": Table(), "meta_dataset": rows[-128:]}
    config = GPT2Config(
        vocab_size=256, n_positions=TOKENS, n_embd=settings.width, n_layer=settings.layers, n_head=4, use_cache=False,
        bos_token_id=0, eos_token_id=0,
    )  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        args = TrainingArguments(
            folder, max_steps=settings.updates, per_device_train_batch_size=settings.batch_size, save_strategy="no",
            remove_unused_columns=False, report_to="none", use_cpu=True, disable_tqdm=True,
            logging_strategy="no",
        )  # fmt: skip
        trainer = kind(GPT2LMHeadModel(config), args, train_dataset=rows, **words)
        begin = time.perf_counter()
        trainer.train()
        return time.perf_counter() - begin


def main(argv: list[str] | None = None) -> float:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--updates", type=int, default=20)
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--width", type=int, default=128)
    parser.add_argument("--layers", type=int, default=2)
    settings = parser.parse_args(argv)
    ratios = []
    for number in range(settings.pairs + 1):
        plain, ours = seconds(Plain, settings), seconds(ReweightingTrainer, settings)
        if number:  # the first pair warms up
            ratios.append(ours / plain)
            print(f"plain {plain:.2f} s   reweighting {ours:.2f} s   ratio {ours / plain:.2f}")
    middle = statistics.median(ratios)
    print(f"median ratio of {len(ratios)} pairs: {middle:.2f} (torch {torch.__version__})")
    return middle


if __name__ == "__main__":
    main()
