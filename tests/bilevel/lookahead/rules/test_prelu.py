"""One slope, one for each channel, and on (B, channels)."""

from __future__ import annotations

from typing import Any

from torch import nn


def test_slopes(compare: Any, turned: Any) -> None:
    compare(lambda: nn.Sequential(nn.Linear(6, 4), nn.PReLU()))
    compare(lambda: turned(nn.Sequential(nn.Conv1d(6, 4, 1), nn.PReLU(4))))
    compare(lambda: nn.Sequential(nn.Flatten(), nn.PReLU(30)))
