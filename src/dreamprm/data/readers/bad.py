"""What happens to rows that cannot be read: stop at the first, pass over them, or also write them to a side file."""

from __future__ import annotations

import json
import logging
from pathlib import Path

from dreamprm.choices import OnBadRow
from dreamprm.data.readers.fields import DataError
from dreamprm.data.record import RecordError

__all__ = ["BadRows"]

_LOG = logging.getLogger(__name__)


class BadRows:
    """Counts bad rows, keeps the first hundred, and writes all of them where asked to.

    The side file is JSON Lines: file, row, field, reason. It is made when the first bad row is met.
    """

    KEPT = 100

    def __init__(self, on_bad_row: str | OnBadRow = OnBadRow.error, side_file: str | Path | None = None) -> None:
        try:
            self.action = OnBadRow(on_bad_row)
        except ValueError:
            allowed = ", ".join(OnBadRow)
            raise DataError(f"on_bad_row must be one of {allowed}, is {on_bad_row!r}") from None
        if self.action is OnBadRow.quarantine and side_file is None:
            raise DataError(
                "on_bad_row=quarantine needs a side file; set data.quarantine to a path that can be written"
            )
        self.side_file = Path(side_file) if side_file is not None else None
        self.count = 0
        self.first: list[RecordError] = []

    def add(self, error: RecordError) -> None:
        """Raises the error itself where bad rows are errors."""
        if self.action is OnBadRow.error:
            raise RecordError(
                f"{error.reason} (on_bad_row=skip passes over such rows, quarantine lists them in a file)",
                source=error.source,
                row=error.row,
                field=error.field,
            )
        if len(self.first) < self.KEPT:
            self.first.append(error)
        if self.action is OnBadRow.quarantine and self.side_file is not None:
            line = {"file": error.source, "row": error.row, "field": error.field, "reason": error.reason}
            self.side_file.parent.mkdir(parents=True, exist_ok=True)
            with self.side_file.open("a" if self.count else "w", encoding="utf-8") as side:
                side.write(json.dumps(line, ensure_ascii=False).encode("utf-8", "replace").decode() + "\n")
        self.count += 1

    def report(self) -> None:
        """One warning at the end, so that nothing is passed over in silence."""
        if self.count:
            where = f"; listed in {self.side_file}" if self.action is OnBadRow.quarantine else ""
            _LOG.warning("%d bad rows passed over, the first: %s%s", self.count, self.first[0], where)
