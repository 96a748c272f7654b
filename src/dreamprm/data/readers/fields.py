"""One row with typed access to its fields: every refusal names the file, the row, the field and what is allowed."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any, NoReturn

from dreamprm.data.record import RecordError

__all__ = ["MAX_DEPTH", "MAX_ROW", "MAX_STEPS", "MAX_TEXT", "DataError", "Row", "decode_row"]

MAX_ROW = 64 * 2**20
"""Bytes of one row; base64 images of a table are the largest rows that exist (a few MB each)."""
MAX_TEXT = 2**20
"""Characters of one text field; the longest published chain has under 40,000."""
MAX_STEPS = 2048
MAX_DEPTH = 64

_MISSING: Any = object()


class DataError(RecordError):
    """A file that cannot be read on (broken container, unknown format, missing part): never skipped, always raised."""


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a number of JSON; write null where a value is unknown")


def _depth(value: Any) -> int:
    """Depth of nested lists and objects, counted without recursion and stopped above `MAX_DEPTH`."""
    depth, layer = 0, [value]
    while layer and depth <= MAX_DEPTH:
        inner: list[Any] = []
        for item in layer:
            if isinstance(item, dict):
                inner.extend(v for v in item.values() if isinstance(v, (dict, list)))
            elif isinstance(item, list):
                inner.extend(v for v in item if isinstance(v, (dict, list)))
        layer = inner
        depth += 1
    return depth


def _place(text: str) -> str:
    """Which field holds a number that is none of JSON's, for the error."""
    try:
        value = json.loads(text.strip().removeprefix("\ufeff"))
    except (ValueError, RecursionError):
        return ""
    for name, item in value.items() if isinstance(value, dict) else ():
        layer: list[Any] = [item]
        while layer:
            inner = layer.pop()
            if isinstance(inner, float) and not math.isfinite(inner):
                return f"; it stands in {str(name)[:60]!r}"
            layer.extend(inner.values() if isinstance(inner, dict) else inner if isinstance(inner, list) else ())
    return ""


def decode_row(data: bytes, source: str, number: int) -> dict[str, Any]:
    """A JSON object from the bytes of a row.

    Raises RecordError for other encodings than UTF-8, broken JSON, NaN and Infinity, numbers of thousands of digits,
    nesting deeper than `MAX_DEPTH`, and values that are not an object.
    """
    if len(data) > MAX_ROW:
        raise RecordError(f"row of {len(data):,} bytes; at most {MAX_ROW:,} are read", source=source, row=number)
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        reason = (
            f"not UTF-8 (byte {error.start} is 0x{data[error.start]:02x}); convert the file, e.g. by iconv -t utf-8"
        )
        raise RecordError(reason, source=source, row=number) from None
    try:
        value = json.loads(text.strip().removeprefix("\ufeff"), parse_constant=_refuse_constant)
    except json.JSONDecodeError as error:
        reason = f"not valid JSON ({error.msg} at character {error.pos} of {len(text)}); is the row cut?"
        raise RecordError(reason, source=source, row=number) from None
    except RecursionError:
        reason = f"nested deeper than {MAX_DEPTH} levels"
        raise RecordError(reason, source=source, row=number) from None
    except ValueError as error:
        raise RecordError(f"not valid JSON ({error}{_place(text)})", source=source, row=number) from None
    if not isinstance(value, dict):
        reason = f"must be an object with named fields, is {type(value).__name__}"
        raise RecordError(reason, source=source, row=number)
    # Counting signs is far quicker than walking the value, and most rows open fewer brackets than may nest.
    if data.count(b"[") + data.count(b"{") > MAX_DEPTH and _depth(value) > MAX_DEPTH:
        raise RecordError(f"nested deeper than {MAX_DEPTH} levels", source=source, row=number)
    return value


