"""The words of `Lookahead`'s settings, once; those of `product` are the table of products."""

from typing import Literal

__all__ = ["AdamDerivative", "Check"]

AdamDerivative = Literal["exact", "frozen"]
"""The derivative of Adam's step: whole, or with its moments held constant."""

Check = Literal["raise", "log", "off"]
"""What a broken sum rule or a disagreement with autograd does."""
