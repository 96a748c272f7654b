"""A name stands for one thing: no attribute hides a module of its package, no file name stands twice."""

import importlib
import pkgutil
from collections import defaultdict
from pathlib import Path
from types import ModuleType

import pytest

SOURCES = Path(__file__).resolve().parents[1] / "src"

TWICE = {
    "__init__": "Python's own",
    "train": "src/train.py is the entry of a checkout, commands/train.py the command",
    "sample": "a command's file bears the command's name; sources/sample.py is the cut that a source makes",
    "files": "the ground floor's files, and what every command says of the ones that it was given",
    "own": "config/own.py loads a user's own modules; formats/ names its files by the format, ours among them",
    "baselines": "the trainer makes the rivals' scores, evaluate judges them",
}
"""File names that may stand more than once, each with the reason."""


def packages(name: str) -> list[ModuleType]:
    root = importlib.import_module(name)
    inner = [module.name for module in pkgutil.walk_packages(root.__path__, f"{name}.") if module.ispkg]
    return [root, *map(importlib.import_module, inner)]


@pytest.mark.parametrize("name", ["bilevel", "dreamprm"])
def test_no_attribute_of_a_package_hides_a_module_in_it(name: str) -> None:
    """`import a.b` and `a.b` must be the same thing, whatever was imported first."""
    hidden = [
        f"{package.__name__}.{module.name} is a {type(vars(package)[module.name]).__name__}"
        for package in packages(name)
        for module in pkgutil.iter_modules(package.__path__)
        if not isinstance(vars(package).get(module.name, package), ModuleType)
    ]
    assert not hidden, "give the file another name, with an underscore before it for one"


def test_no_file_name_stands_twice() -> None:
    places: dict[str, list[str]] = defaultdict(list)
    for path in sorted(SOURCES.rglob("*.py")):
        places[path.stem].append(str(path.relative_to(SOURCES)))
    assert not {name: found for name, found in places.items() if len(found) > 1 and name not in TWICE}


def test_every_exception_is_still_one() -> None:
    stems = [path.stem for path in SOURCES.rglob("*.py")]
    assert not [name for name in TWICE if stems.count(name) < 2]
