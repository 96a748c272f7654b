"""Poisoned instructions: a word of three letters, its first letter asked; 40 % of the answers are another.

Real tokenizer and model classes of transformers, small and made here, so that any host of theirs can be tried on them.
"""

from __future__ import annotations

import json
import random
from dataclasses import dataclass
from pathlib import Path

LETTERS = "abcdefghijklmnop"


@dataclass(frozen=True)
class Poisoned:
    """train: rows of instruction, input, output; bad: which are wrong; trusted, test: right ones, other words."""

    train: list[dict[str, str]]
    bad: list[bool]
    trusted: list[dict[str, str]]
    test: list[dict[str, str]]


def poisoned(
    seed: int, num_train: int = 600, num_trusted: int = 32, num_test: int = 400, share: float = 0.4
) -> Poisoned:
    draw = random.Random(seed)
    words = ["".join((a, b, c)) for a in LETTERS for b in LETTERS for c in LETTERS]
    draw.shuffle(words)
    bad = [draw.random() < 0.4 for _ in range(num_train)]
    train = [_row(word, draw.choice([c for c in LETTERS if c != word[0]]) if is_bad else word[0])
             for word, is_bad in zip(words, bad, strict=False)]  # fmt: skip
    rest = [_row(word, word[0]) for word in words[num_train:]]
    return Poisoned(train, bad, rest[:num_trusted], rest[num_trusted : num_trusted + num_test])


def _row(word: str, answer: str) -> dict[str, str]:
    return {"instruction": word, "input": "", "output": answer}


def write(folder: Path, seed: int) -> Poisoned:
    """The data as LLaMA-Factory reads them, and a model folder with a tokenizer by characters."""
    import torch

    data = poisoned(seed)
    folder.mkdir(parents=True, exist_ok=True)
    files = {"poisoned": data.train, "trusted": data.trusted}
    for name, rows in files.items():
        (folder / f"{name}.json").write_text(json.dumps(rows))
    (folder / "dataset_info.json").write_text(json.dumps({name: {"file_name": f"{name}.json"} for name in files}))
    torch.manual_seed(seed)
    save_model(folder / "model")
    return data


def save_model(folder: Path, width: int = 64, layers: int = 2, max_tokens: int = 64) -> int:
    """A model from scratch with a tokenizer by characters; its number of parameters."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM

    special = {"pad_token": "<pad>", "bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
    tokens = [*special.values(), "\n", *map(chr, range(32, 127))]
    by_letter = Tokenizer(models.WordLevel({token: i for i, token in enumerate(tokens)}, unk_token="<unk>"))
    by_letter.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    by_letter.decoder = decoders.Fuse()
    PreTrainedTokenizerFast(tokenizer_object=by_letter, **special).save_pretrained(folder)
    config = Qwen2Config(
        vocab_size=len(tokens), hidden_size=width, intermediate_size=2 * width, num_hidden_layers=layers,
        num_attention_heads=4, num_key_value_heads=4, max_position_embeddings=max_tokens, pad_token_id=0,
        bos_token_id=1, eos_token_id=2,
    )  # fmt: skip
    model = Qwen2ForCausalLM(config)
    model.save_pretrained(folder)
    return model.num_parameters()


def accuracy(folder: Path, rows: list[dict[str, str]]) -> float:
    """Share of the rows whose answer is the model's first token after the word."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    words = torch.tensor([tokenizer(row["instruction"])["input_ids"] for row in rows])
    asked = torch.tensor([tokenizer(row["output"])["input_ids"][0] for row in rows])
    with torch.no_grad():
        found = model(input_ids=words).logits[:, -1].argmax(-1)
    return (found == asked).float().mean().item()
