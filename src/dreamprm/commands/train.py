"""`train`: from the command line to a run."""

from __future__ import annotations

import sys

from omegaconf import DictConfig

from dreamprm.config.launch import launch
from dreamprm.config.resolve import resolve_train

__all__ = ["main"]

STOPPED = 130


def main(arguments: list[str], program: str) -> None:
    """Compose, check, train; once per combination with `--multirun`. Leaves with 130 when stopped before the end."""
    launch("train", _run, arguments, program)


def _run(config: DictConfig, overrides: list[str]) -> None:
    from dreamprm.run_files.folder import resumed_settings

    settings = resumed_settings(config, overrides) if config.get("resume") else resolve_train(config)
    # transformers takes seconds to import: settings are checked before.
    from dreamprm.plan.planner import show_plan
    from dreamprm.progress import only_our_bars
    from dreamprm.trainer.run import show_prompts, train

    only_our_bars()
    if settings.plan:
        show_plan(settings)
    elif settings.show_prompts:
        show_prompts(settings)
    elif train(settings) is None:
        sys.exit(STOPPED)
