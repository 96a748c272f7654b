"""A list of records that may be indexed by row: unique keys, a domain vocabulary."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import overload

from dreamprm.data.record import Record, RecordError

__all__ = ["Dataset"]


class Dataset(Sequence[Record]):
    """Records in a fixed order; the row of a record is its place in the instance table.

    Raises RecordError for a key that two records share: they would share one weight (all rows of VisualPRM-400K
    have the id -1).
    """

    def __init__(self, records: Iterable[Record]) -> None:
        self._records = list(records)
        self.keys = [record.key for record in self._records]
        self._rows = {key: row for row, key in enumerate(self.keys)}
        if len(self._rows) < len(self.keys):
            repeated = [(key, count) for key, count in Counter(self.keys).most_common(3) if count > 1]
            shown = ", ".join(f"{key!r} ({count} times)" for key, count in repeated)
            raise RecordError(
                f"keys must be unique, but these repeat: {shown}; make them of file, row and content "
                "(dreamprm.data.record.content_key)",
                source=self._records[self._rows[repeated[0][0]]].source,
                field="key",
            )

    @overload
    def __getitem__(self, index: int) -> Record: ...
    @overload
    def __getitem__(self, index: slice) -> Dataset: ...
    def __getitem__(self, index: int | slice) -> Record | Dataset:
        return Dataset(self._records[index]) if isinstance(index, slice) else self._records[index]

    def __len__(self) -> int:
        return len(self._records)

    @property
    def domains(self) -> list[str]:
        """The domain vocabulary, sorted, so that it does not depend on the order of the records."""
        return sorted({record.domain for record in self._records})

    def row(self, key: str) -> int:
        """The row of a key. Raises KeyError with the key where there is none."""
        return self._rows[key]

    def where(self, keep: Callable[[Record], bool]) -> Dataset:
        """The records that are kept, in the same order."""
        return Dataset(record for record in self._records if keep(record))

    def trainable(self) -> Dataset:
        """Only chains with at least one step label: what an inner problem can use."""
        return self.where(lambda record: any(label is not None for label in record.labels))
