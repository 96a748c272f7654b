"""`train`: from the command line to a run."""

from __future__ import annotations

from omegaconf import DictConfig, OmegaConf

from dreamprm.commands.command import STOPPED, command
from dreamprm.config.resolve import resolve_train
from dreamprm.config.schema import TrainConfig
from dreamprm.progress import only_our_bars, say

__all__ = ["main", "train"]


def train(settings: TrainConfig) -> int:
    """One run, or what `plan` and `show_prompts` ask for instead; the status is 130 where it was stopped."""
    # transformers takes seconds to import: settings are checked before.
    say("loading torch and transformers …")
    from dreamprm.plan.planner import show_plan
    from dreamprm.trainer.run import show_prompts
    from dreamprm.trainer.run import train as run

    only_our_bars()
    if settings.plan:
        show_plan(settings)
    elif settings.show_prompts:
        show_prompts(settings)
    elif run(settings) is None:
        return STOPPED
    return 0


def _settings(config: DictConfig, words: list[str]) -> TrainConfig:
    if OmegaConf.select(config, "resume"):
        from dreamprm.run_files.folder import resumed_settings

        return resumed_settings(config, words)
    return resolve_train(config)


main = command("train", TrainConfig, train, _settings)
