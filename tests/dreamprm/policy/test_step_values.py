"""Labellers against a policy whose every completion is known: right up to the first error, wrong after it."""

from __future__ import annotations

import pytest

from dreamprm.data.record import Record
from dreamprm.policy.judge_steps import read_verdict
from dreamprm.policy.step_values import binary_search, every_prefix, run_labellers


def _record(num_steps: int) -> Record:
    return Record("k", "s", "d", "g", "q?", tuple(f"step {place}" for place in range(num_steps)), reference="1")


def _run(labeller, record: Record, first_wrong: int):
    """Completions of a prefix are right where it ends before step `first_wrong` (from 0)."""

    def complete(asks, records):
        good = [ask.prefix.response.count("\n") <= first_wrong for ask in asks]
        return [["right" if right else "wrong"] * ask.num for right, ask in zip(good, asks, strict=True)]

    return run_labellers([labeller], [record], complete, lambda record, text: text == "right")[0]


@pytest.mark.parametrize("first_wrong", range(9))
def test_binary_search_finds_every_first_error_with_fewer_completions(first_wrong: int) -> None:
    record = _record(9)
    truth = tuple(float(place < first_wrong) for place in range(9))
    full = _run(every_prefix(record, False, 4), record, first_wrong)
    searched = _run(binary_search(record, False, 4), record, first_wrong)
    assert full.values == searched.values == truth
    assert (full.used, full.full) == (32, 32)
    assert searched.used <= 4 * 4, "at most ceil(log2(9)) prefixes"


def test_a_right_chain_costs_a_search_nothing() -> None:
    record = _record(5)
    assert _run(binary_search(record, True, 4), record, 9).used == 0
    assert _run(binary_search(record, True, 4), record, 9).values == (1.0,) * 5


def test_early_stop_spends_nothing_behind_the_first_zero() -> None:
    record = _record(6)
    found = _run(every_prefix(record, False, 4, early_stop=True), record, 2)
    assert found.values == (1, 1, 0, 0, 0, 0)
    assert found.used == 3 * 4


def test_a_prefix_is_completed_again_while_all_agree() -> None:
    record = _record(3)
    calls: dict[str, int] = {}

    def complete(asks, records):
        texts = []
        for ask in asks:
            count = calls[ask.prefix.response] = calls.get(ask.prefix.response, 0) + 1
            # The prefix of one step always comes out right; that of two is wrong at first and mixed then.
            mixed = ask.prefix.response.count("\n") == 2 and count == 1
            texts.append(["wrong" if mixed else "right"] * ask.num)
        return texts

    labeller = every_prefix(record, False, 2, most=6)
    (found,) = run_labellers([labeller], [record], complete, lambda record, text: text == "right")
    assert found.values == (1.0, 0.5, 0.0)
    assert found.used == 6 + 4


def test_verdicts_are_read() -> None:
    assert read_verdict("... First wrong step: 2\nFirst wrong step: 3.", 4) == (1, 1, 0, 0)
    assert read_verdict("**First wrong step:** None", 2) == (1, 1)
    assert read_verdict("First wrong step: 9", 4) is None
    assert read_verdict("all is well", 4) is None
