"""sample -> label, score -> select -> evaluate on the embedded world, each from the file that the one before wrote."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from dreamprm.commands.command import settings_from
from dreamprm.commands.evaluate import EvaluateStage, evaluate
from dreamprm.commands.files import StageData
from dreamprm.commands.label import LabelStage, label
from dreamprm.commands.sample import SampleStage, sample
from dreamprm.commands.score import ScoreStage, score
from dreamprm.commands.select import SelectStage, select
from dreamprm.errors import ConfigError, UserError
from dreamprm.policy import PolicyConfig


def _lines(path: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_every_stage_starts_from_the_file_before(tmp_path: Path) -> None:
    from dreamprm.world import base_folder

    policy = PolicyConfig(max_new_tokens=40)
    data = StageData(path="world/test", limit=16)
    candidates = sample(SampleStage(out=str(tmp_path / "candidates.jsonl"), num=3, data=data, policy=policy))
    rows = _lines(candidates)
    assert len(rows) == 6
    assert all((tmp_path / name).is_file() for row in rows for name in row["images"])  # type: ignore[attr-defined]
    assert {row["correct"] for row in rows} <= {True, False}
    assert [str(row["reference"]) == str(row["answer"]) for row in rows] == [row["correct"] for row in rows]

    written = StageData(path=str(candidates))
    labelled = _lines(label(LabelStage(out=str(tmp_path / "labelled.jsonl"), num=2, data=written, policy=policy)))
    for row in labelled:
        assert set(row["labels"]) <= {0.0, 0.5, 1.0}  # type: ignore[call-overload]
        assert row["labels"][-1] == float(bool(row["correct"]))  # type: ignore[index]

    scores = score(ScoreStage(prm=str(base_folder()), out=str(tmp_path / "scores.jsonl"), data=written))
    for row in _lines(scores):
        assert len(row["extra"]["step_scores"]) == len(row["steps"])  # type: ignore[index,arg-type]

    chosen = _lines(select(SelectStage(scores=str(scores), out=str(tmp_path / "selection.jsonl"))))
    assert len(chosen) == 2
    for line in chosen:
        best = max(line["chain_scores"])  # type: ignore[call-overload]
        assert line["chain_scores"][line["index"]] == best  # type: ignore[index]
    results = json.loads(evaluate(EvaluateStage(scores=str(scores), out=str(tmp_path / "results.json"))).read_text())
    assert results["best_of_n"]["prm"]["3"]["n"] == 2
    picked = sum(bool(line["correct"]) for line in chosen) / 2
    # Three candidates a question: best of 3 is best of all, so the two stages must agree exactly.
    assert results["best_of_n"]["prm"]["3"]["value"] == picked


def test_the_same_seed_samples_the_same(tmp_path: Path) -> None:
    settings = [
        SampleStage(
            out=str(tmp_path / name),
            num=2,
            data=StageData(path="world/test", limit=8),
            policy=PolicyConfig(max_new_tokens=20),
        )
        for name in ("a.jsonl", "b.jsonl")
    ]
    one, two = (_lines(sample(each)) for each in settings)
    assert [row["steps"] for row in one] == [row["steps"] for row in two]


def test_what_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"data\.path is not set"):
        score(ScoreStage(prm="x"))
    with pytest.raises(UserError, match="cannot be loaded"):
        sample(SampleStage(data=StageData(path="world/test", limit=1), policy=PolicyConfig(path="/nowhere")))
    file = tmp_path / "rows.jsonl"
    file.write_text(json.dumps({"question": "1 + 1?", "steps": ["2"]}) + "\n")
    with pytest.raises(UserError, match="row 1: no score for each step"):
        select(SelectStage(scores=str(file)))
    with pytest.raises(ConfigError, match=r"method: Invalid value 'best', expected one of \[prm, weighted_vote"):
        settings_from(["method=best"], SelectStage)


def test_score_writes_a_flat_table_and_never_a_score_that_is_no_number(tmp_path: Path) -> None:
    import csv
    import shutil

    import pyarrow.parquet as pq
    from safetensors.torch import load_file, save_file

    from dreamprm.world import base_folder

    data = StageData(path="world/test", limit=4)
    for name in ("table.csv", "table.parquet"):
        out, table = tmp_path / f"{name}.jsonl", tmp_path / name
        score(ScoreStage(prm=str(base_folder()), out=str(out), table=str(table), aggregate="min", data=data))
        is_csv = table.suffix == ".csv"
        rows = list(csv.DictReader(table.read_text().splitlines())) if is_csv else pq.read_table(table).to_pylist()
        for row, line in zip(rows, _lines(out), strict=True):
            scores = line["extra"]["step_scores"]  # type: ignore[index,call-overload]
            assert float(row["chain_score"]) == pytest.approx(min(scores))
    broken = tmp_path / "broken"
    shutil.copytree(base_folder(), broken)
    weights = load_file(broken / "model.safetensors")
    name = next(iter(sorted(weights)))
    weights[name] = weights[name] * float("nan")
    save_file(weights, broken / "model.safetensors", {"format": "pt"})
    with pytest.raises(UserError, match=r"2 of its tensors hold values that are not finite"):
        score(ScoreStage(prm=str(broken), out=str(tmp_path / "no.jsonl"), data=data))
    del weights[name]
    save_file(weights, broken / "model.safetensors", {"format": "pt"})
    with pytest.raises(UserError, match="its files lack 1 tensors"):
        score(ScoreStage(prm=str(broken), out=str(tmp_path / "no.jsonl"), data=data, overwrite=True))


def test_out_is_never_the_input(tmp_path: Path) -> None:
    file = tmp_path / "rows.jsonl"
    file.write_text(json.dumps({"question": "1 + 1?", "steps": ["2"], "reference": "2"}) + "\n")
    data = StageData(path=str(file), limit=1)
    for stage, run in ((LabelStage, label), (ScoreStage, score), (SampleStage, sample)):
        more = {"prm": "x"} if stage is ScoreStage else {}
        with pytest.raises(ConfigError, match=r"is the file that data\.path reads"):
            run(stage(out=str(tmp_path / "." / "rows.jsonl"), data=data, **more))
    assert len(_lines(file)) == 1
