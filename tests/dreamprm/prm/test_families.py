"""Model families whole, in tiny random configurations: collate, two updates by ghost, save, load, equal scores."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import bilevel
from dreamprm.loss import example_losses, outer_loss
from dreamprm.prm.collate import Batch
from dreamprm.prm.model import PRM
from dreamprm.prm.quantized import keep_layout
from dreamprm.weigher import InstanceNet, from_batch

FAMILIES = ["InternVL", "LlavaOnevision", "AyaVision", "Qwen2VL", "Qwen2_5_VL", "Qwen3VL"]
# peft 0.21 reads a property that transformers 5 renames.
pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")


@pytest.mark.parametrize("family", FAMILIES)
def test_scores_depend_on_no_neighbour(family: str, build_family: Any, mixed_records: list[Any]) -> None:
    prm = PRM(*build_family(family))
    collate = prm.collator()
    with torch.no_grad():
        together = prm.step_scores(collate(mixed_records))
        # 1e-5: float32 sums in another order.
        for row, record in enumerate(mixed_records):
            alone = prm.step_scores(collate([record]))[0]
            torch.testing.assert_close(together[row, : len(record.steps)], alone, atol=1e-5, rtol=0)
        left = prm.step_scores(prm.collator(padding_side="left")(mixed_records))
        torch.testing.assert_close(left, together, atol=1e-5, rtol=0)


@pytest.mark.parametrize("parameters", ["full", "lora", "four_bit_lora"])
@pytest.mark.parametrize("family", FAMILIES)
def test_trained_saved_and_read_by_the_libraries_alone(
    family: str, parameters: str, build_family: Any, mixed_records: list[Any], tmp_path: Path
) -> None:
    """`four_bit_lora`: the base is loaded from its own folder, quantized to nf4; adapters on every linear layer."""
    model, processor = build_family(family)
    model.save_pretrained(tmp_path / "base")
    base = _base(tmp_path / "base", parameters == "four_bit_lora")
    prm = PRM(base if parameters == "full" else _adapted(base), processor).eval()
    assert any("4bit" in type(module).__name__ for module in prm.modules()) == (parameters == "four_bit_lora")
    batch = prm.collator()(list(enumerate(mixed_records)))
    with torch.no_grad():
        before = prm.step_scores(batch)
    _two_updates(prm, batch)
    with torch.no_grad():
        trained = prm.step_scores(batch)
        prm.save_pretrained(tmp_path / "prm")
        torch.testing.assert_close(prm.step_scores(batch), trained, atol=0, rtol=0)
        assert (trained - before).abs().max() > 1e-4

        # Merging adds the adapters' products to the weights before they meet the input: sums in another order.
        close = {"atol": 1e-5 if parameters == "full" else 1e-4, "rtol": 0}
        torch.testing.assert_close(_by_transformers(tmp_path / "prm", prm, batch), trained, **close)
        again = PRM.from_pretrained(tmp_path / "prm")
        assert not getattr(again.transformer, "is_quantized", False)
        torch.testing.assert_close(again.step_scores(again.collator()(mixed_records)), trained, **close)
        if parameters != "full":
            prm.model.save_pretrained(tmp_path / "adapters")
            base = _base(tmp_path / "base", parameters == "four_bit_lora")
            found = _hidden_by_peft(base, tmp_path / "adapters", prm, batch)
            torch.testing.assert_close(found, prm._run_body(prm._arguments(batch.inputs)).last_hidden_state, **close)


def _base(folder: Path, four_bit: bool) -> Any:
    from transformers import AutoModelForImageTextToText, BitsAndBytesConfig

    config = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=torch.float32)
    options = {"quantization_config": config} if four_bit else {}
    base = AutoModelForImageTextToText.from_pretrained(folder, dtype=torch.float32, **options).eval()
    keep_layout(base)  # for the base that peft alone reads; a PRM does it itself
    return base


def _adapted(model: Any) -> Any:
    from peft import LoraConfig, get_peft_model

    torch.manual_seed(1)
    # Gaussian adapters on both sides, so that both factors have a gradient from the first update on.
    return get_peft_model(model, LoraConfig(r=2, target_modules="all-linear", init_lora_weights=False))


def _two_updates(prm: PRM, batch: Batch) -> None:
    optimizer = torch.optim.AdamW([p for p in prm.parameters() if p.requires_grad], lr=1e-3)
    lookahead, net = bilevel.Lookahead(prm, optimizer, clip_norm=1.0), InstanceNet()
    for update in range(2):
        optimizer.zero_grad()
        with lookahead.inner(rows=prm.row_examples(batch)):
            logits = prm(batch)
            losses = example_losses(logits, batch)
            lookahead.backward(losses, net(from_batch(batch, logits, losses)) / len(batch))
        lookahead.step()
        lookahead.backward_outer(outer_loss(prm(batch), batch))
        if update == 0:
            assert lookahead.report["check"] < 0.01
    assert net.net[2].weight.grad.abs().max().item() > 0


def _by_transformers(folder: Path, prm: PRM, batch: Batch) -> Tensor:
    """The softmax over the two labels' logits at the judged tokens, with nothing of ours."""
    from transformers import AutoModelForImageTextToText

    model, loading = AutoModelForImageTextToText.from_pretrained(folder, output_loading_info=True)  # pyright: ignore[reportGeneralTypeIssues]
    assert not any(loading.values()), loading
    logits = model.eval()(**prm._arguments(batch.inputs)).logits
    judged = logits[torch.arange(len(batch))[:, None], batch.step_positions]
    right = judged[..., list(prm.labels)].softmax(-1)[..., 0]
    return torch.where(batch.step_mask, right, 0.5)


def _hidden_by_peft(base: Any, adapters: Path, prm: PRM, batch: Batch) -> Tensor:
    """The hidden states of the base with the adapters' own folder; the label rows stand in the merged folder only."""
    from peft import PeftModel

    loaded: Any = PeftModel.from_pretrained(base, adapters).eval()
    return loaded.get_base_model().base_model(**prm._arguments(batch.inputs)).last_hidden_state
