"""DataFlex's trainer hands each micro-batch to the weighter; so does the two-line subclass of the real Trainer here."""

import shutil
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import torch
from torch import Tensor, nn
from transformers import GPT2Config, GPT2LMHeadModel, Trainer, TrainingArguments

from dreamprm.errors import UserError
from dreamprm.integrations.dataflex_weighter import BilevelWeighter, register
from dreamprm.integrations.reweighting_trainer import ReweightingTrainer

NUM_TRAIN, BATCH, ACCUMULATE, META, UPDATES = 16, 4, 2, 5, 6


class WeightTrainer(Trainer):
    """As `dataflex.train.trainer.weight_trainer.WeightTrainer` does: warm-up by the host's count, then the weighter."""

    def __init__(self, weighter: BilevelWeighter, warmup: int, *args: Any, **words: Any) -> None:
        super().__init__(*args, **words)
        self.weighter, self.warmup = weighter, warmup

    def training_step(self, model: nn.Module, inputs: Any, num_items_in_batch: Any = None) -> Tensor:
        learns = self.state.global_step >= self.warmup
        return self.weighter.training_step(self, model, inputs, num_items_in_batch, learns)


def rows() -> list[dict[str, Any]]:
    tokens = torch.randint(1, 16, (NUM_TRAIN + 8, 6), generator=torch.Generator().manual_seed(1))
    lengths = [4 + number % 3 for number in range(len(tokens))]
    found = []
    for row, length in zip(tokens.tolist(), lengths, strict=True):
        found.append({"input_ids": row[:length], "attention_mask": [1] * length, "labels": [-100, *row[1:length]]})
    return found


def collate(picked: list[dict[str, Any]]) -> dict[str, Tensor]:
    """Padded on the right, as the host's collator does."""
    fill = {"input_ids": 0, "attention_mask": 0, "labels": -100}
    longest = max(len(row["input_ids"]) for row in picked)
    return {
        name: torch.tensor([row[name] + [value] * (longest - len(row[name])) for row in picked])
        for name, value in fill.items()
    }


def model() -> GPT2LMHeadModel:
    torch.manual_seed(3)
    config = GPT2Config(
        vocab_size=16, n_positions=8, n_embd=16, n_layer=1, n_head=2, use_cache=False, bos_token_id=0, eos_token_id=0,
        attn_pdrop=0.1, resid_pdrop=0.1, embd_pdrop=0.1,
    )  # fmt: skip
    return GPT2LMHeadModel(config).double()


def arguments(folder: Path) -> TrainingArguments:
    return TrainingArguments(
        str(folder), max_steps=UPDATES, per_device_train_batch_size=BATCH, gradient_accumulation_steps=ACCUMULATE,
        learning_rate=1e-2, max_grad_norm=0.5, adam_epsilon=1e-4, report_to="none", save_strategy="steps", save_steps=3,
        logging_steps=1, use_cpu=True, disable_tqdm=True,
    )  # fmt: skip


def run(folder: Path, warmup: int = 0, **words: Any) -> WeightTrainer:
    data = rows()
    table = {"input_ids": [row["input_ids"] for row in data[:NUM_TRAIN]]}
    weighter = BilevelWeighter(table, data[NUM_TRAIN:], meta_batch_size=META)
    host = WeightTrainer(
        weighter, warmup, model(), arguments(folder), train_dataset=data[:NUM_TRAIN], data_collator=collate
    )
    host.train(**words)
    return host


def test_it_is_the_reweighting_trainer(tmp_path: Path) -> None:
    ours = run(tmp_path / "dataflex")
    data = rows()
    twin = ReweightingTrainer(
        model(), arguments(tmp_path / "trainer"), train_dataset=data[:NUM_TRAIN], data_collator=collate,
        eval_dataset=data[NUM_TRAIN:], meta_batch_size=META, weigher_rate=0.1,
    )  # fmt: skip
    twin.train()
    weigher = twin.weigher
    assert torch.equal(ours.weighter.table.raw, weigher.raw)
    assert weigher.raw.abs().max() > 0.05
    for name, value in twin.model.named_parameters():
        assert torch.equal(ours.model.get_parameter(name), value)
    table = pq.read_table(tmp_path / "dataflex" / "weights.parquet").to_pydict()
    assert table["row"] == list(range(NUM_TRAIN))
    assert table["weight"] == pytest.approx((2 * torch.sigmoid(weigher.raw)).tolist(), abs=1e-12)
    assert "meta_loss" in [row for row in ours.state.log_history if "loss" in row][-1]


def test_resume_is_exact(tmp_path: Path) -> None:
    whole = run(tmp_path / "whole")
    (tmp_path / "again").mkdir()
    shutil.copytree(tmp_path / "whole" / "checkpoint-3", tmp_path / "again" / "checkpoint-3")
    again = run(tmp_path / "again", resume_from_checkpoint=str(tmp_path / "again" / "checkpoint-3"))
    assert torch.equal(again.weighter.table.raw, whole.weighter.table.raw)
    for name, value in whole.model.named_parameters():
        assert torch.equal(again.model.get_parameter(name), value)


def test_the_weights_stay_at_one_in_the_warmup(tmp_path: Path) -> None:
    plain = run(tmp_path, warmup=UPDATES)
    assert not plain.weighter.table.raw.any()
    assert run(tmp_path / "then", warmup=UPDATES - 1).weighter.table.raw.any()


def test_the_weighted_loss_is_what_dataflex_asks_for() -> None:
    data = rows()
    weighter = BilevelWeighter({"input_ids": [row["input_ids"] for row in data]}, data)
    with torch.no_grad():
        weighter.table.raw.copy_(torch.linspace(-1, 1, len(data)))
    losses = torch.tensor([1.0, 2.0])
    inputs = collate([data[5], data[0]])
    weights = 2 * torch.sigmoid(weighter.table.raw[[5, 0]])
    torch.testing.assert_close(weighter.get_weighted_loss(losses, inputs=inputs), (weights * losses).mean())


def test_what_cannot_work_is_refused() -> None:
    data = rows()
    table = {"input_ids": [row["input_ids"] for row in data[:4]]}
    with pytest.raises(UserError, match="as eval_dataset"):
        BilevelWeighter(table, None)
    with pytest.raises(UserError, match="one set, not 2: a, b"):
        BilevelWeighter(table, {"a": data, "b": data})
    with pytest.raises(UserError, match="packing"):
        BilevelWeighter(table, data).get_weighted_loss(torch.ones(1), inputs=collate([data[9]]))
    packed = {name: value for name, value in collate([data[0]]).items() if name != "attention_mask"}
    with pytest.raises(UserError, match="padding_free must be off"):
        BilevelWeighter(table, data).get_weighted_loss(torch.ones(1), inputs=packed)
    with pytest.raises(UserError, match="pip install dataflex"):
        register()
