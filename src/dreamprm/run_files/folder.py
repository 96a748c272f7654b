"""A run's folder: a fresh one that overwrites nothing, or that of the run to go on with, under the same settings.

One process works in it at a time: it holds `.lock`, which the system lets go of when the process ends, however it ends.
config.yaml ends in a hash of itself, so that an edit by hand is not taken for what the run was.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import fnmatch
import hashlib
import os
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml
from omegaconf import DictConfig, OmegaConf

from dreamprm.config.launch import is_group
from dreamprm.config.resolve import differences, resolve_train, to_plain
from dreamprm.config.schema import TrainConfig
from dreamprm.distributed import from_first, is_first
from dreamprm.errors import ConfigError, UserError, fault_of_machine
from dreamprm.files import write_atomically, write_new
from dreamprm.run_files.checkpoint import load_latest

__all__ = [
    "MAY_DIFFER",
    "changed_settings",
    "fresh_folder",
    "locked",
    "resumed_settings",
    "run_folder",
    "save_settings",
]

MAY_DIFFER = (
    "resume",
    "run_dir",
    "description",
    "device",
    "threads",
    "log_every",
    "profile",
    "prefetch",
    "stop_at",
    "inner.updates",
    "*.optimizer.lr",
    "*.clip_norm",
    "outer.max_not_finite",
    "checkpoint.*",
    "distributed.*",
    "evaluate.*",
    "tracker.*",
)
"""The settings that a resumed run may change; every other one would make it another run.

A learning rate or a clipping norm does change the run: it is allowed so that one that diverged can go on from its last
good checkpoint, it is said, and it stands in the checkpoints from then on.
"""

_SETTLED = ("config.yaml", "metrics.jsonl", "checkpoints", "prm", "weigher.safetensors", "weights.parquet")
_SETTLED += ("history.jsonl", "examples.parquet", "results.json", "report.html")
_HASH = "# hash of what stands above: "
_MAX_CONFIG = 2**20
_PASSING = ("resume", "run_dir", "stop_at", "plan", "show_prompts")


@contextlib.contextmanager
def run_folder(settings: TrainConfig) -> Iterator[Path]:
    """The folder of a fresh or resumed run, held by this process alone until the end of the `with` block.

    Of several processes that are one run the first holds it, and tells the others.
    A fresh one in which nothing was trained when the run failed is taken away again.
    Raises UserError where it is taken, in use or cannot be written.
    """
    if not is_first():
        yield from_first(Path())
        return
    folder = Path(settings.resume) if settings.resume else fresh_folder(settings)
    with locked(folder):
        try:
            yield from_first(folder)
        except BaseException:
            if not settings.resume:
                _take_away_unused(folder)
            raise


def fresh_folder(settings: TrainConfig) -> Path:
    """Make the run's folder: `run_dir` where it is set, else the first free of runs/NAME/seedSEED, seedSEED-2, …

    config.yaml is written at once, by a call that one of two processes fails in, so that the folder is taken.
    Raises UserError where a set `run_dir` holds a run already, or things that a run would write over.
    """
    try:
        if settings.run_dir is None:
            folder = _numbered(Path("runs") / settings.name / f"seed{settings.seed}")
        else:
            folder = Path(settings.run_dir)
            folder.mkdir(parents=True, exist_ok=True)
            found = [name for name in _SETTLED if (folder / name).exists()]
            if found and found[0] != "config.yaml":
                raise UserError(f"run_dir={folder} holds {', '.join(found)} of something else: choose another run_dir")
        write_new(folder / "config.yaml", _config(replace(settings, run_dir=str(folder))))
    except FileExistsError as error:
        if error.filename2 is None:
            raise _unusable(f"run_dir={settings.run_dir}", error) from error
        raise UserError(
            f"run_dir={settings.run_dir} holds a run already: go on with it by dreamprm train "
            f"resume={shlex.quote(str(settings.run_dir))}, or choose another run_dir (null numbers them)"
        ) from error
    except OSError as error:
        raise _unusable(f"run_dir={settings.run_dir}" if settings.run_dir else "the run's folder", error) from error
    return folder


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold the folder for this process. Raises UserError where another one does."""
    try:
        handle = os.open(folder / ".lock", os.O_RDWR | os.O_CREAT, 0o666)
    except OSError as error:
        raise _unusable(str(folder), error) from error
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in (errno.EWOULDBLOCK, errno.EACCES):
                owner = os.pread(handle, 20, 0).decode("ascii", "replace").strip()
                raise UserError(
                    f"{folder} is in use by another process{f' (id {owner})' if owner else ''}: wait for its end, or "
                    "choose another run_dir"
                ) from error
            # A file system without locks: then only fresh folders are protected.
        with contextlib.suppress(OSError):
            os.ftruncate(handle, 0)
            os.pwrite(handle, str(os.getpid()).encode(), 0)
        yield
    finally:
        os.close(handle)


def save_settings(settings: TrainConfig, folder: Path) -> None:
    """Write config.yaml: every setting, resolved, and a hash of the text."""
    write_atomically(folder / "config.yaml", _config(settings))


