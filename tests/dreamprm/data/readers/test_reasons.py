"""What a user is told where a file gives nothing, and rows as converters write them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from dreamprm.data.readers import DataError, read
from dreamprm.data.record import Record, RecordError


def _file(folder: Path, *rows: dict[str, Any]) -> Path:
    (folder / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder / "a.jsonl"


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "is empty"),
        (b"\n\n", "is empty"),
        (b'{"question": "q", "steps": ["a"], "labels": [NaN]}\n' * 2, r"row 1: .*NaN is not a number.*'labels'"),
        (b'{"question": "caf\xe9", "steps": ["a"]}\n', "row 1: .*not UTF-8"),
        (b'{"question": "q", "steps": ["a"], "labels": [1' + b"0" * 5000 + b"]}\n", "row 1: .*digits"),
    ],
)
def test_a_file_whose_rows_all_fail_says_why(tmp_path: Path, content: bytes, reason: str) -> None:
    (tmp_path / "a.jsonl").write_bytes(content)
    with pytest.raises(DataError, match=r"a\.jsonl.*" + reason):
        read(tmp_path / "a.jsonl")


def test_whole_numbers_of_any_size_are_compared_not_converted(tmp_path: Path) -> None:
    with pytest.raises(RecordError, match=r"labels\[0\]: must lie in \[0, 1\]"):
        list(read(_file(tmp_path, {"question": "q", "steps": ["a"], "labels": [10**400]})))
    for wrong in (10**400, float("nan"), float("inf")):
        with pytest.raises(RecordError, match="labels"):
            Record(key="k", source="", domain="", group="", question="q", steps=("s",), labels=(wrong,))


def test_a_record_holds_images_as_it_says() -> None:
    with pytest.raises(RecordError, match=r"images: image 1 must be a Path or encoded bytes \(as_images .*is str"):
        Record(key="k", source="", domain="", group="", question="q", steps=("s",), images=(b"", "a.png"))  # type: ignore[arg-type]


def test_converted_rows(tmp_path: Path) -> None:
    trl = {"prompt": "q", "completions": ["a", "b", "c"], "labels": [1, False, None]}
    assert next(read(_file(tmp_path, trl))).labels == (1.0, 0.0, None)
    openrlhf = {"input": "How many? Step 1: 2 ки\nStep 2: 4 ки", "value": ["+", "-"]}
    (record,) = read(_file(tmp_path, openrlhf))
    assert (record.question, record.steps, record.labels) == ("How many?", ("Step 1: 2", "Step 2: 4"), (1.0, 0.0))
    assert next(read(_file(tmp_path, openrlhf | {"value": [0.25, None]}))).labels == (0.25, None)
    with pytest.raises(RecordError, match="value: 1 verdicts for 2 marked steps"):
        list(read(_file(tmp_path, openrlhf | {"value": ["+"]})))
    steps = [
        {"completions": [{"text": "right", "rating": 1}], "human_completion": None, "chosen_completion": 0},
        {"completions": None, "human_completion": None, "chosen_completion": None},
    ]
    prm800k = {"question": {"problem": "q"}, "label": {"steps": steps}}
    (record,) = read(_file(tmp_path, prm800k))
    assert (record.steps, record.labels) == (("right",), (1.0,))
    with pytest.raises(RecordError, match="holds no step"):
        list(read(_file(tmp_path, {"question": {"problem": "q"}, "label": {"steps": steps[1:]}})))


OUTSIDE = [
    {"annotation": "../b.jsonl"},
    *({"annotation": "b.jsonl", "root": root} for root in ("/etc", "..", "a/../..")),
]


@pytest.mark.parametrize("entry", OUTSIDE)
def test_a_foreign_meta_json_reads_nothing_outside(tmp_path: Path, entry: dict[str, str]) -> None:
    folder = tmp_path / "data"
    folder.mkdir()
    for place in (tmp_path, folder):
        (place / "b.jsonl").write_text(json.dumps({"question": "q", "steps": ["s"]}))
    (folder / "meta.json").write_text(json.dumps({"source": entry}))
    with pytest.raises(DataError, match="leads out of the folder"):
        read(folder / "meta.json")
    (folder / "meta.json").write_text(json.dumps({"source": {"annotation": "b.jsonl", "root": "."}}))
    assert len(list(read(folder / "meta.json"))) == 1
