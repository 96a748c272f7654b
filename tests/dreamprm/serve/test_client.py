"""The client: scores equal to local ones over any server, and what it does where the server does not answer."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from tests.dreamprm.serve.conftest import serving

from dreamprm.commands.files import StageData
from dreamprm.commands.score import ScoreStage, score
from dreamprm.data.record import Record
from dreamprm.errors import UserError
from dreamprm.prm import PRM
from dreamprm.serve.client import ScoreClient

CLOSE = 1e-5  # fp32 in another batch; the promise is 1e-3


@pytest.fixture(scope="module")
def chains(make_record: Callable[..., Record], make_image: Callable[..., bytes]) -> list[Record]:
    wide = make_image(96, 40, (20, 90, 200))
    steps = [("3 + 4 = 7", "so 7"), ("it is 8",), ("a much longer first step", "then", "therefore 7")]
    texts = [make_record(f"text {row}", chain) for row, chain in enumerate(steps)]
    seen = [make_record(f"seen {row}", chain, images=(wide,)) for row, chain in enumerate(steps)]
    placed = make_record("two", steps[0], question="<image> and <image>?", images=(wide, make_image()))
    return [*texts, *seen, placed]


@pytest.fixture(scope="module")
def folder(internvl_prm: PRM, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("client") / "prm"
    internvl_prm.save_pretrained(path)
    return path


@pytest.mark.parametrize("with_folder", [True, False])
def test_scores_equal_local_ones(
    with_folder: bool, chains: list[Record], folder: Path, internvl_prm: PRM, internvl_url: str
) -> None:
    with ScoreClient(internvl_url, folder if with_folder else None) as client:
        found = client.score_records(chains, 2)
    for got, want in zip(found, internvl_prm.score_records(chains), strict=True):
        assert got == pytest.approx(want, abs=CLOSE)


@pytest.mark.parametrize("layout", ["turns", "chat_separator", "separator"])
@pytest.mark.parametrize(("head", "num_labels", "right"), [("linear", None, 1), ("token_classification", 2, 0)])
def test_every_layout_and_head(
    layout: str,
    head: str,
    num_labels: int | None,
    right: int,
    build_prm: Callable[..., PRM],
    chains: list[Record],
    tmp_path: Path,
) -> None:
    from dreamprm.prm import Prompt

    prm = build_prm(head, num_labels, prompt=Prompt(layout=layout), right_class=right)
    prm.save_pretrained(tmp_path)
    texts = [record for record in chains if not record.images]
    with serving(prm) as url, ScoreClient(url, tmp_path) as client:
        found = client.score_records(texts)
    for got, want in zip(found, prm.score_records(texts), strict=True):
        assert got == pytest.approx(want, abs=CLOSE)


def test_the_command_scores_by_a_server(folder: Path, internvl_url: str, tmp_path: Path, chains: list[Record]) -> None:
    rows = [{"question": record.question, "steps": list(record.steps)} for record in chains if not record.images]
    data = tmp_path / "chains.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    outs = []
    for name, endpoint in (("local", None), ("far", internvl_url)):
        settings = ScoreStage(
            prm=str(folder), endpoint=endpoint, out=str(tmp_path / f"{name}.jsonl"), data=StageData(path=str(data))
        )
        outs.append([json.loads(line)["extra"]["step_scores"] for line in score(settings).read_text().splitlines()])
    for got, want in zip(*outs, strict=True):
        assert got == pytest.approx(want, abs=CLOSE)
    with pytest.raises(UserError, match="prm is not set"):
        score(ScoreStage(out=str(tmp_path / "x.jsonl"), data=StageData(path=str(data))))


@contextmanager
def _answering(*answers: tuple[int, Any]) -> Iterator[tuple[str, list[Any]]]:
    """A server that gives these answers in turn, the last for ever; and what it was asked."""
    asked: list[Any] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            asked.append((self.path, json.loads(body), self.headers.get("authorization")))
            status, answer = answers[min(len(asked), len(answers)) - 1]
            content = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
            self.send_response(status)
            self.send_header("content-length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, format: str, *args: object) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", asked
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


BUSY = (429, {"error": {"message": "busy"}})


def test_a_busy_server_is_asked_again(make_record: Callable[..., Record]) -> None:
    with _answering(BUSY, (503, b"gone"), (200, {"scores": [[0.25, 0.75]]})) as (url, asked):
        with ScoreClient(url, pause=0.001) as client:
            assert client.score_records([make_record()]) == [[0.25, 0.75]]
        assert len(asked) == 3


FAULTS = [
    (BUSY, "429: busy, 3 times"),
    ((400, {"error": {"message": "steps: too many"}}), "400: steps: too many$"),
    ((404, b"<html>"), "404: <html>"),
    ((200, b"<html>"), "no JSON"),
    ((200, {"scores": [[0.5]]}), "for 2 steps"),
    ((200, b'{"scores": [[0.5, NaN]]}'), "for 2 steps"),
]


@pytest.mark.parametrize(("answer", "text"), FAULTS)
def test_what_the_server_says_reaches_the_user(answer: Any, text: str, make_record: Callable[..., Record]) -> None:
    with (
        _answering(answer) as (url, _),
        ScoreClient(url, pause=0.001, retries=2) as client,
        pytest.raises(UserError, match=text),
    ):
        client.score_records([make_record()])


def test_no_server_and_no_address(make_record: Callable[..., Record]) -> None:
    with (
        ScoreClient("http://127.0.0.1:9", pause=0.001, retries=1) as client,
        pytest.raises(UserError, match=r"cannot be reached \(ConnectError\), 2 times"),
    ):
        client.score_records([make_record()])
    with pytest.raises(UserError, match="give the server's address"):
        ScoreClient("localhost:8000")


def test_another_number_of_tokens_is_refused(folder: Path, make_record: Callable[..., Record]) -> None:
    answer = {"data": [{"index": 0, "data": [[0.5]] * 7}]}
    with (
        _answering((200, answer)) as (url, _),
        ScoreClient(url, folder) as client,
        pytest.raises(UserError, match=r"tokens as 7; it serves another model"),
    ):
        client.score_records([make_record()])


def test_the_key_is_sent_and_never_shown(make_record: Callable[..., Record], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DREAMPRM_API_KEY", "k3y-of-mine")
    with (
        _answering((401, {"error": {"message": "no such key: k3y-of-mine"}})) as (url, asked),
        ScoreClient(url) as client,
        pytest.raises(UserError, match=r"no such key: \[key\]"),
    ):
        client.score_records([make_record()])
    assert asked[0][2] == "Bearer k3y-of-mine"
