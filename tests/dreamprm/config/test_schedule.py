"""Learning rates against torch's own schedulers."""

from __future__ import annotations

import itertools

import pytest
import torch

from dreamprm.config.schedule import Constant, Cosine, StepDecay, lr_factor


def _torch_factors(make, count: int) -> list[float]:
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.ones(1))], lr=1.0)
    scheduler = make(optimizer)
    factors = []
    for _ in range(count):
        factors.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return factors


def test_cosine_and_step_are_torchs() -> None:
    cosine = _torch_factors(lambda o: torch.optim.lr_scheduler.CosineAnnealingLR(o, T_max=20), 20)
    step = _torch_factors(lambda o: torch.optim.lr_scheduler.StepLR(o, 7, 0.5), 20)
    # torch's recursions round differently: 20 products of doubles.
    assert [lr_factor(Cosine(warmup=0.0), k, 20) for k in range(20)] == pytest.approx(cosine, rel=1e-10)
    assert [lr_factor(StepDecay(size=7, gamma=0.5), k, 20) for k in range(20)] == pytest.approx(step, rel=1e-12)


def test_warmup_rises_to_one_and_the_first_update_moves() -> None:
    factors = [lr_factor(Cosine(warmup=0.25), k, 20) for k in range(20)]
    assert factors[:6] == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0, 1.0])
    assert all(one > two for one, two in itertools.pairwise(factors[5:]))
    assert lr_factor(Constant(), 5, 20) == 1.0
