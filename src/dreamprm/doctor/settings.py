"""What the doctor is asked: `data.path=FILE meta.path=FILE test.path=FILE json=FILE …`."""

from __future__ import annotations

from dataclasses import dataclass

from dreamprm.choices import OnBadRow
from dreamprm.data.file_data import FilePlace
from dreamprm.setting import Settings, setting

__all__ = ["DoctorSettings"]


@dataclass
class DoctorSettings(Settings):
    """What a trainer must know of data: what is bad, missing, repeated, trivial, or shared between sets."""

    data: FilePlace = setting(FilePlace())
    meta: FilePlace = setting(FilePlace())
    test: FilePlace = setting(FilePlace())
    json: str | None = setting(None, "file for the report as JSON; - for standard output, and no table")
    on_bad_row: OnBadRow | None = setting(None, "null: counted, and listed where `quarantine` names a file")
    quarantine: str | None = setting(None, "file that lists bad rows; null: PATH.bad_rows.jsonl, as in training")
    max_images: int = setting(2000, "images to open per data set; 0: all", least=0)
