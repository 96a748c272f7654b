"""What one sees while it runs: a live bar on a terminal, plain lines where there is none."""

from __future__ import annotations

import sys
import time
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

__all__ = ["Reporter", "only_our_bars", "say"]

_LINES_PER_PHASE = 20
_SHORT = {
    "inner_loss": "inner",
    "outer_loss": "outer",
    "dense_loss": "dense",
    "weight_mean": "weight",
    "weight_std": "±",
    "weight_auc": "auc",
    "check_cosine": "check",
    "loss": "loss",
    "lr": "lr",
}


def say(text: str) -> None:
    """One line to the user, in place beside a live bar."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def only_our_bars() -> None:
    """Turn off the progress bars of transformers: one bar at a time, and ours says what is being done."""
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()


class Reporter:
    """One phase's progress: `with Reporter("bilevel", total, done) as report: report.update(done, numbers)`."""

    def __init__(self, phase: str, total: int, done: int = 0, console: Console | None = None) -> None:
        self.phase, self.total, self.first, self.done = phase, total, done, done
        self.console = console or Console()
        self.live = self.console.is_terminal
        self.began = time.monotonic()
        self.stride = max(1, total // _LINES_PER_PHASE)
        self._bar: Progress | None = None
        self._task: TaskID | None = None

    def __enter__(self) -> Reporter:
        if self.live:
            columns = (
                TextColumn("[bold]{task.description}"),
                BarColumn(bar_width=24),
                MofNCompleteColumn(),
                TimeRemainingColumn(compact=True),
                TextColumn("{task.fields[numbers]}", style="dim"),
            )
            self._bar = Progress(*columns, console=self.console)
            self._task = self._bar.add_task(self.phase, total=self.total, completed=self.done, numbers="")
            self._bar.start()
        return self

    def update(self, done: int, numbers: dict[str, float]) -> None:
        """Show that `done` updates of the phase are done, with the last numbers."""
        self.done = done
        text = "  ".join(f"{_SHORT[name]} {value:.3g}" for name, value in numbers.items() if name in _SHORT)
        if self._bar is not None and self._task is not None:
            self._bar.update(self._task, completed=done, numbers=text)
        elif done % self.stride == 0 or done == self.total or done == self.first + 1:
            self._line(done, text)

    def _line(self, done: int, text: str) -> None:
        seconds = time.monotonic() - self.began
        left = seconds / max(1, done - self.first) * (self.total - done)
        say(f"{self.phase:<10} {done:>6}/{self.total}  {text}  {_clock(left)} left")

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
