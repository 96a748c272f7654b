import io
from itertools import islice

import pytest
import torch
from PIL import Image
from transformers import InternVLForConditionalGeneration

from dreamprm.world import base_folder
from dreamprm.world.assets import make_config, make_processor, make_tokenizer, save_processor
from dreamprm.world.build_base import build, caption_accuracy
from dreamprm.world.captions import DenseExample, dense_batch, dense_examples, dense_loss
from dreamprm.world.scene import COLOURS


def test_transformers_alone_loads_the_shipped_folder(base_model, base_processor):
    assert type(base_model) is InternVLForConditionalGeneration
    assert base_model.dtype == torch.float32
    assert sum(parameter.numel() for parameter in base_model.parameters()) < 2e6
    assert (base_folder() / "model.safetensors").stat().st_size <= 8 * 2**20
    names = {path.name for path in base_folder().iterdir()}
    assert {"config.json", "tokenizer.json", "processor_config.json", "chat_template.jinja"} <= names


def test_the_shipped_base_reads_numbers(base_model, base_processor):
    # 32 scenes a style hold about 80 numbers; a reader that guesses gets one in nine.
    assert min(caption_accuracy(base_model, base_processor, num=32).values()) >= 0.9


def test_the_shipped_parts_are_those_that_the_code_makes(base_model, base_processor):
    tokenizer = make_tokenizer()
    assert tokenizer.get_vocab() == base_processor.tokenizer.get_vocab()
    assert base_processor.chat_template == make_processor(tokenizer).chat_template
    config = make_config(tokenizer)
    assert config.text_config.hidden_size == base_model.config.text_config.hidden_size
    assert config.image_token_id == base_model.config.image_token_id


def test_words_and_numbers_are_one_token_and_any_text_comes_back(base_processor):
    tokenizer = base_processor.tokenizer
    for text in ("+", "-", *COLOURS, *(f" {colour}" for colour in COLOURS), *(f" {number}" for number in range(28))):
        assert len(tokenizer.encode(text)) == 1, text
    for text in ("red 3\nblue 5", "Größe ∫ x² dx = 4\n\n### 步骤 1:", "\ttabs  and   spaces "):
        assert tokenizer.decode(tokenizer.encode(text)) == text


def test_a_small_image_is_one_tile_of_sixteen_tokens_and_a_large_one_several(base_processor):
    for size, tiles in (((32, 32), 1), ((64, 96), 7)):  # 2 x 3 tiles and a thumbnail
        image = Image.new("RGB", size)
        user = [{"type": "image", "image": image}, {"type": "text", "text": "red ?"}]
        inputs = base_processor.apply_chat_template(
            [{"role": "user", "content": user}, {"role": "assistant", "content": [{"type": "text", "text": "+"}]}],
            tokenize=True,
            return_dict=True,
            return_tensors="pt",
        )
        context = base_processor.tokenizer.convert_tokens_to_ids("<IMG_CONTEXT>")
        assert inputs["pixel_values"].shape == (tiles, 3, 32, 32)
        assert (inputs["input_ids"] == context).sum() == 16 * tiles


def test_a_folder_is_readable_by_internvls_own_processor_class(tmp_path):
    processor = make_processor(make_tokenizer())
    save_processor(processor, tmp_path)
    assert '"image_seq_length": 16' in (tmp_path / "processor_config.json").read_text()
    for name in ("start_image_token", "end_image_token", "context_image_token", "video_token"):
        assert isinstance(getattr(processor.tokenizer, name), str)


def test_dense_examples_are_a_function_of_the_seed():
    first = list(islice(dense_examples(3), 20))
    assert first == list(islice(dense_examples(3), 20))
    assert first != list(islice(dense_examples(4), 20))
    assert {len(example.turns) for example in first} == {1, 2}


def test_only_the_assistants_words_and_their_ends_are_learned(base_processor):
    example = next(e for e in dense_examples(0) if len(e.turns) == 2)
    short = DenseExample(example.image, example.turns[1:])
    batch = dense_batch(base_processor, [example, short])
    decode = base_processor.tokenizer.decode
    for row, turns in enumerate((example.turns, short.turns)):
        labels = batch["labels"][row]
        assert decode(labels[labels >= 0]) == "".join(target + "<end>" for _, target in turns)
        kept = labels >= 0
        assert torch.equal(labels[kept], batch["input_ids"][row][kept])


def test_dense_loss_is_the_models_own_loss(base_model, base_processor):
    batch = dense_batch(base_processor, list(islice(dense_examples(1), 4)))
    expected = base_model(**batch).loss
    # The same sum in another order.
    torch.testing.assert_close(dense_loss(base_model, batch), expected, rtol=1e-5, atol=1e-6)


def test_a_build_writes_a_folder_that_loads_and_learns(tmp_path, capsys):
    build(tmp_path / "base", num_updates=2, warm_up=1, batch_size=4)
    model = InternVLForConditionalGeneration.from_pretrained(tmp_path / "base")
    assert '"update": 2' in capsys.readouterr().out
    batch = dense_batch(make_processor(make_tokenizer()), list(islice(dense_examples(0), 8)))
    with torch.no_grad():
        trained = dense_loss(model, batch)
    torch.manual_seed(0)
    fresh = InternVLForConditionalGeneration(model.config)
    with torch.no_grad():
        assert trained < dense_loss(fresh, batch)


def test_a_share_of_captions_is_a_share():
    with pytest.raises(ValueError, match="share in"):
        next(dense_examples(captions=1.2))


def test_pictures_of_the_world_are_png():
    image = next(dense_examples(0)).image
    assert Image.open(io.BytesIO(image)).format == "PNG"
