"""Weight norm of both kinds, spectral norm, orthogonal weights: functions of parameters, exact at θ."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import pytest
from torch import nn
from torch.nn.utils import parametrizations

import bilevel


def old(**settings: Any) -> nn.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch says that this kind is the older one
        return nn.utils.weight_norm(nn.Linear(6, 4), **settings)


@pytest.mark.parametrize(
    "build",
    [
        old,
        lambda: old(dim=None),
        lambda: parametrizations.weight_norm(nn.Linear(6, 4)),
        lambda: parametrizations.weight_norm(nn.Linear(6, 4), dim=1),
        lambda: parametrizations.orthogonal(nn.Linear(6, 4)),
        lambda: parametrizations.spectral_norm(nn.Linear(6, 4)).eval(),
    ],
)
def test_functions_of_parameters(compare: Any, build: Callable[[], nn.Module]) -> None:
    compare(build)


def test_of_a_convolution(compare: Any, turned: Any) -> None:
    compare(lambda: turned(parametrizations.weight_norm(nn.Conv1d(6, 4, 3))))


@pytest.mark.parametrize("build", [nn.utils.spectral_norm, parametrizations.spectral_norm])
def test_spectral_norm_in_training_mode(compare: Any, build: Any) -> None:
    """Each forward pass moves its vectors: exact on the pass itself, refused by a product that runs it again."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        compare(lambda: build(nn.Linear(6, 4)), products=("ghost", "unroll"))
        with pytest.raises(bilevel.HypergradientCheckError, match="differs from plain autograd"):
            compare(lambda: build(nn.Linear(6, 4)), products=("jvp",))
