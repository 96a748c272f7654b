"""Pools: questions never stand in two sets, whatever source or name they come under."""

from __future__ import annotations

from typing import Any

import pytest

from dreamprm.data.pool import from_outcome, split_pool, thin_out


@pytest.fixture
def sources(make_record: Any) -> list[list[Any]]:
    labelled = [
        make_record(f"a{n}", group=f"g{n // 3}", question=f"question {n // 3}", labels=(1.0, 0.0), correct=n % 2 == 0)
        for n in range(60)
    ]
    unjudged = [
        make_record(f"b{n}", group=f"h{n // 2}", question=f"other {n // 2}", labels=(1.0, 1.0)) for n in range(20)
    ]
    # The same questions under other group names, and no step labels.
    outcome = [make_record(f"c{n}", group=f"k{n}", question=f" QUESTION  {n}", correct=True) for n in range(20)]
    return [labelled, unjudged, outcome]


@pytest.mark.parametrize("seed", [0, 1])
def test_no_question_is_in_two_sets(sources: list[list[Any]], seed: int) -> None:
    split = split_pool(sources, meta=0.2, test=0.3, seed=seed)
    texts = [{" ".join(r.question.casefold().split()) for r in part} for part in (split.train, split.meta, split.test)]
    assert all(texts)
    assert not texts[0] & texts[1]
    assert not texts[0] & texts[2]
    assert not texts[1] & texts[2]
    assert all(any(label is not None for label in record.labels) for record in split.train)
    assert all(record.correct is not None for record in split.meta)
    assert {record.key[0] for record in split.test} == {"a", "b", "c"}, "every source has its part of the test set"


def test_a_split_depends_on_the_seed_alone(sources: list[list[Any]]) -> None:
    again = split_pool([list(reversed(source)) for source in sources], meta=0.2, test=0.3, seed=0)
    first = split_pool(sources, meta=0.2, test=0.3, seed=0)
    assert {r.key for r in first.test} == {r.key for r in again.test}
    assert {r.key for r in first.test} != {r.key for r in split_pool(sources, meta=0.2, test=0.3, seed=1).test}


def test_questions_that_share_a_premise_stay_together_and_are_judged_apart(make_record: Any) -> None:
    records = [
        make_record(
            f"d{n}",
            group=f"premise {n // 6}",
            question=f"asked {n // 2}",
            correct=bool(n % 2),
            extra={"question_group": f"q{n // 2}"},
        )
        for n in range(60)
    ]
    split = split_pool([records], meta=0.2, test=0.3, seed=0)
    assert len(split.test) == 18
    assert {len([r for r in split.test if r.group == g]) for g in {r.group for r in split.test}} == {2}
    assert len({r.extra["cluster"] for r in split.test}) == 3
    assert {r.extra["cluster"] for r in split.test}.isdisjoint(r.extra["cluster"] for r in split.meta)


def test_thinning_keeps_whole_questions(sources: list[list[Any]]) -> None:
    kept = thin_out(sources[0], 10)
    assert len(kept) == 12, "the question that passes the limit is kept whole"
    assert {sum(r.group == group for r in kept) for group in {r.group for r in kept}} == {3}
    assert [r.key for r in thin_out(list(reversed(sources[0])), 10)] == [r.key for r in reversed(kept)]


def test_an_outcome_labels_every_step(make_record: Any) -> None:
    record = from_outcome(make_record("a", ("x", "y"), correct=False), "outcome")
    assert record.labels == (0.0, 0.0)
    assert record.domain == "outcome"
