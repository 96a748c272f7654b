"""`clean`: the training file again, in the format it came in, with every row's learned weight or without the worst."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dreamprm.commands.command import command
from dreamprm.data.host_rows import HOSTS, WEIGHT
from dreamprm.data.record import Record
from dreamprm.errors import ConfigError, UserError
from dreamprm.progress import say
from dreamprm.setting import Settings, setting

__all__ = ["CleanStage", "clean", "main"]


@dataclass
class CleanStage(Settings):
    """The training file of a run again, every row with its weight or cut by it, in its own format or another's."""

    run_dir: str | None = setting(None, "the folder of a finished run")
    data: str | None = setting(None, "the file that it trained on; null: as its config.yaml says")
    out: str | None = setting(None, "file to write, with the ending of `data`; .jsonl with `to`")
    to: str | None = setting(None, "who is to read it; null: what read `data`", words=HOSTS)
    below: float | None = setting(None, "leave out the rows whose weight is below this; null: none")
    keep: float | None = setting(None, "keep this share of the rows, those of the highest weights", above=0, most=1)


def clean(settings: CleanStage) -> Path:
    """Write the file.

    Where nothing is cut every row gets the field `dreamprm_weight`; a cut leaves the kept rows as they are, so that
    whatever read the file reads what is left of it. The weight of a row of several chains is their mean.
    With `to` every chain is a row of `dreamprm.data.host_rows`, and is cut by its own weight.

    Raises UserError where the file is not the one that the run trained on, and for kinds of files that are not written.
    """
    from dreamprm.commands.files import needed
    from dreamprm.commands.host_file import check_host

    folder = Path(needed(settings.run_dir, "run_dir", "the folder of a finished run"))
    out = Path(needed(settings.out, "out", "the file to write"))
    if settings.below is not None and settings.keep is not None:
        raise ConfigError("below and keep both cut: give one of them")
    data = Path(settings.data or _trained_on(folder))
    if data.is_dir():
        raise UserError(f"{data} is a folder: give data=FILE, one file of it at a time")
    if out.resolve() == data.resolve():
        raise ConfigError(f"out is data itself ({out}): give another file")
    cut = settings.below is not None or settings.keep is not None
    if settings.to is None:
        _clean_rows(settings, folder, data, out, cut)
    else:
        check_host(settings.to, out, cut)
        _clean_chains(settings, settings.to, folder, data, out, cut)
    if verdict := _verdict(folder):
        say(f"the run's verdict: {verdict}")
    return out


def _clean_rows(settings: CleanStage, folder: Path, data: Path, out: Path, cut: bool) -> None:
    """In the format of `data`."""
    from dreamprm.data.readers.bytes_file import bare_name
    from dreamprm.data.readers.locate import open_container

    if out.suffixes != data.suffixes:
        raise ConfigError(f"out={out} must end as {data} does: the format stays the same (to=HOST writes another's)")
    if bare_name(data) != data.name:
        raise UserError(f"{data} is compressed: unpack it first, so that rows can be written as they are")
    container = open_container(data)
    weights = _row_weights(folder, data)
    kept = _kept(weights, settings) if cut else None
    total = _write(container, out, weights, kept)
    unknown = total - len(weights)
    note = f"; {unknown} rows that the run did not train on {'left out' if cut else 'have none'}" if unknown else ""
    say(f"{len(weights) if kept is None else len(kept)} of {total} rows in {out}{note}")


def _clean_chains(settings: CleanStage, host: str, folder: Path, data: Path, out: Path, cut: bool) -> None:
    """In the columns of another trainer; the file is read twice, so that a large one need not fit in memory."""
    from dreamprm.commands.host_file import write_for_host

    weights = {
        number: weight for number, (_, weight) in enumerate(_weighted_chains(folder, data)) if weight is not None
    }
    kept = _kept(weights, settings) if cut else set(weights)
    chains = enumerate(_weighted_chains(folder, data))
    written = write_for_host(
        host, out, ((record, None if cut else weight) for number, (record, weight) in chains if number in kept)
    )
    say(f"{written} of {len(weights)} chains that the run trained on in {out}")


