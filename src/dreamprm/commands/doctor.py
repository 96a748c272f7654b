"""`doctor`: what a trainer must know of data. Status 0: nothing grave, 1: grave findings, 2: it cannot be read.

`doctor env`: what is installed and works here.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from dreamprm.commands.command import Command
from dreamprm.doctor import examine_and_show
from dreamprm.doctor.settings import DoctorSettings

__all__ = ["main"]


class _Doctor(Command):
    def __call__(self, arguments: Sequence[str], program: str | None = None) -> None:
        if list(arguments) == ["env"]:
            from dreamprm.doctor.environment import environment_lines

            sys.stdout.writelines(f"{line}\n" for line in environment_lines())
            return
        super().__call__(arguments, program)


main = _Doctor("doctor", DoctorSettings, examine_and_show)
