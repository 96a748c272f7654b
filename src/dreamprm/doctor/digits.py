"""Digits that splitters lose: those a published file has lost already, and those a careless splitter would delete."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

from dreamprm.data.splitter import split_steps

__all__ = ["digits_at_risk", "digits_lost"]

_MARKER = re.compile(r"[\s#*_>\-•]*(?:\[[A-Za-z ]+\]\s*)?[\s#*_>\-•]*[(（]?\d{1,2}[.)）、]")
# The published splitter's idea of a list marker: a number with a dot or bracket and a space, anywhere in a line.
_CARELESS = re.compile(r"(?<![\d.,])\d{1,3}[.)][ \t]+(?=\S)")


def digits_lost(text: str, turns: Sequence[str]) -> str:
    """How many digits of the text the turns lack, beside the numbers of list items; empty where none is lost."""
    bodies = (_MARKER.sub("", step, count=1) if _MARKER.match(step) else step for step in split_steps(text))
    kept = Counter(c for body in bodies for c in body if c.isdecimal())
    given = Counter(c for turn in turns for c in turn if c.isdecimal())
    lost = kept - given
    return f"{lost.total()} digits lost ({', '.join(sorted(lost)[:6])})" if lost else ""


def digits_at_risk(text: str) -> str:
    """The first number inside a step that a splitter by "digits, bracket, space" would delete; empty where none is."""
    for step in split_steps(text):
        marker = _MARKER.match(step)
        found = _CARELESS.search(step, marker.end() if marker else 0)
        # A number that ends a sentence counts as well: "= 5. So" loses its 5 in the same way.
        if found:
            return repr(step[max(0, found.start() - 20) : found.end() + 12])
    return ""
