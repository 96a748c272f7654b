"""Six model families in tiny random configurations, vision tower trained too: ghost, jvp and unroll agree."""

from __future__ import annotations

import warnings
from typing import Any

import pytest
import torch
import transformers
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

from bilevel import Lookahead

NUM_EXAMPLES, LENGTH, VOCABULARY, IMAGE = 3, 14, 60, 50
TEXT = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "intermediate_size": 48,
    "max_position_embeddings": 64,
    "attention_dropout": 0.0,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
}
ROPE = {"rope_type": "default", "mrope_section": [1, 1, 2], "rope_theta": 10000.0}
TOKENS = {"image_token_id": IMAGE, "video_token_id": 51, "vision_start_token_id": 52, "vision_end_token_id": 53}


def text(num_image_tokens: list[int]) -> tuple[Tensor, Tensor]:
    """Token ids with the given number of image tokens in each row, and a mask with padding on the right."""
    ids = torch.randint(3, 40, (NUM_EXAMPLES, LENGTH))
    mask = torch.ones_like(ids)
    for row, count in enumerate(num_image_tokens):
        ids[row, 1] = 52
        ids[row, 2 : 2 + count] = IMAGE
    mask[-1, -2:] = 0
    return ids, mask


def internvl() -> tuple[nn.Module, dict[str, Any], dict[str, Tensor]]:
    vision = {
        "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24,
        "image_size": [8, 8], "patch_size": [2, 2],
    }  # fmt: skip
    config = transformers.InternVLConfig(
        vision_config=vision, text_config={"model_type": "qwen2", **TEXT}, image_token_id=IMAGE, image_seq_length=4
    )
    ids, mask = text([8, 4, 4])  # the first example has two tiles
    inputs = {"input_ids": ids, "attention_mask": mask, "pixel_values": torch.randn(4, 3, 8, 8)}
    tiles = torch.tensor([0, 0, 1, 2])
    rows = {"model.vision_tower": tiles, "model.multi_modal_projector": tiles}
    return transformers.InternVLForConditionalGeneration(config), inputs, rows


