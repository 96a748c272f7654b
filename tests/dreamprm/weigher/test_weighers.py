"""Each weigher: where it starts, what moves it, what it refuses, and that it survives a file."""

from dataclasses import replace

import pytest
import torch

from dreamprm.weigher import (
    DomainTable,
    InstanceNet,
    InstanceTable,
    RowAdam,
    SmallLoss,
    StepNet,
    StepTable,
    Uniform,
    WeigherError,
    from_batch,
    load,
    project,
    save,
)


def test_all_start_at_one(features):
    one = torch.ones(2)
    for weigher in (Uniform(), DomainTable(3), InstanceTable(2), InstanceNet(3), InstanceNet()):
        torch.testing.assert_close(weigher(features).detach(), one)


def test_small_loss_keeps_the_share_of_the_smallest_losses(build_batch):
    features = from_batch(build_batch(torch.ones(5, 1)), torch.zeros(5, 1), torch.tensor([3.0, 1.0, 4.0, 2.0, 5.0]))
    weigher = SmallLoss(share=0.5)
    kept = torch.tensor([2.0, 2.0, 0.0, 2.0, 0.0])  # ceil(2.5) of 5, at the weight that keeps the mean of even shares
    torch.testing.assert_close(weigher(features), kept)
    weigher.settle([features[:2], features[2:]])
    weigher.eval()
    torch.testing.assert_close(weigher(features[2:]), kept[2:])  # by the whole data set's bound, not this batch's


def test_a_net_of_losses_sees_nothing_else(features):
    torch.manual_seed(0)
    net = InstanceNet(3, features="loss", hidden=100, activation="relu")
    torch.nn.init.normal_(net.net[2].weight)
    same = replace(features, probability=features.probability.flip(0), domain=features.domain + 1)
    torch.testing.assert_close(net(features), net(same))
    assert not torch.equal(net(features), net(replace(features, log_loss=features.log_loss.flip(0))))


def test_a_step_table_has_an_entry_for_every_step_and_moves_only_what_it_met(features, tmp_path):
    table = StepTable(4, num_steps=3)
    given = table(features)
    torch.testing.assert_close(given.detach(), features.mask.float())  # 1 for every step, 0 where there is none
    optimizer = RowAdam(table.parameters(), lr=0.5)
    given.sum().backward()
    optimizer.step()
    project(table)
    met = torch.zeros(4, 3, dtype=torch.bool)
    met[features.index, : features.mask.shape[1]] = features.mask
    # Adam's first step is lr in size; a place without a step has no gradient and stays.
    torch.testing.assert_close(table.table.detach(), torch.where(met, 0.5, 1.0))
    save(table, tmp_path / "table.safetensors", keys=list("abcd"))
    torch.testing.assert_close(load(tmp_path / "table.safetensors", keys=list("abcd"))(features), table(features))
    with pytest.raises(ValueError, match=r"raise weigher\.num_steps"):
        StepTable(4, num_steps=1)(features)


def test_a_step_net_has_the_instance_nets_logits_step_by_step(features):
    torch.manual_seed(0)
    steps, whole = StepNet(3), InstanceNet(3)
    torch.testing.assert_close(
        steps(features).detach(), features.mask.float()
    )  # 1 for every step, 0 where there is none
    with torch.no_grad():
        steps.net[2].weight.normal_()
        whole.load_state_dict(steps.state_dict())
    for net in (steps, whole):
        net.eval()  # z̄ is 0 until it has settled
    given = steps(features).detach()
    logits = torch.logit(given / 2).masked_fill(~features.mask, 0.0)
    mean = logits.sum(1) / features.mask.sum(1)
    torch.testing.assert_close(2 * mean.sigmoid(), whole(features).detach())
    steps.settle([features])
    settled = torch.logit(steps(features).detach()[features.mask] / 2)
    # float32 logits of numbers near their bounds
    torch.testing.assert_close(settled.mean(), torch.tensor(0.0), atol=1e-5, rtol=0)
    steps.train()
    torch.testing.assert_close(torch.logit(steps(features).detach()[features.mask] / 2), settled, atol=1e-5, rtol=1e-5)


def test_domain_table_is_softplus_over_its_mean(features):
    table = DomainTable(3)
    with torch.no_grad():
        table.raw.copy_(torch.tensor([0.5, -1.0, 2.0]))
    positive = torch.nn.functional.softplus(table.raw)
    expected = positive / positive.mean()
    torch.testing.assert_close(table(replace(features, domain=torch.tensor([2, 0]))), expected[[2, 0]])
    assert table.weights().mean().item() == pytest.approx(1.0, abs=1e-6)  # float32 sums of three numbers


@pytest.mark.parametrize("domain", [-1, 3])
def test_an_unknown_domain_is_refused(features, domain):
    odd = replace(features, domain=torch.tensor([0, domain]))
    with pytest.raises(ValueError, match=rf"examples of domains \[{domain}\] in a table of 3"):
        DomainTable(3)(odd)
    if domain < 0:
        with pytest.raises(ValueError, match="give the collator the domains"):
            InstanceNet(3)(odd)


