import argparse
import copy
import functools

import pytest
import torch
from benchmarks.evidence import ablation_measures, ablations, methods, online, report
from benchmarks.evidence.__main__ import planned, self_consistency
from benchmarks.evidence.ablation_measures import ABLATIONS, exact, finite_difference
from benchmarks.evidence.cells import run_cell
from benchmarks.evidence.chains import as_chains, encode
from benchmarks.evidence.fitting import Fit, meta_losses, scores, train_on
from benchmarks.evidence.judge import Judge, upper_part
from benchmarks.evidence.learned import calibrated, fit_confidence, label_posterior, learn_trust
from benchmarks.evidence.methods import MAIN, METHODS
from benchmarks.evidence.start import Start

from dreamprm.prm import PRM
from dreamprm.world import KINDS, base_folder, load
from dreamprm.world.build_reader import train_matching


@pytest.fixture(scope="module")
def prm():
    return PRM.from_pretrained(base_folder()).eval()


@pytest.fixture(scope="module")
def start(prm):
    records = load("train", trouble="crowd", seed=1, num_chains=48)
    domains = {name: place for place, name in enumerate(sorted({record.domain for record in records}))}
    parts = [
        as_chains(found, encode(prm, found), domains)
        for found in (records, load("meta", num_chains=24), load("test")[:32])
    ]
    upper = upper_part(prm)
    cold = train_on(Judge(upper), parts[0], updates=2, seed=1).tensors_of()
    return Start("crowd", 1, upper, cold, *parts, len(domains))


def test_the_kept_states_and_the_upper_part_give_what_the_whole_prm_gives(prm, start):
    records = load("train", trouble="crowd", seed=1, num_chains=48)
    whole = prm.score_records(records)
    ours = scores(Judge(start.upper), start.train).sigmoid()
    for row, values in enumerate(whole):
        # Two orders of summation in float32, over four layers.
        torch.testing.assert_close(ours[row, : len(values)], torch.tensor(values), atol=1e-4, rtol=0)


def test_matching_leaves_the_verdict_and_the_tower_as_they_are():
    prm = PRM.from_pretrained(base_folder())
    before = {name: value.clone() for name, value in prm.state_dict().items()}
    train_matching(prm, 1)
    moved = {name for name, value in prm.state_dict().items() if not torch.equal(value, before[name])}
    assert any("language_model" in name for name in moved)
    assert not any("vision_tower" in name or name.startswith("head") for name in moved)


def test_a_judge_worse_than_chance_is_not_asked_for_the_opposite():
    value = torch.tensor([2.0, 1.0, -1.0, -2.0])
    scale, offset = fit_confidence(value, torch.tensor([0.0, 0.0, 1.0, 1.0]))
    assert scale == 0
    assert offset.isfinite()


def test_the_posterior_is_the_sure_judges_opinion_of_the_label(start):
    found = label_posterior(start, updates=2)
    assert not found[~start.train.mask].any()
    assert found[start.train.mask].isfinite().all()


def test_the_hypergradient_is_the_change_of_the_meta_loss_with_a_weight(start):
    """Central differences of F(θ'(w)) in float64, through the very step of AdamW."""
    start = to_double(start)
    rows, loss = torch.arange(16), meta_losses("cross_entropy", "min")
    weights = torch.ones_like(start.train.labels)

    def run(weights: torch.Tensor) -> Fit:
        fit = Fit(Judge(start.cold).double(), start.train, 8, seed=0, batch=16)
        for _ in range(3):  # past Adam's first steps, which are signs
            fit.weighted(rows, torch.ones_like(weights))
        fit.weighted(rows, weights)
        return fit

    fit = run(weights)
    gradient, _ = fit.meta_gradient(start.meta, loss)
    found = fit.hypergradient(start.train.take(rows), gradient) / len(rows)
    small = 1e-4
    for row, step in ((0, 0), (3, 1), (7, 2)):
        ends = []
        for sign in (1, -1):
            moved = weights.clone()
            moved[row, step] += sign * small
            ends.append(run(moved).meta_gradient(start.meta, loss)[1])
        difference = -(ends[0] - ends[1]) / (2 * small)
        # The truncation error of a difference over 2e-4 in float64.
        torch.testing.assert_close(
            torch.tensor(difference, dtype=torch.float64), found[row, step], rtol=1e-3, atol=1e-9
        )


