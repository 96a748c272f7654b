"""Step scores from a server: vLLM with an exported folder, or `dreamprm serve`.

With the PRM's folder (its tokenizer and prompt; no weights are read) the client lays out each chain itself. A chain of
text is sent as token ids, one with images as the turns of its layout, to `/pooling`; the numbers of all positions come
back and the judged ones are picked here. A server whose chain has another number of tokens is refused: it reads another
text. Without a folder, `/score` of `dreamprm serve` is asked with plain text.
"""

from __future__ import annotations

import base64
import io
import math
import os
import random
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx2

from dreamprm.data.readers.images import load_image
from dreamprm.data.record import Image, Record
from dreamprm.errors import UserError
from dreamprm.prm.collate import Collator, Encoded
from dreamprm.prm.prompt import messages_of
from dreamprm.prm.storage import load_collator

__all__ = ["RefusedError", "ScoreClient"]

KEY_VARIABLE = "DREAMPRM_API_KEY"
_AGAIN = (408, 409, 425, 429, 500, 502, 503, 504)
_LONGEST_PAUSE = 5.0


class RefusedError(UserError):
    """The server will not do what it is asked, now or later."""


class ScoreClient:
    """`with ScoreClient(url, prm) as client: client.score_records(records)`.

    prm: the PRM's folder; None: the server's own `/score`.  concurrency: requests at the same time.  retries: times
    that a request is repeated where the server is busy, fails, or does not answer.  seconds: for one answer.
    The key, where the server asks for one, comes from the environment variable DREAMPRM_API_KEY.
    Raises UserError for a URL that is none, OSError where the folder cannot be read.
    """

    def __init__(
        self,
        url: str,
        prm: str | Path | None = None,
        *,
        concurrency: int = 8,
        retries: int = 16,
        seconds: float = 300.0,
        pause: float = 0.25,
    ) -> None:
        if not url.startswith(("http://", "https://")):
            raise UserError(f"endpoint={url}: give the server's address, e.g. http://127.0.0.1:8000")
        self.url = url.rstrip("/").removesuffix("/v1")
        self.retries, self.pause = retries, pause
        self._key = os.environ.get(KEY_VARIABLE, "")
        headers = {"Authorization": f"Bearer {self._key}"} if self._key else {}
        # trust_env: a proxy of the environment is for the world outside, and a server of scores seldom is there.
        local = any(self.url.startswith(f"{kind}://{host}") for kind in ("http", "https") for host in _LOCAL)
        limits = httpx2.Limits(max_connections=concurrency, max_keepalive_connections=concurrency)
        self._http = httpx2.Client(timeout=seconds, headers=headers, limits=limits, trust_env=not local)
        self._pool = ThreadPoolExecutor(concurrency)
        self._collate: Collator | None = None
        self._right_class, self.aggregation = 1, "mean"
        if prm is not None:
            self._collate, self._right_class, self.aggregation = load_collator(prm)

    def __enter__(self) -> ScoreClient:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        self._pool.shutdown(cancel_futures=True)
        self._http.close()

    def score_records(self, records: Sequence[Record], batch_size: int = 8) -> list[list[float]]:
        """The step scores of every record, in their order. batch_size: chains of one request, where a request can hold
        several. Raises RecordError as a local PRM does, UserError with the server's reason where it refuses."""
        asks = self._asks_pooling(records, batch_size) if self._collate is not None else self._asks_score(records)
        scores: dict[int, list[float]] = {}
        waiting = [(rows, self._pool.submit(ask)) for rows, ask in asks]
        try:
            for rows, future in waiting:
                scores |= zip(rows, future.result(), strict=True)
        finally:
            for _, future in waiting:
                future.cancel()
        return [scores[row] for row in range(len(records))]

    def _asks_score(self, records: Sequence[Record]) -> list[tuple[list[int], Callable[[], list[list[float]]]]]:
        """One request for each question: its candidates share what they have in common there."""
        groups: dict[Any, list[int]] = {}
        for row, record in enumerate(records):
            groups.setdefault((record.question, record.images), []).append(row)

        def ask(rows: list[int]) -> list[list[float]]:
            first = records[rows[0]]
            chains = [list(records[row].steps) for row in rows]
            images = [_data_url(image, None) for image in first.images]
            found = self._post("/score", {"question": first.question, "images": images, "chains": chains})["scores"]
            return [_finite(self.url, steps, len(chain)) for steps, chain in zip(found, chains, strict=True)]

        cut = [rows[start : start + 32] for rows in groups.values() for start in range(0, len(rows), 32)]
        return [(rows, lambda rows=rows: ask(rows)) for rows in cut]

    def _asks_pooling(
        self, records: Sequence[Record], batch_size: int
    ) -> list[tuple[list[int], Callable[[], list[list[float]]]]]:
        assert self._collate is not None
        encoded = [self._collate.encode(record) for record in records]
        texts = [row for row, record in enumerate(records) if not record.images]
        cut = [texts[start : start + batch_size] for start in range(0, len(texts), batch_size)]

        def ask(rows: list[int]) -> list[list[float]]:
            if records[rows[0]].images:
                given = self._messages(self._collate, records[rows[0]])
            else:
                given = {"input": [encoded[row].sequences["input_ids"].tolist() for row in rows]}
            answer = self._post("/pooling", given | {"task": "token_classify", "use_activation": True})["data"]
            return [self._pick(item["data"], encoded[row]) for row, item in zip(rows, answer, strict=True)]

        cut += [[row] for row, record in enumerate(records) if record.images]
        return [(rows, lambda rows=rows: ask(rows)) for rows in cut]

    def _messages(self, collate: Any, record: Record) -> dict[str, Any]:
        breaks = record.extra.get("breaks", ())
        turns = messages_of(collate.prompt, record.question, record.steps, len(record.images), breaks=breaks)
        images = iter(record.images)
        for turn in turns:
            turn["content"] = [
                {"type": "image_url", "image_url": {"url": _data_url(next(images), collate.max_image_side)}}
                if part["type"] == "image"
                else part
                for part in turn["content"]
            ]
        kwargs = {"mm_processor_kwargs": dict(collate.images_kwargs)} if collate.images_kwargs else {}
        return {"messages": turns, "add_generation_prompt": False, "continue_final_message": False} | kwargs

    def _pick(self, rows: Any, encoded: Encoded) -> list[float]:
        length = len(encoded.sequences["input_ids"])
        if len(rows) != length:
            raise UserError(
                f"{self.url}: read a chain of {length} tokens as {len(rows)}; it serves another model, or reads images "
                "another way"
            )
        judged = [rows[place] for place in encoded.positions]
        right = [float(row[self._right_class if len(row) == 2 else 0]) for row in judged]
        return _finite(self.url, right, len(encoded.positions))

    def _post(self, path: str, body: dict[str, Any]) -> Any:
        """The answer. Repeats a request, with growing pauses, while the server is busy or cannot be reached."""
        reason = ""
        for attempt in range(self.retries + 1):
            wait = min(_LONGEST_PAUSE, self.pause * 2**attempt)
            try:
                response = self._http.post(self.url + path, json=body)
            except httpx2.TransportError as error:
                reason = f"cannot be reached ({type(error).__name__})"
            except (httpx2.InvalidURL, UnicodeError) as error:
                raise UserError(f"endpoint={self.url}: {error}") from None
            else:
                if response.status_code == 200:
                    return _object(self.url, response)
                reason = f"answers {response.status_code}: {self._reason(response)}"
                if response.status_code not in _AGAIN:
                    raise RefusedError(f"{self.url}{path} {reason}")
                asked = response.headers.get("retry-after", "")
                wait = max(wait, min(_LONGEST_PAUSE, float(asked))) if asked.isdigit() else wait
            if attempt < self.retries:
                time.sleep(wait * random.uniform(0.5, 1.5))
        raise UserError(f"{self.url}{path} {reason}, {self.retries + 1} times; start again to go on when it is there")

    def _reason(self, response: Any) -> str:
        """The server's own words in one line, without the key."""
        try:
            text = str(response.json()["error"]["message"])
        except (ValueError, KeyError, TypeError):
            text = response.text
        text = " ".join(text.split())[:300]
        return text.replace(self._key, "[key]") if self._key else text


_LOCAL = ("127.", "localhost", "[::1]")


def _object(url: str, response: Any) -> Any:
    try:
        return response.json()
    except ValueError:
        raise UserError(f"{url}: the answer is no JSON; is this a server of scores?") from None


def _finite(url: str, steps: Sequence[float], count: int) -> list[float]:
    if len(steps) != count or not all(math.isfinite(score) for score in steps):
        raise UserError(f"{url}: gave {list(steps)[:8]} for {count} steps")
    return list(steps)


def _data_url(image: Image, max_side: int | None) -> str:
    """An image as it is read here, as a PNG, which loses nothing."""
    stream = io.BytesIO()
    load_image(image, max_side=max_side).save(stream, "PNG")
    return f"data:image/png;base64,{base64.b64encode(stream.getvalue()).decode()}"
