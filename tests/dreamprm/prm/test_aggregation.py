"""Eight aggregations, on lists, tensors and log-odds."""

import math

import pytest
import torch

import dreamprm
from dreamprm.prm.aggregation import AGGREGATIONS, aggregate, aggregate_log_odds, as_probability

SCORES = [0.9, 0.5, 0.8]
EXPECTED = {
    "mean": 2.2 / 3,
    "min": 0.5,
    "max": 0.9,
    "last": 0.8,
    "product": 0.36,
    "log_mean": math.log(0.36) / 3,
    "log_odds_sum": math.log(9) + math.log(4),
    "log_odds_mean": (math.log(9) + math.log(4)) / 3,
}


def test_all_eight_are_here():
    assert set(AGGREGATIONS) == set(EXPECTED)


@pytest.mark.parametrize("how", EXPECTED)
def test_values(how):
    assert dreamprm.aggregate(SCORES, how) == pytest.approx(EXPECTED[how], rel=1e-9)
    padded = torch.tensor([[*SCORES, 0.01, 0.99], [0.2, 0.3, 0.4, 0.6, 0.7]], dtype=torch.float64)
    mask = torch.tensor([[1, 1, 1, 0, 0], [1, 1, 1, 1, 1]], dtype=torch.bool)
    rows = aggregate(padded, how, mask)
    assert rows[0].item() == pytest.approx(EXPECTED[how], rel=1e-9)
    assert rows[1].item() == pytest.approx(aggregate(padded[1].tolist(), how), rel=1e-9)
    torch.testing.assert_close(aggregate_log_odds(padded.logit(), how, mask), rows)


@pytest.mark.parametrize("how", EXPECTED)
def test_gradients(how):
    log_odds = torch.tensor([[1.0, -2.0, 0.5], [0.3, 0.1, 3.0]], dtype=torch.float64, requires_grad=True)
    mask = torch.tensor([[True, True, True], [True, True, False]])
    assert torch.autograd.gradcheck(lambda z: as_probability(aggregate_log_odds(z, how, mask), how), log_odds)
    (gradient,) = torch.autograd.grad(aggregate_log_odds(log_odds, how, mask)[1], log_odds)
    assert gradient[1, 2] == 0
    assert gradient[0].abs().sum() == 0


@pytest.mark.parametrize("how", EXPECTED)
def test_certain_scores_stay_finite(how):
    # A bf16 sigmoid rounds to 1 from log-odds of 6 on, and its log-odds would be infinite.
    certain = torch.tensor([[0.0, 1.0, 1.0]], dtype=torch.bfloat16)
    assert aggregate(certain, how).isfinite().all()
    assert aggregate(certain, how).dtype == torch.float32
    extreme = torch.tensor([[-200.0, 200.0]], requires_grad=True)
    value = aggregate_log_odds(extreme, how)
    (gradient,) = torch.autograd.grad(value.sum(), extreme)
    assert value.isfinite().all()
    assert gradient.isfinite().all()


def test_every_aggregation_ranks_a_better_chain_higher():
    for how in EXPECTED:
        assert aggregate([0.9, 0.9], how) > aggregate([0.6, 0.6], how)


def test_clear_errors():
    with pytest.raises(ValueError, match="'median' is no aggregation; allowed are mean, min, max, last"):
        aggregate([0.5], "median")
    with pytest.raises(ValueError, match=r"rows \[0\] have none"):
        aggregate([], "mean")
    with pytest.raises(ValueError, match=r"rows \[1\] have none"):
        aggregate(torch.rand(2, 2), "mean", torch.tensor([[True, True], [False, False]]))
    with pytest.raises(ValueError, match=r"must lie in \[0, 1\]"):
        aggregate([0.5, 1.2], "mean")
    with pytest.raises(ValueError, match="shape"):
        aggregate(torch.rand(2, 2), "mean", torch.ones(2, 3, dtype=torch.bool))
