"""When an answer is right: the published rules of the benchmarks of answers, as functions (question, response) -> bool.

The published scripts let a language model read the answer off a response, or read it by rules made for responses of
one line. Chains are long, so here the answer is first found in the chain (`answer_of`), and the published comparison
decides on it. Further differences, all of them where the published scripts guess:
* a response in which no answer is found is wrong; MMMU's scripts draw one of the options, MathVista's takes the option
  that is nearest in spelling to nothing;
* MathVista: a number may carry its unit ("12 cm" is 12), and numbers are compared as numbers, not as their spellings;
* WeMath: the letter behind "Answer" as published; where the response has no such word, the answer it states.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

from dreamprm.data.answer_text import leading_option, options_of
from dreamprm.data.record import Record
from dreamprm.policy.answers import answer_of, same_answer

__all__ = ["Rule", "mathvision", "mathvista", "mmmu", "mmmu_pro", "mmstar", "we_math"]

Rule = Callable[[Record, str], bool]

_NUMBER = re.compile(r"-?(?:\d[\d,]*\.?\d*|\.\d+)(?:[eE][+-]?\d{1,3})?")


def mathvista(question: Record, response: str) -> bool:
    """The option by its letter, else the nearest in spelling; whole numbers cut, others rounded to `precision`; lists
    as they are spelled. Source: arXiv 2310.02255, calculate_score.py."""
    answer, wanted = answer_of(response), _reference(question)
    if answer is None:
        return False
    if question.extra.get("question_type") == "multi_choice":
        options = _options(question)
        return _chosen(answer, options) == _chosen(wanted, options)
    form = question.extra.get("answer_type")
    if form not in ("integer", "float"):
        return _spelling(answer) == _spelling(wanted)
    found, reference = _number(answer), _number(wanted)
    if found is None or reference is None:
        return False
    if form == "integer":
        return int(found) == reference
    return round(found, int(question.extra.get("precision") or 0)) == reference


def mathvision(question: Record, response: str) -> bool:
    """The letter, the option's text, or the same value to two decimals. Source: arXiv 2402.14804, evaluate.py."""
    answer, wanted = answer_of(response), _reference(question)
    if answer is None:
        return False
    letters, options = _letters(question), _options(question)
    values = [wanted] + ([options[letters.index(wanted)]] if wanted in letters else [])
    if any(same_answer(answer, value, question=question.question) for value in values if value.strip()):
        return True
    found = _number(answer)
    return found is not None and any(
        (value := _number(text)) is not None and round(found, 2) == round(value, 2) for text in values
    )


def we_math(question: Record, response: str) -> bool:
    """The first letter behind the last "Answer". Source: arXiv 2407.01284, evaluation code."""
    wanted = _reference(question).upper()
    if "Answer" in response:
        behind = re.sub(r"[<>:.*\s]", "", response.rpartition("Answer")[2])
        if behind[:1] and behind[0] in "ABCDEFGH":
            return behind[0] == wanted
    return (answer_of(response) or "").strip("(). ").upper() == wanted


def mmstar(question: Record, response: str) -> bool:
    """The option's letter that the answer begins with. Source: arXiv 2403.20330, mmstar.py."""
    answer = answer_of(response)
    if answer is None and "\n" not in response.strip():  # "(B) Bright" alone
        answer = (leading_option(response) or (None, ""))[0]
    if answer is None:
        return False
    text = answer.lower().strip()
    for lead in ("(", "option ", "the answer is "):
        text = text.removeprefix(lead)
    if re.match(r"[a-z](?![a-z])", text):
        return text[0] == _reference(question).lower()
    options = _options(question)
    return _letters(question)[options.index(answer)] == _reference(question) if answer in options else False


def mmmu(question: Record, response: str) -> bool:
    """Choices: the last option named in the response. Open questions: one of the numbers, to two decimals, or of the
    statements that the response concludes with holds the reference. Source: arXiv 2311.16502, eval_utils.py."""
    if _options(question):
        return _last_option(question, response) == _reference(question)
    return _open_answer(_references(question), response)


def mmmu_pro(question: Record, response: str) -> bool:
    """As MMMU's choices, but an "Answer:" that names one letter decides. Source: arXiv 2409.02813, evaluate.py."""
    behind = response.rpartition("Answer:")[2] if "Answer:" in response else ""
    named = [letter for letter in _letters(question) if letter in behind]
    if len(named) == 1:
        return named[0] == _reference(question)
    return _last_option(question, response, dotted=True) == _reference(question)


# --- what the rules share ----------------------------------------------------------------------------------------


def _reference(question: Record) -> str:
    """Raises ValueError where the question has none."""
    if question.reference is None or not question.reference.strip():
        raise ValueError(f"question {question.group!r} has no answer to judge by (its file keeps it hidden)")
    return question.reference.strip()


