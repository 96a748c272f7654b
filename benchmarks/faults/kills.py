"""Kills and a full disk: whatever ends a run, what is left goes on to the same result, bit for bit.

A process is killed from outside, at a random moment or when its checkpoint's temporary folder is seen; no line of the
product knows of it.
"""

from __future__ import annotations

import contextlib
import random
import resource
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from benchmarks.faults.small import Small, same_result
from benchmarks.faults.trial import Child, Finding, Outcome, Verdict, judge, start, try_command

__all__ = ["try_kills", "try_machine"]

_NUM_RANDOM, _NUM_INSIDE = 6, 6
_SAME = "the result is the undisturbed run's, bit for bit"


def _long(small: Small, run: Path) -> list[str]:
    return small.words(f"run_dir={run}", "inner.updates=8")


def _whole(small: Small, folder: Path) -> tuple[Path, float]:
    """An undisturbed run, and how long it took from its first update on."""
    run = folder / "whole"
    child = start("train", _long(small, run), folder)
    while child.running() and not _rows(run):
        time.sleep(0.005)
    began = time.monotonic()
    outcome = child.end()
    assert outcome.code == 0, outcome.err
    return run, time.monotonic() - began


def _rows(run: Path) -> int:
    with contextlib.suppress(OSError):
        return (run / "metrics.jsonl").read_bytes().count(b"\n")
    return 0


def _go_on(run: Path, folder: Path) -> Outcome:
    return try_command("train", [f"resume={run}"], folder)


def try_kills(small: Small, folder: Path) -> Iterator[Finding]:
    """SIGKILL, SIGTERM and SIGINT at random moments; SIGKILL inside the write of a checkpoint."""
    whole, seconds = _whole(small, folder)
    draw = random.Random(20261126)
    for name in ("SIGKILL", "SIGTERM", "SIGINT"):
        for number in range(_NUM_RANDOM):
            run = folder / f"{name}{number}"
            child = start("train", _long(small, run), folder)
            while child.running() and not (run / "config.yaml").exists():
                time.sleep(0.005)
            # The first kills fall into loading, where there is nothing to go on with but the settings.
            wait = draw.uniform(0.0, 1.1 * seconds) if number > 1 else 0.3 * number
            if number > 1:
                _until(child, lambda run=run: _rows(run) > 0)
            time.sleep(wait)
            child.send(getattr(signal, name))
            yield _resumed(f"{name} at random", name, child.end(), run, whole, folder)
    for number in range(_NUM_INSIDE):
        run = folder / f"inside{number}"
        child = start("train", _long(small, run), folder)
        update = number + 1
        part = run / "checkpoints" / f".update-{update:08d}.part"
        _until(child, part.exists)
        time.sleep((0.0, 0.001, 0.003, 0.01)[number % 4])
        child.send(signal.SIGKILL)
        outcome = child.end()
        word = "inside the write" if part.exists() else "just after the write"
        yield _resumed("SIGKILL in a checkpoint", f"{word} of checkpoint {update}", outcome, run, whole, folder)


def _until(child: Child, seen: Callable[[], bool]) -> None:
    while child.running() and not seen():
        time.sleep(0.0002)


def _resumed(part: str, name: str, outcome: Outcome, run: Path, whole: Path, folder: Path) -> Finding:
    """How far it had come, how it ended, and whether going on gives the undisturbed result."""
    place = f"{name} after {_rows(run)} updates"
    if outcome.code == 0:
        wrong = same_result(whole, run)
        shutil.rmtree(run)
        return Finding(part, f"{place}, too late", Verdict.SILENT if wrong else Verdict.CLEAR, wrong or _SAME)
    if "Traceback" in outcome.err or outcome.code not in (130, -signal.SIGKILL, -signal.SIGTERM):
        return Finding(part, place, Verdict.TRACEBACK, outcome.err.strip().splitlines()[-1])
    if not (run / "config.yaml").exists():
        if outcome.code == -signal.SIGKILL:
            return Finding(part, place, Verdict.UNCLEAR, "no config.yaml is left")
        return Finding(part, f"{place}, before any", Verdict.CLEAR, "nothing was made, and nothing is left")
    again = _go_on(run, folder)
    wrong = again.err.strip() if again.code else same_result(whole, run)
    shutil.rmtree(run)
    return Finding(part, place, Verdict.SILENT if wrong else Verdict.CLEAR, wrong or _SAME)


# -- the machine -----------------------------------------------------------------------------------------------------


def try_machine(small: Small, folder: Path) -> Iterator[Finding]:
    """A disk that is full, files that may not grow, folders that may not be written, memory, two processes."""
    whole, _ = _whole(small, folder)
    yield from _full_disk(small, folder, whole)
    yield from _limits(small, folder, whole)
    yield from _two_processes(small, folder, whole)


