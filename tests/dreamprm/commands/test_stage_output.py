"""What a stage has written outlives a kill: no row is lost, none doubled, and rows of two settings are never mixed."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest

from dreamprm.commands.stage_output import parse_shard, write_stage
from dreamprm.errors import ConfigError, UserError

SIZES = [3, 1, 2, 4]
ABOUT = {"command": "score", "settings": {"seed": 0}}


def _make(units, rows):
    for unit in units:
        yield [{"unit": unit, "row": row} for row in range(SIZES[unit])]


def _rows(path: Path) -> list[dict[str, int]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


WHOLE = [{"unit": unit, "row": row} for unit, size in enumerate(SIZES) for row in range(size)]


def test_every_cut_is_gone_on_from(tmp_path: Path) -> None:
    out = tmp_path / "rows.jsonl"
    assert write_stage(out, ABOUT, SIZES, _make)
    whole = out.read_bytes()
    for length in random.Random(0).sample(range(len(whole)), 40):
        out.write_bytes(whole[:length])
        made: list[int] = []

        def make(units, rows, made=made):
            made += units
            yield from _make(units, rows)

        assert write_stage(out, ABOUT, SIZES, make)
        assert out.read_bytes() == whole
        assert made == list(range(made[0] if made else len(SIZES), len(SIZES))), "only what is missing is made"


def test_a_line_that_is_no_row_is_made_anew(tmp_path: Path) -> None:
    out = tmp_path / "rows.jsonl"
    write_stage(out, ABOUT, SIZES, _make)
    lines = out.read_bytes().split(b"\n")
    for damage in (b"\xff\xfe", b"[1]", b"{", b"[" * 100_000):
        lines[4] = damage
        out.write_bytes(b"\n".join(lines))
        write_stage(out, ABOUT, SIZES, _make)
        assert _rows(out) == WHOLE


def test_rows_of_something_else_are_refused(tmp_path: Path) -> None:
    out = tmp_path / "rows.jsonl"
    out.write_text('{"a": 1}\n')
    with pytest.raises(UserError, match="was not begun by this command"):
        write_stage(out, ABOUT, SIZES, _make)
    assert write_stage(out, ABOUT, SIZES, _make, overwrite=True)
    with pytest.raises(UserError, match=r"settings\.seed was 0, now 1.*overwrite=true"):
        write_stage(out, ABOUT | {"settings": {"seed": 1}}, SIZES, _make)
    (tmp_path / "rows.jsonl.run.json").write_text("[]")
    with pytest.raises(UserError, match="is damaged"):
        write_stage(out, ABOUT, SIZES, _make)


def test_a_second_process_is_refused(tmp_path: Path) -> None:
    out = tmp_path / "rows.jsonl"

    def make(units, rows):
        with pytest.raises(UserError, match="being written by another process"):
            write_stage(out, ABOUT, SIZES, _make)
        yield from _make(units, rows)

    assert write_stage(out, ABOUT, SIZES, make)


@pytest.mark.parametrize("order", [(1, 2, 3), (3, 1, 2)])
def test_shards_join_to_the_whole(tmp_path: Path, order: tuple[int, ...]) -> None:
    out = tmp_path / "rows.jsonl"
    done = [write_stage(out, ABOUT, SIZES, _make, shard=f"{place}/3") for place in order]
    assert done == [False, False, True]
    assert _rows(out) == WHOLE


def test_a_shard_is_named_by_two_numbers() -> None:
    assert parse_shard("2/4") == (2, 4)
    for wrong in ("0/4", "5/4", "a/b", "2", "-1/3"):
        with pytest.raises(ConfigError, match="shard must be i/n"):
            parse_shard(wrong)
