"""`report`: report.html of a finished run, written again from its files."""

from __future__ import annotations

from pathlib import Path

from omegaconf import DictConfig

from dreamprm.commands.settings import ReportStage
from dreamprm.config.launch import launch
from dreamprm.config.resolve import to_settings
from dreamprm.progress import say

__all__ = ["main", "report"]


def report(settings: ReportStage) -> Path:
    """Write report.html into the run's folder, and print its table."""
    import json

    from dreamprm.commands.files import needed
    from dreamprm.report import print_results, write_report

    folder = Path(needed(settings.run_dir, "run_dir", "the folder of a finished run"))
    path = write_report(folder)
    print_results(json.loads((folder / "results.json").read_text()))
    say(f"report: {path}")
    return path


def _run(config: DictConfig, overrides: list[str]) -> None:
    report(to_settings(config, ReportStage))


def main(arguments: list[str], program: str) -> None:
    launch("report", _run, arguments, program)
