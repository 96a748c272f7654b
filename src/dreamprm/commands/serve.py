"""`serve`: step scores over HTTP."""

from __future__ import annotations

import os
import signal
from dataclasses import dataclass
from pathlib import Path

from dreamprm.choices import Device, Precision
from dreamprm.commands.command import command
from dreamprm.errors import UserError
from dreamprm.progress import only_our_bars, say
from dreamprm.serve.limits import Limits
from dreamprm.setting import Settings, setting

__all__ = ["ServeStage", "main", "serve"]


@dataclass
class ServeStage(Settings):
    """A server of step scores: `/score`, and `/pooling` as vLLM has it. On SIGTERM it answers what waits."""

    prm: str | None = setting(None, "the folder prm/ of a run, or any model that PRM loads")
    host: str = setting("127.0.0.1", "where it listens; 0.0.0.0 for everybody who reaches this machine")
    port: int = setting(8000, "0: any that is free", least=0, most=65535)
    key_variable: str = setting("DREAMPRM_API_KEY", "environment variable with the key that clients must send")
    drain: int = setting(60, "seconds in which requests may end after SIGTERM", least=0)
    device: Device = setting(Device.auto, "auto: a GPU where there is one")
    precision: Precision = setting(Precision.fp32, "of the parameters: fp32, or pure_bf16")
    limits: Limits = setting(Limits())


def serve(settings: ServeStage) -> None:
    """Serve until SIGTERM or Ctrl-C."""
    import socket

    import torch

    from dreamprm.commands.files import needed
    from dreamprm.config.build import build_device
    from dreamprm.errors import ConfigError
    from dreamprm.prm import PRM

    try:
        import uvicorn

        from dreamprm.serve.app import make_app
    except ImportError as error:
        raise UserError("serving needs more packages: pip install 'dreamprm[serve]'") from error

    path = needed(settings.prm, "prm", "the folder prm/ of a run, or a model")
    if settings.precision is Precision.bf16:
        raise ConfigError("precision=bf16 is for training and scoring files; serve in fp32 or pure_bf16")
    only_our_bars()
    key = os.environ.get(settings.key_variable) or None
    try:
        listening = socket.create_server((settings.host, settings.port), backlog=2048)
    except OSError as error:
        raise UserError(f"cannot listen at host={settings.host} port={settings.port}: {error.strerror}") from error
    dtype = torch.bfloat16 if settings.precision is Precision.pure_bf16 else torch.float32
    try:
        prm = PRM.from_pretrained(path, dtype=dtype).to(build_device(settings.device))
    except OSError as error:
        raise UserError(str(error)) from error
    app = make_app(prm, Path(path).name, settings.limits, key)
    # An idle connection that the server closes just as its client writes to it is a dropped request: keep it for long.
    quiet = {"log_level": "warning", "access_log": False, "server_header": False, "timeout_keep_alive": 600}
    config = uvicorn.Config(app, timeout_graceful_shutdown=settings.drain, **quiet)
    # uvicorn raises the signal again once it has stopped; having done as it was told is no failure.
    signal.signal(signal.SIGTERM, lambda number, frame: None)
    port = listening.getsockname()[1]
    open_to = "" if key or settings.host in ("127.0.0.1", "localhost", "::1") else "; no key: open to all who reach it"
    say(f"serving {path} at http://{settings.host}:{port}{open_to}")
    uvicorn.Server(config).run(sockets=[listening])
    say("stopped: every request was answered")


main = command("serve", ServeStage, serve)
