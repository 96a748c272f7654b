"""From a composed configuration to checked dataclasses, once at startup; what is wrong is said in one message."""

from __future__ import annotations

import dataclasses
import operator
from collections.abc import Mapping
from enum import Enum
from typing import Any, TypeVar

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from dreamprm.choices import near_miss
from dreamprm.config.optimizers import OPTIMIZERS, OptimizerSettings
from dreamprm.config.own import PLACES_OF_OWN, admit, is_own
from dreamprm.config.schedule import SCHEDULES, Schedule
from dreamprm.config.schema import TrainConfig
from dreamprm.errors import ConfigError
from dreamprm.sources import SOURCES, HeldOut, Source
from dreamprm.weigher import WEIGHERS

__all__ = ["differences", "kinds_at", "resolve_train", "to_plain", "to_settings"]

T = TypeVar("T")

_SHARED = (OptimizerSettings, Schedule)

# Place in the configuration -> the table of its kinds, whose entries are settings, or settings with their class.
_TABLES: dict[str, Mapping[str, Any]] = {
    "data": SOURCES,
    "meta": SOURCES,
    "weigher": WEIGHERS,
    "cold.optimizer": OPTIMIZERS,
    "inner.optimizer": OPTIMIZERS,
    "outer.optimizer": OPTIMIZERS,
    "cold.schedule": SCHEDULES,
    "inner.schedule": SCHEDULES,
    "outer.schedule": SCHEDULES,
}


def kinds_at(place: str) -> dict[str, type[Any]]:
    """Kind -> settings, for a place where there are several kinds; none elsewhere."""
    if place == "data":
        return {kind: settings for kind, (settings, made) in SOURCES.items() if made.train is not Source.train}
    if place == "meta":
        judged = {kind: settings for kind, (settings, made) in SOURCES.items() if made.meta is not Source.meta}
        return judged | {HeldOut.kind: HeldOut}
    found = {kind: entry[0] if isinstance(entry, tuple) else entry for kind, entry in _TABLES.get(place, {}).items()}
    if place in ("cold.optimizer", "inner.optimizer"):
        del found["row_adam"]  # it moves rows, which a weigher's table has
    return found


def resolve_train(composed: DictConfig | Mapping[str, Any]) -> TrainConfig:
    """Check a composed (or saved) configuration and make a `TrainConfig` of it.

    Raises ConfigError for an unknown kind, a name that does not exist, a wrong type or a value out of range.
    """
    config = composed if isinstance(composed, DictConfig) else OmegaConf.create(dict(composed))
    schema = OmegaConf.structured(TrainConfig)
    default = TrainConfig()
    for place in PLACES_OF_OWN:
        word = OmegaConf.select(config, place)
        word = OmegaConf.select(config, f"{place}.kind") if isinstance(word, DictConfig) else word
        if is_own(word):
            admit(place, word)
    for place in _TABLES:
        kind, kinds = OmegaConf.select(config, f"{place}.kind"), kinds_at(place)
        if kind is None:
            continue
        if kind not in kinds:
            allowed = ", ".join(sorted(kinds))
            raise ConfigError(f"{place}.kind: {kind!r} is none of {allowed}{near_miss(str(kind), kinds)}")
        OmegaConf.update(schema, place, OmegaConf.structured(_of_kind(default, place, kinds[kind])), merge=False)
    return to_settings(config, schema)


def _of_kind(default: TrainConfig, place: str, kind: type[Any]) -> Any:
    """The settings of one kind at its place in the configuration.

    What all kinds of a group share (an optimizer's lr, a schedule's warm-up) has the place's default, whatever the
    kind; the rest has the kind's own.
    """
    here = operator.attrgetter(place)(default)
    if type(here) is kind:
        return here
    group = next((shared for shared in _SHARED if isinstance(here, shared) and issubclass(kind, shared)), None)
    names = [] if group is None else [item.name for item in dataclasses.fields(group) if item.name != "kind"]
    return kind(**{name: getattr(here, name) for name in names})


def to_settings(config: DictConfig, schema: DictConfig | type[T]) -> T:
    """Merge `config` into `schema` (a dataclass or its structured config) and return the dataclass."""
    structured = schema if isinstance(schema, DictConfig) else OmegaConf.structured(schema)
    if not isinstance(config, DictConfig):
        raise ConfigError(f"a configuration is a mapping of names to values, this is a {type(config).__name__}")
    _check_names(config, structured, "")
    merged: Any = structured
    try:
        merged = OmegaConf.merge(structured, config)
        return OmegaConf.to_object(merged)  # type: ignore[return-value]
    except OmegaConfBaseException as error:
        place = str(getattr(error, "full_key", "") or "")
        reason = str(error).splitlines()[0]
        raise ConfigError(f"{place or 'configuration'}: {reason}{_allowed_values(structured, place)}") from error
    except (ValueError, TypeError) as error:
        raise ConfigError(f"{_failing_place(merged)}{error}") from error


def to_plain(settings: Any) -> dict[str, Any]:
    """The settings as nested dicts of plain values, enums by name: what config.yaml holds."""
    return OmegaConf.to_container(OmegaConf.structured(settings), enum_to_str=True)  # type: ignore[return-value]


def differences(old: Mapping[str, Any], new: Mapping[str, Any], place: str = "") -> dict[str, tuple[Any, Any]]:
    """Dotted name -> (old, new) of every value that is not the same in two plain configurations."""
    found: dict[str, tuple[Any, Any]] = {}
    for name in sorted({*old, *new}):
        here = f"{place}.{name}" if place else name
        one, two = old.get(name), new.get(name)
        if isinstance(one, Mapping) and isinstance(two, Mapping):
            found |= differences(one, two, here)
        elif one != two:
            found[here] = (one, two)
    return found


def _check_names(config: DictConfig, schema: DictConfig, place: str) -> None:
    names = [str(name) for name in schema]
    for name in config:
        here = f"{place}.{name}" if place else str(name)
        if name not in schema:
            where = f"{place} allows" if place else "allowed are"
            hint = near_miss(str(name), names)
            if name == "path" and place in ("data", "meta") and "kind" in names:  # the world's, which has no file
                hint = f"; for a file of yours: {place}=files {here}=…"
            raise ConfigError(f"{here}: no such setting; {where} {', '.join(names)}{hint}")
        if OmegaConf.is_missing(config, name) or OmegaConf.is_interpolation(config, str(name)):
            continue
        child, expected = config[name], schema[name]
        if isinstance(expected, DictConfig) and child is not None:
            if not isinstance(child, DictConfig):
                raise ConfigError(f"{here}: is a group of settings ({', '.join(map(str, expected))}), not {child!r}")
            _check_names(child, expected, here)


def _failing_place(config: Any, place: str = "") -> str:
    """The deepest group whose own check fails, as a prefix of the message."""
    for name in config:
        child = config[name] if not OmegaConf.is_missing(config, name) else None
        if not isinstance(child, DictConfig):
            continue
        try:
            OmegaConf.to_object(child)
        except (ValueError, TypeError):
            return _failing_place(child, f"{place}.{name}" if place else str(name))
    return f"{place}: " if place else ""


def _allowed_values(schema: DictConfig, place: str) -> str:
    value = OmegaConf.select(schema, place, throw_on_missing=False) if place else None
    if isinstance(value, Enum):
        return ""  # OmegaConf's own message lists the members
    return "" if value is None else f"; the default is {value!r}"
