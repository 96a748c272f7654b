import pytest
import torch

from dreamprm.data.record import Record
from dreamprm.policy import Policy, Prefix, monte_carlo
from dreamprm.world.questions import Question, check_answer, split_steps
from dreamprm.world.scene import Scene, Thing, draw

QUESTION = Question(
    "chart", Scene("bars", (Thing("red", 9, 0), Thing("blue", 2, 1), Thing("green", 1, 3)), 1), ("red", "blue")
)
PREFIX = Prefix(QUESTION.text, (draw(QUESTION.scene),))


@pytest.fixture
def policy(base_model, base_processor):
    return Policy(base_model, base_processor, max_new_tokens=40)


def test_responses_are_in_the_worlds_form(policy):
    responses = policy.sample([PREFIX], 16, seed=0)[0]
    assert len(responses) == 16
    ended = [split_steps(response)[-1].startswith("answer ") for response in responses]
    assert sum(ended) >= 14  # temperature 1 may derail a chain now and then


def test_sampling_is_by_seed_and_leaves_the_global_state(policy):
    state = torch.random.get_rng_state()
    first = policy.sample([PREFIX], 8, seed=4)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert policy.sample([PREFIX], 8, seed=4) == first
    assert policy.sample([PREFIX], 8, seed=5) != first


def test_greedy_responses_do_not_depend_on_their_batch(policy):
    policy.temperature = 0.0
    other = Question("table", Scene("digits", (Thing("red", 4, 0), Thing("blue", 1, 2)), 2), ("red", "blue"))
    prefixes = [PREFIX, Prefix(other.text, (draw(other.scene),)), Prefix("describe", PREFIX.images)]
    together = policy.sample(prefixes)
    alone = [policy.sample([prefix])[0] for prefix in prefixes]
    assert together == alone


def test_a_prefix_is_kept_and_gone_on_from(policy):
    start = "red 9\nblue 2\n"
    for response in policy.sample([Prefix(PREFIX.question, PREFIX.images, start)], 4, seed=1)[0]:
        assert response.startswith(start)
        assert len(response) > len(start)


def test_a_policy_without_an_image_answers_too(policy):
    assert len(policy.sample([Prefix("after 3 ?")], 2)[0]) == 2


def test_monte_carlo_counts_tell_a_wrong_step_from_a_right_one(policy):
    def record(key, *steps):
        return Record(key, "t", "chart", "q", QUESTION.text, steps, PREFIX.images)

    right = record("a", "red 9", "blue 2", "9 less 2 is 7", "answer 7")
    wrong = record("b", "red 4", "blue 2", "4 less 2 is 2", "answer 2")
    seen = []

    def is_right(one, response):
        seen.append(response)
        return check_answer(QUESTION, split_steps(response))

    good, bad = monte_carlo(policy, [right, wrong], is_right, num=16, seed=0)
    assert good.total == 16
    assert good.right[-1] == 16
    assert bad.right[-1] == 0
    assert sum(good.right) > sum(bad.right) + 16
    assert max(good.labels) <= 1.0
    assert len(seen) == 6 * 16 + 2  # three open prefixes of each chain, and each whole chain once


def test_settings_are_checked(base_model, base_processor):
    for settings, message in (
        ({"temperature": -1.0}, "temperature"),
        ({"top_p": 0.0}, "top_p"),
        ({"batch_size": 0}, "batch_size"),
    ):
        with pytest.raises(ValueError, match=message):
            Policy(base_model, base_processor, **settings)
    with pytest.raises(ValueError, match="num is 0"):
        Policy(base_model, base_processor).sample([PREFIX], 0)
