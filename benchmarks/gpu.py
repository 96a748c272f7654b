"""On a GPU: a whole update of DreamPRM-1.5's recipe on InternVL3-1B's architecture, against its floor and its plan.

    python -m benchmarks.gpu                       # about ten minutes; without a GPU it says so and ends with status 2
    python -m benchmarks.gpu --device cpu --tiny   # the same code on the embedded world's model

Random weights; one chain of 2,048 tokens with six tiles and their thumbnail, as often as the batch is large. `floor`
makes the passes of an update (inner and outer, forward and backward, the optimizer's step) without the hypergradient.
Memory is what torch has handed out at most; `planned` is the largest moment of `plan=true` for the same settings.
"""

from __future__ import annotations

import argparse
import gc
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn

from benchmarks.recipes import internvl3_1b, write_chains
from benchmarks.training.__main__ import floor_update
from dreamprm.config import resolve_train
from dreamprm.config.launch import compose_config
from dreamprm.errors import UserError
from dreamprm.phases.bilevel_phase import BilevelPhase
from dreamprm.phases.state import Run
from dreamprm.plan.planner import plan_run
from dreamprm.trainer.run import prepare

VARIANTS: dict[str, tuple[str, ...]] = {
    "ghost": (),
    "jvp": ("hypergradient.product=jvp",),
    "ghost, 8-bit AdamW": ("optimizer@inner.optimizer=adamw8bit",),
    "ghost, tower frozen": ("model.vision=frozen",),
    "ghost, tower cached": ("model.vision=cached",),
    "ghost, LoRA of rank 16": ("model.lora.rank=16",),
    "ghost, checkpointing": ("model.gradient_checkpointing=true",),
}
CHECK_OFF = "hypergradient.check=off"  # the comparison with autograd is due at updates 1, 2, 4, 8 alone


def settings(folder: Path | None, batch: int, device: str, extra: tuple[str, ...]) -> list[str]:
    sizes = [f"inner.batch_size={batch}", f"outer.batch_size={batch}", "outer.begin=0", "cold.updates=0"]
    common = [*sizes, "precision=bf16", f"device={device}", CHECK_OFF, "inner.updates=1000", *extra]
    if folder is None:
        return ["data.num_chains=16", *common]
    files = [f"{part}.path={folder / name}.jsonl" for part, name in (("data", "train"), ("meta", "meta"))]
    return ["+experiment=dreamprm15_net", "data=files", "meta=files", f"model.path={folder}", *files, *common]


def build(words: list[str]) -> Run:
    """The run, with weights that give finite numbers."""
    run = prepare(resolve_train(compose_config("train", words)), Path("."))[1]
    generator = torch.Generator(run.device).manual_seed(0)
    for name, value in run.prm.named_parameters():
        if value.is_floating_point():
            if value.ndim > 1:
                nn.init.normal_(value, std=0.02, generator=generator)
            else:
                nn.init.constant_(value, 0.0 if name.endswith("bias") else 1.0)
    run.prm.train()
    return run


class Meter:
    """Seconds and the most memory of some calls, after one that warms up."""

    def __init__(self, device: torch.device) -> None:
        self.gpu = device.type == "cuda"

    def __call__(self, update: Callable[[], Any], number: int) -> tuple[float, float]:
        update()
        if self.gpu:
            torch.cuda.synchronize()
            torch.cuda.reset_peak_memory_stats()
        began = time.perf_counter()
        for _ in range(number):
            update()
        if self.gpu:
            torch.cuda.synchronize()
        seconds = (time.perf_counter() - began) / number
        return seconds, torch.cuda.max_memory_allocated() / 2**30 if self.gpu else float("nan")


def one(folder: Path | None, batch: int, device: str, extra: tuple[str, ...], number: int) -> dict[str, float]:
    run = build(settings(folder, batch, device, extra))
    planned = plan_run(run).peak / 2**30
    phase, meter = BilevelPhase(run), Meter(run.device)

    def update() -> None:
        phase.update()
        run.update += 1

    floor, floor_memory = meter(floor_update(phase), number)
    whole, memory = meter(update, number)
    return {"seconds": whole, "floor": floor, "memory": memory, "floor memory": floor_memory, "planned": planned}


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--tiny", action="store_true", help="the embedded world's model")
    parser.add_argument("--batches", default="1,4")
    parser.add_argument("--updates", type=int, default=5)
    parser.add_argument("--only", default="", help="a word that the variants' names hold")
    options = parser.parse_args(argv)
    if options.device == "cuda" and not torch.cuda.is_available():
        sys.stderr.write("no GPU here: nothing was measured (--device cpu --tiny tries the code)\n")
        return 2
    name = torch.cuda.get_device_name() if options.device == "cuda" else "CPU"
    print(f"{name}, torch {torch.__version__}, bf16 autocast over fp32 parameters")
    print("| variant | batch | seconds of an update | of the floor | GB | GB of the floor | GB planned |")
    print("|---|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as made:
        folder = None if options.tiny else Path(made)
        if folder is not None:
            internvl3_1b(folder)
            write_chains(folder, 1344, 896, 192)
        for batch in map(int, options.batches.split(",")):
            for variant, extra in VARIANTS.items():
                if options.only in variant:
                    print(_row(variant, batch, folder, options, extra), flush=True)
                    gc.collect()
                    if options.device == "cuda":
                        torch.cuda.empty_cache()
    return 0


def _row(variant: str, batch: int, folder: Path | None, options: argparse.Namespace, extra: tuple[str, ...]) -> str:
    try:
        found = one(folder, batch, options.device, extra, options.updates)
    except torch.OutOfMemoryError:
        return f"| {variant} | {batch} | does not fit | | | | |"
    except (UserError, ImportError, RuntimeError) as error:
        return f"| {variant} | {batch} | not measured: {' '.join(str(error).split())[:120]} | | | | |"
    ratio = found["seconds"] / found["floor"]
    sizes = f"{found['memory']:.2f} | {found['floor memory']:.2f} | {found['planned']:.2f}"
    return f"| {variant} | {batch} | {found['seconds']:.3f} | {ratio:.2f} | {sizes} |"


if __name__ == "__main__":
    sys.exit(main())
