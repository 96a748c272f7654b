"""Test sets of answers as their publishers have them, and VLMEvalKit's tables and result files, read and written."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.dreamprm.data.readers.conftest import png

from dreamprm.data.readers import DataError, read, recognise
from dreamprm.data.readers.result_file import write_results


def test_mathvista_asks_for_the_kind_of_answer(samples: dict[str, Any], write_rows: Callable[..., Path]) -> None:
    row = samples["mathvista"].row
    (record,) = read(write_rows(row))
    assert record.question == "How many cubes are left?\n\nAnswer with a whole number."
    assert (record.group, record.reference, len(record.images)) == ("mathvista 7", "4", 1)
    assert record.domain == "geometry problem solving"
    change = {"question_type": "multi_choice", "answer_type": "text", "choices": ["3 cm", "4 cm"], "answer": "4 cm"}
    (record,) = read(write_rows(row | change))
    assert record.question.endswith("Options: (A) 3 cm (B) 4 cm\n\nAnswer with the letter of the right option.")
    # Its own testmini.json is an object whose keys are the numbers.
    (record,) = read(write_rows({"question": "How far?", "image": "a.png", "choices": None, "precision": 1.0,
                                 "unit": "km", "answer": "1.2", "question_type": "free_form", "answer_type": "float",
                                 "pid": "9"}))  # fmt: skip
    assert record.question == "How far? (Unit: km)\n\nAnswer with a number of 1 decimal place."


def test_mm_vet_as_one_object(tmp_path: Path) -> None:
    path = tmp_path / "mm-vet.json"
    row = {
        "imagename": "a.jpg",
        "question": "x?",
        "answer": "1<OR>2",
        "imagesource": "…",
        "capability": ["math", "ocr"],
    }
    path.write_text(json.dumps({"v1_0": row, "v1_1": row}))
    records = list(read(path))
    assert [record.group for record in records] == ["mm-vet v1_0", "mm-vet v1_1"]
    assert records[0].extra["category"] == ("math", "ocr")


def test_mmstars_options_stand_in_its_question(samples: dict[str, Any], write_rows: Callable[..., Path]) -> None:
    (record,) = read(write_rows(samples["mmstar"].row))
    assert record.extra["options"] == ("Dark", "Bright", "Empty", "Full")
    assert (record.group, record.extra["category"]) == ("index 3", "coarse perception")


def test_we_math_has_a_question_for_each_step(samples: dict[str, Any], write_rows: Callable[..., Path]) -> None:
    (record,) = read(write_rows(samples["we_math"].row))
    assert record.group == "wemath 165 3steps_3"
    assert record.extra["options"] == ("200.96", "3215.36", "6280", "32", "No correct answer")


def _table(folder: Path) -> Path:
    image = base64.b64encode(png()).decode()
    path = folder / "Set.tsv"
    lines = ["index\tquestion\timage\tA\tB\tanswer\tcategory"]
    lines += [f'{index}\t"Which, {index}?"\t{image}\tx\ty\tB\tlogic' for index in (1, 2, 3)]
    path.write_text("\n".join(lines) + "\n")
    return path


@pytest.mark.parametrize("ending", [".xlsx", ".tsv", ".json"])
def test_result_files_are_written_and_read(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"model_Set{ending}"
    texts = {"index 1": "First\tthis.\n\nThe answer is: B", "index 2": '=say "A"', "index 7": "of no row"}
    write_results(path, str(_table(tmp_path)), texts)
    assert recognise(path) == "vlmevalkit_result"
    first, second = read(path)
    assert (first.group, first.question, first.answer) == ("index 1", "Which, 1?\n\nOptions: (A) x (B) y", "B")
    assert first.extra["text"] == texts["index 1"]
    assert second.extra["text"] == texts["index 2"], "no formula"
    assert (second.reference, second.extra["category"], second.images) == ("B", "logic", ())


def test_what_a_workbook_would_cut_is_refused(tmp_path: Path) -> None:
    table = _table(tmp_path)
    with pytest.raises(DataError, match=r"row 1, prediction: 40,000 characters; a workbook's cell holds 32,767"):
        write_results(tmp_path / "a.xlsx", str(table), {"index 1": "x" * 40_000})
    with pytest.raises(DataError, match=r"must end in \.xlsx, \.tsv or \.json"):
        write_results(tmp_path / "a.csv", str(table), {})
    (tmp_path / "b.xlsx").write_text("no workbook")
    with pytest.raises(DataError, match="not a workbook with a header"):
        list(read(tmp_path / "b.xlsx"))
