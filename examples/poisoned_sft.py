"""Fine-tuning on instructions: the first letter of a word is asked, 40 % of the training answers are another letter.

python examples/poisoned_sft.py --seeds 5
"""

import random
from collections.abc import Mapping

import torch
import torch.nn.functional as F
from rivals import Problem, worked
from torch import Tensor, nn
from transformers import Qwen2Config, Qwen2ForCausalLM

LETTERS = "abcdefghijklmnop"


def answers(model: nn.Module, inputs: Mapping[str, Tensor]) -> Tensor:
    """Log-odds of the token after the question, (B, vocabulary)."""
    return model(input_ids=inputs["input_ids"][:, :-1]).logits[:, -1]


def losses(model: nn.Module, inputs: Mapping[str, Tensor]) -> Tensor:
    """The completion's loss, as supervised fine-tuning has it: the question's tokens have none."""
    return F.cross_entropy(answers(model, inputs), inputs["input_ids"][:, -1], reduction="none")


def correct(model: nn.Module, inputs: Mapping[str, Tensor]) -> Tensor:
    return answers(model, inputs).argmax(-1) == inputs["input_ids"][:, -1]


def network() -> nn.Module:
    config = Qwen2Config(
        vocab_size=len(LETTERS), hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=4, max_position_embeddings=8, pad_token_id=None, bos_token_id=None, eos_token_id=None,
    )  # fmt: skip
    return Qwen2ForCausalLM(config)


def problem(seed: int, num_train: int = 600, num_trusted: int = 32, epochs: float = 20) -> Problem:
    draw = random.Random(seed)
    words = ["".join((a, b, c)) for a in LETTERS for b in LETTERS for c in LETTERS]
    draw.shuffle(words)
    bad = [draw.random() < 0.4 for _ in range(num_train)]
    wrong = [draw.choice([letter for letter in LETTERS if letter != word[0]]) for word in words]
    raw = [
        {"prompt": word, "completion": wrong[i] if i < num_train and bad[i] else word[0]}
        for i, word in enumerate(words)
    ]
    rows = [
        {"input_ids": torch.tensor([LETTERS.index(letter) for letter in row["prompt"] + row["completion"]])}
        for row in raw
    ]
    return Problem(
        train=rows[:num_train],
        trusted=rows[num_train : num_train + num_trusted],
        test=rows[num_train + num_trusted :],
        raw=raw[:num_train],
        bad=bad,
        model=network,
        losses=losses,
        correct=correct,
        arguments={
            "num_train_epochs": epochs, "per_device_train_batch_size": 50, "learning_rate": 3e-4,
            "lr_scheduler_type": "constant", "weight_decay": 0.0,
        },
        weigher_rate=0.2,
        epochs={
            "plain": 10, "small loss": 10, "plain and trusted": 10, "trusted alone": 30, "cleaned, plain": 30,
            "cleaned and trusted": 30,
        },
    )  # fmt: skip


if __name__ == "__main__":
    worked("poisoned_sft", problem)
