"""The PRM whole: scores do not depend on the batch or the padding, and transformers alone gives the same."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

from dreamprm.prm.model import PRM
from dreamprm.prm.processor import load_processor
from dreamprm.prm.prompt import Prompt
from dreamprm.prm.storage import PRMLoadError

CHAINS = [
    ("3 + 4 = 7", "so 7"),
    ("one", "two - or + ?", "three", "a much longer step that pads the others: 12 + 30 - 5 = 37"),
    ("just one",),
]


@pytest.fixture
def records(make_record, make_image):
    images = [(make_image(),), (make_image(64, 32, (0, 9, 200)), make_image(32, 32, (1, 200, 3))), ()]
    return [make_record(str(i), steps, images=images[i]) for i, steps in enumerate(CHAINS)]


@pytest.fixture
def prm(build_internvl, tiny_processor):
    return PRM(build_internvl(), tiny_processor)


@pytest.mark.parametrize("side", ["left", "right"])
def test_scores_do_not_depend_on_batch_or_padding(prm, records, side):
    # 1e-5: float32 sums in another order; log-odds here are of order one.
    with torch.no_grad():
        together = prm(prm.collator(padding_side=side)(records))
        for row, record in enumerate(records):
            alone = prm(prm.collator()([record]))[0]
            torch.testing.assert_close(together[row, : len(record.steps)], alone, atol=1e-5, rtol=0)
            assert (together[row, len(record.steps) :] == 0).all()
    assert together[0].std() > 1e-3


def test_later_steps_do_not_change_earlier_scores(prm, make_record):
    long = prm.score("q?", [], CHAINS[1])
    short = prm.score("q?", [], CHAINS[1][:2])
    assert short == pytest.approx(long[:2], abs=1e-5)


@pytest.mark.parametrize("tied", [False, True])
def test_transformers_alone_reproduces_the_scores(build_internvl, tiny_processor, records, tmp_path, tied):
    from transformers import AutoModelForImageTextToText

    prm = PRM(build_internvl(tied), tiny_processor)
    with torch.no_grad():
        prm.head.rows.weight.add_(torch.randn_like(prm.head.rows.weight))  # as if trained
    embedding = prm.transformer.get_input_embeddings().weight.clone()
    batch = prm.collator()(records)
    with torch.no_grad():
        expected = prm.step_scores(batch)
        prm.save_pretrained(tmp_path)
        assert (prm.step_scores(batch) == expected).all()
    output = prm.transformer.get_output_embeddings().weight
    assert (output is prm.transformer.get_input_embeddings().weight) == tied
    assert (prm.transformer.get_input_embeddings().weight == embedding).all()

    model = AutoModelForImageTextToText.from_pretrained(tmp_path).eval()
    plus, minus = (prm.processor.tokenizer.convert_tokens_to_ids(label) for label in "+-")
    with torch.no_grad():
        logits = model(**batch.inputs).logits
    rows = torch.arange(len(records))[:, None]
    theirs = logits[rows, batch.step_positions][..., [plus, minus]].softmax(-1)[..., 0]
    torch.testing.assert_close(theirs[batch.step_mask], expected[batch.step_mask], atol=1e-5, rtol=0)

    again = PRM.from_pretrained(tmp_path)
    with torch.no_grad():
        torch.testing.assert_close(again.step_scores(again.collator()(records)), expected, atol=1e-6, rtol=0)
    assert again.prompt == prm.prompt
    assert load_processor(tmp_path).image_seq_length == 16


def test_vocabulary_is_never_read(prm, records):
    calls = []
    prm.transformer.get_output_embeddings().register_forward_hook(lambda *_: calls.append(1))
    prm(prm.collator()(records))
    assert not calls


@pytest.mark.parametrize("head", ["vocabulary", "linear"])
def test_discriminative_heads_survive_a_folder(build_text_model, tiny_tokenizer, make_record, tmp_path, head):
    prm = PRM(build_text_model(), tiny_tokenizer, head, aggregation="log_odds_mean")
    for parameter in prm.head.parameters():
        torch.nn.init.normal_(parameter)
    scores = prm.score("q", [], CHAINS[1])
    prm.save_pretrained(tmp_path)
    again = PRM.from_pretrained(tmp_path)
    assert again.score("q", [], CHAINS[1]) == pytest.approx(scores, abs=1e-6)
    assert (again.kind, again.aggregation) == (head, "log_odds_mean")


def test_vocabulary_head_is_the_published_one(build_text_model, tiny_tokenizer, make_record):
    prm = PRM(build_text_model(), tiny_tokenizer, "vocabulary")
    batch = prm.collator()([make_record()])
    with torch.no_grad():
        logits = prm.transformer(**batch.inputs).logits[0, batch.step_positions[0]]
        published = prm.head.score(logits)[:, 0]
        torch.testing.assert_close(prm(batch)[0], published, atol=1e-5, rtol=0)


@pytest.mark.parametrize("num_labels", [1, 2])
def test_token_classifier(build_text_model, tiny_tokenizer, make_record, tmp_path, num_labels):
    from transformers import AutoModelForTokenClassification

    prompt = Prompt(layout="separator", separator="\n\n")
    prm = PRM(build_text_model(num_labels), tiny_tokenizer, "token_classification", prompt=prompt)
    record = make_record()
    batch = prm.collator()([record])
    assert [tiny_tokenizer.decode(batch.inputs["input_ids"][0, p]) for p in batch.step_positions[0]] == ["\n", "\n"]
    scores = prm.score_records([record])[0]
    prm.save_pretrained(tmp_path)
    with torch.no_grad():
        logits = AutoModelForTokenClassification.from_pretrained(tmp_path).eval()(**batch.inputs).logits
    logits = logits[0, batch.step_positions[0]]
    theirs = logits.sigmoid()[:, 0] if num_labels == 1 else logits.softmax(-1)[:, 1]
    assert scores == pytest.approx(theirs.tolist(), abs=1e-5)
    assert PRM.from_pretrained(tmp_path).kind == "token_classification"


def test_text_only_model(build_text_model, tiny_tokenizer, make_record, make_image):
    prm = PRM(build_text_model(), tiny_tokenizer)
    assert len(prm.score("q", [], ["a", "b"])) == 2
    with pytest.raises(ValueError, match="record 'a', images: this model reads text only"):
        prm.collator()([make_record(images=(make_image(),))])


def test_three_classes_are_refused(build_text_model, tiny_tokenizer):
    with pytest.raises(ValueError, match="one or two classes, this one has 3"):
        PRM(build_text_model(3), tiny_tokenizer, "token_classification")


def test_missing_model_is_one_clear_line(tmp_path):
    with pytest.raises(OSError, match="it is not a local folder, the hub does not answer") as caught:
        PRM.from_pretrained("nobody/no-such-model")
    assert "\n" not in str(caught.value)
    with pytest.raises(OSError, match="cannot load a PRM from the folder"):
        PRM.from_pretrained(tmp_path)


def test_score_records_keeps_order_and_mode(prm, records):
    prm.train()
    scores = prm.score_records(records, batch_size=2)
    assert prm.training
    assert [len(row) for row in scores] == [2, 4, 1]
    for record, row in zip(records, scores):
        assert prm.score(record.question, record.images, record.steps) == pytest.approx(row, abs=1e-5)


def test_a_tokenizer_that_comes_back_another_is_refused(tiny_tokenizer: Any, tmp_path: Path) -> None:
    sizes = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 1, "num_attention_heads": 4}
    config = transformers.Qwen2Config(vocab_size=len(tiny_tokenizer), num_key_value_heads=2, **sizes)
    prm = PRM(transformers.Qwen2ForCausalLM(config), tiny_tokenizer)
    prm.save_pretrained(tmp_path)
    settings = json.loads((tmp_path / "prm.json").read_text())
    settings["probe"] = settings["probe"][::-1]  # as if the folder's tokenizer cut the text in another way
    (tmp_path / "prm.json").write_text(json.dumps(settings))
    with pytest.raises(PRMLoadError, match="cuts text into other tokens"):
        PRM.from_pretrained(tmp_path)


def test_one_flipped_bit_of_a_saved_prm_is_refused(build_text_model, tiny_tokenizer, tmp_path) -> None:
    PRM(build_text_model(), tiny_tokenizer).save_pretrained(tmp_path)
    file = tmp_path / "model.safetensors"
    data = bytearray(file.read_bytes())
    data[-7] ^= 1
    file.write_bytes(data)
    with pytest.raises(OSError, match=r"model\.safetensors is not what was saved, its checksum differs"):
        PRM.from_pretrained(tmp_path)
