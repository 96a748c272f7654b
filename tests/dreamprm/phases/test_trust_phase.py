"""weigher=trust: its looks against plain autograd, its judges by hand, what it leaves behind, what it refuses."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.optimize import minimize
from torch.nn import functional as F

from dreamprm.config import ConfigError, TrainConfig
from dreamprm.errors import UserError
from dreamprm.metrics import PhaseName
from dreamprm.phases.state import Run
from dreamprm.phases.trust_plan import meta_halves
from dreamprm.trainer.loop import enter_phase, run_progress
from dreamprm.trainer.run import prepare, train
from dreamprm.weigher import from_batch
from dreamprm.weigher.trust import Trust

Settings = Callable[..., TrainConfig]
SMALL = ("model.question=null", "weigher.judge_updates=2", "weigher.passes=1")


def started(settings: TrainConfig) -> tuple[Run, Trust]:
    _, run = prepare(settings, Path())
    run.prm.train()
    assert isinstance(run.weigher, Trust)
    return run, run.weigher


def forward(run: Run, updates: int) -> None:
    for _ in range(updates):
        run.update += enter_phase(run).update().num_updates


def test_a_look_is_the_product_of_gradients(tiny_settings: Settings) -> None:
    """One update by gradient descent on all chains: d_is ∝ <∇F(θ'), ∇l_is(θ)>, each by a backward pass of its own."""
    sgd = ("optimizer@inner.optimizer=sgd", "inner.optimizer.momentum=0", "inner.optimizer.lr=0.1")
    steady = ("schedule@inner.schedule=constant", "inner.schedule.warmup=0")
    whole = ("cold.updates=0", "inner.batch_size=24", "outer.batch_size=12", "outer.begin=0", *steady)
    run, weigher = started(tiny_settings(*SMALL, *sgd, *whole, "weigher.judge_updates=0", experiment="trust"))
    own = list(run.trainable().values())
    assert len(own) == 6, "the last feed-forward block, two norms, the head's rows"
    batch, meta = run.batch(run.train, range(24)), run.batch(run.meta, range(12))
    logits = run.prm(batch)
    each = F.binary_cross_entropy_with_logits(logits, batch.labels, reduction="none") / batch.step_mask.sum(1)[:, None]
    gradients = {
        (row, step): torch.autograd.grad(each[row, step], own, retain_graph=True)
        for row, step in batch.step_mask.nonzero().tolist()
    }
    forward(run, 1)
    assert run.num_trust == 1
    for value, before in zip(own, run.fresh.values(), strict=True):
        assert torch.equal(value, before), "what the looks have trained does not stay"
    # F at θ', the calibration's α and β as constants.
    with torch.no_grad():
        for place, value in enumerate(own):
            value -= 0.1 * sum(found[place] for found in gradients.values()) / 24
    run.prm.zero_grad()
    values = run.prm(meta).masked_fill(~meta.step_mask, torch.inf).amin(1)
    scale, offset = fitted(values.detach().double().numpy(), meta.correct.numpy())
    F.binary_cross_entropy_with_logits(scale * values + offset, meta.correct).backward()
    d = torch.zeros_like(weigher.pull)
    for place, found in gradients.items():
        d[place] = sum(float((value.grad * part).sum()) for value, part in zip(own, found, strict=True))
    mask = torch.nn.functional.pad(batch.step_mask, (0, d.shape[1] - batch.step_mask.shape[1]))
    expected = Trust(24)
    expected.look(range(24), d / d.norm())
    expected.settle_pulls(mask)
    # fp32 throughout; the scale is fitted by another method to about 1e-4.
    torch.testing.assert_close(weigher.pull, expected.pull, rtol=1e-2, atol=1e-2)


def fitted(values: np.ndarray[Any, Any], right: np.ndarray[Any, Any]) -> tuple[float, float]:
    """argmin over α and β of the mean cross-entropy of α a + β, with the ridge that keeps it finite, by scipy."""

    def loss(x: np.ndarray[Any, Any]) -> float:
        z = x[0] * values + x[1]
        ridge = 1e-5 * ((x[0] - 1) ** 2 + x[1] ** 2) / 2
        return float(np.mean(np.logaddexp(0, z) - right * z)) + ridge

    least = min(1.0, 0.1 / values.std())
    found = minimize(loss, np.array([1.0, 0.0]), bounds=[(least, None), (None, None)], tol=1e-14)
    return float(found.x[0]), float(found.x[1])


def test_a_judge_says_how_likely_the_labels_are(tiny_settings: Settings) -> None:
    run, weigher = started(tiny_settings(*SMALL, "weigher.passes=0", experiment="trust"))
    forward(run, run.num_cold)
    cold = {name: value.detach().clone() for name, value in run.trainable().items()}
    believed = torch.zeros_like(weigher.posterior)
    halves = meta_halves(run.meta)
    for half in (1, 0):
        forward(run, 2)  # the judge of the other half
        if half == 0:
            break  # its PRM is put back at once: what it has said is checked by what it adds
        records = [run.meta[row] for row in halves[half]]
        lowest = np.array([min(row) for row in run.prm.log_odds_records(records)])
        sure = min(3.0, fitted(lowest, np.array([float(bool(record.correct)) for record in records]))[0])
        for row, values in enumerate(run.prm.log_odds_records(run.train)):
            labels = torch.tensor(run.train[row].labels)
            believed[row, : len(values)] = sure * torch.tensor(values) * (2 * labels - 1) / 2
        # fp32, batches of other lengths, the scale by another method.
        torch.testing.assert_close(weigher.posterior, believed, rtol=1e-3, atol=1e-3)
        assert run.counters.sureness[0] == pytest.approx(sure, rel=1e-3)
    assert run.phase_name is PhaseName.BILEVEL
    assert (weigher.posterior - believed).abs().max() > 1e-3, "the second judge has spoken too"
    assert not weigher.pull.any()
    for name, value in run.trainable().items():
        assert torch.equal(value, cold[name]), name


def test_results_say_what_each_part_gave(tiny_settings: Settings) -> None:
    import pyarrow.parquet as pq

    folder = train(tiny_settings(*SMALL, experiment="trust"))
    assert folder is not None
    results = json.loads((folder / "results.json").read_text())
    assert all(value > 0 for value in results["weights"]["sureness"])
    assert results["cost"]["outer_updates"] == 6  # one pass over 24 chains by 4
    assert results["cost"]["seconds_trust"] > 0
    assert "no outer update" not in results["verdict"]
    rows = pq.read_table(folder / "weights.parquet").to_pylist()
    for row in rows:
        m, tau = np.array(row["step_posterior"]), np.array(row["step_hypergradient"])
        np.testing.assert_allclose(row["step_weights"], 2 / (1 + np.exp(-(m + tau))), rtol=1e-5)  # as float32
        assert row["weight"] == pytest.approx(np.mean(row["step_weights"]), rel=1e-5)
    assert any(any(row["step_hypergradient"]) for row in rows)
    assert "trust: loss" in (folder / "report.html").read_text()


def test_what_is_refused(tiny_settings: Settings) -> None:
    with pytest.raises(ConfigError, match="hypergradient=jvp"):
        tiny_settings(*SMALL, "hypergradient=ghost", experiment="trust")
    few = tiny_settings(*SMALL, "meta.limit=3", "outer.batch_size=1", "inner.meta_batch_size=1", experiment="trust")
    with pytest.raises(UserError, match=r"one half holds no right chain.* set weigher\.judge_updates=0"):
        prepare(few, Path())


def test_weights_are_those_of_the_tables(tiny_settings: Settings) -> None:
    """In the last training too: the weigher is not asked for anything that it learns there."""
    run, weigher = started(tiny_settings(*SMALL, experiment="trust"))
    forward(run, run.num_before)
    tables = weigher.posterior.clone(), weigher.pull.clone()
    batch = run.batch(run.train, range(4))
    logits = run.prm(batch)
    weights = weigher(from_batch(batch, logits, logits.mean(1)))
    assert weights[batch.step_mask].std() > 0
    forward(run, 2)
    assert torch.equal(weigher.posterior, tables[0])
    assert torch.equal(weigher.pull, tables[1])


def test_what_is_left_is_told_by_the_chains_that_are_met_first(tiny_settings: Settings) -> None:
    run, _ = started(tiny_settings(*SMALL, "model.trained=last_feed_forward", "cold.updates=3", experiment="trust"))
    stages = run_progress(run).stages
    passes = sum(stage.total * stage.passes for stage in stages)
    run.prm.kept = None
    plain = sum(stage.total * stage.passes for stage in run_progress(run).stages)
    cold = min(3 * run.settings.cold.batch_size, len(run.cold))
    first = len(run.train) + len(run.meta) + len(run.test) + (0 if run.cold is run.train else cold)
    assert passes == pytest.approx(first + 0.02 * plain)
    assert stages[-1].passes == 0.02, "after the last training nothing is new"
