"""The kinds of files: every one gives the same rows in order and by place, and breaks with a clear error."""

from __future__ import annotations

import csv
import gzip
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.ipc
import pyarrow.parquet
import pytest
import zstandard

from dreamprm.data.readers import DataError, open_records, read, recognise
from dreamprm.data.record import RecordError

ROWS = [{"question": f"frage {i} \u00fc \u6b65", "steps": ["a\n1", f"b {i}"], "correct": i % 2 == 0} for i in range(50)]


def _lines(rows: list[dict[str, Any]]) -> bytes:
    return "\n\n".join(json.dumps(row, ensure_ascii=False) for row in rows).encode() + b"\n"


def _arrow(path: Path, rows: list[dict[str, Any]]) -> None:
    table = pa.Table.from_pylist(rows)
    with pa.OSFile(str(path), "wb") as sink, pyarrow.ipc.new_stream(sink, table.schema) as writer:
        for batch in table.to_batches(max_chunksize=7):
            writer.write_batch(batch)


def _write(path: Path, kind: str) -> Path:
    if kind == "jsonl":
        path.write_bytes(b"\xef\xbb\xbf" + _lines(ROWS))
    elif kind == "json":
        path.write_text(json.dumps(ROWS, ensure_ascii=False, indent=1), "utf-8")
    elif kind == "lines.json":
        path.write_bytes(_lines(ROWS))
    elif kind == "tree.json":
        path.write_text(json.dumps({"x": ROWS[:20], "y": ROWS[20:]}))
    elif kind == "jsonl.gz":
        path.write_bytes(gzip.compress(_lines(ROWS)))
    elif kind == "json.zst":
        path.write_bytes(zstandard.compress(json.dumps(ROWS).encode()))
    elif kind == "parquet":
        pyarrow.parquet.write_table(pa.Table.from_pylist(ROWS), path, row_group_size=7)
    else:
        _arrow(path, ROWS)
    return path


KINDS = ["jsonl", "json", "lines.json", "jsonl.gz", "json.zst", "parquet", "arrow"]


@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_gives_the_same_rows_in_order_and_by_place(kind: str, tmp_path: Path) -> None:
    path = _write(tmp_path / f"rows.{kind}", kind)
    assert recognise(path) == "records"
    records = list(read(path))
    assert [record.question for record in records] == [row["question"] for row in ROWS]
    stream = open_records(path)
    assert [stream[i] for i in (49, 0, 17, -1)] == [records[i] for i in (49, 0, 17, -1)]


def test_an_object_on_top_is_a_tree_of_rows(samples: dict[str, Any], tmp_path: Path) -> None:
    row = samples["mr_ben"].row
    path = tmp_path / "biology.json"
    path.write_text(json.dumps({"q-1": [row, row | {"Question_UUID": "another"}], "q-2": [row]}))
    stream = open_records(path)
    assert [record.group for record in stream] == ["q-1", "q-1", "q-2"]
    assert stream[2].domain == "biology"


def test_tables_with_quotes_line_ends_and_base64(samples: dict[str, Any], tmp_path: Path) -> None:
    row = samples["vlmevalkit"].row | {"question": 'say "yes"\nor\tno, \u00e9'}
    stream = io.StringIO(newline="")
    writer = csv.DictWriter(stream, list(row), delimiter="\t", lineterminator="\n")
    writer.writeheader()
    writer.writerows([row, row | {"index": 6}])
    (tmp_path / "bench.tsv").write_text(stream.getvalue(), "utf-8")
    records = open_records(tmp_path / "bench.tsv")
    assert records[1].question.startswith('say "yes"\nor\tno, \u00e9')
    assert [record.group for record in records] == ["index 5", "index 6"]
    assert len(records[0].images[0]) > 50  # type: ignore[arg-type]
    with (tmp_path / "bench.tsv").open("a") as file:
        file.write('7\tshort\n8\t"open')
    with pytest.raises(RecordError, match="row 3: 2 fields where the header names 8"):
        list(read(tmp_path / "bench.tsv"))


