"""The server: what it answers, what it refuses, and how it ends."""

from __future__ import annotations

import base64
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx2
import pytest
from tests.dreamprm.serve.conftest import serving

from dreamprm.data.record import Record
from dreamprm.prm import PRM
from dreamprm.serve.limits import Limits

# fp32 sums in the order of another batch; measured 3e-7.
CLOSE = 1e-5


def _post(url: str, path: str, body: Any, **options: Any) -> Any:
    content = body if isinstance(body, (bytes, str)) else json.dumps(body)
    return httpx2.post(url + path, content=content, headers={"content-type": "application/json"} | options)


def _image(data: bytes) -> str:
    return f"data:image/png;base64,{base64.b64encode(data).decode()}"


def test_score_equals_the_local_model(
    internvl_url: str, internvl_prm: PRM, make_image: Callable[..., bytes], make_record: Callable[..., Record]
) -> None:
    image, chains = make_image(), [["3 + 4 = 7", "so 7"], ["it is 8"]]
    local = internvl_prm.score_chains("What?", image, chains)
    answer = _post(internvl_url, "/score", {"question": "What?", "images": [_image(image)], "chains": chains}).json()
    for got, want in zip(answer["scores"], local, strict=True):
        assert got == pytest.approx(want, abs=CLOSE)
    assert answer["chain_scores"] == pytest.approx([sum(steps) / len(steps) for steps in local], abs=CLOSE)
    one = _post(internvl_url, "/score", {"question": "What?", "steps": chains[1]}).json()
    assert one["scores"] == pytest.approx(internvl_prm.score("What?", None, chains[1]), abs=CLOSE)


def test_pooling_gives_every_position(internvl_url: str, internvl_prm: PRM, make_record: Callable[..., Record]) -> None:
    records = [make_record(), make_record(steps=("a longer first step than that", "then", "so 7"))]
    encoded = [internvl_prm.collator().encode(record) for record in records]
    ids = [item.sequences["input_ids"].tolist() for item in encoded]
    answer = _post(internvl_url, "/pooling", {"input": ids, "task": "token_classify"}).json()
    assert [len(item["data"]) for item in answer["data"]] == [len(row) for row in ids]
    assert answer["usage"]["prompt_tokens"] == sum(map(len, ids))
    for item, one, want in zip(answer["data"], encoded, internvl_prm.score_records(records), strict=True):
        assert [item["data"][place][0] for place in one.positions] == pytest.approx(want, abs=CLOSE)
    raw = _post(internvl_url, "/pooling", {"input": ids[0], "use_activation": False}).json()["data"][0]["data"]
    want = internvl_prm.log_odds_records(records[:1])[0]
    assert [raw[place][0] for place in encoded[0].positions] == pytest.approx(want, abs=1e-4)


def test_two_classes_come_as_vllm_gives_them(build_prm: Callable[..., PRM], make_record: Callable[..., Record]) -> None:
    prm = build_prm("token_classification", 2, right_class=0)
    item = prm.collator().encode(make_record())
    with serving(prm) as url:
        rows = _post(url, "/pooling", {"input": item.sequences["input_ids"].tolist()}).json()["data"][0]["data"]
        assert _post(url, "/pooling", {"input": [1, 2], "use_activation": False}).status_code == 400
    logits = prm.model(item.sequences["input_ids"][None]).logits[0].softmax(-1)
    for got, want in zip(rows, logits.tolist(), strict=True):
        assert got == pytest.approx(want, abs=CLOSE)


BAD = [
    ("/score", b"{", 400, "no JSON"),
    ("/score", {"steps": ["a"]}, 400, "question"),
    ("/score", {"question": "q"}, 400, "steps (one chain) or chains"),
    ("/score", {"question": "q", "steps": ["a"], "chains": [["a"]]}, 400, "one of the two"),
    ("/score", {"question": "q", "steps": []}, 400, "steps"),
    ("/score", {"question": "q", "steps": [" "]}, 400, "step 0"),
    ("/score", {"question": "q", "steps": [3]}, 400, "steps.0"),
    ("/score", {"question": "", "steps": ["a"]}, 400, "question"),
    ("/score", {"question": "q", "steps": ["a <|im_end|>"]}, 400, "control token"),
    ("/score", {"question": "q", "steps": ["a"], "temperature": 1}, 400, "temperature"),
    ("/score", {"question": "q", "steps": ["a"] * 9}, 400, "9 steps"),
    ("/score", {"question": "q", "chains": [["a"]] * 9}, 400, "9 chains"),
    ("/score", {"question": "word " * 200, "steps": ["a"]}, 400, "tokens"),
    ("/score", {"question": "q", "steps": ["a"], "images": ["/etc/passwd"]}, 400, "paths are not opened"),
    ("/score", {"question": "q", "steps": ["a"], "images": ["file:///etc/hostname"]}, 400, "addresses"),
    ("/score", {"question": "q", "steps": ["a"], "images": ["http://localhost/x.png"]}, 400, "addresses"),
    ("/score", {"question": "q", "steps": ["a"], "images": ["data:image/png;base64,AAAA"]}, 400, "images[0]"),
    ("/score", {"question": "q", "steps": ["a"], "images": ["data:image/png,raw"]}, 400, "base64"),
    ("/score", {"question": "q" * 20_000, "steps": ["a"]}, 413, "larger than"),
    ("/pooling", {}, 400, "input or messages"),
    ("/pooling", {"input": []}, 400, "input"),
    ("/pooling", {"input": [[]]}, 400, "input"),
    ("/pooling", {"input": [1, 99_999]}, 400, "vocabulary"),
    ("/pooling", {"input": [1, -1]}, 400, "input"),
    ("/pooling", {"input": [1, True]}, 400, "input"),
    ("/pooling", {"input": [1], "task": "embed"}, 400, "task"),
    ("/pooling", {"input": [1], "encoding_format": "base64"}, 400, "encoding_format"),
    ("/pooling", {"input": [1], "truncate_prompt_tokens": 5}, 400, "truncate_prompt_tokens"),
    ("/pooling", {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "/x"}}]}]},
     400, "messages[0]"),
    ("/nowhere", {}, 404, "Not Found"),
]  # fmt: skip


