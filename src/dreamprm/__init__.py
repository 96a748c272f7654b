"""Process reward models that learn which of their training data to trust."""

import importlib
from typing import TYPE_CHECKING, Any

# The table of contents. Each name is imported when it is first used, so that `import dreamprm` costs nothing.
if TYPE_CHECKING:
    from dreamprm.data.record import Record as Record
    from dreamprm.data.record import RecordError as RecordError
    from dreamprm.prm import PRM as PRM
    from dreamprm.prm import Batch as Batch
    from dreamprm.prm import Collator as Collator
    from dreamprm.prm import Prompt as Prompt
    from dreamprm.prm import aggregate as aggregate
    from dreamprm.selection import Selection as Selection
    from dreamprm.selection import best_of_n as best_of_n
    from dreamprm.weigher import DomainTable as DomainTable
    from dreamprm.weigher import InstanceNet as InstanceNet
    from dreamprm.weigher import InstanceTable as InstanceTable
    from dreamprm.weigher import Uniform as Uniform

__version__ = "0.1.0"

_ROOMS = {
    "data.record": ("Record", "RecordError"),
    "prm": ("PRM", "Batch", "Collator", "Prompt", "aggregate"),
    "selection": ("Selection", "best_of_n"),
    "weigher": ("DomainTable", "InstanceNet", "InstanceTable", "Uniform"),
}
_WHERE = {name: room for room, names in _ROOMS.items() for name in names}

__all__ = [
    "PRM",
    "Batch",
    "Collator",
    "DomainTable",
    "InstanceNet",
    "InstanceTable",
    "Prompt",
    "Record",
    "RecordError",
    "Selection",
    "Uniform",
    "__version__",
    "aggregate",
    "best_of_n",
]


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module 'dreamprm' has no attribute {name!r}; it has {', '.join(__all__)}")
    return getattr(importlib.import_module(f"dreamprm.{_WHERE[name]}"), name)


def __dir__() -> list[str]:
    return __all__
