"""TRL's DPOTrainer that learns which preferences to trust: the host's script, with a class of one line in its place.

    pip install trl                 python examples/dpo_trainer.py

The question is a word of three letters and its first letter is the better answer; in 40 % of the training pairs the
answers are exchanged. The trusted pairs are the host's eval_dataset.
"""

import random
from typing import Any

import torch
from datasets import Dataset
from sft_trainer import LETTERS, tokenizer
from sklearn.metrics import roc_auc_score
from transformers import Qwen2Config, Qwen2ForCausalLM, set_seed
from trl import DPOConfig, DPOTrainer

from dreamprm.integrations.preference_trainer import ReweightingPreferenceMixin
from dreamprm.integrations.token_table import TokenTable


class ReweightingDPOTrainer(ReweightingPreferenceMixin, DPOTrainer):
    """DPOTrainer, with a weight per pair."""


def pairs(num_train: int, num_other: int, seed: int) -> tuple[list[dict[str, str]], list[bool]]:
    """Pairs, the first `num_train` of them exchanged with a chance of .4, and which of these are."""
    draw = random.Random(seed)
    words = ["".join((a, b, c)) for a in LETTERS for b in LETTERS for c in LETTERS]
    draw.shuffle(words)
    rows = []
    for word in words[: num_train + num_other]:
        other = draw.choice([letter for letter in LETTERS if letter != word[0]])
        rows.append({"prompt": word, "chosen": word[0], "rejected": other})
    bad = [draw.random() < 0.4 for _ in range(num_train)]
    for row, is_bad in zip(rows, bad, strict=False):
        if is_bad:
            row["chosen"], row["rejected"] = row["rejected"], row["chosen"]
    return rows, bad


def models() -> tuple[Qwen2ForCausalLM, Qwen2ForCausalLM]:
    """The policy, and the reference that it begins as."""
    config = Qwen2Config(
        vocab_size=18, hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=4, max_position_embeddings=8, pad_token_id=0, bos_token_id=None, eos_token_id=1,
    )  # fmt: skip
    policy, reference = Qwen2ForCausalLM(config), Qwen2ForCausalLM(config)
    reference.load_state_dict(policy.state_dict())
    return policy, reference


def agreement(trainer: Any, rows: list[dict[str, str]]) -> float:
    """How often the policy finds the first letter more likely than the rejected one."""
    tokens = trainer.processing_class
    asked = torch.tensor([tokens.encode(row["prompt"]) for row in rows])
    with torch.no_grad():
        log_odds = trainer.model.eval()(input_ids=asked).logits[:, -1]
    better, worse = (torch.tensor([tokens.encode(row[name])[0] for row in rows]) for name in ("chosen", "rejected"))
    places = torch.arange(len(rows))
    return float((log_odds[places, better] > log_odds[places, worse]).float().mean())


def main(
    num_train: int = 600,
    num_trusted: int = 100,
    epochs: float = 30,
    output_dir: str = "runs/dpo_trainer",
    seed: int = 0,
) -> tuple[float, float]:
    set_seed(seed)
    rows, bad = pairs(num_train, num_trusted + 400, seed)
    policy, reference = models()
    trainer = ReweightingDPOTrainer(
        policy,
        ref_model=reference,
        args=DPOConfig(
            output_dir, num_train_epochs=epochs, per_device_train_batch_size=50, learning_rate=3e-4, weight_decay=0.0,
            beta=2.0, lr_scheduler_type="constant", report_to="none", save_strategy="no", use_cpu=True, bf16=False,
            gradient_checkpointing=False, logging_steps=60, disable_tqdm=True,
        ),
        train_dataset=Dataset.from_list(rows[:num_train]),
        eval_dataset=Dataset.from_list(rows[num_train : num_train + num_trusted]),
        processing_class=tokenizer(),
        weigher_rate=0.2,
    )  # fmt: skip
    trainer.train()
    assert isinstance(trainer.weigher, TokenTable)  # what it makes where no weigher is given
    auc = float(roc_auc_score([not is_bad for is_bad in bad], trainer.weigher.weights()))
    right = agreement(trainer, rows[num_train + num_trusted :])
    print(f"AUC of the weights against the exchanged pairs: {auc:.3f}; right on {right:.3f} of the other pairs")
    return auc, right


if __name__ == "__main__":
    main()
