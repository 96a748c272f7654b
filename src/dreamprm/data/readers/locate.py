"""From what a user names (file, folder, meta.json, a list of these) to the files to read, each with its context."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from dreamprm.data.readers.bytes_file import bare_name, open_stream
from dreamprm.data.readers.container import Container
from dreamprm.data.readers.delimited import Delimited
from dreamprm.data.readers.fields import DataError
from dreamprm.data.readers.format import Context, Format
from dreamprm.data.readers.images import ImageError, safe_path
from dreamprm.data.readers.json_array import JsonArray, JsonTree
from dreamprm.data.readers.json_lines import JsonLines
from dreamprm.data.readers.registry import FORMATS, format_of_row, get_format, settings_of

__all__ = ["Part", "Paths", "open_container", "parts"]

_LOG = logging.getLogger(__name__)
Paths = str | Path | Sequence[str | Path]
_SUFFIXES = (".jsonl", ".json", ".csv", ".tsv", ".xlsx", ".parquet", ".arrow")
_IGNORED = frozenset({"dataset_info.json", "dataset_infos.json", "state.json", "dataset_dict.json"})


@dataclass(frozen=True)
class Part:
    """One file with its format and context. `expected` is the number of rows that a meta.json promises."""

    container: Container
    format: Format
    context: Context
    expected: int | None = None


def _first_sign(path: Path) -> bytes:
    with open_stream(path) as stream:
        return stream.read(4096).removeprefix(b"\xef\xbb\xbf").lstrip()


def open_container(path: Path) -> Container:
    """The kind of file by its ending, and JSON by how it begins. Raises DataError."""
    if not path.is_file():
        raise DataError("is not there; data.path must name a file or a folder", source=str(path))
    name = bare_name(path).lower()
    if name.endswith((".csv", ".tsv")):
        return Delimited(path)
    if name.endswith(".xlsx"):
        from dreamprm.data.readers.workbook import Workbook

        return Workbook(path)
    if name.endswith((".parquet", ".arrow")):
        if bare_name(path) != path.name:
            raise DataError("is compressed outside; unpack it first", source=str(path))
        from dreamprm.data.readers.arrow import ArrowFile, ParquetFile

        return ParquetFile(path) if name.endswith(".parquet") else ArrowFile(path)
    if name.endswith((".jsonl", ".ndjson")):
        return JsonLines(path)
    if not name.endswith(".json"):
        raise DataError(
            f"has an unknown ending; read are {', '.join(_SUFFIXES)}, and .gz and .zst of these", source=str(path)
        )
    try:
        head = _first_sign(path)
    except (OSError, EOFError) as error:
        raise DataError(f"cannot be read ({error})", source=str(path)) from None
    if head.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise DataError("is UTF-16 or UTF-32; convert it, e.g. by iconv -t utf-8", source=str(path))
    if head.startswith(b"["):
        return JsonArray(path)
    if not head.startswith(b"{"):
        raise DataError("does not begin as JSON, with [ or {", source=str(path))
    # Lines of objects are also found under .json; the first line then is an object, and not one of lists of rows.
    first = next(JsonLines(path).rows(), None)
    if first is None or not isinstance(first.value, dict) or _is_tree(first.value):
        return JsonTree(path)
    return JsonLines(path)


def _is_tree(value: Mapping[str, Any]) -> bool:
    if any(item.matches(value) for item in FORMATS.values()):
        return False
    if value and all(isinstance(v, dict) for v in value.values()):  # rows by their names (MM-Vet, MathVista)
        first = {**next(iter(value.values())), "_key": ""}
        return any(item.matches(first) for item in FORMATS.values())
    return all(isinstance(v, list) and v and isinstance(v[0], dict) for v in value.values())


def _is_meta_json(path: Path) -> bool:
    if not path.name.endswith(".json") or path.stat().st_size > 2**20:
        return False
    try:
        tree = json.loads(path.read_text("utf-8"))
    except (ValueError, OSError, RecursionError):
        return False
    return (
        isinstance(tree, dict) and bool(tree) and all(isinstance(v, dict) and "annotation" in v for v in tree.values())
    )


def _expand(path: Path, split: str | None) -> list[Path]:
    """Data files of a folder, in order of their names; of a Hugging Face folder those of `split`."""
    if not path.is_dir():
        return [path]
    found = [
        p
        for p in sorted(path.rglob("*"))
        if p.is_file() and bare_name(p).endswith(_SUFFIXES) and p.name not in _IGNORED
    ]
    found = [p for p in found if not any(part.startswith(".") for part in p.relative_to(path).parts)]
    if any(p.parent.name == "outputs" for p in found) and (path / "test.jsonl") in found:
        found.remove(path / "test.jsonl")  # questions of MATH-Vision, which its outputs are joined to
    if split is not None:
        found = [
            p
            for p in found
            if p.name.startswith(f"{split}-") or p.stem == split or split in p.relative_to(path).parts[:-1]
        ]
    if not found:
        wanted = f" of split {split!r}" if split else ""
        raise DataError(f"holds no file{wanted} that ends in {', '.join(_SUFFIXES)}", source=str(path))
    return found


def _meta_parts(path: Path, images: Path | None, follow_links: bool) -> Iterator[tuple[Path, str, Path, int | None]]:
    """(annotation, source, image root, rows promised) for every source of VisualPRM's meta.json."""
    for source, entry in json.loads(path.read_text("utf-8")).items():
        annotation, root = entry["annotation"], entry.get("root") or "."
        if not isinstance(annotation, str) or not isinstance(root, str):
            raise DataError("root and annotation must be paths", source=str(path), field=source)
        if entry.get("repeat_time", 1) != 1:
            _LOG.warning("%s: repeat_time %s of %s is not applied; weights decide", path, entry["repeat_time"], source)
        length = entry.get("length")
        base = images if images is not None else path.parent
        try:
            annotated = safe_path(annotation, path.parent, follow_links=follow_links)
            folder = base if Path(root) == Path(".") else safe_path(root, base, follow_links=follow_links)
        except ImageError as error:
            # A foreign meta.json must not make us read what lies elsewhere on this machine.
            reason = str(error).replace("image root", "folder").replace("; set data.images to the right root", "")
            raise DataError(f"{reason}; name the files themselves, or set data.images", source=str(path)) from None
        yield annotated, source, folder, length if isinstance(length, int) else None