def _full_disk(small: Small, folder: Path, whole: Path) -> Iterator[Finding]:
    """A tmpfs of some megabytes, into which a run's checkpoints do not fit; then it grows, and the run goes on."""
    disk = folder / "disk"
    disk.mkdir()
    size = sum(file.stat().st_size for file in (whole / "checkpoints").rglob("*.safetensors")) // 3
    for share in (0.2, 1.5, 2.2, 3.4):
        name = f"a disk that holds {share} checkpoints"
        done = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", f"size={int(size * share)}", "none", str(disk)], capture_output=True
        )
        if done.returncode:
            yield Finding("a full disk", name, Verdict.CLEAR, "not tried: no right to mount a small disk here")
            continue
        try:
            run = disk / "run"
            outcome = try_command("train", _long(small, run), folder)
            yield judge("a full disk", name, outcome, "the disk is full: free some space")
            subprocess.run(["mount", "-o", f"remount,size={size * 20}", str(disk)], check=True)
            if (run / "config.yaml").exists():
                again = _go_on(run, folder)
                wrong = again.err.strip() if again.code else same_result(whole, run)
                verdict = Verdict.SILENT if wrong else Verdict.CLEAR
                yield Finding("a full disk", f"{name}, then a larger one", verdict, wrong or _SAME)
        finally:
            subprocess.run(["umount", str(disk)], check=True)


def _limits(small: Small, folder: Path, whole: Path) -> Iterator[Finding]:
    """Limits of the process, and folders that cannot be written."""
    part = "limits and rights"

    def no_large_files() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (2**20, 2**20))

    def little_memory() -> None:
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        most = pages * resource.getpagesize() + 40 * 2**20
        resource.setrlimit(resource.RLIMIT_AS, (most, most))

    run = folder / "small_files"
    outcome = try_command("train", _long(small, run), folder, before=no_large_files)
    yield judge(part, "files of at most 1 MB (ulimit -f)", outcome, "files of this size are not allowed here")
    outcome = try_command("train", small.words(f"run_dir={folder / 'memory'}"), folder, before=little_memory)
    yield judge(part, "40 MB of memory (ulimit -v)", outcome, "out of memory")
    yield from _read_only(small, folder, whole)


def _read_only(small: Small, folder: Path, whole: Path) -> Iterator[Finding]:
    """Folders that cannot be written: a read-only file system, or for others than root their mode."""
    part, closed = "limits and rights", folder / "closed"
    closed.mkdir()
    mounted = not subprocess.run(["mount", "-t", "tmpfs", "none", str(closed)], capture_output=True).returncode
    stopped = closed / "stopped"
    assert try_command("train", [*_long(small, stopped), "stop_at=4"], folder).code == 130
    if mounted:
        subprocess.run(["mount", "-o", "remount,ro", str(closed)], check=True)
    else:
        for path in [closed, *closed.rglob("*")]:
            path.chmod(0o555 if path.is_dir() else 0o444)
    expected = "the file system is read-only" if mounted else "permission denied"
    scored = [f"prm={whole / 'prm'}", f"data.path={small.meta}", f"data.images={small.folder}", "device=cpu"]
    for name, command, words in (
        ("a new run", "train", _long(small, closed / "run")),
        ("going on", "train", [f"resume={stopped}"]),
        ("score", "score", [*scored, f"out={closed / 'scores.jsonl'}"]),
        ("report", "report", [f"run_dir={closed / 'stopped'}"]),
    ):
        outcome = try_command(command, words, folder)
        if name == "report":
            expected = "results.json"  # a stopped run has none: that is said first
        yield judge(part, f"{name} in a read-only folder", outcome, expected)
    if mounted:
        subprocess.run(["umount", str(closed)], check=True)


def _two_processes(small: Small, folder: Path, whole: Path) -> Iterator[Finding]:
    """Two at once, fresh and resumed: one does the run, the other is refused."""
    part = "two processes in one folder"
    for number in range(3):
        run = folder / f"both{number}"
        children = [start("train", _long(small, run), folder) for _ in range(2)]
        yield from _one_of_two(part, f"fresh, started together ({number + 1})", children, run, whole)
    run = folder / "both_resumed"
    assert try_command("train", [*_long(small, run), "stop_at=4"], folder).code == 130
    children = [start("train", [f"resume={run}"], folder) for _ in range(2)]
    yield from _one_of_two(part, "resumed together", children, run, whole)
    run = folder / "late"
    first = start("train", _long(small, run), folder)
    _until(first, lambda: _rows(run) > 1)
    second = try_command("train", [f"resume={run}"], folder)
    outcome = first.end()
    yield judge(part, "resumed while it runs", second, "is in use by another process")
    wrong = outcome.err.strip() if outcome.code else same_result(whole, run)
    yield Finding(
        part, "the run beside which it was resumed", Verdict.SILENT if wrong else Verdict.CLEAR, wrong or _SAME
    )


def _one_of_two(part: str, name: str, children: list[Child], run: Path, whole: Path) -> Iterator[Finding]:
    one, other = sorted((child.end() for child in children), key=lambda outcome: outcome.code or 0)
    refused = "is in use by another process" if "in use" in other.err else "holds a run already"
    yield judge(part, f"{name}: the second", other, refused)
    wrong = one.err.strip() or "both were refused" if one.code else same_result(whole, run)
    yield Finding(part, f"{name}: the first", Verdict.SILENT if wrong else Verdict.CLEAR, wrong or _SAME)