def _verdict(folder: Path) -> str:
    """What the run said of itself, whose weights decide here; empty where it has not ended."""
    try:
        return str(json.loads((folder / "results.json").read_text(encoding="utf-8"))["verdict"])
    except (OSError, ValueError, KeyError, TypeError):
        return ""


def _trained_on(folder: Path) -> str:
    import yaml

    try:
        found = yaml.safe_load((folder / "config.yaml").read_text(encoding="utf-8"))["data"]
    except (OSError, KeyError, TypeError, yaml.YAMLError) as error:
        if isinstance(error, FileNotFoundError):
            what = "it has no config.yaml" if folder.is_dir() else "there is no such folder"
        else:
            what = f"{type(error).__name__}: {error}"
        raise UserError(f"{folder} is no folder of a run ({what}): set run_dir") from error
    path = found.get("path")
    if not isinstance(path, str):
        raise UserError(f"{folder} trained on data.kind={found.get('kind')}, not on one file: give data=FILE")
    return path


def _row_weights(folder: Path, data: Path) -> dict[int, float]:
    """Row number (from 1) -> weight, the mean of its chains."""
    found: dict[int, list[float]] = {}
    for record, weight in _weighted_chains(folder, data):
        if weight is not None:
            found.setdefault(int(_own_key(record).split(":", 1)[0]), []).append(weight)
    return {row: sum(values) / len(values) for row, values in found.items()}


