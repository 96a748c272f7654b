"""Sampling from a policy: whole chains for questions, and completions of prefixes for Monte-Carlo labels."""

from dreamprm.policy._monte_carlo import StepCounts as StepCounts
from dreamprm.policy._monte_carlo import monte_carlo as monte_carlo
from dreamprm.policy.sampling import Policy as Policy
from dreamprm.policy.sampling import PolicyConfig as PolicyConfig
from dreamprm.policy.sampling import Prefix as Prefix
