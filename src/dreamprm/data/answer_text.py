"""The final answer that a chain states, and the options that a question lists: found in texts, compared elsewhere.

Of several statements the last decides: a `\\boxed{}`, "the answer is …", "#### …", "故选：B". All takes time
linear in its text: no expression holds two neighbouring repeats that could share a character without a bound.
"""

from __future__ import annotations

import re
from collections import deque

__all__ = ["extract_answer", "is_bare_answer", "leading_option", "options_of", "unwrap"]

_BARE = re.compile(r"\(?[A-Za-z]\)?[.):]?|[-+]?[\d.,/]+%?|\$?\\boxed\{[^{}]*\}\$?\.?")
_BRACES = re.compile(r"\\(?:boxed|fbox)[ \t]?\{|\\[{}]|[{}]")
_JOINED = re.compile(r"[\s,$.;]{0,8}(?:and|or|和|或)?[\s,$]{0,8}")

_WORD = (
    r"(?<![A-Za-z])(?:(?:final|correct|right|best|my) )?(?:answer|ans)(?![A-Za-z])(?: (?:choice|option)(?![A-Za-z]))?"
    r"|(?<![A-Za-z])(?:correct|right|best) (?:option|choice)(?![A-Za-z])|(?<![A-Za-z])solution(?![A-Za-z])"
    r"|最终答案|答案"
)
_STATED = re.compile(_WORD, re.IGNORECASE)
# "is", a colon or an equals sign after the word, with what people put between: "answer to the question", "**", "(c)".
_LINK = re.compile(
    r"[ \t*_\"')\]}]{0,8}(?:(?:to|for|of) [^\n.:=：]{0,80}?[ ])?"
    r"(?:(?:is|are|was|must be|should be|would be|will be|equals)(?![A-Za-z])|[:：=]|是|应为|應為|为|為)"
    r"[ \t:：*_]{0,16}(?:(?:therefore|thus|then|simply|just|approximately|about)(?![A-Za-z])[ \t:,]{0,4})?",
    re.IGNORECASE,
)
_HEADING_END = re.compile(r"[ \t*_:：.#]{0,16}\n")
_LINE_START = re.compile(r"[ \t#>*_•†\-]{0,16}")
_NOT_STATED = re.compile(
    r"(?:correct|right|wrong|incorrect|not|found|obtained|given|based|consistent|reasonable|verified|as follows"
    r"|the same|shown|below|above|clear|unique|in the|among)(?![A-Za-z])",
    re.IGNORECASE,
)
_HASHES = re.compile(r"^####(?!#)", re.MULTILINE)
_ONE_WORD = re.compile(r"^answer[ \t]{1,8}([^\s:=]{1,80})[ \t]{0,8}$", re.MULTILINE | re.IGNORECASE)
_CHOSEN = re.compile(
    r"(?<![A-Za-z])\(?([A-J])\)?[*_]{0,2} is (?:the |also the )?(?:correct|right|best)(?: answer| option| choice)?"
    r"(?![A-Za-z])"
    r"|(?:故|应|應|所以|因此|答案|该|則|则)?[应應]?(?:选|選)(?:择|擇)?(?:项|項)?[ \t]{0,4}[:：是为]?[ \t]{0,4}"
    r"[(（【]?([A-J](?:[、,，和及]?[A-J]){0,5})[)）】]?(?![A-Za-z错錯不])"
)
_CONCLUDES = re.compile(
    r"^[ \t*_#>]{0,8}(?:therefore|thus|hence|so|in conclusion|finally|因此|所以|故)(?![A-Za-z])", re.IGNORECASE
)
_CONCLUDED = re.compile(r"(?<![A-Za-z])(?:is|are|equals|get|gives)(?![A-Za-z])|=|≈|是|为")

_OPENED = {"$$": "$$", "\\[": "\\]", "\\(": "\\)", "```": "```"}
_SENTENCE = re.compile(
    r"(?<![.\s])(?:[.?。！？]|(?<![\d)])!)[\"'”’)\]*_$]{0,4}(?:\s{1,4}(?=[^\W\d]|[\"“(\[*#])|$)|[。；]"
)
_REASON = re.compile(
    r",? (?:because|since|as (?:the|it|we|this|that)|so that|for which|given that|where the|which|,)(?![A-Za-z])|，因为"
)
_LEAD = re.compile(
    r"(?:(?:approximately|approx\.|about|around|roughly|exactly|simply|just|therefore|thus|then|equal to|given by"
    r"|the (?=(?:option|choice|letter)(?![A-Za-z])))[ ,:]{1,3}|≈|\\approx(?![A-Za-z]))[ \t]{0,4}",
    re.IGNORECASE,
)
_OPTION_WORD = re.compile(r"(?:option|choice|letter|选项|選項)[ _:]{0,2}(?=\(?[A-Za-z]\)?(?![A-Za-z]))", re.IGNORECASE)
_OPTION = re.compile(
    r"[(（\[](?P<round>[A-Ja-j])[)）\]](?![A-Za-z0-9])[.:]?"
    r"|(?P<marked>[A-J])(?:[):：、]|\.(?!\d))(?=[\s*]|[^\x00-\x7f]|$)"
    r"|(?P<bold>[A-J])\*\*"
    r"|(?P<plain>[A-J])(?=[ \t]*$|[,;](?:\s(?!(?:and |or )?\(?[A-J](?![A-Za-z]))|$)"
    r"|[ \t]+(?:because|since|is|as|which|for|—|–|-|\())"
)
_MONEY = re.compile(r"(?<!\\)\$(?=\d)")
_WRAPPERS = re.compile(
    r"(?<!\\)\$\$?|\\[()\[\]]|(?<![\w)])\*\*|\*\*(?![\w(])|(?<!\w)__|__(?!\w)"
    r"|```(?:[a-z]{1,12}\n)?|`"
)

