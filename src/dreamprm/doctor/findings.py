"""From counts to findings: what is wrong with a data set, how bad it is, and what to do about it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from enum import Enum
from itertools import combinations
from typing import Any

from dreamprm.doctor.survey import EXTREME, Survey
from dreamprm.doctor.trivial import Predictor, predictors

__all__ = ["Finding", "Severity", "find", "find_overlap"]


class Severity(Enum):
    """error: a model trained on this learns something false.  warning: look at it.  info: good to know."""

    ERROR = "error"
    WARNING = "warning"
    INFO = "info"


@dataclass(frozen=True)
class Finding:
    name: str
    severity: Severity
    count: int
    message: str
    advice: str
    examples: list[str] = field(default_factory=list)

    def as_dict(self) -> dict[str, Any]:
        return {**asdict(self), "severity": self.severity.value}


def _rows(found: Survey) -> Iterator[Finding]:
    error, warning, info = Severity.ERROR, Severity.WARNING, Severity.INFO
    if found.bad.count:
        examples = [str(bad) for bad in found.bad.first[:5]]
        message = f"{found.bad.count:,} of {found.rows:,} rows cannot be read"
        yield Finding("bad_rows", error, found.bad.count, message, "mend or leave them out (on_bad_row)", examples)
    num_ids, with_id = len(found.ids), found.ids.total()
    if num_ids == 1 and with_id > 1:
        name = next(iter(found.ids))
        message = f"every row has the id {name!r}"
        yield Finding("ids_constant", error, with_id, message, "never use it as a key; readers make keys of their own")
    elif num_ids < with_id:
        message = f"{with_id:,} rows share {num_ids:,} ids"
        most = [f"{name}: {count} rows" for name, count in found.ids.most_common(3)]
        advice = "an instance table keyed by id would share weights; readers make keys of their own"
        yield Finding("ids_repeated", warning, with_id - num_ids, message, advice, most)
    if found.duplicates:
        message = f"{found.duplicates:,} rows repeat question, images and chain of another"
        advice = "drop them, but for candidates of one question that happen to agree"
        yield Finding("duplicates", warning, found.duplicates, message, advice, found.examples["duplicates"])
    if found.split_questions:
        message = f"{found.split_questions:,} chains have a question that also stands under another name"
        advice = "a split by group would leak them: give both the same group"
        yield Finding("question_under_two_names", warning, found.split_questions, message, advice)
    if found.special:
        names = ", ".join(name for name, _ in found.special.most_common(5))
        message = f"{found.special.total():,} rows hold text that tokenizers take for a sign of their own: {names}"
        advice = "the collator must encode it as text"
        yield Finding("special_tokens", info, found.special.total(), message, advice, found.examples["special"])


def _steps(found: Survey) -> Iterator[Finding]:
    error, warning, info = Severity.ERROR, Severity.WARNING, Severity.INFO
    chains = found.records
    none = found.num_steps[0]
    if none == chains and chains:
        message = "no row holds a chain: these are questions alone"
        yield Finding("questions_only", info, none, message, "sample chains for them, or join a file of answers")
    elif none:
        message = f"{none:,} of {chains:,} rows hold no steps"
        advice = "leave them out: a mean over no steps is no loss"
        yield Finding("rows_without_steps", error, none, message, advice, found.examples["no steps"])
    if found.bare_answers:
        message = f"{found.bare_answers:,} of {chains:,} rows are a bare answer without reasoning"
        advice = "a process reward model has nothing to judge there; leave them out or count them apart"
        yield Finding("bare_answers", warning, found.bare_answers, message, advice, found.examples["bare"])
    if found.rows_losing_digits:
        message = f"in {found.rows_losing_digits:,} rows the published steps lack digits that the response has"
        advice = "take the steps from the response (the reader does)"
        yield Finding("digits_lost", error, found.rows_losing_digits, message, advice, found.examples["digits"])
    if found.rows_risking_digits:
        message = f"{found.rows_risking_digits:,} chains hold numbers that a splitter by list markers would delete"
        advice = "split by dreamprm.data.splitter"
        yield Finding("digits_at_risk", info, found.rows_risking_digits, message, advice, found.examples["risk"])


def _labels(found: Survey) -> Iterator[Finding]:
    error, warning = Severity.ERROR, Severity.WARNING
    if found.verdicts and found.verdicts["-"] == 0 and found.verdict_chains_wrong:
        message = (
            f"all {found.verdicts['+']:,} verdicts are '+', also those of {found.verdict_chains_wrong:,} chains "
            "whose answer is wrong: placeholders, not labels"
        )
        advice = "use the chain's outcome (correct) alone; the reader makes no step labels of them"
        yield Finding("placeholder_labels", error, found.verdicts["+"], message, advice, found.examples["placeholder"])
    num_labels = found.positive + found.negative
    if num_labels >= 100 and not (found.positive and found.negative):
        message = f"all {num_labels:,} step labels are {'right' if found.positive else 'wrong'}"
        yield Finding("labels_constant", error, num_labels, message, "nothing can be learned from them; placeholders?")
    elif num_labels and min(found.positive, found.negative) / num_labels < 0.05:
        share = min(found.positive, found.negative) / num_labels
        name = "wrong" if found.negative < found.positive else "right"
        message = f"only {share:.2%} of the step labels are {name}"
        advice = "report balanced figures; accuracy says little here"
        yield Finding("imbalance", warning, min(found.positive, found.negative), message, advice)
    judged = [group for group in found.groups.values() if group[1] + group[2] > 1]
    mixed = sum(1 for group in judged if group[1] and group[2])
    if judged and mixed < len(judged) / 2:
        message = f"only {mixed:,} of {len(judged):,} questions with several chains have right and wrong ones"
        advice = "the others cannot tell a good selection from a bad one: best-of-N gains come from these alone"
        yield Finding("few_mixed_questions", warning, mixed, message, advice)
    if found.records and not num_labels and not len(found.right) and found.num_steps.total() > found.num_steps[0]:
        message = "no step label and no verdict on any chain"
        yield Finding("labels_absent", error, found.records, message, "label the chains first (dreamprm label)")


def _trivial(found: Survey, features: list[Predictor]) -> Iterator[Finding]:
    for item in features:
        if item.pure:
            advice = "the label leaks through the form of the rows; a model learns the form. Balance or drop them"
            message = f"a trivial feature predicts the label without error: {item.rule}"
            yield Finding("trivial_feature", Severity.ERROR, len(found.right), message, advice, [item.feature])
        elif item.auc >= 0.7:
            message = f"'{item.feature}' alone predicts the labels with AUC {item.auc:.3f}"
            advice = "report this baseline beside the model's figure"
            yield Finding("trivial_baseline", Severity.WARNING, len(found.right), message, advice, [item.feature])


def _images(found: Survey, name: str) -> Iterator[Finding]:
    for kind, count, word in (
        ("missing", found.images_missing, "are not there"),
        ("broken", found.images_broken, "cannot be opened"),
    ):
        if count:
            message = f"{count:,} of {found.images_checked:,} images looked at {word} ({found.images:,} in all)"
            advice = f"set {name}.images to their root" if kind == "missing" else "fetch them anew, or drop their rows"
            yield Finding(f"images_{kind}", Severity.ERROR, count, message, advice, found.examples[kind])
    if found.images_extreme:
        message = (
            f"{found.images_extreme:,} of {found.images_checked:,} images looked at have one side {EXTREME} times the "
            "other, or more"
        )
        advice = "crop or pad them, or drop their rows: some processors (Qwen-VL's) refuse them, others squash them"
        yield Finding(
            "images_extreme", Severity.WARNING, found.images_extreme, message, advice, found.examples["extreme"]
        )


def find(found: Survey, name: str = "data") -> tuple[list[Finding], list[Predictor]]:
    """All findings on the data set of this name, the gravest first, and the trivial features with their AUC."""
    features = predictors(found)
    parts = (_rows(found), _steps(found), _labels(found), _trivial(found, features), _images(found, name))
    listed = [finding for part in parts for finding in part]
    order = list(Severity)
    return sorted(listed, key=lambda finding: order.index(finding.severity)), features


def find_overlap(surveys: Mapping[str, Survey]) -> list[Finding]:
    """Questions that two of the data sets share, by their words and images, or by their group's name."""
    result: list[Finding] = []
    for (first, one), (second, two) in combinations(surveys.items(), 2):
        words = len(one.questions.keys() & two.questions.keys())
        same_kind = set(one.formats) & set(two.formats)
        groups = len(one.groups.keys() & two.groups.keys()) if same_kind else 0
        if shared := max(words, groups):
            message = f"{first} and {second} share {shared:,} questions"
            common = one.questions.keys() & two.questions.keys()
            named = next((text for text in map(one.asked.get, common) if text), None)
            examples = [repr(named)] if named else [f"{first} and {second}"]
            advice = "split by group, so that no question stands on two sides"
            result.append(Finding("overlap", Severity.ERROR, shared, message, advice, examples))
    return result
