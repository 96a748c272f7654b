"""Convolutions of one to three dimensions, transposed ones with groups, strides and output padding."""

from __future__ import annotations

from typing import Any

import pytest
from torch import nn

LAYERS = {
    "1d": lambda: (nn.Conv1d(6, 4, 3, padding="same"), (6, 5)),
    "1d circular": lambda: (nn.Conv1d(6, 4, 3, padding=1, padding_mode="circular"), (6, 5)),
    "2d": lambda: (nn.Conv2d(6, 4, 2, padding=1, groups=2), (6, 5, 1)),
    "3d": lambda: (nn.Conv3d(6, 4, (1, 2, 1), dilation=(1, 2, 1)), (6, 1, 5, 1)),
    "1d transposed": lambda: (nn.ConvTranspose1d(6, 4, 3, stride=2, padding=1, output_padding=1), (6, 5)),
    "2d transposed": lambda: (nn.ConvTranspose2d(6, 4, 2, groups=2, dilation=2), (6, 5, 1)),
    "3d transposed": lambda: (nn.ConvTranspose3d(6, 4, 2, bias=False), (6, 1, 5, 1)),
}


@pytest.mark.parametrize("name", LAYERS)
def test_convolution(compare: Any, turned: Any, name: str) -> None:
    compare(lambda: turned(*LAYERS[name]()))
