"""The doctor as a command: exits with its status."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from dreamprm.doctor.examine import main as examine_and_show

__all__ = ["main"]


def main(arguments: Sequence[str], program: str) -> None:
    """`program` is how the command was called, for its help."""
    sys.exit(examine_and_show(arguments, program))
