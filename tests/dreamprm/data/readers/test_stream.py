"""Streams: shuffled over all files, taken up in the middle, split by question, opened by index."""

from __future__ import annotations

import copy
import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch.utils.data

from dreamprm.data.readers import DataError, open_records
from dreamprm.data.record import RecordError


@pytest.fixture
def stream_of(write_rows: Callable[..., Path]) -> Callable[..., Any]:
    """A stream over two files: 30 rows of three domains, ten questions."""

    def make(**options: Any) -> Any:
        rows = [{"question": f"q {i % 10}", "steps": [f"s {i}"], "domain": "abc"[i % 3]} for i in range(30)]
        paths = [write_rows(*rows[:20], name="one.jsonl"), write_rows(*rows[20:], name="two.jsonl")]
        return open_records(paths, **options)

    return make


def test_a_pass_is_global_seeded_and_can_be_taken_up(stream_of: Callable[..., Any]) -> None:
    stream = stream_of()
    keys = [record.key for record in stream]
    whole = [record.key for record in stream.shuffled(3)]
    assert len(whole) == 30
    assert sorted(whole) == sorted(keys)
    assert whole != keys
    assert len({key[:3] for key in whole[:8]}) == 2, "both files stand among the first eight"
    assert [record.key for record in stream.shuffled(3, start=11)] == whole[11:]
    assert [record.key for record in stream.shuffled(3, epoch=1)] != whole
    with pytest.raises(DataError, match=r"start must lie in \[0, 30\]"):
        next(stream.shuffled(3, start=31))


def test_domains_and_groups_are_known_without_reading(stream_of: Callable[..., Any]) -> None:
    stream = stream_of()
    assert stream.domains == ("a", "b", "c")
    assert [stream.domains[i] for i in stream.domain] == [record.domain for record in stream]
    assert len(np.unique(stream.group)) == 10


def test_labels_and_judgements_are_known_without_reading(write_rows: Callable[..., Path], tmp_path: Path) -> None:
    plain = {"question": "q", "steps": ["a", "b"]}
    rows = [plain, plain | {"labels": [1, None]}, plain | {"labels": [None, None]}, plain | {"correct": False}]
    path = write_rows(*rows)
    for _ in range(2):  # the second time from the kept index
        stream = open_records(path, index=tmp_path / "index")
        assert stream.labelled.tolist() == [False, True, False, False]
        assert stream.judged.tolist() == [False, False, False, True]
        assert stream[1:3].labelled.tolist() == [True, False]


