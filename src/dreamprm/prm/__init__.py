"""Process reward models: prompt, tokens, heads, aggregation, storage."""

# Imported when first used: the collator needs the prompt from here, and the PRM needs the collator.
import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dreamprm.prm.aggregation import Aggregation as Aggregation
    from dreamprm.prm.aggregation import aggregate as aggregate
    from dreamprm.prm.heads import HeadKind as HeadKind
    from dreamprm.prm.prm import PRM as PRM
    from dreamprm.prm.processor import load_processor as load_processor
    from dreamprm.prm.prompt import Layout as Layout
    from dreamprm.prm.prompt import Prompt as Prompt
    from dreamprm.prm.storage import PRMLoadError as PRMLoadError

_WHERE = {
    "Aggregation": "aggregation",
    "HeadKind": "heads",
    "Layout": "prompt",
    "PRM": "prm",
    "PRMLoadError": "storage",
    "Prompt": "prompt",
    "aggregate": "aggregation",
    "load_processor": "processor",
}

__all__ = ["PRM", "Aggregation", "HeadKind", "Layout", "PRMLoadError", "Prompt", "aggregate", "load_processor"]


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module 'dreamprm.prm' has no attribute {name!r}; it has {', '.join(__all__)}")
    return getattr(importlib.import_module(f"dreamprm.prm.{_WHERE[name]}"), name)
