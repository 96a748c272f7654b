"""The file that `score`, `sample` and `label` write: appended to as work is done, and gone on with after a kill.

Work comes in units of rows. A unit's rows are appended together; on the next start whatever is not a whole unit is cut
off, and the units that are whole are not made again. Beside `out` stands `out`.run.json: what the rows were made of
(settings, a digest of the input), so that rows of other settings are never mixed in. One process writes at a time.
`shard=i/n` makes the i-th of n equal parts in a file of its own; the shard that ends last joins all of them to `out`.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from dreamprm.config.resolve import differences
from dreamprm.errors import ConfigError, UserError
from dreamprm.files import replacing, write_atomically
from dreamprm.progress import Reporter, say

__all__ = ["parse_shard", "write_stage"]

Rows = list[dict[str, Any]]
Make = Callable[[Sequence[int], Rows], Iterator[Rows]]


def write_stage(
    out: Path, about: dict[str, Any], sizes: Sequence[int], make: Make, *, shard: str = "1/1", overwrite: bool = False
) -> bool:
    """Make the units that `out` lacks and append their rows; whether `out` is whole now.

    about: what the rows depend on, as plain values.  sizes: rows of each unit.  make: (units still to be made, rows
    that are there) -> the rows of each of these units, in order.
    Raises UserError where `out` holds something else, or another process writes it.
    """
    place, count = parse_shard(shard)
    if count == 1 and os.environ.get("WORLD_SIZE", "1") != "1":
        raise UserError(
            f"started as one of {os.environ['WORLD_SIZE']} processes (WORLD_SIZE), which would all write {out}: give "
            "each its part by shard=i/n"
        )
    units = range(len(sizes) * (place - 1) // count, len(sizes) * place // count)
    part = out if count == 1 else _shard_file(out, place, count)
    part.parent.mkdir(parents=True, exist_ok=True)
    about = about | {"shard": [place, count]}
    with _held(part):
        if overwrite:
            part.unlink(missing_ok=True)
            _side(part).unlink(missing_ok=True)
        _require_same(part, about)
        rows, done = _whole(part, [sizes[unit] for unit in units])
        if done:
            say(f"{part}: {len(rows)} rows are there, going on after them")
        total = sum(sizes[unit] for unit in units)
        try:
            _append(part, about["command"], make(units[done:], rows), len(rows), total)
        except BaseException:
            if not part.stat().st_size:  # nothing was made: leave nothing
                part.unlink()
                _side(part).unlink()
            raise
        write_atomically(_side(part), json.dumps({"about": about, "rows": total, "whole": True}).encode())
    return count == 1 or _joined(out, count)


def _append(out: Path, command: str, made: Iterator[Rows], written: int, total: int) -> None:
    with out.open("ab") as stream, Reporter(command, total, written) as report:
        for rows in made:
            stream.write(b"".join(_line(row) for row in rows))
            stream.flush()
            os.fsync(stream.fileno())
            written += len(rows)
            report.update(written, {})
    assert written == total, "every unit gives its rows, or an error"


def parse_shard(shard: str) -> tuple[int, int]:
    """`2/4` as (2, 4). Raises ConfigError."""
    place, _, count = str(shard).partition("/")
    if not (place.isdigit() and count.isdigit() and 1 <= int(place) <= int(count) <= 100_000):
        raise ConfigError(f"shard must be i/n with 1 <= i <= n, is {shard!r}")
    return int(place), int(count)


def _shard_file(out: Path, place: int, count: int) -> Path:
    return out.with_name(f"{out.stem}.{place}-of-{count}{out.suffix}")


def _side(out: Path) -> Path:
    return out.with_name(f"{out.name}.run.json")


def _line(row: dict[str, Any]) -> bytes:
    return (json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n").encode("utf-8", "replace")


@contextlib.contextmanager
def _held(out: Path) -> Iterator[None]:
    lock = out.with_name(f".{out.name}.lock")
    handle = os.open(lock, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        with contextlib.suppress(OSError):  # a file system without locks
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise _in_use(out) from error
        if not lock.exists() or os.fstat(handle).st_ino != lock.stat().st_ino:
            raise _in_use(out)  # whose owner ends at this moment
        try:
            yield
        finally:
            lock.unlink(missing_ok=True)
    finally:
        os.close(handle)


def _in_use(out: Path) -> UserError:
    return UserError(f"out={out} is being written by another process: wait for it, or choose another out")


def _require_same(out: Path, about: dict[str, Any]) -> None:
    """Write the side file of a new `out`; of an old one compare it."""
    side = _side(out)
    way_out = "choose another out, or set overwrite=true"
    if not side.exists():
        if out.exists() and out.stat().st_size:
            raise UserError(f"out={out} is there and was not begun by this command ({side.name} is missing): {way_out}")
        write_atomically(side, json.dumps({"about": about, "whole": False}).encode())
        return
    try:
        found = json.loads(side.read_bytes())["about"]
        differing = differences(found, json.loads(json.dumps(about)))
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise UserError(f"{side} is damaged, so nothing says what {out.name} was made of: {way_out}") from error
    if differing:
        listed = "; ".join(f"{name} was {old!r}, now {new!r}" for name, (old, new) in differing.items())
        raise UserError(f"out={out} holds rows of something else ({listed}): {way_out}")


def _whole(out: Path, sizes: Sequence[int]) -> tuple[Rows, int]:
    """(rows, units) that are whole; the rest of the file is cut off."""
    content = out.read_bytes() if out.exists() else b""
    lines = content.split(b"\n")[:-1]  # the last has no end
    rows: Rows = []
    for line in lines:
        try:
            row = json.loads(line)
        except (ValueError, RecursionError):
            break
        if not isinstance(row, dict):
            break
        rows.append(row)
    done, kept = 0, 0
    while done < len(sizes) and kept + sizes[done] <= len(rows):
        kept += sizes[done]
        done += 1
    length = sum(len(line) + 1 for line in lines[:kept])
    if length < len(content):
        say(f"{out}: {len(content) - length:,} bytes behind the last whole row are made anew")
        os.truncate(out, length)
    return rows[:kept], done


def _joined(out: Path, count: int) -> bool:
    """Join the shards to `out` where all of them are whole."""
    files = [_shard_file(out, place, count) for place in range(1, count + 1)]
    open_ones = [file.name for file in files if not _is_whole(file)]
    if open_ones:
        say(f"shards still to be made: {', '.join(open_ones[:5])}{' …' if len(open_ones) > 5 else ''}")
        return False
    with replacing(out) as part, part.open("wb") as stream:
        for file in files:
            with file.open("rb") as shard:
                shutil.copyfileobj(shard, stream)
    say(f"{count} shards joined: {out}")
    return True


def _is_whole(out: Path) -> bool:
    try:
        return bool(json.loads(_side(out).read_bytes())["whole"])
    except (OSError, ValueError, KeyError, TypeError):
        return False
