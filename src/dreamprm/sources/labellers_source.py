"""Chains whose steps several labellers have scored: a training question belongs to one labeller, which is its domain.

The file (seven_prms: GSM8K, 32 chains a question, seven published PRMs) holds rows of `problem, candidate, question,
reference, steps, answer, correct, scores{labeller: [per step]}`. Whole questions are held out as meta and as test set,
of which the outcome is known and no label.
"""

from __future__ import annotations

import functools
import gzip
import json
import os
import random
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dreamprm.data.file_data import DataSettings
from dreamprm.data.record import Record
from dreamprm.errors import UserError
from dreamprm.setting import setting
from dreamprm.sources.pool_source import DATA_VARIABLE
from dreamprm.sources.source import Source

__all__ = ["LabellersData", "LabellersSource", "Row", "read_rows"]

FILE = "seven_prms/gsm8k.jsonl.gz"
Row = Mapping[str, Any]


@dataclass
class LabellersData(DataSettings):
    """Questions of several labellers (`meta=held_out`)."""

    kind: str = "labellers"
    path: str | None = setting(None, f"the file, or the folder of {FILE}; null takes the environment's DREAMPRM_DATA")
    seed: int = setting(0, "which questions are held out, and whose the others are", least=0)
    num_questions: int | None = setting(None, "only that many questions; null: all", least=3)
    num_candidates: int = setting(4, "training chains of a question", least=1)
    num_judged: int = setting(8, "meta and test chains of a question", least=1)
    meta_share: float = setting(0.2, "share of the questions that are the meta set", above=0, below=1)
    test_share: float = setting(0.3, "share of the questions that are the test set", above=0, below=1)
    hard: bool = setting(False, "labels cut at one half, instead of the scores themselves")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.meta_share + self.test_share >= 1:
            raise ValueError(
                "meta_share and test_share must leave something to train on, are "
                f"{self.meta_share} and {self.test_share}"
            )


class LabellersSource(Source):
    """Its meta set is the one that it holds out (`meta=held_out`)."""

    def lacking(self) -> str:
        try:
            place_of(self.settings.path)
        except UserError as error:
            return str(error)
        return ""

    def train(self) -> Sequence[Record]:
        found: list[Record] = []
        for place, rows in enumerate(self._parts[0]):
            labellers = sorted(rows[0]["scores"])
            owner = labellers[place % len(labellers)]
            for row in rows[: self.settings.num_candidates]:
                scores = [float(score) for score in row["scores"][owner]]
                labels = [float(score >= 0.5) for score in scores] if self.settings.hard else scores
                found.append(_record(row, domain=owner, labels=tuple(labels)))
        return found

    def held_out(self) -> Sequence[Record]:
        return self._judged(1)

    def test(self) -> Sequence[Record]:
        return self._judged(2)

    def _judged(self, part: int) -> list[Record]:
        rows = [row for found in self._parts[part] for row in found[: self.settings.num_judged]]
        return [_record(row, domain="", labels=(), correct=bool(row["correct"])) for row in rows]

    @functools.cached_property
    def _parts(self) -> tuple[list[Sequence[Row]], ...]:
        """The questions to train on, of the meta set and of the test set."""
        given: Any = self.settings
        questions = read_rows(place_of(given.path))
        order = sorted(questions)
        random.Random(given.seed).shuffle(order)
        order = order[: given.num_questions]
        num_test, num_meta = (max(1, round(share * len(order))) for share in (given.test_share, given.meta_share))
        cuts = (order[num_test + num_meta :], order[num_test : num_test + num_meta], order[:num_test])
        return tuple([questions[name] for name in names] for names in cuts)


def place_of(path: str | Path | None) -> Path:
    """The file. Raises UserError, one line, where none is set and where it is not there."""
    given = path or os.environ.get(DATA_VARIABLE)
    if not given:
        raise UserError(f"set data.path, or {DATA_VARIABLE}, to the folder that holds {FILE}")
    file = Path(given) / FILE if Path(given).is_dir() else Path(given)
    if not file.is_file():
        raise UserError(f"{file} not found: set data.path, or {DATA_VARIABLE}, to the folder that holds {FILE}")
    return file


def read_rows(file: Path) -> dict[str, list[Row]]:
    """The candidates of every question, in order. Raises UserError naming the line that is not of this kind."""
    found: dict[str, list[Row]] = defaultdict(list)
    with gzip.open(file, "rt", encoding="utf-8") as lines:
        number = 0
        try:
            for number, line in enumerate(lines, 1):  # noqa: B007
                row = json.loads(line)
                lengths = {name: len(values) for name, values in row["scores"].items()}
                if set(lengths.values()) != {len(row["steps"])}:
                    raise ValueError(f"{len(row['steps'])} steps, but scores {lengths}")
                if not {"candidate", "question", "correct"} <= row.keys():
                    raise KeyError("candidate, question, correct")
                found[row["problem"]].append(row)
        except (ValueError, KeyError, TypeError, AttributeError, OSError) as error:
            raise UserError(
                f"{file}, line {number}: {error}; problem, candidate, question, steps, correct and scores of every "
                "step are expected"
            ) from None
    return {name: sorted(rows, key=lambda row: row["candidate"]) for name, rows in found.items()}


def _record(row: Row, *, domain: str, labels: tuple[float, ...], correct: bool | None = None) -> Record:
    return Record(
        key=f"{row['problem']}:{row['candidate']}",
        source="seven_prms",
        domain=domain,
        group=row["problem"],
        question=row["question"],
        steps=tuple(row["steps"]),
        labels=labels,
        correct=correct,
        answer=row.get("answer"),
        reference=row.get("reference"),
    )
