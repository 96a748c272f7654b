"""`profile=true`: where the time of an update goes, beside the floor, on one page.

The parts are those that the engine and the trainer name (`bilevel.spans`): each is told its own seconds, without those
of parts inside it. On a GPU they are the seconds between two events of its stream, so that nothing waits for it but
the end of an update. A few updates are looked at by torch.profiler, for the operators; these are not timed.

The floor is what no method can avoid: forward and backward passes of both levels and the optimizer's step. Its passes
are made beside updates 2, 8, 16, 32, … on the chains of the next update, and leave everything as it was: parameters,
gradients, buffers, random states and samplers.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch.profiler import ProfilerActivity
from torch.profiler import profile as torch_profile

from bilevel.spans import listening
from dreamprm.distributed import everywhere, own_part, random_state, set_random_state
from dreamprm.loss import outer_loss
from dreamprm.metrics import PhaseName
from dreamprm.trainer.phase import Phase, inner_losses, pieces

if TYPE_CHECKING:
    from dreamprm.prm.collate import Batch
    from dreamprm.trainer.state import Run

__all__ = ["NOT_PASSES", "REST", "Clock", "Profile"]

REST = "the rest"
NOT_PASSES = ("data", "check", "logging", "checkpoint")
"""Parts that are not held against the floor."""
_OPERATORS = (3, 4, 5)  # updates of a phase that torch.profiler looks at
_MOST_OPERATORS = 15


class Clock:
    """Own seconds of each part between `start` and `stop`.

    mark: a moment; between: (moment, later moment) -> seconds, asked for at `stop` only, after `settle`.
    """

    def __init__(
        self,
        mark: Callable[[], Any] = time.perf_counter,
        between: Callable[[Any, Any], float] = lambda before, after: after - before,
        settle: Callable[[], Any] = lambda: None,
    ) -> None:
        self._mark, self._between, self._settle = mark, between, settle
        self._open: list[str] = []
        self._turns: list[tuple[str, Any]] = []  # what was open up to a moment

    @classmethod
    def of(cls, device: torch.device) -> Clock:
        """One that measures what the device does."""
        if device.type != "cuda":
            return cls()
        return cls(_event, lambda before, after: before.elapsed_time(after) / 1e3, torch.cuda.synchronize)

    def begin(self, name: str) -> None:
        self._turn()
        self._open.append(name)

    def end(self) -> None:
        self._turn()
        self._open.pop()

    def _turn(self) -> None:
        if self._turns:  # it runs
            self._turns.append((self._open[-1] if self._open else REST, self._mark()))

    def start(self) -> None:
        self._turns = [("", self._mark())]

    def stop(self) -> dict[str, float]:
        """Seconds of each part since `start`."""
        self._turn()
        self._settle()
        seconds: Counter[str] = Counter()
        for (_, before), (name, after) in zip(self._turns, self._turns[1:]):
            seconds[name] += self._between(before, after)
        self._turns = []
        return dict(seconds)


def _event() -> Any:
    event: Any = torch.cuda.Event(enable_timing=True)
    event.record()
    return event


class Profile:
    """Times the updates of a run and adds to `run.counters.profile`, which goes on over a resume.

    operators: phase -> rows of operators of the updates that torch.profiler saw in this process.
    """

    def __init__(self, run: Run) -> None:
        self.run, self.clock = run, Clock.of(run.device)
        self.operators: dict[str, list[dict[str, Any]]] = {}
        self._seen: Counter[str] = Counter()
        self._read: Counter[str] = Counter()
        self._timing = False
        self._profiler: torch_profile | None = None

    @contextmanager
    def update(self, phase: Phase) -> Iterator[None]:
        """One turn of the loop: an update and all that is done after it."""
        self._seen[phase.name] += 1
        number = self._seen[phase.name]
        if number in _OPERATORS:
            self._look(number == _OPERATORS[0])
            with listening(_Silent()):
                yield
            if number == _OPERATORS[-1]:
                self._looked(phase.name)
            return
        self._read.clear()
        self._timing = True
        self.clock.start()
        try:
            with listening(self.clock):
                yield
        finally:
            seconds = self.clock.stop()
            self._timing = False
        self._add(phase, seconds, number)

    def count(self, batch: Batch) -> None:
        """A batch that an update takes, still on the CPU."""
        if self._timing:
            mask = batch.inputs["attention_mask"]
            self._read += Counter(chains=len(batch), tokens=int(mask.sum()), places=mask.numel())

    def _add(self, phase: Phase, seconds: dict[str, float], number: int) -> None:
        tally = self.run.counters.profile.setdefault(phase.name.value, {"updates": 0, "parts": {}})
        tally["updates"] += 1
        parts = Counter(tally["parts"])
        parts.update(seconds)
        tally["parts"] = dict(parts)
        for name, value in self._read.items():
            tally[name] = tally.get(name, 0) + value
        whole = phase.name is PhaseName.BILEVEL and "outer backward" in seconds and "inner backward" in seconds
        if whole and number > 1 and number & (number - 1) == 0:
            tally["floor"] = tally.get("floor", 0.0) + self._floor() + seconds["step"]
            beside = sum(value for name, value in seconds.items() if name not in NOT_PASSES)
            tally["beside_floor"] = tally.get("beside_floor", 0.0) + beside

    def _floor(self) -> float:
        """Seconds of the passes of both levels, without any hypergradient, on the next update's chains."""
        run, inner, outer = self.run, self.run.settings.inner, self.run.settings.outer
        parameters = list(run.trainable().values())
        buffers = {buffer: buffer.clone() for buffer in run.prm.buffers()}
        random = random_state()
        chains = [
            [run.batch(records, own_part(rows)) for rows in pieces(run.samplers[name].peek(size), batch_size)]
            for name, records, batch_size, size in (
                ("inner", run.train, inner.batch_size, inner.batch_size * inner.accumulate),
                ("outer", run.meta, outer.batch_size, outer.batch_size * outer.accumulate),
            )
        ]
        self.clock.start()
        for level, batches in enumerate(chains):
            for batch in batches:
                with run.autocast():
                    read = run.prm(batch)
                    if level == 0:
                        loss = inner_losses(run, batch, read).mean()
                    else:
                        loss = outer_loss(read, batch, outer.aggregate, outer.loss, everywhere)
                torch.autograd.grad(loss, parameters, allow_unused=True)
        seconds = sum(self.clock.stop().values())
        with torch.no_grad():
            for buffer, value in buffers.items():
                buffer.copy_(value)
        set_random_state(random)
        return seconds

    def _look(self, first: bool) -> None:
        if first:
            activities = [ProfilerActivity.CPU]
            if self.run.device.type == "cuda":
                activities.append(ProfilerActivity.CUDA)
            self._profiler = torch_profile(activities=activities)
            self._profiler.start()

    def _looked(self, phase: str) -> None:
        if self._profiler is None:
            return
        self._profiler.stop()
        gpu = self.run.device.type == "cuda"
        rows = [
            {
                "operator": event.key,
                "calls": event.count / len(_OPERATORS),
                "seconds": (event.self_device_time_total if gpu else event.self_cpu_time_total) / 1e6 / len(_OPERATORS),
            }
            for event in self._profiler.key_averages()
        ]
        self._profiler = None
        self.operators[phase] = sorted(rows, key=lambda row: row["seconds"], reverse=True)[:_MOST_OPERATORS]

    def close(self) -> None:
        """Stop looking, where a phase ended before it was time."""
        if self._profiler is not None:
            self._profiler.stop()
            self._profiler = None


class _Silent:
    """Listens, so that the parts have names in torch.profiler, and writes nothing."""

    def begin(self, name: str) -> None:
        """Nothing."""

    def end(self) -> None:
        """Nothing."""
