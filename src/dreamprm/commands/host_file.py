"""What `clean to=HOST` writes: the chains of a run as JSON Lines that another trainer reads."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from dreamprm.commands.files import stored_image
from dreamprm.data.host_rows import HOSTS, Host
from dreamprm.data.record import Record, RecordError
from dreamprm.errors import ConfigError, UserError
from dreamprm.files import replacing, write_atomically
from dreamprm.progress import say

__all__ = ["check_host", "write_for_host"]

_INFO = "dataset_info.json"


def check_host(name: str, out: Path, cut: bool) -> None:
    """Raises ConfigError where this host cannot read what is asked for."""
    if out.suffix != ".jsonl":
        raise ConfigError(f"out={out} must end in .jsonl with to={name}")
    if not cut and not HOSTS[name].reads_weights:
        raise ConfigError(f"{name} reads no weights, so its file must be cut by them: set below= or keep=")
    if name == "llamafactory":
        _described(out, True)


def write_for_host(name: str, out: Path, chains: Iterable[tuple[Record, float | None]]) -> int:
    """Write the chains, with their weights where there are any; how many were written.

    Chains that the host cannot read are left out and counted, with the first reason.
    Raises UserError where none is left, or an image cannot be read.
    """
    host = HOSTS[name]
    out.parent.mkdir(parents=True, exist_ok=True)
    refused: list[RecordError] = []
    written = with_images = 0
    with replacing(out) as part:
        with part.open("w", encoding="utf-8", newline="\n") as stream:
            for record, weight in chains:
                try:
                    row = host.row(record, None if weight is None else round(weight, 6), _image_paths(out, record))
                except RecordError as error:
                    refused.append(error)
                    continue
                stream.write(json.dumps(row, ensure_ascii=False) + "\n")
                written += 1
                with_images += bool(record.images)
        if not written:
            why = f"; {refused[0]}" if refused else ""
            raise UserError(f"to={name}: no chain is left to write{why}")
    if name == "llamafactory":
        write_atomically(out.parent / _INFO, json.dumps(_described(out, bool(with_images)), indent=2).encode())
    if refused:
        say(f"{len(refused)} chains left out that {name} cannot read; the first: {refused[0]}")
    say(_how(name, host, out))
    return written


def _how(name: str, host: Host, out: Path) -> str:
    return f"{name}: {host.read_by.format(name=out.stem, folder=out.parent, out=out)}"


def _image_paths(out: Path, record: Record) -> list[str]:
    try:
        return [str(stored_image(image, out)) for image in record.images]
    except OSError as error:
        raise UserError(
            f"{record.key}: an image cannot be read ({error}): set data.images in the run's place"
        ) from error


def _described(out: Path, with_images: bool) -> dict[str, Any]:
    """LLaMA-Factory's data sets beside `out`, with this one among them. Raises ConfigError where the name is taken."""
    columns = {"messages": "messages"} | ({"images": "images"} if with_images else {})
    entry = {
        "file_name": out.name,
        "formatting": "sharegpt",
        "columns": columns,
        "tags": {"role_tag": "role", "content_tag": "content", "user_tag": "user", "assistant_tag": "assistant"},
    }
    path = out.parent / _INFO
    known: Any = {}
    if path.exists():
        try:
            known = json.loads(path.read_text(encoding="utf-8"))
        except ValueError as error:
            raise ConfigError(f"{path} is no JSON ({error}): choose a folder of its own for out") from error
    if not isinstance(known, dict):
        raise ConfigError(f"{path} is no list of data sets by name: choose a folder of its own for out")
    if known.get(out.stem, {}).get("file_name", out.name) != out.name:
        raise ConfigError(f"{path} has a data set {out.stem} of another file: choose another name for out")
    return known | {out.stem: entry}
