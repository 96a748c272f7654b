"""`--help [WORD]`: the settings of a command, read from their dataclasses: meaning, default and allowed values."""

from __future__ import annotations

import dataclasses
import enum
import inspect
import sys
import textwrap
import typing
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from dreamprm.config.launch import experiments
from dreamprm.config.paths import conf_dir
from dreamprm.config.resolve import kinds_at
from dreamprm.setting import rule_of

if TYPE_CHECKING:
    from dreamprm.commands.command import Command

__all__ = ["found_lines", "show_help"]

_WIDTH = 118
_MEANING = 44


def show_help(command: Command, program: str, words: Sequence[str] = ()) -> None:
    """Print the help of a command; words: only settings whose name, meaning or values hold one of them."""
    if words:
        nothing = [f"no setting of {program} speaks of {' or '.join(words)}; --help shows all of them"]
        lines = found_lines(command, words) or nothing
    else:
        lines = _whole(command, program)
    sys.stdout.write("\n".join(lines) + "\n")


def found_lines(command: Command, words: Sequence[str] = ()) -> list[str]:
    """A line, or several, for each setting that speaks of one of the words; all where there is no word."""
    wanted = [word.lower() for word in words]
    return [
        line.lstrip("\n") if words else line
        for line, searched in _settings_lines(command)
        if not words or any(word in searched for word in wanted)
    ]


def _whole(command: Command, program: str) -> list[str]:
    composed = command.resolve is not None
    about = inspect.getdoc(command.settings) or ""
    usage = f"usage: {program} {'[experiment=NAME] [GROUP=FILE …] ' if composed else ''}[name=value …]"
    lines = [usage, "", *textwrap.wrap(about.splitlines()[0], _WIDTH), ""]
    if composed:
        lines += _composed_lines(program)
    settings = found_lines(command)
    if settings:
        lines += ["Settings, each with its default, what it means and what is allowed:", *settings, ""]
        lines.append(f"{program} --help WORD shows those that speak of WORD.")
    return lines


def _composed_lines(program: str) -> list[str]:
    lines = [f"e.g. {program} experiment=instance_net seed=1 inner.updates=200", ""]
    lines.append("Files to compose from:")
    for folder in sorted(path for path in conf_dir().iterdir() if path.is_dir()):
        names = (
            list(experiments()) if folder.name == "experiment" else sorted(path.stem for path in folder.glob("*.yaml"))
        )
        places = {"optimizer": "optimizer@outer.optimizer", "schedule": "schedule@outer.schedule"}
        lines += _entry(f"  {places.get(folder.name, folder.name)}=", ", ".join(names))
    lines += [
        "",
        *_entry("  -m, --multirun", "one run per combination of values with commas between, e.g. seed=0,1,2"),
        *_entry("  allow=MODULE", "weigher=MODULE:NAME, data=…, inner.loss=… of your own may be imported from MODULE"),
        "",
    ]
    return lines


def _settings_lines(command: Command) -> Iterator[tuple[str, str]]:
    """(line, text to search in) of every setting, those of every kind of a group too."""
    yield from _walk(command.settings(), "", composed=command.resolve is not None)


def _walk(settings: Any, place: str, *, composed: bool) -> Iterator[tuple[str, str]]:
    hints = typing.get_type_hints(type(settings))
    own = vars(type(settings)).get("__annotations__", {})
    # Single settings before groups; of the single ones those of the class itself before what it shares with others.
    fields = sorted(
        dataclasses.fields(settings),
        key=lambda item: (dataclasses.is_dataclass(getattr(settings, item.name)), item.name not in own),
    )
    for item in fields:
        name = f"{place}.{item.name}" if place else item.name
        value = getattr(settings, item.name)
        if dataclasses.is_dataclass(value):
            heading = (inspect.getdoc(type(value)) or "").splitlines()[0]
            yield f"\n{name}: {heading}", f"{name} {heading}".lower()
            yield from _walk(value, name, composed=composed)
            for kind, other in (kinds_at(name) if composed else {}).items():
                if type(value) is not other:
                    yield from _of_kind(name, kind, other, type(value))
            continue
        yield _line(name, value, item, hints[item.name]), _searched(name, item, hints[item.name])


def _of_kind(place: str, kind: str, settings: type[Any], shown: type[Any]) -> Iterator[tuple[str, str]]:
    """What another kind of a group has beside the kind that is shown."""
    heading = (inspect.getdoc(settings) or "").splitlines()[0]
    yield f"  {place}.kind={kind}: {heading}", f"{place} {kind} {heading}".lower()
    hints = typing.get_type_hints(settings)
    for item in dataclasses.fields(settings):
        if item.name == "kind" or (item.name in {other.name for other in dataclasses.fields(shown)}):
            continue
        default = item.default if item.default is not dataclasses.MISSING else item.default_factory()  # type: ignore[misc]
        name = f"{place}.{item.name}"
        yield _line(name, default, item, hints[item.name]), _searched(f"{name} {kind}", item, hints[item.name])


def _line(name: str, value: Any, item: dataclasses.Field[Any], hint: Any) -> str:
    notes = [part for part in (rule_of(item).meaning, _allowed(item, hint)) if part]
    return "\n".join(_entry(f"  {name}={_shown(value)}", "; ".join(notes)))


def _entry(left: str, right: str) -> list[str]:
    """`left` and, from a column on, `right`, on as many lines as it takes."""
    rows = textwrap.wrap(right, _WIDTH - _MEANING) or [""]
    head = [left] if len(left) >= _MEANING - 1 else [f"{left:<{_MEANING}}{rows.pop(0)}".rstrip()]
    return [*head, *(f"{'':<{_MEANING}}{row}" for row in rows)]


def _searched(name: str, item: dataclasses.Field[Any], hint: Any) -> str:
    return f"{name} {rule_of(item).meaning} {_allowed(item, hint)}".lower()


def _allowed(item: dataclasses.Field[Any], hint: Any) -> str:
    """The values that a setting may have: words, else type and bounds."""
    rule = rule_of(item)
    kinds = typing.get_args(hint) or (hint,)
    words = [
        member.value for kind in kinds if isinstance(kind, type) and issubclass(kind, enum.Enum) for member in kind
    ]
    if rule.words is not None or words:
        return f"one of {', '.join(rule.words or words)}"
    if bool in kinds:
        return "true or false"
    names = {int: "a whole number", float: "a number", str: ""}
    kind = next((text for type_, text in names.items() if type_ in kinds), "")
    return " ".join(part for part in (kind, rule.allowed()) if part)


def _shown(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return repr(value) if value == "" or "\n" in value else value
    return str(value)
