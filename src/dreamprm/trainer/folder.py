"""A run's folder: a fresh one that overwrites nothing, or that of the run to go on with, under the same settings."""

from __future__ import annotations

import fnmatch
from collections.abc import Sequence
from pathlib import Path

import yaml
from omegaconf import DictConfig, OmegaConf

from dreamprm.config.launch import is_group
from dreamprm.config.resolve import differences, resolve_train, to_plain
from dreamprm.config.schema import TrainConfig
from dreamprm.errors import ConfigError, UserError
from dreamprm.files import write_atomically

__all__ = ["MAY_DIFFER", "fresh_folder", "resumed_settings", "save_settings"]

MAY_DIFFER = (
    "resume",
    "run_dir",
    "description",
    "device",
    "threads",
    "log_every",
    "stop_at",
    "inner.updates",
    "checkpoint.*",
    "evaluate.*",
    "tracker.*",
)
"""The settings that a resumed run may change; every other one would make it another run."""


def fresh_folder(settings: TrainConfig) -> Path:
    """Make the run's folder: `run_dir` where it is set, else the first free of runs/NAME/seedSEED, seedSEED-2, …

    Raises UserError where a set `run_dir` holds a run already.
    """
    if settings.run_dir is not None:
        folder = Path(settings.run_dir)
        if (folder / "config.yaml").exists():
            raise UserError(
                f"run_dir={folder} holds a run already: go on with it by resume={folder}, "
                "or choose another run_dir (null numbers them)"
            )
        folder.mkdir(parents=True, exist_ok=True)
        return folder
    base = Path("runs") / settings.name / f"seed{settings.seed}"
    for number in range(1, 10_000):
        folder = base if number == 1 else base.with_name(f"{base.name}-{number}")
        try:
            folder.mkdir(parents=True)
        except FileExistsError:
            continue
        return folder
    raise UserError(f"{base} and ten thousand numbered ones exist: set run_dir")


def save_settings(settings: TrainConfig, folder: Path) -> None:
    """Write config.yaml: every setting, resolved."""
    text = yaml.safe_dump(to_plain(settings), sort_keys=False, allow_unicode=True)
    write_atomically(folder / "config.yaml", text.encode())


def resumed_settings(composed: DictConfig, overrides: Sequence[str]) -> TrainConfig:
    """The settings to go on with: the saved ones, changed by what the command line sets.

    A command that names an experiment or chooses any other file of a group is compared whole.
    Raises ConfigError naming every difference that is not in `MAY_DIFFER`.
    """
    folder = Path(str(composed["resume"]))
    if not (folder / "config.yaml").is_file():
        raise ConfigError(f"resume={folder}: no config.yaml there; give the folder of a run")
    saved = to_plain(resolve_train(yaml.safe_load((folder / "config.yaml").read_text())))
    if any(is_group(item) for item in overrides):
        wanted = to_plain(resolve_train(composed))
    else:
        dotlist = [item.lstrip("+") for item in overrides if not item.startswith("~") and "hydra." not in item]
        chosen = DictConfig(saved | {"stop_at": None})  # where the last part of the run ended is no setting of this one
        for item in dotlist:
            name = item.split("=", 1)[0]
            OmegaConf.update(chosen, name, OmegaConf.select(composed, name), merge=False, force_add=True)
        wanted = to_plain(resolve_train(chosen))
    refused = {
        name: values
        for name, values in differences(saved, wanted).items()
        if not any(fnmatch.fnmatch(name, pattern) for pattern in MAY_DIFFER)
    }
    if refused:
        listed = "; ".join(f"{name} was {old!r}, now {new!r}" for name, (old, new) in refused.items())
        raise ConfigError(f"resume={folder}: {listed}. A resumed run may change {', '.join(MAY_DIFFER)} only")
    wanted |= {"run_dir": str(folder), "resume": str(folder)}
    return resolve_train(wanted)
