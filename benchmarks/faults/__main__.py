"""`python -m benchmarks.faults [PART …]`: every fault, a table, and the dated report; status 1 unless all is clear."""

from __future__ import annotations

import argparse
import datetime
import platform
import re
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

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


def main(parts: list[str], write: bool) -> int:
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="faults-") as name:
        folder = Path(name).resolve()
        small = _small(folder / "small")
        findings = [_shortened(finding, folder) for finding in _shown(_tried(parts, small, folder))]
    counts = Counter(finding.verdict for finding in findings)
    bad = sum(counts.values()) - counts[Verdict.CLEAR]
    summary = ", ".join(f"{verdict} {counts[verdict]}" for verdict in Verdict)
    print(f"{len(findings)} faults in {time.monotonic() - began:.0f} s: {summary}")
    if write:
        path = _REPORTS / f"{datetime.date.today():%Y-%m-%d}-faults.md"
        path.write_text(_report(findings, counts, time.monotonic() - began))
        print(f"report: {path}")
    return 1 if bad else 0


def _small(folder: Path) -> Small:
    """The files are made in a child: the parent of all others computes nothing."""
    child = start("doctor", ["--version"], folder.parent, before=lambda: _made(folder))
    assert child.end().code == 0, child.err.read_text()
    return Small(folder)


def _made(folder: Path) -> None:
    make_small(folder)


def _tried(parts: list[str], small: Small, folder: Path) -> Iterator[Finding]:
    for part in parts:
        yield from _PARTS[part](small, folder / part)


def _shown(findings: Iterable[Finding]) -> Iterator[Finding]:
    for finding in findings:
        mark = "" if finding.verdict is Verdict.CLEAR else "  <<<<<"
        print(f"{finding.verdict:<9} {finding.part}: {finding.name}: {finding.message}{mark}", flush=True)
        yield finding


def _shortened(finding: Finding, folder: Path) -> Finding:
    message = re.sub(rf"{re.escape(str(folder))}/?", "", finding.message).removeprefix("error: ")
    message = re.sub(r"x{60,}", "xxx…", re.sub(r"9{60,}", "999…", message))
    return Finding(finding.part, finding.name, finding.verdict, message)


def _report(findings: list[Finding], counts: Counter[Verdict], seconds: float) -> str:
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=True)
    lines = [
        "# What users meet: wrong inputs, damaged files, kills",
        "",
        "    python -m benchmarks.faults",
        "",
        f"Commit {commit.stdout.strip()}, torch {torch.__version__}, transformers {transformers.__version__}, Python "
        f"{platform.python_version()}; {seconds:.0f} s on shared cores. Every trial is a process of its own.",
        "",
        "*clear*: one line with the words that were expected, status 2 (the doctor's findings: 1), or a fault that was",
        "mended, said in a warning, with a result that is bit for bit the undisturbed one. *unclear*: an error in",
        "other words or several lines. *silent*: it went on without a word, or came to another result.",
        "",
        "| outcome | trials |",
        "|---|---|",
        *(f"| {verdict} | {counts[verdict]} |" for verdict in Verdict),
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
    parser.add_argument("parts", nargs="*", choices=[[], *_PARTS], help="which parts; none: all, with the report")
    chosen = parser.parse_args().parts
    sys.exit(main(chosen or list(_PARTS), write=not chosen))
