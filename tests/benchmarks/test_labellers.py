import gzip
import json
import random

import pytest
import torch
from benchmarks.evidence.labellers.chains import Chains, known_quality, split
from benchmarks.evidence.labellers.features import chain_features, load_base
from benchmarks.evidence.labellers.fitting import Fit, Judge, figures, outer
from benchmarks.evidence.labellers.learned import make_start, online
from tests.dreamprm.conftest import build_tokenizer
from transformers import LlamaConfig, LlamaForCausalLM

from dreamprm.errors import UserError
from dreamprm.sources.labellers_source import LabellersData, LabellersSource, place_of, read_rows

LABELLERS = ("poor", "good")


def rows(num_questions: int = 80, candidates: int = 9) -> list[dict]:
    """Questions in the file's format; the good labeller knows the outcome, the poor one nothing."""
    draw, found = random.Random(0), []
    for question in range(num_questions):
        for candidate in range(candidates):
            steps = [f"{question} + {step} = {draw.random():.3f}" for step in range(draw.randint(2, 4))]
            correct = draw.random() < 0.7
            scores = {
                "poor": [round(draw.random(), 4) for _ in steps],
                "good": [round(0.9 if correct else 0.1 + 0.1 * draw.random(), 4) for _ in steps],
            }
            found.append(
                {
                    "problem": f"q{question:03d}",
                    "candidate": candidate,
                    "question": f"How much is {question} and some?",
                    "steps": steps,
                    "correct": correct,
                    "scores": scores,
                }
            )
    return found


@pytest.fixture(scope="module")
def questions(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data") / "seven_prms"
    folder.mkdir()
    with gzip.open(folder / "gsm8k.jsonl.gz", "wt") as file:
        file.writelines(json.dumps(row) + "\n" for row in rows())
    return read_rows(place_of(folder.parent))


def features(questions) -> dict[str, torch.Tensor]:
    """Features in which the outcome shows, under noise."""
    draw = torch.Generator().manual_seed(0)
    return {
        f"{row['problem']}:{row['candidate']}": torch.randn(len(row["steps"]), 6, generator=draw)
        + (2.0 * row["correct"] - 1.0) * torch.tensor([0.5, 0, 0, 0, 0, 0])
        for found in questions.values()
        for row in found
    }


@pytest.fixture(scope="module")
def start(questions):
    found = split(questions, features(questions), 1, "test", pool=30)
    return make_start(found, 1, known_quality(questions))


def test_a_shared_beginning_changes_no_hidden_state(tmp_path, questions):
    torch.manual_seed(0)
    tokenizer = build_tokenizer()
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=3,
        num_attention_heads=2,
        num_key_value_heads=1,
        initializer_range=0.2,
    )
    LlamaForCausalLM(config).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    body, collate = load_base(tmp_path, layers=2)
    assert len(body.layers) == 2
    body = body.float()
    several = chain_features(body, collate, questions["q000"][:6])
    for row in questions["q000"][:6]:
        alone = chain_features(body, collate, [row])
        (key,) = alone
        # Two orders of summation in float32.
        torch.testing.assert_close(several[key], alone[key], atol=1e-4, rtol=1e-4)


def test_no_question_stands_in_two_sets_and_each_training_question_has_one_labeller(questions, start):
    names = [set(), set(), set()]
    for place, part in enumerate((start.split.train, start.split.meta, start.split.test)):
        hidden = {tuple(value[0].tolist()) for value in part.hidden}
        names[place] = hidden
    assert sum(map(len, names)) == len(set.union(*names))
    train = start.train
    for question in train.question.unique():
        of = train.question == question
        assert len(train.domain[of].unique()) == 1
    for owner in (0, 1):
        of = (train.domain == owner)[:, None] & train.mask
        # The labels are ranks of that labeller's scores: the same order.
        order = train.scores[..., owner][of].argsort(stable=True)
        assert (train.labels[of][order].diff() >= 0).all()


