"""Data that cannot work are refused in one line, before a model is loaded; and what is near them is not."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import dreamprm.sources.file_source as files
from dreamprm.config import TrainConfig, resolve_train
from dreamprm.config.launch import compose_config
from dreamprm.errors import UserError
from dreamprm.sources import load_data
from dreamprm.sources.refusals import refuse, shared_questions
from dreamprm.trainer.run import train

Rows = list[dict[str, Any]]


def _train(count: int = 12, **changes: Any) -> Rows:
    return [
        {"question": f"What is {i} + 1?", "steps": ["a", "b"], "labels": [1, i % 2]} | changes for i in range(count)
    ]


def _meta(count: int = 12, first: int = 100, **changes: Any) -> Rows:
    return [
        {"question": f"What is {first + i} + 1?", "steps": ["a"], "correct": i % 3 > 0} | changes for i in range(count)
    ]


@pytest.fixture
def settings(tmp_path: Path) -> Callable[..., TrainConfig]:
    """`settings(training rows, meta rows, "name=value", …)`: a run on these rows; its model is an empty folder."""

    def make(rows: Rows, meta: Rows, *overrides: str) -> TrainConfig:
        for name, lines in (("train", rows), ("meta", meta)):
            (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
        (tmp_path / "no_model").mkdir(exist_ok=True)  # there, but no model
        given = [f"data.path={tmp_path}/train.jsonl", f"meta.path={tmp_path}/meta.jsonl", f"run_dir={tmp_path}/run"]
        sizes = [f"{name}.batch_size=4" for name in ("cold", "inner", "outer")]
        small = ["data=files", "meta=files", f"model.path={tmp_path}/no_model", *given, *sizes, *overrides]
        if "meta=held_out" in overrides:
            small = [item for item in small if not item.startswith(("meta=files", "meta.path="))]
        return resolve_train(compose_config("train", small))

    return make


Settings = Callable[..., TrainConfig]


@pytest.mark.parametrize(
    ("rows", "meta", "overrides", "message"),
    [
        (_train(labels=[1, 1]), _meta(), (), "every step label of the training chains is 1"),
        (_train(labels=[0.5, None]), _meta(), (), "every step label of the training chains is 0.5"),
        (_train(), _meta(correct=True), (), "all 12 meta chains are right"),
        (_train(), _meta(correct=False), (), "all 12 meta chains are wrong"),
        (_train(), _meta(first=10), (), r"the training and the meta set share 2 questions, e.g. 'What is 10 \+ 1\?'"),
        (_train(), _meta(), ("inner.batch_size=13",), "13 chains .* larger than the 12 training chains"),
        (
            _train(),
            _meta(),
            ("outer.batch_size=4", "outer.accumulate=4"),
            "16 chains .* the 12 meta chains",
        ),
        (
            _train(),
            _meta(),
            ("weigher=trust", "hypergradient=jvp", "weigher.num_steps=1"),
            r"longest training chain has 2 steps \(train:.*table is 1 steps wide: set weigher.num_steps=2",
        ),
        (_train(), _meta(), ("cold.batch_size=40",), "40 chains .* larger than the 12 cold-start chains"),
        (_train(images=["gone.png"]), _meta(), (), r"data: 12 of 12 chains .*gone\.png .* set data\.images"),
        (_train(), _meta(images=["gone.png"]), (), r"meta: 12 of 12 chains .* set meta\.images"),
    ],
)
def test_it_is_refused_before_the_model_is_loaded(
    settings: Settings, rows: Rows, meta: Rows, overrides: tuple[str, ...], message: str
) -> None:
    with pytest.raises(UserError, match=message) as caught:
        train(settings(rows, meta, *overrides))
    assert "\n" not in str(caught.value)


def test_what_is_right_gets_as_far_as_the_model(settings: Settings, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(UserError, match="no_model"):
        train(settings(_train(), _meta()))
    lines = capsys.readouterr().out.splitlines()
    found = [line.strip() for line in lines if line.startswith("  ")]
    assert found == [
        "training: 12 chains of 12 questions, 1 domain; 24 step labels, 75% right; "
        "50% of the chains are labelled all alike",
        "meta set: 12 chains of 12 questions, 67% right; 0 questions have right and wrong chains",
        "test set: none",
    ]
    assert "loading the model" in lines[-1]


def test_without_weights_to_learn_no_meta_set_is_needed(settings: Settings) -> None:
    uniform = settings(_train(), _meta(), "weigher=uniform", "meta.path=null")
    data = load_data(uniform)
    assert list(data.meta) == []
    refuse(data, {"inner": 4}, weighs=False)


def test_chains_without_their_images_are_left_out_where_asked(
    settings: Settings, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = _train(images=["there.png"])
    rows[3]["images"] = ["gone.png"]
    (tmp_path / "there.png").write_bytes(b"not looked into here")
    data = load_data(settings(rows, _meta(), "data.on_missing_image=skip"))
    assert [record.question for record in data.train] == [f"What is {i} + 1?" for i in range(12) if i != 3]
    assert "data: 1 of 12 chains left out, their images are not there" in capsys.readouterr().out


def test_the_same_words_with_another_image_are_another_question(settings: Settings, tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "0.png").write_bytes(name.encode())
    first, second = (
        load_data(settings(_train(1, question="What is shown?", images=[f"{name}/0.png"]), _meta())).train[0]
        for name in ("a", "b")
    )
    assert shared_questions([first], [second]) == []
    (tmp_path / "b" / "0.png").write_bytes(b"a")  # the same picture under another name
    assert shared_questions([first], [second]) == [first]
    assert shared_questions([first], [dataclasses.replace(second, question=" what is  SHOWN? ")]) == [first]


def test_questions_held_out_of_own_files(settings: Settings) -> None:
    rows = [row | {"correct": bool(i % 2), "group": f"q{i // 2}"} for i, row in enumerate(_train(40))]
    shares = ("meta=held_out", "data.meta_share=0.25", "data.test_share=0.25")
    data = load_data(settings(rows, [], *shares))
    sets = [{record.group for record in part} for part in (data.train, data.meta, data.test)]
    assert [len(groups) for groups in sets] == [10, 5, 5]
    assert len(set.union(*sets)) == 20


def test_an_own_test_set(settings: Settings, tmp_path: Path) -> None:
    lines = [{"question": f"T {i}?", "steps": ["a"], "correct": bool(i % 2)} for i in range(6)]
    (tmp_path / "test.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    data = load_data(settings(_train(), _meta(), f"test.path={tmp_path}/test.jsonl"))
    assert [record.question for record in data.test] == [f"T {i}?" for i in range(6)]


def test_files_that_stay_on_disk_are_compared_by_group(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "_IN_MEMORY", 0)
    with pytest.raises(UserError, match="share 2 questions"):
        train(settings(_train(), _meta(first=10)))
