"""What the `bilevel` weighter costs in DataFlex, by the size of the model: the host's own runs and ours, in turns.

    python -m benchmarks.training.dataflex_overhead --python ENV/bin/python

ENV is DataFlex's environment (see `dataflex_noise.py`). The meta batch is as large as the training batch, so the floor
is 2. Each run is a process of the host's; an update's processor seconds are those from one step of the model's
optimizer to the next, in the median, which leaves out the first ones, that are compared with autograd.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import tempfile
from itertools import pairwise
from pathlib import Path

from benchmarks.training.dataflex_noise import host
from benchmarks.training.poisoned_answers import LETTERS, save_model

# width, layers, letters of an instruction, rows of a batch
SIZES = {"0.1M": (64, 2, 4, 50), "1M": (128, 4, 60, 8), "9M": (384, 6, 120, 4)}

PROBE = """
import json, time
from torch.optim.optimizer import register_optimizer_step_post_hook
from dreamprm.integrations.dataflex_weighter import main
stamps = []
def stepped(optimizer, *_):
    if sum(len(group["params"]) for group in optimizer.param_groups) > 1:  # the weigher's has one
        stamps.append(time.process_time())
register_optimizer_step_post_hook(stepped)
main()
print("STAMPS", json.dumps(stamps))
"""


def seconds(python: str, folder: Path, arm: str, updates: int, rows: int) -> float:
    """Processor seconds of the median update of a run of the host's."""
    changes = {"max_steps": updates, "save_strategy": "no", "per_device_train_batch_size": rows, "cutoff_len": 512}
    # DataFlex's own weighter that never begins to weigh: a plain run.
    changes |= {"component_name": "bilevel"} if arm == "bilevel" else {"component_name": "loss", "warmup_step": 10**6}
    printed = host(python, folder, arm, ["-c", PROBE], **changes)
    stamps = json.loads(printed.rpartition("STAMPS ")[2].splitlines()[0])
    return statistics.median(later - sooner for sooner, later in pairwise(stamps))


def write(folder: Path, width: int, layers: int, letters: int, rows: int) -> int:
    """Data and model of a size, as the host reads them; the model's number of parameters."""
    draw = random.Random(0)
    made = [
        {"instruction": "".join(draw.choices(LETTERS, k=letters)), "input": "", "output": "a" * max(1, letters // 4)}
        for _ in range(400)
    ]
    files = {"poisoned": made[:200], "trusted": made[200:]}
    for name, part in files.items():
        (folder / f"{name}.json").write_text(json.dumps(part))
    (folder / "dataset_info.json").write_text(json.dumps({name: {"file_name": f"{name}.json"} for name in files}))
    weighters = {"bilevel": {"params": {"lr": 0.2, "meta_batch_size": rows}},
                 "loss": {"params": {"strategy": "linupper", "delta": 1.0}}}  # fmt: skip
    (folder / "components.yaml").write_text(json.dumps({"weighters": weighters}))
    return save_model(folder / "model", width, layers, max_tokens=512)


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--python", required=True, help="the interpreter of DataFlex's environment")
    parser.add_argument("--pairs", type=int, default=3)
    parser.add_argument("--updates", type=int, default=13)
    parser.add_argument("--sizes", nargs="+", choices=SIZES, default=list(SIZES))
    settings = parser.parse_args(argv)
    for name in settings.sizes:
        width, layers, letters, rows = SIZES[name]
        with tempfile.TemporaryDirectory() as folder:
            parameters = write(Path(folder), width, layers, letters, rows)
            spent: dict[str, list[float]] = {"loss": [], "bilevel": []}
            for _ in range(settings.pairs):
                for arm, found in spent.items():
                    found.append(seconds(settings.python, Path(folder), arm, settings.updates, rows))
            own, ours = (statistics.median(found) for found in spent.values())
            print(
                f"{parameters:>12,} parameters, {rows} rows of {letters} letters: own {own * 1e3:6.0f} ms   "
                f"with weights {ours * 1e3:6.0f} ms an update   ratio {ours / own:.2f}",
                flush=True,
            )


if __name__ == "__main__":
    main()
