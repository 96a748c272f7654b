"""Chains of seven_prms as a frozen base sees them, and a seed's questions: to train on, to judge by, to be tested on.

The first questions of one random order are trained on, whatever their answers; each belongs to one labeller, drawn by
the seed, whose step scores are the labels of its chains: its domain. The others are dealt by the seed into a meta set
and a test set. Of these only the mixed ones are read, with right and wrong answers among their eight candidates: of the
rest the choice makes no difference, so that they count in best-of-8 without a score, and are of no use as meta set.

Shapes: N chains, S steps, H hidden width.
"""

from __future__ import annotations

import functools
import hashlib
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from scipy.stats import rankdata
from torch import Tensor

from dreamprm.errors import UserError
from dreamprm.evaluate.steps import auc
from dreamprm.sources.labellers_source import Row

__all__ = ["Chains", "Split", "key_of", "known_quality", "make_chains", "needed", "reading_order", "split"]

BLOCK = 8  # candidates of a question that are chosen from
TRAINED = 4  # of these, how many train: the same for every question, whatever its answers
POOL = 130  # questions that are trained on
WIDTH = 128  # of the features that a judge sees
VALIDATION, META = 0.2, 0.5  # shares of the others; the rest is the test set


@dataclass
class Chains:
    """hidden: (N, S, H), standardized by `split`.  mask: (N, S).  labels: (N, S), the mean of the labellers where
    no one of them was chosen.  scores: (N, S, labellers).  correct, question, domain: (N,)."""

    hidden: Tensor
    mask: Tensor
    scores: Tensor
    labels: Tensor
    correct: Tensor
    question: Tensor
    domain: Tensor

    def __len__(self) -> int:
        return len(self.correct)

    @functools.cached_property
    def flat(self) -> Tensor:
        """The hidden states of the steps that are there, one after another: chains are of very different lengths."""
        return self.hidden[self.mask]

    def padded(self, values: Tensor) -> Tensor:
        """One number per step of `flat` -> (N, S), 0 where there is no step."""
        return torch.zeros_like(self.labels).masked_scatter(self.mask, values)

    def take(self, rows: Tensor) -> Chains:
        return Chains(*(getattr(self, name)[rows] for name in self.__dataclass_fields__))

    def labelled(self, labels: Tensor) -> Chains:
        return replace(self, labels=labels)


@dataclass
class Split:
    """A seed's chains. blocks: per test question its candidates' outcomes, and the row of each in `test`, -1 where its
    features are not needed: all candidates of the block are right, or all wrong. names: the test questions."""

    train: Chains
    meta: Chains
    test: Chains
    blocks: list[tuple[list[bool], list[int]]]
    names: list[str]
    labellers: list[str]


def known_quality(questions: Mapping[str, Sequence[Row]]) -> dict[str, float]:
    """Each labeller's AUC of its score of the last step against the outcome."""
    rows = [row for found in questions.values() for row in found]
    right = np.array([row["correct"] for row in rows])
    return {name: float(auc(right, np.array([row["scores"][name][-1] for row in rows]))) for name in rows[0]["scores"]}


def mixed(rows: Sequence[Row]) -> bool:
    """Whether the first eight hold right and wrong answers: else any choice is as good."""
    return 0 < sum(row["correct"] for row in rows[:BLOCK]) < len(rows[:BLOCK])


