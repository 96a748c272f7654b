"""A synthetic VisualPRM-400K of 565,096 rows: indexed, opened, read in order and shuffled.

    python benchmarks/readers.py [rows=565096] [folder=DIR] [json=FILE]

Reported are seconds of wall clock and of processor, the peak of resident memory, and rows a second. Each stage runs in
a process of its own, so that its peak is its own. Images are named, not read.
"""

from __future__ import annotations

import json
import platform
import random
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

NUM_ROWS = 565_096
NUM_SOURCES = 38
READ = 50_000
"""Rows of a timed pass: some seconds, long enough to leave the start behind."""
STAGES = ("write", "index", "open", "ordered", "shuffled")


def _rows(source: int, num_rows: int) -> Any:
    """Rows of the published layout: on average 5.5 steps of about 180 characters, 3.6 % wrong, all with the id -1."""
    rng = random.Random(source)
    words = [
        "the",
        "left",
        "bar",
        "shows",
        "that",
        "we",
        "add",
        "both",
        "values",
        "and",
        "get",
        "a",
        "sum",
        "of",
        "line",
    ]
    system = {"from": "system", "value": "You are an advanced AI assistant that judges every step. " * 20}
    for row in range(num_rows):
        turns: list[dict[str, str]] = [system]
        for step in range(rng.randrange(3, 9)):
            text = " ".join(rng.choices(words, k=32)) + f" ({step} + {row}) / 165 = {rng.random():.4f}."
            if step == 0:
                question = f"<image>\nQuestion {row // 4} of source {source}: how much is it?"
                text = f"### Question:\n{question}\n\n### Solution Process:\n{text}"
            turns.append({"from": "human", "value": text})
            turns.append({"from": "gpt", "value": "-" if rng.random() < 0.0357 else "+"})
        yield {"id": -1, "image": f"images/{row // 4:07d}.png", "conversations": turns}


def _write(folder: Path, num_rows: int) -> dict[str, Any]:
    meta: dict[str, Any] = {}
    size = 0
    for source in range(NUM_SOURCES):
        share = num_rows // NUM_SOURCES + (source < num_rows % NUM_SOURCES)
        path = folder / "annotations" / f"source_{source:02d}.jsonl"
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("w") as out:
            out.writelines(json.dumps(row) + "\n" for row in _rows(source, share))
        size += path.stat().st_size
        annotation = f"annotations/{path.name}"
        meta[f"source_{source:02d}"] = {"root": "images", "annotation": annotation, "repeat_time": 1, "length": share}
    (folder / "images").mkdir(exist_ok=True)
    (folder / "meta.json").write_text(json.dumps(meta))
    return {"gigabytes": round(size / 1e9, 3)}


def _stage(stage: str, folder: Path, num_rows: int) -> dict[str, Any]:
    begin = time.perf_counter()
    if stage == "write":
        facts = _write(folder, num_rows)
        return {**facts, "seconds": time.perf_counter() - begin}
    from dreamprm.data.readers import open_records

    started = time.perf_counter()
    stream = open_records(folder / "meta.json", index=folder / "index")
    opened, processor = time.perf_counter(), time.process_time()
    facts = {"import_seconds": started - begin, "seconds": opened - started, "records": len(stream)}
    if stage in ("ordered", "shuffled"):
        num_steps = count = 0
        records = iter(stream) if stage == "ordered" else stream.shuffled(0, start=len(stream) // 2)
        for record in records:
            num_steps += len(record.steps)
            count += 1
            if count == READ:
                break
        seconds, spent = time.perf_counter() - opened, time.process_time() - processor
        facts |= {"read": count, "seconds": seconds, "processor_seconds": spent, "rows_per_second": count / seconds}
        facts |= {"rows_per_processor_second": count / spent, "steps_per_row": num_steps / count}
    elif stage == "index":
        facts |= {"rows_per_second": len(stream) / facts["seconds"], "processor_seconds": processor}
        facts["domains"] = len(stream.domains)
    facts["resident_megabytes"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return facts


def _run(stage: str, folder: Path, num_rows: int) -> dict[str, Any]:
    command = [sys.executable, __file__, f"stage={stage}", f"folder={folder}", f"rows={num_rows}"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{stage}: {done.stderr[-2000:]}")
    return json.loads(done.stdout)


def main() -> None:
    settings = dict(argument.partition("=")[::2] for argument in sys.argv[1:])
    unknown = settings.keys() - {"stage", "folder", "rows", "json"}
    if unknown:
        raise SystemExit(f"no such setting: {', '.join(sorted(unknown))}; allowed are rows, folder, json")
    num_rows = int(settings.get("rows", NUM_ROWS))
    if "stage" in settings:
        sys.stdout.write(json.dumps(_stage(settings["stage"], Path(settings["folder"]), num_rows)))
        return
    if "folder" in settings:
        Path(settings["folder"]).mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=settings.get("folder")) as folder:
        stages = {stage: _run(stage, Path(folder), num_rows) for stage in STAGES}
    report = {"rows": num_rows, "python": platform.python_version(), "machine": platform.machine(), "stages": stages}
    for stage, facts in stages.items():
        line = ", ".join(
            f"{name} {value:,.1f}" if isinstance(value, float) else f"{name} {value:,}" for name, value in facts.items()
        )
        sys.stdout.write(f"{stage:<9} {line}\n")
    text = json.dumps(report, indent=2) + "\n"
    if "json" in settings:
        Path(settings["json"]).write_text(text)
    else:
        sys.stdout.write(text)


if __name__ == "__main__":
    main()
