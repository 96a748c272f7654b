"""The mixin is the plain loop with `Lookahead`, resumes exactly, and refuses what the hypergradient does not cover."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from datasets import Dataset, IterableDataset
from torch import Tensor, nn
from transformers import (
    GPT2Config,
    GPT2ForSequenceClassification,
    GPT2ForTokenClassification,
    GPT2LMHeadModel,
    TrainingArguments,
    get_linear_schedule_with_warmup,
)

from bilevel import Lookahead
from dreamprm.errors import UserError
from dreamprm.integrations.reweighting_trainer import WEIGHER_FILE, ReweightingTrainer, meta_rows

NUM_TRAIN, UPDATES, BATCH, ACCUMULATE, META = 24, 6, 4, 2, 5


class Table(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.raw = nn.Parameter(torch.zeros(NUM_TRAIN))
        self.seen: list[list[int]] = []

    def forward(self, inputs: Any) -> Tensor:
        self.seen.append(inputs["index"].tolist())
        return 2 * torch.sigmoid(self.raw[inputs["index"]]).to(torch.get_default_dtype())


def losses(model: nn.Module, inputs: Any) -> Tensor:
    logits = model(input_ids=inputs["input_ids"]).logits[:, :-1]
    return F.cross_entropy(logits.transpose(1, 2), inputs["input_ids"][:, 1:], reduction="none").mean(1)


def data() -> list[dict[str, Any]]:
    tokens = torch.randint(0, 16, (NUM_TRAIN + 8, 6), generator=torch.Generator().manual_seed(1))
    return [{"input_ids": row, "index": i} for i, row in enumerate(tokens)]


def tiny(dtype: torch.dtype = torch.float64, dropout: float = 0.1) -> GPT2LMHeadModel:
    torch.manual_seed(3)
    # GPT-2 computes in its parameters' dtype throughout; a Llama's norms are float32 whatever the parameters are.
    config = GPT2Config(
        vocab_size=16, n_positions=8, n_embd=16, n_layer=1, n_head=2, use_cache=False, bos_token_id=0, eos_token_id=0,
        attn_pdrop=dropout, resid_pdrop=dropout, embd_pdrop=dropout,
    )  # fmt: skip
    return GPT2LMHeadModel(config).to(dtype)


def trainer(folder: Path, dtype: torch.dtype = torch.float64, **changes: Any) -> ReweightingTrainer:
    words = {
        "max_steps": UPDATES, "per_device_train_batch_size": BATCH, "gradient_accumulation_steps": ACCUMULATE,
        "learning_rate": 1e-2, "max_grad_norm": 0.5, "adam_epsilon": 1e-4, "report_to": "none",
        "remove_unused_columns": False, "save_strategy": "steps",
        "save_steps": 3, "logging_steps": 1, "use_cpu": True, "disable_tqdm": True,
    }  # fmt: skip
    ours = {name: changes.pop(name) for name in ("weigher_every", "example_losses") if name in changes}
    weigher, rows = Table(), data()
    return ReweightingTrainer(
        tiny(dtype, changes.pop("dropout", 0.1)),
        TrainingArguments(str(folder), **(words | changes)),
        train_dataset=rows[:NUM_TRAIN],
        weigher=weigher,
        meta_dataset=rows[NUM_TRAIN:],
        meta_batch_size=META,
        weigher_optimizer=torch.optim.Adam(weigher.parameters(), lr=0.1),
        **({"example_losses": losses} | ours),
    )


@pytest.mark.parametrize("weigher_every", [1, 2])
def test_it_is_the_plain_loop(tmp_path: Path, weigher_every: int) -> None:
    ours = trainer(tmp_path, dropout=0.0, weigher_every=weigher_every)  # with it both would need common draws
    ours.train()
    model, weigher, rows = tiny(dropout=0.0), Table(), data()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2, weight_decay=0.0, eps=1e-4)
    schedule = get_linear_schedule_with_warmup(optimizer, 0, UPDATES)
    outer = torch.optim.Adam(weigher.parameters(), lr=0.1)
    lookahead = Lookahead(model, optimizer, clip_norm=0.5)

    def batch(picks: list[int]) -> dict[str, Tensor]:
        return {"input_ids": torch.stack([rows[i]["input_ids"] for i in picks]), "index": torch.tensor(picks)}

    means, norms = [], []
    for update in range(UPDATES):
        due = (update + 1) % weigher_every == 0
        optimizer.zero_grad()
        mean = 0.0
        for picks in ours.weigher.seen[update * ACCUMULATE : (update + 1) * ACCUMULATE]:  # pyright: ignore[reportIndexIssue]
            with lookahead.inner(record=due):
                each = losses(model, batch(picks))
                lookahead.backward(each, weigher(batch(picks)) / (BATCH * ACCUMULATE))
            mean += each.mean().item() / ACCUMULATE
        means.append(mean)
        norms.append(float(torch.nn.utils.get_total_norm([p.grad for p in model.parameters()])))
        lookahead.step()
        if due:
            outer.zero_grad()
            picks = [NUM_TRAIN + row for row in meta_rows(8, META, update, seed=42)]
            lookahead.backward_outer(losses(model, batch(picks)).mean())
            outer.step()
        schedule.step()

    # float64 through six updates: rounding only, of sums taken in another order.
    assert (ours.weigher.raw - weigher.raw).abs().max() < 1e-12
    assert weigher.raw.abs().max() > 0.05
    for name, value in model.named_parameters():
        torch.testing.assert_close(ours.model.get_parameter(name), value, rtol=0, atol=1e-12)
    logs = [row for row in ours.state.log_history if "loss" in row]
    assert [row["loss"] for row in logs] == pytest.approx(means, abs=1e-6)
    assert [row["grad_norm"] for row in logs] == pytest.approx(norms, rel=1e-6)
    assert max(norms) > 0.5  # so the clip is in the derivative
    assert {"learning_rate", "meta_loss", "weight_mean", "weight_min", "weight_max"} <= set(logs[-1])


def test_resume_is_exact(tmp_path: Path) -> None:
    whole = trainer(tmp_path / "whole")
    whole.train()
    again = trainer(tmp_path / "again")
    again.train(resume_from_checkpoint=str(tmp_path / "whole" / "checkpoint-3"))
    assert again.weigher.seen == whole.weigher.seen[3 * ACCUMULATE :]  # pyright: ignore[reportIndexIssue]
    assert torch.equal(again.weigher.raw, whole.weigher.raw)
    for name, value in whole.model.named_parameters():
        assert torch.equal(again.model.get_parameter(name), value)
    shutil.copytree(tmp_path / "whole" / "checkpoint-3", tmp_path / "bare")
    (tmp_path / "bare" / WEIGHER_FILE).unlink()
    with pytest.raises(UserError, match="cannot be resumed"):
        trainer(tmp_path / "third").train(resume_from_checkpoint=str(tmp_path / "bare"))


def test_bf16_runs_and_moves_the_weights(tmp_path: Path) -> None:
    ours = trainer(tmp_path, torch.float32, bf16=True, max_steps=2, save_strategy="no")
    ours.train()
    assert ours.weigher.raw.isfinite().all()
    assert ours.weigher.raw.abs().max() > 0.05
    ours.train()  # a second train() puts the engine around the optimizer anew
    assert ours.weigher.raw.abs().max() > 0.05


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"label_smoothing_factor": 0.1}, "example_losses"),
        ({"torch_compile": True}, "torch_compile=False"),
        ({"weigher_every": 0}, "1 or more"),
    ],
)
def test_what_is_not_covered_is_refused(tmp_path: Path, changes: dict[str, Any], line: str) -> None:
    with pytest.raises(UserError, match=line):
        trainer(tmp_path, **changes)


def test_an_averaged_loss_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="one number per example"):
        trainer(tmp_path, example_losses=lambda model, inputs: losses(model, inputs).mean()).train()


def test_the_default_loss_is_of_causal_models_alone(tmp_path: Path) -> None:
    """A token classifier's labels stand at their own tokens: shifted, its weights would learn nothing, in silence."""
    args = TrainingArguments(str(tmp_path), max_steps=1, use_cpu=True, report_to="none")
    sets = {"train_dataset": data()[:NUM_TRAIN], "eval_dataset": data()[NUM_TRAIN:]}
    for kind in (GPT2ForTokenClassification, GPT2ForSequenceClassification):
        with pytest.raises(UserError, match=rf"{kind.__name__} is none; give example_losses"):
            ReweightingTrainer(kind(tiny().config), args, **sets)
    args.loss_type = "dft"  # TRL's
    with pytest.raises(UserError, match="loss_type='dft' is not used"):
        ReweightingTrainer(tiny(), args, **sets)


