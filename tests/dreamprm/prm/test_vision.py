"""A cached vision tower: the same scores, gradients and hypergradients as the frozen one, from a tower that rests."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import bilevel
from dreamprm.config import TrainConfig
from dreamprm.config.build import build_prm
from dreamprm.config.schema import Precision
from dreamprm.loss import example_losses, outer_loss
from dreamprm.prm.model import PRM
from dreamprm.weigher import InstanceTable, from_batch

FAMILIES = ["InternVL", "LlavaOnevision", "AyaVision", "Qwen2VL", "Qwen2_5_VL", "Qwen3VL"]
CLOSE = {"rtol": 1e-5, "atol": 1e-6}
"""fp32: the tower saw some of these images in a batch of another size, whose products are summed in another order."""
# peft 0.21 reads a property that transformers 5 renames.
PEFT = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")


def _count_runs(prm: PRM) -> list[int]:
    """One entry for each image or tile stack that the tower works on."""
    runs: list[int] = []
    tower = getattr(prm.body, "visual", None) or prm.body.vision_tower
    next(tower.children()).register_forward_hook(lambda module, given, output: runs.append(1))
    return runs


def _update(prm: PRM, batch: Any) -> tuple[Tensor, dict[str, Tensor], Tensor]:
    """Scores, gradients and hypergradient of one update."""
    table = InstanceTable(len(batch), sparse=False)
    optimizer = torch.optim.SGD([p for p in prm.parameters() if p.requires_grad], lr=0.05)
    lookahead = bilevel.Lookahead(prm, optimizer)
    with lookahead.inner(rows=prm.row_examples(batch)):
        logits = prm(batch)
        losses = example_losses(logits, batch)
        lookahead.backward(losses, table(from_batch(batch, logits, losses)) / len(batch))
    gradients = {name: p.grad.clone() for name, p in prm.named_parameters() if p.grad is not None}
    lookahead.step()
    lookahead.backward_outer(outer_loss(prm(batch), batch))
    assert lookahead.report["check"] < 0.01
    return logits.detach(), gradients, table.table.grad  # pyright: ignore[reportReturnType]


@pytest.mark.parametrize("family", FAMILIES)
def test_all_is_as_with_the_frozen_tower(family: str, build_family: Any, mixed_records: list[Any]) -> None:
    frozen, cached = (PRM(*build_family(family)) for _ in range(2))
    collate = frozen.collator()
    batch = collate(list(enumerate(mixed_records)))
    frozen.freeze_vision()
    cached.freeze_vision(cache=True)
    runs = _count_runs(cached)
    cached(collate(mixed_records[2:]))  # some images are there already, from a smaller batch
    assert len(runs) == 1
    expected, found = _update(frozen, batch), _update(cached, batch)
    torch.testing.assert_close(found[0], expected[0], **CLOSE)
    assert found[1].keys() == expected[1].keys()
    for name, gradient in expected[1].items():
        torch.testing.assert_close(found[1][name], gradient, **CLOSE)
    torch.testing.assert_close(found[2], expected[2], **CLOSE)
    assert expected[2].abs().max() > 1e-4
    if not family.startswith("Qwen"):
        assert any("projector" in name and gradient.abs().max() > 0 for name, gradient in found[1].items())
    assert not any(part in name for name in found[1] for part in ("vision_tower", "visual"))
    assert len(runs) == 1, "the first image has come with the third example"
    cached(collate(mixed_records[:1]))
    cached(collate(mixed_records[::-1]))
    assert len(runs) == 1


@pytest.mark.parametrize("family", FAMILIES)
def test_features_are_those_of_these_parameters(
    family: str, build_family: Any, mixed_records: list[Any], tmp_path: Path
) -> None:
    def build(changed: bool = False) -> tuple[PRM, list[int]]:
        prm = PRM(*build_family(family))
        if changed:
            _change_tower(prm)
        prm.freeze_vision(cache=True, folder=tmp_path)
        return prm, _count_runs(prm)

    first, _ = build()
    batch = first.collator()(mixed_records)
    with torch.no_grad():
        scores = first(batch)
        first.flush_features()
        again, runs = build()
        torch.testing.assert_close(again(batch), scores, rtol=0, atol=0)
        assert not runs, "all came from the folder"
        other, runs = build(changed=True)
        changed = other(batch)
        assert runs
        assert (changed - scores).abs().max() > 1e-4
        _change_tower(first)  # behind its back
        torch.testing.assert_close(first(batch), changed, rtol=0, atol=0)


@torch.no_grad()
def _change_tower(prm: PRM) -> None:
    tower = getattr(prm.body, "visual", None) or prm.body.vision_tower
    weight = next(p for p in tower.parameters() if p.ndim > 3)  # of the patch embedding
    weight.copy_(weight.roll(1, -1))


@pytest.mark.parametrize("layer", [-2, [-2, -1]])
def test_the_layers_that_the_model_reads_are_kept(layer: Any, build_family: Any, mixed_records: list[Any]) -> None:
    model, processor = build_family("LlavaOnevision")
    model.config.vision_feature_layer = layer
    if isinstance(layer, list):
        linear = model.model.multi_modal_projector.linear_1
        model.model.multi_modal_projector.linear_1 = torch.nn.Linear(2 * linear.in_features, linear.out_features)
    prm = PRM(model, processor)
    batch = prm.collator()(mixed_records)
    expected = prm(batch)
    prm.freeze_vision(cache=True)
    for _ in range(2):
        torch.testing.assert_close(prm(batch), expected, **CLOSE)


def test_autocast_has_features_of_its_own(build_family: Any, mixed_records: list[Any]) -> None:
    frozen, cached = (PRM(*build_family("InternVL")) for _ in range(2))
    cached.freeze_vision(cache=True)
    batch = frozen.collator()(mixed_records)
    for enabled in (False, True, False):
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            torch.testing.assert_close(cached(batch), frozen(batch), rtol=0, atol=0)


def test_little_memory_changes_no_score(build_family: Any, mixed_records: list[Any]) -> None:
    prm = PRM(*build_family("Qwen3VL"))
    batch = prm.collator()(mixed_records)
    expected = prm(batch)
    prm.freeze_vision(cache=True, megabytes=0)
    for _ in range(2):
        torch.testing.assert_close(prm(batch), expected, **CLOSE)
    assert prm.vision.store.num_bytes == 0


@PEFT
def test_what_is_not_frozen_is_refused(build_family: Any, build_text_model: Any, tiny_tokenizer: Any) -> None:
    from peft import LoraConfig, get_peft_model

    with pytest.raises(ValueError, match="no vision tower"):
        PRM(build_text_model(), tiny_tokenizer).freeze_vision(cache=True)
    model, processor = build_family("InternVL")
    prm = PRM(model, processor)
    prm.freeze_vision(cache=True)
    next(model.model.vision_tower.parameters()).requires_grad_()
    with pytest.raises(ValueError, match=r"its parameter embeddings\.cls_token is trained: freeze it, or do not"):
        prm.vision.serve().__enter__()
    model.config.model_type = "mystery"
    with pytest.raises(ValueError, match=r"tower of mystery cannot be cached; known are aya_vision, internvl"):
        prm.freeze_vision(cache=True)
    adapted = PRM(get_peft_model(build_family("InternVL")[0], LoraConfig(r=2, target_modules=["q_proj"])), processor)
    for cache in (False, True):
        with pytest.raises(ValueError, match="adapters stand in the vision tower"):
            adapted.freeze_vision(cache=cache)


@PEFT
@pytest.mark.parametrize("vision", ["trained", "frozen", "cached"])
def test_the_setting(vision: str, tiny_settings: Callable[..., TrainConfig]) -> None:
    settings = tiny_settings(f"model.vision={vision}", "model.lora.rank=2", "model.vision_megabytes=3").model
    prm = build_prm(settings, Precision.fp32, torch.device("cpu"))
    trained = {name for name, p in prm.named_parameters() if p.requires_grad}
    assert any("language_model" in name for name in trained)
    assert any("multi_modal_projector" in name for name in trained)
    assert any("vision_tower" in name for name in trained) == (vision == "trained")
    assert (None if prm.vision is None else prm.vision.limit) == (3 * 2**20 if vision == "cached" else None)