def _references(question: Record) -> list[str]:
    """MMMU's open questions may list several answers as text."""
    text = _reference(question)
    if not text.startswith("["):
        return [text]
    from dreamprm.data.readers.fields import Row
    from dreamprm.data.readers.text import literal_list

    return [str(item) for item in literal_list(Row({}, question.source), text, "answer")]


def _options(question: Record) -> list[str]:
    given: Sequence[str] = question.extra.get("options") or list(options_of(question.question).values())
    return [str(option) for option in given]


def _letters(question: Record) -> list[str]:
    return [chr(65 + place) for place in range(len(_options(question)))]


def _number(text: str) -> float | None:
    """The text as a number; else the one number that it holds, whatever its unit is."""
    try:
        return float(text.replace(",", ""))
    except ValueError:
        found = _NUMBER.findall(text.replace("−", "-"))
        return float(found[0].replace(",", "")) if len(found) == 1 else None


def _spelling(text: str) -> str:
    return re.sub(r"\s", "", text).strip("$.")


def _chosen(text: str, options: Sequence[str]) -> str:
    """An option by (letter), by its letter alone, else the one that is nearest in spelling, the first of several."""
    marked = re.search(r"\(([a-zA-Z])\)", text)
    letter = marked[1].upper() if marked else text.strip()
    if len(letter) == 1 and 0 <= ord(letter) - 65 < len(options):
        return options[ord(letter) - 65]
    return min(options, key=lambda option: _edits(text.strip(), option))


def _edits(one: str, other: str) -> int:
    """Levenshtein's distance: insertions, deletions and changes that make one text the other."""
    row = list(range(len(other) + 1))
    for place, sign in enumerate(one, start=1):
        before, row[0] = row[0], place
        for column, wanted in enumerate(other, start=1):
            before, row[column] = row[column], min(row[column] + 1, row[column - 1] + 1, before + (sign != wanted))
    return row[-1]


def _last_option(question: Record, response: str, *, dotted: bool = False) -> str | None:
    """The option that a response names last: as (B), else as B between spaces, else by its text in longer responses.

    dotted: "B." too, and a letter needs no space before it, as MMMU-Pro's script has it.
    """
    text = f" {' '.join(response.split()).strip(',.!?;:' + chr(39))} "
    letters, options = _letters(question), _options(question)
    forms = ["({})", "{} ", "{}."] if dotted else ["({})", " {} "]
    for form in forms:
        found = [letter for letter in letters if form.format(letter) in text]
        if found:
            # The last one; the place of several is that of the letter between spaces, as published.
            place = "({})" if form == "({})" else " {} "
            return found[0] if len(found) == 1 else max(found, key=lambda letter: text.rfind(place.format(letter)))
    if len(text.split()) > 5:
        lowered = text.lower()
        held = [letter for letter, option in zip(letters, options) if option and option.lower() in lowered]
        if held:
            return max(held, key=lambda letter: lowered.rfind(options[letters.index(letter)].lower()))
    return None


_SIGNALS = ("could be ", "so ", "is ", "thus ", "therefore ", "final ", "answer ", "result ")
_GROUPED = re.compile(r"-?\b\d{1,3}(?:,\d{3})+\b")
_SCIENTIFIC = re.compile(r"-?\d+(?:\.\d+)?[eE][+-]?\d+")
_SIMPLE = re.compile(r"-?(?:\d+\.\d+|\.\d+|\d+\b)(?![eE][+-]?\d+)(?![,\d])")


def _open_answer(wanted: Sequence[str], response: str) -> bool:
    answers = [form for text in wanted for form in _forms(text)]
    for statement in _statements(response):
        numbers = [found for kind in (_GROUPED, _SCIENTIFIC, _SIMPLE) for found in kind.findall(statement)]
        for text in (statement, *numbers):
            for form in _forms(text):
                if isinstance(form, float) and form in answers:
                    return True
                if isinstance(form, str) and any(isinstance(a, str) and a in form for a in answers):
                    return True
    return False


def _statements(response: str) -> list[str]:
    """The shortest ending behind a word that announces a result, of every line; the response where there is none."""
    # Lower case comes first in the published script too, so that only line breaks part sentences.
    lines = response.strip().strip(".").lower().split("\n")
    found: list[str] = []
    for place, line in enumerate(lines):
        signals = (*_SIGNALS, "=") if place == len(lines) - 1 else _SIGNALS
        endings = [line.rpartition(signal)[2].strip() for signal in signals if signal in line]
        shortest = min((text for text in endings if text), key=len, default="")
        if shortest and shortest not in ":,.!?;'":
            found.append(shortest)
    return found or [response]


def _forms(text: str) -> list[str | float]:
    """A number rounded to two decimals, else lower case; a single letter with a space beside it."""
    text = text.strip()
    try:
        return [round(float(text.replace(",", "")), 2)]
    except ValueError:
        lowered = text.lower()
        return [f" {lowered}", f"{lowered} "] if len(lowered) == 1 else [lowered]
