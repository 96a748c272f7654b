"""Chains from any server that speaks the OpenAI protocol: vLLM, SGLang, `transformers serve`, hosted models.

The official client sends one request per chain, several at a time; it repeats a request that failed by the network or
the server (408, 409, 429, 5xx) with growing, random pauses, and keeps to a Retry-After. The key is read from the
environment when it is needed, and taken out of every message.
"""

from __future__ import annotations

import base64
import hashlib
import os
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, NamedTuple

from dreamprm.data.record import Image
from dreamprm.errors import ConfigError, UserError
from dreamprm.policy.sampling import Prefix
from dreamprm.policy.templates import TEMPLATES, fill
from dreamprm.setting import Settings, setting

__all__ = ["Budget", "BudgetError", "Endpoint", "EndpointConfig", "Reply"]


@dataclass
class EndpointConfig(Settings):
    """The server that writes chains, instead of a model in this process."""

    url: str | None = setting(None, "base URL, e.g. http://localhost:8000/v1; null: a local model")
    model: str | None = setting(None, "the model's name there")
    recipe: str | None = setting(None, "what a hosted model needs: gpt-5-mini, gpt-4.1-mini, o4-mini, or a YAML file")
    key_variable: str = setting("OPENAI_API_KEY", "the environment variable that holds the key; never the key itself")
    template: str = setting("plain", "how a question is asked", words=TEMPLATES)
    temperature: float | None = setting(1.0, "null: not sent, as reasoning models want it", least=0, most=2)
    top_p: float | None = setting(None, "null: not sent", above=0, most=1)
    max_tokens: int = setting(2048, "tokens of one chain, thoughts included", least=1)
    limit_name: str = setting("max_tokens", "what the limit is called", words=("max_tokens", "max_completion_tokens"))
    reasoning_effort: str | None = setting(None, "of reasoning models: minimal, low, medium, high")
    stop: list[str] = setting([], "strings at which a chain ends")
    seeds: bool = setting(True, "send a seed with every request, another for every chain")
    concurrency: int = setting(8, "requests at the same time", least=1, most=1024)
    retries: int = setting(6, "times that a failed request is repeated", least=0)
    timeout: float = setting(600.0, "seconds for one request", above=0)
    requests_per_minute: float | None = setting(None, "at most; null: no limit", above=0)
    token_budget: int | None = setting(None, "stop before more tokens than these are used, both ways", least=1)
    price_in: float = setting(0.0, "of a million tokens that are sent", least=0)
    price_out: float = setting(0.0, "of a million tokens that are written", least=0)
    money_budget: float | None = setting(None, "stop before more than this is spent, by these prices", above=0)

    def with_recipe(self, folder: Path) -> EndpointConfig:
        """These settings with the recipe's values wherever they are still the defaults.

        Raises ConfigError for a recipe that is not there or sets what does not exist.
        """
        if self.recipe is None:
            return self
        import yaml

        file = Path(self.recipe) if self.recipe.endswith((".yaml", ".yml")) else folder / f"{self.recipe}.yaml"
        if not file.is_file():
            known = ", ".join(sorted(path.stem for path in folder.glob("*.yaml")))
            raise ConfigError(f"endpoint.recipe={self.recipe} is not there; known are {known}, or give a YAML file")
        defaults = {item.name: getattr(EndpointConfig(), item.name) for item in fields(self)}
        given = {name: getattr(self, name) for name in defaults}
        try:
            values = yaml.safe_load(file.read_text()) or {}
            odd = sorted(set(values) - set(defaults))
            if odd:
                raise ValueError(f"{', '.join(odd)}: no such setting of endpoint")
            return EndpointConfig(**given | {k: v for k, v in values.items() if given[k] == defaults[k]})
        except (ValueError, TypeError, yaml.YAMLError) as error:
            raise ConfigError(f"{file}: {str(error).splitlines()[0]}") from error

    def as_judge(self) -> EndpointConfig:
        """These settings for a judge: asked in its own words and not by a template of policies, and, where the model
        takes a temperature, at 0."""
        return replace(self, template="plain", temperature=None if self.temperature is None else 0.0)