_TEXT_LETTER = re.compile(r"\\(?:text|textbf|mathrm|mathbf)\{\(?([A-J])\)?\.?\}\.?")
_BOLD_FIRST = re.compile(r"\*\*\(?([A-J])\)?[.:]?\*\*")
_LISTED = re.compile(r"(?:^|(?<=[\s;,:：]))\(?([A-J])(?:[.):、]|\*\*)(?=\s|[^\x00-\x7f]|\$|\\|\d|$)")


def unwrap(text: str) -> str:
    """The text without what only sets it off: `$…$`, `\\(…\\)`, `\\[…\\]`, `**…**`, backticks."""
    if (text.count("$") - text.count("\\$")) % 2:
        text = _MONEY.sub(r"\\$", text, count=1)  # "$5" is money: nothing closes it
    return _WRAPPERS.sub("", text).strip()


def leading_option(text: str, *, word: bool = True) -> tuple[str, str] | None:
    """(letter, the rest) of an answer that begins with an option written as one: (B), B., **B**, option b, B because …

    "x = 5", "a circle" and "I have 3" begin with none.
    """
    text = text.strip()
    named = _OPTION_WORD.match(text) if word else None
    if named:
        rest = text[named.end() :].lstrip("(")
        return rest[0].upper(), rest[1:].lstrip(").:,*_ \t")
    found = _OPTION.match(text)
    if found is None:
        return None
    letter = found["round"] or found["marked"] or found["bold"] or found["plain"]
    return letter.upper(), text[found.end() :].lstrip("*_:. \t")


def options_of(question: str) -> dict[str, str]:
    """The options that a question lists, letter -> text, or none: `(A) …`, `A. …`, `B) …`, at least two.

    Where letters A, B … stand several times, the last such list counts: options end a question.
    """
    runs: list[list[re.Match[str]]] = []
    for mark in _LISTED.finditer(question):
        if mark[1] == "A":
            runs.append([mark])
        elif runs and ord(mark[1]) == ord("A") + len(runs[-1]):
            runs[-1].append(mark)
    marks = next((run for run in reversed(runs) if len(run) > 1), [])
    ends = [mark.start() for mark in marks[1:]] + [len(question)]
    return {mark[1]: question[mark.end() : end].strip(" \t\r\n*;,") for mark, end in zip(marks, ends)}


def is_bare_answer(text: str) -> bool:
    """Whether the text is an option letter, a number or a boxed value and nothing else: an answer without reasoning."""
    return len(text) < 80 and _BARE.fullmatch(text.strip()) is not None


def extract_answer(text: str) -> str | None:
    """The chain's own final answer as it is written, without wrappers and what follows it; None where it states none.

    An option that is written as one is its letter alone. A last line "Therefore, … is 12." states an answer too.
    """
    found = [item for item in (_boxed(text), _stated(text), _hashes(text), _chosen(text)) if item is not None]
    if found:
        return max(found)[1]
    stripped = text.strip()
    bare = unwrap(stripped[:200]).rstrip(".") if len(stripped) < 100 and "\n" not in stripped else ""
    if is_bare_answer(bare):
        return bare.strip("().:$ ") or None
    if bold := _BOLD_FIRST.match(stripped):
        return bold[1]
    if bare and stripped[0] == "$" == stripped.rstrip(".")[-1] and stripped.count("$") in (2, 4):
        return bare
    return _concluded(stripped)


