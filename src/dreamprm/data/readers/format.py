"""What a format is: how its rows are known, and how one row becomes records."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dreamprm.data.readers.fields import Row
from dreamprm.data.readers.images import read_images
from dreamprm.data.record import Image, Record, RecordError, content_key

__all__ = ["Context", "Format", "drop_blank"]


@dataclass(frozen=True, slots=True)
class Context:
    """What a row's file knows besides the row.

    source: name of the file in keys and records.  domain: used where the format's rows name none.
    root: folder that image paths are relative to and must stay below.  options: the format's settings, all of them.
    tables: rows of companion files by their id (questions of MATH-Vision).
    """

    source: str
    path: Path
    domain: str
    root: Path
    follow_links: bool = False
    options: Mapping[str, Any] = field(default_factory=dict)
    tables: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    def images(self, row: Row, value: Any, name: str) -> tuple[Image, ...]:
        return read_images(row, value, name, self.root, follow_links=self.follow_links)

    def record(self, row: Row, *, question: str, steps: tuple[str, ...], group: str, **fields: Any) -> Record:
        """A record keyed by file, row and content; `part` tells several records of one row apart."""
        part = fields.pop("part", "")
        domain = fields.pop("domain", None) or self.domain
        key = content_key(self.source, row.number, question, *steps, part)
        key = f"{key}:{part}" if part else key
        try:
            return Record(
                key=key, source=self.source, domain=domain, group=group, question=question, steps=steps, **fields
            )
        except RecordError as error:
            raise RecordError(error.reason, source=str(self.path), row=row.number, field=error.field) from None


@dataclass(frozen=True, slots=True)
class Format:
    """name: what `data.format=` is given.  fields: shown where nothing is recognised.

    known_by: fields whose presence tells the format; `also` a further look at the row's values.
    parse: one row to its records (none is allowed: a row that an option leaves out).
    options: settings with their defaults.  tables: reads companion files of a path.
    """

    name: str
    about: str
    fields: str
    known_by: tuple[str, ...]
    parse: Callable[[Row, Context], Iterator[Record]]
    also: Callable[[Mapping[str, Any]], bool] | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    tables: Callable[[Path], Mapping[str, Mapping[str, Any]]] | None = None

    def __reduce__(self) -> tuple[Callable[[str], Format], tuple[str]]:
        """Copies in other processes are looked up by name: functions need not travel."""
        from dreamprm.data.readers.registry import get_format

        return get_format, (self.name,)

    def matches(self, row: Mapping[str, Any]) -> bool:
        return all(name in row for name in self.known_by) and (self.also is None or self.also(row))


def drop_blank(
    steps: tuple[str, ...], labels: tuple[float | None, ...], row: Row, name: str
) -> tuple[tuple[str, ...], tuple[float | None, ...]]:
    """Steps without blank ones (paragraph breaks listed as steps); a blank one that is labelled wrong is an error."""
    for index, (step, label) in enumerate(zip(steps, labels, strict=True)):
        if not step.strip() and label == 0.0:
            row.fail("is blank and is labelled wrong: the label points beside its step", f"{name}[{index}]")
    kept = [(step, label) for step, label in zip(steps, labels) if step.strip()]
    if not kept:
        row.fail("holds only blank steps", name)
    return tuple(step for step, _ in kept), tuple(label for _, label in kept)
