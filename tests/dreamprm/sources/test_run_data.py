"""Files of many chains stay on disk; which rows train does not depend on whether they do."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import dreamprm.sources.file_source as files
from dreamprm.config import TrainConfig, resolve_train
from dreamprm.config.launch import compose_config
from dreamprm.data.readers import RecordStream
from dreamprm.errors import UserError
from dreamprm.sources import check_needs, load_data
from dreamprm.trainer.run import train

Settings = Callable[..., TrainConfig]


@pytest.fixture
def mixed(tmp_path: Path) -> Callable[..., TrainConfig]:
    """Settings of 40 rows of four domains: every fifth without a label, row 30 broken; a meta set of every second."""
    rows: list[dict[str, Any]] = [
        {"question": f"q {i}", "steps": ["a", "b"], "labels": [1, None] if i % 5 else [], "domain": "dbca"[i % 4]}
        for i in range(40)
    ]
    rows[30]["steps"] = [7]
    judged = [{"question": f"m {i}", "steps": ["a"], **({"correct": True} if i % 2 else {})} for i in range(10)]
    for name, lines in (("train", rows), ("meta", judged)):
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))

    def make(*overrides: str) -> TrainConfig:
        paths = [f"data.path={tmp_path}/train.jsonl", f"meta.path={tmp_path}/meta.jsonl"]
        given = ["data=files", "meta=files", *paths, "data.on_bad_row=skip", *overrides]
        return resolve_train(compose_config("train", given))

    return make


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        ((), [i for i in range(40) if i % 5 and i != 30]),
        (("data.limit=7",), [1, 2, 3, 4, 6]),
        (("data.max_per_domain=2",), [1, 2, 3, 4, 6, 7]),
        (("data.max_per_domain=2", "data.limit=4"), [1, 2, 3]),
    ],
    ids=["all", "limit", "per domain", "both"],
)
def test_the_same_rows_train_from_disk_and_from_memory(
    mixed: Settings, monkeypatch: pytest.MonkeyPatch, overrides: tuple[str, ...], expected: list[int]
) -> None:
    held = load_data(mixed(*overrides))
    monkeypatch.setattr(files, "_IN_MEMORY", 0)
    lazy = load_data(mixed(*overrides))
    assert isinstance(held.train, list)
    assert isinstance(lazy.train, RecordStream)
    assert [record.question for record in lazy.train] == [f"q {i}" for i in expected]
    assert list(lazy.train) == held.train
    assert list(lazy.meta) == held.meta
    assert [record.question for record in lazy.meta] == ["m 1", "m 3", "m 5", "m 7", "m 9"]
    assert lazy.domains == held.domains == sorted({record.domain for record in held.train})


def test_bad_rows_stop_or_are_listed(mixed: Settings, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"train\.jsonl, row 31, steps\[0\]: must be text"):
        load_data(mixed("data.on_bad_row=error"))
    load_data(mixed("data.on_bad_row=quarantine"))
    (listed,) = (tmp_path / "train.jsonl.bad_rows.jsonl").read_text().splitlines()
    assert json.loads(listed)["row"] == 31


def test_nothing_left_to_train_on_is_said(mixed: Settings) -> None:
    with pytest.raises(UserError, match="no training chain with a step label"):
        load_data(mixed("data.limit=1"))


def test_a_run_from_disk_is_the_run_from_memory(tiny_settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    results = []
    for place, run in enumerate(("held", "lazy")):
        monkeypatch.setattr(files, "_IN_MEMORY", files._IN_MEMORY * (1 - place))
        folder = train(tiny_settings("model.max_length=120", "model.leave_out_longer=true", run=run))
        assert folder is not None
        results.append([json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()])
    assert results[0] == results[1]


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (("data=files", "data.path=mine.jsonl"), "data=files and meta=world_meta do not go together.*set meta=files"),
        (("meta=files", "meta.path=mine.jsonl"), "data=world and meta=files do not go together.*set meta=world"),
    ],
    ids=["own chains, the world's meta set", "the world's chains, own meta set"],
)
def test_a_meta_set_of_another_task_is_refused_before_anything_is_read(
    overrides: tuple[str, ...], message: str
) -> None:
    # The files do not exist: it is refused before they are looked for.
    with pytest.raises(UserError, match=message) as caught:
        check_needs(resolve_train(compose_config("train", list(overrides))))
    assert "\n" not in str(caught.value)