def _weighted_chains(folder: Path, data: Path) -> Iterator[tuple[Record, float | None]]:
    """The chains of the file, each with the weight that the run gave it, None where it did not train on it.

    Raises UserError at the end where not every key of the run was found in the file.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    from dreamprm.data.readers import read

    path = folder / "weights.parquet"
    try:
        table = pq.read_table(path, columns=["key", "weight"]).to_pydict()
    except (OSError, pa.ArrowException) as error:
        raise UserError(f"{path} cannot be read ({error}): give the run_dir of a finished run") from error
    learned = dict(zip(table["key"], table["weight"], strict=True))
    # Keys are file:row:content[:part]; a run may have read the file as one of several, by another name.
    by_end = {key[place + 1 :]: key for key in learned for place, letter in enumerate(key) if letter == ":"}
    missing = set(learned)
    for record in read(data, on_bad_row="skip", **_reading(folder)):
        key = record.key if record.key in learned else by_end.get(_own_key(record))
        if key is not None:
            missing.discard(key)
        yield record, None if key is None else learned[key]
    if missing:
        raise UserError(
            f"{data}: {len(missing)} of {len(learned)} examples of {folder} are not in it, e.g. {min(missing)!r}: "
            "give data=FILE, the file as it was when the run read it"
        )


def _own_key(record: Record) -> str:
    """row:content[:part]"""
    return record.key.removeprefix(f"{record.source}:")


def _reading(folder: Path) -> dict[str, Any]:
    """How the run read its files: where their images lie, the format and its settings."""
    import yaml

    try:
        found = yaml.safe_load((folder / "config.yaml").read_text(encoding="utf-8"))["data"]
    except (OSError, KeyError, TypeError, yaml.YAMLError):
        return {}  # a folder without its settings: the file speaks for itself
    names = ("format", "images", "split", "follow_links", "options")
    return {name: found[name] for name in names if found.get(name) is not None}


def _kept(weights: Mapping[int, float], settings: CleanStage) -> set[int]:
    if settings.below is not None:
        return {row for row, weight in weights.items() if weight >= settings.below}
    assert settings.keep is not None
    best = sorted(weights, key=lambda row: (-weights[row], row))
    return set(best[: round(settings.keep * len(best))])


def _write(container: Any, out: Path, weights: Mapping[int, float], kept: set[int] | None) -> int:
    """Write the rows; how many the file has."""
    from dreamprm.data.readers.arrow import ArrowFile, ParquetFile
    from dreamprm.data.readers.delimited import Delimited
    from dreamprm.data.readers.json_array import JsonArray
    from dreamprm.data.readers.json_lines import JsonLines
    from dreamprm.files import replacing

    writers = {
        JsonLines: _json_lines,
        JsonArray: _json_array,
        Delimited: _delimited,
        ParquetFile: _columns,
        ArrowFile: _columns,
    }
    write = writers.get(type(container))
    if write is None:
        raise UserError(f"{container.path}: one object on top cannot be cut by rows; write it as JSON Lines first")
    out.parent.mkdir(parents=True, exist_ok=True)
    with replacing(out) as part:
        return write(container, part, weights, kept)


def _json_lines(container: Any, part: Path, weights: Mapping[int, float], kept: set[int] | None) -> int:
    import json

    from dreamprm.data.readers.json_lines import bounded_lines

    total = 0
    with part.open("wb") as stream:
        for number, (_, _, line) in enumerate(bounded_lines(container.path, container.source), start=1):
            if line is None or not line.strip():
                continue
            total += 1
            if kept is None:
                row = json.loads(line.removeprefix(b"\xef\xbb\xbf"))
                stream.write(json.dumps(_weighted(row, weights.get(number)), ensure_ascii=False).encode() + b"\n")
            elif number in kept:
                stream.write(line if line.endswith(b"\n") else line + b"\n")
    return total


def _weighted(row: Any, weight: float | None) -> Any:
    if not isinstance(row, dict):
        return row
    if WEIGHT in row:
        raise UserError(f"the rows already have a field {WEIGHT}: give the file as it was before")
    return {**row, WEIGHT: weight}


def _rows(container: Any, weights: Mapping[int, float], kept: set[int] | None) -> tuple[list[Any], int]:
    """The rows to write, and how many the file has. Raises the error of a row that cannot be read."""
    rows: list[Any] = []
    total = 0
    for found in container.rows():
        total += 1
        if isinstance(found.value, Exception):
            raise found.value
        if kept is None:
            rows.append(_weighted(found.value, weights.get(found.number)))
        elif found.number in kept:
            rows.append(found.value)
    return rows, total


def _json_array(container: Any, part: Path, weights: Mapping[int, float], kept: set[int] | None) -> int:
    import json

    rows, total = _rows(container, weights, kept)
    lines = ",\n".join(json.dumps(row, ensure_ascii=False) for row in rows)
    part.write_text(f"[\n{lines}\n]\n", encoding="utf-8")
    return total


def _delimited(container: Any, part: Path, weights: Mapping[int, float], kept: set[int] | None) -> int:
    import csv

    rows, total = _rows(container, weights, kept)
    names = list(rows[0]) if rows else []
    with part.open("w", encoding="utf-8", newline="") as stream:
        by = "\t" if container.path.name.lower().endswith(".tsv") else ","
        writer = csv.DictWriter(stream, names, delimiter=by)
        writer.writeheader()
        writer.writerows(rows)
    return total


def _columns(container: Any, part: Path, weights: Mapping[int, float], kept: set[int] | None) -> int:
    """Parquet and Arrow: the table's own columns and types stay as they are."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    from dreamprm.data.readers.arrow import ParquetFile

    is_parquet = isinstance(container, ParquetFile)
    table = pq.read_table(container.path) if is_parquet else container._open()
    numbers = range(1, table.num_rows + 1)
    if kept is None:
        if WEIGHT in table.column_names:
            raise UserError(f"the rows already have a field {WEIGHT}: give the file as it was before")
        cut = table.append_column(WEIGHT, pa.array([weights.get(number) for number in numbers], pa.float64()))
    else:
        cut = table.filter(pa.array([number in kept for number in numbers]))
    if is_parquet:
        pq.write_table(cut, part)
    else:
        with pa.OSFile(str(part), "wb") as sink, pa.ipc.new_stream(sink, cut.schema) as writer:
            writer.write_table(cut)
    return table.num_rows


main = command("clean", CleanStage, clean)
