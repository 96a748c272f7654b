"""Cutting a chain into steps without losing a character: `"".join(split_steps(text)) == text`, always.

A cut is only ever made at the beginning of a line (or of a closing "Answer: …" after a full stop), never inside code,
LaTeX or brackets. Styles of marking, the first that a text uses decides:

1. `Step 3:`, `步骤 3：`, `第三步，`: the number must follow its predecessors, so "as in Step 7" or a wrapped
   "Step 7 shows" is text.
2. `1.`, `2)`, `(3)`, `4、`, `①` at one indentation, counting from 1 without a gap, so the "50) " of "(100 + 50) / 165"
   is text.
3. Items `- The …`, `* The …` (a capitalised word must follow: "- 5 = 3" is arithmetic).
4. Blank lines.

The final answer is a step of its own in each of them. Headings and display formulas stay with the step they belong to.

One file because every rule of cutting is held against the same promise, that no character is lost.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import pairwise

__all__ = ["clean_steps", "protected_spans", "split_question", "split_steps"]

_CHINESE = {c: i for i, c in enumerate("零一二三四五六七八九")} | {"十": 10}
_CIRCLED = {chr(0x2460 + i): i + 1 for i in range(20)}

# What may stand before a marker; one class of characters, since nested repeats would backtrack without end.
_DECOR = r"[ \t#>*_•\-]{0,16}"
_STEP = re.compile(
    rf"^{_DECOR}(?:(?:step|STEP|Step)[ \t]*(?P<n>\d{{1,3}})(?=[ \t]*(?:[:：.)、\-–—*(]|$))"
    r"|(?:步骤|步驟)[ \t]*(?P<c>\d{1,3}|[一二三四五六七八九十]{1,3})"
    r"|第[ \t]*(?P<d>\d{1,3}|[一二三四五六七八九十]{1,3})[ \t]*步)",
    re.MULTILINE,
)
_ITEM = re.compile(
    r"^(?P<indent>[ \t]*)(?:\*\*|#{1,6}[ \t]+)?(?:(?P<n>\d{1,2})(?:[.)](?=[ \t\n*]|$)|、|．)"
    r"|[(（](?P<p>\d{1,2})[)）](?=[ \t\n*]|$|[^\x00-\x7f])"
    r"|(?P<c>[①-⑳]))",
    re.MULTILINE,
)
_BULLET = re.compile(r"^[-*•][ \t]+(?=[\"“'(*_\[]*(?:[A-Z][a-z’']|[A-Z]{2}|A |I |[\u4e00-\u9fff]))", re.MULTILINE)
_BLANK = re.compile(r"(?:^|(?<=\n))[ \t\r]*\n(?:[ \t\r]*\n)*", re.MULTILINE)
_ANSWER = re.compile(
    rf"(?:^{_DECOR}†?[ \t]{{0,16}}+|(?<=[.!?。！？][ \t]))(?:\*\*)?"
    r"(?:(?:the )?final answer|answer|solution|最终答案|答案)(?:\*\*)?[ \t]{0,64}"
    r"(?:[:：]|is\b|=|是|为|(?=[ \t\r]{0,64}$))"
    r"|^#{4}[ \t]|^#{1,6}[ \t]+(?:final )?answer\b",
    re.MULTILINE | re.IGNORECASE,
)
_CONCLUSION = re.compile(
    r"\n[ \t\r]*\n(?=(?:\*\*)?"
    r"(?:(?:Therefore|Thus|Hence|So|In conclusion|In summary|Finally|Overall)\b|因此|所以|综上))"
)
_HEADING = re.compile(
    r"(?:(?!####[ \t]*[-+$\d])#{1,6}[ \t]+[^\n]*|\*\*[^\n*]+\*\*:?|__[^\n_]+__:?|\[[A-Za-z ]{1,40}\]|<[a-z]{1,20}>"
    r"|(?:step|Step)[ \t]*\d+[:.)]?|[-*_]{3,})",
    re.IGNORECASE,
)
_FORMULA_START = re.compile(r"[ \t]*(?:\\\[|\$\$|\\begin\{|```)")

# Each pattern holds one kind of span in which no step begins. An opened fence runs on to the end of the text.
_SPANS = (
    re.compile(r"(```|~~~)[^\n`~]*\n(?:.*?\1|.*\Z)", re.DOTALL),
    # A second opening ends the search for the end of the first: formulas do not nest, and time stays linear.
    re.compile(r"(?<!\\)\\\[(?:[^\\]|\\[^\[\]])*\\\]"),
    re.compile(r"(?<!\\)\\\((?:[^\\\n]|\\[^()]|\n(?![ \t\r]*\n))*\\\)"),
    re.compile(r"(?<!\\)\$\$.*?(?<!\\)\$\$", re.DOTALL),
    # A dollar opens a formula only directly before what it holds, and closes it directly after: "$5 and $6" is money.
    re.compile(r"(?<![\\$])\$(?![\s$])(?:[^$\n]|\n(?![ \t\r]*\n)){0,2000}?(?<![\s\\])\$(?![\d$])"),
    re.compile(r"`[^`\n]+`"),
)
_ENVIRONMENT = re.compile(r"\\(begin|end)\{([A-Za-z*]{1,20})\}")
_BRACKETS = {"(": ")", "[": "]", "{": "}"}
_SIGNS = re.compile(r"[()\[\]{}]|\n[ \t\r]*\n")


def _merge(spans: list[tuple[int, int]]) -> list[tuple[int, int]]:
    merged: list[tuple[int, int]] = []
    for start, stop in sorted(spans):
        if merged and start < merged[-1][1]:
            merged[-1] = (merged[-1][0], max(stop, merged[-1][1]))
        else:
            merged.append((start, stop))
    return merged


def _environments(text: str) -> list[tuple[int, int]]:
    """`\\begin{x}` … the next `\\end{x}`; a beginning inside a span already taken opens none. Linear in the text."""
    ends: dict[str, list[tuple[int, int]]] = {}
    begins: list[tuple[int, str]] = []
    for sign in _ENVIRONMENT.finditer(text):
        if sign[1] == "begin":
            begins.append((sign.start(), sign[2]))
        else:
            ends.setdefault(sign[2], []).append(sign.span())
    spans: list[tuple[int, int]] = []
    passed = dict.fromkeys(ends, 0)
    taken = 0
    for start, name in begins:
        if start < taken or name not in ends:
            continue
        while passed[name] < len(ends[name]) and ends[name][passed[name]][0] < start:
            passed[name] += 1
        if passed[name] < len(ends[name]):
            taken = ends[name][passed[name]][1]
            spans.append((start, taken))
    return spans


def _brackets(text: str) -> list[tuple[int, int]]:
    """Outermost pairs of brackets. A bracket that stays open until a blank line pairs with none."""
    spans: list[tuple[int, int]] = []
    opened: list[tuple[str, int]] = []
    for sign in _SIGNS.finditer(text):
        token = sign[0]
        if token in _BRACKETS:
            opened.append((_BRACKETS[token], sign.start()))
        elif token[0] == "\n":
            opened.clear()
        else:
            # A closing sign that fits an outer bracket drops what was left open inside it.
            for depth in range(len(opened) - 1, max(-1, len(opened) - 9), -1):
                if opened[depth][0] == token:
                    spans.append((opened[depth][1], sign.end()))
                    del opened[depth:]
                    break
    return spans


def protected_spans(text: str) -> list[tuple[int, int]]:
    """(start, stop) of code, LaTeX and bracketed expressions, in order and without overlap: no step begins inside."""
    spans: list[tuple[int, int]] = []
    for pattern in _SPANS:
        spans.extend(match.span() for match in pattern.finditer(text))
    return _merge(spans + _environments(text) + _brackets(text))


class _Guard:
    """Whether a position lies inside a protected span (its first character does not)."""

    def __init__(self, text: str) -> None:
        self.spans = protected_spans(text)

    def inside(self, position: int) -> bool:
        low, high = 0, len(self.spans)
        while low < high:
            middle = (low + high) // 2
            if self.spans[middle][1] <= position:
                low = middle + 1
            else:
                high = middle
        return low < len(self.spans) and self.spans[low][0] < position


def _number(text: str) -> int:
    """A number in digits, in Chinese up to 99, or circled."""
    if text.isdecimal():
        return int(text)
    if text in _CIRCLED:
        return _CIRCLED[text]
    if "十" in text:
        tens, _, ones = text.partition("十")
        return _CHINESE.get(tens, 1) * 10 + _CHINESE.get(ones, 0)
    return _CHINESE.get(text, 0)


def _marked_number(match: re.Match[str]) -> int:
    return _number(match["n"] or match["c"] or match["d"])


def _step_markers(text: str, guard: _Guard) -> list[int]:
    """Beginnings of "Step k:" whose number repeats or follows: a restart at 1, or at most one number left out."""
    starts: list[int] = []
    last = 0
    for match in _STEP.finditer(text):
        number = _marked_number(match)
        if guard.inside(match.start()) or not (number == 1 or last <= number <= last + 2):
            continue
        starts.append(match.start())
        last = number
    return starts


def _item_markers(text: str, guard: _Guard) -> list[int]:
    """Beginnings of list items that count 1, 2, 3 … at the first item's indentation and in its kind of brackets."""
    starts: list[int] = []
    kind: tuple[str, str | None] | None = None
    expected = 1
    for match in _ITEM.finditer(text):
        number = _number(match["n"] or match["p"] or match["c"])
        this = (match["indent"].expandtabs(4), match.lastgroup)
        if number != expected or guard.inside(match.start("indent")) or (kind is not None and this != kind):
            continue
        kind, expected = this, expected + 1
        starts.append(match.start())
    return starts if len(starts) > 1 else []


