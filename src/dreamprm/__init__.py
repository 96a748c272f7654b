"""Process reward models that learn which of their training data to trust."""

# The table of contents. Each name is imported when it is first used, so that `import dreamprm` costs nothing.
import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dreamprm.data.collate import Batch as Batch
    from dreamprm.data.collate import Collator as Collator
    from dreamprm.data.dataset import Dataset as Dataset
    from dreamprm.data.record import Record as Record
    from dreamprm.data.record import RecordError as RecordError
    from dreamprm.prm.aggregation import aggregate as aggregate
    from dreamprm.prm.prm import PRM as PRM
    from dreamprm.prm.prompt import Prompt as Prompt
    from dreamprm.selection import Selection as Selection
    from dreamprm.selection import best_of_n as best_of_n
    from dreamprm.weigher import DomainTable as DomainTable
    from dreamprm.weigher import InstanceNet as InstanceNet
    from dreamprm.weigher import InstanceTable as InstanceTable
    from dreamprm.weigher import Uniform as Uniform

_WHERE = {
    "Batch": "data.collate",
    "Collator": "data.collate",
    "Dataset": "data.dataset",
    "DomainTable": "weigher",
    "InstanceNet": "weigher",
    "InstanceTable": "weigher",
    "PRM": "prm.prm",
    "Prompt": "prm.prompt",
    "Record": "data.record",
    "RecordError": "data.record",
    "Selection": "selection",
    "Uniform": "weigher",
    "aggregate": "prm.aggregation",
    "best_of_n": "selection",
}

__all__ = [
    "PRM",
    "Batch",
    "Collator",
    "Dataset",
    "DomainTable",
    "InstanceNet",
    "InstanceTable",
    "Prompt",
    "Record",
    "RecordError",
    "Selection",
    "Uniform",
    "aggregate",
    "best_of_n",
]


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module 'dreamprm' has no attribute {name!r}; it has {', '.join(__all__)}")
    return getattr(importlib.import_module(f"dreamprm.{_WHERE[name]}"), name)


def __dir__() -> list[str]:
    return __all__
