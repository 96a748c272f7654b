"""A random tiny InternVL and chains of the embedded world as files, so that whole runs take a second."""

from __future__ import annotations

import json
import os
import random
from collections.abc import Callable
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import pytest

from dreamprm.config import TrainConfig, resolve_train
from dreamprm.config.launch import compose_config

NUM_TRAIN, NUM_META = 24, 12


def _rows(count: int, seed: int, images: Path, judged: bool) -> list[dict[str, object]]:
    from dreamprm.world.mistakes import Carelessness, careless_solution
    from dreamprm.world.questions import check_answer, check_step, sample_question
    from dreamprm.world.scene import draw

    rng = random.Random(seed)
    rows: list[dict[str, object]] = []
    for place in range(count):
        domain = ("count", "chart")[place % 2]
        question = sample_question(domain, rng)
        steps = [step.text for step in careless_solution(question, Carelessness(), rng)]
        name = f"{seed}-{place}.png"
        (images / name).write_bytes(draw(question.scene))
        row: dict[str, object] = {"question": question.text, "steps": steps, "images": [name], "domain": domain}
        if judged:
            row["correct"] = check_answer(question, steps)
        else:
            row["labels"] = [float(check_step(question, step)) for step in steps]
        rows.append(row | {"group": question.identity})
    return rows


@pytest.fixture(scope="session")
def tiny_files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with base/ (random weights), train.jsonl, meta.jsonl and their images."""
    import torch
    from transformers import InternVLForConditionalGeneration

    from dreamprm.world.assets import make_config, make_processor, make_tokenizer

    folder = tmp_path_factory.mktemp("tiny")
    tokenizer = make_tokenizer()
    torch.manual_seed(0)
    InternVLForConditionalGeneration(make_config(tokenizer)).save_pretrained(folder / "base")
    make_processor(tokenizer).save_pretrained(folder / "base")
    for name, count, seed, judged in (("train", NUM_TRAIN, 1, False), ("meta", NUM_META, 2, True)):
        rows = _rows(count, seed, folder, judged)
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


@pytest.fixture
def tiny_settings(tiny_files: Path, tmp_path: Path) -> Callable[..., TrainConfig]:
    """Settings of a run on the tiny files: `tiny_settings("inner.updates=4", run="a")`."""

    def make(*overrides: str, run: str = "run", experiment: str = "instance_net") -> TrainConfig:
        return resolve_train(
            compose_config("train", [*tiny_overrides(tiny_files, tmp_path / run, experiment), *overrides])
        )

    return make


def tiny_overrides(files: Path, run_dir: Path, experiment: str) -> list[str]:
    return [
        f"+experiment={experiment}",
        "data=files",
        "meta=files",
        f"data.path={files / 'train.jsonl'}",
        f"data.images={files}",
        f"meta.path={files / 'meta.jsonl'}",
        f"meta.images={files}",
        f"model.path={files / 'base'}",
        "cold.updates=2",
        "cold.batch_size=4",
        "inner.updates=3",
        "inner.batch_size=4",
        "outer.batch_size=4",
        "outer.begin=1",  # these runs end before the default's first outer update
        "checkpoint.every=0",
        "evaluate.batch_size=8",
        f"run_dir={run_dir}",
    ]