@pytest.mark.parametrize("row", [-1, 2])
def test_a_row_outside_the_table_is_refused(features, row):
    with pytest.raises(ValueError, match=rf"rows \[{row}\] are not in the table of 2"):
        InstanceTable(2)(replace(features, index=torch.tensor([0, row])))


def test_an_entry_at_its_bound_comes_back(features):
    table = InstanceTable(5)
    optimizer = torch.optim.SGD(table.parameters(), lr=10.0)
    for direction, bound in ((1.0, 3.0), (-1.0, -1.0)):
        for _ in range(3):
            optimizer.zero_grad()
            (-direction * table(features)).sum().backward()
            optimizer.step()
            project(table)
        assert table.table[:2].detach().flatten().tolist() == [bound, bound]
        assert table.table[2:].detach().flatten().tolist() == [1.0, 1.0, 1.0]
    optimizer.zero_grad()
    (-0.01 * table(features)).sum().backward()
    optimizer.step()
    project(table)
    assert table.table[0].item() == pytest.approx(-0.9)


def test_dense_table_is_projected_whole(features):
    table = InstanceTable(3, sparse=False)
    optimizer = torch.optim.AdamW(table.parameters(), lr=10.0)
    table(features).sum().backward()
    optimizer.step()
    project(table)
    assert table.table.min() == -1


def test_row_adam_is_adamw_on_every_row_met():
    # A row that is met at every update goes as torch's dense AdamW does; float64, so only rounding differs.
    torch.manual_seed(0)
    start = torch.randn(4, 1, dtype=torch.float64)
    ours, theirs = (torch.nn.Parameter(start.clone()) for _ in range(2))
    settings = {"lr": 0.1, "betas": (0.8, 0.95), "weight_decay": 0.05}
    mine, reference = RowAdam([ours], **settings), torch.optim.AdamW([theirs], **settings)
    rows = torch.tensor([0, 2])
    for _ in range(20):
        gradient = torch.randn(2, 1, dtype=torch.float64)
        ours.grad = torch.sparse_coo_tensor(rows[None], gradient, (4, 1), check_invariants=True)
        theirs.grad = torch.zeros_like(theirs).index_copy(0, rows, gradient)
        mine.step()
        reference.step()
    torch.testing.assert_close(ours[rows], theirs[rows], rtol=1e-12, atol=0)
    torch.testing.assert_close(ours[[1, 3]], start[[1, 3]], rtol=0, atol=0)


def test_row_adam_starts_a_late_row_as_an_early_one():
    table = torch.nn.Parameter(torch.zeros(3, 1))
    optimizer = RowAdam([table], lr=0.1)
    for row in [0] * 50 + [2]:
        table.grad = torch.sparse_coo_tensor([[row]], [[1.0]], (3, 1), check_invariants=True)
        optimizer.step()
    assert table[2].item() == pytest.approx(-0.1, rel=1e-5)  # Adam's first step is lr, up to epsilon and float32


def test_row_adam_resumes_exactly():
    def run(table, optimizer, seed):
        generator = torch.Generator().manual_seed(seed)
        for _ in range(5):
            rows, values = torch.randint(6, (1, 3), generator=generator), torch.randn(3, 1, generator=generator)
            table.grad = torch.sparse_coo_tensor(rows, values, (6, 1), check_invariants=True)
            optimizer.step()

    whole, first = (torch.nn.Parameter(torch.ones(6, 1)) for _ in range(2))
    one, two = RowAdam([whole], lr=0.1), RowAdam([first], lr=0.1)
    run(whole, one, 1)
    run(first, two, 1)
    second = torch.nn.Parameter(first.detach().clone())
    resumed = RowAdam([second], lr=0.1)
    resumed.load_state_dict(two.state_dict())
    run(whole, one, 2)
    run(second, resumed, 2)
    assert torch.equal(whole, second)


def test_the_published_net(features):
    torch.manual_seed(0)
    net = InstanceNet(features="paper")
    assert sum(parameter.numel() for parameter in net.parameters()) == 41
    logits = torch.stack([features.probability.logit(), torch.zeros_like(features.probability)], -1)
    first, _, second = net.net
    hidden = torch.nn.functional.leaky_relu(logits.softmax(-1) @ first.weight.T + first.bias)
    steps = (hidden @ second.weight.T + second.bias)[..., 0]
    expected = torch.stack([steps[0].mean(), steps[1, :2].mean()]).sigmoid()
    torch.testing.assert_close(net(features), expected)


