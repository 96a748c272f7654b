"""The verdict says no where there is no signal, yes where there is one, and nothing where it cannot tell."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from dreamprm.data.record import Record
from dreamprm.evaluate.intervals import Interval
from dreamprm.evaluate.verdict import BETTER, NO_GAIN, NO_SIGNAL, Evidence, change_of, step_change_of, verdict


def _records(num_questions: int = 100, per_question: int = 4) -> list[Record]:
    return [
        Record(key=f"{q}-{c}", source="s", domain="d", group=f"q{q}", question="?", steps=("a",), correct=c % 2 == 0)
        for q in range(num_questions)
        for c in range(per_question)
    ]


def _scores(records: list[Record], apart: float, seed: int) -> list[float]:
    """Scores of right chains lie `apart` standard deviations above those of wrong ones."""
    rng = np.random.default_rng(seed)
    return [float(rng.normal(apart * bool(record.correct))) for record in records]


def _evidence(
    before: float = 0.2, after: float = 1.5, fall: float = 0.2, num_questions: int = 100, seed: int = 0
) -> Evidence:
    records = _records(num_questions)
    rng = np.random.default_rng(seed)
    losses = rng.normal(0.5, 0.2, len(records))
    return Evidence(
        learns=True,
        outer_updates=100,
        skipped=0,
        meta=change_of(records, _scores(records, before, seed), _scores(records, after, seed + 1)),
        losses_before=losses.tolist(),
        losses_after=(losses - fall + rng.normal(0, 0.1, len(records))).tolist(),
        clusters=[record.group for record in records],
    )


def test_a_good_run() -> None:
    found = verdict(_evidence())
    assert found.startswith("the meta set gave a signal: the outer loss went from 0.493 to 0.291")
    assert "not to be trusted" not in found
    assert "no test set to confirm it" in found


def test_a_prm_at_chance_on_the_meta_set() -> None:
    found = verdict(_evidence(after=0.0))
    assert found.startswith(NO_SIGNAL)
    assert NO_SIGNAL == "the meta set gave no usable signal: weights are not to be trusted"


def test_it_rarely_believes_in_chance() -> None:
    # One side of a 95 % interval is wrong in 2.5 % of all cases: more than five of 40 are seen once in 2,000 trials.
    found = [verdict(_evidence(after=0.0, num_questions=40, seed=seed)) for seed in range(40)]
    believed = sum(not sentence.startswith(NO_SIGNAL) for sentence in found)
    assert believed <= 5


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"learns": False}, "no weights were learned"),
        ({"outer_updates": 0}, "no outer update was made"),
        ({"skipped": 60}, "60 of 100 outer updates were left out, their gradient not finite: weights are not to be"),
        ({"meta": None}, NO_SIGNAL),
    ],
)
def test_what_comes_before_any_figure(changes: dict[str, object], words: str) -> None:
    assert verdict(dataclasses.replace(_evidence(), **changes)).startswith(words)


def test_an_outer_loss_that_rose_or_stood_still() -> None:
    assert "worse: weights are not to be trusted" in verdict(_evidence(fall=-0.2))
    still = verdict(_evidence(fall=0.0))
    assert "nothing shows that the weights helped; compare with weigher=uniform" in still


def test_a_small_meta_set_decides_nothing() -> None:
    assert "too small to say whether it gave a signal (9 questions" in verdict(_evidence(num_questions=9))


def test_the_test_set_has_the_last_word() -> None:
    records = _records()
    better, worse = (
        change_of(records, _scores(records, one, 5), _scores(records, two, 6)) for one, two in ((0.5, 1.5), (1.5, 0.5))
    )
    at_chance = change_of(records, _scores(records, 0.0, 5), _scores(records, 0.0, 6))
    gain = Interval(0.1, 0.05, 0.15, 100)
    good = verdict(dataclasses.replace(_evidence(), test=better, gain=gain, num_candidates=8))
    assert "on the test set AUC" in good
    assert "best of 8 against the policy alone +0.100 (0.050 to 0.150)" in good
    assert "not to be trusted" not in good
    assert "worse than before: weights are not to be trusted" in verdict(dataclasses.replace(_evidence(), test=worse))
    assert "as chance may: weights are not to be trusted" in verdict(dataclasses.replace(_evidence(), test=at_chance))


def test_a_prm_that_was_trained_on_the_meta_set_is_judged_by_the_test_set() -> None:
    records = _records()
    better, worse, same = (
        change_of(records, _scores(records, one, 5), _scores(records, two, 5 + (one != two)))
        for one, two in ((0.5, 1.5), (1.5, 0.5), (0.7, 0.7))
    )
    sighted, blind = (change_of(records, _scores(records, one, 5), _scores(records, 1.5, 6)) for one in (0.7, 0.0))
    given = dataclasses.replace(_evidence(), trained_on_meta=True, meta=sighted)
    assert verdict(given).startswith("there is no test set, and nothing else says what the PRM is worth")
    assert "as chance may, and there is no test set: nothing shows that its weights are to be trusted" in verdict(
        dataclasses.replace(given, meta=blind)
    )
    assert verdict(dataclasses.replace(given, meta=blind, test=better)).startswith(BETTER)
    good = verdict(dataclasses.replace(given, test=better))
    assert good.startswith(f"{BETTER}: on the test set AUC")
    assert "gave a signal" not in good
    assert "worse than before: weights are not to be trusted" in verdict(dataclasses.replace(given, test=worse))
    assert "no more than chance may" in verdict(dataclasses.replace(given, test=same))


def test_steps_that_are_judged_worse_overrule_the_meta_set() -> None:
    records = [dataclasses.replace(record, labels=(float(bool(record.correct)),)) for record in _records()]
    scores = {apart: [[score] for score in _scores(records, apart, 7)] for apart in (0.3, 1.5)}
    worse, better = step_change_of(records, scores[1.5], scores[0.3]), step_change_of(records, scores[0.3], scores[1.5])
    assert worse is not None
    assert worse.change.high < 0 < worse.before.value - worse.after.value
    found = verdict(dataclasses.replace(_evidence(), steps=worse))
    assert "steps are told apart with AUC" in found
    assert found.endswith("worse than before: weights are not to be trusted")
    assert "not to be trusted" not in verdict(dataclasses.replace(_evidence(), steps=better))
    # Half of the labels say nothing: the same steps as if they were not there.
    half = [dataclasses.replace(record, labels=(0.5,)) if row % 8 > 3 else record for row, record in enumerate(records)]
    kept = [row for row in range(len(records)) if row % 8 <= 3]
    some = step_change_of([records[row] for row in kept], *([scores[a][row] for row in kept] for a in (1.5, 0.3)))
    assert step_change_of(half, scores[1.5], scores[0.3]) == some
    assert step_change_of([dataclasses.replace(record, labels=()) for record in records], *scores.values()) is None


def test_best_of_n_that_is_not_above_the_policy_is_no_gain() -> None:
    for low, said in ((-0.05, True), (0.0, True), (0.01, False)):
        given = dataclasses.replace(_evidence(), gain=Interval(0.02, low, 0.09, 100), num_candidates=8)
        assert (NO_GAIN in verdict(given)) is said


def test_one_outcome_has_no_area() -> None:
    records = [dataclasses.replace(record, correct=True) for record in _records(3)]
    assert change_of(records, [0.0] * 12, [0.0] * 12) is None
