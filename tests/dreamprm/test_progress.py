"""One count for the whole run, on a bar and in plain lines alike, and an estimate of what is left of all stages."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from dreamprm import progress
from dreamprm.progress import Reporter, RunProgress, Stage

STAGES = [
    Stage("cold start", 2, "update", chains=8, passes=24),
    Stage("judge before", 5),
    Stage("bilevel", 60, "update", chains=8, passes=48),
]


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    return now


def test_updates_are_counted_over_all_stages(capsys: pytest.CaptureFixture[str], clock: list[float]) -> None:
    run = RunProgress(STAGES, Console(file=io.StringIO()))
    with run.stage("cold start") as report:
        clock[0] += 1
        report.update(1, {"loss": 0.5})
    with run.stage("judge before") as report:
        report.update(5, {})
    with run.stage("bilevel", done=16) as report:
        clock[0] += 1
        report.update(17, {"inner_loss": 0.25})
    first, judged, last = capsys.readouterr().out.splitlines()
    assert first.startswith("stage 1 of 3  cold start")
    assert "update 1 of 62  loss 0.5  8 chains/s" in first
    assert "chain 5 of 5" in judged
    assert "stage 3 of 3  bilevel" in last
    assert "update 19 of 62" in last


def test_what_is_left_is_of_the_whole_run(clock: list[float]) -> None:
    run = RunProgress(STAGES, Console(file=io.StringIO()))
    with run.stage("cold start") as report:
        clock[0] += 24  # one update of 24 passes: a second a pass
        # One more update, five chains to judge, and sixty updates of twice the passes.
        assert report.left(1) == pytest.approx(24 + 5 + 60 * 48)


def test_the_bar_shows_the_words_of_the_lines(clock: list[float]) -> None:
    stream = io.StringIO()
    console = Console(file=stream, force_terminal=True, width=140)
    with RunProgress(STAGES, console).stage("bilevel") as report:
        clock[0] += 1
        report.update(17, {"inner_loss": 0.25})
        assert report._bar is not None
        report._bar.refresh()
    shown = stream.getvalue()
    for words in ("stage 3 of 3", "bilevel", "update 19 of 62", "inner 0.25", "left"):
        assert words in shown


def test_a_command_of_one_stage_has_no_stage_number(capsys: pytest.CaptureFixture[str]) -> None:
    with Reporter("score", 3, console=Console(file=io.StringIO())) as report:
        report.update(3, {})
    assert capsys.readouterr().out.startswith("score ")
