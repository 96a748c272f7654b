import torch

from dreamprm.policy import Policy
from dreamprm.world.build_chains import Share, build_chains, sample_questions
from dreamprm.world.questions import DOMAINS, TARGETS


def test_questions_are_dealt_by_plan_without_repeats():
    questions = sample_questions({"train": Share(3, 1, 2), "test": Share(2, 0, 4)}, seed=5)
    assert len(questions["train"]) == 3 * len(TARGETS) + len(DOMAINS) - len(TARGETS)
    assert len(questions["test"]) == 2 * len(TARGETS)
    identities = [question.identity for split in questions.values() for question in split]
    assert len(set(identities)) == len(identities)
    assert {question.split for question in questions["test"]} == {"test"}


def test_chains_have_counts_for_every_step_and_are_the_same_for_the_same_seed(base_model, base_processor):
    torch.manual_seed(11)
    policy = Policy(base_model, base_processor, max_new_tokens=40)
    plan = {"train": Share(1, 0, 1), "meta": Share(1, 0, 1)}
    chains = build_chains(policy, plan, num_completions=2, seed=3)
    assert [chain.split for chain in chains] == ["train"] * len(TARGETS) + ["meta"] * len(TARGETS)
    for chain in chains[: len(TARGETS)]:
        assert len(chain.mc_right) == len(chain.steps)
        assert chain.mc_total == 2
        assert all(0 <= count <= 2 for count in chain.mc_right)
    torch.manual_seed(12)
    assert build_chains(policy, plan, num_completions=2, seed=3) == chains
