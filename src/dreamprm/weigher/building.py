"""The table of weighers, and how settings become one."""

from __future__ import annotations

import inspect

from dreamprm.setting import arguments_of
from dreamprm.weigher.domain_table import DomainTable, DomainTableSettings
from dreamprm.weigher.instance_net import InstanceNet, InstanceNetSettings
from dreamprm.weigher.instance_table import InstanceTable, InstanceTableSettings
from dreamprm.weigher.small_loss import SmallLoss, SmallLossSettings
from dreamprm.weigher.step_net import StepNet, StepNetSettings
from dreamprm.weigher.step_table import StepTable, StepTableSettings
from dreamprm.weigher.trust import Trust, TrustSettings
from dreamprm.weigher.uniform import Uniform, UniformSettings
from dreamprm.weigher.weigher import Weigher, WeigherSettings

__all__ = ["WEIGHERS", "build_weigher"]

WEIGHERS: dict[str, tuple[type[WeigherSettings], type[Weigher]]] = {
    "uniform": (UniformSettings, Uniform),
    "domain_table": (DomainTableSettings, DomainTable),
    "instance_table": (InstanceTableSettings, InstanceTable),
    "instance_net": (InstanceNetSettings, InstanceNet),
    "small_loss": (SmallLossSettings, SmallLoss),
    "step_net": (StepNetSettings, StepNet),
    "step_table": (StepTableSettings, StepTable),
    "trust": (TrustSettings, Trust),
}
"""Kind -> (settings, class): the line that a new weigher adds."""


def build_weigher(settings: WeigherSettings, *, num_examples: int, num_domains: int) -> Weigher:
    """The weigher of the settings; its class gets those of the run's numbers that it has arguments for.

    Raises ValueError for what its class refuses.
    """
    make = WEIGHERS[settings.kind][1]
    known = {"num_examples": num_examples, "num_domains": num_domains}
    wanted = inspect.signature(make).parameters
    return make(**arguments_of(settings), **{name: value for name, value in known.items() if name in wanted})
