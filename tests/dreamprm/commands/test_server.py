"""sample and label by a real server on localhost: nothing lost, nothing doubled, a budget kept, a key never written."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from tests.dreamprm.commands.chat_server import ChatServer

from dreamprm.commands.files import StageData
from dreamprm.commands.label import LabelStage, label
from dreamprm.commands.sample import SampleStage, sample
from dreamprm.errors import ConfigError, UserError
from dreamprm.policy.endpoint import EndpointConfig

DATA = "world/test"
KEY = "sk-not-to-be-seen-anywhere"


def _lines(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def _stage(out: Path, url: str, **endpoint: object) -> SampleStage:
    data = StageData(path=DATA, limit=24)
    return SampleStage(out=str(out), num=2, data=data, endpoint=EndpointConfig(url=url, model="tiny", **endpoint))


def test_chains_of_a_server_that_fails_now_and_then(tmp_path: Path) -> None:
    with ChatServer(fail_every=4) as server:
        rows = _lines(sample(_stage(tmp_path / "a.jsonl", server.url, concurrency=3)))
    with ChatServer() as server:
        again = _lines(sample(_stage(tmp_path / "a2.jsonl", server.url, concurrency=1)))
    assert len(rows) == 6
    assert [row["steps"] for row in rows] == [row["steps"] for row in again], "seeds do not depend on order or retries"
    assert all(row["images"] and (tmp_path / row["images"][0]).is_file() for row in rows)
    assert {row["extra"]["tokens_out"] for row in rows} == {5}
    assert len({request["seed"] for request in server.requests}) == 6


def test_a_client_that_is_killed_loses_and_doubles_nothing(tmp_path: Path) -> None:
    with ChatServer() as server:
        whole = sample(_stage(tmp_path / "whole.jsonl", server.url))
        out = tmp_path / "killed.jsonl"
        words = ["sample", f"out={out}", "num=2", f"data.path={DATA}", "data.limit=24"]
        words += [f"endpoint.url={server.url}", "endpoint.model=tiny", "endpoint.concurrency=1"]
        for lines in (1, 3):
            process = subprocess.Popen([sys.executable, "-m", "dreamprm", *words], stdout=subprocess.DEVNULL)
            deadline = time.monotonic() + 120
            while process.poll() is None and time.monotonic() < deadline:
                if out.exists() and out.read_bytes().count(b"\n") >= lines:
                    process.send_signal(signal.SIGKILL)
                time.sleep(0.01)
            process.wait()
        found = sample(_stage(out, server.url))
    assert [row["steps"] for row in _lines(found)] == [row["steps"] for row in _lines(whole)]


def test_a_budget_is_kept_and_gone_on_from(tmp_path: Path) -> None:
    out = tmp_path / "a.jsonl"
    with ChatServer(reply="Step 1: 2\nThe final answer is: 2") as server:
        with pytest.raises(UserError, match="token_budget=50 does not allow another request: 45 tokens"):
            sample(_stage(out, server.url, token_budget=50, max_tokens=20, concurrency=1))
        assert len(_lines(out)) == len(server.requests) == 3, "15 tokens each, and room for 20 more before each"
        assert len(_lines(sample(_stage(out, server.url, token_budget=1000, max_tokens=20)))) == 6
        assert len(server.requests) == 6


def test_the_key_is_in_no_file_and_no_message(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MY_KEY", KEY)
    with ChatServer(reply="2", need_key=KEY) as server:
        sample(_stage(tmp_path / "a.jsonl", server.url, key_variable="MY_KEY"))
        server.need_key = "another"  # whose 401 repeats what it was sent
        with pytest.raises(UserError, match=r"wrong key: Bearer \[key\]") as caught:
            sample(_stage(tmp_path / "b.jsonl", server.url, key_variable="MY_KEY"))
    said = capfd.readouterr()
    assert KEY not in str(caught.value) + said.out + said.err
    for path in tmp_path.rglob("*"):
        assert not path.is_file() or KEY.encode() not in path.read_bytes(), path
    assert KEY in os.environ.values()


def test_a_server_that_does_not_sample_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with ChatServer(reply="2") as server:
        sample(_stage(tmp_path / "alike.jsonl", server.url))
        assert "warning: all candidates of each of 3 questions are alike: the server" in capsys.readouterr().out
        sample(_stage(tmp_path / "greedy.jsonl", server.url, temperature=0.0))
    with ChatServer() as server:
        sample(_stage(tmp_path / "sampled.jsonl", server.url))
    assert "are alike" not in capsys.readouterr().out


def test_a_server_that_reads_no_stop_string_is_refused(tmp_path: Path) -> None:
    with (
        ChatServer(reply="a\nb", heeds_stop=False) as server,
        pytest.raises(UserError, match=r"goes on behind '\\n', .*: the server does not heed `stop`"),
    ):
        sample(_stage(tmp_path / "a.jsonl", server.url, stop=["\n"]))


def test_recipes_send_what_the_models_take(tmp_path: Path) -> None:
    from dreamprm.config.paths import conf_dir

    folder = conf_dir() / "endpoint"
    with ChatServer(reply="2") as server:
        for recipe in ("gpt-5-mini", "o4-mini", "gpt-4.1-mini"):
            settings = _stage(tmp_path / f"{recipe}.jsonl", server.url, recipe=recipe)
            settings.endpoint.model = None  # the recipe's
            sample(settings)
    by_model = {request["model"]: request for request in server.requests}
    assert set(by_model) == {"gpt-5-mini", "o4-mini", "gpt-4.1-mini"}
    for name, request in by_model.items():
        assert ("temperature" in request) == (name == "gpt-4.1-mini")
        assert ("max_completion_tokens" in request) == ("reasoning_effort" in request) == (name != "gpt-4.1-mini")
        assert "Step 5: Conclude" in request["messages"][0]["content"][-1]["text"]
    with pytest.raises(ConfigError, match=r"recipe=none is not there; known are gpt-4\.1-mini, gpt-5-mini, o4-mini"):
        EndpointConfig(recipe="none").with_recipe(folder)


def test_a_judge_labels_steps_and_an_unreadable_verdict_labels_nothing(tmp_path: Path) -> None:
    chains = tmp_path / "chains.jsonl"
    chains.write_text(json.dumps({"question": "1 + 1?", "steps": ["2", "3", "4"]}) + "\n")
    stage = {"method": "judge", "data": StageData(path=str(chains))}
    for reply, labels in (("First wrong step: 2", [1, 0, 0]), ("First wrong step: none", [1, 1, 1]), ("?", [None] * 3)):
        with ChatServer(reply=reply) as server:
            endpoint = EndpointConfig(url=server.url, model="tiny")
            out = tmp_path / f"{len(labels)}{reply[-1]}.jsonl".replace("?", "x")
            assert _lines(label(LabelStage(out=str(out), endpoint=endpoint, **stage)))[0]["labels"] == labels


def test_completions_of_a_server_label_as_the_policy_does(tmp_path: Path) -> None:
    with ChatServer() as server:
        chains = sample(_stage(tmp_path / "chains.jsonl", server.url))
        data = StageData(path=str(chains), limit=2)
        endpoint = EndpointConfig(url=server.url, model="tiny")
        rows = _lines(label(LabelStage(out=str(tmp_path / "l.jsonl"), num=2, data=data, endpoint=endpoint)))
    for row in rows:
        assert row["labels"][-1] == float(row["correct"])
        assert set(row["labels"]) <= {0.0, 0.5, 1.0}


def test_a_server_that_goes_on_with_no_reply_is_named(tmp_path: Path) -> None:
    chains = tmp_path / "chains.jsonl"
    chains.write_text(json.dumps({"question": "1 + 1?", "steps": ["2", "3"], "reference": "2", "answer": "3"}) + "\n")
    with ChatServer(reply="2", goes_on=False) as server:
        settings = LabelStage(out=str(tmp_path / "l.jsonl"), num=2, data=StageData(path=str(chains)))
        settings.endpoint = EndpointConfig(url=server.url, model="tiny")
        with pytest.raises(
            UserError, match=r"422.*continue_final_message\), which vLLM and SGLang do and `transformers"
        ):
            label(settings)