def test_a_row_with_two_records_of_one_key_is_bad(
    write_rows: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    import dreamprm.data.readers.index as index

    real = index.parse_row
    monkeypatch.setattr(index, "parse_row", lambda *given: real(*given) * (1 + (given[2] == 2)))
    path = write_rows(*({"question": f"q {i}", "steps": ["s"]} for i in range(3)))
    with pytest.raises(RecordError, match="row 2: gives several records of one key, which would share one weight"):
        open_records(path)
    assert [record.question for record in open_records(path, on_bad_row="skip")] == ["q 0", "q 2"]


def test_splits_share_no_question(stream_of: Callable[..., Any]) -> None:
    train, meta, test = stream_of().split((0.6, 0.2, 0.2), seed=1)
    questions = [{record.question for record in part} for part in (train, meta, test)]
    assert [len(part) for part in questions] == [6, 2, 2]
    assert not (questions[0] & questions[1])
    assert not (questions[0] & questions[2])
    assert not (questions[1] & questions[2])
    with pytest.raises(DataError, match="add up to 1"):
        train.split((0.5, 0.4))


def test_slices_and_places(stream_of: Callable[..., Any]) -> None:
    stream = stream_of()
    assert [r.steps[0] for r in stream[5:8]] == ["s 5", "s 6", "s 7"]
    assert [r.steps[0] for r in stream.take([29, 0])] == ["s 29", "s 0"]
    with pytest.raises(IndexError, match="record 30 of 30"):
        stream[30]


def test_data_loaders_read_in_workers(stream_of: Callable[..., Any]) -> None:
    stream = stream_of()
    stream[0]  # a file is open when the copy is made
    assert [record.key for record in pickle.loads(pickle.dumps(stream))] == [record.key for record in stream]
    loader = torch.utils.data.DataLoader(
        stream,
        batch_size=7,
        num_workers=1,
        collate_fn=lambda rows: [row.key for row in rows],
        multiprocessing_context="fork",
    )
    assert [key for batch in loader for key in batch] == [record.key for record in stream]


def test_the_index_is_kept_and_made_anew_when_the_file_changes(stream_of: Callable[..., Any], tmp_path: Path) -> None:
    folder = tmp_path / "index"
    first = stream_of(index=folder)
    files = {file: file.stat().st_mtime_ns for file in folder.iterdir()}
    assert len(files) == 2
    again = open_records([tmp_path / "one.jsonl", tmp_path / "two.jsonl"], index=folder)
    assert {file: file.stat().st_mtime_ns for file in folder.iterdir()} == files
    assert [r.key for r in again] == [r.key for r in first]
    with (tmp_path / "two.jsonl").open("a") as file:
        file.write(json.dumps({"question": "new", "steps": ["s"]}) + "\n")
    assert len(open_records([tmp_path / "one.jsonl", tmp_path / "two.jsonl"], index=folder)) == 31
    for file in folder.iterdir():
        file.write_bytes(b"half")
    assert len(open_records([tmp_path / "one.jsonl", tmp_path / "two.jsonl"], index=folder)) == 31


def test_a_kept_index_still_stops_at_bad_rows(write_rows: Callable[..., Path], tmp_path: Path) -> None:
    path = write_rows({"question": "q", "steps": ["s"]}, {"question": "q", "steps": [7]})
    stream = open_records(path, index=tmp_path / "index", on_bad_row="skip")
    assert (len(stream), stream.bad.count) == (1, 1)
    with pytest.raises(RecordError, match=r"rows\.jsonl, row 2, steps\[0\]: must be text, is int 7"):
        open_records(path, index=tmp_path / "index")


def test_a_file_that_changed_under_an_open_stream_says_so(write_rows: Callable[..., Path]) -> None:
    rows = [{"question": f"q {i}", "steps": ["s"]} for i in range(3)]
    path = write_rows(*rows)
    stream = open_records(path)
    path.write_bytes(path.read_bytes()[5:])
    with pytest.raises(RecordError):
        stream[2]


def test_a_meta_json_gives_roots_sources_and_lengths(
    samples: dict[str, Any], write_rows: Callable[..., Path], tmp_path: Path
) -> None:
    row = copy.deepcopy(samples["visualprm"].row)
    write_rows(row, row, name="annotations/a.jsonl")
    write_rows(row, name="annotations/b.jsonl")
    entry = {"data_augment": False, "repeat_time": 1}
    meta = {
        "ai2d": {"root": "images/ai2d", "annotation": "annotations/a.jsonl", "length": 2, **entry},
        "chartqa": {"root": "images/chartqa", "annotation": "annotations/b.jsonl", "length": 1, **entry},
    }
    path = tmp_path / "meta.json"
    path.write_text(json.dumps(meta))
    stream = open_records(path)
    assert [record.domain for record in stream] == ["ai2d", "ai2d", "chartqa"]
    assert stream[2].images == (tmp_path / "images/chartqa/a/b.png",)
    assert len({record.key for record in stream}) == 3, "all three rows are equal and bear the id -1"
    meta["ai2d"]["length"] = 9
    path.write_text(json.dumps(meta))
    with pytest.raises(DataError, match="promises 9 rows and the file holds 2"):
        open_records(path)


def test_files_of_one_name_in_two_folders_keep_their_keys_apart(
    write_rows: Callable[..., Path], tmp_path: Path
) -> None:
    for folder in ("a", "b"):
        write_rows({"question": "q", "steps": ["s"]}, name=f"{folder}/train.jsonl")
    stream = open_records(tmp_path)
    assert stream.sources == ("a/train", "b/train")
    assert stream[0].key != stream[1].key
