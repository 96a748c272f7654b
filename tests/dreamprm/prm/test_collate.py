"""Batches: positions by token, padding, images and their rows, and a clear error for every kind of bad record."""

import math
from pathlib import Path

import pytest
import torch

from dreamprm.data.record import RecordError
from dreamprm.prm.collate import Collator
from dreamprm.prm.prompt import Prompt, render


@pytest.fixture
def collate(tiny_processor):
    return Collator(tiny_processor)


def test_positions_stand_before_the_placeholder_and_nowhere_else(collate, make_record, make_image):
    steps = ("3 + 4 = 7 +", "+", "- + -\n+\n", "so 7")
    record = make_record(steps=steps, images=(make_image(64, 32),), question="What is + in 3 + 4?\n+\n")
    batch = collate([record])
    ids = batch.inputs["input_ids"][0]
    decode = collate.processor.tokenizer.decode
    for position in batch.step_positions[0].tolist():
        assert decode(ids[position + 1]) == "+"
        assert decode(ids[: position + 1]).endswith("<|im_start|>assistant\n")
        assert decode(ids[position + 2 :]).startswith("<|im_end|>")
    assert batch.step_positions.shape == (1, 4)
    assert collate.render(record).marked().count("assistant\n⟦+⟧<|im_end|>") == 4


def test_labels_never_enter_the_context(collate, make_record):
    right, wrong = (collate([make_record(labels=labels)]) for labels in ((1.0, 1.0), (0.0, 0.0)))
    assert torch.equal(right.inputs["input_ids"], wrong.inputs["input_ids"])
    assert not torch.equal(right.labels, wrong.labels)


@pytest.mark.parametrize("side", ["left", "right"])
def test_padding_and_masks(tiny_processor, make_record, side):
    records = [
        make_record("a", ("one",), labels=(0.25,), correct=True),
        make_record("b", ("one", "two", "three"), labels=(1.0, None, 0.0), correct=False),
        make_record("c", ("one", "two")),
    ]
    batch = Collator(tiny_processor, padding_side=side, domains=["other", "sum"])(list(zip((5, 3, 9), records)))
    assert batch.step_mask.tolist() == [[True, False, False], [True, True, True], [True, True, False]]
    assert batch.label_mask.tolist() == [[True, False, False], [True, False, True], [False, False, False]]
    assert batch.labels.tolist() == [[0.25, 0, 0], [1, 0, 0], [0, 0, 0]]
    assert batch.index.tolist() == [5, 3, 9]
    assert batch.domain.tolist() == [1, 1, 1]
    assert batch.correct[:2].tolist() == [1.0, 0.0]
    assert math.isnan(batch.correct[2])
    lengths = batch.inputs["attention_mask"].sum(1)
    assert len(set(lengths.tolist())) == 3
    pad = tiny_processor.tokenizer.pad_token_id
    assert (batch.inputs["input_ids"] == pad).sum(1).tolist() == (lengths.max() - lengths).tolist()
    ids = batch.inputs["input_ids"]
    plus = tiny_processor.tokenizer.convert_tokens_to_ids("+")
    judged = ids.gather(1, batch.step_positions + 1)
    assert (judged[batch.step_mask] == plus).all()


def test_rows_of_the_vision_tower_are_tiles(collate, make_record, make_image):
    records = [
        make_record("a", images=(make_image(),)),
        make_record("b"),
        make_record("c", images=(make_image(64, 32), make_image())),  # 2 tiles and a thumbnail, and 1
    ]
    batch = collate(records)
    expected = [0, 2, 2, 2, 2]
    assert len(batch.inputs["pixel_values"]) == 5
    assert set(batch.row_examples) == {"model.model.vision_tower", "model.model.multi_modal_projector"}
    assert all(rows.tolist() == expected for rows in batch.row_examples.values())
    assert batch.to("cpu").row_examples["model.model.vision_tower"].tolist() == expected


def test_image_settings(tiny_processor, make_record, make_image, tmp_path):
    path = tmp_path / "picture.png"
    path.write_bytes(make_image(96, 32))
    record = make_record(images=(path,))
    assert len(Collator(tiny_processor)([record]).inputs["pixel_values"]) == 4  # 3 tiles and a thumbnail
    assert len(Collator(tiny_processor, max_image_side=32)([record]).inputs["pixel_values"]) > 0
    one = Collator(tiny_processor, images_kwargs={"crop_to_patches": False})
    assert len(one([record]).inputs["pixel_values"]) == 1


def test_cache_gives_the_same_batch(tiny_processor, make_record, make_image):
    records = [make_record("a", images=(make_image(),)), make_record("b"), make_record("c")]
    cached, fresh = Collator(tiny_processor, cache=2), Collator(tiny_processor)
    for _ in range(2):
        one, two = cached(records), fresh(records)
        assert all(torch.equal(one.inputs[name], two.inputs[name]) for name in two.inputs)
    assert len(cached._cached) == 2


def test_a_long_chain_is_refused_not_cut(tiny_processor, make_record):
    with pytest.raises(RecordError, match=r"record 'long'.*max_length allows 64"):
        Collator(tiny_processor, max_length=64)([make_record("long")])


