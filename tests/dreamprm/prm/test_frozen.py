"""Frozen lower layers: the same scores and gradients from kept features as from a whole pass."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from dreamprm.loss import example_losses
from dreamprm.prm.model import PRM

CLOSE = {"rtol": 1e-5, "atol": 1e-5}
"""fp32: a batch of another length pads otherwise, and the attention's sums run over other numbers of zeros."""


@pytest.fixture
def records(make_record: Any) -> list[Any]:
    return [
        make_record("a", ("one", "two and a half", "three"), labels=(1.0, 0.0, None)),
        make_record("b", ("x",), labels=(1.0,)),
        make_record("c", ("y = 2", "so 2"), labels=(0.0, 1.0)),
    ]


@pytest.fixture(params=["classifier", "generative"])
def build(request: pytest.FixtureRequest, build_text_model: Any, tiny_tokenizer: Any) -> Any:
    if request.param == "classifier":
        return lambda: PRM(build_text_model(num_labels=2), tiny_tokenizer, "token_classification")
    return lambda: PRM(build_text_model(), tiny_tokenizer)


@pytest.mark.parametrize("side", ["left", "right"])
def test_scores_and_gradients_are_those_of_a_whole_pass(build: Any, records: list[Any], side: str) -> None:
    plain, cached = build(), build()
    plain.freeze_layers(1, cache=False)
    cached.freeze_layers(1)
    cached(cached.collator()(records[1:]))  # some features are there already, from a batch of another length
    batch = plain.collator(padding_side=side)(records)
    for prm in (plain, cached):
        example_losses(prm(batch), batch).sum().backward()
    torch.testing.assert_close(cached(batch), plain(batch), **CLOSE)
    for (name, one), (_, other) in zip(plain.named_parameters(), cached.named_parameters(), strict=True):
        assert one.requires_grad == other.requires_grad
        assert (one.grad is None) == (other.grad is None), name
        if one.grad is not None:
            torch.testing.assert_close(other.grad, one.grad, **CLOSE)
    assert not plain.body.get_input_embeddings().weight.requires_grad
    assert len(cached.frozen.store.memory) == len(records)


def test_the_layers_below_the_cut_run_once_per_chain(build: Any, records: list[Any]) -> None:
    prm = build()
    prm.freeze_layers(1)
    batch = prm.collator()(records)
    prm(batch)
    runs: list[int] = []
    prm.frozen.layers[0].register_forward_hook(lambda module, given, output: runs.append(1))
    prm.frozen.layers[0].mlp.register_forward_hook(lambda module, given, output: runs.append(2))
    prm(batch)
    assert 2 not in runs, "the layer's own work is passed over"
    prm(prm.collator()([records[0].__class__(**{**_fields(records[0]), "key": "d", "steps": ("new", "s", "t")})]))
    assert runs.count(2) == 1


def test_features_are_kept_in_a_folder_for_these_parameters_alone(
    build: Any, records: list[Any], tmp_path: Path
) -> None:
    first = build()
    first.freeze_layers(1, folder=tmp_path)
    batch = first.collator()(records)
    scores = first(batch)
    first.flush_features()
    again = build()
    again.freeze_layers(1, folder=tmp_path)
    torch.testing.assert_close(again(batch), scores, rtol=0, atol=0)
    assert not again.frozen.store.memory, "all came from the folder"
    other = build()
    with torch.no_grad():
        next(other.body.layers[0].parameters()).add_(1.0)
    other.freeze_layers(1, folder=tmp_path)
    assert other.frozen.store.folder != first.frozen.store.folder


def test_all_layers_can_be_frozen_but_no_more(build: Any, records: Any) -> None:
    whole, frozen = build(), build()
    frozen.load_state_dict(whole.state_dict())
    frozen.freeze_layers(2)
    batch = frozen.collator()(records)
    for _ in range(2):  # computed, then kept
        torch.testing.assert_close(frozen(batch), whole(batch), rtol=1e-5, atol=1e-6)
    assert [name for name, value in frozen.named_parameters() if value.requires_grad]
    with pytest.raises(ValueError, match="3 layers cannot be frozen: this model has 2"):
        build().freeze_layers(3)


def _fields(record: Any) -> dict[str, Any]:
    return {name: getattr(record, name) for name in record.__dataclass_fields__}