def _names(paths: Sequence[Path]) -> list[str]:
    """A short name per file, unique among them: the name without endings, with its folders where names repeat."""
    stems = [bare_name(p).rsplit(".", 1)[0] for p in paths]
    doubled = {stem for stem in stems if stems.count(stem) > 1}
    return [f"{p.parent.name}/{stem}" if stem in doubled else stem for p, stem in zip(paths, stems)]


def parts(
    path: Paths,
    format: str | None = None,
    *,
    images: str | Path | None = None,
    split: str | None = None,
    follow_links: bool = False,
    options: Mapping[str, Any] | None = None,
) -> list[Part]:
    """Every file behind `path`, with its format recognised from its first rows or set by `format`.

    images: the root of image paths; by default the folder of the file (of MATH-Vision's outputs: the folder above).
    Raises DataError where a file is missing, of no known format, or two files would have one name.
    """
    given = [path] if isinstance(path, (str, Path)) else list(path)
    if not given:
        raise DataError("data.path is empty")
    root = Path(images) if images is not None else None
    if root is not None and not root.is_dir():
        raise DataError("is no folder; data.images must name the root of the images", source=str(root))
    todo: list[tuple[Path, str | None, Path | None, int | None]] = []
    for item in map(Path, given):
        if not item.exists():
            raise DataError("is not there; data.path must name a file or a folder", source=str(item))
        for file in _expand(item, split):
            if _is_meta_json(file):
                todo.extend(_meta_parts(file, root, follow_links))
            else:
                todo.append((file, None, root, None))
    names = _names([file for file, *_ in todo])
    sources = [source or name for (_, source, _, _), name in zip(todo, names)]
    if len(set(sources)) != len(sources):
        twice = next(source for source in sources if sources.count(source) > 1)
        raise DataError(f"two files would both be called {twice!r}, and keys would not be unique; rename one")
    found = [
        _part(file, source, format, image_root, expected, follow_links, options)
        for (file, _, image_root, expected), source in zip(todo, sources)
    ]
    known = {name for part in found for name in part.format.options}
    for name in options or {}:
        if name not in known:
            allowed = ", ".join(sorted(known)) or "none"
            raise DataError(f"no format of these files has an option {name!r}; they have: {allowed}")
    return found


def _part(
    file: Path,
    source: str,
    format: str | None,
    images: Path | None,
    expected: int | None,
    follow_links: bool,
    options: Mapping[str, Any] | None,
) -> Part:
    container = open_container(file)
    if format is not None:
        chosen = get_format(format)
    else:
        chosen = format_of_row((found.value for found in islice(container.rows(), 20)), str(file))
    # Where formats were recognised file by file, each takes the settings that it has; `parts` refuses those nobody has.
    given = options if format is not None else {k: v for k, v in (options or {}).items() if k in chosen.options}
    tables = chosen.tables(file) if chosen.tables else {}
    folder = file.parent.parent if tables and not (file.parent / "test.jsonl").is_file() else file.parent
    context = Context(
        source=source,
        path=file,
        domain=source,
        root=images if images is not None else folder,
        follow_links=follow_links,
        options=settings_of(chosen, given),
        tables=tables,
    )
    return Part(container, chosen, context, expected)
