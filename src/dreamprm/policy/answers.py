"""The one judge of answers: whether two of them are the same, for votes, labels, readers' verdicts and evaluation.

`math` reads options, numbers with units, lists and words itself and leaves expressions to math-verify; `exact` compares
the texts as they stand. A letter is an option where the question lists options or the answer is written as one:
"x = 7" is 7, "a circle" is a circle. What differs from math-verify alone: units count where both sides have one,
thousands are never lists, percent is p or p/100, nothing can hang, and `same_answer` is symmetric.

One file because a judgement reads top to bottom: each form of an answer is one small rule, and their order matters.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import lru_cache
from importlib.metadata import version

from dreamprm.choices import Judge
from dreamprm.data.answer_text import extract_answer, leading_option, options_of, unwrap
from dreamprm.data.record import Record
from dreamprm.errors import UserError
from dreamprm.policy.math_process import same_expression
from dreamprm.policy.quantities import Quantity, read_quantity, same_quantity

__all__ = ["Judge", "answer_of", "ends_right", "equivalence_classes", "judge_version", "same_answer", "steps_of"]

_RULES = 1
"""Counts up with every change of a verdict; it stands in results beside the judge's name."""
_LONGEST = 2000  # characters; longer answers are compared as texts


def judge_version(judge: Judge | str = Judge.math) -> str:
    """What stands in results: the judge, its rules' number and the versions of what it asks."""
    if Judge(judge) is Judge.exact:
        return "exact"
    return f"math (rules {_RULES}, math-verify {version('math-verify')}, sympy {version('sympy')})"


def answer_of(response: str) -> str | None:
    """The final answer that a response states, None where it states none; the same that readers put into a record."""
    return extract_answer(response)


def ends_right(record: Record, response: str, judge: Judge | str = Judge.math) -> bool:
    """Whether a response ends with the record's reference answer.

    Raises UserError where the record has no reference.
    """
    if record.reference is None:
        raise UserError(f"record {record.key!r} has no reference answer to judge completions by: set `reference`")
    answer = answer_of(response)
    return answer is not None and same_answer(answer, record.reference, question=record.question, judge=judge)


def same_answer(one: str, other: str, *, question: str = "", judge: Judge | str = Judge.math) -> bool:
    """Whether two answers to a question are the same. Symmetric; an answer without text is the same as none."""
    if Judge(judge) is Judge.exact:
        return one.strip() == other.strip() != ""
    return _same(one, other, _options(question))


def equivalence_classes(
    answers: Sequence[str | None], *, question: str = "", judge: Judge | str = Judge.math
) -> list[int | None]:
    """The class of each answer, counted in the order in which classes first appear; None for an answer that is None.

    Answers that a third one links are of one class, so that the classes do not depend on the answers' order.
    """
    options = _options(question)
    texts = list(dict.fromkeys(answer for answer in answers if answer is not None and answer.strip()))
    root = list(range(len(texts)))

    def find(place: int) -> int:
        while root[place] != place:
            place = root[place]
        return place

    exact = Judge(judge) is Judge.exact
    for later, text in enumerate(texts):
        for earlier in range(later):
            one, two = find(earlier), find(later)
            if one == two:
                continue
            same = texts[earlier].strip() == text.strip() if exact else _same(texts[earlier], text, options)
            if same:
                root[max(one, two)] = min(one, two)
    names: dict[int, int] = {}
    of_text = {text: names.setdefault(find(place), len(names)) for place, text in enumerate(texts)}
    return [None if answer is None else of_text.get(answer) for answer in answers]


def steps_of(response: str) -> tuple[str, ...]:
    """A response as steps: its lines where it has several, else as the splitter of published chains cuts it."""
    from dreamprm.data.splitter import clean_steps

    lines = tuple(line.strip() for line in response.splitlines() if line.strip())
    return lines if len(lines) > 1 else clean_steps(response) or (response.strip() or "(empty)",)


# --- texts in one spelling ---------------------------------------------------------------------------------------

