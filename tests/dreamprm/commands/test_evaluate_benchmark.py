"""`dreamprm evaluate benchmark=…`, from the command line to the table."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from dreamprm.commands.evaluate import main


def _processbench(folder: Path) -> Path:
    rows = [
        {
            "id": f"gsm8k-{number}",
            "generator": "m",
            "problem": f"Count the balls: {number} + 1?",
            "steps": ["two", "three"],
            "final_answer_correct": number % 2 == 0,
            "label": -1 if number % 2 == 0 else 1,
        }
        for number in range(6)
    ]
    path = folder / "process.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_a_prm_and_the_position_side_by_side(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from dreamprm.world import base_folder

    out = tmp_path / "results.json"
    main(
        [
            "benchmark=processbench",
            f"prm={base_folder()}",
            f"data.path={_processbench(tmp_path)}",
            f"out={out}",
            "device=cpu",
            "evaluate.batch_size=4",
        ]
    )
    results = json.loads(out.read_text())
    assert results["benchmark"] == "processbench"
    assert list(results["judged"]) == [str(base_folder()), "position"]
    # Half of the second steps are wrong and no first one: .5 and above is passed, and one half is exactly reached.
    assert results["judged"]["position"]["by_source"]["gsm8k"]["num_wrong"] == 3
    printed = capsys.readouterr().out
    for text in ("processbench", "position", "F1, mean of sources", "best threshold", "gsm8k"):
        assert text in printed


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["benchmark=procesbench"], "did you mean processbench"),
        (["benchmark=prmbench"], "scores is not set"),
        (["benchmark=prmbench", "prm=x"], "data.path is not set: give your copy of prmbench's file"),
        (["benchmark=prmbench", "prm=x", "scores=y"], "scores and prm are both set"),
        (["prm=x", "scores=y"], "prm is for benchmark="),
    ],
)
def test_what_is_missing_is_one_line(words: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        main(words)
    assert left.value.code == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