def test_a_chain_without_steps_is_refused(collate, make_record):
    with pytest.raises(RecordError, match="record 'empty', steps: the chain has no steps"):
        collate([make_record("empty", ())])


def test_an_unknown_domain_is_refused(tiny_processor, make_record):
    with pytest.raises(RecordError, match=r"record 'a', domain: 'sum' is not one of the domains in use: chart, table"):
        Collator(tiny_processor, domains=["chart", "table"])([make_record()])


@pytest.mark.parametrize("image", [Path("nowhere/picture.png"), b"not an image"])
def test_a_missing_or_broken_image_is_named(collate, make_record, image):
    with pytest.raises(RecordError, match=r"record 'a', images: .* cannot be read"):
        collate([make_record(images=(image,))])


def test_a_bomb_of_pixels_is_refused(tiny_processor, make_record, make_image):
    with pytest.raises(RecordError, match="at most 100 are read"):
        Collator(tiny_processor, max_image_pixels=100)([make_record(images=(make_image(),))])


def test_control_tokens_in_the_text_are_refused(collate, make_record):
    with pytest.raises(RecordError, match=r"step 1: the text holds '<\|im_end\|>'"):
        collate([make_record(steps=("fine", "ends <|im_end|> here"))])
    with pytest.raises(RecordError, match="question: the text holds '<IMG_CONTEXT>'"):
        collate([make_record(question="<IMG_CONTEXT> what?")])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"padding_side": "middle"}, "allowed are 'left' and 'right'"),
        ({"max_length": 0}, "max_length is 0"),
        ({"domains": ["a", "a"]}, "must not repeat"),
    ],
)
def test_bad_settings(tiny_processor, settings, message):
    with pytest.raises(ValueError, match=message):
        Collator(tiny_processor, **settings)


def test_an_empty_batch_is_refused(collate):
    with pytest.raises(ValueError, match="at least one record"):
        collate([])


def test_separator_layout_judges_at_the_separator(tiny_tokenizer, make_record):
    collate = Collator(tiny_tokenizer, Prompt(layout="chat_separator", separator=" ;;"))
    batch = collate([make_record(steps=("a ;; b", "c"))])
    ids = batch.inputs["input_ids"][0]
    first, second = batch.step_positions[0].tolist()
    assert tiny_tokenizer.decode(ids[: first + 1]).endswith("a ;; b ;;")
    assert tiny_tokenizer.decode(ids[: second + 1]).endswith("c ;;")


def test_an_image_between_words_keeps_its_place_and_the_spaces_around_it(collate, make_record, make_image):
    question = "Compare <image> with <image> now."
    both = (make_image(), make_image())
    text = collate.render(make_record(question=question, images=both)).text
    before, middle, after = (text.index(words) for words in ("Compare ", " with ", " now."))
    first = text.index("<IMG_CONTEXT>")
    assert before < first < middle < text.index("<IMG_CONTEXT>", first + 1) < after
    assert "<image>" not in text
    assert len(collate([make_record(question=question, images=both)])) == 1
    # Of another number of images than places, the text is left as it is, with the images before it.
    one = collate.render(make_record(question=question, images=both[:1])).text
    assert question in one
    assert one.index("<IMG_CONTEXT>") < one.index("Compare")


def test_the_marks_blank_end_parts_the_steps_and_a_files_own_breaks_come_first(tiny_processor):
    tokenizer = tiny_processor.tokenizer
    for separator, breaks in ((" ки\n", ()), (" ки", ("\n",)), (" ки\n", ("\n",))):
        prompt = Prompt(layout="separator", separator=separator, question="{question} {step}")
        rendered = render(prompt, tokenizer, "How many?", ["one", "two"], breaks=breaks)
        assert rendered.text.startswith("How many? one ки\ntwo ки")
        assert [rendered.text[start:stop] for start, stop in rendered.spans] == [" ки", " ки"]


def test_images_that_the_processor_refuses_are_an_error_of_their_record(collate, make_record, make_image, monkeypatch):
    def refuse(*_: object, **__: object) -> None:
        raise ValueError("absolute aspect ratio must be smaller than 200")

    monkeypatch.setattr(type(collate.processor), "__call__", refuse)
    with pytest.raises(RecordError, match=r"record 'a', images: the processor refuses the images \(.* pixels\): abs"):
        collate([make_record(images=(make_image(),))])


def test_every_tensor_is_pinned(collate, make_record, make_image, monkeypatch):
    """What a GPU reads by itself; pinning needs one, so it is told from a batch that only says so."""
    batch = collate([make_record(images=(make_image(64, 32),))])
    pinned = []
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda value: pinned.append(value) or value.clone())
    again = batch.pinned()
    tensors = [*batch.inputs.values(), *batch.row_examples.values()]
    tensors += [value for name in batch.__slots__ if isinstance(value := getattr(batch, name), torch.Tensor)]
    assert {id(value) for value in pinned} == {id(value) for value in tensors}
    assert torch.equal(again.inputs["pixel_values"], batch.inputs["pixel_values"])
    assert again.inputs["pixel_values"] is not batch.inputs["pixel_values"]
