"""Scales and shifts of norms, by group and by instance, with running statistics too."""

from __future__ import annotations

from typing import Any

import pytest
from torch import nn

PICTURE = (6, 5, 1)
LAYERS = {
    "group": lambda: (nn.GroupNorm(2, 6), (6, 5)),
    "group of a picture": lambda: (nn.GroupNorm(3, 6), PICTURE),
    "group without scale": lambda: (nn.Sequential(nn.Conv1d(6, 4, 1), nn.GroupNorm(2, 4, affine=False)), (6, 5)),
    "instance": lambda: (nn.InstanceNorm1d(6, affine=True), (6, 5)),
    "instance of a picture": lambda: (nn.InstanceNorm2d(6, affine=True), PICTURE),
    "instance, statistics kept": lambda: (nn.InstanceNorm1d(6, affine=True, track_running_stats=True), (6, 5)),
    "instance, statistics used": lambda: (
        nn.Sequential(nn.InstanceNorm1d(6, affine=True, track_running_stats=True)).eval(),
        (6, 5),
    ),
    "batch, statistics used": lambda: (nn.BatchNorm1d(6).eval(), (6, 5)),
}


@pytest.mark.parametrize("name", LAYERS)
def test_scale_and_shift(compare: Any, turned: Any, name: str) -> None:
    compare(lambda: turned(*LAYERS[name]()))


@pytest.mark.parametrize("layer", [nn.LayerNorm, nn.RMSNorm])
def test_norm_over_features(compare: Any, layer: Any) -> None:
    compare(lambda: layer(6))
    compare(lambda: layer([5, 6]))
