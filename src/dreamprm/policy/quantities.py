"""Numbers as people write them, with what stands beside them: 1,000; 3 1/2; \\frac12; 1.2 × 10^3; 50%; $5; 12 cm.

A quantity is exact: a fraction, how many decimals it was written with, and its unit. Nothing here takes powers above
10^400, so that no text can make it hang.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction

__all__ = ["Quantity", "read_quantity", "same_quantity"]


@dataclass(frozen=True, slots=True)
class Quantity:
    """value; decimals: digits after the point, None for a fraction or a whole number; unit: "" where there is none."""

    value: Fraction
    decimals: int | None
    unit: str


_DIGITS = r"(?:\d{1,3}(?:,\d{3}){1,30}|\d{1,400})"
_DECIMAL = rf"(?:{_DIGITS}(?:\.\d{{0,400}})?|\.\d{{1,400}})"
_NUMBER = re.compile(
    rf"(?P<sign>[-+]?)\s?(?P<money>[$€£¥₹]?)\s?(?:"
    rf"(?P<whole>\d{{1,9}})?\s?\\frac\s?(?:\{{(?P<top>-?\d{{1,100}})\}}|(?P<t>\d))\s?(?:\{{(?P<bottom>\d{{1,100}})\}}|(?P<b>\d))"
    rf"|(?:(?P<mixed>\d{{1,9}})[ -])?(?P<up>{_DECIMAL})\s?/\s?(?P<down>{_DECIMAL})(?![\d/])"
    rf"|(?P<plain>{_DECIMAL})(?:\s?(?:[×x]|\\times|\\cdot|\*)\s?10\s?\^\s?\{{?(?P<power>[-+]?\d{{1,3}})\}}?|[eE](?P<e>[-+]?\d{{1,3}})(?![\w]))?"
    rf"|10\s?\^\s?\{{?(?P<ten>[-+]?\d{{1,3}})\}}?)"
)
_SMALL = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen "
    "eighteen nineteen"
)
_TEN = "twenty thirty forty fifty sixty seventy eighty ninety"
_WORDS = {word: number for number, word in enumerate(_SMALL.split())}
_TENS = {word: 10 * (place + 2) for place, word in enumerate(_TEN.split())}
_SCALES = {"hundred": 100, "thousand": 10**3, "million": 10**6, "billion": 10**9, "trillion": 10**12, "dozen": 12}

# Spelling -> (dimension, size in the dimension's base unit). Units of one dimension are compared by size.
_UNITS: dict[str, tuple[str, Fraction]] = {}


def _unit(dimension: str, size: str, spellings: str) -> None:
    for name in spellings.split():
        _UNITS[name] = dimension, Fraction(size)


for _dimension, _size, _spellings in (
    ("length", "1/1000", "mm millimeter millimeters millimetre millimetres"),
    ("length", "1/100", "cm centimeter centimeters centimetre centimetres"),
    ("length", "1/10", "dm decimeter decimeters decimetre decimetres"),
    ("length", "1", "m meter meters metre metres 米"),
    ("length", "1000", "km kilometer kilometers kilometre kilometres 千米 公里"),
    ("length", "1/100", "厘米"),
    ("inch", "1", "in inch inches"),
    ("inch", "12", "ft foot feet"),
    ("inch", "36", "yd yard yards"),
    ("inch", "63360", "mi mile miles"),
    ("mass", "1/1000", "mg milligram milligrams"),
    ("mass", "1", "g gram grams 克"),
    ("mass", "1000", "kg kilogram kilograms 千克 公斤"),
    ("pound", "1", "lb lbs pound pounds"),
    ("volume", "1/1000", "ml mL milliliter milliliters millilitre millilitres"),
    ("volume", "1", "l L liter liters litre litres 升"),
    ("time", "1/1000", "ms millisecond milliseconds"),
    ("time", "1", "s sec secs second seconds 秒"),
    ("time", "60", "min mins minute minutes 分钟"),
    ("time", "3600", "h hr hrs hour hours 小时"),
    ("time", "86400", "day days 天"),
    ("time", "604800", "week weeks"),
    ("month", "1", "month months"),
    ("month", "12", "yr yrs year years 年"),
    ("angle", "1", "° deg degree degrees 度"),
    ("radian", "1", "rad radian radians"),
    ("kelvin", "1", "K kelvin"),
    ("celsius", "1", "°C celsius"),
    ("fahrenheit", "1", "°F fahrenheit"),
    ("force", "1", "N newton newtons"),
    ("force", "1000", "kN"),
    ("energy", "1", "J joule joules"),
    ("energy", "1000", "kJ"),
    ("power", "1", "W watt watts"),
    ("power", "1000", "kW"),
    ("volt", "1", "V volt volts"),
    ("ampere", "1", "amp amps ampere amperes"),
    ("ohm", "1", "Ω ohm ohms"),
    ("hertz", "1", "Hz hertz"),
    ("pascal", "1", "Pa pascal pascals"),
    ("pascal", "1000", "kPa"),
    ("mole", "1", "mol mole moles"),
    ("dollar", "1", "$ dollar dollars usd USD"),
    ("dollar", "1/100", "cent cents"),
    ("euro", "1", "€ euro euros EUR"),
    ("sterling", "1", "£"),
    ("yen", "1", "¥ yen yuan 元"),
    ("rupee", "1", "₹ rupee rupees"),
):
    _unit(_dimension, _size, _spellings)
_UNSPACED = frozenset({"m", "g", "L", "h", "s", "N", "J", "W", "V", "K"})
_OTHERS = (
    "and or to times plus minus over if of from than by with per sqrt pi more less not mod dozen hundred thousand "
    "million billion trillion percent inf infinity sin cos tan log exp"
)
_NO_NOUN = frozenset(_OTHERS.split())
_NOUN = re.compile(r"[A-Za-z]{2}[A-Za-z'-]{1,30}(?: [A-Za-z]{2}[A-Za-z'-]{1,30}){0,3}")
_PERCENT = re.compile(r"%|percent(?:age)?(?: points?)?|per cent|pct", re.IGNORECASE)
_POWER = re.compile(r"(.{1,20}?)\s?(?:\^\{?([23])\}?|([²³]))")
_SQUARE = {"square": 2, "sq": 2, "sq.": 2, "cubic": 3, "cu": 3, "平方": 2, "立方": 3}


def read_quantity(text: str) -> Quantity | None:
    """The quantity that a whole text is (already freed of LaTeX's wrappers), or None where it is anything else."""
    text = text.strip()
    if len(text) > 500:
        return None
    if (worded := _worded(text)) is not None:
        return worded
    found = _NUMBER.match(text)
    if found is None:
        return None
    number = _value(found)
    if number is None:
        return None
    value, decimals = number
    rest = text[found.end() :]
    for scale, factor in _SCALES.items():
        if (stripped := rest.lstrip())[: len(scale)].lower() == scale and not stripped[len(scale) :][:1].isalpha():
            value, rest, decimals = value * factor, stripped[len(scale) :], None
    unit = _unit_of(rest, spaced=rest[:1].isspace())
    if unit is None or (unit and found["money"]):
        return None
    return Quantity(value, decimals, unit or _named(found["money"], 1) if found["money"] else unit)


def _value(found: re.Match[str]) -> tuple[Fraction, int | None] | None:
    def exact(text: str) -> Fraction:
        return Fraction(text.replace(",", "").rstrip(".") or "0")

    sign = -1 if found["sign"] == "-" else 1
    if found["up"] is not None:
        bottom = exact(found["down"])
        value = None if bottom == 0 else Fraction(found["mixed"] or 0) + exact(found["up"]) / bottom
        return None if value is None else (sign * value, None)
    if found["plain"] is not None:
        power = int(found["power"] or found["e"] or 0)
        point = found["plain"].partition(".")[2]
        decimals = max(0, len(point) - power) if point else None
        return sign * exact(found["plain"]) * Fraction(10) ** power, decimals
    if found["ten"] is not None:
        return sign * Fraction(10) ** int(found["ten"]), None
    bottom = int(found["bottom"] or found["b"])
    if not bottom:
        return None
    return sign * (Fraction(found["whole"] or 0) + Fraction(int(found["top"] or found["t"]), bottom)), None


def _worded(text: str) -> Quantity | None:
    words = text.lower().replace("-", " ").split()
    if not 1 <= len(words) <= 3:
        return None
    if words[0] in _TENS:
        used = 2 if len(words) > 1 and 0 < _WORDS.get(words[1], 0) < 10 else 1
        value = _TENS[words[0]] + (_WORDS[words[1]] if used == 2 else 0)
    elif words[0] in _WORDS:
        used, value = 1, _WORDS[words[0]]
    else:
        return None
    if used < len(words) and words[used] in _SCALES:
        value, used = value * _SCALES[words[used]], used + 1
    unit = _unit_of(" " + " ".join(words[used:]), spaced=True) if used < len(words) else ""
    return None if unit is None else Quantity(Fraction(value), None, unit)


def _unit_of(rest: str, *, spaced: bool) -> str | None:
    """The canonical unit of what follows a number: "" for none, None where it is no unit but more of an expression."""
    rest = rest.strip().rstrip(".")
    if not rest:
        return ""
    if _PERCENT.fullmatch(rest):
        return "%"
    if len(rest) > 60:
        return None
    squared = 1
    first, _, more = rest.partition(" ")
    if more and first.lower() in _SQUARE:
        squared, rest = _SQUARE[first.lower()], more
    elif rest[:2] in _SQUARE:
        squared, rest = _SQUARE[rest[:2]], rest[2:]
    if power := _POWER.fullmatch(rest):
        rest, squared = power[1], int(power[2] or {"²": 2, "³": 3}[power[3]])
    above, per, below = rest.replace(" per ", "/").partition("/")
    if per:
        names = _named(above.strip(), 1), _named(below.strip(), 1)
        return f"{names[0]}/{names[1]}" if all(names) else None
    if rest in ("° C", "° F", "degrees Celsius", "degrees Fahrenheit"):
        rest = f"°{rest.split()[-1][0]}"
    if not spaced and len(rest) == 1 and rest.isascii() and rest not in _UNSPACED and rest != "$":
        return None
    if name := _named(rest, squared):
        return name
    if spaced and _NOUN.fullmatch(rest) and not _NO_NOUN & set(rest.lower().split()):
        return f"noun {rest.lower()}"
    # A known unit with a word behind it: "12 cm long".
    first, _, more = rest.partition(" ")
    if spaced and _named(first, squared) and _NOUN.fullmatch(more) and not _NO_NOUN & set(more.lower().split()):
        return _named(first, squared)
    return None


def _named(name: str, power: int) -> str:
    known = _UNITS.get(name) or _UNITS.get(name.lower() if len(name) > 2 else name)
    return f"{known[0]}^{power}*{known[1] ** power}" if known else ""


def same_quantity(one: Quantity, other: Quantity) -> bool:
    """Whether two quantities are one: units count where both have one, p % is p or p/100, decimals as written.

    A decimal of four digits or more equals the fraction that it rounds ("0.3333" is 1/3).
    """
    if "%" in (one.unit, other.unit) and one.unit != other.unit:
        percent, plain = (one, other) if one.unit == "%" else (other, one)
        if plain.unit and not plain.unit.startswith("noun "):
            return False
        return _close(percent.value, plain.value, percent, plain) or percent.value / 100 == plain.value
    left, right = one.value, other.value
    known = [unit for unit in (one.unit, other.unit) if unit and unit != "%" and not unit.startswith("noun ")]
    if len(known) == 2 and one.unit != other.unit:
        if "/" in one.unit.partition("*")[0] or "*" not in one.unit or "*" not in other.unit:
            return False
        (first, size), (second, other_size) = (unit.split("*", 1) for unit in known)
        if first != second:
            return False
        try:
            return left * Fraction(size) == right * Fraction(other_size)
        except ValueError:
            return False
    return _close(left, right, one, other)


def _close(left: Fraction, right: Fraction, one: Quantity, other: Quantity) -> bool:
    if left == right:
        return True
    for rounded, exact, quantity, partner in ((left, right, one, other), (right, left, other, one)):
        if quantity.decimals is None or partner.decimals is not None or quantity.decimals < 4:
            continue
        if exact.denominator != 1 and round(exact, quantity.decimals) == rounded:
            return True
    return False
