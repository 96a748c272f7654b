"""Ten thousand damaged rows: each is reported, none is accepted, none brings the reader down."""

from __future__ import annotations

import base64
import copy
import json
import random
import struct
import zlib
from collections import Counter
from pathlib import Path
from typing import Any

from dreamprm.data.readers import BadRows, read
from dreamprm.data.readers.fields import MAX_TEXT

NUM_ROWS = 10_000
_OUT = [
    "../../../etc/passwd",
    "/etc/passwd",
    "a/../../../b.png",
    "x\x00.png",
    "https://example.org/a.png",
    "C:/../../x",
]
_BROKEN_IMAGE = "iVBORw0KGgo" + "A" * 80


def _bomb() -> str:
    body = struct.pack(">IIBBBBB", 90_000, 90_000, 8, 2, 0, 0, 0)
    chunk = struct.pack(">I", 13) + b"IHDR" + body + struct.pack(">I", zlib.crc32(b"IHDR" + body))
    return base64.b64encode(b"\x89PNG\r\n\x1a\n" + chunk + bytes(60)).decode()


def _put(row: dict[str, Any], path: tuple[str | int, ...], value: Any) -> dict[str, Any]:
    row = copy.deepcopy(row)
    place: Any = row
    for name in path[:-1]:
        place = place[name]
    place[path[-1]] = value
    return row


def _at(row: Any, path: tuple[str | int, ...]) -> Any:
    for name in path:
        row = row[name]
    return row


def _wrong(value: Any, rng: random.Random) -> Any:
    """A value of a type that the place of `value` cannot hold."""
    if isinstance(value, str):
        return rng.choice([{"a": 1}, [[1]], True, {}, [None]])
    if isinstance(value, bool):
        return rng.choice(["yes", 2, {}, [True], 0.5])
    if isinstance(value, (int, float)):
        return rng.choice(["one", [1], {}, 7.5, -9, 10**30])
    if isinstance(value, list):
        return rng.choice(["x", 5, {"a": 1}, True, [{"b": []}], [17.25], [[["x"]]]])
    return rng.choice(["x", 5, [1], True])


def _deep(levels: int) -> bytes:
    return b'{"question": ' + b"[" * levels + b"]" * levels + b"}"


def _damage(row: dict[str, Any], sample: Any, kind: str, rng: random.Random) -> bytes:
    path = rng.choice(sample.fields)
    whole = json.dumps(row).encode()
    if kind == "cut":
        return whole[: rng.randrange(1, len(whole) - 1)]
    if kind == "type":
        return json.dumps(_put(row, path, _wrong(_at(row, path), rng))).encode()
    if kind == "missing":
        return json.dumps(_put(row, sample.fields[0], None)).encode()
    if kind == "encoding":
        text = json.dumps(row | {"note": "caf\u00e9 f\u00fcr"}, ensure_ascii=False)
        return rng.choice([text.encode("latin-1", "replace"), json.dumps(row).encode("utf-16-le")])
    if kind == "surrogate":
        texts = [p for p in sample.fields if isinstance(_at(row, p), str)] or [None]
        return whole if texts[0] is None else json.dumps(_put(row, rng.choice(texts), "a \ud800 b")).encode()
    if kind == "nested":
        return _deep(rng.choice([70, 500, 5_000, 50_000]))
    if kind == "number":
        return whole[:-1] + b', "x": ' + rng.choice([b"NaN", b"Infinity", b"-Infinity", b"9" * 5000]) + b"}"
    if kind == "huge":
        return json.dumps(_put(row, path, rng.choice(["y" * (MAX_TEXT + 1), ["s"] * 5000]))).encode()
    if kind == "garbage":
        return rng.choice(
            [bytes(rng.randrange(11, 256) for _ in range(60)), b"[1, 2]", b'"text"', b"7", b"null", b"{}"]
        )
    if kind == "climb":
        return json.dumps(_put(row, sample.image, rng.choice(_OUT))).encode()
    return json.dumps(_put(row, sample.image, rng.choice([_bomb(), _BROKEN_IMAGE]))).encode()


def test_every_damaged_row_is_reported(samples: dict[str, Any], tmp_path: Path) -> None:
    rng = random.Random(20261121)
    kinds = ["cut", "type", "missing", "encoding", "nested", "number", "garbage", "climb", "bomb", "surrogate"]
    formats = [name for name in samples if name != "mathvision"] + ["mathvision"]
    total: Counter[str] = Counter()
    per_format = NUM_ROWS // len(formats) + 1
    for name in formats:
        sample = samples[name]
        good = json.dumps(sample.row).encode()
        lines: list[bytes] = [good]
        expected: dict[int, str] = {}
        for index in range(per_format):
            kind = "huge" if index % 250 == 0 else rng.choice(kinds)
            if kind in ("climb", "bomb") and (sample.image is None or (name == "dreamprm15_meta" and kind == "climb")):
                kind = "cut"  # that format's paths begin with ../ as published and are taken below the root
            line = _damage(sample.row, sample, kind, rng).replace(b"\n", b" ")
            if line in (good, b""):
                continue
            lines.append(line)
            expected[len(lines)] = kind
            total[kind] += 1
            if index % 100 == 0:
                lines.append(good)
        path = tmp_path / f"{name}.jsonl"
        path.write_bytes(b"\n".join(lines) + b"\n")
        side = tmp_path / f"{name}.bad.jsonl"
        records = list(read(path, name, on_bad_row=BadRows("quarantine", side)))
        listed = [json.loads(line) for line in side.read_text("utf-8").splitlines()]
        reported = {item["row"] for item in listed}
        accepted = {row: kind for row, kind in expected.items() if row not in reported}
        assert not accepted, (name, [(kind, lines[row - 1][:300]) for row, kind in list(accepted.items())[:3]])
        assert reported == set(expected), "good rows are read"
        assert all(item["reason"] and item["file"] == str(path) for item in listed)
        num_good = len(lines) - len(expected)
        assert len({record.key.split(":")[1] for record in records}) == num_good
    assert total.total() >= NUM_ROWS * 0.95
    assert min(total[kind] for kind in kinds) > 100
