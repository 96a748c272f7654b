"""The installed command: `dreamprm train …` does what `python -m src.train …` does in a checkout."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence
from pathlib import Path

import dreamprm
from dreamprm.choices import near_miss

__all__ = ["COMMANDS", "entry", "main"]

COMMANDS = {
    "train": ("dreamprm.commands.train", "cold start, bilevel training, evaluation, report"),
    "sample": ("dreamprm.commands.sample", "the policy writes candidates for questions"),
    "search": ("dreamprm.commands.search", "the policy writes step by step, led by the PRM"),
    "label": ("dreamprm.commands.label", "Monte-Carlo labels for the steps of chains"),
    "score": ("dreamprm.commands.score", "the PRM scores every step of every candidate"),
    "select": ("dreamprm.commands.select", "best-of-N: one candidate per question"),
    "evaluate": ("dreamprm.commands.evaluate", "best-of-N and step-level figures of a scores file"),
    "doctor": (
        "dreamprm.commands.doctor",
        "what a trainer must know of a data file; `doctor env`: of this installation",
    ),
    "clean": ("dreamprm.commands.clean", "the training file again, with its weights or cut by them"),
    "report": ("dreamprm.commands.report", "report.html of a finished run"),
    "export": ("dreamprm.commands.export", "the PRM as a folder that another engine serves"),
    "serve": ("dreamprm.commands.serve", "a server of step scores, for search and training loops"),
    "experiments": ("dreamprm.commands.experiments", "the named experiments, with what each is"),
}
"""Command -> (module with a `main(arguments, program)`, one line of help)."""


def entry(command: str, arguments: Sequence[str] | None = None, program: str | None = None) -> None:
    """Run one command with the arguments of the command line; modules are imported only when asked for."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    if "--version" in words:
        sys.stdout.write(f"dreamprm {dreamprm.__version__}\n")
        return
    importlib.import_module(COMMANDS[command][0]).main(words, program or f"dreamprm {command}")


def main() -> None:
    """The console script `dreamprm`, and `python -m dreamprm`."""
    program = "python -m dreamprm" if Path(sys.argv[0]).name == "__main__.py" else "dreamprm"
    words = sys.argv[1:]
    if not words or words[0] in ("-h", "--help", "help"):
        _help(program, words[1:])
    elif words[0] in ("--version", "-V", "version"):
        sys.stdout.write(f"dreamprm {dreamprm.__version__}\n")
    elif words[0] in COMMANDS:
        entry(words[0], words[1:], f"{program} {words[0]}")
    else:
        allowed = ", ".join(COMMANDS)
        sys.stderr.write(f"error: {words[0]!r} is no command; there are {allowed}{near_miss(words[0], COMMANDS)}\n")
        sys.exit(2)


def _help(program: str, words: Sequence[str]) -> None:
    """All commands; with a command's name its help, with any other word the settings of all that speak of it."""
    if words and words[0] in COMMANDS:
        entry(words[0], ["--help", *words[1:]], f"{program} {words[0]}")
        return
    if words:
        found = {name: importlib.import_module(module).main.find(words) for name, (module, _) in COMMANDS.items()}
        lines = [line for name, some in found.items() if some for line in (f"{program} {name}", *some, "")]
        sys.stdout.write("\n".join(lines or [f"no setting speaks of {' or '.join(words)}"]) + "\n")
        return
    lines = [f"usage: {program} COMMAND [name=value …]", ""]
    lines += [f"  {name:<13} {text}" for name, (_, text) in COMMANDS.items()]
    lines += [
        "",
        f"{program} COMMAND --help shows its settings; {program} --help WORD those of all that speak of WORD.",
        f"e.g. {program} train experiment=instance_net seed=1",
    ]
    sys.stdout.write("\n".join(lines) + "\n")
