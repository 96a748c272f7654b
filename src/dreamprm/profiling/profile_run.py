"""`profile=true`: where the time of an update goes, beside the floor.

The parts are those that the engine and the trainer name (`bilevel.spans`): each is told its own seconds, without those
of parts inside it. On a GPU they are the seconds between two events of its stream, so that nothing waits for it but
the end of an update. A few updates are looked at by torch.profiler, for the operators; these are not timed.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.profiler import ProfilerActivity
from torch.profiler import profile as torch_profile

from bilevel.spans import listening
from dreamprm.profiling.clock import Clock

__all__ = ["NOT_PASSES", "Profile"]

NOT_PASSES = ("data", "check", "logging", "checkpoint")
"""Parts that are not held against the floor."""
_OPERATORS = (3, 4, 5)  # updates of a phase that torch.profiler looks at
_MOST_OPERATORS = 15


class Profile:
    """Times updates and adds to `tallies`, phase -> sums, which a run's checkpoints hold.

    A tally has `updates`, `parts` (seconds of each), `chains`, `tokens` and `places` (tokens with padding) of all
    updates; `floor` and `beside_floor`: seconds of the passes of both levels without any hypergradient, and of those
    updates beside which they were made (2, 8, 16, 32, … of this process).
    operators: phase -> rows of what torch.profiler saw in this process.
    """

    def __init__(self, device: torch.device, tallies: dict[str, Any]) -> None:
        self.device, self.tallies, self.clock = device, tallies, Clock.of(device)
        self.operators: dict[str, list[dict[str, Any]]] = {}
        self.looks_at_operators = True
        self._seen: Counter[str] = Counter()
        self._read: Counter[str] = Counter()
        self._timing = False
        self._profiler: torch_profile | None = None

    @contextmanager
    def update(self, phase: str, floor: Callable[[Clock], float] | None = None) -> Iterator[None]:
        """One turn of the loop: an update and all that is done after it.

        floor: makes the passes of an update and nothing else, and returns their seconds by the clock it is given.
        """
        self._seen[phase] += 1
        number = self._seen[phase]
        if number in _OPERATORS and self.looks_at_operators:
            with self._looking(phase, number), listening(_Silent()):
                yield
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
        tally = self._add(phase, seconds)
        both = "outer backward" in seconds and "inner backward" in seconds
        if floor is not None and both and number > 1 and number & (number - 1) == 0:
            tally["floor"] = tally.get("floor", 0.0) + floor(self.clock) + seconds["step"]
            beside = sum(value for name, value in seconds.items() if name not in NOT_PASSES)
            tally["beside_floor"] = tally.get("beside_floor", 0.0) + beside

    def count(self, attention_mask: Tensor) -> None:
        """A batch that an update takes, its mask still on the CPU."""
        if self._timing:
            chains, places = len(attention_mask), attention_mask.numel()
            self._read.update(chains=chains, tokens=int(attention_mask.sum()), places=places)

    def _add(self, phase: str, seconds: dict[str, float]) -> dict[str, Any]:
        tally = self.tallies.setdefault(phase, {"updates": 0, "parts": {}})
        tally["updates"] += 1
        for name, value in seconds.items():
            tally["parts"][name] = tally["parts"].get(name, 0.0) + value
        for name, value in self._read.items():
            tally[name] = tally.get(name, 0) + value
        return tally

    @contextmanager
    def _looking(self, phase: str, number: int) -> Iterator[None]:
        if number == _OPERATORS[0]:
            activities = [ProfilerActivity.CPU]
            if self.device.type == "cuda":
                activities.append(ProfilerActivity.CUDA)
            self._profiler = torch_profile(activities=activities, acc_events=True)  # torch 2.10 warns without
            self._profiler.start()
        yield
        if number == _OPERATORS[-1] and self._profiler is not None:
            self._profiler.stop()
            self.operators[phase] = _rows(self._profiler, on_gpu=self.device.type == "cuda")
            self._profiler = None

    def close(self) -> None:
        """Stop looking, where a phase ended before it was time."""
        if self._profiler is not None:
            self._profiler.stop()
            self._profiler = None


def _rows(profiler: torch_profile, *, on_gpu: bool) -> list[dict[str, Any]]:
    """The operators that take most, with calls and seconds of an update."""
    rows = [
        {
            "operator": event.key,
            "calls": event.count / len(_OPERATORS),
            "seconds": (event.self_device_time_total if on_gpu else event.self_cpu_time_total) / 1e6 / len(_OPERATORS),
        }
        for event in profiler.key_averages()
    ]
    return sorted(rows, key=lambda row: row["seconds"], reverse=True)[:_MOST_OPERATORS]


class _Silent:
    """Listens, so that the parts have names in torch.profiler, and writes nothing."""

    def begin(self, name: str) -> None:
        """Nothing."""

    def end(self) -> None:
        """Nothing."""
