"""Files of chains as settings: the same for training, for the commands and for the doctor."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from dreamprm.choices import OnBadRow, OnMissingImage
from dreamprm.setting import Settings, setting

__all__ = ["DataSettings", "FileData", "FilePlace", "FileRows"]


@dataclass
class DataSettings(Settings):
    """Where chains come from."""

    kind: str = "files"


@dataclass
class FilePlace(Settings):
    """Which files, in which format."""

    path: Any = setting(None, "a file, a folder, a meta.json, or a list of these, in any format that a reader knows")
    format: str | None = setting(None, "name of the format; null: recognised")
    images: str | None = setting(None, "the folder that image paths are relative to; null: the file's own")
    split: str | None = setting(None, "split of a Hugging Face folder, e.g. train")
    follow_links: bool = setting(False, "whether a link may lead out of the image folder")
    options: dict[str, Any] = setting({}, "settings of the format, as options.NAME=value")

    def __post_init__(self) -> None:
        super().__post_init__()
        names = self.path if isinstance(self.path, (list, tuple)) else [self.path]
        if not all(name is None or isinstance(name, str) for name in names) or self.path == []:
            raise ValueError(f"path must be a file or folder, or a list of these, is {self.path!r}")

    def reading(self) -> dict[str, Any]:
        """These as arguments of `dreamprm.data.readers.read` and `open_records`."""
        names = ("path", "format", "images", "split", "follow_links", "options")
        return {name: getattr(self, name) for name in names}


@dataclass
class FileRows(FilePlace):
    """Which rows of the files."""

    on_bad_row: OnBadRow = setting(OnBadRow.error, "what becomes of a row that cannot be read")
    quarantine: str | None = setting(None, "file that lists bad rows; null: PATH.bad_rows.jsonl")
    limit: int | None = setting(None, "only that many chains, from the first on; null: all", least=1)

    def reading(self) -> dict[str, Any]:
        side_file = None
        if self.on_bad_row is OnBadRow.quarantine:
            first = self.path[0] if isinstance(self.path, (list, tuple)) else self.path
            side_file = self.quarantine or f"{first}.bad_rows.jsonl"
        return super().reading() | {"on_bad_row": self.on_bad_row, "quarantine": side_file}


@dataclass
class FileData(DataSettings, FileRows):
    """Files on disk in any format that a reader knows."""

    kind: str = "files"
    max_per_domain: int | None = setting(None, "only that many chains of each domain, before `limit`", least=1)
    on_missing_image: OnMissingImage = setting(OnMissingImage.error, "what becomes of a chain whose image is not there")
    needs: str = setting("", "what to get where `path` is not set, in one line")