class Row:
    """A row's fields. `source` names the file, `number` counts rows (lines of a line file) from 1."""

    __slots__ = ("number", "source", "value")

    def __init__(self, value: Mapping[str, Any], source: str = "", number: int = 0) -> None:
        self.value, self.source, self.number = value, source, number

    def fail(self, reason: str, field: str = "") -> NoReturn:
        raise RecordError(reason, source=self.source, row=self.number, field=field)

    def has(self, *names: str) -> bool:
        return all(self.value.get(name) is not None for name in names)

    def get(self, name: str, default: Any = None) -> Any:
        value = self.value.get(name, default)
        return default if value is None else value

    def at(self, value: Any, field: str) -> Row:
        """A nested object as a row of its own; its errors name `field`."""
        if not isinstance(value, Mapping):
            self.fail(f"must be an object, is {_kind(value)}", field)
        return _Inner(value, self.source, self.number, field)

    def check_text(self, value: Any, field: str, *, blank: bool = False) -> str:
        """`value` as text that is not blank (unless allowed), not huge, and that UTF-8 can hold."""
        if not isinstance(value, str):
            self.fail(f"must be text, is {_kind(value)}", field)
        if len(value) > MAX_TEXT:
            self.fail(f"{len(value):,} characters; at most {MAX_TEXT:,} are read", field)
        if not blank and not value.strip():
            self.fail("must not be empty", field)
        if not value.isascii():
            try:
                value.encode("utf-8")
            except UnicodeEncodeError as error:
                self.fail(f"holds half of a surrogate pair at character {error.start}; the text was cut badly", field)
        return value

    def text(self, name: str, default: Any = _MISSING, *, blank: bool = False) -> str:
        value = self.value.get(name)
        if value is None:
            if default is not _MISSING:
                return default
            self.fail("is missing" if name not in self.value else "must be text, is null", name)
        return self.check_text(value, name, blank=blank)

    def label_text(self, name: str, default: str | None = None) -> str | None:
        """A short value that files write as text or number (an id, an answer) as text; None where absent."""
        value = self.value.get(name)
        if value is None:
            return default
        if isinstance(value, bool) or not isinstance(value, (str, int, float)):
            self.fail(f"must be text or a number, is {_kind(value)}", name)
        if isinstance(value, float) and not math.isfinite(value):
            return default  # an empty cell of a table that pandas wrote
        return self.check_text(str(value), name, blank=True)

    def list(self, name: str, *, empty: bool = False) -> Sequence[Any]:
        value = self.value.get(name)
        if not isinstance(value, list):
            self.fail("is missing" if value is None else f"must be a list, is {_kind(value)}", name)
        if not value and not empty:
            self.fail("must not be empty", name)
        if len(value) > MAX_STEPS:
            self.fail(f"{len(value):,} entries; at most {MAX_STEPS:,} are read", name)
        return value

    def texts(self, name: str, *, blank: bool = False, empty: bool = False) -> tuple[str, ...]:
        items = self.list(name, empty=empty)
        return tuple(self.check_text(item, f"{name}[{i}]", blank=blank) for i, item in enumerate(items))

    def flag(self, name: str) -> bool:
        return self.check_flag(self.value.get(name), name)

    def check_flag(self, value: Any, field: str) -> bool:
        if not isinstance(value, bool):
            self.fail(f"must be true or false, is {_kind(value)}", field)
        return value

    def number_in(self, name: str, low: float, high: float) -> float:
        return self.check_number(self.value.get(name), name, low, high)

    def check_number(self, value: Any, field: str, low: float, high: float) -> float:
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            self.fail(f"must be a number in [{low:g}, {high:g}], is {_kind(value)}", field)
        # Python compares a whole number of any size with a float, but cannot always make a float of it.
        if not low <= value <= high:
            self.fail(f"must lie in [{low:g}, {high:g}], is {value!r:.40}", field)
        return float(value)

    def integer(self, value: Any, field: str) -> int:
        if isinstance(value, bool) or not isinstance(value, int):
            self.fail(f"must be a whole number, is {_kind(value)}", field)
        return value


class _Inner(Row):
    """A nested object; puts the path of its place before each field's name."""

    __slots__ = ("place",)

    def __init__(self, value: Mapping[str, Any], source: str, number: int, place: str) -> None:
        super().__init__(value, source, number)
        self.place = place

    def fail(self, reason: str, field: str = "") -> NoReturn:
        raise RecordError(reason, source=self.source, row=self.number, field=f"{self.place}.{field}".rstrip("."))


def _kind(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, (str, int, float, bool)):
        return f"{type(value).__name__} {value!r:.40}"
    return {"dict": "an object", "list": "a list"}.get(type(value).__name__, type(value).__name__)
