"""What the doctor is asked: `data.path=FILE meta.path=FILE test.path=FILE json=FILE …`, checked against a schema."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, cast

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from dreamprm.data.readers import OnBadRow

__all__ = ["DataSettings", "DoctorSettings", "parse_settings"]


@dataclass
class DataSettings:
    """path: file, folder, meta.json, or a list of these.  images: root of image paths (default: the file's folder)."""

    path: Any = None
    format: str | None = None
    images: str | None = None
    split: str | None = None
    follow_links: bool = False
    options: dict[str, Any] = field(default_factory=dict)


@dataclass
class DoctorSettings:
    """json: where the report goes as JSON ("-": standard output, and no table).

    on_bad_row: error stops at the first, skip counts, quarantine also lists them in the side file `quarantine`.
    max_images: images to open per data set (0: all of them).
    """

    data: DataSettings = field(default_factory=DataSettings)
    meta: DataSettings = field(default_factory=DataSettings)
    test: DataSettings = field(default_factory=DataSettings)
    json: str | None = None
    on_bad_row: OnBadRow = OnBadRow.quarantine
    quarantine: str = "bad_rows.jsonl"
    max_images: int = 2000


def parse_settings(arguments: Sequence[str]) -> DoctorSettings:
    """Settings from `name=value` arguments. Raises ValueError that names the wrong one and what is allowed."""
    schema = OmegaConf.structured(DoctorSettings)
    for argument in arguments:
        name, sign, value = argument.partition("=")
        if not sign or not name:
            raise ValueError(f"{argument!r} is no setting; write name=value, e.g. data.path=train.jsonl")
        if value == "-":
            argument = f"{name}='-'"  # a bare dash would begin a list
        try:
            schema = OmegaConf.merge(schema, OmegaConf.from_dotlist([argument]))
        except OmegaConfBaseException as error:
            allowed = "data.*, meta.*, test.* (path, format, images, split, follow_links, options), json, on_bad_row"
            reason = str(error).splitlines()[0]
            raise ValueError(f"{argument}: {reason}; settings are {allowed}, quarantine, max_images") from None
    settings = cast(DoctorSettings, OmegaConf.to_object(schema))
    if settings.data.path is None:
        raise ValueError("data.path is missing; name the file to examine: data.path=FILE")
    if settings.max_images < 0:
        raise ValueError(f"max_images must be at least 0, is {settings.max_images}")
    return settings
