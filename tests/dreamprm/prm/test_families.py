"""Model families whole, in tiny random configurations: collate, two updates by ghost, save, load, equal scores."""

from importlib import import_module
from typing import Any

import pytest
import torch
import transformers

import bilevel
from dreamprm.loss import example_losses, outer_loss
from dreamprm.prm.prm import PRM
from dreamprm.prm.processor import image_only
from dreamprm.weigher import InstanceNet, from_batch

TEXT = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "initializer_range": 0.1,
    "max_position_embeddings": 1024,
    "bos_token_id": None,
}
TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{% for c in m['content'] %}"
    "{% if c['type'] == 'image' %}IMAGE{% else %}{{ c['text'] }}{% endif %}{% endfor %}<|im_end|>\n{% endfor %}"
)


def tokenizer(core: Any, **extra: str) -> Any:
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=core.backend_tokenizer,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        extra_special_tokens={"start": "<|im_start|>", **extra},
    )


def pil(module: str, name: str, **settings: Any) -> Any:
    found = getattr(import_module(f"transformers.models.{module}.image_processing_pil_{module}"), name)
    return found(**settings)


def qwen(core: Any, kind: str) -> tuple[Any, Any]:
    marks = {
        "image_token": "<|image_pad|>",
        "video_token": "<|video_pad|>",
        "vision_bos_token": "<|vision_start|>",
        "vision_eos_token": "<|vision_end|>",
    }
    words = tokenizer(core, **marks)
    ids = {
        f"{name}_id": words.convert_tokens_to_ids(mark)
        for name, mark in zip(("image_token", "video_token", "vision_start_token", "vision_end_token"), marks.values())
    }
    rope = {"rope_type": "default", "mrope_section": [1, 1, 2], "rope_theta": 10000.0}
    text = {**TEXT, "vocab_size": len(words), "rope_parameters": rope, "head_dim": 8}
    common = {"depth": 2, "num_heads": 2, "patch_size": 4, "spatial_merge_size": 2, "temporal_patch_size": 2}
    vision = {
        "Qwen2VL": {**common, "embed_dim": 16, "hidden_size": 32, "mlp_ratio": 2, "in_channels": 3},
        "Qwen2_5_VL": {
            **common,
            "hidden_size": 16,
            "out_hidden_size": 32,
            "intermediate_size": 24,
            "window_size": 16,
            "fullatt_block_indexes": [1],
        },
        "Qwen3VL": {
            **common,
            "hidden_size": 16,
            "out_hidden_size": 32,
            "intermediate_size": 24,
            "num_position_embeddings": 16,
            "deepstack_visual_indexes": [0],
        },
    }[kind]
    config = getattr(transformers, f"{kind}Config")(vision_config=vision, text_config=text, **ids)
    images = pil("qwen2_vl", "Qwen2VLImageProcessorPil", patch_size=4, min_pixels=64, max_pixels=1024)
    processor = image_only(getattr(transformers, f"{kind}Processor"))(
        images,
        words,
        chat_template=TEMPLATE.replace("IMAGE", "<|vision_start|><|image_pad|><|vision_end|>"),
    )
    return getattr(transformers, f"{kind}ForConditionalGeneration")(config), processor


def llava(core: Any) -> tuple[Any, Any]:
    words = tokenizer(core, image_token="<image>", video_token="<video>")
    vision = {
        "model_type": "siglip_vision_model",
        "hidden_size": 16,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 24,
        "image_size": 16,
        "patch_size": 4,
        "vision_use_head": False,
    }
    grid = [[16, 16], [16, 32], [32, 16]]
    config = transformers.LlavaOnevisionConfig(
        vision_config=vision,
        text_config={"model_type": "qwen2", **TEXT, "vocab_size": len(words)},
        image_token_id=words.convert_tokens_to_ids("<image>"),
        video_token_id=words.convert_tokens_to_ids("<video>"),
        image_grid_pinpoints=grid,
        vision_feature_layer=-1,
    )
    images = pil(
        "llava_onevision",
        "LlavaOnevisionImageProcessorPil",
        size={"height": 16, "width": 16},
        image_grid_pinpoints=grid,
    )
    processor = image_only(transformers.LlavaOnevisionProcessor)(
        images,
        words,
        num_image_tokens=16,
        vision_feature_select_strategy="full",
        chat_template=TEMPLATE.replace("IMAGE", "<image>\n"),
    )
    return transformers.LlavaOnevisionForConditionalGeneration(config), processor


@pytest.mark.parametrize("family", ["Qwen2VL", "Qwen2_5_VL", "Qwen3VL", "llava"])
def test_whole(family, tiny_tokenizer, make_record, make_image, tmp_path):
    torch.manual_seed(0)
    model, processor = llava(tiny_tokenizer) if family == "llava" else qwen(tiny_tokenizer, family)
    prm = PRM(model.eval(), processor)
    records = [
        make_record("a", labels=(1.0, 0.0), correct=True, images=(make_image(16, 16),)),
        make_record("b", ("x", "y", "z"), labels=(0.5, None, 1.0), correct=False),
        make_record("c", labels=(0.0, 1.0), correct=True, images=(make_image(32, 16), make_image(16, 16))),
        make_record("d", labels=(0.0, 1.0), correct=False, images=(make_image(32, 16, (0, 0, 99)),)),
    ]
    collate = prm.collator()
    batch = collate(list(enumerate(records)))
    with torch.no_grad():
        before = prm.step_scores(batch)
        # 1e-5: float32 sums in another order.
        for row, record in enumerate(records):
            alone = prm.step_scores(collate([record]))[0]
            torch.testing.assert_close(before[row, : len(record.steps)], alone, atol=1e-5, rtol=0)
        left = prm.step_scores(prm.collator(padding_side="left")(records))
        torch.testing.assert_close(left, before, atol=1e-5, rtol=0)

    optimizer = torch.optim.AdamW([p for p in prm.parameters() if p.requires_grad], lr=1e-3)
    lookahead, net = bilevel.Lookahead(prm, optimizer, clip_norm=1.0), InstanceNet()
    for _ in range(2):
        optimizer.zero_grad()
        with lookahead.inner(rows=prm.row_examples(batch)):
            logits = prm(batch)
            losses = example_losses(logits, batch)
            lookahead.backward(losses, net(from_batch(batch, logits, losses)) / len(batch))
        lookahead.step()
        lookahead.backward_outer(outer_loss(prm(batch), batch))
    assert net.net[2].weight.grad.abs().max().item() > 0

    prm.save_pretrained(tmp_path)
    again = PRM.from_pretrained(tmp_path)
    with torch.no_grad():
        after = prm.step_scores(batch)
        torch.testing.assert_close(again.step_scores(again.collator()(records)), after, atol=1e-5, rtol=0)
    assert (after - before).abs().max() > 1e-4