@pytest.mark.parametrize("shape", ["saved", "cloned"])
def test_hugging_face_folders(shape: str, tmp_path: Path) -> None:
    for split, rows in (("train", ROWS[:40]), ("test", ROWS[40:])):
        if shape == "saved":
            (tmp_path / split).mkdir()
            _arrow(tmp_path / split / "data-00000-of-00001.arrow", rows)
            (tmp_path / split / "state.json").write_text("{}")
            (tmp_path / split / "dataset_info.json").write_text("{}")
        else:
            (tmp_path / "data").mkdir(exist_ok=True)
            table = pa.Table.from_pylist(rows)
            pyarrow.parquet.write_table(table, tmp_path / "data" / f"{split}-00000-of-00001.parquet")
    (tmp_path / "dataset_dict.json").write_text('{"splits": ["train", "test"]}')
    assert len(open_records(tmp_path)) == 50
    assert [record.question for record in read(tmp_path, split="test")] == [row["question"] for row in ROWS[40:]]
    with pytest.raises(DataError, match="no file of split 'validation'"):
        read(tmp_path, split="validation")


def test_images_inside_parquet(make_png: Callable[..., bytes], tmp_path: Path) -> None:
    row = {"id": "test_Art_1", "question": "q", "options": "['a', 'b']", "answer": "A", "subject": "Art"}
    table = pa.Table.from_pylist([row | {"image_1": {"bytes": make_png(), "path": "x.png"}, "image_2": None}])
    pyarrow.parquet.write_table(table, tmp_path / "mmmu.parquet")
    (record,) = read(tmp_path / "mmmu.parquet")
    assert record.images == (make_png(),)


@pytest.mark.parametrize(
    ("name", "data", "reason"),
    [
        ("cut.jsonl.gz", gzip.compress(_lines(ROWS))[:-40], "breaks off|cannot be unpacked"),
        ("cut.json", json.dumps(ROWS).encode()[:-400], "what follows cannot be read|is it cut"),
        ("tail.json", json.dumps(ROWS).encode() + b" {}", "holds more after its list"),
        ("comma.json", b'[{"question": "q", "steps": []} {"question": "q"}]', "expected , or ]"),
        ("wide.jsonl", json.dumps(ROWS[0]).encode("utf-16"), "UTF-16"),
        ("wide.json", json.dumps(ROWS).encode("utf-16"), "UTF-16"),
        ("word.json", b"hello", "does not begin as JSON"),
        ("pickle.pkl", b"\x80\x04", "unknown ending"),
        ("cut.parquet", b"PAR1 and no more", "not a parquet file"),
        ("cut.arrow", b"ARROW1 and no more", "not an Arrow file"),
        ("empty.jsonl", b"", "format not recognised"),
        ("one.csv", b"a\n1\n", "header of at least two"),
        ("deep.json", b"[" + b"[" * 100_000 + b"]" * 100_000 + b"]", "nested|not recognised"),
    ],
)
def test_broken_files_are_clear_errors(name: str, data: bytes, reason: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_bytes(data)
    with pytest.raises(DataError, match=reason):
        list(read(path, on_bad_row="skip"))


def test_an_array_is_found_across_window_borders(tmp_path: Path) -> None:
    # Elements of about 300 kB: windows of 1 MB end inside elements, strings and escapes.
    rows = [{"question": "q", "steps": ['\u00fc\\"[{]' * 40_000, str(i)]} for i in range(9)]
    path = tmp_path / "big.json"
    path.write_text(json.dumps(rows, ensure_ascii=False), "utf-8")
    stream = open_records(path)
    assert [record.steps[1] for record in stream] == [str(i) for i in range(9)]
    assert stream[5].steps[0] == rows[5]["steps"][0]
