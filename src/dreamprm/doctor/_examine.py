"""`dreamprm doctor data.path=FILE`: one pass over each data set, findings, table, report."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from rich.console import Console

from dreamprm.choices import OnBadRow
from dreamprm.data.readers import BadRows
from dreamprm.data.record import RecordError
from dreamprm.doctor.findings import Finding, Severity, find, find_overlap
from dreamprm.doctor.settings import DoctorSettings
from dreamprm.doctor.summary import as_data, show
from dreamprm.doctor.survey import Survey, survey
from dreamprm.errors import UserError

__all__ = ["examine", "examine_and_show"]


def _side_file(settings: DoctorSettings, name: str) -> Path:
    """Where bad rows are listed: where training does, or in `quarantine`, `quarantine.meta`, `quarantine.test`."""
    if settings.quarantine is not None:
        path = Path(settings.quarantine)
        return path if name == "data" else path.with_name(f"{path.stem}.{name}{path.suffix}")
    paths = getattr(settings, name).path
    return Path(f"{paths[0] if isinstance(paths, (list, tuple)) else paths}.bad_rows.jsonl")


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
        action = settings.on_bad_row or (OnBadRow.quarantine if settings.quarantine else OnBadRow.skip)
        bad = BadRows(action, _side_file(settings, name) if action is OnBadRow.quarantine else None)
        surveys[name] = survey(part, bad, settings.max_images)
        findings[name], features = find(surveys[name], name)
        data[name] = as_data(surveys[name], features)
    if overlap := find_overlap(surveys):
        findings["all"] = overlap
    return data, findings


def examine_and_show(settings: DoctorSettings) -> int:
    """Examine, show a table, write JSON where asked.

    Returns the exit status: 0 nothing grave, 1 findings of severity error. Raises UserError, whose status is 2, for
    data that cannot be read.
    """
    if settings.data.path is None:
        raise UserError("data.path is missing; name the file to examine: data.path=FILE")
    try:
        data, findings = examine(settings)
    except (RecordError, ValueError, OSError) as error:
        raise UserError(str(error)) from error
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