_TEXT = re.compile(
    r"\\(?:text|textbf|textit|textrm|mathrm|mathbf|mathit|mathsf|operatorname|mbox|emph|boxed|fbox|bm|bf|rm)\s?\{([^{}]*)\}"
)
_GAPS = re.compile(r"\\[,;:!> ]|~|\\(?:quad|qquad|left|right|big|Big|displaystyle|limits)(?![A-Za-z])")
_SIGNS = str.maketrans(
    {"−": "-", "–": "-", "—": "-", "’": "'", "‘": "'", "“": '"', "”": '"', "\u00a0": " ", "\u202f": " ", "\u2009": " ",
     "（": "(", "）": ")", "，": ",", "：": ":", "；": ";", "＝": "=", "＋": "+", "％": "%", "÷": "/", "·": "\\cdot ",
     **{chr(0xFF10 + i): str(i) for i in range(10)}, **{chr(0xFF21 + i): chr(65 + i) for i in range(26)}}
)  # fmt: skip
_HALVES = "½=1/2 ⅓=1/3 ⅔=2/3 ¼=1/4 ¾=3/4 ⅕=1/5 ⅖=2/5 ⅗=3/5 ⅘=4/5 ⅙=1/6 ⅛=1/8 ⅜=3/8 ⅝=5/8 ⅞=7/8"
_VULGAR = {pair[0]: pair[2:] for pair in _HALVES.split()}
_THOUSANDS = re.compile(r"(?<=\d)(?:\{,\}|\\,|,\\!)(?=\d{3}(?!\d))|(?<=\d)[ ](?=\d{3}(?!\d))")


@lru_cache(maxsize=65_536)
def _plain(text: str) -> str:
    text = _THOUSANDS.sub(",", text).translate(_SIGNS)
    for sign, words in _VULGAR.items():
        text = re.sub(rf"(?<=\d){sign}", f" {words}", text).replace(sign, words)
    text = text.replace("\\%", "%").replace("\\$", "\x00")
    text = unwrap(re.sub(r"\$(?=\d[\d.,]*(?:[^\d$]*)$)", "\x00", text)).replace("\x00", "$")
    text = re.sub(r"\\[dtc]frac(?![A-Za-z])", r"\\frac", text)
    text = re.sub(r"\^\s?\{?\s?\\circ\s?\}?|\\degree(?![A-Za-z])", "°", text)
    for _ in range(3):
        text = _TEXT.sub(r" \1 ", text) if "\\" in text else text
    text = re.sub(r"\s{1,64}", " ", _GAPS.sub(" ", text)).strip()
    text = text.rstrip(".。,;:!？?" if not text.endswith("!") else ".。,;:").strip() or text
    while len(text) > 2 and text[0] == "{" and text[-1] == "}" and text.count("{") == 1:
        text = text[1:-1].strip()
    return text


# --- equality ----------------------------------------------------------------------------------------------------

Options = tuple[tuple[str, str], ...]


@lru_cache(maxsize=4096)
def _options(question: str) -> Options:
    return tuple(options_of(question).items())


@lru_cache(maxsize=262_144)
def _same(one: str, other: str, options: Options) -> bool:
    if max(len(one), len(other)) > _LONGEST:
        return one.strip() == other.strip()
    left, right = _plain(one), _plain(other)
    if not left or not right:
        return False
    if left == right:
        return True
    letters = _letters(left, options), _letters(right, options)
    if all(letters):
        return letters[0] == letters[1]
    chosen = _chosen(left, options), _chosen(right, options)
    if options and all(chosen):
        return chosen[0] == chosen[1]
    if not options:
        parts = leading_option(left), leading_option(right)
        if parts[0] and parts[1]:
            return parts[0][0] == parts[1][0]
        for part, whole in ((parts[0], right), (parts[1], left)):
            if part is not None and (whole.upper() == part[0] or (part[1] and _same_value(part[1], whole))):
                return True
        if any(part is not None and part[0] == text for part, text in zip(parts, (left, right), strict=True)):
            return False  # a letter alone against what is neither it nor its option
    return _same_value(left, right)


def _chosen(text: str, options: Options) -> str:
    """The letter of the option that an answer names, by its letter or by its text; "" for none."""
    known: Mapping[str, str] = dict(options)
    if not known:
        return ""
    if len(text) == 1 and text.upper() in known:
        return text.upper()
    option = leading_option(text)
    if option is not None and option[0] in known:
        return option[0]
    named = [letter for letter, words in options if words and _same_value(_plain(words), text)]
    return named[0] if len(named) == 1 else ""


_SEVERAL = re.compile(r"\(?[A-J]\)?(?: ?(?:,|and|&|、|和|;|/)? ?\(?[A-J]\)?){1,9}")


def _letters(text: str, options: Options) -> str:
    """Several options as their letters in order: "A, C and D" and, where options are known, "ACD"."""
    if not _SEVERAL.fullmatch(text):
        return ""
    letters = re.findall(r"[A-J]", text.replace("and", ","))
    return "".join(sorted(set(letters)))


