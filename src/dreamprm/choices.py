"""String enumerations whose error says what is allowed."""

from __future__ import annotations

from enum import StrEnum

__all__ = ["Choice"]


class Choice(StrEnum):
    """A setting that is one of a few words. Raises ValueError with all of them for any other word."""

    @classmethod
    def _missing_(cls, value: object) -> None:
        raise ValueError(f"{value!r} is no {cls.__name__}; allowed are {', '.join(member.value for member in cls)}")