def _blank_lines(text: str, guard: _Guard) -> list[int]:
    """Beginnings of paragraphs, but for those that are a display formula or code: these belong to the one before."""
    ends = [match.end() for match in _BLANK.finditer(text)]
    return [end for end in ends if not guard.inside(end) and not _FORMULA_START.match(text, end)]


def _preamble(text: str, first: int) -> list[int]:
    """Text before the first marker joins the first step if it is one paragraph, and is a step of its own otherwise."""
    return [] if not _BLANK.search(text[:first].strip() + "\n") else [first]


def _answer(text: str, guard: _Guard, cuts: Sequence[int]) -> int | None:
    """Beginning of the closing answer: the last such mark, if no further step and little more text follows."""
    best: int | None = None
    end = 0
    for match in _ANSWER.finditer(text):
        if not guard.inside(match.start()):
            # A heading "Final Answer:" directly above the mark belongs to it.
            if best is None or text[end : match.start()].strip(" \t\r\n*_#:"):
                best = match.start()
            end = match.end()
    if best is None or any(cut > best for cut in cuts) or len(text) - best > 1000:
        return None
    return best


def _cuts(text: str, guard: _Guard) -> list[int]:
    marked = _step_markers(text, guard)
    listed = [] if marked else _item_markers(text, guard)
    if not (marked or listed):
        listed = [m.start() for m in _BULLET.finditer(text) if not guard.inside(m.start())]
        listed = listed if len(listed) > 1 else []
    starts = marked or listed
    if not starts:
        paragraphs = _blank_lines(text, guard)
        answer = _answer(text, guard, [])
        return paragraphs if answer is None else [cut for cut in paragraphs if cut < answer] + [answer]
    cuts = [*_preamble(text, starts[0]), *starts[1:]]
    tail = starts[-1]
    if listed:
        ends = (match.end() for match in _CONCLUSION.finditer(text, tail))
        cuts.extend(end for end in ends if not guard.inside(end))
    answer = _answer(text, guard, starts)
    return cuts if answer is None else [cut for cut in cuts if cut < answer] + [answer]


