"""`experiments`: the named experiments with what each is."""

from __future__ import annotations

import sys
from dataclasses import dataclass

from dreamprm.commands.command import command
from dreamprm.config.launch import experiments
from dreamprm.setting import Settings

__all__ = ["main"]


@dataclass
class ListExperiments(Settings):
    """The experiments that `dreamprm train experiment=NAME` knows."""


def _list(settings: ListExperiments) -> None:
    found = experiments()
    width = max(map(len, found)) + 2
    sys.stdout.write("".join(f"{name:<{width}}{text}\n" for name, text in found.items()))
    sys.stdout.write("\nRun one: dreamprm train experiment=NAME\n")


main = command("experiments", ListExperiments, _list)
