"""Readers on real bytes reproduce the figures that were measured on them."""

from __future__ import annotations

import statistics
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from itertools import combinations
from pathlib import Path

import pytest

from dreamprm.data.readers import BadRows, load_image, read
from dreamprm.data.record import Record

ROUNDED = 6e-4
"""Figures are given to three digits; a bad row left out of 828 shifts a mean by up to 4e-4."""


def _groups(records: Iterable[Record]) -> list[list[Record]]:
    groups: dict[str, list[Record]] = defaultdict(list)
    for record in records:
        groups[record.group].append(record)
    return list(groups.values())


def _majority(chains: Sequence[Record]) -> float:
    """Share of right answers among the most frequent ones: what voting gains, ties broken at random."""
    votes = Counter(chain.answer for chain in chains)
    most = max(votes.values())
    top = [answer for answer, count in votes.items() if count == most]
    right = {chain.answer for chain in chains if chain.correct}
    return sum(answer in right for answer in top) / len(top)


def test_mathvision(real_data: Path) -> None:
    groups = _groups(read(real_data / "mathvision"))
    assert len(groups) == 619
    assert {len(group) for group in groups} == {6}
    assert all(any(c.correct for c in group) and not all(c.correct for c in group) for group in groups)
    # Best of four out of the six, over all fifteen choices. The published figures are of one draw of four per
    # question: 619 draws of 0 or 1 that share their questions differ from the expectation by about .003.
    drawn = [list(combinations(group, 4)) for group in groups]
    chance = statistics.fmean(bool(c.correct) for group in groups for c in group)
    majority = statistics.fmean(_majority(pick) for picks in drawn for pick in picks)
    oracle = statistics.fmean(any(c.correct for c in pick) for picks in drawn for pick in picks)
    assert (chance, majority, oracle) == pytest.approx((0.287, 0.355, 0.791), abs=0.003)
    blind = {c.extra["policy"] for group in groups for c in group if not c.extra["saw_image"]}
    assert blind == {"gpt-3.5-turbo-0125", "gpt-4-0125-preview"}
    image = load_image(groups[0][0].images[0])
    assert image.mode == "RGB"
    assert image.width > 32


def test_mr_ben(real_data: Path) -> None:
    bad = BadRows("skip")
    records = list(read(real_data / "mr_ben", on_bad_row=bad))
    assert bad.count == 1
    assert "names step 5 of a chain of 4 steps" in str(bad.first[0])
    assert sum(record.correct is False for record in records) == 2571
    right = {
        domain: statistics.fmean(bool(r.correct) for r in records if r.domain == domain)
        for domain in ("math", "physics", "biology", "chemistry", "medicine")
    }
    expected = {"math": 0.162, "physics": 0.478, "biology": 0.596, "chemistry": 0.450, "medicine": 0.310}
    assert right == pytest.approx(expected, abs=1.2e-3)
    groups = _groups(records)
    assert len(groups) == 1435
    assert statistics.fmean(bool(r.correct) for r in records) == pytest.approx(0.401, abs=ROUNDED)
    assert statistics.fmean(any(c.correct for c in group) for group in groups) == pytest.approx(0.635, abs=ROUNDED)
    for record in records:
        first = record.extra["first_error"]
        assert first is None or (record.labels[first] == 0.0 and set(record.labels[:first]) <= {1.0})


def test_verify_cot(real_data: Path) -> None:
    records = list(read(real_data / "verify_cot" / "date_np.json"))
    assert len({record.group for record in records}) == 41
    questions: dict[str, list[Record]] = defaultdict(list)
    for record in records:
        questions[record.extra["id"]].append(record)
    assert len(questions) == 369
    assert {len(chains) for chains in questions.values()} == {10}
    mean = statistics.fmean(bool(r.correct) for r in records)
    majority = statistics.fmean(_majority(chains) for chains in questions.values())
    oracle = statistics.fmean(any(c.correct for c in chains) for chains in questions.values())
    assert (mean, majority, oracle) == pytest.approx((0.624, 0.703, 0.829), abs=ROUNDED)


def test_verify_cot_human(real_data: Path) -> None:
    records = list(read(real_data / "verify_cot" / "human_annotation"))
    assert Counter(record.domain for record in records) == dict.fromkeys(
        ("MATH", "addsub", "aqua_rat", "date", "gsm8k", "last_letters"), 100
    )
    assert sum(record.extra["valid"] for record in records) == 300
    assert all(record.labels[-1] == float(record.extra["valid"]) for record in records)


def test_prmbench(real_data: Path) -> None:
    bad = BadRows("skip")
    records = list(read(real_data / "prmbench", on_bad_row=bad))
    assert len(records) + bad.count == 3013
    assert bad.count == 43
    assert all("of a chain of" in error.reason for error in bad.first)
    right = [record for record in records if record.extra["first_error"] is None]
    assert {record.domain for record in right} == {"multi_solutions"}
    assert len(right) == 165
    names: dict[str, set[str]] = defaultdict(set)
    for record in records:
        names[record.extra["id"]].add(record.group)
    assert {len(groups) for groups in names.values()} == {1}, "all rows of a question stand in one group"
    assert len({record.group for record in records}) == 307


def test_the_published_meta_sets(real_data: Path) -> None:
    pro = list(read(real_data / "dreamprm_meta" / "meta_MMMU_Pro.json"))
    groups = _groups(pro)
    assert (len(pro), len(groups)) == (1656, 414)
    assert Counter(record.correct for record in pro) == {True: 834, False: 822}
    assert sum(len(record.extra["text"]) == 1 for record in pro) == 896
    assert sum(len({c.correct for c in group}) == 2 for group in groups) == 148
    assert not any(record.labels for record in pro)
    first = list(read(real_data / "dreamprm_meta" / "DreamPRM_meta.json"))
    assert (len(first), len({r.group for r in first})) == (500, 371)
    assert sum(not record.steps for record in first) == 372
    assert all(record.correct for record in first if record.steps)