_NO_CONTINUATION = (
    "; the request was to go on with a begun reply (continue_final_message), which vLLM and SGLang do and "
    "`transformers serve` does not"
)


class BudgetError(UserError):
    """The next request could use more than the budget."""


class Reply(NamedTuple):
    """A whole response (prefix and continuation), why it ended, and the tokens that were sent and written.

    stopped_at: the stop string that ended it, "" where none did, None where the server does not say.
    """

    text: str
    finish: str
    tokens_in: int
    tokens_out: int
    stopped_at: str | None = None


@dataclass
class Budget:
    """What has been used. A request is begun only where the most that it may write still fits."""

    settings: EndpointConfig
    tokens_in: int = 0
    tokens_out: int = 0
    running: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def money(self) -> float:
        return (self.tokens_in * self.settings.price_in + self.tokens_out * self.settings.price_out) / 1e6

    def begin(self) -> None:
        """Raises BudgetError."""
        settings = self.settings
        with self.lock:
            pending = (self.running + 1) * settings.max_tokens
            used = self.tokens_in + self.tokens_out
            if settings.token_budget is not None and used + pending > settings.token_budget:
                raise BudgetError(
                    f"endpoint.token_budget={settings.token_budget} does not allow another request: {used} tokens are "
                    f"used, and each may write {settings.max_tokens}; raise it and start again to go on"
                )
            most = self.money + pending * settings.price_out / 1e6
            if settings.money_budget is not None and most > settings.money_budget:
                raise BudgetError(
                    f"endpoint.money_budget={settings.money_budget} does not allow another request: {self.money:.4f} "
                    "is spent; raise it and start again to go on"
                )
            self.running += 1

    def end(self, tokens_in: int = 0, tokens_out: int = 0) -> None:
        with self.lock:
            self.running -= 1
            self.tokens_in += tokens_in
            self.tokens_out += tokens_out


