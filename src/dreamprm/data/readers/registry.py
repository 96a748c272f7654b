"""All formats by name, and which of them a row belongs to. A new format is one file and one line here."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from dreamprm.choices import near_miss
from dreamprm.data.readers.fields import DataError
from dreamprm.data.readers.format import Format
from dreamprm.data.readers.formats import (
    dreamprm15_meta,
    dreamprm15_test,
    dreamprm_meta,
    dreamprm_train,
    math_shepherd,
    mathvision,
    mathvista,
    mm_vet,
    mmmu,
    mmstar,
    mr_ben,
    own,
    prm800k,
    prmbench,
    process_bench,
    r_bench_v,
    trl_stepwise,
    verify_cot,
    visual_process_bench,
    visualprm,
    visualprm_raw,
    vlmevalkit,
    we_math,
)
from dreamprm.data.record import RecordError

__all__ = ["FORMATS", "format_of_row", "get_format", "settings_of"]

FORMATS: dict[str, Format] = {
    item.name: item
    for item in (
        # Those known by more fields come first: a row is taken by the first that matches.
        vlmevalkit.RESULT,
        dreamprm15_meta.FORMAT,
        dreamprm15_test.FORMAT,
        visualprm_raw.FORMAT,
        visualprm.FORMAT,
        dreamprm_train.FORMAT,
        dreamprm_meta.FORMAT,
        visual_process_bench.FORMAT,
        process_bench.FORMAT,
        prm800k.FORMAT,
        math_shepherd.FORMAT,
        trl_stepwise.FORMAT,
        prmbench.FORMAT,
        mr_ben.FORMAT,
        verify_cot.SAMPLES,
        verify_cot.HUMAN,
        mathvision.URSA,
        mathvision.OUTPUT,
        mathvision.QUESTIONS,
        mathvista.FORMAT,
        we_math.FORMAT,
        mm_vet.FORMAT,
        mmstar.FORMAT,
        r_bench_v.FORMAT,
        vlmevalkit.FORMAT,
        mmmu.FORMAT,
        own.FORMAT,
    )
}


def get_format(name: str) -> Format:
    """Raises DataError with the names of all where this one is unknown."""
    if name not in FORMATS:
        raise DataError(
            f"no format is called {name!r}; data.format is one of {', '.join(FORMATS)}{near_miss(name, FORMATS)}"
        )
    return FORMATS[name]


def format_of_row(rows: Iterable[Mapping[str, Any] | RecordError], source: str) -> Format:
    """The format whose fields the first recognisable row has.

    Raises DataError with what is known and what was seen; where no row can be read, with the reason of the first.
    """
    seen: tuple[str, ...] = ()
    unread: RecordError | None = None
    for row in rows:
        if isinstance(row, RecordError):
            unread = unread or row
            continue
        seen = seen or tuple(str(name)[:40] for name in list(row)[:20])
        for item in FORMATS.values():
            if item.matches(row):
                return item
    if not seen and unread is None:
        raise DataError("is empty: it holds no row; format not recognised", source=source)
    if not seen and unread is not None:
        reason = f"no row can be read; the first: {unread.reason}"
        raise DataError(reason, source=source, row=unread.row, field=unread.field)
    fields = ", ".join(seen)
    raise DataError(
        f"format not recognised (fields: {fields}): set data.format to one of {', '.join(FORMATS)}; rows of your own "
        f"need {own.FORMAT.fields}",
        source=source,
    )


def settings_of(item: Format, given: Mapping[str, Any] | None) -> dict[str, Any]:
    """The format's settings with the given ones in place of defaults. Raises DataError for names and types it lacks."""
    settings = dict(item.options)
    for name, value in (given or {}).items():
        if name not in settings:
            allowed = ", ".join(settings) or "none"
            raise DataError(f"format {item.name} has no option {name!r}; it has: {allowed}")
        if type(value) is not type(settings[name]):
            kind = type(settings[name]).__name__
            raise DataError(f"option {name!r} of format {item.name} must be a {kind}, is {value!r}")
        settings[name] = value
    return settings
