"""`dreamprm evaluate benchmark=…` of benchmarks of answers, from files to the table."""

from __future__ import annotations

import base64
import json
from pathlib import Path

import pytest
from tests.dreamprm.commands.chat_server import ChatServer
from tests.dreamprm.data.readers.conftest import png

from dreamprm.commands.evaluate import main
from dreamprm.data.readers import read


def _table(folder: Path) -> Path:
    image = base64.b64encode(png()).decode()
    lines = ["index\tquestion\timage\tA\tB\tanswer\tcategory"]
    lines += [f"{index}\tWhich?\t{image}\tx\ty\t{answer}\tlogic" for index, answer in ((1, "B"), (2, "A"))]
    path = folder / "MMStar.tsv"
    path.write_text("\n".join(lines) + "\n")
    return path


def _scores(folder: Path) -> Path:
    """Two candidates of each question; the PRM prefers the right one of the first and the wrong one of the second."""
    rows = [
        {"group": f"index {index}", "question": "Which?", "steps": ["I look.", f"The answer is {answer}"],
         "answer": answer, "extra": {"step_scores": [score, score]}}
        for index, answer, score in ((1, "A", 0.1), (1, "B", 0.9), (2, "A", 0.2), (2, "B", 0.8))
    ]  # fmt: skip
    path = folder / "scores.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_best_of_n_by_the_rule_and_a_result_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out, table = tmp_path / "results.json", _table(tmp_path)
    words = ["benchmark=mmstar", f"scores={_scores(tmp_path)}", f"data.path={table}", f"out={out}"]
    main([*words, f"result_file={tmp_path / 'chosen.xlsx'}"])
    results = json.loads(out.read_text())
    assert results["decided_by"] == "the rule of arXiv 2403.20330"
    values = {name: row["2"]["value"] for name, row in results["best_of_n"].items()}
    assert (values["policy"], values["prm"], values["oracle"]) == (0.5, 0.5, 1.0)
    assert results["by_category"] == {"logic": {"value": 0.5, "n": 2}}
    assert "mmstar, by category" in capsys.readouterr().out
    chosen = list(read(tmp_path / "chosen.xlsx"))
    assert [(record.group, record.answer, record.reference) for record in chosen] == [
        ("index 1", "B", "B"),
        ("index 2", "B", "A"),
    ]
    # The result file, judged by itself: one of two is right.
    main(["benchmark=mmstar", f"predictions={tmp_path / 'chosen.xlsx'}", f"data.path={table}", f"out={out}"])
    results = json.loads(out.read_text())
    assert results["best_of_n"]["policy"]["1"]["value"] == 0.5
    assert "prm" not in results["best_of_n"]


def test_a_judge_grades_and_is_asked_once(tmp_path: Path) -> None:
    row = {"question": "Which?", "answer": "x<OR>y", "image": "", "capability": "ocr"}
    rows = [row | {"question_id": f"v{n}"} for n in (1, 2)]
    (tmp_path / "vet.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    chains = [{"group": f"mm-vet v{n}", "question": "Which?", "response": "It is x."} for n in (1, 2)]
    (tmp_path / "chains.jsonl").write_text("".join(json.dumps(row) + "\n" for row in chains))
    words = ["benchmark=mmvet", f"predictions={tmp_path / 'chains.jsonl'}", f"data.path={tmp_path / 'vet.jsonl'}"]
    words += [f"out={tmp_path / 'r.json'}", "endpoint.model=tiny", "endpoint.template=five_steps"]
    with ChatServer(reply="0.5") as server:
        for _ in range(2):
            main([*words, f"endpoint.url={server.url}"])
        assert len(server.requests) == 2, "the grades are kept"
        asked = server.requests[0]["messages"][0]["content"]
        assert asked.endswith("Which? | x <OR> y | It is x. | ")
        assert "Step 5" not in asked, "a judge is asked in its own words"
        assert server.requests[0]["temperature"] == 0
    results = json.loads((tmp_path / "r.json").read_text())
    assert results["best_of_n"]["policy"]["1"]["value"] == 0.5
    assert (results["decided_by"], results["num_unreadable"]) == ("judge tiny", 0)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["benchmark=mmstar"], "data.path is not set: give your copy of mmstar's questions"),
        (["benchmark=mmvet", "data.path=x.jsonl"], "benchmark=mmvet is decided by a judge: set endpoint.url"),
        (["benchmark=mmstar", "prm=x", "data.path=TABLE"], "prm is for benchmarks of steps"),
        (["benchmark=mmstar", "scores=x", "predictions=y", "data.path=TABLE"], "scores and predictions are both set"),
        (["benchmark=mathvista", "scores=x", "data.path=OTHER"], "is of format records; mathvista is read from"),
        (["scores=x", "predictions=y"], "predictions is for a benchmark of answers"),
        (["benchmark=mmstar", "predictions=TABLE", "data.path=TABLE"], "holds no chains; give a result file"),
    ],
)
def test_what_is_missing_is_one_line(
    words: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = _table(tmp_path)
    places = {"TABLE": str(table), "OTHER": str(_scores(tmp_path))}
    with pytest.raises(SystemExit) as left:
        main([word.replace("TABLE", places["TABLE"]).replace("OTHER", places["OTHER"]) for word in words])
    assert left.value.code == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
