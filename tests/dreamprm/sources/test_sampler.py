"""The order of examples depends on the seed alone, not on the cuts into batches, and goes on where it stopped."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dreamprm.errors import UserError
from dreamprm.sources.sampler import EpochSampler


@given(st.integers(1, 30), st.lists(st.integers(1, 12), min_size=1, max_size=8), st.integers(0, 1000))
def test_cuts_do_not_matter_and_every_epoch_is_whole(size: int, cuts: list[int], seed: int) -> None:
    pieces, whole = EpochSampler(size, seed=seed), EpochSampler(size, seed=seed)
    drawn = [row for cut in cuts for row in pieces.draw(cut)]
    assert drawn == whole.draw(sum(cuts))
    for start in range(0, len(drawn) - size + 1, size):
        assert sorted(drawn[start : start + size]) == list(range(size))


@given(st.integers(1, 30), st.integers(1, 50), st.integers(1, 50))
def test_a_resumed_sampler_goes_on(size: int, before: int, after: int) -> None:
    sampler = EpochSampler(size, seed=1)
    sampler.draw(before)
    other = EpochSampler(size, seed=1)
    other.load_state_dict(sampler.state_dict())
    assert sampler.draw(after) == other.draw(after)


def test_other_data_are_refused() -> None:
    with pytest.raises(UserError, match="drew from 5 examples"):
        EpochSampler(6, seed=0).load_state_dict(EpochSampler(5, seed=0).state_dict())


def test_epochs_and_seeds_differ() -> None:
    sampler = EpochSampler(50, seed=0)
    assert sampler.draw(50) != sampler.draw(50)
    assert EpochSampler(50, seed=0).draw(50) != EpochSampler(50, seed=1).draw(50)


def test_the_examples_of_a_group_follow_one_another() -> None:
    groups = [f"question {row % 7}" for row in range(40)]
    sampler = EpochSampler(40, seed=3, groups=groups)
    first, second = sampler.draw(40), sampler.draw(40)
    for epoch in (first, second):
        assert sorted(epoch) == list(range(40))
        changes = sum(groups[one] != groups[other] for one, other in itertools.pairwise(epoch))
        assert changes == 6, "every question stands once, as one block"
    assert first != second
