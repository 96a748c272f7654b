"""Build the tiny InternVL that is both the world's policy and the base of its reward models.

    python -m dreamprm.world.build_base --out FOLDER          # ten minutes on two cores

It learns captions (every number of the image, exact) and solutions as a careless solver writes them (mistakes.py), so
it reads well and its samples at temperature 1 hold mistakes. The warm-up and the long decay matter: with a schedule
that decays over 1,000 updates, or on images that always show four things, it learns arithmetic and never to read.
Written to FOLDER every 300 updates. The result depends on the seed, and in its last digits on the machine.
"""

from __future__ import annotations

import argparse
import json
import math
import random
import sys
import time
from itertools import islice
from pathlib import Path

import torch
from torch import Tensor
from transformers import AyaVisionProcessor, InternVLForConditionalGeneration

from dreamprm.world.assets import make_config, make_processor, make_tokenizer, save_processor
from dreamprm.world.base_model import base_folder
from dreamprm.world.captions import DESCRIBE, DenseExample, dense_batch, dense_examples, dense_loss
from dreamprm.world.mistakes import Carelessness
from dreamprm.world.scene import STYLES, caption, draw, sample_scene

__all__ = ["build", "caption_accuracy", "main"]


def build(
    out: Path,
    *,
    seed: int = 0,
    num_updates: int = 2400,
    warm_up: int = 240,
    batch_size: int = 64,
    lr: float = 1.5e-3,
) -> None:
    """Train from random weights and write the folder `out`; progress goes to the standard output as JSON lines."""
    torch.manual_seed(seed)
    tokenizer = make_tokenizer()
    processor = make_processor(tokenizer)
    model = InternVLForConditionalGeneration(make_config(tokenizer))
    optimizer = torch.optim.AdamW(model.parameters(), lr=lr, betas=(0.9, 0.98), weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: _rate(step, warm_up, num_updates))
    stream = dense_examples(seed, careless=Carelessness())
    start = time.perf_counter()
    model.train()
    for update in range(1, num_updates + 1):
        batch = dense_batch(processor, list(islice(stream, batch_size)))
        loss = dense_loss(model, batch)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        if update % 100 == 0 or update == num_updates:
            report = {"update": update, "loss": round(loss.item(), 4), "seconds": round(time.perf_counter() - start)}
            if update % 300 == 0 or update == num_updates:
                report |= {"read": caption_accuracy(model, processor)}
                _save(model, processor, out)
            sys.stdout.write(json.dumps(report) + "\n")
            sys.stdout.flush()


def _rate(step: int, warm_up: int, num_updates: int) -> float:
    if step < warm_up:
        return (step + 1) / warm_up
    return 0.5 * (1 + math.cos(math.pi * (step - warm_up) / max(1, num_updates - warm_up)))


def _save(model: InternVLForConditionalGeneration, processor: AyaVisionProcessor, out: Path) -> None:
    model.save_pretrained(out)
    save_processor(processor, out)
    (out / "model.safetensors").chmod(0o644)


@torch.no_grad()
def caption_accuracy(
    model: InternVLForConditionalGeneration, processor: AyaVisionProcessor, num: int = 128
) -> dict[str, float]:
    """Style -> share of numbers that the model names right, given the caption so far, on fixed unseen scenes."""
    rng = random.Random("caption accuracy")
    result: dict[str, float] = {}
    model.eval()
    for style in STYLES:
        scenes = [sample_scene(style, rng.randint(1, 4), rng) for _ in range(num)]
        batch = dense_batch(processor, [DenseExample(draw(s), ((DESCRIBE, caption(s)),)) for s in scenes])
        labels: Tensor = batch.pop("labels")
        best = model(**batch).logits[:, :-1].argmax(dim=-1)
        wanted = labels[:, 1:]
        numbers = set(processor.tokenizer.convert_tokens_to_ids([f"Ġ{value}" for value in range(1, 10)]))
        asked = torch.isin(wanted, torch.tensor(sorted(numbers)))
        result[style] = round((best == wanted)[asked].float().mean().item(), 4)
    model.train()
    return result


def main(arguments: list[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description="Build the world's tiny InternVL.")
    parser.add_argument("--out", type=Path, default=base_folder(), help="folder to write (default: the shipped one)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--updates", type=int, default=2400)
    parser.add_argument("--threads", type=int, default=2)
    chosen = parser.parse_args(arguments)
    torch.set_num_threads(chosen.threads)
    build(chosen.out, seed=chosen.seed, num_updates=chosen.updates)


if __name__ == "__main__":
    main()
