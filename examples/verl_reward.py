"""A PRM as verl's reward.

    python -m verl.trainer.main_ppo … custom_reward_function.path=examples/verl_reward.py

DREAMPRM_REWARD is the folder prm/ of a run, or a server's address; several workers are best served by one server.
verl's data set gives the question as extra_info["question"].
"""

import os
from functools import cache
from typing import Any

from dreamprm.integrations.reward import PRMReward, as_reward


@cache
def _reward() -> PRMReward:
    return as_reward(os.environ["DREAMPRM_REWARD"])


def compute_score(data_source: str, solution_str: str, ground_truth: Any, extra_info: Any = None) -> float:
    return _reward().compute_score(data_source, solution_str, ground_truth, extra_info)
