"""The last feed-forward block on kept states: scores, gradients and hypergradients of the whole pass."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from bilevel import Lookahead
from dreamprm.loss import example_losses
from dreamprm.prm.model import PRM
from dreamprm.world import base_folder, load

CLOSE = {"rtol": 1e-5, "atol": 1e-5}
"""fp32: the same sums over S rows in place of T."""
TRAINED = ("mlp.", "post_attention_layernorm", "language_model.norm", "model.norm", "head.")


@pytest.fixture
def records(make_record: Any) -> list[Any]:
    return [
        make_record("a", ("one", "two and a half", "three"), labels=(1.0, 0.0, None)),
        make_record("b", ("x",), labels=(1.0,)),
        make_record("c", ("y = 2", "so 2"), labels=(0.0, 1.0)),
    ]


def of_world(dtype: torch.dtype = torch.float64) -> tuple[Any, list[Any]]:
    prm = PRM.from_pretrained(base_folder()).to(dtype)
    return prm.eval(), load("train", num_chains=6)


def whole_but_frozen_alike(prm: Any, kept: Any) -> None:
    wanted = {name: value.requires_grad for name, value in kept.named_parameters()}
    for name, value in prm.named_parameters():
        value.requires_grad_(wanted[name])


@pytest.mark.parametrize("side", ["left", "right"])
def test_scores_and_gradients_are_those_of_a_whole_pass(side: str) -> None:
    (whole, records), (kept, _) = of_world(torch.float32), of_world(torch.float32)
    kept.freeze_below_last_feed_forward()
    whole_but_frozen_alike(whole, kept)
    kept(kept.collator()(records[2:]))  # some are there already, from a batch of another length
    batch = whole.collator(padding_side=side)(records)
    for prm in (whole, kept):
        example_losses(prm(batch), batch).sum().backward()
    torch.testing.assert_close(kept(batch), whole(batch), **CLOSE)
    trained = []
    for (name, one), (_, other) in zip(whole.named_parameters(), kept.named_parameters(), strict=True):
        assert (one.grad is None) == (other.grad is None), name
        if one.grad is not None:
            trained.append(name)
            torch.testing.assert_close(other.grad, one.grad, **CLOSE)
    assert len(trained) == 6, trained  # gate, up, down, two norms, the head's rows
    assert all(any(part in name for part in TRAINED) for name in trained)
    assert len(kept.kept.store.memory) == len(records)


@pytest.mark.parametrize("product", ["ghost", "jvp"])
def test_hypergradients_are_those_of_a_whole_pass(product: Any) -> None:
    """Both products, in float64; sums in another order round at 1e-15."""
    found = []
    for is_kept in (False, True):
        (prm, records), (other, _) = of_world(), of_world()
        other.freeze_below_last_feed_forward()
        if is_kept:
            prm = other
        else:
            whole_but_frozen_alike(prm, other)
            prm.model.set_attn_implementation("eager")  # fused attention has no forward mode
        optimizer = torch.optim.AdamW([p for p in prm.parameters() if p.requires_grad], lr=1e-3)
        lookahead = Lookahead(prm, optimizer, product=product, clip_norm=1.0)
        weights = torch.ones(4, dtype=torch.float64, requires_grad=True)
        batch, meta = (prm.collator()(part) for part in (records[:4], records[4:]))
        for _ in range(2):
            optimizer.zero_grad()
            weights.grad = None
            with lookahead.inner(rows=prm.row_examples(batch)):
                lookahead.backward(example_losses(prm(batch).double(), batch), weights / 4)
            lookahead.step()
            lookahead.backward_outer(example_losses(prm(meta).double(), meta).mean())
        found.append(weights.grad)
    assert found[0].norm() > 1e-6
    torch.testing.assert_close(found[1], found[0], rtol=1e-4, atol=1e-7)  # PRM.read gives float32


def test_what_lies_below_runs_once_per_chain() -> None:
    prm, records = of_world(torch.float32)
    prm.freeze_below_last_feed_forward()
    runs: list[int] = []
    prm.body.language_model.layers[0].register_forward_hook(lambda *given: runs.append(1))
    batch = prm.collator()(records)
    for given in (batch, batch, prm.collator()(records[:2])):
        prm(given)
    assert len(runs) == 1
    other = replace(records[0], images=records[1].images, key="the same words about another image")
    prm(prm.collator()([other]))
    assert len(runs) == 2


def test_states_are_kept_in_a_folder_for_these_parameters_alone(tmp_path: Path) -> None:
    first, records = of_world(torch.float32)
    first.freeze_below_last_feed_forward(folder=tmp_path)
    batch = first.collator()(records)
    scores = first(batch)
    first.flush_features()
    again, other = of_world(torch.float32)[0], of_world(torch.float32)[0]
    again.freeze_below_last_feed_forward(folder=tmp_path)
    torch.testing.assert_close(again(batch), scores, rtol=0, atol=0)
    assert not again.kept.store.memory, "all came from the folder"
    with torch.no_grad():
        next(other.body.language_model.layers[0].parameters()).mul_(1.5)
    other.freeze_below_last_feed_forward(folder=tmp_path)
    assert not torch.allclose(other(batch), scores)


def test_text_models_and_linear_heads_too(build_text_model: Any, tiny_tokenizer: Any, records: list[Any]) -> None:
    for head in ("generative", "linear", "vocabulary"):
        prm = PRM(build_text_model(), tiny_tokenizer, head)
        batch = prm.collator()(records)
        whole = prm(batch)
        prm.freeze_below_last_feed_forward()
        torch.testing.assert_close(prm(batch), whole, **CLOSE)
        assert any(value.requires_grad for value in prm.head.parameters()), head


def test_a_block_of_another_build_is_refused(build_text_model: Any, tiny_tokenizer: Any, records: list[Any]) -> None:
    with pytest.raises(ValueError, match=r"a token classifier is trained whole"):
        PRM(build_text_model(num_labels=2), tiny_tokenizer, "token_classification").freeze_below_last_feed_forward()
    prm = PRM(build_text_model(), tiny_tokenizer)
    del prm.body.layers[-1].post_attention_layernorm
    with pytest.raises(ValueError, match=r"set model.trained=whole"):
        prm.freeze_below_last_feed_forward()
    odd = PRM(build_text_model(), tiny_tokenizer)
    original = odd.body.layers[-1].forward
    odd.body.layers[-1].forward = lambda x, *given, **named: x + original(x, *given, **named)  # a second residual
    odd.freeze_below_last_feed_forward()
    with pytest.raises(ValueError, match=r"differs by .* from the whole pass"):
        odd(odd.collator()(records))