def held_out(name: str, share: float) -> bool:
    """The same questions in every run, by the hash of their name."""
    digest = hashlib.blake2b(name.encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") / 2**64 < share


def make_chains(rows: Sequence[Row], features: Mapping[str, Tensor], labellers: Sequence[str]) -> Chains:
    """Padded to the longest chain. Raises UserError for a chain without features."""
    steps = max(len(row["steps"]) for row in rows)
    width = next(iter(features.values())).shape[1]
    hidden, mask = torch.zeros(len(rows), steps, width), torch.zeros(len(rows), steps, dtype=torch.bool)
    scores = torch.zeros(len(rows), steps, len(labellers))
    names: dict[str, int] = {}
    for place, row in enumerate(rows):
        if key_of(row) not in features:
            raise UserError(f"no features of {key_of(row)}: let the run that writes them end, or delete its folder")
        num = len(row["steps"])
        hidden[place, :num] = features[key_of(row)].float()
        mask[place, :num] = True
        scores[place, :num] = torch.tensor([row["scores"][name] for name in labellers]).T
    return Chains(
        hidden=hidden,
        mask=mask,
        scores=scores,
        labels=scores.mean(-1),
        correct=torch.tensor([float(row["correct"]) for row in rows]),
        question=torch.tensor([names.setdefault(row["problem"], len(names)) for row in rows]),
        domain=torch.full((len(rows),), -1),
    )


def key_of(row: Row) -> str:
    return f"{row['problem']}:{row['candidate']}"


def split(
    questions: Mapping[str, Sequence[Row]],
    features: Mapping[str, Tensor],
    seed: int,
    judged: str,
    *,
    assign: str = "question",
    labels: str = "rank",
    pool: int = POOL,
) -> Split:
    """The seed's questions. judged: test, or validation for choosing settings. assign: see `assigned`.
    labels: see `relabelled`.

    pool: how many questions are trained on. Raises UserError where features are lacking, or a question repeats.
    """
    order = pool_order(questions)
    train, others = order[:pool], order[pool:]
    validation = [name for name in others if held_out(name, VALIDATION)]
    others = [name for name in others if name not in set(validation)]
    random.Random(seed).shuffle(train)
    random.Random(seed).shuffle(others)
    num_meta = round(META * len(others))
    meta = [name for name in others[:num_meta] if mixed(questions[name])]
    test = validation if judged == "validation" else others[num_meta:]
    _check_disjoint(questions, train, meta, test)
    labellers = list(questions[order[0]][0]["scores"])
    trained = make_chains([row for name in train for row in questions[name][:TRAINED]], features, labellers)
    trained = assigned(trained, assign)
    trained = replace(trained, labels=relabelled(trained, labels))
    parts = [trained]
    for names in (meta, test):
        read = [row for name in names if mixed(questions[name]) for row in questions[name][:BLOCK]]
        parts.append(make_chains(read, features, labellers))
    places = {key_of(row): place for place, row in enumerate(read)}
    blocks = [
        ([row["correct"] for row in rows], [places.get(key_of(row), -1) for row in rows])
        for rows in (questions[name][:BLOCK] for name in test)
    ]
    _standardize(parts)
    return Split(parts[0], parts[1], parts[2], blocks, list(test), labellers)


def assigned(chains: Chains, assign: str) -> Chains:
    """Labels and domains of training chains whose questions come in random order.

    question: a question belongs to one labeller.  all: every chain stands there once for each labeller.
    """
    num = chains.scores.shape[-1]
    if assign == "all":
        chains = chains.take(torch.arange(len(chains)).repeat(num))
        owner = torch.arange(num).repeat_interleave(len(chains) // num)
    else:
        owner = chains.question % num
    labels = chains.scores.gather(2, owner[:, None, None].expand(-1, chains.mask.shape[1], 1))[..., 0]
    return replace(chains, domain=owner, labels=labels)


def relabelled(chains: Chains, labels: str) -> Tensor:
    """soft: the scores as they are.  hard: cut at one half.  rank: a score's place among those of its labeller.

    The labellers use their scales differently (from 39 % to 99 % of their scores lie above one half); ranks make them
    say as much of a step, each in its own order, and need nothing but the scores.
    """
    if labels == "soft":
        return chains.labels
    if labels == "hard":
        return (chains.labels >= 0.5).float()
    found = torch.zeros_like(chains.labels)
    for owner in chains.domain.unique():
        of = (chains.domain == owner)[:, None] & chains.mask
        places = torch.as_tensor(rankdata(chains.labels[of].numpy()), dtype=found.dtype)
        found[of] = (places - 0.5) / len(places)
    return found


def pool_order(questions: Mapping[str, Sequence[Row]]) -> list[str]:
    """All questions, in the one random order whose first are trained on."""
    order = sorted(questions)
    random.Random(0).shuffle(order)
    return order


def reading_order(questions: Mapping[str, Sequence[Row]], pool: int = POOL) -> list[str]:
    """The questions whose features are needed: those that are trained on, then the mixed ones of the rest."""
    order = pool_order(questions)
    return order[:pool] + [name for name in order[pool:] if mixed(questions[name])]


def needed(rows: Sequence[Row]) -> Sequence[Row]:
    """The candidates of a question that are read: all eight of a mixed block, else the first four."""
    return rows[:BLOCK] if mixed(rows) else rows[:TRAINED]


def _standardize(parts: Sequence[Chains], width: int = WIDTH) -> None:
    """The first principal components of the training steps' hidden states, each of deviation one."""
    steps = parts[0].hidden[parts[0].mask]
    mean, deviation = steps.mean(0), steps.std(0).clamp_min(1e-6)
    _, values, directions = torch.linalg.svd((steps - mean) / deviation, full_matrices=False)
    kept = min(width, int((values > 1e-4 * values[0]).sum()))
    turn = directions[:kept].T / values[:kept] * len(steps) ** 0.5
    for part in parts:
        part.hidden = ((part.hidden - mean) / deviation) @ turn * part.mask[..., None]


def _check_disjoint(questions: Mapping[str, Sequence[Row]], *parts: Sequence[str]) -> None:
    texts = [{" ".join(questions[name][0]["question"].casefold().split()) for name in part} for part in parts]
    if sum(map(len, texts)) != len(set().union(*texts)):
        raise UserError("a question stands in two of the training, meta and test sets: give equal questions one name")
