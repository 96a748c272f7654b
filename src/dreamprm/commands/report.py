"""`report`: report.html of a finished run, written again from its files."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from dreamprm.commands.command import command
from dreamprm.errors import UserError
from dreamprm.progress import say
from dreamprm.setting import Settings, setting

__all__ = ["ReportStage", "main", "report"]


@dataclass
class ReportStage(Settings):
    """report.html of a finished run, written again from its files."""

    run_dir: str | None = setting(None, "the folder of a finished run")


def report(settings: ReportStage) -> Path:
    """Write report.html into the run's folder, and print its table."""
    import json

    from dreamprm.commands.files import needed
    from dreamprm.report import print_results, write_report

    folder = Path(needed(settings.run_dir, "run_dir", "the folder of a finished run"))
    try:
        path = write_report(folder)
        print_results(json.loads((folder / "results.json").read_text()))
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        reason = f"{type(error).__name__}: {error}"
        raise UserError(
            f"{folder}: its results.json, weights or examples are not what a run writes ({reason})"
        ) from error
    say(f"report: {path}")
    return path


main = command("report", ReportStage, report)
