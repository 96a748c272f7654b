"""Train the base on image-text matching: what the world's judges start from.

    python -m dreamprm.world.build_reader --out FOLDER        # ten minutes on two cores

The base captions and solves, but nothing ever asked it whether a text fits an image, as vision-language models are
asked before anyone makes a judge of them (BLIP's matching, arXiv 2201.12086). So it is trained on captions of random
scenes, half of whose clauses name another number, by a head of its own that is thrown away: the verdict's rows stay
those of the base, and tell little. Captions and solutions stay beside it. No question, chain or label of the world goes
into it. It is a pretrained model's knowledge, and it is named here because it helps: a judge can compare from the first
update on. The result depends on the machine in its last digits.
"""

from __future__ import annotations

import argparse
import itertools
import random
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from dreamprm.data.record import Record
from dreamprm.loss import example_losses
from dreamprm.prm import PRM
from dreamprm.prm.heads import LinearHead
from dreamprm.world.base_model import base_folder, reader_folder
from dreamprm.world.captions import DESCRIBE, dense_batch, dense_examples, dense_loss
from dreamprm.world.scene import LARGEST, STYLES, draw, sample_scene

__all__ = ["main", "matching_examples", "train_matching"]

CYCLES = (240, 120)
MATCHED, DESCRIBED, LR, DENSE_WEIGHT = 64, 16, 1e-3, 0.5


def train_matching(prm: Any, updates: int, seed: int = 0) -> None:
    """One cycle of the rate: trains all but the vision tower and the verdict's rows."""
    torch.manual_seed(seed)
    prm.freeze_vision(cache=False)
    verdict, prm.head = prm.head, LinearHead(prm.body.config.text_config.hidden_size)
    prm.train()
    collate = prm.collator()
    parameters = [value for value in prm.parameters() if value.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=LR, weight_decay=0.01)
    rates = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, LR, total_steps=updates, pct_start=0.05, cycle_momentum=False
    )
    matching, dense = matching_examples(seed), dense_examples(seed)
    for update in range(updates):
        batch = collate(list(itertools.islice(matching, MATCHED)))
        optimizer.zero_grad()
        loss = example_losses(prm(batch), batch).mean()
        loss.backward()
        described = dense_batch(prm.processor, list(itertools.islice(dense, DESCRIBED)))
        (DENSE_WEIGHT * dense_loss(prm.transformer, described)).backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        rates.step()
        if (update + 1) % 20 == 0:
            sys.stdout.write(f"update {update + 1} of {updates}, matching {loss.item():.3f}\n")
            sys.stdout.flush()
    prm.head = verdict


def matching_examples(seed: int = 0) -> Iterator[Record]:
    """An endless stream of captions, clause by clause in any order: half of them with another number, a neighbour in
    half of the cases."""
    rng = random.Random(f"match {seed}")
    for place in itertools.count(1):
        scene = sample_scene(rng.choice(STYLES), rng.randint(1, 4), rng)
        clauses: list[tuple[str, float]] = []
        for thing in scene.things:
            value, fits = thing.value, rng.random() < 0.5
            if not fits:
                near = [other for other in (value - 1, value + 1) if 1 <= other <= LARGEST]
                others = [other for other in range(1, LARGEST + 1) if other != value]
                value = rng.choice(near) if rng.random() < 0.5 else rng.choice(others)
            clauses.append((f"{thing.colour} {value}", float(fits)))
        order = list(range(len(clauses)))
        rng.shuffle(order)
        texts, labels = zip(*(clauses[row] for row in order), strict=True)
        key = f"matching {seed} {place}"
        yield Record(key, "world", "matching", key, DESCRIBE, texts, (draw(scene),), labels=labels)


def main(arguments: list[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description="Train the world's base on image-text matching.")
    parser.add_argument("--out", type=Path, default=reader_folder(), help="folder to write (default: the shipped one)")
    parser.add_argument("--cycles", type=int, nargs="+", default=CYCLES, help="updates of each cycle of the rate")
    chosen = parser.parse_args(arguments)
    prm: Any = PRM.from_pretrained(base_folder())
    for seed, updates in enumerate(chosen.cycles):
        train_matching(prm, updates, seed)
    prm.save_pretrained(chosen.out)


if __name__ == "__main__":
    main()
