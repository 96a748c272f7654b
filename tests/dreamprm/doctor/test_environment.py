"""`doctor env` says what is here: against the metadata and torch themselves."""

from importlib.metadata import PackageNotFoundError, version

import pytest
import torch

import dreamprm.doctor.environment as environment
from dreamprm.commands.main import entry


def test_it_names_versions_devices_and_extras(capsys: pytest.CaptureFixture[str]) -> None:
    entry("doctor", ["env"])
    shown = capsys.readouterr().out
    assert f"dreamprm {version('dreamprm')}" in shown
    assert f"torch {torch.__version__}" in shown
    assert ("no GPU" in shown) == (not torch.cuda.is_available() and not torch.backends.mps.is_available())
    ready = {line.split()[0] for line in shown.splitlines() if line.startswith("  ") and " ready " in line}
    assert {"prm", "serve", "api", "rl", "lightning"} <= ready
    assert "bitsandbytes): yes" in shown


def test_what_is_missing_or_too_old_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def here(name: str) -> str:
        if name == "fastapi":
            raise PackageNotFoundError(name)
        return "0.1" if name == "uvicorn" else version(name)

    monkeypatch.setattr(environment, "version", here)
    assert list(environment._missing("serve")) == ["fastapi", "uvicorn>=0.35 (is 0.1)"]


def test_what_fails_is_said_and_not_raised(monkeypatch: pytest.MonkeyPatch) -> None:
    import bitsandbytes

    def broken(*_: object, **__: object) -> None:
        raise OSError("no such library\nmore")

    monkeypatch.setattr(bitsandbytes.nn, "Linear4bit", broken)
    assert environment._bitsandbytes() == "no (OSError: no such library)"
