"""A small run: a random tiny InternVL, 24 training and 12 meta chains with drawn images, as files."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from PIL import Image

__all__ = ["Small", "copy_run", "make_small", "same_result", "write_rows"]

NUM_TRAIN, NUM_META = 24, 12


class Small:
    """Paths of the files, and the words of a command line that trains on them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.train, self.meta, self.base = folder / "train.jsonl", folder / "meta.jsonl", folder / "base"

    def rows(self, path: Path) -> list[dict[str, object]]:
        return [json.loads(line) for line in path.read_text().splitlines()]

    def words(self, *more: str, **changes: object) -> list[str]:
        """`words("inner.updates=5", data=path)`: the small run, changed. None leaves a word out."""
        given: dict[str, object] = {
            "data": "files",
            "meta": "files",
            "data.path": self.train,
            "data.images": self.folder,
            "meta.path": self.meta,
            "meta.images": self.folder,
            "model.path": self.base,
            "device": "cpu",
            "threads": 1,
            "cold.updates": 2,
            "cold.batch_size": 4,
            "inner.updates": 3,
            "inner.batch_size": 4,
            "outer.batch_size": 4,
            "outer.begin": 1,
            "checkpoint.every": 1,
            "checkpoint.keep": 3,
            "evaluate.batch_size": 8,
            "evaluate.num_resamples": 10,
        }
        own = dict(word.split("=", 1) for word in more if "=" in word)
        given |= own | {name.replace("__", "."): value for name, value in changes.items()}
        listed = [f"{name}={value}" for name, value in given.items() if value is not None]
        return [*listed, *(word for word in more if "=" not in word)]


def make_small(folder: Path) -> Small:
    """Write the files."""
    import torch
    from transformers import InternVLForConditionalGeneration

    from dreamprm.world.assets import make_config, make_processor, make_tokenizer

    folder.mkdir(parents=True)
    tokenizer = make_tokenizer()
    torch.manual_seed(0)
    InternVLForConditionalGeneration(make_config(tokenizer)).save_pretrained(folder / "base")
    make_processor(tokenizer).save_pretrained(folder / "base")
    for name, count, first in (("train", NUM_TRAIN, 0), ("meta", NUM_META, 100)):
        rows = [_row(folder, first + place, judged=name == "meta") for place in range(count)]
        write_rows(folder / f"{name}.jsonl", rows)
    return Small(folder)


def _row(folder: Path, number: int, *, judged: bool) -> dict[str, object]:
    Image.new("RGB", (32, 32), (number * 7 % 256, number * 13 % 256, 128)).save(folder / f"{number}.png")
    row: dict[str, object] = {
        "question": f"What is {number} + 1?",
        "steps": [f"{number} + 1 = {number + 1 + number % 2}", f"The answer is {number + 1 + number % 2}."],
        "images": [f"{number}.png"],
        "domain": ("book", "web")[number % 2],
    }
    return row | ({"correct": number % 3 > 0} if judged else {"labels": [1, number % 2]})


def write_rows(path: Path, rows: list[dict[str, object]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


_SAME = ("weigher.safetensors", "weights.parquet", "prm/model.safetensors", "metrics.jsonl")


def same_result(one: Path, other: Path, without: tuple[str, ...] = ()) -> str:
    """Nothing where two finished runs are the same bit for bit; else what differs.

    Compared are the PRM, the weigher, the weights, every row of the metrics and the last checkpoint's tensors.
    """
    names = [*(name for name in _SAME if name not in without), f"{_last(one)}/state.safetensors"]
    missing = [name for name in names if not (other / name).is_file()]
    if missing:
        return f"{', '.join(missing)} not written"
    differing = [name for name in names if (one / name).read_bytes() != (other / name).read_bytes()]
    return f"{', '.join(differing)} differ from the undisturbed run" if differing else ""


def _last(run: Path) -> str:
    found = sorted(path.name for path in (run / "checkpoints").glob("update-*"))
    return f"checkpoints/{found[-1]}" if found else "checkpoints"


def copy_run(source: Path, target: Path) -> Path:
    shutil.copytree(source, target)
    return target
