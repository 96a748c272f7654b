"""What a page says that a command prints, against what it prints.

Words and whole numbers must be the same. Numbers with a point are compared within a tenth, or .05: they come from a
short training, which the rounding of another processor moves. Times, rates and memory are not compared, and of what
is below 1e-5 (residuals of checks) only that it is.
"""

from __future__ import annotations

import math
import re

_MACHINE = re.compile(r"\S+ chains/s|\d+:\d\d left|seconds [\d,.]+|peak MB [\d,]+")
_NUMBER = re.compile(r"-?\d[\d,]*(?:\.\d+)?(?:e[+-]?\d+)?")
_FRAME = re.compile(r"[┏┳┓┡╇┩│┃├┼┤└┴┘━─]+")


def missing(page: str, printed: str) -> list[str]:
    """Lines of the page that the output does not have, in their order; "…" stands for lines that are left out."""
    rest = [_plain(line) for line in printed.splitlines()]
    lost = []
    for line in page.splitlines():
        if not _plain(line) or _plain(line) == "…":
            continue
        place = next((place for place, other in enumerate(rest) if alike(_plain(line), other)), None)
        if place is None:
            lost.append(line)
        else:
            del rest[: place + 1]
    return lost


def _plain(line: str) -> str:
    return " ".join(_FRAME.sub(" ", _MACHINE.sub("*", line)).split())


def alike(page: str, printed: str) -> bool:
    """Whether a line of the page is that of the output."""
    if _NUMBER.sub("#", page) != _NUMBER.sub("#", printed):
        return False
    return all(map(_near, _NUMBER.findall(page), _NUMBER.findall(printed)))


def _near(page: str, printed: str) -> bool:
    if not re.search(r"[.e]", page):
        return page == printed
    one, other = (float(text.replace(",", "")) for text in (page, printed))
    return max(abs(one), abs(other)) < 1e-5 or math.isclose(one, other, rel_tol=0.1, abs_tol=0.05)