def test_every_method_trains_and_says_whom_it_trusts(start, monkeypatch, tmp_path):
    monkeypatch.setattr(methods, "UPDATES", 2)
    monkeypatch.setattr(methods, "META_UPDATES", 2)
    monkeypatch.setattr(methods, "learn_trust", functools.partial(learn_trust, updates=4, every=2))
    monkeypatch.setattr(methods, "label_posterior", functools.partial(label_posterior, updates=2))
    monkeypatch.setattr(online, "published", functools.partial(online.published, updates=12))
    cells = [run_cell(start, name) | {"judged": "test"} for name in METHODS]
    for cell in cells:
        assert 0 <= cell["best_of_n"] <= 1
        assert cell.get("trust_step_auc", 0.5) == pytest.approx(0.5, abs=0.5)
    learned = {cell["method"] for cell in cells if "trust_step_auc" in cell}
    assert {"step_table", "instance_table", "domain_table", "small_loss"} <= learned
    vote = self_consistency(start)
    assert vote["policy"] <= vote["oracle"]
    monkeypatch.setattr(report, "REPORTS", tmp_path)
    text = report.write_report(cells, vote, "a command", tmp_path).read_text()
    assert "## crowd" in text
    assert "| step_table | 1 |" in text
    path = next(tmp_path.glob("*.md"))
    path.write_text(f"# Title\n\n{report.READING}\n\nBy hand.\n\n## crowd\n")
    assert "By hand.\n\n## crowd" in report.write_report(cells, vote, "a command", tmp_path).read_text()
    figure = next(tmp_path.glob("*.svg")).read_text()
    assert "<title>Best-of-8" in figure


def test_calibration_takes_scale_and_offset_out_of_the_gradient(start):
    judge = Judge(start.cold)
    loss = calibrated(judge, start.meta)
    z = scores(judge, start.meta)
    knobs = torch.tensor([1.0, 0.0], requires_grad=True)
    value = loss(knobs[0] * z + knobs[1], start.meta.mask, start.meta.correct).mean()
    (gradient,) = torch.autograd.grad(value, knobs)
    torch.testing.assert_close(gradient, torch.zeros(2), atol=1e-4, rtol=0)  # LBFGS in float32


def to_double(start):
    start = copy.deepcopy(start)
    for part in (start.train, start.meta):
        for name, value in vars(part).items():
            if value.is_floating_point():
                setattr(part, name, value.double())
    start.cold = {name: value.double() for name, value in start.cold.items()}
    return start


def test_without_names_the_plan_is_all_methods_on_the_headline_and_the_main_ones_elsewhere():
    options = argparse.Namespace(troubles=None, methods=None, seeds=5, first_seed=0)
    plan = {(trouble, seed): asked for trouble, seed, asked in planned(options)}
    assert plan["crowd", 4] == list(METHODS)
    assert plan["off_target", 2] == list(MAIN)
    assert plan["off_target", 4] == ["published"]
    assert {trouble for trouble, _ in plan} == set(KINDS)
    named = argparse.Namespace(troubles="clean", methods="small_loss", seeds=1, first_seed=100)
    assert planned(named) == [("clean", 100, ["small_loss"])]


def test_the_finite_difference_is_the_exact_derivative_of_gradient_descent(start):
    start = to_double(start)
    run = Fit(Judge(start.cold).double(), start.train, 8, seed=0, batch=16)
    for _ in range(3):
        run.weighted(run.draw(), None)
    # At the parameters that the gradient is taken at, so that both look at the same point.
    run.before = {name: value.detach().clone() for name, value in run.parameters.items()}
    found = finite_difference(run, start.meta, torch.float64)
    wanted = exact(run, start.meta, of_adam=False)
    # Central differences over a hundredth of a parameter's length: relative error of its square.
    torch.testing.assert_close(found, wanted, rtol=1e-2, atol=1e-3 * wanted.abs().max().item())


def test_ablations_measure_and_are_drawn(start, monkeypatch, tmp_path):
    monkeypatch.setattr(ablation_measures, "label_posterior", functools.partial(label_posterior, updates=2))
    monkeypatch.setattr(ablation_measures, "looks", functools.partial(ablation_measures.looks, updates=4, every=2))
    monkeypatch.setattr(methods, "UPDATES", 2)
    for name, changed in {
        "derivative": {},
        "features": {},
        "meta_set": {"sizes": (12,)},
        "units": {"sizes": (12,)},
        "noise": {"moments": (2, 4), "draws": 3},
    }.items():
        found = ABLATIONS[name].measure(start, **changed)
        assert len(ablations.table(ABLATIONS[name], [found])) == len(found) + 2
        if name in ("derivative", "noise"):
            ablations.draw(name, ABLATIONS[name], {"crowd": [found, found]}, tmp_path / f"{name}.svg")
            assert (tmp_path / f"{name}.svg").read_text().count("<title>") == 1