def split_steps(text: str) -> list[str]:
    """The steps of a chain, each with its own spaces and line ends; joined they are `text`. No text has no steps."""
    if not text:
        return []
    cuts = sorted({cut for cut in _cuts(text, _Guard(text)) if 0 < cut < len(text)})
    pieces = [text[a:b] for a, b in pairwise([0, *cuts, len(text)])]
    steps: list[str] = []
    pending = ""
    for piece in pieces:
        # A blank piece or a heading alone is no step; it opens the next one.
        if not piece.strip() or _HEADING.fullmatch(piece.strip()):
            pending += piece
        else:
            steps.append(pending + piece)
            pending = ""
    if pending:
        if steps:
            steps[-1] += pending
        else:
            steps.append(pending)
    return steps


def clean_steps(text: str) -> tuple[str, ...]:
    """The steps without the spaces around them, as records hold them; a blank text has none."""
    return tuple(stripped for step in split_steps(text) if (stripped := step.strip()))


_OPTIONS = re.compile(r"^[ \t]*Options?[ \t]*[:：][^\n]*(?:\n(?![ \t\r]*\n)[^\n]*)*", re.MULTILINE)


_ASKS = re.compile(r"[?？][ \t\r*_\"')]{0,8}$", re.MULTILINE)


def _chain_start(text: str, starts: Sequence[int]) -> int:
    """The "Step 1" that begins the chain: the first, but for one that a question or its options still follow.

    "Step 1: wash. Step 2: dry. What is step 3?" is a question; its chain begins at the "Step 1" behind it.
    """
    firsts = [start for start in starts if (found := _STEP.match(text, start)) and _marked_number(found) == 1]
    begin = starts[0]
    for earlier, later in pairwise(firsts):
        if _ASKS.search(text, earlier, later) or _OPTIONS.search(text, earlier, later):
            begin = later
    return begin


def split_question(text: str) -> tuple[str, str]:
    """(question, chain) of a text that holds both; the chain is empty where no "Step k" begins one.

    The question ends with the paragraph of its options, or, where it lists none, before "Step 1" or the one paragraph
    that leads up to it. Nothing is lost: both joined are the text.
    """
    guard = _Guard(text)
    starts = _step_markers(text, guard)
    if not starts:
        return text, ""
    end = _chain_start(text, starts)
    options = list(_OPTIONS.finditer(text, 0, end))
    if options:
        end = min(options[-1].end(), end)
    else:
        paragraphs = [match for match in _BLANK.finditer(text, 0, end) if text[: match.start()].strip()]
        lead = text[paragraphs[-1].end() : end].strip() if paragraphs else ""
        if lead:
            end = paragraphs[-1].end()
        elif len(paragraphs) > 1 and text[: paragraphs[-1].start()].rstrip().endswith(":"):
            end = paragraphs[-2].end()
    return text[:end], text[end:]