def _same_value(left: str, right: str, depth: int = 0) -> bool:
    if left == right:
        return True
    one, two = read_quantity(_value_side(left)), read_quantity(_value_side(right))
    if one is not None and two is not None:
        return same_quantity(one, two) and _sides_agree(left, right)
    if (dates := (_date(left), _date(right)))[0] and dates[1]:
        return dates[0] == dates[1]
    lists = _elements(left), _elements(right)
    if depth < 2 and lists[0] is not None and lists[1] is not None:
        return _same_elements(lists[0], lists[1], depth + 1)
    if (one is None) != (two is None) and not (_is_mathematics(left) and _is_mathematics(right)):
        return False
    words = _words(left), _words(right)
    if words[0] == words[1] != "":
        return True
    if _is_mathematics(left) and _is_mathematics(right):
        sides = [_value_side(text) if "=" not in other else text for text, other in ((left, right), (right, left))]
        if _squeezed(sides[0]) == _squeezed(sides[1]):
            return True
        return same_expression(*(_latex(_bare_value(text, quantity)) for text, quantity in zip(sides, (one, two))))
    return False


def _bare_value(text: str, quantity: Quantity | None) -> str:
    """A quantity whose unit an expression does not have, as its number: "12 cm" against 3 \\cdot 4."""
    if quantity is None or not quantity.unit or quantity.unit == "%":
        return text
    return f"{quantity.value.numerator}/{quantity.value.denominator}"


_EQUATION = re.compile(r"(?<![<>!\\=:])=(?!=)|≈|\\approx(?![A-Za-z])")


def _value_side(text: str) -> str:
    """The value that an equation gives its left side: the last side, or the first where the last is a name."""
    if "," in text.replace(" ", "")[1:-1] and not re.search(r"\d,\d{3}(?!\d)", text):
        return text
    sides = [side.strip() for side in _EQUATION.split(text)]
    if len(sides) < 2 or not all(sides):
        return text
    if len(sides) == 2 and re.fullmatch(r"[A-Za-z]", sides[1]) and not re.fullmatch(r"[A-Za-z]", sides[0]):
        return sides[0]
    return sides[-1]


def _sides_agree(left: str, right: str) -> bool:
    """x = 7 is not y = 7; where only one side names its value, nothing contradicts."""
    names = [re.fullmatch(r"([A-Za-z](?:_\{?\w{1,10}\}?)?) ?(?:=|≈|\\approx) ?[^=]*", text) for text in (left, right)]
    return not (names[0] and names[1]) or names[0][1] == names[1][1]


_DATE = re.compile(r"(\d{1,4})([/.-])(\d{1,2})\2(\d{1,4})")


def _date(text: str) -> tuple[int, ...] | None:
    found = _DATE.fullmatch(text)
    return (int(found[1]), int(found[3]), int(found[4])) if found else None


# --- lists -------------------------------------------------------------------------------------------------------

_SEPARATOR = re.compile(r"[,;]| (?:and|or)(?= )|和|或|、|∨")
_PAIRS = {"(": ")", "[": "]", "{": "}"}


def _elements(text: str) -> tuple[str, list[str]] | None:
    """(brackets, elements) of a list: "( )" keeps its order, "{ }" and none do not; None where it is no list."""
    text = text.replace("\\{", "{").replace("\\}", "}").replace("\\lbrace", "{").replace("\\rbrace", "}")
    kind = ""
    if text[:1] in _PAIRS and text[-1:] in _PAIRS.values() and _closes(text):
        kind, text = text[0] + text[-1], text[1:-1]
    elif text.startswith("{") and text.endswith("}"):
        return None
    if kind in ("[)", "(]"):
        return None  # an interval
    found: list[str] = []
    depth, begin, at = 0, 0, 0
    while at < len(text):
        sign = text[at]
        depth += (sign in "([{") - (sign in ")]}")
        mark = _SEPARATOR.match(text, at) if depth == 0 else None
        thousands = mark is not None and mark[0] == "," and re.match(r",\d{3}(?!\d)", text[at : at + 5])
        if mark is not None and not (thousands and text[at - 1 : at].isdigit() and not kind):
            found.append(text[begin:at].strip())
            begin = at = mark.end()
            continue
        at += 1
    found.append(text[begin:].strip())
    # "x = 1, or x = 2" leaves an empty element between its two separators.
    found = [element for element in found if element] if any(found) else found
    spread = [each for element in found for each in _both_signs(element)]
    return (kind, spread) if 1 < len(spread) <= 20 else None


