"""Intervals, step figures, first errors and weights, against the libraries' own numbers."""

import numpy as np
import pytest
from sklearn.metrics import f1_score, roc_auc_score

from dreamprm.evaluate import (
    domain_rank_correlation,
    first_error_f1,
    mean_interval,
    paired_difference,
    separation,
    step_metrics,
    wilson,
)


def test_wilson():
    found = wilson(8, 10)
    assert (found.value, found.n) == (0.8, 10)
    # Closed form with z = 1.959964.
    assert found.low == pytest.approx(0.4901625, abs=1e-6)
    assert found.high == pytest.approx(0.9433178, abs=1e-6)
    assert wilson(0, 5).low == 0.0 < wilson(0, 5).high


def test_clusters_widen_the_interval():
    generator = np.random.default_rng(0)
    clusters = np.repeat(np.arange(20), 10)
    values = np.repeat(generator.random(20), 10)
    together = mean_interval(values, clusters)
    apart = mean_interval(values)
    assert together.value == pytest.approx(values.mean())
    assert together.n == 20
    # Ten copies of each value: the true interval is sqrt(10) wider; a third of slack for 1,000 resamples.
    assert (together.high - together.low) / (apart.high - apart.low) == pytest.approx(10**0.5, rel=0.33)


def test_bootstrap_covers_the_mean():
    generator = np.random.default_rng(1)
    hits = 0
    for seed in range(60):
        found = mean_interval(generator.beta(2, 3, size=80), num_resamples=300, seed=seed)
        hits += found.low <= 0.4 <= found.high
    assert hits >= 50  # 95 % of 60 is 57; below 50 has a probability under 1e-3


def test_binary_means_get_wilsons_interval():
    assert mean_interval([1.0] * 8 + [0.0] * 2) == wilson(8, 10)
    assert mean_interval([1.0, 1.0, 0.0], ["a", "a", "b"]) != wilson(2, 3)


def test_pairs_are_tighter_than_their_parts():
    generator = np.random.default_rng(0)
    base = generator.random(200)
    found = paired_difference(base + 0.05 + 0.01 * generator.standard_normal(200), base)
    assert found.low > 0.04
    assert found.high < 0.06
    with pytest.raises(ValueError, match="are not pairs"):
        paired_difference([1.0], [1.0, 2.0])


@pytest.fixture
def steps():
    generator = np.random.default_rng(0)
    truths = [[bool(generator.random() < 0.7) for _ in range(generator.integers(1, 6))] for _ in range(80)]
    scores = [[round(float(np.clip(0.35 * t + generator.random() * 0.6, 0, 1)), 2) for t in row] for row in truths]
    return scores, truths


def test_step_metrics_are_sklearns(steps):
    scores, truths = steps
    found = step_metrics(scores, truths, num_resamples=100)
    p, y = np.concatenate(scores), np.concatenate(truths)
    assert found["auc"]["value"] == pytest.approx(roc_auc_score(y, p), abs=1e-12)
    assert found["macro_f1"]["value"] == pytest.approx(f1_score(y, p >= 0.5, average="macro"), abs=1e-12)
    assert found["auc"]["low"] < found["auc"]["value"] < found["auc"]["high"]
    assert found["auc"]["n"] == 80
    assert found["share_right"] == pytest.approx(y.mean())


def test_neutral_steps_are_left_out_and_sources_weighted(steps):
    scores, truths = steps
    sources = ["a" if row % 3 else "b" for row in range(len(scores))]
    neutral = [[None if place == 1 else value for place, value in enumerate(row)] for row in truths]
    found = step_metrics(scores, neutral, sources=sources, num_resamples=10)
    kept = [(p, y, s) for ps, ys, s in zip(scores, neutral, sources) for p, y in zip(ps, ys) if y is not None]
    expected, weights = [], []
    for name in "ab":
        part = [(p, y) for p, y, s in kept if s == name]
        expected.append(f1_score([y for _, y in part], [p >= 0.5 for p, _ in part], average="macro"))
        weights.append(len(part))
    assert found["num_steps"] == len(kept)
    assert list(found["macro_f1_by_source"].values()) == pytest.approx(expected)
    assert found["macro_f1_weighted_by_source"] == pytest.approx(np.average(expected, weights=weights))


def test_one_class_alone_has_no_figure():
    found = step_metrics([[0.1, 0.9]], [[True, True]])
    assert found["auc"] is None
    assert found["macro_f1"] is None
    with pytest.raises(ValueError, match="chain 0 has 2 scores and 1 true steps"):
        step_metrics([[0.1, 0.9]], [[True]])


def test_first_error_f1():
    scores = [[0.9, 0.2, 0.1], [0.9, 0.9], [0.9, 0.4], [0.8, 0.8, 0.3]]
    found = first_error_f1(scores, [1, -1, -1, 0])
    assert found["accuracy_wrong"]["value"] == 0.5
    assert found["accuracy_right"]["value"] == 0.5
    assert found["f1"] == pytest.approx(0.5)
    assert first_error_f1(scores, [0, -1, -1, 1], threshold=0.35)["f1"] == 0.0
    assert first_error_f1(scores[:1], [1])["f1"] is None
    with pytest.raises(ValueError, match="chain 0: its first wrong step is 3, but it has 3 steps"):
        first_error_f1(scores[:1], [3])


def test_separation_is_the_area_under_the_curve():
    generator = np.random.default_rng(0)
    good = generator.random(300) < 0.6
    weights = np.round(1 + 0.3 * good + 0.3 * generator.standard_normal(300), 1)
    found = separation(weights.tolist(), [*good.tolist()], num_resamples=50)
    assert found["auc"]["value"] == pytest.approx(roc_auc_score(good, weights), abs=1e-12)
    assert found["mean_good"] == pytest.approx(weights[good].mean())
    assert found["num_bad"] == int((~good).sum())
    partly = separation([1.0, 2.0, 9.0], [False, True, None], num_resamples=10)
    assert partly["auc"]["value"] == 1.0
    assert separation([1.0, 2.0], [True, True]) is None


def test_domain_rank_correlation():
    weights = {"a": 0.2, "b": 0.9, "c": 1.5, "d": 1.4, "unknown": 3.0}
    quality = {"a": 0.0, "b": 0.5, "c": 0.9, "d": 1.0}
    found = domain_rank_correlation(weights, quality)
    assert found["value"] == pytest.approx(0.8)
    assert found["domains"] == ["a", "b", "c", "d"]
    assert domain_rank_correlation({"a": 1.0, "b": 1.0, "c": 1.0}, quality) is None
    assert domain_rank_correlation({"a": 1.0}, quality) is None
