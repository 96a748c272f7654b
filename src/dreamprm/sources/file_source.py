"""Files on disk in any format that a reader knows.

Files of more than 20,000 chains stay on disk: which of them are labelled, judged, of which domain, the readers' index
knows, and a chain is read when it is drawn. Smaller ones are read into memory, since a row of a parquet file costs its
whole row group.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from dreamprm.choices import OnMissingImage
from dreamprm.data.file_data import FileData
from dreamprm.data.readers.stream import RecordStream
from dreamprm.data.record import Record
from dreamprm.errors import UserError
from dreamprm.setting import setting
from dreamprm.sources.present_images import places_with_images, require_images
from dreamprm.sources.source import Source

__all__ = ["FileSource", "SplitFileData"]

_IN_MEMORY = 20_000


@dataclass
class SplitFileData(FileData):
    """Own files; whole questions of them can be held out as meta set (`meta=held_out`) and as test set."""

    seed: int = setting(0, "which questions are held out", least=0)
    meta_share: float = setting(0.0, "share of the questions that are held out as meta set", least=0, below=1)
    test_share: float = setting(0.0, "share of the questions that are held out as test set", least=0, below=1)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.meta_share + self.test_share >= 1:
            raise ValueError(
                "meta_share and test_share must leave something to train on, are "
                f"{self.meta_share} and {self.test_share}"
            )


class FileSource(Source):
    """Training chains, a meta set or a test set from files; as `data` it can hold questions out for the other two."""

    def __init__(self, settings: Any, place: str) -> None:
        super().__init__(settings, place)
        if place != "data" and self._shares[0] != 1.0:
            raise UserError(f"{place}.meta_share and {place}.test_share: only data holds questions out")

    def lacking(self) -> str:
        return self.settings.needs if not self.settings.path else ""

    def train(self) -> Sequence[Record]:
        part = self._parts[0]
        return self._held(part.take(np.flatnonzero(part.labelled)))

    def meta(self) -> Sequence[Record]:
        stream = self._stream
        return self._held(stream.take(np.flatnonzero(stream.judged)))

    def held_out(self) -> Sequence[Record]:
        if not self._shares[1]:
            return super().held_out()
        part = self._parts[1]
        return self._held(part.take(np.flatnonzero(part.judged)))

    def test(self) -> Sequence[Record]:
        part = self._parts[2] if self.place == "data" else self._stream
        return self._held(part.take(np.flatnonzero(part.judged | part.labelled)))

    @property
    def _shares(self) -> tuple[float, float, float]:
        # The settings of `test` know no shares.
        meta, test = (float(getattr(self.settings, name, 0.0)) for name in ("meta_share", "test_share"))
        return 1.0 - meta - test, meta, test

    @functools.cached_property
    def _parts(self) -> tuple[RecordStream, ...]:
        """The chains to train on, those held out as meta set, and those held out as test set: no question in two."""
        if self._shares[0] == 1.0:
            nothing = self._stream.take([])
            return self._stream, nothing, nothing
        return self._stream.split(self._shares, seed=self.settings.seed)

    @functools.cached_property
    def _stream(self) -> RecordStream:
        """The first `max_per_domain` chains of each domain, and of these the first `limit`."""
        from dreamprm.data.readers import open_records

        settings: Any = self.settings
        if not settings.path:
            raise UserError(f"{self.place}.path is not set: {settings.needs}")
        stream = open_records(**settings.reading())
        places = np.arange(len(stream))
        if settings.max_per_domain is not None:
            names = np.unique(stream.domain)
            firsts = [np.flatnonzero(stream.domain == name)[: settings.max_per_domain] for name in names]
            places = np.sort(np.concatenate([places[:0], *firsts]))
        return stream.take(places[: settings.limit])

    def _held(self, stream: RecordStream) -> Sequence[Record]:
        """In memory, where there are few enough. Raises UserError where images are not there."""
        records: Sequence[Record] = stream if len(stream) > _IN_MEMORY else list(stream)
        if self.settings.on_missing_image is OnMissingImage.error:
            remedy = (
                f"set {self.place}.images to the images' folder, or {self.place}.on_missing_image=skip to leave such "
            )
            require_images(records, self.place, remedy + "chains out")
            return records
        kept = places_with_images(records, self.place)
        return stream.take(kept) if isinstance(records, RecordStream) else [records[row] for row in kept]
