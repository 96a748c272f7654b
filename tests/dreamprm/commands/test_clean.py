"""`clean`: a run's weights go back into the file that it trained on, in that file's own format."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dreamprm.commands.clean import CleanStage, clean
from dreamprm.data.host_rows import WEIGHT
from dreamprm.data.readers import read
from dreamprm.errors import ConfigError, UserError

ROWS = [
    {"question": f"{n} and 1 ?", "steps": [f"{n} and 1 is {n + 1}", f"answer {n + 1}"], "labels": [1.0, n % 2 * 1.0]}
    for n in range(6)
]
WEIGHTS = [0.5, 1.75, 0.25, 1.0, 0.0, 1.5]


def write(path: Path) -> Path:
    if path.suffix == ".jsonl":
        # Spaces as a user's own file may have them: a cut must not touch them. One blank line counts as a line.
        lines = [json.dumps(row, indent=None, separators=(" , ", " : ")) for row in ROWS]
        path.write_text("\n".join([*lines[:3], "", *lines[3:]]))
    elif path.suffix == ".json":
        path.write_text(json.dumps(ROWS, indent=1))
    elif path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(ROWS), path, row_group_size=2)
    else:
        with pa.OSFile(str(path), "wb") as sink:
            table = pa.Table.from_pylist(ROWS)
            with pa.ipc.new_stream(sink, table.schema) as writer:
                writer.write_table(table)
    return path


def run_of(data: Path, folder: Path, keep: int = len(ROWS)) -> str:
    keys = [record.key for record in read(data)][:keep]
    folder.mkdir()
    pq.write_table(pa.table({"key": keys, "weight": WEIGHTS[:keep]}), folder / "weights.parquet")
    (folder / "config.yaml").write_text(f"data: {{kind: files, path: {data}}}\n")
    return str(folder)


@pytest.mark.parametrize("ending", ["jsonl", "json", "parquet", "arrow"])
def test_a_cut_is_read_as_the_file_was_without_the_rows_of_low_weight(tmp_path, ending):
    data = write(tmp_path / f"train.{ending}")
    run = run_of(data, tmp_path / "run")
    whole = list(read(data))
    for settings in ({"below": 1.0}, {"keep": 0.5}):
        out = clean(CleanStage(run_dir=run, out=str(tmp_path / f"cut.{ending}"), **settings))
        left = list(read(out))
        assert [(r.question, r.steps, r.labels) for r in left] == [
            (r.question, r.steps, r.labels) for r, weight in zip(whole, WEIGHTS, strict=True) if weight >= 1.0
        ]
    if ending == "jsonl":
        assert set(out.read_text().splitlines()) < set(data.read_text().splitlines())
    if ending == "parquet":
        assert pq.read_schema(out).equals(pq.read_schema(data))


@pytest.mark.parametrize("ending", ["jsonl", "json", "parquet"])
def test_every_row_gets_its_weight(tmp_path, ending, capsys):
    data = write(tmp_path / f"train.{ending}")
    run = run_of(data, tmp_path / "run", keep=5)
    (tmp_path / "run" / "results.json").write_text('{"verdict": "weights are not to be trusted"}')
    out = clean(CleanStage(run_dir=run, out=str(tmp_path / f"weighted.{ending}")))
    assert "the run's verdict: weights are not to be trusted" in capsys.readouterr().out
    if ending == "parquet":
        rows = pq.read_table(out).to_pylist()
    else:
        text = out.read_text()
        rows = json.loads(text) if ending == "json" else [json.loads(line) for line in text.splitlines()]
    assert [row[WEIGHT] for row in rows] == [*WEIGHTS[:5], None]
    assert [{**row, WEIGHT: None} for row in rows] == [{**row, WEIGHT: None} for row in ROWS]


def test_what_cannot_be_cleaned_is_refused_with_the_way_out(tmp_path):
    data = write(tmp_path / "train.jsonl")
    run = run_of(data, tmp_path / "run")
    out = str(tmp_path / "cut.jsonl")
    with pytest.raises(ConfigError, match="give one of them"):
        clean(CleanStage(run_dir=run, out=out, below=1.0, keep=0.5))
    with pytest.raises(ConfigError, match="out is data itself"):
        clean(CleanStage(run_dir=run, out=str(data)))
    with pytest.raises(ConfigError, match="the format stays the same"):
        clean(CleanStage(run_dir=run, out=str(tmp_path / "cut.json")))
    with pytest.raises(UserError, match="run_dir"):
        clean(CleanStage(out=out))
    changed = tmp_path / "changed.jsonl"
    changed.write_text(data.read_text().replace("3 and 1", "3 and 2"))
    with pytest.raises(UserError, match=r"1 of 6 examples .* are not in it.*as it was when the run read it"):
        clean(CleanStage(run_dir=run, data=str(changed), out=out))
    assert not Path(out).exists()
