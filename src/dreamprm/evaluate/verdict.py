"""Whether a run worked: its PRM before and after the bilevel phase, on the meta set and on the test set, in a sentence.

What can be said of one run, and when it is warranted:

* Intervals are 95 %, and draw whole questions (or clusters of them), since chains of one question are not independent.
  Below ten questions with a right chain, or ten with a wrong one, percentile intervals are too narrow to lean on: the
  verdict is then that the meta set is too small.
* "No usable signal": the area under the curve (AUC) with which the trained PRM tells right from wrong meta chains has
  an interval that reaches .5. The hypergradient is the meta set's answer to small changes of this PRM; where the PRM
  tells nothing, neither do the weights. A PRM at chance on an informative meta set is wrongly passed in one run of 40.
* The outer loss must have fallen from before to after by more than chance, on the same chains (paired differences).
* The meta set has chosen the weights, so that its figures are a little too good; where there is a test set, its AUC
  decides too, of chains and, where its steps are labelled, of steps: a significant loss there overrules the meta set.
  A PRM that was trained on the meta set (`inner.meta_weight`) is judged by the test set alone; without one, it
  is said where the PRM stood at chance on the meta set before, as then nothing speaks for the weights.
  Best-of-N that is not shown to be above the policy alone is said to be no gain.
* Before is the cold-started PRM: the change is that of the whole bilevel phase, inner updates included. What the
  *weights* are worth only a second run with weigher=uniform tells; no verdict on one run claims it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dreamprm.data.record import Record
from dreamprm.evaluate.figures import cluster_of, true_steps
from dreamprm.evaluate.intervals import Interval, bootstrap, paired_difference
from dreamprm.evaluate.steps import auc

__all__ = ["BETTER", "NO_GAIN", "NO_SIGNAL", "Change", "Evidence", "change_of", "step_change_of", "verdict"]

NO_SIGNAL = "the meta set gave no usable signal: weights are not to be trusted"
BETTER = "the PRM is better than before on questions that it has not seen"
NO_GAIN = "which shows no gain over the policy: compare with weigher=uniform"
_FEWEST_QUESTIONS = 10
_NUM_RESAMPLES = 500


@dataclass(frozen=True)
class Change:
    """Chains of known outcome, or steps of known truth, judged before and after.

    AUC: P(a right one scores above a wrong one), ties half.  change: of the AUC, after - before.
    fewest: questions with a right one, or with a wrong one, whichever are fewer.
    """

    before: Interval
    after: Interval
    change: Interval
    fewest: int


def change_of(records: Sequence[Record], before: Sequence[float], after: Sequence[float]) -> Change | None:
    """The AUC of chain scores before and after, and its change; None where the records are of one outcome only."""
    rows = [row for row, record in enumerate(records) if record.correct is not None]
    return _change(
        [bool(records[row].correct) for row in rows],
        [cluster_of(records[row]) for row in rows],
        [before[row] for row in rows],
        [after[row] for row in rows],
        _NUM_RESAMPLES,
    )


def step_change_of(
    records: Sequence[Record], before: Sequence[Sequence[float]], after: Sequence[Sequence[float]]
) -> Change | None:
    """The same of step scores against the steps' labels; None where no step is known to be right, or none wrong."""
    found = [
        (truth, cluster_of(record), earlier, later)
        for record, *scores in zip(records, before, after, strict=True)
        for truth, earlier, later in zip(true_steps(record), *scores, strict=True)
        if truth is not None
    ]
    return _change(
        [truth for truth, *_ in found],
        [cluster for _, cluster, *_ in found],
        [earlier for *_, earlier, _ in found],
        [later for *_, later in found],
        _NUM_RESAMPLES // 2,  # a resample of steps costs a sort of all of them
    )


def _change(
    right: Sequence[bool], clusters: Sequence[str], before: Sequence[float], after: Sequence[float], num_resamples: int
) -> Change | None:
    truth = np.asarray(right, dtype=bool)
    if not truth.any() or truth.all():
        return None
    scores = [np.asarray(given, dtype=float) for given in (before, after)]

    def interval(statistic: Any) -> Interval:
        return bootstrap(statistic, list(clusters), num_resamples=num_resamples)

    def area(values: NDArray[np.float64], drawn: NDArray[np.intp]) -> float:
        return auc(truth[drawn], values[drawn])

    return Change(
        before=interval(lambda drawn: area(scores[0], drawn)),
        after=interval(lambda drawn: area(scores[1], drawn)),
        change=interval(lambda drawn: area(scores[1], drawn) - area(scores[0], drawn)),
        fewest=min(len({c for c, value in zip(clusters, truth) if value == side}) for side in (True, False)),
    )


