"""`dreamprm doctor data.path=FILE`, `dreamprm doctor data.path=FILE`."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from dreamprm.data.readers import BadRows
from dreamprm.data.record import RecordError
from dreamprm.doctor.findings import Finding, Severity, find, find_overlap
from dreamprm.doctor.settings import DoctorSettings, parse_settings
from dreamprm.doctor.summary import as_data, show
from dreamprm.doctor.survey import Survey, survey

__all__ = ["examine", "main"]

_HELP = """Usage: {program} data.path=FILE [name=value …]

  data.path      file, folder, meta.json or [list, of, these]; meta.path and test.path are compared with it
  data.format    recognised where absent          data.images  root of image paths (default: the file's folder)
  data.split     of a Hugging Face folder         data.options.NAME  a setting of the format
  json           file for the report as JSON, - for standard output
  on_bad_row     quarantine (default: listed in the file `quarantine`), skip, or error
  quarantine     side file, default bad_rows.jsonl         max_images  images to open, 0 for all, default 2000

Exit status: 0 nothing grave, 1 findings of severity error, 2 the data could not be read or a setting is wrong.
"""


def _side_file(settings: DoctorSettings, name: str) -> Path:
    """Data sets list their bad rows in files of their own: `bad_rows.jsonl`, `bad_rows.meta.jsonl` …"""
    path = Path(settings.quarantine)
    return path if name == "data" else path.with_name(f"{path.stem}.{name}{path.suffix}")


def examine(settings: DoctorSettings) -> tuple[dict[str, dict[str, Any]], dict[str, list[Finding]]]:
    """Counts and findings of every data set named, and findings on what they share (under "all").

    Raises DataError for files that cannot be read, RecordError at the first bad row with on_bad_row=error.
    """
    surveys: dict[str, Survey] = {}
    data: dict[str, dict[str, Any]] = {}
    findings: dict[str, list[Finding]] = {}
    for name in ("data", "meta", "test"):
        part = getattr(settings, name)
        if part.path is None:
            continue
        bad = BadRows(settings.on_bad_row, _side_file(settings, name))
        surveys[name] = survey(part, bad, settings.max_images)
        findings[name], features = find(surveys[name])
        data[name] = as_data(surveys[name], features)
    if overlap := find_overlap(surveys):
        findings["all"] = overlap
    return data, findings


def main(argv: Sequence[str] | None = None, program: str = "dreamprm doctor") -> int:
    """Examine, show a table, write JSON where asked. Returns the exit status."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    errors = Console(stderr=True, highlight=False, soft_wrap=True)
    if not arguments or any(argument in ("-h", "--help", "help") for argument in arguments):
        Console(highlight=False, soft_wrap=True).print(_HELP.format(program=program), markup=False)
        return 0 if arguments else 2
    try:
        settings = parse_settings(arguments)
        data, findings = examine(settings)
    except (RecordError, ValueError, OSError) as error:
        errors.print(f"doctor: {error}", markup=False)
        return 2
    report = {"data": data, "findings": {k: [item.as_dict() for item in v] for k, v in findings.items()}}
    if settings.json == "-":
        sys.stdout.write(json.dumps(report, indent=2, ensure_ascii=False) + "\n")
    else:
        show(Console(), data, findings)
        if settings.json is not None:
            target = Path(settings.json)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(json.dumps(report, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    grave = any(item.severity is Severity.ERROR for listed in findings.values() for item in listed)
    return 1 if grave else 0
