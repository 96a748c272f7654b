"""Records of files of any size by their number: a list on disk that data loaders can shuffle, cut and take up again."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from dreamprm.choices import OnBadRow
from dreamprm.data.readers.bad import BadRows
from dreamprm.data.readers.fields import DataError
from dreamprm.data.readers.index import Index, load_index
from dreamprm.data.readers.locate import Part, Paths, parts
from dreamprm.data.readers.parse import parse_row
from dreamprm.data.record import Record, RecordError

__all__ = ["RecordStream", "open_records"]


class RecordStream(Sequence[Record]):
    """`stream[i]`, `len(stream)`, and passes in file order or shuffled over all files at once.

    domains: names of the domains.  domain: (N,) index of each record's domain in them.
    group: (N,) a 64-bit name of each record's question, for splits that share none.
    labelled, judged: (N,) whether a step of the record has a label, and whether its final answer is known.
    bad: the rows that were passed over.  Memory: 60 bytes per row; the records stay on disk.
    Keys are unique: they name file and row, and a row that gives two records of one key is a bad one.
    """

    def __init__(
        self, parts: Sequence[Part], indexes: Sequence[Index], bad: BadRows, chosen: npt.NDArray[np.int64]
    ) -> None:
        self._parts, self._indexes, self.bad, self._chosen = list(parts), list(indexes), bad, chosen
        self._ends = np.cumsum([len(index) for index in indexes], dtype=np.int64)
        self.domains = tuple(dict.fromkeys(name for index in indexes for name in index.domains))
        place = {name: i for i, name in enumerate(self.domains)}
        lookups = [np.array([place[name] for name in index.domains], np.int32) for index in indexes]
        filled = [(lookup, index) for lookup, index in zip(lookups, indexes) if len(index)]
        self.domain: npt.NDArray[np.int32] = _joined([lookup[i.domain] for lookup, i in filled], np.int32)[chosen]
        self.group: npt.NDArray[np.uint64] = _joined([index.group for index in indexes], np.uint64)[chosen]
        self.labelled: npt.NDArray[np.bool_] = _joined([index.labelled for index in indexes], np.bool_)[chosen]
        self.judged: npt.NDArray[np.bool_] = _joined([index.judged for index in indexes], np.bool_)[chosen]

    @property
    def formats(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(part.format.name for part in self._parts))

    @property
    def sources(self) -> tuple[str, ...]:
        return tuple(part.context.source for part in self._parts)

    @property
    def paths(self) -> tuple[Path, ...]:
        return tuple(part.context.path for part in self._parts)

    def __len__(self) -> int:
        return len(self._chosen)

    def __getitem__(self, item: Any) -> Any:
        """A record; a slice or an array of places gives a stream of these."""
        if isinstance(item, (int, np.integer)):
            if not -len(self) <= item < len(self):
                raise IndexError(f"record {item} of {len(self)}")
            return self._record(int(self._chosen[item]))
        return self.take(np.arange(len(self))[item])

    def _record(self, number: int) -> Record:
        which = int(np.searchsorted(self._ends, number, side="right"))
        part, index = self._parts[which], self._indexes[which]
        inside = number - (int(self._ends[which - 1]) if which else 0)
        row = int(np.searchsorted(index.first, inside, side="right")) - 1
        line = int(index.number[row])
        with part.container.lock:
            value = part.container.fetch(line, int(index.start[row]), int(index.stop[row]))
        try:
            return parse_row(part, value, line)[inside - int(index.first[row])]
        except (RecordError, IndexError) as error:
            raise DataError(
                f"changed since it was indexed ({error}); open it again", source=str(part.context.path)
            ) from None

    def __iter__(self) -> Iterator[Record]:
        for number in self._chosen:
            yield self._record(int(number))

    def take(self, places: Sequence[int] | npt.NDArray[Any]) -> RecordStream:
        """The records at these places of this stream, in this order. Raises IndexError."""
        return RecordStream(self._parts, self._indexes, self.bad, self._chosen[np.asarray(places, np.int64)])

    def order(self, seed: int, epoch: int = 0) -> npt.NDArray[np.int64]:
        """The places in the order of a shuffled pass: a function of (seed, epoch) and the number of records alone."""
        return np.random.Generator(np.random.PCG64([seed, epoch])).permutation(len(self)).astype(np.int64)

    def shuffled(self, seed: int, *, epoch: int = 0, start: int = 0) -> Iterator[Record]:
        """A pass over all files in random order; the first `start` records are left out unread, to take up a pass."""
        if not 0 <= start <= len(self):
            raise DataError(f"start must lie in [0, {len(self)}], is {start}")
        for place in self.order(seed, epoch)[start:]:
            yield self[int(place)]

    def split(self, fractions: Sequence[float], seed: int = 0) -> tuple[RecordStream, ...]:
        """Streams that share no question: whole groups are dealt out, at random, in these shares of the groups."""
        if not fractions or any(f < 0 for f in fractions) or not abs(sum(fractions) - 1) < 1e-6:
            raise DataError(f"fractions must be positive and add up to 1, are {list(fractions)}")
        names, inverse = np.unique(self.group, return_inverse=True)
        mixed = np.random.Generator(np.random.PCG64(seed)).permutation(len(names))
        bounds = np.round(np.cumsum([0.0, *fractions]) * len(names)).astype(int)
        dealt = np.empty(len(names), np.int64)
        for index, (low, high) in enumerate(itertools.pairwise(bounds)):
            dealt[mixed[low:high]] = index
        return tuple(self.take(np.flatnonzero(dealt[inverse] == index)) for index in range(len(fractions)))


def _joined(pieces: Sequence[npt.NDArray[Any]], kind: Any) -> npt.NDArray[Any]:
    return np.concatenate(pieces) if pieces else np.zeros(0, kind)


def open_records(
    path: Paths,
    format: str | None = None,
    *,
    images: str | Path | None = None,
    on_bad_row: str | OnBadRow | BadRows = OnBadRow.error,
    quarantine: str | Path | None = None,
    split: str | None = None,
    follow_links: bool = False,
    options: Mapping[str, Any] | None = None,
    index: str | Path | None = None,
) -> RecordStream:
    """A stream over a file, a folder, a meta.json or a list of these; arguments as in `read`.

    The first opening reads and checks every row; the index of a file above 32 MB is kept in the folder `index` (default
    DREAMPRM_CACHE or ~/.cache/dreamprm), so that later openings take well under a second.
    Raises RecordError at the first bad row with on_bad_row=error, DataError for files that cannot be read or whose rows
    are not as many as their meta.json says.
    """
    bad = on_bad_row if isinstance(on_bad_row, BadRows) else BadRows(on_bad_row, quarantine)
    found = parts(path, format, images=images, split=split, follow_links=follow_links, options=options)
    indexes: list[Index] = []
    for part in found:
        made = load_index(part, Path(index) if index is not None else None)
        for row, field, reason in made.bad:
            bad.add(RecordError(reason, source=str(part.context.path), row=row, field=field))
        num_rows = len(made.number) + len(made.bad)
        if part.expected is not None and part.expected != num_rows:
            reason = (
                f"meta.json promises {part.expected:,} rows and the file holds {num_rows:,}; is the download whole?"
            )
            raise DataError(reason, source=str(part.context.path))
        indexes.append(made)
    bad.report()
    return RecordStream(found, indexes, bad, np.arange(sum(map(len, indexes)), dtype=np.int64))
