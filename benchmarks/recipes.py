"""What the papers' recipes need of memory: plan=true of their models' real architectures, random weights.

    python -m benchmarks.recipes [--folder FOLDER] [--batch 8]

Nothing is downloaded: the configurations are the published ones of InternVL3-1B (`-hf`) and Qwen2-VL-2B-Instruct, the
tokenizer is the embedded world's (token ids do not matter to memory), and the chains are one of 2,048 tokens with six
tiles and their thumbnail, and one with an image of 512 pixels. No update is computed. Needs 16 GB of memory, 7 GB of
disk, and a quarter of an hour. Prints a table of Markdown: GB at the largest moment, and the largest micro-batch
that leaves a tenth of a card free.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from concurrent.futures import ProcessPoolExecutor
from importlib import import_module
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import PIL.Image
import torch
import transformers

from dreamprm.config import resolve_train
from dreamprm.config.launch import compose_config
from dreamprm.plan.planner import Plan, show_plan
from dreamprm.prm.processor import image_only
from dreamprm.progress import only_our_bars
from dreamprm.world.assets import CHAT_TEMPLATE, SPECIAL, make_tokenizer, save_processor

CARDS = (24, 80)
EIGHT_BIT = "optimizer@inner.optimizer=adamw8bit"
LEAN = ("hypergradient.check=off", "model.gradient_checkpointing=true")
VARIANTS: dict[str, tuple[str, ...]] = {
    "as published (AdamW)": (),
    "8-bit AdamW": (EIGHT_BIT,),
    "gradient checkpointing, no check": LEAN,
    "gradient checkpointing, no check, 8-bit AdamW": (*LEAN, EIGHT_BIT),
    "vision tower cached": ("model.vision=cached",),
    "vision tower cached, 8-bit AdamW": ("model.vision=cached", EIGHT_BIT),
    "LoRA of rank 16": ("model.lora.rank=16",),
    "LoRA of rank 16, vision tower cached": ("model.lora.rank=16", "model.vision=cached"),
}


def internvl3_1b(folder: Path) -> None:
    """InternViT-300M and Qwen2.5-0.5B, tiles of 448 pixels and 256 tokens each."""
    config, processor = internvl3()
    _save(transformers.InternVLForConditionalGeneration, config, folder)
    save_processor(processor, folder)


def internvl3(small: bool = False) -> tuple[Any, Any]:
    """Configuration and processor of InternVL3-1B.

    small: half as wide, a quarter of the layers, the tokenizer's own vocabulary; tower and text keep their proportion.
    """
    words = make_tokenizer()
    ids = words.get_vocab()
    half, layers = (2, 6) if small else (1, 24)
    text = transformers.Qwen2Config(
        vocab_size=len(words) if small else 151674,
        hidden_size=896 // half,
        intermediate_size=4864 // half,
        num_hidden_layers=layers,
        num_attention_heads=14 // half,
        num_key_value_heads=1 if small else 2,
        max_position_embeddings=32768,
        tie_word_embeddings=False,
        pad_token_id=ids[SPECIAL["pad_token"]],
        eos_token_id=ids[SPECIAL["eos_token"]],
        bos_token_id=None,
    )
    vision = transformers.InternVLVisionConfig(
        hidden_size=1024 // half,
        num_hidden_layers=layers,
        num_attention_heads=16 // half,
        intermediate_size=4096 // half,
        image_size=[448, 448],
        patch_size=[14, 14],
        attention_bias=True,
    )
    config = transformers.InternVLConfig(
        text_config=text,
        vision_config=vision,
        image_token_id=ids[SPECIAL["context_image_token"]],
        image_seq_length=256,
        downsample_ratio=0.5,
        tie_word_embeddings=False,
    )
    images = _pil("got_ocr2", "GotOcr2ImageProcessorPil")(size={"height": 448, "width": 448}, max_patches=6)
    processor = transformers.AyaVisionProcessor(
        images,
        words,
        patch_size=14,
        downsample_factor=2,
        img_size=448,
        image_token=SPECIAL["context_image_token"],
        img_patch_token=SPECIAL["context_image_token"],
        start_of_img_token=SPECIAL["start_image_token"],
        end_of_img_token=SPECIAL["end_image_token"],
        tile_token="",
        tile_global_token="",
        chat_template=CHAT_TEMPLATE,
    )
    return config, processor


def qwen2_vl_2b(folder: Path) -> None:
    """Qwen2-VL-2B-Instruct: 665 million parameters of a vision tower, 1.5 billion of language."""
    marks = {
        "image_token": "<|image_pad|>",
        "video_token": "<|video_pad|>",
        "vision_bos_token": "<|vision_start|>",
        "vision_eos_token": "<|vision_end|>",
    }
    words = transformers.PreTrainedTokenizerFast(
        tokenizer_object=make_tokenizer().backend_tokenizer,
        eos_token=SPECIAL["eos_token"],
        pad_token=SPECIAL["pad_token"],
        extra_special_tokens={**marks, "user": "<user>", "assistant": "<assistant>"},
    )
    ids = words.get_vocab()
    config = transformers.Qwen2VLConfig(
        text_config={
            "vocab_size": 151936,
            "hidden_size": 1536,
            "intermediate_size": 8960,
            "num_hidden_layers": 28,
            "num_attention_heads": 12,
            "num_key_value_heads": 2,
            "max_position_embeddings": 32768,
            "rope_parameters": {"rope_type": "default", "mrope_section": [16, 24, 24], "rope_theta": 1e6},
            "bos_token_id": None,
        },
        vision_config={"depth": 32, "embed_dim": 1280, "hidden_size": 1536, "mlp_ratio": 4, "num_heads": 16},
        tie_word_embeddings=True,
        image_token_id=ids[marks["image_token"]],
        video_token_id=ids[marks["video_token"]],
        vision_start_token_id=ids[marks["vision_bos_token"]],
        vision_end_token_id=ids[marks["vision_eos_token"]],
    )
    _save(transformers.Qwen2VLForConditionalGeneration, config, folder)
    processor = image_only(transformers.Qwen2VLProcessor)(
        _pil("qwen2_vl", "Qwen2VLImageProcessorPil")(),
        words,
        chat_template=CHAT_TEMPLATE.replace("<IMG_CONTEXT>", "<|vision_start|><|image_pad|><|vision_end|>"),
    )
    processor.save_pretrained(folder)


def _pil(module: str, name: str) -> Any:
    return getattr(import_module(f"transformers.models.{module}.image_processing_pil_{module}"), name)


def _save(model_class: Any, config: Any, folder: Path) -> None:
    if (folder / "model.safetensors").is_file():
        return
    with torch.device("meta"):
        model = model_class(config)
    # Any numbers do; zeros on disk are quick, and a plan reads none of them.
    model = model.to(torch.bfloat16).to_empty(device="cpu")
    model.tie_weights()
    print(f"{folder.name}: {sum(value.numel() for value in model.parameters()):,} parameters")
    model.save_pretrained(folder, max_shard_size="100GB")


def write_chains(folder: Path, width: int, height: int, num_words: int) -> None:
    """A training and a meta file of one question with one image each, in eight steps."""
    for name, number in (("train", 1), ("meta", 2)):
        PIL.Image.new("RGB", (width, height), (number, 0, 0)).save(folder / f"{name}.png")
        row = {
            "question": f"{number} ?",
            "steps": [" and" * (num_words // 8) for _ in range(8)],
            "labels": [1, 0] * 4,
            "correct": True,
            "images": [f"{name}.png"],
        }
        (folder / f"{name}.jsonl").write_text(json.dumps(row) + "\n")


def plan(folder: Path, experiment: str, batch: int, extra: tuple[str, ...]) -> Plan:
    """The plan of a recipe for the model and the chains of the folder."""
    only_our_bars()
    files = [f"{part}.path={folder / name}.jsonl" for part, name in (("data", "train"), ("meta", "meta"))]
    sizes = [f"inner.batch_size={batch}", f"outer.batch_size={batch}"]
    settings = [f"+experiment={experiment}", "data=files", "meta=files", f"model.path={folder}", *files, *sizes, *extra]
    return show_plan(resolve_train(compose_config("train", settings)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()) / "recipes")
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--recipes", default="dreamprm15_net,dreamprm", help="comma-separated")
    options = parser.parse_args()
    rows = ["| recipe | settings | GB at batch 1 | largest micro-batch on 24 GB | on 80 GB |", "|---|---|---|---|---|"]
    for recipe in options.recipes.split(","):
        build, size, words = (
            (qwen2_vl_2b, (512, 512), 256) if recipe == "dreamprm" else (internvl3_1b, (1344, 896), 192)
        )
        folder: Path = options.folder / build.__name__
        folder.mkdir(parents=True, exist_ok=True)
        build(folder)
        write_chains(folder, *size, words)
        for name, extra in VARIANTS.items():
            # A process each: two models at once may be more than the machine has.
            with ProcessPoolExecutor(1, get_context("spawn")) as pool:
                found = pool.submit(plan, folder, recipe, options.batch, extra).result()
            most = [found.largest_batch(int(0.9 * card * 2**30)) or "-" for card in CARDS]
            rows.append(f"| `{recipe}` | {name} | {found.peak / 2**30:.1f} | {most[0]} | {most[1]} |")
    print("\n".join(rows))


if __name__ == "__main__":
    main()
