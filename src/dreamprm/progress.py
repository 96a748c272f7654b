"""What one sees while it runs: a live bar on a terminal, plain lines with the same words where there is none."""

from __future__ import annotations

import logging
import os
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn

__all__ = ["Reporter", "RunProgress", "Stage", "only_first_speaks", "only_our_bars", "say"]

_LINES_PER_STAGE = 20
_SECONDS_BETWEEN_LINES = 60.0
_SHORT = {
    "inner_loss": "inner",
    "outer_loss": "outer",
    "dense_loss": "dense",
    "weight_mean": "weight",
    "weight_std": "±",
    "weight_auc": "auc",
    "check_error": "check",
    "loss": "loss",
    "lr": "lr",
}


_silent = False


def only_first_speaks() -> None:
    """From now on, of several processes that are one run, only the first one says anything."""
    global _silent
    _silent = os.environ.get("WORLD_SIZE", "1") != "1" and os.environ.get("RANK", "0") != "0"


def say(text: str) -> None:
    """One line to the user, in place beside a live bar."""
    if _silent:
        return
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def only_our_bars() -> None:
    """Turn off the progress bars of transformers, and a line that bitsandbytes writes when it is imported on a CPU.

    One bar at a time, and ours says what is being done. The line is about a faster kernel for inference in 4 bits.
    """
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()
    logging.getLogger("bitsandbytes.backends.cpu.ops").setLevel(logging.ERROR)


@dataclass(frozen=True)
class Stage:
    """A part of a run. total: how many `unit`s it has.  chains: of them in one unit.

    passes: forward passes of one chain that a unit costs, a backward pass counting two. What is left of the run is
    estimated from these.
    """

    name: str
    total: int
    unit: str = "chain"
    chains: float = 1.0
    passes: float = 1.0


class RunProgress:
    """The stages of a run and what its earlier ones cost: `with progress.stage("bilevel") as report: …`."""

    def __init__(self, stages: Sequence[Stage], console: Console | None = None) -> None:
        self.stages, self.console = list(stages), console
        self.seconds = self.passes = 0.0

    def stage(self, name: str, done: int = 0) -> Reporter:
        """The reporter of one stage. done: how far an earlier process brought it."""
        place = next(place for place, stage in enumerate(self.stages) if stage.name == name)
        return Reporter(name, self.stages[place].total, done, self.console, run=self, place=place)

    def seconds_after(self, place: int, seconds: float, passes: float) -> float:
        """What the stages after this one will take, at the rate of the whole run so far."""
        rate = (self.seconds + seconds) / max(1e-9, self.passes + passes)
        return rate * sum(stage.total * stage.passes for stage in self.stages[place + 1 :])


class Reporter:
    """One stage's progress: `with Reporter("score", total) as report: report.update(done, numbers)`.

    A stage of a run (`RunProgress.stage`) counts updates over all stages and says what is left of the whole run.
    """

    def __init__(
        self,
        phase: str,
        total: int,
        done: int = 0,
        console: Console | None = None,
        *,
        run: RunProgress | None = None,
        place: int = 0,
    ) -> None:
        self.phase, self.total, self.first, self.done = phase, total, done, done
        self.console = console or Console()
        # FORCE_COLOR, which notebooks and CI set, makes rich take a pipe for a terminal, which a bar fills with frames.
        on_screen = self.console.is_terminal if console else sys.stdout.isatty()
        self.live = on_screen and not _silent
        self.run = run or RunProgress([Stage(phase, total)])
        self.place, self.stage = place, self.run.stages[place]
        self.began = self.spoke = time.monotonic()
        self.stride = max(1, total // _LINES_PER_STAGE)
        self._bar: Progress | None = None
        self._task: TaskID | None = None

    @property
    def name(self) -> str:
        stages = self.run.stages
        return self.phase if len(stages) == 1 else f"stage {self.place + 1} of {len(stages)}  {self.phase}"

    def count(self, done: int) -> str:
        """`update 257 of 390`, over all stages that make updates; `chain 64 of 400`, of this stage."""
        same = [stage for stage in self.run.stages if stage.unit == self.stage.unit]
        if self.stage.unit != "update":
            return f"{self.stage.unit} {done} of {self.total}"
        before = sum(stage.total for stage in same[: same.index(self.stage)])
        return f"update {before + done} of {sum(stage.total for stage in same)}"

    def left(self, done: int) -> float:
        """Seconds until the run's end."""
        seconds, made = time.monotonic() - self.began, max(1, done - self.first)
        own = seconds / made * (self.total - done)
        return own + self.run.seconds_after(self.place, seconds, made * self.stage.passes)

    def __enter__(self) -> Reporter:
        self.began = self.spoke = time.monotonic()
        if self.live:
            columns = (
                TextColumn("[bold]{task.description}"),
                BarColumn(bar_width=16),
                TextColumn("{task.fields[count]}"),
                TextColumn("{task.fields[rest]}", style="cyan"),
                TextColumn("{task.fields[numbers]}", style="dim"),
            )
            self._bar = Progress(*columns, console=self.console)
            count = self.count(self.done)
            self._task = self._bar.add_task(
                self.name, total=self.total, completed=self.done, count=count, rest="", numbers=""
            )
            self._bar.start()
        return self

    def update(self, done: int, numbers: dict[str, float]) -> None:
        """Show that `done` units of the stage are done, with the last numbers."""
        self.done = done
        text = "  ".join(f"{_SHORT[name]} {value:.3g}" for name, value in numbers.items() if name in _SHORT)
        now = time.monotonic()
        rate = (done - self.first) * self.stage.chains / max(1e-9, now - self.began)
        rest = f"{rate:.3g} chains/s  {_clock(self.left(done))} left"
        if self._bar is not None and self._task is not None:
            self._bar.update(self._task, completed=done, count=self.count(done), rest=rest, numbers=text)
            return
        late = now - self.spoke > _SECONDS_BETWEEN_LINES
        if late or done % self.stride == 0 or done == self.total or done == self.first + 1:
            self.spoke = now
            say("  ".join(part for part in (f"{self.name:<26}", self.count(done), text, rest) if part))

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.run.seconds += time.monotonic() - self.began
        self.run.passes += (self.done - self.first) * self.stage.passes
        if self._bar is not None:
            self._bar.stop()


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
