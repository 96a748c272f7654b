"""What the weigher sees."""

import math

import torch

from dreamprm.weigher import from_batch


def test_values(features):
    p = torch.tensor([2.0, -1.0, 0.5]).sigmoid()
    torch.testing.assert_close(features.probability[0], p)
    torch.testing.assert_close(features.agreement[0], (p - 0.5) * torch.tensor([1.0, 1.0, -1.0]))
    assert features.agreement[1, 1] == 0
    assert features.monte_carlo[1].tolist() == [0.0, 0.25, 0.5]
    assert features.place[0].tolist() == [0.0, 0.5, 1.0]
    assert features.place[1, :2].tolist() == [0.0, 1.0]
    torch.testing.assert_close(features.log_loss, torch.tensor([math.log(1.5), math.log(3.0)]))
    assert features.num_steps.tolist() == [3, 2]
    assert len(features[1:]) == 1
    assert features[torch.tensor([1])].index.tolist() == [1]


def test_a_confident_right_and_a_confident_wrong_label_differ(build_batch):
    logits, losses = torch.tensor([[4.0], [4.0]]), torch.zeros(2)
    seen = from_batch(build_batch(torch.tensor([[1.0], [0.0]])), logits, losses)
    assert seen.probability[0] == seen.probability[1]
    assert seen.agreement[0] == -seen.agreement[1] != 0


def test_detached_unless_told_otherwise(build_batch):
    logits = torch.zeros(1, 2, requires_grad=True)
    batch = build_batch(torch.ones(1, 2))
    assert not from_batch(batch, logits, logits.sum(1)).probability.requires_grad
    assert from_batch(batch, logits, logits.sum(1), detach=False).probability.requires_grad
