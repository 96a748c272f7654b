"""A user's own weigher, source or loss: named as MODULE:NAME, and imported only where the command line allows MODULE.

    dreamprm train allow=my_module weigher=my_module:MyWeigher weigher.strength=2

A file alone never decides that code is run: not an experiment's, not a run folder's. What was allowed is not saved.
"""

from __future__ import annotations

import dataclasses
import importlib
import inspect
import re
import typing
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from dreamprm.data.file_data import DataSettings
from dreamprm.errors import ConfigError
from dreamprm.loss import INNER_LOSSES, OUTER_LOSSES
from dreamprm.sources import SOURCES, Source
from dreamprm.weigher import WEIGHERS, Weigher, WeigherSettings

__all__ = ["PLACES_OF_OWN", "admit", "allow_modules", "is_own"]

_NAME = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*", re.ASCII)
_MODULE = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*", re.ASCII)

_allowed: set[str] = set()


def allow_modules(names: Iterable[str]) -> None:
    """What the command line allows, in place of what an earlier one did. Raises ConfigError for what is no module."""
    names = list(names)
    for name in names:
        if not _MODULE.fullmatch(name):
            raise ConfigError(f"allow={name}: is no module's name; write allow=my_module, several as allow=a,b")
    _allowed.clear()
    _allowed.update(names)


def is_own(word: object) -> bool:
    """Whether a word names something outside of this package."""
    return isinstance(word, str) and _NAME.fullmatch(word) is not None


def admit(place: str, word: str) -> None:
    """Import what `word` names and put it into the table of its place, so that it is one of the words there.

    Raises ConfigError where its module is not allowed, cannot be imported, or holds nothing of the kind.
    """
    module, _, name = word.partition(":")
    if not any(module == allowed or module.startswith(f"{allowed}.") for allowed in _allowed):
        top = module.partition(".")[0]
        raise ConfigError(
            f"{place}={word} would import {module}, which the command line does not allow: add allow={top} to the "
            "command where you trust that module; a file cannot allow it"
        )
    try:
        found = getattr(importlib.import_module(module), name)
    except ImportError as error:
        raise ConfigError(f"{place}={word}: {module} cannot be imported: {error}") from error
    except AttributeError as error:
        raise ConfigError(f"{place}={word}: {module} has no {name}") from error
    PLACES_OF_OWN[place](place, word, found)


def _weigher(place: str, word: str, found: Any) -> None:
    _check_class(place, word, found, Weigher)
    WEIGHERS[word] = (_settings(place, word, found, WeigherSettings, ("num_examples", "num_domains")), found)


def _source(place: str, word: str, found: Any) -> None:
    _check_class(place, word, found, Source)
    SOURCES[word] = (_settings(place, word, found, DataSettings, ("settings", "place")), found)


def _loss(place: str, word: str, found: Any) -> None:
    if not callable(found) or inspect.isclass(found):
        raise ConfigError(f"{place}={word}: is no function of a loss")
    table: dict[str, Any] = INNER_LOSSES if place == "inner.loss" else OUTER_LOSSES  # type: ignore[assignment]
    table[word] = found


PLACES_OF_OWN: dict[str, Callable[[str, str, Any], None]] = {
    "data": _source,
    "meta": _source,
    "weigher": _weigher,
    "inner.loss": _loss,
    "outer.loss": _loss,
}
"""Place in the configuration -> what takes a user's own into the table of that place."""


def _check_class(place: str, word: str, found: Any, wanted: type) -> None:
    if not (inspect.isclass(found) and issubclass(found, wanted)):
        raise ConfigError(f"{place}={word}: is no subclass of {wanted.__module__}.{wanted.__name__}")


def _settings(place: str, word: str, found: Any, base: type, known: Sequence[str]) -> type[Any]:
    """The class's own `Settings` where it has one; else a dataclass of its constructor's arguments.

    known: arguments that the run gives.
    """
    own = getattr(found, "Settings", None)
    if own is not None:
        if not (inspect.isclass(own) and issubclass(own, base) and dataclasses.is_dataclass(own)):
            raise ConfigError(f"{place}={word}: its Settings is no dataclass below {base.__module__}.{base.__name__}")
        fields: list[Any] = []
        bases: tuple[type, ...] = (own,)
    else:
        hints = typing.get_type_hints(found.__init__)
        given = [p for p in list(inspect.signature(found.__init__).parameters.values())[1:] if p.name not in known]
        fields = [_field(p, hints.get(p.name, Any)) for p in given if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]
        bases = (base,)
    kind = ("kind", str, dataclasses.field(default=word))
    return dataclasses.make_dataclass(f"{found.__name__}Settings", [kind, *fields], bases=bases)


def _field(parameter: inspect.Parameter, hint: Any) -> tuple[str, Any, Any]:
    if parameter.default is parameter.empty:
        return parameter.name, hint, dataclasses.field(default="???")  # OmegaConf's word for what has to be set
    if isinstance(parameter.default, (list, dict)):
        value = parameter.default
        return parameter.name, hint, dataclasses.field(default_factory=lambda: value.copy())
    return parameter.name, hint, dataclasses.field(default=parameter.default)
