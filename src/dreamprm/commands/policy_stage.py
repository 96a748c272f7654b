"""What the commands in which a policy writes have in common: `sample`, `search` and `label`."""

from __future__ import annotations

from dataclasses import dataclass

from dreamprm.choices import Device, Judge
from dreamprm.commands.files import StageData
from dreamprm.policy.endpoint import EndpointConfig
from dreamprm.policy.sampling import PolicyConfig
from dreamprm.setting import Settings, setting

__all__ = ["HOW", "PolicyStage"]

HOW = (
    "url",
    "concurrency",
    "retries",
    "timeout",
    "requests_per_minute",
    "token_budget",
    "money_budget",
    "key_variable",
)
"""Settings of an endpoint that change how chains are asked for, and not what they are."""


@dataclass
class PolicyStage(Settings):
    """A policy, the data it works on, and how its work is divided."""

    seed: int = setting(0, "of the draws", least=0)
    shard: str = setting("1/1", "i/n: the i-th of n equal parts; the last one to end joins them")
    overwrite: bool = setting(False, "whether an `out` of other settings is begun anew")
    judge: Judge = setting(Judge.math, "how an answer is compared with the reference")
    device: Device = setting(Device.auto, "auto: a GPU where there is one")
    data: StageData = setting(StageData())
    policy: PolicyConfig = setting(PolicyConfig())
    endpoint: EndpointConfig = setting(EndpointConfig())
