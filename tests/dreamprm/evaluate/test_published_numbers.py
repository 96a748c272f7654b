"""Selectors on real chains: numbers that were published or counted by others, to their last digit.

The data are not the project's own; without DREAMPRM_DATA (the folder that holds them) these tests are skipped.
"""

from __future__ import annotations

import gzip
import json
import os
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from dreamprm.data.readers import read
from dreamprm.data.record import Record
from dreamprm.evaluate import Candidates, best_of_n_table, block_accuracies
from dreamprm.evaluate.best_of_n import question_accuracies
from dreamprm.evaluate.steps import auc
from dreamprm.selection import chain_scores


def _folder(name: str) -> Path:
    beside = Path(__file__).parents[4] / "shared" / "data"
    folder = Path(os.environ.get("DREAMPRM_DATA") or beside) / name
    if not folder.is_dir():
        pytest.skip(f"no real data in {folder}; set DREAMPRM_DATA to their folder")
    return folder


@pytest.fixture(scope="module")
def seven_prms() -> tuple[list[Record], dict[str, list[list[float]]]]:
    """16,000 chains for 500 GSM8K questions and the step scores of seven published PRMs."""
    records: list[Record] = []
    scores: dict[str, list[list[float]]] = {}
    with gzip.open(_folder("seven_prms") / "gsm8k.jsonl.gz", "rt", encoding="utf-8") as stream:
        for line in stream:
            row = json.loads(line)
            given = {name: row[name] for name in ("question", "reference", "answer", "correct")}
            records.append(
                Record(
                    key=f"{row['problem']} {row['candidate']}",
                    source="gsm8k",
                    domain="gsm8k",
                    group=row["problem"],
                    steps=tuple(row["steps"]),
                    **given,
                )
            )
            for name, values in row["scores"].items():
                scores.setdefault(name, []).append(values)
    return records, scores


# Best-of-8 (four blocks of eight) and AUC against the outcome, by the last step and by the minimum.
SEVEN = {
    "internlm2_1_8b_reward": (0.850, 0.556, 0.828, 0.519),
    "internlm2_7b_reward": (0.872, 0.672, 0.840, 0.512),
    "math_shepherd": (0.848, 0.682, 0.851, 0.685),
    "rlhflow_prm": (0.849, 0.682, 0.853, 0.725),
    "skywork_prm_1_5b": (0.877, 0.731, 0.855, 0.721),
    "qwen_prm": (0.898, 0.738, 0.878, 0.733),
    "skywork_prm": (0.896, 0.781, 0.864, 0.765),
}


@pytest.mark.parametrize("name", SEVEN)
def test_seven_prms(seven_prms: tuple[list[Record], dict[str, list[list[float]]]], name: str) -> None:
    records, scores = seven_prms
    right = np.asarray([bool(record.correct) for record in records])
    found = []
    for how in ("last", "min"):
        made = Candidates.of_records(records, scores[name], how)
        found.append(float(block_accuracies(made, 8)["prm"].mean()))
        found.append(auc(right, chain_scores(scores[name], how)))
    assert [round(value, 3) for value in found] == list(SEVEN[name])


def test_seven_prms_every_number_of_candidates(
    seven_prms: tuple[list[Record], dict[str, list[list[float]]]],
) -> None:
    records, scores = seven_prms
    made = Candidates.of_records(records, scores["qwen_prm"], "last")
    start = time.perf_counter()
    table = best_of_n_table(made, None)
    assert time.perf_counter() - start < 60
    assert len(table["prm"]) == 32
    assert round(table["policy"]["32"]["value"], 3) == 0.842
    assert round(table["oracle"]["32"]["value"], 3) == 0.962
    # Four blocks of eight are four of the ten million subsets of eight: close to their mean, not equal to it.
    assert table["prm"]["8"]["value"] == pytest.approx(SEVEN["qwen_prm"][0], abs=0.01)
    constant = question_accuracies(Candidates.of_records(records, [[0.1] * len(r.steps) for r in records]), [8])
    assert (constant["prm"][8] == constant["policy"][8]).all()


def _judged(path: Path) -> list[Record]:
    return [record for record in read(path, on_bad_row="skip") if record.correct is not None]


def _table(records: list[Record], number: int) -> tuple[float, float, float]:
    table = best_of_n_table(Candidates.of_records(records, [[0.5]] * len(records)), [number], num_resamples=2)
    random, majority, oracle = (
        table[method][str(number)]["value"] for method in ("policy", "self_consistency", "oracle")
    )
    assert table["prm"][str(number)]["value"] == random, "a constant score chooses at random"
    return random, majority, oracle


def test_mathvision() -> None:
    # Published are figures of one draw of four out of six per question; ours are over all fifteen, and 619 draws of
    # 0 or 1 that share their questions differ from that by about .003.
    found = _table(_judged(_folder("mathvision")), 4)
    assert found == pytest.approx((0.287, 0.355, 0.791), abs=0.003)


def test_mr_ben() -> None:
    random, _, oracle = _table(_judged(_folder("mr_ben")), 3)
    # Published is the mean over 4,296 rows; ours is over 1,435 questions, of which ten have two rows in place of three
    # (one because its third names a step that does not exist): each may shift the mean by 1/6 of 1/1,435.
    assert (random, oracle) == pytest.approx((0.401, 0.635), abs=5e-4 + 10 / 6 / 1435)


def test_date_questions() -> None:
    records = _judged(_folder("verify_cot") / "date_np.json")
    questions = [replace(record, group=str(record.extra["id"])) for record in records]
    assert [round(value, 3) for value in _table(questions, 10)] == [0.624, 0.703, 0.829]
