"""A real server on localhost, in a thread of the tests' process."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch

from dreamprm.prm import PRM
from dreamprm.serve.limits import Limits


@contextlib.contextmanager
def serving(prm: PRM, limits: Limits | None = None, key: str | None = None) -> Iterator[str]:
    import uvicorn

    from dreamprm.serve.app import make_app

    listening = socket.create_server(("127.0.0.1", 0))
    app = make_app(prm, "tiny", limits or Limits(), key)
    server = uvicorn.Server(uvicorn.Config(app, log_level="warning", access_log=False, timeout_graceful_shutdown=10))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
    thread.start()
    try:
        while not server.started:
            time.sleep(0.01)
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join()


@pytest.fixture(scope="session")
def internvl_prm(build_internvl: Callable[..., Any], tiny_processor: Any) -> PRM:
    return PRM(build_internvl(seed=3), tiny_processor).eval()


@pytest.fixture(scope="session")
def internvl_url(internvl_prm: PRM) -> Iterator[str]:
    with serving(internvl_prm) as url:
        yield url


@pytest.fixture(scope="session")
def build_prm(build_text_model: Callable[..., Any], tiny_tokenizer: Any) -> Callable[..., PRM]:
    """A text PRM of any head, its own head not at its start."""

    def build(head: str = "generative", num_labels: int | None = None, **settings: Any) -> PRM:
        prm = PRM(build_text_model(num_labels, seed=5), tiny_tokenizer, head, **settings).eval()
        for name, parameter in prm.named_parameters():
            if name.startswith("head.") or "score" in name:
                with torch.no_grad():
                    parameter.normal_(std=0.5, generator=torch.Generator().manual_seed(1))
        return prm

    return build
