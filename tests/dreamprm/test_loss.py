"""Inner and outer losses."""

import pytest
import torch

from dreamprm.loss import example_losses, outer_loss, outer_losses
from dreamprm.prm.collate import Batch


@pytest.fixture
def batch():
    mask = torch.tensor([[True, True, True], [True, True, False]])
    return Batch(
        inputs={},
        step_positions=torch.zeros(2, 3, dtype=torch.long),
        step_mask=mask,
        labels=torch.tensor([[1.0, 0.0, 0.25], [0.75, 0.0, 0.0]]),
        label_mask=torch.tensor([[True, False, True], [True, True, False]]),
        correct=torch.tensor([1.0, 0.0]),
        index=torch.arange(2),
        domain=torch.zeros(2, dtype=torch.long),
        keys=["a", "b"],
    )


@pytest.fixture
def logits():
    return torch.tensor([[1.0, 9.0, -2.0], [0.5, -1.0, 7.0]], dtype=torch.float64)


def test_cross_entropy_is_the_two_way_softmax(batch, logits):
    two = torch.stack([logits, torch.zeros_like(logits)], -1).log_softmax(-1)
    by_hand = -(batch.labels * two[..., 0] + (1 - batch.labels) * two[..., 1])
    expected = torch.stack([by_hand[0, [0, 2]].mean(), by_hand[1, :2].mean()])
    torch.testing.assert_close(example_losses(logits, batch), expected)


def test_mse(batch, logits):
    p = logits.sigmoid()
    soft = torch.stack([((p[0, 0] - 1) ** 2 + (p[0, 2] - 0.25) ** 2) / 2, ((p[1, 0] - 0.75) ** 2 + p[1, 1] ** 2) / 2])
    torch.testing.assert_close(example_losses(logits, batch, "mse"), soft)


def test_unlabelled_steps_have_no_gradient(batch, logits):
    logits.requires_grad_(True)
    (gradient,) = torch.autograd.grad(example_losses(logits, batch).sum(), logits)
    assert (gradient != 0).tolist() == batch.label_mask.tolist()


def test_a_chain_without_labels_is_refused(batch, logits):
    batch.label_mask[1] = False
    with pytest.raises(ValueError, match=r"chains without step labels cannot be trained on: \['b'\]"):
        example_losses(logits, batch)


def test_outer_mse_of_the_aggregate(batch, logits):
    p = logits.sigmoid()
    mean = torch.stack([(p[0].mean() - 1) ** 2, p[1, :2].mean() ** 2])
    torch.testing.assert_close(outer_losses(logits, batch), mean)
    torch.testing.assert_close(outer_loss(logits, batch), mean.mean())
    paper = torch.stack([(logits[0].sum().sigmoid() - 1) ** 2, logits[1, :2].sum().sigmoid() ** 2])
    torch.testing.assert_close(outer_losses(logits, batch, "log_odds_sum"), paper)


def test_the_released_code_of_the_second_paper(batch, logits):
    p = logits.sigmoid()
    code = torch.stack([(p[0].mean() - 1) ** 2, ((1 - p[1, :2]).mean() - 1) ** 2])
    torch.testing.assert_close(outer_losses(logits, batch, kind="dreamprm15_code"), code)
    steps = torch.stack([((p[0] - 1) ** 2).mean(), (p[1, :2] ** 2).mean()])
    torch.testing.assert_close(outer_losses(logits, batch, kind="steps"), steps)


@pytest.mark.parametrize("aggregate", ["mean", "log_odds_mean", "log_mean"])
def test_outer_cross_entropy(batch, logits, aggregate):
    losses = outer_losses(logits, batch, aggregate, "cross_entropy")
    values = {
        "mean": [logits[0].sigmoid().mean(), logits[1, :2].sigmoid().mean()],
        "log_odds_mean": [logits[0].mean().sigmoid(), logits[1, :2].mean().sigmoid()],
        "log_mean": [logits[0].sigmoid().log().mean().exp(), logits[1, :2].sigmoid().log().mean().exp()],
    }[aggregate]
    torch.testing.assert_close(losses, torch.stack([-values[0].log(), -(1 - values[1]).log()]))


def test_an_unknown_outcome_is_refused(batch, logits):
    batch.correct[1] = float("nan")
    with pytest.raises(ValueError, match=r"unknown for \['b'\]"):
        outer_loss(logits, batch)


def test_unknown_kinds_say_what_is_allowed(batch, logits):
    with pytest.raises(ValueError, match="'hinge' is no inner loss; allowed are cross_entropy, mse"):
        example_losses(logits, batch, "hinge")