def qwen(kind: str) -> tuple[nn.Module, dict[str, Any], dict[str, Tensor]]:
    grid = torch.tensor([[1, 4, 4], [1, 2, 4], [1, 2, 2]])
    patches = grid.prod(-1)
    ids, mask = text([int(n) // 4 for n in patches])
    common = {"depth": 2, "num_heads": 2, "patch_size": 2, "spatial_merge_size": 2, "temporal_patch_size": 2}
    if kind == "qwen2_vl":
        vision = {**common, "embed_dim": 16, "hidden_size": 32, "mlp_ratio": 2, "in_channels": 3}
        config: Any = transformers.Qwen2VLConfig(
            vision_config=vision, text_config={**TEXT, "rope_parameters": ROPE}, **TOKENS
        )
        model: Any = transformers.Qwen2VLForConditionalGeneration(config)
    elif kind == "qwen2_5_vl":
        vision = {**common, "hidden_size": 16, "out_hidden_size": 32, "intermediate_size": 24, "window_size": 8,
                  "fullatt_block_indexes": [1]}  # fmt: skip
        config = transformers.Qwen2_5_VLConfig(
            vision_config=vision, text_config={**TEXT, "rope_parameters": ROPE}, **TOKENS
        )
        model = transformers.Qwen2_5_VLForConditionalGeneration(config)
    else:
        vision = {**common, "hidden_size": 16, "out_hidden_size": 32, "intermediate_size": 24,
                  "num_position_embeddings": 16, "deepstack_visual_indexes": [0]}  # fmt: skip
        config = transformers.Qwen3VLConfig(
            vision_config=vision, text_config={**TEXT, "head_dim": 8, "rope_parameters": ROPE}, **TOKENS
        )
        model = transformers.Qwen3VLForConditionalGeneration(config)
    inputs = {
        "input_ids": ids,
        "attention_mask": mask,
        "pixel_values": torch.randn(int(patches.sum()), 3 * 2 * 2 * 2),
        "image_grid_thw": grid,
        "mm_token_type_ids": (ids == IMAGE).int(),
    }
    return model, inputs, {"model.visual": torch.arange(3).repeat_interleave(patches)}


def llava_onevision() -> tuple[nn.Module, dict[str, Any], dict[str, Tensor]]:
    vision = {"model_type": "siglip_vision_model", "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2,
              "intermediate_size": 24, "image_size": 4, "patch_size": 2, "vision_use_head": False}  # fmt: skip
    config = transformers.LlavaOnevisionConfig(
        vision_config=vision,
        text_config={"model_type": "qwen2", **TEXT},
        image_token_id=IMAGE,
        image_grid_pinpoints=[[4, 4], [4, 8]],
        vision_feature_layer=-1,
        vision_aspect_ratio="anyres_max_9",
    )
    # 4 tokens of the base tile; 4 x 4 pixels: one tile more, 2 rows of 2 and a newline each = 6.
    ids, mask = text([10, 10, 10])
    inputs = {
        "input_ids": ids,
        "attention_mask": mask,
        "pixel_values": torch.randn(3, 2, 3, 4, 4),
        "image_sizes": torch.tensor([[4, 4]] * 3),
    }
    tiles = torch.arange(3).repeat_interleave(2)
    rows = {"model.vision_tower": tiles, "model.multi_modal_projector": tiles, "model.image_newline": torch.arange(3)}
    return transformers.LlavaOnevisionForConditionalGeneration(config), inputs, rows


def bert() -> tuple[nn.Module, dict[str, Any], dict[str, Tensor]]:
    config = transformers.BertConfig(
        vocab_size=VOCABULARY, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=48,
        max_position_embeddings=32, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0,
    )  # fmt: skip
    ids, mask = text([0, 0, 0])
    return transformers.BertForTokenClassification(config), {"input_ids": ids, "attention_mask": mask}, {}


FAMILIES = {
    "internvl": internvl,
    "qwen2_vl": lambda: qwen("qwen2_vl"),
    "qwen2_5_vl": lambda: qwen("qwen2_5_vl"),
    "qwen3_vl": lambda: qwen("qwen3_vl"),
    "llava_onevision": llava_onevision,
    "bert": bert,
}


def hypergradient(family: str, product: str, dtype: torch.dtype = torch.float32, dropout: float = 0.0, **options: Any):
    """dF/draw of one meta-update after three warm-up updates, and the agreement at its check."""
    torch.manual_seed(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # transformers' own deprecations while a configuration is built
        model, inputs, rows = FAMILIES[family]()
    with torch.no_grad():
        for parameter in model.parameters():  # biases, class tokens and scales start at constants: move all
            parameter.add_(0.05 * torch.randn_like(parameter))
    model = model.to(dtype)
    inputs = {k: v.to(dtype) if v.is_floating_point() else v for k, v in inputs.items()}
    model.train()
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = dropout
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=0.1)
    raw = torch.randn(NUM_EXAMPLES, dtype=torch.float32).requires_grad_()
    label = torch.randint(0, 2, (NUM_EXAMPLES,))

    def losses(shift: int) -> Tensor:
        logits = model(**inputs).logits[:, -3].float()
        return F.cross_entropy(logits, (label + shift) % 2, reduction="none")

    lookahead = Lookahead(model, optimizer, product, clip_norm=0.5, **options)
    for number in range(4):
        torch.manual_seed(number)
        optimizer.zero_grad()
        with lookahead.inner(rows=rows, record=number == 3):
            lookahead.backward(losses(0), F.softplus(raw) / NUM_EXAMPLES)
        lookahead.step()
    lookahead.backward_outer(losses(1).mean())
    return raw.grad, lookahead.report["check"]


@pytest.mark.parametrize("family", FAMILIES)
def test_products_agree(family: str) -> None:
    ghost, check = hypergradient(family, "ghost")
    assert check < 1e-4  # fp32, products that partly cancel
    for other in ("jvp", "unroll"):
        value, _ = hypergradient(family, other)
        # fp32: a few hundred roundings of 6e-8 each on sums that partly cancel
        assert float((ghost - value).norm() / value.norm()) < 1e-5, other


@pytest.mark.parametrize("family", FAMILIES)
def test_bfloat16_points_the_same_way(family: str) -> None:
    # One attention kernel for both: otherwise the two runs reach different bf16 parameters before they are compared.
    with sdpa_kernel(SDPBackend.MATH):
        ghost, check = hypergradient(family, "ghost", torch.bfloat16)
        jvp, _ = hypergradient(family, "jvp", torch.bfloat16)
    assert check < 0.05  # against plain autograd, parameter by parameter
    assert float(torch.cosine_similarity(ghost, jvp, 0)) > 0.999


def test_dropout_is_replayed() -> None:
    ghost, _ = hypergradient("bert", "ghost", dropout=0.1)
    without, _ = hypergradient("bert", "ghost")
    assert float((ghost - without).norm() / without.norm()) > 0.01
    for other in ("jvp", "unroll"):
        value, _ = hypergradient("bert", other, dropout=0.1)
        assert float((ghost - value).norm() / value.norm()) < 1e-5, other
