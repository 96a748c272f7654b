"""`experiments`: the named experiments with what each is."""

from __future__ import annotations

import sys
import textwrap
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
    for name, text in found.items():
        rows = textwrap.wrap(text, 118 - width) or [""]
        sys.stdout.write("".join(f"{left:<{width}}{row}\n" for left, row in zip([name, *[""] * len(rows)], rows)))
    sys.stdout.write("\nRun one by train experiment=NAME\n")


main = command("experiments", ListExperiments, _list)
