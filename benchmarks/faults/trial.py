"""One trial: a command in a process of its own, and whether what it said was clear.

A child is forked from a parent that has imported everything and computed nothing: a real process, with signals, limits
and file handles of its own, that starts at once.
"""

from __future__ import annotations

import os
import signal
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from dreamprm.commands.main import entry

__all__ = ["Child", "Finding", "Outcome", "Verdict", "judge", "start", "try_command"]

_PATIENCE = 180.0
_NOTICES = ("Failed to load CPU gemm_4bit_forward",)  # what bitsandbytes says where its kernels are not installed


class Verdict(StrEnum):
    """silent: it went on, and nothing was said.  unclear: an error, but not one line with the expected words."""

    CLEAR = "clear"
    UNCLEAR = "unclear"
    SILENT = "silent"
    TRACEBACK = "traceback"
    HANGS = "hangs"


@dataclass(frozen=True)
class Outcome:
    """How a process ended. code: its status, negative for a signal, None where it had to be ended."""

    code: int | None
    out: str
    err: str
    seconds: float


@dataclass(frozen=True)
class Finding:
    part: str
    name: str
    verdict: Verdict
    message: str


class Child:
    """A running command; its output lies in files, so that no pipe can fill."""

    def __init__(self, pid: int, out: Path, err: Path) -> None:
        self.pid, self.out, self.err, self.began = pid, out, err, time.monotonic()
        self._status: int | None = None

    def running(self) -> bool:
        if self._status is None:
            found, status = os.waitpid(self.pid, os.WNOHANG)
            if found:
                self._status = status
        return self._status is None

    def send(self, number: int) -> None:
        if self.running():
            os.kill(self.pid, number)

    def end(self, patience: float = _PATIENCE) -> Outcome:
        """Wait for it."""
        late = False
        while self.running():
            if time.monotonic() - self.began > patience:
                late = True
                os.kill(self.pid, signal.SIGKILL)
            time.sleep(0.005)
        assert self._status is not None, "it has ended"
        code = None if late else os.waitstatus_to_exitcode(self._status)
        texts = [path.read_text(errors="replace") for path in (self.out, self.err)]
        return Outcome(code, texts[0], texts[1], time.monotonic() - self.began)


def start(
    command: str,
    words: Sequence[str],
    folder: Path,
    *,
    environment: dict[str, str] | None = None,
    before: Callable[[], None] | None = None,
) -> Child:
    """Start `dreamprm COMMAND WORDS…` in `folder`. before: called in the child first (limits, rights)."""
    number = start.count = start.count + 1  # type: ignore[attr-defined]
    logs = folder / "logs"
    logs.mkdir(parents=True, exist_ok=True)
    out, err = logs / f"{number}.out", logs / f"{number}.err"
    sys.stdout.flush()
    sys.stderr.flush()
    pid = os.fork()
    if pid:
        return Child(pid, out, err)
    code = 1
    try:
        for file, handle in ((out, 1), (err, 2)):
            os.dup2(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o666), handle)
        os.setpgid(0, 0)
        os.chdir(folder)
        os.environ.update(environment or {})
        if before is not None:
            before()
        entry(command, list(words))
        code = 0
    except SystemExit as error:
        code = error.code if isinstance(error.code, int) else 1
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


start.count = 0  # type: ignore[attr-defined]


def try_command(command: str, words: Sequence[str], folder: Path, **options: object) -> Outcome:
    """`start` and wait."""
    return start(command, words, folder, **options).end()  # type: ignore[arg-type]


def judge(
    part: str, name: str, outcome: Outcome, expected: str, *, goes_on: bool = False, wrong: str = "", grave: int = 2
) -> Finding:
    """Whether the outcome is clear.

    expected: words of the one line.  goes_on: a fault that is mended, said in a warning.  wrong: what differs from an
    undisturbed run, which nothing may.  grave: the status of an error.
    """
    error_lines = [line for line in outcome.err.splitlines() if line.strip() and not line.startswith(_NOTICES)]
    lines = error_lines + [line.strip() for line in outcome.out.splitlines() if line.strip()]
    found = next((line for line in lines if expected in line), None)
    message = found or (error_lines or lines or ["nothing was said"])[-1]
    if outcome.code is None:
        verdict = Verdict.HANGS
    elif "Traceback" in outcome.err or outcome.code not in (0, grave, 2, 130, -signal.SIGKILL):
        verdict = Verdict.TRACEBACK
    elif wrong:
        verdict, message = Verdict.SILENT, f"{wrong}; it said: {message}"
    elif goes_on:
        verdict = Verdict.CLEAR if found and outcome.code == 0 else Verdict.UNCLEAR
        if not found and outcome.code == 0:
            verdict = Verdict.SILENT
    elif outcome.code == 0 and grave != 0:
        verdict = Verdict.SILENT
    else:
        verdict = Verdict.CLEAR if found and (len(error_lines) <= 1 or grave == 1) else Verdict.UNCLEAR
        if verdict is Verdict.UNCLEAR and len(error_lines) > 1:
            message = f"{len(error_lines)} lines: {' / '.join(error_lines)}"
    return Finding(part, name, verdict, message)