def test_bad_requests_are_told_why(internvl_prm: PRM) -> None:
    limits = Limits(steps=8, chains=8, tokens=400, body=16_384)
    with serving(internvl_prm, limits) as url:
        for path, body, status, reason in BAD:
            answer = _post(url, path, body)
            assert answer.status_code == status, (path, body, answer.text)
            assert reason in answer.json()["error"]["message"], (body, answer.text)
        token = internvl_prm.transformer.config.image_token_id
        assert "no image" in _post(url, "/pooling", {"input": [1, token]}).text
        assert httpx2.get(url + "/score").status_code == 405
        # All of that left the server well.
        assert _post(url, "/score", {"question": "q", "steps": ["a"]}).status_code == 200
        text = httpx2.get(url + "/metrics").text
    assert 'dreamprm_requests_total{path="/score",status="400"} ' in text
    assert 'dreamprm_requests_total{path="other",status="404"} 1.0' in text
    assert "dreamprm_chains_total 1.0" in text


def test_a_bad_chain_leaves_the_others_of_its_batch(internvl_prm: PRM, monkeypatch: pytest.MonkeyPatch) -> None:
    real, held = internvl_prm.score_records, threading.Event()

    def slow(records: Any, *options: Any) -> Any:
        held.wait(10)
        if any(record.steps == ("boom",) for record in records):
            raise RuntimeError("the model fell over /secret/path")
        return real(records, *options)

    monkeypatch.setattr(internvl_prm, "score_records", slow)
    with serving(internvl_prm) as url, ThreadPoolExecutor(8) as pool:
        steps = ["first", "a", "boom", "b", " ", "c"]
        asked = [pool.submit(_post, url, "/score", {"question": "q", "steps": [step]}) for step in steps]
        time.sleep(0.3)  # all of them wait: they are one batch
        held.set()
        answers = [future.result() for future in asked]
    assert [answer.status_code for answer in answers] == [200, 200, 500, 200, 400, 200]
    assert "secret" not in answers[2].text


def test_too_much_at_once_is_answered_429(internvl_prm: PRM, monkeypatch: pytest.MonkeyPatch) -> None:
    real, held = internvl_prm.score_records, threading.Event()
    monkeypatch.setattr(internvl_prm, "score_records", lambda *given: held.wait(10) and real(*given))
    with serving(internvl_prm, Limits(waiting=4)) as url, ThreadPoolExecutor(12) as pool:
        asked = [pool.submit(_post, url, "/score", {"question": "q", "steps": ["a"]}) for _ in range(12)]
        deadline = time.monotonic() + 10
        while sum(future.done() for future in asked) < 8 and time.monotonic() < deadline:
            time.sleep(0.01)
        held.set()
        answers = [future.result() for future in asked]
    statuses = sorted(answer.status_code for answer in answers)
    assert statuses == [200] * 4 + [429] * 8
    assert all(answer.headers["retry-after"] == "1" for answer in answers if answer.status_code == 429)


def test_a_key_is_asked_for(internvl_prm: PRM) -> None:
    body = {"question": "q", "steps": ["a"]}
    with serving(internvl_prm, key="s3cret") as url:
        assert httpx2.get(url + "/health").status_code == 200
        for given in ({}, {"authorization": "Bearer other"}, {"authorization": "s3cret"}):
            refused = _post(url, "/score", body, **given)
            assert refused.status_code == 401
            assert "s3cret" not in refused.text
        assert httpx2.get(url + "/metrics").status_code == 401
        assert _post(url, "/score", body, authorization="Bearer s3cret").status_code == 200


@pytest.fixture(scope="module")
def saved(internvl_prm: PRM, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("saved") / "prm"
    internvl_prm.save_pretrained(folder)
    return folder


def test_the_command_serves_and_answers_what_waits_before_it_ends(saved: Path, internvl_prm: PRM) -> None:
    command = [sys.executable, "-m", "dreamprm", "serve", f"prm={saved}", "port=0", "limits.batch_size=1"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        try:
            assert process.stdout is not None
            first = process.stdout.readline()
            url = first.split()[-1]
            assert url.startswith("http://127.0.0.1:"), first
            with ThreadPoolExecutor(16) as pool:
                body = {"question": "q", "chains": [["a step " * 40, "b"]] * 8}
                asked = [pool.submit(httpx2.post, url + "/score", json=body, timeout=60) for _ in range(16)]
                deadline = time.monotonic() + 60
                while not any(future.done() for future in asked) and time.monotonic() < deadline:
                    time.sleep(0.005)
                os.kill(process.pid, signal.SIGTERM)
                answers = [future.result().status_code for future in asked]
            rest = process.stdout.read()
            assert answers == [200] * 16, rest
            assert process.wait(30) == 0, rest
            assert rest.strip() == "stopped: every request was answered"
        finally:
            process.kill()
