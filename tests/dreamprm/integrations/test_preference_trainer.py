"""Pairs' losses are the host's own, their hypergradient is autograd's, and what is no loss of a pair is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset
from torch import Tensor
from transformers import GPT2Config, GPT2LMHeadModel

from bilevel import Lookahead
from dreamprm.errors import UserError
from dreamprm.integrations.preference_trainer import LOSSES, PairTable, ReweightingPreferenceMixin

trl = pytest.importorskip("trl", reason="needs the extra rl")
# TRL announces removals of what it imports itself; nothing here calls it.
pytestmark = pytest.mark.filterwarnings("default")


class ReweightingDPOTrainer(ReweightingPreferenceMixin, trl.DPOTrainer):
    """DPOTrainer, with a weight per pair."""


def tiny() -> GPT2LMHeadModel:
    # GPT-2 computes in its parameters' dtype throughout.
    config = GPT2Config(
        vocab_size=18, n_positions=8, n_embd=16, n_layer=1, n_head=2, use_cache=False, bos_token_id=0, eos_token_id=1,
        attn_pdrop=0.0, resid_pdrop=0.0, embd_pdrop=0.0, attn_implementation="eager",  # twice differentiable
    )  # fmt: skip
    return GPT2LMHeadModel(config).double()


def trainer(folder: Path, example: Any, **changes: Any) -> Any:
    torch.manual_seed(3)
    draw = torch.Generator().manual_seed(1)
    letters = [[example.LETTERS[i] for i in torch.randint(16, (7,), generator=draw)] for _ in range(12)]
    rows = [{"prompt": "".join(row[:3]), "chosen": row[3], "rejected": "".join(row[4:6])} for row in letters]
    words: dict[str, Any] = {
        "per_device_train_batch_size": 4, "max_steps": 2, "learning_rate": 1e-2, "beta": 0.5, "report_to": "none",
        "save_strategy": "no", "use_cpu": True, "bf16": False, "gradient_checkpointing": False, "disable_tqdm": True,
    }  # fmt: skip
    return ReweightingDPOTrainer(
        tiny(), ref_model=tiny(), args=trl.DPOConfig(str(folder), **(words | changes)),
        train_dataset=Dataset.from_list(rows[:8]), eval_dataset=Dataset.from_list(rows[8:]),
        processing_class=example.tokenizer(), weigher_rate=0.1,
    )  # fmt: skip


@pytest.fixture(scope="module")
def example() -> Any:
    import importlib.util
    import sys

    path = Path(__file__).parents[3] / "examples" / "sft_trainer.py"
    spec = importlib.util.spec_from_file_location("example_letters", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("loss", LOSSES)
def test_their_mean_is_the_hosts_loss(loss: str, tmp_path: Path, example: Any) -> None:
    host = trainer(tmp_path, example, loss_type=[loss], loss_weights=[0.7], label_smoothing=0.2)
    batch = host._prepare_inputs(next(iter(host.get_train_dataloader())))
    ours = host.pair_losses(host.model, batch)
    assert ours.shape == (4,)
    # The host's own head computes in float32, whatever the model's precision.
    torch.testing.assert_close(ours.mean().float(), host._compute_loss(host.model, batch, False), rtol=1e-5, atol=1e-6)


def test_the_hypergradient_is_plain_autograds(tmp_path: Path, example: Any) -> None:
    host = trainer(tmp_path, example)
    batch = host._prepare_inputs(next(iter(host.get_train_dataloader())))
    meta = host._prepare_inputs(host.data_collator([host.eval_dataset[i] for i in range(4)]))
    table = host.weigher.double()
    assert isinstance(table, PairTable)
    model, lr = host.model, 0.1
    optimizer = torch.optim.SGD(model.parameters(), lr=lr)
    names, values = zip(*model.named_parameters(), strict=True)

    class At(torch.nn.Module):
        """The model with other parameters, called as the losses call it."""

        def __init__(self, parameters: tuple[Tensor, ...]) -> None:
            super().__init__()
            self.parameters_by_name = dict(zip(names, parameters, strict=True))

        def forward(self, **inputs: Any) -> Any:
            return torch.func.functional_call(model, self.parameters_by_name, (), inputs)

    weighted = (table(batch) * host.pair_losses(model, batch)).mean()
    gradients = torch.autograd.grad(weighted, values, create_graph=True)
    moved = tuple(value - lr * gradient for value, gradient in zip(values, gradients, strict=True))
    (truth,) = torch.autograd.grad(host.pair_losses(At(moved), meta).mean(), [table.raw])

    lookahead = Lookahead(model, optimizer, product="ghost")
    optimizer.zero_grad()
    with lookahead.inner(host.rows_of(batch)):
        lookahead.backward(host.pair_losses(model, batch), table(batch) / 4)
    lookahead.step()
    table.raw.grad = None
    lookahead.backward_outer(host.pair_losses(model, meta).mean())
    assert table.raw.grad is not None
    assert truth.abs().max() > 0
    # Float64 through two different graphs.
    torch.testing.assert_close(table.raw.grad, truth, rtol=1e-9, atol=1e-12)


def test_a_reference_that_is_computed_first_gives_the_same_run(tmp_path: Path, example: Any) -> None:
    ends = []
    for first in (False, True):
        host = trainer(tmp_path / str(first), example, precompute_ref_log_probs=first)
        host.train()
        ends.append(host.weigher.raw.detach().clone())
    assert ends[0].abs().max() > 0
    # TRL keeps the computed reference in float32.
    torch.testing.assert_close(*ends, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"loss_type": ["aot"]}, r"loss_type=\['aot'\] is not supported; sigmoid, hinge, ipo, robust are"),
        ({"loss_type": ["sigmoid", "sft"]}, "is not supported"),
        ({"use_weighting": True}, "weights the pairs already"),
        ({"f_divergence_type": "js_divergence"}, "must be reverse_kl"),
    ],
)
def test_what_is_no_loss_of_a_pair_is_refused(changes: dict[str, Any], line: str, tmp_path: Path, example: Any) -> None:
    with pytest.raises(UserError, match=line):
        trainer(tmp_path, example, **changes)
