"""What stands before every request: the key, the size of the body and the time it may take, counting the answers."""

from __future__ import annotations

import asyncio
import hmac
import json
import time
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from dreamprm.serve.counters import Counters

__all__ = ["Gate", "problem"]

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[MutableMapping[str, Any], Receive, Send], Awaitable[None]]

OPEN = ("/health",)
KNOWN = ("/health", "/metrics", "/pooling", "/score")


def problem(status: int, message: str) -> dict[str, Any]:
    """The body of a refusal, as vLLM and OpenAI have it."""
    kind = "server_error" if status >= 500 else "rate_limit_error" if status == 429 else "invalid_request_error"
    return {"error": {"message": message, "type": kind, "param": None, "code": status}}


class _Refusal(Exception):
    def __init__(self, status: int, message: str) -> None:
        self.status, self.message = status, message


class Gate:
    """An ASGI application around another. key: what clients must send as `Authorization: Bearer KEY`; None: nobody is
    asked.  max_body: bytes.  body_seconds: in which a body must have come."""

    def __init__(self, app: App, counters: Counters, key: str | None, max_body: int, body_seconds: float) -> None:
        self.app, self.counters, self.max_body, self.body_seconds = app, counters, max_body, body_seconds
        self._key = f"Bearer {key}".encode() if key else None

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        began, status = time.monotonic(), 500
        path = scope["path"] if scope["path"] in KNOWN else "other"

        async def counted(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            self._require_key(scope)
            body = await self._body(scope, receive)
            await self.app(scope, _replayed(body, receive), counted)
        except _Refusal as refusal:
            await _answer(counted, refusal)
        finally:
            self.counters.answered(path, status, time.monotonic() - began)

    def _require_key(self, scope: MutableMapping[str, Any]) -> None:
        if self._key is None or scope["path"] in OPEN:
            return
        given = dict(scope["headers"]).get(b"authorization", b"")
        if not hmac.compare_digest(given, self._key):
            raise _Refusal(401, "this server asks for a key: Authorization: Bearer …")

    async def _body(self, scope: MutableMapping[str, Any], receive: Receive) -> bytes:
        """The whole body, at most `max_body` bytes of it."""
        said = dict(scope["headers"]).get(b"content-length", b"0")
        too_large = _Refusal(413, f"the body is larger than {self.max_body} bytes; send fewer or smaller chains")
        if said.isdigit() and int(said[:20]) > self.max_body:
            raise too_large
        parts: list[bytes] = []
        size, more = 0, True
        try:
            async with asyncio.timeout(self.body_seconds):
                while more:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        raise _Refusal(400, "the request ended before its body did")
                    parts.append(message.get("body", b""))
                    size += len(parts[-1])
                    if size > self.max_body:
                        raise too_large
                    more = message.get("more_body", False)
        except TimeoutError:
            raise _Refusal(408, f"the body did not come within {self.body_seconds:g} s") from None
        return b"".join(parts)


def _replayed(body: bytes, receive: Receive) -> Receive:
    given = False

    async def replay() -> Message:
        nonlocal given
        if given:
            return await receive()
        given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return replay


async def _answer(send: Send, refusal: _Refusal) -> None:
    body = json.dumps(problem(refusal.status, refusal.message)).encode()
    headers = [(b"content-type", b"application/json"), (b"connection", b"close")]
    await send({"type": "http.response.start", "status": refusal.status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