class Endpoint:
    """Samples from a server. `replies` keeps the order of what it is asked, whatever order the answers come in."""

    def __init__(self, settings: EndpointConfig) -> None:
        if settings.url is None or settings.model is None:
            raise ConfigError("endpoint.url and endpoint.model must both be set")
        try:
            import openai
        except ImportError as error:
            raise UserError("an endpoint needs the package openai: pip install 'dreamprm[api]'") from error
        self.settings, self.budget = settings, Budget(settings)
        self._errors = openai.OpenAIError
        self._key = os.environ.get(settings.key_variable, "")
        given: dict[str, Any] = {"max_retries": settings.retries, "timeout": settings.timeout}
        self._connect = lambda: openai.OpenAI(base_url=settings.url, api_key=self._key or "none", **given)
        self._client: Any = None
        self._next, self._pace = 0.0, threading.Lock()

    def replies(
        self, prefixes: Sequence[Prefix], names: Sequence[str], seed: int, limit: int | None = None
    ) -> Iterator[Reply]:
        """One reply for each prefix, in order. names: of the chains, unlike one another: the seed of each follows.
        limit: tokens of a reply, at most; None: the settings' `max_tokens`.

        Raises BudgetError, after the replies that were still paid for, and UserError where the server refuses.
        """
        with self._connect() as self._client, ThreadPoolExecutor(self.settings.concurrency) as pool:
            waiting: list[Any] = []
            todo = iter(zip(prefixes, names, strict=True))
            try:
                for prefix, name in todo:
                    waiting.append(pool.submit(self._reply, prefix, _seed(seed, name), limit))
                    if len(waiting) >= 2 * self.settings.concurrency:
                        yield waiting.pop(0).result()
                while waiting:
                    yield waiting.pop(0).result()
            finally:
                for future in waiting:
                    future.cancel()

    def _reply(self, prefix: Prefix, seed: int, limit: int | None) -> Reply:
        self.budget.begin()
        tokens_in = tokens_out = 0
        try:
            self._wait_for_turn()
            answer = self._client.chat.completions.create(**self._request(prefix, seed, limit))
            if answer.usage is not None:
                tokens_in, tokens_out = answer.usage.prompt_tokens, answer.usage.completion_tokens
            choice = answer.choices[0]
            text = choice.message.content or ""
            finish, stop = choice.finish_reason or "", _stopped_at(choice)
            self._require_stopped(text)
            return Reply(prefix.response + text, finish, tokens_in, tokens_out, stop)
        except (self._errors, IndexError, AttributeError, TypeError) as error:
            hint = _NO_CONTINUATION if prefix.response and getattr(error, "status_code", 0) in (400, 422) else ""
            raise UserError(f"{self.settings.url}: {self._clean(error)}{hint}") from None
        finally:
            self.budget.end(tokens_in, tokens_out)

    def _require_stopped(self, text: str) -> None:
        """A reply ends at a stop string, with or without it; one that goes on comes from a server that reads none."""
        passed = next((stop for stop in self.settings.stop if stop in text.removesuffix(stop)), None)
        if passed is not None:
            raise UserError(
                f"{self.settings.url}: a reply goes on behind {passed!r}, at which it was to end: the server does not "
                "heed `stop`; use one that does (vLLM, SGLang, transformers serve)"
            )

    def _request(self, prefix: Prefix, seed: int, limit: int | None = None) -> dict[str, Any]:
        settings = self.settings
        text = fill(settings.template, prefix.question)
        content: list[dict[str, Any]] = [_image_part(image) for image in prefix.images]
        content.append({"type": "text", "text": text})
        request: dict[str, Any] = {
            "model": settings.model,
            "messages": [{"role": "user", "content": content if prefix.images else text}],
            settings.limit_name: limit or settings.max_tokens,
        }
        for name in ("temperature", "top_p", "reasoning_effort"):
            if getattr(settings, name) is not None:
                request[name] = getattr(settings, name)
        if settings.stop:
            request["stop"] = settings.stop
        if settings.seeds:
            request["seed"] = seed
        if prefix.response:
            request["messages"].append({"role": "assistant", "content": prefix.response})
            request["extra_body"] = {"continue_final_message": True, "add_generation_prompt": False}
        return request

    def _wait_for_turn(self) -> None:
        if self.settings.requests_per_minute is None:
            return
        with self._pace:
            now = time.monotonic()
            begin = max(now, self._next)
            self._next = begin + 60.0 / self.settings.requests_per_minute
        time.sleep(max(0.0, begin - now))

    def _clean(self, error: Exception) -> str:
        """The error in one line, without the key."""
        text = " ".join(f"{type(error).__name__}: {error}".split())[:400]
        return text.replace(self._key, "[key]") if self._key else text


def _stopped_at(choice: Any) -> str | None:
    """vLLM says `stop_reason`, SGLang `matched_stop`: a string of ours, a token's number, or nothing for the end."""
    told = choice.model_extra or {}
    for name in ("stop_reason", "matched_stop"):
        if name in told:
            return told[name] if isinstance(told[name], str) else ""
    return None


def _seed(seed: int, name: str) -> int:
    digest = hashlib.blake2b(f"{seed}|{name}".encode("utf-8", "replace"), digest_size=4).digest()
    return int.from_bytes(digest, "little") & 0x7FFFFFFF


def _image_part(image: Image) -> dict[str, Any]:
    """An image as a data URL: opened by the one opener of images, and sent as a PNG that everybody reads alike."""
    import io

    from dreamprm.data.readers.images import load_image

    stream = io.BytesIO()
    load_image(image).save(stream, "PNG")
    data = base64.b64encode(stream.getvalue()).decode()
    return {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{data}"}}
