"""Where the time of an update of the default run goes, by `profile=true`'s own parts and against the floor.

    python -m benchmarks.training.where --updates 10

CPU seconds of the thread that trains, one thread of torch, so that other work on the machine changes little. `first
visit` is an update whose chains are encoded for the first time, as in a run's first epoch; afterwards they come from
the collator's cache.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from functools import partial

import torch

from benchmarks.training.__main__ import default_run, phase_of
from dreamprm.phases.floor import floor_seconds
from dreamprm.phases.state import Run
from dreamprm.profiling import Clock, Profile
from dreamprm.profiling.profile_page import profile_lines


def again(run: Run) -> None:
    """The same chains again."""
    for name in ("inner", "outer"):
        state = run.samplers[name].state_dict()
        run.samplers[name].load_state_dict(state | {"epoch": 0, "position": 0})


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--updates", type=int, default=10)
    parser.add_argument("words", nargs="*", help="settings of the run, as inner.batch_size=16")
    settings = parser.parse_args(argv)
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        run = default_run("hypergradient.check=off", *settings.words)
        phase = phase_of(run)
        for _ in range(2):
            phase.update()
            run.update += 1
        print(f"torch {torch.__version__}, one thread, {settings.updates} updates, {' '.join(settings.words)}")
        for title in ("first visit", "again"):
            profile = Profile(run.device, {})
            profile.clock = Clock(time.thread_time)
            profile.looks_at_operators = False
            run.profile = profile
            for _ in range(settings.updates):
                with profile.update("bilevel", partial(floor_seconds, run)):
                    phase.update()
                    run.update += 1
            print("\n".join(profile_lines(profile.tallies)).replace("## bilevel", f"## {title}"))
            again(run)


if __name__ == "__main__":
    main()