def test_the_contrast_of_right_and_wrong_chains(batch, logits):
    contrast = (logits[1, :2].mean() - logits[0].mean()) / 2
    torch.testing.assert_close(outer_loss(logits, batch, "log_odds_mean", "contrast"), contrast)
    weakest = (logits[1, :2].min() - logits[0].min()) / 2
    torch.testing.assert_close(outer_loss(logits, batch, "min", "contrast"), weakest)
    batch.correct[0] = 0.0  # no right chain: the wrong ones are to go down
    down = torch.stack([logits[0].mean(), logits[1, :2].mean()]).mean() / 2
    torch.testing.assert_close(outer_loss(logits, batch, "log_odds_mean", "contrast"), down)


def many(scores, outcomes):
    """A batch of chains of one step each."""
    count = len(scores)
    ones = torch.ones(count, 1, dtype=torch.bool)
    return scores[:, None], Batch(
        inputs={},
        step_positions=torch.zeros(count, 1, dtype=torch.long),
        step_mask=ones,
        labels=torch.zeros(count, 1),
        label_mask=ones,
        correct=outcomes,
        index=torch.arange(count),
        domain=torch.zeros(count, dtype=torch.long),
        keys=[str(row) for row in range(count)],
    )


def test_calibrated_is_blind_to_confidence_and_to_a_shift():
    generator = torch.Generator().manual_seed(0)
    scores = torch.randn(400, generator=generator, dtype=torch.float64)
    outcomes = (torch.rand(400, generator=generator) < (2 * scores + 0.5).sigmoid()).double()
    plain = outer_loss(*many(scores, outcomes), "min", "calibrated")
    # The ridge of 1e-5 is what is left of the difference.
    for scale, offset in ((5.0, 0.0), (1.0, -3.0), (0.3, 2.0)):
        moved = outer_loss(*many(scale * scores + offset, outcomes), "min", "calibrated")
        assert moved.item() == pytest.approx(plain.item(), abs=5e-3)
    assert plain < outer_loss(*many(3 * scores - 1, outcomes), "min", "cross_entropy")
    knobs = torch.tensor([1.0, 0.0], dtype=torch.float64, requires_grad=True)
    (gradient,) = torch.autograd.grad(
        outer_loss(*many(knobs[0] * scores + knobs[1], outcomes), "min", "calibrated"), knobs
    )
    torch.testing.assert_close(gradient, torch.zeros(2, dtype=torch.float64), atol=5e-3, rtol=0)


def test_calibrated_asks_a_prm_that_is_worse_than_chance_for_better():
    generator = torch.Generator().manual_seed(0)
    scores = torch.randn(400, generator=generator, dtype=torch.float64).requires_grad_()
    outcomes = (torch.rand(400, generator=generator) < (-2 * scores.detach()).sigmoid()).double()
    for scale in (0.2, 1.0, 2.0):
        (gradient,) = torch.autograd.grad(outer_loss(*many(scale * scores, outcomes), "min", "calibrated"), scores)
        # Descent raises every right chain and lowers every wrong one, whatever the PRM says now.
        assert (gradient[outcomes == 1] < 0).all()
        assert (gradient[outcomes == 0] > 0).all()


@pytest.mark.parametrize("scores", [[0.3], [0.3, 0.3, 0.3, 0.3], [0.3, 0.3, 0.3, 0.3 + 1e-9]])
def test_calibrated_is_as_steep_as_cross_entropy_where_scores_hardly_differ(scores):
    given = torch.tensor(scores, dtype=torch.float64, requires_grad=True)
    outcomes = torch.tensor([1.0, 0.0, 1.0, 0.0][: len(scores)], dtype=torch.float64)
    (gradient,) = torch.autograd.grad(outer_loss(*many(given, outcomes), "min", "calibrated"), given)
    # α stays at the 1 it starts from, and |p - r| is at most 1.
    assert gradient.abs().max() * len(scores) <= 1


@pytest.mark.parametrize("outcomes", [[1.0, 1.0, 0.0, 0.0], [1.0, 1.0, 1.0, 1.0], [0.0, 0.0, 1.0, 1.0]])
def test_calibrated_stays_finite_where_outcomes_are_told_apart_or_all_alike(outcomes):
    scores = torch.tensor([40.0, 35.0, -30.0, -50.0], requires_grad=True)
    value = outer_loss(*many(scores, torch.tensor(outcomes)), "min", "calibrated")
    (gradient,) = torch.autograd.grad(value, scores)
    assert value.isfinite()
    assert gradient.isfinite().all()
