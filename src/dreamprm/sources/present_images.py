"""Image files that a source's chains name and that are not there: refused at opening, or their chains left out."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from dreamprm.data.record import Record
from dreamprm.errors import UserError
from dreamprm.progress import say
from dreamprm.sources.sample import sample

__all__ = ["places_with_images", "require_images"]


def require_images(records: Sequence[Record], place: str, remedy: str) -> None:
    """Look whether the images exist: of all chains in memory, of a sample of those on disk.

    remedy: what to do where they do not. Raises UserError with how many do not, one of them, and the remedy.
    """
    looked = sample(records)
    lacking = [(record, image) for record in looked if (image := _missing(record)) is not None]
    if lacking:
        record, image = lacking[0]
        raise UserError(
            f"{place}: {len(lacking)} of {len(looked)} chains looked at have an image that is not there, e.g. "
            f"{image} ({record.key}): {remedy}"
        )


def places_with_images(records: Sequence[Record], place: str) -> list[int]:
    """The places of the chains whose images all exist, having said how many there are besides."""
    kept = [row for row, record in enumerate(records) if _missing(record) is None]
    if len(kept) < len(records):
        say(f"{place}: {len(records) - len(kept)} of {len(records)} chains left out, their images are not there")
    return kept


def _missing(record: Record) -> Path | None:
    return next((image for image in record.images if isinstance(image, Path) and not image.is_file()), None)
