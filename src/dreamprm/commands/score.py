"""`score`: the PRM's score of every step of every candidate."""

from __future__ import annotations

import contextlib
import csv
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dreamprm.choices import Device, Precision
from dreamprm.commands.command import command
from dreamprm.commands.files import StageData
from dreamprm.data.record import Record
from dreamprm.progress import only_our_bars, say
from dreamprm.setting import Settings, setting

__all__ = ["ScoreStage", "main", "score"]


@dataclass
class ScoreStage(Settings):
    """The PRM's score of every step of every chain of `data`. A run that was killed goes on where it was."""

    prm: str | None = setting(None, "the folder prm/ of a run, or any model that PRM loads")
    endpoint: str | None = setting(None, "a server's address; of prm its tokenizer and prompt alone are read then")
    out: str = setting("scores.jsonl", "file that is appended to")
    table: str | None = setting(None, "a flat table too, one row per chain: a name that ends in .csv or .parquet")
    aggregate: str = setting("mean", "how step scores become the table's chain score: mean, min, last, product …")
    batch_size: int = setting(8, "chains scored at once", least=1)
    shard: str = setting("1/1", "i/n: the i-th of n equal parts; the last one to end joins them")
    overwrite: bool = setting(False, "whether an `out` of other settings is begun anew")
    device: Device = setting(Device.auto, "auto: a GPU where there is one")
    precision: Precision = setting(Precision.fp32, "bf16: autocast over fp32 parameters; pure_bf16: all in bf16")
    data: StageData = setting(StageData())


def score(settings: ScoreStage) -> Path:
    """Write the records of the data again with a score per step (`extra.step_scores`).

    Raises UserError where a score is not finite, naming the chain.
    """
    from dreamprm.commands.files import folder_digest, made_of, needed, read_records, record_row, require_other_file
    from dreamprm.commands.stage_output import write_stage
    from dreamprm.config.build import build_device
    from dreamprm.errors import ConfigError, UserError

    path = settings.prm
    if settings.endpoint is None:
        needed(path, "prm", "the folder prm/ of a run, or a model")
    if settings.table is not None and Path(settings.table).suffix not in (".csv", ".parquet"):
        raise ConfigError(f"table must end in .csv or .parquet, is {settings.table!r}")
    out = Path(settings.out)
    require_other_file(out, settings.data)
    only_our_bars()
    records = read_records(settings.data)
    size = settings.batch_size * 8
    about = made_of("score", settings, records, "prm", "aggregate") | {"prm": folder_digest(path or "")}
    device = build_device(settings.device)

    def make(units: Sequence[int], rows: list[dict[str, Any]]) -> Iterator[list[dict[str, Any]]]:
        if not units:
            return
        with _scorer(settings, device) as scorer:
            for unit in units:
                chosen = records[unit * size : (unit + 1) * size]
                scores = scorer(chosen)
                yield [record_row(out, record, found) for record, found in zip(chosen, scores, strict=True)]

    sizes = [min(size, len(records) - start) for start in range(0, len(records), size)]
    try:
        whole = write_stage(out, about, sizes, make, shard=settings.shard, overwrite=settings.overwrite)
    except ValueError as error:
        raise UserError(str(error)) from error
    if whole:
        if settings.table is not None:
            _write_table(out, Path(settings.table), settings.aggregate)
        say(f"{len(records)} chains with their step scores: {out}")
    return out


@contextlib.contextmanager
def _scorer(settings: ScoreStage, device: Any) -> Iterator[Any]:
    """records -> their step scores. Raises UserError where one is not finite."""
    import torch

    from dreamprm.errors import UserError
    from dreamprm.prm import PRM
    from dreamprm.serve.client import ScoreClient

    dtype = torch.bfloat16 if settings.precision is Precision.pure_bf16 else torch.float32
    path: Any = settings.prm
    try:
        far = settings.endpoint
        prm = PRM.from_pretrained(path, dtype=dtype).to(device) if far is None else ScoreClient(far, path)
    except OSError as error:
        raise UserError(str(error)) from error
    if isinstance(prm, ScoreClient):
        with prm:
            yield lambda records: prm.score_records(records, settings.batch_size)
        return

    def scores_of(records: Sequence[Record]) -> list[list[float]]:
        with torch.autocast(device.type, torch.bfloat16, enabled=settings.precision is Precision.bf16):
            found = prm.score_records(records, settings.batch_size)
        for record, steps in zip(records, found, strict=True):
            if not all(map(math.isfinite, steps)):
                raise UserError(f"record {record.key!r}: a score of {path} is not finite ({steps}); no more is written")
        return found

    yield scores_of


def _write_table(out: Path, path: Path, aggregate: str) -> None:
    """One row per chain: row, group, domain, answer, correct, number of steps, chain score, step scores."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    from dreamprm.commands.files import read_scores
    from dreamprm.files import replacing
    from dreamprm.prm import aggregation

    records, scores = read_scores(str(out))
    rows = [
        {
            "row": place,
            "group": record.group,
            "domain": record.domain,
            "answer": record.answer,
            "correct": record.correct,
            "num_steps": len(record.steps),
            "chain_score": aggregation.aggregate(steps, aggregate),
            "step_scores": steps,
        }
        for place, (record, steps) in enumerate(zip(records, scores, strict=True))
    ]
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as part:
        if path.suffix == ".parquet":
            pq.write_table(pa.Table.from_pylist(rows), part)
            return
        with part.open("w", newline="", encoding="utf-8") as stream:
            writer = csv.DictWriter(stream, list(rows[0]) if rows else ["row"])
            writer.writeheader()
            writer.writerows(row | {"step_scores": " ".join(map(str, row["step_scores"]))} for row in rows)


main = command("score", ScoreStage, score)
