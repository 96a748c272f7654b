"""What lies in the cache and is damaged is said and made anew; what is read is the same."""

from __future__ import annotations

import gzip
import json
import pickle
from collections.abc import Callable
from pathlib import Path

import pytest

from dreamprm.data.readers import open_records

DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    "cut": lambda data: data[: len(data) // 2],
    "one bit": lambda data: data[: len(data) // 2] + bytes([data[len(data) // 2] ^ 1]) + data[len(data) // 2 + 1 :],
    "empty": lambda data: b"",
    "other bytes": lambda data: b"junk",
    "a pickle": lambda data: pickle.dumps([1, 2]),
}


@pytest.fixture
def rows() -> bytes:
    lines = [{"question": f"What is {i} + 1?", "steps": ["a", "b"], "labels": [1, i % 2]} for i in range(50)]
    return "".join(json.dumps(line) + "\n" for line in lines).encode()


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_index_is_made_anew(
    rows: bytes, tmp_path: Path, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    path, kept = tmp_path / "rows.jsonl", tmp_path / "index"
    path.write_bytes(rows)
    before = list(open_records(path, index=kept))
    (file,) = kept.glob("*.npz")
    file.write_bytes(DAMAGES[damage](file.read_bytes()))
    assert list(open_records(path, index=kept)) == before
    assert f"the index {file} of {path} is damaged" in caplog.text
    caplog.clear()
    assert list(open_records(path, index=kept)) == before
    assert not caplog.text, "it is sound again"


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_unpacked_copy_is_made_anew(
    rows: bytes, tmp_path: Path, damage: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("DREAMPRM_CACHE", str(tmp_path / "cache"))
    path = tmp_path / "rows.jsonl.gz"
    path.write_bytes(gzip.compress(rows))
    before = list(open_records(path))
    (file,) = (tmp_path / "cache" / "unpacked").iterdir()
    file.write_bytes(DAMAGES[damage](file.read_bytes()))
    assert list(open_records(path)) == before
    assert f"{file} of {path} is damaged and made anew" in caplog.text


def test_a_cache_that_cannot_be_written_stops_nothing(
    rows: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("DREAMPRM_CACHE", "/proc/nocache")
    path = tmp_path / "rows.jsonl.gz"
    path.write_bytes(gzip.compress(rows))
    assert len(list(open_records(path))) == 50
    assert "is unpacked for this run alone" in caplog.text
