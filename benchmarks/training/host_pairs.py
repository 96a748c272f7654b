"""A host's own run, and the same run with learned weights: what `host_overhead.py` times, and whose lines it counts.

Each pair is two functions that differ in what the plug-in asks for and in nothing else. A run returns the processor
seconds of an update.
"""

from __future__ import annotations

import argparse
import random
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.optim.optimizer import register_optimizer_step_post_hook

from bilevel import Lookahead

NUM_ROWS, VOCABULARY = 256, 512


@dataclass(frozen=True)
class Sizes:
    """width, layers: of the model.  tokens: of a row.  rows: of a batch, of trained rows and of trusted ones alike."""

    width: int
    layers: int
    tokens: int
    rows: int
    updates: int

    @classmethod
    def of(cls, settings: argparse.Namespace) -> Sizes:
        return cls(settings.width, settings.layers, settings.tokens, settings.batch_size, settings.updates)

    def model(self) -> Any:
        from transformers import Qwen2Config, Qwen2ForCausalLM

        torch.manual_seed(0)
        return Qwen2ForCausalLM(
            Qwen2Config(
                vocab_size=VOCABULARY, hidden_size=self.width, intermediate_size=4 * self.width, use_cache=False,
                num_hidden_layers=self.layers, num_attention_heads=4, num_key_value_heads=4, pad_token_id=0,
                max_position_embeddings=2 * self.tokens, bos_token_id=None, eos_token_id=1,
            )
        )  # fmt: skip

    def words(self, count: int, seed: int) -> list[list[int]]:
        draw = random.Random(seed)
        return [draw.choices(range(2, VOCABULARY), k=count) for _ in range(NUM_ROWS)]

    def data(self) -> tuple[list[dict[str, Tensor]], list[dict[str, Tensor]]]:
        """Rows to train on, and trusted ones."""
        rows = [torch.tensor(row) for row in self.words(self.tokens, 0)]
        made = [{"input_ids": row, "attention_mask": torch.ones_like(row), "labels": row} for row in rows]
        return made[: NUM_ROWS // 2], made[NUM_ROWS // 2 :]

    def arguments(self, kind: Any, **words: Any) -> Any:
        return kind(
            tempfile.mkdtemp(), max_steps=self.updates, per_device_train_batch_size=self.rows, save_strategy="no",
            report_to="none", use_cpu=True, disable_tqdm=True, logging_strategy="no", **words,
        )  # fmt: skip


def _texts(columns: dict[str, list[list[int]]]) -> tuple[Any, Any]:
    from datasets import Dataset

    rows = [
        {name: " ".join(f"w{word}" for word in words[i]) for name, words in columns.items()} for i in range(NUM_ROWS)
    ]
    return Dataset.from_list(rows[: NUM_ROWS // 2]), Dataset.from_list(rows[NUM_ROWS // 2 :])


def _tokenizer() -> Any:
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    words = ["<pad>", "</s>", *(f"w{number}" for number in range(2, VOCABULARY))]
    core = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="<pad>"))
    core.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(tokenizer_object=core, pad_token="<pad>", eos_token="</s>")


def _quiet(trainer: Any) -> Any:
    from transformers import PrinterCallback

    trainer.remove_callback(PrinterCallback)
    return trainer


def _timed(train: Callable[[], Any]) -> float:
    """The median update's processor seconds, from one step of the model's optimizer to the next.

    The first updates are compared with autograd, ever more rarely, which the median leaves out.
    """
    stamps: list[float] = []

    def stepped(optimizer: torch.optim.Optimizer, *_: Any) -> None:
        if sum(len(group["params"]) for group in optimizer.param_groups) > 1:  # the weigher's has one
            stamps.append(time.process_time())

    hook = register_optimizer_step_post_hook(stepped)
    try:
        train()
    finally:
        hook.remove()
    return statistics.median(later - sooner for sooner, later in pairwise(stamps))


def _trainer(sizes: Sizes) -> float:
    from transformers import Trainer, TrainingArguments

    rows, _ = sizes.data()
    trainer = Trainer(
        sizes.model(),
        sizes.arguments(TrainingArguments),
        train_dataset=rows,
    )
    return _timed(_quiet(trainer).train)


def _trainer_weighted(sizes: Sizes) -> float:
    from transformers import TrainingArguments

    from dreamprm.integrations.reweighting_trainer import ReweightingTrainer

    rows, trusted = sizes.data()
    trainer = ReweightingTrainer(
        sizes.model(),
        sizes.arguments(TrainingArguments),
        train_dataset=rows,
        eval_dataset=trusted,
    )
    return _timed(_quiet(trainer).train)


def _sft(sizes: Sizes) -> float:
    from trl import SFTConfig, SFTTrainer

    rows, _ = _texts({"text": sizes.words(sizes.tokens, 0)})
    trainer = SFTTrainer(
        sizes.model(),
        sizes.arguments(SFTConfig, bf16=False, gradient_checkpointing=False, max_length=None),
        train_dataset=rows,
        processing_class=_tokenizer(),
    )
    return _timed(_quiet(trainer).train)


def _sft_weighted(sizes: Sizes) -> float:
    from trl import SFTConfig, SFTTrainer

    from dreamprm.integrations.reweighting_trainer import ReweightingMixin

    class ReweightingSFTTrainer(ReweightingMixin, SFTTrainer):
        pass

    rows, trusted = _texts({"text": sizes.words(sizes.tokens, 0)})
    trainer = ReweightingSFTTrainer(
        sizes.model(),
        sizes.arguments(SFTConfig, bf16=False, gradient_checkpointing=False, max_length=None),
        train_dataset=rows,
        eval_dataset=trusted,
        processing_class=_tokenizer(),
    )
    return _timed(_quiet(trainer).train)


def _pairs(sizes: Sizes) -> tuple[Any, Any]:
    half = sizes.tokens // 2
    return _texts({name: sizes.words(half, seed) for seed, name in enumerate(("prompt", "chosen", "rejected"))})


def _dpo(sizes: Sizes) -> float:
    from trl import DPOConfig, DPOTrainer

    rows, _ = _pairs(sizes)
    trainer = DPOTrainer(
        sizes.model(),
        ref_model=sizes.model(),
        args=sizes.arguments(DPOConfig, bf16=False, gradient_checkpointing=False, max_length=None),
        train_dataset=rows,
        processing_class=_tokenizer(),
    )
    return _timed(_quiet(trainer).train)


def _dpo_weighted(sizes: Sizes) -> float:
    from trl import DPOConfig, DPOTrainer

    from dreamprm.integrations.preference_trainer import ReweightingPreferenceMixin

    class ReweightingDPOTrainer(ReweightingPreferenceMixin, DPOTrainer):
        pass

    rows, trusted = _pairs(sizes)
    trainer = ReweightingDPOTrainer(
        sizes.model(),
        ref_model=sizes.model(),
        args=sizes.arguments(DPOConfig, bf16=False, gradient_checkpointing=False, max_length=None),
        train_dataset=rows,
        eval_dataset=trusted,
        processing_class=_tokenizer(),
    )
    return _timed(_quiet(trainer).train)


def _losses(model: Any, batch: dict[str, Tensor]) -> Tensor:
    logits = model(input_ids=batch["input_ids"]).logits[:, :-1]
    return F.cross_entropy(logits.transpose(1, 2), batch["input_ids"][:, 1:], reduction="none").mean(1)


def _loader(rows: list[dict[str, Tensor]], sizes: Sizes) -> Any:
    numbered = [row | {"index": torch.tensor(number)} for number, row in enumerate(rows)]
    return torch.utils.data.DataLoader((numbered * sizes.updates)[: sizes.rows * sizes.updates], batch_size=sizes.rows)  # pyright: ignore[reportArgumentType]


def _accelerate(sizes: Sizes) -> float:
    from accelerate import Accelerator

    rows, _ = sizes.data()
    accelerator, model = Accelerator(cpu=True), sizes.model()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)
    model, optimizer, batches = accelerator.prepare(model, optimizer, _loader(rows, sizes))

    def train() -> None:
        for batch in batches:
            accelerator.backward(_losses(model, batch).mean())
            accelerator.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad()

    return _timed(train)


