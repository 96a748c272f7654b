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
