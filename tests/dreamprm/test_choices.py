"""Every word that a setting may be stands once: no two enumerations of the packages have the same members."""

from __future__ import annotations

import enum
import importlib
import pkgutil
import typing
from collections import defaultdict
from types import ModuleType

import pytest

import bilevel
import dreamprm
from dreamprm import choices
from dreamprm.choices import OnBadRow, Precision, one_of


def _modules() -> list[ModuleType]:
    found = [bilevel, dreamprm]
    for package in (bilevel, dreamprm):
        for item in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            found += [] if item.name.endswith("__main__") else [importlib.import_module(item.name)]
    return found


def _words(value: object) -> frozenset[str]:
    """The words of an enumeration in any of its forms: Enum, Literal, a constant tuple, list or set of words."""
    if isinstance(value, type) and issubclass(value, enum.Enum):
        members: list[object] = [member.value for member in value]
    elif typing.get_origin(value) is typing.Literal:
        members = list(typing.get_args(value))
    elif isinstance(value, (tuple, list, set, frozenset)):
        members = list(value)
    else:
        return frozenset()
    return frozenset(str(member) for member in members) if all(isinstance(m, str) for m in members) else frozenset()


def test_no_two_enumerations_have_the_same_members() -> None:
    places: dict[frozenset[str], dict[int, str]] = defaultdict(dict)
    for module in _modules():
        for name, value in vars(module).items():
            words = _words(value)
            if name != "__all__" and not name.startswith("__") and len(words) > 1:
                places[words].setdefault(id(value), f"{module.__name__}.{name}")
    twins = [sorted(found.values()) for found in places.values() if len(found) > 1]
    assert not twins


def test_a_members_name_is_its_word() -> None:
    # A configuration finds members by name, the library by value.
    for name in choices.__all__:
        kind = getattr(choices, name)
        if isinstance(kind, type) and issubclass(kind, choices.Choice):
            assert [member.name for member in kind] == [member.value for member in kind], name


def test_another_word_is_refused_with_those_there_are() -> None:
    with pytest.raises(ValueError, match=r"'qarantine' is no OnBadRow; allowed are .*; did you mean quarantine\?"):
        OnBadRow("qarantine")
    with pytest.raises(ValueError, match=r"'x' is no thing; allowed are aa, bb$"):
        one_of("x", ("aa", "bb"), "thing")
    assert Precision("bf16") is Precision.bf16 == "bf16"
