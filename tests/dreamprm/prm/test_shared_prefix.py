"""Candidates scored together over a shared prefix, against each whole chain alone."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import transformers

from dreamprm.prm import PRM
from dreamprm.prm.shared_prefix import SharedPrefixError, SharedPrefixScorer, shares_prefix

FAMILIES = ["InternVL", "LlavaOnevision", "AyaVision", "Qwen2VL", "Qwen2_5_VL", "Qwen3VL"]
CHAINS = [("a b", "c"), ("a b", "d e f", "g"), ("x",), ("a b", "c")]


def _candidates(make_record: Any, images: tuple[bytes, ...]) -> list[Any]:
    return [make_record(f"candidate {row}", steps, images=images) for row, steps in enumerate(CHAINS)]


@pytest.fixture
def build(build_family: Any, tiny_tokenizer: Any) -> Any:
    """A PRM of a family in float64: what differs is the rounding of log-odds, which are float32, 1e-7 of them."""

    def make(family: str) -> PRM:
        if family != "text":
            model, processor = build_family(family)
        else:
            torch.manual_seed(0)
            processor = tiny_tokenizer
            sizes = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
            config = transformers.Qwen2Config(vocab_size=len(processor), num_key_value_heads=2, **sizes)
            model = transformers.Qwen2ForCausalLM(config)
        return PRM(model, processor).double().eval()

    return make


@pytest.mark.parametrize("with_image", [True, False], ids=["image", "no image"])
@pytest.mark.parametrize("family", [*FAMILIES, "text"])
def test_the_same_scores_as_one_by_one(family: str, with_image: bool, build: Any, make_record: Any, noise: Any) -> None:
    if with_image and family == "text":
        pytest.skip("reads no images")
    prm = build(family)
    records = _candidates(make_record, (noise(32, 16, 1),) if with_image else ())
    assert shares_prefix(prm)
    together = prm.score_records(records)
    alone = prm.score_records(records, share_prefix=False)
    for one, other in zip(together, alone, strict=True):
        assert one == pytest.approx(other, abs=2e-7)
    assert together[0] == pytest.approx(together[3], abs=2e-7)


@pytest.mark.parametrize("family", ["InternVL", "Qwen2VL", "text"])
def test_the_same_gradients(family: str, build: Any, make_record: Any, noise: Any) -> None:
    prm = build(family)
    records = _candidates(make_record, () if family == "text" else (noise(32, 16, 1),))
    gradients = []
    for shared in (True, False):
        prm.zero_grad()
        if shared:
            rows = SharedPrefixScorer(prm, prm.collator()).log_odds(records)
        else:
            batch = prm.collator()(records)
            rows = [row[mask] for row, mask in zip(prm(batch), batch.step_mask, strict=True)]
        sum(row.sigmoid().mean().square() for row in rows).backward()
        gradients.append({n: p.grad.clone() for n, p in prm.named_parameters() if p.grad is not None})
    assert gradients[0].keys() == gradients[1].keys()
    for name, gradient in gradients[0].items():
        # The log-odds are float32: 1e-7 of each, so as much of a gradient's length, up to what cancels in it.
        assert (gradient - gradients[1][name]).norm() <= 1e-5 * gradient.norm() + 1e-12, name


def test_a_batch_of_several_questions(build: Any, make_record: Any, noise: Any) -> None:
    prm = build("InternVL").train()  # as in training: the comparison with a whole chain runs there too
    records = [*_candidates(make_record, (noise(32, 16, 1),)), make_record("other", ("a", "b")), make_record("last")]
    records = [records[place] for place in (4, 0, 1, 5, 2, 3)]
    scorer = SharedPrefixScorer(prm, prm.collator())
    batch = prm.collator()(records)
    together = scorer.of_batch(records)
    assert together.shape == batch.step_mask.shape
    assert torch.allclose(together[batch.step_mask], prm(batch)[batch.step_mask], atol=2e-7)
    assert not together[~batch.step_mask].any()
    assert prm.training
    assert prm.num_shared_groups == 2


def test_other_questions_are_refused(build: Any, make_record: Any, noise: Any) -> None:
    prm = build("InternVL")
    records = [make_record("a"), make_record("b", images=(noise(16, 16, 0),))]
    with pytest.raises(ValueError, match="same question and images"):
        SharedPrefixScorer(prm, prm.collator()).log_odds(records)


def test_a_model_whose_cache_is_wrong_is_found(build: Any, make_record: Any) -> None:
    prm = build("text")

    def forget_the_offset(module: Any, args: Any, kwargs: dict[str, Any]) -> Any:
        if kwargs["position_ids"].min() > 0:  # the own tokens of candidates
            kwargs["position_ids"] = kwargs["position_ids"] - kwargs["position_ids"].min()
        return args, kwargs

    handle = prm.body.register_forward_pre_hook(forget_the_offset, with_kwargs=True)
    with pytest.raises(SharedPrefixError, match=r"candidate 1'.*set share_prefix=false"):
        prm.score_records(_candidates(make_record, ()))
    handle.remove()
    assert prm.score_records(_candidates(make_record, ()))


def test_a_chain_that_is_too_long_is_named(build: Any, make_record: Any) -> None:
    prm = build("text")
    prm.collation["max_length"] = 120
    records = [make_record("short", ("a",)), make_record("long", ("b " * 60,))]
    with pytest.raises(ValueError, match=r"long.*max_length"):
        prm.score_records(records)
