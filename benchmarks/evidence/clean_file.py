"""Does a file that `dreamprm clean` cut keep the gain in a plain run? The real commands on the real trainer, small.

    python -m benchmarks.evidence.clean_file [--trouble crowd] [--chains 800] [--keep 0.6] [--folder …] [SETTING …]

Writes the world's pool, meta set and test candidates as JSON Lines with images; trains on them with learned weights,
cuts the training file by them, and trains without weights on the whole file, on the cut one, and on as many rows drawn
at random. SETTINGs go to every training, those after `--weighed` to the one with weights alone. Prints one table.
"""

from __future__ import annotations

import argparse
import base64
import json
import os
import random
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dreamprm.data.record import Record
from dreamprm.world import load


def write_rows(path: Path, records: Sequence[Record], truth: bool = False) -> None:
    """The plain format, images inside the rows; truth: with the world's true labels, to be judged by."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8") as stream:
        for record in records:
            images = [base64.b64encode(image).decode() for image in record.images if isinstance(image, bytes)]
            row: dict[str, Any] = {"question": record.question, "steps": list(record.steps), "images": images}
            row |= {"domain": record.domain, "group": record.group, "correct": record.correct, "answer": record.answer}
            row["reference"] = record.reference
            if labels := record.truth["labels"] if truth else record.labels:
                row["labels"] = list(labels)
            stream.write(json.dumps(row) + "\n")


def command(name: str, arguments: Sequence[str], log: Path) -> None:
    """One of the package's commands in a process of its own; nothing where its log says that it ended well."""
    if log.is_file() and log.read_text().endswith("\nended\n"):
        return
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    words = [sys.executable, "-m", "dreamprm", name, *arguments]
    with log.open("w", encoding="utf-8") as stream:
        status = subprocess.run(words, stdout=stream, stderr=subprocess.STDOUT, env=environment, check=False).returncode
        if status == 0:
            stream.write("\nended\n")
    if status:
        raise SystemExit(f"dreamprm {name} {' '.join(arguments)} ended with {status}:\n{log.read_text()[-2000:]}")


def figures_of(folder: Path) -> tuple[float, float]:
    """Best-of-8 by the PRM, AUC of steps where the test rows have labels."""
    results = json.loads((folder / "results.json").read_text())
    return results["best_of_n"]["prm"]["8"]["value"], results["steps"]["auc"]["value"] if results.get("steps") else -1.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trouble", default="crowd")
    parser.add_argument("--chains", type=int, default=800)
    parser.add_argument("--meta", type=int, default=400)
    parser.add_argument("--test", type=int, default=480, help="test chains, eight a question")
    parser.add_argument("--keep", type=float, default=0.6)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folder", type=Path, default=Path("runs/clean_file"))
    parser.add_argument("--weighed", nargs="*", default=[], metavar="SETTING", help="of the run with weights")
    parser.add_argument("settings", nargs="*", metavar="SETTING", help="of every run")
    options = parser.parse_args()
    folder: Path = options.folder.resolve()
    data = {name: folder / f"{name}.jsonl" for name in ("train", "meta", "test", "cut", "drawn")}
    pool = load("train", trouble=options.trouble, seed=options.seed, num_chains=options.chains)
    write_rows(data["train"], pool)
    write_rows(data["meta"], load("meta", num_chains=options.meta))
    write_rows(data["test"], load("test")[: options.test], truth=True)

    def train(name: str, path: Path, *more: str) -> None:
        files = [f"data.path={path}", "meta=files", f"meta.path={data['meta']}", f"test.path={data['test']}"]
        given = [*more, "data=files", *files, f"seed={options.seed}", f"run_dir={folder / name}", *options.settings]
        command("train", given, folder / f"{name}.log")

    train("weighed", data["train"], *options.weighed)
    cut = [f"run_dir={folder / 'weighed'}", f"out={data['cut']}", f"keep={options.keep}"]
    command("clean", cut, folder / "clean.log")
    lines = data["train"].read_text().splitlines(keepends=True)
    kept = sorted(random.Random(options.seed).sample(range(len(lines)), round(options.keep * len(lines))))
    data["drawn"].write_text("".join(lines[row] for row in kept))
    for name, path in (("plain", data["train"]), ("cut", data["cut"]), ("drawn", data["drawn"])):
        train(name, path, "weigher=uniform")
    right = {line: list(r.labels) == list(r.truth["labels"]) for line, r in zip(lines, pool, strict=True)}
    print(f"| {options.trouble}, {len(pool)} chains | rows | of them without a wrong label | best-of-8 | step AUC |")
    print("|---|---|---|---|---|")
    for name, path in (("plain", "train"), ("weighed", "train"), ("cut", "cut"), ("drawn", "drawn")):
        rows = data[path].read_text().splitlines(keepends=True)
        best, steps = figures_of(folder / name)
        share = sum(right[row] for row in rows) / len(rows)
        print(f"| {name} | {len(rows)} | {share:.2f} | {best:.3f} | {steps:.3f} |")


if __name__ == "__main__":
    main()
