"""A field of a settings dataclass: its default, its meaning, and the values that it may have.

    @dataclass
    class CosineSettings(Settings):
        final: float = setting(0.0, "factor at the end", least=0)

The check when a dataclass is made, `dreamprm NAME --help`, and a configuration's error all read this one line.
"""

from __future__ import annotations

import copy
import dataclasses
import math
from collections.abc import Iterable
from dataclasses import dataclass, field, fields
from typing import Any

from dreamprm.choices import one_of

__all__ = ["LARGEST", "Rule", "Settings", "arguments_of", "rule_of", "setting"]

LARGEST = 2**31 - 1
"""No whole number in a setting is larger: seeds, sizes and counts above it overflow somewhere later."""

_LARGEST_FLOAT = 1e30  # fp32 ends at 3e38, and optimizers multiply


@dataclass(frozen=True)
class Rule:
    """What is known of one setting. words: what it may be, often a table's keys.  least <= value <= most, and strictly
    above < value < below; each applies to every number of a list."""

    meaning: str = ""
    words: Iterable[str] | None = None
    least: float | None = None
    most: float | None = None
    above: float | None = None
    below: float | None = None

    def allowed(self) -> str:
        """The values as a text for people, empty where the type says all."""
        if self.words is not None:
            return ", ".join(self.words)
        bounds = (("above", self.above), ("at least", self.least), ("at most", self.most), ("below", self.below))
        return ", ".join(f"{name} {value:g}" for name, value in bounds if value is not None)


def setting(default: Any, meaning: str = "", **rule: Any) -> Any:
    """A dataclass field with its `Rule`; a default that can be changed (a list, a dataclass) is copied each time."""
    metadata = {"rule": Rule(meaning, **rule)}
    if isinstance(default, (list, dict)) or dataclasses.is_dataclass(default):
        return field(default_factory=lambda: copy.deepcopy(default), metadata=metadata)
    return field(default=default, metadata=metadata)


def rule_of(item: dataclasses.Field[Any]) -> Rule:
    """The rule of a dataclass field; an empty one where it was made without `setting`."""
    return item.metadata.get("rule", Rule())


class Settings:
    """A settings dataclass: every value is held against its rule when an object is made.

    Raises ValueError with the name, the value and what is allowed. A subclass with checks of its own calls this one.
    """

    def __post_init__(self) -> None:
        for item in fields(self):  # type: ignore[arg-type]
            _check(item.name, getattr(self, item.name), rule_of(item))


def arguments_of(settings: Any, *without: str) -> dict[str, Any]:
    """The settings as arguments by name, but `kind` and those that are named."""
    left_out = {"kind", *without}
    return {item.name: getattr(settings, item.name) for item in fields(settings) if item.name not in left_out}


def _check(name: str, value: Any, rule: Rule) -> None:
    if value is None or isinstance(value, bool):
        return
    if isinstance(value, (list, tuple)):
        for each in value:
            _check(name, each, rule)
    elif isinstance(value, (int, float)):
        _check_number(name, value, rule)
    elif isinstance(value, str) and rule.words is not None:
        one_of(value, rule.words, name)


def _check_number(name: str, value: float, rule: Rule) -> None:
    if isinstance(value, int):
        if abs(value) > LARGEST:
            raise ValueError(f"{name} must lie within ±{LARGEST}, is {_short(value)}")
    elif not math.isfinite(value) or abs(value) > _LARGEST_FLOAT:
        raise ValueError(f"{name} must be a number within ±{_LARGEST_FLOAT:g}, is {value}")
    if rule.above is not None and value <= rule.above:
        raise ValueError(f"{name} must be above {rule.above:g}, is {value}")
    if rule.least is not None and value < rule.least:
        raise ValueError(f"{name} must be at least {rule.least:g}, is {value}")
    if rule.most is not None and value > rule.most:
        raise ValueError(f"{name} must be at most {rule.most:g}, is {value}")
    if rule.below is not None and value >= rule.below:
        raise ValueError(f"{name} must be below {rule.below:g}, is {value}")


def _short(value: int) -> str:
    try:
        text = str(value)
    except ValueError:  # Python refuses to write more than 4,300 digits
        return "a number of thousands of digits"
    return text if len(text) <= 24 else f"{text[:12]}… of {len(text)} digits"
