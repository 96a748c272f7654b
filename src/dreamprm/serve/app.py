"""The server: `/pooling` as vLLM has it, `/score`, `/health` and `/metrics`."""

from __future__ import annotations

import asyncio
import contextlib
import time
import uuid
from collections.abc import AsyncIterator
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from starlette.exceptions import HTTPException

from dreamprm.choices import HeadKind
from dreamprm.prm import PRM
from dreamprm.prm.aggregation import aggregate
from dreamprm.serve.counters import Counters
from dreamprm.serve.gate import Gate, problem
from dreamprm.serve.jobs import Busy, RecordJob, Refused, Worker
from dreamprm.serve.limits import Limits
from dreamprm.serve.pooling import answer_of, pooling_job
from dreamprm.serve.requests import PoolingRequest, ScoreRequest, records_of

__all__ = ["make_app"]


def make_app(prm: PRM, name: str, limits: Limits, key: str | None = None) -> Any:
    """The ASGI application. name: of the model, in answers.  key: see `Gate`."""
    counters = Counters(lambda: worker.waiting)
    tokens = min(limits.tokens, prm.collation.get("max_length") or limits.tokens)
    worker = Worker(
        prm, batch_size=limits.batch_size, max_waiting=limits.waiting, max_tokens=tokens, observe=counters.read
    )

    @contextlib.asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        yield
        await asyncio.to_thread(worker.stop)

    app = FastAPI(title="dreamprm", lifespan=lifespan, docs_url=None, redoc_url=None)
    _add_problems(app)

    @app.get("/health")
    async def health() -> Response:
        return JSONResponse({"status": "ok" if worker.alive else "failed", "model": name}, 200 if worker.alive else 503)

    @app.get("/metrics")
    async def metrics() -> Response:
        return Response(counters.text(), media_type="text/plain; version=0.0.4")

    @app.post("/score")
    async def score(request: ScoreRequest) -> dict[str, Any]:
        if len(request.images) > limits.images:
            raise Refused(f"images: {len(request.images)}; this server allows {limits.images}")
        chains = request.chains or [request.steps or []]
        _within(len(chains), max(map(len, chains)), limits)
        job = RecordJob(await asyncio.to_thread(records_of, request, limits.image_pixels))
        scores = await asyncio.wrap_future(worker.submit(job))
        whole = [aggregate(steps, prm.aggregation) for steps in scores]
        if request.chains is None:
            return {"model": name, "scores": scores[0], "chain_score": whole[0], "aggregation": prm.aggregation}
        return {"model": name, "scores": scores, "chain_scores": whole, "aggregation": prm.aggregation}

    @app.post("/pooling")
    async def pooling(request: PoolingRequest) -> dict[str, Any]:
        job = await asyncio.to_thread(pooling_job, prm, request, limits.image_pixels, limits.images)
        _within(job.num_chains, 1, limits)
        log_odds = await asyncio.wrap_future(worker.submit(job))
        classes = prm.transformer.config.num_labels if prm.kind is HeadKind.token_classification else 1
        right = prm.right_class if classes == 2 else None
        data = [
            {"index": row, "object": "pooling", "data": answer_of(values, request.use_activation, right)}
            for row, values in enumerate(log_odds)
        ]
        count = sum(map(len, log_odds))
        usage = {"prompt_tokens": count, "total_tokens": count, "completion_tokens": 0, "prompt_tokens_details": None}
        head = {"id": f"pool-{uuid.uuid4().hex}", "object": "list", "created": int(time.time()), "model": name}
        return head | {"data": data, "usage": usage}

    return Gate(app, counters, key, limits.body, limits.body_seconds)


def _within(num_chains: int, num_steps: int, limits: Limits) -> None:
    for what, count, most in (("chains", num_chains, limits.chains), ("steps of a chain", num_steps, limits.steps)):
        if count > most:
            raise Refused(f"{count} {what}; this server allows {most}")


def _add_problems(app: FastAPI) -> None:
    """Every failure as a body with its reason."""

    def refuse(status: int, message: str, headers: dict[str, str] | None = None) -> Response:
        return JSONResponse(problem(status, message), status, headers)

    @app.exception_handler(RequestValidationError)
    async def invalid(request: Request, error: RequestValidationError) -> Response:
        return refuse(400, "; ".join(_where(fault) for fault in error.errors()[:4]))

    @app.exception_handler(Refused)
    async def refused(request: Request, error: Refused) -> Response:
        return refuse(400, str(error))

    @app.exception_handler(Busy)
    async def busy(request: Request, error: Busy) -> Response:
        return refuse(429, str(error), {"Retry-After": "1"})

    @app.exception_handler(HTTPException)
    async def known(request: Request, error: HTTPException) -> Response:
        return refuse(error.status_code, str(error.detail), dict(error.headers or {}))

    @app.exception_handler(Exception)
    async def failed(request: Request, error: Exception) -> Response:
        return refuse(500, f"the model could not read this: {type(error).__name__}")


def _where(fault: Any) -> str:
    if fault["type"] == "json_invalid":
        return f"the body is no JSON (character {fault['loc'][-1]})"
    place = ".".join(str(part) for part in fault["loc"][1:]) or "body"
    return f"{place[:80]}: {fault['msg'][:200]}"
