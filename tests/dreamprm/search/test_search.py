"""Search over steps with the shipped tiny policy."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path

import pytest
from tests.dreamprm.commands.chat_server import ChatServer

from dreamprm.choices import Device
from dreamprm.commands.files import StageData, read_scores
from dreamprm.commands.search import SearchStage, search
from dreamprm.config.build import build_policy
from dreamprm.errors import UserError
from dreamprm.policy import PolicyConfig
from dreamprm.policy.answers import ends_right
from dreamprm.policy.endpoint import EndpointConfig
from dreamprm.policy.endpoint_steps import EndpointStepWriter
from dreamprm.policy.step_writer import StepWriter
from dreamprm.search import Tree, beam, dvts
from dreamprm.world import base_folder, load


@pytest.fixture(scope="module")
def writer():
    return StepWriter(build_policy(PolicyConfig(), Device.cpu))


@pytest.fixture(scope="module")
def questions():
    return list({record.group: record for record in load("test")}.values())[:2]


def knows_the_answer(record, records):
    """Scores by the true function: whether the chain so far ends right."""
    return [[float(ends_right(record, "\n".join(r.steps)))] * len(r.steps) for r in records]


def test_width_1_with_1_sample_is_plain_sampling(writer, questions):
    record = questions[0]
    tree = Tree(record, writer, partial(knows_the_answer, record), samples=1, seed=3)
    (found,) = beam(tree, 1)
    steps, tokens = [], 0
    for place in range(16):
        (step,) = writer(record, [steps], 128, 3 * 1_000_003 + place)
        steps += [step.text] if step.text else []
        tokens += step.tokens
        if step.finish != "step":
            break
    assert (list(found.steps), tree.used) == (steps, tokens)
    assert len(steps) > 1


def test_search_led_by_the_truth_is_right_more_often_than_its_policy(writer):
    records = list({record.group: record for record in load("test")}.values())[:6]
    right = {1: 0, 4: 0}
    for place, record in enumerate(records):
        for samples in right:
            tree = Tree(record, writer, partial(knows_the_answer, record), samples=samples, seed=place)
            right[samples] += ends_right(record, "\n".join(beam(tree, samples)[0].steps))
    assert right[4] > right[1]


@pytest.mark.parametrize("method", [beam, dvts])
@pytest.mark.parametrize("lookahead", [0, 1])
@pytest.mark.parametrize("budget", [1, 7, 60])
def test_the_budget_is_never_exceeded_and_every_token_is_counted(writer, questions, method, lookahead, budget):
    written = []

    def counted(*arguments):
        steps = writer(*arguments)
        written.extend(step.tokens for step in steps)
        return steps

    record = questions[0]
    score = partial(knows_the_answer, record)
    tree = Tree(record, counted, score, samples=2, lookahead=lookahead, budget=budget)
    method(tree, 2)
    assert 0 < sum(written) == tree.used <= budget


def test_a_run_that_was_cut_goes_on_to_the_same_file(tmp_path: Path):
    settings = SearchStage(
        prm=str(base_folder()),
        out=str(tmp_path / "out.jsonl"),
        width=1,
        samples=2,
        token_budget=80,
        device=Device.cpu,
        data=StageData(path="world/test", limit=2),
    )
    out = search(settings)
    whole = out.read_bytes()
    lines = whole.splitlines(keepends=True)
    out.write_bytes(lines[0] + lines[-1][:20])
    assert search(settings).read_bytes() == whole
    records, scores = read_scores(str(out))
    assert [len(record.steps) for record in records] == [len(some) for some in scores]
    assert all(0 < json.loads(line)["extra"]["tokens_out"] <= 80 for line in lines)


@pytest.mark.parametrize("tells_stop", [True, False])
@pytest.mark.parametrize("method", [beam, dvts])
def test_search_over_a_server_writes_the_policys_steps(method, tells_stop):
    record = next(iter(load("test")))
    with ChatServer(tells_stop=tells_stop) as server:
        writer = EndpointStepWriter(EndpointConfig(url=server.url, model="tiny", concurrency=2))
        tree = Tree(record, writer, partial(knows_the_answer, record), samples=2, lookahead=1, seed=1)
        found = method(tree, 2)[0]
        asked = server.requests
    assert found.finish == "stop"
    assert len(found.steps) > 1, "several lines, each asked for by itself"
    assert all(request["stop"] == ["\n"] for request in asked)
    begun = {request["messages"][1]["content"] for request in asked if len(request["messages"]) > 1}
    assert any(text == f"{found.steps[0]}\n" for text in begun), "the chain so far is continued word for word"
    assert tree.used <= tree.budget


def test_a_server_that_tells_no_tokens_is_refused():
    record = next(iter(load("test")))
    with ChatServer(reply="a line", usage=False) as server:
        writer = EndpointStepWriter(EndpointConfig(url=server.url, model="tiny"))
        with pytest.raises(UserError, match=r"usage\.completion_tokens, so that the search's token_budget"):
            writer(record, [[]], 10, 0)


def test_the_command_searches_over_a_server(tmp_path: Path):
    with ChatServer(tells_stop=True) as server:
        settings = SearchStage(
            prm=str(base_folder()),
            out=str(tmp_path / "out.jsonl"),
            width=1,
            samples=2,
            token_budget=60,
            device=Device.cpu,
            data=StageData(path="world/test", limit=1),
            endpoint=EndpointConfig(url=server.url, model="tiny"),
        )
        (line,) = search(settings).read_text().splitlines()
        assert all(request["max_tokens"] <= 60 for request in server.requests)
    assert 0 < json.loads(line)["extra"]["tokens_out"] <= 60
