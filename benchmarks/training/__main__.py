"""The whole loop beside the published one and beside a plain fine-tune: chains per second of CPU, and memory.

    python -m benchmarks.engine.peers && .cache/peers/bin/python -m benchmarks.training

Same model and data (the embedded world), one thread, one machine. Every way is a process of its own, forked from one in
which model and data lie ready: its time is that process's CPU time, which other work on the machine does not change
much; its memory what the process holds at most above what it was forked with. `plain` makes the inner updates of the
default run without weights; `floor` the same passes as a whole update (inner and outer, forward and backward) without
the hypergradient; `collation` is the share of the default update's time in making batches.

    … -m benchmarks.training --vocabulary 151674

The shipped model has a few hundred words. With InternVL3's own 151,674 the published loop makes a softmax over all of
them at every token, and moves the rows of all of them; what it then costs is mostly that, more than in a large model.
The line "where the ratio comes from" takes it apart: published / floor of one chain (the method), floor of one chain /
floor of 64 (the batch), floor / whole update (the hypergradient), each per chain.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForImageTextToText, AutoProcessor

from dreamprm.config import resolve_train
from dreamprm.config.launch import compose_config
from dreamprm.phases.bilevel_phase import BilevelPhase
from dreamprm.phases.state import Run
from dreamprm.trainer.run import prepare
from dreamprm.world import base_folder

Update = Callable[[], Any]


def default_run(*words: str) -> Run:
    given = ["cold.updates=0", "outer.begin=0", "threads=1", "device=cpu", "inner.updates=1000", *words]
    return prepare(resolve_train(compose_config("train", given)), Path("."))[1]


def widened(folder: Path, num_words: int) -> Path:
    """The shipped model with rows for more words in its embeddings and its head, random ones."""
    torch.manual_seed(0)
    model = AutoModelForImageTextToText.from_pretrained(base_folder())
    model.resize_token_embeddings(num_words, mean_resizing=False)
    model.save_pretrained(folder)
    AutoProcessor.from_pretrained(base_folder()).save_pretrained(folder)
    return folder


def phase_of(run: Run) -> BilevelPhase:
    run.prm.train()
    return BilevelPhase(run)


def _ours(run: Run) -> Update:
    phase = phase_of(run)
    run.counters.outer_updates = 2**20 + 1  # between two comparisons with autograd, which updates 1, 2, 4, 8, … make

    def update() -> None:
        phase.update()
        run.update += 1

    return update


def _plain(run: Run) -> Update:
    phase = phase_of(run)
    return lambda: phase.inner_update(0, record=False)


def floor_update(phase: BilevelPhase) -> Update:
    """The passes of a whole update, without the hypergradient."""
    run = phase.run

    def update() -> None:
        phase.inner_update(0, record=False)
        loss = phase._outer_loss(run.samplers["outer"].draw(run.settings.outer.batch_size))
        torch.autograd.grad(loss, list(run.trainable().values()), allow_unused=True)

    return update


def _floor(run: Run) -> Update:
    return floor_update(phase_of(run))


def _published(run: Run) -> Update:
    from benchmarks.training.published import Published

    run.prm.train()
    return Published(run).update


BY_QUESTION = "outer.by_question=true"
WAYS: dict[str, tuple[Callable[[Run], Update], int, str]] = {
    "plain": (_plain, 64, ""),
    "floor": (_floor, 64, ""),
    "ours": (_ours, 64, ""),
    "ours, by question": (_ours, 64, BY_QUESTION),
    "floor, batch 1": (_floor, 1, ""),
    "ours, batch 1": (_ours, 1, ""),
    "published": (_published, 1, ""),
}
"""Name -> (what makes one update, chains of it, a setting)."""


def _measure(make: Callable[[Run], Update], run: Run, updates: int) -> dict[str, float]:
    """In a fork: seconds of CPU of one update, the share of collation, and MB above what it was forked with."""
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
            idle = _peak()
            update = make(run)
            update()
            collating, collate = [0.0], run.batch

            def timed(*words: Any) -> Any:
                began = time.process_time()
                made = collate(*words)
                collating[0] += time.process_time() - began
                return made

            run.batch = timed  # type: ignore[method-assign]
            began = time.process_time()
            for _ in range(updates):
                update()
            seconds = time.process_time() - began
            found = {"seconds": seconds / updates, "collation": collating[0] / seconds, "memory": _peak() - idle}
            os.write(write, json.dumps(found).encode())
            os._exit(0)
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(1)
    os.close(write)
    with os.fdopen(read) as stream:
        text = stream.read()
    os.waitpid(pid, 0)
    return json.loads(text) if text else {}


def _peak() -> float:
    """The most that this process has held since its peak was begun anew, MB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1024


def main(argv: list[str] | None = None) -> dict[str, dict[str, float]]:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--updates", type=int, default=5, help="of a batch of 64; one chain at a time: four times that")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--vocabulary", type=int, help="words of the model, more than it has; none: its own")
    settings = parser.parse_args(argv)
    ways = dict(WAYS)
    if importlib.util.find_spec("betty") is None:
        del ways["published"]
        print("published: not measured, betty-ml is not here: python -m benchmarks.engine.peers makes the environment")
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        words = [f"model.path={widened(Path(folder) / 'wide', settings.vocabulary)}"] if settings.vocabulary else []
        runs = {
            (size, setting): default_run(
                f"inner.batch_size={size}", f"outer.batch_size={size}", *words, *([setting] if setting else [])
            )
            for _, size, setting in ways.values()
        }
        for (size, _), run in runs.items():  # chains that were met before, as in every epoch but the first
            count = size * (settings.updates + 2) if size > 1 else 4 * settings.updates + 5
            for records, sampler in ((run.train, "inner"), (run.meta, "outer")):
                order = run.samplers[sampler]._order
                run.batch(records, [*order[:count], *range(count if size == 1 else 0)])
        rounds: list[dict[str, dict[str, float]]] = []
        for _ in range(settings.rounds):
            updates = {64: settings.updates, 1: 4 * settings.updates}
            rounds.append(
                {
                    name: _measure(make, runs[size, setting], updates[size])
                    for name, (make, size, setting) in ways.items()
                }
            )
            print(json.dumps(rounds[-1]), flush=True)
    failed = [name for name in ways if not all(found[name] for found in rounds)]
    if failed:
        sys.exit(f"not measured: {', '.join(failed)}")
    best = {name: min((found[name] for found in rounds), key=lambda row: row["seconds"]) for name in ways}
    print(f"torch {torch.__version__}, one thread, best of {settings.rounds} rounds")
    print("| way | chains of an update | CPU seconds of it | chains per second | MB above idle | collation |")
    print("|---|---|---|---|---|---|")
    for name, row in best.items():
        size = ways[name][1]
        numbers = f"{row['seconds']:.3f} | {size / row['seconds']:.1f} | {row['memory']:.0f} | {row['collation']:.1%}"
        print(f"| {name} | {size} | {numbers} |")
    if "published" in best:
        print(_where_from({name: row["seconds"] / ways[name][1] for name, row in best.items()}))
    return best


def _where_from(each: dict[str, float]) -> str:
    """each: seconds per chain."""
    method, batch = each["published"] / each["floor, batch 1"], each["floor, batch 1"] / each["floor"]
    return (
        f"where the ratio comes from: {each['published'] / each['ours']:.1f} = {method:.2f} (published / floor of one "
        f"chain) x {batch:.2f} (floor of one chain / floor of 64) x {each['floor'] / each['ours']:.2f} (floor / ours)"
    )


if __name__ == "__main__":
    main()
    sys.exit(0)