def test_the_hypergradient_is_the_change_of_the_outer_loss_with_a_weight(start):
    """Central differences of F(θ'(w)) in float64, through the very step of AdamW."""

    def double(part: Chains) -> Chains:
        values = {name: getattr(part, name) for name in Chains.__dataclass_fields__}
        return Chains(**{n: v.double() if v.is_floating_point() else v for n, v in values.items()})

    train, meta = double(start.train), double(start.split.meta)

    def run(weights: torch.Tensor) -> Fit:
        fit = Fit(Judge(6).double(), train, 8)
        for _ in range(3):  # past Adam's first steps, which are signs
            fit.weighted()
        fit.weighted(weights)
        return fit

    def value(fit: Fit) -> torch.Tensor:
        return outer(fit.judge(meta), meta, "cross_entropy", "last")

    weights = torch.ones_like(train.labels)
    fit = run(weights)
    found = fit.hypergradient(value(fit)) / len(train)
    for row, step in ((0, 0), (3, 1)):
        ends = []
        for sign in (1, -1):
            moved = weights.clone()
            moved[row, step] += sign * 1e-4
            ends.append(value(run(moved)).item())
        # d is minus the derivative; the error of a central difference of 1e-4 in float64 is about 1e-8 relative.
        assert -found[row, step].item() == pytest.approx((ends[0] - ends[1]) / 2e-4, rel=1e-4, abs=1e-10)


def test_a_block_whose_candidates_are_all_alike_needs_no_features(questions, start):
    for outcomes, places in start.split.blocks:
        assert len(outcomes) == 8
        assert (-1 in places) == (len(set(outcomes)) == 1)
    judge = Judge(6)
    told = figures(judge, start.split, "last")
    # Equal scores: the first of the eight is picked, and no pair is ordered.
    assert told["best_of_8"] == pytest.approx(
        sum(outcomes[0] for outcomes, _ in start.split.blocks) / len(start.split.blocks)
    )
    assert told["auc_within"] == 0.5


def test_the_labeller_who_knows_is_trusted_more(start):
    _, weights = online(start, "domain", "calibrated", "last", updates=60, again=False)
    mean = [weights[start.train.domain == place].mean() for place in (0, 1)]
    assert mean[1] > mean[0] + 0.2


def test_the_source_gives_each_training_question_to_one_labeller_and_keeps_questions_apart(tmp_path):
    file = tmp_path / "rows.jsonl.gz"
    with gzip.open(file, "wt") as opened:
        opened.writelines(json.dumps(row) + "\n" for row in rows(20))
    source = LabellersSource(LabellersData(path=str(file)), "data")
    parts = [source.train(), source.held_out(), source.test()]
    groups = [{record.group for record in part} for part in parts]
    assert [len(found) for found in groups] == [10, 4, 6]
    assert len(set.union(*groups)) == 20
    assert {len({r.domain for r in parts[0] if r.group == name}) for name in groups[0]} == {1}
    assert {record.domain for record in parts[0]} == set(LABELLERS)
    scores = {f"{row['problem']}:{row['candidate']}": row["scores"] for row in rows(20)}
    assert all(list(record.labels) == scores[record.key][record.domain] for record in parts[0])
    assert all(record.correct is None for record in parts[0])
    assert all(record.correct is not None and not record.labels for record in parts[1] + parts[2])


def test_data_that_are_not_there_or_of_another_kind_are_told_in_one_line(tmp_path):
    with pytest.raises(UserError, match=r"gsm8k.jsonl.gz not found: set data.path, or DREAMPRM_DATA"):
        read_rows(place_of(tmp_path))
    file = tmp_path / "bad.jsonl.gz"
    with gzip.open(file, "wt") as opened:
        opened.write(json.dumps(rows(1)[0] | {"steps": ["one"]}) + "\n")
    with pytest.raises(UserError, match=r"bad.jsonl.gz, line 1: .*1 steps, but scores"):
        read_rows(file)
