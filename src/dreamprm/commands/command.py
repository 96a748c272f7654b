"""What every command does alike: help, settings from the command line, one line and code 2 for what a user can mend."""

from __future__ import annotations

import os
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

import yaml
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from dreamprm.config.launch import check_words, compose_config, every_combination, is_setting
from dreamprm.config.resolve import to_settings
from dreamprm.errors import ConfigError, UserError, fault_of_machine

__all__ = ["STOPPED", "Command", "command", "leave", "settings_from"]

STOPPED = 130
"""The status after Ctrl-C, as shells have it."""

_SECONDS_FOR_THE_FIRST = 3.0
_HELP = ("-h", "--help", "help")
_SWEEP = ("-m", "--multirun")

Resolve = Callable[[DictConfig, list[str]], Any]


class Command:
    """`main(arguments, program)` of a command; see `command`."""

    def __init__(
        self, name: str, settings: type[Any], run: Callable[[Any], object], resolve: Resolve | None = None
    ) -> None:
        self.name, self.settings, self.run, self.resolve = name, settings, run, resolve

    def __call__(self, arguments: Sequence[str], program: str | None = None) -> None:
        """Run it with the words of a command line; `program` is how it was called, for its help."""
        words = list(arguments)
        if any(word in _HELP for word in words):
            from dreamprm.commands.help import show_help

            show_help(self, program or f"dreamprm {self.name}", [word for word in words if word not in _HELP])
            return
        try:
            for settings in self._settings(words):
                status = self.run(settings)
                if isinstance(status, int) and status:
                    sys.exit(status)
        except UserError as error:
            leave(error)
        except KeyboardInterrupt:
            sys.stderr.write("stopped\n")
            sys.exit(STOPPED)
        except Exception as error:
            fault = fault_of_machine(error)
            if fault is None:
                raise
            leave(fault)

    def find(self, words: Sequence[str]) -> list[str]:
        """Lines of help on the settings that speak of these words."""
        from dreamprm.commands.help import found_lines

        return found_lines(self, words)

    def _settings(self, words: list[str]) -> list[Any]:
        """The settings of every run; all of them are made before the first starts."""
        if self.resolve is None:
            return [settings_from(words, self.settings)]
        sweeps = any(word in _SWEEP for word in words)
        rest = [word for word in words if word not in _SWEEP]
        runs = list(every_combination(rest)) if sweeps else [rest]
        return [
            self.resolve(compose_config(self.name, run), [word for word in run if is_setting(word)]) for run in runs
        ]


def command(name: str, settings: type[Any], run: Callable[[Any], object], resolve: Resolve | None = None) -> Command:
    """The entry of a command: `run(settings)`, whose status is that of the program where it returns a number.

    Settings are a dataclass with its defaults, changed by `name=value`. With `resolve` they are composed from the file
    NAME.yaml of the configuration and its groups first, and `--multirun` runs every combination.
    """
    return Command(name, settings, run, resolve)


def settings_from(words: Sequence[str], settings: type[Any]) -> Any:
    """The dataclass `settings` with what `name=value` words change. Raises ConfigError that names the wrong one."""
    check_words(words)
    config = OmegaConf.create({})
    for word in words:
        name, _, text = word.lstrip("+").partition("=")
        try:
            OmegaConf.update(config, name, _value(text), force_add=True)
        except (OmegaConfBaseException, ValueError, AttributeError) as error:
            raise ConfigError(f"{word}: {str(error).splitlines()[0]}") from error
    return to_settings(config, settings)


def leave(error: UserError) -> NoReturn:
    """One line, and the status 2; DREAMPRM_TRACEBACK=1 shows where it came from."""
    if os.environ.get("DREAMPRM_TRACEBACK"):
        traceback.print_exc()
    if isinstance(error, ConfigError) and os.environ.get("RANK", "0") != "0":
        # One of several processes of one command: the first says the same, if it is given the time.
        time.sleep(_SECONDS_FOR_THE_FIRST)
        sys.exit(2)
    sys.stderr.write(f"error: {error}\n")
    sys.exit(2)


def _value(text: str) -> Any:
    """A value as YAML has it; what YAML has no meaning for is itself (`-`, `*.jsonl`)."""
    if text == "-":
        return text
    try:
        return OmegaConf.to_container(OmegaConf.create(f"value: {text}"))["value"]  # type: ignore[index,call-overload]
    except (yaml.YAMLError, OmegaConfBaseException, ValueError, TypeError, KeyError):
        return text
