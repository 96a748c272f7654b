"""The table of products: a product is one file and one line here."""

from __future__ import annotations

from typing import Literal

from .central_difference import CentralDifference, PublishedDifference
from .jvp import ForwardMode
from .recorder import Recorder
from .tape import Tape
from .unroll import DoubleBackward

__all__ = ["PRODUCTS", "Product"]

Product = Literal["ghost", "jvp", "fd", "unroll", "darts"]

PRODUCTS: dict[str, type[Recorder]] = {
    "ghost": Tape,
    "jvp": ForwardMode,
    "fd": CentralDifference,
    "unroll": DoubleBackward,
    "darts": PublishedDifference,
}
