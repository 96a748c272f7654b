"""Trust in every step's label: its equation, what a file keeps of it, and what it refuses."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from dreamprm.weigher import Features, load, save
from dreamprm.weigher.trust import Trust, TrustSettings

MASK = torch.tensor([[True, True, True], [True, True, False]])  # of the fixture `features`


def test_nobody_is_trusted_more_before_anything_is_known(features: Features) -> None:
    torch.testing.assert_close(Trust(2, num_steps=4)(features), MASK.float())


def test_weights_follow_from_both_opinions(features: Features, tmp_path: Path) -> None:
    """Against the equation in numpy, float64, chain by chain."""
    random = np.random.default_rng(0)
    m, d = random.normal(size=(2, 3)), random.normal(size=(2, 3))
    weigher = Trust(2, hypergradient=0.7, num_steps=4).double()
    for row, length in enumerate((3, 2)):
        for half in (0.25, 0.75):  # in parts, as two judges give it
            weigher.believe([row], half * torch.from_numpy(m[row : row + 1, :length]))
        for size in (2.0, 4.0):  # two visits, of which the mean counts
            weigher.look([row], size * torch.from_numpy(d[row : row + 1, :length]))
    mask = torch.nn.functional.pad(MASK, (0, 1))
    weigher.settle_pulls(mask)

    steps = [d[0], d[1, :2]]
    own, sums = np.concatenate(steps), np.concatenate([np.full(len(row), row.sum()) for row in steps])
    tau = (own - own.mean()) / own.std() + (sums - sums.mean()) / sums.std()
    tau = (tau - tau.mean()) / tau.std()
    believed = np.concatenate([row + row.mean() for row in (m[0], m[1, :2])])
    expected = 2 / (1 + np.exp(-(believed + 0.7 * tau)))
    found = weigher(features)
    np.testing.assert_allclose(found[MASK].numpy(), expected, rtol=1e-12)  # float64
    assert found[1, 2] == 0
    parts = weigher.opinions(features)
    np.testing.assert_allclose(parts["posterior"][MASK].numpy(), believed, rtol=1e-12)
    np.testing.assert_allclose(parts["hypergradient"][MASK].numpy(), 0.7 * tau, rtol=1e-12)

    save(weigher.float(), tmp_path / "trust.safetensors", keys=["a", "b"])
    torch.testing.assert_close(load(tmp_path / "trust.safetensors", keys=["a", "b"])(features), weigher(features))
    with pytest.raises(ValueError, match="learned on 2 keys"):
        load(tmp_path / "trust.safetensors", keys=["a", "c"])


def test_pulls_that_are_all_alike_say_nothing(features: Features) -> None:
    weigher = Trust(2, num_steps=3)
    weigher.settle_pulls(MASK)
    torch.testing.assert_close(weigher(features), MASK.float())


def test_what_is_refused(features: Features) -> None:
    with pytest.raises(ValueError, match=r"raise weigher\.num_steps"):
        Trust(2, num_steps=2)(features)
    with pytest.raises(ValueError, match="not in the tables of 1 examples"):
        Trust(1)(features)
    with pytest.raises(ValueError, match="leave no opinion"):
        TrustSettings(passes=0, judge_updates=0)
