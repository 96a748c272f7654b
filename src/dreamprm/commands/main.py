"""The installed command: `dreamprm train …` does what `python -m src.train …` does in a checkout."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence

__all__ = ["COMMANDS", "entry", "main"]

COMMANDS = {
    "train": ("dreamprm.commands.train", "cold start, bilevel training, evaluation, report"),
    "sample": ("dreamprm.commands.sample", "the policy writes candidates for questions"),
    "label": ("dreamprm.commands.label", "Monte-Carlo labels for the steps of chains"),
    "score": ("dreamprm.commands.score", "the PRM scores every step of every candidate"),
    "select": ("dreamprm.commands.select", "best-of-N: one candidate per question"),
    "evaluate": ("dreamprm.commands.evaluate", "best-of-N and step-level figures of a scores file"),
    "doctor": ("dreamprm.commands.doctor", "what a trainer must know of a data file"),
    "report": ("dreamprm.commands.report", "report.html of a finished run"),
}
"""Command -> (module with a `main(arguments, program)`, one line of help)."""


def entry(command: str, arguments: Sequence[str] | None = None, program: str | None = None) -> None:
    """Run one command with the arguments of the command line; modules are imported only when asked for."""
    module = importlib.import_module(COMMANDS[command][0])
    module.main(list(sys.argv[1:] if arguments is None else arguments), program or f"dreamprm {command}")


def main() -> None:
    """The console script `dreamprm`."""
    if len(sys.argv) < 2 or sys.argv[1] in ("-h", "--help", "help"):
        lines = "\n".join(f"  dreamprm {name:<9} {text}" for name, (_, text) in COMMANDS.items())
        sys.stdout.write(
            f"{lines}\n\nSettings follow as name=value, e.g. dreamprm train +experiment=instance_net seed=1\n"
        )
        return
    command = sys.argv[1]
    if command not in COMMANDS:
        sys.stderr.write(f"error: {command!r} is none of {', '.join(COMMANDS)}\n")
        sys.exit(2)
    entry(command, sys.argv[2:], f"dreamprm {command}")
