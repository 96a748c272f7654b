"""A hub that cannot be reached is found out in a moment, and is one line."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from dreamprm import PRM
from dreamprm.prm.hub import hub_answers, hub_options, is_path


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[socket.socket]:
    """A hub on this machine that takes connections."""
    for name in ("HF_HUB_OFFLINE", "http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    with socket.create_server(("127.0.0.1", 0)) as server:
        monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{server.getsockname()[1]}")
        hub_answers.cache_clear()
        yield server
    hub_answers.cache_clear()


def test_a_hub_that_answers_is_asked(hub: socket.socket, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert hub_options("nobody/no-such-model") == {}
    assert hub_options(tmp_path) == {}
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    hub_answers.cache_clear()
    with pytest.raises(OSError, match="the hub does not answer, and it is not in the hub's cache"):
        hub_options("nobody/no-such-model")


def test_one_that_does_not_costs_less_than_two_seconds(hub: socket.socket) -> None:
    hub.close()
    began = time.monotonic()
    with pytest.raises(OSError, match="the hub does not answer") as caught:
        PRM.from_pretrained("nobody/no-such-model")
    assert time.monotonic() - began < 2
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["/nope/model", "./model", "runs/a/prm", "~/model", Path("model")])
def test_what_can_only_be_a_folder_is_never_asked_for(name: str | Path) -> None:
    assert is_path(name)
    with pytest.raises(OSError, match="there is no such folder"):
        PRM.from_pretrained(name)
