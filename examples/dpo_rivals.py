"""dpo_trainer.py beside its rivals: pairs of answers, 40 % of them exchanged; which is preferred on other pairs?

    pip install trl                 python examples/dpo_rivals.py --seeds 5

Every method has the updates of so many epochs over the training pairs, however few its own pairs are.
"""

import argparse
from collections.abc import Mapping
from typing import Any

import torch
from datasets import Dataset, disable_progress_bars
from dpo_trainer import ReweightingDPOTrainer, agreement, models, pairs
from rivals import table
from sft_trainer import tokenizer
from sklearn.metrics import roc_auc_score
from transformers import PrinterCallback, set_seed
from trl import DPOConfig, DPOTrainer

NUM_TRAIN, NUM_TRUSTED, NUM_TEST, BATCH = 600, 100, 400, 50
EPOCHS: dict[str, float] = {
    "plain": 5, "small loss": 10, "trusted alone": 30, "plain and trusted": 10, "known right": 30,
    "learned weights": 30,
}  # fmt: skip
Pairs = list[dict[str, str]]


def fit(rows: Pairs, trusted: Pairs | None, seed: int, epochs: float) -> tuple[Any, Any]:
    """The trainer after its run, and the model that it began with; weighted where there are trusted pairs."""
    set_seed(seed)
    policy, reference = models()
    args = DPOConfig(
        "runs/dpo_rivals", max_steps=round(epochs * NUM_TRAIN / BATCH), per_device_train_batch_size=BATCH,
        learning_rate=3e-4, weight_decay=0.0, beta=2.0, lr_scheduler_type="constant", report_to="none",
        save_strategy="no", use_cpu=True, bf16=False, gradient_checkpointing=False, logging_strategy="no",
        disable_tqdm=True,
    )  # fmt: skip
    given: dict[str, Any] = {"ref_model": reference, "args": args, "processing_class": tokenizer()}
    data = Dataset.from_list(rows)
    if trusted is None:
        trainer = DPOTrainer(policy, train_dataset=data, **given)
    else:
        meta = Dataset.from_list(trusted)
        trainer = ReweightingDPOTrainer(policy, train_dataset=data, eval_dataset=meta, weigher_rate=0.2, **given)
    trainer.remove_callback(PrinterCallback)
    trainer.train()
    return trainer, reference


@torch.no_grad()
def margins(trainer: Any, reference: Any, rows: Pairs) -> torch.Tensor:
    """How much more likely than at the beginning the chosen letter is than the rejected; DPO's loss falls with it."""
    tokens = trainer.processing_class
    asked = torch.tensor([tokens.encode(row["prompt"]) for row in rows])
    moved = trainer.model.eval()(input_ids=asked).logits[:, -1] - reference.eval()(input_ids=asked).logits[:, -1]
    chosen, rejected = (torch.tensor([tokens.encode(row[name]) for row in rows]) for name in ("chosen", "rejected"))
    return (moved.gather(1, chosen[:, :1]) - moved.gather(1, rejected[:, :1]))[:, 0]


def run(seed: int, epochs: Mapping[str, float]) -> dict[str, float]:
    rows, bad = pairs(NUM_TRAIN, NUM_TRUSTED + NUM_TEST, seed)
    train, trusted, test = rows[:NUM_TRAIN], rows[NUM_TRAIN:][:NUM_TRUSTED], rows[NUM_TRAIN + NUM_TRUSTED :]
    good = [not is_bad for is_bad in bad]
    plain, reference = fit(train, None, seed, epochs["plain"])
    found = margins(plain, reference, train)
    parts = {
        # It is told how many are right; the weights are not.
        "small loss": [train[i] for i in found.argsort(descending=True)[: sum(good)].tolist()],
        "trusted alone": trusted,
        "plain and trusted": train + trusted,
        "known right": [row for row, right in zip(train, good, strict=True) if right],
    }
    learned, _ = fit(train, trusted, seed, epochs["learned weights"])
    return {
        "plain": agreement(plain, test),
        **{name: agreement(fit(part, None, seed, epochs[name])[0], test) for name, part in parts.items()},
        "learned weights": agreement(learned, test),
        "AUC of small losses": float(roc_auc_score(good, found.numpy())),
        "AUC of the weights": float(roc_auc_score(good, learned.weigher.weights())),
    }


def main(argv: list[str] | None = None) -> dict[str, float]:
    parser = argparse.ArgumentParser()
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--search", type=float, nargs="+", metavar="EPOCHS", help="compare epochs on seed 100")
    settings = parser.parse_args(argv)
    disable_progress_bars()
    for number in settings.search or ():
        found = run(100, dict.fromkeys(EPOCHS, float(number)))
        print(f"{number:g} epochs   " + "   ".join(f"{row} {value:.3f}" for row, value in found.items()), flush=True)
    return {} if settings.search else table([run(seed, EPOCHS) for seed in range(settings.seeds)])


if __name__ == "__main__":
    main()
