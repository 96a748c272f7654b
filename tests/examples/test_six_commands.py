"""examples/six_commands.sh: its words are settings that there are; `make docs` runs it small, from end to end."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = ROOT / "examples" / "six_commands.sh"


def _commands() -> list[list[str]]:
    text = SCRIPT.read_text().replace("\\\n", " ")
    policy = re.search(r'^policy="([^$"]*)', text, re.M)
    assert policy is not None
    lines = [line for line in text.splitlines() if line.startswith("dreamprm ")]
    filled = [re.sub(r"\$\{TRAIN:-\}", "", line).replace("$policy", policy[1]).replace("$out", "o") for line in lines]
    return [shlex.split(line)[1:] for line in filled]


def test_every_word_is_a_setting() -> None:
    from dreamprm.commands.command import settings_from
    from dreamprm.commands.evaluate import EvaluateStage
    from dreamprm.commands.label import LabelStage
    from dreamprm.commands.sample import SampleStage
    from dreamprm.commands.score import ScoreStage
    from dreamprm.commands.select import SelectStage
    from dreamprm.config.launch import compose_config

    stages = {
        "sample": SampleStage,
        "label": LabelStage,
        "score": ScoreStage,
        "select": SelectStage,
        "evaluate": EvaluateStage,
    }
    commands = _commands()
    assert {name for name, *_ in commands} == {*stages, "train"}, "six commands"
    for name, *words in commands:
        if name == "train":
            compose_config("train", words)
        else:
            settings_from(words, stages[name])


@pytest.mark.docs
def test_it_runs_small(tmp_path: Path) -> None:
    tools = tmp_path / "bin"
    tools.mkdir()
    (tools / "dreamprm").write_text(f'#!/bin/bash\nexec {shlex.quote(sys.executable)} -m dreamprm "$@"\n')
    (tools / "dreamprm").chmod(0o755)
    environment = os.environ | {"PATH": f"{tools}:{os.environ['PATH']}", "PYTHONPATH": str(ROOT / "src")}
    environment |= {"LIMIT": "48", "TRAIN": "cold.updates=4 inner.updates=4"}
    done = subprocess.run(
        ["bash", SCRIPT, tmp_path / "out"], env=environment, capture_output=True, text=True, timeout=900, check=False
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    assert set(results["best_of_n"]) == {"policy", "self_consistency", "prm", "weighted_vote", "oracle"}
    assert (tmp_path / "out" / "selection.html").is_file()