def _boxed(text: str) -> tuple[int, str] | None:
    """The last closed box, joined with those directly before it ("\\boxed{1} and \\boxed{2}")."""
    if "boxed" not in text and "fbox" not in text:
        return None
    opened: list[tuple[int, int] | None] = []
    closed: list[tuple[int, int, str]] = []
    for sign in _BRACES.finditer(text):
        token = sign[0]
        if token == "{":
            opened.append(None)
        elif token == "}":
            box = opened.pop() if opened else None
            if box is not None and len(closed) < 10_000:
                closed.append((box[0], sign.end(), text[box[1] : sign.start()] if len(opened) < 64 else ""))
        elif token not in ("\\{", "\\}"):
            opened.append((sign.start(), sign.end()))
    closed = [box for box in closed if box[2].strip()]
    if not closed:
        return None
    last = closed[-1]
    inside = _brief(unwrap(last[2]))
    parts = [inside] if inside else []
    for box in reversed(closed[:-1][-8:]):
        if box[1] > last[0] or not _JOINED.fullmatch(text, box[1], last[0]) or not text[box[1] : last[0]].strip():
            break
        parts.insert(0, _brief(unwrap(box[2])))
        last = box
    return (closed[-1][0], ", ".join(parts)) if parts else None


def _brief(answer: str) -> str:
    """An option that is written as one as its letter alone; all else as it is."""
    if named := _TEXT_LETTER.fullmatch(answer):
        return named[1]
    option = leading_option(answer)
    if option is not None and (not option[1] or not option[1][0].islower() or answer[0] in "(（"):
        return option[0]
    return answer


def _stated(text: str) -> tuple[int, str] | None:
    last: tuple[int, str] | None = None
    # From the end, so that a long chain costs the reading of its last statement; each try looks at 2,000 characters.
    for mark in reversed(list(_STATED.finditer(text))[-64:]):
        start = text.rfind("\n", max(0, mark.start() - 64), mark.start()) + 1
        heads_line = _LINE_START.fullmatch(text, start, mark.start()) is not None
        link = _LINK.match(text, mark.end())
        if link is None and heads_line:
            link = _HEADING_END.match(text, mark.end())
        if link is None or (mark[0].lower() == "solution" and not heads_line and link[0].lstrip()[:1] in ":："):
            continue
        body = _body(text, link.end())
        if not body or _NOT_STATED.match(body) or (mark[0].lower() == "solution" and len(body) > 100):
            continue
        last = (mark.start(), body)
        break
    for mark in _ONE_WORD.finditer(text):
        if (last is None or mark.start() > last[0]) and (body := _finish(mark[1])):
            last = (mark.start(), body)
    return last


def _last(pattern: re.Pattern[str], text: str) -> re.Match[str] | None:
    return next(iter(deque(pattern.finditer(text), maxlen=1)), None)


def _hashes(text: str) -> tuple[int, str] | None:
    last = _last(_HASHES, text)
    body = _body(text, last.end()) if last else ""
    return (last.start(), body) if last and body and not _STATED.match(body) else None


def _chosen(text: str) -> tuple[int, str] | None:
    last = _last(_CHOSEN, text)
    return (last.start(), re.sub(r"[、,，和及]", "", last[1] or last[2])) if last else None


def _body(text: str, start: int) -> str:
    """What is stated from a place on: the rest of the line, the next line if it is blank, a display formula whole."""
    window = text[start : start + 2000]
    window = window.lstrip(" \t\r\n*_:：>")
    for sign, close in _OPENED.items():
        if window.startswith(sign):
            end = window.find(close, len(sign))
            if end > 0:
                line_end = window.find("\n", end)
                inside = window[len(sign) : end].strip()
                rest = window[end + len(close) : line_end if line_end >= 0 else len(window)]
                inside = re.sub(r"^[a-z]{1,12}\n", "", inside) if sign == "```" else inside
                return _finish(inside.replace("\n", " ") + (rest if sign == "\\(" else ""))
    return _finish(window.partition("\n")[0])


def _finish(line: str) -> str:
    line = line.strip()
    while lead := _LEAD.match(line):
        line = line[lead.end() :]
    option = leading_option(line.lstrip("*_$ "))
    if option is not None and (line.lstrip("*_$ ")[:1] in "([（" or not option[1] or not option[1][0].islower()):
        return option[0]
    line = unwrap(line)
    if end := _SENTENCE.search(line, 1 if line[1:2] != "." or not line[3:4].islower() else 2):
        line = line[: end.start()]
    if reason := _REASON.search(line):
        line = line[: reason.start()]
    line = re.sub(r"(?<![\d)])!$", "", line.strip().rstrip(".。,，;；:！")).strip().strip("*_").strip()
    if line.startswith("\\boxed{") and line.endswith("}"):
        line = line[7:-1].strip()
    return _brief(line) if line else ""


def _concluded(text: str) -> str | None:
    """The value that a concluding last line ends with: "Therefore, there are 12 cm." is 12 cm."""
    line = text[-2000:].rpartition("\n")[2].strip()
    if len(line) > 1000 or not _CONCLUDES.match(line):
        return None
    last = _last(_CONCLUDED, line)
    body = _finish(line[last.end() :]) if last else ""
    return body if body and len(body) <= 40 and (any(c.isdigit() for c in body) or leading_option(body)) else None