@dataclass(frozen=True)
class Evidence:
    """What the verdict rests on.

    meta, test: None where there is no such set, or only one outcome in it.
    losses_before, losses_after: the outer loss of every meta chain.  clusters: their questions.
    steps: of the test set's steps, None where they are not labelled.
    trained_on_meta: whether the meta set's outcomes were trained on as well.
    gain: best-of-N of the PRM less the policy's own accuracy, on the same test questions, for the largest N there is.
    """

    learns: bool
    outer_updates: int
    skipped: int
    meta: Change | None = None
    losses_before: Sequence[float] = ()
    losses_after: Sequence[float] = ()
    clusters: Sequence[str] = ()
    test: Change | None = None
    steps: Change | None = None
    gain: Interval | None = None
    num_candidates: int = 0
    trained_on_meta: bool = False

    def loss_change(self) -> Interval:
        return paired_difference(self.losses_after, self.losses_before, self.clusters, num_resamples=_NUM_RESAMPLES)


def verdict(given: Evidence) -> str:
    """One sentence; the rules stand at the file's top, the first that holds decides."""
    if not given.learns:
        return f"no weights were learned, every chain weighs the same; {_on_test(given) or 'there is no test set'}"
    if not given.outer_updates:
        return "no outer update was made: every weight is what it was at the start"
    if given.skipped * 2 > given.outer_updates:
        return (
            f"{given.skipped} of {given.outer_updates} outer updates were left out, their gradient not finite: "
            "weights are not to be trusted"
        )
    if given.trained_on_meta:
        return _by_test(given)
    meta = given.meta
    if meta is None:
        return NO_SIGNAL
    if meta.fewest < _FEWEST_QUESTIONS:
        return (
            f"the meta set is too small to say whether it gave a signal ({meta.fewest} questions with a right chain, "
            f"or with a wrong one; {_FEWEST_QUESTIONS} are needed): weights are not to be trusted on it alone"
        )
    loss = given.loss_change()
    fell = f"the outer loss went from {np.mean(given.losses_before):.3g} to {np.mean(given.losses_after):.3g}"
    if meta.after.low <= 0.5:
        return (
            f"{NO_SIGNAL} (the PRM tells right from wrong meta chains with {_area(meta.after)}, as chance may; {fell})"
        )
    if loss.low > 0:
        return f"{fell} on the meta set, which is worse: weights are not to be trusted"
    if loss.high >= 0:
        return (
            f"{fell} on the meta set, no more than chance may ({_ends(loss)}): nothing shows that the weights helped; "
            "compare with weigher=uniform"
        )
    found = f"the meta set gave a signal: {fell}, its {_area(meta.after)} (before {meta.before.value:.3f})"
    overruled = _overruled(given)
    if overruled:
        return f"{found}; but {overruled}"
    return f"{found}; {_on_test(given) or 'there is no test set to confirm it'}"


def _by_test(given: Evidence) -> str:
    """The verdict on a PRM that has trained on the meta set."""
    aside = "it was trained on the meta set too, whose own figures say nothing of it"
    if given.test is None and given.meta is not None and given.meta.before.low <= 0.5:
        return (
            "before it was trained on the meta set, the PRM told right from wrong meta chains with "
            f"{_area(given.meta.before)}, as chance may, and there is no test set: nothing shows that its "
            "weights are to be trusted; set test.path"
        )
    if given.test is None:
        return f"there is no test set, and nothing else says what the PRM is worth: {aside}; set test.path"
    overruled = _overruled(given)
    if overruled:
        return f"{overruled}; {aside}"
    if given.test.change.low <= 0:
        return f"{_on_test(given)}: no more than chance may; {aside}"
    return f"{BETTER}: {_on_test(given)}; {aside}"


def _overruled(given: Evidence) -> str:
    """What the test set says against the run; empty where it says nothing against it."""
    if given.test is not None:
        if given.test.change.high < 0:
            return f"{_on_test(given)}, worse than before: weights are not to be trusted"
        if given.test.after.low <= 0.5:
            return f"{_on_test(given)}, as chance may: weights are not to be trusted"
    if given.steps is not None and given.steps.change.high < 0:
        steps = f"steps are told apart with {_area(given.steps.after)}, before with {given.steps.before.value:.3f}"
        return f"on the test set {steps}, worse than before: weights are not to be trusted"
    if given.gain is not None and given.gain.low <= 0:
        return f"{_on_test(given)}, {NO_GAIN}"
    return ""


def _on_test(given: Evidence) -> str:
    parts: list[str] = []
    if given.test is not None:
        parts.append(f"on the test set {_area(given.test.after)} (before {given.test.before.value:.3f})")
    if given.gain is not None:
        gain = f"{given.gain.value:+.3f} ({_ends(given.gain)})"
        parts.append(f"best of {given.num_candidates} against the policy alone {gain}")
    return ", ".join(parts)


def _area(interval: Interval) -> str:
    return f"AUC {interval.value:.3f} ({_ends(interval)})"


def _ends(interval: Interval) -> str:
    return f"{interval.low:.3f} to {interval.high:.3f}"