def test_the_published_net_is_blind_to_labels_and_the_default_is_not(build_batch):
    torch.manual_seed(0)
    logits = torch.tensor([[4.0, 4.0], [4.0, 4.0]])
    seen = from_batch(build_batch(torch.tensor([[1.0, 1.0], [0.0, 0.0]])), logits, torch.tensor([0.02, 4.0]))
    paper, aware = InstanceNet(features="paper"), InstanceNet()
    torch.nn.init.normal_(aware.net[2].weight)
    assert paper(seen)[0] == paper(seen)[1]
    assert (aware(seen)[0] - aware(seen)[1]).abs() > 1e-2


def test_the_default_net_learns_which_labels_are_wrong(build_batch):
    # The direction that a hypergradient gives: right examples up, wrong ones down.
    generator = torch.Generator().manual_seed(0)
    truth = torch.rand(256, 3, generator=generator) < 0.6
    wrong = torch.rand(256, generator=generator) < 0.4
    labels = (truth ^ wrong[:, None]).float()
    logits = (4.0 * truth - 2.0) + torch.randn(256, 3, generator=generator)
    losses = torch.nn.functional.binary_cross_entropy_with_logits(logits, labels, reduction="none").mean(1)
    seen = from_batch(build_batch(labels), logits, losses)
    torch.manual_seed(0)
    net = InstanceNet()
    optimizer = torch.optim.Adam(net.parameters(), lr=3e-2)
    for _ in range(40):
        optimizer.zero_grad()
        weights = net(seen)
        (weights[wrong].sum() - weights[~wrong].sum()).backward()
        optimizer.step()
    weights = net(seen).detach()
    assert (weights[~wrong, None] > weights[wrong]).float().mean() > 0.95
    assert 0 <= weights.min() < 0.5 < 1.5 < weights.max() <= 2


def test_bounds_are_a_setting(features):
    net = InstanceNet(low=-1.0, high=3.0).eval()  # while training, weights are relative to the batch
    torch.nn.init.constant_(net.net[2].bias, 50.0)
    assert net(features).tolist() == [3.0, 3.0]


@pytest.mark.parametrize(
    ("weigher", "given"),
    [
        (Uniform(), {}),
        (DomainTable(2), {"domains": ["a", "b"]}),
        (InstanceTable(3, low=0.0), {"keys": ["x:1", "y:ü", "z"]}),
        (InstanceNet(2), {"domains": ["a", "b"]}),
        (InstanceNet(features="paper"), {}),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_file_gives_the_same_weigher(weigher, given, features, tmp_path):
    for parameter in weigher.parameters():
        torch.nn.init.normal_(parameter)
    save(weigher, tmp_path / "weigher.safetensors", **given)
    again = load(tmp_path / "weigher.safetensors", **given)
    assert type(again) is type(weigher)
    assert again.settings == weigher.settings
    assert torch.equal(again(features), weigher(features))


def test_other_keys_or_domains_are_refused(tmp_path):
    path = tmp_path / "weigher.safetensors"
    save(InstanceTable(2), path, keys=["a", "b"])
    with pytest.raises(WeigherError, match="first difference is row 1: 'b' there, 'c' here"):
        load(path, keys=["a", "c"])
    with pytest.raises(WeigherError, match="learned on 2 keys and the data have 3"):
        load(path, keys=["a", "b", "c"])
    with pytest.raises(WeigherError, match="needs their 2 keys, got 0"):
        save(InstanceTable(2), path)
    save(DomainTable(2), path, domains=["a", "b"])
    with pytest.raises(WeigherError, match="first difference is row 0"):
        load(path, domains=["b", "a"])


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: DomainTable(0), "at least one domain"),
        (lambda: DomainTable(2, "cube"), "allowed are softplus, exp, sigmoid"),
        (lambda: InstanceTable(0), "at least one example"),
        (lambda: InstanceTable(2, start=4.0), "must lie between low=-1.0 and high=3.0"),
        (lambda: InstanceNet(features="magic"), "allowed are label_aware, loss, paper"),
        (lambda: InstanceNet(activation="step"), "allowed are leaky_relu"),
        (lambda: InstanceNet(low=2.0, high=1.0), "below high=1.0"),
        (lambda: RowAdam([torch.nn.Parameter(torch.ones(1))], lr=-1), "must not be negative"),
    ],
)
def test_bad_settings(build, message):
    with pytest.raises(ValueError, match=message):
        build()


def test_the_net_learns_relative_trust_only(features):
    """A common shift of all logits changes no weight of a batch, and its running mean measures a batch of one."""
    torch.manual_seed(0)
    net = InstanceNet()
    torch.nn.init.normal_(net.net[2].weight)
    before = net(features)
    torch.nn.init.constant_(net.net[2].bias, 7.0)
    torch.testing.assert_close(net(features), before, atol=1e-5, rtol=0)  # float32, next to a shift of 7
    assert abs(before.log().diff().item()) > 1e-3
    for _ in range(200):
        net.observe(features)
    net.eval()
    torch.testing.assert_close(net(features), before, atol=1e-4, rtol=0)
    net.settle([features])
    torch.testing.assert_close(net(features), before, atol=1e-5, rtol=0)
