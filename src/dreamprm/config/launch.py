"""From words of a command line to a composed configuration, in any folder and as often as one likes."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

import yaml
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from dreamprm.choices import near_miss
from dreamprm.config.own import allow_modules, is_own
from dreamprm.config.paths import HYDRA_VERSION_BASE, conf_dir
from dreamprm.errors import ConfigError

__all__ = ["check_words", "compose_config", "every_combination", "experiments", "is_group", "is_setting"]

_KEY = re.compile(r"^(?P<mark>\+\+|\+|~)?(?P<key>[^=]+)=(?P<value>.*)", re.DOTALL)
_SEVERAL = re.compile(r"Ambiguous value for argument '([^']+)'")
_ALLOW = "allow="


def experiments() -> dict[str, str]:
    """Name -> description of every file of `conf/experiment`."""
    found: dict[str, str] = {}
    for path in sorted((conf_dir() / "experiment").glob("*.yaml")):
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
        found[path.stem] = " ".join(str(values.get("description", "")).split())
    return found


def is_group(override: str) -> bool:
    """Whether an override chooses a file of a group (`weigher=uniform`) and does not set a value."""
    match = _KEY.match(override)
    return match is not None and _group_of(match["key"]) is not None


def is_setting(override: str) -> bool:
    """Whether an override is kept with the run; `allow=` holds for its own command line only."""
    return not override.startswith(_ALLOW)


def check_words(words: Sequence[str]) -> None:
    """Raises ConfigError for the first word that is no `name=value`, with the form that is right."""
    for place, word in enumerate(words):
        if word.startswith("-"):
            name, sign, value = word.lstrip("-").partition("=")
            following = words[place + 1] if place + 1 < len(words) and "=" not in words[place + 1] else "VALUE"
            right = f"{name or 'name'}={value if sign else following}"
            raise ConfigError(f"{word}: settings have no dashes: write {right}; --help shows all of them")
        match = _KEY.match(word)
        if match is None and not word.startswith("~"):
            right = f"experiment={word}" if word in experiments() else "name=value, e.g. seed=1"
            raise ConfigError(f"{word!r} is no setting: write {right}")
        if "${" in word:
            raise ConfigError(f"{word}: ${{…}} is not looked up here: write the value itself")


def compose_config(name: str, overrides: Sequence[str] = ()) -> DictConfig:
    """Compose `conf/NAME.yaml` with the words of a command line.

    Raises ConfigError with what is allowed when a group, an option or an override is not right.
    """
    check_words(overrides)
    allow_modules(
        part.strip()
        for item in overrides
        if not is_setting(item)
        for part in item.removeprefix(_ALLOW).strip("[]").split(",")
    )
    words = [word for item in overrides if is_setting(item) for word in _settable(item)]
    GlobalHydra.instance().clear()
    try:
        with initialize_config_dir(version_base=HYDRA_VERSION_BASE, config_dir=str(conf_dir())):
            return compose(name, overrides=words)
    except (HydraException, OmegaConfBaseException, ValueError) as error:
        raise ConfigError(_plain(str(error))) from error


def every_combination(overrides: Sequence[str]) -> Iterator[list[str]]:
    """One list of overrides for each combination of values with commas between; the last setting changes fastest."""
    check_words(overrides)
    choices: list[list[str]] = []
    for item in overrides:
        if not is_setting(item):
            choices.append([item])
            continue
        try:
            (parsed,) = OverridesParser.create().parse_overrides(overrides=[item])
        except HydraException as error:
            raise ConfigError(_plain(str(error))) from error
        if parsed.is_sweep_override():
            name = item.partition("=")[0]
            choices.append([f"{name}={value}" for value in parsed.sweep_string_iterator()])
        else:
            choices.append([item])
    for chosen in itertools.product(*choices):
        yield list(chosen)


def _group_of(key: str) -> Path | None:
    """The folder of a group's files; None for a setting. `schedule@inner.schedule` is of the group `schedule`."""
    folder = conf_dir() / key.split("@")[0].split(":")[0]
    return folder if folder.is_dir() else None


def _settable(override: str) -> list[str]:
    """The override in Hydra's own form.

    `a.b=1` becomes `++a.b=1`: the dataclasses say what exists, so that files need not list every default.
    `experiment=x` becomes `+experiment=x`. A user's own weigher or source takes the place of the file of its group.
    """
    match = _KEY.match(override)
    if match is None or match["mark"] == "~":
        return [override]
    key, value = match["key"], match["value"]
    group = _group_of(key)
    if group is None:
        return [_quoted("++" + override.lstrip("+"))]
    if is_own(value):
        return [f"~{key}", f"++{key}.kind='{value}'"]
    options = sorted(path.stem for path in group.glob("*.yaml"))
    if re.fullmatch(r"[\w-]+", value) and value not in options and value != "null":
        listed = ", ".join(options)
        raise ConfigError(f"{key}={value}: no such file; options of {key!r}: {listed}{near_miss(value, options)}")
    return [f"+{key}={value}" if key == "experiment" else override]


def _quoted(override: str) -> str:
    """The override, its value in quotes where Hydra's grammar would not read it (`data.path=x(1).jsonl`)."""
    try:
        OverridesParser.create().parse_overrides(overrides=[override])
    except HydraException:
        name, _, value = override.partition("=")
        if value[:1] not in ("[", "{", "'", '"'):
            escaped = value.replace("\\", "\\\\").replace("'", "\\'")
            return f"{name}='{escaped}'"
    return override


def _plain(message: str) -> str:
    """Hydra's message without its advice on forms that nobody here has to know."""
    kept: list[str] = []
    for line in message.splitlines():
        if line.startswith("Config search path"):
            break
        if line.strip() and "HYDRA_FULL_ERROR" not in line and not line.startswith("See https"):
            kept.append(line.strip())
    text = " ".join(kept)
    if several := _SEVERAL.match(text):
        name, value = several[1].lstrip("+").split("=", 1)
        return f"{name}={value}: several runs need --multirun; a list is written {name}=[{value}]"
    return text.replace("Available options in", "; options of").replace(" ; ", "; ")