def _closes(text: str) -> bool:
    """Whether the first bracket is closed by the last sign."""
    depth = 0
    for place, sign in enumerate(text):
        depth += (sign in "([{") - (sign in ")]}")
        if depth == 0:
            return place == len(text) - 1
    return False


def _both_signs(text: str) -> list[str]:
    for sign in ("\\pm", "±"):
        if text.count(sign) == 1:
            before, _, after = text.partition(sign)
            joined = "+" if before.strip() and not before.rstrip().endswith("=") else ""
            return [f"{before}{joined}{after.strip()}", f"{before}-{after.strip()}"]
    return [text]


def _same_elements(one: tuple[str, list[str]], other: tuple[str, list[str]], depth: int) -> bool:
    (kind, left), (other_kind, right) = one, other
    if len(left) != len(right) or {kind, other_kind} == {"()", "[]"}:
        return False
    if {kind, other_kind} & {"()", "[]"} and "{}" not in (kind, other_kind):
        return all(_same_value(a, b, depth) for a, b in zip(left, right, strict=True))
    rest = list(right)
    for element in left:
        match = next((place for place, each in enumerate(rest) if _same_value(element, each, depth)), None)
        if match is None:
            return False
        del rest[match]
    return True


# --- words and expressions ----------------------------------------------------------------------------------------

_NAMES = (
    "sqrt cbrt sin cos tan cot sec csc arcsin arccos arctan sinh cosh tanh log ln exp max min gcd lcm mod inf infty pi "
    "theta alpha beta gamma delta lambda mu sigma omega phi det dim frac"
)
_FUNCTIONS = frozenset(_NAMES.split())
_LONG_WORD = re.compile(r"(?<![A-Za-z\\])[A-Za-z]{3,}")
_SIGN = re.compile(r"[\d\\^_=+*/<>√π∞∪∩|≤≥]|(?<![A-Za-z])[A-Za-z](?![A-Za-z])")
_VERDICT = re.compile(r"(yes|no|true|false)(?:[,.;:!]| it| they|$)", re.IGNORECASE)


def _is_mathematics(text: str) -> bool:
    """Whether an expression is worth parsing: it has a digit, a sign or a name of one letter, and no words."""
    if not _SIGN.search(text):
        return False
    return all(word.lower() in _FUNCTIONS for word in _LONG_WORD.findall(re.sub(r"\\[A-Za-z]{1,20}", "", text))) or (
        read_quantity(_value_side(text)) is not None
    )


def _words(text: str) -> str:
    """Words freed of case, article, punctuation and spacing; "" for text in which signs matter."""
    if verdict := _VERDICT.match(text):
        return verdict[1].lower()
    if _is_mathematics(text):
        return ""
    text = re.sub(r"^(?:the|a|an|it is|it's|they are) ", "", text.casefold())
    return re.sub(r"(?<!\d)[^\w%°]+(?!\d)|[\s_\"']+", "", text)


def _squeezed(text: str) -> str:
    return re.sub(r"\s|\\cdot(?![A-Za-z])|\*", "", text)


def _latex(text: str) -> str:
    """An expression as people type it in LaTeX: sqrt(3) -> \\sqrt{3}, x^10 -> x^{10}, pi -> \\pi, ** -> ^."""
    text = text.replace("**", "^").replace("√", "\\sqrt ").replace("π", "\\pi ").replace("∞", "\\infty ")
    for sign, word in (("≤", "\\le "), ("≥", "\\ge "), ("∪", "\\cup "), ("∩", "\\cap "), ("×", "\\times "), ("°", ""),
                       ("²", "^{2}"), ("³", "^{3}"), ("∈", "\\in "), ("θ", "\\theta ")):  # fmt: skip
        text = text.replace(sign, word)
    text = re.sub(r"\\sqrt ?(\d{1,20}|[a-zA-Z])(?![A-Za-z])", r"\\sqrt{\1}", text)
    text = re.sub(r"\\?sqrt ?\(([^()]{1,200})\)", r"\\sqrt{\1}", text)
    text = re.sub(r"\^ ?\(([^()]{1,100})\)|\^ ?(-?\d{1,20})", lambda m: f"^{{{m[1] or m[2]}}}", text)
    text = re.sub(r"(?<![A-Za-z\\])(pi|ln|log|sin|cos|tan|exp|infty|theta)(?![a-z])", r"\\\1 ", text)
    text = re.sub(r"(?<=\d),(?=\d{3}(?!\d))", "", text) if not re.search(r"[(\[{]", text) else text
    return text.replace("*", "\\cdot ")
