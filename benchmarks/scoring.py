"""Eight candidates of one question: scored over a shared prefix, against one by one, and against one candidate alone.

    python -m benchmarks.scoring [--text] [--pairs 7] [--shared 400] [--own 100] [--candidates 8]

InternVL3-1B's architecture at half its width and a quarter of its layers (tower and language model keep their
proportion), random weights; the question has one image of one tile, 256 tokens, and with it takes four fifths of a
candidate's tokens. The outer pass of a meta-update (`outer.by_question`) is one forward and backward of the same
candidates, tower and all. --text: a Qwen2 of 11 M parameters and no image, where tokens alone are shared. Prints the
median of the ratios of alternating pairs, and the largest difference of the scores.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from typing import Any

import PIL.Image
import torch
import transformers

from benchmarks.recipes import internvl3
from dreamprm.data.readers.images import as_images
from dreamprm.data.record import Image, Record
from dreamprm.prm import PRM
from dreamprm.prm.shared_prefix import SharedPrefixScorer
from dreamprm.world import base_folder

IMAGE_TOKENS = 256


def build() -> PRM:
    """The PRM with a vision tower."""
    config, processor = internvl3(small=True)
    torch.manual_seed(0)
    return PRM(transformers.InternVLForConditionalGeneration(config), processor).eval()


def build_text() -> PRM:
    """The PRM that reads text alone."""
    tokenizer: Any = transformers.AutoTokenizer.from_pretrained(base_folder())
    torch.manual_seed(0)
    sizes: dict[str, Any] = {"hidden_size": 384, "intermediate_size": 1024, "num_hidden_layers": 6}
    heads: dict[str, Any] = {"num_attention_heads": 6, "num_key_value_heads": 6}
    config = transformers.Qwen2Config(vocab_size=len(tokenizer), max_position_embeddings=4096, **sizes, **heads)
    return PRM(transformers.Qwen2ForCausalLM(config), tokenizer).eval()


def candidates(shared: int, own: int, number: int, images: tuple[Image, ...]) -> list[Record]:
    """Chains of about `shared` + `own` tokens, the images' among them; a digit is a token."""
    shared -= IMAGE_TOKENS * len(images)
    question = " ".join(str(place % 10) for place in range(shared))
    found = []
    for row in range(number):
        steps = tuple(" ".join(str((place + row) % 10) for place in range(own // 5)) for _ in range(4))
        found.append(
            Record(key=f"{row}", source="", domain="", group="", question=question, steps=steps, images=images)
        )
    return found


def seconds(run: Callable[[], Any]) -> float:
    began = time.perf_counter()
    run()
    return time.perf_counter() - began


def _backward(prm: PRM, log_odds: torch.Tensor) -> torch.Tensor:
    prm.zero_grad()
    log_odds.min(1).values.sigmoid().mean().backward()
    return torch.cat([p.grad.flatten() for p in prm.parameters() if p.grad is not None])


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scoring", description=(__doc__ or "").splitlines()[0])
    for name, default in (("pairs", 7), ("shared", 400), ("own", 100), ("candidates", 8)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--text", action="store_true", help="no image")
    options = parser.parse_args()
    prm = build_text() if options.text else build()
    images = as_images(None if options.text else PIL.Image.effect_noise((448, 448), 50).convert("RGB"))
    records = candidates(options.shared, options.own, options.candidates, images)
    together: Callable[[], Any] = lambda: prm.score_records(records, options.candidates)  # noqa: E731
    whole: Callable[[], Any] = lambda: prm.score_records(records, options.candidates, share_prefix=False)  # noqa: E731
    one: Callable[[], Any] = lambda: prm.score_records(records[:1])  # noqa: E731
    tokens = prm.collator()(records[:1]).inputs["input_ids"].shape[1]
    worst = max(abs(a - b) for left, right in zip(together(), whole()) for a, b in zip(left, right))
    one()
    ratios = []
    for _ in range(options.pairs):
        first, shared, alone = seconds(one), seconds(together), seconds(whole)
        ratios.append((shared / first, alone / first, alone / shared))
    shared, alone, gain = (statistics.median(column) for column in zip(*ratios))
    scorer, collate = SharedPrefixScorer(prm, prm.collator(cache=options.candidates)), prm.collator(cache=99)
    passes: list[Callable[[], Any]] = [
        lambda: _backward(prm, scorer.of_batch(records)),
        lambda: _backward(prm, prm(collate(records))),
    ]
    gradients = [each() for each in passes]
    off = ((gradients[0] - gradients[1]).norm() / gradients[1].norm()).item()
    outer = statistics.median(seconds(passes[1]) / seconds(passes[0]) for _ in range(options.pairs))
    print(f"{options.candidates} candidates of {tokens} tokens; largest difference of a score {worst:.1e}")
    print(
        f"shared prefix {shared:.2f}, one by one in a batch {alone:.2f} times the time of one; {gain:.2f} times faster"
    )
    print(f"outer pass, forward and backward: {outer:.2f} times faster; gradients differ by {off:.1e} of their norm")


if __name__ == "__main__":
    main()
