"""TRL's SFTTrainer that learns which answers to trust: the host's own script, with a class of one line in its place.

    pip install trl                 python examples/sft_trainer.py

The question is a word of three letters, the answer its first; 40 % of the training answers are another letter. The
trusted examples are the host's eval_dataset.
"""

import random

from datasets import Dataset
from sklearn.metrics import roc_auc_score
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM, set_seed
from trl import SFTConfig, SFTTrainer

from dreamprm.integrations.reweighting_trainer import ReweightingMixin
from dreamprm.integrations.token_table import TokenTable

LETTERS = "abcdefghijklmnop"


class ReweightingSFTTrainer(ReweightingMixin, SFTTrainer):
    """SFTTrainer, with a weight per training example."""


def tokenizer() -> PreTrainedTokenizerFast:
    tokens = ["<pad>", "</s>", *LETTERS]
    by_letter = Tokenizer(models.WordLevel({token: number for number, token in enumerate(tokens)}, unk_token="<pad>"))
    by_letter.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    return PreTrainedTokenizerFast(tokenizer_object=by_letter, pad_token="<pad>", eos_token="</s>")


def main(
    num_train: int = 600, num_trusted: int = 24, epochs: float = 30, output_dir: str = "runs/sft_trainer"
) -> float:
    set_seed(0)
    draw = random.Random(0)
    words = ["".join((a, b, c)) for a in LETTERS for b in LETTERS for c in LETTERS]
    draw.shuffle(words)
    bad = [draw.random() < 0.4 for _ in range(num_train)]
    rows = [{"prompt": word, "completion": word[0]} for word in words[: num_train + 32]]
    for row, is_bad in zip(rows, bad, strict=False):
        if is_bad:
            row["completion"] = draw.choice([letter for letter in LETTERS if letter != row["prompt"][0]])
    config = Qwen2Config(
        vocab_size=18, hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=4, max_position_embeddings=8, pad_token_id=0, bos_token_id=None, eos_token_id=1,
    )  # fmt: skip
    trainer = ReweightingSFTTrainer(
        Qwen2ForCausalLM(config),
        SFTConfig(
            output_dir, num_train_epochs=epochs, per_device_train_batch_size=50, learning_rate=3e-4, weight_decay=0.0,
            lr_scheduler_type="constant", report_to="none", save_strategy="no", use_cpu=True, bf16=False,
            gradient_checkpointing=False, logging_steps=60, disable_tqdm=True,
        ),
        train_dataset=Dataset.from_list(rows[:num_train]),
        eval_dataset=Dataset.from_list(rows[num_train:]),
        processing_class=tokenizer(),
        weigher_rate=0.2,
    )  # fmt: skip
    trainer.train()
    assert isinstance(trainer.weigher, TokenTable)  # what it makes where no weigher is given
    auc = float(roc_auc_score([not is_bad for is_bad in bad], trainer.weigher.weights()))
    print(f"AUC of the weights against the poisoned answers: {auc:.3f}")
    return auc


if __name__ == "__main__":
    main()