def test_an_optimizer_without_a_rule_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="adafactor"):
        trainer(tmp_path, optim="adafactor").train()


def test_a_stream_needs_a_weigher_of_its_own(tmp_path: Path) -> None:
    args = TrainingArguments(str(tmp_path), max_steps=1, use_cpu=True, report_to="none")
    stream = IterableDataset.from_generator(lambda: iter(data()))
    with pytest.raises(UserError, match="is a stream"):
        ReweightingTrainer(tiny(), args, train_dataset=stream, eval_dataset=data()[:2])


@pytest.mark.parametrize("kept_as", ["lists", "tensors", "arrays", "dataset of lists", "dataset of tensors"])
def test_an_example_is_known_by_its_tokens_however_it_is_kept(tmp_path: Path, kept_as: str) -> None:
    """Padded by the tokenizer or by the collator, the weights that learn are those of the examples themselves."""
    tokens = [[3, 1, 4], [1, 5], [9, 2, 6, 5], [3, 5, 8, 9]]
    rows = [
        {"input_ids": row + [0] * (4 - len(row)), "attention_mask": [1] * len(row) + [0] * (4 - len(row))}
        for row in tokens
    ]
    rows = [row | {"labels": row["input_ids"]} for row in rows]
    make = {"lists": list, "tensors": torch.tensor, "arrays": np.array}.get(kept_as, list)
    given: Any = [{name: make(value) for name, value in row.items()} for row in rows]
    if kept_as.startswith("dataset"):
        given = Dataset.from_list(rows).with_format("torch" if kept_as.endswith("tensors") else None)
    args = TrainingArguments(
        str(tmp_path), max_steps=2, per_device_train_batch_size=2, learning_rate=1e-2, report_to="none", use_cpu=True,
        disable_tqdm=True, save_strategy="no",
    )  # fmt: skip
    host = ReweightingTrainer(tiny(torch.float32), args, train_dataset=given, eval_dataset=given, weigher_rate=0.1)
    assert list(host.weigher.rows) == [tuple(row) for row in tokens]
    host.train()
    assert all(weight != 1 for weight in host.weigher.weights())
