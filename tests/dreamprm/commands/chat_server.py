"""A server on localhost that speaks the OpenAI protocol, the shipped tiny policy behind it, and faults on demand."""

from __future__ import annotations

import base64
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any

from dreamprm.commands.sample import SampleStage
from dreamprm.config.build import build_policy
from dreamprm.policy import PolicyConfig, Prefix


class ChatServer:
    """`with ChatServer() as server`: `server.url`. requests: what was asked.  fail_every: each so manieth request gets
    429 or 500, in turn.  reply: instead of the policy's response.  tells_stop: whether it says which stop string ended
    a reply, as vLLM does.  usage: whether it tells tokens.  heeds_stop: whether a stop string ends a reply.
    goes_on: whether it continues a reply that was begun."""

    def __init__(
        self,
        *,
        fail_every: int = 0,
        reply: str | None = None,
        need_key: str | None = None,
        tells_stop: bool = False,
        usage: bool = True,
        heeds_stop: bool = True,
        goes_on: bool = True,
    ) -> None:
        self.goes_on = goes_on
        self.tells_stop, self.usage, self.heeds_stop = tells_stop, usage, heeds_stop
        self.requests: list[dict[str, Any]] = []
        self.fail_every, self.reply, self.need_key = fail_every, reply, need_key
        self.policy = build_policy(PolicyConfig(max_new_tokens=40), SampleStage.device) if reply is None else None
        self._lock = threading.Lock()

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(handler) -> None:
                body = json.loads(handler.rfile.read(int(handler.headers["Content-Length"])))
                status, answer = self.answer(body, handler.headers.get("Authorization", ""))
                data = json.dumps(answer).encode()
                handler.send_response(status)
                handler.send_header("Content-Type", "application/json")
                handler.send_header("Content-Length", str(len(data)))
                handler.send_header("Retry-After", "0")
                handler.end_headers()
                handler.wfile.write(data)

            def log_message(handler, format: str, *args: Any) -> None:
                pass

        class Server(ThreadingHTTPServer):
            daemon_threads = True

            def handle_error(server, request: Any, client_address: Any) -> None:
                pass  # a client that was killed

        self._server = Server(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}/v1"

    def answer(self, body: dict[str, Any], authorization: str) -> tuple[int, dict[str, Any]]:
        with self._lock:
            self.requests.append(body)
            count = len(self.requests)
            if self.need_key is not None and authorization != f"Bearer {self.need_key}":
                return 401, {"error": {"message": f"wrong key: {authorization}"}}
            if self.fail_every and count % self.fail_every == 0:
                return (429, 500)[count // self.fail_every % 2], {"error": {"message": "busy"}}
            if "continue_final_message" in body and not self.goes_on:
                return 422, {"detail": "Unexpected fields in the request: {'continue_final_message'}"}
            text = self.reply if self.reply is not None else self._sampled(body)
        cuts = {stop: text.find(stop) for stop in body.get("stop", []) if stop in text and self.heeds_stop}
        stop = min(cuts, key=lambda each: cuts[each], default=None)
        if stop is not None:
            text = text[: cuts[stop]]
        written = 5 if not body.get("stop") else len(text.split()) + 1
        usage = {"prompt_tokens": 10, "completion_tokens": written, "total_tokens": 10 + written}
        choice = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": text}}
        choice |= {"stop_reason": stop} if self.tells_stop else {}
        head = {"id": "1", "object": "chat.completion", "created": 0, "model": body["model"]}
        return 200, head | {"choices": [choice]} | ({"usage": usage} if self.usage else {})

    def _sampled(self, body: dict[str, Any]) -> str:
        content = body["messages"][0]["content"]
        parts = content if isinstance(content, list) else [{"type": "text", "text": content}]
        images = [part["image_url"]["url"].partition(",")[2] for part in parts if part["type"] == "image_url"]
        question = next(part["text"] for part in parts if part["type"] == "text")
        begun = body["messages"][1]["content"] if len(body["messages"]) > 1 else ""
        prefix = Prefix(question, tuple(map(base64.b64decode, images)), begun)
        assert self.policy is not None
        ((text,),) = self.policy.sample([prefix], seed=body.get("seed", 0))
        return text[len(begun) :]

    def __enter__(self) -> ChatServer:
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()