def resumed_settings(composed: DictConfig, overrides: Sequence[str]) -> TrainConfig:
    """The settings to go on with: the saved ones, changed by what the command line sets.

    A command that names an experiment or chooses any other file of a group is compared whole.
    Raises ConfigError naming every difference that is not in `MAY_DIFFER`, and where config.yaml is damaged or edited.
    """
    folder = Path(str(composed["resume"]))
    saved = to_plain(resolve_train(_saved(folder)))
    if any(is_group(item) for item in overrides):
        wanted = to_plain(resolve_train(composed))
    else:
        dotlist = [item.lstrip("+") for item in overrides if not item.startswith("~") and "hydra." not in item]
        chosen = DictConfig(saved | {"stop_at": None})  # where the last part of the run ended is no setting of this one
        for item in dotlist:
            name = item.split("=", 1)[0]
            OmegaConf.update(chosen, name, OmegaConf.select(composed, name), merge=False, force_add=True)
        wanted = to_plain(resolve_train(chosen))
    refused = {name: values for name, values in differences(saved, wanted).items() if not _may_differ(name)}
    if refused:
        listed = "; ".join(f"{name} was {old!r}, now {new!r}" for name, (old, new) in refused.items())
        raise ConfigError(f"resume={folder}: {listed}. A resumed run may change {', '.join(MAY_DIFFER)} only")
    wanted |= {"run_dir": str(folder), "resume": str(folder)}
    return resolve_train(wanted)


def changed_settings(before: Mapping[str, Any], now: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """Setting -> (before, now) of what makes another course of the run: all but where and how it is written and shown.

    Raises ConfigError for those that a resumed run may not change.
    """
    found = differences(before, now)
    refused = {name: values for name, values in found.items() if not _may_differ(name) and name not in _PASSING}
    if refused:
        listed = "; ".join(f"{name} was {old!r}, now {new!r}" for name, (old, new) in refused.items())
        raise ConfigError(f"the checkpoint is of other settings: {listed}")
    telling = ("*.optimizer.lr", "*.clip_norm", "inner.updates")
    return {name: both for name, both in found.items() if any(fnmatch.fnmatch(name, each) for each in telling)}


def _may_differ(name: str) -> bool:
    return any(fnmatch.fnmatch(name, pattern) for pattern in MAY_DIFFER)


def _numbered(base: Path) -> Path:
    for number in range(1, 10_000):
        folder = base if number == 1 else base.with_name(f"{base.name}-{number}")
        try:
            folder.mkdir(parents=True)
        except FileExistsError:
            continue
        return folder
    raise UserError(f"{base} and ten thousand numbered ones exist: set run_dir")


def _take_away_unused(folder: Path) -> None:
    """Remove a folder that holds nothing but its settings."""
    metrics = folder / "metrics.jsonl"
    if (folder / "checkpoints").exists() or (metrics.exists() and metrics.stat().st_size):
        return
    for name in ("metrics.jsonl", "history.jsonl", "config.yaml", ".lock"):
        (folder / name).unlink(missing_ok=True)
    with contextlib.suppress(OSError):  # something else lies there
        folder.rmdir()


def _config(settings: TrainConfig) -> bytes:
    text = yaml.safe_dump(to_plain(settings), sort_keys=False, allow_unicode=True)
    return f"{text}{_HASH}{_hash(text)}\n".encode()


def _hash(text: str) -> str:
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def _saved(folder: Path) -> dict[str, Any]:
    """config.yaml as plain values: nothing in it is resolved, expanded or made into an object."""
    path = folder / "config.yaml"
    if not path.is_file():
        raise ConfigError(f"resume={folder}: no config.yaml there; give the folder of a run")
    try:
        with path.open("rb") as stream:
            text = stream.read(_MAX_CONFIG).decode()
        values = yaml.load(text, _PlainLoader)
        if not isinstance(values, dict) or not all(isinstance(name, str) for name in values):
            raise ValueError("it is no mapping of settings")
        _refuse_interpolations(values)
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
        raise ConfigError(f"{path} cannot be read as a run's settings: {_first_line(error)}") from error
    if isinstance(values.get("weigher"), dict) and "target" in values["weigher"]:
        raise ConfigError(
            f"{path} is of an earlier version of dreamprm, whose settings and checkpoints this one does not read: "
            "start a new run, or go on with the version that wrote it"
        )
    body, found, stated = text.rpartition(_HASH)
    if not found or stated.strip() != _hash(body):
        raise ConfigError(f"{path} is not what the run wrote{_edited(folder, values)}: undo the edit, {_WAY}")
    return values


_WAY = "and give what is to change on the command line (resume=DIR name=value)"


def _edited(folder: Path, values: dict[str, Any]) -> str:
    """The settings in which config.yaml differs from the newest checkpoint, in brackets."""
    try:
        latest = load_latest(folder / "checkpoints")
        then = {} if latest is None else latest.about.get("settings", {})
        found = differences(then, to_plain(resolve_train(values))) if then else {}
    except UserError:
        found = {}
    listed = [f"{name} was {old!r}, there is {new!r}" for name, (old, new) in found.items() if name not in _PASSING]
    return f" ({'; '.join(listed)})" if listed else " (its hash differs)"


class _PlainLoader(yaml.SafeLoader):
    """YAML without anchors: nine nested levels of them are a billion values."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):
            raise ValueError("it holds YAML aliases, which no run writes")
        return super().compose_node(parent, index)


def _refuse_interpolations(node: Any) -> None:
    if isinstance(node, dict):
        for key, value in node.items():
            _refuse_interpolations(key)
            _refuse_interpolations(value)
    elif isinstance(node, list):
        for value in node:
            _refuse_interpolations(value)
    elif isinstance(node, str) and "${" in node:
        raise ValueError(f"{node[:60]!r} would be replaced by something else, which no run writes")


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]


def _unusable(what: str, error: OSError) -> UserError:
    return UserError(f"{what} cannot be written: {fault_of_machine(error)}")