def _accelerate_weighted(sizes: Sizes) -> float:
    from accelerate import Accelerator

    rows, trusted = sizes.data()
    accelerator, model = Accelerator(cpu=True), sizes.model()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)
    model, optimizer, batches = accelerator.prepare(model, optimizer, _loader(rows, sizes))
    raw = torch.zeros(len(rows), requires_grad=True)
    outer = torch.optim.Adam([raw], lr=0.05)
    lookahead = Lookahead(accelerator.unwrap_model(model), optimizer, clip_norm=1.0)

    def train() -> None:
        for batch, meta in zip(batches, _loader(trusted, sizes), strict=True):
            with lookahead.inner():
                lookahead.backward(_losses(model, batch), 2 * torch.sigmoid(raw[batch["index"]]) / sizes.rows)
            lookahead.step()
            lookahead.backward_outer(_losses(model, meta).mean())
            outer.step()
            outer.zero_grad()
            optimizer.zero_grad()

    return _timed(train)


def _lightning_fit(module: Any, batches: Any) -> float:
    import lightning

    trainer = lightning.Trainer(
        max_epochs=1, accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, gradient_clip_val=1.0 if module.automatic_optimization else None,
    )  # fmt: skip
    return _timed(lambda: trainer.fit(module, batches))


def _lightning(sizes: Sizes) -> float:
    import lightning

    class Module(lightning.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.network = sizes.model()

        def configure_optimizers(self) -> Any:
            return torch.optim.AdamW(self.network.parameters(), lr=1e-4)

        def training_step(self, batch: Any, batch_idx: int) -> Any:
            return _losses(self.network, batch).mean()

    rows, _ = sizes.data()
    return _lightning_fit(Module(), _loader(rows, sizes))


def _lightning_weighted(sizes: Sizes) -> float:
    import lightning

    class Module(lightning.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.network = sizes.model()
            self.automatic_optimization, self.raw = False, torch.nn.Parameter(torch.zeros(len(rows)))
            self.trusted = iter(_loader(trusted, sizes))

        def configure_optimizers(self) -> Any:
            inner = torch.optim.AdamW(self.network.parameters(), lr=1e-4)
            self.lookahead = Lookahead(self.network, inner, clip_norm=1.0)
            return [inner, torch.optim.Adam([self.raw], lr=0.05)]

        def training_step(self, batch: Any, batch_idx: int) -> Any:
            with self.lookahead.inner():
                weights = 2 * torch.sigmoid(self.raw[batch["index"]]) / sizes.rows
                self.lookahead.backward(_losses(self.network, batch), weights)
            self.lookahead.step()
            self.lookahead.backward_outer(_losses(self.network, next(self.trusted)).mean())
            self.optimizers()[1].step()  # pyright: ignore[reportIndexIssue]
            self.zero_grad()

    rows, trusted = sizes.data()
    return _lightning_fit(Module(), _loader(rows, sizes))


PAIRS: dict[str, tuple[Callable[[Sizes], float], Callable[[Sizes], float]]] = {
    "transformers Trainer": (_trainer, _trainer_weighted),
    "TRL SFTTrainer": (_sft, _sft_weighted),
    "TRL DPOTrainer": (_dpo, _dpo_weighted),
    "accelerate": (_accelerate, _accelerate_weighted),
    "Lightning": (_lightning, _lightning_weighted),
}
