"""What a user meets at the command line: clear refusals with code 2, from any folder, one run per combination."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def _run(*arguments: str, folder: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", "from dreamprm.commands.main import main; main()", *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=120, check=False)


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("weigher.hiden=3", "weigher.hiden: no such setting; weigher allows kind, features, hidden"),
        ("+experiment=nope", "experiment=nope: no such file; options of 'experiment': clean_only, cold_start"),
        ("experiment=instancenet", "did you mean instance_net?"),
        ("weigher=instance_tabel", "did you mean instance_table?"),
        ("data.path=x.jsonl", "for a file of yours: data=files data.path=…"),
        ("iner.updates=5", "iner: no such setting; allowed are"),
        ("--inner.updates=5", "settings have no dashes: write inner.updates=5"),
        ("--experiment", "settings have no dashes: write experiment=VALUE"),
        ("no_selection", "'no_selection' is no setting: write experiment=no_selection"),
        ("seed=0,1", "seed=0,1: several runs need --multirun; a list is written seed=[0,1]"),
        ("nonsense", "'nonsense' is no setting: write name=value"),
        ("name=${oc.env:HOME}", "${…} is not looked up here: write the value itself"),
        ("inner.optimizer.lr=nan", "inner.optimizer: lr must be a number within"),
        ("inner.optimizer.lr=1e38", "inner.optimizer: lr must be a number within"),
        ("outer.schedule.warmup=2", "outer.schedule: warmup must be at most 1, is 2"),
        ("inner.clip_norm=nan", "inner: clip_norm must be a number within"),
        ("seed=99999999999999999999999", "seed must lie within"),
        ("inner.loss=mes", "inner: 'mes' is no loss; allowed are cross_entropy, mse; did you mean mse?"),
        ("seed=abc", "seed: Value 'abc' of type 'str' could not be converted to Integer"),
    ],
)
def test_a_wrong_setting_is_one_message(argument: str, message: str, tmp_path: Path) -> None:
    done = _run("train", argument, folder=tmp_path)
    assert done.returncode == 2
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert not list(tmp_path.iterdir()), "nothing was written"


def test_an_unknown_command_names_those_there_are(tmp_path: Path) -> None:
    done = _run("trian", folder=tmp_path)
    assert done.returncode == 2
    assert "did you mean train?" in done.stderr


def test_the_prompt_is_printed_as_the_model_reads_it(tmp_path: Path) -> None:
    done = _run("train", "data.num_chains=6", "show_prompts=2", "run_dir=run", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    heads = [line for line in done.stdout.splitlines() if "steps judged at tokens" in line]
    assert len(heads) == 2
    judged = [len(head.rpartition("tokens ")[2].split(",")) for head in heads]
    assert done.stdout.count("⟦") == sum(judged)
    assert not (tmp_path / "run").exists()


def test_multirun_over_seeds_writes_below_its_run_dirs_only(tmp_path: Path) -> None:
    done = _run(
        "train",
        "-m",
        "+experiment=no_selection",
        "seed=0,1",
        "data.num_chains=6",
        "meta.num_chains=4",
        "cold.updates=0",
        "inner.updates=1",
        "inner.batch_size=2",
        "evaluate.num_questions=1",
        "evaluate.num_resamples=2",
        folder=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    found = sorted(str(path.parent.relative_to(tmp_path)) for path in tmp_path.rglob("results.json"))
    assert found == ["runs/no_selection/seed0", "runs/no_selection/seed1"]
    assert json.loads((tmp_path / "runs/no_selection/seed1/results.json").read_text())["seed"] == 1
    assert [path.name for path in tmp_path.iterdir()] == ["runs"]


def test_src_holds_one_entry() -> None:
    assert [path.name for path in (ROOT / "src").glob("*.py")] == ["train.py"]


@pytest.mark.parametrize(
    "command",
    [[str(ROOT / "src" / "train.py")], ["-m", "dreamprm", "train"]],
    ids=["src/train.py", "python -m dreamprm"],
)
def test_every_way_in_gives_help(command: list[str], tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, *command, "--help"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "experiment" in done.stdout
