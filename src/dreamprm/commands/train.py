"""`train`: from the command line to a run."""

from __future__ import annotations

import os
from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from dreamprm.commands.command import STOPPED, command
from dreamprm.config.resolve import resolve_train
from dreamprm.config.schema import TrainConfig
from dreamprm.errors import UserError
from dreamprm.progress import only_first_speaks, only_our_bars, say

__all__ = ["main", "train"]


def train(settings: TrainConfig) -> int:
    """One run, or what `plan` and `show_prompts` ask for instead; the status is 130 where it was stopped."""
    only_first_speaks()
    say("loading torch and transformers …")
    # transformers takes seconds to import: settings are checked before.
    from dreamprm.plan.planner import show_plan
    from dreamprm.trainer.run import show_prompts
    from dreamprm.trainer.run import train as run

    only_our_bars()
    if (settings.plan or settings.show_prompts) and os.environ.get("RANK", "0") != "0":
        return 0
    if settings.plan:
        show_plan(settings)
    elif settings.show_prompts:
        show_prompts(settings)
    elif run(settings) is None:
        return STOPPED
    return 0


def _settings(config: DictConfig, words: list[str]) -> TrainConfig:
    if int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")):
        _go_on(config)
    if OmegaConf.select(config, "resume"):
        from dreamprm.run_files.folder import resumed_settings

        return resumed_settings(config, [word for word in words if not word.startswith("run_dir=")])
    return resolve_train(config)


def _go_on(config: DictConfig) -> None:
    """torchrun has started the processes again (--max-restarts): go on with the run that they were.

    Raises UserError where the command does not say which one that is.
    """
    folder = OmegaConf.select(config, "run_dir")
    if OmegaConf.select(config, "resume"):
        return
    if folder is None:
        raise UserError(
            "torchrun has started this run again, but which folder was its own is not known: set run_dir=DIR where "
            "--max-restarts is used"
        )
    if (Path(folder) / "config.yaml").is_file():
        OmegaConf.update(config, "resume", folder, force_add=True)


main = command("train", TrainConfig, train, _settings)
