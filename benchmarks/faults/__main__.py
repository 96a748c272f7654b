"""`python -m benchmarks.faults [PART …]`: every fault, a table, and the dated report; status 1 unless all is clear.

Parts that are run alone take their place beside those that were run before on the same day.
"""

from __future__ import annotations

import argparse
import datetime
import fcntl
import json
import platform
import re
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import torch
import transformers

import dreamprm.commands.train
import dreamprm.trainer.run
from benchmarks.faults.damages import try_caches, try_changed_data, try_prms, try_reports, try_runs, try_stages
from benchmarks.faults.inputs import try_inputs
from benchmarks.faults.kills import try_kills, try_machine
from benchmarks.faults.small import Small, make_small
from benchmarks.faults.trial import Finding, Verdict, start

__all__ = ["main"]

# Imported by the parent, so that every child finds it: a child that imports takes seconds.
_LOADED = (dreamprm.commands.train, dreamprm.trainer.run)
_PARTS: dict[str, Callable[[Small, Path], Iterator[Finding]]] = {
    "inputs": try_inputs,
    "runs": try_runs,
    "data": try_changed_data,
    "prms": try_prms,
    "reports": try_reports,
    "stages": try_stages,
    "caches": try_caches,
    "kills": try_kills,
    "machine": try_machine,
}
_REPORTS = Path(__file__).resolve().parents[1] / "reports"


def main(parts: list[str]) -> int:
    """Run the parts, keep what came out beside the report, and write the report of all that is kept."""
    kept = _REPORTS / f"{datetime.date.today():%Y-%m-%d}-faults.json"
    bad = 0
    with tempfile.TemporaryDirectory(prefix="faults-") as name:
        folder = Path(name).resolve()
        small = _small(folder / "small")
        for part in parts:
            began = time.monotonic()
            findings = [_shortened(one, folder) for one in _shown(_PARTS[part](small, folder / part))]
            counts = Counter(finding.verdict for finding in findings)
            bad += len(findings) - counts[Verdict.CLEAR]
            seconds = time.monotonic() - began
            summary = ", ".join(f"{verdict} {counts[verdict]}" for verdict in Verdict)
            print(f"{part}: {len(findings)} faults in {seconds:.0f} s: {summary}", flush=True)
            _keep(kept, part, seconds, findings)
    kept.with_suffix(".md").write_text(_report(json.loads(kept.read_text())))
    print(f"report: {kept.with_suffix('.md')}")
    return 1 if bad else 0


def _keep(path: Path, part: str, seconds: float, findings: list[Finding]) -> None:
    """Take the part's findings into the file; the other parts' stay."""
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=True)
    with path.open("a+") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        stream.seek(0)
        found = json.loads(stream.read() or "{}")
        rows = [[one.part, one.name, one.verdict, one.message] for one in findings]
        found[part] = {"commit": commit.stdout.strip(), "seconds": round(seconds), "findings": rows}
        stream.truncate(0)
        stream.write(json.dumps(found, indent=1, ensure_ascii=False) + "\n")


def _small(folder: Path) -> Small:
    """The files are made in a child: the parent of all others computes nothing."""
    child = start("doctor", ["--version"], folder.parent, before=lambda: _made(folder))
    assert child.end().code == 0, child.err.read_text()
    return Small(folder)


def _made(folder: Path) -> None:
    make_small(folder)


def _shown(findings: Iterable[Finding]) -> Iterator[Finding]:
    for finding in findings:
        mark = "" if finding.verdict is Verdict.CLEAR else "  <<<<<"
        print(f"{finding.verdict:<9} {finding.part}: {finding.name}: {finding.message}{mark}", flush=True)
        yield finding


def _shortened(finding: Finding, folder: Path) -> Finding:
    message = re.sub(rf"{re.escape(str(folder))}/?", "", finding.message).removeprefix("error: ")
    message = re.sub(r"x{60,}", "xxx…", re.sub(r"9{60,}", "999…", message))
    return Finding(finding.part, finding.name, finding.verdict, message)


def _report(kept: dict[str, Any]) -> str:
    runs = [(name, kept[name]) for name in _PARTS if name in kept]
    findings = [Finding(*row) for _, run in runs for row in run["findings"]]
    counts = Counter(finding.verdict for finding in findings)
    made = "; ".join(f"{name}: commit {run['commit']}, {run['seconds']} s" for name, run in runs)
    lines = [
        "# What users meet: wrong inputs, damaged files, kills",
        "",
        "    python -m benchmarks.faults [PART …]",
        "",
        f"torch {torch.__version__}, transformers {transformers.__version__}, Python {platform.python_version()}, on "
        f"shared cores. Every trial is a process of its own. Parts: {made}.",
        "",
        "*clear*: one line with the words that were expected, status 2 (the doctor's findings: 1), or a fault that was",
        "mended, said in a warning, with a result that is bit for bit the undisturbed one. *unclear*: an error in",
        "other words or several lines. *silent*: it went on without a word, or came to another result.",
        "",
        "| outcome | trials |",
        "|---|---|",
        *(f"| {verdict} | {counts[verdict]} |" for verdict in Verdict),
        f"| all | {len(findings)} |",
        "",
    ]
    for part in dict.fromkeys(finding.part for finding in findings):
        own = [finding for finding in findings if finding.part == part]
        lines += [f"## {part[0].upper()}{part[1:]} ({len(own)})", "", "| fault | outcome | message |", "|---|---|---|"]
        lines += [f"| {_cell(one.name)} | {one.verdict} | {_cell(one.message)} |" for one in own]
        lines.append("")
    return "\n".join(lines)


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("<", "&lt;")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m benchmarks.faults")
    parser.add_argument("parts", nargs="*", choices=[[], *_PARTS], help="which parts; none: all")
    chosen = parser.parse_args().parts
    sys.exit(main(chosen or list(_PARTS)))
